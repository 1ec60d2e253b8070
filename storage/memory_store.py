"""The store's twin in memory: the same meaning, transactions and crashes included, for tests and simulation.

It loses at a crash exactly what a disk would: `crashed()` is what a process finds that opens the store again.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from typing import Generic, TypeVar

import msgspec

from storage.beside import Pace
from storage.record_keys import ENTRIES, entry_key, read_u64
from storage.seals import entry_seal, seal_entry
from storage.state import APPLIED, APPLIED_META, KEY_BYTES_MAX, DamageError, Logged, StorageFailure
from storage.sweeps import PROMPT, WHOLE, Span, Swept, swept

_CHECKSUM_BYTES = 4
_K = TypeVar("_K")
_V = TypeVar("_V")


class _Contents(msgspec.Struct):
    """Everything a store holds, at rest."""

    state: dict[bytes, bytes] = {}
    journal: dict[int, tuple[int, bytes]] = {}
    meta: dict[str, bytes] = {}
    first_index: int = 1
    last_index: int = 0


_decode_contents = msgspec.msgpack.Decoder(_Contents).decode


class _Table(Generic[_K, _V]):
    """A dictionary that remembers what the open transaction has overwritten."""

    def __init__(self, values: dict[_K, _V]) -> None:
        self.values = values
        self._overwritten: dict[_K, _V | None] = {}

    def put(self, key: _K, value: _V) -> None:
        self._overwritten.setdefault(key, self.values.get(key))
        self.values[key] = value

    def delete(self, key: _K) -> None:
        self._overwritten.setdefault(key, self.values.get(key))
        self.values.pop(key, None)

    def commit(self) -> None:
        self._overwritten.clear()

    def committed(self) -> dict[_K, _V]:
        """The values as of the last commit."""
        values = dict(self.values)
        for key, value in self._overwritten.items():
            if value is None:
                values.pop(key, None)
            else:
                values[key] = value
        return values


class MemoryStore:
    """Implements `storage.state.Store`. `bytes_max` is what `room_bytes` counts down from."""

    def __init__(self, *, bytes_max: int = 1 << 40) -> None:
        self._bytes_max = bytes_max
        self._load(_Contents({}, {}, {}))

    def _load(self, contents: _Contents) -> None:
        self._state = _Table(contents.state)
        self._keys = sorted(contents.state)
        self._journal = _Table(contents.journal)
        self._meta = _Table(contents.meta)
        self._first_index, self._last_index = contents.first_index, contents.last_index
        self._committed_bounds = (self._first_index, self._last_index)
        self._used_bytes = sum(len(payload) for _, payload in contents.journal.values())
        self._used_bytes += sum(len(key) + len(value) for key, value in contents.state.items())
        self._writing = False
        self._gone = ""

    def crashed(self) -> MemoryStore:
        """The store as it is found after a crash now: what was last committed, and nothing else."""
        store = MemoryStore(bytes_max=self._bytes_max)
        store._load(self._committed())
        return store

    def _committed(self) -> _Contents:
        return _Contents(
            self._state.committed(), self._journal.committed(), self._meta.committed(), *self._committed_bounds
        )

    # --- state --------------------------------------------------------------------------------------------------------

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, or None."""
        return self._state.values.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """Set `key`."""
        assert self._writing, "written outside a transaction"
        assert 0 < len(key) <= KEY_BYTES_MAX, "a key of a size that no store takes"
        old = self._state.values.get(key)
        if old is None:
            insort(self._keys, key)
            self._used_bytes += len(key)
        self._used_bytes += len(value) - len(old or b"")
        self._state.put(key, value)

    def delete(self, key: bytes) -> None:
        """Forget `key`; fine if it is unknown."""
        assert self._writing, "written outside a transaction"
        old = self._state.values.get(key)
        if old is not None:
            del self._keys[bisect_left(self._keys, key)]
            self._used_bytes -= len(key) + len(old)
            self._state.delete(key)

    def first(self, prefix: bytes, start: bytes = b"") -> tuple[bytes, bytes] | None:
        """The record with the smallest key ≥ `prefix + start` that begins with `prefix`."""
        position = bisect_left(self._keys, prefix + start)
        return self._record(position, prefix) if position < len(self._keys) else None

    def floor(self, prefix: bytes, end: bytes) -> tuple[bytes, bytes] | None:
        """The record with the greatest key ≤ `prefix + end` that begins with `prefix`."""
        position = bisect_right(self._keys, prefix + end)
        return self._record(position - 1, prefix) if position else None

    def _record(self, position: int, prefix: bytes) -> tuple[bytes, bytes] | None:
        key = self._keys[position]
        return (key, self._state.values[key]) if key.startswith(prefix) else None

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """The records whose keys begin with `prefix`, from `prefix + start` on, in order. Do not write meanwhile."""
        for position in range(bisect_left(self._keys, prefix + start), len(self._keys)):
            record = self._record(position, prefix)
            if record is None:
                return
            yield record

    def entry(self, index: int) -> memoryview:
        """The bytes of the log entry at `index`. Raises `DamageError` when it is missing."""
        found = self._journal.values.get(index)
        if found is None:
            raise DamageError(f"journal entry {index} is missing")
        return memoryview(found[1])

    def release(self, index: int) -> None:
        """Entry `index` holds no live message any more."""
        assert self._writing, "written outside a transaction"
        if index < self._first_index:
            self._drop(index)

    # --- journal ------------------------------------------------------------------------------------------------------

    @property
    def first_index(self) -> int:
        """Index of the first entry of the contiguous journal."""
        return self._first_index

    @property
    def last_index(self) -> int:
        """Index of the last entry of the journal."""
        return self._last_index

    def append(self, index: int, term: int, payload: bytes) -> None:
        """Add the entry after the last."""
        assert self._writing, "written outside a transaction"
        assert index == self._last_index + 1, "the journal has no gaps"
        self._journal.put(index, (term, bytes(payload)))
        self._used_bytes += len(payload)
        self._last_index = index

    def truncate(self, index: int) -> None:
        """Drop every entry from `index` on."""
        assert self._writing, "written outside a transaction"
        assert index > self._first_index or index == 1, "what is below first_index is applied, and never taken back"
        for dropped in range(index, self._last_index + 1):
            self._drop(dropped)
        self._last_index = min(self._last_index, index - 1)

    def _drop(self, index: int) -> None:
        found = self._journal.values.get(index)
        if found is not None:
            self._used_bytes -= len(found[1])
            self._journal.delete(index)

    def logged(self, index: int) -> Logged | None:
        """The entry at `index`, or None if it is not in the contiguous journal."""
        if not self._first_index <= index <= self._last_index:
            return None
        return Logged(index, *self._journal.values[index])

    def compact(self, index: int, steps_max: int) -> None:
        """Raise `first_index` towards `index`, at most `steps_max` entries, dropping those without a live message."""
        assert self._writing, "written outside a transaction"
        end = min(index, self._last_index, self._first_index + steps_max)
        for dropped in range(self._first_index, end):
            if self.get(entry_key(dropped)) is None:
                self._drop(dropped)
        self._first_index = max(self._first_index, end)

    # --- the replica's own ------------------------------------------------------------------------------------------

    def meta(self, name: str) -> bytes | None:
        """A small named value of this replica."""
        return self._meta.values.get(name)

    def set_meta(self, name: str, value: bytes) -> None:
        """Set a small named value of this replica."""
        assert self._writing, "written outside a transaction"
        self._meta.put(name, value)

    def begin(self) -> None:
        """Open the tick's write transaction."""
        if self._gone:
            raise StorageFailure(self._gone)
        assert not self._writing, "one transaction at a time"
        self._writing = True

    def commit(self) -> None:
        """Make everything since `begin` durable, all or nothing."""
        assert self._writing, "committed outside a transaction"
        self._state.commit()
        self._journal.commit()
        self._meta.commit()
        self._committed_bounds = (self._first_index, self._last_index)
        self._writing = False

    def room_bytes(self) -> int:
        """How many more bytes fit."""
        return self._bytes_max - self._used_bytes

    def close(self) -> None:
        """The store takes no more writes."""
        self._gone = "the store is closed"

    def start_copy(self) -> MemoryCopy:
        """A copy of everything as of the last commit."""
        return MemoryCopy(self._committed())

    def start_install(self, size: int) -> MemoryInstall:
        """Begin to take in another replica's copy of `size` bytes."""
        return MemoryInstall(self, size)

    def start_sweep(self, span: Span = WHOLE, pace: Pace = PROMPT) -> MemorySweep:
        """`span` of the state as of the last commit, read again."""
        contents = self._committed()
        records = ((key, contents.state[key]) for key in sorted(contents.state) if key >= span.start)
        sealed = ((key, value + self._seal(contents, key)) for key, value in records)
        applied = contents.meta.get(APPLIED_META)
        return MemorySweep(swept(sealed, span, APPLIED.unpack(applied) if applied else (0, 0), lambda _: None))

    def start_check(self, pace: Pace) -> MemorySweep:
        """The journal, read again."""
        journal = self._committed().journal
        read_bytes = sum(len(payload) for _, payload in journal.values())
        return MemorySweep(Swept((0, 0), b"", b"", len(journal), read_bytes))

    @staticmethod
    def _seal(contents: _Contents, key: bytes) -> bytes:
        if key[:1] != ENTRIES:
            return b""
        index = read_u64(key[1:])
        return entry_seal(seal_entry(index, *contents.journal[index]))

    def _replace(self, copy: _Contents, applied: tuple[int, int]) -> None:
        """What `Install.finish` promises; the store must be opened again, see `crashed`."""
        assert not self._writing, "a copy is installed between transactions"
        index, term = applied
        suffix: dict[int, tuple[int, bytes]] = {}
        held = self.logged(index)
        if held is not None and held.term == term:
            suffix = {i: entry for i, entry in self._journal.values.items() if i > index}
        copy.journal = {i: entry for i, entry in copy.journal.items() if i <= index} | suffix
        copy.last_index = max(suffix, default=index)
        copy.meta = {**self._meta.values, APPLIED_META: copy.meta[APPLIED_META]}
        self._load(copy)
        self._gone = "the store was replaced by an installed copy: open it again"


