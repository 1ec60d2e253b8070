"""What a replica measures of itself, and how gateways get it."""

from __future__ import annotations

import asyncio

from cluster.metrics import LAG_PROBE_S, ProcessMeter, ProcessMetrics
from storage.queue_operations import PutQueue
from storage.settings import QueueSettings
from tests.cluster.trio import Trio

PROCESS = ProcessMetrics(7, 1.0)


def test_a_leader_tells_its_peers_and_its_entries() -> None:
    trio = Trio()
    trio.start()
    trio.run(3.0)
    before = trio.replicas[trio.leader].metrics.replications.count
    for name in "qrs":
        trio.do(PutQueue(name, QueueSettings(), True))
    leader = trio.replicas[trio.leader]
    away, other = sorted(set("abc") - {trio.leader})
    trio.run(1.0)
    trio.block(away)
    trio.do(PutQueue("t", QueueSettings(), True))
    told = leader.measure(PROCESS, [other])
    assert (told.role, told.queues, told.process) == ("leader", 4, PROCESS)
    assert told.replica.replications.count >= before + 4
    assert told.replica.operations >= 4
    assert told.replica.commits.count >= 5, "those with something in them"
    assert {name: peer.connected for name, peer in told.peers.items()} == {away: False, other: True}
    held = {name: peer.held_index or 0 for name, peer in told.peers.items()}
    assert held[away] < told.last_index
    assert held[other] == told.last_index
    assert told.first_index <= told.last_index == leader.engine.last_index
    assert told.journal_bytes > 0
    assert told.clock_ms > 0


def test_ticks_in_which_nothing_is_written_are_not_taken_for_fast_commits() -> None:
    trio = Trio()
    trio.start()
    trio.run(3.0)
    trio.do(PutQueue("q", QueueSettings(), True))
    trio.run(1.0)
    before = {name: replica.metrics.commits.count for name, replica in trio.replicas.items()}
    trio.run(5.0)
    assert {name: replica.metrics.commits.count for name, replica in trio.replicas.items()} == before


def test_a_follower_tells_its_role_and_nothing_of_what_others_hold() -> None:
    trio = Trio()
    trio.start()
    trio.run(3.0)
    follower = min(set("abc") - {trio.leader})
    told = trio.replicas[follower].measure(PROCESS, [])
    assert told.role == "follower"
    assert [peer.held_index for peer in told.peers.values()] == [None, None]


async def test_a_loop_that_is_held_up_is_late() -> None:
    meter = ProcessMeter()
    meter.start()
    loop = asyncio.get_running_loop()
    assert meter._loop is loop
    meter._due_s -= 3 * LAG_PROBE_S  # as if it had been due long ago
    meter._probe()
    read = meter.read()
    assert read.loop_lag.count == 1
    assert read.loop_lag.sum_s >= LAG_PROBE_S
    assert read.resident_bytes > 1_000_000
    assert read.cpu_s > 0
