"""Members come and go: when a change is in force, who counts meanwhile, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product
from typing import Any

import pytest

from cluster.engine import Engine, NotLeaderError
from cluster.journal import BrokenInvariantError
from cluster.membership import ChangeRefusedError, Membership, encode_membership
from cluster.messages import Append, PreVote, PreVoted, RequestVote, TimeoutNow, Vote, Welcome
from cluster.tuning import Tuning
from tests.cluster.bench import Bench, payload
from tests.simulation.world import Violation, World

TUNING = Tuning()
THREE = Membership("", {"a": "", "b": "", "c": ""})
WITH_D = THREE.with_learner("d", "D")
FOUR = WITH_D.with_voter("d")


def leading(tuning: Tuning | None = None) -> Bench:
    bench = Bench("abc", tuning=tuning)
    bench.lead()
    return bench


def change(bench: Bench, membership: Membership) -> int:
    bench.sent.clear()
    bench.store.begin()
    index = bench.engine.change(membership)
    bench.engine.replicate()
    bench.store.commit()
    bench.engine.synced()
    return index


def committed(bench: Bench, membership: Membership) -> None:
    """A change, acknowledged by b and c."""
    index = change(bench, membership)
    bench.tick(("b", bench.ack(index)), ("c", bench.ack(index)))
    assert bench.engine.commit_index == index


def following(*memberships: Membership, commit: int = 1) -> Bench:
    """Replica a after b has sent it these memberships, each in an entry of term 1."""
    bench = Bench("abc")
    bench.connect("b", "c")
    entries = [(1, encode_membership(membership)) for membership in memberships]
    bench.tick(("b", Append(1, 1, 0, entries, commit, 0, 0.0)))
    bench.store.begin()
    bench.engine._standing.welcomed()
    bench.store.commit()
    return bench


# --- when a change is in force ----------------------------------------------------------------------------------------


def test_a_change_is_in_force_when_it_is_appended_also_for_its_own_commit() -> None:
    bench = leading()
    committed(bench, WITH_D)
    bench.connect("d")
    index = change(bench, FOUR)
    assert bench.engine.membership == FOUR
    bench.tick(("b", bench.ack(index)))
    assert bench.engine.commit_index < index, "a and b are two of four"
    bench.tick(("d", bench.ack(index)))
    assert bench.engine.commit_index == index


def test_a_follower_takes_it_over_when_it_is_appended_and_back_when_it_is_truncated() -> None:
    bench = following(WITH_D, FOUR, commit=2)
    assert bench.engine.membership == FOUR
    bench.tick(("c", Append(2, 2, 1, [(2, payload("other"))], 2, 0, 0.0)))
    assert bench.engine.membership == WITH_D
    assert bench.engine._voting == {"a", "b", "c"}


@pytest.mark.parametrize("commit", [1, 2, 3], ids=["nothing applied", "one applied", "all applied"])
def test_it_survives_a_restart(commit: int) -> None:
    bench = following(WITH_D, FOUR, commit=commit)
    again = Bench("abc", store=bench.store.crashed())
    assert again.engine.membership == FOUR
    assert again.engine.memberships.applied == (None, WITH_D, FOUR)[commit - 1]


def test_it_outlives_the_entry_that_made_it() -> None:
    bench = Bench("abc", tuning=Tuning(journal_keep_entries=0))
    bench.connect("b", "c")
    entries = [(1, encode_membership(WITH_D)), (1, payload("x")), (1, payload("y"))]
    bench.tick(("b", Append(1, 1, 0, entries, 4, 0, 0.0)))
    bench.tick()
    assert bench.store.first_index > 2
    assert Bench("abc", store=bench.store.crashed()).engine.membership == WITH_D


def test_it_travels_with_a_snapshot() -> None:
    source = following(WITH_D, FOUR, commit=3)
    copy, store = source.store.start_copy(), Bench("abcd").store
    install = store.start_install(copy.size)
    install.write(0, copy.read(0, copy.size))
    install.check(copy.applied)
    install.finish()
    assert Bench("abcd", store=store.crashed()).engine.membership == FOUR


def test_a_store_that_never_saw_a_change_has_the_configured_members() -> None:
    old = Bench("abc")
    old.connect("b", "c")
    old.tick(("b", old.append((1, 0), (1, "x"), term=1, commit=2)))
    again = Bench("abc", store=old.store.crashed())
    assert again.engine.membership == THREE
    assert again.engine.memberships.applied is None


# --- one at a time ----------------------------------------------------------------------------------------------------


def test_no_change_before_an_entry_of_the_term_is_committed() -> None:
    bench = Bench("abc")
    bench.connect("b", "c")
    bench.wait(2.0)
    bench.tick()
    question = bench.got(PreVote)[0]
    bench.tick(*((n, PreVoted(0, question.round, True)) for n in "bc"))
    bench.tick(("b", Vote(1)))
    assert bench.engine.is_leader
    with pytest.raises(ChangeRefusedError, match="under way"):
        change(bench, WITH_D)


def test_no_change_while_another_is_not_committed() -> None:
    bench = leading()
    change(bench, WITH_D)
    with pytest.raises(ChangeRefusedError, match="under way"):
        change(bench, WITH_D.without("c"))
    bench.store.commit()
    bench.tick(("b", bench.ack(3)))
    change(bench, WITH_D.without("c"))
    assert bench.engine.membership.removed == ("c",)


def test_only_a_leader_changes_anything() -> None:
    with pytest.raises(NotLeaderError):
        change(following(), WITH_D)


@pytest.mark.parametrize(
    "membership",
    [Membership("", {"a": ""}), Membership("", {"a": "", "b": "", "c": "", "d": "", "e": ""}), THREE.without("a")],
    ids=["two fewer", "two more", "without the leader itself"],
)
def test_a_step_that_is_none_is_a_bug(membership: Membership) -> None:
    with pytest.raises(BrokenInvariantError, match="more than one step"):
        change(leading(), membership)


# --- learners ---------------------------------------------------------------------------------------------------------


def test_a_learner_counts_for_nothing() -> None:
    bench = leading()
    committed(bench, WITH_D)
    bench.connect("d")
    bench.tick(propose=("x",))
    assert [m.entries for m in bench.got(Append, "d")], "it is sent everything"
    bench.tick(("d", bench.ack(3)))
    assert bench.engine.commit_index == 3
    bench.wait(0.2)
    bench.tick(("d", bench.ack(3)))
    assert bench.engine.confirmed_since() < bench.now_s
    bench.wait(1.0)
    bench.tick(("d", bench.ack(3)))
    assert bench.engine.membership == WITH_D
    assert not bench.engine.is_leader, "nor does it keep the leader in office"


def test_a_learner_becomes_a_voter_when_it_holds_everything_and_its_word_counts() -> None:
    bench = leading()
    committed(bench, WITH_D)
    bench.connect("d")
    bench.tick(propose=("x",))
    bench.tick(*((n, bench.ack(4)) for n in "bc"), ("d", bench.ack(3)))
    assert bench.engine.membership == WITH_D, "it lacks the last entry"
    bench.tick(("d", bench.ack(4, counts=False)))
    assert bench.engine.membership == WITH_D, "it has everything, but does not remember its promises"
    bench.tick(("d", bench.ack(4)))
    assert bench.engine.membership == FOUR


def test_a_learner_is_level_when_it_keeps_up_though_never_quite_there() -> None:
    bench = leading()
    committed(bench, WITH_D)
    bench.connect("d")
    behind = 3
    for round_s in (TUNING.election_min_s + 0.1, TUNING.election_min_s - 0.1):
        bench.tick(propose=("x", "y"))
        last = bench.engine.last_index
        bench.tick(*((n, bench.ack(last)) for n in "bc"), ("d", bench.ack(behind)))
        bench.wait(0.3)
        bench.tick(*((n, bench.ack(last)) for n in "bc"))
        assert bench.engine.membership == WITH_D
        bench.wait(round_s - 0.3)
        bench.tick(*((n, bench.ack(last)) for n in "bc"), propose=("z",))
        bench.tick(*((n, bench.ack(last + 1)) for n in "bc"), ("d", bench.ack(last)))
        behind = last
    assert bench.engine.membership == FOUR


def test_a_learner_does_not_campaign_but_votes() -> None:
    learner = Bench("abc")
    learner.connect("b", "c", "d", born=True)
    as_learner = Membership("", {"b": "", "c": "", "d": ""}, {"a": ""})
    learner.tick(("b", Append(1, 1, 0, [(1, encode_membership(as_learner))], 2, 0, 0.0)))
    learner.tick(("b", Welcome(1)))
    learner.engine.disconnected("b")
    for _ in range(5):
        learner.wait(1.0)
        learner.tick()
        assert learner.got(PreVote) == []
    learner.tick(("c", RequestVote(2, 2, 1, False)))
    assert learner.got(Vote, "c"), "c may have made a voter of it already"
    learner.tick(("c", Append(2, 2, 1, [], 2, 0, 0.0)))
    learner.tick(("c", TimeoutNow(2)))
    learner.tick()
    assert learner.got(RequestVote) == [], "nor when it is asked to"


def test_only_voters_elect() -> None:
    bench = following(WITH_D, commit=2)
    bench.connect("d", born=True)
    bench.wait(2.0)
    bench.tick()
    assert bench.got(PreVote, "d") == []
    (question, *_) = bench.got(PreVote)
    bench.tick(("d", PreVoted(1, question.round, True)))
    assert bench.got(RequestVote) == []
    bench.tick(("b", PreVoted(1, question.round, True)))
    assert sorted(node for node, m in bench.sent if isinstance(m, RequestVote)) == ["b", "c"]
    bench.tick(("d", Vote(2)))
    assert not bench.engine.is_leader
    bench.tick(("c", Vote(2)))
    assert bench.engine.is_leader


def test_nobody_hands_over_to_a_learner() -> None:
    bench = leading()
    committed(bench, WITH_D)
    bench.connect("d")
    bench.tick(propose=("x",))
    bench.engine.transfer("d")
    bench.tick(*((n, bench.ack(4)) for n in "bc"), ("d", bench.ack(4)))
    assert bench.engine.membership == WITH_D
    assert bench.got(TimeoutNow) == []


# --- removal ----------------------------------------------------------------------------------------------------------


def test_a_removed_voter_is_sent_nothing_and_counts_for_nothing() -> None:
    bench = leading()
    index = change(bench, THREE.without("c"))
    assert {node for node, m in bench.sent if isinstance(m, Append) and m.entries} == {"b"}
    bench.wait(0.1)
    bench.tick(("c", bench.ack(index)))
    assert bench.engine.commit_index < index, "a is one of two"
    assert [node for node, _ in bench.sent if node == "c"] == []
    bench.tick(("b", bench.ack(index)))
    assert bench.engine.commit_index == index


def test_what_two_of_four_held_is_committed_when_they_are_two_of_three() -> None:
    bench = leading()
    committed(bench, WITH_D)
    bench.connect("d")
    bench.tick(("d", bench.ack(3)))
    assert bench.engine.membership == FOUR
    bench.tick(("b", bench.ack(4)), ("c", bench.ack(4)))
    index = change(bench, FOUR.without("d"))
    bench.tick(("b", bench.ack(index)))
    assert bench.engine.commit_index == index


@pytest.mark.parametrize("trouble", ["gone", "silent", "wiped"])
def test_nobody_is_removed_when_those_who_are_left_would_be_no_majority(trouble: str) -> None:
    bench = leading()
    if trouble == "gone":
        bench.engine.disconnected("b")
    elif trouble == "silent":
        bench.wait(TUNING.election_min_s)
    else:
        bench.tick(("b", bench.ack(2, counts=False)))
    bench.tick(("c", bench.ack(2)))
    with pytest.raises(ChangeRefusedError, match="only a can be counted on now, which is no majority"):
        change(bench, THREE.without("c"))
    bench.store.commit()
    change(bench, THREE.without("b"))
    assert bench.engine.membership.voters.keys() == {"a", "c"}


class Manual(Engine):
    """Makes voters only when the story says so."""

    def _promote(self) -> None:
        pass


class Hasty(Manual):
    """Changes the membership before an entry of its term is committed."""

    may_change = Engine.may_propose


def two_leaders_change_the_membership(engine_class: type[Engine]) -> World:
    """The fault of single-server changes that was found in 2015.

    In a cluster of a, b, c and d, leader a makes a voter of e, of which only e hears. The next leader, whose first
    entry reaches only one other, makes a voter of f. Their majorities of five, {a, d, e} and {b, c, f}, share nobody.
    """

    def engine(name: str, members: object, *args: Any, **kwargs: Any) -> Engine:
        return engine_class(name, {*"abcd", name}, *args, **kwargs)

    def do(name: str, action: Callable[[Engine], object]) -> None:
        world.nodes[name].notices.append(action)
        world._wake(world.nodes[name], 0.0)
        world.run(0.3)

    def part(*sides: str) -> None:
        world.heal()
        for side, other in permutations(sides, 2):
            for one, another in product(side, other):
                world.block(one, another)

    world = World("abcdef", 1, engine_class=engine)  # type: ignore[arg-type]
    world.start()
    world.run_until(
        lambda: all(node.engine and node.engine.born for node in world.nodes.values() if node.name in "abcd")
    )
    assert world.leader is not None
    if world.leader.name != "a":
        do(world.leader.name, lambda engine: engine.transfer("a"))
    for learner in "ef":
        do("a", lambda engine, learner=learner: engine.change(engine.membership.with_learner(learner, learner)))
    world.run_until(lambda: all(node.engine and node.engine.born for node in world.nodes.values()))

    world.lost = lambda source, target, message: target == "d" and isinstance(message, Append) and bool(message.entries)
    part("ae", "bcdf")
    do("a", lambda engine: engine.change(engine.membership.with_voter("e")))
    world.run_until(lambda: world.leader is not None and world.leader.name in "bc")
    second = world.leader.name
    do(second, lambda engine: engine.change(engine.membership.with_voter("f")))
    acknowledged = world.propose(second, 1)
    world.run(0.2)
    assert acknowledged in world.acknowledged

    part("ade", "bcf")
    world.run_until(lambda: world.engine("a").is_leader, 20.0)
    world.propose("a", 2)
    world.run(1.0)
    return world


def test_a_leader_commits_an_entry_of_its_term_before_it_changes_the_membership() -> None:
    with pytest.raises(ChangeRefusedError, match="under way"):
        two_leaders_change_the_membership(Manual)
    with pytest.raises(Violation):
        two_leaders_change_the_membership(Hasty)


# --- who knows less or more -------------------------------------------------------------------------------------------


def test_a_replica_votes_for_and_follows_one_that_its_journal_does_not_know() -> None:
    bench = following(WITH_D, commit=2)
    bench.connect("x", born=True)
    bench.engine.disconnected("b")
    bench.wait(2.0)
    bench.tick(("x", RequestVote(5, 9, 4, False)))
    assert [vote.term for vote in bench.got(Vote, "x")] == [5]
    bench.tick(("x", Append(5, 2, 1, [(5, payload("new"))], 3, 0, 0.0)))
    assert bench.engine.leader == "x"
    assert bench.applied == [(3, 5, "new")]


def test_a_vote_that_comes_after_the_candidacy_elects_nobody() -> None:
    bench = following(WITH_D, commit=2)
    bench.wait(2.0)
    bench.tick()
    (question, *_) = bench.got(PreVote)
    bench.tick(("b", PreVoted(1, question.round, True)))
    assert bench.got(RequestVote)
    bench.wait(TUNING.candidacy_s)
    bench.tick(("b", Vote(2)))
    assert not bench.engine.is_leader, "b may have been wiped and welcomed meanwhile, and vote again"


def test_a_welcome_waits_until_earlier_candidacies_are_over() -> None:
    bench = leading()
    bench.tick(("c", bench.ack(2, counts=False)))
    bench.wait(TUNING.candidacy_s - 0.01)
    bench.tick(("b", bench.ack(2)), ("c", bench.ack(2, counts=False)))
    assert bench.got(Welcome) == []
    bench.wait(0.02)
    bench.tick(("b", bench.ack(2)), ("c", bench.ack(2, counts=False)))
    assert bench.got(Welcome, "c"), "b has answered a message sent after they were"


def test_a_welcomed_replica_votes_in_no_term_in_which_it_may_have_voted() -> None:
    bench = Bench()
    bench.connect("b", "c", born=True)
    bench.tick(("b", bench.append((1, 0), (1, "x"), term=1)))
    bench.tick(("b", Welcome(1)))
    bench.engine.disconnected("b")
    bench.wait(TUNING.election_max_s)
    bench.tick(("c", RequestVote(1, 9, 9, False)))
    assert bench.got(Vote) == []
    bench.tick(("c", RequestVote(2, 9, 9, False)))
    assert bench.got(Vote)


# --- the record -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attempt", "code"),
    [
        (lambda m: m.with_learner("b", "elsewhere"), "name_in_use"),
        (lambda m: m.with_learner("old", "O"), "name_removed"),
        (lambda m: m.with_learner("e", "D"), "address_in_use"),
        (lambda m: m.moved("b", "D"), "address_in_use"),
        (lambda m: m.moved("x", "X"), "not_a_member"),
        (lambda m: m.without("x"), "not_a_member"),
        (lambda m: Membership("", {"a": ""}, {"d": "D"}).without("a"), "last_voter"),
        (lambda m: Membership("", {str(n): str(n) for n in range(8)}).with_learner("x", "X"), "too_many_members"),
    ],
)
def test_what_cannot_be_is_refused(attempt: object, code: str) -> None:
    membership = Membership("", {"a": "A", "b": "B"}, {"d": "D"}, ("old",))
    with pytest.raises(ChangeRefusedError) as refused:
        attempt(membership)  # type: ignore[operator]
    assert refused.value.code == code


def test_the_same_again_changes_nothing() -> None:
    membership = Membership("", {"a": "A", "b": "B"}, {"d": "D"}, ("old",))
    assert membership.with_learner("d", "D") == membership
    assert membership.with_learner("b", "B") == membership
    assert membership.without("old") == membership
    assert membership.moved("d", "D") == membership
    assert membership.moved("d", "E").learners == {"d": "E"}
