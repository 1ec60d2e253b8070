"""Requests of every action with one thing wrong in them, in both protocols: refused or done, and never a mistake.

Each action has one request that is good. Every value in it, at any depth, is replaced by odd ones, every parameter
of its form named in odd ways. The odd ones take turns, so that each place gets some and all get a place. What is
answered must be an answer of the model's.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from api.aws.endpoint import FORM
from api.aws.errors import COMMON
from api.aws.errors import SNS as SNS_ERRORS
from api.aws.errors import SQS as SQS_ERRORS
from api.aws.protocols import SNS, SQS
from tests.api.fake_client import Gateway, gateway
from tests.aws import models
from tests.aws.asking import Caller

QUEUE, TOPIC = "arn:aws:sqs:us-east-1:000000000000:", "arn:aws:sns:us-east-1:000000000000:jobs"
ATTRIBUTES = {
    "a": {"DataType": "String", "StringValue": "x"},
    "b": {"DataType": "Number.int", "StringValue": "7"},
    "c": {"DataType": "Binary", "BinaryValue": b"\0"},
}
TRACE = {"AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1-5759e988-bd862e3fe1be46a994272793"}}
MESSAGE = {"MessageBody": "a", "DelaySeconds": 0, "MessageAttributes": ATTRIBUTES, "MessageSystemAttributes": TRACE}
NOTICE = {"Message": "a", "Subject": "s", "MessageAttributes": ATTRIBUTES}
POLICY = json.dumps({"deadLetterTargetArn": f"{QUEUE}dead", "maxReceiveCount": 3})
ALLOW = json.dumps({"redrivePermission": "byQueue", "sourceQueueArns": [f"{QUEUE}jobs"]})
SETTINGS = {"VisibilityTimeout": "7", "RedrivePolicy": POLICY, "RedriveAllowPolicy": ALLOW, "Policy": '{"a":[]}'}
FILTER = {"FilterPolicy": '{"a": ["x"]}', "FilterPolicyScope": "MessageAttributes", "RawMessageDelivery": "true"}


def wishes(handle: str, subscription: str, task: str) -> dict[str, dict[str, dict[str, Any]]]:
    """A good request for each action of each service."""
    url: dict[str, Any] = {"QueueUrl": "jobs"}
    held = {"ReceiptHandle": handle}
    topic: dict[str, Any] = {"TopicArn": TOPIC}
    tags = [{"Key": "k", "Value": "v"}]
    return {
        "sqs": {
            "AddPermission": url | {"Label": "l", "AWSAccountIds": ["1" * 12], "Actions": ["SendMessage"]},
            "CancelMessageMoveTask": {"TaskHandle": task},
            "ChangeMessageVisibility": url | held | {"VisibilityTimeout": 9},
            "ChangeMessageVisibilityBatch": url | {"Entries": [{"Id": "1", **held, "VisibilityTimeout": 9}]},
            "CreateQueue": {"QueueName": "new", "Attributes": SETTINGS, "tags": {"k": "v"}},
            "DeleteMessage": url | held,
            "DeleteMessageBatch": url | {"Entries": [{"Id": "1", **held}]},
            "DeleteQueue": {"QueueUrl": "gone"},
            "GetQueueAttributes": url | {"AttributeNames": ["All"]},
            "GetQueueUrl": {"QueueName": "jobs", "QueueOwnerAWSAccountId": "1" * 12},
            "ListDeadLetterSourceQueues": {"QueueUrl": "dead", "MaxResults": 3, "NextToken": "am9icw=="},
            "ListMessageMoveTasks": {"SourceArn": f"{QUEUE}dead", "MaxResults": 3},
            "ListQueueTags": url,
            "ListQueues": {"QueueNamePrefix": "j", "MaxResults": 3, "NextToken": "am9icw=="},
            "PurgeQueue": {"QueueUrl": "dead"},
            "ReceiveMessage": url
            | {"AttributeNames": ["All"], "MessageAttributeNames": ["a", "b.*"], "MessageSystemAttributeNames": ["All"]}
            | {"MaxNumberOfMessages": 1, "VisibilityTimeout": 0, "WaitTimeSeconds": 0},
            "RemovePermission": url | {"Label": "l"},
            "SendMessage": url | MESSAGE | {"MessageGroupId": "g"},
            "SendMessageBatch": url | {"Entries": [{"Id": "1", **MESSAGE}, {"Id": "2", "MessageBody": "b"}]},
            "SetQueueAttributes": url | {"Attributes": SETTINGS},
            "StartMessageMoveTask": {
                "SourceArn": f"{QUEUE}dead",
                "DestinationArn": f"{QUEUE}jobs",
                "MaxNumberOfMessagesPerSecond": 9,
            },
            "TagQueue": url | {"Tags": {"k": "v"}},
            "UntagQueue": url | {"TagKeys": ["k"]},
        },
        "sns": {
            "ConfirmSubscription": topic | {"Token": "t", "AuthenticateOnUnsubscribe": "true"},
            "CreateTopic": {"Name": "new", "Attributes": {"DisplayName": "d"}, "Tags": tags},
            "DeleteTopic": {"TopicArn": TOPIC + "-gone"},
            "GetSubscriptionAttributes": {"SubscriptionArn": subscription},
            "GetTopicAttributes": topic,
            "ListSubscriptions": {"NextToken": "am9iczphYg=="},
            "ListSubscriptionsByTopic": topic | {"NextToken": "am9icw=="},
            "ListTagsForResource": {"ResourceArn": TOPIC},
            "ListTopics": {"NextToken": "am9icw=="},
            "Publish": topic | NOTICE | {"MessageGroupId": "g"},
            "PublishBatch": topic
            | {"PublishBatchRequestEntries": [{"Id": "1", **NOTICE}, {"Id": "2", "Message": "b"}]},
            "SetSubscriptionAttributes": {
                "SubscriptionArn": subscription,
                "AttributeName": "FilterPolicy",
                "AttributeValue": FILTER["FilterPolicy"],
            },
            "SetTopicAttributes": topic | {"AttributeName": "DisplayName", "AttributeValue": "d"},
            "Subscribe": topic
            | {"Protocol": "sqs", "Endpoint": f"{QUEUE}dead", "Attributes": FILTER, "ReturnSubscriptionArn": True},
            "TagResource": {"ResourceArn": TOPIC, "Tags": tags},
            "UntagResource": {"ResourceArn": TOPIC, "TagKeys": ["k"]},
            "Unsubscribe": {"SubscriptionArn": TOPIC + ":00000000-0000-4000-8000-000000000000"},
        },
    }


@pytest.fixture
async def node() -> AsyncIterator[tuple[Gateway, dict[str, dict[str, dict[str, Any]]]]]:
    """A gateway with queues, a topic, a held message and a task, and good requests about them."""
    async with gateway() as opened:
        sqs, sns = Caller(opened, in_json=True), Caller(opened, in_json=False, service="sns")
        for name in ("jobs", "dead", "gone"):
            await sqs("CreateQueue", QueueName=name)
        await sqs("SetQueueAttributes", QueueUrl="jobs", Attributes={"RedrivePolicy": POLICY})
        await sns("CreateTopic", Name="jobs")
        subscribed = await sns("Subscribe", TopicArn=TOPIC, Protocol="sqs", Endpoint=f"{QUEUE}jobs")
        await sqs("SendMessage", QueueUrl="jobs", MessageBody="a")
        (got,) = (await sqs("ReceiveMessage", QueueUrl="jobs"))["Messages"]
        task = (await sqs("StartMessageMoveTask", SourceArn=f"{QUEUE}dead"))["TaskHandle"]
        yield opened, wishes(got["ReceiptHandle"], subscribed["SubscriptionArn"], task)


DEEP: Any = "x"
for _ in range(300):
    DEEP = [DEEP]
ODD_TEXTS = [
    *("", " ", "x" * 300, "\0", "\r\n\t", "\ufffe", "\U0001f6a2", "é" * 200, "\uff19", "'\"<>&]]>", "%s{}"),
    *("-1", "0", "1e999", "NaN", "9" * 30, "0x10", "true", "null", "[]", "{}", "[" * 300, '{"a":' * 300),
    *(f"{QUEUE}none", f"{QUEUE}jobs", f"{QUEUE}jobs.fifo", "arn:" * 50, "jobs", "dead", "jobs.fifo", "All", "*", ".*"),
    *("am9icw", "====", '{"$or": [{}]}', '{"a": [{"numeric": ["<"]}]}', '{"deadLetterTargetArn": 1}', '{"a":1,"a":2}'),
    *("String", "Binary.", "../..", "a:b"),
]
ODD_VALUES = [None, True, 0, -1, 11, 2**31, 2**63, 2**70, 1.5, [], {}, [None], [[]], {"": None}, ["x"] * 1500, DEEP]
LONE = "\ud800"
TURNS = 5
ENDS = ["", ".", ".0", ".-1", ".1.1", ".x", ".Value", "..", ".1.2.3.4.5.6.7.8.9.10", "." * 30, "." + "9" * 200]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something is in a request."""
    yield path
    found = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in found:
        yield from places(inner, (*path, key))


