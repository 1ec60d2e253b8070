"""Real nodes that come and go while others work."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from api.cli import run
from tests.chaos.load import Load
from tests.processes.nodes import Cluster, eventually
from tests.processes.test_cluster import progress

pytestmark = pytest.mark.processes


async def trimaran(cluster: Cluster, at: str, *tokens: str) -> int:
    """Run a command line against one node."""
    return await asyncio.to_thread(run, [*tokens, "--url", cluster.nodes[at].url])


async def shows(cluster: Cluster, at: str, *voters: str) -> None:
    """Wait until a node names these members, all of them voters."""

    async def names_them() -> bool:
        status, document = await cluster.call(at, "GET", "/v1/cluster")
        found = {node["name"]: node["role"] for node in document["nodes"]} if status == 200 else {}
        return found == dict.fromkeys(voters, "voter")

    await eventually(names_them, f"{at} says that {', '.join(voters)} are the members, and vote")


async def is_told(cluster: Cluster, name: str, words: str) -> None:
    """Wait until the node's log has these words."""
    log = cluster.nodes[name].log

    async def told() -> bool:
        return log.exists() and words in log.read_text()

    await eventually(told, f"{name} is told: {words}")


async def is_out(cluster: Cluster, name: str) -> None:
    """The node knows that it was removed, says so, and serves nobody."""

    async def says_so() -> bool:
        status, document = await cluster.call(name, "GET", "/readyz?verbose=1")
        return status == 503 and "was removed from the cluster" in str(document["troubles"])

    await eventually(says_so, f"{name} says that it was removed")
    status, problem = await cluster.call(name, "POST", "/v1/queues/q/messages", {"body": "x"})
    assert (status, problem["outcome"]) == (503, "not_done")
    assert f"{name} was removed" in problem["detail"]


async def test_three_become_five_and_three_again_under_load(tmp_path: Path) -> None:
    async with Cluster(tmp_path) as cluster:
        await cluster.ok("n1", "PUT", "/v1/queues/q", {})
        load = Load(cluster, ["n1", "n2", "n3"])
        load.start()
        await progress(load, 300)
        for name in ("n4", "n5"):
            node = cluster.join(name)
            assert await trimaran(cluster, "n1", "cluster", "add", name, node.raft) == 0
            load.names.append(name)
        await progress(load, 300)
        await shows(cluster, "n5", "n1", "n2", "n3", "n4", "n5")

        leader = await cluster.leader()
        other = next(name for name in ("n1", "n2", "n3") if name != leader)
        for gone in (leader, other):
            load.names.remove(gone)
            assert await trimaran(cluster, "n5", "cluster", "remove", gone) == 0
            await is_out(cluster, gone)
        stayed = list(load.names)
        await progress(load, 300)
        term = (await cluster.ok("n5", "GET", "/v1/cluster"))["shards"][0]["term"]
        for name in stayed:
            await shows(cluster, name, *stayed)

        # Those who stayed need the new nodes now, and reach them wherever they are asked.
        cluster.nodes[gone].kill()
        cluster.nodes[gone].start()
        await is_out(cluster, gone)
        old = next(name for name in stayed if name not in ("n4", "n5"))
        cluster.nodes[old].kill()
        await progress(load, 200)
        cluster.nodes[old].start()
        await cluster.ready(*stayed)
        await progress(load, 100)
        await load.finish()
        assert (await cluster.ok("n5", "GET", "/v1/cluster"))["shards"][0]["term"] <= term + 1, "nobody disturbed them"


