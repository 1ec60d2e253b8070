"""Each fault once, briefly, on real nodes; and that nothing of it outlives the run. `make chaos` is the long form."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.tools import obstacle
from tests.processes.nodes import eventually

pytestmark = pytest.mark.processes

SECONDS = 90
CHAOS = (sys.executable, "-m", "tests.chaos", "--runs", "1", "--nodes", "3", "--once")


@pytest.fixture(scope="module")
def world() -> None:
    why = obstacle()
    if why is not None:
        pytest.skip(why)


@pytest.mark.usefixtures("world")
def test_every_fault_once() -> None:
    ended = subprocess.run(
        [*CHAOS, "--seconds", str(SECONDS)], capture_output=True, text=True, timeout=6 * SECONDS, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "lost 0, unexpected 0, unexplained duplicates 0" in ended.stderr


def ours(directory: Path) -> list[str]:
    """Command lines of processes that use `directory`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(directory) in line or f"TMPDIR={directory}" in line:
            found.append(line)
    return found


def loops() -> str:
    """The files behind loop devices."""
    argv = ("losetup", "--list", "--noheadings", "--output", "BACK-FILE")
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_nothing_outlives_a_run_that_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        *(*CHAOS, "--seconds", "60", "--faults", "pause-one"),
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        start_new_session=True,
    )
    assert process.stderr is not None
    async with asyncio.timeout(120):
        while b"pause-one" not in await process.stderr.readline():
            pass
    name = next(tmp_path.glob("trimaran-chaos-*")).name
    assert ours(tmp_path)
    assert name in loops()
    os.killpg(process.pid, number)
    await process.wait()

    async def gone() -> bool:
        return not ours(tmp_path) and name not in loops()

    await eventually(gone, "every process and every disk is gone")
    assert not Path("/run", name).exists()
    assert not Path("/run/netns/n1").exists()