def put(value: Any, path: tuple[Any, ...], odd: Any) -> Any:
    """The request with something else there."""
    if not path:
        return odd
    key, *rest = path
    if isinstance(value, dict):
        return value | {key: put(value[key], tuple(rest), odd)}
    return [put(each, tuple(rest), odd) if number == key else each for number, each in enumerate(value)]


def without(value: Any, path: tuple[Any, ...]) -> Any:
    """The request with nothing there."""
    *before, last = path
    parent = value
    for key in before:
        parent = parent[key]
    kept: Any = {key: each for key, each in parent.items() if key != last} if isinstance(parent, dict) else []
    return put(value, tuple(before), kept)


LEFT_OUT = {
    f'Missing required parameter in input: "{name}"' for name in ("Failed", "Successful", "queueUrls", "Messages")
}
"""Lists with nothing in them: AWS says nothing for them either, and the query protocol cannot."""


class Prober:
    """Asks, and holds every answer against the model."""

    def __init__(self, node: Gateway, service: str, action: str, *, in_json: bool) -> None:
        self.node, self.service, self.action, self.in_json = node, service, action, in_json
        model = models.service(service) if in_json else models.in_query(service)
        self.model = model.operation_model(action)
        own = SQS_ERRORS if service == "sqs" else SNS_ERRORS
        self.codes = {name.code for name in (*COMMON.values(), *own.values())}
        self.target = {"X-Amz-Target": f"AmazonSQS.{action}", "Content-Type": "application/x-amz-json-1.0"}
        self.asked = 0

    async def ask(self, body: bytes, query: str = "") -> int:
        headers = self.target if self.in_json else {"Content-Type": FORM}
        async with self.node.http.post("/" + query, data=body, headers=headers) as answer:
            status, said = answer.status, await answer.read()
            parsed = models.parse(self.model, status, dict(answer.headers), said)
        self.asked += 1
        if status == 200:
            told = {name: value for name, value in parsed.items() if name != "ResponseMetadata"}
            if self.model.output_shape is not None:
                assert not models.complaints(self.model, told) - LEFT_OUT, body
        else:
            assert status < 500, (body[:500], said)
            assert parsed["Error"]["Code"] in self.codes, (body[:500], said)
            assert parsed["Error"]["Message"]
        return status


