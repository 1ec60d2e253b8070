"""What a follower takes in, what a leader counts, and what neither may ever do."""

from __future__ import annotations

from math import inf

import pytest

from cluster.engine import NotLeaderError
from cluster.journal import BrokenInvariantError
from cluster.messages import Append, Appended
from cluster.replication import Follower
from cluster.tuning import Tuning
from tests.cluster.bench import Bench

START = (1, 0)


def follower_with(*entries: tuple[int, str], term: int = 1, commit: int = 1) -> Bench:
    bench = Bench()
    bench.connect("b", "c")
    bench.tick(("b", bench.append(START, *entries, term=term, commit=commit)))
    return bench


# --- following --------------------------------------------------------------------------------------------------------


def test_a_smaller_batch_sent_again_shrinks_nothing() -> None:
    bench = follower_with((1, "x"), (1, "y"), (1, "z"))
    bench.tick(("b", bench.append(START, (1, "x"), term=1)))
    assert bench.log() == [(1, "x"), (1, "y"), (1, "z")]
    assert bench.got(Appended)[0].match_index == 2, "and no more is claimed than this message has shown"


def test_the_first_other_entry_is_replaced_with_all_that_follow_it() -> None:
    bench = follower_with((1, "x"), (1, "y"), (1, "z"))
    bench.tick(("c", bench.append(START, (1, "x"), (2, "other"), term=2)))
    assert bench.log() == [(1, "x"), (2, "other")]


def test_only_entries_that_the_message_has_shown_to_be_the_same_are_committed() -> None:
    bench = follower_with((1, "x"), (1, "mine"), (1, "mine too"))
    bench.tick(("c", bench.append((2, 1), term=2, commit=4)))
    assert bench.engine.commit_index == 2
    assert bench.applied == [(2, 1, "x")]


def test_a_committed_entry_is_never_replaced() -> None:
    bench = follower_with((1, "x"), (1, "y"), commit=3)
    assert bench.engine.commit_index == 3
    with pytest.raises(BrokenInvariantError, match="entry 3 is committed"):
        bench.tick(("c", bench.append((2, 1), (2, "other"), term=2)))
    assert bench.log() == [(1, "x"), (1, "y")]


@pytest.mark.parametrize("prev", [(9, 1), (4, 2)], ids=["beyond the end", "of another term"])
def test_a_refusal_names_the_place_where_the_logs_surely_agree(prev: tuple[int, int]) -> None:
    bench = follower_with((1, "x"), (1, "y"), (1, "z"), commit=2)
    bench.tick(("c", bench.append(prev, (2, "new"), term=2)))
    (answer,) = bench.got(Appended, "c")
    assert (answer.ok, answer.prev_index, answer.next_index) == (False, prev[0], 3)
    assert len(bench.log()) == 3


def test_a_leader_of_an_older_term_learns_the_term_and_changes_nothing() -> None:
    bench = follower_with((3, "x"), term=3)
    bench.tick(("c", bench.append(START, (2, "old"), term=2)))
    (answer,) = bench.got(Appended, "c")
    assert (answer.term, answer.ok) == (3, False)
    assert bench.log() == [(3, "x")]
    assert bench.engine.leader == "b"


def test_what_was_applied_before_a_restart_is_not_applied_again() -> None:
    bench = follower_with((1, "x"), (1, "y"), (1, "z"), commit=3)
    assert [text for _, _, text in bench.applied] == ["x", "y"]
    again = Bench(store=bench.store.crashed())
    assert (again.engine.applied_index, again.engine.commit_index, again.engine.last_index) == (3, 3, 4)
    again.connect("b", "c", born=True)
    again.tick(("b", again.append((4, 1), term=1, commit=4)))
    assert again.applied == [(4, 1, "z")]


def test_a_long_journal_is_applied_in_portions() -> None:
    bench = Bench(tuning=Tuning(apply_entries=2))
    bench.connect("b", "c")
    bench.tick(("b", bench.append(START, *((1, str(n)) for n in range(5)), term=1, commit=6)))
    portions = [len(bench.applied)]
    while bench.engine.next_wakeup() <= bench.now_s:
        bench.tick()
        portions.append(len(bench.applied))
    assert portions == [2, 4, 5]


