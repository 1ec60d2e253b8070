"""Redrive: tasks that give dead letters another chance, or take it back.

A task is a record, and every step of it an operation of the leader's that says what is to be moved
(`storage.redrive_look`): filters are matched there, once, and the rules do not depend on how a body is parsed. A step
counts only if it is the task's next one, so whoever leads, each is taken once. What a step names and has gone or is
leased by then is left alone. What a destination cannot take stops the task; all that was not moved stays where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from storage import flow, history, record_keys, records
from storage.access import matches
from storage.codes import (
    QUEUE_NOT_FOUND,
    REDRIVE_IS_UNDO,
    REDRIVE_NOT_FOUND,
    REDRIVE_PURGED,
    REDRIVE_RUNNING,
    REDRIVE_TARGETS,
    REDRIVE_TO_FULL,
    REDRIVE_TO_KIND,
    REDRIVE_TO_NOT_FOUND,
)
from storage.dead_letters import has_room, move
from storage.limits import REDRIVE_STEP_MS, REDRIVE_TARGETS_MAX, REDRIVES_MAX
from storage.operations import Done, Outcome, Refused
from storage.record_keys import PRESENT
from storage.records import DEAD, Chunk, Moved, Queue, Redrive, Segment
from storage.redrive_operations import EVERY_LETTER, CancelRedrive, RedriveTask, StartRedrive, StepRedrive
from storage.segments import isolate
from storage.settings import Rate
from storage.turn import Turn, message_sizes

RUNNING, FINISHED, CANCELLED, STOPPED = "running", "done", "cancelled", "stopped"


# --- tasks ------------------------------------------------------------------------------------------------------------


def start_redrive(turn: Turn, operation: StartRedrive) -> Outcome:
    """Begin a task. A queue has one at a time; the oldest that have ended are forgotten."""
    queue = turn.queue(operation.queue)
    if queue is None:
        return Refused(QUEUE_NOT_FOUND)
    known = _tasks(turn, queue.number)
    for each in known:
        if each.state == RUNNING:
            return Refused(REDRIVE_RUNNING, detail=str(each.task))
    to, wanted, messages = operation.to, operation.filter, queue.messages
    targets: list[Moved] = []
    if operation.undo:
        undone = next((each for each in known if each.task == operation.undo), None)
        if undone is None:
            return Refused(REDRIVE_NOT_FOUND)
        if undone.undoes:
            return Refused(REDRIVE_IS_UNDO)
        to, wanted, messages = queue.name, EVERY_LETTER, undone.moved
        targets = [each for each in undone.targets if _is_for(operation.patterns, each.queue)]
    elif to:
        target = turn.queue(to)
        if target is None:
            return Refused(REDRIVE_TO_NOT_FOUND, detail=to)
        if target.settings.fifo != queue.settings.fifo:
            return Refused(REDRIVE_TO_KIND, detail=to)
    for each in known[: max(0, len(known) - REDRIVES_MAX + 1)]:
        turn.state.delete(record_keys.redrive_key(queue.number, each.task))
    turn.shard.redrives += 1
    redrive = Redrive(
        turn.shard.redrives,
        to,
        wanted,
        operation.rate,
        operation.undo,
        turn.now_ms,
        messages,
        queue.next_id,
        targets=targets,
        patterns=operation.patterns,
    )
    _go_on(turn, queue.number, redrive, turn.now_ms)
    return RedriveTask(queue.name, redrive)


def cancel_redrive(turn: Turn, operation: CancelRedrive) -> Outcome:
    """Stop a task where it is."""
    queue = turn.queue(operation.queue)
    if queue is None:
        return Refused(QUEUE_NOT_FOUND)
    found = turn.state.get(record_keys.redrive_key(queue.number, operation.task))
    if found is None:
        return Refused(REDRIVE_NOT_FOUND)
    redrive = records.decode_redrive(found)
    if redrive.state == RUNNING:
        _end(turn, queue.number, redrive, CANCELLED)
    return RedriveTask(queue.name, redrive)


def queue_emptied(turn: Turn, number: int, next_number: int | None) -> None:
    """A queue was purged and has another number now, or was deleted. Tasks go with it, and have nothing left to do."""
    for redrive in _tasks(turn, number):
        _unset_due(turn, number, redrive)
        turn.state.delete(record_keys.redrive_key(number, redrive.task))
        if next_number is None:
            continue
        if redrive.state == RUNNING:
            redrive.cause = REDRIVE_PURGED
            _end(turn, next_number, redrive, STOPPED)
        else:
            turn.state.put(record_keys.redrive_key(next_number, redrive.task), records.encode(redrive))


def _tasks(turn: Turn, number: int) -> list[Redrive]:
    """A queue's tasks, the oldest first."""
    return [records.decode_redrive(value) for _, value in turn.state.scan(record_keys.redrive_prefix(number))]


