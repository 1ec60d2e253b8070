"""A cluster of real processes for tests: started, killed for real, and always ended."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp

POLL_S = 0.02
PATIENCE_S = 30.0
GONE_S = 5.0
"""How long a killed process may take to go."""


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on. NB: somebody might by the time they are used; nobody does on a test machine."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


async def eventually(condition: Callable[[], Awaitable[Any]], what: str, patience_s: float = PATIENCE_S) -> Any:
    """Wait until `condition` gives something true, and return it."""
    deadline_s = time.monotonic() + patience_s
    while True:
        found = await condition()
        if found:
            return found
        assert time.monotonic() < deadline_s, f"not within {patience_s} s: {what}"
        await asyncio.sleep(POLL_S)


class Node:
    """A node as a process group. `prefix` is what its command line begins with, `environment` is added to ours."""

    def __init__(
        self,
        name: str,
        directory: Path,
        log: Path,
        http: str,
        raft: str,
        peers: str = "",
        extra: tuple[str, ...] = (),
    ) -> None:
        self.name, self.directory, self.log = name, directory, log
        self.url, self.raft = f"http://{http}", raft
        self.argv = [
            *(sys.executable, "-m", "api.cli", "serve", "--node", name, "--data", str(self.directory)),
            *("--http", http, "--raft", raft, *extra),
            *(("--peers", peers) if peers else ()),
        ]
        self.prefix: tuple[str, ...] = ()
        self.environment: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, *self.argv],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=os.environ | self.environment,
            )

    def signal(self, number: int) -> None:
        """Send a signal to every process of the node."""
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """Kill every process of the node, and wait until they are gone: their files and ports are then free."""
        if self.process is None:
            return
        deadline_s = time.monotonic() + GONE_S
        while self._lives() and time.monotonic() < deadline_s:
            with suppress(ProcessLookupError):
                self.signal(signal.SIGKILL)
            time.sleep(POLL_S)
        self.process.wait()

    def _lives(self) -> bool:
        """Whether any process of the node runs. One that only waits for init to take note of its end does not."""
        assert self.process is not None
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _, group = path.read_text().rpartition(")")[2].split()[:3]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(group) == self.process.pid and state not in "ZX":
                return True
        return False

    def wipe(self) -> None:
        shutil.rmtree(self.directory)

    def children(self) -> list[int]:
        """Pids of the node's processes other than the supervisor."""
        assert self.process is not None
        found = subprocess.run(
            ["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False
        ).stdout.split()
        return [int(pid) for pid in found]


class Cluster:
    """`async with Cluster(directory) as cluster`: nodes on loopback."""

    answer_s = 30.0
    """How long a request may take before the client gives it up."""
    start_s = PATIENCE_S
    """How long a node may take until it is ready."""

    def __init__(self, directory: Path, count: int = 3, extra: tuple[str, ...] = ()) -> None:
        addresses = [f"127.0.0.1:{port}" for port in free_ports(2 * count)]
        names = [f"n{number}" for number in range(1, count + 1)]
        peers = ",".join(f"{name}={address}" for name, address in zip(names, addresses[count:], strict=True))
        self.extra = extra
        self.nodes = {
            name: Node(name, directory / name, directory / f"{name}.log", http, raft, peers if count > 1 else "", extra)
            for name, http, raft in zip(names, addresses[:count], addresses[count:], strict=True)
        }

    def join(self, name: str) -> Node:
        """Start a node that is configured with the others and itself; it is no member yet. Its address is `raft`."""
        directory = next(iter(self.nodes.values())).log.parent
        http, raft = (f"127.0.0.1:{port}" for port in free_ports(2))
        others = {other.name: other.raft for other in self.nodes.values()} | {name: raft}
        peers = ",".join(f"{other}={address}" for other, address in others.items())
        node = self.nodes[name] = Node(name, directory / name, directory / f"{name}.log", http, raft, peers, self.extra)
        node.start()
        return node

    async def __aenter__(self) -> Cluster:
        self.http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self.answer_s, sock_connect=1))
        for node in self.nodes.values():
            node.start()
        await self.ready(*self.nodes)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()
        for node in self.nodes.values():
            node.kill()

    async def call(self, name: str, method: str, path: str, document: Any = None, **headers: str) -> tuple[int, Any]:
        """One request to a node: status and document. A broken connection is status 0."""
        headers = {key.replace("_", "-"): value for key, value in headers.items()}
        try:
            async with self.http.request(method, self.nodes[name].url + path, json=document, headers=headers) as answer:
                data = await answer.read()
                return answer.status, json.loads(data) if data else None
        except (aiohttp.ClientError, ConnectionError, TimeoutError):
            return 0, None

    async def ok(self, name: str, method: str, path: str, document: Any = None, **headers: str) -> Any:
        """A request that must succeed."""
        status, answer = await self.call(name, method, path, document, **headers)
        assert 200 <= status < 300, (status, answer)
        return answer

    async def ready(self, *names: str) -> None:
        for name in names:

            async def is_ready(name: str = name) -> bool:
                return (await self.call(name, "GET", "/readyz"))[0] == 200

            await eventually(is_ready, f"{name} is ready", self.start_s)

    async def leader(self, *seen_by: str) -> str:
        """Who leads, as all the given nodes see it."""

        async def agreed() -> str | None:
            leaders = set()
            for name in seen_by or tuple(self.nodes):
                status, document = await self.call(name, "GET", "/v1/cluster")
                leaders.add(document["shards"][0]["leader"] if status == 200 else None)
            return leaders.pop() if len(leaders) == 1 else None

        return str(await eventually(agreed, "a leader"))

    async def counts(self, name: str, queue: str) -> dict[str, int]:
        document = await self.ok(name, "GET", f"/v1/queues/{queue}")
        return {count: document[count] for count in ("ready", "leased", "delayed")}

    async def same_digest(self, *names: str) -> dict[str, Any]:
        """The digest of the shard's state, once all the given nodes have it as of the same index: it must be one."""

        async def level() -> list[dict[str, Any]] | None:
            asked = [self.call(name, "GET", "/v1/cluster/digest") for name in names or tuple(self.nodes)]
            answers = await asyncio.gather(*asked)
            if any(status != 200 for status, _ in answers):
                return None
            found = [document["shards"][0] for _, document in answers]
            return found if len({digest["applied_index"] for digest in found}) == 1 else None

        found = await eventually(level, "all nodes have applied the same")
        assert len({digest["digest"] for digest in found}) == 1, f"the states differ: {found}"
        return dict(found[0])
