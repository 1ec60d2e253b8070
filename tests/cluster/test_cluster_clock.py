"""One node's wall clock an hour off, or jumping by an hour: no lease ends early, no delayed message comes late."""

from __future__ import annotations

import pytest

from cluster.clock import SLEW, ClusterClock
from storage.block import encode_block
from storage.operations import Claim, Nack, Receive, Received, Send, Sent, Settled
from storage.queue_operations import GetQueue, PutQueue, QueueInfo
from storage.settings import QueueSettings
from tests.cluster.trio import START_MS, Trio

HOUR_MS = 3_600_000
LEASE_MS, DELAY_MS = 10_000, 6_000
JUMPS = [HOUR_MS, -HOUR_MS]


def busy(trio: Trio) -> tuple[str, list[str]]:
    """Start it, lease one message for LEASE_MS and put back another for DELAY_MS. Returns leader and followers."""
    trio.start()
    trio.run(1.0)
    trio.do(PutQueue("q", QueueSettings()))
    trio.do(Send("q", 2), encode_block([(b"x", b"")] * 2))
    for token in (1, 2):
        assert isinstance(trio.do(Receive("q", 1, LEASE_MS, token)), Received)
    assert trio.do(Nack("q", [Claim(2, 2, 1)], DELAY_MS)) == Settled([])
    assert counts(trio) == (0, 1, 1)
    return trio.leader, [name for name in trio.names if name != trio.leader]


def counts(trio: Trio) -> tuple[int, int, int]:
    queue = trio.do(GetQueue("q"))
    assert isinstance(queue, QueueInfo)
    return queue.ready, queue.leased, queue.delayed


def check_times(trio: Trio, passed_s: float = 0.0) -> None:
    """From here on the delay and the lease end when they should, give or take the slew and a tenth of a second."""
    slack_s = 0.1 + SLEW * LEASE_MS / 1000
    trio.run(DELAY_MS / 1000 - passed_s - slack_s)
    assert counts(trio) == (0, 1, 1), "the delay ended early"
    trio.run(2 * slack_s)
    assert counts(trio) == (1, 1, 0), "the delay ended late"
    trio.run((LEASE_MS - DELAY_MS) / 1000 - 2 * slack_s)
    assert counts(trio) == (1, 1, 0), "the lease ended early"
    trio.run(2 * slack_s)
    assert counts(trio) == (2, 0, 0), "the lease ended late"


@pytest.mark.parametrize("jump_ms", JUMPS)
@pytest.mark.parametrize("who", ["the leader", "a follower"])
def test_a_wall_clock_jumps_while_leases_run(who: str, jump_ms: int) -> None:
    trio = Trio()
    leader, followers = busy(trio)
    trio.wrong_ms[leader if who == "the leader" else followers[0]] = jump_ms
    check_times(trio)


@pytest.mark.parametrize("jump_ms", JUMPS)
def test_a_node_whose_wall_clock_is_off_takes_over(jump_ms: int) -> None:
    trio = Trio()
    leader, followers = busy(trio)
    # Whichever of the others is elected, its clock is off; the dead leader's was right.
    for follower in followers:
        trio.wrong_ms[follower] = jump_ms
    trio.crash(leader)
    trio.run(1.0)
    assert trio.leader in followers
    trio.start(leader)
    check_times(trio, passed_s=1.0)


@pytest.mark.parametrize("jump_ms", JUMPS)
@pytest.mark.parametrize("wrong", "abc")
def test_all_start_anew_and_one_wall_clock_is_off(wrong: str, jump_ms: int) -> None:
    trio = Trio()
    busy(trio)
    for name in trio.names:
        trio.crash(name)
    trio.wrong_ms[wrong] = jump_ms
    trio.start()
    trio.run(3.0)
    check_times(trio, passed_s=3.0)


