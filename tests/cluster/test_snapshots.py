"""The two ends of a snapshot, without an engine."""

from __future__ import annotations

from itertools import pairwise

import pytest

from cluster.journal import Journal
from cluster.messages import PieceTaken
from cluster.snapshots import ALIVE_S, RESTART_S, RETRY_S, Incoming, Outgoing
from cluster.tuning import Tuning
from storage.memory_store import MemoryCopy, MemoryInstall, MemoryStore
from storage.migrations import FORMAT
from storage.state import CopyError

TUNING = Tuning(piece_bytes=50, window_pieces=2)
TERM, NOW_S = 3, 100.0


def source() -> MemoryStore:
    store = MemoryStore()
    store.begin()
    journal = Journal(store, 1000)
    for index in range(2, 12):
        journal.append(index, 2, bytes(30))
    journal.set_applied(11, 2)
    store.commit()
    return store


def target() -> tuple[MemoryStore, Incoming]:
    store = MemoryStore()
    store.begin()
    Journal(store, 1000)
    store.commit()
    return store, Incoming(store)


def stream(outgoing: Outgoing, incoming: Incoming, commit_index: int = 1, now_s: float = NOW_S) -> list[int | None]:
    """Stream until nothing comes any more: what the leader made of each answer."""
    made: list[int | None] = []
    while pieces := outgoing.pieces("b", TERM, 11, now_s):
        made += [outgoing.taken("b", incoming.take(piece, commit_index, now_s), now_s) for piece in pieces]
    return made


def stream_once(outgoing: Outgoing, incoming: Incoming, commit_index: int) -> int | None:
    piece = outgoing.pieces("b", TERM, 11, NOW_S)[0]
    return outgoing.taken("b", incoming.take(piece, commit_index, NOW_S), NOW_S)


def test_a_whole_snapshot_arrives_and_takes_the_stores_place() -> None:
    store, incoming = target()
    outgoing = Outgoing(source(), TUNING)
    assert set(stream(outgoing, incoming)) == {None}
    told, is_installed = incoming.step(1, NOW_S)
    assert is_installed
    assert told is not None
    assert outgoing.taken("b", told, NOW_S) == 11
    assert store.crashed().last_index == 11
    assert incoming.trouble is None


def test_only_so_many_pieces_are_under_way() -> None:
    outgoing = Outgoing(source(), TUNING)
    assert [piece.offset for piece in outgoing.pieces("b", TERM, 11, NOW_S)] == [0, 50]
    assert outgoing.pieces("b", TERM, 11, NOW_S) == []
    outgoing.taken("b", PieceTaken(TERM, 11, 50), NOW_S)
    assert [piece.offset for piece in outgoing.pieces("b", TERM, 11, NOW_S)] == [100]


def test_a_snapshot_of_what_is_already_committed_is_not_taken() -> None:
    store, incoming = target()
    assert stream_once(Outgoing(source(), TUNING), incoming, commit_index=11) == 11, "the leader need not go on"
    assert incoming.step(11, NOW_S) == (None, False)
    assert store.last_index == 1


def test_what_was_committed_meanwhile_makes_a_snapshot_worthless() -> None:
    store, incoming = target()
    outgoing = Outgoing(source(), TUNING)
    stream(outgoing, incoming)
    told, is_installed = incoming.step(11, NOW_S)
    assert not is_installed
    assert told is not None
    assert outgoing.taken("b", told, NOW_S) == 11, "the leader need not wait"
    assert store.last_index == 1


def test_a_missing_piece_means_to_begin_again_after_a_pause() -> None:
    _, incoming = target()
    outgoing = Outgoing(source(), TUNING)
    _, second = outgoing.pieces("b", TERM, 11, NOW_S)
    answer = incoming.take(second, 1, NOW_S)
    assert answer.offset == -1
    assert outgoing.taken("b", answer, NOW_S) is None
    assert outgoing.pieces("b", TERM, 11, NOW_S) == []
    assert outgoing.pieces("b", TERM, 11, NOW_S + RESTART_S)[0].offset == 0


def test_a_follower_that_takes_nothing_for_long_begins_again() -> None:
    outgoing = Outgoing(source(), TUNING)
    outgoing.pieces("b", TERM, 11, NOW_S)
    late_s = NOW_S + TUNING.snapshot_stall_s + 1.0
    assert [piece.offset for piece in outgoing.pieces("b", TERM, 11, late_s)] == [0, 50]


class Slow(MemoryStore):
    """A store whose installs take their time, or fail, as the story wants."""

    done = False
    fails_with: Exception | None = None

    def start_install(self, size: int) -> MemoryInstall:
        if isinstance(self.fails_with, CopyError):
            raise self.fails_with
        return SlowInstall(self, size)


class SlowInstall(MemoryInstall):
    @property
    def checked(self) -> bool:
        assert isinstance(self._store, Slow)
        if self._store.fails_with is not None:
            raise self._store.fails_with
        return self._store.done and super().checked


def slow() -> tuple[Slow, Incoming]:
    store = Slow()
    store.begin()
    Journal(store, 1000)
    store.commit()
    return store, Incoming(store)


def test_a_long_check_is_waited_for() -> None:
    """However long it takes, the leader does not begin again: it hears that the follower is alive."""
    store, incoming = slow()
    outgoing = Outgoing(source(), TUNING)
    stream(outgoing, incoming)
    now_s = NOW_S
    for _ in range(100):
        now_s += ALIVE_S
        told, is_installed = incoming.step(1, now_s)
        assert told is not None
        assert not is_installed
        assert incoming.step(1, now_s) == (None, False), "once is enough"
        assert outgoing.taken("b", told, now_s) is None
        assert outgoing.pieces("b", TERM, 11, now_s) == []
    store.done = True
    assert incoming.step(1, now_s)[1]


