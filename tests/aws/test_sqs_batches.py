"""Batches of SQS: what is done, what fails alone, and what is refused as a whole."""

from __future__ import annotations

from typing import Any

import pytest

from tests.aws.asking import URL, Caller, counts, receive, refused, send

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
