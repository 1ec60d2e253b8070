"""Cluster time: one clock for leases, delays and timestamps that no single machine's wall clock can bend.

A replica that follows takes over the leader's stamps and counts on with its own monotonic clock, and a new leader
begins no earlier than a majority has come to, so that it goes on where the old one stopped. Wall clocks matter only
when nobody in a majority has heard a stamp since its start (all replicas were down): the leader begins at their median.
Later the median is approached slowly, never by a step, so that a wall clock set wrong on one machine changes nothing,
and one set wrong on most of them ends a lease early by 1 % at worst.

A clock that falls behind does harm as well: when all start anew it is put right by a step, and leases given out before
end early by as much. So stamps that were long on their way do not hold a follower's clock back.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

SLEW = 0.01
"""How much faster or slower than a second a second of cluster time may pass while the median is approached."""


YIELD = 0.02
"""How fast, in seconds per second, a follower's clock gives way to earlier stamps: faster than the leader slews, so
that it follows; so slowly that a stamp that was seconds on its way changes next to nothing."""


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

    def stamp_ms(self) -> int:
        """The cluster time to tell others: 0 when it is not known here."""
        return self.now_ms() if self.anchored else 0

    def observe(self, stamp_ms: int) -> None:
        """The leader says that it was `stamp_ms` when it spoke; 0 says nothing."""
        if not stamp_ms:
            return
        now_s, own_ms = self._monotonic(), 0.0
        if self.anchored:
            own_ms = self._exact_ms() - (now_s - self._base_s) * 1000 * YIELD
        self._base_ms, self._base_s = max(float(stamp_ms), own_ms), now_s
        # Whoever follows has nothing to catch up on when it leads: the time until now was the leader's to steer.
        self._steered_s = now_s
        self.anchored = True

    def catch_up(self, stamp_ms: int) -> None:
        """Another replica has come to `stamp_ms`: as a leader that has stamped nothing yet, be no earlier."""
        if stamp_ms > self.stamp_ms():
            self._base_ms = float(stamp_ms)
            self._base_s = self._steered_s = self._monotonic()  # as in `observe`
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