def test_the_journal_is_compacted_up_to_what_is_durably_applied() -> None:
    bench = Bench(tuning=Tuning(journal_keep_entries=0))
    bench.connect("b", "c")
    bench.tick(("b", bench.append(START, *((1, str(n)) for n in range(5)), term=1, commit=4)), sync=False)
    assert (bench.engine.applied_index, bench.store.first_index) == (4, 1), "a copy made now would end at entry 1"
    bench.engine.synced()
    bench.tick()
    assert bench.store.first_index == 4


def test_what_apply_raises_is_fatal() -> None:
    bench = follower_with((1, "x"))

    def fail(index: int, term: int, data: bytes) -> None:
        raise ZeroDivisionError

    bench.engine._apply = fail
    with pytest.raises(ZeroDivisionError):
        bench.tick(("b", bench.append((2, 1), term=1, commit=2)))


def test_a_stranger_is_not_heard() -> None:
    bench = Bench()
    bench.tick(("mallory", bench.append(START, (9, "mine"), term=9)))
    assert bench.log() == []
    assert bench.engine.term == 0


# --- leading ----------------------------------------------------------------------------------------------------------


def test_an_entry_counts_for_its_leader_only_when_it_is_durable() -> None:
    bench = Bench()
    bench.lead()
    bench.tick(propose=("x",), sync=False)
    bench.tick(("b", bench.ack(3)), sync=False)
    assert bench.engine.commit_index == 2, "b has it, but a's own disk may not"
    bench.engine.synced()
    assert bench.engine.next_wakeup() <= bench.now_s, "now it can be committed at once"
    bench.tick()
    assert bench.applied == [(3, 1, "x")]


def test_a_cluster_of_one_needs_nobody_but_its_disk() -> None:
    bench = Bench("a")
    bench.wait(0.06)
    bench.tick(sync=False)
    assert bench.engine.is_leader
    bench.tick(propose=("x",), sync=False)
    assert bench.engine.commit_index == 1
    bench.engine.synced()
    bench.tick()
    assert bench.applied == [(3, 1, "x")]
    assert bench.engine.confirmed_since() == bench.now_s
    assert bench.engine.born


def test_an_answer_of_another_term_counts_for_nothing() -> None:
    bench = Bench()
    bench.lead()
    bench.tick(propose=("x",))
    bench.tick(("b", bench.ack(3, term=0)))
    assert bench.engine.commit_index == 2


def test_a_leader_that_hears_of_a_higher_term_follows() -> None:
    bench = Bench()
    bench.lead()
    bench.tick(("b", bench.ack(0, term=5)))
    assert (bench.engine.is_leader, bench.engine.leader, bench.engine.term) == (False, None, 5)
    with pytest.raises(NotLeaderError):
        bench.engine.propose(b"\0")


def test_an_acknowledgement_beyond_the_own_log_stops_the_leader() -> None:
    bench = Bench()
    bench.lead()
    with pytest.raises(BrokenInvariantError, match="acknowledges entry 9 of 2"):
        bench.tick(("b", bench.ack(9)))


def test_two_leaders_of_one_term_stop() -> None:
    bench = Bench()
    bench.lead()
    with pytest.raises(BrokenInvariantError, match="both lead in term 1"):
        bench.tick(("b", bench.append(START, term=1)))


def test_what_another_leader_does_not_know_makes_way_for_what_it_has() -> None:
    bench = Bench()
    bench.lead()
    bench.tick(propose=("x", "y"))
    bench.tick(("b", bench.append((2, 1), (2, "z"), term=2)))
    assert bench.log() == [(1, ""), (2, "z")]


