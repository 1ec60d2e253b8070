"""Sending: what a message must be, what a queue has room for, and what was sent before.

A send is looked at as a whole before anything is written: it happens with all its messages or not at all.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from hashlib import blake2b
from itertools import accumulate
from typing import NamedTuple

import msgspec

from storage import history, record_keys, records
from storage.block import lengths, parts_between
from storage.codes import (
    BODY_TOO_LARGE,
    DEDUP_ID_REQUIRED,
    GROUP_REQUIRED,
    MALFORMED,
    PRIORITY_NOT_ALLOWED,
    QUEUE_FULL,
    QUEUE_NOT_FOUND,
)
from storage.dead_letters import NO_EXTRAS, OVERFLOW, has_room, move_to_dead_letters, rank_of, taker
from storage.limits import GIVE_WAY_STEPS_MAX, MERGED_MESSAGES_MAX
from storage.operations import Outcome, Refused, Send, Sent, SentRun
from storage.options import Options, Run
from storage.parties import note_seen
from storage.records import Blocks, Chunk, Dedup, Extras, Queue, Segment
from storage.segments import isolate
from storage.turn import Turn, message_sizes

PLAIN = Options()


class Bodies(msgspec.Struct, frozen=True):
    """Where the messages of a send lie: their block, and its offset in the log entry."""

    block: memoryview
    offset: int


class Block(msgspec.Struct, frozen=True):
    """A block that is whole: its lengths, read once for all queues that get messages of it.

    body_bytes, sizes: of each message, without and with its properties. largest: the greatest of `body_bytes`.
    """

    bodies: Bodies
    body_bytes: tuple[int, ...]
    sizes: list[int]
    largest: int


class Lot(msgspec.Struct, frozen=True):
    """Messages of a block from position `first` on, and their options."""

    first: int
    count: int
    options: Options


class Source(NamedTuple):
    """The topic that messages come by, and the id there of the first message of their block."""

    topic: str
    message_id: int


class PlacedRun(msgspec.Struct, frozen=True):
    """Messages of a block from position `first` on have ids from `message_id` on, or had them already (`duplicate`)
    since `sent_ms`."""

    first: int
    count: int
    message_id: int
    duplicate: bool
    sent_ms: int


class Placing(msgspec.Struct, frozen=True):
    """What became of messages put into a queue: new ones have ids from `message_id` on."""

    message_id: int
    runs: list[PlacedRun]


class _Part(msgspec.Struct, frozen=True):
    """Messages of a send from position `first` on that share their options, and are new (`message_id` 0) or were sent
    before (the original's id, and when)."""

    first: int
    count: int
    options: Options
    dedup: bytes = b""
    message_id: int = 0
    sent_ms: int = 0


def send(turn: Turn, operation: Send, bodies: Bodies) -> Outcome:
    """Add messages."""
    queue, count = turn.queue(operation.queue), operation.count
    if queue is None:
        return Refused(QUEUE_NOT_FOUND)
    block = read_block(bodies, count)
    if block is None or sum(run.count for run in operation.runs) not in (0, count):
        return Refused(MALFORMED)
    lots = lots_of(operation.runs) if operation.runs else [Lot(0, count, PLAIN)]
    placed = place(turn, queue, lots, block)
    if isinstance(placed, Refused):
        return placed
    sent = queue.next_id - placed.message_id
    if sent == count:
        return Sent(placed.message_id, count, turn.now_ms)
    runs = [SentRun(run.message_id, run.count, run.duplicate, run.sent_ms) for run in placed.runs]
    return Sent(placed.message_id, sent, turn.now_ms, runs)


def read_block(bodies: Bodies, total: int) -> Block | None:
    """Read a block of `total` messages; None if it is not exactly that."""
    found = lengths(bodies.block, total)
    return None if found is None else Block(bodies, *found, max(found[0]))


def lots_of(runs: list[Run]) -> list[Lot]:
    """Where the messages of each run lie."""
    ends = accumulate(run.count for run in runs)
    return [Lot(end - run.count, run.count, run.options) for run, end in zip(runs, ends, strict=True)]


def place(turn: Turn, queue: Queue, lots: list[Lot], block: Block, source: Source | None = None) -> Placing | Refused:
    """Put lots of a block into a queue: all of them, or none."""
    settings = queue.settings
    if block.largest > settings.body_bytes_max:
        for lot in lots:
            for position in range(lot.first, lot.first + lot.count):
                if block.body_bytes[position] > settings.body_bytes_max:
                    return Refused(BODY_TOO_LARGE, settings.body_bytes_max, position)
    is_plain = settings.takes_plain and len(lots) == 1 and lots[0].options is PLAIN
    if is_plain:
        parts = [_Part(lots[0].first, lots[0].count, PLAIN)]
    else:
        refused = _refusal(queue, lots)
        if refused is not None:
            return refused
        parts = list(_known(turn, queue, lots, block))
    refused = _make_room(turn, queue, parts, block.sizes)
    if refused is not None:
        return refused
    if not is_plain:
        for producer in {lot.options.producer: None for lot in lots if lot.options.producer}:
            note_seen(turn, "producer", producer)
    return _add(turn, queue, parts, block, source)


def _refusal(queue: Queue, lots: list[Lot]) -> Refused | None:
    settings = queue.settings
    for lot in lots:
        if settings.fifo and not lot.options.group:
            return Refused(GROUP_REQUIRED, 0, lot.first)
        if settings.dedup_by == "required_id" and not lot.options.dedup_id:
            return Refused(DEDUP_ID_REQUIRED, 0, lot.first)
        if lot.options.priority and settings.groups:
            return Refused(PRIORITY_NOT_ALLOWED, 0, lot.first)
    return None


# --- what was sent before ---------------------------------------------------------------------------------------------


def _known(turn: Turn, queue: Queue, lots: list[Lot], block: Block) -> Iterable[_Part]:
    """Cut lots into parts. A message with a dedup id is a part of its own."""
    settings = queue.settings
    fresh: dict[bytes, int] = {}
    for lot in lots:
        first, end, options = lot.first, lot.first + lot.count, lot.options
        by_content = settings.dedup_by == "content" and not options.dedup_id
        if not settings.dedup_window_ms or not (options.dedup_id or by_content):
            alone = 1 if options.key else lot.count
            for position in range(first, end, alone):
                yield _Part(position, alone, options)
            continue
        for position in range(first, end):
            dedup = _dedup_id(queue, options, block, position)
            if dedup in fresh:
                yield _Part(position, 1, options, dedup, -1 - fresh[dedup], turn.now_ms)
                continue
            found = turn.state.get(record_keys.dedup_key(queue.number, dedup))
            known = None if found is None else records.decode_dedup(found)
            if known is not None and known.until_ms > turn.now_ms:
                sent_ms = known.until_ms - settings.dedup_window_ms
                yield _Part(position, 1, options, dedup, known.message_id, sent_ms)
            else:
                fresh[dedup] = position
                yield _Part(position, 1, options, dedup)


def _dedup_id(queue: Queue, options: Options, block: Block, position: int) -> bytes:
    scope = options.group.encode() if queue.settings.dedup_scope == "group" else b""
    hashed = blake2b(bytes((len(scope), bool(options.dedup_id))) + scope, digest_size=16)
    if options.dedup_id:
        hashed.update(options.dedup_id.encode())
    else:
        (part,) = parts_between(block.bodies.block, len(block.sizes), position, position + 1)
        hashed.update(part.body)
    return hashed.digest()


def _remember(turn: Turn, queue: Queue, dedup: bytes, message_id: int) -> None:
    """Remember a dedup id; beyond `dedup_max` the oldest is forgotten."""
    until_ms = turn.now_ms + queue.settings.dedup_window_ms
    key = record_keys.dedup_key(queue.number, dedup)
    found = turn.state.get(key)
    if found is not None:  # out of its window, but not yet forgotten
        _forget(turn, queue, records.decode_dedup(found), dedup)
    while queue.dedups >= queue.settings.dedup_max:
        oldest = turn.state.first(record_keys.dedup_age_prefix(queue.number))
        assert oldest is not None, "what is counted is there"
        _forget(turn, queue, *record_keys.read_dedup_age(oldest[0]))
    known = Dedup(message_id, until_ms)
    turn.state.put(key, records.encode(known))
    turn.state.put(record_keys.dedup_age_key(queue.number, known, dedup), record_keys.PRESENT)
    queue.dedups += 1
    if not queue.dedup_due_ms:
        queue.dedup_due_ms = until_ms
        turn.set_timer(until_ms, record_keys.TIMER_DEDUP, record_keys.u32(queue.number))


def _forget(turn: Turn, queue: Queue, known: Dedup, dedup: bytes) -> None:
    turn.state.delete(record_keys.dedup_key(queue.number, dedup))
    turn.state.delete(record_keys.dedup_age_key(queue.number, known, dedup))
    queue.dedups -= 1


def dedups_due(turn: Turn, number: int, steps_max: int) -> int:
    """Forget dedup ids that are out of their window. Returns the steps done."""
    queue = turn.queue_by_number(number)
    if queue is None:
        return 0
    queue.dedup_due_ms = 0
    for step in range(steps_max + 1):
        oldest = turn.state.first(record_keys.dedup_age_prefix(number))
        if oldest is None:
            return step
        known, dedup = record_keys.read_dedup_age(oldest[0])
        if known.until_ms > turn.now_ms or step == steps_max:
            queue.dedup_due_ms = known.until_ms
            turn.set_timer(known.until_ms, record_keys.TIMER_DEDUP, record_keys.u32(number))
            return step
        _forget(turn, queue, known, dedup)
    return steps_max


# --- what there is room for -------------------------------------------------------------------------------------------


def _make_room(turn: Turn, queue: Queue, parts: list[_Part], sizes: list[int]) -> Refused | None:
    settings = queue.settings
    if not (settings.messages_max or settings.bytes_max):
        return None
    new = [part for part in parts if not part.message_id]
    count = sum(part.count for part in new)
    size = sum(sum(sizes[part.first : part.first + part.count]) for part in new)
    for limit, more, what in (
        (settings.messages_max, count, "messages_max"),
        (settings.bytes_max, size, "bytes_max"),
    ):
        if limit and more > limit:
            return Refused(QUEUE_FULL, limit, detail=what)
    if has_room(queue, count, size):
        return None
    leaving = None if settings.overflow == "reject" else _give_way(turn, queue, count, size)
    if leaving is None:
        over = settings.messages_max and queue.messages + count > settings.messages_max
        what, limit = ("messages_max", settings.messages_max) if over else ("bytes_max", settings.bytes_max)
        return Refused(QUEUE_FULL, limit, detail=what)
    for chunk_id, first, end in leaving:
        _leave(turn, queue, chunk_id, first, end)
    return None


def _give_way(turn: Turn, queue: Queue, count: int, size: int) -> list[tuple[int, int, int]] | None:
    """The oldest ready messages that must go for so much more, as (chunk, first, end); None if they are not enough."""
    settings = queue.settings
    excess = queue.messages + count - settings.messages_max if settings.messages_max else 0
    excess_bytes = queue.bytes + size - settings.bytes_max if settings.bytes_max else 0
    leaving: list[tuple[int, int, int]] = []
    left, left_bytes, start = 0, 0, 0
    for _ in range(GIVE_WAY_STEPS_MAX):
        found = turn.state.first(record_keys.chunk_prefix(queue.number), record_keys.u64(start))
        if found is None:
            return None
        chunk_id = record_keys.read_u64(found[0][5:])
        chunk = turn.known_chunk(queue.number, chunk_id)
        for segment in [s for s in chunk.segments if not s.due_ms]:
            sizes = message_sizes(chunk, segment.first, segment.count)
            taken = 0
            while taken < segment.count and (left < excess or left_bytes < excess_bytes):
                left += 1
                left_bytes += sizes[taken]
                taken += 1
            if taken:
                leaving.append((chunk_id, segment.first, segment.first + taken))
        if left >= excess and left_bytes >= excess_bytes:
            can = settings.overflow == "drop_oldest" or taker(turn, queue, left, left_bytes) is not None
            return leaving if can else None
        start = chunk_id + 1
    return None


def _leave(turn: Turn, queue: Queue, chunk_id: int, first: int, end: int) -> None:
    chunk = turn.known_chunk(queue.number, chunk_id)
    for segment in isolate(chunk.segments, first, end):
        if queue.settings.overflow == "drop_oldest":
            history.note(turn, queue, chunk_id, segment.first, segment.count, history.DROPPED)
            turn.drop(queue, chunk, segment)
        else:
            moved = move_to_dead_letters(turn, queue, chunk_id, chunk, segment, OVERFLOW)
            assert moved, "the dead-letter queue was asked before"
    turn.refile(queue, chunk_id, chunk)


# --- what is written --------------------------------------------------------------------------------------------------


def _add(turn: Turn, queue: Queue, parts: list[_Part], block: Block, source: Source | None) -> Placing:
    start = queue.next_id
    ids: dict[int, int] = {}
    runs: list[PlacedRun] = []
    for part in parts:
        first, count, message_id = part.first, part.count, part.message_id
        duplicate = message_id != 0
        if message_id < 0:  # of the same send
            message_id = ids[-1 - message_id]
        elif not message_id:
            message_id = queue.next_id
            ids[first] = message_id
            sizes = block.sizes if count == len(block.sizes) else block.sizes[first : first + count]
            blocks = Blocks(block.bodies.offset, len(block.sizes), first, count)
            _add_part(turn, queue, part, struct.pack(f"<{count}I", *sizes), blocks, source)
            queue.bytes += sum(sizes)
            if part.dedup:
                _remember(turn, queue, part.dedup, message_id)
        runs.append(PlacedRun(first, count, message_id, duplicate, part.sent_ms or turn.now_ms))
    return Placing(start, runs)


def _add_part(turn: Turn, queue: Queue, part: _Part, sizes: bytes, blocks: Blocks, source: Source | None) -> None:
    message_id, count = queue.next_id, part.count
    queue.next_id += count
    due_ms = _due_ms(queue, part.options, turn.now_ms)
    extras = _extras(queue, part, turn.now_ms, due_ms, source)
    tail_id = turn.tails.get(queue.number) if extras is None else None
    tail = None if tail_id is None else turn.known_chunk(queue.number, tail_id)
    if tail_id is not None and tail is not None and tail.count + count <= MERGED_MESSAGES_MAX:
        _extend(tail.segments, message_id - tail_id, count)
        tail.blocks.append(blocks)
        tail.sizes += sizes
        turn.refile(queue, tail_id, tail)
        return
    rank = rank_of(queue.settings, part.options.priority, turn.now_ms)
    segment = Segment(0, count, due_ms=due_ms)
    turn.add_chunk(queue, message_id, Chunk(turn.index, turn.now_ms, [blocks], sizes, [segment], rank, extras))
    if extras is None:
        turn.tails[queue.number] = message_id
    if not queue.retention_due_ms:
        turn.schedule_retention(queue)


def _extend(segments: list[Segment], first: int, count: int) -> None:
    """Add ready messages behind a chunk's last ones; to these, if they stand alike."""
    last = segments[-1]
    if last == Segment(first - last.count, last.count):
        last.count += count
    else:
        segments.append(Segment(first, count))


def _due_ms(queue: Queue, options: Options, now_ms: int) -> int:
    """When a message is first delivered, 0 for now."""
    if options.at_ms:
        return options.at_ms if options.at_ms > now_ms else 0
    delay_ms = queue.settings.delay_ms if options.delay_ms < 0 else options.delay_ms
    return now_ms + delay_ms if delay_ms else 0


def _extras(queue: Queue, part: _Part, now_ms: int, due_ms: int, source: Source | None) -> Extras | None:
    """What the messages have that is not default. What is delayed is kept for as long as others, from its time on."""
    options = part.options
    if options is PLAIN and not due_ms and source is None:
        return None
    expires_ms = 0
    if options.ttl_ms or due_ms:
        expires_ms = (due_ms or now_ms) + (options.ttl_ms or queue.settings.retention_ms)
    extras = Extras(
        group=options.group,
        grouped=queue.settings.groups and bool(options.group),
        priority=options.priority,
        key=options.key,
        dedup_id=options.dedup_id,
        expires_ms=expires_ms,
        schedule=options.schedule,
        occurrence_ms=options.occurrence_ms,
        producer=options.producer,
        topic="" if source is None else source.topic,
        publish_id=0 if source is None else source.message_id + part.first,
    )
    return None if extras == NO_EXTRAS else extras
