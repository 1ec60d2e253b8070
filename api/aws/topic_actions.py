"""The actions of SNS that are about topics.

A topic's attributes and tags are its labels in the cluster, the tags under names that begin with `tag:`.
"""

from __future__ import annotations

from collections.abc import Sequence

from api.aws import sns_shapes as shapes
from api.aws.calls import Call
from api.aws.errors import AwsError, sns
from api.aws.names import ACCOUNT, is_fifo
from api.aws.sns_calls import PAGE, do, find_topic, read_token, token
from api.aws.sns_checks import (
    TAGS_MAX,
    check_tags,
    check_topic,
    check_topic_attribute,
    invalid,
    topic_arn,
    topic_of_arn,
)
from storage.topic_operations import DeleteTopic, ListTopics, PutTopic, TopicInfo, TopicList, TopicPut

CONTENT_DEDUP = "ContentBasedDeduplication"
_TAG = "tag:"


async def create_topic(call: Call, wish: shapes.CreateTopic) -> shapes.TopicArn:
    """Create a topic, or find the one that has all the attributes and tags given."""
    labels = check_topic(wish)
    labels.pop("FifoTopic", None)  # the name has said it
    outcome = await do(call, PutTopic(wish.name, is_fifo(wish.name), labels | _labels(wish.tags or []), when="new"))
    assert isinstance(outcome, TopicPut)
    if not outcome.created:
        found = await find_topic(call, wish.name)
        if any(text != _shown(found).get(name, "") for name, text in labels.items()):
            raise invalid("Attributes Reason: Topic already exists with different attributes")
        if wish.tags and {tag.key: tag.value for tag in wish.tags} != _tags(found):
            raise invalid("Tags Reason: Topic already exists with different tags")
    return shapes.TopicArn(topic_arn=topic_arn(wish.name))


async def delete_topic(call: Call, wish: shapes.DeleteTopic) -> None:
    """Forget a topic and its subscriptions; one that is gone already may be deleted again."""
    try:
        await do(call, DeleteTopic(topic_of_arn(wish.topic_arn)))
    except AwsError as error:
        if error.shape != "NotFoundException":
            raise


async def list_topics(call: Call, wish: shapes.ListTopics) -> shapes.Topics:
    """Topics in order of name, a page at a time."""
    (after,) = read_token(wish.next_token, 1)
    outcome = await do(call, ListTopics(after, PAGE + 1))
    assert isinstance(outcome, TopicList)
    page = [info.topic for info in outcome.topics[:PAGE]]
    more = len(outcome.topics) > PAGE
    topics = [shapes.Topic(topic_arn=topic_arn(name)) for name in page]
    return shapes.Topics(topics=topics, next_token=token(page[-1]) if more else None)


async def get_topic_attributes(call: Call, wish: shapes.GetTopicAttributes) -> shapes.Attributes:
    """A topic's settings and counts."""
    return shapes.Attributes(attributes=_shown(await find_topic(call, topic_of_arn(wish.topic_arn))))


def _shown(found: TopicInfo) -> dict[str, str]:
    attributes = {
        "TopicArn": topic_arn(found.topic),
        "Owner": ACCOUNT,
        "DisplayName": "",
        "SubscriptionsConfirmed": str(found.subscriptions),
        "SubscriptionsPending": "0",
        "SubscriptionsDeleted": "0",
    }
    if found.fifo:
        attributes |= {"FifoTopic": "true", CONTENT_DEDUP: "false", "FifoThroughputScope": "Topic"}
    return attributes | {name: text for name, text in found.labels.items() if not name.startswith(_TAG)}


async def set_topic_attributes(call: Call, wish: shapes.SetTopicAttributes) -> None:
    """Change one attribute of a topic."""
    topic, name = topic_of_arn(wish.topic_arn), wish.attribute_name
    if name == "FifoTopic":
        raise invalid("AttributeName")
    label = {name: check_topic_attribute(name, wish.attribute_value, fifo=is_fifo(topic))}
    await do(call, PutTopic(topic, is_fifo(topic), label, when="there"))


# --- tags -------------------------------------------------------------------------------------------------------------


async def tag_resource(call: Call, wish: shapes.TagResource) -> shapes.Tagged:
    """Put tags on a topic, in place of those with the same keys."""
    check_tags(wish.tags)
    found = await _tagged(call, wish.resource_arn)
    if len(_tags(found).keys() | {tag.key for tag in wish.tags}) > TAGS_MAX:
        raise sns("TagLimitExceededException", "Could not complete request: tag quota of per resource exceeded")
    await do(call, PutTopic(found.topic, found.fifo, _labels(wish.tags), when="there"))
    return shapes.Tagged()


async def untag_resource(call: Call, wish: shapes.UntagResource) -> shapes.Tagged:
    """Take tags off a topic; those that it has not do not matter."""
    found = await _tagged(call, wish.resource_arn)
    await do(call, PutTopic(found.topic, found.fifo, {_TAG + key: "" for key in wish.tag_keys}, when="there"))
    return shapes.Tagged()


async def list_tags_for_resource(call: Call, wish: shapes.ListTagsForResource) -> shapes.ResourceTags:
    """The tags of a topic."""
    found = await _tagged(call, wish.resource_arn)
    return shapes.ResourceTags(tags=[shapes.Tag(key=key, value=text) for key, text in _tags(found).items()])


async def _tagged(call: Call, arn: str) -> TopicInfo:
    try:
        return await find_topic(call, topic_of_arn(arn, "ResourceArn"))
    except AwsError as error:
        if error.shape != "NotFoundException":
            raise
        raise sns("ResourceNotFoundException", "Resource does not exist") from None


def _labels(tags: Sequence[shapes.Tag]) -> dict[str, str]:
    """Tags as labels, whose texts are never empty."""
    return {_TAG + tag.key: f"={tag.value}" for tag in tags}


def _tags(found: TopicInfo) -> dict[str, str]:
    return {name.removeprefix(_TAG): text[1:] for name, text in found.labels.items() if name.startswith(_TAG)}
