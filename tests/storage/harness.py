"""What the tests of stores share: a place that opens, reopens and crashes either kind of store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from storage.lmdb_store import LmdbStore
from storage.memory_store import MemoryStore
from storage.state import APPLIED, APPLIED_META, Copy, Install, Logged, Store, Sweep

_Work = TypeVar("_Work", Copy, Sweep)

KINDS = ("memory", "lmdb")


class Place:
    """Where one store lives. `store` is the open one."""

    def __init__(self, kind: str, directory: Path, bytes_max: int = 64 * 1024 * 1024) -> None:
        self.kind, self.directory, self.bytes_max = kind, directory, bytes_max
        self.store: Store = MemoryStore(bytes_max=bytes_max) if kind == "memory" else self._open()

    def _open(self) -> LmdbStore:
        return LmdbStore(self.directory, bytes_max=self.bytes_max)

    def reopen(self) -> Store:
        """End the process between or within transactions and start another."""
        old = self.store
        old.close()
        self.store = old.crashed() if isinstance(old, MemoryStore) else self._open()
        return self.store

    def close(self) -> None:
        self.store.close()


def quick_directory() -> TemporaryDirectory[str]:
    """A directory in memory where there is one: for long lives, in which what a sync costs is not the question."""
    return TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)


@contextmanager
def tick(store: Store) -> Iterator[Store]:
    store.begin()
    yield store
    store.commit()


def set_applied(store: Store, index: int, term: int) -> None:
    store.set_meta(APPLIED_META, APPLIED.pack(index, term))


def finished(work: _Work) -> _Work:
    """A copy or a sweep, once it is ready."""
    join = getattr(work, "join", None)
    if join is not None:
        join()
    assert work.ready
    return work


def whole(copy: Copy, piece_bytes: int = 10_000) -> list[tuple[int, bytes]]:
    """The copy in pieces, as it travels."""
    return [(offset, copy.read(offset, piece_bytes)) for offset in range(0, copy.size, piece_bytes)]


def install(store: Store, pieces: list[tuple[int, bytes]], applied: tuple[int, int]) -> None:
    incoming = store.start_install(sum(len(data) for _, data in pieces))
    for offset, data in pieces:
        incoming.write(offset, data)
    checked(incoming, applied).finish()


def checked(incoming: Install, applied: tuple[int, int]) -> Install:
    """The copy, once it is checked."""
    incoming.check(applied)
    join = getattr(incoming, "join", None)
    if join is not None:
        join()
    assert incoming.checked
    return incoming


def dump(store: Store) -> dict[str, Any]:
    """All that can be seen of a store."""
    first, last = store.first_index, store.last_index
    journal: list[Logged | None] = [store.logged(index) for index in range(first, last + 1)]
    return {
        "bounds": (first, last),
        "journal": journal,
        "live": {
            key: bytes(store.entry(int.from_bytes(key[1:], "big"))) for key, _ in store.scan(b"e") if len(key) == 9
        },
        "state": list(store.scan(b"")),
        "meta": {name: store.meta(name) for name in (APPLIED_META, "hard", "born")},
    }
