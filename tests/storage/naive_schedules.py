"""Schedules, as the naive model has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from storage import codes
from storage.operations import (
    Done,
    Outcome,
    Refused,
    Send,
    Sent,
)
from storage.options import (
    Plan,
    Run,
)
from storage.schedule_operations import DeleteSchedule, Occur, Occurred, PauseSchedule, PutSchedule, SchedulePut

if TYPE_CHECKING:
    from tests.storage.naive import Body, Naive


@dataclass
class Schedule:
    plan: Plan
    created_ms: int
    after_ms: int
    changed_ms: int = 0
    version: int = 1
    next_ms: int = 0
    resumed_ms: int = 0
    caught_up: int = 0
    sent: int = 0
    skipped: int = 0
    skipped_ms: int = 0
    last_ms: int = 0
    last_sent_ms: int = 0
    last: tuple[int, int] | None = None
    """Number of the queue where the message sent last came, and its id."""
    missed_ms: int = 0
    trouble: str = ""
    trouble_ms: int = 0


class Schedules:
    """The schedules of a model."""

    def __init__(self, model: Naive) -> None:
        self.model = model
        self.known: dict[str, Schedule] = {}

    def do(self, operation: PutSchedule | DeleteSchedule | PauseSchedule | Occur, bodies: list[Body]) -> Outcome:
        match operation:
            case PutSchedule():
                return self.put_schedule(operation.schedule, operation.plan)
            case DeleteSchedule():
                found = self.known.pop(operation.schedule, None)
                return Refused(codes.SCHEDULE_NOT_FOUND) if found is None else Done()
            case PauseSchedule():
                found = self.known.get(operation.schedule)
                if found is None:
                    return Refused(codes.SCHEDULE_NOT_FOUND)
                plan = msgspec.structs.replace(found.plan, paused=operation.paused)
                return self.put_schedule(operation.schedule, plan)
            case Occur():
                return self.occur(operation, bodies)

    def put_schedule(self, name: str, plan: Plan) -> Outcome:
        schedule = self.known.get(name)
        if schedule is None:
            self.known[name] = Schedule(plan, self.model.now_ms, self.model.now_ms)
            return SchedulePut(True, True, 0, self.model.now_ms)
        old = schedule.plan
        if old == plan:
            return SchedulePut(False, False, schedule.next_ms, schedule.after_ms)
        schedule.plan, schedule.changed_ms = plan, self.model.now_ms
        schedule.version += 1
        is_resumed = old.paused and not plan.paused
        if is_resumed:
            schedule.resumed_ms = self.model.now_ms
        is_anew = (old.cron, old.every_ms, old.time_zone) != (plan.cron, plan.every_ms, plan.time_zone)
        if is_anew or (is_resumed and plan.catch_up == "none"):
            schedule.next_ms, schedule.after_ms, schedule.caught_up = 0, self.model.now_ms, 0
        return SchedulePut(False, True, schedule.next_ms, schedule.after_ms)

    def occur(self, operation: Occur, bodies: list[Body]) -> Outcome:
        schedule = self.known.get(operation.schedule)
        if schedule is None or schedule.version != operation.version or schedule.next_ms != operation.due_ms:
            return Occurred("stale")
        schedule.next_ms = operation.next_ms
        schedule.caught_up = schedule.caught_up + 1 if operation.missed else 0
        if operation.due_ms and operation.due_ms != operation.occurrence_ms:
            schedule.missed_ms = operation.due_ms
        if operation.trouble:
            schedule.trouble, schedule.trouble_ms = operation.trouble, self.model.now_ms
            return Occurred("refused")
        if not operation.occurrence_ms:
            return Occurred("passed")
        plan, queue = schedule.plan, self.model.queues.get(schedule.plan.queue)
        if plan.overlap == "skip" and queue is not None and schedule.last and schedule.last[0] == queue.number:
            last = self.model.found(queue, schedule.last[1])
            if last is not None and last.state != "dead":
                schedule.skipped += 1
                schedule.skipped_ms = operation.occurrence_ms
                return Occurred("skipped")
        options = msgspec.structs.replace(
            plan.options, schedule=operation.schedule, occurrence_ms=operation.occurrence_ms
        )
        outcome: Outcome = Refused(codes.QUEUE_NOT_FOUND)
        if queue is not None:
            outcome = self.model.send(queue, Send(plan.queue, 1, [Run(1, options)]), bodies)
        if isinstance(outcome, Refused):
            schedule.trouble, schedule.trouble_ms = outcome.code, self.model.now_ms
            return Occurred("refused")
        assert isinstance(outcome, Sent)
        assert queue is not None
        schedule.trouble, schedule.trouble_ms = "", 0
        schedule.sent += 1
        schedule.last_ms, schedule.last_sent_ms = operation.occurrence_ms, self.model.now_ms
        schedule.last = queue.number, outcome.runs[0].message_id if outcome.runs else outcome.message_id
        return Occurred("sent")
