"""Wall clocks that jump."""

from __future__ import annotations

from tests.chaos.fault import Fault

HOUR_S = 3600


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