class MemoryCopy:
    """Implements `storage.state.Copy`; ready at once."""

    ready = True

    def __init__(self, contents: _Contents) -> None:
        encoded = msgspec.msgpack.encode(contents)
        self._data = encoded + zlib.crc32(encoded).to_bytes(_CHECKSUM_BYTES, "little")
        applied = contents.meta.get(APPLIED_META)
        self._applied = APPLIED.unpack(applied) if applied else (0, 0)

    @property
    def size(self) -> int:
        """Bytes of the copy."""
        return len(self._data)

    @property
    def applied(self) -> tuple[int, int]:
        """(index, term) of the last entry applied in the copy."""
        return self._applied

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset` on."""
        return self._data[offset : offset + size]

    def close(self) -> None:
        """Drop the copy."""
        self._data = b""


class MemoryInstall:
    """Implements `storage.state.Install`."""

    def __init__(self, store: MemoryStore, size: int) -> None:
        self._store = store
        self._size = size
        self._data = bytearray()
        self._contents, self._applied = _Contents(), (0, 0)

    def write(self, offset: int, data: bytes) -> None:
        """Add the next piece."""
        if offset != len(self._data) or offset + len(data) > self._size:
            raise ValueError("this is not the next piece of the copy")
        self._data += data

    def check(self, applied: tuple[int, int]) -> None:
        """Check the whole copy, which takes no time here."""
        encoded, checksum = bytes(self._data[:-_CHECKSUM_BYTES]), self._data[-_CHECKSUM_BYTES:]
        if len(self._data) != self._size or zlib.crc32(encoded) != int.from_bytes(checksum, "little"):
            raise ValueError("the copy is not whole")
        self._contents, self._applied = _decode_contents(encoded), applied

    @property
    def checked(self) -> bool:
        """Whether the check is done. Raises `ValueError` when the copy is not what it says."""
        contents, applied = self._contents, self._applied
        found = contents.meta.get(APPLIED_META)
        if found is None or APPLIED.unpack(found) != applied:
            raise ValueError("the copy was applied up to another entry than was said")
        if not contents.first_index <= applied[0] <= contents.last_index:
            raise ValueError("the copy's journal does not reach its last applied entry")
        return True

    def finish(self) -> None:
        """Put the copy in the store's place."""
        assert self.checked, "only what was checked takes the store's place"
        self._store._replace(self._contents, self._applied)

    def abandon(self) -> None:
        """Forget the pieces."""
        self._data.clear()


class MemorySweep:
    """Implements `storage.state.Sweep`; ready at once."""

    ready = True

    def __init__(self, result: Swept) -> None:
        self.result = result

    def close(self) -> None:
        """Nothing is held."""
