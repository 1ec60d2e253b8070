"""Real nodes whose disks rot: found, set aside, got from the others, and nothing lost."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from storage.lmdb_tables import open_tables
from storage.seals import seal, unseal
from tests.processes.nodes import Cluster, eventually

pytestmark = pytest.mark.processes

MIB = 1024 * 1024
SENT = 400


def data_file(cluster: Cluster, name: str) -> Path:
    return cluster.nodes[name].directory / "shard-0" / "data.mdb"


def flip(path: Path, what: bytes) -> None:
    """Flip a bit of `what` wherever it lies in the file."""
    data = path.read_bytes()
    places = [found.start() for found in re.finditer(re.escape(what), data)]
    assert places
    with path.open("r+b") as file:
        for place in places:
            file.seek(place)
            file.write(bytes((data[place] ^ 1,)))


def spoil(directory: Path) -> None:
    """Give a record another value, with the checksum that belongs to it."""
    tables = open_tables(directory, 64 * MIB, shared=True)
    with tables.env.begin(write=True, buffers=True) as txn:
        cursor = txn.cursor(db=tables.state)
        assert cursor.set_range(b"n")
        key = bytes(cursor.key())
        value = unseal(key, cursor.value())
        txn.put(key, seal(key, value[:-1] + bytes((value[-1] ^ 1,))), db=tables.state)
    tables.env.close()


async def scrub_command(url: str) -> tuple[int | None, str]:
    """Run `trimaran scrub`: its exit code and what it said."""
    argv = [sys.executable, "-m", "api.cli", "scrub", "--url", url]
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(60):
        said, _ = await process.communicate()
    return process.returncode, said.decode()


async def stop(cluster: Cluster, name: str) -> None:
    process = cluster.nodes[name].process
    assert process is not None
    process.terminate()
    await asyncio.to_thread(process.wait)


async def scrubs(cluster: Cluster, by: str) -> dict[str, dict[str, Any]]:
    """What every node has reported of its scrub."""
    nodes = (await cluster.ok(by, "GET", "/v1/cluster"))["nodes"]
    return {node["name"]: node["scrub"] or {} for node in nodes}


async def repaired(cluster: Cluster, by: str, name: str, before: int = 0) -> None:
    async def is_repaired() -> bool:
        scrub = (await scrubs(cluster, by))[name]
        return bool(scrub.get("repairs", 0) == before + 1 and not scrub["ailing"])

    await eventually(is_repaired, f"{name} is repaired")
    await cluster.ready(name)


async def test_disks_that_rot_are_found_and_repaired_and_nothing_is_lost(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 3, ("--scrub-interval-ms", "0")) as cluster:
        await cluster.ok("n1", "PUT", "/v1/queues/q", {})
        for batch in range(SENT // 100):
            messages = [{"body": f"message {100 * batch + number}."} for number in range(100)]
            await cluster.ok("n1", "POST", "/v1/queues/q/messages", {"messages": messages})
        leader = await cluster.leader()
        silent, flipped = (name for name in cluster.nodes if name != leader)

        # A record that differs and has the right checksum: only the comparison of digests can find it.
        await stop(cluster, silent)
        spoil(data_file(cluster, silent).parent)
        cluster.nodes[silent].start()
        await cluster.ready(silent)
        await cluster.ok(leader, "POST", "/v1/cluster/scrub")
        await repaired(cluster, leader, silent)
        assert data_file(cluster, silent).with_name("damaged.mdb").exists()
        await cluster.same_digest()

        # A bit that is flipped under a running replica.
        flip(data_file(cluster, flipped), b"message 123.")
        code, said = await scrub_command(cluster.nodes[silent].url)
        assert f"{flipped} is damaged: journal entry" in said or code == 0, said
        await repaired(cluster, leader, flipped)
        await cluster.same_digest()

        # The leader's store is cut short while it is down: it cannot even be opened.
        cluster.nodes[leader].kill()
        file = data_file(cluster, leader)
        os.truncate(file, file.stat().st_size // 4)  # more than pages at its end that are free
        cluster.nodes[leader].start()
        await repaired(cluster, silent, leader)
        assert "is cut short" in cluster.nodes[leader].log.read_text()
        await cluster.same_digest()

        found = await scrubs(cluster, leader)
        assert {name: (scrub["damages"], scrub["repairs"]) for name, scrub in found.items()} == dict.fromkeys(
            cluster.nodes, (1, 1)
        )
        received: list[str] = []
        while len(received) < SENT:
            answer = await cluster.ok(flipped, "POST", "/v1/queues/q/receive", {"max": 1000, "wait_ms": 1000})
            received += [message["body"] for message in answer["messages"]]
        assert received == [f"message {number}." for number in range(SENT)]
