"""The records and keys of selectors. `storage.records` has the map."""

from __future__ import annotations

import struct
from typing import Literal

import msgspec

from storage.record_keys import UNSIFTED, u32

_SELECTOR = struct.Struct(">II")
_CHUNK = struct.Struct(">IQ")
_RANK_CHUNK = struct.Struct(">QQ")


class Sieve(msgspec.Struct, array_like=True, frozen=True):
    """A selector's filter (JSON, see `storage.filters`), and what it looks at."""

    filter: str
    filter_on: Literal["attributes", "body"]


decode_sieve = msgspec.msgpack.Decoder(Sieve).decode


def digest_key(number: int, digest: bytes) -> bytes:
    """Key of the selector whose filter has this digest (16 bytes)."""
    return b"w" + u32(number) + digest


def sieve_key(number: int, selector: int) -> bytes:
    """Key of a selector's filter."""
    return b"x" + _SELECTOR.pack(number, selector)


def selected_prefix(number: int, selector: int) -> bytes:
    """What the keys of chunks that may be received from through a selector begin with."""
    return b"f" + _SELECTOR.pack(number, selector)


def selected_key(number: int, selector: int, rank: int, chunk_id: int) -> bytes:
    """Key that says that a chunk may be received from through a selector."""
    return b"f" + _SELECTOR.pack(number, selector) + _RANK_CHUNK.pack(rank, chunk_id)


def unsifted_prefix(number: int) -> bytes:
    """What the keys of a queue's chunks that are to be sifted begin with."""
    return UNSIFTED + u32(number)


def unsifted_key(number: int, chunk_id: int) -> bytes:
    """Key that says that a chunk is to be sifted; chunk 0: what was there before some selector is."""
    return UNSIFTED + _CHUNK.pack(number, chunk_id)


def selector_subject(number: int, selector: int) -> bytes:
    """How timers name a selector."""
    return _SELECTOR.pack(number, selector)


def read_selector_subject(subject: bytes) -> tuple[int, int]:
    """Queue number and selector in the subject of a selector's timer."""
    number, selector = _SELECTOR.unpack(subject)
    return number, selector
