"""Topics and subscriptions, as the naive model has them."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from storage import codes
from storage.operations import Done, Outcome, Refused, Send, Sent, SentRun
from storage.options import Options, Run
from storage.records import Placed, Routed
from storage.topic_operations import (
    DeleteSubscription,
    DeleteTopic,
    Publish,
    Published,
    PutSubscription,
    PutTopic,
    TopicPut,
)

if TYPE_CHECKING:
    from tests.storage.naive import Body, Naive


@dataclass
class Topic:
    fifo: bool
    created_ms: int
    next_id: int = 1
    subscriptions: dict[str, PutSubscription] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    """As the rules tell them."""
    routes: list[tuple[int, int, list[Routed]]] = field(default_factory=list)
    """(id, when, where to) of each message."""


@dataclass
class Topics:
    """Those there are, by name."""

    model: Naive
    known: dict[str, Topic] = field(default_factory=dict)

    def do(
        self,
        operation: PutTopic | DeleteTopic | PutSubscription | DeleteSubscription | Publish,
        bodies: list[Body],
    ) -> Outcome:
        if isinstance(operation, PutTopic):
            return self.put(operation)
        topic = self.known.get(operation.topic)
        return Refused(codes.TOPIC_NOT_FOUND) if topic is None else self.at(topic, operation, bodies)

    def put(self, operation: PutTopic) -> Outcome:
        topic = self.known.get(operation.topic)
        if topic is not None and topic.fifo != operation.fifo:
            return Refused(codes.TOPIC_FIXED)
        if topic is None and operation.when == "there":
            return Refused(codes.TOPIC_NOT_FOUND)
        if topic is not None and operation.when == "new":
            return TopicPut(False, False)
        mine = self.known.setdefault(operation.topic, Topic(operation.fifo, self.model.now_ms))
        before = dict(mine.labels)
        for name, text in operation.labels.items():
            mine.labels.pop(name, None)
            if text:
                mine.labels[name] = text
        return TopicPut(topic is None, topic is None or mine.labels != before)

    def at(
        self, topic: Topic, operation: DeleteTopic | PutSubscription | DeleteSubscription | Publish, bodies: list[Body]
    ) -> Outcome:
        match operation:
            case DeleteTopic():
                del self.known[operation.topic]
                return Done()
            case DeleteSubscription():
                if topic.subscriptions.pop(operation.name, None) is None:
                    return Refused(codes.SUBSCRIPTION_NOT_FOUND)
                return Done()
            case PutSubscription():
                queue, old = self.model.queues.get(operation.queue), topic.subscriptions.get(operation.name)
                if queue is None:
                    return Refused(codes.QUEUE_NOT_FOUND)
                if queue.settings.fifo != topic.fifo:
                    return Refused(codes.TOPIC_KIND)
                if operation.instead_of != -1 and operation.instead_of != topic.versions.get(operation.name, 0):
                    return Refused(codes.SUBSCRIPTION_CHANGED)
                new = topic.subscriptions[operation.name] = msgspec.structs.replace(operation, instead_of=-1)
                return TopicPut(old is None, old != new)
            case Publish():
                return self.publish(topic, operation, bodies)

    def publish(self, topic: Topic, operation: Publish, bodies: list[Body]) -> Outcome:
        """Sent to one queue after the other, on a copy of everything, which takes its place if all went well."""
        count = operation.count
        wishes = [run.options for run in operation.runs for _ in range(run.count)] or [Options()] * count
        keys = operation.routing_keys or [""] * count
        forms = [bodies[:count], bodies[-count:]]
        for position, wish in enumerate(wishes):
            if topic.fifo and not wish.group:
                return Refused(codes.GROUP_REQUIRED, 0, position)
        before, seen, routed = copy.deepcopy(self.model.queues), dict(self.model.parties.known), []
        served: set[tuple[str, int]] = set()
        for name, subscription in sorted(topic.subscriptions.items()):
            queue = self.model.queues.get(subscription.queue)
            if queue is None or queue.settings.fifo != topic.fifo:
                continue
            wanted = [
                position
                for position in range(count)
                if fits(subscription.pattern.split("."), keys[position].split(".") if keys[position] else [])
                and (not subscription.filter or b"\xa1x" in bodies[position][1])
                and (subscription.queue, position) not in served
            ]
            served |= {(subscription.queue, position) for position in wanted}
            if not wanted:
                continue
            mine = [wishes[position] for position in wanted]
            if queue.settings.groups:
                mine = [msgspec.structs.replace(wish, priority=0) for wish in mine]
            send = Send(subscription.queue, len(wanted), [Run(1, wish) for wish in mine])
            first_id = queue.next_id
            outcome = self.model.send(queue, send, [forms[subscription.enveloped][position] for position in wanted])
            if isinstance(outcome, Refused):
                self.model.queues, self.model.parties.known = before, seen
                position = wanted[outcome.position] if outcome.code not in (codes.QUEUE_FULL,) else 0
                return msgspec.structs.replace(outcome, position=position, queue=subscription.queue)
            assert isinstance(outcome, Sent)
            runs = outcome.runs or [SentRun(first_id + n, 1, False) for n in range(len(wanted))]
            for position, run in zip(wanted, runs, strict=True):
                if not run.duplicate:
                    message = next(m for m in queue.messages if m.message_id == run.message_id)
                    message.topic, message.publish_id = operation.topic, topic.next_id + position
            placed = [Placed(at, 1, run.message_id, run.duplicate) for at, run in zip(wanted, runs, strict=True)]
            routed.append(Routed(name, subscription.queue, placed))
        for position in range(count):
            alone = [
                Routed(each.subscription, each.queue, here)
                for each in routed
                if (here := [placed for placed in each.placed if placed.first == position])
            ]
            topic.routes.append((topic.next_id + position, self.model.now_ms, alone))
        outcome = Published(topic.next_id, count, self.model.now_ms, routed)
        topic.next_id += count
        return outcome


def fits(pattern: list[str], key: list[str]) -> bool:
    """Whether a routing key fits a pattern, tried in every way."""
    if not pattern:
        return not key
    if pattern[0] == "#":
        return fits(pattern[1:], key) or (bool(key) and fits(pattern, key[1:]))
    return bool(key) and pattern[0] in ("*", key[0]) and fits(pattern[1:], key[1:])
