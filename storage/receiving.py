"""Receiving: which ready messages a consumer gets, in what order, and how many."""

from __future__ import annotations

import msgspec

from storage import flow, groups, history, record_keys, records, sieves, sifting
from storage.codes import CONSUMER_REQUIRED, QUEUE_NOT_FOUND
from storage.dead_letters import NO_EXTRAS
from storage.limits import ID_END, RECEIVE_BYTES_MAX
from storage.message_operations import About
from storage.operations import Delivery, Outcome, Receive, Received, Refused
from storage.parties import note_seen
from storage.records import Chunk, Queue, Segment, Selector
from storage.segments import isolate, standing
from storage.turn import Turn, message_sizes

_NOTHING = About()


class _Taking(msgspec.Struct):
    """What a receive has, and may still take."""

    operation: Receive
    until_ms: int
    messages_left: int
    bytes_left: int
    selector: Selector | None
    deliveries: list[Delivery] = []


def receive(turn: Turn, operation: Receive) -> Outcome:
    """Lease messages."""
    queue = turn.queue(operation.queue)
    if queue is None:
        return Refused(QUEUE_NOT_FOUND)
    settings = queue.settings
    until_ms = turn.now_ms + (operation.lease_ms or settings.lease_ms)
    selector = None
    if operation.filter or operation.selector:
        chosen = sifting.selector_of(turn, queue, operation)
        if isinstance(chosen, Refused):
            return chosen
        if chosen is None:
            return Received(operation.token, until_ms, [])
        selector = chosen
    if settings.single_active:
        if not operation.consumer:
            return Refused(CONSUMER_REQUIRED)
        if not _is_active(turn, queue, operation.consumer, until_ms):
            return Received(operation.token, until_ms, [])
    wanted = min(operation.messages_max, _allowance(turn, queue))
    taking = _Taking(operation, until_ms, wanted, min(RECEIVE_BYTES_MAX, turn.receive_bytes_left), selector)
    prefix, end = record_keys.ready_prefix(queue.number), ID_END
    if selector is not None:
        prefix = sieves.selected_prefix(queue.number, selector.number)
        end = sifting.end_of_sifted(turn.state, queue, selector)
    while taking.messages_left > 0 and taking.bytes_left > 0:
        found = turn.state.first(prefix)
        chunk_id = end if found is None else record_keys.read_u64(found[0][-8:])
        if chunk_id >= end:
            break
        chunk = turn.known_chunk(queue.number, chunk_id)
        if selector is None and chunk.extras is not None and chunk.extras.grouped:
            _take_group(turn, queue, chunk_id, chunk, taking)
        else:
            _take(turn, queue, chunk_id, chunk, taking, taking.messages_left)
    taken = wanted - taking.messages_left
    if operation.consumer and taken:
        note_seen(turn, "consumer", operation.consumer)
    if settings.rate is not None and taken:
        queue.served_us = flow.served(settings.rate, queue.served_us, turn.now_ms, taken)
    return Received(operation.token, until_ms, taking.deliveries)


def _allowance(turn: Turn, queue: Queue) -> int:
    """How many more messages the queue may deliver now."""
    settings = queue.settings
    allowed = flow.allowed(settings.rate, queue.served_us, turn.now_ms)
    if settings.concurrency_max:
        allowed = min(allowed, settings.concurrency_max - queue.leased)
    return max(allowed, 0)


def _is_active(turn: Turn, queue: Queue, consumer: str, until_ms: int) -> bool:
    """Whether this is the consumer that alone receives; it becomes so when no other one is."""
    if queue.active != consumer and (queue.leased or queue.active_until_ms > turn.now_ms):
        return False
    queue.active, queue.active_until_ms = consumer, max(queue.active_until_ms, until_ms)
    return True


