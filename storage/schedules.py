"""Schedules: messages sent at times that the leader computes.

Replicas need not agree on calendars and time zones. A schedule's record says when it is due next; the leader, when that
time has come, proposes `Occur` with the time after it. Only if the record still is in the state that was meant, the
message is sent and the next time noted, in the same entry. So each time is sent for once, whoever leads, and however
often that is proposed.
"""

from __future__ import annotations

import msgspec

from storage import record_keys, records
from storage.addressing import find_message
from storage.codes import SCHEDULE_LIMIT, SCHEDULE_NOT_FOUND
from storage.limits import SCHEDULES_MAX
from storage.operations import (
    Done,
    Outcome,
    Refused,
    Send,
    Sent,
)
from storage.options import (
    Options,
    Plan,
    Run,
)
from storage.publishing import publish
from storage.record_keys import PRESENT
from storage.records import DEAD, NEVER, Schedule
from storage.schedule_operations import Occur, Occurred, PauseSchedule, PutSchedule, SchedulePut
from storage.sending import Bodies, send
from storage.topic_operations import Publish, Published, Target
from storage.turn import Turn


def put_schedule(turn: Turn, operation: PutSchedule) -> Outcome:
    """Create a schedule, or replace its plan."""
    name, plan = operation.schedule, operation.plan
    schedule = _find(turn, name)
    if schedule is None:
        if turn.shard.schedules >= SCHEDULES_MAX:
            return Refused(SCHEDULE_LIMIT, SCHEDULES_MAX)
        turn.shard.schedules += 1
        _file(turn, Schedule(name, plan, turn.now_ms, 0, after_ms=turn.now_ms))
        return SchedulePut(True, True, 0, turn.now_ms)
    return _change(turn, schedule, plan)


def pause_schedule(turn: Turn, operation: PauseSchedule) -> Outcome:
    """Pause a schedule, or have it go on."""
    schedule = _find(turn, operation.schedule)
    if schedule is None:
        return Refused(SCHEDULE_NOT_FOUND)
    return _change(turn, schedule, msgspec.structs.replace(schedule.plan, paused=operation.paused))


def _change(turn: Turn, schedule: Schedule, plan: Plan) -> SchedulePut:
    if schedule.plan == plan:
        return SchedulePut(False, False, schedule.next_ms, schedule.after_ms)
    _take_out(turn, schedule)
    _replan(schedule, plan, turn.now_ms)
    _file(turn, schedule)
    return SchedulePut(False, True, schedule.next_ms, schedule.after_ms)


def _replan(schedule: Schedule, plan: Plan, now_ms: int) -> None:
    """Other times begin now. The same times go on, and what a pause has held up was missed."""
    old, schedule.plan = schedule.plan, plan
    schedule.version += 1
    schedule.changed_ms = now_ms
    is_resumed = old.paused and not plan.paused
    if is_resumed:
        schedule.resumed_ms = now_ms
    if old.timing != plan.timing or (is_resumed and plan.catch_up == "none"):
        schedule.next_ms, schedule.after_ms = 0, now_ms
        schedule.caught_up = 0


def delete_schedule(turn: Turn, name: str) -> Outcome:
    """Forget a schedule."""
    schedule = _find(turn, name)
    if schedule is None:
        return Refused(SCHEDULE_NOT_FOUND)
    _take_out(turn, schedule)
    turn.state.delete(record_keys.schedule_key(name))
    turn.shard.schedules -= 1
    return Done()


def occur(turn: Turn, operation: Occur, bodies: Bodies) -> Outcome:
    """A schedule's time has come."""
    schedule = _find(turn, operation.schedule)
    if schedule is None or (schedule.version, schedule.next_ms) != (operation.version, operation.due_ms):
        return Occurred("stale")
    _take_out(turn, schedule)
    schedule.next_ms = operation.next_ms
    schedule.caught_up = schedule.caught_up + 1 if operation.missed else 0
    if operation.due_ms and operation.occurrence_ms != operation.due_ms:
        schedule.missed_ms = operation.due_ms
    what = _send(turn, schedule, operation, bodies)
    _file(turn, schedule)
    return Occurred(what)


