"""Faults of processes: they are killed, paused and stopped."""

from __future__ import annotations

import signal

from tests.chaos.fault import Fault


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
