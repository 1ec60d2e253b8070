"""Looking at dead letters: what a redrive would move, what its next step moves, and how they are grouped.

Nothing here changes anything. One look goes through so many runs of messages and bytes and no more, because it is done
in a tick of the leader. A task's next step is looked up by the leader alone and then proposed, so filters are matched
once, on one replica.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache

from storage import flow, record_keys, records
from storage.block import Part
from storage.codes import MALFORMED, QUEUE_NOT_FOUND, REDRIVE_FILTER, REDRIVE_NOT_FOUND
from storage.conditions import FilterError
from storage.filters import Filter, compile_filter
from storage.limits import BATCH_MESSAGES_MAX, ID_END, REDRIVE_LOOK_BYTES_MAX, REDRIVE_LOOK_SEGMENTS_MAX
from storage.operations import Outcome, Refused
from storage.reading import bodies, find_queue, segments_after
from storage.records import DEAD, Chunk, Dead, Queue, Redrive, RedriveFilter, Segment
from storage.redrive import destination, is_undoable
from storage.redrive_operations import (
    DeadGroup,
    DeadGroups,
    GetRedrive,
    GroupDead,
    ListRedrives,
    Previewed,
    PreviewRedrive,
    RedriveTask,
    RedriveTasks,
    StepRedrive,
)
from storage.state import State
from storage.turn import message_sizes


def answer(state: State, query: GetRedrive | ListRedrives | PreviewRedrive | GroupDead) -> Outcome:
    """The outcome of a query."""
    queue = find_queue(state, query.queue)
    if queue is None:
        return Refused(QUEUE_NOT_FOUND)
    match query:
        case GetRedrive():
            found = state.get(record_keys.redrive_key(queue.number, query.task)) if 0 <= query.task < ID_END else None
            if found is None:
                return Refused(REDRIVE_NOT_FOUND)
            return RedriveTask(queue.name, records.decode_redrive(found))
        case ListRedrives():
            known = [records.decode_redrive(value) for _, value in state.scan(record_keys.redrive_prefix(queue.number))]
            return RedriveTasks([RedriveTask(queue.name, each) for each in reversed(known)])
        case PreviewRedrive():
            return _preview(state, queue, query) if 0 <= query.after < ID_END else Refused(MALFORMED)
        case GroupDead():
            return _group(state, queue, query.after) if 0 <= query.after < ID_END else Refused(MALFORMED)


# --- filters ----------------------------------------------------------------------------------------------------------


class Wanted:
    """A compiled filter of dead letters. Raises `FilterError` when it cannot be compiled."""

    def __init__(self, chosen: RedriveFilter) -> None:
        self._dead = _compiled(chosen.dead)
        self._parts = [each for each in (_compiled(chosen.attributes), _compiled(chosen.body, body=True)) if each]

    def may_want(self, segment: Segment) -> bool:
        """Whether why they were given up does not speak against the messages of a segment."""
        if self._dead is None:
            return True
        dead = None if segment.redriven else segment.dead
        return self._dead.matches({} if dead is None else dead_fields(dead))

    @property
    def reads(self) -> bool:
        """Whether it looks at the messages themselves."""
        return bool(self._parts)

    def wants(self, part: Part) -> bool:
        """Whether attributes and body match."""
        return all(each.matches(each.fields(part)) for each in self._parts)


def dead_fields(dead: Dead) -> dict[str, str | int]:
    """What a filter sees of why messages were given up."""
    return {
        "queue": dead.queue,
        "reason": dead.reason,
        "attempts": dead.attempts,
        "consumer": dead.consumer,
        "sent_ms": dead.sent_ms,
        "given_up_ms": dead.at_ms,
    }


def _compiled(text: str, *, body: bool = False) -> Filter | None:
    return compile_filter(text, "body" if body else "attributes") if text else None


wanted_by = lru_cache(maxsize=64)(Wanted)
"""The compiled filter: a task's is asked for at each step."""


