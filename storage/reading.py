"""What every reader of the state needs: queues by name, chunks and segments by message, bodies out of the log."""

from __future__ import annotations

from collections.abc import Iterator

from storage import record_keys, records
from storage.block import Part, parts_between
from storage.records import Chunk, Queue, Segment
from storage.segments import slice_blocks
from storage.state import State


def find_queue(state: State, name: str) -> Queue | None:
    """The record of the queue called `name`, or None."""
    number = state.get(record_keys.name_key(name))
    if number is None:
        return None
    record = state.get(b"n" + number)
    assert record is not None, "a named queue has a record"
    return records.decode_queue(record)


def chunk_of(state: State, queue: Queue, message_id: int) -> tuple[int, Chunk] | None:
    """The chunk in which `message_id` lies, with its name, or None."""
    found = state.floor(record_keys.chunk_prefix(queue.number), record_keys.u64(message_id))
    if found is None:
        return None
    chunk_id, chunk = record_keys.read_u64(found[0][5:]), records.decode_chunk(found[1])
    return (chunk_id, chunk) if message_id < chunk_id + chunk.count else None


def segments_after(state: State, queue: Queue, after: int) -> Iterator[tuple[int, Chunk, Segment]]:
    """The segments that hold messages with ids above `after`, in order of id, each with its chunk."""
    prefix = record_keys.chunk_prefix(queue.number)
    found = chunk_of(state, queue, after + 1)
    start = found[0] if found is not None else after + 1
    for key, record in state.scan(prefix, record_keys.u64(start)):
        chunk_id, chunk = record_keys.read_u64(key[5:]), records.decode_chunk(record)
        for segment in chunk.segments:
            if chunk_id + segment.first + segment.count > after + 1:
                yield chunk_id, chunk, segment


def bodies(state: State, chunk: Chunk, first: int, end: int) -> Iterator[Part]:
    """The messages at positions `first` … `end - 1` of a chunk, sliced from the log and checked."""
    entry = state.entry(chunk.index)
    properties = None if chunk.extras is None else chunk.extras.properties
    for block in slice_blocks(chunk.blocks, first, end - first):
        found = parts_between(entry, block.total, block.first, block.first + block.count, block.offset)
        if properties is None:
            yield from found
        else:  # they take the place of the message's own
            for part in found:
                yield Part(memoryview(bytes(part.body) + properties), part.body_bytes)
