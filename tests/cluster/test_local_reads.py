"""Reads from one replica's own state: what they show, and what they say about how stale it is."""

from __future__ import annotations

from collections import deque
from math import inf

from cluster.freshness import Freshness
from cluster.messages import Appended
from cluster.wire import AskLook, ToldLook
from storage.block import encode_block
from storage.operations import Refused, Send
from storage.queue_operations import GetQueue, PutQueue, QueueInfo
from storage.settings import QueueSettings
from tests.cluster.trio import Trio


def look(trio: Trio, name: str) -> ToldLook:
    return trio.replicas[name].look(AskLook(9, GetQueue("q")))


def ready(told: ToldLook) -> int:
    assert isinstance(told.outcome, QueueInfo)
    return told.outcome.ready


def send(trio: Trio) -> None:
    trio.do(Send("q", 1), encode_block([(b"x", b"")]))


def started(trio: Trio | None = None) -> tuple[Trio, str, list[str]]:
    trio = trio or Trio()
    trio.start()
    trio.run(1.0)
    trio.do(PutQueue("q", QueueSettings()))
    return trio, trio.leader, [name for name in trio.names if name != trio.leader]


def test_every_replica_answers_and_is_a_heartbeat_old_at_most() -> None:
    trio, leader, followers = started()
    send(trio)
    trio.run(0.2)
    for name in (leader, *followers):
        told = look(trio, name)
        assert (told.number, ready(told)) == (9, 1)
        assert told.staleness_ms is not None
        assert told.staleness_ms <= 60
        assert told.applied_index == trio.replicas[leader].engine.applied_index


def test_who_is_cut_off_shows_what_it_had_and_how_long_ago_that_was() -> None:
    trio, leader, (lonely, _other) = started()
    send(trio)
    trio.run(0.2)
    trio.block(lonely)
    send(trio)
    trio.run(5.0)
    told = look(trio, lonely)
    assert ready(told) == 1, "the second was sent without it"
    assert told.staleness_ms is not None
    assert 4900 <= told.staleness_ms <= 5200
    assert ready(look(trio, leader)) == 2


def test_a_leader_that_is_cut_off_does_not_call_itself_fresh() -> None:
    trio, leader, _followers = started()
    send(trio)
    trio.run(0.2)
    trio.block(leader)
    trio.run(0.3)
    assert trio.replicas[leader].engine.is_leader
    before = look(trio, leader)
    assert before.staleness_ms is not None
    assert 250 <= before.staleness_ms <= 400
    trio.run(3.0)
    assert not trio.replicas[leader].engine.is_leader
    after = look(trio, leader)
    assert after.staleness_ms is not None
    assert 3250 <= after.staleness_ms <= 3400
    assert ready(after) == 1


class Deaf(Trio):
    """A trio in which whoever stands in `deaf` hears no acknowledgements: as a leader it can commit nothing."""

    deaf = ""

    def _deliver(self) -> None:
        self._mail = deque(mail for mail in self._mail if mail[1] != self.deaf or not isinstance(mail[2], Appended))
        super()._deliver()


def test_the_word_of_a_leader_that_does_not_know_yet_what_was_committed_makes_nobody_fresh() -> None:
    trio = Deaf()
    _, leader, (follower, other) = started(trio)
    trio.run(0.2)
    known = {name: trio.replicas[name].engine.commit_index for name in (follower, other)}
    send(trio)
    sent_s = trio.now_s
    for name in (follower, other):
        assert trio.replicas[name].engine.commit_index == known[name], "they have it, and do not know that it counts"
    trio.crash(leader)
    trio.deaf = follower
    trio.replicas[other].engine.reluctance_s = 10.0
    trio.run(0.5)
    assert trio.replicas[other].engine.leader == follower
    told = look(trio, other)
    assert ready(told) == 0, "the new leader's own entry is not committed, nor what is before it"
    assert told.staleness_ms is not None
    assert trio.now_s - told.staleness_ms / 1000 <= sent_s
    trio.deaf = ""
    trio.run(0.5)
    again = look(trio, other)
    assert ready(again) == 1
    assert again.staleness_ms is not None
    assert again.staleness_ms <= 60


def test_after_a_restart_without_a_leader_the_staleness_is_unknown() -> None:
    trio, leader, (follower, other) = started()
    send(trio)
    trio.run(0.2)
    for name in (leader, follower, other):
        trio.crash(name)
    trio.start(follower)
    trio.run(2.0)
    told = look(trio, follower)
    assert (ready(told), told.staleness_ms) == (1, None)
    trio.start(leader)
    trio.run(3.0)
    again = look(trio, follower)
    assert again.staleness_ms is not None
    assert again.staleness_ms <= 60


def test_a_queue_that_is_not_there_yet_is_refused() -> None:
    trio, _leader, (follower, _other) = started()
    told = trio.replicas[follower].look(AskLook(1, GetQueue("missing")))
    assert isinstance(told.outcome, Refused)


def test_a_cluster_of_one_is_never_stale() -> None:
    trio = Trio("a")
    trio.start()
    trio.run(1.0)
    trio.do(PutQueue("q", QueueSettings()))
    assert look(trio, "a").staleness_ms == 0


# --- what a replica knows ---------------------------------------------------------------------------------------------


def test_it_is_fresh_when_it_has_applied_what_it_was_told() -> None:
    freshness = Freshness()
    assert freshness.since_s == -inf
    freshness.told(5, 1.0)
    freshness.applied(4)
    assert freshness.since_s == -inf
    freshness.applied(5)
    assert freshness.since_s == 1.0
    freshness.told(5, 2.0)
    freshness.applied(5)
    assert freshness.since_s == 2.0


def test_one_that_is_always_a_little_behind_is_not_taken_for_one_that_stands_still() -> None:
    freshness = Freshness()
    for second in range(100):
        freshness.told(10 * second, float(second))
        freshness.applied(10 * second - 5)
    assert 96.0 <= freshness.since_s <= 98.0


def test_an_older_word_takes_nothing_back() -> None:
    freshness = Freshness()
    freshness.told(5, 3.0)
    freshness.applied(5)
    freshness.told(4, 1.0)
    freshness.applied(5)
    assert freshness.since_s == 3.0