def _go_on(turn: Turn, number: int, redrive: Redrive, due_ms: int) -> None:
    """The task's next step is due then."""
    _unset_due(turn, number, redrive)
    redrive.due_ms = due_ms
    turn.state.put(record_keys.redrive_due_key(due_ms, number, redrive.task), PRESENT)
    turn.state.put(record_keys.redrive_key(number, redrive.task), records.encode(redrive))


def _end(turn: Turn, number: int, redrive: Redrive, state: str) -> None:
    _unset_due(turn, number, redrive)
    redrive.state, redrive.ended_ms = state, turn.now_ms
    turn.state.put(record_keys.redrive_key(number, redrive.task), records.encode(redrive))


def _unset_due(turn: Turn, number: int, redrive: Redrive) -> None:
    if redrive.due_ms:
        turn.state.delete(record_keys.redrive_due_key(redrive.due_ms, number, redrive.task))
        redrive.due_ms = 0


# --- a step -----------------------------------------------------------------------------------------------------------


def step_redrive(turn: Turn, operation: StepRedrive) -> Outcome:
    """Take a task's next step."""
    number = operation.number
    found = turn.state.get(record_keys.redrive_key(number, operation.task))
    redrive = None if found is None else records.decode_redrive(found)
    if redrive is None or redrive.state != RUNNING or redrive.step != operation.step:
        return Done()  # it was taken, cancelled or forgotten meanwhile
    queue = turn.queue_by_number(number)
    assert queue is not None, "tasks go with their queue"
    step = _Step(turn, queue, redrive)
    before = redrive.moved
    if operation.cause:
        redrive.cause = operation.cause
    else:
        step.take(operation)
    redrive.step += 1
    redrive.looked += operation.looked
    redrive.held += operation.held
    if redrive.rate is not None:
        redrive.served_us = flow.served(redrive.rate, redrive.served_us, turn.now_ms, redrive.moved - before)
    if redrive.cause:
        _end(turn, number, redrive, STOPPED)
        return Done()
    redrive.target, redrive.after = operation.target, operation.upto
    is_done = redrive.target >= len(redrive.targets) if redrive.undoes else redrive.after >= redrive.until_id - 1
    if is_done:
        _end(turn, number, redrive, FINISHED)
    else:
        _go_on(turn, number, redrive, _next_ms(redrive.rate, redrive.served_us, turn.now_ms))
    return Done()


