"""The description of everything this node answers, served as /openapi.json. A test holds it against the routes."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from aiohttp import web

from api.examples import EXAMPLES, Example
from api.properties import TYPE, TYPE_CHARACTERS_MAX
from api.request import answer_json
from api.rest import APPLIED_INDEX, MESSAGE_ID_MAX, STALENESS_MS
from storage.access import ROLES
from storage.history import EVENTS
from storage.limits import (
    BATCH_MESSAGES_MAX,
    CRON_CHARACTERS_MAX,
    HOLD_MS_MAX,
    KEY_BYTES_MAX,
    PRIORITY_MAX,
    SCHEDULE_EVERY_MS_MAX,
    SCHEDULE_EVERY_MS_MIN,
    TRANSACTION_MESSAGES_MAX,
    TRANSACTION_STEPS_MAX,
)
from storage.options import SCHEDULE_NAME
from storage.settings import LIMITS, QueueSettings

_QUEUE = {
    "name": "queue",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": r"^[A-Za-z0-9_-]{1,80}(\.fifo)?$"},
}
_TEXT = {"type": "string"}
_ID = {"type": "integer", "minimum": 1}
_COUNT = {"type": "integer", "minimum": 0}
_TIME = {"type": "string", "format": "date-time"}


def _object(required: list[str] | None = None, /, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required or []}


def _closed(required: list[str] | None = None, /, **properties: Any) -> dict[str, Any]:
    return {**_object(required, **properties), "additionalProperties": False}


def _list(items: Any, **bounds: int) -> dict[str, Any]:
    return {"type": "array", "items": items, **bounds}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _steps(required: list[str], /, **properties: Any) -> dict[str, Any]:
    """Steps of a transaction: each has a queue."""
    return _list(_closed(["queue", *required], queue=_QUEUE["schema"], **properties), maxItems=TRANSACTION_STEPS_MAX)


_RECEIPTS = _list(_TEXT, minItems=1, maxItems=BATCH_MESSAGES_MAX)
_SENT = _list(_object(["message_id"], message_id=_ID, timestamp=_TIME, duplicate={"const": True}))
_COUNTS = {"type": "object", "additionalProperties": _COUNT}
_RATE = _ref("Rate")
_LEASE = {"type": "integer", "minimum": LIMITS["lease_ms"][0], "maximum": LIMITS["lease_ms"][1]}
_MILLISECONDS = {"type": "integer", "minimum": 0, "maximum": HOLD_MS_MAX}
_NAMES = {
    "group": _TEXT,
    "key": _TEXT,
    "dedup_id": _TEXT,
    "priority": {"type": "integer", "minimum": 0, "maximum": PRIORITY_MAX},
}
_OPTIONS = {"delay_ms": _MILLISECONDS, "at": _TIME, "ttl_ms": _MILLISECONDS | {"minimum": 1}, **_NAMES}
_ABOUT = {
    "expires": _TIME,
    "first_delivered": _TIME,
    "dead": {"type": "object"},
    "schedule": {**_TEXT, "description": "The schedule that has sent it."},
    "occurrence": {**_TIME, "description": "For which of its times."},
    **_NAMES,
}
_CONTENT_BESIDE_BODY = {
    "attributes": {
        "type": "object",
        "description": "Text, numbers, true and false; bytes as base64 (in msgpack: bin).",
    },
    "attribute_types": {
        "type": "object",
        "description": "Types of attributes that need one: Binary of what is base64, or a label, such as Number.int.",
        "additionalProperties": {"type": "string", "pattern": f"^{TYPE.pattern}$", "maxLength": TYPE_CHARACTERS_MAX},
    },
}
_CONTENT = {"body": _TEXT, "body_base64": _TEXT, **_CONTENT_BESIDE_BODY}


_SCHEDULE_SETTINGS = {
    "cron": {**_TEXT, "maxLength": CRON_CHARACTERS_MAX, "description": "Five fields, or six with seconds in front."},
    "every_ms": {"type": "integer", "minimum": SCHEDULE_EVERY_MS_MIN, "maximum": SCHEDULE_EVERY_MS_MAX},
    "time_zone": {**_TEXT, "default": "UTC", "description": "An IANA name, for cron."},
    "overlap": {"enum": ["allow", "skip"], "default": "allow"},
    "catch_up": {"enum": ["none", "one", "all"], "default": "one"},
    "paused": {"type": "boolean", "default": False},
}


def _settings() -> dict[str, Any]:
    """The schemas of a queue's settings, with their limits."""
    _, found = msgspec.json.schema_components([QueueSettings], ref_template="#/components/schemas/{name}")
    schemas: dict[str, Any] = dict(found)
    settings = schemas["Settings"] = schemas.pop("QueueSettings")
    for name, (low, high) in LIMITS.items():
        settings["properties"][name] |= {"minimum": low, "maximum": high}
    return schemas


