"""What clients saw, and what must be true of it whatever happened in between.

Checked when something is delivered: it was sent; it was not acked at an earlier attempt; nobody else holds this
attempt; the lease before was over, by true time, unless its holder gave it back; so was a delay asked for with a nack.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from storage.block import Part
from tests.simulation.sieves import SIEVES

SLEW = 0.012
"""How much faster than true time cluster time may run: its slew and the machines' pace."""
SLACK_S = 0.05
"""What is lost by rounding and by looking at the cluster's clock only now and then."""


@dataclass
class Hold:
    """A delivery as its consumer sees it: since `since_s` at the earliest, and for `hold_s` unless it is given back."""

    label: bytes
    attempt: int
    call: int
    since_s: float
    hold_s: float


class History:
    """Every message sent and delivered.

    `leapt_s(since_s)` is by how much the cluster's clock has run ahead of true time since then, other than by its slew:
    a clock that was behind, because all machines start anew, is put right by a step.
    """

    def __init__(self, violate: Callable[[str, str], None], leapt_s: Callable[[float], float]) -> None:
        self._violate, self._leapt_s = violate, leapt_s
        self._calls = 0
        self.attempted: set[bytes] = set()
        self.acked: dict[bytes, int] = {}
        self.holds: dict[bytes, Hold] = {}

    def call(self) -> int:
        """A number for a receive."""
        self._calls += 1
        return self._calls

    def delivered(self, call: int, label: bytes, attempt: int, asked_s: float, now_s: float, lease_s: float) -> Hold:
        """A consumer that had asked at `asked_s` has received a message."""
        hold = Hold(label, attempt, call, asked_s, lease_s)
        if label not in self.attempted:
            self._violate("received means sent", f"{label!r} was never sent")
        if attempt > self.acked.get(label, 1 << 30):
            self._violate("acked means gone", f"{label!r} was acked and is delivered again, attempt {attempt}")
        before = self.holds.get(label)
        if before is not None:
            self._check_order(before, hold, now_s)
        if before is None or before.attempt < attempt:
            self.holds[label] = hold
        return hold

    def _check_order(self, before: Hold, hold: Hold, now_s: float) -> None:
        if before.attempt == hold.attempt and before.call != hold.call:
            self._violate("a lease is exclusive", f"attempt {hold.attempt} of {hold.label!r} has two holders")
        early_s = before.since_s + before.hold_s * (1 - SLEW) - SLACK_S - now_s
        if before.attempt < hold.attempt and early_s > 0 and early_s > self._leapt_s(before.since_s):
            self._violate(
                "a lease is exclusive",
                f"{hold.label!r} is delivered again (attempt {hold.attempt}) {early_s:.3f} s before its lease or delay "
                f"since attempt {before.attempt} is over ({before.hold_s:g} s from {before.since_s:.3f} on)",
            )

    def selected(self, sieve: str, came: list[Part]) -> None:
        """A consumer that had asked with a filter has received these."""
        for part in came:
            if not SIEVES[sieve](bytes(part.properties)):
                self._violate("what is received matches", f"{bytes(part.properties)!r} came for the filter {sieve}")

    def settling(self, hold: Hold) -> None:
        """Its holder asks to end the lease, or to change it: from now on it may be over."""
        hold.hold_s = -inf

    def acked_by(self, hold: Hold) -> None:
        """An ack was answered by yes."""
        self.acked[hold.label] = min(hold.attempt, self.acked.get(hold.label, 1 << 30))

    def held(self, hold: Hold, asked_s: float, hold_s: float) -> None:
        """An extension or a delay was answered by yes: it began after it was asked for."""
        hold.since_s, hold.hold_s = asked_s, hold_s
