"""Topics: subscriptions say which of their messages go to which queues, and one publish reaches them all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import msgspec
from aiohttp import web

from api.filters import read_filter
from api.messages import MessageIn, PackedMessageIn, encode_message
from api.options import read_runs
from api.problem import BATCH_PLACE, SERVER, Problem, invalid, refused
from api.request import (
    Wish,
    answer,
    check_queue,
    choice,
    integer,
    path_number,
    queue_name,
    read,
    read_either,
    too_large,
)
from api.rest import ENVELOPE_BYTES, Batch, query, submit
from api.times import timestamp
from api.tracing import carry, trace_of
from storage import codes
from storage.block import encode_block
from storage.limits import OPERATION_BYTES_MAX
from storage.operations import Refused
from storage.patterns import PatternError, words_of_key, words_of_pattern
from storage.records import Routed
from storage.topic_operations import (
    DeleteSubscription,
    DeleteTopic,
    GetRoutes,
    GetTopic,
    ListSubscriptions,
    ListTopics,
    Publish,
    Published,
    PutSubscription,
    PutTopic,
    Rehearse,
    RoutesTold,
    Sample,
    SubscriptionInfo,
    SubscriptionList,
    TopicInfo,
    TopicList,
    TopicPut,
    Verdicts,
)

REHEARSED_MAX = 10
"""Messages of one dry run: each is put to every subscription, and every answer is explained."""


class TopicIn(Wish):
    """What a topic is to be."""

    fifo: bool = False


class SubscriptionIn(Wish):
    """Which messages go to which queue. `filter` is a JSON object (docs/filters.md); without one all are wanted."""

    queue: str
    pattern: str = "#"
    filter: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    filter_on: Literal["attributes", "body"] = "attributes"


class PublicationIn(MessageIn):
    """A message to publish: as one to send, with the key that patterns look at."""

    routing_key: str = ""

    def members(self) -> int:
        """Those of a message, and perhaps the routing key."""
        return 1 + MessageIn.members(self)


class PackedPublicationIn(PackedMessageIn):
    """A message to publish, in msgpack."""

    routing_key: str = ""


class PublishIn(PublicationIn):
    """One message, or a list of messages."""

    messages: Batch[PublicationIn] | msgspec.UnsetType = msgspec.UNSET

    def members(self) -> int:
        """The list, and those of its messages."""
        if self.messages is msgspec.UNSET:
            return PublicationIn.members(self)
        return 1 + sum([message.members() for message in self.messages])


class PackedPublishIn(PackedPublicationIn):
    """One message, or a list of messages, in msgpack."""

    messages: Batch[PackedPublicationIn] | msgspec.UnsetType = msgspec.UNSET


# --- reading ----------------------------------------------------------------------------------------------------------


def _pattern(text: str) -> str:
    try:
        words_of_pattern(text)
    except PatternError as error:
        raise invalid("$.pattern", str(error), "docs/topics.md has the language.", error.limit) from None
    return text


def _routing_key(text: str, field: str) -> str:
    try:
        words_of_key(text)
    except PatternError as error:
        raise invalid(field, str(error), "docs/topics.md says what a key may be.", error.limit) from None
    return text


_Publications = Sequence[PublicationIn | PackedPublicationIn]


async def _publications(request: web.Request) -> tuple[_Publications, str]:
    """The messages of a request, and where each stands in it."""
    wish = await read_either(request, PublishIn, PackedPublishIn)
    if wish.messages is msgspec.UNSET:
        return [wish], "$"
    if wish.routing_key or any(
        getattr(wish, name, msgspec.UNSET) is not msgspec.UNSET for name in MessageIn.__struct_fields__
    ):
        raise invalid("$.messages", "there is a message beside the list", "Put every message into the list.")
    return wish.messages, BATCH_PLACE


# --- telling ----------------------------------------------------------------------------------------------------------


def _told_topic(topic: TopicInfo) -> dict[str, Any]:
    return {
        "topic": topic.topic,
        "fifo": topic.fifo,
        "created": timestamp(topic.created_ms),
        "subscriptions": topic.subscriptions,
        "published": topic.published,
        **({"labels": topic.labels} if topic.labels else {}),
    }


def _told_subscription(subscription: SubscriptionInfo) -> dict[str, Any]:
    return {
        "topic": subscription.topic,
        "subscription": subscription.name,
        "queue": subscription.queue,
        "pattern": subscription.pattern,
        "filter": json.loads(subscription.filter) if subscription.filter else None,
        "filter_on": subscription.filter_on,
        "created": timestamp(subscription.created_ms),
        "queue_exists": subscription.queue_exists,
    }


def _told_routes(routed: Sequence[Routed], position: int) -> list[dict[str, Any]]:
    """Where the message at a position of a publish went."""
    told: list[dict[str, Any]] = []
    for one in routed:
        for placed in one.placed:
            if placed.first <= position < placed.first + placed.count:
                message_id = placed.message_id + position - placed.first
                more = {"duplicate": True} if placed.duplicate else {}
                told.append({"queue": one.queue, "subscription": one.subscription, "message_id": message_id, **more})
    return told


def _told_refusal(refusal: Refused, place: str) -> Problem:
    problem = refused(refusal, place)
    if refusal.queue:
        problem.document["queue"] = refusal.queue
        problem.document["detail"] += f" Nothing was published, because of queue {refusal.queue}."
    return problem


# --- topics and subscriptions -----------------------------------------------------------------------------------------


async def put_topic(request: web.Request) -> web.Response:
    """Create a topic."""
    topic, wish = queue_name(request, "topic"), await read(request, TopicIn)
    outcome = (await submit(request, PutTopic(topic, wish.fifo))).outcome
    assert isinstance(outcome, TopicPut)
    document = {"topic": topic, "fifo": wish.fifo, "changed": outcome.changed}
    return answer(request, document, 201 if outcome.created else 200)


async def list_topics(request: web.Request) -> web.Response:
    """Topics in order of name."""
    limit = integer(request, "limit", 1000, 1, 1000)
    (found, _), headers = await query(request, ListTopics(request.query.get("after", ""), limit))
    assert isinstance(found, TopicList)
    return answer(request, {"topics": [_told_topic(topic) for topic in found.topics]}, headers=headers)


async def get_topic(request: web.Request) -> web.Response:
    """One topic."""
    (found, _), headers = await query(request, GetTopic(queue_name(request, "topic")))
    assert isinstance(found, TopicInfo)
    return answer(request, _told_topic(found), headers=headers)


async def delete_topic(request: web.Request) -> web.Response:
    """Forget a topic and its subscriptions."""
    await submit(request, DeleteTopic(queue_name(request, "topic")))
    return web.Response(status=204, headers={"Server": SERVER})


async def put_subscription(request: web.Request) -> web.Response:
    """Create a subscription, or replace it."""
    topic, name = queue_name(request, "topic"), queue_name(request, "subscription")
    wish = await read_either(request, SubscriptionIn, SubscriptionIn)
    check_queue(wish.queue, "$.queue")
    pattern, text = _pattern(wish.pattern), ""
    if wish.filter is not msgspec.UNSET and bytes(wish.filter) not in (b"null", b"\xc0"):
        text = read_filter(request, wish.filter, wish.filter_on, "$.filter")
    wanted = PutSubscription(topic, name, wish.queue, pattern, text, wish.filter_on)
    outcome = (await submit(request, wanted)).outcome
    assert isinstance(outcome, TopicPut)
    document = {
        "topic": topic,
        "subscription": name,
        "queue": wish.queue,
        "pattern": pattern,
        "filter": json.loads(text) if text else None,
        "filter_on": wish.filter_on,
        "changed": outcome.changed,
    }
    return answer(request, document, 201 if outcome.created else 200)


async def list_subscriptions(request: web.Request) -> web.Response:
    """A topic's subscriptions in order of name."""
    limit = integer(request, "limit", 1000, 1, 1000)
    wanted = ListSubscriptions(queue_name(request, "topic"), request.query.get("after", ""), limit)
    (found, _), headers = await query(request, wanted)
    assert isinstance(found, SubscriptionList)
    told = [_told_subscription(subscription) for subscription in found.subscriptions]
    return answer(request, {"subscriptions": told}, headers=headers)


