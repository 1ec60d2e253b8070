"""How operations of SNS reach the cluster, how its refusals are told in SNS's words, and pages of its lists."""

from __future__ import annotations

import base64
from collections.abc import Callable

from api.aws.calls import Call, Once
from api.aws.errors import AwsError, common, sns
from api.aws.sns_checks import invalid
from cluster.room import STORE_FULL
from storage import codes
from storage.operations import Operation, Outcome, Refused
from storage.topic_operations import GetTopic, TopicInfo

PAGE = 100
"""Topics or subscriptions in one answer: as many as SNS tells."""


def no_topic() -> AwsError:
    """The refusal of a topic that does not exist."""
    return sns("NotFoundException", "Topic does not exist")


def no_subscription() -> AwsError:
    """The refusal of a subscription that does not exist."""
    return sns("NotFoundException", "Subscription does not exist")


def no_dedup_id() -> AwsError:
    """The refusal of a message that cannot be told from its repetition."""
    return invalid(
        "The topic should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly"
    )


REFUSALS: dict[str, Callable[[Refused], AwsError]] = {
    codes.TOPIC_NOT_FOUND: lambda _: no_topic(),
    codes.TOPIC_LIMIT: lambda refusal: sns(
        "TopicLimitExceededException", f"There are {refusal.limit} topics, and no more can be."
    ),
    codes.TOPIC_FIXED: lambda _: invalid("Attributes Reason: Topic already exists with different attributes"),
    codes.TOPIC_KIND: lambda _: invalid(
        "Endpoint Reason: a FIFO topic takes FIFO queues, and a standard topic standard queues"
    ),
    codes.LABELS_LIMIT: lambda refusal: invalid(
        f"Attributes Reason: attributes and tags of a topic have at most {refusal.limit} bytes"
    ),
    codes.SUBSCRIPTION_NOT_FOUND: lambda _: no_subscription(),
    codes.SUBSCRIPTION_LIMIT: lambda refusal: sns(
        "SubscriptionLimitExceededException", f"The topic has {refusal.limit} subscriptions, and no more can be."
    ),
    codes.SUBSCRIPTION_CHANGED: lambda _: common(
        "ServiceUnavailableException", "Others change the subscription. Send it again."
    ),
    codes.QUEUE_NOT_FOUND: lambda _: invalid("Endpoint Reason: the queue does not exist"),
    codes.QUEUE_FULL: lambda refusal: sns(
        "ThrottledException",
        f"The queue {refusal.queue} is full: its {refusal.detail} is {refusal.limit}. No queue got the message.",
    ),
    codes.COPIES_LIMIT: lambda refusal: invalid(
        f"TopicArn Reason: a batch may make {refusal.limit} messages in all queues together. Send smaller batches."
    ),
    codes.MATCHING_TOO_LONG: lambda _: sns(
        "ThrottledException", "The topic's filters take too long for these messages. Send smaller batches."
    ),
    codes.BODY_TOO_LARGE: lambda refusal: invalid(
        f"Message too long Reason: the queue {refusal.queue} takes {refusal.limit} bytes"
    ),
    codes.DEDUP_ID_REQUIRED: lambda _: no_dedup_id(),
    codes.GROUP_REQUIRED: lambda _: invalid("The MessageGroupId parameter is required for FIFO topics"),
    codes.STALE_OPERATION: lambda _: common("ServiceUnavailableException", "The request came too late. Send it again."),
    codes.IDEMPOTENCY_MISMATCH: lambda _: invalid("the request was sent before with other parameters"),
    codes.IDEMPOTENCY_WINDOW_FULL: lambda _: sns("ThrottledException", "Rate exceeded"),
    STORE_FULL: lambda _: sns(
        "ThrottledException", "There is no room for more messages. Receive and delete some first."
    ),
}
"""How the rules' refusals of what SNS asks for are told; all others mean that it was asked for wrongly."""


def refused(refusal: Refused) -> AwsError:
    """The refusal of the rules as SNS's clients know it."""
    told = REFUSALS.get(refusal.code)
    return invalid(f"the cluster refuses it: {refusal.code}") if told is None else told(refusal)


async def do(call: Call, operation: Operation, block: bytes = b"", once: Once | None = None) -> Outcome:
    """Have an operation done. Raises `AwsError` if it is refused, and `ClusterTrouble`."""
    outcome = (await call.submit(operation, block, once)).outcome
    if isinstance(outcome, Refused):
        raise refused(outcome)
    return outcome


async def find_topic(call: Call, name: str) -> TopicInfo:
    """A topic. Raises `AwsError`."""
    outcome = await do(call, GetTopic(name))
    assert isinstance(outcome, TopicInfo)
    return outcome


# --- pages ------------------------------------------------------------------------------------------------------------


def token(*where: str) -> str:
    """Where a list goes on, as clients keep it."""
    return base64.urlsafe_b64encode(":".join(where).encode()).decode()


def read_token(text: str | None, count: int) -> list[str]:
    """The `count` names that a token has; empty ones for none. Raises `AwsError`."""
    if not text:
        return [""] * count
    try:
        where = base64.b64decode(text, altchars=b"-_", validate=True).decode("ascii").split(":")
    except ValueError:
        where = []
    if len(where) != count:
        raise invalid("NextToken")
    return where
