"""The soak itself: it is content with a cluster that nothing happens to, and with no other."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.chaos.soak import Soak
from tests.processes.nodes import Cluster, eventually

pytestmark = pytest.mark.processes


async def test_a_soak_is_content_until_a_leader_is_lost(tmp_path: Path) -> None:
    async with Cluster(tmp_path) as cluster:
        leader = await cluster.leader()
        soaked = await Soak(cluster, scale=0.01).run(0.0)
        assert not soaked.troubles
        assert (soaked.rounds, soaked.messages) == (1, 200)

        soak = Soak(cluster, scale=0.05)
        going_on = asyncio.create_task(soak.run(3600.0))

        async def has_begun() -> bool:
            return soak.soaked.rounds > 1

        await eventually(has_begun, "a round is over")
        cluster.nodes[leader].kill()
        cluster.nodes[leader].start()
        troubles = " ".join((await going_on).troubles)
        assert "terms were" in troubles
        assert "asks for pre-votes" in troubles
        assert "requests failed" in troubles
