"""A disk under a store, and everything that can be wrong with one.

The store is the product's own twin in memory, whose contract says what a crash leaves: the last commit, whole. Here it
also takes time, ends the process or fails at any step it takes, has records that read wrong, and makes copies slowly.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Any

from storage.beside import Pace
from storage.memory_store import MemoryCopy, MemoryInstall, MemoryStore, MemorySweep
from storage.state import APPLIED, APPLIED_META, DamageError, Logged, StorageFailure
from storage.sweeps import Swept
from tests.simulation.clockwork import Killed, Process


def applied_in(meta: dict[str, bytes]) -> tuple[int, int]:
    """Index and term of the last entry applied, by a store's own values."""
    return APPLIED.unpack(meta[APPLIED_META])  # type: ignore[return-value]


class Trouble:
    """What happens at some step from now: `steps` counts down, then `strike` raises.

    `of_entries`: only commits count that would make entries durable.
    """

    def __init__(self, steps: int, strike: Callable[[], BaseException], *, of_entries: bool = False) -> None:
        self.steps, self.strike, self.of_entries = steps, strike, of_entries

    def step(self, *, brings_entries: bool = False) -> None:
        if self.of_entries and not brings_entries:
            return
        self.steps -= 1
        if self.steps <= 0:
            raise self.strike()


