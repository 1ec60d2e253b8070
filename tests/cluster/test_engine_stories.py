"""Replicas living together in a simulated world: elections, hand-overs, lost disks, snapshots."""

from __future__ import annotations

from math import inf

import pytest

from cluster.engine import NotLeaderError
from cluster.messages import Append, Appended, Piece, PreVote, RequestVote, TimeoutNow
from cluster.tuning import Tuning
from storage.memory_store import MemoryCopy
from tests.simulation.world import World


def grown(names: str = "abc", seed: int = 1, tuning: Tuning | None = None) -> tuple[World, str, list[str]]:
    """A world whose replicas are all born and level, its leader and its followers."""
    world = World(names, seed, tuning)
    world.start()
    world.run_until(lambda: all(node.engine is not None and node.engine.born for node in world.nodes.values()))
    assert world.leader is not None
    leader = world.leader.name
    commit(world, leader, 1)
    world.run(0.2)
    world.log_messages = True
    return world, leader, [name for name in names if name != leader]


def commit(world: World, name: str, label: int, within_s: float = 2.0) -> float:
    """Propose at `name` and wait for the acknowledgement."""
    key = world.propose(name, label)
    return world.run_until(lambda: key in world.acknowledged, within_s)


def sent(world: World, kind: type, source: str | None = None) -> int:
    return sum(isinstance(m, kind) and source in (None, s) for _, s, _, m in world.sent_log)


# --- elections --------------------------------------------------------------------------------------------------------


def test_a_new_cluster_has_a_leader_at_once() -> None:
    for seed in range(10):
        world = World("abc", seed)
        world.start()
        assert world.run_until(lambda world=world: world.leader) < 0.3


def test_after_a_kill_there_is_a_new_leader_within_a_fifth_of_a_second() -> None:
    took_s = []
    for seed in range(30):
        world, leader, _followers = grown(seed=seed)
        world.crash(leader)
        took_s.append(world.run_until(lambda world=world: world.leader))
        assert world.leader is not None
        took_s[-1] += commit(world, world.leader.name, 2)
    assert max(took_s) < 0.2


def test_a_silent_leader_is_replaced_when_its_time_is_over() -> None:
    world, leader, followers = grown()
    world.isolate(leader)
    took_s = world.run_until(lambda: any(world.engine(name).is_leader for name in followers), 3.0)
    assert took_s > 0.5, "silence alone must last"


def test_an_isolated_leader_gives_up_and_answers_nothing_meanwhile() -> None:
    world, leader, _followers = grown()
    world.isolate(leader)
    isolated_s, engine = world.now_s, world.engine(leader)
    lost = world.propose(leader, 7)
    world.run(0.3)
    assert engine.is_leader
    assert engine.confirmed_since() <= isolated_s + 0.01
    took_s = world.run_until(lambda: not engine.is_leader, 1.0)
    assert took_s < 0.5
    assert engine.confirmed_since() == -inf
    world.run(2.0)
    assert not engine.has_quorum or engine.leader is None
    assert lost not in world.acknowledged


def test_a_replica_that_was_cut_off_comes_back_without_disturbing_anyone() -> None:
    world, leader, (lonely, _other) = grown()
    term = world.engine(leader).term
    world.isolate(lonely)
    world.run(5.0)
    assert sent(world, PreVote, lonely) > 5, "it has asked"
    world.heal()
    world.run(2.0)
    assert world.engine(leader).is_leader
    assert {world.engine(name).term for name in world.nodes} == {term}
    assert sent(world, RequestVote) == 0


def test_one_broken_connection_is_no_reason_for_an_election() -> None:
    world, leader, (lonely, _other) = grown()
    term = world.engine(leader).term
    world.block(leader, lonely)
    world.cut(leader, lonely)
    world.run(3.0)
    assert sent(world, PreVote, lonely) > 0
    assert world.engine(leader).is_leader
    assert world.engine(leader).term == term


def test_a_busy_machine_is_no_reason_for_an_election() -> None:
    world, leader, _followers = grown()
    for _ in range(20):
        for name in world.nodes:
            world.pause(name, 0.4)
        world.run(0.5)
    assert world.engine(leader).is_leader
    assert sent(world, PreVote) == 0


# --- logs that differ -------------------------------------------------------------------------------------------------