async def get_subscription(request: web.Request) -> web.Response:
    """One subscription."""
    wanted = ListSubscriptions(queue_name(request, "topic"), only=queue_name(request, "subscription"))
    (found, _), headers = await query(request, wanted)
    assert isinstance(found, SubscriptionList)
    if not found.subscriptions:
        problem = refused(Refused(codes.SUBSCRIPTION_NOT_FOUND))
        problem.headers = headers
        raise problem
    return answer(request, _told_subscription(found.subscriptions[0]), headers=headers)


async def delete_subscription(request: web.Request) -> web.Response:
    """Forget a subscription."""
    await submit(request, DeleteSubscription(queue_name(request, "topic"), queue_name(request, "subscription")))
    return web.Response(status=204, headers={"Server": SERVER})


# --- messages ---------------------------------------------------------------------------------------------------------


async def publish(request: web.Request) -> web.Response:
    """Publish one message or a batch, all or none; or say what would become of them."""
    topic, is_dry_run = queue_name(request, "topic"), choice(request, "dry_run", "false", "true") == "true"
    batch, place = await _publications(request)
    carry(trace_of(request), batch)
    places = [place.format(position=position) for position in range(len(batch))]
    keys = [_routing_key(each.routing_key, f"{at}.routing_key") for each, at in zip(batch, places, strict=True)]
    encoded = [
        encode_message(message, at, routing_key) for message, at, routing_key in zip(batch, places, keys, strict=True)
    ]
    runs = read_runs(batch, places)
    if is_dry_run:
        return await _rehearse(request, topic, [Sample(key, *each) for key, each in zip(keys, encoded, strict=True)])
    block = encode_block(encoded)
    if len(block) > OPERATION_BYTES_MAX - ENVELOPE_BYTES - sum(map(len, keys)):
        raise too_large(OPERATION_BYTES_MAX)
    wanted = Publish(topic, len(batch), keys if any(keys) else [], runs)
    outcome = (await submit(request, wanted, block, tell=partial(_told_refusal, place=place))).outcome
    assert isinstance(outcome, Published)
    at = timestamp(outcome.at_ms)
    told = [
        {"message_id": outcome.message_id + position, "timestamp": at, "queues": _told_routes(outcome.routed, position)}
        for position in range(outcome.count)
    ]
    return answer(request, {"messages": told}, 201)


