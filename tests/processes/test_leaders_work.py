"""What a leader does for many queues at once, or by itself, while it is killed: topics, schedules and redrives."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.processes.nodes import Cluster, eventually

pytestmark = pytest.mark.processes

TOPIC = {
    "all": {},
    "red": {"filter": {"colour": ["red"]}},
    "orders": {"pattern": "orders.#"},
    "few": {"pattern": "few"},
}
"""The topic's queues, and what each of them wants."""
KINDS: list[tuple[dict[str, Any], set[str]]] = [
    ({"routing_key": "orders.new"}, {"all", "orders"}),
    ({"attributes": {"colour": "red"}}, {"all", "red"}),
    ({"routing_key": "orders.old", "attributes": {"colour": "red"}}, {"all", "orders", "red"}),
    ({"routing_key": "few"}, {"all", "few"}),
    ({}, {"all"}),
]
"""Messages, and where each goes."""
FEW = 5
"""What the queue `few` holds. A publish that it refuses must reach nobody."""
DEAD = 240
SCHEDULES = [f"s{number}" for number in range(8)]


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path) as cluster:
        yield cluster


async def everything(cluster: Cluster, node: str, queue: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while page := (
        await cluster.ok(
            node,
            "GET",
            f"/v1/queues/{queue}/messages?limit=1000&after={found[-1]['message_id'] if found else 0}",
        )
    )["messages"]:
        found += page
    return found


class Publishing:
    """Publishers of batches at every node, until `stop`. What each was answered stands in `answers`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._is_over = cluster, False
        self.answers: dict[str, int] = {}
        self._tasks = [asyncio.create_task(self._publish(f"{node}-{n}", node)) for node in cluster.nodes for n in "ab"]

    async def stop(self) -> None:
        self._is_over = True
        await asyncio.gather(*self._tasks)

    async def _publish(self, who: str, node: str) -> None:
        for number in count():
            kinds = [(number + more) % len(KINDS) for more in range(1 + number % 3)]
            batch = [{"body": f"{who}-{number}:{kind}", **KINDS[kind][0]} for kind in kinds]
            status, _ = await self._cluster.call(node, "POST", "/v1/topics/t/messages", {"messages": batch})
            self.answers["&".join(message["body"] for message in batch)] = status
            if self._is_over or not status:  # whoever asked the leader does not know
                return

    def check(self, found: dict[str, Counter[str]]) -> None:
        """Each publish is in all its queues or in none. `found`: how often each body is in each queue."""
        for publish, status in self.answers.items():
            bodies = publish.split("&")
            wanted = {(queue, body) for body in bodies for queue in KINDS[int(body.rpartition(":")[2])][1]}
            there = [(queue, body) for queue in TOPIC for body in bodies for _ in range(found[queue][body])]
            assert len(there) == len(set(there)), f"twice: {there}"
            assert set(there) in ([wanted] if status == 201 else [set()] if status == 507 else [wanted, set()]), publish


async def prepare(cluster: Cluster, node: str) -> None:
    """A topic of four queues; a dead-letter queue with `DEAD` messages of `work`; schedules for a queue and a topic."""
    await cluster.ok(node, "PUT", "/v1/topics/t", {})
    for queue, wish in TOPIC.items():
        await cluster.ok(node, "PUT", f"/v1/queues/{queue}", {"messages_max": FEW} if queue == "few" else {})
        await cluster.ok(node, "PUT", f"/v1/topics/t/subscriptions/{queue}", {"queue": queue, **wish})
    await cluster.ok(node, "PUT", "/v1/queues/dead", {})
    await cluster.ok(node, "PUT", "/v1/queues/work", {"attempts_max": 1, "dead_letter_queue": "dead"})
    batch = [{"body": str(number)} for number in range(DEAD)]
    await cluster.ok(node, "POST", "/v1/queues/work/messages", {"messages": batch})
    held = (await cluster.ok(node, "POST", "/v1/queues/work/receive", {"max": DEAD}))["messages"]
    await cluster.ok(node, "POST", "/v1/queues/work/nack", {"receipts": [each["receipt"] for each in held]})
    await cluster.ok(node, "PUT", "/v1/topics/ticks", {})
    for queue in ("ticks", "ticks-too", "beats"):
        await cluster.ok(node, "PUT", f"/v1/queues/{queue}", {})
    for queue in ("ticks", "ticks-too"):
        await cluster.ok(node, "PUT", f"/v1/topics/ticks/subscriptions/{queue}", {"queue": queue})
    for number, name in enumerate(SCHEDULES):
        target = {"topic": "ticks"} if number % 2 else {"queue": "beats"}
        wish = {"every_ms": 1000, **target, "message": {"body": "x"}}
        await cluster.ok(node, "PUT", f"/v1/schedules/{name}", wish)


def check_times(messages: list[dict[str, Any]], names: list[str], least: int) -> None:
    """Each schedule has sent once for every second from the first to the last, at `least` so many."""
    times: dict[str, list[float]] = defaultdict(list)
    for message in messages:
        times[message["schedule"]].append(datetime.fromisoformat(message["occurrence"]).timestamp())
    assert sorted(times) == names
    for name, seconds in times.items():
        assert len(seconds) >= least, name
        assert seconds == [seconds[0] + number for number in range(len(seconds))], name


async def test_publishes_schedules_and_a_redrive_are_exact_though_the_leader_is_killed(cluster: Cluster) -> None:
    leader = await cluster.leader()
    other, one_more = (name for name in cluster.nodes if name != leader)
    await prepare(cluster, other)
    publishing = Publishing(cluster)
    tasks = "/v1/queues/dead/redrive"

    async def beats() -> int:
        return (await cluster.counts(one_more, "beats"))["ready"]

    async def begun() -> bool:
        return await beats() >= len(SCHEDULES) // 2

    await eventually(begun, "schedules have sent")
    rate = {"messages": 60, "per_ms": 1000, "burst": 6}
    task = f"{tasks}/{(await cluster.ok(other, 'POST', tasks, {'rate': rate}))['task']}"

    async def half_way() -> bool:
        """The redrive is under way; and the next second, when schedules are due, finds no leader."""
        told = await cluster.ok(other, "GET", task)
        assert told["state"] == "running", told
        return told["moved"] > 0 and time.time() % 1 > 0.85

    await eventually(half_way, "the redrive is under way")
    cluster.nodes[leader].kill()
    beaten = await beats()

    async def over() -> bool:
        return await beats() >= beaten + len(SCHEDULES) and (await cluster.ok(other, "GET", task))["state"] != "running"

    await eventually(over, "the redrive has ended, and the schedules have gone on")
    for name in SCHEDULES:
        await cluster.ok(other, "PATCH", f"/v1/schedules/{name}", {"paused": True})
    await publishing.stop()
    cluster.nodes[leader].start()
    await cluster.ready(leader)

    queues = (*TOPIC, "work", "dead", "beats", "ticks", "ticks-too")
    found = {queue: await everything(cluster, leader, queue) for queue in queues}
    publishing.check({queue: Counter(message["body"] for message in found[queue]) for queue in TOPIC})
    by_node = Counter((who.partition("-")[0], status) for who, status in publishing.answers.items())
    assert {status for name, status in by_node if name != leader} == {201, 507}, "no request of the others fails"
    assert len(found["few"]) == FEW
    told = await cluster.ok(leader, "GET", task)
    assert (told["state"], told["moved"]) == ("done", DEAD), told
    assert sorted(int(message["body"]) for message in found["work"]) == list(range(DEAD))
    assert found["dead"] == []
    check_times(found["beats"], SCHEDULES[::2], 3)
    for queue in ("ticks", "ticks-too"):
        check_times(found[queue], SCHEDULES[1::2], 3)
    await cluster.same_digest()