def test_a_leader_that_begins_again_meanwhile_is_asked_to_wait() -> None:
    store, incoming = slow()
    outgoing = Outgoing(source(), TUNING)
    stream(outgoing, incoming)
    outgoing.leave("b")
    assert stream(outgoing, incoming) == [None, None]
    assert outgoing.pieces("b", TERM, 11, NOW_S + 1) == []
    store.done = True
    told, is_installed = incoming.step(1, NOW_S + 1)
    assert is_installed, "what was being checked is not lost"
    assert told is not None
    assert outgoing.taken("b", told, NOW_S + 1) == 11


FAILURES = [ValueError("the copy is damaged"), CopyError("it does not fit")]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_what_cannot_be_used_is_asked_for_ever_more_seldom(failure: Exception) -> None:
    store, incoming = slow()
    store.fails_with = failure
    outgoing = Outgoing(source(), TUNING)
    now_s, tries = NOW_S, []
    while now_s < NOW_S + 4000:
        if outgoing.pieces("b", TERM, 11, now_s):
            outgoing.leave("b")
            tries.append(now_s)
            stream(outgoing, incoming, now_s=now_s)
            told, _ = incoming.step(1, now_s)
            if told is not None:
                outgoing.taken("b", told, now_s)
            assert incoming.trouble == str(failure)
        now_s += 1.0
    pauses = [later - earlier for earlier, later in pairwise(tries)]
    assert pauses[0] >= RETRY_S[0]
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(RETRY_S[1], abs=2)
    store.fails_with, store.done = None, True
    stream(outgoing, incoming, now_s=now_s + RETRY_S[1])
    assert incoming.step(1, now_s)[1], "it is tried for ever"


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_a_leader_is_told_when_its_copy_came_whole_and_is_no_good(failure: Exception) -> None:
    store, incoming = slow()
    store.fails_with = failure
    stream(Outgoing(source(), TUNING), incoming)
    told, _ = incoming.step(1, NOW_S)
    assert (told is not None and told.unfit) == isinstance(failure, ValueError)


@pytest.mark.parametrize("unfit", [True, False])
def test_a_copy_that_came_whole_and_is_no_good_is_made_anew(unfit: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy itself may be damaged, while the store is not, or not any more: the same again would help nobody."""
    store, copies = source(), list[MemoryCopy]()
    monkeypatch.setattr(store, "start_copy", lambda: copies.append(MemoryCopy(store._committed())) or copies[-1])
    outgoing = Outgoing(store, TUNING)
    assert outgoing.pieces("b", TERM, 11, NOW_S)
    assert outgoing.pieces("c", TERM, 11, NOW_S)
    outgoing.taken("b", PieceTaken(TERM, 11, -5, unfit), NOW_S)
    assert (outgoing.floor is None) == unfit
    assert outgoing.pieces("b", TERM, 11, NOW_S + 4) == []
    assert len(copies) == 1, "none is made for who waits"
    assert bool(outgoing.pieces("c", TERM, 11, NOW_S + 4)) == unfit, "nobody else goes on with it"
    [first, *_] = outgoing.pieces("b", TERM, 11, NOW_S + 5)
    assert first.offset == 0
    assert len(copies) == 1 + unfit


def test_a_snapshot_of_a_newer_format_is_refused_at_its_first_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    _, incoming = target()
    monkeypatch.setattr("cluster.snapshots.FORMAT", FORMAT + 1)
    outgoing = Outgoing(source(), TUNING)
    pieces = outgoing.pieces("b", TERM, 11, NOW_S)
    monkeypatch.setattr("cluster.snapshots.FORMAT", FORMAT)
    answers = [incoming.take(piece, 1, NOW_S).offset for piece in pieces]
    assert answers == [-RETRY_S[0]] * 2, "pieces under way do not shorten the pause"
    assert f"format {FORMAT + 1}, this release knows formats up to {FORMAT}" in str(incoming.trouble)


def test_trouble_with_a_snapshot_is_over_when_the_log_was_enough() -> None:
    store, incoming = slow()
    store.fails_with = FAILURES[0]
    stream(Outgoing(source(), TUNING), incoming)
    incoming.step(1, NOW_S)
    assert incoming.trouble is not None
    incoming.step(1, NOW_S + 1000)
    assert incoming.trouble is not None
    incoming.step(2, NOW_S + 1001)
    assert incoming.trouble is None


class FullDisk(MemoryStore):
    copies = 0
    is_full = True

    def start_copy(self) -> MemoryCopy:
        self.copies += 1
        return FailedCopy(self._committed()) if self.is_full else super().start_copy()


class FailedCopy(MemoryCopy):
    @property
    def ready(self) -> bool:  # type: ignore[override]
        raise CopyError("No space left on device")


def test_a_copy_that_could_not_be_made_is_tried_later() -> None:
    """A leader whose disk is too full for a copy goes on leading."""
    store = FullDisk()
    store.begin()
    Journal(store, 1000)
    store.commit()
    outgoing = Outgoing(store, TUNING)
    for _ in range(10):
        assert outgoing.pieces("b", TERM, 1, NOW_S) == []
    assert store.copies == 1
    assert outgoing.floor is None, "the journal need not be kept for it"
    assert outgoing.pieces("b", TERM, 1, NOW_S + RETRY_S[0]) == []
    assert store.copies == 2
    assert outgoing.pieces("b", TERM, 1, NOW_S + 2.5 * RETRY_S[0]) == []
    assert store.copies == 2, "ever more seldom"
    store.is_full = False
    assert outgoing.pieces("b", TERM, 1, NOW_S + 3 * RETRY_S[0])
