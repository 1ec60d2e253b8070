"""Nodes that come and go."""

from __future__ import annotations

from tests.chaos.fault import Fault


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
