"""Both stores mean the same: an ordered map, a journal, transactions, copies."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from storage.record_keys import entry_key
from storage.state import KEY_BYTES_MAX, Logged, StorageFailure, Store
from tests.storage.harness import KINDS, Place, checked, dump, finished, install, set_applied, tick, whole


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    place = Place(request.param, tmp_path / "a")
    yield place
    place.close()


@pytest.fixture
def other(place: Place, tmp_path: Path) -> Iterator[Place]:
    other = Place(place.kind, tmp_path / "b")
    yield other
    other.close()


# --- the ordered map --------------------------------------------------------------------------------------------------


def test_a_value_is_what_was_put_last(place: Place) -> None:
    with tick(place.store) as store:
        assert store.get(b"k") is None
        store.put(b"k", b"1")
        store.put(b"k", b"")
        assert store.get(b"k") == b""
        store.put(b"k", b"22")
        assert store.get(b"k") == b"22"
        store.delete(b"k")
        store.delete(b"k")
        assert store.get(b"k") is None


EDGE_KEYS = [b"\x00", b"\x00\x00", b"a", b"a\x00", b"a\xff", b"a\xff\xff", b"b", b"b" * KEY_BYTES_MAX, b"c\x80"]
EDGE_KEYS += [b"\xff", b"\xff\x00", b"\xff\xff", b"\xff\xff\xff"]
EDGE_PREFIXES = [
    b"",
    b"\x00",
    b"a",
    b"a\xff",
    b"b",
    b"bb",
    b"c",
    b"d",
    b"\xfe",
    b"\xff",
    b"\xff\xff",
    b"\xff\xff\xff\xff",
]
EDGE_RESTS = [b"", b"\x00", b"\x01", b"b" * 399, b"b" * 400, b"b" * 600, b"\xff", b"\xff" * 600]


def test_first_floor_and_scan_agree_with_a_sorted_list(place: Place) -> None:
    with tick(place.store) as store:
        for key in reversed(EDGE_KEYS):
            store.put(key, b"v" + key)
    for prefix, rest in product(EDGE_PREFIXES, EDGE_RESTS):
        inside = [(key, b"v" + key) for key in sorted(EDGE_KEYS) if key.startswith(prefix)]
        later = [(key, value) for key, value in inside if key >= prefix + rest]
        earlier = [(key, value) for key, value in inside if key <= prefix + rest]
        assert list(place.store.scan(prefix, rest)) == later, (prefix, rest)
        assert place.store.first(prefix, rest) == (later[0] if later else None), (prefix, rest)
        assert place.store.floor(prefix, rest) == (earlier[-1] if earlier else None), (prefix, rest)


def test_an_empty_map_has_no_first_and_no_floor(place: Place) -> None:
    assert place.store.first(b"") is None
    assert place.store.floor(b"", b"\xff") is None
    assert list(place.store.scan(b"")) == []


@pytest.mark.parametrize("key", [b"", b"k" * (KEY_BYTES_MAX + 1), b"k" * 10_000])
def test_a_key_no_store_takes_is_never_found_and_never_put(place: Place, key: bytes) -> None:
    with tick(place.store) as store:
        assert store.get(key) is None
        store.delete(key)
        with pytest.raises(AssertionError):
            store.put(key, b"v")
    assert place.store.get(b"still here") is None


def test_scans_may_be_nested(place: Place) -> None:
    with tick(place.store) as store:
        for key in (b"a1", b"a2", b"b1", b"b2"):
            store.put(key, key)
        found = [
            (a, b, store.first(b"b"), store.floor(b"a", b"\xff"))
            for a, _ in store.scan(b"a")
            for b, _ in store.scan(b"b")
        ]
    assert [(a, b) for a, b, _, _ in found] == [(b"a1", b"b1"), (b"a1", b"b2"), (b"a2", b"b1"), (b"a2", b"b2")]


# --- transactions -----------------------------------------------------------------------------------------------------


def test_a_crash_loses_what_was_not_committed_and_nothing_else(place: Place) -> None:
    with tick(place.store) as store:
        store.put(b"kept", b"1")
        store.put(b"changed", b"1")
        store.put(b"deleted", b"1")
        store.set_meta("hard", b"1")
        for index in (1, 2, 3):
            store.append(index, 1, b"entry")
    before = dump(place.store)
    place.store.begin()
    place.store.put(b"changed", b"2")
    place.store.put(b"changed", b"3")
    place.store.put(b"new", b"1")
    place.store.delete(b"deleted")
    place.store.set_meta("hard", b"2")
    place.store.truncate(3)
    place.store.append(3, 2, b"other")
    place.store.append(4, 2, b"other")
    place.store.compact(2, 10)
    place.reopen()
    assert dump(place.store) == before


def test_what_was_committed_is_found_when_opened_again(place: Place) -> None:
    with tick(place.store) as store:
        store.put(b"k", b"v")
        store.append(1, 7, b"one")
        store.append(2, 7, b"")
        store.set_meta("born", b"yes")
        set_applied(store, 1, 7)
    before = dump(place.store)
    place.reopen()
    assert dump(place.store) == before
    assert place.store.logged(2) == Logged(2, 7, b"")


def test_nothing_is_written_outside_a_transaction(place: Place) -> None:
    for write in (
        lambda store: store.put(b"k", b"v"),
        lambda store: store.delete(b"k"),
        lambda store: store.append(1, 1, b""),
        lambda store: store.truncate(1),
        lambda store: store.compact(1, 1),
        lambda store: store.set_meta("hard", b""),
        lambda store: store.commit(),
    ):
        with pytest.raises(AssertionError):
            write(place.store)
    place.store.begin()
    with pytest.raises(AssertionError):
        place.store.begin()


def test_a_transaction_sees_its_own_writes_and_so_does_the_next(place: Place) -> None:
    with tick(place.store) as store:
        store.put(b"a", b"1")
        assert store.first(b"") == (b"a", b"1")
        store.put(b"b", b"2")
        assert store.floor(b"", b"z") == (b"b", b"2")
        store.append(1, 1, b"body")
        assert bytes(store.entry(1)) == b"body"
    assert place.store.floor(b"", b"z") == (b"b", b"2")
    with tick(place.store) as store:
        store.delete(b"b")
        assert store.floor(b"", b"z") == (b"a", b"1")
    assert place.store.floor(b"", b"z") == (b"a", b"1")


# --- the journal ------------------------------------------------------------------------------------------------------


def filled(store: Store, count: int, live: set[int] = frozenset()) -> None:  # type: ignore[assignment]
    with tick(store):
        for index in range(1, count + 1):
            store.append(index, 1, b"%d" % index)
        for index in live:
            store.put(entry_key(index), b"\0\0\0\1")


def test_an_empty_journal_begins_at_one(place: Place) -> None:
    assert (place.store.first_index, place.store.last_index) == (1, 0)
    assert place.store.logged(0) is None
    assert place.store.logged(1) is None


def test_entries_are_appended_in_order_only(place: Place) -> None:
    with tick(place.store) as store:
        with pytest.raises(AssertionError):
            store.append(2, 1, b"")
        store.append(1, 1, b"one")
        with pytest.raises(AssertionError):
            store.append(1, 1, b"again")
        store.append(2, 1, b"two")
    assert [place.store.logged(index) for index in (1, 2, 3)] == [Logged(1, 1, b"one"), Logged(2, 1, b"two"), None]


def test_a_truncated_tail_is_replaced(place: Place) -> None:
    filled(place.store, 5)
    assert bytes(place.store.entry(4)) == b"4"
    with tick(place.store) as store:
        store.truncate(4)
        assert store.last_index == 3
        assert store.logged(4) is None
        store.append(4, 2, b"four")
    place.reopen()
    assert place.store.last_index == 4
    assert place.store.logged(4) == Logged(4, 2, b"four")
    assert bytes(place.store.entry(4)) == b"four"


def test_a_truncation_past_the_end_changes_nothing(place: Place) -> None:
    filled(place.store, 2)
    with tick(place.store) as store:
        store.truncate(3)
        store.truncate(9)
    assert place.store.last_index == 2


def test_what_is_compacted_is_never_truncated(place: Place) -> None:
    filled(place.store, 5)
    with tick(place.store) as store:
        store.compact(3, 10)
        with pytest.raises(AssertionError):
            store.truncate(3)


def test_compaction_keeps_entries_with_live_messages(place: Place) -> None:
    filled(place.store, 6, live={2, 3})
    with tick(place.store) as store:
        store.compact(5, 100)
    place.reopen()
    store = place.store
    assert store.first_index == 5
    assert [store.logged(index) for index in (2, 4)] == [None, None]
    assert [bytes(store.entry(index)) for index in (2, 3, 5, 6)] == [b"2", b"3", b"5", b"6"]
    with pytest.raises(StorageFailure):
        store.entry(4)


def test_a_released_entry_goes_at_once_below_the_first_index_and_with_compaction_above(place: Place) -> None:
    filled(place.store, 6, live={2, 5})
    with tick(place.store) as store:
        store.compact(4, 100)
        for index in (2, 5):
            store.delete(entry_key(index))
            store.release(index)
    assert place.store.logged(5) == Logged(5, 1, b"5")
    with tick(place.store) as store:
        store.compact(6, 100)
    for index in (5, 2):
        place.reopen()
        with pytest.raises(StorageFailure):
            place.store.entry(index)


def test_compaction_is_done_in_steps_and_stops_at_the_last_entry(place: Place) -> None:
    filled(place.store, 10)
    seen = []
    for _ in range(4):
        with tick(place.store) as store:
            store.compact(99, 3)
        seen.append(place.store.first_index)
    assert seen == [4, 7, 10, 10]
    assert place.store.logged(10) == Logged(10, 1, b"10")
    with tick(place.store) as store:
        store.compact(2, 3)
        store.append(11, 2, b"11")
    assert (place.store.first_index, place.store.last_index) == (10, 11)


# --- copies -----------------------------------------------------------------------------------------------------------


def leader(store: Store) -> None:
    """Entries 1 … 6, applied up to 5, compacted below 3; entry 2 is live."""
    filled(store, 6, live={2})
    with tick(store):
        store.compact(3, 9)
        store.put(b"queue", b"leader's")
        store.set_meta("hard", b"leader's")
        store.set_meta("born", b"leader's")
        set_applied(store, 5, 1)


def test_a_copy_brings_the_state_and_leaves_the_replica_its_own_values(place: Place, other: Place) -> None:
    leader(place.store)
    with tick(other.store) as store:
        store.put(b"old", b"follower's")
        store.set_meta("hard", b"follower's")
    copy = finished(place.store.start_copy())
    assert copy.applied == (5, 1)
    install(other.store, whole(copy), (5, 1))
    store = other.reopen()
    assert dump(store) == {
        "bounds": (3, 5),
        "journal": [Logged(index, 1, b"%d" % index) for index in (3, 4, 5)],
        "live": {entry_key(2): b"2"},
        "state": [(entry_key(2), b"\0\0\0\1"), (b"queue", b"leader's")],
        "meta": {"applied": b"\5" + b"\0" * 7 + b"\1" + b"\0" * 7, "hard": b"follower's", "born": None},
    }
    with tick(store):
        store.append(6, 2, b"on")
    assert other.reopen().logged(6) == Logged(6, 2, b"on")


@pytest.mark.parametrize(
    ("terms", "kept"),
    [
        ([1, 1, 1, 1, 1, 2, 2], [6, 7]),  # holds entry 5 as the leader has it: what follows is kept
        ([1, 1, 1, 1, 2, 2, 2], []),  # another entry 5: all that follows is worthless
        ([1, 1, 1], []),  # does not reach entry 5
        ([1, 1, 1, 1, 1], []),
    ],
)
def test_the_journal_after_a_copy_is_kept_if_it_continues_it(
    place: Place, other: Place, terms: list[int], kept: list[int]
) -> None:
    leader(place.store)
    with tick(other.store) as store:
        for index, term in enumerate(terms, start=1):
            store.append(index, term, b"mine")
    install(other.store, whole(finished(place.store.start_copy())), (5, 1))
    store = other.reopen()
    assert (store.first_index, store.last_index) == (3, 5 + len(kept))
    assert [store.logged(index) for index in kept] == [Logged(index, terms[index - 1], b"mine") for index in kept]


def test_a_copy_is_of_the_moment_it_was_begun(place: Place, other: Place) -> None:
    leader(place.store)
    copy = place.store.start_copy()
    with tick(place.store) as store:
        store.put(b"queue", b"later")
        set_applied(store, 6, 1)
    assert finished(copy).applied == (5, 1)
    install(other.store, whole(copy), (5, 1))
    assert other.reopen().get(b"queue") == b"leader's"
    copy.close()


def test_a_copy_begun_in_a_transaction_has_nothing_of_it(place: Place, other: Place) -> None:
    leader(place.store)
    place.store.begin()
    place.store.put(b"queue", b"uncommitted")
    copy = finished(place.store.start_copy())
    place.store.commit()
    install(other.store, whole(copy), (5, 1))
    assert other.reopen().get(b"queue") == b"leader's"


@pytest.mark.parametrize("fault", ["cut short", "flipped", "other index", "other term"])
def test_a_copy_that_is_not_what_it_says_changes_nothing(place: Place, other: Place, fault: str) -> None:
    leader(place.store)
    filled(other.store, 2)
    before = dump(other.store)
    copy = finished(place.store.start_copy())
    data = bytearray(copy.read(0, copy.size))
    incoming = other.store.start_install(len(data))
    if fault == "flipped":
        data[len(data) // 2] ^= 1
    incoming.write(0, bytes(data[:-1] if fault == "cut short" else data))
    with pytest.raises(ValueError, match="copy"):
        checked(incoming, {"other index": (4, 1), "other term": (5, 2)}.get(fault, (5, 1)))
    assert dump(other.store) == before
    with tick(other.store) as store:
        store.append(3, 1, b"goes on")
    other.reopen()
    assert other.store.last_index == 3


def test_pieces_are_taken_in_order_only(place: Place, other: Place) -> None:
    leader(place.store)
    pieces = whole(finished(place.store.start_copy()), piece_bytes=37)
    size = sum(len(data) for _, data in pieces)
    incoming = other.store.start_install(size)
    incoming.write(*pieces[0])
    for wrong in (pieces[0], pieces[2], (37, bytes(size))):
        with pytest.raises(ValueError, match="piece"):
            incoming.write(*wrong)
    for piece in pieces[1:]:
        incoming.write(*piece)
    checked(incoming, (5, 1)).finish()
    assert other.reopen().get(b"queue") == b"leader's"


def test_an_abandoned_copy_leaves_nothing(place: Place, other: Place) -> None:
    leader(place.store)
    filled(other.store, 2)
    before = dump(other.store)
    incoming = other.store.start_install(100)
    incoming.write(0, b"x" * 50)
    incoming.abandon()
    incoming.abandon()
    assert dump(other.store) == before
    assert not list(other.directory.glob("incoming*"))
    install(other.store, whole(finished(place.store.start_copy())), (5, 1))
    assert other.reopen().get(b"queue") == b"leader's"


def test_a_replaced_store_takes_no_writes_until_it_is_opened_again(place: Place, other: Place) -> None:
    leader(place.store)
    install(other.store, whole(finished(place.store.start_copy())), (5, 1))
    with pytest.raises(StorageFailure, match="open it again"):
        other.store.begin()


# --- room -------------------------------------------------------------------------------------------------------------


def test_a_full_store_is_emptied_and_filled_again(tmp_path: Path, place: Place) -> None:
    """Sends are refused by room; acks always fit; whatever lies scattered, the store never runs into its end."""
    small = Place(place.kind, tmp_path / "small", bytes_max=8 * 1024 * 1024)
    reserve = 1024 * 1024
    sizes = [100, 70_000, 5_000, 300_000, 1_000, 20_000]
    index = 0
    for cycle in range(4):
        sent = []
        while small.store.room_bytes() > reserve:
            with tick(small.store) as store:
                index += 1
                store.append(index, 1, bytes(sizes[(index + cycle) % len(sizes)]))
                store.put(entry_key(index), b"\0\0\0\1")
                sent.append(index)
        assert len(sent) > 10, "there was room again"
        for kept in (sent[::2], sent[1::2]):  # every other one first: the worst for free pages
            for done in kept:
                with tick(small.store) as store:
                    store.delete(entry_key(done))
                    store.release(done)
                    store.compact(index, 100)
    assert small.store.room_bytes() > 6 * 1024 * 1024
    small.close()
