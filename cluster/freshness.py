"""How stale a replica's state may be, by its own knowledge: since when it has had all that was committed.

A replica is told now and then what is committed: a follower by its leader, a leader by its majority, which confirms
that nobody else commits anything. When it has applied that much, its state was complete at the moment it was told.
What was committed since is unknown, so the state is as stale as that moment is long ago; the time that the leader's
word was on its way cannot be known and is not counted.

A new leader has all that those before it committed, but does not know that it is before an entry of its own term is
committed. So its word counts for nothing until such an entry is applied: `applied` is not called before.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple


class _Told(NamedTuple):
    commit_index: int
    at_s: float


class Freshness:
    """`since_s`: the latest known moment at which everything committed is applied here; -inf: never since the start."""

    def __init__(self) -> None:
        self.since_s = -inf
        # The first goal not reached yet is kept while newer ones arrive: under load the newest is never reached.
        self._goal: _Told | None = None
        self._newest: _Told | None = None

    def told(self, commit_index: int, at_s: float) -> None:
        """At `at_s` everything up to `commit_index` was committed, and nothing else."""
        self._newest = _Told(commit_index, at_s)
        self._goal = self._goal or self._newest

    def applied(self, index: int) -> None:
        """Everything up to `index` is applied here."""
        for _ in range(2):
            if self._goal is None or index < self._goal.commit_index:
                return
            self.since_s = max(self.since_s, self._goal.at_s)
            self._goal, self._newest = self._newest, None
