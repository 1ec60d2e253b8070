"""What is due by the clock. Every timer is removed by its step or leaves something done, so that pulses always end."""

from __future__ import annotations

from storage import groups, history, record_keys, sieves
from storage.dead_letters import LEASE_ENDED, expire, give_back, is_over
from storage.operations import Outcome, Pulsed
from storage.publishing import routes_due
from storage.sending import dedups_due
from storage.sifting import selector_due
from storage.turn import Turn


def pulse(turn: Turn, steps_max: int) -> Outcome:
    """Do up to `steps_max` steps of what is due."""
    steps = 0
    while steps < steps_max:
        found = turn.state.first(record_keys.TIMERS)
        if found is None:
            break
        due_ms, kind, subject = record_keys.read_timer(found[0])
        if due_ms > turn.now_ms:
            break
        steps += 1 + _step(turn, found[0], due_ms, kind, subject, steps_max - steps)
    return Pulsed(steps)


def _step(turn: Turn, timer: bytes, due_ms: int, kind: bytes, subject: bytes, steps_max: int) -> int:
    """Do what a timer says. Returns how many more steps than one that was."""
    if kind == record_keys.TIMER_CHUNK:
        _end_holds(turn, due_ms, *record_keys.read_chunk_subject(subject))
        return 0
    if kind == record_keys.TIMER_RETENTION:
        return _sweep_retention(turn, subject.decode(), due_ms, steps_max)
    if kind == record_keys.TIMER_GRAVE:
        return _clean_grave(turn, timer, record_keys.read_u32(subject), steps_max)
    if kind == record_keys.TIMER_SESSION:
        turn.session_due(timer, record_keys.read_u64(subject))
        return 0
    if kind == record_keys.TIMER_SELECTOR:
        return selector_due(turn, timer, *sieves.read_selector_subject(subject), steps_max)
    turn.state.delete(timer)
    match kind:
        case record_keys.TIMER_KEY:
            turn.state.delete(record_keys.memory_key(subject))
            turn.shard.keys -= 1
        case record_keys.TIMER_DEDUP:
            return dedups_due(turn, record_keys.read_u32(subject), steps_max)
        case record_keys.TIMER_ROUTES:
            return routes_due(turn, subject.decode(), steps_max)
        case record_keys.TIMER_FLOW:
            groups.flow_due(turn, *record_keys.read_group_subject(subject))
        case record_keys.TIMER_REMARK:
            return groups.remark(turn, *record_keys.read_group_subject(subject), steps_max)
        case record_keys.TIMER_HISTORY:
            history.due(turn, *record_keys.read_chunk_subject(subject))
        case record_keys.TIMER_EXPIRY:
            _expire(turn, *record_keys.read_chunk_subject(subject))
        case _:
            raise AssertionError(f"a timer of unknown kind {kind!r}")
    return 0


def _end_holds(turn: Turn, due_ms: int, number: int, chunk_id: int) -> None:
    """Leases and delays of a chunk end."""
    queue = turn.queue_by_number(number)
    if queue is None:  # purged meanwhile: its grave is still to be cleaned
        turn.state.delete(record_keys.chunk_timer_key(due_ms, number, chunk_id))
        return
    chunk = turn.known_chunk(number, chunk_id)
    for segment in [s for s in chunk.segments if s.due_ms == due_ms]:
        if segment.token:
            history.note(turn, queue, chunk_id, segment.first, segment.count, history.LEASE_ENDED, segment.consumer)
            give_back(turn, queue, chunk_id, chunk, segment, 0, LEASE_ENDED)
        else:
            segment.due_ms = 0
            if is_over(queue, chunk, turn.now_ms):
                expire(turn, queue, chunk_id, chunk, segment)
    turn.refile(queue, chunk_id, chunk)


def _expire(turn: Turn, number: int, chunk_id: int) -> None:
    """A chunk's own time is over: what nobody holds expires now, the rest when it comes back."""
    queue = turn.queue_by_number(number)
    chunk = None if queue is None else turn.chunk(number, chunk_id)
    if queue is None or chunk is None or not is_over(queue, chunk, turn.now_ms):
        return
    for segment in [s for s in chunk.segments if s.due_ms <= 0]:
        expire(turn, queue, chunk_id, chunk, segment)
    turn.refile(queue, chunk_id, chunk)


def _sweep_retention(turn: Turn, name: str, due_ms: int, steps_max: int) -> int:
    """Let what nobody holds in chunks older than the queue's retention expire, oldest first."""
    queue = turn.queue(name)
    assert queue is not None, "a retention timer belongs to a queue"
    assert queue.retention_due_ms == due_ms, "a queue has one retention timer"
    steps = 0
    while steps < steps_max:
        found = turn.state.first(record_keys.chunk_prefix(queue.number), record_keys.u64(queue.swept_id))
        if found is None:
            break
        chunk_id = record_keys.read_u64(found[0][5:])
        chunk = turn.known_chunk(queue.number, chunk_id)
        if chunk.sent_ms + queue.settings.retention_ms > turn.now_ms:
            break
        if is_over(queue, chunk, turn.now_ms):  # else its time is its own, and has a timer
            for segment in [s for s in chunk.segments if s.due_ms <= 0]:
                expire(turn, queue, chunk_id, chunk, segment)
            turn.refile(queue, chunk_id, chunk)
        queue.swept_id = chunk_id + 1
        steps += 1
    turn.schedule_retention(queue)
    return steps


def _clean_grave(turn: Turn, timer: bytes, number: int, steps_max: int) -> int:
    """Remove what a purged or deleted queue has left."""
    steps = 0
    while steps < steps_max:
        found = turn.state.first(record_keys.chunk_prefix(number))
        if found is None:
            break
        turn.remove_dead_chunk(number, record_keys.read_u64(found[0][5:]))
        steps += 1
    for prefix in (bytes((letter,)) + record_keys.u32(number) for letter in record_keys.GRAVE_PREFIXES):
        while steps < steps_max:
            found = turn.state.first(prefix)
            if found is None:
                break
            turn.state.delete(found[0])
            steps += 1
    if steps < steps_max:
        turn.state.delete(timer)
    return steps
