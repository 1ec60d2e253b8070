"""Leaders killed and nodes stopped under every kind of request: at the gateways of the others not one may fail.

How long it takes is for `trimaran bench failover` to say, whose machinery this is; here nothing is timed.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from api import failover
from api.failover import Failover, Findings
from api.local import local_cluster, wait_until_ready
from tests.cli.test_local import first_port
from tests.processes.nodes import Cluster, eventually
from tests.storage.harness import quick_directory

pytestmark = pytest.mark.processes

KINDS = {"send", "send with a key", "receive", "ack", "receive that waits", "read"}

Run = Callable[[list[str | None], bool], Awaitable[Findings]]


@pytest.fixture
async def run(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Run]:
    """Go through rounds with these victims, planned or not."""
    monkeypatch.setattr(failover, "SETTLE_S", 0.7)  # a node that has just come back votes after 0.6 s
    monkeypatch.setattr(failover, "HOLD_S", 0.1)
    # In memory: with one node gone, a disk that keeps another waiting for most of a second is a lost majority.
    with quick_directory() as directory:
        nodes = local_cluster(3, Path(directory), first_port(3))
        try:
            for node in nodes:
                await node.start()
            assert await wait_until_ready(nodes, asyncio.Event())

            async def run(victims: list[str | None], planned: bool) -> Findings:
                return await Failover(nodes, planned=planned, workers=12, body_bytes=256).run(victims)

            yield run
        finally:
            for node in nodes:
                await node.kill()


def check(found: Findings) -> None:
    assert found.failures == {}
    assert found.requests.keys() == KINDS
    assert (found.lost, found.doubled) == (0, 0)
    assert found.sent > 100


async def test_leaders_are_killed_under_load_and_no_request_fails(run: Run) -> None:
    found = await run([None, None], False)
    check(found)
    assert all("the winner is elected" in each.timeline for each in found.rounds), "it was the leader who died"


async def test_each_node_is_stopped_in_turn_under_load_and_no_request_fails(run: Run) -> None:
    found = await run(["n1", "n2", "n3"], True)
    check(found)
    for each in found.rounds:
        if "the winner is elected" in each.timeline:
            assert "the leader hands over" in each.timeline
            assert "the winner asks for pre-votes" not in each.timeline, "it was asked by the leader, which still lived"
    assert any("the winner is elected" in each.timeline for each in found.rounds), "one of them has led"


async def test_a_single_node_that_is_stopped_answers_what_is_under_way(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 1) as cluster:
        node = cluster.nodes["n1"]
        await cluster.ok("n1", "PUT", "/v1/queues/q", {})
        polling = asyncio.create_task(cluster.call("n1", "POST", "/v1/queues/q/receive", {"wait_ms": 20_000}))
        host, _, port = node.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        content = b'{"body":"as slow as this"}'
        writer.write(
            b"POST /v1/queues/q/messages HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(content)
        )
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100"), "its body is waited for"
        assert node.process is not None
        node.process.send_signal(signal.SIGTERM)

        async def refuses() -> bool:
            return (await cluster.call("n1", "GET", "/healthz"))[0] == 0

        assert await polling == (200, {"messages": []})
        await eventually(refuses, "nobody new is let in")
        writer.write(content)
        answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 201")
        assert b"Connection: close" in answer
        assert await asyncio.to_thread(node.process.wait, 20) == 0
