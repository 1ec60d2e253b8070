"""Seals: how values lie on disk, so that what the disk changed is found when it is read.

    sealed value = crc32 u32 | value
    sealed entry = term u64 | crc32 u32 | payload

All little-endian. A checksum covers the key too (of an entry: its index and term), so that a value under the wrong key
is found as well.
"""

from __future__ import annotations

import struct
from zlib import crc32

from storage.record_keys import u64
from storage.state import DamageError

_CRC = struct.Struct("<I")
_ENTRY = struct.Struct("<QI")

ENTRY_SEAL_BYTES = _ENTRY.size
"""What stands before the payload of a sealed entry."""


def seal(key: bytes, value: bytes) -> bytes:
    """The value as it is stored under `key`."""
    return _CRC.pack(crc32(value, crc32(key))) + value


def unseal(key: bytes, sealed: memoryview) -> bytes:
    """The value stored under `key`, copied. Raises `DamageError` when it does not match its checksum."""
    value = bytes(sealed[4:])
    if len(sealed) < 4 or _CRC.unpack_from(sealed)[0] != crc32(value, crc32(key)):
        raise DamageError(f"the value of {key!r} does not match its checksum")
    return value


def seal_entry(index: int, term: int, payload: bytes) -> bytes:
    """The journal entry as it is stored under `index`."""
    return b"".join((_ENTRY.pack(term, _entry_crc(index, term, payload)), payload))


def unseal_entry(index: int, sealed: memoryview) -> tuple[int, memoryview]:
    """Term and payload of the entry stored under `index`. Raises `DamageError` when it does not match."""
    payload = sealed[_ENTRY.size :]
    if len(sealed) >= _ENTRY.size:
        term, crc = _ENTRY.unpack_from(sealed)
        if crc == _entry_crc(index, term, payload):
            return term, payload
    raise DamageError(f"journal entry {index} does not match its checksum")


def entry_seal(sealed: bytes | memoryview) -> bytes:
    """What stands before the payload: the entry's term and checksum."""
    return bytes(sealed[:ENTRY_SEAL_BYTES])


def _entry_crc(index: int, term: int, payload: bytes | memoryview) -> int:
    return crc32(payload, crc32(u64(index) + u64(term)))
