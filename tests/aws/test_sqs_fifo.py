"""FIFO queues as SQS has them: groups, what is the same, and receives that are attempted again."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tests.aws.asking import URL, Caller, refused

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
