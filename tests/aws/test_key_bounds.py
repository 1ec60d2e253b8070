"""A key of some queues cannot have the cluster do on others what it may not do there itself, by whichever API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.api.asking import ask
from tests.api.fake_client import Gateway
from tests.api.keys import basic, keyed_gateway, make_key
from tests.aws.asking import KEY_ID, SECRET, Caller, RefusedError

QUEUE, TOPIC = "arn:aws:sqs:us-east-1:000000000000:", "arn:aws:sns:us-east-1:000000000000:"
OWN, OTHERS = "mine", "theirs"


class Cast:
    """A node with queues and topics of two owners, and a manager's key for the one's alone."""

    def __init__(self, node: Gateway, *, in_json: bool) -> None:
        self.node = node
        self.anybody = Caller(node, in_json=in_json)
        self.sqs = Caller(node, in_json=in_json, sign=True)
        self.sns = Caller(node, in_json=False, service="sns", sign=True)

    async def prepare(self) -> None:
        """NB: the keys come last, for as long as there are none everything is allowed."""
        sns = Caller(self.node, in_json=False, service="sns")
        for owner in (OWN, OTHERS):
            await self.anybody("CreateQueue", QueueName=f"{owner}-dead")
            await self.anybody("CreateQueue", QueueName=owner, Attributes={"RedrivePolicy": policy(f"{OWN}-dead")})
            await sns("CreateTopic", Name=owner)
        await sns("Subscribe", TopicArn=TOPIC + OWN, Protocol="sqs", Endpoint=QUEUE + OTHERS)
        for owner in (OWN, OTHERS):
            await self.anybody("SendMessage", QueueUrl=owner, MessageBody=owner)
            (got,) = (await self.anybody("ReceiveMessage", QueueUrl=owner))["Messages"]
            held = {"QueueUrl": owner, "ReceiptHandle": got["ReceiptHandle"]}
            await self.anybody("ChangeMessageVisibility", **held, VisibilityTimeout=0)
        make_key(self.node, "ADMINADMINADMIN0", SECRET, "admin")
        make_key(self.node, KEY_ID, SECRET, "manager", f"{OWN}*")

    async def depth(self, queue: str) -> int:
        counts = await self.native("GET", f"/v1/queues/{queue}", key="ADMINADMINADMIN0")
        return int(counts["ready"] + counts["leased"] + counts["delayed"] + counts["dead"])

    async def native(self, method: str, path: str, content: Any = None, *, key: str = KEY_ID) -> Any:
        """A request to the native API; a refusal is the AccessDenied that AWS's APIs would answer."""
        answer = await ask(self.node, method, path, content, Authorization=basic(key, SECRET))
        if answer.status == 403:
            raise RefusedError(403, "AccessDenied", str(answer.document))
        assert answer.status < 300, answer.document
        return answer.document


def policy(queue: str) -> str:
    return f'{{"deadLetterTargetArn": "{QUEUE}{queue}", "maxReceiveCount": 1}}'


@pytest.fixture(params=["json", "query"])
async def cast(request: pytest.FixtureRequest) -> AsyncIterator[Cast]:
    async with keyed_gateway() as node:
        made = Cast(node, in_json=request.param == "json")
        await made.prepare()
        yield made


@pytest.mark.parametrize(
    ("action", "wish"),
    [
        ("CreateQueue", {"QueueName": "mine-new", "Attributes": {"RedrivePolicy": policy(OTHERS)}}),
        ("CreateQueue", {"QueueName": "theirs-new"}),
        ("SetQueueAttributes", {"QueueUrl": OWN, "Attributes": {"RedrivePolicy": policy(f"{OTHERS}-dead")}}),
        ("StartMessageMoveTask", {"SourceArn": f"{QUEUE}mine-dead", "DestinationArn": QUEUE + OTHERS}),
        ("StartMessageMoveTask", {"SourceArn": f"{QUEUE}theirs-dead", "DestinationArn": QUEUE + OWN}),
        ("ListMessageMoveTasks", {"SourceArn": f"{QUEUE}theirs-dead"}),
        ("ListDeadLetterSourceQueues", {"QueueUrl": f"{OTHERS}-dead"}),
        ("TagQueue", {"QueueUrl": OTHERS, "Tags": {"a": "b"}}),
        ("ListQueueTags", {"QueueUrl": OTHERS}),
        ("AddPermission", {"QueueUrl": OTHERS, "Label": "l", "AWSAccountIds": ["1" * 12], "Actions": ["*"]}),
        ("SendMessage", {"QueueUrl": f"http://127.0.0.1/{OWN}/{OTHERS}", "MessageBody": "a"}),
    ],
)
async def test_sqs_does_nothing_to_the_queues_of_others(cast: Cast, action: str, wish: dict[str, Any]) -> None:
    with pytest.raises(RefusedError, match="403 AccessDenied"):
        await cast.sqs(action, **wish)


