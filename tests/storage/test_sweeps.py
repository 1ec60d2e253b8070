"""Sweeps and their digests: the same for the same state, on either store, and for nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.beside import FULL
from storage.lmdb_store import LmdbStore
from storage.record_keys import entry_key, u64
from storage.state import DamageError, Store
from storage.sweeps import STEP_RECORDS, Span, Swept
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


def spans(store: Store, records_max: int) -> list[Swept]:
    """The state, swept span by span."""
    found = [finished(store.start_sweep(Span(b"", records_max))).result]
    while found[-1].next_key:
        found.append(finished(store.start_sweep(Span(found[-1].next_key, records_max))).result)
    return found


@pytest.mark.parametrize("records_max", [1, 7, STEP_RECORDS, STEP_RECORDS + 11, 10_000])
def test_spans_cover_the_state_once(place: Place, records_max: int) -> None:
    fill(place.store)
    whole = sweep(place.store)
    found = spans(place.store, records_max)
    assert sum(span.records for span in found) == whole.records
    assert sum(span.bytes for span in found) == whole.bytes
    assert len(found) == -(-whole.records // records_max)
    assert (found[0].digest == whole.digest) == (len(found) == 1)


def test_a_span_differs_where_the_state_does(place: Place) -> None:
    fill(place.store)
    before = spans(place.store, 50)
    with tick(place.store):
        place.store.put(b"q7", b"other")
    after = spans(place.store, 50)
    assert sum(a.digest != b.digest for a, b in zip(before, after, strict=True)) == 1


def test_an_empty_state_has_a_digest(place: Place) -> None:
    assert [span.records for span in spans(place.store, 5)] == [0]


Damage = Callable[[LmdbStore], object]


def damage(table: str, key: bytes, value: bytes | None) -> Damage:
    def do(store: LmdbStore) -> None:
        txn, db = store._written(), getattr(store._tables, table)
        txn.delete(key, db=db) if value is None else txn.put(key, value, db=db)

    return do


def damaged(directory: Path, do: Damage) -> Place:
    place = Place("lmdb", directory)
    assert isinstance(place.store, LmdbStore)
    with tick(place.store) as store:
        for index in range(1, 2 * STEP_RECORDS):
            store.append(index, 1, b"entry")
        store.put(entry_key(1), b"\0\0\0\1")
        store.put(entry_key(7), b"\0\0\0\1")
        store.put(b"q7", b"queue")
        store.set_meta("hard", b"mine")
        set_applied(store, 300, 1)
        store.compact(100, 1000)
    with tick(place.store):
        do(place.store)
    return place


@pytest.mark.parametrize(
    ("do", "why"),
    [
        (damage("state", b"q7", b"\0\0\0\0wrong"), "b'q7' does not match its checksum"),
        (damage("state", b"q7", b"\0"), "b'q7' does not match its checksum"),
        (damage("journal", u64(7), None), "entry 7 holds messages but is missing"),
    ],
)
def test_a_sweep_finds_what_is_damaged(tmp_path: Path, do: Damage, why: str) -> None:
    place = damaged(tmp_path, do)
    running = place.store.start_sweep()
    running.join()
    with pytest.raises(DamageError, match=why):
        assert running.ready
    place.close()


@pytest.mark.parametrize(
    ("do", "why"),
    [
        (damage("journal", u64(7), bytes(20)), "entry 7 does not match its checksum"),
        (damage("journal", u64(2 * STEP_RECORDS - 1), bytes(20)), "does not match its checksum"),
        (damage("journal", u64(300), None), "entry 300 is missing"),
        (damage("journal", u64(100), None), "entry 100 is missing"),
        (damage("journal", u64(2 * STEP_RECORDS - 1), None), "ends at entry 398, but was written up to 399"),
        (damage("meta", b"hard", b"\0\0\0\0wrong"), "b'hard' does not match its checksum"),
    ],
)
def test_a_check_finds_what_is_damaged(tmp_path: Path, do: Damage, why: str) -> None:
    place = damaged(tmp_path, do)
    running = place.store.start_check(FULL)
    running.join()
    with pytest.raises(DamageError, match=why):
        assert running.ready
    place.close()


def test_a_check_reads_the_whole_journal_while_it_changes(place: Place) -> None:
    with tick(place.store) as store:
        for index in range(1, 1000):
            store.append(index, 1, b"entry")
        store.put(entry_key(3), b"\0\0\0\1")
    running, index = place.store.start_check(FULL), 1000
    while not running.ready:
        with tick(place.store) as store:
            store.append(index, 1, b"entry")
            store.compact(index - 10, 100)
        index += 1
    assert running.result.records > 10
    assert finished(place.store.start_check(FULL)).result.records == index - place.store.first_index + (
        place.store.first_index > 3
    )


def test_a_journal_that_lost_its_end_is_not_taken_for_a_shorter_one(tmp_path: Path) -> None:
    """It would be forgotten what this replica has acknowledged, and others have committed by its word."""
    place = damaged(tmp_path, damage("journal", u64(2 * STEP_RECORDS - 1), None))
    place.store.close()
    with pytest.raises(DamageError, match="ends at entry 398, but was written up to 399"):
        LmdbStore(tmp_path, bytes_max=place.bytes_max)


@pytest.mark.parametrize("left_pages", [2, 3, -1])
def test_a_file_that_lost_its_end_is_not_read(tmp_path: Path, left_pages: int) -> None:
    """To read a page that is not there any more would end the process by a signal: also that which names the tables.

    It is tried in a process of its own, which must not end so.
    """
    place = damaged(tmp_path, lambda store: None)
    place.store.close()
    with (tmp_path / "data.mdb").open("r+b") as file:
        file.truncate(4096 * left_pages if left_pages > 0 else file.seek(0, 2) + 4096 * left_pages)
    opening = f"LmdbStore(pathlib.Path({str(tmp_path)!r}), bytes_max={place.bytes_max})"
    program = f"import pathlib; from storage.lmdb_store import LmdbStore; {opening}"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr.count("DamageError: ")) == (1, 1), ended
    assert "is cut short" in ended.stderr


def test_a_store_that_is_closed_ends_its_sweep(tmp_path: Path) -> None:
    place = Place("lmdb", tmp_path)
    fill(place.store)
    running = place.store.start_sweep()
    place.close()
    assert not running.is_running
