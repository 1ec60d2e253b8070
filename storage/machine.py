"""The rules of queues: pure, deterministic, and behind one door.

`apply(state, index, entry)` does every operation of a log entry and returns their outcomes. The same state, index and
entry give the same writes and the same outcomes, byte for byte, on every replica and every `State`: no I/O, no clock,
no chance; the leader stamped time (`at_ms`) and gateways chose tokens before the entry was logged.

The life of a message:

          send                 receive                  ack
    ────────────────▶ READY ─────────────▶ LEASED ───────────────▶ gone
                      ▲  ▲                 │    │  ▲               ▲
                      │  │  lease ended,   │    │  │ extend        │ retention: of what is ready, or
                      │  └── nack ─────────┘    │  └─┐             │ comes back from a lease or delay
                      │                         ▼    │             │
                      └───── delay ended ──── DELAYED ◀── nack with delay_ms

A rule that says no returns `Refused` and nothing has changed. `storage.records` is the map of what is kept;
`storage.queries` reads it.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from storage import records
from storage.block import is_whole, table
from storage.limits import (
    BATCH_MESSAGES_MAX,
    HOLD_MS_MAX,
    ID_END,
    KEY_WINDOW_MS,
    KEYS_MAX,
    MERGED_MESSAGES_MAX,
    QUEUES_MAX,
    RECEIVE_BYTES_MAX,
)
from storage.operations import (
    Ack,
    Claim,
    DeleteQueue,
    Delivery,
    Done,
    Extend,
    Forget,
    Item,
    Keyed,
    Nack,
    Operation,
    Outcome,
    Pulse,
    Pulsed,
    Purged,
    PurgeQueue,
    PutQueue,
    QueuePut,
    Receive,
    Received,
    Refused,
    Send,
    Sent,
    Settled,
    decode_entry,
    decode_outcome,
    encode_outcome,
)
from storage.records import Chunk, KeyMemory, Queue, Segment
from storage.segments import isolate, standing
from storage.settings import QUEUE_NAME, out_of_range
from storage.state import State
from storage.turn import Turn, message_sizes

QUEUE_NOT_FOUND = "queue_not_found"
QUEUE_LIMIT = "queue_limit"
BODY_TOO_LARGE = "body_too_large"
MALFORMED = "malformed"
STALE_OPERATION = "stale_operation"
IDEMPOTENCY_MISMATCH = "idempotency_mismatch"
IDEMPOTENCY_WINDOW_FULL = "idempotency_window_full"

CODES = frozenset(
    {
        QUEUE_NOT_FOUND,
        QUEUE_LIMIT,
        BODY_TOO_LARGE,
        MALFORMED,
        STALE_OPERATION,
        IDEMPOTENCY_MISMATCH,
        IDEMPOTENCY_WINDOW_FULL,
    }
)
"""Every reason the rules have to refuse."""


class Applied(NamedTuple):
    """An operation of the entry and what came of it; `encoded` is the outcome's encoding."""

    item: Item
    outcome: Outcome
    encoded: bytes


class Turned(NamedTuple):
    """What came of an entry: its operations in order, and the queues in which more messages are ready than before."""

    applied: list[Applied]
    readier: set[str]


def apply(state: State, index: int, entry: bytes | memoryview) -> Turned:
    """Do every operation of the entry at `index`, in order."""
    at_ms, items = decode_entry(entry)
    turn = Turn(state, index, at_ms)
    applied = []
    for item in items:
        outcome, encoded = _once(turn, item) if item.session else _fresh(turn, item)
        applied.append(Applied(item, outcome, encoded))
    turn.finish()
    return Turned(applied, turn.readier)


def _fresh(turn: Turn, item: Item) -> tuple[Outcome, bytes]:
    outcome = _do(turn, item.operation, item)
    return outcome, encode_outcome(outcome)


def _once(turn: Turn, item: Item) -> tuple[Outcome, bytes]:
    """Retried means once: an operation of a session whose outcome is remembered is not done again.

    After Ongaro's thesis, section 6.3, with a window instead of a single outcome: a gateway has many operations under
    way, and says with `Forget` up to where it has its answers.
    """
    session = turn.session(item.session)
    operation = item.operation
    if type(operation) is Forget:
        session.forget(operation.below)
        return Done(), b""
    if item.seq < session.record.below:
        outcome: Outcome = Refused(STALE_OPERATION)
        return outcome, encode_outcome(outcome)
    encoded = session.remembered(item.seq)
    if encoded:
        return decode_outcome(encoded), encoded
    outcome = _do(turn, operation, item)
    encoded = encode_outcome(outcome)
    if _has_effect(outcome):
        session.remember(item.seq, encoded)
    return outcome, encoded