_NODE = _object(
    ["name", "address", "reachable", "role"],
    name=_TEXT,
    address=_TEXT,
    reachable={"type": "boolean"},
    role={"enum": ["voter", "learner"]},
    held_index={"type": ["integer", "null"], "description": "Up to where it holds the log, as the leader knows."},
    copy_percent={"type": ["integer", "null"], "description": "How much of a copy it has, while it gets one."},
    scrub={"oneOf": [{"type": "null"}, {"$ref": "#/components/schemas/Scrub"}]},
)

_PATTERNS = _list({**_TEXT, "description": "Names of queues; * stands for any characters."}, minItems=1)
_ACCESS_KEY = {"id": _TEXT, "roles": _list({"enum": list(ROLES)}), "queues": _PATTERNS, "note": _TEXT, "created": _TIME}

SCHEMAS: dict[str, Any] = {
    **_settings(),
    "Queue": _object(
        ["queue", "settings", "created", "ready", "leased", "delayed", "bytes"],
        queue=_TEXT,
        settings=_ref("Settings"),
        created=_TIME,
        ready=_COUNT,
        leased=_COUNT,
        delayed=_COUNT,
        bytes=_COUNT,
        dead=_COUNT,
    ),
    "Message": {
        **_closed(**_CONTENT, **_OPTIONS),
        "description": "A body of any Unicode text, NUL included, or bytes as body_base64 (in msgpack: body as bin).",
        "oneOf": [{"required": ["body"]}, {"required": ["body_base64"]}],
    },
    "Batch": _closed(["messages"], messages=_list(_ref("Message"), minItems=1, maxItems=BATCH_MESSAGES_MAX)),
    "Send": {"anyOf": [_ref("Message"), _ref("Batch")]},
    "Sent": _object(["messages"], messages=_SENT),
    "Receive": _closed(
        max={"type": "integer", "minimum": 1, "maximum": BATCH_MESSAGES_MAX, "default": 1},
        wait_ms={"type": "integer", "minimum": 0, "maximum": 20000, "default": 0},
        lease_ms=_LEASE,
        consumer=_TEXT,
    ),
    "Received": _object(
        ["messages"],
        messages=_list(
            _object(
                ["message_id", "receipt", "attributes", "attempt", "timestamp"],
                message_id=_ID,
                receipt=_TEXT,
                attempt=_ID,
                timestamp=_TIME,
                **_CONTENT,
                **_ABOUT,
            )
        ),
    ),
    "Ack": _closed(["receipts"], receipts=_RECEIPTS),
    "Nack": _closed(["receipts"], receipts=_RECEIPTS, delay_ms=_COUNT, reason=_TEXT),
    "Extend": _closed(["receipts", "lease_ms"], receipts=_RECEIPTS, lease_ms=_LEASE),
    "Results": _object(
        ["results"],
        results=_list(
            _object(
                ["receipt", "status"],
                receipt=_TEXT,
                status={"enum": ["acked", "nacked", "extended", "stale", "invalid"]},
            )
        ),
    ),
    "Listed": _object(
        ["message_id", "state", "attempts", "due", "attributes", "timestamp"],
        message_id=_ID,
        state={"enum": ["ready", "leased", "delayed", "dead"]},
        attempts=_COUNT,
        due={"type": ["string", "null"], "format": "date-time"},
        timestamp=_TIME,
        last_delivered=_TIME,
        consumer={**_TEXT, "description": "To whom it was last delivered."},
        **_CONTENT,
        **_ABOUT,
    ),
    "Page": _object(["messages"], messages=_list(_ref("Listed"))),
    "Change": {
        **_closed(
            **_CONTENT_BESIDE_BODY,
            delay_ms=_MILLISECONDS,
            at=_TIME,
            ttl_ms=_MILLISECONDS,
            priority=_NAMES["priority"],
        ),
        "description": "What shall be otherwise. attributes take the place of all there are; ttl_ms counts from when "
        "the message is due, 0 is as long as the queue says.",
        "minProperties": 1,
        "not": {"required": ["delay_ms", "at"]},
    },
    "History": _object(
        ["message_id", "timestamp", "here", "events", "forgotten"],
        message_id=_ID,
        timestamp=_TIME,
        here={"type": "boolean", "description": "Whether the message still is in the queue."},
        events=_list(
            _object(
                ["timestamp", "event"],
                timestamp=_TIME,
                event={"enum": list(EVENTS)},
                consumer=_TEXT,
                queue={**_TEXT, "description": "Where it moved to, or came from."},
                reason=_TEXT,
            )
        ),
        forgotten={**_COUNT, "description": "Older events of the message and its neighbours that are kept no more."},
    ),
    "Reasons": _object(
        ["message_id", "state", "reasons"],
        message_id=_ID,
        state={"enum": ["ready", "leased", "delayed", "dead"]},
        reasons={
            **_list(_object(["code"], code=_TEXT, until=_TIME, detail=_TEXT)),
            "description": "All that keeps it from being delivered now; none: it is next in its turn.",
        },
    ),
    "Transaction": {
        **_closed(
            acks=_steps(["receipts"], receipts=_RECEIPTS),
            nacks=_steps(["receipts"], receipts=_RECEIPTS, delay_ms=_MILLISECONDS, reason=_TEXT),
            extends=_steps(["receipts", "lease_ms"], receipts=_RECEIPTS, lease_ms=_LEASE),
            sends=_steps(["messages"], messages=_list(_ref("Message"), minItems=1, maxItems=BATCH_MESSAGES_MAX)),
        ),
        "description": f"At most {TRANSACTION_STEPS_MAX} steps with {TRANSACTION_MESSAGES_MAX} receipts and messages "
        "in all, done in this order: acks, nacks, extends, sends.",
        "minProperties": 1,
    },
    "Committed": _object(
        ["acked", "nacked", "extended", "sends"],
        acked=_COUNT,
        nacked=_COUNT,
        extended=_COUNT,
        sends=_list(_object(["queue", "messages"], queue=_TEXT, messages=_SENT)),
    ),
    "RedriveIn": {
        **_closed(
            to={**_TEXT, "description": "Where to. Without it each goes to the queue that gave it up."},
            filter=_closed(
                dead={"type": "object", "description": "Of queue, reason, attempts, consumer, sent_ms, given_up_ms."},
                attributes={"type": "object"},
                body={"type": "object"},
            ),
            rate=_RATE,
            dry_run={"type": "boolean", "description": "Say what would be moved, and move nothing."},
            after={**_COUNT, "description": "Where a dry run goes on that was not complete."},
        ),
        "description": "Filters are in the language of docs/filters.md; all of them must match.",
    },
    "UndoIn": _closed(rate=_RATE),
    "Preview": _object(
        ["dry_run", "looked", "held", "destinations", "complete", "after"],
        dry_run={"const": True},
        looked=_COUNT,
        held=_COUNT,
        destinations=_COUNTS,
        complete={"type": "boolean"},
        after=_COUNT,
    ),
    "Redrive": _object(
        ["task", "queue", "state", "messages", "looked", "moved", "held", "started"],
        task=_ID,
        queue=_TEXT,
        state={"enum": ["running", "done", "cancelled", "stopped"]},
        messages={**_COUNT, "description": "In the queue when it started; of an undo, those that were moved."},
        looked={**_COUNT, "description": "It has looked at so many."},
        moved=_COUNT,
        held={**_COUNT, "description": "Wanted, but leased when it looked: they stayed."},
        started=_TIME,
        ended=_TIME,
        undoes=_ID,
        to={"type": ["string", "null"]},
        filter={"type": "object"},
        destinations=_COUNTS,
        rate=_RATE,
        cause=_object(["code", "title", "remedy"], code=_TEXT, title=_TEXT, remedy=_TEXT, queue=_TEXT),
    ),
    "ScheduleIn": {
        **_closed(["queue", "message"], queue=_QUEUE["schema"], message=_ref("Message"), **_SCHEDULE_SETTINGS),
        "oneOf": [{"required": ["cron"]}, {"required": ["every_ms"]}],
    },
    "SchedulePut": _object(
        ["schedule", "changed", "next"], schedule=_TEXT, changed={"type": "boolean"}, next=_list(_TIME)
    ),
    "Schedule": _object(
        ["schedule", "queue", "message", "overlap", "catch_up", "paused", "created", "next", "sent", "skipped"],
        schedule=_TEXT,
        queue=_TEXT,
        message={"type": "object", "description": "As it can be put again."},
        created=_TIME,
        changed=_TIME,
        next=_list({**_TIME, "description": "Times to come; none while it is paused."}),
        sent=_COUNT,
        skipped={**_COUNT, "description": "Times left out because the message before was still there."},
        last=_object(["occurrence", "sent", "message_id"], occurrence=_TIME, sent=_TIME, message_id=_ID),
        last_skipped=_TIME,
        last_missed={**_TIME, "description": "From when on times were left out, by catch_up, the last time."},
        last_error=_object(["detail", "at"], detail=_TEXT, at=_TIME),
        **_SCHEDULE_SETTINGS,
    ),
    "Schedules": _object(["schedules"], schedules=_list(_ref("Schedule"))),
    "Redrives": _object(["tasks"], tasks=_list(_ref("Redrive"))),
    "DeadLetters": _object(
        ["groups", "complete", "after"],
        groups=_list(
            _object(
                ["reason", "queue", "count", "first_id", "last_id", "first_given_up", "last_given_up"],
                reason=_TEXT,
                queue=_TEXT,
                count=_ID,
                first_id=_ID,
                last_id=_ID,
                first_given_up=_TIME,
                last_given_up=_TIME,
            )
        ),
        complete={"type": "boolean", "description": "Whether these are all; else go on with `after`, and add up."},
        after=_COUNT,
    ),
    "Cluster": _object(
        ["node", "nodes", "shards"],
        node=_TEXT,
        nodes=_list(_NODE),
        shards=_list(
            _object(
                shard=_COUNT,
                leader={"type": ["string", "null"]},
                term=_COUNT,
                commit_index=_COUNT,
                applied_index=_COUNT,
                trouble={"type": ["string", "null"]},
            )
        ),
        warnings=_list(_TEXT),
        cluster=_TEXT,
    ),
    "KeyIn": _closed(["roles"], roles=_list({"enum": list(ROLES)}, minItems=1), queues=_PATTERNS, note=_TEXT),
    "Key": _object(["id", "roles", "queues", "note", "created"], **_ACCESS_KEY),
    "KeyMade": _object(["id", "secret", "roles", "queues", "note", "created"], **_ACCESS_KEY, secret=_TEXT),
    "Keys": _object(["keys"], keys=_list(_ref("Key"))),
    "MemberIn": _closed(["address"], address={**_TEXT, "description": "HOST:PORT of its raft port"}),
    "Member": _object(["name"], name=_TEXT, address=_TEXT),
    "ScrubAsked": _object(
        ["asked_ms"],
        asked_ms={**_COUNT, "description": "A node is through when its scrub.began_ms in /v1/cluster is not earlier."},
    ),
    "Digest": _object(
        ["node", "shards"],
        node=_TEXT,
        shards=_list(_object(shard=_COUNT, applied_index=_COUNT, digest=_TEXT, records=_COUNT)),
    ),
    "Scrub": _object(
        bytes=_COUNT,
        passes=_COUNT,
        began_ms=_COUNT,
        ended_ms=_COUNT,
        damages=_COUNT,
        repairs=_COUNT,
        disagreement={"type": ["string", "null"]},
        ailing={"type": "object", "additionalProperties": _TEXT},
    ),
    "Problem": _object(
        ["type", "title", "status", "detail"],
        type=_TEXT,
        title=_TEXT,
        status=_COUNT,
        detail=_TEXT,
        field=_TEXT,
        limit={"type": "integer"},
        stale={**_list(_TEXT), "description": "Where in the request the receipts stand that were stale."},
        remedy=_TEXT,
        outcome={"enum": ["unknown", "not_done"]},
    ),
    "SeedMessage": _closed(["message"], message=_TEXT),
    "SeedSent": _object(message_id={"type": "integer"}, timestamp=_TEXT),
    "SeedReceived": _object(message_id={"type": "integer"}, content=_TEXT, timestamp=_TEXT, receipt=_TEXT),
    "SeedPage": _object(messages=_list(_ref("SeedReceived"))),
    "SeedAck": _closed(["receipt"], receipt=_TEXT),
    "SeedAcked": _object(receipt=_TEXT, status={"enum": ["acked", "stale", "invalid"]}),
    "Purged": _object(["purged"], purged=_COUNT),
    "QueuePut": _object(["queue"], queue=_TEXT, settings=_ref("Settings"), changed={"type": "boolean"}),
    "Queues": _object(["queues"], queues=_list(_ref("Queue"))),
    "Health": _object(
        ["status"],
        status=_TEXT,
        troubles=_list(_TEXT),
        warnings=_list(_TEXT),
        nodes=_list(_NODE),
        outcome={"enum": ["not_done"]},
    ),
    "Anything": {"type": "object"},
}

