"""When schedules fire: cron expressions in time zones with daylight saving, and plain intervals.

The leader asks, and stamps the answer into the entry: replicas must not compute with time zone data of their own, which
differ from machine to machine. So nothing here is part of the replicated rules. No clock is read.

A cron expression has five fields (minute, hour, day of month, month, day of week), or six with seconds in front, or is
one of the names in `NAMES`. `cronsim` knows the calendar, and follows Debian's cron. What happens when clocks are put
forward or back is decided here, after Debian's words too:

    A schedule at fixed times (neither seconds, minute nor hour begin with `*`) fires once for each of its local times.
    One that does not exist, because clocks are put forward over it, fires at once when they have been; one that exists
    twice fires the first time.
    Any other schedule fires whenever local clocks show a time of it: never for the skipped, twice for the repeated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import cache
from importlib import resources
from itertools import islice
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from storage.limits import CRON_CHARACTERS_MAX, SCHEDULE_EVERY_MS_MAX, SCHEDULE_EVERY_MS_MIN

NAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
FIELDS = ("second", "minute", "hour", "day of month", "month", "day of week")

_SECOND = timedelta(seconds=1)
_SHIFT_MAX = timedelta(hours=26)
"""Longer than clocks were ever put forward or back: Samoa once left out a whole day."""
_YEAR_MAX = 9000
"""Beyond it nothing fires: calendars in Python end with 9999."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END_MS = (datetime(_YEAR_MAX, 1, 1, tzinfo=UTC) - _EPOCH) // _SECOND * 1000
_FIELD = re.compile(r"\S+")