def _has_effect(outcome: Outcome) -> bool:
    """Whether doing it twice would differ from doing it once; an empty receive is simply tried again."""
    return not (type(outcome) is Refused or (type(outcome) is Received and not outcome.deliveries))


def _is_sound(operation: Operation) -> bool:
    """Whether the rules can work with its numbers and names: what they choke on would choke every replica for ever."""
    match operation:
        case PutQueue():
            return QUEUE_NAME.fullmatch(operation.queue) is not None and out_of_range(operation.settings) is None
        case Receive():
            return (
                0 < operation.messages_max <= BATCH_MESSAGES_MAX
                and 0 <= operation.lease_ms <= HOLD_MS_MAX
                and 0 < operation.token < ID_END
            )
        case Ack() | Nack() | Extend():
            hold_ms = getattr(operation, "delay_ms", 0) + getattr(operation, "lease_ms", 0)
            return 0 <= hold_ms <= HOLD_MS_MAX and all(
                0 <= claim.message_id < ID_END and 0 < claim.count <= BATCH_MESSAGES_MAX for claim in operation.claims
            )
        case Keyed():
            return len(operation.key) == 16
        case _:
            return True


def _do(turn: Turn, operation: Operation, item: Item) -> Outcome:
    if not _is_sound(operation):
        return Refused(MALFORMED)
    match operation:
        case Send():
            return _send(turn, operation, item)
        case Receive():
            return _receive(turn, operation)
        case Ack() | Nack() | Extend():
            return _settle(turn, operation)
        case Keyed():
            return _keyed(turn, operation, item)
        case Pulse():
            return _pulse(turn, operation.steps_max)
        case PutQueue():
            return _put_queue(turn, operation)
        case DeleteQueue():
            return _delete_queue(turn, operation.queue)
        case PurgeQueue():
            return _purge_queue(turn, operation.queue)
        case _:
            return Refused(MALFORMED)  # a query, or `Forget` without a session: nothing to do here


def _keyed(turn: Turn, operation: Keyed, item: Item) -> Outcome:
    key = records.memory_key(operation.key)
    found = turn.state.get(key)
    if found is not None:
        memory = records.decode_key_memory(found)
        if memory.fingerprint != operation.fingerprint:
            return Refused(IDEMPOTENCY_MISMATCH)
        return decode_outcome(memory.outcome)
    if turn.shard.keys >= KEYS_MAX:
        return Refused(IDEMPOTENCY_WINDOW_FULL, KEYS_MAX)
    outcome = _do(turn, operation.operation, item)
    if _has_effect(outcome):
        turn.state.put(key, records.encode(KeyMemory(operation.fingerprint, encode_outcome(outcome))))
        turn.set_timer(turn.now_ms + KEY_WINDOW_MS, records.TIMER_KEY, operation.key)
        turn.shard.keys += 1
    return outcome


# --- queues -----------------------------------------------------------------------------------------------------------


def _put_queue(turn: Turn, operation: PutQueue) -> Outcome:
    queue = turn.queue(operation.queue)
    if queue is None:
        if turn.shard.queues >= QUEUES_MAX:
            return Refused(QUEUE_LIMIT, QUEUES_MAX)
        turn.shard.queues += 1
        turn.add_queue(Queue(operation.queue, turn.next_number(), operation.settings, turn.now_ms))
        return QueuePut(created=True, changed=True)
    if queue.settings == operation.settings:
        return QueuePut(created=False, changed=False)
    queue.settings = operation.settings
    queue.swept_id = 0
    _schedule_retention(turn, queue)
    return QueuePut(created=False, changed=True)


def _delete_queue(turn: Turn, name: str) -> Outcome:
    queue = turn.queue(name)
    if queue is None:
        return Refused(QUEUE_NOT_FOUND)
    _cancel_retention(turn, queue)
    turn.bury_queue(queue)
    turn.state.delete(records.name_key(name))
    turn.shard.queues -= 1
    return Done()


def _purge_queue(turn: Turn, name: str) -> Outcome:
    queue = turn.queue(name)
    if queue is None:
        return Refused(QUEUE_NOT_FOUND)
    count = queue.ready + queue.leased + queue.delayed
    _cancel_retention(turn, queue)
    turn.bury_queue(queue)
    turn.add_queue(Queue(name, turn.next_number(), queue.settings, queue.created_ms, queue.next_id))
    return Purged(count)


# --- messages ---------------------------------------------------------------------------------------------------------


