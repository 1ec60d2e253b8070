"""Groups: which of them may be served, and where each has its one ready mark.

A fifo queue serves a group only while none of its messages is in flight, and only from its first message on, however
long that is delayed. Any other queue serves a group as its limits allow. A fair queue lets groups take turns: a group
that was served, or that is new, is marked behind all that wait, so a message at the head of its group waits for at most
`FAIR_QUANTUM` messages of every other group that has ready ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage import flow, record_keys, records
from storage.record_keys import PRESENT
from storage.records import Chunk, Group, Queue
from storage.segments import Standing

if TYPE_CHECKING:
    from storage.turn import Turn

FAIR_QUANTUM = 8
"""Messages a group of a fair queue is served in one turn: more would cost less and keep the others waiting longer."""


def refile(turn: Turn, queue: Queue, chunk_id: int, chunk: Chunk, before: Standing, after: Standing) -> None:
    """A chunk of a group stands otherwise than before: put the group right."""
    assert chunk.extras is not None
    name = chunk.extras.group
    group = turn.group(queue.number, name)
    group.in_flight += after.leased - before.leased
    queue.grouped_ready += after.ready - before.ready
    was, is_ = (before.living, after.living) if queue.settings.fifo else (before.ready, after.ready)
    key = record_keys.group_chunk_key(queue.number, name, chunk_id)
    if is_ and not was:
        turn.state.put(key, PRESENT)
    elif was and not is_:
        turn.state.delete(key)
    mark(turn, queue, name, group)


def mark(turn: Turn, queue: Queue, name: str, group: Group) -> None:
    """Have the group's mark where it belongs, or none; forget a group of which nothing is left."""
    if turn.serving is group:
        return
    if queue.settings.group_rate is None:
        group.served_us = 0  # a rate that was taken away is forgotten
    head = _head(turn, queue, name, group)
    if head == group.marked:
        if not head:
            _forget_idle(turn, queue, name, group)
        return
    rank = group.rank
    if group.marked:
        turn.state.delete(record_keys.ready_key(queue.number, group.rank, group.marked))
        queue.marks -= 1
    elif queue.settings.fair:
        rank = queue.round + 1
    else:
        rank = records.RANK_DEFAULT
    group.marked, group.rank = head, rank
    if head:
        turn.state.put(record_keys.ready_key(queue.number, rank, head), PRESENT)
        queue.marks += 1
        turn.readier.add(queue.name)
    else:
        _forget_idle(turn, queue, name, group)


def served(turn: Turn, queue: Queue, name: str, group: Group, count: int) -> None:
    """The group was served a turn of `count` messages: its mark comes again behind the others."""
    turn.serving = None
    if count:
        turn.state.delete(record_keys.ready_key(queue.number, group.rank, group.marked))
        queue.marks -= 1
        group.marked = 0
        if queue.settings.fair:
            queue.round = max(queue.round, group.rank)
    mark(turn, queue, name, group)


def first_chunk(turn: Turn, queue: Queue, name: str, after: int = 0) -> int:
    """The group's first chunk with a name above `after`, or 0."""
    prefix = record_keys.group_chunk_prefix(queue.number, name)
    found = turn.state.first(prefix, record_keys.u64(after + 1))
    return 0 if found is None else record_keys.read_u64(found[0][len(prefix) :])


def is_next_ready(chunk: Chunk) -> bool:
    """Whether the first message of a chunk that is not dead is ready."""
    for segment in chunk.segments:
        if segment.due_ms != records.DEAD:
            return not segment.due_ms
    return False


def allowance(turn: Turn, queue: Queue, group: Group) -> int:
    """How many more messages of the group may be delivered now."""
    settings = queue.settings
    allowed = flow.allowed(settings.group_rate, group.served_us, turn.now_ms)
    if settings.group_concurrency_max:
        allowed = min(allowed, settings.group_concurrency_max - group.in_flight)
    return max(allowed, 0)


def _head(turn: Turn, queue: Queue, name: str, group: Group) -> int:
    """The chunk at which the group may be served now, or 0."""
    fifo = queue.settings.fifo
    if fifo and group.in_flight:
        return 0
    head = first_chunk(turn, queue, name)
    if not head or (fifo and not is_next_ready(turn.known_chunk(queue.number, head))):
        return 0
    if allowance(turn, queue, group) > 0:
        return head
    rate = queue.settings.group_rate
    if rate is not None and not flow.allowed(rate, group.served_us, turn.now_ms):
        _wait_for_rate(turn, queue, name, group, flow.next_ms(rate, group.served_us))
    return 0


def _wait_for_rate(turn: Turn, queue: Queue, name: str, group: Group, due_ms: int) -> None:
    if group.flow_due_ms != due_ms:
        subject = record_keys.group_subject(queue.number, name)
        if group.flow_due_ms:
            turn.cancel_timer(group.flow_due_ms, record_keys.TIMER_FLOW, subject)
        group.flow_due_ms = due_ms
        turn.set_timer(due_ms, record_keys.TIMER_FLOW, subject)


def _forget_idle(turn: Turn, queue: Queue, name: str, group: Group) -> None:
    """A group is remembered while it has messages, or while its rate remembers what it was served."""
    if group.in_flight or first_chunk(turn, queue, name):
        return
    if group.served_us > turn.now_ms * 1000 and queue.settings.group_rate is not None:
        _wait_for_rate(turn, queue, name, group, -(-group.served_us // 1000))
        return
    if group.flow_due_ms:
        turn.cancel_timer(group.flow_due_ms, record_keys.TIMER_FLOW, record_keys.group_subject(queue.number, name))
    turn.forget_group(queue.number, name)


def flow_due(turn: Turn, number: int, name: str) -> None:
    """A group's rate may let more through."""
    queue = turn.queue_by_number(number)
    if queue is None:
        return
    group = turn.group(number, name)
    group.flow_due_ms = 0
    mark(turn, queue, name, group)


def remark(turn: Turn, number: int, start: str, steps_max: int) -> int:
    """The settings have changed: look at every group from `start` on, so many at a time. Returns the steps done."""
    queue = turn.queue_by_number(number)
    if queue is None:
        return 0
    prefix = b"h" + record_keys.u32(number)
    names: list[str] = []
    for key, _ in turn.state.scan(prefix, record_keys.group_key(number, start)[len(prefix) :] if start else b""):
        if len(names) == steps_max:
            turn.set_timer(turn.now_ms, record_keys.TIMER_REMARK, key[1:])
            break
        names.append(record_keys.read_group_subject(key[1:])[1])
    for name in names:
        mark(turn, queue, name, turn.group(number, name))
    return len(names)