_MESSAGE_ID = {
    "name": "message_id",
    "in": "path",
    "required": True,
    "schema": {"type": "integer", "minimum": 1, "maximum": MESSAGE_ID_MAX},
}
_SCHEDULE = {
    "name": "schedule",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": f"^{SCHEDULE_NAME.pattern}$"},
}
_TASK = {
    "name": "task",
    "in": "path",
    "required": True,
    "schema": {"type": "integer", "minimum": 1, "maximum": MESSAGE_ID_MAX},
}
_ACCESS_KEY_ID = {
    "name": "key",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": r"^[A-Z0-9]{16,32}$"},
}
_MEMBER = {
    "name": "member",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$"},
}
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Repeat a request under its key as often as you like, on any node: it takes effect once.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
_FIND_KEY = {
    "name": "key",
    "in": "query",
    "description": "Only messages that were sent with this key.",
    "schema": {"type": "string", "minLength": 1, "maxLength": KEY_BYTES_MAX},
}
_CONSISTENCY = {
    "name": "consistency",
    "in": "query",
    "description": "local: from what this node's own replica has applied, without asking the leader, even without a "
    "majority. The headers then say how stale that may be.",
    "schema": {"enum": ["linearizable", "local"], "default": "linearizable"},
}
_STALENESS: dict[str, Any] = {
    APPLIED_INDEX: {
        "description": "With consistency=local: up to this entry the answering replica has applied the log.",
        "schema": {"type": "integer", "minimum": 1},
    },
    STALENESS_MS: {
        "description": "With consistency=local: so many milliseconds ago the replica had applied everything that was "
        "committed, as far as it was told; unknown when it has not been told since it started.",
        "schema": {"oneOf": [{"type": "integer", "minimum": 0}, {"const": "unknown"}]},
    },
}


