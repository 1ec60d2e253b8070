"""What can be read of the state without changing it. Everything here sees exactly what has been applied."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from storage import records
from storage.block import Part, join, parts_between
from storage.limits import BATCH_MESSAGES_MAX, ID_END, RECEIVE_BYTES_MAX
from storage.machine import MALFORMED, QUEUE_NOT_FOUND
from storage.operations import (
    Browse,
    Delivery,
    GetQueue,
    Listed,
    ListQueues,
    Outcome,
    Page,
    Query,
    QueueInfo,
    QueueList,
    Received,
    Refused,
)
from storage.records import Chunk, Queue, Segment
from storage.state import State
from storage.turn import message_sizes


def answer(state: State, query: Query) -> tuple[Outcome, bytes]:
    """The outcome of a query, and the block of bodies that belongs to it."""
    match query:
        case GetQueue():
            queue = find_queue(state, query.queue)
            return (Refused(QUEUE_NOT_FOUND) if queue is None else _info(queue)), b""
        case ListQueues():
            return _list_queues(state, query), b""
        case Browse():
            if not (0 <= query.after < ID_END and 0 < query.limit <= BATCH_MESSAGES_MAX):
                return Refused(MALFORMED), b""
            return _browse(state, query)


def find_queue(state: State, name: str) -> Queue | None:
    """The record of the queue called `name`, or None."""
    number = state.get(records.name_key(name))
    if number is None:
        return None
    record = state.get(b"n" + number)
    assert record is not None, "a named queue has a record"
    return records.decode_queue(record)


def next_due_ms(state: State) -> int | None:
    """When the earliest timer is due (cluster time), or None if there is none."""
    found = state.first(records.TIMERS)
    return None if found is None else records.read_timer(found[0])[0]


def clock_ms(state: State) -> int:
    """The cluster time of the last applied entry."""
    found = state.get(records.SHARD_KEY)
    return 0 if found is None else records.decode_shard(found).clock_ms


def received(state: State, name: str, outcome: Received) -> tuple[Received, bytes]:
    """A receive's deliveries with their bodies; those no longer held under its token are left out.

    They all are held right after the receive; a retried receive finds them as they are now.
    """
    queue = find_queue(state, name)
    if queue is None:
        return Received(outcome.token, outcome.until_ms, []), b""
    deliveries: list[Delivery] = []
    chosen: list[Part] = []
    for delivery in outcome.deliveries:
        found = _chunk_of(state, queue, delivery.message_id)
        if found is None:
            continue
        chunk_id, chunk = found
        first = delivery.message_id - chunk_id
        for segment in chunk.segments:
            begin = max(first, segment.first)
            end = min(first + delivery.count, segment.first + segment.count)
            if segment.token == outcome.token and begin < end:
                deliveries.append(Delivery(chunk_id + begin, end - begin, segment.attempts, chunk.sent_ms))
                chosen.extend(bodies(state, chunk, begin, end))
    return Received(outcome.token, outcome.until_ms, deliveries), join(chosen)


def bodies(state: State, chunk: Chunk, first: int, end: int) -> Iterator[Part]:
    """The messages at positions `first` … `end - 1` of a chunk, sliced from the log and checked."""
    entry = state.entry(chunk.index)
    base = 0
    for offset, count in chunk.blocks:
        begin, stop = max(first - base, 0), min(end - base, count)
        if begin < stop:
            yield from parts_between(entry, count, begin, stop, offset)
        base += count


def digest(state: State) -> str:
    """A digest of the whole queue state: equal on all replicas at the same applied index."""
    hashed = hashlib.blake2b(digest_size=16)
    for key, value in state.scan(b""):
        hashed.update(records.u32(len(key)) + key + records.u32(len(value)) + value)
    return hashed.hexdigest()


def _info(queue: Queue) -> QueueInfo:
    return QueueInfo(
        queue.name,
        queue.settings,
        queue.created_ms,
        queue.ready,
        queue.leased,
        queue.delayed,
        queue.bytes,
    )


def _list_queues(state: State, query: ListQueues) -> QueueList:
    queues: list[QueueInfo] = []
    for key, number in state.scan(records.QUEUE_NAMES, query.after.encode()):
        if key[1:].decode() == query.after:
            continue
        if len(queues) >= query.limit:
            break
        record = state.get(b"n" + number)
        assert record is not None, "a named queue has a record"
        queues.append(_info(records.decode_queue(record)))
    return QueueList(queues)


def _browse(state: State, query: Browse) -> tuple[Outcome, bytes]:
    queue = find_queue(state, query.queue)
    if queue is None:
        return Refused(QUEUE_NOT_FOUND), b""
    listed: list[Listed] = []
    chosen: list[Part] = []
    bytes_left = RECEIVE_BYTES_MAX
    for chunk_id, chunk, segment in _segments_after(state, queue, query.after):
        first = max(segment.first, query.after + 1 - chunk_id)
        end = min(segment.first + segment.count, first + query.limit - len(listed))
        sizes = message_sizes(chunk, first, end - first)
        while first < end and sum(sizes[: end - first]) > bytes_left and (listed or end - first > 1):
            end -= 1
        bytes_left -= sum(sizes[: end - first])
        for position in range(first, end):
            listed.append(
                Listed(chunk_id + position, _state_of(segment), segment.attempts, chunk.sent_ms, segment.due_ms)
            )
        chosen.extend(bodies(state, chunk, first, end))
        if len(listed) >= query.limit or bytes_left <= 0 or end < segment.first + segment.count:
            break
    return Page(listed), join(chosen)


def _segments_after(state: State, queue: Queue, after: int) -> Iterator[tuple[int, Chunk, Segment]]:
    """The segments that hold messages with ids above `after`, in order of id, each with its chunk."""
    prefix = records.chunk_prefix(queue.number)
    found = _chunk_of(state, queue, after + 1)
    start = found[0] if found is not None else after + 1
    for key, record in state.scan(prefix, records.u64(start)):
        chunk_id, chunk = records.read_u64(key[5:]), records.decode_chunk(record)
        for segment in chunk.segments:
            if chunk_id + segment.first + segment.count > after + 1:
                yield chunk_id, chunk, segment


def _chunk_of(state: State, queue: Queue, message_id: int) -> tuple[int, Chunk] | None:
    """The chunk in which `message_id` lies, with its name, or None."""
    found = state.floor(records.chunk_prefix(queue.number), records.u64(message_id))
    if found is None:
        return None
    chunk_id, chunk = records.read_u64(found[0][5:]), records.decode_chunk(found[1])
    return (chunk_id, chunk) if message_id < chunk_id + chunk.count else None


def _state_of(segment: Segment) -> str:
    if segment.token:
        return "leased"
    return "delayed" if segment.due_ms else "ready"


def is_remembered(state: State, session: int, seq: int) -> bool:
    """Whether an operation of a session took effect and is remembered."""
    found = state.get(records.session_key(session))
    if found is None or seq > records.decode_session(found).top:
        return False
    run = state.floor(records.run_prefix(session), records.u64(seq))
    return run is not None and seq < records.read_u64(run[0][9:]) + len(records.decode_run(run[1]))


def is_key_remembered(state: State, key: bytes) -> bool:
    """Whether an operation under this idempotency key took effect and is remembered."""
    return state.get(records.memory_key(key)) is not None
