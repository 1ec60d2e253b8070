"""Faults of disks: no power, no room, and damage."""

from __future__ import annotations

import os
from pathlib import Path

from tests.chaos.disks import flip
from tests.chaos.fault import Fault
from tests.chaos.fleet import MIB, ROOM_RESERVE_BYTES


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
