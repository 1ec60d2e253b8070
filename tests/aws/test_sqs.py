"""Messages through SQS, over HTTP, in both protocols, on the real rules."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.aws import sqs as actions
from api.aws.digests import Attribute, md5_of_attributes
from api.aws.protocols import SQS
from api.aws.sqs_messages import NAMES_MAX
from storage import codes
from storage.operations import Keyed, Refused, Send
from tests.api import asking
from tests.aws.asking import URL, Caller, counts, receive, refused, send

LEGAL = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Cn"]) | st.sampled_from("\t\n\r"), min_size=1, max_size=40
)


# --- there and back ---------------------------------------------------------------------------------------------------


async def test_a_message_is_sent_received_and_deleted(sqs: Caller) -> None:
    sent = await send(sqs, "wörld\r\n<&>")
    assert sent["MD5OfMessageBody"] == hashlib.md5("wörld\r\n<&>".encode(), usedforsecurity=False).hexdigest()
    [got] = await receive(sqs, AttributeNames=["All"])
    assert got == {
        "MessageId": sent["MessageId"],
        "ReceiptHandle": got["ReceiptHandle"],
        "Body": "wörld\r\n<&>",
        "MD5OfBody": sent["MD5OfMessageBody"],
        "Attributes": {
            "SenderId": "000000000000",
            "SentTimestamp": "1700000000000",
            "ApproximateReceiveCount": "1",
            "ApproximateFirstReceiveTimestamp": got["Attributes"]["ApproximateFirstReceiveTimestamp"],
        },
    }
    assert await receive(sqs) == []
    assert await sqs("DeleteMessage", QueueUrl=URL, ReceiptHandle=got["ReceiptHandle"]) == {}
    assert await counts(sqs) == (0, 0)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=LEGAL,
    attributes=st.dictionaries(
        st.from_regex(r"[A-Za-z0-9_-]{1,9}", fullmatch=True),
        LEGAL.map(lambda text: {"DataType": "String", "StringValue": text})
        | st.integers().map(lambda number: {"DataType": "Number.int", "StringValue": str(number)})
        | st.binary(min_size=1, max_size=9).map(lambda data: {"DataType": "Binary", "BinaryValue": data}),
        max_size=4,
    ),
)
async def test_bodies_and_attributes_come_as_they_were_sent(
    sqs: Caller, body: str, attributes: dict[str, dict[str, Any]]
) -> None:
    sent = await send(sqs, body, MessageAttributes=attributes)
    [got] = await receive(sqs, MessageAttributeNames=["All"])
    assert (got["Body"], got.get("MessageAttributes", {})) == (body, attributes)
    assert got["MD5OfBody"] == sent["MD5OfMessageBody"]
    assert got.get("MD5OfMessageAttributes") == sent.get("MD5OfMessageAttributes")
    assert ("MD5OfMessageAttributes" in got) == bool(attributes)
    await sqs("DeleteMessage", QueueUrl=URL, ReceiptHandle=got["ReceiptHandle"])


async def test_a_trace_and_a_tenant_go_along(sqs: Caller) -> None:
    trace = {"AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1"}}
    sent = await send(sqs, MessageSystemAttributes=trace, MessageGroupId="tenant-1")
    assert sent["MD5OfMessageSystemAttributes"]
    await sqs("SendMessage", {"X-Amzn-Trace-Id": "Root=2"}, QueueUrl=URL, MessageBody="b")
    first, second = await receive(sqs, MaxNumberOfMessages=10, MessageSystemAttributeNames=["All"])
    assert (first["Attributes"]["AWSTraceHeader"], first["Attributes"]["MessageGroupId"]) == ("Root=1", "tenant-1")
    assert second["Attributes"]["AWSTraceHeader"] == "Root=2"


async def test_messages_cross_between_sqs_and_the_native_api(sqs: Caller) -> None:
    attributes = {
        "t": {"DataType": "String.json", "StringValue": "{}"},
        "n": {"DataType": "Number", "StringValue": "1.10"},
        "b": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
    }
    await send(sqs, "from sqs", MessageAttributes=attributes)
    [got] = (await asking.ask(sqs.gateway, "POST", "/v1/queues/jobs/receive", {}))["messages"]
    assert got["body"] == "from sqs"
    assert got["attributes"] == {"t": "{}", "n": 1.1, "b": "AP8="}
    assert got["attribute_types"] == {"t": "String.json", "n": "Number", "b": "Binary"}
    await sqs("DeleteMessage", QueueUrl=URL, ReceiptHandle=got["receipt"])
    assert await counts(sqs) == (0, 0)

    native = {"attributes": {"s": "a", "i": 7, "f": 0.5, "y": True}}
    batch = {"messages": [{"body": "text"} | native, {"body_base64": "AP8="}, {"body": "a\u0000b"}, {"body": ""}]}
    await asking.ask(sqs.gateway, "POST", "/v1/queues/jobs/messages", batch)
    text, binary, control, empty = await receive(sqs, MaxNumberOfMessages=10, MessageAttributeNames=["All"])
    assert (text["Body"], empty["Body"]) == ("text", "")
    assert text["MessageAttributes"] == {
        "s": {"DataType": "String", "StringValue": "a"},
        "i": {"DataType": "Number", "StringValue": "7"},
        "f": {"DataType": "Number", "StringValue": "0.5"},
        "y": {"DataType": "String", "StringValue": "true"},
    }
    encoded = {"body_encoding": {"DataType": "String", "StringValue": "base64"}}
    assert (binary["Body"], binary["MessageAttributes"]) == ("AP8=", encoded)
    assert (control["Body"], control["MessageAttributes"]) == ("YQBi", encoded)
    receipts = [message["ReceiptHandle"] for message in (text, binary, control, empty)]
    acked = await asking.ask(sqs.gateway, "POST", "/v1/queues/jobs/ack", {"receipts": receipts})
    assert [result["status"] for result in acked["results"]] == ["acked"] * 4


async def test_what_the_native_api_sends_and_xml_cannot_carry_holds_up_no_receive(sqs: Caller) -> None:
    odd = {"body": "a\x00", "attributes": {"x": "\x01", "y": "\ufffe"}, "attribute_types": {"y": "String.z"}}
    told = {"group": "\x02", "dedup_id": "d\x03"}
    assert (await asking.ask(sqs.gateway, "POST", "/v1/queues/jobs/messages", odd | told)).status == 201
    [got] = await receive(sqs, AttributeNames=["All"], MessageAttributeNames=["All"])
    assert got["Body"] == base64.b64encode(b"a\x00").decode()
    attributes = got["MessageAttributes"]
    assert attributes["x"] == {"DataType": "Binary", "BinaryValue": b"\x01"}
    assert attributes["y"] == {"DataType": "Binary.z", "BinaryValue": "\ufffe".encode()}
    shown = {
        name: Attribute(each["DataType"], each.get("BinaryValue") or each["StringValue"])
        for name, each in attributes.items()
    }
    assert got["MD5OfMessageAttributes"] == md5_of_attributes(shown)
    system = got["Attributes"]
    assert (system["MessageGroupId"], system["MessageDeduplicationId"]) == ("\ufffd", "d\ufffd")


async def test_a_receive_that_names_too_many_attributes_takes_no_message(sqs_json: Caller) -> None:
    await send(sqs_json, MessageAttributes={"a": {"DataType": "String", "StringValue": "b"}})
    names = [f"a{number}.*" for number in range(NAMES_MAX)]
    said = await refused(sqs_json, "ReceiveMessage", QueueUrl=URL, MessageAttributeNames=[*names, "a"])
    assert said[1] == "InvalidParameterValue"
    assert f"[{NAMES_MAX}]" in said[2]
    assert await counts(sqs_json) == (1, 0)
    [got] = await receive(sqs_json, MessageAttributeNames=[*names[1:], "a"])
    assert list(got["MessageAttributes"]) == ["a"]


async def test_a_body_is_not_digested_for_an_id_that_its_message_has(
    sqs_json: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sqs_json("CreateQueue", QueueName="q.fifo", Attributes={"FifoQueue": "true"})
    asked = {"MessageGroupId": "g", "MessageDeduplicationId": "d"}
    await sqs_json("SendMessage", QueueUrl="q.fifo", MessageBody="a", **asked)
    monkeypatch.delattr("hashlib.sha256")
    answer = await sqs_json("ReceiveMessage", QueueUrl="q.fifo", AttributeNames=["All"])
    assert answer["Messages"][0]["Attributes"]["MessageDeduplicationId"] == "d"


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "asked", "code", "said"),
    [
        ("SendMessage", {"MessageBody": ""}, "MissingParameter", "The request must contain the parameter MessageBody."),
        (
            "SendMessage",
            {"MessageBody": "a", "DelaySeconds": 901},
            "InvalidParameterValue",
            "Value 901 for parameter DelaySeconds is invalid. Reason: DelaySeconds must be >= 0 and <= 900.",
        ),
        (
            "SendMessage",
            {"MessageBody": "a", "DelaySeconds": -1},
            "InvalidParameterValue",
            "Value -1 for parameter DelaySeconds is invalid. Reason: DelaySeconds must be >= 0 and <= 900.",
        ),
        (
            "SendMessage",
            {"MessageBody": "a", "MessageDeduplicationId": "d"},
            "InvalidParameterValue",
            "Value d for parameter MessageDeduplicationId is invalid. Reason: The request include parameter that is "
            "not valid for this queue type.",
        ),
        (
            "SendMessage",
            {"MessageBody": "a", "QueueUrl": "q.fifo"},
            "MissingParameter",
            "The request must contain the parameter MessageGroupId.",
        ),
        (
            "SendMessage",
            {"MessageBody": "a", "QueueUrl": "q.fifo", "MessageGroupId": "g", "DelaySeconds": 2},
            "InvalidParameterValue",
            "Value 2 for parameter DelaySeconds is invalid. Reason: The request include parameter that is not valid "
            "for this queue type.",
        ),
        (
            "SendMessageBatch",
            {"QueueUrl": "q.fifo", "Entries": [{"Id": "a", "MessageBody": "a"}]},
            "InvalidParameterValue",
            "The request must contain the parameter MessageGroupId.",
        ),
        *(
            (
                "ReceiveMessage",
                {"MaxNumberOfMessages": number},
                "InvalidParameterValue",
                f"Value {number} for parameter MaxNumberOfMessages is invalid. Reason: Must be between 1 and 10, if "
                "provided.",
            )
            for number in (0, 11, -1)
        ),
        *(
            (
                "ReceiveMessage",
                {"WaitTimeSeconds": number},
                "InvalidParameterValue",
                f"Value {number} for parameter WaitTimeSeconds is invalid. Reason: Must be >= 0 and <= 20, if "
                "provided.",
            )
            for number in (21, -1)
        ),
        *(
            (
                action,
                {"VisibilityTimeout": number} | more,
                "InvalidParameterValue",
                f"Value {number} for parameter VisibilityTimeout is invalid. Reason: VisibilityTimeout must be an "
                "integer between 0 and 43200.",
            )
            for number in (43201, -1)
            for action, more in (("ReceiveMessage", {}), ("ChangeMessageVisibility", {"ReceiptHandle": "x"}))
        ),
        (
            "ReceiveMessage",
            {"ReceiveRequestAttemptId": "a"},
            "InvalidParameterValue",
            "Value a for parameter ReceiveRequestAttemptId is invalid. Reason: The request include parameter that is "
            "not valid for this queue type.",
        ),
        *(
            (
                action,
                {"ReceiptHandle": handle} | more,
                "ReceiptHandleIsInvalid",
                f'The input receipt handle "{handle}" is not a valid receipt handle.',
            )
            for handle in ("", "x", "1" * 5)
            for action, more in (("DeleteMessage", {}), ("ChangeMessageVisibility", {"VisibilityTimeout": 1}))
        ),
    ],
)
async def test_what_sqs_refuses_is_refused_in_its_words(
    sqs: Caller, action: str, asked: dict[str, Any], code: str, said: str
) -> None:
    await send(sqs)
    assert await refused(sqs, action, **{"QueueUrl": URL} | asked) == (400, code, said)
    assert await counts(sqs) == (1, 0)


def test_every_action_is_there() -> None:
    assert set(actions.HANDLERS) == set(SQS.shapes)


# --- once -------------------------------------------------------------------------------------------------------------


async def test_a_call_that_an_sdk_repeats_takes_effect_once(sqs: Caller) -> None:
    again = {"amz-sdk-invocation-id": "a3f1", "amz-sdk-request": "attempt=2"}
    first, second = [await sqs("SendMessage", again, QueueUrl=URL, MessageBody="a") for _ in range(2)]
    assert first == second
    entries = [{"Id": "a", "MessageBody": "a"}, {"Id": "b", "MessageBody": "b"}]
    one, two = [await sqs("SendMessageBatch", again, QueueUrl=URL, Entries=entries) for _ in range(2)]
    assert one == two
    assert await counts(sqs) == (3, 0)
    await sqs("SendMessage", {"amz-sdk-invocation-id": "a3f2"}, QueueUrl=URL, MessageBody="a")
    await sqs("SendMessage", QueueUrl=URL, MessageBody="a")
    assert await counts(sqs) == (5, 0)


async def test_a_batch_of_which_some_are_too_large_is_sent_once_as_well(sqs: Caller) -> None:
    await sqs("CreateQueue", QueueName="small", Attributes={"MaximumMessageSize": "1024"})
    entries = [{"Id": str(number), "MessageBody": "x" * size} for number, size in enumerate([1025, 3, 1026, 4])]
    again = {"amz-sdk-invocation-id": "a3f1"}
    first, second = [await sqs("SendMessageBatch", again, QueueUrl="small", Entries=entries) for _ in range(2)]
    assert first == second
    assert len(first["Successful"]) == 2
    assert len((await sqs("ReceiveMessage", QueueUrl="small", MaxNumberOfMessages=10))["Messages"]) == 2


@pytest.mark.parametrize("code", [codes.IDEMPOTENCY_WINDOW_FULL, codes.IDEMPOTENCY_MISMATCH])
async def test_a_call_that_cannot_be_remembered_is_done_all_the_same(sqs: Caller, code: str, monkeypatch: Any) -> None:
    client, submit = sqs.gateway.client, sqs.gateway.client.submit

    async def forgetful(operation: Any, block: bytes = b"", *, timeout_ms: int) -> Any:
        reply = await submit(operation, block, timeout_ms=timeout_ms)
        return reply._replace(outcome=Refused(code)) if isinstance(operation, Keyed) else reply

    monkeypatch.setattr(client, "submit", forgetful)
    await sqs("SendMessage", {"amz-sdk-invocation-id": "a3f1"}, QueueUrl=URL, MessageBody="a")
    assert isinstance(client.asked[-1], Send)
