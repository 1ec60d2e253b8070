"""A failing plan is cut down: episodes, events and clients are left out for as long as the same check fails."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from tests.simulation.plan import Plan

SALTS = (0, 1, 2)
"""What is left out shifts chance for what remains: a smaller plan is tried with so many streams of it."""
RUNS_MAX = 400
T = TypeVar("T")


class Minimiser:
    """`fails(plan)` says which check fails, if any. `say` is told about progress."""

    def __init__(self, fails: Callable[[Plan], str | None], say: Callable[[str], None]) -> None:
        self._fails, self._say = fails, say
        self._runs = 0

    def minimise(self, plan: Plan) -> Plan:
        """A smaller plan that fails by the same check."""
        self._check = self._fails(plan)
        assert self._check is not None, "only a plan that fails can be made smaller"
        best = plan
        for position in reversed(range(len(best.episodes))):
            smaller = copy.deepcopy(best)
            del smaller.episodes[position]
            best = (self._still(smaller) if smaller.episodes else None) or best
        for position in range(len(best.episodes)):
            best = self._fewer(
                best, best.episodes[position].events, lambda plan, kept, p=position: _events(plan, p, kept)
            )
        best = self._fewer(best, best.clients, lambda plan, kept: setattr(plan, "clients", kept))
        for position, episode in enumerate(best.episodes):
            shorter = copy.deepcopy(best)
            last_s = max((event.at_s for event in episode.events), default=0.0)
            shorter.episodes[position].trouble_s = min(episode.trouble_s, last_s + 1.0)
            best = self._still(shorter) or best
        return best

    def _still(self, plan: Plan) -> Plan | None:
        """`plan` with some salt, if it fails as before."""
        for salt in SALTS:
            if self._runs >= RUNS_MAX:
                return None
            self._runs += 1
            salted = msgspec.structs.replace(plan, salt=salt)
            if self._fails(salted) == self._check:
                events = sum(len(episode.events) for episode in plan.episodes)
                self._say(
                    f"run {self._runs}: {len(plan.episodes)} episodes, {events} events, {len(plan.clients)} clients"
                )
                return salted
        return None

    def _fewer(self, plan: Plan, items: Sequence[T], put: Callable[[Plan, list[T]], None]) -> Plan:
        """Leave out halves, quarters, … of `items`, as far as it goes (Zeller's delta debugging)."""
        kept, size = list(items), len(items)
        while size:
            position = 0
            while position < len(kept):
                fewer = kept[:position] + kept[position + size :]
                smaller = copy.deepcopy(plan)
                put(smaller, copy.deepcopy(fewer))
                found = self._still(smaller)
                if found is not None:
                    plan, kept = found, fewer
                else:
                    position += size
            size //= 2
        return plan


def _events(plan: Plan, position: int, events: list[object]) -> None:
    plan.episodes[position].events = events  # type: ignore[assignment]