def test_a_follower_is_sent_bounded_batches_in_a_bounded_window() -> None:
    bench = Bench(tuning=Tuning(batch_bytes=20, batch_entries=3, window_messages=2, window_bytes=1000))
    bench.lead()
    bench.tick(propose=("1", "2", "3", "4", "five is larger than any batch may be", "6", "7"))
    batches = [[text[1:].decode() for _, text in message.entries] for message in bench.got(Append, "b")]
    assert batches == [["1", "2", "3"], ["4"]]
    bench.tick(("b", bench.ack(6)))
    batches = [[text[1:].decode() for _, text in message.entries] for message in bench.got(Append, "b")]
    assert batches == [["five is larger than any batch may be"], ["6", "7"]], "one entry at least, and whole"


def test_a_follower_that_comes_back_is_asked_before_it_is_sent_more() -> None:
    bench = Bench(tuning=Tuning(batch_entries=1))
    bench.lead()
    bench.tick(propose=("x", "y"))
    assert len([m for m in bench.got(Append, "b") if m.entries]) == 2
    bench.engine.disconnected("b")
    bench.connect("b", born=True)
    bench.tick(propose=("z", "w"))
    assert len([m for m in bench.got(Append, "b") if m.entries]) == 1
    bench.tick(("b", Appended(1, False, 4, 0, 3, 0.0, 0, True, True)))
    (again,) = [m for m in bench.got(Append, "b") if m.entries]
    assert (again.prev_index, [text[1:] for _, text in again.entries]) == (2, [b"x"])


@pytest.mark.parametrize(
    ("probing", "match", "next_index", "refusal", "expected"),
    [
        (True, 0, 10, (9, 3), 3),
        (True, 0, 10, (8, 3), 10),  # an older question's
        (True, 9, 10, (9, 3), 10),  # it has said that it has 9
        (False, 5, 10, (7, 6), 6),
        (False, 5, 10, (4, 3), 10),  # it has said that it has 4
        (False, 5, 10, (12, 3), 10),  # never asked
        (True, 0, 10, (9, 30), 9),  # always back, never forward
    ],
)
def test_old_refusals_change_nothing(
    probing: bool, match: int, next_index: int, refusal: tuple[int, int], expected: int
) -> None:
    follower = Follower(next_index, match_index=match, probing=probing)
    follower.refused(*refusal)
    assert follower.next_index == expected


# --- queries ----------------------------------------------------------------------------------------------------------


def test_leadership_is_confirmed_by_the_answers_of_a_majority() -> None:
    bench = Bench("abcde")
    bench.lead()
    asked_s = bench.now_s
    bench.wait(0.3)
    bench.tick(("b", bench.ack(2)))
    assert bench.engine.confirmed_since() == asked_s, "a and b are two of five"
    bench.tick(("c", bench.ack(2)))
    assert bench.engine.confirmed_since() == bench.now_s
    bench.tick(("b", bench.ack(0, term=7)))
    assert bench.engine.confirmed_since() == -inf


def test_nothing_is_confirmed_before_the_first_entry_of_the_term_is_applied() -> None:
    bench = Bench(tuning=Tuning(apply_entries=1))
    bench.connect("b", "c")
    bench.tick(("b", bench.append(START, (1, "x"), (1, "y"), term=1)))
    bench.engine.disconnected("b")
    bench.store.begin()
    bench.engine._standing.welcomed()
    bench.store.commit()
    bench.lead()
    bench.tick(("b", bench.ack(4)), ("c", bench.ack(4)))
    while bench.engine.applied_index < 4:
        assert bench.engine.confirmed_since() == -inf, "an earlier leader may have answered from x and y"
        bench.tick(("b", bench.ack(4)), ("c", bench.ack(4)))
    assert bench.engine.confirmed_since() == bench.now_s


def test_a_query_has_a_heartbeat_sent_at_once() -> None:
    bench = Bench()
    bench.lead()
    bench.tick()
    assert bench.got(Append) == []
    bench.engine.confirm()
    bench.tick()
    assert {message.echo for message in bench.got(Append)} == {bench.now_s}
    assert len(bench.got(Append)) == 2