_AFTER = {"name": "after", "in": "query", "description": "Go on after this name.", "schema": _TEXT}


def _query(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "in": "query", "schema": {"type": "integer"}} for name in names]


OPERATIONS: tuple[tuple[str, str, str, str | None, dict[int, str | None], list[dict[str, Any]]], ...] = (
    # method, path, summary, request schema, answers, parameters
    ("get", "/v1/queues", "List queues", None, {200: "Queues"}, [*_query("limit"), _CONSISTENCY]),
    ("put", "/v1/queues/{queue}", "Create a queue", "Settings", {201: "QueuePut", 200: "QueuePut"}, [_QUEUE, _KEY]),
    ("get", "/v1/queues/{queue}", "Settings and counts of a queue", None, {200: "Queue"}, [_QUEUE, _CONSISTENCY]),
    ("delete", "/v1/queues/{queue}", "Delete a queue", None, {204: None}, [_QUEUE, _KEY]),
    ("post", "/v1/queues/{queue}/purge", "Forget all messages", None, {200: "Purged"}, [_QUEUE, _KEY]),
    (
        "post",
        "/v1/queues/{queue}/messages",
        "Send a message, or a batch all or none",
        "Send",
        {201: "Sent"},
        [_QUEUE, _KEY],
    ),
    (
        "get",
        "/v1/queues/{queue}/messages",
        "Browse without leasing",
        None,
        {200: "Page"},
        [_QUEUE, _FIND_KEY, *_query("after", "limit"), _CONSISTENCY],
    ),
    (
        "get",
        "/v1/queues/{queue}/messages/{message_id}",
        "One message, whatever its state",
        None,
        {200: "Listed"},
        [_QUEUE, _MESSAGE_ID, _CONSISTENCY],
    ),
    (
        "patch",
        "/v1/queues/{queue}/messages/{message_id}",
        "Change a message that nobody holds",
        "Change",
        {204: None},
        [_QUEUE, _MESSAGE_ID, _KEY],
    ),
    (
        "delete",
        "/v1/queues/{queue}/messages/{message_id}",
        "Forget a message, whatever its state",
        None,
        {204: None},
        [_QUEUE, _MESSAGE_ID, _KEY],
    ),
    (
        "get",
        "/v1/queues/{queue}/messages/{message_id}/history",
        "What happened to a message",
        None,
        {200: "History"},
        [_QUEUE, _MESSAGE_ID, _CONSISTENCY],
    ),
    (
        "get",
        "/v1/queues/{queue}/messages/{message_id}/why",
        "Why a message is not being delivered now",
        None,
        {200: "Reasons"},
        [_QUEUE, _MESSAGE_ID, _CONSISTENCY],
    ),
    ("post", "/v1/queues/{queue}/receive", "Lease messages", "Receive", {200: "Received"}, [_QUEUE, _KEY]),
    ("post", "/v1/queues/{queue}/ack", "Messages are done", "Ack", {200: "Results"}, [_QUEUE, _KEY]),
    ("post", "/v1/queues/{queue}/nack", "Deliver messages again", "Nack", {200: "Results"}, [_QUEUE, _KEY]),
    ("post", "/v1/queues/{queue}/extend", "Hold messages longer", "Extend", {200: "Results"}, [_QUEUE, _KEY]),
    ("post", "/v1/transactions", "Settle and send, all or nothing", "Transaction", {200: "Committed"}, [_KEY]),
    (
        "get",
        "/v1/queues/{queue}/dead-letters",
        "Dead letters by reason, the most frequent first",
        None,
        {200: "DeadLetters"},
        [
            _QUEUE,
            {"name": "group_by", "in": "query", "schema": {"enum": ["reason"], "default": "reason"}},
            *_query("after"),
            _CONSISTENCY,
        ],
    ),
    (
        "post",
        "/v1/queues/{queue}/redrive",
        "Give dead letters another chance, or say which would get one",
        "RedriveIn",
        {201: "Redrive", 200: "Preview"},
        [_QUEUE, _KEY],
    ),
    ("get", "/v1/queues/{queue}/redrive", "The latest tasks", None, {200: "Redrives"}, [_QUEUE, _CONSISTENCY]),
    (
        "get",
        "/v1/queues/{queue}/redrive/{task}",
        "How far a task is",
        None,
        {200: "Redrive"},
        [_QUEUE, _TASK, _CONSISTENCY],
    ),
    ("delete", "/v1/queues/{queue}/redrive/{task}", "Stop a task", None, {200: "Redrive"}, [_QUEUE, _TASK, _KEY]),
    (
        "post",
        "/v1/queues/{queue}/redrive/{task}/undo",
        "Take back what a task has moved and nobody has received since",
        "UndoIn",
        {201: "Redrive"},
        [_QUEUE, _TASK, _KEY],
    ),
    ("get", "/v1/schedules", "List schedules", None, {200: "Schedules"}, [*_query("limit"), _AFTER, _CONSISTENCY]),
    (
        "put",
        "/v1/schedules/{schedule}",
        "Send a message at times",
        "ScheduleIn",
        {201: "SchedulePut", 200: "SchedulePut"},
        [_SCHEDULE, _KEY],
    ),
    (
        "get",
        "/v1/schedules/{schedule}",
        "A schedule: what it sends when, and what came of it",
        None,
        {200: "Schedule"},
        [_SCHEDULE, _CONSISTENCY],
    ),
    ("delete", "/v1/schedules/{schedule}", "Forget a schedule", None, {204: None}, [_SCHEDULE, _KEY]),
    ("get", "/v1/cluster", "What this node knows of the cluster", None, {200: "Cluster"}, []),
    ("put", "/v1/cluster/members/{member}", "Add a member: a learner first", "MemberIn", {200: "Member"}, [_MEMBER]),
    ("patch", "/v1/cluster/members/{member}", "A member has moved", "MemberIn", {200: "Member"}, [_MEMBER]),
    ("delete", "/v1/cluster/members/{member}", "Remove a member for good", None, {200: "Member"}, [_MEMBER]),
    ("post", "/v1/cluster/scrub", "Read everything stored again and compare the nodes", None, {202: "ScrubAsked"}, []),
    ("get", "/v1/cluster/digest", "The digest of this node's own replica", None, {200: "Digest"}, []),
    ("get", "/v1/keys", "List access keys, without secrets", None, {200: "Keys"}, []),
    ("post", "/v1/keys", "Make an access key: the one time that its secret is told", "KeyIn", {201: "KeyMade"}, [_KEY]),
    ("get", "/v1/keys/{key}", "One access key, without its secret", None, {200: "Key"}, [_ACCESS_KEY_ID]),
    ("delete", "/v1/keys/{key}", "Revoke an access key", None, {204: None}, [_ACCESS_KEY_ID]),
    ("post", "/send_message", "Send a new message to the queue", "SeedMessage", {201: "SeedSent"}, [_KEY]),
    ("get", "/receive_message", "Receive the next message; {} if there is none", None, {200: "SeedReceived"}, [_KEY]),
    ("get", "/messages", "All messages in the queue", None, {200: "SeedPage"}, _query("after", "limit")),
    ("post", "/ack_message", "A received message is done", "SeedAck", {200: "SeedAcked"}, [_KEY]),
    ("get", "/", "Where to look", None, {200: "Anything"}, []),
    ("get", "/healthz", "Whether this node is alive", None, {200: "Health"}, []),
    ("get", "/readyz", "Whether this node is fit for work", None, {200: "Health", 503: "Health"}, _query("verbose")),
    ("get", "/openapi.json", "This document", None, {200: "Anything"}, []),
)


