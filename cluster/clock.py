"""Cluster time: one clock for leases, delays and timestamps that no single machine's wall clock can bend.

A replica that follows takes over the leader's stamps and counts on with its own monotonic clock, so that a new leader
goes on where the old one stopped. Wall clocks matter only to a leader that has heard no stamp since its start (all
replicas were down): it begins at their median. Later the median is approached slowly, never by a step, so that a wall
clock set wrong on one machine changes nothing, and one set wrong on most of them ends a lease early by 1 % at worst.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

SLEW = 0.01
"""How much faster or slower than a second a second of cluster time may pass while the median is approached."""


class ClusterClock:
    """Milliseconds since the epoch, as the cluster counts them. Never runs back while it is led by its stamps."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._base_ms = 0.0
        self._base_s = self._steered_s = monotonic()
        self._offsets_ms: dict[str, float] = {}
        self.anchored = False

    def now_ms(self) -> int:
        """The cluster time."""
        return int(self._exact_ms())

    def observe(self, stamp_ms: int) -> None:
        """The leader says that it is `stamp_ms`."""
        self._base_ms, self._base_s = float(stamp_ms), self._monotonic()
        # Whoever follows has nothing to catch up on when it leads: the time until now was the leader's to steer.
        self._steered_s = self._base_s
        self.anchored = True

    def hear(self, node: str, wall_ms: int) -> None:
        """The wall clock of `node` says `wall_ms` now."""
        self._offsets_ms[node] = wall_ms - self._monotonic() * 1000

    def silent(self, node: str) -> None:
        """`node` is not heard any more: its clock has no say."""
        self._offsets_ms.pop(node, None)

    def steer(self, majority: int, floor_ms: int) -> None:
        """As leader, now and then: begin at the median of the wall clocks, or move towards it.

        Nothing happens before `majority` clocks have been heard. `floor_ms` is the time of the last applied entry.
        """
        if len(self._offsets_ms) < majority:
            return
        now_s = self._monotonic()
        median_ms = now_s * 1000 + statistics.median_low(self._offsets_ms.values())
        if not self.anchored:
            self._base_ms, self._base_s = max(median_ms, float(floor_ms)), now_s
            self.anchored = True
        else:
            limit_ms = (now_s - self._steered_s) * 1000 * SLEW
            self._base_ms += min(max(median_ms - self._exact_ms(), -limit_ms), limit_ms)
        self._steered_s = now_s

    def _exact_ms(self) -> float:
        return self._base_ms + (self._monotonic() - self._base_s) * 1000
