"""The two narrow doors to what a node remembers.

`State` is all that the rules may touch: an ordered map of small records, and the log entries in which bodies lie.
`Store` is all that a replica needs around them: the journal, the hard state, and one transaction over everything.
Two implementations exist, `storage.lmdb_store.LmdbStore` and its twin `storage.memory_store.MemoryStore`; one suite of
tests runs on both.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from storage.beside import Pace
from storage.sweeps import PROMPT, WHOLE, Span, Swept

KEY_BYTES_MAX = 400
"""Bytes of a key of the state: what LMDB takes, with room to spare."""

APPLIED_META = "applied"
"""Name of the meta value that says up to where the log was applied: the only one that travels with a copy."""

APPLIED = struct.Struct("<QQ")
"""That value: index and term of the last applied entry."""


class StorageFailure(Exception):
    """The store cannot be trusted any more: an I/O error, a full map, or, as `DamageError`, a bad checksum.

    LMDB succeeds again after a failed fdatasync, so going on after the first error would lose data silently.
    """


class DamageError(StorageFailure):
    """What is stored is not what was written: a bad checksum, a missing entry, a broken tree.

    The disk itself has not failed. The process may go on if it never uses this store as it is again.
    """


class CopyError(Exception):
    """A copy cannot be made or taken in now, for lack of room. The store itself is sound."""


class State(Protocol):
    """Queue state as the rules see it. Keys are at most 400 bytes; no value is empty by meaning."""

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, or None."""

    def put(self, key: bytes, value: bytes) -> None:
        """Set `key`."""

    def delete(self, key: bytes) -> None:
        """Forget `key`; fine if it is unknown."""

    def first(self, prefix: bytes, start: bytes = b"") -> tuple[bytes, bytes] | None:
        """The record with the smallest key ≥ `prefix + start` that begins with `prefix`."""

    def floor(self, prefix: bytes, end: bytes) -> tuple[bytes, bytes] | None:
        """The record with the greatest key ≤ `prefix + end` that begins with `prefix`."""

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """The records whose keys begin with `prefix`, from `prefix + start` on, in order. Do not write meanwhile."""

    def entry(self, index: int) -> memoryview:
        """The bytes of the log entry at `index`, which holds a live message. Valid until the next write.

        Raises `DamageError` when it is missing or its checksum is wrong.
        """

    def release(self, index: int) -> None:
        """Entry `index` holds no live message any more: its bytes may be dropped once replication can spare them."""


@dataclass(frozen=True, slots=True)
class Logged:
    """One entry of the journal."""

    index: int
    term: int
    payload: bytes


class Copy(Protocol):
    """A consistent copy of a store at one moment, to be streamed to another replica."""

    @property
    def ready(self) -> bool:
        """Whether the copy is complete; the rest may be asked only then.

        Raises `CopyError` if it could not be made, `StorageFailure` if what was to be copied could not be read.
        """

    @property
    def size(self) -> int:
        """Bytes of the copy."""

    @property
    def applied(self) -> tuple[int, int]:
        """(index, term) of the last entry applied in the copy."""

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset` on."""

    def close(self) -> None:
        """Drop the copy."""


class Install(Protocol):
    """A copy from another replica, arriving in pieces."""

    def write(self, offset: int, data: bytes) -> None:
        """Add the next piece. Raises `ValueError` when `offset` is not where the last piece ended, `CopyError`."""

    def check(self, applied: tuple[int, int]) -> None:
        """Begin to check the whole copy, which was said to end with `applied`, beside further ticks.

        Raises `ValueError` when it is not whole.
        """

    @property
    def checked(self) -> bool:
        """Whether the check is done. Raises `ValueError` when the copy is not what it says, `CopyError`."""

    def finish(self) -> None:
        """Make the checked copy durable, and put it in this store's place. Takes no time that grows with its size.

        Kept from the old store: every `meta` value but `applied`, and the journal after `applied` if the old journal
        holds the very entry (index and term) of `applied`. Dropped: the copy's journal after `applied`. Atomic: after
        a crash there is the old store or the new one. The store must be closed and opened again afterwards.
        """

    def abandon(self) -> None:
        """Forget the pieces."""


class Sweep(Protocol):
    """Something being read again, beside the ticks."""

    @property
    def ready(self) -> bool:
        """Whether it is done. Raises `DamageError` when something read does not match its checksum."""

    @property
    def result(self) -> Swept:
        """What was read; only when it is `ready`."""

    def close(self) -> None:
        """It is not needed any more."""


class Store(State, Protocol):
    """Everything a replica remembers, in one environment, written in one transaction per tick.

    The journal holds the contiguous entries `first_index` … `last_index` for replication, and below `first_index` only
    entries that were not released. Invariants: `first_index ≤ last_index + 1`; the entry at `last_index` is always
    there; every entry with a live chunk is there.
    """

    @property
    def first_index(self) -> int:
        """Index of the first entry of the contiguous journal."""

    @property
    def last_index(self) -> int:
        """Index of the last entry of the journal."""

    def begin(self) -> None:
        """Open the tick's write transaction."""

    def commit(self) -> None:
        """Make everything since `begin` durable, all or nothing. Raises `StorageFailure`: the process must end."""

    def append(self, index: int, term: int, payload: bytes) -> None:
        """Add the entry after the last. `index` must be `last_index + 1`."""

    def truncate(self, index: int) -> None:
        """Drop every entry from `index` on."""

    def logged(self, index: int) -> Logged | None:
        """The entry at `index`, copied and checked, or None if it is not in the contiguous journal."""

    def compact(self, index: int, steps_max: int) -> None:
        """Raise `first_index` towards `index`, at most `steps_max` entries, dropping those without a live message."""

    def meta(self, name: str) -> bytes | None:
        """A small named value of this replica: its term and vote, its identity. Not replicated."""

    def set_meta(self, name: str, value: bytes) -> None:
        """Set a small named value of this replica."""

    def start_copy(self) -> Copy:
        """Begin a consistent copy of everything as of the last commit; it may be made beside further ticks."""

    def start_install(self, size: int) -> Install:
        """Begin to take in another replica's copy of `size` bytes, beside what is here until it is whole.

        Raises `CopyError` when there is no room for it.
        """

    def start_sweep(self, span: Span = WHOLE, pace: Pace = PROMPT) -> Sweep:
        """Begin to read `span` of the state as of the last commit again, beside further ticks."""

    def start_check(self, pace: Pace) -> Sweep:
        """Begin to read again all that is no state, as it is by then: the journal and the replica's own values."""

    def room_bytes(self) -> int:
        """How many more bytes fit before the map or the disk is full, by a cautious estimate."""

    def close(self) -> None:
        """Let go of the files."""
