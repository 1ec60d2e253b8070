"""As much of SNS (API version 2010-03-31) as fan-out to queues needs. A test holds it against AWS's service model."""

from __future__ import annotations

from typing import Annotated

from msgspec import field

from api.aws.shapes import Entries, Shape


class AttributeValue(Shape):
    """One attribute of a message: a type, and a value in the member that belongs to it."""

    data_type: str
    string_value: str | None = None
    binary_value: bytes | None = None


MessageAttributes = Annotated[dict[str, AttributeValue] | None, Entries("Name", "Value")]


class Tag(Shape):
    """A tag of a topic."""

    key: str
    value: str


# --- topics -----------------------------------------------------------------------------------------------------------


class CreateTopic(Shape):
    """Create a topic, or find it again."""

    name: str
    attributes: dict[str, str] | None = None
    tags: list[Tag] | None = None
    data_protection_policy: str | None = None


class OnTopic(Shape):
    """A request about one topic."""

    topic_arn: str


class TopicArn(Shape):
    """A topic. Answers `CreateTopic`."""

    topic_arn: str


class DeleteTopic(OnTopic):
    """Forget a topic and its subscriptions."""


class ListTopics(Shape):
    """Topics, a hundred at a time."""

    next_token: str | None = None


class Topic(Shape):
    """A topic in a list."""

    topic_arn: str


class Topics(Shape):
    """Some topics, and where to go on."""

    topics: list[Topic]
    next_token: str | None = None


class GetTopicAttributes(OnTopic):
    """A topic's settings and counts."""


class Attributes(Shape):
    """Settings and counts, all as text."""

    attributes: dict[str, str]


class SetTopicAttributes(OnTopic):
    """Change one setting of a topic."""

    attribute_name: str
    attribute_value: str | None = None


class ResourceTags(Shape):
    """A topic's tags."""

    tags: list[Tag]


class Tagged(Shape):
    """Answers changes of tags: nothing, but an element for it."""


class OnResource(Shape):
    """A request about a topic's tags."""

    resource_arn: str


class TagResource(OnResource):
    """Put tags on a topic."""

    tags: list[Tag]


class UntagResource(OnResource):
    """Take tags off a topic."""

    tag_keys: list[str]


class ListTagsForResource(OnResource):
    """The tags of a topic."""


# --- subscriptions ----------------------------------------------------------------------------------------------------


class Subscribe(Shape):
    """Send what is published on a topic to a queue as well."""

    topic_arn: str
    protocol: str
    endpoint: str | None = None
    attributes: dict[str, str] | None = None
    return_subscription_arn: bool | None = None


class SubscriptionArn(Shape):
    """A subscription. Answers `Subscribe`."""

    subscription_arn: str


class OnSubscription(Shape):
    """A request about one subscription."""

    subscription_arn: str


class Unsubscribe(OnSubscription):
    """Forget a subscription."""


class ConfirmSubscription(OnTopic):
    """Confirm a subscription. Those of queues need no confirmation."""

    token: str
    authenticate_on_unsubscribe: str | None = None


class ListSubscriptions(Shape):
    """All subscriptions, a hundred at a time."""

    next_token: str | None = None


class ListSubscriptionsByTopic(OnTopic):
    """A topic's subscriptions, a hundred at a time."""

    next_token: str | None = None


class Subscription(Shape):
    """A subscription in a list."""

    subscription_arn: str
    owner: str
    protocol: str
    endpoint: str
    topic_arn: str


class Subscriptions(Shape):
    """Some subscriptions, and where to go on."""

    subscriptions: list[Subscription]
    next_token: str | None = None


class GetSubscriptionAttributes(OnSubscription):
    """A subscription's settings."""


class SetSubscriptionAttributes(OnSubscription):
    """Change one setting of a subscription."""

    attribute_name: str
    attribute_value: str | None = None


# --- messages ---------------------------------------------------------------------------------------------------------


class Publishable(Shape):
    """What a message to publish consists of."""

    message: str
    subject: str | None = None
    message_structure: str | None = None
    message_attributes: MessageAttributes = None
    message_deduplication_id: str | None = None
    message_group_id: str | None = None


class Publish(Publishable):
    """Publish one message."""

    topic_arn: str | None = None
    target_arn: str | None = None
    phone_number: str | None = None


class Published(Shape):
    """One message was published."""

    message_id: str
    sequence_number: str | None = None


class PublishEntry(Publishable, kw_only=True):
    """One message of a batch."""

    id: str


class PublishBatch(OnTopic):
    """Publish up to ten messages."""

    entries: list[PublishEntry] = field(name="PublishBatchRequestEntries")


class PublishedEntry(Published, kw_only=True):
    """One message of a batch was published."""

    id: str


class FailedEntry(Shape):
    """One message of a batch was refused."""

    id: str
    code: str
    sender_fault: bool
    message: str | None = None


class PublishedBatch(Shape):
    """What became of a batch to publish."""

    successful: list[PublishedEntry]
    failed: list[FailedEntry]


SHAPES: dict[str, tuple[type[Shape], type[Shape] | None]] = {
    "ConfirmSubscription": (ConfirmSubscription, SubscriptionArn),
    "CreateTopic": (CreateTopic, TopicArn),
    "DeleteTopic": (DeleteTopic, None),
    "GetSubscriptionAttributes": (GetSubscriptionAttributes, Attributes),
    "GetTopicAttributes": (GetTopicAttributes, Attributes),
    "ListSubscriptions": (ListSubscriptions, Subscriptions),
    "ListSubscriptionsByTopic": (ListSubscriptionsByTopic, Subscriptions),
    "ListTagsForResource": (ListTagsForResource, ResourceTags),
    "ListTopics": (ListTopics, Topics),
    "Publish": (Publish, Published),
    "PublishBatch": (PublishBatch, PublishedBatch),
    "SetSubscriptionAttributes": (SetSubscriptionAttributes, None),
    "SetTopicAttributes": (SetTopicAttributes, None),
    "Subscribe": (Subscribe, SubscriptionArn),
    "TagResource": (TagResource, Tagged),
    "UntagResource": (UntagResource, Tagged),
    "Unsubscribe": (Unsubscribe, None),
}
"""Request and response of each action; None where AWS answers with nothing."""
