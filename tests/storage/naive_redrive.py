"""Redrive as anyone would write it at first: a part of the naive model.

A step's ids are the leader's word. `look` says what they have to be when they are looked up, `step` what becomes of
them.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from storage import codes, limits
from storage.operations import Done, Outcome, Refused
from storage.records import DEAD, Redrive, RedriveFilter
from storage.redrive_operations import CancelRedrive, RedriveTask, StartRedrive, StepRedrive
from storage.settings import Rate

if TYPE_CHECKING:
    from tests.storage.naive import Bucket, Message, Naive, Queue

REDRIVES_MAX = 3
FILTERS: dict[RedriveFilter, Callable[[Message], bool]] = {
    RedriveFilter(): lambda message: True,
    RedriveFilter(dead='{"reason": ["why"]}'): lambda message: told(message) == ("why", message.dead),
    RedriveFilter(dead='{"queue": [{"exists": false}]}'): lambda message: told(message) == ("", None),
    RedriveFilter(body='{"k": [1]}'): lambda message: message.content[0] == b'{"k":1}',
    RedriveFilter(attributes='{"k": [{"exists": false}]}', dead='{"attempts": [1]}'): lambda message: (
        message.dead is not None and not message.redriven and message.dead.attempts == 1
    ),
}
"""Filters, and what they mean here."""


def told(message: Message) -> tuple[str, object]:
    dead = None if message.redriven else message.dead
    return (dead.reason if dead is not None else ""), dead


def may(operation: StartRedrive, name: str) -> bool:
    return not operation.patterns or any(fnmatchcase(name, pattern) for pattern in operation.patterns)


@dataclass
class Task:
    operation: StartRedrive
    started_ms: int
    messages: int
    until_id: int
    number: int
    bucket: Bucket
    state: str = "running"
    cause: str = ""
    detail: str = ""
    ended_ms: int = 0
    steps: int = 0
    after: int = 0
    target: int = 0
    moved: list[tuple[str, int, int]] = field(default_factory=list)
    """Name and number of the queue, and the id there, of each message moved."""
    back: int = 0

    def end(self, state: str, now_ms: int, cause: str = "", detail: str = "") -> None:
        self.state, self.ended_ms, self.cause, self.detail = state, now_ms, cause, detail

    def told(self) -> tuple[object, ...]:
        undo = self.operation.undo
        moved = self.back if undo else len(self.moved)
        return undo, self.started_ms, self.messages, self.state, self.cause, self.detail, self.ended_ms, moved


def as_told(redrive: Redrive) -> tuple[object, ...]:
    """The same of a record."""
    one = redrive
    return one.undoes, one.started_ms, one.messages, one.state, one.cause, one.detail, one.ended_ms, one.moved


class Redrives:
    """The tasks of all queues, by the queues' numbers."""

    def __init__(self, naive: Naive) -> None:
        self._naive = naive
        self._count = 0
        self.tasks: dict[int, dict[int, Task]] = {}

    def of(self, queue: Queue) -> dict[int, Task]:
        return self.tasks.setdefault(queue.number, {})

    def start(self, queue: Queue, operation: StartRedrive, actual: Outcome) -> Outcome:
        from tests.storage.naive import Bucket

        known, messages = self.of(queue), len(queue.messages)
        running = [number for number, task in known.items() if task.state == "running"]
        if running:
            return Refused(codes.REDRIVE_RUNNING, detail=str(running[0]))
        if operation.undo:
            if operation.undo not in known:
                return Refused(codes.REDRIVE_NOT_FOUND)
            if known[operation.undo].operation.undo:
                return Refused(codes.REDRIVE_IS_UNDO)
            messages = len(known[operation.undo].moved)
        elif operation.to:
            target = self._naive.queues.get(operation.to)
            if target is None:
                return Refused(codes.REDRIVE_TO_NOT_FOUND, detail=operation.to)
            if target.settings.fifo != queue.settings.fifo:
                return Refused(codes.REDRIVE_TO_KIND, detail=operation.to)
        while len(known) >= REDRIVES_MAX:
            del known[min(known)]
        self._count += 1
        number = self._count
        known[number] = Task(operation, self._naive.now_ms, messages, queue.next_id, number, Bucket())
        if operation.undo:  # what is to be undone is known from now on, whatever becomes of the task
            known[number].moved = [each for each in known[operation.undo].moved if may(operation, each[0])]
        assert isinstance(actual, RedriveTask)
        assert actual.redrive.task == number
        return actual

    def cancel(self, queue: Queue, operation: CancelRedrive, actual: Outcome) -> Outcome:
        task = self.of(queue).get(operation.task)
        if task is None:
            return Refused(codes.REDRIVE_NOT_FOUND)
        if task.state == "running":
            task.end("cancelled", self._naive.now_ms)
        return actual

    def purged(self, queue: Queue, fresh: Queue) -> None:
        tasks = self.tasks[fresh.number] = self.tasks.pop(queue.number, {})
        for task in tasks.values():
            if task.state == "running":
                task.end("stopped", self._naive.now_ms, codes.REDRIVE_PURGED)

    # --- steps ---

    def found(self, number: int) -> tuple[Queue, Task]:
        """The task of this number, and its queue."""
        return next(
            (queue, self.of(queue)[number]) for queue in self._naive.queues.values() if number in self.of(queue)
        )

    def look(self, step: StepRedrive) -> None:
        """Check what the leader has found."""
        queue, task = self.found(step.task)
        assert (task.state, task.steps) == ("running", step.step)
        ids = [message_id + more for message_id, count in step.runs for more in range(count)]
        assert len(set(ids)) == len(ids)
        rate, bucket = task.operation.rate, copy(task.bucket)
        for _ in ids:
            assert bucket.allows(rate, self._naive.now_ms), "no faster than the rate"
            bucket.use(rate, self._naive.now_ms)
        if task.operation.undo:
            self._look_back(task, step, ids)
            return
        assert step.upto > task.after or step.upto >= task.until_id - 1, "it gets on"
        assert step.upto < max(task.until_id, task.after + 1)
        wanted = FILTERS[task.operation.filter]
        asked = [m for m in queue.messages if task.after < m.message_id <= step.upto and self.where(task, queue, m)]
        assert ids == [m.message_id for m in asked if wanted(m) and not m.token]
        assert step.held == sum(wanted(m) for m in asked if m.token)
        assert step.looked == sum(task.after < m.message_id <= step.upto for m in queue.messages)

    def _look_back(self, task: Task, step: StepRedrive, ids: list[int]) -> None:
        places = list(dict.fromkeys((name, number) for name, number, _ in task.moved))
        assert (step.target, step.upto) > (task.target, task.after), "it gets on"
        if task.target >= len(places):
            assert not ids
            return
        name, number = places[task.target]
        source = self._naive.queues.get(name)
        upto = step.upto if step.target == task.target else limits.ID_END
        there = {message_id for *place, message_id in task.moved if place == [name, number]}
        found = [] if source is None or source.number != number else source.messages
        assert ids == [
            m.message_id
            for m in found
            if task.after < m.message_id <= upto and m.message_id in there and self.is_as_it_came(m, task)
        ]

    def is_as_it_came(self, message: Message, task: Task) -> bool:
        return message.redriven == task.operation.undo and message.state != "dead" and not message.attempts

    def where(self, task: Task, queue: Queue, message: Message) -> str:
        """Where a message would go, if to anywhere."""
        name = task.operation.to
        if not name and message.dead is not None and not message.redriven:
            name = message.dead.queue if may(task.operation, message.dead.queue) else ""
        here = next(known for known, each in self._naive.queues.items() if each is queue)
        return "" if name == here and message.state != "dead" else name

    def step(self, step: StepRedrive) -> Outcome:
        queue, task = self.found(step.task)
        if (task.state, task.steps) != ("running", step.step):
            return Done()
        task.steps += 1
        ids = [message_id + more for message_id, count in step.runs for more in range(count)]
        if task.operation.undo:
            places = list(dict.fromkeys((name, number) for name, number, _ in task.moved))
            for message_id in ids:
                self._back(queue, task, places[task.target], message_id)
            is_done = step.target >= len(places)
        else:
            for message_id in ids:
                self._on(queue, task, message_id)
            is_done = step.upto >= task.until_id - 1
        if task.state == "running":
            task.after, task.target = step.upto, step.target
            if is_done:
                task.end("done", self._naive.now_ms)
        return Done()

    def _on(self, queue: Queue, task: Task, message_id: int) -> None:
        naive, message = self._naive, self._naive.found(queue, message_id)
        if task.state != "running" or message is None or message.token:
            return
        name = self.where(task, queue, message)
        if not name:
            return
        target = naive.queues.get(name)
        if target is None or target.settings.fifo != queue.settings.fifo:
            code = codes.REDRIVE_TO_NOT_FOUND if target is None else codes.REDRIVE_TO_KIND
            task.end("stopped", naive.now_ms, code, name)
            return
        if target is queue:
            message.due_ms = message.attempts = message.first_ms = message.last_ms = 0
            message.consumer = ""
            moved = message
            naive.touched(queue, message)
        elif target.has_room(1, message.bytes):
            moved = naive.transfer(queue, message, target, message.dead)
        else:
            task.end("stopped", naive.now_ms, codes.REDRIVE_TO_FULL, name)
            return
        moved.redriven = task.number
        task.moved.append((name, target.number, moved.message_id))
        task.bucket.use(task.operation.rate, naive.now_ms)

    def _back(self, queue: Queue, task: Task, place: tuple[str, int], message_id: int) -> None:
        naive, source = self._naive, self._naive.queues.get(place[0])
        if task.state != "running" or source is None or source.number != place[1]:
            return
        message = naive.found(source, message_id)
        if message is None or not self.is_as_it_came(message, task):
            return
        here = next(known for known, each in naive.queues.items() if each is queue)
        if source is queue:
            message.due_ms, message.redriven = DEAD, 0
            naive.touched(queue, message)
        elif queue.has_room(1, message.bytes):
            dead = message.dead
            due_ms = DEAD if dead is not None and dead.queue == here else 0
            naive.transfer(source, message, queue, dead, due_ms)
        else:
            task.end("stopped", naive.now_ms, codes.REDRIVE_TO_FULL, here)
            return
        task.back += 1
        task.bucket.use(task.operation.rate, naive.now_ms)


RATES = (None, None, None, Rate(2, 1000), Rate(30, 1000, 3))
