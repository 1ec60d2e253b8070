"""@aws-sdk/client-sns and client-sqs, unchanged, with an access key, each through a follower of its own."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.clients import npm
from tests.clients.conftest import Key
from tests.processes.nodes import Cluster

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="package")]
PATIENCE_S = 20
WHY_NOT = npm.obstacle()


@pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
async def test_what_is_published_reaches_every_queue_that_wants_it(
    cluster: Cluster, admin: Key, tmp_path: Path
) -> None:
    leader = await admin.leader()
    publishing, receiving = (cluster.nodes[node].url for node in cluster.nodes if node != leader)
    key = await admin.make("n1", "manager", queues="fan-*")
    log, argv = tmp_path / "story.log", ("fanout.mjs", publishing, receiving, "fan")
    async with asyncio.timeout(PATIENCE_S), npm.story(log, (key.id, key.secret), *argv) as story:
        said, _ = await story.communicate()
    assert story.returncode == 0, log.read_text()
    told = json.loads(said)
    assert told["subscriptions"] == ["fan-all", "fan-orders"]
    first, second, third, fourth = told["published"]
    assert told["failed"] == [["5", "InvalidParameter", True]]
    assert sorted(told["all"]) == sorted(
        [["one", first, "order"], ["two", second, "weather"], ["drei 🚢", third, "return"], ["four", fourth, None]]
    )
    assert sorted(told["orders"]) == [["drei 🚢", "return"], ["one", "order"]], "as the filter says, and each once"
    assert sorted(told["bytes"]) == [[], [0, 255]]
    assert [await admin.messages(leader, queue) for queue in ("fan-all", "fan-orders")] == [0, 0]
