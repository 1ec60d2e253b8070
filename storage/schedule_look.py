"""What can be read of schedules."""

from __future__ import annotations

from collections.abc import Iterator

from storage import record_keys, records
from storage.access import matches
from storage.codes import SCHEDULE_NOT_FOUND
from storage.limits import RECEIVE_BYTES_MAX
from storage.operations import Refused
from storage.records import Schedule
from storage.schedule_operations import GetSchedule, ListSchedules, ScheduleInfo, ScheduleList
from storage.state import State


def answer(state: State, query: GetSchedule | ListSchedules) -> ScheduleInfo | ScheduleList | Refused:
    """One schedule, or a page of them."""
    if isinstance(query, ListSchedules):
        return _list(state, query)
    schedule = find_schedule(state, query.schedule)
    return Refused(SCHEDULE_NOT_FOUND) if schedule is None else ScheduleInfo(schedule)


def find_schedule(state: State, name: str) -> Schedule | None:
    """The record of the schedule called `name`, or None."""
    record = state.get(record_keys.schedule_key(name))
    return None if record is None else records.decode_schedule(record)


def next_alarm_ms(state: State) -> int | None:
    """When the next schedule's time comes (cluster time), or None if there is none."""
    found = state.first(record_keys.ALARMS)
    return None if found is None else record_keys.read_alarm(found[0])[0]


def due_schedules(state: State, now_ms: int) -> Iterator[Schedule]:
    """Schedules whose time has come, the earliest first. Do not write meanwhile."""
    for key, _ in state.scan(record_keys.ALARMS):
        due_ms, name = record_keys.read_alarm(key)
        if due_ms > now_ms:
            return
        schedule = find_schedule(state, name)
        assert schedule is not None, "an alarm belongs to a schedule"
        yield schedule


def _list(state: State, query: ListSchedules) -> ScheduleList:
    schedules: list[Schedule] = []
    bytes_left = RECEIVE_BYTES_MAX
    for key, record in state.scan(record_keys.SCHEDULES, query.after.encode()):
        name = key[1:].decode()
        if name == query.after or (query.patterns and not any(matches(each, name) for each in query.patterns)):
            continue
        bytes_left -= len(record)
        if len(schedules) >= query.limit or (schedules and bytes_left < 0):
            break
        schedules.append(records.decode_schedule(record))
    return ScheduleList(schedules)
