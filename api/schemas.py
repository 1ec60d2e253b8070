"""The schemas of everything that is asked and answered, with the limits that the rules have. See `api.openapi`."""

from __future__ import annotations

from typing import Any

import msgspec

from api.messages import ATTRIBUTES_MAX
from api.properties import TYPE, TYPE_CHARACTERS_MAX
from storage.access import ROLES
from storage.history import EVENTS
from storage.limits import (
    ACCESS_NOTE_BYTES_MAX,
    ACCESS_PATTERNS_MAX,
    BATCH_MESSAGES_MAX,
    CONSUMER_BYTES_MAX,
    CRON_CHARACTERS_MAX,
    DEDUP_BYTES_MAX,
    GROUP_BYTES_MAX,
    HOLD_MS_MAX,
    KEY_BYTES_MAX,
    PARTY_TEXT_BYTES_MAX,
    PRIORITY_MAX,
    REASON_BYTES_MAX,
    ROUTING_CHARACTERS_MAX,
    SCHEDULE_EVERY_MS_MAX,
    SCHEDULE_EVERY_MS_MIN,
    SOURCES_MAX,
    TAGS_MAX,
    TRANSACTION_MESSAGES_MAX,
    TRANSACTION_STEPS_MAX,
    WAIT_MS_MAX,
)
from storage.settings import LIMITS, SPECIAL, QueueSettings

QUEUE = {"type": "string", "pattern": r"^[A-Za-z0-9_-]{1,80}(\.fifo)?$"}
TEXT = {"type": "string"}
_FLAG = {"type": "boolean"}
_ID = {"type": "integer", "minimum": 1}
_COUNT = {"type": "integer", "minimum": 0}
_TIME = {"type": "string", "format": "date-time"}


def _object(required: list[str] | None = None, /, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required or []}


def _closed(required: list[str] | None = None, /, **properties: Any) -> dict[str, Any]:
    return {**_object(required, **properties), "additionalProperties": False}


def _list(items: Any, **bounds: int) -> dict[str, Any]:
    return {"type": "array", "items": items, **bounds}