async def _rehearse(request: web.Request, topic: str, samples: list[Sample]) -> web.Response:
    if len(samples) > REHEARSED_MAX:
        detail = f"a dry run takes at most {REHEARSED_MAX} messages"
        raise invalid("$.messages", detail, "Try fewer: each answer is explained.", REHEARSED_MAX)
    found = (await submit(request, Rehearse(topic, samples))).outcome
    assert isinstance(found, Verdicts)
    told = []
    for verdicts in found.messages:
        subscriptions = [
            {"subscription": each.subscription, "queue": each.queue, "takes": each.takes}
            | ({} if each.takes else {"why": each.why})
            for each in verdicts
        ]
        told.append({"queues": [each.queue for each in verdicts if each.takes], "subscriptions": subscriptions})
    return answer(request, {"dry_run": True, "messages": told})


async def get_routes(request: web.Request) -> web.Response:
    """Where a message was routed to."""
    topic = queue_name(request, "topic")
    message_id = path_number(request, "message_id", "Use the one that the publish got.")
    (found, _), headers = await query(request, GetRoutes(topic, message_id))
    assert isinstance(found, RoutesTold)
    queues = [each for one in found.routed for each in _told_routes([one], one.placed[0].first)]
    document = {"message_id": message_id, "timestamp": timestamp(found.at_ms), "queues": queues}
    return answer(request, document, headers=headers)


_TOPIC = "/v1/topics/{topic}"
_SUBSCRIPTION = f"{_TOPIC}/subscriptions/{{subscription}}"
ROUTES = (
    web.get("/v1/topics", list_topics, allow_head=False),
    web.put(_TOPIC, put_topic),
    web.get(_TOPIC, get_topic, allow_head=False),
    web.delete(_TOPIC, delete_topic),
    web.get(f"{_TOPIC}/subscriptions", list_subscriptions, allow_head=False),
    web.put(_SUBSCRIPTION, put_subscription),
    web.get(_SUBSCRIPTION, get_subscription, allow_head=False),
    web.delete(_SUBSCRIPTION, delete_subscription),
    web.post(f"{_TOPIC}/messages", publish),
    web.get(f"{_TOPIC}/messages/{{message_id}}", get_routes, allow_head=False),
)
