"""Sweeps: the state read again as of one commit, beside the ticks, every checksum checked, and its digest.

Two replicas that have applied the same entries have the same state, byte for byte, so their digests are the same. The
digest covers every record, and of every log entry that holds a live message its term and checksum: so also the bodies.

    digest = BLAKE2b-128 of (key_bytes u32 | value_bytes u32 | key | value) for each record in order of key
    value  = the record's; of a record `e INDEX` (`storage.records`) followed by the seal of the entry INDEX
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from typing import NamedTuple

from storage.beside import Pause

SWEEP_BYTES_PER_S = 64 * 1024 * 1024
"""Pace of a sweep that somebody waits for: some seconds for a million messages, at a small part of one core."""

STEP_RECORDS = 200
"""Records read between two pauses: some 0.3 ms."""

STEP_BYTES = 256 * 1024
"""Bytes read between two pauses, if the records are large."""

_SIZES = struct.Struct("<II")


class Swept(NamedTuple):
    """What a sweep has read: `applied` is (index, term) of the last entry applied in what it saw."""

    applied: tuple[int, int]
    digest: bytes
    records: int
    bytes: int


def swept(records: Iterable[tuple[bytes, bytes]], applied: tuple[int, int], pause: Pause) -> Swept:
    """Digest records in order of key."""
    digest = hashlib.blake2b(digest_size=16)
    parts: list[bytes] = []
    total_records = total_bytes = step_bytes = 0
    for key, value in records:
        parts += (_SIZES.pack(len(key), len(value)), key, value)
        step_bytes += len(key) + len(value)
        if len(parts) >= 3 * STEP_RECORDS or step_bytes >= STEP_BYTES:
            digest.update(b"".join(parts))
            total_records, total_bytes = total_records + len(parts) // 3, total_bytes + step_bytes
            pause(step_bytes)
            parts, step_bytes = [], 0
    digest.update(b"".join(parts))
    return Swept(applied, digest.digest(), total_records + len(parts) // 3, total_bytes + step_bytes)
