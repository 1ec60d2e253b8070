"""Message move tasks: dead letters go back by SQS's own calls, and the native API sees the same tasks."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.api import asking
from tests.aws.asking import Caller, refused

ARN = "arn:aws:sqs:us-east-1:000000000000:"
DEAD = ARN + "dead"
NO_SOURCE = "The resource that you specified for the SourceArn parameter doesn't exist."


async def with_dead_letters(sqs: Caller, *bodies: str, queue: str = "trips") -> None:
    await sqs("CreateQueue", QueueName="dead")
    policy = f'{{"deadLetterTargetArn": "{DEAD}", "maxReceiveCount": 1}}'
    await sqs("CreateQueue", QueueName=queue, Attributes={"RedrivePolicy": policy})
    for body in bodies:
        await sqs("SendMessage", QueueUrl=queue, MessageBody=body)
        (got,) = (await sqs("ReceiveMessage", QueueUrl=queue))["Messages"]
        await sqs("ChangeMessageVisibility", QueueUrl=queue, ReceiptHandle=got["ReceiptHandle"], VisibilityTimeout=0)


async def depth(sqs: Caller, queue: str) -> int:
    shown = await sqs("GetQueueAttributes", QueueUrl=queue, AttributeNames=["ApproximateNumberOfMessages"])
    return int(shown["Attributes"]["ApproximateNumberOfMessages"])


async def tasks(sqs: Caller, **asked: Any) -> list[dict[str, Any]]:
    """NB: the query protocol has no way to say an empty list."""
    found: list[dict[str, Any]] = (await sqs("ListMessageMoveTasks", SourceArn=DEAD, **asked)).get("Results", [])
    return found


async def test_dead_letters_go_back_where_they_came_from(sqs: Caller) -> None:
    await with_dead_letters(sqs, "a", "b")
    await with_dead_letters(sqs, "c", queue="cars")
    handle = (await sqs("StartMessageMoveTask", SourceArn=DEAD))["TaskHandle"]
    (running,) = await tasks(sqs)
    assert (running["Status"], running["TaskHandle"], running["SourceArn"]) == ("RUNNING", handle, DEAD)
    assert "DestinationArn" not in running
    sqs.gateway.client.lead()
    (done,) = await tasks(sqs)
    assert done == {
        "Status": "COMPLETED",
        "SourceArn": DEAD,
        "StartedTimestamp": sqs.gateway.client.now_ms,
        "ApproximateNumberOfMessagesMoved": 3,
        "ApproximateNumberOfMessagesToMove": 3,
    }
    assert [await depth(sqs, queue) for queue in ("dead", "trips", "cars")] == [0, 2, 1]
    (got,) = (await sqs("ReceiveMessage", QueueUrl="cars", AttributeNames=["All"]))["Messages"]
    assert got["Attributes"]["ApproximateReceiveCount"] == "1"
    assert "DeadLetterQueueSourceArn" not in got["Attributes"]
    assert (await refused(sqs, "CancelMessageMoveTask", TaskHandle=handle))[:2] == (404, "ResourceNotFoundException")


async def test_a_task_with_a_rate_and_a_destination_is_cancelled(sqs: Caller) -> None:
    await with_dead_letters(sqs, *"abcde")
    asked = {"DestinationArn": ARN + "jobs", "MaxNumberOfMessagesPerSecond": 20}
    handle = (await sqs("StartMessageMoveTask", SourceArn=DEAD, **asked))["TaskHandle"]
    said = "There is already a task running. Only one active task is allowed for a source queue arn at a given time."
    assert await refused(sqs, "StartMessageMoveTask", SourceArn=DEAD) == (400, "InvalidParameterValue", said)
    sqs.gateway.client.pass_time(0)
    cancelled = await sqs("CancelMessageMoveTask", TaskHandle=handle)
    assert cancelled["ApproximateNumberOfMessagesMoved"] == 2
    (told,) = await tasks(sqs, MaxResults=10)
    assert (told["Status"], told["DestinationArn"], told["MaxNumberOfMessagesPerSecond"]) == (
        "CANCELLED",
        ARN + "jobs",
        20,
    )
    assert [await depth(sqs, queue) for queue in ("dead", "jobs")] == [3, 2]
    native = await asking.ask(sqs.gateway, "GET", "/v1/queues/dead/redrive")
    assert [(task["state"], task["moved"]) for task in native["tasks"]] == [("cancelled", 2)]


async def test_a_task_that_fails_says_why(sqs: Caller) -> None:
    await with_dead_letters(sqs, "a")
    await sqs("StartMessageMoveTask", SourceArn=DEAD)
    await sqs("DeleteQueue", QueueUrl="trips")
    sqs.gateway.client.lead()
    (told,) = await tasks(sqs)
    assert (told["Status"], told["FailureReason"]) == ("FAILED", "AWS.SimpleQueueService.NonExistentQueue")
    assert await depth(sqs, "dead") == 1


async def test_the_newest_come_first_and_undoing_is_no_task_of_sqs(sqs: Caller) -> None:
    await with_dead_letters(sqs, "a")
    for _ in range(3):
        await sqs("StartMessageMoveTask", SourceArn=DEAD)
        sqs.gateway.client.pass_time(1)
    await asking.ask(sqs.gateway, "POST", "/v1/queues/dead/redrive/1/undo", {})
    sqs.gateway.client.lead()
    assert len(await tasks(sqs)) == 1
    found = await tasks(sqs, MaxResults=10)
    assert [task["ApproximateNumberOfMessagesMoved"] for task in found] == [0, 0, 1]
    starts = [task["StartedTimestamp"] for task in found]
    assert starts == sorted(starts, reverse=True)


@pytest.mark.parametrize(
    ("action", "asked", "status", "code", "said"),
    [
        ("StartMessageMoveTask", {"SourceArn": ARN + "none"}, 404, "ResourceNotFoundException", NO_SOURCE),
        ("ListMessageMoveTasks", {"SourceArn": ARN + "none"}, 404, "ResourceNotFoundException", NO_SOURCE),
        ("StartMessageMoveTask", {"SourceArn": "dead"}, 400, "InvalidParameterValue", "You must use this format"),
        ("StartMessageMoveTask", {"SourceArn": ARN + "jobs"}, 400, "InvalidParameterValue", "Source queue must be"),
        (
            "StartMessageMoveTask",
            {"SourceArn": DEAD, "DestinationArn": ARN + "none"},
            404,
            "ResourceNotFoundException",
            "The resource that you specified for the DestinationArn parameter doesn't exist.",
        ),
        (
            "StartMessageMoveTask",
            {"SourceArn": DEAD, "DestinationArn": ARN + "q.fifo"},
            400,
            "AWS.SimpleQueueService.UnsupportedOperation",
            "The destination is of another type",
        ),
        (
            "StartMessageMoveTask",
            {"SourceArn": DEAD, "MaxNumberOfMessagesPerSecond": 501},
            400,
            "InvalidParameterValue",
            "Value 501 for parameter MaxNumberOfMessagesPerSecond",
        ),
        ("ListMessageMoveTasks", {"SourceArn": DEAD, "MaxResults": 11}, 400, "InvalidParameterValue", "Value 11 for"),
        ("CancelMessageMoveTask", {"TaskHandle": "x"}, 400, "InvalidParameterValue", "Value for parameter TaskHandle"),
        ("CancelMessageMoveTask", {"TaskHandle": "e30="}, 400, "InvalidParameterValue", "Value for parameter"),
        (
            "CancelMessageMoveTask",
            {"TaskHandle": base64.b64encode(f'{{"taskId":"7","sourceArn":"{DEAD}"}}'.encode()).decode()},
            404,
            "ResourceNotFoundException",
            "Task does not exist.",
        ),
    ],
)
async def test_what_is_refused(
    sqs: Caller, action: str, asked: dict[str, Any], status: int, code: str, said: str
) -> None:
    await with_dead_letters(sqs, "a")
    await sqs("CreateQueue", QueueName="q.fifo", Attributes={"FifoQueue": "true"})
    told = await refused(sqs, action, **asked)
    assert told[:2] == (status, code)
    assert told[2].startswith(said)
    assert await tasks(sqs) == []
