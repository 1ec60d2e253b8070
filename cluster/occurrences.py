"""The leader's part in schedules: to have their times come, and to say when the next ones are.

What it proposes happens only if the schedule still is as it was found (`storage.schedules`), so nothing here has to be
right twice. A time was missed when it comes later than any failover takes, or lay in a pause; what becomes of it is the
plan's `catch_up`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import msgspec

from cluster.cron import Schedule as Timing
from cluster.cron import ScheduleError, next_runs, parse_cron, parse_every
from storage import schedule_look
from storage.block import encode_block
from storage.limits import SCHEDULE_CATCH_UP_MAX, SCHEDULE_LATE_MS
from storage.operations import Refused, encode_item
from storage.options import Plan
from storage.records import NEVER, Schedule
from storage.schedule_operations import Occur
from storage.schedules import publish_of
from storage.state import State
from storage.topic_operations import Publish, Target

_STEPS_MAX = 64
"""Times computed for one entry: with a tenth of a millisecond for each, other work hardly waits."""
_BYTES_MAX = 1024 * 1024
"""Bytes of messages sent by one entry, one excepted: others want to be in it, too."""


class Occurrences:
    """What is due, of the schedules in `state`, and whether it is under way. `targets` says where a publish goes."""

    def __init__(self, state: State, targets: Callable[[Publish, memoryview], list[Target] | Refused]) -> None:
        self._state, self._targets = state, targets
        self._is_under_way = False

    def next_ms(self) -> int | None:
        """When there is something to propose (cluster time); None: nothing, or not before what is under way is done."""
        return None if self._is_under_way else schedule_look.next_alarm_ms(self._state)

    def due(self, now_ms: int, trouble: str) -> list[bytes]:
        """Items to propose now. `trouble`: why nothing can be sent, or empty."""
        due_ms = self.next_ms()
        if due_ms is None or due_ms > now_ms:
            return []
        items: list[bytes] = []
        steps_left, bytes_left = _STEPS_MAX, _BYTES_MAX
        for schedule in schedule_look.due_schedules(self._state, now_ms):
            operation, steps = occurrence(schedule, now_ms, trouble)
            block = b""
            if operation.occurrence_ms:
                block = encode_block([(schedule.plan.body, schedule.plan.properties)])
            if operation.occurrence_ms and schedule.plan.topic:
                operation = self._routed(schedule, operation, block)
            items.append(encode_item(0, 0, operation, block))
            steps_left, bytes_left = steps_left - steps, bytes_left - len(block)
            if steps_left <= 0 or bytes_left <= 0:
                break
        self._is_under_way = bool(items)
        return items

    def _routed(self, schedule: Schedule, operation: Occur, block: bytes) -> Occur:
        """With where the message goes, as the leader finds it for every publish."""
        found = self._targets(publish_of(schedule, operation.occurrence_ms), memoryview(block))
        if isinstance(found, Refused):
            return msgspec.structs.replace(operation, trouble=operation.trouble or found.code)
        return msgspec.structs.replace(operation, targets=found)

    def done(self) -> None:
        """What was proposed is applied, or its fate is unknown."""
        self._is_under_way = False


def occurrence(schedule: Schedule, now_ms: int, trouble: str = "") -> tuple[Occur, int]:
    """What is to be proposed for a schedule whose time has come, and how many times were computed for it."""
    name, version, due_ms = schedule.name, schedule.version, schedule.next_ms
    try:
        timing = timing_of(schedule.plan)
    except ScheduleError as error:  # it was read by another node, whose time zones or rules are not those of this one
        return Occur(name, version, due_ms, NEVER, trouble=f"{error}, says the leader: put the schedule again"), 1
    if not due_ms:
        return Occur(name, version, 0, _next(timing, schedule.after_ms)), 1
    missed_ms = max(now_ms - SCHEDULE_LATE_MS, schedule.resumed_ms)
    if due_ms > missed_ms:
        return Occur(name, version, due_ms, _next(timing, due_ms), due_ms, trouble=trouble), 1
    if schedule.plan.catch_up == "none":
        return Occur(name, version, due_ms, _next(timing, missed_ms)), 1
    if schedule.plan.catch_up == "all" and schedule.caught_up < SCHEDULE_CATCH_UP_MAX:
        return Occur(name, version, due_ms, _next(timing, due_ms), due_ms, True, trouble), 1
    last_ms, steps = last_until(timing, due_ms, missed_ms)
    return Occur(name, version, due_ms, _next(timing, missed_ms), last_ms, True, trouble), steps + 1


@lru_cache(maxsize=10_000)
def _timing(cron: str, every_ms: int, time_zone: str) -> Timing:
    return parse_cron(cron, time_zone) if cron else parse_every(every_ms)


def timing_of(plan: Plan) -> Timing:
    """When a plan's times are. Raises `ScheduleError`."""
    return _timing(*plan.timing)


def next_times(schedule: Schedule, count: int) -> list[int]:
    """The next `count` times of a schedule (cluster milliseconds): none if it is paused or cannot be read here."""
    if schedule.plan.paused or schedule.next_ms == NEVER:
        return []
    try:
        timing = timing_of(schedule.plan)
    except ScheduleError:
        return []
    if not schedule.next_ms:  # the leader finds out the same in a moment
        return next_runs(timing, schedule.after_ms, count)
    return [schedule.next_ms, *next_runs(timing, schedule.next_ms, count - 1)]


def _next(timing: Timing, after_ms: int) -> int:
    found = timing.next_after(after_ms)
    return NEVER if found is None else found


def last_until(timing: Timing, first_ms: int, until_ms: int) -> tuple[int, int]:
    """The last time from `first_ms`, which is one, to `until_ms`, and how many times were computed to find it."""
    found_ms, end_ms, steps = first_ms, until_ms, 0  # no time lies between `end_ms` and `until_ms`
    while found_ms < end_ms:
        middle_ms = (found_ms + end_ms) // 2
        next_ms = timing.next_after(middle_ms)
        steps += 1
        if next_ms is not None and next_ms <= until_ms:
            found_ms = next_ms
        else:
            end_ms = middle_ms
    return found_ms, steps