def ref(name: str) -> dict[str, str]:
    """A schema by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def _steps(required: list[str], /, **properties: Any) -> dict[str, Any]:
    """Steps of a transaction: each has a queue."""
    return _list(_closed(["queue", *required], queue=QUEUE, **properties), maxItems=TRANSACTION_STEPS_MAX)


def _bytes_max(limit: int, least: int = 1) -> dict[str, Any]:
    return {"type": "string", "minLength": least, "maxLength": limit, "description": f"At most {limit} bytes in UTF-8."}


_RECEIPTS = _list(TEXT, minItems=1, maxItems=BATCH_MESSAGES_MAX)
_SENT = _list(_object(["message_id"], message_id=_ID, timestamp=_TIME, duplicate={"const": True}))
_COUNTS = {"type": "object", "additionalProperties": _COUNT}
_RATE = ref("Rate")
_LEASE = {"type": "integer", "minimum": LIMITS["lease_ms"][0], "maximum": LIMITS["lease_ms"][1]}
_MILLISECONDS = {"type": "integer", "minimum": 0, "maximum": HOLD_MS_MAX}
_CONSUMER, _REASON = _bytes_max(CONSUMER_BYTES_MAX, 0), _bytes_max(REASON_BYTES_MAX, 0)
_NAMES = {
    "group": _bytes_max(GROUP_BYTES_MAX),
    "key": _bytes_max(KEY_BYTES_MAX),
    "dedup_id": _bytes_max(DEDUP_BYTES_MAX),
    "producer": {**_bytes_max(CONSUMER_BYTES_MAX), "description": "Who sends it."},
    "priority": {"type": "integer", "minimum": 0, "maximum": PRIORITY_MAX},
}
_OPTIONS = {"delay_ms": _MILLISECONDS, "at": _TIME, "ttl_ms": _MILLISECONDS | {"minimum": 1}, **_NAMES}
_ABOUT = {
    "expires": _TIME,
    "first_delivered": _TIME,
    "dead": _object(
        ["queue", "message_id", "reason", "attempts", "consumer", "sent", "given_up"],
        queue={**TEXT, "description": "Which queue has given it up."},
        message_id={**_ID, "description": "Its id there."},
        reason=TEXT,
        attempts=_COUNT,
        consumer=TEXT,
        sent=_TIME,
        given_up=_TIME,
    ),
    "schedule": {**TEXT, "description": "The schedule that has sent it."},
    "occurrence": {**_TIME, "description": "For which of its times."},
    "topic": {**TEXT, "description": "The topic that it came by."},
    "topic_message_id": {**_ID, "description": "Its id there."},
    "routing_key": TEXT,
    **_NAMES,
}
_CONTENT_BESIDE_BODY = {
    "attributes": {
        "type": "object",
        "description": "Text, numbers, true and false; bytes as base64 (in msgpack: bin).",
        "additionalProperties": {"type": ["string", "number", "boolean"]},
        "maxProperties": ATTRIBUTES_MAX,
    },
    "attribute_types": {
        "type": "object",
        "description": "Types of attributes that need one: Binary of what is base64, or a label, such as Number.int.",
        "additionalProperties": {"type": "string", "pattern": f"^{TYPE.pattern}$", "maxLength": TYPE_CHARACTERS_MAX},
    },
}
_CONTENT = {"body": TEXT, "body_base64": TEXT, **_CONTENT_BESIDE_BODY}


_PARTY_TEXT = _bytes_max(PARTY_TEXT_BYTES_MAX, 0)
_SCHEDULE_SETTINGS = {
    "cron": {**TEXT, "maxLength": CRON_CHARACTERS_MAX, "description": "Five fields, or six with seconds in front."},
    "every_ms": {"type": "integer", "minimum": SCHEDULE_EVERY_MS_MIN, "maximum": SCHEDULE_EVERY_MS_MAX},
    "time_zone": {**TEXT, "default": "UTC", "description": "An IANA name, for cron."},
    "overlap": {"enum": ["allow", "skip"], "default": "allow"},
    "catch_up": {"enum": ["none", "one", "all"], "default": "one"},
    "paused": {"type": "boolean", "default": False},
    "routing_key": {**TEXT, "maxLength": ROUTING_CHARACTERS_MAX, "description": "For a topic."},
}


def _settings() -> dict[str, Any]:
    """The schemas of a queue's settings, with their limits."""
    _, found = msgspec.json.schema_components([QueueSettings], ref_template="#/components/schemas/{name}")
    schemas: dict[str, Any] = dict(found)
    settings = schemas["Settings"] = schemas.pop("QueueSettings")
    for name, (low, high) in LIMITS.items():
        bounds: dict[str, Any] = {"minimum": low, "maximum": high}
        settings["properties"][name] |= {"anyOf": [{"const": SPECIAL[name]}, bounds]} if name in SPECIAL else bounds
    settings["properties"]["tags"] |= {"maxProperties": TAGS_MAX, "propertyNames": {"minLength": 1}}
    settings["properties"]["sqs"] |= {"propertyNames": {"minLength": 1}}
    sources = {"type": "array", "items": QUEUE, "maxItems": SOURCES_MAX}
    settings["properties"]["dead_letters_from"] = {"anyOf": [sources, {"type": "null"}], "default": None}
    return schemas


_NODE = _object(
    ["name", "address", "reachable", "role"],
    name=TEXT,
    address=TEXT,
    reachable={"type": "boolean"},
    role={"enum": ["voter", "learner"]},
    held_index={"type": ["integer", "null"], "description": "Up to where it holds the log, as the leader knows."},
    copy_percent={"type": ["integer", "null"], "description": "How much of a copy it has, while it gets one."},
    scrub={"oneOf": [{"type": "null"}, {"$ref": "#/components/schemas/Scrub"}]},
)

_PATTERN = {**TEXT, "description": "Names of queues; * stands for any characters."}
_PATTERNS = _list(_PATTERN, minItems=1, maxItems=ACCESS_PATTERNS_MAX)
_NOTE = _bytes_max(ACCESS_NOTE_BYTES_MAX, 0)
_ACCESS_KEY = {"id": TEXT, "roles": _list({"enum": list(ROLES)}), "queues": _PATTERNS, "note": TEXT, "created": _TIME}

_ROUTING_KEY = {**TEXT, "maxLength": ROUTING_CHARACTERS_MAX}
_SUBSCRIBED: dict[str, Any] = {"topic": TEXT, "subscription": TEXT, "queue": TEXT}
_WANTED: dict[str, Any] = {
    "pattern": {**_ROUTING_KEY, "default": "#"},
    "filter": {"type": ["object", "null"]},
    "filter_on": {"enum": ["attributes", "body"], "default": "attributes"},
}
_VERDICT = _object(["subscription", "queue", "takes"], subscription=TEXT, queue=TEXT, takes=_FLAG, why=TEXT)

