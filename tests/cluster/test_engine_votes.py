"""Who may be elected, by whom, and when: one engine's answers, case by case."""

from __future__ import annotations

import pytest

from cluster.messages import PreVote, PreVoted, RequestVote, TimeoutNow, Vote, Welcome
from cluster.tuning import Tuning
from tests.cluster.bench import Bench

START = (1, 0)
TUNING = Tuning()


def settled(members: str = "abc") -> Bench:
    """A born replica with an entry of term 1 at index 2, in term 1, long after its start, that hears nobody."""
    first = Bench(members)
    first.connect("b", "c")
    first.tick(("b", first.append(START, (1, "x"), term=1)))
    first.store.begin()
    first.engine._standing.welcomed()
    first.store.commit()
    bench = Bench(members, store=first.store.crashed())
    bench.connect(*members[1:], born=True)
    bench.wait(TUNING.election_min_s)
    return bench


def grants_pre_vote(bench: Bench, *, term: int = 2, last: tuple[int, int] = (2, 1), node: str = "b") -> bool:
    bench.tick((node, PreVote(term, *last, 5)))
    (answer,) = bench.got(PreVoted, node)
    assert answer.round == 5
    return answer.granted


def votes(
    bench: Bench, *, term: int = 2, last: tuple[int, int] = (2, 1), node: str = "b", forced: bool = False
) -> bool:
    bench.tick((node, RequestVote(term, *last, forced)))
    return [vote.term for vote in bench.got(Vote, node)] == [term]


LOGS = [((2, 1), True), ((9, 1), True), ((2, 2), True), ((1, 0), False), ((1, 1), False), ((99, 0), False)]


@pytest.mark.parametrize(("last", "granted"), LOGS)
def test_only_who_has_everything_is_helped(last: tuple[int, int], granted: bool) -> None:
    assert grants_pre_vote(settled(), last=last) is granted
    assert votes(settled(), last=last) is granted


def test_no_pre_vote_for_a_term_that_has_begun() -> None:
    assert not grants_pre_vote(settled(), term=1)


def test_a_pre_vote_promises_nothing() -> None:
    bench = settled()
    assert grants_pre_vote(bench, node="b")
    assert bench.engine.term == 1
    assert grants_pre_vote(bench, node="c")


def test_one_vote_in_a_term_also_after_a_restart() -> None:
    bench = settled()
    assert votes(bench, node="b")
    assert not votes(bench, node="c")
    again = Bench(store=bench.store.crashed())
    again.connect("b", "c", born=True)
    again.wait(TUNING.election_min_s)
    assert not votes(again, node="c")
    assert votes(again, node="c", term=3)


def test_nobody_is_helped_while_the_leader_is_heard_unless_it_wants_it() -> None:
    bench = settled()
    bench.tick(("c", bench.append((2, 1), term=1)))
    assert not grants_pre_vote(bench)
    assert not votes(bench)
    assert bench.engine.term == 1, "nor is the term taken over"
    bench.wait(TUNING.election_min_s)
    assert grants_pre_vote(bench), "it has been silent for too long"
    bench.tick(("c", bench.append((2, 1), term=1)))
    assert votes(bench, forced=True)


def test_whoever_lost_its_connection_to_the_leader_helps_at_once() -> None:
    bench = settled()
    bench.tick(("c", bench.append((2, 1), term=1)))
    bench.engine.disconnected("c")
    assert grants_pre_vote(bench)


def test_a_leader_helps_nobody() -> None:
    bench = Bench()
    bench.lead()
    assert not grants_pre_vote(bench, last=(9, 9))
    assert not votes(bench, last=(9, 9))
    assert bench.engine.is_leader


def test_nobody_is_helped_in_the_first_moments_after_a_restart() -> None:
    again = Bench(store=settled().store.crashed())
    again.connect("b", "c", born=True)
    assert not grants_pre_vote(again)
    assert not votes(again)
    again.wait(TUNING.election_min_s)
    assert votes(again)


def test_of_two_that_ask_each_other_only_one_is_helped() -> None:
    for peer, granted in (("b", True), ("0", False)):
        bench = Bench(f"a{peer}c")
        bench.connect(peer, "c")
        bench.wait(0.06)
        bench.tick()
        assert bench.got(PreVote), "it is asking itself"
        bench.tick((peer, PreVote(1, 1, 0, 5)))
        assert bench.got(PreVoted)[0].granted is granted


