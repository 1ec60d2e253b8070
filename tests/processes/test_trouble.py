"""Disks that are full, wiped or unusable, and strangers at the port."""

from __future__ import annotations

import asyncio
import os
import pickle
import shutil
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from cluster.sockets import STRANGERS_MAX
from cluster.wire import FRAME_BYTES_MAX, HELLO, VERSION, Hello, frame
from tests.processes.nodes import Cluster, eventually

pytestmark = pytest.mark.processes

MIB = 1024 * 1024


async def test_a_full_store_refuses_to_publish_while_receiving_and_acking_go_on(tmp_path: Path) -> None:
    extra = ("--store-bytes-max", str(64 * MIB), "--room-reserve-bytes", str(16 * MIB))
    async with Cluster(tmp_path, 1, extra) as cluster:
        await cluster.ok("n1", "PUT", "/v1/queues/q", {})
        batch = {"messages": [{"body": "x" * 100_000}] * 10}
        sent, status, problem = 0, 201, None
        while status == 201:
            status, problem = await cluster.call("n1", "POST", "/v1/queues/q/messages", batch)
            sent += 10 * (status == 201)
            assert sent < 1000, "a store of 64 MiB took 100 MB"
        assert (status, problem["type"].rpartition(":")[2]) == (507, "store-full")
        assert problem["limit"] == 16 * MIB
        assert problem["remedy"]

        async def is_unready() -> bool:
            return (await cluster.call("n1", "GET", "/readyz"))[0] == 503

        await eventually(is_unready, "the node says that it has no room")
        received = 0
        while received < sent:
            messages = (await cluster.ok("n1", "POST", "/v1/queues/q/receive", {"max": 100}))["messages"]
            received += len(messages)
            receipts = {"receipts": [message["receipt"] for message in messages]}
            results = (await cluster.ok("n1", "POST", "/v1/queues/q/ack", receipts))["results"]
            assert {result["status"] for result in results} == {"acked"}

        async def takes_messages() -> bool:
            return (await cluster.call("n1", "POST", "/v1/queues/q/messages", {"body": "again"}))[0] == 201

        await eventually(takes_messages, "there is room again")


async def test_a_full_leader_hands_over_and_no_send_is_refused(tmp_path: Path) -> None:
    extra = ("--store-bytes-max", str(64 * MIB), "--room-reserve-bytes", str(24 * MIB))
    async with Cluster(tmp_path, 3, extra) as cluster:
        full = await cluster.leader()
        for name in cluster.nodes.keys() - {full}:
            node = cluster.nodes[name]
            node.kill()
            node.argv[node.argv.index("--store-bytes-max") + 1] = str(1024 * MIB)
            node.start()
            await cluster.ready(name)
        assert await cluster.leader() == full
        await cluster.ok(full, "PUT", "/v1/queues/q", {})
        log, sent = cluster.nodes[full].log, 0
        while b"too little room" not in log.read_bytes():
            await cluster.ok(full, "POST", "/v1/queues/q/messages", {"messages": [{"body": "x" * 100_000}] * 3})
            sent += 3
            assert sent < 600, "a store of 64 MiB took 60 MB, and was not full"
        for _ in range(10):
            await cluster.ok(full, "POST", "/v1/queues/q/messages", {"body": "more"})
        assert await cluster.leader() != full
        assert (await cluster.counts(full, "q"))["ready"] == sent + 10


async def test_a_wiped_follower_gets_a_copy_while_the_leader_serves(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 3, ("--journal-keep-bytes", str(MIB))) as cluster:
        await cluster.ok("n1", "PUT", "/v1/queues/q", {})
        leader = await cluster.leader()
        wiped, other = (name for name in cluster.nodes if name != leader)
        cluster.nodes[wiped].kill()
        cluster.nodes[wiped].wipe()
        for _ in range(20):
            await cluster.ok(leader, "POST", "/v1/queues/q/messages", {"messages": [{"body": "x" * 10_000}] * 100})
        cluster.nodes[wiped].start()
        sent = 2000

        async def installed() -> bool:
            nonlocal sent
            await cluster.ok(leader, "POST", "/v1/queues/q/messages", {"body": "meanwhile"})
            sent += 1
            return b"snapshot installed" in cluster.nodes[wiped].log.read_bytes()

        await eventually(installed, "the copy is installed")
        await cluster.ready(wiped)
        assert (await cluster.counts(leader, "q"))["ready"] == sent

        async def caught_up() -> bool:
            indexes = {
                (await cluster.ok(name, "GET", "/v1/cluster"))["shards"][0]["applied_index"] for name in (wiped, leader)
            }
            return len(indexes) == 1

        await eventually(caught_up, "the wiped node has everything")
        await cluster.same_digest()
        cluster.nodes[other].kill()
        assert (await cluster.counts(wiped, "q"))["ready"] == sent
        got = await cluster.ok(wiped, "POST", "/v1/queues/q/receive", {"max": 1})
        assert got["messages"][0]["body"] == "x" * 10_000


async def run(*command: str) -> int:
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    return await process.wait()


