"""What goes wrong for a client, as RFC 9457 problem documents that name the field, the limit and the remedy."""

from __future__ import annotations

import secrets
from typing import Any

import msgspec
import structlog
from aiohttp import web

from api.measures import PROBLEM
from cluster.repair import REPLICA_DAMAGED
from cluster.room import STORE_FULL
from cluster.trouble import ClusterTrouble
from storage import codes
from storage.operations import Refused

CONTENT_TYPE = "application/problem+json"
SERVER = "trimaran"
_log = structlog.get_logger()


class Problem(Exception):
    """An answer that is not what the client hoped for. `more` are members such as field, limit and remedy."""

    def __init__(self, status: int, slug: str, title: str, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.status, self.slug = status, slug
        self.headers: dict[str, str] = {}
        self.document = {"type": f"urn:trimaran:{slug}", "title": title, "status": status, "detail": detail, **more}

    def response(self) -> web.Response:
        """The HTTP answer."""
        headers = {"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store", "Server": SERVER}
        if self.status == 503:
            headers["Retry-After"] = "1"
        headers |= self.headers
        response = web.Response(status=self.status, body=msgspec.json.encode(self.document), headers=headers)
        response[PROBLEM] = self.slug
        return response


def invalid(field: str, detail: str, remedy: str, limit: int | None = None, status: int = 400) -> Problem:
    """A request that says something it may not say."""
    more: dict[str, Any] = {"field": field, "remedy": remedy}
    if limit is not None:
        more["limit"] = limit
    slug = "too-large" if status == 413 else "invalid-request"
    return Problem(status, slug, "The request is not valid", f"{field}: {detail}", **more)


REFUSALS: dict[str, tuple[int, str, str]] = {
    # code: (status, title, remedy)
    codes.QUEUE_NOT_FOUND: (404, "There is no such queue", "Create it with PUT /v1/queues/{queue}."),
    codes.QUEUE_LIMIT: (409, "There are too many queues", "Delete queues that are not needed."),
    codes.QUEUE_EXISTS: (409, "There is such a queue", "Use it, or another name."),
    codes.SETTINGS_CHANGED: (409, "The settings are not those that were to be replaced", "Look at them again."),
    codes.DEDUP_ID_REQUIRED: (400, "A message needs a dedup id", "Give one, or set the queue's dedup_by to content."),
    codes.BODY_TOO_LARGE: (413, "A body is too large", "Send less, or raise the queue's body_bytes_max."),
    codes.MALFORMED: (400, "The operation is malformed", "Send it as /openapi.json describes."),
    codes.STALE_OPERATION: (409, "The request came too late", "Send it again."),
    codes.IDEMPOTENCY_MISMATCH: (
        422,
        "The Idempotency-Key was used for another request",
        "Use a new key for a new request, and the same key only to repeat one.",
    ),
    codes.IDEMPOTENCY_WINDOW_FULL: (429, "Too many Idempotency-Keys are remembered", "Try again in some minutes."),
    codes.ACCESS_KEY_NOT_FOUND: (404, "There is no such access key", "GET /v1/keys lists them."),
    codes.ACCESS_KEY_EXISTS: (409, "There is such an access key", "Make another."),
    codes.ACCESS_KEY_LIMIT: (409, "There are too many access keys", "Revoke those that are not needed."),
    codes.FIRST_ADMIN: (409, "The first access key must be an admin's", "Make one with the role admin first."),
    codes.LAST_ADMIN: (
        409,
        "The last admin's key goes last",
        "Make another admin's key first, or revoke all others first.",
    ),
    codes.QUEUE_FULL: (507, "The queue is full", "Receive and ack messages, or raise its limits."),
    codes.SETTING_FIXED: (
        409,
        "The setting of an existing queue cannot change",
        "Delete the queue first, or use another.",
    ),
    codes.DEAD_LETTER_KIND: (
        409,
        "The dead-letter queue is of the other kind",
        "The dead-letter queue of a fifo queue is fifo, that of any other is not.",
    ),
    codes.DEAD_LETTER_DENIED: (
        409,
        "The dead-letter queue does not take this queue's messages",
        "Name the queue in its dead_letters_from, or choose another.",
    ),
    codes.GROUP_REQUIRED: (400, "A message of a fifo queue needs a group", "Give the message a group."),
    codes.PRIORITY_NOT_ALLOWED: (
        400,
        "A queue whose groups decide the order has no priorities",
        "Send without priority, or to a queue that is neither fifo nor fair and limits no groups.",
    ),
    codes.CONSUMER_REQUIRED: (400, "A single-active queue must know its consumers", "Name the consumer."),
    codes.MESSAGE_NOT_FOUND: (404, "There is no such message", "It was acked, has expired, or was never there."),
    codes.MESSAGE_LEASED: (
        409,
        "The message is leased",
        "Wait until it is nacked or its lease ends: GET …/why says when, and who holds it.",
    ),
    codes.FILTER_NOT_ALLOWED: (
        409,
        "A queue whose groups decide the order takes no filters",
        "Receive without a filter, or have a topic route what you want to another queue (docs/topics.md).",
    ),
    codes.SELECTOR_LIMIT: (
        429,
        "Consumers ask with too many different filters",
        "Use one of the filters that GET /v1/queues/{queue} tells, exactly as it is; unused ones go after ten minutes.",
    ),
    codes.PARTY_NOT_FOUND: (404, "It is not registered", "Register it with PUT; nobody has to be to send or receive."),
    codes.PARTY_LIMIT: (409, "There are too many producers and consumers", "Delete those that are not needed."),
    codes.SCHEDULE_NOT_FOUND: (404, "There is no such schedule", "Create it with PUT /v1/schedules/{schedule}."),
    codes.SCHEDULE_LIMIT: (409, "There are too many schedules", "Delete schedules that are not needed."),
    codes.TOPIC_NOT_FOUND: (404, "There is no such topic", "Create it with PUT /v1/topics/{topic}."),
    codes.TOPIC_LIMIT: (409, "There are too many topics", "Delete topics that are not needed."),
    codes.TOPIC_FIXED: (409, "A topic is fifo for good, or not at all", "Delete it first, or use another name."),
    codes.TOPIC_KIND: (409, "A topic and its queues are fifo together, or not at all", "Choose a queue of its kind."),
    codes.SUBSCRIPTION_NOT_FOUND: (
        404,
        "There is no such subscription",
        "Create it with PUT /v1/topics/{topic}/subscriptions/{subscription}.",
    ),
    codes.SUBSCRIPTION_LIMIT: (409, "A topic has too many subscriptions", "Delete some, or use another topic."),
    codes.SUBSCRIPTION_CHANGED: (409, "The subscription has changed meanwhile", "Read it, and put it again."),
    codes.LABELS_LIMIT: (413, "A topic's labels are too large", "Take some off: `limit` bytes are allowed in all."),
    codes.COPIES_LIMIT: (413, "One publish goes to too many queues at once", "Publish fewer messages at a time."),
    codes.MATCHING_TOO_LONG: (
        413,
        "Finding out who wants these messages takes too long",
        "Publish fewer messages at a time, or make the topic's patterns and filters simpler.",
    ),
    codes.ROUTES_NOT_FOUND: (
        404,
        "Nothing is known of such a message",
        "Where messages went is remembered for a day, of so many publishes as docs/topics.md says.",
    ),
    codes.STALE_RECEIPT: (409, "A receipt is stale: nothing was done", "Leave it out, and receive the message again."),
    codes.REDRIVE_NOT_FOUND: (
        404,
        "There is no such redrive task",
        "List them with GET /v1/queues/{queue}/redrive; the oldest are forgotten.",
    ),
    codes.REDRIVE_RUNNING: (409, "The queue has a redrive task that runs", "Wait for its end, or cancel it."),
    codes.REDRIVE_IS_UNDO: (409, "An undo cannot be undone", "Redrive the queue again."),
    codes.REDRIVE_TO_NOT_FOUND: (404, "The queue to move to does not exist", "Create it, or name another as to."),
    codes.REDRIVE_TO_KIND: (
        409,
        "The queue to move to is of the other kind",
        "Messages of a fifo queue move to fifo queues, those of any other do not.",
    ),
    codes.REDRIVE_TO_FULL: (
        507,
        "The queue to move to is full",
        "Make room there, and redrive again: nothing is lost.",
    ),
    codes.REDRIVE_TARGETS: (409, "There are too many queues to move to", "Redrive with a filter by queue."),
    codes.REDRIVE_PURGED: (409, "The queue was purged", "There is nothing left to move."),
    codes.REDRIVE_FILTER: (400, "The filter cannot be read", "Run the same version on all nodes; see docs/filters.md."),
    REPLICA_DAMAGED: (503, "This node's replica is damaged", "Ask another node; this one repairs itself if it can."),
    STORE_FULL: (507, "There is no room for more messages", "Receive and ack messages, or give the nodes more disk."),
}
"""How each refusal of the rules is told over HTTP."""


BATCH_PLACE = "$.messages[{position}]"
"""Where a message of a batch stands in a request."""


def refused(refusal: Refused, place: str = BATCH_PLACE) -> Problem:
    """The problem that a refusal is. `place` is where the message at fault stands in the request."""
    status, title, remedy = REFUSALS[refusal.code]
    more: dict[str, Any] = {"remedy": remedy}
    detail, where = title + ".", place.format(position=refusal.position)
    if refusal.limit:
        more["limit"] = refusal.limit
    match refusal.code:
        case codes.BODY_TOO_LARGE:
            more["field"] = f"{where}.body"
            detail = f"{more['field']}: the queue takes bodies of at most {refusal.limit} bytes."
        case codes.QUEUE_FULL:
            detail = f"{title}: its {refusal.detail} is {refusal.limit}."
        case codes.SETTING_FIXED:
            more["field"] = f"$.{refusal.detail}"
        case codes.GROUP_REQUIRED:
            more["field"] = f"{where}.group"
        case codes.PRIORITY_NOT_ALLOWED:
            more["field"] = f"{where}.priority"
        case codes.DEDUP_ID_REQUIRED:
            more["field"] = f"{where}.dedup_id"
    return Problem(status, refusal.code.replace("_", "-"), title, detail, **more)


def of_http(error: web.HTTPException) -> web.Response:
    """What aiohttp refuses by itself, as a problem document."""
    remedy = "Leave the header out." if error.status == 417 else "See /openapi.json."
    detail = "Expect: 100-continue is all that can be expected." if error.status == 417 else f"{error.reason}."
    answer = Problem(error.status, "http", error.reason, detail, remedy=remedy).response()
    if "Allow" in error.headers:
        answer.headers["Allow"] = error.headers["Allow"]
    return answer


@web.middleware
async def tell_problems(request: web.Request, handler: Any) -> web.StreamResponse:
    """Turn everything that is raised into a problem document; what was not foreseen is logged, not shown."""
    try:
        response: web.StreamResponse = await handler(request)
        return response
    except Problem as problem:
        return problem.response()
    except ClusterTrouble as trouble:
        title = "The cluster cannot answer now"
        return Problem(
            503,
            "cluster-trouble",
            title,
            f"{trouble.detail}.",
            outcome=trouble.outcome,
            remedy=REMEDIES[trouble.outcome],
        ).response()
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return of_http(error)
    except Exception as error:
        number = secrets.token_hex(8)
        _log.error("a request failed unexpectedly", id=number, method=request.method, exc_info=error)
        remedy = "Report it with the id; the node's log tells more."
        return Problem(
            500, "unexpected", "The node made a mistake", f"Error {number}.", id=number, remedy=remedy
        ).response()


REMEDIES = {
    "not_done": "Nothing has happened. Send the request again, to any node.",
    "unknown": "It may have happened. Send it again with the same Idempotency-Key: it takes effect once.",
}
