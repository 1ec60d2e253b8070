"""Faults at a certain system call of a node: strace kills it there, or has the call fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from storage.copies import INCOMING
from tests.chaos.fault import Fault, comes
from tests.chaos.fleet import RECOVERY_S, Fleet
from tests.processes.nodes import POLL_S


async def strike(fleet: Fleet, name: str, calls: str, effect: str, number: int, file: str = "", until: str = "") -> str:
    """Have strace hold on to a node's shard until something happens to it at a certain call; says what came.

    Only calls on `file` count, if it is given. It is waited for no longer than for the node `until` to be ready.

    NB: no --seccomp-bpf: with it, strace 6.1 does not send the signal.
    """
    pid = await _shard(fleet, name)
    trace = fleet.directory / f"{name}.strace"
    trace.unlink(missing_ok=True)
    path = ("-P", str(fleet.nodes[name].directory / "shard-0" / file)) if file else ()
    process = await asyncio.create_subprocess_exec(
        *("strace", "-f", "-qq", "-o", str(trace), *path, "-p", str(pid)),
        *("-e", f"trace={calls}", "-e", f"inject={calls}:{effect}:when={number}"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    told = f"{effect} at {name}'s {calls} number {number}"

    def ends() -> bool:
        return _has_ended(pid)

    try:
        if await (_comes_before_ready(fleet, ends, until) if until else comes(ends)):
            return told
        if trace.exists() and "INJECTED" in trace.read_text():
            fleet.trouble.append(f"{name} lives on after {told}")
        return f"{told}, which did not come"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _comes_before_ready(fleet: Fleet, condition: Callable[[], bool], name: str) -> bool:
    """Whether `condition` becomes true before a node is ready, however slowly that starts."""
    deadline_s = time.monotonic() + RECOVERY_S
    while not (has_come := condition()) and time.monotonic() < deadline_s:
        if fleet.is_running(name) and (await fleet.call(name, "GET", "/readyz"))[0] == 200:
            return condition()
        await asyncio.sleep(POLL_S)
    return has_come


async def _shard(fleet: Fleet, name: str) -> int:
    """The process of a node's shard, as soon as there is one."""
    found = None

    def is_there() -> bool:
        nonlocal found
        found = fleet.shard_pid(name)
        return found is not None

    await comes(is_there, RECOVERY_S)
    assert found is not None, f"{name} has no shard"
    return found


class Strike(Fault):
    """Something happens to a shard at the Nth write of its commits."""

    hold_s = (0.5, 2.0)
    calls = "pwrite64,pwritev,fdatasync"
    effect = "signal=SIGKILL"

    async def inject(self) -> str:
        name = await self.fleet.leader_now() if self.rng.random() < 0.5 else self.some(1)[0]
        self.hit = [name]
        self.fleet.may_end(name, may=True)
        return await strike(self.fleet, name, self.calls, self.effect, self.rng.randint(1, 12), "data.mdb")

    async def heal(self) -> None:
        pass  # it is started again as soon as it has ended


class KillAtCommit(Strike):
    name = "kill-at-commit"
    how = "strace kills the shard at the Nth write or sync of its commits (compaction goes on in them), N = 1 … 12"


class SyncFails(Strike):
    name = "sync-fails"
    how = "strace has the Nth fdatasync fail with EIO: the node must end at once"
    calls = "fdatasync"
    effect = "error=EIO"


class WriteFails(Strike):
    name = "write-fails"
    how = "strace has the Nth write fail with EIO: the node must end at once"
    calls = "pwrite64,pwritev"
    effect = "error=EIO"


class Wipe(Fault):
    """A node loses its disk and gets everything anew from its peers."""

    name, how, goes_alone = "wipe", "SIGKILL, the data directory removed, started empty", True

    async def inject(self) -> str:
        self.hit = self.some(1)
        await self.fleet.compacted()
        self.fleet.down(self.hit[0])
        self.fleet.nodes[self.hit[0]].wipe()
        return f"wiped {self.hit[0]}"

    async def heal(self) -> None:
        self.fleet.up(self.hit[0])


class KillAtInstall(Wipe):
    """A wiped node is killed at the Nth write, sync or rename of the copy that it gets."""

    name = "kill-at-install"
    how = "strace kills a wiped node at its Nth write or sync, or its rename, while it takes in a copy, N = 1 … 12"
    hold_s = (0.0, 1.0)

    async def inject(self) -> str:
        told, name = await super().inject(), self.hit[0]
        self.fleet.may_end(name, may=True)
        self.fleet.up(name)
        call, most = self.rng.choice((("pwrite64", 12), ("fsync", 4), ("ftruncate", 1), ("rename", 1)))
        number = self.rng.randint(1, most)
        return f"{told}, " + await strike(self.fleet, name, call, "signal=SIGKILL", number, until=name)


class KillAtCopy(Wipe):
    """The leader is killed while it makes, checks or sends a copy for a wiped node.

    It does that in pieces, and nothing else in a shard calls pread64.
    """

    name = "kill-at-copy"
    how = "strace kills the leader while it copies its store for a wiped node, at its Nth read of the copy, N = 1 … 6"
    keeps_majority = False
    hold_s = (0.0, 1.0)

    async def inject(self) -> str:
        told = await super().inject()
        wiped, leader = self.hit[0], await self.fleet.leader_now()
        self.fleet.up(wiped)  # takes longer to start than strace to hold on to the leader
        if leader == wiped:
            return f"{told}, which led until then"
        self.hit.append(leader)
        self.fleet.may_end(leader, may=True)
        number = self.rng.randint(1, 6)
        return f"{told}, " + await strike(self.fleet, leader, "pread64", "signal=SIGKILL", number, until=wiped)


class KillCopier(Wipe):
    """The leader is killed while it sends a copy to a wiped node."""

    name, how = "kill-copier", "a node is wiped, and the leader gets SIGKILL while it sends the copy"
    keeps_majority = False

    async def inject(self) -> str:
        await super().inject()
        wiped = self.hit[0]
        directory = self.fleet.nodes[wiped].directory / "shard-0"
        self.fleet.up(wiped)
        copied = await _comes_before_ready(self.fleet, lambda: any(directory.glob(f"{INCOMING}*")), wiped)
        leader = await self.fleet.leader_now()
        if leader != wiped:
            self.hit.append(leader)
            self.fleet.down(leader)
        return f"wiped {wiped}, killed {leader} " + ("while it sent the copy" if copied else "without a copy")

    async def heal(self) -> None:
        for name in self.hit:
            self.fleet.up(name)


def _has_ended(pid: int) -> bool:
    """Whether a process has ended; nobody may have asked for its exit code yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True
