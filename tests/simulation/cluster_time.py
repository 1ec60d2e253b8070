"""Cluster time as it must be: by the median of the machines' clocks, and going on with each leader where it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster.clock import SLEW

if TYPE_CHECKING:
    from cluster.replica import Replica

EPOCH_MS = 1_800_000_000_000
"""True time at the beginning of the world."""
SLACK_MS = 20
"""For rounding, and for what the machines' own clocks drift while nobody steers them."""
ARREARS_MS = 50
"""What a leader that was without a majority has not been steered by yet."""
STEP_MS = 5
"""Smaller changes of a leader's lead are not remembered."""


class ClusterTime:
    """Compares what leaders stamp with true time. Leads are by how much a stamp was ahead of that."""

    def __init__(self, violate: Callable[[str, str], None]) -> None:
        self._violate = violate
        self.true_ms: Callable[[], float] = lambda: 0.0
        self.skews_ms: Callable[[], list[float]] = list
        """By how much each machine's clock is ahead of true time."""
        self.behind_ms_max = 0
        self._leads: list[tuple[float, float]] = [(EPOCH_MS, 0.0)]
        """Of leaders: since when (ms), and by how much (ms)."""
        self._median_ms_max = self._lead_ms_max = float("-inf")
        self._known: dict[Replica, tuple[float, float]] = {}
        """Of replicas that know the time by a stamp, another's or their own: when that was, and its lead."""
        self._led_in: dict[Replica, int] = {}
        """The last term in which a replica has led."""

    def began(self, replica: Replica) -> None:
        """A replica knows nothing of the time yet."""
        self._known = {other: known for other, known in self._known.items() if other.name != replica.name}
        self._led_in = {other: term for other, term in self._led_in.items() if other.name != replica.name}

    def told(self, replica: Replica, stamp_ms: int) -> None:
        """A replica is told a leader's stamp, unless it is 0."""
        if stamp_ms:
            self._note(replica, stamp_ms - self.true_ms())

    def stamped(self, replica: Replica, clock_ms: int) -> None:
        """A leader has come to `clock_ms`. It may be behind true time, but not ahead of what the median could be, and
        begins where it was if it knew the time."""
        true_ms, voters = self.true_ms(), len(replica.engine.membership.voters)
        lead_ms, where = clock_ms - true_ms, f"at {replica.name}"
        self._median_ms_max = max(self._median_ms_max, highest_median(self.skews_ms(), voters // 2 + 1))
        if lead_ms > self._median_ms_max + SLACK_MS:
            self._violate(
                "cluster time is the median",
                f"{where} it is {lead_ms:.0f} ms ahead of true time, and the median at most {self._median_ms_max:.0f}",
            )
        if self._led_in.get(replica) != replica.engine.term and replica in self._known:
            at_ms, known_ms = self._known[replica]
            slack_ms = ARREARS_MS + SLEW * (true_ms - at_ms)
            if not known_ms - slack_ms <= lead_ms <= max(known_ms, self._lead_ms_max) + slack_ms:
                self._violate(
                    "cluster time goes on",
                    f"{where} it is {lead_ms:.0f} ms ahead of true time, and was {known_ms:.0f} ms when it was last "
                    f"known, {true_ms - at_ms:.0f} ms ago",
                )
        self._led_in[replica] = replica.engine.term
        self._note(replica, lead_ms)
        if abs(lead_ms - self._leads[-1][1]) > STEP_MS:
            self._leads.append((true_ms, lead_ms))
            self.behind_ms_max = max(self.behind_ms_max, int(-lead_ms))

    def _note(self, replica: Replica, lead_ms: float) -> None:
        self._known[replica] = (self.true_ms(), lead_ms)
        self._lead_ms_max = max(self._lead_ms_max, lead_ms)

    def leapt_s(self, since_s: float) -> float:
        """By how much cluster time has gained on true time since then."""
        least_ms = last_ms = self._leads[-1][1]
        for at_ms, lead_ms in reversed(self._leads):
            least_ms = min(least_ms, lead_ms)
            if at_ms < EPOCH_MS + since_s * 1000:
                break
        return (last_ms - least_ms) / 1000


def highest_median(clocks: list[float], majority: int) -> float:
    """The highest (lower) median of so many of the clocks, or of more."""
    highest = sorted(clocks)[-majority:]
    return highest[(len(highest) - 1) // 2]
