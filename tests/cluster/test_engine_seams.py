"""How the engine stands on PySyncObj: the version it was made for, and nothing of it left running."""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pysyncobj.syncobj
import pysyncobj.version
import pytest

import cluster.seams
from cluster.engine import REMOVED_META, Engine
from cluster.journal import BrokenInvariantError, Journal
from cluster.standing import lose
from cluster.tuning import Tuning
from storage.memory_store import MemoryStore
from tests.cluster.bench import Bench


def import_again() -> None:
    specification = importlib.util.spec_from_file_location("seams_again", Path(cluster.seams.__file__))
    assert specification is not None
    assert specification.loader is not None
    specification.loader.exec_module(importlib.util.module_from_spec(specification))


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pysyncobj.version, "VERSION", "0.3.18")
    with pytest.raises(ImportError, match=r"0\.3\.18 is installed, but the engine was made for 0\.3\.17"):
        import_again()


def test_a_missing_seam_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(pysyncobj.syncobj.SyncObj, "_SyncObj__connectedToAnyone")
    with pytest.raises(ImportError, match="lacks what the engine replaces or reads: connectedToAnyone"):
        import_again()


def test_an_engine_opens_nothing_and_starts_nothing() -> None:
    Bench()
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    benches = [Bench() for _ in range(10)]
    for bench in benches:
        bench.tick()
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before


def compacted() -> MemoryStore:
    """Of a leader whose journal does not begin with the first entry any more."""
    bench = Bench("a", tuning=Tuning(journal_keep_entries=1))
    bench.wait(2.0)
    bench.tick()
    for number in range(5):
        bench.tick(propose=(str(number),))
    assert bench.store.first_index > 1
    return bench.store


def marked(mark: Callable[[MemoryStore], None]) -> MemoryStore:
    store = MemoryStore()
    store.begin()
    mark(store)
    store.commit()
    return store


STORES: dict[str, Callable[[], MemoryStore]] = {
    "new": MemoryStore,
    "compacted": compacted,
    "lost": lambda: marked(lose),
    "removed": lambda: marked(lambda store: store.set_meta(REMOVED_META, b"1")),
}


@pytest.mark.parametrize("make", STORES.values(), ids=STORES)
def test_every_property_can_be_read_while_the_engine_is_built(
    make: Callable[[], MemoryStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stock constructor reads all that `dir` names, when nothing is known yet of where the store stands."""
    properties = [name for name in dir(Engine) if isinstance(getattr(Engine, name), property)]
    failures: list[dict[str, Exception]] = []

    def names(engine: Engine) -> list[str]:
        failures.append({})
        for name in properties:
            try:
                getattr(engine, name)
            except Exception as error:
                failures[-1][name] = error
        return properties[:0]

    store = make()
    monkeypatch.setattr(Engine, "__dir__", names, raising=False)
    Bench("a", store)
    assert failures, "the stock constructor asks for no names any more"
    assert failures == [{}] * len(failures), "make them methods, or give them what they need before the constructor"


def test_each_engine_reads_its_own_clock() -> None:
    early, late = Bench("a"), Bench("a")
    late.wait(5.0)
    late.tick()
    early.tick()
    assert late.engine.is_leader
    assert not early.engine.is_leader


def test_the_journal_keeps_so_many_entries_and_bytes_and_what_is_wanted() -> None:
    def kept(limit: int, entries: int, size: int) -> int:
        store = MemoryStore()
        store.begin()
        journal = Journal(store, 1000)
        for index in range(2, 102):
            journal.append(index, 1, bytes(10))
        for _ in range(20):
            journal.compact(limit, entries, size, 10)
        store.commit()
        return store.first_index

    assert kept(101, 20, 10_000) == 81
    assert kept(101, 1000, 200) == 82
    assert kept(50, 20, 200) == 50
    assert kept(101, 1000, 10_000) == 1


def test_entries_that_left_the_cache_are_read_from_the_store() -> None:
    store = MemoryStore()
    store.begin()
    journal = Journal(store, 25)
    for index in range(2, 10):
        journal.append(index, index, bytes(10))
    assert [journal.entry(index).term for index in range(2, 10)] == list(range(2, 10))
    assert len(journal._cache) == 2
    journal.truncate(5)
    assert (journal.last_index, journal.last_term) == (4, 4)
    journal.append(5, 9, b"\0")
    assert journal.entry(5).term == 9
    with pytest.raises(BrokenInvariantError, match="entry 9 is needed"):
        journal.entry(9)


def test_what_was_truncated_is_durable_again_only_when_its_successor_is() -> None:
    store = MemoryStore()
    store.begin()
    journal = Journal(store, 1000)
    for index in range(2, 6):
        journal.append(index, 1, b"\0")
    assert journal.durable_index == 0
    journal.synced()
    journal.truncate(4)
    journal.append(4, 2, b"\0")
    assert (journal.last_index, journal.durable_index) == (4, 3)
    journal.synced()
    assert (journal.durable_index, journal.durable_applied_index) == (4, 1)
