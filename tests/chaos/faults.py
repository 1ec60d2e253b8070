"""What goes wrong. A fault is a small class: `inject` makes it so and says what it did, `heal` ends it.

Faults of different layers (nodes, network, clock) may go on at the same time; of one layer, one at a time. What
destroys a node's data goes on alone: nothing is promised when one node's data is gone and another's is cut off. So does
what waits for nodes to become ready.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path

from storage.copies import INCOMING
from tests.chaos.disks import flip
from tests.chaos.fleet import MIB, RECOVERY_S, ROOM_RESERVE_BYTES, Fleet
from tests.chaos.network import HUB, RAFT_PORT, between
from tests.chaos.proxy import SlowLink
from tests.processes.nodes import POLL_S

HOUR_S = 3600
STRACE_S = 10.0
"""How long a fault waits for strace to hold on to a process, and then for the process to meet its end."""


class Fault:
    """Something that goes wrong with `fleet`. `hold_s` is how long it goes on, at least and at most."""

    name = ""
    how = ""
    """How it is made, for the table in docs/testing.md."""
    layer = "node"
    goes_alone = False
    keeps_majority = True
    """Whether the cluster can go on writing meanwhile."""
    hold_s = (2.0, 8.0)

    def __init__(self, fleet: Fleet, rng: random.Random) -> None:
        self.fleet, self.rng = fleet, rng
        self.names = list(fleet.nodes)
        self.hit: list[str] = []
        """The nodes it was done to: they may end by themselves until everything is healed."""

    async def inject(self) -> str:
        """Make it so; returns what was done."""
        raise NotImplementedError

    async def heal(self) -> None:
        """End it."""
        raise NotImplementedError

    async def mend(self) -> str:
        """Wait for what must come right by itself after the end; returns what came. All nodes serve after that."""
        return ""

    def some(self, count: int) -> list[str]:
        """So many nodes, whichever."""
        return sorted(self.rng.sample(self.names, count))


# --- processes --------------------------------------------------------------------------------------------------------


class Kill(Fault):
    """SIGKILL to every process of some nodes, which are started again later."""

    name, how = "kill-one", "SIGKILL to all processes of a node"
    share = "one"

    async def victims(self) -> list[str]:
        match self.share:
            case "leader":
                return [await self.fleet.leader_now()]
            case "majority":
                return self.some(self.fleet.majority)
            case "all":
                return self.names
            case _:
                return self.some(1)

    async def inject(self) -> str:
        self.hit = await self.victims()
        for name in self.hit:
            self.fleet.down(name)
        return f"killed {', '.join(self.hit)}"

    async def heal(self) -> None:
        for name in self.hit:
            self.fleet.up(name)


class KillLeader(Kill):
    name, how, share = "kill-leader", "SIGKILL to the leader", "leader"


class KillMajority(Kill):
    name, how, share = "kill-majority", "SIGKILL to a majority at once", "majority"
    keeps_majority = False


class KillAll(Kill):
    name, how, share = "kill-all", "SIGKILL to all nodes at once, started together", "all"
    keeps_majority = False
    hold_s = (0.0, 2.0)


class Pause(Kill):
    """SIGSTOP, then SIGCONT."""

    name, how = "pause-one", "SIGSTOP to all processes of a node, SIGCONT later"

    async def inject(self) -> str:
        self.hit = await self.victims()
        for name in self.hit:
            if self.fleet.is_running(name):
                self.fleet.nodes[name].signal(signal.SIGSTOP)
        return f"stopped {', '.join(self.hit)}"

    async def heal(self) -> None:
        for name in self.hit:
            if self.fleet.is_running(name):
                self.fleet.nodes[name].signal(signal.SIGCONT)


class PauseLeader(Pause):
    name, how, share = "pause-leader", "SIGSTOP to the leader, SIGCONT later", "leader"


class PauseMajority(Pause):
    name, how, share = "pause-majority", "SIGSTOP to a majority", "majority"
    keeps_majority = False


class RollingRestart(Fault):
    """SIGTERM to one node after the other, each started again and waited for."""

    name, how = "rolling-restart", "SIGTERM to each node in turn, the leader last, each waited for"
    goes_alone = True
    hold_s = (0.0, 0.0)

    async def inject(self) -> str:
        leader = await self.fleet.leader_now()
        for name in [*(name for name in self.names if name != leader), leader]:
            await self.fleet.stop(name)
            self.fleet.up(name)
            await self.fleet.ready(name)
        return f"restarted all nodes, {leader} last"

    async def heal(self) -> None:
        pass


# --- system calls -----------------------------------------------------------------------------------------------------


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
        if await (_comes_before_ready(fleet, ends, until) if until else _comes(ends)):
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

    await _comes(is_there, RECOVERY_S)
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


async def _comes(condition: Callable[[], bool], patience_s: float = STRACE_S) -> bool:
    """Whether `condition` becomes true in time."""
    deadline_s = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        await asyncio.sleep(POLL_S)
    return True


# --- disks ------------------------------------------------------------------------------------------------------------


class PowerCut(Fault):
    """The power of all nodes goes at once: what was not synced is gone."""

    name, keeps_majority = "power-cut", False
    how = "EXT4_IOC_SHUTDOWN without log flush on all nodes' disks, then SIGKILL, umount, mount, start"
    hold_s = (0.0, 2.0)

    async def inject(self) -> str:
        self.hit = self.names
        for name in self.hit:
            self.fleet.may_end(name, may=True)
        for name in self.hit:
            self.fleet.disks[name].cut_power()
        for name in self.hit:
            self.fleet.down(name)
        return f"power cut of {', '.join(self.hit)}"

    async def heal(self) -> None:
        for name in self.hit:
            self.fleet.disks[name].power_on()
            self.fleet.up(name)


class DiskLow(Fault):
    """Less than the reserve is free on a majority: publishing is refused, the rest goes on."""

    name, how, keeps_majority = "disk-low", "a ballast file leaves less than the reserve on a majority", False

    async def inject(self) -> str:
        self.hit = self.some(self.fleet.majority)
        for name in self.hit:
            self.fleet.disks[name].fill(ROOM_RESERVE_BYTES // 4)
        return f"little room at {', '.join(self.hit)}"

    async def heal(self) -> None:
        for name in self.hit:
            self.fleet.disks[name].empty()


class DiskFull(DiskLow):
    """Nothing at all is free on one node: it ends when a commit does not fit, and comes back when there is room."""

    name, how, keeps_majority = "disk-full", "a ballast file leaves 64 KiB on one node, so that commits fail", True

    async def inject(self) -> str:
        self.hit = self.some(1)
        self.fleet.may_end(self.hit[0], may=True)
        self.fleet.disks[self.hit[0]].fill(MIB // 16)
        return f"no room at {self.hit[0]}"


class Damage(Fault):
    """A stopped node's data.mdb is damaged. It gets everything anew from its peers by itself once it reads any of that.

    NB: a node that starts late finds a copy waiting for it, which takes the damage away before anybody has read it.
    """

    goes_alone = True

    def damage(self, path: Path) -> None:
        raise NotImplementedError

    async def inject(self) -> str:
        name = self.some(1)[0]
        await self.prepare(name)
        self.fleet.down(name)
        self.damage(self.file)
        self.fleet.up(name)
        return f"{self.name} at {name}"

    async def prepare(self, name: str) -> None:
        """Wait until there is enough to damage at a node, and remember what it has said so far."""
        self.hit = [name]
        await self.fleet.compacted()
        self.fleet.may_end(name, may=True)
        self.node = self.fleet.nodes[name]
        self.file = self.node.directory / "shard-0" / "data.mdb"
        self.said_bytes = self.node.log.stat().st_size

    async def heal(self) -> None:
        pass

    async def mend(self) -> str:
        await self.fleet.recovered()
        await self.fleet.scrubbed()
        self.noticed = self.times("the store is damaged")
        return f"noticed {self.noticed} times, repaired {self.times('the replica is repaired')} times"

    def times(self, event: str) -> int:
        """How often the node has said so since."""
        return self.node.log.read_bytes()[self.said_bytes :].count(f'"{event}"'.encode())


class FlippedBits(Damage):
    """Bits flip under a running follower. A scrub that begins at once must find it."""

    name = "flipped-bits"
    how = "a bit flipped in every tenth page of a running follower's data.mdb, then a scrub; it must repair itself"

    async def inject(self) -> str:
        leader = await self.fleet.leader_now()
        name = self.rng.choice([name for name in self.names if name != leader])
        await self.prepare(name)
        self.process = self.node.process
        flip(self.file, self.rng, share=0.1)
        await self.fleet.call(name, "POST", "/v1/cluster/scrub")
        return f"{self.name} at {name}"

    async def mend(self) -> str:
        told = await super().mend()
        if not self.noticed and self.node.process is self.process:
            self.fleet.trouble.append(f"{self.hit[0]} did not notice that a tenth of its store is damaged")
        return told


class FewFlippedBits(Damage):
    name, how = "few-flipped-bits", "two bits flipped in a stopped node's data.mdb; it repairs itself"

    def damage(self, path: Path) -> None:
        flip(path, self.rng, count=2)


class LostTail(Damage):
    name, how = "lost-tail", "the last three quarters of a stopped node's data.mdb cut off; it repairs itself"

    def damage(self, path: Path) -> None:
        os.truncate(path, path.stat().st_size // 4)  # free pages at the end would not be missed


# --- networks ---------------------------------------------------------------------------------------------------------


class Cut(Fault):
    """Links between nodes are cut; clients reach all nodes."""

    name, how, layer = "cut-one", "nftables on the bridge drops all between one node and the others", "network"

    async def cuts(self) -> tuple[set[tuple[str, str]], str]:
        one = self.some(1)[0]
        return between([one], self.names), f"{one} from the others"

    async def inject(self) -> str:
        self.fleet.network.cuts, told = await self.cuts()
        self.fleet.network.apply()
        return f"cut {told}"

    async def heal(self) -> None:
        self.fleet.network.cuts = set()
        self.fleet.network.apply()


class CutLeader(Cut):
    name, how = "cut-leader", "the same around the leader"

    async def cuts(self) -> tuple[set[tuple[str, str]], str]:
        leader = await self.fleet.leader_now()
        return between([leader], self.names), f"the leader {leader} from the others"


class CutHalves(Cut):
    name, how = "cut-halves", "a random minority from the majority"

    async def cuts(self) -> tuple[set[tuple[str, str]], str]:
        few = self.some(self.rng.randint(1, len(self.names) - self.fleet.majority))
        return between(few, set(self.names) - set(few)), f"{', '.join(few)} from the others"


class CutAll(Cut):
    name, how, keeps_majority = "cut-all", "every node from every other", False

    async def cuts(self) -> tuple[set[tuple[str, str]], str]:
        return between(self.names, self.names), "every node from every other"


class CutOneWay(Cut):
    name, how = "cut-one-way", "one node, half the time the leader, is not heard, or does not hear"

    async def cuts(self) -> tuple[set[tuple[str, str]], str]:
        one = await self.fleet.leader_now() if self.rng.random() < 0.5 else self.some(1)[0]
        others = [name for name in self.names if name != one]
        if self.rng.random() < 0.5:
            return {(one, other) for other in others}, f"what {one} says"
        return {(other, one) for other in others}, f"what {one} would hear"


class CutRing(Cut):
    """Each node reaches only its neighbours in a ring; three nodes: two reach only the third."""

    name, how = "cut-ring", "each node reaches its two neighbours only (of three: two reach the third only)"

    async def cuts(self) -> tuple[set[tuple[str, str]], str]:
        ring = self.rng.sample(self.names, len(self.names))
        links = list(zip(ring, ring[1:] + ring[:1], strict=True))
        if len(ring) == 3:
            return between([ring[0]], [ring[2]]), f"{ring[0]} from {ring[2]}"
        kept = {link for a, b in links for link in ((a, b), (b, a))}
        return between(ring, ring) - kept, f"all but the ring {' '.join(ring)}"


class Loss(Fault):
    """Packets between nodes are lost."""

    name, how, layer = "loss", "nftables (numgen) drops 5 to 30 % of the packets between nodes", "network"

    async def inject(self) -> str:
        self.fleet.network.loss_percent = self.rng.randint(5, 30)
        self.fleet.network.apply()
        return f"{self.fleet.network.loss_percent} % of the packets lost"

    async def heal(self) -> None:
        self.fleet.network.loss_percent = 0
        self.fleet.network.apply()


class SlowLinks(Fault):
    """Every connection between nodes is delayed by a time of its own, so that connections overtake one another."""

    name, layer = "slow-links", "network"
    how = "connections between nodes lead through a proxy that delays each by up to 20 to 200 ms, unevenly"

    async def inject(self) -> str:
        delay_max_s = self.rng.choice((0.02, 0.1, 0.2))
        self.links: list[SlowLink] = []
        network = self.fleet.network
        for name in self.names:
            ports = {}
            for peer in self.names:
                if peer != name:
                    link = SlowLink(network.address(peer), RAFT_PORT, self.rng, delay_max_s)
                    self.links.append(link)
                    ports[peer] = await link.start(HUB)
            network.detour(name, ports)
        await self.redial()
        return f"links slow by up to {delay_max_s * 1000:.0f} ms"

    async def redial(self) -> None:
        """Let what was dialled before end in a reset."""
        deadline_s = time.monotonic() + 0.3
        await _comes(lambda: time.monotonic() > deadline_s)
        for name in self.names:
            self.fleet.network.let(name)

    async def heal(self) -> None:
        for name in self.names:
            self.fleet.network.detour(name, {})
        for link in self.links:
            link.close()
        await self.redial()


# --- members ----------------------------------------------------------------------------------------------------------


class Replace(Fault):
    """New nodes become members, and as many others, half the time the leader among them, are removed for ever."""

    name, how = "replace", "trimaran's members changed: a new node added, another removed, half the time the leader"
    goes_alone = True
    hold_s = (0.0, 1.0)
    count = 1

    async def inject(self) -> str:
        new = [await self.fleet.enlist() for _ in range(self.count)]
        leader = await self.fleet.leader_now()
        others = [name for name in self.names if name != leader]
        gone = self.rng.sample(others, self.count)
        if self.rng.random() < 0.5 and leader in self.names:
            gone[0] = leader
        for name in gone:
            await self.fleet.dismiss(name)
        return f"{', '.join(new)} in, {', '.join(gone)} out"

    async def heal(self) -> None:
        pass


class GrowAndShrink(Replace):
    name, how = "grow-and-shrink", "two nodes added one after the other, two others removed, half the time the leader"
    count = 2


# --- clocks -----------------------------------------------------------------------------------------------------------


class ClockJump(Fault):
    """One node's wall clock jumps by an hour, and back."""

    name, layer = "clock-jump", "clock"
    how = "one node's wall clock, half the time the leader's, an hour ahead or behind, while it runs"
    hold_s = (4.0, 12.0)

    async def inject(self) -> str:
        one = await self.fleet.leader_now() if self.rng.random() < 0.5 else self.some(1)[0]
        offset_s = self.rng.choice((HOUR_S, -HOUR_S))
        self.jumped = one
        self.fleet.set_clock(one, offset_s)
        return f"clock of {one} {offset_s:+d} s"

    async def heal(self) -> None:
        self.fleet.set_clock(self.jumped, 0)


FAMILIES: dict[str, tuple[type[Fault], ...]] = {
    "processes": (Kill, KillLeader, KillMajority, KillAll, Pause, PauseLeader, PauseMajority, RollingRestart),
    "system calls": (KillAtCommit, SyncFails, WriteFails),
    "copies": (Wipe, KillAtCopy, KillAtInstall, KillCopier),
    "disks": (PowerCut, DiskLow, DiskFull),
    "damage": (FlippedBits, FewFlippedBits, LostTail),
    "networks": (Cut, CutLeader, CutHalves, CutAll, CutOneWay, CutRing, Loss, SlowLinks),
    "members": (Replace, GrowAndShrink),
    "clocks": (ClockJump,),
}
FAULTS = {kind.name: kind for kinds in FAMILIES.values() for kind in kinds}
"""Every fault by its name."""


def spread(names: Sequence[str], rng: random.Random) -> list[str]:
    """Faults in an order that has one of every family before the second of any."""
    families = [[kind.name for kind in kinds if kind.name in names] for kinds in FAMILIES.values()]
    rng.shuffle(families)
    for family in families:
        rng.shuffle(family)
    return [name for turn in zip_longest(*families) for name in turn if name is not None]
