"""What happened to messages, as far as it is kept.

By default only what explains trouble, and only while a message of the chunk is there; with `history_ms` everything, and
for so long after the last message of the chunk has gone. Bounded: of more than `EVENTS_MAX` events of a chunk the
oldest are forgotten, and counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from storage import record_keys, records
from storage.limits import EVENTS_MAX
from storage.records import Event, History, Queue

if TYPE_CHECKING:
    from storage.turn import Turn

LEASED = "leased"
ACKED = "acked"
NACKED = "nacked"
LEASE_ENDED = "lease_ended"
DEAD = "dead"
MOVED = "moved"
CAME = "came"
CHANGED = "changed"
CANCELLED = "cancelled"
EXPIRED = "expired"
DROPPED = "dropped"
REDRIVEN = "redriven"
UNDONE = "undone"

EVENTS = (LEASED, ACKED, NACKED, LEASE_ENDED, DEAD, MOVED, CAME, CHANGED, CANCELLED, EXPIRED, DROPPED, REDRIVEN, UNDONE)
"""All that can happen to a message after it was sent."""

OF_QUEUES = frozenset({MOVED, CAME, REDRIVEN, UNDONE})
"""Events whose `who` is a queue: where it moved to, or came from."""

_TROUBLE = frozenset({NACKED, LEASE_ENDED, DEAD, MOVED, CAME, CHANGED, REDRIVEN, UNDONE})


def note(
    turn: Turn, queue: Queue, chunk_id: int, first: int, count: int, what: str, who: str = "", why: str = ""
) -> None:
    """Remember that something happened to messages of a chunk that is there, if it is to be remembered."""
    if not queue.settings.history_ms and what not in _TROUBLE:
        return
    key = record_keys.history_key(queue.number, chunk_id)
    found = turn.state.get(key)
    if found is None:
        chunk = turn.known_chunk(queue.number, chunk_id)
        history = History(chunk.count, chunk.sent_ms, [])
    else:
        history = records.decode_history(found)
    history.events.append(Event(first, count, turn.now_ms, what, who, why))
    excess = len(history.events) - EVENTS_MAX
    if excess > 0:
        del history.events[:excess]
        history.forgotten += excess
    turn.state.put(key, records.encode(history))


def cut(turn: Turn, queue: Queue, chunk_id: int, pieces: list[tuple[int, int]]) -> None:
    """A chunk was cut into pieces (where they began, and how many messages they have): so is its history."""
    key = record_keys.history_key(queue.number, chunk_id)
    found = turn.state.get(key)
    if found is None:
        return
    turn.state.delete(key)
    history = records.decode_history(found)
    for first, count in pieces:
        events = [
            msgspec.structs.replace(e, first=max(e.first - first, 0), count=min(e.first + e.count, end) - start)
            for e in history.events
            if (start := max(e.first, first)) < (end := min(first + count, e.first + e.count))
        ]
        piece = History(count, history.sent_ms, events, history.forgotten)
        turn.state.put(record_keys.history_key(queue.number, chunk_id + first), records.encode(piece))


def chunk_gone(turn: Turn, queue: Queue, chunk_id: int) -> None:
    """The last message of a chunk has gone."""
    key = record_keys.history_key(queue.number, chunk_id)
    if turn.state.get(key) is None:
        return
    if queue.settings.history_ms:
        subject = record_keys.chunk_subject(queue.number, chunk_id)
        turn.set_timer(turn.now_ms + queue.settings.history_ms, record_keys.TIMER_HISTORY, subject)
    else:
        turn.state.delete(key)


def due(turn: Turn, number: int, chunk_id: int) -> None:
    """The history of messages that have gone was kept long enough."""
    turn.state.delete(record_keys.history_key(number, chunk_id))
