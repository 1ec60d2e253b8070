"""Seeded histories of trouble for bare engines."""

from __future__ import annotations

import pytest

from tests.simulation.broken_engines import BROKEN
from tests.simulation.chaos import Chaos, failure_of

NOTICED = ["truncates", "answers-alone", "answers-too-soon", "commits-unverified", "forgets-that-it-forgot"]


@pytest.mark.parametrize("first", range(0, 60, 10))
def test_nothing_is_lost_and_peace_brings_progress(first: int) -> None:
    assert [failure for seed in range(first, first + 10) if (failure := failure_of(seed))] == []


def test_a_seed_repeats_exactly() -> None:
    once, again = Chaos(7).run(), Chaos(7).run()
    assert (once.counts, once.now_s, once.digests) == (again.counts, again.now_s, again.digests)


@pytest.mark.parametrize("rule", NOTICED)
def test_a_broken_rule_is_noticed(rule: str) -> None:
    assert any(failure_of(seed, **BROKEN[rule]) for seed in range(40))
