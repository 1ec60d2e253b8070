"""Examples of requests and answers, shown in /openapi.json: one story, which a test tells to a node from its first line
to its last. Receipts are real, because a receive under an Idempotency-Key always comes to the same."""

from __future__ import annotations

from typing import Any, NamedTuple


class Example(NamedTuple):
    """A request and what is answered.

    asks: method and path. key: its Idempotency-Key. answer: the whole document; None: not shown, and only held against
    its schema.
    """

    asks: str
    body: Any = None
    status: int = 200
    answer: Any = None
    key: str = ""

    @property
    def method(self) -> str:
        """The method, as OpenAPI writes it."""
        return self.asks.partition(" ")[0].lower()

    @property
    def path(self) -> str:
        """The path with its query string."""
        return self.asks.partition(" ")[2]


_AT = "2023-11-14T22:13:20.000Z"
_ORDER = {
    "message_id": 1,
    "state": "ready",
    "attempts": 0,
    "due": None,
    "attributes": {"colour": "red"},
    "body": "one sloop",
    "timestamp": _AT,
    "key": "order 7",
}
_NO_WIND = {"dead": {"reason": ["no wind"]}}
_TRIP = "1655f004e91237fbf1"
_R1, _R3, _R4 = "17a314955fe9792391", "17a314955fe9792393", "17a314955fe9792394"

_DIGEST = {
    "cron": "0 9 * * MON-FRI",
    "time_zone": "Europe/Berlin",
    "queue": "mails",
    "message": {"body": "what is new", "attributes": {"to": "crew"}, "ttl_ms": 3_600_000},
    "catch_up": "none",
}
_MORNINGS = [f"2023-11-{day}T08:00:00.000Z" for day in (15, 16, 17, 20, 21)]