class ScheduleError(Exception):
    """A schedule that cannot be: `field` says which of its settings, `position` the character in it."""

    def __init__(self, field: str, position: int, reason: str) -> None:
        super().__init__(f"{field}, character {position}: {reason}")
        self.field = field
        self.position = position
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Every:
    """Fires at each multiple of `every_ms` since 1970, so that any leader comes to the same."""

    every_ms: int

    def next_after(self, ms: int) -> int:
        """The first time it fires after `ms` (Unix milliseconds)."""
        return (ms // self.every_ms + 1) * self.every_ms


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression in a time zone. Made by `parse_cron`."""

    expression: str
    zone: ZoneInfo

    def next_after(self, ms: int) -> int | None:
        """The first time it fires after `ms` (Unix milliseconds), or None if it never does again."""
        if ms >= _END_MS:
            return None
        after = _EPOCH + timedelta(seconds=ms // 1000)
        found = self._fixed_after(after) if self._is_fixed else self._shown_after(after)
        return None if found is None else (found - _EPOCH) // _SECOND * 1000

    @property
    def _is_fixed(self) -> bool:
        return not any(field.startswith("*") for field in self.expression.split()[:-3])

    def _fixed_after(self, after: datetime) -> datetime | None:
        for local in self._calendar(self._local(after)):
            moments = self._moments(local)
            first = moments[0] if moments else self._put_forward_over(local)
            if first > after:
                return first
        return None

    def _shown_after(self, after: datetime) -> datetime | None:
        found = self._first_shown(self._local(after), after)
        put_back = self._put_back_soon_after(after)
        if put_back is None:
            return found
        again = self._first_shown(self._local(put_back) - _SECOND, put_back - _SECOND)
        return again if found is None else found if again is None else min(found, again)

    def _first_shown(self, start: datetime, after: datetime) -> datetime | None:
        """The first moment after `after` that shows a time of the calendar behind the local time `start`."""
        for local in self._calendar(start):
            for moment in self._moments(local):
                if moment > after:
                    return moment
        return None

    def _calendar(self, local: datetime) -> Iterator[datetime]:
        """The local times of the expression after `local`, on clocks that nobody ever touches."""
        times = CronSim(self.expression, local)
        while times.dt.year < _YEAR_MAX and (found := next(times, None)) is not None:
            yield found

    def _local(self, moment: datetime) -> datetime:
        return moment.astimezone(self.zone).replace(tzinfo=None)

    def _moments(self, local: datetime) -> list[datetime]:
        """When local clocks show this time: once, twice in order, or never."""
        both = {local.replace(tzinfo=self.zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
        return [moment for moment in sorted(both) if self._local(moment) == local]

    def _put_forward_over(self, local: datetime) -> datetime:
        """When local clocks are put forward over a time that they never show."""
        before, after = sorted(local.replace(tzinfo=self.zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        return self._change_between(before, after)

    def _put_back_soon_after(self, moment: datetime) -> datetime | None:
        """When local clocks are put back, if that is soon, so that they show again what they have shown."""
        later = moment + _SHIFT_MAX
        if self._local(later) - self._local(moment) >= _SHIFT_MAX:
            return None
        return self._change_between(moment, later)

    def _change_between(self, before: datetime, after: datetime) -> datetime:
        """The first second with the offset that holds at `after`; at `before` it is another."""
        offset = after.astimezone(self.zone).utcoffset()
        while after - before > _SECOND:
            middle = before + (after - before) // (2 * _SECOND) * _SECOND
            if middle.astimezone(self.zone).utcoffset() == offset:
                after = middle
            else:
                before = middle
        return after


Schedule = Cron | Every


def next_runs(schedule: Schedule, after_ms: int, count: int) -> list[int]:
    """The next `count` times after `after_ms` that a schedule fires (Unix milliseconds); fewer if there are no more."""
    return list(islice(_runs(schedule, after_ms), count))


def _runs(schedule: Schedule, after_ms: int) -> Iterator[int]:
    found = schedule.next_after(after_ms)
    while found is not None:
        yield found
        found = schedule.next_after(found)


# --- reading ----------------------------------------------------------------------------------------------------------


def parse_every(every_ms: int) -> Every:
    """An interval. Raises `ScheduleError`."""
    if not SCHEDULE_EVERY_MS_MIN <= every_ms <= SCHEDULE_EVERY_MS_MAX:
        detail = f"an interval is from {SCHEDULE_EVERY_MS_MIN} to {SCHEDULE_EVERY_MS_MAX} ms"
        raise ScheduleError("every_ms", 0, detail)
    return Every(every_ms)


def parse_cron(expression: str, time_zone: str = "UTC") -> Cron:
    """A cron expression in an IANA time zone. Raises `ScheduleError`, also for one that never fires."""
    zone = _zone(time_zone)
    if len(expression) > CRON_CHARACTERS_MAX:
        raise ScheduleError("cron", CRON_CHARACTERS_MAX, f"at most {CRON_CHARACTERS_MAX} characters are allowed")
    text = expression.strip()
    if text.startswith("@"):
        if text.lower() not in NAMES:
            raise ScheduleError("cron", expression.index("@"), f"there is no such name; there are {', '.join(NAMES)}")
        return Cron(NAMES[text.lower()], zone)
    fields = list(_FIELD.finditer(expression))
    if len(fields) not in (5, 6):
        detail = f"five fields are needed, or six with seconds in front; there are {len(fields)}"
        raise ScheduleError("cron", len(expression), detail)
    for name, field in zip(FIELDS[-len(fields) :], fields, strict=True):
        if not _is_field(name, field[0]):
            raise ScheduleError("cron", field.start(), f"{field[0]} is no {name}")
    cron = Cron(" ".join(field[0] for field in fields), zone)
    if not _ever_fires(cron):
        raise ScheduleError("cron", fields[-3].start(), "this never fires: no month has such a day")
    return cron


def _is_field(name: str, text: str) -> bool:
    fields = ["*"] * len(FIELDS)
    fields[FIELDS.index(name)] = text
    try:
        CronSim(" ".join(fields), datetime(2000, 1, 1))
    except CronSimError:
        return False
    return True


def _ever_fires(cron: Cron) -> bool:
    """Whether the calendar has a time of it: within 50 years, in which every combination of days comes about."""
    try:
        return next(cron._calendar(datetime(2000, 1, 1)), None) is not None
    except CronSimError:
        return False


def _zone(name: str) -> ZoneInfo:
    if name not in _zones():
        alike = get_close_matches(name[:CRON_CHARACTERS_MAX], _zones(), 1)
        hint = f"; {alike[0]} is one" if alike else ""
        raise ScheduleError("time_zone", 0, f"this is no IANA time zone{hint}")
    return ZoneInfo(name)


@cache
def _zones() -> frozenset[str]:
    """The names of all zones: those of the `tzdata` package, so that they are the same everywhere."""
    return frozenset(resources.files("tzdata").joinpath("zones").read_text("utf-8").split())
