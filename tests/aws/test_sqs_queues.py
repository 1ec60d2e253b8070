"""Queues of SQS: their names and URLs, what they may be told, and what they show."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from api.aws import sqs_queues
from storage import codes
from storage.operations import Refused
from storage.queue_operations import GetQueue, PutQueue, QueueInfo
from storage.settings import QueueSettings
from tests.api import asking
from tests.aws.asking import Caller, refused

ARN = "arn:aws:sqs:eu-west-1:123456789012:"


# --- what a queue shows -----------------------------------------------------------------------------------------------


def test_a_queue_of_the_native_api_is_shown_with_whole_seconds() -> None:
    settings = QueueSettings(lease_ms=1999, body_bytes_max=7, retention_ms=60_999, delay_ms=1500, dead_letter_queue="d")
    info = QueueInfo("q", settings, 1_700_000_000_999, 1, 2, 3, 4, dead=5, changed_ms=1_700_000_001_999)
    shown = sqs_queues.shown(info)
    assert shown == {
        "QueueArn": "arn:aws:sqs:us-east-1:000000000000:q",
        "ApproximateNumberOfMessages": "1",
        "ApproximateNumberOfMessagesNotVisible": "2",
        "ApproximateNumberOfMessagesDelayed": "3",
        "CreatedTimestamp": "1700000000",
        "LastModifiedTimestamp": "1700000001",
        "VisibilityTimeout": "1",
        "MaximumMessageSize": "7",
        "MessageRetentionPeriod": "60",
        "DelaySeconds": "1",
        "ReceiveMessageWaitTimeSeconds": "0",
        "SqsManagedSseEnabled": "false",
    }


async def test_a_new_queue_has_the_attributes_of_sqs(sqs: Caller) -> None:
    url = (await sqs("GetQueueUrl", QueueName="jobs"))["QueueUrl"]
    assert url == f"http://127.0.0.1:{sqs.gateway.port}/000000000000/jobs"
    shown = (await sqs("GetQueueAttributes", QueueUrl=url, AttributeNames=["All"]))["Attributes"]
    assert (shown["VisibilityTimeout"], shown["MaximumMessageSize"], shown["MessageRetentionPeriod"]) == (
        "30",
        "1048576",
        "345600",
    )
    few = await sqs("GetQueueAttributes", QueueUrl=url, AttributeNames=["QueueArn", "Policy", "FifoQueue"])
    assert few["Attributes"] == {"QueueArn": "arn:aws:sqs:us-east-1:000000000000:jobs"}
    assert (await sqs("GetQueueAttributes", QueueUrl=url)).get("Attributes", {}) == {}
    assert (await refused(sqs, "GetQueueAttributes", QueueUrl=url, AttributeNames=["Nope"]))[1:] == (
        "InvalidAttributeName",
        "Unknown Attribute Nope.",
    )


async def test_a_queue_is_created_once_and_found_again_if_it_is_as_asked(sqs: Caller) -> None:
    given = {"VisibilityTimeout": "60", "MessageRetentionPeriod": "3600", "DelaySeconds": "0", "Policy": ""}
    url = (await sqs("CreateQueue", QueueName="new", Attributes=given))["QueueUrl"]
    assert (await sqs("CreateQueue", QueueName="new", Attributes={"VisibilityTimeout": "060"}))["QueueUrl"] == url
    assert (await sqs("CreateQueue", QueueName="new"))["QueueUrl"] == url
    assert await refused(sqs, "CreateQueue", QueueName="new", Attributes={"VisibilityTimeout": "61"}) == (
        400,
        "QueueAlreadyExists",
        "A queue already exists with the same name and a different value for attribute VisibilityTimeout",
    )
    shown = (await sqs("GetQueueAttributes", QueueUrl=url, AttributeNames=["All"]))["Attributes"]
    assert (shown["VisibilityTimeout"], shown["MessageRetentionPeriod"]) == ("60", "3600")


async def test_a_queue_is_not_created_when_it_is_not_known_whether_it_is_there(sqs: Caller) -> None:
    sqs.gateway.client.refuses_with = Refused(codes.STALE_OPERATION)
    assert (await refused(sqs, "CreateQueue", QueueName="new"))[:2] == (503, "ServiceUnavailable")
    assert sqs.gateway.client.asked[-1] == GetQueue("new")


@pytest.mark.parametrize(
    ("given", "more"),
    [
        ({"VisibilityTimeout": "0"}, {}),
        ({"ReceiveMessageWaitTimeSeconds": "20"}, {}),
        ({"Policy": '{"Statement": []}'}, {}),
        ({"SqsManagedSseEnabled": "true"}, {}),
        ({"KmsMasterKeyId": "alias/a"}, {"KmsDataKeyReusePeriodSeconds": "300"}),
        ({"KmsMasterKeyId": "alias/a", "KmsDataKeyReusePeriodSeconds": "60"}, {}),
        ({"RedriveAllowPolicy": '{"redrivePermission":"denyAll"}'}, {}),
        (
            {
                "RedriveAllowPolicy": '{"redrivePermission":"byQueue","sourceQueueArns":'
                '["arn:aws:sqs:us-east-1:000000000000:a"]}'
            },
            {},
        ),
    ],
)
async def test_what_a_queue_is_told_it_shows_and_is_found_by(
    sqs: Caller, given: dict[str, str], more: dict[str, str]
) -> None:
    before = (await sqs("GetQueueAttributes", QueueUrl="jobs", AttributeNames=["All"]))["Attributes"]
    await sqs("CreateQueue", QueueName="new", Attributes=given)
    assert await sqs("CreateQueue", QueueName="new", Attributes=given)
    shown = (await sqs("GetQueueAttributes", QueueUrl="new", AttributeNames=["All"]))["Attributes"]
    assert {name: text for name, text in shown.items() if name != "QueueArn"} == {
        name: text for name, text in (before | given | more).items() if name != "QueueArn"
    }
    for name in given:
        differs = {"QueueName": "jobs", "Attributes": {name: given[name]}}
        assert (await refused(sqs, "CreateQueue", **differs))[1] == "QueueAlreadyExists"


async def test_attributes_that_are_only_kept_can_be_taken_back(sqs: Caller) -> None:
    kms = {"KmsMasterKeyId": "alias/a", "KmsDataKeyReusePeriodSeconds": "60", "Policy": "{}"}
    await sqs("SetQueueAttributes", QueueUrl="jobs", Attributes=kms)
    await sqs("SetQueueAttributes", QueueUrl="jobs", Attributes={"SqsManagedSseEnabled": "true", "Policy": ""})
    shown = (await sqs("GetQueueAttributes", QueueUrl="jobs", AttributeNames=["All"]))["Attributes"]
    assert (shown["SqsManagedSseEnabled"], "KmsMasterKeyId" in shown, "Policy" in shown) == ("true", False, False)
    both = {"KmsMasterKeyId": "alias/a", "SqsManagedSseEnabled": "true"}
    told = await refused(sqs, "SetQueueAttributes", QueueUrl="jobs", Attributes=both)
    assert told[1:] == (
        "InvalidAttributeValue",
        "You can use one type of server-side encryption (SSE) at one time. You can either enable KMS SSE or SQS SSE.",
    )
    policy = '{"a":"' + "x" * 8200 + '"}'
    told = await refused(sqs, "SetQueueAttributes", QueueUrl="jobs", Attributes={"Policy": policy})
    assert told[1:] == ("InvalidAttributeValue", "Invalid value for the parameter Policy.")


async def test_a_dead_letter_queue_chooses_its_sources(sqs: Caller) -> None:
    dead = "arn:aws:sqs:us-east-1:000000000000:dead"
    policy = json.dumps({"deadLetterTargetArn": dead, "maxReceiveCount": 3})
    allow = json.dumps({"redrivePermission": "byQueue", "sourceQueueArns": [ARN + "friend"]})
    await sqs("CreateQueue", QueueName="dead", Attributes={"RedriveAllowPolicy": allow})
    await sqs("CreateQueue", QueueName="friend", Attributes={"RedrivePolicy": policy})
    for action, asked in (("CreateQueue", {"QueueName": "other"}), ("SetQueueAttributes", {"QueueUrl": "jobs"})):
        assert await refused(sqs, action, **asked, Attributes={"RedrivePolicy": policy}) == (
            400,
            "InvalidParameterValue",
            "The RedriveAllowPolicy of the dead letter queue does not allow this source queue.",
        )
    deny = json.dumps({"redrivePermission": "denyAll"})
    await sqs("SetQueueAttributes", QueueUrl="dead", Attributes={"RedriveAllowPolicy": deny})
    await sqs("SetQueueAttributes", QueueUrl="friend", Attributes={"DelaySeconds": "1"})
    assert (await refused(sqs, "SetQueueAttributes", QueueUrl="jobs", Attributes={"RedrivePolicy": policy}))[0] == 400
    allow_all = json.dumps({"redrivePermission": "allowAll"})
    await sqs("SetQueueAttributes", QueueUrl="dead", Attributes={"RedriveAllowPolicy": allow_all})
    await sqs("SetQueueAttributes", QueueUrl="jobs", Attributes={"RedrivePolicy": policy})


async def test_throughput_by_group_needs_the_scope_of_a_group(sqs: Caller) -> None:
    high = {"FifoThroughputLimit": "perMessageGroupId", "DeduplicationScope": "messageGroup"}
    await sqs("CreateQueue", QueueName="q.fifo", Attributes={"FifoQueue": "true", **high})
    shown = await sqs("GetQueueAttributes", QueueUrl="q.fifo", AttributeNames=[*high])
    assert shown["Attributes"] == high
    for attributes in ({"DeduplicationScope": "queue"}, high | {"DeduplicationScope": "queue"}):
        told = await refused(sqs, "SetQueueAttributes", QueueUrl="q.fifo", Attributes=attributes)
        assert told[1] == "InvalidAttributeValue"
        assert told[2].startswith("The FifoThroughputLimit attribute can be set to perMessageGroupId only")
    low = {"FifoThroughputLimit": "perQueue", "DeduplicationScope": "queue"}
    await sqs("SetQueueAttributes", QueueUrl="q.fifo", Attributes=low)
    shown = await sqs("GetQueueAttributes", QueueUrl="q.fifo", AttributeNames=[*high])
    assert shown["Attributes"] == low


async def test_a_receive_that_does_not_say_waits_as_long_as_the_queue(sqs: Caller) -> None:
    await sqs("SetQueueAttributes", QueueUrl="jobs", Attributes={"ReceiveMessageWaitTimeSeconds": "20"})
    client = sqs.gateway.client
    waiting = asyncio.create_task(sqs("ReceiveMessage", QueueUrl="jobs"))
    await client.waiting.wait()
    assert not (await sqs("ReceiveMessage", QueueUrl="jobs", WaitTimeSeconds=0)).get("Messages")
    await sqs("SendMessage", QueueUrl="jobs", MessageBody="a")
    assert [message["Body"] for message in (await waiting)["Messages"]] == ["a"]


async def test_with_no_visibility_timeout_a_message_is_there_again_at_once(sqs: Caller) -> None:
    await sqs("SetQueueAttributes", QueueUrl="jobs", Attributes={"VisibilityTimeout": "0"})
    await sqs("SendMessage", QueueUrl="jobs", MessageBody="a")
    for count in ("1", "2"):
        (got,) = (await sqs("ReceiveMessage", QueueUrl="jobs", AttributeNames=["All"]))["Messages"]
        assert got["Attributes"]["ApproximateReceiveCount"] == count
        sqs.gateway.client.pass_time(0)


# --- kinds ------------------------------------------------------------------------------------------------------------


async def test_a_fifo_queue_shows_what_it_was_told(sqs: Caller) -> None:
    given = {"FifoQueue": "true", "ContentBasedDeduplication": "true", "DeduplicationScope": "messageGroup"}
    await sqs("CreateQueue", QueueName="q.fifo", Attributes=given)
    asked = [*given, "FifoThroughputLimit"]
    shown = await sqs("GetQueueAttributes", QueueUrl="q.fifo", AttributeNames=asked)
    assert shown["Attributes"] == given | {"FifoThroughputLimit": "perQueue"}
    assert await sqs("CreateQueue", QueueName="q.fifo", Attributes=given)
    await sqs("SetQueueAttributes", QueueUrl="q.fifo", Attributes={"DeduplicationScope": "queue", "FifoQueue": "true"})
    await sqs("SetQueueAttributes", QueueUrl="q.fifo", Attributes={"ContentBasedDeduplication": "false"})
    shown = await sqs("GetQueueAttributes", QueueUrl="q.fifo", AttributeNames=[*given])
    assert shown["Attributes"] == {
        "FifoQueue": "true",
        "ContentBasedDeduplication": "false",
        "DeduplicationScope": "queue",
    }
    assert await refused(sqs, "CreateQueue", QueueName="q.fifo", Attributes=given) == (
        400,
        "QueueAlreadyExists",
        "A queue already exists with the same name and a different value for attribute ContentBasedDeduplication",
    )
    assert await refused(sqs, "SetQueueAttributes", QueueUrl="q.fifo", Attributes={"FifoQueue": "false"}) == (
        400,
        "InvalidAttributeValue",
        "Invalid value for the parameter FifoQueue. Reason: Modifying queue type is not supported.",
    )


# --- changing ---------------------------------------------------------------------------------------------------------


async def test_attributes_are_changed_and_the_others_stay(sqs: Caller) -> None:
    await sqs("SetQueueAttributes", QueueUrl="jobs", Attributes={"VisibilityTimeout": "7", "DelaySeconds": "900"})
    await sqs("SetQueueAttributes", QueueUrl="jobs", Attributes={"MessageRetentionPeriod": "60"})
    names = ["VisibilityTimeout", "DelaySeconds", "MessageRetentionPeriod", "MaximumMessageSize"]
    shown = await sqs("GetQueueAttributes", QueueUrl="jobs", AttributeNames=names)
    assert shown["Attributes"] == dict(zip(names, ["7", "900", "60", "1048576"], strict=True))
    for attributes, code in (
        ({}, "MissingParameter"),
        ({"FifoQueue": "true"}, "InvalidAttributeName"),
        ({"QueueArn": "a"}, "InvalidAttributeName"),
        ({"VisibilityTimeout": "-1"}, "InvalidAttributeValue"),
    ):
        assert (await refused(sqs, "SetQueueAttributes", QueueUrl="jobs", Attributes=attributes))[:2] == (400, code)
    assert (await refused(sqs, "SetQueueAttributes", QueueUrl="nope", Attributes={"DelaySeconds": "1"}))[0] == 400


async def test_what_the_native_api_has_set_stays_as_well(sqs_json: Caller) -> None:
    settings = {"lease_ms": 5000, "history_ms": 60_000, "attempts_max": 3}
    await asking.ask(sqs_json.gateway, "PUT", "/v1/queues/jobs", settings)
    await sqs_json("SetQueueAttributes", QueueUrl="jobs", Attributes={"DelaySeconds": "2"})
    client = sqs_json.gateway.client
    found = (await client.submit(GetQueue("jobs"), timeout_ms=1)).outcome
    assert isinstance(found, QueueInfo)
    assert found.settings == QueueSettings(lease_ms=5000, history_ms=60_000, attempts_max=3, delay_ms=2000)


async def test_two_that_change_a_queue_at_once_lose_nothing_of_each_other(
    sqs: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, submit = sqs.gateway.client, sqs.gateway.client.submit
    others = iter([{"lease_ms": 9000}, {"lease_ms": 8000}])

    async def contended(operation: Any, block: bytes = b"", *, timeout_ms: int) -> Any:
        """Somebody else changes the queue between our look and our change, twice."""
        if isinstance(operation, PutQueue) and (other := next(others, None)) is not None:
            before = (await submit(GetQueue("jobs"), timeout_ms=1)).outcome.settings
            await submit(PutQueue("jobs", msgspec.structs.replace(before, **other)), timeout_ms=1)
        return await submit(operation, block, timeout_ms=timeout_ms)

    monkeypatch.setattr(client, "submit", contended)
    await sqs("SetQueueAttributes", QueueUrl="jobs", Attributes={"DelaySeconds": "3"})
    names = ["VisibilityTimeout", "DelaySeconds"]
    shown = await sqs("GetQueueAttributes", QueueUrl="jobs", AttributeNames=names)
    assert shown["Attributes"] == {"VisibilityTimeout": "8", "DelaySeconds": "3"}
    others = iter([{"lease_ms": 1000 * second} for second in range(10, 40)])
    assert await refused(sqs, "SetQueueAttributes", QueueUrl="jobs", Attributes={"DelaySeconds": "4"}) == (
        503,
        "ServiceUnavailable",
        "Others change the queue. Send it again.",
    )


async def test_of_two_that_create_a_queue_at_once_the_second_hears_of_the_first(
    sqs: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, submit = sqs.gateway.client, sqs.gateway.client.submit

    async def faster(operation: Any, block: bytes = b"", *, timeout_ms: int) -> Any:
        """Somebody else creates the queue between our look and our creation."""
        if isinstance(operation, PutQueue):
            await submit(PutQueue(operation.queue, QueueSettings(lease_ms=60_000)), timeout_ms=1)
        return await submit(operation, block, timeout_ms=timeout_ms)

    monkeypatch.setattr(client, "submit", faster)
    assert await sqs("CreateQueue", QueueName="same", Attributes={"VisibilityTimeout": "60"})
    assert await refused(sqs, "CreateQueue", QueueName="other", Attributes={"VisibilityTimeout": "61"}) == (
        400,
        "QueueAlreadyExists",
        "A queue already exists with the same name and a different value for attribute VisibilityTimeout",
    )


# --- all of them ------------------------------------------------------------------------------------------------------


async def test_queues_are_listed_by_the_beginning_of_their_name_page_by_page(sqs: Caller) -> None:
    for name in ("a", "ab", "ab-1", "ab_2", "abz", "b", "aa", "AB"):
        await sqs("CreateQueue", QueueName=name)

    async def listed(**asked: object) -> tuple[list[str], str | None]:
        page = await sqs("ListQueues", **asked)
        return [url.rpartition("/")[2] for url in page.get("QueueUrls", [])], page.get("NextToken")

    assert await listed() == (["AB", "a", "aa", "ab", "ab-1", "ab_2", "abz", "b", "jobs"], None)
    assert await listed(QueueNamePrefix="ab") == (["ab", "ab-1", "ab_2", "abz"], None)
    for nothing in ("abc", "é", "a b", "\x00", "z", "."):
        assert await listed(QueueNamePrefix=nothing) == ([], None)
    found: list[str] = []
    token: dict[str, object] = {}
    for _ in range(10):
        page, after = await listed(QueueNamePrefix="a", MaxResults=2, **token)
        found += page
        if after is None:
            break
        token = {"NextToken": after}
    assert found == ["a", "aa", "ab", "ab-1", "ab_2", "abz"]
    assert (await listed(MaxResults=9))[1] is None
    assert (await listed(QueueNamePrefix="b", MaxResults=1))[0] == ["b"]  # however many begin with an a
    for wrong in (0, 1001, -1):
        assert (await refused(sqs, "ListQueues", MaxResults=wrong))[1] == "InvalidParameterValue"
    assert (await refused(sqs, "ListQueues", NextToken="é"))[1] == "InvalidParameterValue"


async def test_a_queue_that_is_not_there_is_told_by_every_action(sqs: Caller) -> None:
    words = "The specified queue does not exist" + ("." if sqs.in_json else " for this wsdl version.")
    missing = (400, "AWS.SimpleQueueService.NonExistentQueue", words)
    handle = "1" + "0" * 15 + "1" + "1"
    for url in ("http://a/0/nope", "http://a/0/no such queue", ""):
        for action, asked in {
            "GetQueueAttributes": {},
            "SetQueueAttributes": {"Attributes": {"DelaySeconds": "1"}},
            "ListDeadLetterSourceQueues": {},
            "PurgeQueue": {},
            "DeleteQueue": {},
            "SendMessage": {"MessageBody": "a"},
            "SendMessageBatch": {"Entries": [{"Id": "a", "MessageBody": "a"}]},
            "ReceiveMessage": {},
            "DeleteMessage": {"ReceiptHandle": handle},
            "DeleteMessageBatch": {"Entries": [{"Id": "a", "ReceiptHandle": handle}]},
            "ChangeMessageVisibility": {"ReceiptHandle": handle, "VisibilityTimeout": 1},
            "ChangeMessageVisibilityBatch": {"Entries": [{"Id": "a", "ReceiptHandle": handle, "VisibilityTimeout": 1}]},
        }.items():
            assert await refused(sqs, action, QueueUrl=url, **asked) == missing, action
    for name in ("nope", "no such queue", ""):
        assert await refused(sqs, "GetQueueUrl", QueueName=name) == missing


async def test_queues_are_purged_and_deleted_at_once_and_again(sqs: Caller) -> None:
    for _ in range(2):
        await sqs("SendMessage", QueueUrl="jobs", MessageBody="a")
        await sqs("PurgeQueue", QueueUrl="jobs")
        assert await sqs("ReceiveMessage", QueueUrl="jobs") == {}
    for _ in range(2):
        await sqs("DeleteQueue", QueueUrl="jobs")
        assert (await refused(sqs, "GetQueueUrl", QueueName="jobs"))[0] == 400
        await sqs("CreateQueue", QueueName="jobs")
