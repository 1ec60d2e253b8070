"""What a fault is."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from tests.chaos.fleet import Fleet
from tests.processes.nodes import POLL_S

PATIENCE_S = 10.0
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


async def comes(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> bool:
    """Whether `condition` becomes true in time."""
    deadline_s = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        await asyncio.sleep(POLL_S)
    return True
