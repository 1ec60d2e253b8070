"""Messages through SQS, over HTTP, in both protocols, on the real rules."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import xml.etree.ElementTree as ElementTree
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.aws import calls
from api.aws import sqs as actions
from api.aws.digests import Attribute, md5_of_attributes
from api.aws.protocols import SQS
from api.aws.sqs_messages import NAMES_MAX
from cluster.replica import STORE_FULL
from storage import codes
from storage.operations import Keyed, Nack, Receive, Refused, Send
from tests.api import asking
from tests.aws import models
from tests.aws.asking import Caller, refused

URL = "http://anywhere/123456789012/jobs"
LEGAL = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Cn"]) | st.sampled_from("\t\n\r"), min_size=1, max_size=40
)


async def send(sqs: Caller, body: str = "hi", **more: Any) -> dict[str, Any]:
    return await sqs("SendMessage", QueueUrl=URL, MessageBody=body, **more)


async def receive(sqs: Caller, **more: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await sqs("ReceiveMessage", QueueUrl=URL, **more)).get("Messages", [])
    return found


async def counts(sqs: Caller) -> tuple[int, int]:
    """Messages ready and in flight."""
    shown = await sqs("GetQueueAttributes", QueueUrl=URL, AttributeNames=["All"])
    names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
    ready, leased = (int(shown["Attributes"][name]) for name in names)
    return ready, leased


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


# --- batches ----------------------------------------------------------------------------------------------------------

BATCHES = {
    "SendMessageBatch": ({"MessageBody": "a"}, "SendMessageBatchRequestEntry"),
    "DeleteMessageBatch": ({"ReceiptHandle": "x"}, "DeleteMessageBatchRequestEntry"),
    "ChangeMessageVisibilityBatch": (
        {"ReceiptHandle": "x", "VisibilityTimeout": 1},
        "ChangeMessageVisibilityBatchRequestEntry",
    ),
}


@pytest.mark.parametrize("action", sorted(BATCHES))
async def test_a_batch_that_is_none_is_refused_as_a_whole(sqs: Caller, action: str) -> None:
    entry, element = BATCHES[action]

    async def said(*ids: str) -> tuple[int, str, str]:
        return await refused(sqs, action, QueueUrl=URL, Entries=[entry | {"Id": each} for each in ids])

    prefix = "AWS.SimpleQueueService."
    assert await said() == (
        400,
        prefix + "EmptyBatchRequest",
        f"There should be at least one {element} in the request.",
    )
    assert await said(*(str(number) for number in range(11))) == (
        400,
        prefix + "TooManyEntriesInBatchRequest",
        "Maximum number of entries per request are 10. You have sent 11.",
    )
    assert await said("a", "b", "a") == (400, prefix + "BatchEntryIdsNotDistinct", "Id a repeated.")
    for wrong in ("", "a b", "a" * 81, "invalid:id", "ü"):
        assert await said(wrong) == (
            400,
            prefix + "InvalidBatchEntryId",
            "A batch entry id can only contain alphanumeric characters, hyphens and underscores. "
            "It can be at most 80 letters long.",
        )
    assert await counts(sqs) == (0, 0)


async def test_a_batch_is_sent_in_order_and_the_refused_leave_the_others_unharmed(sqs: Caller) -> None:
    entries: list[dict[str, Any]] = [
        {"Id": "first", "MessageBody": "1", "MessageAttributes": {"a": {"DataType": "String", "StringValue": "b"}}},
        {"Id": "empty", "MessageBody": ""},
        {"Id": "second", "MessageBody": "2"},
        {"Id": "late", "MessageBody": "3", "DelaySeconds": 901},
        {"Id": "typed", "MessageBody": "4", "MessageAttributes": {"a": {"DataType": "Odd", "StringValue": "b"}}},
    ]
    answer = await sqs("SendMessageBatch", QueueUrl=URL, Entries=entries)
    assert [(done["Id"], "MD5OfMessageAttributes" in done) for done in answer["Successful"]] == [
        ("first", True),
        ("second", False),
    ]
    assert [(no["Id"], no["Code"], no["SenderFault"]) for no in answer["Failed"]] == [
        ("empty", "MissingParameter", True),
        ("late", "InvalidParameterValue", True),
        ("typed", "InvalidParameterValue", True),
    ]
    got = await receive(sqs, MaxNumberOfMessages=10)
    assert [(message["Body"], message["MessageId"]) for message in got] == [
        ("1", answer["Successful"][0]["MessageId"]),
        ("2", answer["Successful"][1]["MessageId"]),
    ]
    fine = await sqs("SendMessageBatch", QueueUrl=URL, Entries=[{"Id": "a", "MessageBody": "a"}])
    assert "Failed" not in fine
    none = await sqs("SendMessageBatch", QueueUrl=URL, Entries=[{"Id": "a", "MessageBody": ""}])
    assert "Successful" not in none


async def test_messages_above_the_limit_of_their_queue_fail_alone(sqs: Caller) -> None:
    await sqs("CreateQueue", QueueName="small", Attributes={"MaximumMessageSize": "1024"})
    entries = [
        {"Id": str(number), "MessageBody": "x" * size} for number, size in enumerate([1025, 1024, 2000, 5, 1025])
    ]
    answer = await sqs("SendMessageBatch", QueueUrl="small", Entries=entries)
    assert [done["Id"] for done in answer["Successful"]] == ["1", "3"]
    said = "One or more parameters cannot be validated. Reason: Message must be shorter than 1024 bytes."
    assert answer["Failed"] == [
        {"Id": number, "SenderFault": True, "Code": "InvalidParameterValue", "Message": said} for number in "024"
    ]
    assert await refused(sqs, "SendMessage", QueueUrl="small", MessageBody="x" * 1025) == (
        400,
        "InvalidParameterValue",
        "One or more parameters are invalid. Reason: Message must be shorter than 1024 bytes.",
    )
    all_too_large = [{"Id": "a", "MessageBody": "x" * 1025}]
    assert "Successful" not in await sqs("SendMessageBatch", QueueUrl="small", Entries=all_too_large)


async def test_a_batch_of_more_than_a_mebibyte_is_refused_as_a_whole(sqs: Caller) -> None:
    half = 512 * 1024
    entries = [
        {"Id": "a", "MessageBody": "x" * half},
        {
            "Id": "b",
            "MessageBody": "x" * (half - 8),
            "MessageAttributes": {"n": {"DataType": "String", "StringValue": "v"}},
        },
    ]
    assert len((await sqs("SendMessageBatch", QueueUrl=URL, Entries=entries))["Successful"]) == 2
    entries[0]["MessageBody"] = "x" * (half + 1)
    assert await refused(sqs, "SendMessageBatch", QueueUrl=URL, Entries=entries) == (
        400,
        "AWS.SimpleQueueService.BatchRequestTooLong",
        "Batch requests cannot be longer than 1048576 bytes. You have sent 1048577 bytes.",
    )
    assert await counts(sqs) == (2, 0)


async def test_batches_of_handles_settle_what_is_held_and_name_what_is_none(sqs: Caller) -> None:
    for body in "abc":
        await send(sqs, body)
    handles = [message["ReceiptHandle"] for message in await receive(sqs, MaxNumberOfMessages=10)]
    entries = [
        {"Id": str(number), "ReceiptHandle": handle} for number, handle in enumerate([handles[0], "x", handles[1]])
    ]
    answer = await sqs("DeleteMessageBatch", QueueUrl=URL, Entries=entries)
    assert answer["Successful"] == [{"Id": "0"}, {"Id": "2"}]
    assert [(no["Id"], no["Code"], no["SenderFault"]) for no in answer["Failed"]] == [
        ("1", "ReceiptHandleIsInvalid", True)
    ]
    assert await counts(sqs) == (0, 1)

    changes = [
        {"Id": "gone", "ReceiptHandle": handles[0], "VisibilityTimeout": 10},
        {"Id": "back", "ReceiptHandle": handles[2], "VisibilityTimeout": 0},
        {"Id": "wrong", "ReceiptHandle": "x", "VisibilityTimeout": 0},
        {"Id": "long", "ReceiptHandle": handles[2], "VisibilityTimeout": 43201},
        {"Id": "none", "ReceiptHandle": handles[2]},
        {"Id": "both", "ReceiptHandle": "x", "VisibilityTimeout": 43201},
    ]
    answer = await sqs("ChangeMessageVisibilityBatch", QueueUrl=URL, Entries=changes)
    assert answer["Successful"] == [{"Id": "back"}]
    assert sorted((no["Id"], no["Code"]) for no in answer["Failed"]) == [
        ("both", "ReceiptHandleIsInvalid"),
        ("gone", "InvalidParameterValue"),
        ("long", "InvalidParameterValue"),
        ("none", "MissingParameter"),
        ("wrong", "ReceiptHandleIsInvalid"),
    ]
    assert await counts(sqs) == (1, 0)


# --- visibility -------------------------------------------------------------------------------------------------------


async def test_a_message_comes_back_when_its_visibility_timeout_ends(sqs: Caller) -> None:
    await send(sqs)
    [first] = await receive(sqs, VisibilityTimeout=5)
    sqs.gateway.client.pass_time(4_999)
    assert await receive(sqs) == []
    sqs.gateway.client.pass_time(1)
    [second] = await receive(sqs, AttributeNames=["ApproximateReceiveCount", "ApproximateFirstReceiveTimestamp"])
    assert second["Attributes"] == {
        "ApproximateReceiveCount": "2",
        "ApproximateFirstReceiveTimestamp": "1700000000000",
    }
    assert second["MessageId"] == first["MessageId"]
    assert second["ReceiptHandle"] != first["ReceiptHandle"]
    # The old handle deletes nothing, and is no error.
    await sqs("DeleteMessage", QueueUrl=URL, ReceiptHandle=first["ReceiptHandle"])
    assert await counts(sqs) == (0, 1)
    sqs.gateway.client.pass_time(30_000)
    assert await counts(sqs) == (1, 0)


async def test_a_message_received_with_no_visibility_timeout_is_there_for_the_next(sqs: Caller) -> None:
    await send(sqs)
    assert len(await receive(sqs, VisibilityTimeout=0)) == 1
    sqs.gateway.client.pass_time(1)
    assert len(await receive(sqs)) == 1


async def test_visibility_is_changed_and_given_up(sqs: Caller) -> None:
    await send(sqs)
    [got] = await receive(sqs, VisibilityTimeout=5)
    change = {"QueueUrl": URL, "ReceiptHandle": got["ReceiptHandle"]}
    await sqs("ChangeMessageVisibility", VisibilityTimeout=43_200, **change)
    sqs.gateway.client.pass_time(43_199_999)
    assert await counts(sqs) == (0, 1)
    await sqs("ChangeMessageVisibility", VisibilityTimeout=0, **change)
    assert sqs.gateway.client.asked[-1] == Nack("jobs", sqs.gateway.client.asked[-1].claims, 0)  # type: ignore[union-attr]
    assert await counts(sqs) == (1, 0)
    for timeout in (0, 10):
        assert await refused(sqs, "ChangeMessageVisibility", VisibilityTimeout=timeout, **change) == (
            400,
            "InvalidParameterValue",
            f"Value {got['ReceiptHandle']} for parameter ReceiptHandle is invalid. Reason: Message does not exist or "
            "is not available for visibility timeout change.",
        )


async def test_a_receive_waits_for_the_first_message(sqs: Caller) -> None:
    waiting = asyncio.create_task(receive(sqs, WaitTimeSeconds=20))
    await sqs.gateway.client.waiting.wait()
    assert sqs.gateway.client.asked[-1].wait_ms == 20_000  # type: ignore[union-attr]
    await send(sqs, "at last")
    assert [message["Body"] for message in await waiting] == ["at last"]


async def test_a_gateway_that_stops_answers_waiting_receives_with_nothing(sqs: Caller) -> None:
    waiting = asyncio.create_task(receive(sqs, WaitTimeSeconds=20))
    await sqs.gateway.client.waiting.wait()
    await sqs.gateway.stop()
    assert await asyncio.wait_for(waiting, 5) == []


async def test_the_lease_of_a_receive_is_the_queues_unless_it_says_otherwise(sqs: Caller) -> None:
    for asked, lease_ms in (({}, 0), ({"VisibilityTimeout": 7}, 7_000), ({"VisibilityTimeout": 0}, 1)):
        await receive(sqs, **asked)
        operation = sqs.gateway.client.asked[-1]
        assert isinstance(operation, Receive)
        assert (operation.lease_ms, operation.messages_max, operation.wait_ms) == (lease_ms, 1, -1)


# --- delay ------------------------------------------------------------------------------------------------------------


async def test_a_delay_is_the_messages_or_the_queues(sqs: Caller) -> None:
    await sqs("SetQueueAttributes", QueueUrl=URL, Attributes={"DelaySeconds": "10"})
    entries: list[dict[str, Any]] = [
        {"Id": "queue", "MessageBody": "queue"},
        {"Id": "now", "MessageBody": "now", "DelaySeconds": 0},
        {"Id": "late", "MessageBody": "late", "DelaySeconds": 900},
    ]
    await sqs("SendMessageBatch", QueueUrl=URL, Entries=entries)
    await send(sqs, "single", DelaySeconds=5)
    shown = await sqs("GetQueueAttributes", QueueUrl=URL, AttributeNames=["ApproximateNumberOfMessagesDelayed"])
    assert shown["Attributes"] == {"ApproximateNumberOfMessagesDelayed": "3"}
    told = []
    for pause_ms in (0, 4_999, 1, 5_000, 889_999, 1):
        sqs.gateway.client.pass_time(pause_ms)
        got = await receive(sqs, MaxNumberOfMessages=10, VisibilityTimeout=43_200)
        told.append([message["Body"] for message in got])
    assert told == [["now"], [], ["single"], ["queue"], [], ["late"]]


# --- FIFO -------------------------------------------------------------------------------------------------------------

NO_DEDUP_ID = (
    400,
    "InvalidParameterValue",
    "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly",
)


@pytest.fixture
async def fifo(sqs: Caller) -> Caller:
    await sqs("CreateQueue", QueueName="q.fifo", Attributes={"FifoQueue": "true"})
    return sqs


async def put(fifo: Caller, body: str, group: str, dedup_id: str | None = None) -> dict[str, Any]:
    asked = {"MessageDeduplicationId": dedup_id} if dedup_id is not None else {}
    return await fifo("SendMessage", QueueUrl="q.fifo", MessageBody=body, MessageGroupId=group, **asked)


async def take(fifo: Caller, **asked: Any) -> list[dict[str, Any]]:
    got = await fifo("ReceiveMessage", QueueUrl="q.fifo", MaxNumberOfMessages=10, AttributeNames=["All"], **asked)
    found: list[dict[str, Any]] = got.get("Messages", [])
    return found


async def test_a_group_is_in_order_with_one_batch_in_flight(fifo: Caller) -> None:
    sent = [await put(fifo, body, body[0], body) for body in ("a1", "a2", "b1", "a3")]
    numbers = [message["SequenceNumber"] for message in sent]
    assert [len(number) for number in numbers] == [20] * 4
    assert numbers == sorted(numbers)
    got = await take(fifo)
    assert {message["Body"] for message in got} == {"a1", "a2", "b1", "a3"}
    assert [message["Body"] for message in got if message["Body"][0] == "a"] == ["a1", "a2", "a3"]
    by_body = {message["Body"]: message for message in got}
    assert by_body["b1"]["Attributes"]["SequenceNumber"] == numbers[2]
    assert by_body["b1"]["Attributes"]["MessageGroupId"] == "b"
    assert by_body["b1"]["Attributes"]["MessageDeduplicationId"] == "b1"
    await put(fifo, "a4", "a", "a4")
    await put(fifo, "b2", "b", "b2")
    assert await take(fifo) == []
    await fifo("DeleteMessage", QueueUrl="q.fifo", ReceiptHandle=by_body["b1"]["ReceiptHandle"])
    assert [message["Body"] for message in await take(fifo)] == ["b2"]


async def test_what_was_sent_before_is_told_again_with_the_digests_of_what_came_now(fifo: Caller) -> None:
    first = await put(fifo, "one", "g", "d")
    fifo.gateway.client.pass_time(299_999)
    again = await put(fifo, "two", "g", "d")
    assert (again["MessageId"], again["SequenceNumber"]) == (first["MessageId"], first["SequenceNumber"])
    assert again["MD5OfMessageBody"] == hashlib.md5(b"two", usedforsecurity=False).hexdigest()
    entries = [
        {"Id": str(number), "MessageBody": "x", "MessageGroupId": "g", "MessageDeduplicationId": dedup_id}
        for number, dedup_id in enumerate(["d", "e", "e"])
    ]
    batch = (await fifo("SendMessageBatch", QueueUrl="q.fifo", Entries=entries))["Successful"]
    assert batch[0]["MessageId"] == first["MessageId"]
    assert batch[1]["MessageId"] == batch[2]["MessageId"] != first["MessageId"]
    fifo.gateway.client.pass_time(1)
    new = await put(fifo, "one", "g", "d")
    assert new["SequenceNumber"] > batch[1]["SequenceNumber"]
    assert [message["Body"] for message in await take(fifo)] == ["one", "x", "one"]


async def test_a_fifo_queue_wants_to_know_what_is_the_same(fifo: Caller) -> None:
    assert await refused(fifo, "SendMessage", QueueUrl="q.fifo", MessageBody="a", MessageGroupId="g") == NO_DEDUP_ID
    entries = [{"Id": "a", "MessageBody": "a", "MessageGroupId": "g"}]
    assert await refused(fifo, "SendMessageBatch", QueueUrl="q.fifo", Entries=entries) == NO_DEDUP_ID
    await fifo("SetQueueAttributes", QueueUrl="q.fifo", Attributes={"ContentBasedDeduplication": "true"})
    first, again, other = [await put(fifo, body, "g") for body in ("a", "a", "b")]
    assert (first["MessageId"] == again["MessageId"], first["MessageId"] == other["MessageId"]) == (True, False)
    got = await take(fifo)
    digests = [hashlib.sha256(body).hexdigest() for body in (b"a", b"b")]
    assert [message["Attributes"]["MessageDeduplicationId"] for message in got] == digests


async def test_what_is_the_same_may_be_asked_within_groups(fifo: Caller) -> None:
    await fifo("SetQueueAttributes", QueueUrl="q.fifo", Attributes={"DeduplicationScope": "messageGroup"})
    first, other, again = [await put(fifo, "x", group, "d") for group in ("g", "h", "g")]
    assert first["MessageId"] == again["MessageId"] != other["MessageId"]


@pytest.mark.parametrize("name", ["MessageGroupId", "MessageDeduplicationId"])
@pytest.mark.parametrize("text", ["", "a" * 129, "group 123", "ü", "a\n"])
async def test_ids_of_fifo_queues_have_a_form(fifo: Caller, name: str, text: str) -> None:
    asked = {"MessageGroupId": "g", "MessageDeduplicationId": "d"} | {name: text}
    assert await refused(fifo, "SendMessage", QueueUrl="q.fifo", MessageBody="a", **asked) == (
        400,
        "InvalidParameterValue",
        f"Value {text} for parameter {name} is invalid. Reason: {name} can only include alphanumeric and punctuation "
        "characters. 1 to 128 in length.",
    )
    if name == "MessageGroupId":  # of a standard queue, it names a tenant
        assert (await refused(fifo, "SendMessage", QueueUrl=URL, MessageBody="a", MessageGroupId=text))[0] == 400


async def test_the_delay_of_a_fifo_queue_is_the_queues(fifo: Caller) -> None:
    await fifo("SetQueueAttributes", QueueUrl="q.fifo", Attributes={"DelaySeconds": "10"})
    asked = {"QueueUrl": "q.fifo", "MessageBody": "a", "MessageGroupId": "g", "MessageDeduplicationId": "d"}
    await fifo("SendMessage", DelaySeconds=0, **asked)
    assert await take(fifo) == []
    fifo.gateway.client.pass_time(10_000)
    assert len(await take(fifo)) == 1
    assert (await refused(fifo, "SendMessage", DelaySeconds=2, **asked))[1] == "InvalidParameterValue"


async def test_a_receive_attempted_again_comes_to_the_same_messages(fifo: Caller) -> None:
    for body in ("a", "b"):
        await put(fifo, body, "g", body)
    first = await take(fifo, ReceiveRequestAttemptId="try")
    assert [message["Body"] for message in first] == ["a", "b"]
    again = await take(fifo, ReceiveRequestAttemptId="try")
    assert [message["ReceiptHandle"] for message in again] == [message["ReceiptHandle"] for message in first]
    assert await take(fifo, ReceiveRequestAttemptId="other") == []
    await fifo("DeleteMessage", QueueUrl="q.fifo", ReceiptHandle=first[0]["ReceiptHandle"])
    assert [message["Body"] for message in await take(fifo, ReceiveRequestAttemptId="try")] == ["b"]
    assert (await refused(fifo, "ReceiveMessage", QueueUrl="q.fifo", ReceiveRequestAttemptId="a b"))[0] == 400


async def test_a_fifo_queue_refuses_a_handle_that_expired_and_no_other(fifo: Caller) -> None:
    for body in ("a", "b", "c"):
        await put(fifo, body, body, body)
    handles = [message["ReceiptHandle"] for message in await take(fifo, VisibilityTimeout=5)]
    for _ in range(2):  # what is gone already is no error
        await fifo("DeleteMessage", QueueUrl="q.fifo", ReceiptHandle=handles[0])
    fifo.gateway.client.pass_time(5_000)
    said = f"Value {handles[1]} for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired."
    expired = await refused(fifo, "DeleteMessage", QueueUrl="q.fifo", ReceiptHandle=handles[1])
    assert expired == (400, "InvalidParameterValue", said)
    entries = [{"Id": str(number), "ReceiptHandle": handle} for number, handle in enumerate([*handles, "x"])]
    answer = await fifo("DeleteMessageBatch", QueueUrl="q.fifo", Entries=entries)
    assert answer["Successful"] == [{"Id": "0"}]
    assert sorted((no["Id"], no["Code"]) for no in answer["Failed"]) == [
        ("1", "InvalidParameterValue"),
        ("2", "InvalidParameterValue"),
        ("3", "ReceiptHandleIsInvalid"),
    ]


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


# --- dead letters -----------------------------------------------------------------------------------------------------


async def test_a_dead_letter_keeps_its_id_its_times_and_its_count(sqs: Caller) -> None:
    await sqs("CreateQueue", QueueName="dead")
    policy = '{"deadLetterTargetArn": "arn:aws:sqs:us-east-1:000000000000:dead", "maxReceiveCount": "2"}'
    await sqs("SetQueueAttributes", QueueUrl=URL, Attributes={"RedrivePolicy": policy})
    attributes = {"a": {"DataType": "String", "StringValue": "b"}}
    sent = [await send(sqs, body, MessageAttributes=attributes, MessageGroupId="t") for body in ("one", "two")]
    client = sqs.gateway.client
    client.pass_time(1_000)
    for _ in range(2):
        assert len(await receive(sqs, MaxNumberOfMessages=10, VisibilityTimeout=5)) == 2
        client.pass_time(5_000)
    assert await receive(sqs) == []
    got = (await sqs("ReceiveMessage", QueueUrl="dead", MaxNumberOfMessages=10, AttributeNames=["All"]))["Messages"]
    assert [message["MessageId"] for message in got] == [message["MessageId"] for message in sent]
    assert got[0]["Attributes"] == {
        "SenderId": "000000000000",
        "SentTimestamp": "1700000000000",
        "ApproximateReceiveCount": "3",
        "ApproximateFirstReceiveTimestamp": "1700000001000",
        "DeadLetterQueueSourceArn": "arn:aws:sqs:us-east-1:000000000000:jobs",
        "MessageGroupId": "t",
    }


async def test_dead_letters_that_were_sent_together_keep_their_ids_as_well(sqs: Caller) -> None:
    await sqs("CreateQueue", QueueName="dead")
    policy = '{"deadLetterTargetArn": "arn:aws:sqs:us-east-1:000000000000:dead", "maxReceiveCount": 1}'
    await sqs("SetQueueAttributes", QueueUrl=URL, Attributes={"RedrivePolicy": policy})
    entries = [{"Id": body, "MessageBody": body} for body in "abc"]
    sent = (await sqs("SendMessageBatch", QueueUrl=URL, Entries=entries))["Successful"]
    assert len(await receive(sqs, MaxNumberOfMessages=10, VisibilityTimeout=1)) == 3
    sqs.gateway.client.pass_time(1_000)
    got = (await sqs("ReceiveMessage", QueueUrl="dead", MaxNumberOfMessages=10))["Messages"]
    assert [(message["Body"], message["MessageId"]) for message in got] == [
        (each["Id"], each["MessageId"]) for each in sent
    ]


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


# --- never a mistake --------------------------------------------------------------------------------------------------


def test_every_refusal_of_the_rules_has_words() -> None:
    assert set(calls.REFUSALS) == codes.CODES | {STORE_FULL}


@pytest.mark.parametrize("code", sorted(codes.CODES | {STORE_FULL}))
async def test_refusals_of_the_rules_are_told(sqs: Caller, code: str) -> None:
    sqs.gateway.client.refuses_with = Refused(code, 7)
    status, told, words = await refused(sqs, "SendMessage", QueueUrl=URL, MessageBody="a")
    assert 400 <= status <= 503
    assert status != 500
    assert told
    assert words


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
async def test_no_request_however_odd_is_a_mistake_of_the_node(sqs: Caller, data: st.DataObject) -> None:
    model = models.service("sqs") if sqs.in_json else models.in_query("sqs")
    action = data.draw(st.sampled_from(model.operation_names))
    asked = data.draw(models.values(model.operation_model(action).input_shape))
    if "QueueUrl" in asked:
        asked["QueueUrl"] = data.draw(st.sampled_from([URL, asked["QueueUrl"]]))
    asked.pop("WaitTimeSeconds", None)
    status, _, _ = await sqs.raw(action, **asked)
    assert status in (200, 400, 403, 404)


names_of_parameters = st.lists(
    st.sampled_from(
        ["", "1", "2", "x", "Attribute", "QueueUrl", "Entries", "Id", "Name", "Value", "MessageBody", "WaitTimeSeconds"]
        + [
            "SendMessageBatchRequestEntry",
            "MessageAttribute",
            "DataType",
            "StringValue",
            "BinaryValue",
            "AttributeName",
        ]
    ),
    max_size=4,
).map(".".join)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    action=st.sampled_from(sorted(SQS.shapes)),
    given_for=st.dictionaries(names_of_parameters, st.sampled_from(["", "jobs", "0", "true", "x", "\x00"]), max_size=8),
)
async def test_parameters_of_any_name_are_no_mistake_of_the_node(
    sqs_json: Caller, action: str, given_for: dict[str, str]
) -> None:
    form = {"QueueUrl": "jobs"} | given_for | {"Action": action}
    async with sqs_json.gateway.http.post("/", data=form) as answer:
        assert answer.status in (200, 400)
        ElementTree.fromstring(await answer.read())


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    action=st.sampled_from(sorted(SQS.shapes)),
    document=st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["QueueUrl", "Entries", "Attributes", "MessageBody", "Id"]), inner, max_size=4
            )
        ),
        max_leaves=8,
    ),
)
async def test_json_of_any_shape_is_no_mistake_of_the_node(sqs_json: Caller, action: str, document: Any) -> None:
    headers = {"X-Amz-Target": f"AmazonSQS.{action}"}
    async with sqs_json.gateway.http.post("/", data=msgspec.json.encode(document), headers=headers) as answer:
        assert answer.status in (200, 400)
