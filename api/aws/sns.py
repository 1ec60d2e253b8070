"""The actions of SNS: each reads, submits what it asks for to the cluster, and answers in SNS's shapes.

What a topic does is decided by the cluster's rules alone. A topic of SNS is a topic of the native API, and a
subscription of SNS one of the native API whose pattern is `#`.
"""

from __future__ import annotations

from api.aws import publish_actions, subscription_actions, topic_actions
from api.aws.sqs import Handler

HANDLERS: dict[str, Handler] = {
    "ConfirmSubscription": subscription_actions.confirm_subscription,
    "CreateTopic": topic_actions.create_topic,
    "DeleteTopic": topic_actions.delete_topic,
    "GetSubscriptionAttributes": subscription_actions.get_subscription_attributes,
    "GetTopicAttributes": topic_actions.get_topic_attributes,
    "ListSubscriptions": subscription_actions.list_subscriptions,
    "ListSubscriptionsByTopic": subscription_actions.list_subscriptions_by_topic,
    "ListTagsForResource": topic_actions.list_tags_for_resource,
    "ListTopics": topic_actions.list_topics,
    "Publish": publish_actions.publish,
    "PublishBatch": publish_actions.publish_batch,
    "SetSubscriptionAttributes": subscription_actions.set_subscription_attributes,
    "SetTopicAttributes": topic_actions.set_topic_attributes,
    "Subscribe": subscription_actions.subscribe,
    "TagResource": topic_actions.tag_resource,
    "Unsubscribe": subscription_actions.unsubscribe,
    "UntagResource": topic_actions.untag_resource,
}
"""All actions of SNS that are about topics and their subscriptions."""
