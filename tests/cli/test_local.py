"""`trimaran local`: it starts a cluster, keeps it running, and leaves nothing behind."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.local import RAFT_PORT_OFFSET
from tests.processes.nodes import eventually

pytestmark = pytest.mark.processes


def first_port(nodes: int) -> int:
    """The first of enough free ports in a row, with as many where their raft ports will be."""
    for port in range(20_000, 30_000, 10):
        if all(is_free(port + number + offset) for number in range(nodes) for offset in (0, RAFT_PORT_OFFSET)):
            return port
    raise AssertionError("no ports are free")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class Local:
    def __init__(self, directory: Path, nodes: int) -> None:
        self.port, self.output = first_port(nodes), directory / "output"
        argv = [sys.executable, "-m", "api.cli", "local", "--nodes", str(nodes), "--data", str(directory / "data")]
        self.argv = [*argv, "--http-port", str(self.port)]
        self.start()

    def start(self, *flags: str) -> None:
        with self.output.open("wb") as output:
            self.process = subprocess.Popen([*self.argv, *flags], stdout=output, stderr=output, start_new_session=True)

    def ask(self, method: str, path: str, content: bytes | None = None) -> bytes:
        """A request to the first node."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", content, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return bytes(answer.read())

    def groups(self) -> list[int]:
        """The process groups that it told of."""
        return [int(found) for found in re.findall(r"process group (\d+)", self.output.read_text())]

    async def started(self) -> list[int]:
        async def told() -> bool:
            return "Ctrl-C stops the cluster" in self.output.read_text()

        await eventually(told, "the cluster is ready")
        return self.groups()

    def ready(self, number: int) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port + number}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False


def members(group: int) -> list[str]:
    """Pids of the living processes of a group."""
    shown = subprocess.run(["pgrep", "-g", str(group), "-r", "S,R,D"], capture_output=True, text=True, check=False)
    return shown.stdout.split()


@pytest.fixture
def local(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Local]:
    local = Local(tmp_path, request.param)
    try:
        yield local
    finally:
        if local.process.poll() is None:
            local.process.terminate()
        local.process.wait()


async def all_gone(groups: list[int]) -> None:
    async def gone() -> bool:
        return not any(members(group) for group in groups)

    await eventually(gone, "no process is left")


@pytest.mark.parametrize("local", [3], indirect=True)
async def test_a_node_that_was_killed_is_started_again_and_sigterm_ends_everything(local: Local) -> None:
    groups = await local.started()
    assert len(groups) == 3
    assert all(members(group) for group in groups)
    os.killpg(groups[0], signal.SIGKILL)

    async def restarted() -> bool:
        return "n1 has ended with code -9: starting it again" in local.output.read_text() and local.ready(0)

    await eventually(restarted, "n1 is back")
    local.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(local.process.wait, 20) == 0
    await all_gone(groups)
    assert not local.ready(0)


@pytest.mark.parametrize("local", [1], indirect=True)
async def test_when_it_is_killed_itself_no_node_survives(local: Local) -> None:
    groups = await local.started()
    local.process.kill()
    local.process.wait()
    await all_gone(groups)


@pytest.mark.parametrize("local", [1], indirect=True)
async def test_an_occupied_port_is_told_and_ends_it(local: Local, tmp_path: Path) -> None:
    await local.started()
    argv = (sys.executable, "-m", "api.cli", "local", "--nodes", "1", "--data", str(tmp_path / "other"))
    second = await asyncio.create_subprocess_exec(
        *argv, "--http-port", str(local.port), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(20):
            said, complained = await second.communicate()
    finally:
        if second.returncode is None:
            second.terminate()
    assert second.returncode == 1
    assert said == b""
    assert f"port {local.port} is in use".encode() in complained


@pytest.mark.parametrize("local", [1], indirect=True)
async def test_data_is_kept_between_runs_unless_a_fresh_start_is_asked_for(local: Local) -> None:
    def queues() -> object:
        return [queue["queue"] for queue in json.loads(local.ask("GET", "/v1/queues"))["queues"]]

    async def again(*flags: str) -> None:
        local.process.terminate()
        assert await asyncio.to_thread(local.process.wait, 20) == 0
        local.start(*flags)
        await local.started()

    await local.started()
    local.ask("PUT", "/v1/queues/orders", b"{}")
    await again()
    assert queues() == ["orders"]
    await again("--fresh")
    assert queues() == []