def asking(members: str = "abcde") -> tuple[Bench, PreVote]:
    bench = settled(members)
    bench.wait(1.0)
    bench.tick()
    return bench, bench.got(PreVote)[0]


def test_pre_votes_of_an_earlier_round_do_not_count() -> None:
    bench, question = asking("abc")
    bench.wait(1.0)
    bench.tick()
    assert bench.got(PreVote)[0].round == question.round + 1
    bench.tick(("b", PreVoted(1, question.round, True)))
    assert bench.engine.term == 1
    bench.tick(("b", PreVoted(1, question.round + 1, True)))
    assert bench.engine.term == 2


def test_a_vote_counts_once() -> None:
    bench, question = asking()
    bench.tick(*((node, PreVoted(1, question.round, True)) for node in "bc"))
    assert len(bench.got(RequestVote)) == 4
    bench.tick(("b", Vote(2)), ("b", Vote(2)), ("b", Vote(2)))
    assert not bench.engine.is_leader
    bench.tick(("c", Vote(1)))
    assert not bench.engine.is_leader
    bench.tick(("c", Vote(2)))
    assert bench.engine.is_leader


def test_a_refusal_tells_the_term() -> None:
    bench, question = asking()
    bench.tick(("b", PreVoted(7, question.round, False)))
    assert bench.engine.term == 7


def test_only_the_leader_can_ask_for_a_campaign_and_gets_it_without_pre_votes() -> None:
    bench = settled()
    bench.tick(("c", bench.append((2, 1), term=1)))
    bench.tick(("b", TimeoutNow(1)))
    assert bench.got(RequestVote) == []
    bench.tick(("c", TimeoutNow(1)))
    assert [request.forced for request in bench.got(RequestVote)] == [True, True]


# --- unborn -----------------------------------------------------------------------------------------------------------


def test_an_unborn_replica_helps_only_to_found_a_cluster() -> None:
    early = Bench()
    early.connect("b")
    assert not grants_pre_vote(early, last=(1, 0)), "c may know of data"
    assert not votes(early, last=(1, 0))
    early.connect("c")
    assert grants_pre_vote(early, last=(1, 0))
    assert votes(early, last=(1, 0))
    assert not early.engine.born
    early.engine.disconnected("c")
    assert votes(early, last=(1, 0), term=3), "it has promised, and remembers: it needs nobody's leave any more"


def test_a_wiped_replica_that_has_met_a_born_one_helps_nobody() -> None:
    wiped = Bench()
    wiped.connect("b", born=True)
    wiped.engine.disconnected("b")
    wiped.connect("b", "c")
    assert not grants_pre_vote(wiped, last=(9, 9)), "there is data somewhere"
    assert not votes(wiped, last=(9, 9))
    assert not votes(wiped, last=(9, 9), forced=True)


def test_a_wiped_replica_that_was_sent_entries_helps_nobody_after_a_restart_either() -> None:
    wiped = Bench()
    wiped.tick(("b", wiped.append(START, (1, "x"), term=1)))
    again = Bench(store=wiped.store.crashed())
    again.connect("b", "c")
    assert not grants_pre_vote(again, last=(9, 9))


def test_a_founder_is_born_by_the_first_entry() -> None:
    bench = Bench()
    bench.connect("b", "c")
    assert votes(bench, term=1, last=(1, 0))
    assert not bench.engine.born
    bench.tick(("b", bench.append(START, (1, ""), term=1)))
    assert bench.engine.born


def test_a_founder_is_born_by_a_snapshot() -> None:
    bench = Bench()
    bench.connect("b", "c")
    assert votes(bench, term=1, last=(1, 0))
    source = settled()
    source.tick(("b", source.append((2, 1), term=1, commit=2)))
    copy = source.store.start_copy()
    install = bench.store.start_install(copy.size)
    install.write(0, copy.read(0, copy.size))
    install.check(copy.applied)
    install.finish()
    again = Bench(store=bench.store.crashed())
    assert again.engine.born


def test_a_welcomed_replica_waits_before_it_votes() -> None:
    bench = Bench()
    bench.connect("b", "c", born=True)
    bench.tick(("b", bench.append(START, (1, "x"), term=1)))
    bench.tick(("c", Welcome(1)))
    assert not bench.engine.born, "only the leader can tell"
    bench.tick(("b", Welcome(1)))
    assert bench.engine.born
    bench.engine.disconnected("b")
    bench.wait(TUNING.election_max_s - 0.1)
    assert not votes(bench)
    bench.wait(0.1)
    assert votes(bench)
