"""Two Celery workers on one broadcast, unchanged, while the leader is killed: each hears everything, and once.

The application sends through one follower, and its workers receive through both.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
from kombu import Exchange

from tests.clients import news
from tests.clients.conftest import Key
from tests.clients.test_celery import broker, worker
from tests.processes.nodes import Cluster, eventually

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="package")]
SENT = 30


async def test_every_worker_hears_every_broadcast_once_though_the_leader_is_killed(
    cluster: Cluster, admin: Key, tmp_path: Path
) -> None:
    leader = await admin.leader()
    followers = [node for node in cluster.nodes if node != leader]
    key = await admin.make(followers[0], "manager", queues=f"{news.PREFIX}*")
    url = broker(cluster, followers[0], key)
    going_on = asyncio.Event()

    async def send() -> None:
        exchange = Exchange(news.EXCHANGE, type="fanout")  # which Celery does not declare by itself
        with news.app.connection_for_write(url) as connection:
            for number in range(SENT):
                if number == SENT // 2:
                    await going_on.wait()
                await asyncio.to_thread(news.hear.apply_async, (number,), connection=connection, declare=[exchange])

    async def are_listening() -> bool:
        _, topic = await admin.call(followers[0], "GET", f"/v1/topics/{news.PREFIX}{news.EXCHANGE}/subscriptions")
        return len(topic.get("subscriptions", ())) == len(followers)

    with ExitStack() as stack:
        notes: list[Path] = []
        for node in followers:
            directory = tmp_path / node
            directory.mkdir()
            started = worker(broker(cluster, node, key), news.EXCHANGE, directory, "tests.clients.news")
            notes.append(stack.enter_context(started))

        def heard() -> list[Counter[str]]:
            return [Counter(each.read_text().splitlines()) for each in notes]

        async def is_under_way() -> bool:
            if sending.done():
                sending.result()
            return all(sum(each.values()) >= SENT // 4 for each in heard())

        async def have_heard() -> bool:
            return all(len(each) == SENT for each in heard())

        await eventually(are_listening, "both workers are subscribed")
        sending = asyncio.create_task(send())
        await eventually(is_under_way, "both workers hear")
        cluster.nodes[leader].kill()
        going_on.set()
        await sending
        await eventually(have_heard, "both workers have heard everything")
        everything = Counter(f"hear {number}" for number in range(SENT))
    assert heard() == [everything, everything], "each once"
    cluster.nodes[leader].start()
    await cluster.ready(leader)
