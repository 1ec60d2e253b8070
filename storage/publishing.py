"""Topics: what is published to one goes to the queues of all subscriptions that want it, in one entry.

The bodies lie in the log once, whatever the number of queues. A queue gets a message once, even if several of its
subscriptions want it. Either all queues get theirs, or, when one refuses, none does. A subscription whose queue is
missing, or of another kind than the topic, takes nothing. Which messages a subscription wants was found out by the
leader (`storage.routing`); what counts is whether the subscription is still the one it looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import msgspec

from storage import record_keys, records
from storage.codes import (
    COPIES_LIMIT,
    GROUP_REQUIRED,
    LABELS_LIMIT,
    MALFORMED,
    QUEUE_NOT_FOUND,
    SUBSCRIPTION_CHANGED,
    SUBSCRIPTION_LIMIT,
    SUBSCRIPTION_NOT_FOUND,
    TOPIC_FIXED,
    TOPIC_KIND,
    TOPIC_LIMIT,
    TOPIC_NOT_FOUND,
)
from storage.limits import LABELS_BYTES_MAX, PUBLISH_COPIES_MAX, ROUTES_MAX, ROUTES_MS, SUBSCRIPTIONS_MAX, TOPICS_MAX
from storage.operations import Done, Outcome, Refused
from storage.records import Placed, Queue, Routed, Routes, Subscription, Topic
from storage.sending import PLAIN, Block, Bodies, Lot, Source, lots_of, place, read_block
from storage.topic_operations import (
    DeleteSubscription,
    Publish,
    Published,
    PutSubscription,
    PutTopic,
    Target,
    TopicPut,
)
from storage.transactions import all_or_nothing
from storage.turn import Turn

# --- topics and subscriptions -----------------------------------------------------------------------------------------


def put_topic(turn: Turn, operation: PutTopic) -> Outcome:
    """Create a topic, or change its labels."""
    topic = turn.topic(operation.topic)
    if topic is not None and topic.fifo != operation.fifo:
        return Refused(TOPIC_FIXED)
    if topic is None and operation.when == "there":
        return Refused(TOPIC_NOT_FOUND)
    if topic is not None and operation.when == "new":
        return TopicPut(created=False, changed=False)
    old = {} if topic is None else topic.labels
    labels = {name: text for name, text in sorted((old | operation.labels).items()) if text}
    if sum(len(name.encode()) + len(text.encode()) for name, text in labels.items()) > LABELS_BYTES_MAX:
        return Refused(LABELS_LIMIT, LABELS_BYTES_MAX)
    if topic is not None:
        if labels != old:
            topic.labels = labels
            turn.put_topic(topic)
        return TopicPut(created=False, changed=labels != old)
    if turn.shard.topics >= TOPICS_MAX:
        return Refused(TOPIC_LIMIT, TOPICS_MAX)
    turn.shard.topics += 1
    turn.put_topic(Topic(operation.topic, turn.next_number(), operation.fifo, turn.now_ms, labels=labels))
    return TopicPut(created=True, changed=True)


def delete_topic(turn: Turn, name: str) -> Outcome:
    """Forget a topic with its subscriptions."""
    topic = turn.topic(name)
    if topic is None:
        return Refused(TOPIC_NOT_FOUND)
    if topic.routes_due_ms:
        turn.cancel_timer(topic.routes_due_ms, record_keys.TIMER_ROUTES, name.encode())
    turn.set_timer(turn.now_ms, record_keys.TIMER_GRAVE, record_keys.u32(topic.number))
    turn.state.delete(record_keys.topic_key(name))
    turn.shard.topics -= 1
    return Done()


def put_subscription(turn: Turn, operation: PutSubscription) -> Outcome:
    """Create a subscription, or replace it."""
    topic, queue = turn.topic(operation.topic), turn.queue(operation.queue)
    if topic is None:
        return Refused(TOPIC_NOT_FOUND)
    if queue is None:
        return Refused(QUEUE_NOT_FOUND)
    if queue.settings.fifo != topic.fifo:
        return Refused(TOPIC_KIND)
    old = _subscription(turn, topic, operation.name)
    if operation.instead_of not in (-1, 0 if old is None else old.version):
        return Refused(SUBSCRIPTION_CHANGED)
    if old is None and topic.subscriptions >= SUBSCRIPTIONS_MAX:
        return Refused(SUBSCRIPTION_LIMIT, SUBSCRIPTIONS_MAX)
    new = Subscription(
        topic.name,
        operation.name,
        operation.queue,
        operation.pattern,
        operation.filter,
        operation.filter_on,
        operation.enveloped,
        turn.now_ms if old is None else old.created_ms,
        topic.version if old is None else old.version,
    )
    if new == old:
        return TopicPut(created=False, changed=False)
    topic.version = turn.next_number()
    topic.subscriptions += old is None
    new = msgspec.structs.replace(new, version=topic.version)
    turn.state.put(record_keys.subscription_key(topic.number, new.name), records.encode(new))
    turn.put_topic(topic)
    return TopicPut(created=old is None, changed=True)


def delete_subscription(turn: Turn, operation: DeleteSubscription) -> Outcome:
    """Forget a subscription."""
    topic = turn.topic(operation.topic)
    if topic is None:
        return Refused(TOPIC_NOT_FOUND)
    if _subscription(turn, topic, operation.name) is None:
        return Refused(SUBSCRIPTION_NOT_FOUND)
    turn.state.delete(record_keys.subscription_key(topic.number, operation.name))
    topic.version = turn.next_number()
    topic.subscriptions -= 1
    turn.put_topic(topic)
    return Done()


def _subscription(turn: Turn, topic: Topic, name: str) -> Subscription | None:
    found = turn.state.get(record_keys.subscription_key(topic.number, name))
    return None if found is None else records.decode_subscription(found)


# --- publishing -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Delivery:
    """Messages of the publish, in runs of like options, for a queue."""

    subscription: Subscription
    lots: list[Lot]


def publish(turn: Turn, operation: Publish, bodies: Bodies) -> Outcome:
    """Send messages to every queue that is to have them."""
    topic, count = turn.topic(operation.topic), operation.count
    if topic is None:
        return Refused(TOPIC_NOT_FOUND)
    block = read_block(bodies, count * (1 + operation.enveloped))
    if block is None or operation.targets is None or not _goes_together(operation):
        return Refused(MALFORMED)
    lots = lots_of(operation.runs) if operation.runs else [Lot(0, count, PLAIN)]
    if topic.fifo:
        for lot in lots:
            if not lot.options.group:
                return Refused(GROUP_REQUIRED, 0, lot.first)
    deliveries = _deliveries(turn, topic, operation.targets, lots)
    if sum(lot.count for delivery in deliveries for lot in delivery.lots) > PUBLISH_COPIES_MAX:
        return Refused(COPIES_LIMIT, PUBLISH_COPIES_MAX)
    source = Source(topic.name, topic.next_id)

    def deliver() -> list[Routed] | Refused:
        routed: list[Routed] = []
        for delivery in deliveries:
            shift = count if operation.enveloped and delivery.subscription.enveloped else 0
            placed = _place(turn, delivery, block, shift, source)
            if isinstance(placed, Refused):
                position = placed.position - shift if placed.position else 0
                return msgspec.structs.replace(placed, queue=delivery.subscription.queue, position=position)
            routed.append(Routed(delivery.subscription.name, delivery.subscription.queue, placed))
        return routed

    routed = deliver() if len(deliveries) <= 1 else all_or_nothing(turn, deliver)
    if isinstance(routed, Refused):
        return routed
    outcome = Published(topic.next_id, count, turn.now_ms, routed)
    _remember(turn, topic, outcome)
    topic.next_id += count
    turn.put_topic(topic)
    return outcome


def _goes_together(operation: Publish) -> bool:
    """Whether the parts of a publish go together."""
    count = operation.count
    return (
        sum(run.count for run in operation.runs) in (0, count)
        and len(operation.routing_keys) in (0, count)
        and all(_is_within(target, count) for target in operation.targets or [])
    )


def _is_within(target: Target, count: int) -> bool:
    """Whether a target wants messages there are, each once."""
    bounds = [(first, first + length) for first, length in target.wanted]
    return (
        all(0 <= first < end <= count for first, end in bounds)
        and all(end <= later for (_, end), (later, _) in pairwise(bounds))
    )  # fmt: skip


def _deliveries(turn: Turn, topic: Topic, targets: list[Target], lots: list[Lot]) -> list[_Delivery]:
    """What goes where. A queue that several subscriptions lead to gets each message once, by the first."""
    deliveries: list[_Delivery] = []
    taken: dict[str, int] = {}
    for target in targets:
        subscription = _subscription(turn, topic, target.subscription)
        queue = None if subscription is None else turn.queue(subscription.queue)
        if subscription is None or subscription.version != target.version:
            continue
        if queue is None or queue.settings.fifo != topic.fifo:
            continue
        wanted = sum(((1 << count) - 1) << first for first, count in target.wanted)
        fresh = wanted & ~taken.get(queue.name, 0)
        taken[queue.name] = taken.get(queue.name, 0) | wanted
        mine = [piece for lot in lots for piece in _pieces(queue, lot, fresh)]
        if mine:
            deliveries.append(_Delivery(subscription, mine))
    return deliveries


def _pieces(queue: Queue, lot: Lot, wanted: int) -> list[Lot]:
    """The runs of wanted messages in a lot. Where groups decide the order, priorities do not count."""
    options = lot.options
    if options.priority and queue.settings.groups:
        options = msgspec.structs.replace(options, priority=0)
    pieces = []
    bits = wanted >> lot.first & (1 << lot.count) - 1
    position = lot.first
    while bits:
        skipped = (bits & -bits).bit_length() - 1
        bits >>= skipped
        count = (~bits & bits + 1).bit_length() - 1
        bits >>= count
        pieces.append(Lot(position + skipped, count, options))
        position += skipped + count
    return pieces


def _place(turn: Turn, delivery: _Delivery, block: Block, shift: int, source: Source) -> list[Placed] | Refused:
    """Put a delivery into its queue. The forms of its messages lie `shift` behind in the block."""
    lots = [Lot(lot.first + shift, lot.count, lot.options) for lot in delivery.lots] if shift else delivery.lots
    mine = Source(source.topic, source.message_id - shift)
    queue = turn.queue(delivery.subscription.queue)
    assert queue is not None, "it was there a moment ago"
    placing = place(turn, queue, lots, block, mine)
    if isinstance(placing, Refused):
        return placing
    placed: list[Placed] = []
    for run in placing.runs:
        told = Placed(run.first - shift, run.count, run.message_id, run.duplicate)
        if placed and _goes_on(placed[-1], told):
            placed[-1] = msgspec.structs.replace(placed[-1], count=placed[-1].count + told.count)
        else:
            placed.append(told)
    return placed


def _goes_on(last: Placed, told: Placed) -> bool:
    follows = (last.first + last.count, last.message_id + last.count) == (told.first, told.message_id)
    return follows and last.duplicate == told.duplicate


# --- where messages went ----------------------------------------------------------------------------------------------


def _remember(turn: Turn, topic: Topic, published: Published) -> None:
    if topic.routes >= ROUTES_MAX:
        oldest = turn.state.first(record_keys.routes_prefix(topic.number))
        assert oldest is not None, "what is counted is there"
        turn.state.delete(oldest[0])
        topic.routes -= 1
    told = Routes(published.count, published.at_ms, published.routed)
    turn.state.put(record_keys.routes_key(topic.number, published.message_id), records.encode(told))
    topic.routes += 1
    if not topic.routes_due_ms:
        _forget_at(turn, topic, turn.now_ms + ROUTES_MS)


def routes_due(turn: Turn, name: str, steps_max: int) -> int:
    """Forget where messages went that were published long ago. Returns the steps done."""
    topic = turn.topic(name)
    assert topic is not None, "the timer goes with the topic"
    topic.routes_due_ms = 0
    steps = 0
    while (oldest := turn.state.first(record_keys.routes_prefix(topic.number))) is not None:
        due_ms = records.decode_routes(oldest[1]).at_ms + ROUTES_MS
        if due_ms > turn.now_ms or steps == steps_max:
            _forget_at(turn, topic, due_ms)
            break
        turn.state.delete(oldest[0])
        topic.routes -= 1
        steps += 1
    turn.put_topic(topic)
    return steps


def _forget_at(turn: Turn, topic: Topic, due_ms: int) -> None:
    topic.routes_due_ms = due_ms
    turn.set_timer(due_ms, record_keys.TIMER_ROUTES, topic.name.encode())
