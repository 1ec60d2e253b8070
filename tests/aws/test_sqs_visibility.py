"""SQS: when a message is there, for whom, and where it goes when it was there too often."""

from __future__ import annotations

import asyncio
from typing import Any

from storage.operations import Nack, Receive
from tests.aws.asking import URL, Caller, counts, receive, refused, send

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
