"""The actions of SNS that are about subscriptions.

A subscription's name is made of topic and queue: whoever subscribes a queue again gets the subscription that is there.
"""

from __future__ import annotations

import hashlib
import uuid

import msgspec

from api.aws import sns_shapes as shapes
from api.aws.calls import Call
from api.aws.errors import AwsError
from api.aws.names import ACCOUNT, queue_arn
from api.aws.sns_calls import PAGE, do, find_topic, no_subscription, read_token, refused, token
from api.aws.sns_checks import (
    SCOPES,
    check_subscription,
    check_subscription_attribute,
    invalid,
    subscription_arn,
    subscription_of_arn,
    topic_arn,
    topic_of_arn,
)
from storage import codes
from storage.operations import Refused
from storage.topic_operations import (
    DeleteSubscription,
    ListSubscriptions,
    ListTopics,
    PutSubscription,
    SubscriptionInfo,
    SubscriptionList,
    TopicList,
)

_SCOPE_NAMES = {on: scope for scope, on in SCOPES.items()}
_ATTRIBUTES, _BODY = SCOPES
LOOKS_MAX = 20
"""Queries by which one page of all topics' subscriptions is found; if they do not fill it, it is a short one."""
SCAN_MAX = 1000
"""Topics that are looked at in one query."""


async def subscribe(call: Call, wish: shapes.Subscribe) -> shapes.SubscriptionArn:
    """Send what is published to a queue as well, or find the subscription that does so with the attributes given."""
    topic, queue, attributes = check_subscription(wish)
    name = _name(topic, queue)
    new = _changed(PutSubscription(topic, name, queue, enveloped=True, instead_of=0), attributes)
    outcome = (await call.submit(new)).outcome
    if isinstance(outcome, Refused):
        if outcome.code != codes.SUBSCRIPTION_CHANGED:
            raise refused(outcome)
        shown = _UNSET | _shown(await _find(call, topic, name))
        if any(shown.get(each, "") != text for each, text in attributes.items()):
            raise invalid("Attributes Reason: Subscription already exists with different attributes")
    return shapes.SubscriptionArn(subscription_arn=subscription_arn(topic, name))


_UNSET = {"FilterPolicyScope": _ATTRIBUTES}
"""What a subscription without a filter has, though it does not show it."""


def _name(topic: str, queue: str) -> str:
    digest = hashlib.blake2b(f"{topic}\n{queue}".encode(), digest_size=16, person=b"subscription").digest()
    return str(uuid.UUID(bytes=digest, version=4))


def _changed(put: PutSubscription, attributes: dict[str, str]) -> PutSubscription:
    """The subscription with checked attributes changed."""
    filter_ = attributes.get("FilterPolicy", put.filter)
    scope = attributes.get("FilterPolicyScope", _SCOPE_NAMES[put.filter_on])
    raw = attributes.get("RawMessageDelivery", "false" if put.enveloped else "true")
    on = "body" if scope == _BODY else "attributes"
    return msgspec.structs.replace(put, filter=filter_, filter_on=on, enveloped=raw == "false")


async def unsubscribe(call: Call, wish: shapes.Unsubscribe) -> None:
    """Forget a subscription; one that is gone already may be forgotten again."""
    topic, name = subscription_of_arn(wish.subscription_arn)
    try:
        await do(call, DeleteSubscription(topic, name))
    except AwsError as error:
        if error.shape != "NotFoundException":
            raise


async def confirm_subscription(call: Call, wish: shapes.ConfirmSubscription) -> shapes.SubscriptionArn:
    """Refuse it: subscriptions of queues need no confirmation, so no token for one was ever given out."""
    await find_topic(call, topic_of_arn(wish.topic_arn))
    raise invalid("Token")


# --- attributes -------------------------------------------------------------------------------------------------------


async def get_subscription_attributes(call: Call, wish: shapes.GetSubscriptionAttributes) -> shapes.Attributes:
    """A subscription's settings."""
    return shapes.Attributes(attributes=_shown(await _find(call, *subscription_of_arn(wish.subscription_arn))))