CASES = [
    (service, action, in_json)
    for service, found in wishes("", "", "").items()
    for action in found
    for in_json in ((True, False) if service == "sqs" else (False,))
]


def test_no_action_is_left_out() -> None:
    assert {(service, action) for service, action, _ in CASES} == {
        (service.name, action) for service in (SQS, SNS) for action in service.shapes
    }


@pytest.mark.parametrize(("service", "action", "in_json"), CASES)
async def test_whatever_is_wrong_is_refused_or_done(
    node: tuple[Gateway, dict[str, dict[str, dict[str, Any]]]], service: str, action: str, in_json: bool
) -> None:
    opened, good = node
    wish = good[service][action]
    prober = Prober(opened, service, action, in_json=in_json)
    sent = models.serialize(prober.model, wish)["body"]
    if in_json:
        await prober.ask(sent)
        for body in in_bad_json(json.loads(sent)):
            await prober.ask(body)
    else:
        await prober.ask(urlencode(sent).encode())
        for body in in_bad_form(sent):
            await prober.ask(body)
    assert prober.asked > 30


def in_bad_json(wish: dict[str, Any]) -> Iterator[bytes]:
    for place, path in enumerate(places(wish)):
        for odd in (*ODD_VALUES, *ODD_TEXTS, LONE)[place % TURNS :: TURNS]:
            if path != ("WaitTimeSeconds",) or odd in (None, -1, 2**31):  # nobody's time runs here
                yield json.dumps(put(wish, path, odd)).encode()
        if path:
            yield json.dumps(without(wish, path)).encode()
    whole = json.dumps(wish).encode()
    yield from (whole[:-1], whole + b"}", whole + b"\0", b"\xef\xbb\xbf" + whole, whole.decode().encode("utf-16"))
    yield from (whole.replace(b'": "', b'": "\xff'), b"\xff", b"null", b"[" * 5000, b'{"a":' * 5000, b"1", b'"', b"{}")
    yield whole.replace(b"{", b'{"QueueUrl":"dead","Entries":[],', 1)


def in_bad_form(sent: dict[str, str]) -> Iterator[bytes]:
    for place, (name, value) in enumerate(sent.items()):
        if name in ("Action", "Version"):
            continue
        rest = {each: text for each, text in sent.items() if each != name}
        yield urlencode(rest).encode()
        for odd in ODD_TEXTS[place % TURNS :: TURNS]:
            yield urlencode(rest | {name: odd}).encode()
        for end in ENDS[place % TURNS :: TURNS]:
            yield urlencode(rest | {name + end: value}).encode()
            yield urlencode(sent | {name + end: value}).encode()
        for number in ("0", "-1", "00001", "7", "9" * 4000, "\u0663", "1e1", ""):
            parts = [number if part.isdigit() else part for part in name.split(".")]
            yield urlencode(rest | {".".join(parts): value}).encode()
        yield urlencode(rest).encode() + b"&" + quote(name).encode() + b"=%FF%00%ED%A0%80"
        yield urlencode(rest).encode() + b"&" + quote(name).encode() + b"=\xff"
        yield urlencode(rest).encode() + b"&" + quote(name).encode()
        yield urlencode(sent).encode() + b"&" + urlencode({name: "again"}).encode()
    whole = urlencode(sent).encode()
    many = "&".join(f"{name}.{number}=x" for name in ("Attribute", "Tags.member") for number in range(4000))
    yield from (whole + b"&" + many.encode(), whole + b"&&&===&=&;", whole + b"&%=%ZZ%", b"\xff" + whole)
    yield whole + b"&\0=\0"
