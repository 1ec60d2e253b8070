"""Faults of every family, briefly, on real nodes, of which nothing outlives the run. `make chaos` is the long form."""

from __future__ import annotations

import asyncio
import datetime
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.faults import FAMILIES, FAULTS, spread
from tests.chaos.fleet import NEVER_SAID, never_said
from tests.chaos.run import take
from tests.chaos.tools import obstacle
from tests.processes.nodes import eventually

pytestmark = pytest.mark.processes

SECONDS = 60
CHAOS = (sys.executable, "-m", "tests.chaos", "--runs", "1", "--nodes", "3", "--once")


def test_faults_are_spread_over_the_families_and_go_together_if_they_can() -> None:
    names = spread(list(FAULTS), random.Random("1"))
    assert sorted(names) == sorted(FAULTS)
    first = set(names[: len(FAMILIES)])
    assert all(first & {kind.name for kind in kinds} for kinds in FAMILIES.values())
    left, turns = list(names), []
    while left:
        turns.append(take(left))
    assert sorted(kind.name for kinds in turns for kind in kinds) == sorted(FAULTS)
    for kinds in turns:
        assert len({kind.layer for kind in kinds}) == len(kinds)
        assert len(kinds) == 1 or not any(kind.goes_alone for kind in kinds)
    assert sum(len(kinds) == 2 for kinds in turns) >= 5


def test_a_defect_that_a_fresh_start_would_hide_is_seen_in_the_log() -> None:
    said = [
        '{"event": "storage failed", "error": "StorageFailure: EIO", "level": "critical"}',
        '{"event": "shard failed", "error": "BrokenInvariantError: entry 1", "level": "critical"}',
        '{"event": "shard failed", "error": "BrokenInvariantError: entry 1", "level": "critical"}',
        '{"event": "shard fai',
        "Fatal Python error: Segmentation fault",
        "  File api/gateway.py, line 1",
    ]
    assert never_said("\n".join(said)) == [
        "shard failed: BrokenInvariantError: entry 1",
        "Fatal Python error: Segmentation fault",
    ]


def test_every_reason_for_which_a_process_ends_at_once_is_a_defect_but_for_its_disk() -> None:
    sources = [path.read_text() for package in ("api", "cluster") for path in Path(package).glob("*.py")]
    reasons = {reason for source in sources for reason in re.findall(r'\bfail\("([^"]+)"', source)}
    assert reasons - NEVER_SAID == {"storage failed"}


@pytest.fixture(scope="module")
def world() -> None:
    why = obstacle()
    if why is not None:
        pytest.skip(why)


@pytest.mark.usefixtures("world")
def test_faults_of_every_family_once() -> None:
    """Which of each family come first depends on the day; what a run says at its begin names the seed."""
    seed = datetime.date.today().isoformat()
    ended = subprocess.run(
        [*CHAOS, "--seconds", str(SECONDS), "--seed", seed],
        capture_output=True,
        text=True,
        timeout=6 * SECONDS,
        check=False,
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