def _send(turn: Turn, schedule: Schedule, operation: Occur, bodies: Bodies) -> str:
    """Send for a time, if there is one. Returns what came of it."""
    if operation.trouble:
        schedule.trouble, schedule.trouble_ms = operation.trouble, turn.now_ms
        return "refused"
    if not operation.occurrence_ms:
        return "passed"
    if schedule.plan.overlap == "skip" and _is_still_there(turn, schedule):
        schedule.skipped += 1
        schedule.skipped_ms = operation.occurrence_ms
        return "skipped"
    outcome = _sent(turn, schedule, operation, bodies)
    if isinstance(outcome, Refused):
        schedule.trouble, schedule.trouble_ms = outcome.code, turn.now_ms
        return "refused"
    schedule.trouble, schedule.trouble_ms = "", 0
    schedule.sent += 1
    schedule.last_ms, schedule.last_sent_ms = operation.occurrence_ms, turn.now_ms
    schedule.last_id, schedule.last_number = outcome
    return "sent"


def _sent(turn: Turn, schedule: Schedule, operation: Occur, bodies: Bodies) -> tuple[int, int] | Refused:
    """Send the message. Returns its id, and the number of its queue; 0 for a topic."""
    plan = schedule.plan
    if plan.topic:
        published = publish(turn, publish_of(schedule, operation.occurrence_ms, operation.targets), bodies)
        if isinstance(published, Refused):
            return published
        assert isinstance(published, Published)
        return published.message_id, 0
    sent = send(turn, Send(plan.queue, 1, [Run(1, options_at(schedule, operation.occurrence_ms))]), bodies)
    if isinstance(sent, Refused):
        return sent
    queue = turn.queue(plan.queue)
    assert isinstance(sent, Sent)
    assert queue is not None, "a message was sent to it"
    return sent.runs[0].message_id if sent.runs else sent.message_id, queue.number


def publish_of(schedule: Schedule, occurrence_ms: int, targets: list[Target] | None = None) -> Publish:
    """What a schedule publishes for one of its times."""
    plan, runs = schedule.plan, [Run(1, options_at(schedule, occurrence_ms))]
    return Publish(plan.topic, 1, [plan.routing_key], runs, targets=targets)


def options_at(schedule: Schedule, occurrence_ms: int) -> Options:
    """The options of the message that is sent for one of the schedule's times."""
    return msgspec.structs.replace(schedule.plan.options, schedule=schedule.name, occurrence_ms=occurrence_ms)


def _is_still_there(turn: Turn, schedule: Schedule) -> bool:
    """Whether somebody still is to handle the message sent last, or handles it."""
    queue = turn.queue(schedule.plan.queue)
    if queue is None or queue.number != schedule.last_number:
        return False
    found = find_message(turn, queue, schedule.last_id)
    return found is not None and found[2].due_ms != DEAD


# --- records ----------------------------------------------------------------------------------------------------------


def _find(turn: Turn, name: str) -> Schedule | None:
    found = turn.state.get(record_keys.schedule_key(name))
    return None if found is None else records.decode_schedule(found)


def _file(turn: Turn, schedule: Schedule) -> None:
    """Write a schedule, with the alarm that belongs to it."""
    turn.state.put(record_keys.schedule_key(schedule.name), records.encode(schedule))
    if has_alarm(schedule):
        turn.state.put(record_keys.alarm_key(schedule.next_ms, schedule.name), PRESENT)


def _take_out(turn: Turn, schedule: Schedule) -> None:
    """Take back the alarm of a schedule that is filed otherwise next."""
    if has_alarm(schedule):
        turn.state.delete(record_keys.alarm_key(schedule.next_ms, schedule.name))


def has_alarm(schedule: Schedule) -> bool:
    """Whether the leader is to have the schedule's time come."""
    return not schedule.plan.paused and schedule.next_ms != NEVER