def _send(turn: Turn, operation: Send, item: Item) -> Outcome:
    queue, count = turn.queue(operation.queue), operation.count
    if queue is None:
        return Refused(QUEUE_NOT_FOUND)
    if not is_whole(item.block, count):
        return Refused(MALFORMED)
    rows, limit = table(item.block, count), queue.settings.body_bytes_max
    if max(rows[0::3]) > limit:
        return Refused(BODY_TOO_LARGE, limit, next(p for p, size in enumerate(rows[0::3]) if size > limit))
    sizes = [body + properties for body, properties in zip(rows[0::3], rows[1::3], strict=True)]
    packed = struct.pack(f"<{count}I", *sizes)
    message_id = queue.next_id
    queue.next_id += count
    queue.bytes += sum(sizes)
    tail_id = turn.tails.get(queue.number)
    tail = None if tail_id is None else turn.known_chunk(queue.number, tail_id)
    if tail_id is not None and tail is not None and tail.count + count <= MERGED_MESSAGES_MAX:
        before = standing(tail.segments)
        tail.segments.append(Segment(message_id - tail_id, count))
        tail.blocks.append((item.offset, count))
        tail.sizes += packed
        turn.refile(queue, tail_id, tail, before)
    else:
        chunk = Chunk(turn.index, turn.now_ms, [(item.offset, count)], packed, [Segment(0, count)])
        turn.add_chunk(queue, message_id, chunk)
        if not queue.retention_due_ms:
            _schedule_retention(turn, queue)
    return Sent(message_id, count, turn.now_ms)


def _receive(turn: Turn, operation: Receive) -> Outcome:
    queue = turn.queue(operation.queue)
    if queue is None:
        return Refused(QUEUE_NOT_FOUND)
    until_ms = turn.now_ms + (operation.lease_ms or queue.settings.lease_ms)
    deliveries: list[Delivery] = []
    messages_left, bytes_left = operation.messages_max, min(RECEIVE_BYTES_MAX, turn.receive_bytes_left)
    while messages_left and bytes_left > 0:
        found = turn.state.first(records.ready_prefix(queue.number))
        if found is None:
            break
        chunk_id = records.read_u64(found[0][5:])
        chunk = turn.known_chunk(queue.number, chunk_id)
        before = standing(chunk.segments)
        for segment in [s for s in chunk.segments if not s.due_ms]:
            sizes = message_sizes(chunk, segment.first, min(segment.count, messages_left))
            count, taken_bytes = _fitting(sizes, bytes_left, at_least=0 if deliveries else 1)
            messages_left -= count
            bytes_left -= taken_bytes
            turn.receive_bytes_left -= taken_bytes
            for taken in isolate(chunk.segments, segment.first, segment.first + count):
                taken.attempts += 1
                taken.token, taken.due_ms = operation.token, until_ms
                deliveries.append(Delivery(chunk_id + taken.first, count, taken.attempts, chunk.sent_ms))
            if count < len(sizes):
                bytes_left = 0
            if not messages_left or bytes_left <= 0:
                break
        turn.refile(queue, chunk_id, chunk, before)
    return Received(operation.token, until_ms, deliveries)


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


def _settle(turn: Turn, operation: Ack | Nack | Extend) -> Outcome:
    """Ack, nack or extend: alike in what they may touch, messages still held under the claim's token."""
    queue = turn.queue(operation.queue)
    if queue is None:
        return Refused(QUEUE_NOT_FOUND)
    stale: list[int] = []
    for claim in operation.claims:
        for chunk_id, chunk, first, end in turn.chunks_between(queue, claim.message_id, claim.count):
            if chunk is None:
                stale.extend(range(first, end))
            else:
                stale.extend(_settle_chunk(turn, queue, operation, claim, chunk_id, chunk, first, end))
    return Settled(stale)


def _settle_chunk(
    turn: Turn,
    queue: Queue,
    operation: Ack | Nack | Extend,
    claim: Claim,
    chunk_id: int,
    chunk: Chunk,
    first: int,
    end: int,
) -> list[int]:
    """Settle messages `first` … `end - 1` of one chunk; return those not held under the claim's token."""
    before = standing(chunk.segments)
    stale: list[int] = []
    position = first
    for segment in isolate(chunk.segments, first - chunk_id, end - chunk_id):
        if not segment.token or segment.token != claim.token:
            continue
        stale.extend(range(position, chunk_id + segment.first))
        position = chunk_id + segment.first + segment.count
        match operation:
            case Ack():
                turn.drop(queue, chunk, segment)
            case Nack():
                _give_back(turn, queue, chunk, segment, operation.delay_ms)
            case Extend():
                segment.due_ms = turn.now_ms + operation.lease_ms
    stale.extend(range(position, end))
    turn.refile(queue, chunk_id, chunk, before)
    return stale