# --- looking ----------------------------------------------------------------------------------------------------------


class _Look:
    """One look at the messages of a queue with ids above `after` and below `until_id`, in order.

    `choose` says where the messages of a segment would go; nowhere if that is empty. `runs` and `destinations` are then
    what is to be moved, `messages_max` at most.
    """

    def __init__(
        self,
        state: State,
        queue: Queue,
        after: int,
        until_id: int,
        wanted: Wanted | None,
        choose: Callable[[Segment], str],
        messages_max: int,
    ) -> None:
        self._state, self._wanted, self._left = state, wanted, messages_max
        self._bytes_left = REDRIVE_LOOK_BYTES_MAX
        self.runs: list[tuple[int, int]] = []
        self.destinations: Counter[str] = Counter()
        self.upto, self.looked, self.held = after, 0, 0
        self.complete = self._go(queue, until_id, choose)
        if self.complete:
            self.upto = max(after, until_id - 1)

    def _go(self, queue: Queue, until_id: int, choose: Callable[[Segment], str]) -> bool:
        """Look at one segment after another. Returns whether that was all."""
        segments_left = REDRIVE_LOOK_SEGMENTS_MAX
        for chunk_id, chunk, segment in segments_after(self._state, queue, self.upto):
            first = max(segment.first, self.upto + 1 - chunk_id)
            end = min(segment.first + segment.count, until_id - chunk_id)
            if first >= end:
                return True
            if not segments_left or not self._left:
                return False
            segments_left -= 1
            name = choose(segment)
            if not name or (self._wanted is not None and not self._wanted.may_want(segment)):
                self._passed(chunk_id + end - 1, end - first)
            elif not self._look_at(chunk_id, chunk, segment, first, end, name):
                return False
        return True

    def _passed(self, upto: int, count: int) -> None:
        self.upto = upto
        self.looked += count

    def _look_at(self, chunk_id: int, chunk: Chunk, segment: Segment, first: int, end: int, name: str) -> bool:
        """Look at messages that are wanted unless they themselves say otherwise. Returns whether it came to the end."""
        if self._wanted is None or not self._wanted.reads:
            taken = end - first if segment.token else min(end - first, self._left)
            self._found(chunk_id + first, taken, segment, name)
            self._passed(chunk_id + first + taken - 1, taken)
            return taken == end - first
        sizes = message_sizes(chunk, first, end - first)
        for position, part in enumerate(bodies(self._state, chunk, first, end)):
            if not self._left or (self._bytes_left < sizes[position] and self.looked):
                return False
            self._bytes_left -= sizes[position]
            if self._wanted.wants(part):
                self._found(chunk_id + first + position, 1, segment, name)
            self._passed(chunk_id + first + position, 1)
        return True

    def _found(self, message_id: int, count: int, segment: Segment, name: str) -> None:
        if segment.token:
            self.held += count
            return
        self._left -= count
        self.destinations[name] += count
        if self.runs and sum(self.runs[-1]) == message_id:
            message_id, count = self.runs[-1][0], self.runs.pop()[1] + count
        self.runs.append((message_id, count))


def _chooser(queue: Queue, to: str, patterns: Sequence[str]) -> Callable[[Segment], str]:
    """Where the messages of a segment of `queue` would go, if to anywhere."""

    def choose(segment: Segment) -> str:
        name = destination(to, segment, patterns)
        return "" if name == queue.name and segment.due_ms != DEAD else name

    return choose


def _preview(state: State, queue: Queue, query: PreviewRedrive) -> Outcome:
    try:
        wanted = wanted_by(query.filter)
    except FilterError:
        return Refused(REDRIVE_FILTER)
    look = _Look(state, queue, query.after, queue.next_id, wanted, _chooser(queue, query.to, query.patterns), ID_END)
    return Previewed(look.looked, look.held, dict(sorted(look.destinations.items())), look.upto, look.complete)


# --- what the leader proposes -----------------------------------------------------------------------------------------


