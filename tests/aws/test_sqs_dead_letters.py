"""Which dead-letter queue a queue has, as SQS tells it and is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.api import asking
from tests.aws.asking import Caller, refused

ARN = "arn:aws:sqs:eu-west-1:123456789012:"


def redrive(queue: str, count: int | str = 2) -> dict[str, str]:
    return {"RedrivePolicy": json.dumps({"deadLetterTargetArn": ARN + queue, "maxReceiveCount": count})}


async def test_a_dead_letter_queue_is_told_shown_and_taken_back(sqs: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    await sqs("CreateQueue", QueueName="dead")
    await sqs("CreateQueue", QueueName="new", Attributes=redrive("dead"))
    await sqs("SetQueueAttributes", QueueUrl="jobs", Attributes=redrive("dead", "1000"))
    shown = await sqs("GetQueueAttributes", QueueUrl="jobs", AttributeNames=["RedrivePolicy"])
    arn = "arn:aws:sqs:us-east-1:000000000000:dead"
    assert json.loads(shown["Attributes"]["RedrivePolicy"]) == {"deadLetterTargetArn": arn, "maxReceiveCount": 1000}
    assert await sqs("CreateQueue", QueueName="jobs", Attributes=redrive("dead", 1000))
    assert (await refused(sqs, "CreateQueue", QueueName="jobs", Attributes=redrive("dead", 999)))[
        1
    ] == "QueueAlreadyExists"

    async def sources(**asked: object) -> tuple[list[str], str | None]:
        page = await sqs("ListDeadLetterSourceQueues", QueueUrl="dead", **asked)
        return [url.rpartition("/")[2] for url in page.get("queueUrls", [])], page.get("NextToken")

    assert await sources() == (["jobs", "new"], None)
    first, token = await sources(MaxResults=1)
    assert first == ["jobs"]
    assert await sources(MaxResults=1, NextToken=token) == (["new"], None)
    native = {"dead_letter_queue": "dead", "overflow": "dead_letter", "messages_max": 5}
    await asking.ask(sqs.gateway, "PUT", "/v1/queues/full", native)  # what does not fit goes there, not what fails
    monkeypatch.setattr("api.aws.queue_actions.SCAN_MAX", 1)
    assert await sources() == (["jobs", "new"], None)
    await sqs("SetQueueAttributes", QueueUrl="jobs", Attributes={"RedrivePolicy": ""})
    assert await sources() == (["new"], None)
    assert await sqs("GetQueueAttributes", QueueUrl="jobs", AttributeNames=["RedrivePolicy"]) in (
        {},
        {"Attributes": {}},
    )
    assert (await refused(sqs, "ListDeadLetterSourceQueues", QueueUrl="nope"))[1].endswith("NonExistentQueue")


@pytest.mark.parametrize(
    ("settings", "attributes", "said"),
    [
        (
            {"fifo": True},
            {"ContentBasedDeduplication": "true"},
            "dedup_by does not allow it: what was sent before is known within dedup_window_ms, which is 0",
        ),
        (
            {"fifo": True, "dead_letter_queue": "dead.fifo", "attempts_max": 3, "on_expiry": "dead_letter"},
            {"RedrivePolicy": ""},
            "on_expiry does not allow it: there is no dead_letter_queue to take what expires",
        ),
    ],
    ids=["dedup_by", "on_expiry"],
)
async def test_what_does_not_go_with_a_native_setting_is_refused_for_that_reason(
    sqs: Caller, settings: dict[str, Any], attributes: dict[str, str], said: str
) -> None:
    assert (await asking.ask(sqs.gateway, "PUT", "/v1/queues/dead.fifo", {"fifo": True})).status == 201
    assert (await asking.ask(sqs.gateway, "PUT", "/v1/queues/q.fifo", settings)).status == 201
    told = await refused(sqs, "SetQueueAttributes", QueueUrl="q.fifo", Attributes=attributes)
    assert told == (400, "InvalidAttributeValue", f"The queue's setting {said}.")


async def test_dead_letter_queues_that_cannot_be_are_refused(sqs: Caller) -> None:
    await sqs("CreateQueue", QueueName="q.fifo", Attributes={"FifoQueue": "true"})
    for action, asked in (
        ("CreateQueue", {"QueueName": "new"}),
        ("SetQueueAttributes", {"QueueUrl": "jobs"}),
    ):
        for target, said in (
            ("nope", "Dead letter target does not exist."),
            ("jobs" if action == "SetQueueAttributes" else "new", "A queue cannot be its own dead-letter queue."),
            ("q.fifo", "Dead letter queue of a FIFO queue must also be a FIFO queue."),
        ):
            status, code, words = await refused(sqs, action, Attributes=redrive(target), **asked)
            assert (status, code) == (400, "InvalidParameterValue")
            assert said in words