def _give_back(turn: Turn, queue: Queue, chunk: Chunk, segment: Segment, delay_ms: int) -> None:
    """Messages come back from a lease or a delay: ready, delayed, or gone if their retention is over by then."""
    segment.token = 0
    segment.due_ms = turn.now_ms + delay_ms if delay_ms else 0
    if not delay_ms and chunk.sent_ms + queue.settings.retention_ms <= turn.now_ms:
        turn.drop(queue, chunk, segment)


# --- time -------------------------------------------------------------------------------------------------------------


def _pulse(turn: Turn, steps_max: int) -> Outcome:
    """Do what is due. Every timer is removed by its step or leaves something done, so that pulses always end."""
    steps = 0
    while steps < steps_max:
        found = turn.state.first(records.TIMERS)
        if found is None:
            break
        due_ms, kind, subject = records.read_timer(found[0])
        if due_ms > turn.now_ms:
            break
        match kind:
            case records.TIMER_CHUNK:
                _end_holds(turn, due_ms, *records.read_chunk_subject(subject))
            case records.TIMER_RETENTION:
                steps += _sweep_retention(turn, subject.decode(), due_ms, steps_max - steps)
            case records.TIMER_GRAVE:
                steps += _clean_grave(turn, found[0], records.read_u32(subject), steps_max - steps)
            case records.TIMER_SESSION:
                turn.session_due(found[0], records.read_u64(subject))
            case records.TIMER_KEY:
                turn.state.delete(found[0])
                turn.state.delete(records.memory_key(subject))
                turn.shard.keys -= 1
            case _:
                raise AssertionError(f"a timer of unknown kind {kind!r}")
        steps += 1
    return Pulsed(steps)


def _end_holds(turn: Turn, due_ms: int, number: int, chunk_id: int) -> None:
    queue = turn.queue_by_number(number)
    if queue is None:  # purged meanwhile: its grave is still to be cleaned
        turn.state.delete(records.chunk_timer_key(due_ms, number, chunk_id))
        return
    chunk = turn.known_chunk(number, chunk_id)
    before = standing(chunk.segments)
    for segment in [s for s in chunk.segments if s.due_ms == due_ms]:
        _give_back(turn, queue, chunk, segment, 0)
    turn.refile(queue, chunk_id, chunk, before)


def _schedule_retention(turn: Turn, queue: Queue) -> None:
    """Set the timer for the oldest chunk not yet swept; none is needed while there is none."""
    _cancel_retention(turn, queue)
    found = turn.state.first(records.chunk_prefix(queue.number), records.u64(queue.swept_id))
    if found is not None:
        chunk = turn.known_chunk(queue.number, records.read_u64(found[0][5:]))
        queue.retention_due_ms = chunk.sent_ms + queue.settings.retention_ms
        turn.set_timer(queue.retention_due_ms, records.TIMER_RETENTION, queue.name.encode())


def _cancel_retention(turn: Turn, queue: Queue) -> None:
    if queue.retention_due_ms:
        turn.cancel_timer(queue.retention_due_ms, records.TIMER_RETENTION, queue.name.encode())
        queue.retention_due_ms = 0


def _sweep_retention(turn: Turn, name: str, due_ms: int, steps_max: int) -> int:
    """Drop what is ready in chunks older than the queue's retention, oldest first."""
    queue = turn.queue(name)
    assert queue is not None, "a retention timer belongs to a queue"
    assert queue.retention_due_ms == due_ms, "a queue has one retention timer"
    steps = 0
    while steps < steps_max:
        found = turn.state.first(records.chunk_prefix(queue.number), records.u64(queue.swept_id))
        if found is None:
            break
        chunk_id = records.read_u64(found[0][5:])
        chunk = turn.known_chunk(queue.number, chunk_id)
        if chunk.sent_ms + queue.settings.retention_ms > turn.now_ms:
            break
        before = standing(chunk.segments)
        for segment in [s for s in chunk.segments if not s.due_ms]:
            turn.drop(queue, chunk, segment)
        turn.refile(queue, chunk_id, chunk, before)
        queue.swept_id = chunk_id + 1
        steps += 1
    _schedule_retention(turn, queue)
    return steps


def _clean_grave(turn: Turn, timer: bytes, number: int, steps_max: int) -> int:
    """Remove the chunks of a purged or deleted queue."""
    for step in range(steps_max):
        found = turn.state.first(records.chunk_prefix(number))
        if found is None:
            turn.state.delete(timer)
            return step
        chunk_id = records.read_u64(found[0][5:])
        turn.remove_dead_chunk(number, chunk_id)
    return steps_max
