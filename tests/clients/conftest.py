"""One cluster of three nodes for all clients, with access keys. A node that a test kills, it starts again."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from api import sealing
from tests.processes.nodes import Cluster


class Key:
    """A key, and requests made with it."""

    def __init__(self, cluster: Cluster, made: dict[str, str]) -> None:
        self._cluster, self.id, self.secret = cluster, made["id"], made["secret"]
        self.header = "Basic " + b64encode(f"{self.id}:{self.secret}".encode()).decode()

    async def call(self, node: str, method: str, path: str, content: object = None) -> tuple[int, Any]:
        return await self._cluster.call(node, method, path, content, Authorization=self.header)

    async def ok(self, node: str, method: str, path: str, content: object = None) -> Any:
        """A request that must succeed."""
        return await self._cluster.ok(node, method, path, content, Authorization=self.header)

    async def make(self, node: str, *roles: str, queues: str = "*") -> Key:
        """Another key, made with this one."""
        return Key(self._cluster, await self.ok(node, "POST", "/v1/keys", {"roles": roles, "queues": [queues]}))

    async def leader(self) -> str:
        """Who leads, as all nodes see it."""
        seen = {(await self.ok(node, "GET", "/v1/cluster"))["shards"][0]["leader"] for node in self._cluster.nodes}
        (leader,) = seen
        return str(leader)

    async def messages(self, node: str, queue: str) -> int:
        """How many messages a queue holds, in any state."""
        counts = await self.ok(node, "GET", f"/v1/queues/{queue}")
        return sum(counts[state] for state in ("ready", "leased", "delayed", "dead"))


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """Three nodes that share a seal key."""
    directory = tmp_path_factory.mktemp("clients")
    sealing.make(directory / "seal.key")
    async with Cluster(directory, extra=("--seal-key", str(directory / "seal.key"))) as started:
        yield started


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def admin(cluster: Cluster) -> Key:
    """The first key, made from this machine without any."""
    return Key(cluster, await cluster.ok("n1", "POST", "/v1/keys", {"roles": ["admin"]}))