async def test_a_node_takes_the_place_of_another_and_strangers_are_told_why_they_are_not_let_in(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 1) as cluster:
        await cluster.ok("n1", "PUT", "/v1/queues/q", {})
        await cluster.ok("n1", "POST", "/v1/queues/q/messages", {"body": "kept"})
        two = cluster.join("n2")

        await is_told(
            cluster, "n2", f"n2 is not a member of this cluster (n1): add it with trimaran cluster add n2 {two.raft}"
        )
        assert await trimaran(cluster, "n1", "cluster", "replace", "n1", "n2", two.raft) == 0
        await is_out(cluster, "n1")
        await cluster.ready("n2")
        await shows(cluster, "n2", "n2")
        assert (await cluster.ok("n2", "POST", "/v1/queues/q/receive", {}))["messages"][0]["body"] == "kept"
        assert await trimaran(cluster, "n2", "cluster", "replace", "n1", "n2", two.raft) == 0, "again, it is so already"

        async def refused(method: str, name: str, address: str = "", **more: Any) -> tuple[int, str]:
            document = {"address": address} if address else None
            status, problem = await cluster.call("n2", method, f"/v1/cluster/members/{name}", document)
            return status, problem["type"].rpartition(":")[2]

        assert await refused("PUT", "n1", "127.0.0.1:9") == (409, "name-removed")
        assert await refused("PUT", "n2", "127.0.0.1:9") == (409, "name-in-use")
        assert await refused("PUT", "n3", two.raft) == (409, "address-in-use")
        assert await refused("DELETE", "n2") == (409, "last-voter")
        assert await refused("DELETE", "n3") == (404, "not-a-member")
        assert await refused("PUT", "n3", "nowhere") == (400, "invalid-request")
        assert await refused("PUT", "-", "127.0.0.1:9") == (400, "invalid-request")

        # The name of the one that went, on an empty disk.
        one = cluster.nodes["n1"]
        one.kill()
        one.wipe()
        one.log.unlink()
        one.argv += ["--peers", f"n1={one.raft},n2={two.raft}"]
        one.start()
        await is_told(cluster, "n1", "its name is never used again")
        await is_out(cluster, "n1")

        # A node that comes back empty at another place than it is expected.
        three = cluster.join("n3")
        await cluster.ok("n2", "PUT", "/v1/cluster/members/n3", {"address": "127.0.0.1:9"})
        await is_told(
            cluster, "n3", f"n3 is expected at 127.0.0.1:9, but this one is empty and says it is at {three.raft}"
        )
        assert await trimaran(cluster, "n2", "cluster", "move", "n3", three.raft) == 0
        await shows(cluster, "n3", "n2", "n3")


async def test_a_lone_survivor_is_recovered_and_the_lost_ones_stay_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One node is away and stale, another has lost its disk: the third has everything, and can never lead again."""
    async with Cluster(tmp_path) as cluster:
        await cluster.ok("n1", "PUT", "/v1/queues/q", {})
        leader = await cluster.leader()
        wiped, stale = (name for name in cluster.nodes if name != leader)
        cluster.nodes[stale].kill()
        batch = {"messages": [{"body": f"{number}"} for number in range(100)]}
        await cluster.ok(leader, "POST", "/v1/queues/q/messages", batch)
        for name in (wiped, leader):
            cluster.nodes[name].kill()
        cluster.nodes[wiped].wipe()
        survivor = cluster.nodes[leader]
        for name in (leader, wiped):
            cluster.nodes[name].start()

        async def is_stuck() -> bool:
            log = survivor.log.read_text()
            status, _ = await cluster.call(leader, "GET", "/readyz")
            return status == 503 and log.count("asks for pre-votes") > 2

        await eventually(is_stuck, "the survivor asks, and nobody can help")

        def recover(*flags: str) -> tuple[int, str, str]:
            code = run(["recover", "--data", str(survivor.directory), *flags])
            return code, *capsys.readouterr()

        code, _, errors = recover("--force")
        assert code == 1
        assert "in use" in errors, "a running node is not touched"
        survivor.kill()
        code, shown, _ = recover("--json")
        (facts,) = json.loads(shown)["shards"]
        assert (code, facts["node"], facts["voters"], facts["complete"]) == (0, leader, ["n1", "n2", "n3"], True)
        assert recover("--force", "--confirm", "something else")[0] == 2
        assert recover("--force")[0] == 2, "nobody is there to type the name"
        code, _, errors = recover("--force", "--confirm", facts["cluster"])
        assert code == 0
        assert "is LOST" in errors
        assert f"{', '.join(sorted((wiped, stale)))} can never come back" in errors

        survivor.log.unlink()
        survivor.start()
        await cluster.ready(leader)
        await shows(cluster, leader, leader)
        assert (await cluster.counts(leader, "q"))["ready"] == 100
        cluster.nodes[stale].start()
        for name in (wiped, stale):
            await is_told(cluster, name, "recovered by force, it cannot come back")
            cluster.nodes[name].kill()
        cluster.nodes[wiped].wipe()
        cluster.nodes[wiped].start()
        await is_out(cluster, wiped)
        cluster.nodes[wiped].kill()
        node = cluster.join("n4")
        assert await trimaran(cluster, leader, "cluster", "add", "n4", node.raft) == 0
        await shows(cluster, "n4", leader, "n4")
        assert (await cluster.counts("n4", "q"))["ready"] == 100
