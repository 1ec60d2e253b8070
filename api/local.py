"""A whole cluster on this machine: one `trimaran serve` a node, started, watched and stopped together."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from api.console import complain, say
from api.sealing import SEAL_KEY, make
from cluster.process import die_with

RAFT_PORT_OFFSET = 100
"""A node's raft port lies so far above its HTTP port."""
READY_S = 60.0
"""How long the nodes may take to be ready before it is given up."""
STOP_S = 15.0
"""How long a node may take to stop before it is killed: longer than its requests take."""
PROGRESS_S = 2.0
POLL_S = 0.1
RESTART_S = 2.0
"""A node is started so often at most: one that cannot live should not keep the machine busy."""


class LocalNode:
    """One node of a cluster on this machine. It dies with this process."""

    def __init__(self, name: str, data: Path, http_port: int, peers: str, extra: tuple[str, ...] = ()) -> None:
        self.name, self.url = name, f"http://127.0.0.1:{http_port}"
        self.log = data / name / "log.json"
        self._argv = (
            *(sys.executable, "-m", "api.cli", "serve", "--node", name, "--data", str(data / name)),
            *("--http", f"127.0.0.1:{http_port}", "--raft", f"127.0.0.1:{http_port + RAFT_PORT_OFFSET}"),
            *(("--peers", peers) if peers else ()),
            *extra,
        )
        self.process: asyncio.subprocess.Process | None = None
        self.started_s = 0.0

    async def start(self) -> None:
        """Start it; it is not ready yet."""
        self.started_s = time.monotonic()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        parent = os.getpid()
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self._argv, stderr=log, start_new_session=True, preexec_fn=lambda: die_with(parent)
            )

    async def stop(self) -> None:
        """Ask it to stop, and wait until it has."""
        if self.process is None or self.process.returncode is not None:
            return
        self.process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()

    async def kill(self) -> None:
        """End all its processes at once, without a warning."""
        if self.process is not None and self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            await self.process.wait()

    def is_ready(self) -> bool:
        """Whether it says so. Blocks for a second at most."""
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=1) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False


async def run_local(nodes: int, data: Path, http_port: int, *, fresh: bool = False, tls: bool = False) -> int:
    """Run the cluster until SIGINT or SIGTERM; `fresh`: without what it remembers. Returns the exit code."""
    # Asked before anything is started: a cluster that runs already would answer for ours that cannot.
    port = taken_port(nodes, http_port)
    if port is not None:
        complain(f"trimaran: port {port} is in use: does a cluster run already? Choose others with --http-port")
        return 1
    cluster = local_cluster(nodes, data, http_port, tls=tls)
    for node in cluster if fresh else ():
        shutil.rmtree(data / node.name, ignore_errors=True)
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    try:
        for node in cluster:
            await node.start()
        if not await wait_until_ready(cluster, stopping):
            return 0 if stopping.is_set() else 1
        _welcome(cluster)
        await _watch(cluster, stopping)
    finally:
        await asyncio.gather(*(node.stop() for node in cluster))
    return 0


def local_cluster(nodes: int, data: Path, http_port: int, *, tls: bool = False) -> list[LocalNode]:
    """The nodes of a cluster on this machine, not started yet. `tls`: with certificates, made for it if there are none.

    They share a seal key, made if there is none. Raises `CertificateError` and `OSError`.
    """
    ports = {f"n{number}": http_port + number - 1 for number in range(1, nodes + 1)}
    peers = ",".join(f"{name}=127.0.0.1:{port + RAFT_PORT_OFFSET}" for name, port in ports.items())
    flags = _tls_flags(data / "certs", list(ports)) if tls else {}
    seal_key = data / SEAL_KEY
    make(seal_key)
    return [
        LocalNode(name, data, port, peers if nodes > 1 else "", ("--seal-key", str(seal_key), *flags.get(name, ())))
        for name, port in ports.items()
    ]


def _tls_flags(directory: Path, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    from api.certificates import CA_CERT, NODE_CERT, NODE_KEY, issue, make_authority

    if not (directory / CA_CERT).exists():
        make_authority(directory)
    issue(directory, [name for name in names if not (directory / name / NODE_CERT).exists()])
    files = (("--tls-ca", CA_CERT), ("--tls-cert", NODE_CERT), ("--tls-key", NODE_KEY))
    return {
        name: tuple(word for flag, file in files for word in (flag, str(directory / name / file))) for name in names
    }


def taken_port(nodes: int, http_port: int) -> int | None:
    """A port that such a cluster needs and somebody else uses, or None."""
    needed = (http_port + offset + number for offset in (0, RAFT_PORT_OFFSET) for number in range(nodes))
    return next(filter(_is_taken, needed), None)


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def wait_until_ready(cluster: list[LocalNode], stopping: asyncio.Event) -> bool:
    """Wait until all nodes are ready. False, with the reason told, when one has ended or it takes too long."""
    loop = asyncio.get_running_loop()
    began_s = said_s = loop.time()
    while not stopping.is_set():
        ready = await asyncio.gather(*(asyncio.to_thread(node.is_ready) for node in cluster))
        if all(ready):
            return True
        for node in cluster:
            if node.process is not None and node.process.returncode is not None:
                complain(f"trimaran: {node.name} has ended with code {node.process.returncode}; see {node.log}")
                return False
        if loop.time() - began_s > READY_S:
            complain(f"trimaran: the cluster is not ready after {READY_S:.0f} s; see {cluster[0].log}")
            return False
        if loop.time() - said_s > PROGRESS_S:
            said_s = loop.time()
            complain(f"waiting for the nodes: {sum(ready)} of {len(cluster)} are ready")
        await asyncio.sleep(POLL_S)
    return False


def _welcome(cluster: list[LocalNode]) -> None:
    first, last = cluster[0].url, cluster[-1].url
    say(f"A cluster of {len(cluster)} is ready:")
    for node in cluster:
        assert node.process is not None
        say(f"  {node.name}  {node.url}  process group {node.process.pid}  log {node.log}")
    say(f"""
Try, from another terminal:
  export TRIMARAN_URL={first}
  trimaran queues create orders
  trimaran send orders "one sloop, two oars"
  trimaran receive orders --ack --url {last}
  trimaran cluster
  curl -s {last}/v1/queues
  kill -9 -- -{cluster[0].process.pid if cluster[0].process else 0}      # a node dies at once; nothing is lost

Ctrl-C stops the cluster; its data stays in {cluster[0].log.parent.parent}.""")
    sys.stdout.flush()


async def _watch(cluster: list[LocalNode], stopping: asyncio.Event) -> None:
    """Start a node again when it has ended, as systemd or compose would."""
    while not stopping.is_set():
        for node in cluster:
            code = node.process.returncode if node.process is not None else None
            if code is not None and time.monotonic() - node.started_s > RESTART_S:
                complain(f"{node.name} has ended with code {code}: starting it again")
                await node.start()
        try:
            async with asyncio.timeout(0.5):
                await stopping.wait()
        except TimeoutError:
            pass
