"""Access keys, and the clients that people have, against three real nodes.

One cluster for all; the node that is killed comes back.
"""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from api import sealing
from tests.processes.nodes import Cluster, eventually

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="module")]
REVOKED_S = 1.0
"""A revoked key is refused by every node within this: it takes one message from the leader to each gateway."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """Three nodes that share a seal key."""
    directory = tmp_path_factory.mktemp("clients")
    sealing.make(directory / "seal.key")
    async with Cluster(directory, extra=("--seal-key", str(directory / "seal.key"))) as started:
        yield started


class Key:
    """A key, and requests made with it."""

    def __init__(self, cluster: Cluster, made: dict[str, str]) -> None:
        self._cluster, self.id, self.secret = cluster, made["id"], made["secret"]
        self.header = "Basic " + b64encode(f"{self.id}:{self.secret}".encode()).decode()

    async def call(self, node: str, method: str, path: str, content: object = None) -> tuple[int, object]:
        return await self._cluster.call(node, method, path, content, Authorization=self.header)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def admin(cluster: Cluster) -> Key:
    """The first key, made from this machine without any."""
    return Key(cluster, await cluster.ok("n1", "POST", "/v1/keys", {"roles": ["admin"]}))


async def test_a_key_is_known_to_all_nodes_at_once_and_unknown_as_soon_as_it_is_revoked(
    cluster: Cluster, admin: Key
) -> None:
    assert [(await cluster.call(node, "GET", "/v1/queues"))[0] for node in cluster.nodes] == [401] * 3
    for maker in cluster.nodes:
        status, made = await admin.call(maker, "POST", "/v1/keys", {"roles": ["manager"], "queues": ["mine"]})
        assert status == 201
        assert isinstance(made, dict)
        key = Key(cluster, made)
        answers = await asyncio.gather(*(key.call(node, "PUT", "/v1/queues/mine", {}) for node in cluster.nodes))
        assert {status for status, _ in answers} <= {200, 201}
        assert [(await key.call(node, "PUT", "/v1/queues/other", {}))[0] for node in cluster.nodes] == [403] * 3
        assert (await admin.call(maker, "DELETE", f"/v1/keys/{key.id}"))[0] == 204
        revoked_s = time.monotonic()

        async def is_refused(key: Key = key) -> bool:
            answers = await asyncio.gather(*(key.call(node, "GET", "/v1/queues/mine") for node in cluster.nodes))
            return {status for status, _ in answers} == {401}

        await eventually(is_refused, "every node refuses it")
        assert time.monotonic() - revoked_s < REVOKED_S


async def test_keys_outlive_the_leader(cluster: Cluster, admin: Key) -> None:
    _, made = await admin.call("n1", "POST", "/v1/keys", {"roles": ["consumer"]})
    assert isinstance(made, dict)
    key = Key(cluster, made)
    _, seen = await admin.call("n1", "GET", "/v1/cluster")
    assert isinstance(seen, dict)
    leader = seen["shards"][0]["leader"]
    cluster.nodes[leader].kill()
    others = [node for node in cluster.nodes if node != leader]
    assert [(await key.call(node, "GET", "/v1/queues"))[0] for node in others] == [200, 200]
    assert [(await cluster.call(node, "GET", "/v1/queues"))[0] for node in others] == [401, 401]
    assert (await admin.call(others[0], "DELETE", f"/v1/keys/{key.id}"))[0] == 204
    cluster.nodes[leader].start()
    await cluster.ready(leader)
    assert [(await key.call(node, "GET", "/v1/queues"))[0] for node in cluster.nodes] == [401] * 3
