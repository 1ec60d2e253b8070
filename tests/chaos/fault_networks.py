"""Faults of the network: who does not hear whom, what is lost, what is late."""

from __future__ import annotations

import time

from tests.chaos.fault import Fault, comes
from tests.chaos.network import HUB, RAFT_PORT, between
from tests.chaos.proxy import SlowLink


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
        await comes(lambda: time.monotonic() > deadline_s)
        for name in self.names:
            self.fleet.network.let(name)

    async def heal(self) -> None:
        for name in self.names:
            self.fleet.network.detour(name, {})
        for link in self.links:
            link.close()
        await self.redial()
