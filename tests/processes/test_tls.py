"""Nodes that know one another by certificates: serving, failing over, changing certificates, and under attack."""

from __future__ import annotations

import asyncio
import pickle
import resource
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from api.cli import run
from cluster.wire import HELLO, HELLO_TIMEOUT_S, PING, VERSION, Hello, frame
from tests.chaos.load import Habits, Load
from tests.cluster.certs import Authority
from tests.processes.nodes import Cluster, Node, eventually

pytestmark = pytest.mark.processes

MIB = 1024 * 1024


class TlsCluster(Cluster):
    """Three nodes with certificates of `authority`."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.authority = Authority(directory / "certs")
        for node in self.nodes.values():
            self.certify(node)

    def certify(self, node: Node) -> None:
        """Make a certificate for the node, and tell it."""
        files = self.authority.files(node.name)
        node.argv += ["--tls-ca", files.ca, "--tls-cert", files.cert, "--tls-key", files.key]

    def port(self, name: str) -> int:
        argv = self.nodes[name].argv
        return int(argv[argv.index("--raft") + 1].rpartition(":")[2])

    def log(self, name: str) -> list[dict[str, object]]:
        return [msgspec.json.decode(line) for line in self.nodes[name].log.read_bytes().splitlines()]

    async def told(self, name: str, event: str, times: int = 1) -> None:
        async def has() -> bool:
            return sum(line["event"] == event for line in self.log(name)) >= times

        await eventually(has, f"{name} tells {times} times: {event}")


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[TlsCluster]:
    async with TlsCluster(tmp_path) as cluster:
        await cluster.ok("n1", "PUT", "/v1/queues/q", {})
        yield cluster


async def progress(load: Load, messages: int) -> None:
    before = len(load.history.deliveries)

    async def received() -> bool:
        return len(load.history.deliveries) >= before + messages

    await eventually(received, f"{messages} more messages are received")


async def test_the_leader_is_killed_and_no_request_of_the_others_fails(cluster: TlsCluster) -> None:
    leader = await cluster.leader()
    load = Load(cluster, [name for name in cluster.nodes if name != leader])
    load.start()
    await progress(load, 500)
    cluster.nodes[leader].kill()
    await progress(load, 500)
    cluster.nodes[leader].start()
    await cluster.ready(leader)
    await progress(load, 200)
    await load.finish()
    assert not load.history.failures


async def test_a_node_is_added_and_needs_a_certificate(cluster: TlsCluster) -> None:
    node = cluster.join("n4")
    await cluster.told("n4", "cannot reach replica")
    await cluster.told(await cluster.leader("n1", "n2", "n3"), "connections refused")
    node.kill()
    cluster.certify(node)
    node.start()
    assert await asyncio.to_thread(run, ["cluster", "add", "n4", node.raft, "--url", cluster.nodes["n1"].url]) == 0
    await cluster.ready("n4")
    assert await cluster.ok("n4", "POST", "/v1/queues/q/messages", {"body": "x"})


async def test_certificates_and_their_authority_are_replaced_while_the_cluster_serves(
    cluster: TlsCluster, tmp_path: Path
) -> None:
    old, new = cluster.authority, Authority(tmp_path / "new")
    load = Load(cluster, list(cluster.nodes), Habits(producers=2, consumers=2))
    load.start()
    places = {name: tmp_path / "certs" / name for name in cluster.nodes}
    believed = [authority.directory.joinpath("ca.crt").read_bytes() for authority in (old, new)]

    for name, place in places.items():
        (place / "ca.crt").write_bytes(b"".join(believed))
        await cluster.told(name, "certificates read again")
    for name, place in places.items():
        made = new.files(name)
        for source, target in ((made.key, "node.key"), (made.cert, "node.crt")):
            (place / target).write_bytes(Path(source).read_bytes())
    for name in places:
        await cluster.told(name, "certificates read again", 2)
    for name, place in places.items():
        (place / "ca.crt").write_bytes(believed[1])
        await cluster.told(name, "certificates read again", 3)
    assert not any(line["event"] == "replica disconnected" for name in places for line in cluster.log(name))

    for name in places:  # one after the other: everybody meets everybody with the new ones, and believes no old one
        cluster.nodes[name].kill()
        cluster.nodes[name].start()
        await cluster.ready(name)
    await progress(load, 300)
    await load.finish()
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname = False
    stranger.load_verify_locations(cadata=believed[1].decode())
    files = old.files("n2")
    stranger.load_cert_chain(files.cert, files.key)
    assert await attack(cluster.port("n1"), hello(cluster, "n2"), stranger) == b""


async def test_broken_new_certificates_are_told_of_and_harm_nobody(cluster: TlsCluster, tmp_path: Path) -> None:
    (tmp_path / "certs" / "n1" / "node.crt").write_text("nonsense")
    await cluster.told("n1", "new certificates cannot be used, the old ones stay in use")
    cluster.nodes["n2"].kill()
    cluster.nodes["n2"].start()
    await cluster.ready("n2")
    await cluster.told("n1", "replica connected", 3)
    assert await cluster.ok("n1", "POST", "/v1/queues/q/messages", {"body": "x"})


def hello(cluster: TlsCluster, name: str) -> bytes:
    identity = msgspec.json.decode((cluster.nodes["n1"].directory / "identity.json").read_bytes())
    return frame(HELLO, msgspec.json.encode(Hello(VERSION, identity["cluster"], 0, "replica", name, True)))


async def attack(port: int, said: bytes, context: ssl.SSLContext | None = None) -> bytes:
    """Say it, and return what came until the connection was closed."""
    writer = None
    try:
        async with asyncio.timeout(10 * HELLO_TIMEOUT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.write(said)
            return await reader.read()
    except (ConnectionError, ssl.SSLError):
        return b""
    finally:
        if writer is not None:
            writer.transport.abort()


def attacks(cluster: TlsCluster, other: Authority) -> dict[str, tuple[bytes, ssl.SSLContext | None]]:
    """By name: what is said, and with which certificates."""

    def context(authority: Authority | None, name: str = "n2", days_ago: int = 0) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
        if authority is not None:
            files = authority.files(name, days_ago=days_ago)
            made.load_cert_chain(files.cert, files.key)
        return made

    # Certificates for attackers are made in a copy: those of the nodes are in use.
    own, member = Authority.__new__(Authority), hello(cluster, "n2")
    own.directory = cluster.authority.directory.parent / "copy"
    own.directory.mkdir()
    for name in ("ca.crt", "ca.key"):
        (own.directory / name).write_bytes((cluster.authority.directory / name).read_bytes())
    good = context(own, "n3")
    return {
        "a pickle": (struct.pack("<i", 30) + pickle.dumps("readonly"), None),
        "a read-only hello": (struct.pack("<i", 8) + b"readonly", None),
        "a frame of 2 GiB": (struct.pack("<IB", 2**31, HELLO) + b"x" * 100_000, None),
        "no bytes": (b"", None),
        "half a handshake": (b"\x16\x03\x01\x02\x00\x01", None),
        "a TLS record of the largest size": (b"\x16\x03\x01\xff\xff\x01\x00\xff\xfc" + b"\x00" * 65_000, None),
        "garbage": (bytes(range(256)) * 256, None),
        "a member's hello in plain": (member + frame(PING) * 100, None),
        "no certificate": (member, context(None)),
        "another authority's certificate": (member, context(other)),
        "an expired certificate": (member, context(own, days_ago=61)),
        "another node's certificate": (member, good),
        "no bytes inside TLS": (b"", good),
        "a frame of 2 GiB inside TLS": (struct.pack("<IB", 2**31, HELLO) + b"x" * 100_000, good),
        "a pickle inside TLS": (struct.pack("<i", 30) + pickle.dumps("readonly"), good),
    }


async def test_attacks_are_cut_unread_at_flat_memory_while_the_cluster_serves(
    cluster: TlsCluster, tmp_path: Path
) -> None:
    leader = await cluster.leader()
    port, shard = cluster.port(leader), cluster.nodes[leader].children()[0]
    term = (await cluster.ok(leader, "GET", "/v1/cluster"))["shards"][0]["term"]

    def resident_kib() -> int:
        status = Path(f"/proc/{shard}/status").read_text()
        return int(status.partition("RssAnon:")[2].split()[0])

    kinds = attacks(cluster, Authority(tmp_path / "other"))
    load = Load(cluster, list(cluster.nodes), Habits(producers=2, consumers=2))
    load.start()
    await progress(load, 200)

    async def wave(times: int) -> dict[str, list[bytes]]:
        said = [kind for kind in kinds for _ in range(times)]
        answers = await asyncio.gather(*(attack(port, *kinds[kind]) for kind in said))
        found: dict[str, list[bytes]] = {kind: [] for kind in kinds}
        for kind, answer in zip(said, answers, strict=True):
            found[kind].append(answer)
        return found

    for _ in range(2):
        await wave(10)  # more than there may be strangers at a time: what an allocator keeps of these is no leak
    before_kib = resident_kib()
    for _ in range(4):
        for kind, answers in (await wave(10)).items():
            refused = [answer for answer in answers if answer]
            # Only a member may be told why, if its frame was whole; and nobody is ever answered with a hello.
            assert not refused or kind == "another node's certificate", (kind, refused[0])
            assert all(b"does not speak for n2" in answer for answer in refused)
    assert resident_kib() < before_kib + 8 * 1024, "memory stays flat"
    await progress(load, 200)
    await load.finish()
    assert not load.history.failures
    assert (await cluster.ok(leader, "GET", "/v1/cluster"))["shards"][0]["term"] == term, "nobody stood for election"
    assert not any(line["event"] == "replica disconnected" for line in cluster.log(leader))


async def test_a_crowd_cannot_use_up_the_descriptors(cluster: TlsCluster) -> None:
    leader = await cluster.leader()
    shard, port = cluster.nodes[leader].children()[0], cluster.port(leader)
    resource.prlimit(shard, resource.RLIMIT_NOFILE, (256, 256))
    crowd = []
    try:
        for _ in range(600):
            crowd.append(await asyncio.open_connection("127.0.0.1", port))
        others = [name for name in cluster.nodes if name != leader]
        cluster.nodes[others[0]].kill()
        cluster.nodes[others[0]].start()
        await cluster.ready(others[0])
        assert await cluster.ok(others[0], "POST", "/v1/queues/q/messages", {"body": "x"})
        assert await cluster.leader() == leader
    finally:
        for _, writer in crowd:
            writer.transport.abort()


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        ((), 2, "`trimaran certs init` and `trimaran certs issue n1`"),
        (
            ("--tls-ca", "{n2}/ca.crt", "--tls-cert", "{n2}/node.crt", "--tls-key", "{n2}/node.key"),
            1,
            "this is node n1",
        ),
        (("--tls-ca", "{n2}/ca.crt", "--tls-cert", "{n1}/node.crt", "--tls-key", "{n1}/node.key"), 1, "has expired"),
    ],
)
def test_a_node_that_others_can_reach_does_not_start_without_good_certificates(
    tmp_path: Path, flags: tuple[str, ...], code: int, said: str
) -> None:
    authority = Authority(tmp_path / "certs")
    authority.files("n1", days_ago=61)
    authority.files("n2")
    places = {name: tmp_path / "certs" / name for name in ("n1", "n2")}
    argv = list(Cluster(tmp_path, 1).nodes["n1"].argv)
    raft = argv.index("--raft") + 1
    argv[raft] = argv[raft].replace("127.0.0.1", "0.0.0.0")
    ended = subprocess.run(
        [*argv, *(flag.format(**places) for flag in flags)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, said in ended.stderr) == (code, True), ended.stderr
    assert "Traceback" not in ended.stderr
