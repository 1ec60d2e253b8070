"""Seeded histories of trouble, in short. More of them: `make simulate SEEDS=0..999`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.simulation.__main__ import digest
from tests.simulation.broken import BROKEN
from tests.simulation.minimise import Minimiser
from tests.simulation.plan import Clients, Episode, Event, Plan, make
from tests.simulation.run import Told, lived


def short(seed: int) -> Plan:
    """The first trouble of a seed, and the calm after it."""
    plan = make(seed)
    plan.episodes = plan.episodes[:1]
    return plan


def told(told: Told) -> str:
    return "\n".join([*told.transcript[-40:], told.check or "", told.detail])


@pytest.mark.parametrize("seed", range(5))
def test_every_promise_is_kept_whatever_goes_wrong(seed: int) -> None:
    outcome = lived(short(seed))
    assert outcome.check is None, told(lived(short(seed), transcript=True))
    assert outcome.totals["operations"] > 10


@pytest.mark.parametrize(
    ("rule", "faults"),
    [
        ("never-syncs", ["power_cut"]),
        ("releases-early", ["corner"]),
        ("welcomes-at-once", ["forget"]),
        ("believes-stale-receipts", ["kill"]),
        ("believes-old-verdicts", ["slow_disk"]),
        ("trusts-old-answers", ["comeback"]),
        ("drops-the-suffix", ["surplus"]),
        ("spares-itself", ["needed"]),
        ("gives-back-under-a-key", ["encore"]),
        ("begins-a-new-time", ["kill"]),
        ("believes-the-fastest-clock", ["kill"]),
        ("wakes-nobody", ["kill"]),
    ],
)
def test_a_broken_rule_is_noticed(rule: str, faults: list[str]) -> None:
    """A few that are noticed soon; docs/testing.md has them all."""
    checks = (lived(make(seed, faults), BROKEN[rule]).check for seed in range(6))
    assert any(check is not None for check in checks)


def test_a_plan_repeats_exactly_in_every_process(tmp_path: Path) -> None:
    plan = short(7)
    here, again = lived(plan, transcript=True), lived(plan, transcript=True)
    assert here.transcript == again.transcript
    assert len(here.transcript) > 100
    (tmp_path / "plan.json").write_bytes(msgspec.json.encode(plan))
    command = [sys.executable, "-m", "tests.simulation", "--plan", str(tmp_path / "plan.json")]
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}  # sets have another order
    there = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert digest(here) in there.stdout


def test_a_failing_plan_is_cut_down_to_what_it_takes() -> None:
    plan = make(3)
    wanted = plan.episodes[0].events[3]

    def fails(plan: Plan) -> str | None:
        has_event = any(wanted == event for episode in plan.episodes for event in episode.events)
        return "it breaks" if has_event and any(client.number == 2 for client in plan.clients) else None

    smaller = Minimiser(fails, lambda text: None).minimise(plan)
    assert [episode.events for episode in smaller.episodes] == [[wanted]]
    assert [client.number for client in smaller.clients] == [2]
    assert smaller.minutes < 1.5


def quiet(*events: Event, clients: int = 4, heartbeat_ms: int = 50) -> Plan:
    """Three machines of which nothing is wrong but these events."""
    plan = make(0)
    plan.machines, plan.tuning, plan.delay_s, plan.commit_s = 3, "plain", (0.0002, 0.001), (0.0002, 0.002)
    plan.boots_s, plan.skews_s, plan.paces = [0.0] * 3, [0.1, 0.0, -0.1], [1.0001, 1.0, 0.9999]
    plan.copy_s, plan.scrub_ms, plan.ease, plan.grain_s, plan.beat_s = 0.0, 0, 1.0, 0.0, 0.0
    plan.heartbeat_ms, plan.election_min_ms, plan.election_max_ms = heartbeat_ms, 600, 1200
    kinds = ("keyed_producer", "consumer", "producer", "reader", "consumer")
    plan.clients = [Clients(kind, number, 0.3) for number, kind in enumerate(kinds[:clients])]
    plan.episodes = [Episode(10.0, list(events))]
    return plan


def test_nothing_happens_when_nothing_is_wrong() -> None:
    outcome = lived(quiet())
    assert outcome.check is None
    assert outcome.totals["elections"] == 1
    assert "ClusterTrouble not_done" not in outcome.totals
    assert "BrokenError" not in outcome.totals


def test_machines_join_and_the_leader_leaves() -> None:
    outcome = lived(quiet(Event(2.0, "join", ["n1"]), Event(5.0, "leave", ["leader"]), Event(7.0, "join", ["n1"])))
    assert outcome.check is None, told(outcome)
    assert (outcome.totals["done add"], outcome.totals["done remove"]) == (2, 1)


def test_a_leader_whose_disk_is_full_hands_over_and_no_send_is_refused() -> None:
    outcome = lived(quiet(Event(2.0, "full_disk", ["leader"], 6.0)), transcript=True)
    assert outcome.check is None, told(outcome)
    assert outcome.totals["elections"] == 2
    assert outcome.totals["sends acknowledged"] > 20
    assert "refused store_full" not in outcome.totals
    (line,) = (line for line in outcome.transcript if "handing over" in line)
    assert "too little room" in line


def test_with_two_disks_full_what_adds_is_refused_and_nobody_hands_over() -> None:
    outcome = lived(quiet(Event(2.125, "full_disk", ["leader", "follower"], 6.0)))
    assert outcome.check is None, told(outcome)
    assert outcome.totals["elections"] == 1
    assert outcome.totals["refused store_full"] > 5


def test_planned_stops_are_no_failures() -> None:
    outcome = lived(quiet(*(Event(2.0 * n, "stop", [who]) for n, who in enumerate(("leader", "n1", "n2", "n3"), 1))))
    assert outcome.check is None, told(outcome)
    assert outcome.totals["fault stop"] == 4
