"""Format 2: messages have options, and queues have rules for them.

Records gain fields, all with defaults. A chunk's blocks name runs of messages within a block, no longer whole blocks;
a ready mark is filed under its rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from storage import record_keys, records
from storage.record_keys import PRESENT
from storage.records import RANK_DEFAULT, Blocks, Chunk, Segment
from storage.seals import seal, unseal

_BATCH = 10_000
"""Records held in memory at a time."""


class _OldChunk(msgspec.Struct, array_like=True):
    index: int
    sent_ms: int
    blocks: list[tuple[int, int]]
    sizes: bytes
    segments: list[Segment]


_decode_chunk = msgspec.msgpack.Decoder(_OldChunk).decode


def to_format_2(txn: Any, tables: Any) -> None:
    """Rewrite queues, chunks and ready marks of format 1."""
    for batch in _batches(txn, tables, b"n"):
        for key, value in batch:
            _put(txn, tables, key, records.encode(records.decode_queue(value)))
    for batch in _batches(txn, tables, b"r"):
        for key, _ in batch:
            number, chunk_id = record_keys.read_chunk_subject(key[1:])
            txn.delete(key, db=tables.state)
            _put(txn, tables, b"\xff" + record_keys.ready_key(number, RANK_DEFAULT, chunk_id), PRESENT)
    for batch in _batches(txn, tables, b"\xffr"):  # old and new marks must not be taken for one another on the way
        for key, value in batch:
            txn.delete(key, db=tables.state)
            _put(txn, tables, key[1:], value)
    for batch in _batches(txn, tables, b"c"):
        for key, value in batch:
            old = _decode_chunk(value)
            blocks = [Blocks(offset, count, 0, count) for offset, count in old.blocks]
            chunk = Chunk(old.index, old.sent_ms, blocks, old.sizes, old.segments)
            _put(txn, tables, key, records.encode(chunk))


def _put(txn: Any, tables: Any, key: bytes, value: bytes) -> None:
    txn.put(key, seal(key, value), db=tables.state)


def _batches(txn: Any, tables: Any, prefix: bytes) -> Iterator[list[tuple[bytes, bytes]]]:
    """The records whose keys begin with `prefix`, checked, some at a time; each batch may be changed meanwhile."""
    start = prefix
    while True:
        cursor, batch = txn.cursor(db=tables.state), list[tuple[bytes, bytes]]()
        found = cursor.set_range(start)
        while found and len(batch) < _BATCH and (key := bytes(cursor.key())).startswith(prefix):
            batch.append((key, unseal(key, cursor.value())))
            found = cursor.next()
        if not batch:
            return
        yield batch
        start = batch[-1][0] + b"\x00"
