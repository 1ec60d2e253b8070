"""When a shard's process ticks, in a world in which nothing is wrong: not for every message, and never too late."""

from __future__ import annotations

import re
from collections import Counter

from cluster.shard import REPORT_S
from tests.simulation.broken import Variant
from tests.simulation.oracle import Watched
from tests.simulation.plan import Plan
from tests.simulation.run import lived
from tests.simulation.test_simulation import quiet

LINE = re.compile(r" *([\d.]+) (\w+) gateway +(\d+) is (asked|answered): (\w+)")


def latencies_s(plan: Plan, kinds: set[str]) -> list[float]:
    """How long the gateways waited for the answers to operations of these kinds."""
    outcome = lived(plan, transcript=True)
    assert outcome.check is None
    asked: dict[tuple[str, str], float] = {}
    waited_s = []
    for line in outcome.transcript:
        found = LINE.match(line)
        if found is None:
            continue
        at_s, gateway, seq, what, kind = found.groups()
        if what == "asked" and kind in kinds:
            asked[gateway, seq] = float(at_s)
        elif what == "answered" and (gateway, seq) in asked:
            waited_s.append(float(at_s) - asked.pop((gateway, seq)))
    return waited_s


def test_what_a_majority_has_confirmed_does_not_wait_for_a_heartbeat() -> None:
    plan = quiet(heartbeat_ms=500)
    plan.election_min_ms, plan.election_max_ms = 2000, 4000
    waited_s = latencies_s(plan, {"Send", "Keyed", "GetQueue", "Browse", "ListQueues"})
    assert len(waited_s) > 100
    assert max(waited_s) < 0.02


class Counting(Watched):
    """Counts its ticks."""

    ticks: Counter[bool]

    def tick(self) -> None:
        super().tick()
        self.ticks[self.engine.is_leader] += 1


def test_who_follows_ticks_to_report_and_who_leads_for_each_heartbeat() -> None:
    Counting.ticks = Counter()
    plan = quiet(clients=0)
    outcome = lived(plan, Variant(replica=Counting))
    assert outcome.check is None
    assert Counting.ticks[False] < 2 * outcome.simulated_s / REPORT_S * 1.5
    assert Counting.ticks[True] < outcome.simulated_s / 0.05 * 1.5
