"""Handing over: a leader has another replica lead in its place, as soon as that one has everything.

The leader takes no proposals meanwhile, so that there comes a moment at which the other has everything. If it does not
come in time the leader leads on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(slots=True)
class _Attempt:
    to: str | None
    until_s: float
    is_asked: bool = False


class Handover:
    """One attempt at a time."""

    def __init__(self) -> None:
        self._attempt: _Attempt | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether it is tried now."""
        return self._attempt is not None

    def begin(self, to: str | None, until_s: float) -> None:
        """Try until then to hand over to `to`, or to whoever has most."""
        self._attempt = _Attempt(to, until_s)

    def end(self) -> None:
        """It has come about, or is given up."""
        self._attempt = None

    def heir(self, able: Mapping[str, int], last_index: int, now_s: float) -> str | None:
        """Whom to ask to campaign at once; None: nobody yet, or not again. `able`: what each holds who could lead."""
        attempt = self._attempt
        if attempt is not None and now_s > attempt.until_s:
            attempt = self._attempt = None
        if attempt is None or attempt.is_asked:
            return None
        fit = [(index, name) for name, index in able.items() if attempt.to in (None, name)]
        index, name = max(fit, default=(0, ""))
        if index != last_index:
            return None
        attempt.is_asked = True
        return name
