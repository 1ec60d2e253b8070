"""A message is a resource: one message, by its id, is changed or forgotten in whatever state it is."""

from __future__ import annotations

import struct

import msgspec

from storage import history
from storage.block import table
from storage.codes import MESSAGE_LEASED, MESSAGE_NOT_FOUND, PRIORITY_NOT_ALLOWED, QUEUE_NOT_FOUND
from storage.dead_letters import NO_EXTRAS, rank_of
from storage.message_operations import CancelMessage, ChangeMessage
from storage.operations import Done, Outcome, Refused
from storage.records import Chunk, Queue, Segment
from storage.segments import isolate, slice_blocks
from storage.sifting import cut as cut_selected
from storage.turn import Turn


def find_message(turn: Turn, queue: Queue, message_id: int) -> tuple[int, Chunk, Segment] | None:
    """The chunk in which a message stands, with its name, and its segment; None if it is gone."""
    for chunk_id, chunk, _, _ in turn.chunks_between(queue, message_id, 1):
        if chunk is not None:
            for segment in chunk.segments:
                if segment.first <= message_id - chunk_id < segment.first + segment.count:
                    return chunk_id, chunk, segment
    return None


def cancel_message(turn: Turn, operation: CancelMessage) -> Outcome:
    """Forget one message."""
    queue = turn.queue(operation.queue)
    if queue is None:
        return Refused(QUEUE_NOT_FOUND)
    found = find_message(turn, queue, operation.message_id)
    if found is None:
        return Refused(MESSAGE_NOT_FOUND)
    chunk_id, chunk, _ = found
    position = operation.message_id - chunk_id
    history.note(turn, queue, chunk_id, position, 1, history.CANCELLED)
    for segment in isolate(chunk.segments, position, position + 1):
        turn.drop(queue, chunk, segment)
    turn.refile(queue, chunk_id, chunk)
    return Done()


def change_message(turn: Turn, operation: ChangeMessage) -> Outcome:
    """Change what a message that nobody holds waits for, and what it carries. It gets a chunk of its own."""
    queue, message_id = turn.queue(operation.queue), operation.message_id
    if queue is None:
        return Refused(QUEUE_NOT_FOUND)
    if operation.priority > 0 and queue.settings.groups:
        return Refused(PRIORITY_NOT_ALLOWED)
    found = find_message(turn, queue, message_id)
    if found is None:
        return Refused(MESSAGE_NOT_FOUND)
    chunk_id, chunk, segment = found
    if segment.token:
        return Refused(MESSAGE_LEASED)
    pieces = _cut(chunk, message_id - chunk_id)
    unsifted = turn.unsifted_since(queue, chunk_id)
    turn.hold_entry(chunk.index)
    turn.take_out_chunk(queue, chunk_id, chunk)
    for first, piece in pieces:
        since: int | None = unsifted
        if chunk_id + first == message_id:
            _change(turn, queue, operation, piece)
            if operation.properties is not None:
                piece.selected, since = None, None
        turn.add_chunk(queue, chunk_id + first, piece, since)
    turn.let_go_of_entry(chunk.index)
    history.cut(turn, queue, chunk_id, [(first, piece.count) for first, piece in pieces])
    history.note(turn, queue, message_id, 0, 1, history.CHANGED)
    return Done()


def _cut(chunk: Chunk, position: int) -> list[tuple[int, Chunk]]:
    """The chunk cut up so that the message at `position` is alone: pieces with where they began."""
    isolate(chunk.segments, position, position + 1)
    pieces = []
    for first, end in ((0, position), (position, position + 1), (position + 1, chunk.count)):
        inside = [msgspec.structs.replace(s, first=s.first - first) for s in chunk.segments if first <= s.first < end]
        if not inside:
            continue
        for segment in inside:
            if segment.dead is not None:
                segment.dead = segment.dead.behind(first)
        blocks, sizes = slice_blocks(chunk.blocks, first, end - first), chunk.sizes[4 * first : 4 * end]
        extras = chunk.extras
        if extras is not None and extras.topic and first:
            extras = msgspec.structs.replace(extras, publish_id=extras.publish_id + first)
        selected = cut_selected(chunk.selected, first, end - first)
        pieces.append((first, Chunk(chunk.index, chunk.sent_ms, blocks, sizes, inside, chunk.rank, extras, selected)))
    return pieces


def _change(turn: Turn, queue: Queue, operation: ChangeMessage, chunk: Chunk) -> None:
    """Change the only message of a chunk that is in no queue at the moment."""
    (segment,) = chunk.segments
    extras = chunk.extras or NO_EXTRAS
    is_moved_in_time = operation.at_ms >= 0 or operation.delay_ms >= 0
    if is_moved_in_time:
        due_ms = operation.at_ms if operation.at_ms >= 0 else turn.now_ms + operation.delay_ms
        segment.due_ms = due_ms if due_ms > turn.now_ms else 0
    if operation.ttl_ms >= 0 or (is_moved_in_time and segment.due_ms):
        start_ms = segment.due_ms if segment.due_ms > 0 else turn.now_ms
        kept_ms = operation.ttl_ms if operation.ttl_ms > 0 else queue.settings.retention_ms
        extras = msgspec.structs.replace(extras, expires_ms=start_ms + kept_ms)
    if operation.priority >= 0:
        extras = msgspec.structs.replace(extras, priority=operation.priority)
        chunk.rank = rank_of(queue.settings, operation.priority, chunk.sent_ms)
    if operation.properties is not None:
        extras = msgspec.structs.replace(extras, properties=operation.properties)
        (old_size,) = struct.unpack("<I", chunk.sizes)
        new_size = _body_bytes(turn, chunk) + len(operation.properties)
        chunk.sizes = struct.pack("<I", new_size)
        queue.bytes += new_size - old_size
    chunk.extras = None if extras == NO_EXTRAS else extras


def _body_bytes(turn: Turn, chunk: Chunk) -> int:
    """Bytes of the body of a chunk of one message, as it lies in the log."""
    (block,) = chunk.blocks
    return table(turn.state.entry(chunk.index), block.total, block.offset)[3 * block.first]
