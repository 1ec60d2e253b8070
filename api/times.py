"""Times as HTTP tells them: RFC 3339, UTC, with milliseconds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache

from api.problem import invalid
from storage.limits import TIME_END_MS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


@lru_cache(maxsize=1024)
def timestamp(at_ms: int) -> str:
    """A cluster time as text."""
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at_ms % 1000:03d}Z"


def read_time(text: str, field: str) -> int:
    """The cluster time (milliseconds) that a text says. Raises `Problem`."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise invalid(field, "this is no time", "Write it as in RFC 3339, with its offset: 2030-01-31T08:00:00Z.")
    at_ms = (at - _EPOCH) // _MILLISECOND
    if not 0 < at_ms <= TIME_END_MS:
        remedy = f"Choose a time between 1970 and {timestamp(TIME_END_MS)}."
        raise invalid(field, "this time is too far away", remedy, TIME_END_MS)
    return at_ms
