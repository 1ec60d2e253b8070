"""What can be asked and answered about schedules. A part of `storage.operations`, which has the unions."""

from __future__ import annotations

import msgspec

from storage.options import Plan
from storage.records import Schedule
from storage.topic_operations import Target


class PutSchedule(msgspec.Struct, array_like=True, frozen=True, tag=20):
    """Create a schedule, or replace its plan. → `SchedulePut`."""

    schedule: str
    plan: Plan


class DeleteSchedule(msgspec.Struct, array_like=True, frozen=True, tag=21):
    """Forget a schedule. What it has sent stays. → `Done`."""

    schedule: str


class PauseSchedule(msgspec.Struct, array_like=True, frozen=True, tag=31):
    """Pause a schedule, or have it go on: all else stays as it is. → `SchedulePut`."""

    schedule: str
    paused: bool


class Occur(msgspec.Struct, array_like=True, frozen=True, tag=22):
    """The leader's own: a schedule's time has come. Send its message, the item's block, and wait for `next_ms`. →
    `Occurred`.

    Nothing happens unless the schedule still is in the state that `version` and `due_ms` name: so it happens once,
    whoever leads. occurrence_ms: the time that is sent for, 0 for none (the leader only says when the next one is, or
    leaves out what was missed). missed: it comes late, after an outage or a pause. trouble: why it cannot be sent.
    targets: of a schedule that publishes, as of `Publish`.
    """

    schedule: str
    version: int
    due_ms: int
    next_ms: int
    occurrence_ms: int = 0
    missed: bool = False
    trouble: str = ""
    targets: list[Target] | None = None


class GetSchedule(msgspec.Struct, array_like=True, frozen=True, tag=44):
    """One schedule. → `ScheduleInfo`."""

    schedule: str


class ListSchedules(msgspec.Struct, array_like=True, frozen=True, tag=45):
    """Up to `limit` schedules named after `after`, by name; fewer when their messages are large. → `ScheduleList`.

    patterns: only those that one of them is for (`storage.access.matches`); none: all.
    """

    after: str = ""
    limit: int = 1000
    patterns: list[str] = []


# --- outcomes ---------------------------------------------------------------------------------------------------------


class SchedulePut(msgspec.Struct, array_like=True, frozen=True, tag=14):
    """The schedule now has this plan. `created`: it did not exist before. `changed`: its plan differs now. `next_ms`
    and `after_ms` as in `storage.records.Schedule`."""

    created: bool
    changed: bool
    next_ms: int
    after_ms: int


class Occurred(msgspec.Struct, array_like=True, frozen=True, tag=15):
    """What came of a schedule's time: "sent", "skipped", "refused", "passed" (nothing was to be sent), or "stale":
    the schedule was not in the state that was meant."""

    what: str


class ScheduleInfo(msgspec.Struct, array_like=True, frozen=True, tag=44):
    """A schedule as it is."""

    schedule: Schedule


class ScheduleList(msgspec.Struct, array_like=True, frozen=True, tag=45):
    """Schedules in order of name."""

    schedules: list[Schedule]