def next_due_ms(state: State) -> int | None:
    """When the next step of a task is due (cluster time), or None if none is."""
    found = state.first(record_keys.REDRIVES_DUE)
    return None if found is None else record_keys.read_redrive_due(found[0])[0]


def next_step(state: State, now_ms: int) -> StepRedrive | None:
    """The step that is due now, or None."""
    found = state.first(record_keys.REDRIVES_DUE)
    if found is None:
        return None
    due_ms, number, task = record_keys.read_redrive_due(found[0])
    if due_ms > now_ms:
        return None
    redrive = records.decode_redrive(state.get(record_keys.redrive_key(number, task)) or b"")
    queue = records.decode_queue(state.get(record_keys.queue_key(number)) or b"")
    messages_max = min(BATCH_MESSAGES_MAX, max(1, flow.allowed(redrive.rate, redrive.served_us, now_ms)))
    if redrive.undoes:
        return _next_undo(state, number, redrive, messages_max)
    try:
        wanted = wanted_by(redrive.filter)
    except FilterError:  # a gateway has compiled it: here is another version
        return StepRedrive(number, task, redrive.step, [], redrive.after, cause=REDRIVE_FILTER)
    choose = _chooser(queue, redrive.to, redrive.patterns)
    look = _Look(state, queue, redrive.after, redrive.until_id, wanted, choose, messages_max)
    return StepRedrive(number, task, redrive.step, look.runs, look.upto, 0, look.looked, look.held)


def _next_undo(state: State, number: int, redrive: Redrive, messages_max: int) -> StepRedrive:
    """Look for what the task to be undone has moved, among the ids it gave in one queue after another."""
    step = StepRedrive(number, redrive.task, redrive.step, [], 0, redrive.target + 1)
    if redrive.target >= len(redrive.targets):
        return step
    moved = redrive.targets[redrive.target]
    queue = find_queue(state, moved.queue)
    if queue is None or queue.number != moved.number:
        return step
    after = max(redrive.after, moved.first_id - 1)

    def choose(segment: Segment) -> str:
        return moved.queue if is_undoable(segment, redrive.undoes) else ""

    look = _Look(state, queue, after, moved.last_id + 1, None, choose, messages_max)
    target, upto = (redrive.target + 1, 0) if look.complete else (redrive.target, look.upto)
    return StepRedrive(number, redrive.task, redrive.step, look.runs, upto, target, look.looked)


# --- grouped ----------------------------------------------------------------------------------------------------------


def is_dead_letter(queue: Queue, segment: Segment) -> bool:
    """Whether messages were given up, here or before they came, and nobody gave them another chance."""
    if segment.dead is None or segment.redriven:
        return False
    return segment.due_ms == DEAD or segment.dead.queue != queue.name


def _group(state: State, queue: Queue, after: int) -> DeadGroups:
    groups: dict[tuple[str, str], DeadGroup] = {}
    left = REDRIVE_LOOK_SEGMENTS_MAX
    for chunk_id, _, segment in segments_after(state, queue, after):
        if not left:
            return DeadGroups(list(groups.values()), after, complete=False)
        left -= 1
        first_id = max(chunk_id + segment.first, after + 1)
        after = chunk_id + segment.first + segment.count - 1
        if is_dead_letter(queue, segment) and segment.dead is not None:
            dead = segment.dead
            one = DeadGroup(dead.reason, dead.queue, after + 1 - first_id, first_id, after, dead.at_ms, dead.at_ms)
            key = (dead.reason, dead.queue)
            groups[key] = joined(groups[key], one) if key in groups else one
    return DeadGroups(list(groups.values()), after, complete=True)


def joined(one: DeadGroup, other: DeadGroup) -> DeadGroup:
    """A group and more of it."""
    return DeadGroup(
        one.reason,
        one.queue,
        one.count + other.count,
        min(one.first_id, other.first_id),
        max(one.last_id, other.last_id),
        min(one.first_ms, other.first_ms),
        max(one.last_ms, other.last_ms),
    )
