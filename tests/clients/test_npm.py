"""sqs-consumer and @aws-sdk/client-sqs, unchanged, through two followers, while the leader is killed."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.clients import npm
from tests.clients.conftest import Key
from tests.processes.nodes import Cluster

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="package")]
MESSAGES = 200
PATIENCE_S = 40
WHY_NOT = npm.obstacle()


@pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
async def test_sqs_consumer_handles_every_message_though_the_leader_is_killed(
    cluster: Cluster, admin: Key, tmp_path: Path
) -> None:
    leader = await admin.leader()
    producing, consuming = (cluster.nodes[node].url for node in cluster.nodes if node != leader)
    key = await admin.make("n1", "manager", queues="js-*")
    log, told = tmp_path / "story.log", list[dict[str, Any]]()
    argv = ("story.mjs", producing, consuming, "js-jobs", str(MESSAGES))
    async with asyncio.timeout(PATIENCE_S), npm.story(log, (key.id, key.secret), *argv) as story:
        assert story.stdout is not None
        async for line in story.stdout:
            told.append(json.loads(line))
            if len(told) == MESSAGES // 5:
                cluster.nodes[leader].kill()
        assert await story.wait() == 0, log.read_text()
    assert told.pop() == {"ended": True, "left": ["0", "0"]}
    assert Counter(message["body"] for message in told) == Counter(map(str, range(MESSAGES))), "each once"
    assert {message["body"]: message["receives"] for message in told}["5"] == "2"
    assert all((message["raw"] == [0, 255]) == (int(message["body"]) % 4 == 0) for message in told)
    cluster.nodes[leader].start()
    await cluster.ready(leader)
    assert await admin.messages(leader, "js-jobs") == 0
