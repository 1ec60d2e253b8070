"""The description of everything this node answers, served as /openapi.json. A test holds it against the routes."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from aiohttp import web

from api.cloud_events import EVENT, EVENTS
from api.config import NODE_NAME
from api.examples import EXAMPLES, Example
from api.request import MESSAGE_ID_MAX, answer_json
from api.rest import APPLIED_INDEX, STALENESS_MS
from api.schemas import QUEUE, SCHEMAS, TEXT, ref
from storage.access import KEY_ID
from storage.limits import BATCH_MESSAGES_MAX, CONSUMER_BYTES_MAX, KEY_BYTES_MAX
from storage.options import SCHEDULE_NAME


def _in_path(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": schema}


_NUMBER = {"type": "integer", "minimum": 1, "maximum": MESSAGE_ID_MAX}
_QUEUE, _TOPIC, _SUBSCRIPTION = (_in_path(name, QUEUE) for name in ("queue", "topic", "subscription"))
_MESSAGE_ID, _TASK = _in_path("message_id", _NUMBER), _in_path("task", _NUMBER)
_SCHEDULE = _in_path("schedule", {**TEXT, "pattern": f"^{SCHEDULE_NAME.pattern}$"})
_ACCESS_KEY_ID = _in_path("key", {**TEXT, "pattern": f"^{KEY_ID.pattern}$"})
_MEMBER = _in_path("member", {**TEXT, "pattern": f"^{NODE_NAME.pattern}$"})
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Repeat a request under its key as often as you like, on any node: it takes effect once.",
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
}
_FIND_KEY = {
    "name": "key",
    "in": "query",
    "description": "Only messages that were sent with this key.",
    "schema": {"type": "string", "minLength": 1, "maxLength": KEY_BYTES_MAX},
}
_TRACEPARENT = {
    "name": "traceparent",
    "in": "header",
    "description": "The W3C trace that messages are part of: an attribute of those that name none, as is tracestate.",
    "schema": TEXT,
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
        "schema": {"type": "string", "pattern": "^([0-9]+|unknown)$"},
    },
}


_AFTER_NAME = {"name": "after", "in": "query", "description": "Go on after this name.", "schema": TEXT}
_AFTER_ID = {"name": "after", "in": "query", "schema": {"type": "integer", "minimum": 0, "maximum": MESSAGE_ID_MAX}}
_LIMIT = {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": BATCH_MESSAGES_MAX}}
_VERBOSE = {"name": "verbose", "in": "query", "description": "1 tells more.", "schema": TEXT}
MAY_BE_EMPTY = {"PartyIn", "Settings", "Receive", "RedriveIn", "UndoIn", "TopicIn"}
"""What may be asked for with no body at all: it is taken for {}."""

_Operation = tuple[str, str, str, str | None, dict[int, str | None], list[dict[str, Any]]]


def _parties(kind: str, many: str) -> tuple[_Operation, ...]:
    name = _in_path(kind, {**TEXT, "minLength": 1, "maxLength": CONSUMER_BYTES_MAX})
    one = f"/v1/{kind}s/{{{kind}}}"
    return (
        ("get", f"/v1/{kind}s", f"List {kind}s", None, {200: many}, [_LIMIT, _AFTER_NAME, _CONSISTENCY]),
        ("put", one, f"Register a {kind}", "PartyIn", {201: "PartyPut", 200: "PartyPut"}, [name, _KEY]),
        ("get", one, f"A {kind}, and when it was last seen", None, {200: "Party"}, [name, _CONSISTENCY]),
        ("delete", one, f"Forget a {kind}", None, {204: None}, [name, _KEY]),
    )


OPERATIONS: tuple[_Operation, ...] = (
    # method, path, summary, request schema, answers, parameters
    ("get", "/v1/queues", "List queues", None, {200: "Queues"}, [_LIMIT, _AFTER_NAME, _CONSISTENCY]),
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
        [_QUEUE, _KEY, _TRACEPARENT],
    ),
    (
        "get",
        "/v1/queues/{queue}/messages",
        "Browse without leasing",
        None,
        {200: "Page"},
        [_QUEUE, _FIND_KEY, _AFTER_ID, _LIMIT, _CONSISTENCY],
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
    (
        "post",
        "/v1/transactions",
        "Settle and send, all or nothing",
        "Transaction",
        {200: "Committed"},
        [_KEY, _TRACEPARENT],
    ),
    (
        "get",
        "/v1/queues/{queue}/dead-letters",
        "Dead letters by reason, the most frequent first",
        None,
        {200: "DeadLetters"},
        [
            _QUEUE,
            {"name": "group_by", "in": "query", "schema": {"enum": ["reason"], "default": "reason"}},
            _AFTER_ID,
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
    ("get", "/v1/schedules", "List schedules", None, {200: "Schedules"}, [_LIMIT, _AFTER_NAME, _CONSISTENCY]),
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
    (
        "patch",
        "/v1/schedules/{schedule}",
        "Pause a schedule, or have it go on",
        "PauseIn",
        {204: None},
        [_SCHEDULE, _KEY],
    ),
    ("delete", "/v1/schedules/{schedule}", "Forget a schedule", None, {204: None}, [_SCHEDULE, _KEY]),
    ("get", "/v1/topics", "List topics", None, {200: "Topics"}, [_AFTER_NAME, _LIMIT, _CONSISTENCY]),
    ("put", "/v1/topics/{topic}", "Create a topic", "TopicIn", {201: "TopicPut", 200: "TopicPut"}, [_TOPIC, _KEY]),
    ("get", "/v1/topics/{topic}", "One topic", None, {200: "Topic"}, [_TOPIC, _CONSISTENCY]),
    ("delete", "/v1/topics/{topic}", "Delete a topic and its subscriptions", None, {204: None}, [_TOPIC, _KEY]),
    (
        "get",
        "/v1/topics/{topic}/subscriptions",
        "A topic's subscriptions",
        None,
        {200: "Subscriptions"},
        [_TOPIC, _AFTER_NAME, _LIMIT, _CONSISTENCY],
    ),
    (
        "put",
        "/v1/topics/{topic}/subscriptions/{subscription}",
        "Say which messages of a topic go to a queue",
        "SubscriptionIn",
        {201: "SubscriptionPut", 200: "SubscriptionPut"},
        [_TOPIC, _SUBSCRIPTION, _KEY],
    ),
    (
        "get",
        "/v1/topics/{topic}/subscriptions/{subscription}",
        "One subscription",
        None,
        {200: "Subscription"},
        [_TOPIC, _SUBSCRIPTION, _CONSISTENCY],
    ),
    (
        "delete",
        "/v1/topics/{topic}/subscriptions/{subscription}",
        "Delete a subscription",
        None,
        {204: None},
        [_TOPIC, _SUBSCRIPTION, _KEY],
    ),
    (
        "post",
        "/v1/topics/{topic}/messages",
        "Publish to all queues that want it, all or none; or only say which do",
        "Publish",
        {201: "Published", 200: "Rehearsed"},
        [
            _TOPIC,
            {"name": "dry_run", "in": "query", "schema": {"enum": ["false", "true"], "default": "false"}},
            _KEY,
            _TRACEPARENT,
        ],
    ),
    (
        "get",
        "/v1/topics/{topic}/messages/{message_id}",
        "Where a message was routed to",
        None,
        {200: "Routed"},
        [_TOPIC, _MESSAGE_ID, _CONSISTENCY],
    ),
    *_parties("producer", "Producers"),
    *_parties("consumer", "Consumers"),
    ("get", "/v1/cluster", "What this node knows of the cluster", None, {200: "Cluster"}, []),
    ("put", "/v1/cluster/members/{member}", "Add a member: a learner first", "MemberIn", {200: "Member"}, [_MEMBER]),
    ("patch", "/v1/cluster/members/{member}", "A member has moved", "MemberIn", {200: "Member"}, [_MEMBER]),
    ("delete", "/v1/cluster/members/{member}", "Remove a member for good", None, {200: "Member"}, [_MEMBER]),
    ("post", "/v1/cluster/scrub", "Read everything stored again and compare the nodes", None, {202: "ScrubAsked"}, []),
    ("get", "/v1/cluster/digest", "The digest of this node's own replica", None, {200: "Digest"}, []),
    ("get", "/v1/keys", "List access keys, without secrets", None, {200: "Keys"}, []),
    ("post", "/v1/keys", "Make an access key: the one time that its secret is told", "KeyIn", {201: "KeyMade"}, [_KEY]),
    ("get", "/v1/keys/{key}", "One access key, without its secret", None, {200: "Key"}, [_ACCESS_KEY_ID]),
    ("delete", "/v1/keys/{key}", "Revoke an access key", None, {204: None}, [_ACCESS_KEY_ID, _KEY]),
    ("post", "/send_message", "Send a new message to the queue", "SeedMessage", {201: "SeedSent"}, [_KEY]),
    ("get", "/receive_message", "Receive the next message; {} if there is none", None, {200: "SeedReceived"}, [_KEY]),
    ("get", "/messages", "All messages in the queue", None, {200: "SeedPage"}, [_AFTER_ID, _LIMIT]),
    ("post", "/ack_message", "A received message is done", "SeedAck", {200: "SeedAcked"}, [_KEY]),
    ("get", "/", "Where to look", None, {200: "Anything"}, []),
    ("post", "/", "SQS, in the protocols of AWS: see docs/sqs.md", None, {200: "Anything"}, []),
    ("get", "/healthz", "Whether this node is alive", None, {200: "Health"}, []),
    ("get", "/readyz", "Whether this node is fit for work", None, {200: "Health", 503: "Health"}, [_VERBOSE]),
    ("get", "/metrics", "What is measured on this node, in Prometheus's text format", None, {200: None}, []),
    ("get", "/openapi.json", "This document", None, {200: "Anything"}, []),
)


def template(path: str) -> str:
    """The path as it is described: with names in place of what is in it. What is not described stays as it is."""
    path = path.partition("?")[0]
    described = {path for _, path, *_ in OPERATIONS}
    fitting = [each for each in described if re.fullmatch(re.sub(r"\\{.*?\\}", "[^/]+", re.escape(each)), path)]
    return min(fitting, key=lambda each: each.count("{"), default=path)


EVENTS_TAKEN = {EVENT: {"schema": ref("CloudEvent")}, EVENTS: {"schema": ref("CloudEvents")}}
"""What a send may be as well. In binary mode its content is the event's data, of any type."""


def _content(name: str, examples: list[Any]) -> dict[str, Any]:
    return {
        "application/json": {"schema": ref(name), **_shown(examples)},
        "application/msgpack": {"schema": ref(name)},
    }


def _problem(examples: list[Any]) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": ref("Problem"), **_shown(examples)}}
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
            also = EVENTS_TAKEN if wanted == "Send" else {}
            operation["requestBody"] = {
                "content": _content(wanted, asked) | also,
                "required": wanted not in MAY_BE_EMPTY,
            }
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