def _next_ms(rate: Rate | None, served_us: int, now_ms: int) -> int:
    """When the next step is due: at once, or when what a rate allows in `REDRIVE_STEP_MS` has gathered."""
    if rate is None:
        return now_ms
    gathered = max(1, min(rate.messages * REDRIVE_STEP_MS // rate.per_ms, rate.burst or rate.messages))
    return max(now_ms, flow.next_ms(rate, served_us, gathered))


class _Step:
    """One step of a task of `queue`. It stops when the task has a cause to."""

    def __init__(self, turn: Turn, queue: Queue, redrive: Redrive) -> None:
        self._turn, self._queue, self._redrive = turn, queue, redrive

    def take(self, operation: StepRedrive) -> None:
        """Move all that the operation names."""
        source: Queue | None = self._queue
        if self._redrive.undoes and operation.runs:
            source = self._turn.queue(self._redrive.targets[self._redrive.target].queue)
        if source is None:
            return
        for first, count in operation.runs:
            self._move_run(source, first, count)

    def _move_run(self, source: Queue, first: int, count: int) -> None:
        for chunk_id, chunk, start, end in self._turn.chunks_between(source, first, count):
            if chunk is None:
                continue
            for segment in isolate(chunk.segments, start - chunk_id, end - chunk_id):
                if self._redrive.cause:
                    break
                if segment.token:
                    continue
                if self._redrive.undoes:
                    self._move_back(source, chunk_id, chunk, segment)
                else:
                    self._move_on(chunk_id, chunk, segment)
            self._turn.refile(source, chunk_id, chunk)
            if self._redrive.cause:
                return

    def _move_on(self, chunk_id: int, chunk: Chunk, segment: Segment) -> None:
        turn, queue, redrive = self._turn, self._queue, self._redrive
        name = destination(redrive.to, segment, redrive.patterns)
        if name == queue.name and segment.due_ms != DEAD:
            return  # it is there
        target = self._target(name) if name else None
        if target is None:
            return
        moved = next((each for each in redrive.targets if each.number == target.number), None)
        if moved is None:
            if len(redrive.targets) == REDRIVE_TARGETS_MAX:
                redrive.cause, redrive.detail = REDRIVE_TARGETS, name
                return
            moved = Moved(name, target.number, 0, 0, 0)
        if target is queue:
            first_id, count = chunk_id + segment.first, segment.count
            segment.due_ms = segment.attempts = segment.first_ms = segment.last_ms = 0
            segment.consumer, segment.redriven = "", redrive.task
            history.note(turn, queue, chunk_id, segment.first, count, history.REDRIVEN, queue.name)
        else:
            taken = self._fitting(target, chunk, segment)
            if taken is None:
                return
            dead = None if segment.dead is None else segment.dead.behind(segment.first)
            why = "" if dead is None else dead.reason
            count = taken.count
            first_id = move(
                *(turn, queue, chunk_id, chunk, taken, target, dead),
                redriven=redrive.task,
                what=history.REDRIVEN,
                why=why,
            )
        if not moved.count:
            moved.first_id = first_id
            redrive.targets.append(moved)
        moved.first_id = min(moved.first_id, first_id)
        moved.last_id = max(moved.last_id, first_id + count - 1)
        moved.count += count
        redrive.moved += count

    def _move_back(self, source: Queue, chunk_id: int, chunk: Chunk, segment: Segment) -> None:
        turn, queue, redrive = self._turn, self._queue, self._redrive
        if not is_undoable(segment, redrive.undoes):
            return
        was_dead = segment.dead is not None and segment.dead.queue == queue.name
        count = segment.count
        if source is queue:
            segment.due_ms, segment.redriven = DEAD, 0
            history.note(turn, queue, chunk_id, segment.first, count, history.UNDONE, queue.name)
        else:
            taken = self._fitting(queue, chunk, segment)
            if taken is None:
                return
            dead = None if segment.dead is None else segment.dead.behind(segment.first)
            count = taken.count
            move(
                *(turn, source, chunk_id, chunk, taken, queue, dead),
                due_ms=DEAD if was_dead else 0,
                what=history.UNDONE,
            )
        redrive.moved += count

    def _target(self, name: str) -> Queue | None:
        """The queue that messages are to be moved to; None, with a cause to stop, if it cannot take any."""
        target = self._turn.queue(name)
        if target is not None and target.settings.fifo == self._queue.settings.fifo:
            return target
        self._redrive.cause = REDRIVE_TO_NOT_FOUND if target is None else REDRIVE_TO_KIND
        self._redrive.detail = name
        return None

    def _fitting(self, target: Queue, chunk: Chunk, segment: Segment) -> Segment | None:
        """The part of a segment for which there is room in `target`; with less than all of it, a cause to stop."""
        sizes = list(accumulate(message_sizes(chunk, segment.first, segment.count)))
        count = segment.count
        while count and not has_room(target, count, sizes[count - 1]):
            count -= 1
        if count < segment.count:
            self._redrive.cause, self._redrive.detail = REDRIVE_TO_FULL, target.name
            isolate(chunk.segments, segment.first, segment.first + count)
        return segment if count else None


def destination(to: str, segment: Segment, patterns: Sequence[str]) -> str:
    """Where a dead letter goes: `to`, or else where it was given up; empty if that is unknown, past, or not allowed."""
    if to:
        return to
    if segment.dead is None or segment.redriven or not _is_for(patterns, segment.dead.queue):
        return ""
    return segment.dead.queue


def _is_for(patterns: Sequence[str], name: str) -> bool:
    return not patterns or any(matches(pattern, name) for pattern in patterns)


def is_undoable(segment: Segment, task: int) -> bool:
    """Whether messages moved by a task are as they were when they came: waiting, and never received since."""
    return segment.redriven == task and not (segment.token or segment.attempts or segment.due_ms == DEAD)
