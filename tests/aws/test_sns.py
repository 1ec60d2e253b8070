"""Topics through SNS, over HTTP, on the real rules, beside SQS and the native API."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from api.aws import subscription_actions
from api.aws.protocols import SNS
from api.aws.sns_calls import PAGE, REFUSALS
from cluster.client import Reply
from cluster.room import STORE_FULL
from storage import codes
from storage.operations import Keyed, Operation, Refused
from storage.topic_operations import ListSubscriptions, Publish, PutSubscription, PutTopic
from tests.api import asking
from tests.api.fake_client import gateway, unknown
from tests.aws import models
from tests.aws.asking import Caller, refused

ARN, QUEUE = "arn:aws:sns:us-east-1:000000000000:", "arn:aws:sqs:us-east-1:000000000000:"
NEWS, JOBS = ARN + "news", QUEUE + "jobs"


class Aws(NamedTuple):
    """Both services of one gateway, with a queue called jobs and a topic called news."""

    sns: Caller
    sqs: Caller

    async def subscribe(self, queue: str = "jobs", topic: str = "news", **attributes: str) -> str:
        told = await self.sns(
            "Subscribe", TopicArn=ARN + topic, Protocol="sqs", Endpoint=QUEUE + queue, Attributes=attributes
        )
        return str(told["SubscriptionArn"])

    async def publish(self, message: str = "hi", topic: str = "news", **more: Any) -> dict[str, Any]:
        return await self.sns("Publish", TopicArn=ARN + topic, Message=message, **more)

    async def receive(self, queue: str = "jobs") -> list[dict[str, Any]]:
        got = await self.sqs(
            "ReceiveMessage",
            QueueUrl=queue,
            MaxNumberOfMessages=10,
            MessageAttributeNames=["All"],
            AttributeNames=["All"],
        )
        found: list[dict[str, Any]] = got.get("Messages", [])
        return found

    async def bodies(self, queue: str = "jobs") -> list[str]:
        return [message["Body"] for message in await self.receive(queue)]


@pytest.fixture
async def aws() -> AsyncIterator[Aws]:
    async with gateway() as opened:
        both = Aws(Caller(opened, in_json=False, service="sns"), Caller(opened, in_json=True))
        await both.sqs("CreateQueue", QueueName="jobs")
        await both.sns("CreateTopic", Name="news")
        yield both


def text(value: str, kind: str = "String") -> dict[str, str]:
    return {"DataType": kind, "StringValue": value}


# --- topics -----------------------------------------------------------------------------------------------------------


async def test_a_topic_is_created_found_shown_and_deleted(aws: Aws) -> None:
    tags = [{"Key": "ManagedBy", "Value": "Celery/Kombu"}, {"Key": "empty", "Value": ""}]
    asked = {"Name": "a", "Attributes": {"DisplayName": "A", "FifoTopic": "false"}, "Tags": tags}
    assert await aws.sns("CreateTopic", **asked) == {"TopicArn": ARN + "a"}
    assert await aws.sns("CreateTopic", **asked) == {"TopicArn": ARN + "a"}
    assert await aws.sns("CreateTopic", Name="a") == {"TopicArn": ARN + "a"}
    for other, said in (
        ({"Attributes": {"DisplayName": "B"}}, "Attributes Reason: Topic already exists with different attributes"),
        ({"Tags": tags[:1]}, "Tags Reason: Topic already exists with different tags"),
    ):
        told = await refused(aws.sns, "CreateTopic", Name="a", **other)
        assert told == (400, "InvalidParameter", f"Invalid parameter: {said}")
    assert (await aws.sns("GetTopicAttributes", TopicArn=ARN + "a"))["Attributes"] == {
        "TopicArn": ARN + "a",
        "Owner": "000000000000",
        "DisplayName": "A",
        "SubscriptionsConfirmed": "0",
        "SubscriptionsPending": "0",
        "SubscriptionsDeleted": "0",
    }
    assert await aws.sns("ListTopics") == {"Topics": [{"TopicArn": ARN + "a"}, {"TopicArn": NEWS}]}
    for _ in range(2):
        assert await aws.sns("DeleteTopic", TopicArn=ARN + "a") == {}
    missing = 404, "NotFound", "Topic does not exist"
    assert await refused(aws.sns, "GetTopicAttributes", TopicArn=ARN + "a") == missing
    for action, more in (
        ("SetTopicAttributes", {"AttributeName": "DisplayName", "AttributeValue": "x"}),
        ("ListSubscriptionsByTopic", {}),
        ("Publish", {"Message": "x"}),
        ("PublishBatch", {"PublishBatchRequestEntries": [{"Id": "a", "Message": "x"}]}),
        ("Subscribe", {"Protocol": "sqs", "Endpoint": JOBS}),
        ("ConfirmSubscription", {"Token": "x"}),
    ):
        assert await refused(aws.sns, action, TopicArn=ARN + "a", **more) == missing
    assert (await aws.sns("ListTopics"))["Topics"] == [{"TopicArn": NEWS}], "nothing has made it again"


async def test_attributes_and_tags_of_a_topic_are_changed_one_by_one(aws: Aws) -> None:
    await aws.sns("CreateTopic", Name="a.fifo", Attributes={"FifoTopic": "true"})
    arn = ARN + "a.fifo"
    for name, value in (("DisplayName", "x"), ("ContentBasedDeduplication", "true")):
        await aws.sns("SetTopicAttributes", TopicArn=arn, AttributeName=name, AttributeValue=value)
    shown = (await aws.sns("GetTopicAttributes", TopicArn=arn))["Attributes"]
    assert (shown["DisplayName"], shown["FifoTopic"], shown["ContentBasedDeduplication"]) == ("x", "true", "true")
    await aws.sns("SetTopicAttributes", TopicArn=arn, AttributeName="DisplayName", AttributeValue="")
    assert (await aws.sns("GetTopicAttributes", TopicArn=arn))["Attributes"]["DisplayName"] == ""
    told = await refused(aws.sns, "SetTopicAttributes", TopicArn=arn, AttributeName="FifoTopic", AttributeValue="true")
    assert told == (400, "InvalidParameter", "Invalid parameter: AttributeName")

    await aws.sns("TagResource", ResourceArn=arn, Tags=[{"Key": "b", "Value": "1"}, {"Key": "a", "Value": ""}])
    await aws.sns("TagResource", ResourceArn=arn, Tags=[{"Key": "b", "Value": "2"}])
    tags = [{"Key": "a", "Value": ""}, {"Key": "b", "Value": "2"}]
    assert (await aws.sns("ListTagsForResource", ResourceArn=arn))["Tags"] == tags
    await aws.sns("UntagResource", ResourceArn=arn, TagKeys=["b", "c"])
    assert (await aws.sns("ListTagsForResource", ResourceArn=arn))["Tags"] == tags[:1]
    many = [{"Key": str(number), "Value": ""} for number in range(50)]
    assert (await refused(aws.sns, "TagResource", ResourceArn=arn, Tags=many))[1] == "TagLimitExceeded"
    assert (await refused(aws.sns, "ListTagsForResource", ResourceArn=ARN + "z"))[:2] == (404, "ResourceNotFound")


# --- subscriptions ----------------------------------------------------------------------------------------------------


async def test_a_subscription_is_made_once_shown_changed_and_taken_off(aws: Aws) -> None:
    policy = '{"kind": ["order"]}'
    arn = await aws.subscribe(FilterPolicy=policy)
    assert await aws.subscribe(FilterPolicy=policy) == await aws.subscribe() == arn
    assert arn.startswith(NEWS + ":")
    for differs in ({"RawMessageDelivery": "true"}, {"FilterPolicyScope": "MessageBody"}, {"FilterPolicy": ""}):
        said = "Invalid parameter: Attributes Reason: Subscription already exists with different attributes"
        asked = {"TopicArn": NEWS, "Protocol": "sqs", "Endpoint": JOBS, "Attributes": differs}
        assert await refused(aws.sns, "Subscribe", **asked) == (400, "InvalidParameter", said)
    shown = {
        "SubscriptionArn": arn,
        "TopicArn": NEWS,
        "Owner": "000000000000",
        "Protocol": "sqs",
        "Endpoint": JOBS,
        "PendingConfirmation": "false",
        "ConfirmationWasAuthenticated": "true",
        "SubscriptionPrincipal": "arn:aws:iam::000000000000:root",
        "RawMessageDelivery": "false",
        "FilterPolicy": policy,
        "FilterPolicyScope": "MessageAttributes",
    }
    assert (await aws.sns("GetSubscriptionAttributes", SubscriptionArn=arn))["Attributes"] == shown
    assert (await aws.sns("GetTopicAttributes", TopicArn=NEWS))["Attributes"]["SubscriptionsConfirmed"] == "1"

    async def change(name: str, value: str) -> dict[str, str]:
        await aws.sns("SetSubscriptionAttributes", SubscriptionArn=arn, AttributeName=name, AttributeValue=value)
        told: dict[str, str] = (await aws.sns("GetSubscriptionAttributes", SubscriptionArn=arn))["Attributes"]
        return told

    assert await change("RawMessageDelivery", "true") == shown | {"RawMessageDelivery": "true"}
    assert await change("FilterPolicyScope", "MessageBody") == shown | {
        "RawMessageDelivery": "true",
        "FilterPolicyScope": "MessageBody",
    }
    nested = '{"a": {"b": ["c"]}}'
    assert (await change("FilterPolicy", nested))["FilterPolicy"] == nested
    told = await refused(
        aws.sns,
        "SetSubscriptionAttributes",
        SubscriptionArn=arn,
        AttributeName="FilterPolicyScope",
        AttributeValue="MessageAttributes",
    )
    assert told[1] == "InvalidParameter", "attributes have no fields"
    assert "FilterPolicy" not in await change("FilterPolicy", "{}")
    for _ in range(2):
        assert await aws.sns("Unsubscribe", SubscriptionArn=arn) == {}
    missing = 404, "NotFound", "Subscription does not exist"
    assert await refused(aws.sns, "GetSubscriptionAttributes", SubscriptionArn=arn) == missing
    assert (await refused(aws.sns, "ConfirmSubscription", TopicArn=NEWS, Token="x"))[1] == "InvalidParameter"


async def test_what_cannot_be_subscribed(aws: Aws) -> None:
    await aws.sqs("CreateQueue", QueueName="jobs.fifo", Attributes={"FifoQueue": "true"})
    await aws.sns("CreateTopic", Name="news.fifo", Attributes={"FifoTopic": "true"})
    for topic, queue in (("news", "none"), ("news.fifo", "jobs"), ("news", "jobs.fifo")):
        asked = {"TopicArn": ARN + topic, "Protocol": "sqs", "Endpoint": QUEUE + queue}
        assert (await refused(aws.sns, "Subscribe", **asked))[1] == "InvalidParameter"


async def test_a_subscription_that_others_change_at_the_same_time_keeps_their_change(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    arn, client = await aws.subscribe(), aws.sns.gateway.client
    name, submit = arn.rpartition(":")[2], client.submit

    async def overtaken(operation: Operation, block: bytes = b"", *, timeout_ms: int) -> Reply:
        reply = await submit(operation, block, timeout_ms=timeout_ms)
        if isinstance(operation, ListSubscriptions):
            monkeypatch.undo()
            await submit(PutSubscription("news", name, "jobs", enveloped=False), timeout_ms=timeout_ms)
        return reply

    monkeypatch.setattr(client, "submit", overtaken)
    asked = {"SubscriptionArn": arn, "AttributeName": "FilterPolicy", "AttributeValue": '{"a": ["b"]}'}
    assert (await refused(aws.sns, "SetSubscriptionAttributes", **asked))[:2] == (503, "ServiceUnavailable")
    await aws.sns("SetSubscriptionAttributes", **asked)  # as SDKs do
    shown = (await aws.sns("GetSubscriptionAttributes", SubscriptionArn=arn))["Attributes"]
    assert (shown["RawMessageDelivery"], shown["FilterPolicy"]) == ("true", '{"a": ["b"]}')


def _call(aws: Aws) -> Any:
    class Plainly:
        async def submit(self, operation: Any, block: bytes = b"", once: Any = None) -> Any:
            return await aws.sns.gateway.client.submit(operation, block, timeout_ms=1)

    return Plainly()


async def test_lists_are_told_by_pages(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(PAGE):
        await aws.sns.gateway.client.submit(PutTopic(f"t{number:03}"), timeout_ms=1)
    first = await aws.sns("ListTopics")
    assert len(first["Topics"]) == PAGE
    assert await aws.sns("ListTopics", NextToken=first["NextToken"]) == {"Topics": [{"TopicArn": f"{ARN}t099"}]}

    topics = ["news", "t001", "t002", "t098"]
    for topic in topics:
        for name in "abc":
            await aws.sns.gateway.client.submit(PutSubscription(topic, name, "jobs"), timeout_ms=1)
    every = [f"{ARN}{topic}:{name}" for topic in topics for name in "abc"]

    async def walk(action: str, **asked: str) -> tuple[list[str], int]:
        found, pages, token = [], 0, None
        while True:
            told = await aws.sns(action, **asked, **({} if token is None else {"NextToken": token}))
            found += [each["SubscriptionArn"] for each in told["Subscriptions"]]
            token, pages = told.get("NextToken"), pages + 1
            if token is None:
                return found, pages

    assert await walk("ListSubscriptions") == (every, 1)
    for module in ("subscription_actions", "sns_calls"):
        monkeypatch.setattr(f"api.aws.{module}.PAGE", 2)
    found, pages = await walk("ListSubscriptions")
    assert found == every
    assert pages >= 6
    assert await walk("ListSubscriptionsByTopic", TopicArn=NEWS) == (every[:3], 2)
    monkeypatch.setattr(subscription_actions, "LOOKS_MAX", 2)
    monkeypatch.setattr(subscription_actions, "SCAN_MAX", 1)
    before = len(aws.sns.gateway.client.asked)
    found, pages = await walk("ListSubscriptions")
    assert found == every
    assert len(aws.sns.gateway.client.asked) - before <= 3 * pages, "no page takes long"
    for action, token in (("ListTopics", "%"), ("ListSubscriptions", "bmV3cw==")):
        assert (await refused(aws.sns, action, NextToken=token))[1] == "InvalidParameter"


# --- messages ---------------------------------------------------------------------------------------------------------


async def test_a_message_comes_as_it_is_or_in_a_document_as_each_subscription_says(aws: Aws) -> None:
    await aws.sqs("CreateQueue", QueueName="raw")
    await aws.subscribe()
    await aws.subscribe("raw", RawMessageDelivery="true")
    attributes = {
        "kind": text("order"),
        "total": text("1.50", "Number.x"),
        "b": {"DataType": "Binary", "BinaryValue": b"\x00"},
    }
    published = await aws.publish("wörld\n<&>", Subject="A subject", MessageAttributes=attributes)
    [told] = await aws.receive()
    assert "MessageAttributes" not in told
    document = json.loads(told["Body"])
    assert document.pop("Timestamp").endswith("Z")
    assert document == {
        "Type": "Notification",
        "MessageId": published["MessageId"],
        "TopicArn": NEWS,
        "Subject": "A subject",
        "Message": "wörld\n<&>",
        "MessageAttributes": {
            "kind": {"Type": "String", "Value": "order"},
            "total": {"Type": "Number.x", "Value": "1.50"},
            "b": {"Type": "Binary", "Value": base64.b64encode(b"\x00").decode()},
        },
    }
    [raw] = await aws.receive("raw")
    assert (raw["Body"], raw["MessageAttributes"]) == ("wörld\n<&>", attributes)
    await aws.publish("plain")
    assert set(json.loads((await aws.bodies())[0])) == {"Type", "MessageId", "TopicArn", "Message", "Timestamp"}


async def test_filters_choose_by_attributes_or_body_and_see_the_message_as_it_was_published(aws: Aws) -> None:
    await aws.sqs("CreateQueue", QueueName="large")
    await aws.subscribe(FilterPolicy='{"kind": ["order"]}')
    await aws.subscribe("large", FilterPolicy='{"total": [{"numeric": [">", 100]}]}', FilterPolicyScope="MessageBody")
    await aws.publish('{"total": 150}', MessageAttributes={"kind": text("refund")})
    await aws.publish('{"total": 50}', MessageAttributes={"kind": text("order")})
    await aws.publish("none of them")
    assert [json.loads(body)["Message"] for body in await aws.bodies()] == ['{"total": 50}']
    assert [json.loads(body)["Message"] for body in await aws.bodies("large")] == ['{"total": 150}']


async def test_a_batch_is_published_in_one_operation_and_tells_of_each_message(aws: Aws) -> None:
    await aws.subscribe(RawMessageDelivery="true")
    entries = [{"Id": "a", "Message": "1"}, {"Id": "b", "Message": ""}, {"Id": "c", "Message": "3"}]
    before = len(aws.sns.gateway.client.asked)
    told = await aws.sns("PublishBatch", TopicArn=NEWS, PublishBatchRequestEntries=entries)
    assert len(aws.sns.gateway.client.asked) == before + 1
    assert [each["Id"] for each in told["Successful"]] == ["a", "c"]
    assert told["Failed"] == [
        {"Id": "b", "Code": "InvalidParameter", "Message": "Invalid parameter: Empty message", "SenderFault": True}
    ]
    assert len({each["MessageId"] for each in told["Successful"]}) == 2
    assert await aws.bodies() == ["1", "3"]


async def test_a_message_that_a_queue_does_not_take_for_its_size_leaves_the_batch_alone(aws: Aws) -> None:
    await aws.sqs("SetQueueAttributes", QueueUrl="jobs", Attributes={"MaximumMessageSize": "1024"})
    await aws.subscribe()
    entries = [{"Id": "a", "Message": "1"}, {"Id": "b", "Message": "x" * 1000}, {"Id": "c", "Message": "3"}]
    told = await aws.sns("PublishBatch", TopicArn=NEWS, PublishBatchRequestEntries=entries)
    assert [each["Id"] for each in told["Successful"]] == ["a", "c"]
    [failed] = told["Failed"]
    said = "Invalid parameter: Message too long Reason: the queue jobs takes 1024 bytes"
    assert (failed["Id"], failed["Message"]) == ("b", said)
    assert [json.loads(body)["Message"] for body in await aws.bodies()] == ["1", "3"]
    assert (await refused(aws.sns, "Publish", TopicArn=NEWS, Message="x" * 1000))[2] == said


async def test_one_queue_that_is_full_keeps_a_message_from_all(aws: Aws) -> None:
    await asking.ask(aws.sns.gateway, "PUT", "/v1/queues/full", {"messages_max": 1})
    await aws.subscribe(RawMessageDelivery="true")
    await aws.subscribe("full", RawMessageDelivery="true")
    await aws.publish("1")
    status, code, said = await refused(aws.sns, "Publish", TopicArn=NEWS, Message="2")
    assert (status, code) == (429, "Throttled")
    assert said.startswith("The queue full is full: its messages_max is 1.")
    assert await aws.bodies() == ["1"]


async def test_a_fifo_topic_keeps_order_and_knows_repetitions(aws: Aws) -> None:
    queue = {"FifoQueue": "true"}
    await aws.sqs("CreateQueue", QueueName="jobs.fifo", Attributes=queue)
    await aws.sns("CreateTopic", Name="news.fifo", Attributes={"FifoTopic": "true"})
    await aws.subscribe("jobs.fifo", "news.fifo", RawMessageDelivery="true")
    asked = {"TopicArn": ARN + "news.fifo", "Message": "1", "MessageGroupId": "g"}
    missing = (
        "Invalid parameter: The topic should either have ContentBasedDeduplication enabled or MessageDeduplicationId "
        "provided explicitly"
    )
    assert await refused(aws.sns, "Publish", **asked) == (400, "InvalidParameter", missing)
    first = await aws.sns("Publish", **asked, MessageDeduplicationId="x")
    second = await aws.sns("Publish", **asked, MessageDeduplicationId="x")
    assert int(second["SequenceNumber"]) > int(first["SequenceNumber"])
    assert len(first["SequenceNumber"]) == 20
    entries = [
        {"Id": "a", "Message": "2", "MessageGroupId": "g", "MessageDeduplicationId": "y"},
        {"Id": "b", "Message": "3", "MessageGroupId": "g"},
    ]
    told = await aws.sns("PublishBatch", TopicArn=ARN + "news.fifo", PublishBatchRequestEntries=entries)
    assert [each["Message"] for each in told["Failed"]] == [missing]
    await aws.sns(
        "SetTopicAttributes",
        TopicArn=ARN + "news.fifo",
        AttributeName="ContentBasedDeduplication",
        AttributeValue="true",
    )
    await aws.sns("Publish", **(asked | {"Message": "3"}))
    await aws.sns("Publish", **(asked | {"Message": "3"}))
    got = await aws.receive("jobs.fifo")
    assert [(each["Body"], each["Attributes"]["MessageGroupId"]) for each in got] == [
        ("1", "g"),
        ("2", "g"),
        ("3", "g"),
    ]
    assert got[0]["Attributes"]["MessageDeduplicationId"] == "x"


async def test_what_an_sdk_repeats_is_published_once_under_the_id_that_was_told(aws: Aws) -> None:
    await aws.subscribe()
    told = [
        await aws.sns("Publish", {"amz-sdk-invocation-id": "17"}, TopicArn=NEWS, Message=message)
        for message in ("a", "a")
    ]
    assert told[0] == told[1]
    [body] = await aws.bodies()
    assert json.loads(body)["MessageId"] == told[0]["MessageId"]
    other = await aws.sns("Publish", {"amz-sdk-invocation-id": "18"}, TopicArn=NEWS, Message="a")
    plain = [(await aws.publish())["MessageId"] for _ in range(2)]
    assert len({told[0]["MessageId"], other["MessageId"], *plain}) == 4
    [keyed] = [each for each in aws.sns.gateway.client.asked if isinstance(each, Keyed)][:1]
    assert isinstance(keyed.operation, Publish)


async def test_a_subscription_of_the_native_api_is_one_of_sns_and_keeps_its_pattern(aws: Aws) -> None:
    client = aws.sns.gateway.client
    await client.submit(PutSubscription("news", "mine", "jobs", "orders.#"), timeout_ms=1)
    listed = (await aws.sns("ListSubscriptionsByTopic", TopicArn=NEWS))["Subscriptions"]
    assert [each["SubscriptionArn"] for each in listed] == [f"{NEWS}:mine"]
    await aws.sns(
        "SetSubscriptionAttributes",
        SubscriptionArn=f"{NEWS}:mine",
        AttributeName="FilterPolicy",
        AttributeValue='{"a": ["b"]}',
    )
    found = await subscription_actions._find(_call(aws), "news", "mine")
    assert (found.pattern, found.filter, found.enveloped) == ("orders.#", '{"a": ["b"]}', False)


# --- trouble ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", sorted({*codes.CODES, STORE_FULL}))
async def test_every_refusal_of_the_rules_has_words_of_sns(aws: Aws, code: str) -> None:
    aws.sns.gateway.client.refuses_with = Refused(code, 5, queue="jobs")
    status, told, said = await refused(aws.sns, "Publish", TopicArn=NEWS, Message="x")
    assert status in (400, 403, 404, 429, 503)
    assert told
    assert code in REFUSALS or code in said


async def test_a_cluster_that_cannot_answer_is_told_as_sdks_expect_it(aws: Aws) -> None:
    aws.sns.gateway.client.fails_with = unknown()
    given = {
        "TopicArn": NEWS,
        "ResourceArn": NEWS,
        "SubscriptionArn": f"{NEWS}:a",
        "Name": "a",
        "Token": "x",
        "Message": "x",
        "PublishBatchRequestEntries": [{"Id": "a", "Message": "x"}],
        "Protocol": "sqs",
        "Endpoint": JOBS,
        "AttributeName": "DisplayName",
        "Tags": [],
        "TagKeys": [],
    }
    for action in SNS.shapes:
        wanted = models.service("sns").operation_model(action).input_shape.members
        asked = {name: value for name, value in given.items() if name in wanted}
        assert (await refused(aws.sns, action, **asked))[:2] == (503, "ServiceUnavailable"), action


# --- the documentation ------------------------------------------------------------------------------------------------


async def test_the_example_of_the_documentation_does_what_it_says(aws: Aws) -> None:
    page = (Path(__file__).parents[2] / "docs/sns.md").read_text()
    code = page.partition("```python\n")[2].partition("```")[0]
    assert "http://127.0.0.1:7700" in code
    code = code.replace("http://127.0.0.1:7700", f"http://127.0.0.1:{aws.sns.gateway.port}")
    await asyncio.to_thread(exec, compile(code, "docs/sns.md", "exec"), {})
    assert await aws.bodies("invoices") == ["one sloop"]
