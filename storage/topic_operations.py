"""Operations, queries and outcomes of topics. See `storage.operations`."""

from __future__ import annotations

from typing import Literal

import msgspec

from storage.options import Run
from storage.records import Routed

# --- operations -------------------------------------------------------------------------------------------------------


class PutTopic(msgspec.Struct, array_like=True, frozen=True, tag=15):
    """Create a topic, or change the labels of one. → `TopicPut`.

    `labels` are added to those it has, in place of those of the same name; one with an empty text is taken off. `when`
    it is new, it is left alone if it is there; `when` it is there, it is not created.
    """

    topic: str
    fifo: bool = False
    labels: dict[str, str] = {}
    when: Literal["ever", "new", "there"] = "ever"


class DeleteTopic(msgspec.Struct, array_like=True, frozen=True, tag=16):
    """Forget a topic, its subscriptions, and where its messages went. What is in queues stays there. → `Done`."""

    topic: str


class PutSubscription(msgspec.Struct, array_like=True, frozen=True, tag=17):
    """Create a subscription, or replace it. See `storage.records.Subscription`. → `TopicPut`.

    `instead_of` is the version it must have, 0 if it must not be there; -1: whatever it is now.
    """

    topic: str
    name: str
    queue: str
    pattern: str = "#"
    filter: str = ""
    filter_on: Literal["attributes", "body"] = "attributes"
    enveloped: bool = False
    instead_of: int = -1


class DeleteSubscription(msgspec.Struct, array_like=True, frozen=True, tag=18):
    """Forget a subscription. What it took stays in its queue. → `Done`."""

    topic: str
    name: str


class Target(msgspec.Struct, array_like=True, frozen=True):
    """A subscription, in the state that `version` names, wants these runs (first, count) of a publish's messages."""

    subscription: str
    version: int
    wanted: list[tuple[int, int]]


class Publish(msgspec.Struct, array_like=True, frozen=True, tag=19):
    """Send the `count` messages of the item's block to every queue that is to have them, all or none. → `Published`.

    `routing_keys`: one for each message; none: all are empty. `runs` as for `Send`. `targets` are for
    the leader to fill in: it matches patterns and filters, as it stamps the time, so that replicas need not agree on
    how to read JSON. enveloped: the block has the messages twice; subscriptions that are enveloped get the second form.
    """

    topic: str
    count: int
    routing_keys: list[str] = []
    runs: list[Run] = []
    enveloped: bool = False
    targets: list[Target] | None = None


# --- queries ----------------------------------------------------------------------------------------------------------


class GetTopic(msgspec.Struct, array_like=True, frozen=True, tag=39):
    """One topic. → `TopicInfo`."""

    topic: str


class ListTopics(msgspec.Struct, array_like=True, frozen=True, tag=40):
    """Up to `limit` topics named after `after`, by name. → `TopicList`. `patterns` as of `ListQueues`."""

    after: str = ""
    limit: int = 1000
    patterns: list[str] = []


class ListSubscriptions(msgspec.Struct, array_like=True, frozen=True, tag=41):
    """Up to `limit` of a topic's subscriptions named after `after`, by name. → `SubscriptionList`.

    only: the one of this name, if it is there.
    """

    topic: str
    after: str = ""
    limit: int = 1000
    only: str = ""


class Sample(msgspec.Struct, array_like=True, frozen=True):
    """A message that is not to be sent."""

    routing_key: str
    body: bytes
    properties: bytes


class Rehearse(msgspec.Struct, array_like=True, frozen=True, tag=42):
    """Which subscriptions would take messages published now, and why others would not. → `Verdicts`."""

    topic: str
    messages: list[Sample]


class GetRoutes(msgspec.Struct, array_like=True, frozen=True, tag=43):
    """Where the message with this id of the topic was routed to. → `RoutesTold`."""

    topic: str
    message_id: int


# --- outcomes ---------------------------------------------------------------------------------------------------------


class TopicPut(msgspec.Struct, array_like=True, frozen=True, tag=10):
    """The topic or subscription is now so. `created`: it did not exist before. `changed`: it is otherwise now."""

    created: bool
    changed: bool


class Published(msgspec.Struct, array_like=True, frozen=True, tag=11):
    """The messages have the ids `message_id` … `message_id + count - 1` of the topic; `routed` says where they went, in
    order of subscription. One that is nowhere among it went nowhere."""

    message_id: int
    count: int
    at_ms: int
    routed: list[Routed]


class TopicInfo(msgspec.Struct, array_like=True, frozen=True, tag=39):
    """A topic, as it is now."""

    topic: str
    fifo: bool
    created_ms: int
    subscriptions: int
    published: int
    labels: dict[str, str] = {}


class TopicList(msgspec.Struct, array_like=True, frozen=True, tag=40):
    """Topics, in order of name."""

    topics: list[TopicInfo]


class SubscriptionInfo(msgspec.Struct, array_like=True, frozen=True):
    """A subscription, as it is now. queue_exists: there is a queue of that name and of the topic's kind."""

    topic: str
    name: str
    queue: str
    pattern: str
    filter: str
    filter_on: Literal["attributes", "body"]
    enveloped: bool
    created_ms: int
    queue_exists: bool
    version: int


class SubscriptionList(msgspec.Struct, array_like=True, frozen=True, tag=41):
    """Subscriptions, in order of topic and name."""

    subscriptions: list[SubscriptionInfo]


class Verdict(msgspec.Struct, array_like=True, frozen=True):
    """Whether a subscription takes a message; if not, why not."""

    subscription: str
    queue: str
    takes: bool
    why: str = ""


class Verdicts(msgspec.Struct, array_like=True, frozen=True, tag=42):
    """For each message, what each subscription says of it, in order of name."""

    messages: list[list[Verdict]]


class RoutesTold(msgspec.Struct, array_like=True, frozen=True, tag=43):
    """Where one message was routed to."""

    at_ms: int
    routed: list[Routed]
