"""Sweeps: what is stored is read again, beside the ticks, and every checksum checked; of the state there is a digest.

Two replicas that have applied the same entries have the same state, byte for byte, so their digests are the same. The
digest covers every record, and of every log entry that holds a live message its term and checksum: so also the bodies.

    digest = BLAKE2b-128 of (key_bytes u32 | value_bytes u32 | key | value) for each record in order of key
    value  = the record's; of a record `e INDEX` (`storage.records`) followed by the seal of the entry INDEX

A sweep of the state sees one commit, and until it has ended no page of that commit is used again. So a large state is
swept in spans, each as of another commit.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

from storage.beside import Pace, Pause

PROMPT = Pace(64 * 1024 * 1024, 0.5)
"""Pace of a sweep that somebody waits for: some seconds for a million messages."""

STEP_RECORDS = 200
"""Records read between two pauses: some 0.3 ms."""

STEP_BYTES = 256 * 1024
"""Bytes read between two pauses, if the records are large."""

_SIZES = struct.Struct("<II")


class Span(NamedTuple):
    """A part of the state: from the key `start` on, at most so many records, but at least one; 0 for all."""

    start: bytes
    records_max: int


WHOLE = Span(b"", 0)


class Swept(NamedTuple):
    """What was read: `applied` is (index, term) of the last entry applied in what a sweep of the state saw.

    `next_key` is where the next span begins, empty when there is nothing more.
    """

    applied: tuple[int, int]
    digest: bytes
    next_key: bytes
    records: int
    bytes: int


def swept(records: Iterable[tuple[bytes, bytes]], span: Span, applied: tuple[int, int], pause: Pause) -> Swept:
    """Digest `span`, given its records and those that follow it, in order of key."""
    found = iter(records)
    digest = hashlib.blake2b(digest_size=16)
    parts: list[bytes] = []
    total_records = total_bytes = step_bytes = 0
    for key, value in islice(found, span.records_max or None):
        parts += (_SIZES.pack(len(key), len(value)), key, value)
        step_bytes += len(key) + len(value)
        if len(parts) >= 3 * STEP_RECORDS or step_bytes >= STEP_BYTES:
            digest.update(b"".join(parts))
            total_records, total_bytes = total_records + len(parts) // 3, total_bytes + step_bytes
            pause(step_bytes)
            parts, step_bytes = [], 0
    digest.update(b"".join(parts))
    next_key = next((key for key, _ in found), b"") if span.records_max else b""
    return Swept(applied, digest.digest(), next_key, total_records + len(parts) // 3, total_bytes + step_bytes)