def test_three_hundred_entries_that_differ_are_resolved_in_one_refusal() -> None:
    world, leader, followers = grown()
    world.isolate(leader)
    for label in range(300):
        world.propose(leader, 1000 + label)
    world.run_until(lambda: any(world.engine(name).is_leader for name in followers), 3.0)
    successor = next(name for name in followers if world.engine(name).is_leader)
    for label in range(300):
        world.propose(successor, 2000 + label)
    world.run(1.0)
    world.sent_log.clear()
    world.heal()
    world.run_until(lambda: world.engine(leader).last_index == world.engine(successor).last_index)
    refusals = [m for _, source, _, m in world.sent_log if isinstance(m, Appended) and source == leader and not m.ok]
    assert len([m for m in refusals if m.term == world.engine(successor).term]) <= 3
    world.run(1.0)
    world.check_all_caught_up()


# --- handing over -----------------------------------------------------------------------------------------------------


def test_a_hand_over_takes_a_moment_and_loses_nothing() -> None:
    world, leader, (heir, _other) = grown()
    labels = [world.propose(leader, label) for label in range(100, 110)]
    world.nodes[leader].notices.append(lambda engine: engine.transfer(heir))
    assert world.run_until(lambda: world.engine(heir).is_leader, 1.0) < 0.1
    commit(world, heir, 200)
    world.run(0.2)
    world.check_all_caught_up()
    assert sum(label in world.acknowledged for label in labels) in (0, len(labels))


def test_the_heir_is_whoever_has_most() -> None:
    world, leader, (lagging, heir) = grown()
    world.block(leader, lagging)
    commit(world, leader, 2)
    world.nodes[leader].notices.append(lambda engine: engine.transfer())
    world.run_until(lambda: world.engine(heir).is_leader, 1.0)


def test_a_hand_over_that_fails_is_given_up() -> None:
    world, leader, (heir, _other) = grown()
    world.block(leader, heir)
    world.propose(leader, 2)
    world.run(0.1)
    engine = world.engine(leader)
    world.nodes[leader].notices.append(lambda engine: engine.transfer(heir))
    world.run(0.2)
    assert not engine.may_propose
    with pytest.raises(NotLeaderError):
        engine.propose(b"\0")
    world.run_until(lambda: engine.may_propose, 1.0)
    assert sent(world, TimeoutNow) == 0, "the heir never had everything"
    commit(world, leader, 3)


# --- replicas that have forgotten -------------------------------------------------------------------------------------


def test_a_cluster_is_founded_by_all_its_members() -> None:
    world = World("abc", 1)
    world.log_messages = True
    world.start("a", "b")
    world.run(3.0)
    assert sent(world, PreVote) == 0, "the third may know of data"
    world.start("c")
    assert world.run_until(lambda: world.leader, 1.0) < 0.3
    assert world.leader is not None
    world.crash("c")
    world.run_until(lambda: world.leader and commit(world, world.leader.name, 1), 5.0)


def test_a_wiped_replica_and_one_that_never_took_part_do_not_found_another_cluster() -> None:
    world, leader, (wiped, behind) = grown()
    world.wipe(behind)
    for name in world.nodes:
        if name != behind:
            world.block(name, behind)
    commit(world, leader, 2)
    world.wipe(wiped)
    world.crash(leader)
    world.heal()
    world.start(wiped, behind)
    world.run(5.0)
    assert world.leader is None


def test_a_founding_survives_a_crash_at_any_moment() -> None:
    for step in range(40):
        world = World("abc", step)
        world.start()
        world.run(0.0005 * step)
        world.crash("a")
        world.run(0.05)
        world.start("a")
        world.run_until(lambda world=world: all(node.engine and node.engine.born for node in world.nodes.values()))


def test_a_wiped_replica_does_not_count_until_it_knows_everything_again() -> None:
    world, leader, (wiped, dead) = grown()
    world.crash(dead)
    commit(world, leader, 2)
    world.wipe(wiped)
    world.start(wiped)
    label = world.propose(leader, 3)
    world.run(3.0)
    assert label not in world.acknowledged, "there is no majority that remembers"
    assert not world.engine(wiped).born
    world.start(dead)
    world.run_until(lambda: world.engine(wiped).born)
    assert world.leader is not None
    world.crash(dead)
    commit(world, world.leader.name, 4)


def test_a_wiped_replica_cannot_elect_one_that_lacks_what_it_had_acknowledged() -> None:
    world, leader, (wiped, behind) = grown()
    world.isolate(behind)
    commit(world, leader, 2)
    world.wipe(wiped)
    world.crash(leader)
    world.heal()
    world.start(wiped)
    world.run(5.0)
    assert world.leader is None
    world.start(leader)
    world.run_until(lambda: all(world.engine(name).born for name in world.nodes))
    world.run(0.5)
    world.check_all_caught_up()


