"""A short form of the simulation, and proof that it has teeth. `make simulate SEEDS=0..999` is the long form."""

from __future__ import annotations

import pytest

from tests.simulation.broken import BROKEN
from tests.simulation.chaos import failure_of

NOTICED = ("truncates", "answers-alone", "answers-too-soon", "commits-unverified", "forgets-that-it-forgot")
"""Broken rules that random seeds find soon. The others need a history that 25 random seeds did not come upon."""


@pytest.mark.parametrize("seeds", [range(n, n + 10) for n in range(0, 60, 10)], ids=lambda seeds: f"{seeds.start}")
def test_seeds(seeds: range) -> None:
    failures = [failure for seed in seeds if (failure := failure_of(seed)) is not None]
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("rule", NOTICED)
def test_a_broken_rule_is_noticed(rule: str) -> None:
    assert any(failure_of(seed, **BROKEN[rule]) for seed in range(40))


def test_the_rules_listed_are_there() -> None:
    assert set(NOTICED) < set(BROKEN)