class Disk:
    """What one machine's disk holds, and how it behaves. Outlives the processes that use it."""

    def __init__(self, rng: random.Random, commit_s: tuple[float, float], copy_s: float) -> None:
        self.rng, self.commit_s, self.copy_s = rng, commit_s, copy_s
        self.slowness = 1.0
        self.room_bytes: int | None = None
        self.trouble: Trouble | None = None
        self.flipped: set[int] = set()
        """Indices of the journal entries that do not match their checksums."""
        self._note: Any = None
        self._members: Any = None
        self.founders: list[str] = []
        """Who the node was configured with when the disk was new."""
        self.store: DiskStore | None = None
        self._rest: Any = None

    def open(self, process: Process, watch: Watch) -> DiskStore:
        """The store as it is found now, for a process that has just started, or starts again on a snapshot."""
        if self.store is not None:
            self.stop()
        self.store = (DiskStore if not self.flipped else WornStore)(self, process, watch)
        if self._rest is not None:
            self.store._load(self._rest)
        process.spend(self.commit_s[1] * self.slowness)
        return self.store

    def stop(self) -> None:
        """The process is gone: what it had not committed is lost."""
        if self.store is not None:
            self._rest = self.store._committed()
            self.store.is_gone = True
            self.store = None

    def wipe(self) -> None:
        """A new disk."""
        self.stop()
        self._rest = self._note = self._members = self.trouble = self.room_bytes = None
        self.founders = []
        self.flipped.clear()

    def meta(self, name: str) -> bytes | None:
        """A durable value, whether anything runs or not."""
        if self.store is not None:
            return self.store._meta.committed().get(name)
        return None if self._rest is None else self._rest.meta.get(name)

    def flip(self, share: float) -> None:
        """Bits change in a share of the journal's entries. What has no checksum of its own is left as it is."""
        contents = self.store._committed() if self.store is not None else self._rest
        if contents is not None:
            self.spoil(index for index in sorted(contents.journal) if self.rng.random() < share)

    def spoil(self, indices: Iterable[int]) -> None:
        """Bits change in these entries of the journal."""
        self.flipped.update(indices)
        if self.store is not None and self.flipped:
            self.store.__class__ = WornStore

    def committed(self) -> None:
        """A transaction is durable."""

    def lose_power(self) -> None:
        """Whatever was committed is durable: that is what a commit means."""

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong with what is stored, known or not."""
        return not self.flipped and self._note is None

    @property
    def is_troubled(self) -> bool:
        """Whether a process may end because of this disk."""
        return self.trouble is not None

    def heal(self) -> None:
        self.slowness, self.room_bytes, self.trouble = 1.0, None, None

    @contextmanager
    def trusted(self) -> Iterator[None]:
        """For a look at what the replica believes: entries that would read wrong read as they were written."""
        flipped, self.flipped = self.flipped, set()
        yield
        self.flipped = flipped

    def read(self, index: int) -> None:
        if index in self.flipped:
            raise DamageError(f"journal entry {index} does not match its checksum")

    # --- beside the store: what `cluster.keeper` asks for, each step of which may be the last -------------------------

    def _step(self) -> None:
        if self.trouble is not None:
            self.trouble.step()

    def read_note(self) -> Any:
        return self._note

    def write_note(self, note: Any) -> None:
        self._step()
        self._note = note
        self._step()

    def remove_note(self) -> None:
        self._step()
        self._note = None
        self._step()

    def read_members(self) -> Any:
        return self._members

    def write_members(self, members: Any) -> None:
        self._step()
        self._members = members

    def set_aside(self) -> None:
        self._step()
        self.stop()
        self._rest = None
        self.flipped.clear()
        self._step()


class Watch:
    """What the oracle wants to know of a store."""

    def appended(self, index: int, term: int, payload: bytes, term_before: int) -> None:
        """An entry was written after one of `term_before`."""

    def copied(self, store: DiskStore, index: int) -> None:
        """A copy was begun of what is applied up to `index`."""

    def installed(self, store: DiskStore, journal: dict[int, tuple[int, bytes]], applied_index: int) -> None:
        """A copy has taken the place of a store with this journal, applied up to `applied_index`."""


class DiskStore(MemoryStore):
    """The store of a running process on a `Disk`. `digest` is equal for equal states."""

    def __init__(self, disk: Disk, process: Process, watch: Watch) -> None:
        self._disk, self._process, self._watch = disk, process, watch
        self.name: str = process.machine.name
        self.is_gone = self._has_appended = False
        super().__init__()

    def _load(self, contents: Any) -> None:
        super()._load(contents)
        self.digest = 0
        for record in contents.state.items():
            self.digest ^= hash(record)
        self._opened_digest = self.digest

    def _step(self, *, brings_entries: bool = False) -> None:
        if self.is_gone:
            raise Killed("its disk belongs to another process now")
        if self._disk.trouble is not None:
            try:
                self._disk.trouble.step(brings_entries=brings_entries)
            except StorageFailure as error:
                self._gone = str(error)
                raise

    def put(self, key: bytes, value: bytes) -> None:
        if self._disk.trouble is not None:
            self._step()
        old = self._state.values.get(key)
        if old is not None:
            self.digest ^= hash((key, old))
        self.digest ^= hash((key, value))
        super().put(key, value)

    def delete(self, key: bytes) -> None:
        if self._disk.trouble is not None:
            self._step()
        old = self._state.values.get(key)
        if old is not None:
            self.digest ^= hash((key, old))
            super().delete(key)

    def append(self, index: int, term: int, payload: bytes) -> None:
        self._step()
        last = self._journal.values.get(self._last_index)
        super().append(index, term, payload)
        self._has_appended = True
        self._watch.appended(index, term, payload, last[0] if last is not None else 0)

    def truncate(self, index: int) -> None:
        self._step()
        super().truncate(index)

    def compact(self, index: int, steps_max: int) -> None:
        self._step()
        super().compact(index, steps_max)

    def set_meta(self, name: str, value: bytes) -> None:
        self._step()
        super().set_meta(name, value)

    def begin(self) -> None:
        self._step()
        super().begin()

    def commit(self) -> None:
        disk = self._disk
        self._step(brings_entries=self._has_appended)
        self._has_appended = False
        low_s, high_s = disk.commit_s
        self._process.spend((low_s + (high_s - low_s) * disk.rng.random()) * disk.slowness)
        super().commit()
        disk.committed()
        self._step()

    def room_bytes(self) -> int:
        return super().room_bytes() if self._disk.room_bytes is None else self._disk.room_bytes

    def start_copy(self) -> SlowCopy:
        self._step()
        contents = self._committed()
        self._watch.copied(self, applied_in(contents.meta)[0])
        return SlowCopy(self, contents)

    def start_install(self, size: int) -> DiskInstall:
        self._step()
        return DiskInstall(self, size)

    @property
    def elapsed_s(self) -> float:
        return self._process.now_s()

    @property
    def copy_s(self) -> float:
        return self._disk.copy_s * self._disk.slowness


class SlowCopy(MemoryCopy):
    """A copy that is made beside the ticks, and takes its time."""

    def __init__(self, store: DiskStore, contents: Any) -> None:
        super().__init__(contents)
        self._store = store
        self._ready_s = store.elapsed_s + store.copy_s

    @property
    def ready(self) -> bool:  # type: ignore[override]
        return self._store.elapsed_s >= self._ready_s


class DiskInstall(MemoryInstall):
    """A copy on its way in, each step of which may be the last; it is checked beside the ticks."""

    _store: DiskStore
    _checked_s = inf

    def write(self, offset: int, data: bytes) -> None:
        self._store._step()
        super().write(offset, data)

    def check(self, applied: tuple[int, int]) -> None:
        self._store._step()
        super().check(applied)
        self._checked_s = self._store.elapsed_s + self._store.copy_s

    @property
    def checked(self) -> bool:
        return self._store.elapsed_s >= self._checked_s and super().checked

    def finish(self) -> None:
        store = self._store
        store._step()
        journal, (applied_index, _) = store._journal.values, applied_in(store._meta.values)
        super().finish()
        store._watch.installed(store, journal, applied_index)
        store._step()


class WornStore(DiskStore):
    """A store with journal entries that read wrong, until they are written again."""

    def entry(self, index: int) -> memoryview:
        self._disk.read(index)
        return super().entry(index)

    def logged(self, index: int) -> Logged | None:
        self._disk.read(index)
        return super().logged(index)

    def append(self, index: int, term: int, payload: bytes) -> None:
        super().append(index, term, payload)
        self._disk.flipped.discard(index)

    def _drop(self, index: int) -> None:
        super()._drop(index)
        self._disk.flipped.discard(index)

    def start_copy(self) -> SlowCopy:
        """A copy of everything, the wrong entries too: whoever takes it in finds out."""
        copy = super().start_copy()
        if self._disk.flipped:
            copy._data = copy._data[:-1] + bytes([copy._data[-1] ^ 1])
        return copy

    def start_check(self, pace: Pace) -> MemorySweep:
        return WornSweep(self._disk)


class WornSweep(MemorySweep):
    """A look at a journal that finds wrong entries, if there are any still."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(Swept((0, 0), b"", b"", 1, 1))
        self._disk = disk

    @property
    def ready(self) -> bool:  # type: ignore[override]
        for index in sorted(self._disk.flipped):
            self._disk.read(index)
        return True