def template(path: str) -> str:
    """The path as it is described: with names in place of what is in it. What is not described stays as it is."""
    path = path.partition("?")[0]
    described = {path for _, path, *_ in OPERATIONS}
    fitting = [each for each in described if re.fullmatch(re.sub(r"\\{.*?\\}", "[^/]+", re.escape(each)), path)]
    return min(fitting, key=lambda each: each.count("{"), default=path)


def _content(name: str, examples: list[Any]) -> dict[str, Any]:
    return {
        "application/json": {"schema": _ref(name), **_shown(examples)},
        "application/msgpack": {"schema": _ref(name)},
    }


def _problem(examples: list[Any]) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": _ref("Problem"), **_shown(examples)}}
    return {"description": "Refused", "content": content}


def _shown(examples: list[Any]) -> dict[str, Any]:
    return {"examples": {str(number): {"value": each} for number, each in enumerate(examples, 1)}} if examples else {}


def document() -> dict[str, Any]:
    """The OpenAPI document."""
    paths: dict[str, Any] = {}
    examples: dict[tuple[str, str], list[Example]] = {}
    for example in EXAMPLES:
        examples.setdefault((example.method, template(example.path)), []).append(example)
    for method, path, summary, wanted, answers, parameters in OPERATIONS:
        shown = examples.get((method, path), [])
        responses: dict[str, Any] = {}
        for status, name in answers.items():
            responses[str(status)] = {"description": summary}
            if name:
                told = [example.answer for example in shown if example.status == status and example.answer is not None]
                responses[str(status)]["content"] = _content(name, told)
        told = [example.answer for example in shown if example.status >= 400]
        responses["default"] = _problem(told)
        if _CONSISTENCY in parameters:
            responses["200"]["headers"] = _STALENESS
        operation: dict[str, Any] = {"summary": summary, "parameters": parameters, "responses": responses}
        if wanted is not None:
            asked = [example.body for example in shown if example.body is not None and example.status < 400]
            operation["requestBody"] = {"content": _content(wanted, asked)}
        paths.setdefault(path, {})[method] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Trimaran", "version": "0.1.0", "description": "A replicated, durable message queue."},
        "paths": paths,
        "components": {"schemas": SCHEMAS, "securitySchemes": {"key": {"type": "http", "scheme": "basic"}}},
        "security": [{"key": []}, {}],
    }


_DOCUMENT = msgspec.Raw(msgspec.json.encode(document()))


async def openapi(request: web.Request) -> web.Response:
    """This document."""
    return answer_json(_DOCUMENT)


ROUTES = (web.get("/openapi.json", openapi, allow_head=False),)