@pytest.mark.parametrize(
    ("action", "wish"),
    [
        ("Subscribe", {"TopicArn": TOPIC + OWN, "Protocol": "sqs", "Endpoint": QUEUE + OTHERS}),
        ("Subscribe", {"TopicArn": TOPIC + OTHERS, "Protocol": "sqs", "Endpoint": QUEUE + OWN}),
        ("Publish", {"TopicArn": TOPIC + OTHERS, "Message": "a"}),
        ("Publish", {"TargetArn": TOPIC + OTHERS, "Message": "a"}),
        ("PublishBatch", {"TopicArn": TOPIC + OTHERS, "PublishBatchRequestEntries": [{"Id": "1", "Message": "a"}]}),
        ("CreateTopic", {"Name": OTHERS}),
        ("DeleteTopic", {"TopicArn": TOPIC + OTHERS}),
        ("GetTopicAttributes", {"TopicArn": TOPIC + OTHERS}),
        ("ListSubscriptionsByTopic", {"TopicArn": TOPIC + OTHERS}),
        ("Unsubscribe", {"SubscriptionArn": f"{TOPIC}{OTHERS}:00000000-0000-4000-8000-000000000000"}),
        ("TagResource", {"ResourceArn": TOPIC + OTHERS, "Tags": [{"Key": "a", "Value": "b"}]}),
    ],
)
async def test_sns_does_nothing_to_the_topics_and_queues_of_others(
    cast: Cast, action: str, wish: dict[str, Any]
) -> None:
    with pytest.raises(RefusedError, match="403 AccessDenied"):
        await cast.sns(action, **wish)


async def test_a_subscription_to_a_queue_of_others_is_not_changed(cast: Cast) -> None:
    (one,) = (await cast.sns("ListSubscriptions"))["Subscriptions"]
    changed = {"AttributeName": "RawMessageDelivery", "AttributeValue": "true"}
    with pytest.raises(RefusedError, match="403 AccessDenied"):
        await cast.sns("SetSubscriptionAttributes", SubscriptionArn=one["SubscriptionArn"], **changed)
    assert (await cast.sns("ListTopics"))["Topics"] == [{"TopicArn": TOPIC + OWN}], "of lists, what is one's own"


@pytest.mark.parametrize(
    ("method", "path", "wish"),
    [
        ("PUT", "/v1/queues/mine", {"dead_letter_queue": OTHERS}),
        ("POST", "/v1/queues/mine-dead/redrive", {"to": OTHERS}),
        ("PUT", "/v1/schedules/mine", {"queue": OTHERS, "message": {"body": "a"}, "cron": "* * * * *"}),
        ("PUT", "/v1/schedules/mine", {"topic": OTHERS, "message": {"body": "a"}, "cron": "* * * * *"}),
        ("PUT", "/v1/topics/mine/subscriptions/s", {"queue": OTHERS}),
        ("POST", "/v1/topics/theirs/messages", {"body": "a"}),
        ("POST", "/v1/transactions", {"sends": [{"queue": OTHERS, "messages": [{"body": "a"}]}]}),
        ("POST", "/send_message?queue=theirs", {"message": "a"}),
        ("POST", "/v1/keys", {"roles": ["admin"]}),
        ("GET", "/v1/queues/theirs/messages", None),
    ],
)
async def test_the_native_api_does_nothing_to_the_queues_of_others(
    cast: Cast, method: str, path: str, wish: dict[str, Any] | None
) -> None:
    with pytest.raises(RefusedError, match="403 AccessDenied"):
        await cast.native(method, path, wish)


async def test_dead_letters_go_back_only_to_queues_that_the_key_may_send_to(cast: Cast) -> None:
    preview = await cast.native("POST", "/v1/queues/mine-dead/redrive", {"dry_run": True})
    assert preview["destinations"] == {OWN: 1}
    await cast.sqs("StartMessageMoveTask", SourceArn=f"{QUEUE}mine-dead")
    cast.node.client.lead()
    assert [await cast.depth(queue) for queue in (OWN, OTHERS, "mine-dead")] == [1, 0, 1]


async def test_an_undo_takes_nothing_from_the_queues_of_others(cast: Cast) -> None:
    admin = "ADMINADMINADMIN0"
    task = (await cast.native("POST", "/v1/queues/mine-dead/redrive", {}, key=admin))["task"]
    cast.node.client.lead()
    assert [await cast.depth(queue) for queue in (OWN, OTHERS, "mine-dead")] == [1, 1, 0]
    await cast.native("POST", f"/v1/queues/mine-dead/redrive/{task}/undo", {})
    cast.node.client.lead()
    assert [await cast.depth(queue) for queue in (OWN, OTHERS, "mine-dead")] == [0, 1, 1]


async def test_what_an_admin_has_set_does_not_keep_a_manager_from_the_rest(cast: Cast) -> None:
    """A dead-letter queue that is there already is not the manager's doing."""
    admin = "ADMINADMINADMIN0"
    await cast.native("PUT", f"/v1/queues/{OWN}", {"dead_letter_queue": OTHERS, "attempts_max": 1}, key=admin)
    await cast.sqs("TagQueue", QueueUrl=OWN, Tags={"a": "b"})
    await cast.sqs("SetQueueAttributes", QueueUrl=OWN, Attributes={"VisibilityTimeout": "7"})
    with pytest.raises(RefusedError, match="403 AccessDenied"):
        await cast.sqs("SetQueueAttributes", QueueUrl=OWN, Attributes={"RedrivePolicy": policy(f"{OTHERS}-dead")})