def _shown(found: SubscriptionInfo) -> dict[str, str]:
    attributes = {
        "SubscriptionArn": subscription_arn(found.topic, found.name),
        "TopicArn": topic_arn(found.topic),
        "Owner": ACCOUNT,
        "Protocol": "sqs",
        "Endpoint": queue_arn(found.queue),
        "PendingConfirmation": "false",
        "ConfirmationWasAuthenticated": "true",
        "SubscriptionPrincipal": f"arn:aws:iam::{ACCOUNT}:root",
        "RawMessageDelivery": "false" if found.enveloped else "true",
    }
    if found.filter:
        attributes |= {"FilterPolicy": found.filter, "FilterPolicyScope": _SCOPE_NAMES[found.filter_on]}
    return attributes


async def set_subscription_attributes(call: Call, wish: shapes.SetSubscriptionAttributes) -> None:
    """Change one attribute of a subscription, and leave the others as they are."""
    topic, name = subscription_of_arn(wish.subscription_arn)
    found = await _find(call, topic, name)
    scope, policy = _SCOPE_NAMES[found.filter_on], found.filter
    text = check_subscription_attribute(wish.attribute_name, wish.attribute_value, topic=topic, scope=scope)
    if wish.attribute_name == "FilterPolicyScope" and policy:
        check_subscription_attribute("FilterPolicy", policy, topic=topic, scope=text)
    now = PutSubscription(
        topic,
        name,
        found.queue,
        found.pattern,
        found.filter,
        found.filter_on,
        found.enveloped,
        instead_of=found.version,
    )
    await do(call, _changed(now, {wish.attribute_name: text}))


async def _find(call: Call, topic: str, name: str) -> SubscriptionInfo:
    outcome = await do(call, ListSubscriptions(topic, only=name))
    assert isinstance(outcome, SubscriptionList)
    if not outcome.subscriptions:
        raise no_subscription()
    return outcome.subscriptions[0]


# --- lists ------------------------------------------------------------------------------------------------------------


async def list_subscriptions_by_topic(call: Call, wish: shapes.ListSubscriptionsByTopic) -> shapes.Subscriptions:
    """A topic's subscriptions in order of name, a page at a time."""
    topic, (after,) = topic_of_arn(wish.topic_arn), read_token(wish.next_token, 1)
    found = await _list(call, topic, after, PAGE + 1)
    more = len(found) > PAGE
    page = found[:PAGE]
    return shapes.Subscriptions(
        subscriptions=list(map(_listed, page)), next_token=token(page[-1].name) if more else None
    )


async def list_subscriptions(call: Call, wish: shapes.ListSubscriptions) -> shapes.Subscriptions:
    """All subscriptions in order of topic and name, a page at a time."""
    topic, after = read_token(wish.next_token, 2)
    found: list[SubscriptionInfo] = []
    looks = LOOKS_MAX
    if topic:
        looks -= 1
        found = await _list_if_there(call, topic, after, PAGE)
        if len(found) == PAGE:
            return _page(found, token(topic, found[-1].name))
    while True:
        looks -= 1
        outcome = await do(call, ListTopics(topic, SCAN_MAX))
        assert isinstance(outcome, TopicList)
        if not outcome.topics:
            return _page(found, None)
        for info in outcome.topics:
            topic = info.topic
            if not info.subscriptions:
                continue
            looks -= 1
            found += await _list_if_there(call, topic, "", PAGE - len(found))
            if len(found) >= PAGE or looks <= 0:
                last = found[-1].name if found and found[-1].topic == topic else ""
                return _page(found, token(topic, last))
        if looks <= 0:
            return _page(found, token(topic, ""))


def _page(found: list[SubscriptionInfo], next_token: str | None) -> shapes.Subscriptions:
    return shapes.Subscriptions(subscriptions=list(map(_listed, found)), next_token=next_token)


async def _list(call: Call, topic: str, after: str, limit: int) -> list[SubscriptionInfo]:
    outcome = await do(call, ListSubscriptions(topic, after, limit))
    assert isinstance(outcome, SubscriptionList)
    return outcome.subscriptions


async def _list_if_there(call: Call, topic: str, after: str, limit: int) -> list[SubscriptionInfo]:
    """A topic's subscriptions; none of one that was deleted meanwhile."""
    try:
        return await _list(call, topic, after, limit)
    except AwsError as error:
        if error.shape != "NotFoundException":
            raise
        return []


def _listed(found: SubscriptionInfo) -> shapes.Subscription:
    return shapes.Subscription(
        subscription_arn=subscription_arn(found.topic, found.name),
        owner=ACCOUNT,
        protocol="sqs",
        endpoint=queue_arn(found.queue),
        topic_arn=topic_arn(found.topic),
    )