def _take_group(turn: Turn, queue: Queue, chunk_id: int, chunk: Chunk, taking: _Taking) -> None:
    """Serve a group its turn, chunk after chunk; of a fifo queue only while they are in order."""
    assert chunk.extras is not None
    name, settings = chunk.extras.group, queue.settings
    group = turn.group(queue.number, name)
    share = min(taking.messages_left, groups.allowance(turn, queue, group))
    if settings.fair:
        share = min(share, groups.FAIR_QUANTUM)
    turn.serving, left = group, share
    while share > 0 and taking.bytes_left > 0:
        taken = _take(turn, queue, chunk_id, chunk, taking, share)
        group.served_us = flow.served(settings.group_rate, group.served_us, turn.now_ms, taken)
        share -= taken
        if settings.fifo and standing(chunk.segments).ready:
            break  # what is in between has to come first
        chunk_id = groups.first_chunk(turn, queue, name, chunk_id)
        if not chunk_id:
            break
        chunk = turn.known_chunk(queue.number, chunk_id)
        if not groups.is_next_ready(chunk) and settings.fifo:
            break
    groups.served(turn, queue, name, group, left - share)


def _take(turn: Turn, queue: Queue, chunk_id: int, chunk: Chunk, taking: _Taking, count_max: int) -> int:
    """Lease messages of one chunk, from its first ready one on. Returns how many."""
    operation, left = taking.operation, count_max
    for first, ready in _ready_runs(queue, chunk, taking.selector):
        sizes = message_sizes(chunk, first, min(ready, left))
        count, taken_bytes = _fitting(sizes, taking.bytes_left, at_least=0 if taking.deliveries else 1)
        left -= count
        taking.bytes_left -= taken_bytes
        turn.receive_bytes_left -= taken_bytes
        for taken in isolate(chunk.segments, first, first + count):
            taken.attempts += 1
            taken.token, taken.due_ms = operation.token, taking.until_ms
            taken.last_ms, taken.consumer = turn.now_ms, operation.consumer
            taken.first_ms = taken.first_ms or turn.now_ms
            taking.deliveries.append(delivery(chunk_id, chunk, taken, taken.first, taken.count))
        if queue.settings.history_ms and count:
            history.note(turn, queue, chunk_id, first, count, history.LEASED, operation.consumer)
        if count < len(sizes):
            taking.bytes_left = 0
        if left <= 0 or taking.bytes_left <= 0:
            break
    total = count_max - left
    taking.messages_left -= total
    turn.refile(queue, chunk_id, chunk)
    return total


def _ready_runs(queue: Queue, chunk: Chunk, selector: Selector | None) -> list[tuple[int, int]]:
    """The runs of messages that may be taken from a chunk, as (first position, count)."""
    if selector is not None:
        return list(sifting.ready_runs(chunk, selector))
    runs: list[tuple[int, int]] = []
    for segment in chunk.segments:
        if not segment.due_ms:
            runs.append((segment.first, segment.count))
        elif queue.settings.fifo and segment.due_ms != records.DEAD:
            break  # what comes after it has to wait
    return runs


def _fitting(sizes: tuple[int, ...], bytes_max: int, at_least: int) -> tuple[int, int]:
    """How many messages from the front fit into `bytes_max`, and their bytes; `at_least` so many are taken anyway."""
    total = sum(sizes)
    if total <= bytes_max:
        return len(sizes), total
    total = 0
    for count, size in enumerate(sizes):
        if count >= at_least and total + size > bytes_max:
            return count, total
        total += size
    return len(sizes), total


def delivery(chunk_id: int, chunk: Chunk, segment: Segment, first: int, count: int) -> Delivery:
    """Messages `first` … `first + count - 1` of a segment, as their consumer sees them."""
    about = (
        None
        if chunk.extras is None and segment.attempts == 1 and segment.dead is None
        else about_messages(chunk, segment, first)
    )
    return Delivery(chunk_id + first, count, segment.attempts, chunk.sent_ms, about)


def about_messages(chunk: Chunk, segment: Segment, first: int) -> About | None:
    """What messages of a segment from position `first` on have beyond body and properties; None for nothing."""
    extras, dead = chunk.extras or NO_EXTRAS, None
    if segment.dead is not None and not segment.redriven:
        dead = segment.dead.behind(first)
    about = About(
        extras.priority,
        extras.group,
        extras.key,
        extras.dedup_id,
        extras.expires_ms,
        segment.first_ms,
        dead,
        extras.topic,
        extras.publish_id + first if extras.topic else 0,
        extras.schedule,
        extras.occurrence_ms,
        extras.producer,
    )
    return None if about == _NOTHING else about