@pytest.mark.parametrize("jump_ms", JUMPS)
@pytest.mark.parametrize("wrong", "abc")
def test_a_new_cluster_takes_the_median(wrong: str, jump_ms: int) -> None:
    trio = Trio()
    trio.wrong_ms[wrong] = jump_ms
    trio.start()
    trio.run(1.0)
    trio.do(PutQueue("q", QueueSettings()))
    sent = trio.do(Send("q", 1), encode_block([(b"x", b"")]))
    assert isinstance(sent, Sent)
    assert abs(sent.at_ms - START_MS - (trio.now_s - 1000.0) * 1000) < 100


def test_a_long_time_of_following_does_not_add_up_to_a_step() -> None:
    now_s = 0.0
    clock = ClusterClock(lambda: now_s)
    for now_s in range(0, 36_000, 10):
        clock.observe(START_MS + 1000 * now_s)
    for node in "ab":
        clock.hear(node, START_MS + 1000 * now_s - HOUR_MS)
    before_ms = clock.now_ms()
    now_s += 0.1
    clock.steer(2, 0)
    assert clock.now_ms() == pytest.approx(before_ms + 100, abs=5)


def test_a_long_wait_for_the_others_does_not_add_up_to_a_step() -> None:
    """Who has waited for them alone for hours is told the time by them, and leads."""
    now_s = 0.0
    clock = ClusterClock(lambda: now_s)
    now_s = 36_000.0
    clock.catch_up(START_MS)
    for node in "ab":
        clock.hear(node, START_MS - HOUR_MS)
    now_s += 0.1
    clock.steer(2, 0)
    assert clock.now_ms() == pytest.approx(START_MS + 100, abs=5)


def test_cluster_time_never_runs_back_and_comes_nearer_by_one_in_a_hundred() -> None:
    trio = Trio()
    leader, followers = busy(trio)
    clock = trio.replicas[leader].clock
    before_ms = clock.now_ms()
    for name in trio.names:
        trio.wrong_ms[name] = -HOUR_MS
    for _ in range(100):
        trio.run(0.1)
        assert clock.now_ms() > before_ms
        before_ms = clock.now_ms()
    passed_ms = (trio.now_s - 1000.0) * 1000
    assert clock.now_ms() - START_MS == pytest.approx(passed_ms - 10_000 * SLEW, abs=20)
    assert followers


def test_a_leader_that_does_not_know_the_time_tells_nobody() -> None:
    """Its followers would believe that it is 1970, and go on from there when it dies."""
    now_s = 5.0
    leader, follower = ClusterClock(lambda: now_s), ClusterClock(lambda: now_s)
    now_s += 1.0
    follower.observe(leader.stamp_ms())
    assert not follower.anchored
    leader.hear("a", START_MS)
    leader.steer(1, 0)
    follower.observe(leader.stamp_ms())
    assert follower.now_ms() == leader.now_ms() == START_MS


def test_stamps_that_were_long_on_their_way_do_not_hold_a_clock_back() -> None:
    now_s = 0.0
    clock = ClusterClock(lambda: now_s)
    clock.observe(START_MS)
    for now_s in range(1, 10):
        clock.observe(START_MS + 1000 * now_s - 3000)
    assert clock.now_ms() == pytest.approx(START_MS + 9000, abs=200)


def test_a_follower_gives_way_to_a_leader_that_slews_back() -> None:
    now_s = 0.0
    clock = ClusterClock(lambda: now_s)
    for now_s in range(1000):
        stamp_ms = START_MS + 1000 * now_s * (1 - SLEW)
        clock.observe(int(stamp_ms))
    assert clock.now_ms() == pytest.approx(stamp_ms, abs=5)


def test_a_new_leader_goes_on_where_a_majority_has_come_to() -> None:
    """However little it has heard itself."""
    trio = Trio()
    leader, (heir, other) = busy(trio)
    ahead_ms = trio.replicas[leader].clock.now_ms() + 60_000
    trio.replicas[other].clock.observe(ahead_ms)
    trio.replicas[leader].engine.transfer(heir)
    trio.run(0.5)
    assert trio.leader == heir
    assert trio.replicas[heir].clock.now_ms() >= ahead_ms
