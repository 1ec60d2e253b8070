"""Handing over: a leader has another replica lead in its place, as soon as that one has everything.

The leader takes no proposals meanwhile, so that there comes a moment at which the other has everything. If it does not
come in time the leader leads on.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Literal

Cause = Literal["stop", "removal", "damage", "no_room"]
"""Why a leader hands over: its node stops, it is to be removed, its store is damaged, or its disk has too little room
while others have enough."""


@dataclass(slots=True)
class _Attempt:
    to: str | None
    until_s: float
    is_new: bool = True
    is_asked: bool = False


class Handover:
    """One attempt at a time."""

    def __init__(self) -> None:
        self._attempt: _Attempt | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether it is tried now."""
        return self._attempt is not None

    @property
    def is_new(self) -> bool:
        """Whether nobody has looked for an heir since it was begun: there may be one already."""
        return self._attempt is not None and self._attempt.is_new

    def begin(self, to: str | None, until_s: float) -> None:
        """Try until then to hand over to `to`, or to whoever has most."""
        self._attempt = _Attempt(to, until_s)

    def end(self) -> None:
        """It has come about, or is given up."""
        self._attempt = None

    def heir(self, able: Mapping[str, int], last_index: int, now_s: float, avoided: Container[str]) -> str | None:
        """Whom to ask to campaign at once; None: nobody yet, or not again.

        able: up to where each of those holds the log who could lead. avoided: who is asked only if nobody else has all.
        """
        attempt = self._attempt
        if attempt is not None and now_s > attempt.until_s:
            attempt = self._attempt = None
        if attempt is None or attempt.is_asked:
            return None
        attempt.is_new = False
        fit = [name for name, index in able.items() if index == last_index and attempt.to in (None, name)]
        heir = max(fit, key=lambda name: (name not in avoided, name), default=None)
        attempt.is_asked = heir is not None
        return heir