EXAMPLES: tuple[Example, ...] = (
    Example("PUT /v1/queues/dead", {}, 201),
    Example("PUT /v1/queues/mails", {}, 201),
    Example("PUT /v1/queues/orders", {"attempts_max": 5, "dead_letter_queue": "dead", "history_ms": 3_600_000}, 201),
    Example("GET /v1/queues?limit=100"),
    Example("GET /v1/queues/orders?consistency=local"),
    # --- messages -----------------------------------------------------------------------------------------------------
    Example(
        "POST /v1/queues/orders/messages",
        {"body": "one sloop", "key": "order 7", "attributes": {"colour": "red"}},
        201,
        {"messages": [{"message_id": 1, "timestamp": _AT}]},
        key="7f3a",
    ),
    Example(
        "POST /v1/queues/orders/messages",
        {
            "messages": [
                {"body": "two oars", "delay_ms": 60_000},
                {"body_base64": "AP8=", "priority": 9},
                {"body": "a buoy", "ttl_ms": 3_600_000},
            ]
        },
        201,
        {"messages": [{"message_id": number, "timestamp": _AT} for number in (2, 3, 4)]},
    ),
    Example("GET /v1/queues/orders/messages?after=0&limit=1", answer={"messages": [_ORDER]}),
    Example("GET /v1/queues/orders/messages?key=order%207", answer={"messages": [_ORDER]}),
    Example("GET /v1/queues/orders/messages/1", answer=_ORDER),
    Example(
        "GET /v1/queues/orders/messages/2/why",
        answer={
            "message_id": 2,
            "state": "delayed",
            "reasons": [{"code": "delayed", "until": "2023-11-14T22:14:20.000Z"}],
        },
    ),
    Example("PATCH /v1/queues/orders/messages/2", {"at": "2030-01-31T08:00:00+01:00", "priority": 5}, 204),
    Example("DELETE /v1/queues/orders/messages/2", None, 204),
    Example(
        "POST /v1/queues/orders/receive",
        {"max": 3, "lease_ms": 60_000, "consumer": "worker 1"},
        answer={
            "messages": [
                {
                    "message_id": 3,
                    "receipt": _R3,
                    "attributes": {},
                    "body_base64": "AP8=",
                    "attempt": 1,
                    "timestamp": _AT,
                    "priority": 9,
                    "first_delivered": _AT,
                },
                {
                    "message_id": 1,
                    "receipt": _R1,
                    "attributes": {"colour": "red"},
                    "body": "one sloop",
                    "attempt": 1,
                    "timestamp": _AT,
                    "key": "order 7",
                    "first_delivered": _AT,
                },
                {
                    "message_id": 4,
                    "receipt": _R4,
                    "attributes": {},
                    "body": "a buoy",
                    "attempt": 1,
                    "timestamp": _AT,
                    "expires": "2023-11-14T23:13:20.000Z",
                    "first_delivered": _AT,
                },
            ]
        },
        key="9c41",
    ),
    Example(
        "POST /v1/queues/orders/receive",
        {"filter": {"colour": ["blue", {"prefix": "dark "}]}, "wait_ms": 0},
        answer={"messages": []},
    ),
    Example(
        "GET /v1/queues/orders/messages/1/history",
        answer={
            "message_id": 1,
            "timestamp": _AT,
            "here": True,
            "events": [{"timestamp": _AT, "event": "leased", "consumer": "worker 1"}],
            "forgotten": 0,
        },
    ),
    Example(
        "POST /v1/queues/orders/extend",
        {"receipts": [_R1], "lease_ms": 120_000},
        answer={"results": [{"receipt": _R1, "status": "extended"}]},
    ),
    Example(
        "POST /v1/queues/orders/nack",
        {"receipts": [_R3], "delay_ms": 5_000, "reason": "the yard is closed"},
        answer={"results": [{"receipt": _R3, "status": "nacked"}]},
    ),
    Example(
        "POST /v1/queues/orders/ack",
        {"receipts": [_R4]},
        answer={"results": [{"receipt": _R4, "status": "acked"}]},
    ),
    Example(
        "POST /v1/transactions",
        {
            "acks": [{"queue": "orders", "receipts": [_R1]}],
            "sends": [{"queue": "mails", "messages": [{"body": "your sloop is on its way"}]}],
        },
        answer={
            "acked": 1,
            "nacked": 0,
            "extended": 0,
            "sends": [{"queue": "mails", "messages": [{"message_id": 1, "timestamp": _AT}]}],
        },
        key="e5d2",
    ),
    Example(
        "POST /v1/transactions",
        {"nacks": [{"queue": "orders", "receipts": [_R4]}]},
        409,
        {
            "type": "urn:trimaran:stale-receipt",
            "title": "A receipt is stale: nothing was done",
            "status": 409,
            "detail": "$.nacks[0].receipts[0]: the message is not held under it any more.",
            "remedy": "Leave it out, and receive the message again.",
            "field": "$.nacks[0].receipts[0]",
            "stale": ["$.nacks[0].receipts[0]"],
        },
    ),
    Example("POST /v1/queues/orders/purge", answer={"purged": 1}),
    Example("DELETE /v1/queues/orders", None, 204),
    # --- dead letters -------------------------------------------------------------------------------------------------
    Example("PUT /v1/queues/trips", {"attempts_max": 1, "dead_letter_queue": "dead"}, 201),
    Example("POST /v1/queues/trips/messages", {"body": "to Fiji"}, 201),
    Example("POST /v1/queues/trips/receive", {"consumer": "worker 1"}, key="e2b8"),
    Example("POST /v1/queues/trips/nack", {"receipts": [_TRIP], "reason": "no wind"}),
    Example(
        "GET /v1/queues/dead/dead-letters?group_by=reason",
        answer={
            "groups": [
                {
                    "reason": "no wind",
                    "queue": "trips",
                    "count": 1,
                    "first_id": 1,
                    "last_id": 1,
                    "first_given_up": _AT,
                    "last_given_up": _AT,
                }
            ],
            "complete": True,
            "after": 1,
        },
    ),
    Example(
        "POST /v1/queues/dead/redrive",
        {"filter": _NO_WIND, "dry_run": True},
        answer={
            "dry_run": True,
            "looked": 1,
            "held": 0,
            "destinations": {"trips": 1},
            "complete": True,
            "after": 1,
        },
    ),
    Example(
        "POST /v1/queues/dead/redrive",
        {"filter": _NO_WIND, "rate": {"messages": 100}},
        201,
        {
            "task": 1,
            "queue": "dead",
            "state": "running",
            "messages": 1,
            "looked": 0,
            "moved": 0,
            "held": 0,
            "started": _AT,
            "to": None,
            "filter": _NO_WIND,
            "destinations": {},
            "rate": {"messages": 100, "per_ms": 1000, "burst": 0},
        },
    ),
    Example("DELETE /v1/queues/dead/redrive/1"),
    Example("GET /v1/queues/dead/redrive/1"),
    Example("POST /v1/queues/dead/redrive/1/undo", {}, 201),
    Example("GET /v1/queues/dead/redrive"),
    # --- schedules ----------------------------------------------------------------------------------------------------
    Example("PUT /v1/schedules/digest", _DIGEST, 201, {"schedule": "digest", "changed": True, "next": _MORNINGS}),
    Example(
        "GET /v1/schedules/digest",
        answer={
            "schedule": "digest",
            **_DIGEST,
            "message": {"body": "what is new", "attributes": {"to": "crew"}, "ttl_ms": 3_600_000},
            "overlap": "allow",
            "paused": False,
            "created": _AT,
            "next": _MORNINGS,
            "sent": 0,
            "skipped": 0,
        },
    ),
    Example("GET /v1/schedules?limit=10"),
    Example("PATCH /v1/schedules/digest", {"paused": True}, 204),
    Example(
        "PUT /v1/schedules/leap",
        {"cron": "0 0 30 2 *", "queue": "mails", "message": {"body": "never"}},
        400,
        {
            "type": "urn:trimaran:invalid-request",
            "title": "The request is not valid",
            "status": 400,
            "detail": "$.cron: character 5: this never fires: no month has such a day",
            "field": "$.cron",
            "remedy": "docs/schedules.md has the rules, and examples.",
        },
    ),
    Example("DELETE /v1/schedules/digest", None, 204),
    # --- topics -------------------------------------------------------------------------------------------------------
    Example("PUT /v1/topics/shop", {}, 201, {"topic": "shop", "fifo": False, "changed": True}),
    Example(
        "PUT /v1/topics/shop/subscriptions/mails",
        {"queue": "mails", "pattern": "orders.*", "filter": {"total": [{"numeric": [">=", 100]}]}},
        201,
    ),
    Example("GET /v1/topics"),
    Example("GET /v1/topics/shop"),
    Example("GET /v1/topics/shop/subscriptions"),
    Example("GET /v1/topics/shop/subscriptions/mails"),
    Example(
        "POST /v1/topics/shop/messages?dry_run=true",
        {"routing_key": "orders.paid", "body": "one sloop", "attributes": {"total": 20}},
    ),
    Example(
        "POST /v1/topics/shop/messages",
        {"routing_key": "orders.paid", "body": "one frigate", "attributes": {"total": 900}},
        201,
    ),
    Example("GET /v1/topics/shop/messages/1"),
    Example(
        "PUT /v1/topics/shop/subscriptions/odd",
        {"queue": "mails", "filter": {"total": [{"numeric": ["about", 100]}]}},
        400,
    ),
    Example("DELETE /v1/topics/shop/subscriptions/mails", status=204),
    Example("DELETE /v1/topics/shop", status=204),
    # --- producers and consumers --------------------------------------------------------------------------------------
    Example("PUT /v1/producers/shop", {"name": "The shop", "type": "web"}, 201, {"id": "shop", "changed": True}),
    Example("PUT /v1/consumers/worker%201", {"name": "Worker 1", "type": "mailer"}, 201),
    Example("POST /v1/queues/mails/messages", {"body": "thanks", "producer": "shop"}, 201),
    Example(
        "GET /v1/producers/shop",
        answer={"id": "shop", "name": "The shop", "type": "web", "registered": _AT, "seen": _AT},
    ),
    Example("GET /v1/producers?limit=10"),
    Example("GET /v1/consumers?limit=10"),
    Example("GET /v1/consumers/worker%201"),
    Example("DELETE /v1/consumers/worker%201", None, 204),
    Example("DELETE /v1/producers/shop", None, 204),
    # --- the simple API -----------------------------------------------------------------------------------------------
    Example("POST /send_message", {"message": "Hello, world!"}, 201, {"message_id": 1, "timestamp": _AT}),
    Example(
        "GET /messages?after=0&limit=10",
        answer={"messages": [{"message_id": 1, "content": "Hello, world!", "timestamp": _AT}]},
    ),
    Example(
        "GET /receive_message",
        answer={
            "message_id": 1,
            "content": "Hello, world!",
            "timestamp": _AT,
            "receipt": "160b0ab4d5866c7ff1",
        },
        key="51d0",
    ),
    Example(
        "POST /ack_message",
        {"receipt": "160b0ab4d5866c7ff1"},
        answer={"receipt": "160b0ab4d5866c7ff1", "status": "acked"},
    ),
)
