"""Access keys on three real nodes."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.clients.conftest import Key
from tests.processes.nodes import Cluster, eventually

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="package")]
REVOKED_S = 1.0
"""A revoked key is refused by every node within this: it takes one message from the leader to each gateway."""


async def test_a_key_is_known_to_all_nodes_at_once_and_unknown_as_soon_as_it_is_revoked(
    cluster: Cluster, admin: Key
) -> None:
    assert [(await cluster.call(node, "GET", "/v1/queues"))[0] for node in cluster.nodes] == [401] * 3
    for maker in cluster.nodes:
        key = await admin.make(maker, "manager", queues="mine")
        answers = await asyncio.gather(*(key.call(node, "PUT", "/v1/queues/mine", {}) for node in cluster.nodes))
        assert {status for status, _ in answers} <= {200, 201}, answers
        assert [(await key.call(node, "PUT", "/v1/queues/other", {}))[0] for node in cluster.nodes] == [403] * 3
        assert (await admin.call(maker, "DELETE", f"/v1/keys/{key.id}"))[0] == 204
        revoked_s = time.monotonic()

        async def is_refused(key: Key = key) -> bool:
            answers = await asyncio.gather(*(key.call(node, "GET", "/v1/queues/mine") for node in cluster.nodes))
            return {status for status, _ in answers} == {401}

        await eventually(is_refused, "every node refuses it")
        assert time.monotonic() - revoked_s < REVOKED_S


async def test_keys_outlive_the_leader(cluster: Cluster, admin: Key) -> None:
    key, leader = await admin.make("n1", "consumer"), await admin.leader()
    cluster.nodes[leader].kill()
    others = [node for node in cluster.nodes if node != leader]
    assert [(await key.call(node, "GET", "/v1/queues"))[0] for node in others] == [200, 200]
    assert [(await cluster.call(node, "GET", "/v1/queues"))[0] for node in others] == [401, 401]
    assert (await admin.call(others[0], "DELETE", f"/v1/keys/{key.id}"))[0] == 204
    cluster.nodes[leader].start()
    await cluster.ready(leader)
    assert [(await key.call(node, "GET", "/v1/queues"))[0] for node in cluster.nodes] == [401] * 3