@pytest.mark.parametrize("trouble", ["a file in the way", "a full disk"])
async def test_a_node_does_not_start_on_an_unusable_directory(tmp_path: Path, trouble: str) -> None:
    place = tmp_path / "place"
    if trouble == "a file in the way":
        place.write_text("not a directory")
    else:
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=3", "tmpfs", str(place)]
        if os.geteuid() != 0 or await run(*command) != 0:
            pytest.skip("a disk can be filled only as root, with tmpfs")
    try:
        if trouble == "a full disk":
            (place / "ballast").write_bytes(b"x" * 4096)
        node = Cluster(tmp_path, 1).nodes["n1"]
        argv = list(node.argv)
        argv[argv.index("--data") + 1] = str(place / "data")
        process = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.PIPE)
        async with asyncio.timeout(20):
            _, errors = await process.communicate()
        assert process.returncode != 0
        assert "cannot be used" in errors.decode()
        assert "Traceback" not in errors.decode()
    finally:
        if trouble == "a full disk":
            await run("umount", str(place))


async def test_a_node_does_not_start_on_another_nodes_store(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        async with Cluster(tmp_path / name, 1) as cluster:
            nodes = cluster.nodes
    node, store = nodes["n1"], Path("shard-0") / "data.mdb"
    shutil.copy(tmp_path / "one" / "n1" / store, node.directory / store)
    node.start()
    assert node.process is not None
    async with asyncio.timeout(20):
        code = await asyncio.to_thread(node.process.wait)
    assert code != 0
    log = node.log.read_text().rpartition("node starting")[2]
    assert "belongs to shard 0 of node n1 of cluster" in log
    assert "check the configured directory" in log
    assert "Traceback" not in log


@pytest.fixture(scope="module")
def garbage() -> dict[str, bytes]:
    hello = Hello(VERSION, "another", 0, "replica", "n2")
    return {
        "a pickle": struct.pack("<i", 30) + pickle.dumps("readonly"),
        "a frame of 2 GiB": struct.pack("<IB", 2**31, HELLO) + b"x" * 1000,
        "a frame of no bytes": struct.pack("<I", 0) * 10,
        "a frame before the hello": frame(3, b"x" * 100),
        "a hello that is none": frame(HELLO, b"{}"),
        "a hello of 5 KiB": frame(HELLO, b" " * 5000),
        "another cluster's node": frame(HELLO, msgspec.json.encode(hello)),
        "HTTP": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "nothing": b"",
    }


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path, 1) as cluster:
        yield cluster


async def test_a_stranger_at_the_port_is_cut_unread(cluster: Cluster, garbage: dict[str, bytes]) -> None:
    argv = cluster.nodes["n1"].argv
    host, _, port = argv[argv.index("--raft") + 1].partition(":")
    shard = cluster.nodes["n1"].children()[0]

    def resident_kib() -> int:
        status = Path(f"/proc/{shard}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    before_kib = resident_kib()

    async def is_cut(sent: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(sent)
        try:
            async with asyncio.timeout(10):
                return await reader.read(-1)
        except ConnectionError:
            return b""
        finally:
            writer.close()

    # Fewer than there may be at a time: else one more ends another, which then is not told why.
    rounds = STRANGERS_MAX // len(garbage)
    answers = await asyncio.gather(*(is_cut(sent) for _ in range(rounds) for sent in garbage.values()))
    for name, answer in zip(list(garbage) * rounds, answers, strict=True):
        assert (b"cluster" in answer) == (name == "another cluster's node"), (name, answer)
    assert resident_kib() < before_kib + FRAME_BYTES_MAX // 1024 // 4, "memory stays flat"
    await cluster.ok("n1", "PUT", "/v1/queues/q", {})


async def test_many_large_receives_at_once_are_all_answered(cluster: Cluster) -> None:
    await cluster.ok("n1", "PUT", "/v1/queues/q", {})
    for _ in range(8):
        await cluster.ok("n1", "POST", "/v1/queues/q/messages", {"messages": [{"body": "x" * 1_000_000}] * 10})

    async def take() -> int:
        return len((await cluster.ok("n1", "POST", "/v1/queues/q/receive", {"max": 1000}))["messages"])

    async def look() -> int:
        return len((await cluster.ok("n1", "GET", "/v1/queues/q/messages?limit=1000"))["messages"])

    assert all(await asyncio.gather(*(look() for _ in range(12))))
    assert sum(await asyncio.gather(*(take() for _ in range(20)))) == 80


async def test_more_clients_than_descriptors_are_told_so_and_the_others_are_served(tmp_path: Path) -> None:
    limited = Cluster(tmp_path, 1)
    limited.nodes["n1"].prefix = ("prlimit", "--nofile=160:160")
    limited.nodes["n1"].argv += ["--connections-per-address-max", "10000"]
    async with limited as cluster:
        node = cluster.nodes["n1"]
        host, _, port = node.url.removeprefix("http://").rpartition(":")
        assert b"fewer client connections than are set" in node.log.read_bytes()
        first = await asyncio.open_connection(host, int(port))
        crowd = [await asyncio.open_connection(host, int(port)) for _ in range(200)]
        try:
            async with asyncio.timeout(20):
                assert (await crowd[-1][0].readline()).startswith(b"HTTP/1.1 503")
                first[1].write(b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n")
                assert (await first[0].readline()).startswith(b"HTTP/1.1 200")
        finally:
            for _, writer in [first, *crowd]:
                writer.close()
