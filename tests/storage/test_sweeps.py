"""Sweeps and their digests: the same for the same state, on either store, and for nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.records import entry_key
from storage.state import StorageFailure, Store
from storage.sweeps import STEP_RECORDS, Swept
from tests.storage.harness import KINDS, Place, finished, set_applied, tick


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    place = Place(request.param, tmp_path / "a")
    yield place
    place.close()


def sweep(store: Store) -> Swept:
    return finished(store.start_sweep()).result


def fill(store: Store) -> None:
    """More records than one step reads, and an entry that holds a message."""
    with tick(store):
        store.append(1, 1, b"body")
        store.append(2, 1, b"no message")
        store.put(entry_key(1), b"\0\0\0\1")
        for number in range(STEP_RECORDS + 10):
            store.put(b"q%d" % number, b"queue")
        set_applied(store, 2, 1)


def test_both_stores_have_the_same_digest_of_the_same_state(tmp_path: Path) -> None:
    found = []
    for kind in KINDS:
        place = Place(kind, tmp_path / kind)
        fill(place.store)
        found.append(sweep(place.store))
        place.close()
    assert found[0] == found[1]
    assert found[0].applied == (2, 1)
    assert found[0].records == STEP_RECORDS + 11


def other_value(store: Store) -> None:
    store.put(b"q7", b"other")


def other_key(store: Store) -> None:
    store.delete(b"q7")
    store.put(b"q7x", b"queue")


def fewer(store: Store) -> None:
    store.delete(b"q7")


def more(store: Store) -> None:
    store.put(b"z", b"")


def moved_border(store: Store) -> None:
    store.delete(b"q99")
    store.put(b"q99q", b"ueue")


def other_body(store: Store) -> None:
    store.truncate(1)
    store.append(1, 1, b"bodY")
    store.append(2, 1, b"no message")


@pytest.mark.parametrize("change", [other_value, other_key, fewer, more, moved_border, other_body])
def test_whatever_differs_makes_another_digest(place: Place, change: Callable[[Store], None]) -> None:
    fill(place.store)
    before = sweep(place.store)
    with tick(place.store):
        change(place.store)
    assert sweep(place.store).digest != before.digest


def test_what_is_no_state_makes_no_difference(place: Place) -> None:
    """Replicas differ in how much of the log they still hold, and in what is their own."""
    fill(place.store)
    before = sweep(place.store)
    with tick(place.store):
        place.store.set_meta("hard", b"mine")
        place.store.append(3, 2, b"not applied yet")
        place.store.compact(3, 9)
    assert sweep(place.store) == before


def test_a_sweep_is_of_the_moment_it_was_begun(place: Place) -> None:
    fill(place.store)
    before = sweep(place.store)
    running = place.store.start_sweep()
    with tick(place.store):
        place.store.put(b"q7", b"later")
        set_applied(place.store, 3, 1)
    assert finished(running).result == before
    after = sweep(place.store)
    assert after.applied == (3, 1)
    place.store.begin()
    place.store.put(b"q7", b"not committed")
    assert finished(place.store.start_sweep()).result == after
    place.store.commit()
    assert sweep(place.store).digest not in (before.digest, after.digest)


@pytest.mark.parametrize("where", ["record", "missing entry"])
def test_a_sweep_finds_what_is_damaged(tmp_path: Path, where: str) -> None:
    place = Place("lmdb", tmp_path)
    fill(place.store)
    store, tables = place.store, place.store._tables
    with tick(store):
        if where == "record":
            store._written().put(b"q7", b"\0\0\0\0wrong", db=tables.state)
        else:
            store._written().delete(b"\0" * 7 + b"\1", db=tables.journal)
    running = store.start_sweep()
    running.join()
    with pytest.raises(StorageFailure, match="checksum" if where == "record" else "is missing"):
        assert running.ready
    place.close()


def test_a_store_that_is_closed_ends_its_sweep(tmp_path: Path) -> None:
    place = Place("lmdb", tmp_path)
    fill(place.store)
    running = place.store.start_sweep()
    place.close()
    assert not running.is_running