def test_a_wiped_replica_is_not_born_by_the_first_entries_of_the_term() -> None:
    # Entry 2 is of the leader's term, and the wiped replica had acknowledged later ones: it must have those too.
    world, leader, (wiped, behind) = grown()
    world.isolate(behind)
    for label in range(50, 90):
        commit(world, leader, label)
    world.wipe(wiped)
    crowded = world.nodes[leader]
    world.lost = lambda source, target, message: (
        target == wiped and isinstance(message, Append) and bool(message.entries) and message.prev_index > 5
    )
    world.start(wiped)
    world.run(0.5)
    assert crowded.engine is not None
    world.crash(leader)
    world.heal()
    world.run(4.0)
    assert world.leader is None, "neither of the others has what was acknowledged"


# --- snapshots --------------------------------------------------------------------------------------------------------

SHORT = Tuning(journal_keep_entries=5, piece_bytes=200, snapshot_stall_s=1.0)


def test_a_follower_too_far_behind_gets_a_snapshot_while_the_leader_serves() -> None:
    world, leader, (behind, _other) = grown(tuning=SHORT)
    world.crash(behind)
    for label in range(100, 150):
        commit(world, leader, label)
    world.start(behind)
    commit(world, leader, 200)
    world.run_until(lambda: world.counts["snapshots"] == 1)
    world.run_until(lambda: world.engine(behind).applied_index == world.engine(leader).applied_index)
    assert world.engine(leader).is_leader
    assert sent(world, PreVote) == 0, "heartbeats went on"
    world.run(0.2)
    world.check_all_caught_up()


def test_a_damaged_snapshot_acknowledges_nothing_and_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world, leader, (behind, _other) = grown(tuning=SHORT)
    world.crash(behind)
    for label in range(100, 150):
        commit(world, leader, label)
    read, damaged = MemoryCopy.read, []

    def damage_once(copy: MemoryCopy, offset: int, size: int) -> bytes:
        data = read(copy, offset, size)
        if offset and not damaged:
            damaged.append(offset)
            return bytes(len(data))
        return data

    monkeypatch.setattr(MemoryCopy, "read", damage_once)
    world.start(behind)
    applied = world.engine(behind).applied_index
    world.run_until(lambda: world.counts["snapshots"] == 1)
    begun = [m for _, _, target, m in world.sent_log if target == behind and isinstance(m, Piece) and m.offset == 0]
    assert len(begun) == 2
    matches = [m.match_index for _, source, _, m in world.sent_log if source == behind and isinstance(m, Appended)]
    assert max(matches, default=0) <= applied
    world.run_until(lambda: world.engine(behind).applied_index == world.engine(leader).applied_index)


def test_a_snapshot_is_begun_again_on_a_new_connection() -> None:
    world, leader, (behind, _other) = grown(tuning=SHORT)
    world.crash(behind)
    for label in range(100, 200):
        commit(world, leader, label)
    world.start(behind)
    world.run(0.01)
    world.cut(leader, behind)
    world.run_until(lambda: world.counts["snapshots"] == 1)
    world.run_until(lambda: world.engine(behind).applied_index == world.engine(leader).applied_index)


def test_what_would_be_sent_again_may_be_compacted_by_then() -> None:
    world, leader, (mute, _other) = grown(tuning=Tuning(journal_keep_entries=5, cache_bytes=100))
    world.block(mute, leader)
    for label in range(100, 150):
        commit(world, leader, label)
    world.run(world.tuning.resend_s + 1.0)
    world.unblock(mute, leader)
    world.run_until(lambda: world.engine(mute).applied_index == world.engine(leader).applied_index)
    world.run(0.2)
    world.check_all_caught_up()


def test_a_copy_is_dropped_when_nobody_takes_it_any_more() -> None:
    world, leader, (behind, _other) = grown(tuning=SHORT)
    world.crash(behind)
    for label in range(100, 150):
        commit(world, leader, label)
    world.start(behind)
    world.run_until(lambda: world.counts["snapshots"] == 1)
    outgoing = world.engine(leader)._replication.copies
    floor = outgoing.floor
    for label in range(200, 230):
        commit(world, leader, label)
    assert floor is not None
    assert world.nodes[leader].store.first_index <= floor, "the journal after it is kept meanwhile"
    world.run(SHORT.snapshot_linger_s + 1.0)
    assert outgoing.floor is None
