"""The two ends of a snapshot, without an engine."""

from __future__ import annotations

from cluster.journal import Journal
from cluster.messages import PieceTaken
from cluster.snapshots import RESTART_S, Incoming, Outgoing
from cluster.tuning import Tuning
from storage.memory_store import MemoryStore

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


def stream(outgoing: Outgoing, incoming: Incoming, commit_index: int = 1) -> list[tuple[int, int | None]]:
    """Stream until it is over: what was answered to each piece, and what the leader made of that."""
    steps: list[tuple[int, int | None]] = []
    while all(done is None for _, done in steps):
        for piece in outgoing.pieces("b", TERM, 11, NOW_S):
            answer = incoming.take(piece, commit_index)
            steps.append((answer.offset, outgoing.taken("b", answer, NOW_S)))
    return steps


def test_a_whole_snapshot_arrives_and_takes_the_stores_place() -> None:
    store, incoming = target()
    outgoing = Outgoing(source(), TUNING)
    steps = stream(outgoing, incoming)
    assert steps[-1][1] == 11
    assert incoming.finish(commit_index=1)
    assert store.crashed().last_index == 11


def test_only_so_many_pieces_are_under_way() -> None:
    outgoing = Outgoing(source(), TUNING)
    assert [piece.offset for piece in outgoing.pieces("b", TERM, 11, NOW_S)] == [0, 50]
    assert outgoing.pieces("b", TERM, 11, NOW_S) == []
    outgoing.taken("b", PieceTaken(TERM, 11, 50), NOW_S)
    assert [piece.offset for piece in outgoing.pieces("b", TERM, 11, NOW_S)] == [100]


def test_a_snapshot_of_what_is_already_committed_is_not_taken() -> None:
    store, incoming = target()
    steps = stream(Outgoing(source(), TUNING), incoming, commit_index=11)
    assert steps[0][1] == 11, "the leader need not go on"
    assert not incoming.finish(commit_index=11)
    assert store.last_index == 1


def test_what_was_committed_meanwhile_makes_a_snapshot_worthless() -> None:
    store, incoming = target()
    stream(Outgoing(source(), TUNING), incoming)
    assert not incoming.finish(commit_index=11)
    assert store.last_index == 1


def test_a_missing_piece_means_to_begin_again_after_a_pause() -> None:
    _, incoming = target()
    outgoing = Outgoing(source(), TUNING)
    _, second = outgoing.pieces("b", TERM, 11, NOW_S)
    answer = incoming.take(second, 1)
    assert answer.offset == -1
    assert outgoing.taken("b", answer, NOW_S) is None
    assert outgoing.pieces("b", TERM, 11, NOW_S) == []
    assert outgoing.pieces("b", TERM, 11, NOW_S + RESTART_S)[0].offset == 0


def test_a_follower_that_takes_nothing_for_long_begins_again() -> None:
    outgoing = Outgoing(source(), TUNING)
    outgoing.pieces("b", TERM, 11, NOW_S)
    late_s = NOW_S + TUNING.snapshot_stall_s + 1.0
    assert [piece.offset for piece in outgoing.pieces("b", TERM, 11, late_s)] == [0, 50]
