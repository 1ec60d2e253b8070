"""Leaders killed and nodes stopped under every kind of request: at the gateways of the others not one may fail.

How long it takes is for `trimaran bench failover` to say, whose machinery this is; here nothing is timed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from api import failover
from api.failover import Failover, Findings
from api.local import local_cluster, wait_until_ready
from tests.cli.test_local import first_port

pytestmark = pytest.mark.processes

KINDS = {"send", "send with a key", "receive", "ack", "receive that waits", "read"}

Run = Callable[[list[str | None], bool], Awaitable[Findings]]


@pytest.fixture
async def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Run]:
    """Go through rounds with these victims, planned or not."""
    monkeypatch.setattr(failover, "SETTLE_S", 0.7)  # a node that has just come back votes after 0.6 s
    monkeypatch.setattr(failover, "HOLD_S", 0.1)
    nodes = local_cluster(3, tmp_path, first_port(3))
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
