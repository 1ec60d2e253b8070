"""Blocks: how the messages of one send lie in the log, so that a receive can slice them out without decoding.

    block = table | data
    table = (body_bytes u32, properties_bytes u32, crc u32) for each message
    data  = (body | properties) for each message

`properties` is an opaque msgpack map made and read by the gateway (attributes, whether the body is text); empty for a
plain text body. `crc` is the CRC-32 of body and properties, made where the message enters the cluster and checked
whenever it is read from disk.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from itertools import accumulate
from operator import add
from typing import NamedTuple

ROW_BYTES = 12
_tables: dict[int, struct.Struct] = {}


class BadChecksumError(Exception):
    """A message's bytes are not what was sent: the disk or the wire changed them."""


class Part(NamedTuple):
    """One message inside a block: its raw bytes and the length of the body in front of its properties."""

    data: memoryview
    body_bytes: int

    @property
    def body(self) -> memoryview:
        """The body."""
        return self.data[: self.body_bytes]

    @property
    def properties(self) -> memoryview:
        """The encoded properties, empty for none."""
        return self.data[self.body_bytes :]


def _table(count: int) -> struct.Struct:
    found = _tables.get(count)
    if found is None:
        found = _tables[count] = struct.Struct(f"<{3 * count}I")
    return found


def encode_block(messages: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A block of (body, properties) pairs."""
    rows: list[int] = []
    data: list[bytes] = []
    for body, properties in messages:
        rows += (len(body), len(properties), zlib.crc32(properties, zlib.crc32(body)))
        data += (body, properties)
    return b"".join((_table(len(rows) // 3).pack(*rows), *data))


def table(block: bytes | memoryview, count: int, offset: int = 0) -> tuple[int, ...]:
    """The table of a block of `count` messages: three numbers a message. Raises `struct.error` when cut short."""
    return _table(count).unpack_from(block, offset)


def lengths(block: bytes | memoryview, count: int) -> tuple[tuple[int, ...], list[int]] | None:
    """Bytes of each body, and of each message with its properties, of what is exactly a block of `count` messages by
    its lengths; None of what is not."""
    if count < 1 or len(block) < ROW_BYTES * count:
        return None
    rows = table(block, count)
    bodies = rows[0::3]
    sizes = list(map(add, bodies, rows[1::3]))
    return (bodies, sizes) if len(block) == ROW_BYTES * count + sum(sizes) else None


def is_whole(block: bytes | memoryview, count: int) -> bool:
    """Whether `block` is exactly a block of `count` messages, by its lengths."""
    return lengths(block, count) is not None


def parts(block: bytes | memoryview, count: int, offset: int = 0) -> Iterator[Part]:
    """The messages of the block at `offset`, checked. Raises `BadChecksumError`."""
    return parts_between(block, count, 0, count, offset)


def parts_between(block: bytes | memoryview, count: int, first: int, last: int, offset: int = 0) -> Iterator[Part]:
    """Messages `first` … `last - 1` of the block of `count` at `offset`, checked. Raises `BadChecksumError`."""
    view = memoryview(block)
    rows = table(view, count, offset)
    ends = list(accumulate(body + properties for body, properties in zip(rows[0::3], rows[1::3], strict=True)))
    start = offset + ROW_BYTES * count
    for position in range(first, last):
        begin = start + (ends[position - 1] if position else 0)
        data = view[begin : start + ends[position]]
        if zlib.crc32(data) != rows[3 * position + 2]:
            raise BadChecksumError(f"message {position} of a block of {count} does not match its checksum")
        yield Part(data, rows[3 * position])


def join(chosen: Iterable[Part]) -> bytes:
    """A new block of the given messages; their bytes are copied once."""
    rows: list[int] = []
    data: list[memoryview] = []
    for part in chosen:
        rows += (part.body_bytes, len(part.data) - part.body_bytes, zlib.crc32(part.data))
        data.append(part.data)
    return b"".join((_table(len(rows) // 3).pack(*rows), *data))