SCHEMAS: dict[str, Any] = {
    **_settings(),
    "Queue": _object(
        ["queue", "settings", "created", "ready", "leased", "delayed", "bytes"],
        queue=TEXT,
        settings=ref("Settings"),
        created=_TIME,
        ready=_COUNT,
        leased=_COUNT,
        delayed=_COUNT,
        bytes=_COUNT,
        dead=_COUNT,
        active={**TEXT, "description": "The consumer that alone receives, of a single_active queue."},
        filters=_list(  # of a queue asked for by name
            _object(
                ["filter", "filter_on", "last_used", "unsifted"],
                filter={"type": "object"},
                filter_on={"enum": ["attributes", "body"]},
                last_used=_TIME,
                unsifted={**_COUNT, "description": "So many ids, at most, are still to be put to it."},
            ),
        ),
    ),
    "Message": {
        **_closed(**_CONTENT, **_OPTIONS),
        "description": "A body of any Unicode text, NUL included, or bytes as body_base64 (in msgpack: body as bin).",
        "oneOf": [{"required": ["body"]}, {"required": ["body_base64"]}],
    },
    "Batch": _closed(["messages"], messages=_list(ref("Message"), minItems=1, maxItems=BATCH_MESSAGES_MAX)),
    "Send": {"anyOf": [ref("Message"), ref("Batch")]},
    "CloudEvent": {
        **_object(
            ["specversion", "id", "source", "type"],
            specversion={"const": "1.0"},
            id={**TEXT, "minLength": 1},
            source={**TEXT, "minLength": 1},
            type={**TEXT, "minLength": 1},
            datacontenttype=TEXT,
            partitionkey={**TEXT, "description": "The message's group."},
            data={},
            data_base64=TEXT,
        ),
        "additionalProperties": {"type": ["string", "integer", "boolean"]},
    },
    "CloudEvents": _list(ref("CloudEvent"), minItems=1, maxItems=BATCH_MESSAGES_MAX),
    "Sent": _object(["messages"], messages=_SENT),
    "Receive": _closed(
        max={"type": "integer", "minimum": 1, "maximum": BATCH_MESSAGES_MAX, "default": 1},
        wait_ms={"type": "integer", "minimum": 0, "maximum": WAIT_MS_MAX, "description": "Default: the queue's."},
        lease_ms=_LEASE,
        consumer=_CONSUMER,
        filter={"type": ["object", "null"], "description": "Only what it matches: see docs/filters.md."},
        filter_on={"enum": ["attributes", "body"], "default": "attributes"},
    ),
    "Received": _object(
        ["messages"],
        messages=_list(
            _object(
                ["message_id", "receipt", "attributes", "attempt", "timestamp"],
                message_id=_ID,
                receipt=TEXT,
                attempt=_ID,
                timestamp=_TIME,
                **_CONTENT,
                **_ABOUT,
            )
        ),
        sifting={**_FLAG, "description": "Nothing yet: not all messages have been put to the filter."},
    ),
    "Ack": _closed(["receipts"], receipts=_RECEIPTS),
    "Nack": _closed(["receipts"], receipts=_RECEIPTS, delay_ms=_MILLISECONDS, reason=_REASON),
    "Extend": _closed(["receipts", "lease_ms"], receipts=_RECEIPTS, lease_ms=_LEASE),
    "Results": _object(
        ["results"],
        results=_list(
            _object(
                ["receipt", "status"],
                receipt=TEXT,
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
        consumer={**TEXT, "description": "To whom it was last delivered."},
        **_CONTENT,
        **_ABOUT,
    ),
    "Page": _object(["messages"], messages=_list(ref("Listed"))),
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
                consumer=TEXT,
                queue={**TEXT, "description": "Where it moved to, or came from."},
                reason=TEXT,
            )
        ),
        forgotten={**_COUNT, "description": "Older events of the message and its neighbours that are kept no more."},
    ),
    "Reasons": _object(
        ["message_id", "state", "reasons"],
        message_id=_ID,
        state={"enum": ["ready", "leased", "delayed", "dead"]},
        reasons={
            **_list(_object(["code"], code=TEXT, until=_TIME, detail=TEXT)),
            "description": "All that keeps it from being delivered now; none: it is next in its turn.",
        },
    ),
    "Transaction": {
        **_closed(
            acks=_steps(["receipts"], receipts=_RECEIPTS),
            nacks=_steps(["receipts"], receipts=_RECEIPTS, delay_ms=_MILLISECONDS, reason=_REASON),
            extends=_steps(["receipts", "lease_ms"], receipts=_RECEIPTS, lease_ms=_LEASE),
            sends=_steps(["messages"], messages=_list(ref("Message"), minItems=1, maxItems=BATCH_MESSAGES_MAX)),
        ),
        "description": f"At most {TRANSACTION_STEPS_MAX} steps with {TRANSACTION_MESSAGES_MAX} receipts and messages "
        "in all, done in this order: acks, nacks, extends, sends.",
        "anyOf": [
            {"required": [name], "properties": {name: {"minItems": 1}}}
            for name in ("acks", "nacks", "extends", "sends")
        ],
    },
    "Committed": _object(
        ["acked", "nacked", "extended", "sends"],
        acked=_COUNT,
        nacked=_COUNT,
        extended=_COUNT,
        sends=_list(_object(["queue", "messages"], queue=TEXT, messages=_SENT)),
    ),
    "RedriveIn": {
        **_closed(
            to={**TEXT, "description": "Where to. Without it each goes to the queue that gave it up."},
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
        queue=TEXT,
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
        cause=_object(["code", "title", "remedy"], code=TEXT, title=TEXT, remedy=TEXT, queue=TEXT),
    ),
    "ScheduleIn": {
        **_closed(["message"], queue=QUEUE, topic=QUEUE, message=ref("Message"), **_SCHEDULE_SETTINGS),
        "allOf": [
            {"oneOf": [{"required": ["cron"]}, {"required": ["every_ms"]}]},
            {"oneOf": [{"required": ["queue"]}, {"required": ["topic"]}]},
        ],
    },
    "PauseIn": _closed(["paused"], paused=_FLAG),
    "SchedulePut": _object(
        ["schedule", "changed", "next"], schedule=TEXT, changed={"type": "boolean"}, next=_list(_TIME)
    ),
    "Schedule": _object(
        ["schedule", "message", "overlap", "catch_up", "paused", "created", "next", "sent", "skipped"],
        schedule=TEXT,
        queue=TEXT,
        topic=TEXT,
        message={"type": "object", "description": "As it can be put again."},
        created=_TIME,
        changed=_TIME,
        next=_list({**_TIME, "description": "Times to come; none while it is paused."}),
        sent=_COUNT,
        skipped={**_COUNT, "description": "Times left out because the message before was still there."},
        last=_object(["occurrence", "sent", "message_id"], occurrence=_TIME, sent=_TIME, message_id=_ID),
        last_skipped=_TIME,
        last_missed={**_TIME, "description": "From when on times were left out, by catch_up, the last time."},
        last_error=_object(["detail", "at"], detail=TEXT, at=_TIME),
        **_SCHEDULE_SETTINGS,
    ),
    "Schedules": _object(["schedules"], schedules=_list(ref("Schedule"))),
    "PartyIn": _closed(name=_PARTY_TEXT, type=_PARTY_TEXT),
    "PartyPut": _object(["id", "changed"], id=TEXT, changed={"type": "boolean"}),
    "Party": _object(
        ["id", "name", "type", "registered", "seen"],
        id=TEXT,
        name=TEXT,
        type=TEXT,
        registered=_TIME,
        seen={
            "type": ["string", "null"],
            "format": "date-time",
            "description": "When it last sent, or was delivered something, to the minute; null: not since registered.",
        },
        waiting={**_COUNT, "description": "Of a consumer: how many of its receives wait for messages now."},
    ),
    "Producers": _object(["producers"], producers=_list(ref("Party"))),
    "Consumers": _object(["consumers"], consumers=_list(ref("Party"))),
    "Redrives": _object(["tasks"], tasks=_list(ref("Redrive"))),
    "DeadLetters": _object(
        ["groups", "complete", "after"],
        groups=_list(
            _object(
                ["reason", "queue", "count", "first_id", "last_id", "first_given_up", "last_given_up"],
                reason=TEXT,
                queue=TEXT,
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
    "TopicIn": _closed(fifo={**_FLAG, "default": False}),
    "TopicPut": _object(["topic", "fifo", "changed"], topic=TEXT, fifo=_FLAG, changed=_FLAG),
    "Topic": _object(
        ["topic", "fifo", "created", "subscriptions", "published"],
        topic=TEXT,
        fifo=_FLAG,
        created=_TIME,
        subscriptions=_COUNT,
        published={**_COUNT, "description": "So many messages so far: also the id of the latest."},
        labels={"type": "object", "additionalProperties": TEXT, "description": "Its attributes and tags of SNS."},
    ),
    "Topics": _object(["topics"], topics=_list(ref("Topic"))),
    "SubscriptionIn": _closed(["queue"], queue=QUEUE, **_WANTED),
    "SubscriptionPut": _object([*_SUBSCRIBED, "changed"], **_SUBSCRIBED, **_WANTED, changed=_FLAG),
    "Subscription": _object(
        [*_SUBSCRIBED, *_WANTED, "created", "queue_exists"],
        **_SUBSCRIBED,
        **_WANTED,
        created=_TIME,
        queue_exists={**_FLAG, "description": "Else it takes nothing until there is such a queue of the topic's kind."},
    ),
    "Subscriptions": _object(["subscriptions"], subscriptions=_list(ref("Subscription"))),
    "Publication": {
        **_closed(**_CONTENT, **_OPTIONS, routing_key=_ROUTING_KEY),
        "oneOf": [{"required": ["body"]}, {"required": ["body_base64"]}],
    },
    "Publications": _closed(["messages"], messages=_list(ref("Publication"), minItems=1, maxItems=BATCH_MESSAGES_MAX)),
    "Publish": {"anyOf": [ref("Publication"), ref("Publications")]},
    "Published": _object(["messages"], messages=_list(ref("Routed"))),
    "Routed": _object(
        ["message_id", "timestamp", "queues"],
        message_id={**_ID, "description": "Its id in the topic."},
        timestamp=_TIME,
        queues=_list(
            _object(
                ["queue", "subscription", "message_id"],
                queue=TEXT,
                subscription=TEXT,
                message_id={**_ID, "description": "Its id in the queue."},
                duplicate={"const": True},
            )
        ),
    ),
    "Rehearsed": _object(
        ["dry_run", "messages"],
        dry_run={"const": True},
        messages=_list(_object(["queues", "subscriptions"], queues=_list(TEXT), subscriptions=_list(_VERDICT))),
    ),
    "Cluster": _object(
        ["node", "nodes", "shards"],
        node=TEXT,
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
        warnings=_list(TEXT),
        cluster=TEXT,
    ),
    "KeyIn": _closed(["roles"], roles=_list({"enum": list(ROLES)}, minItems=1), queues=_PATTERNS, note=_NOTE),
    "Key": _object(["id", "roles", "queues", "note", "created"], **_ACCESS_KEY),
    "KeyMade": _object(["id", "secret", "roles", "queues", "note", "created"], **_ACCESS_KEY, secret=TEXT),
    "Keys": _object(["keys"], keys=_list(ref("Key"))),
    "MemberIn": _closed(["address"], address={**TEXT, "description": "HOST:PORT of its raft port"}),
    "Member": _object(["name"], name=TEXT, address=TEXT),
    "ScrubAsked": _object(
        ["asked_ms"],
        asked_ms={**_COUNT, "description": "A node is through when its scrub.began_ms in /v1/cluster is not earlier."},
    ),
    "Digest": _object(
        ["node", "shards"],
        node=TEXT,
        shards=_list(_object(shard=_COUNT, applied_index=_COUNT, digest=TEXT, records=_COUNT)),
    ),
    "Scrub": _object(
        bytes=_COUNT,
        passes=_COUNT,
        began_ms=_COUNT,
        ended_ms=_COUNT,
        damages=_COUNT,
        repairs=_COUNT,
        disagreement={"type": ["string", "null"]},
        ailing={"type": "object", "additionalProperties": TEXT},
    ),
    "Problem": _object(
        ["type", "title", "status", "detail"],
        type=TEXT,
        title=TEXT,
        status=_COUNT,
        detail=TEXT,
        field=TEXT,
        limit={"type": "integer"},
        stale={**_list(TEXT), "description": "Where in the request the receipts stand that were stale."},
        queue={**TEXT, "description": "Because of which queue nothing was published."},
        remedy=TEXT,
        outcome={"enum": ["unknown", "not_done"]},
        id={**TEXT, "description": "Under which the node's log tells more of its mistake."},
    ),
    "SeedMessage": _closed(["message"], message=TEXT),
    "SeedSent": _object(message_id={"type": "integer"}, timestamp=TEXT),
    "SeedReceived": _object(message_id={"type": "integer"}, content=TEXT, timestamp=TEXT, receipt=TEXT),
    "SeedPage": _object(messages=_list(ref("SeedReceived"))),
    "SeedAck": _closed(["receipt"], receipt=TEXT),
    "SeedAcked": _object(receipt=TEXT, status={"enum": ["acked", "stale", "invalid"]}),
    "Purged": _object(["purged"], purged=_COUNT),
    "QueuePut": _object(["queue"], queue=TEXT, settings=ref("Settings"), changed={"type": "boolean"}),
    "Queues": _object(["queues"], queues=_list(ref("Queue"))),
    "Health": _object(
        ["status"],
        status=TEXT,
        troubles=_list(TEXT),
        warnings=_list(TEXT),
        nodes=_list(_NODE),
        outcome={"enum": ["not_done"]},
    ),
    "Anything": {"type": "object"},
}
