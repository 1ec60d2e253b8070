"""One entry's turn on the state: what its operations share, kept decoded until the end and then written once.

Keys that decide what exists and what comes next (chunks, ready marks, timers) are written at once, so that every look
at the state is true; only the contents of records touched again and again (queues, chunks, sessions) wait.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from storage import groups, history, record_keys, records, sieves, sifting
from storage.limits import ENTRY_RECEIVE_BYTES_MAX, SESSION_WINDOW_MS
from storage.record_keys import PRESENT
from storage.records import Chunk, Group, Queue, Segment, Session, Shard, Topic
from storage.segments import Standing, standing
from storage.state import State

EMPTY = standing([])


def message_sizes(chunk: Chunk, first: int, count: int) -> tuple[int, ...]:
    """Bytes of the chunk's messages from position `first` on: body and properties."""
    return struct.unpack_from(f"<{count}I", chunk.sizes, 4 * first)


class SessionTurn:
    """A session as this entry finds and leaves it."""

    def __init__(self, state: State, session: int, record: Session) -> None:
        self._state = state
        self._prefix = record_keys.run_prefix(session)
        self.record = record
        self._first = 0
        self._run: list[bytes] = []

    def remembered(self, seq: int) -> bytes:
        """The encoded outcome of operation `seq`, or empty."""
        if seq > self.record.top:
            return b""
        position = seq - self._first
        if 0 <= position < len(self._run):
            return self._run[position]
        found = self._state.floor(self._prefix, record_keys.u64(seq))
        if found is None:
            return b""
        run = records.decode_run(found[1])
        position = seq - record_keys.read_u64(found[0][9:])
        return run[position] if position < len(run) else b""

    def remember(self, seq: int, encoded: bytes) -> None:
        """Keep the outcome of operation `seq`."""
        if self._run and seq != self._first + len(self._run):
            self._write_run()
        if not self._run:
            self._first = seq
        self._run.append(encoded)
        self.record.top = max(self.record.top, seq)

    def forget(self, below: int) -> None:
        """Drop outcomes the session has received."""
        if below <= self.record.below:
            return
        self.record.below = below
        dead = []
        for key, value in self._state.scan(self._prefix):
            if record_keys.read_u64(key[9:]) + len(records.decode_run(value)) > below:
                break
            dead.append(key)
        for key in dead:
            self._state.delete(key)

    def _write_run(self) -> None:
        if self._run:
            self._state.put(self._prefix + record_keys.u64(self._first), records.encode(self._run))
            self._run = []

    def finish(self, key: bytes) -> None:
        """Write what is left."""
        self._write_run()
        self._state.put(key, records.encode(self.record))


class Savepoint(NamedTuple):
    """What a turn knows beyond the state."""

    shard: Shard
    tails: dict[int, int]
    receive_bytes_left: int
    readier: set[str]


class Turn:
    """Everything one entry touches. Made for the entry, then thrown away."""

    def __init__(self, state: State, index: int, at_ms: int) -> None:
        self.state = state
        self.index = index
        found = state.get(record_keys.SHARD_KEY)
        self.shard = records.decode_shard(found) if found is not None else Shard()
        self.now_ms = self.shard.clock_ms = max(self.shard.clock_ms, at_ms)
        self.tails: dict[int, int] = {}
        """Queue number → the chunk this entry's sends are gathered in."""
        self.receive_bytes_left = ENTRY_RECEIVE_BYTES_MAX
        """Bytes that the entry's further receives may return."""
        self.serving: Group | None = None
        """The group that a receive is being served from: its mark waits until that is done."""
        self.readier: set[str] = set()
        """Queues in which messages became ready, or a place for them among the leased ones."""
        self._queues: dict[str, Queue] = {}
        self._chunks: dict[tuple[int, int], Chunk] = {}
        self._stood: dict[tuple[int, int], Standing] = {}
        """How each known chunk stood when its counts, marks and timers were last put right."""
        self._selected: dict[tuple[int, int], frozenset[int]] = {}
        """The selectors that each known chunk was marked for then, if it has any."""
        self._changed: set[tuple[int, int]] = set()
        self._sessions: dict[int, SessionTurn] = {}
        self._groups: dict[tuple[int, str], Group] = {}

    def finish(self) -> None:
        """Write what waited."""
        for session, turn in self._sessions.items():
            turn.finish(record_keys.session_key(session))
        self.write_back()

    def write_back(self) -> None:
        """Write what waited of queues, groups, chunks and the shard."""
        put = self.state.put
        for number, chunk_id in sorted(self._changed):
            put(record_keys.chunk_key(number, chunk_id), records.encode(self._chunks[number, chunk_id]))
        for (number, name), group in self._groups.items():
            put(record_keys.group_key(number, name), records.encode(group))
        for queue in self._queues.values():
            put(record_keys.queue_key(queue.number), records.encode(queue))
        put(record_keys.SHARD_KEY, records.encode(self.shard))

    def savepoint(self) -> Savepoint:
        """What the turn knows beyond the state. Call it after `write_back`; from here on records are read again."""
        self._forget_decoded()
        return Savepoint(
            msgspec.structs.replace(self.shard), dict(self.tails), self.receive_bytes_left, set(self.readier)
        )

    def restore(self, held: Savepoint) -> None:
        """The state was taken back to where it was at the savepoint: so is the turn."""
        self._forget_decoded()
        self.shard, self.tails, self.receive_bytes_left, self.readier = held

    def _forget_decoded(self) -> None:
        self._queues.clear()
        self._chunks.clear()
        self._stood.clear()
        self._selected.clear()
        self._groups.clear()
        self._changed.clear()

    # --- sessions ---

    def session(self, session: int) -> SessionTurn:
        """The session, made known if it is new."""
        turn = self._sessions.get(session)
        if turn is None:
            found = self.state.get(record_keys.session_key(session))
            record = records.decode_session(found) if found is not None else Session()
            if found is None:
                self.set_timer(self.now_ms + SESSION_WINDOW_MS, record_keys.TIMER_SESSION, record_keys.u64(session))
            record.heard_ms = self.now_ms
            turn = self._sessions[session] = SessionTurn(self.state, session, record)
        return turn

    def session_due(self, timer: bytes, session: int) -> None:
        """Forget a session that was silent for its window; look again later at one that was not."""
        self.state.delete(timer)
        key = record_keys.session_key(session)
        found = self.state.get(key)
        assert found is not None, "a session's timer belongs to a session"
        turn = self._sessions.get(session)
        heard_ms = turn.record.heard_ms if turn else records.decode_session(found).heard_ms
        if heard_ms + SESSION_WINDOW_MS > self.now_ms:
            self.set_timer(heard_ms + SESSION_WINDOW_MS, record_keys.TIMER_SESSION, record_keys.u64(session))
            return
        for run_key in [run_key for run_key, _ in self.state.scan(record_keys.run_prefix(session))]:
            self.state.delete(run_key)
        self.state.delete(key)

    # --- timers ---

    def set_timer(self, due_ms: int, kind: bytes, subject: bytes) -> None:
        """Have the pulse do something at `due_ms`."""
        self.state.put(record_keys.timer_key(due_ms, kind, subject), PRESENT)

    def cancel_timer(self, due_ms: int, kind: bytes, subject: bytes) -> None:
        """Take a timer back."""
        self.state.delete(record_keys.timer_key(due_ms, kind, subject))

    # --- queues ---

    def queue(self, name: str) -> Queue | None:
        """The queue called `name`, or None."""
        queue = self._queues.get(name)
        if queue is None:
            number = self.state.get(record_keys.name_key(name))
            if number is None:
                return None
            record = self.state.get(record_keys.queue_key(record_keys.read_u32(number)))
            assert record is not None, "a named queue has a record"
            queue = self._queues[name] = records.decode_queue(record)
        return queue

    def queue_by_number(self, number: int) -> Queue | None:
        """The queue that has this number now, or None if it was purged or deleted."""
        record = self.state.get(record_keys.queue_key(number))
        return None if record is None else self.queue(records.decode_queue(record).name)

    def add_queue(self, queue: Queue) -> None:
        """Make a queue known under its name and number."""
        self.state.put(record_keys.name_key(queue.name), record_keys.u32(queue.number))
        self.state.put(record_keys.queue_key(queue.number), records.encode(queue))
        self._queues[queue.name] = queue

    def bury_queue(self, queue: Queue) -> None:
        """Part a queue's number from its name; what the number holds is cleaned by pulses."""
        self.state.delete(record_keys.queue_key(queue.number))
        self.tails.pop(queue.number, None)
        del self._queues[queue.name]
        for key in [key for key in self._groups if key[0] == queue.number]:
            del self._groups[key]
        self.set_timer(self.now_ms, record_keys.TIMER_GRAVE, record_keys.u32(queue.number))

    def schedule_retention(self, queue: Queue) -> None:
        """Set the timer for the oldest chunk not yet swept; none is needed while there is none."""
        self.cancel_retention(queue)
        found = self.state.first(record_keys.chunk_prefix(queue.number), record_keys.u64(queue.swept_id))
        if found is not None:
            chunk = self.known_chunk(queue.number, record_keys.read_u64(found[0][5:]))
            queue.retention_due_ms = chunk.sent_ms + queue.settings.retention_ms
            self.set_timer(queue.retention_due_ms, record_keys.TIMER_RETENTION, queue.name.encode())

    def cancel_retention(self, queue: Queue) -> None:
        """Take the queue's retention timer back."""
        if queue.retention_due_ms:
            self.cancel_timer(queue.retention_due_ms, record_keys.TIMER_RETENTION, queue.name.encode())
            queue.retention_due_ms = 0

    def next_number(self) -> int:
        """A queue number never used before."""
        number = self.shard.next_number
        self.shard.next_number += 1
        return number

    # --- groups ---

    def group(self, number: int, name: str) -> Group:
        """The group called `name` of a queue, made known if it is new."""
        group = self._groups.get((number, name))
        if group is None:
            found = self.state.get(record_keys.group_key(number, name))
            group = self._groups[number, name] = Group() if found is None else records.decode_group(found)
        return group

    def has_groups(self, number: int) -> bool:
        """Whether a queue has groups with messages."""
        if any(known == number for known, _ in self._groups):
            return True
        return self.state.first(b"h" + record_keys.u32(number)) is not None

    def forget_group(self, number: int, name: str) -> None:
        """Nothing is left of a group."""
        self._groups.pop((number, name), None)
        self.state.delete(record_keys.group_key(number, name))

    # --- topics ---

    def topic(self, name: str) -> Topic | None:
        """The topic called `name`, or None. Whoever changes it puts it back."""
        found = self.state.get(record_keys.topic_key(name))
        return None if found is None else records.decode_topic(found)

    def put_topic(self, topic: Topic) -> None:
        """Write a topic's record."""
        self.state.put(record_keys.topic_key(topic.name), records.encode(topic))

    # --- chunks ---

    def chunk(self, number: int, chunk_id: int) -> Chunk | None:
        """The chunk, or None if it is gone."""
        chunk = self._chunks.get((number, chunk_id))
        if chunk is None:
            record = self.state.get(record_keys.chunk_key(number, chunk_id))
            if record is None:
                return None
            chunk = self._chunks[number, chunk_id] = records.decode_chunk(record)
            self._stood[number, chunk_id] = standing(chunk.segments)
            if chunk.selected is not None:
                self._selected[number, chunk_id] = sifting.marked(chunk)
        return chunk

    def known_chunk(self, number: int, chunk_id: int) -> Chunk:
        """A chunk that a ready mark or a timer speaks of."""
        chunk = self.chunk(number, chunk_id)
        assert chunk is not None, f"chunk {chunk_id} of queue {number} is marked but missing"
        return chunk

    def chunks_between(self, queue: Queue, message_id: int, count: int) -> Iterator[tuple[int, Chunk | None, int, int]]:
        """Cover ids `message_id` … `message_id + count - 1` by (chunk id, chunk or None for a gap, first, end)."""
        prefix, position, end = record_keys.chunk_prefix(queue.number), message_id, message_id + count
        while position < end:
            found = self.state.floor(prefix, record_keys.u64(position))
            if found is not None:
                chunk_id = record_keys.read_u64(found[0][5:])
                chunk = self.known_chunk(queue.number, chunk_id)
                if position < chunk_id + chunk.count:
                    chunk_end = min(end, chunk_id + chunk.count)
                    yield chunk_id, chunk, position, chunk_end
                    position = chunk_end
                    continue
            later = self.state.first(prefix, record_keys.u64(position + 1))
            gap_end = end if later is None else min(end, record_keys.read_u64(later[0][5:]))
            yield 0, None, position, gap_end
            position = gap_end

    def add_chunk(self, queue: Queue, chunk_id: int, chunk: Chunk, unsifted: int | None = None) -> None:
        """A new chunk. What is sent next does not follow on the messages before it.

        It is to be sifted if its queue has selectors: since this entry, or since `unsifted`; 0: not any more.
        """
        self.tails.pop(queue.number, None)
        self.state.put(record_keys.chunk_key(queue.number, chunk_id), records.encode(chunk))
        self._chunks[queue.number, chunk_id] = chunk
        extras = chunk.extras
        if extras is not None:
            if extras.key:
                self.state.put(record_keys.key_prefix(queue.number, extras.key) + record_keys.u64(chunk_id), PRESENT)
            if extras.expires_ms:
                self.set_timer(
                    extras.expires_ms, record_keys.TIMER_EXPIRY, record_keys.chunk_subject(queue.number, chunk_id)
                )
        self._stood[queue.number, chunk_id] = EMPTY
        if queue.selectors and unsifted != 0:
            index = self.index if unsifted is None else unsifted
            self.state.put(sieves.unsifted_key(queue.number, chunk_id), record_keys.u64(index))
            queue.unsifted += 1
        self.refile(queue, chunk_id, chunk)
        self.hold_entry(chunk.index)

    def take_out_chunk(self, queue: Queue, chunk_id: int, chunk: Chunk) -> None:
        """Remove a chunk that comes back otherwise, in pieces perhaps. Hold its entry meanwhile."""
        if self.tails.get(queue.number) == chunk_id:
            del self.tails[queue.number]
        emptied = msgspec.structs.replace(chunk, segments=[])
        self.refile(queue, chunk_id, emptied, keep_history=True)

    def hold_entry(self, index: int) -> None:
        """One more needs the bodies in a log entry."""
        key = record_keys.entry_key(index)
        living = self.state.get(key)
        self.state.put(key, record_keys.u32(1 if living is None else record_keys.read_u32(living) + 1))

    def let_go_of_entry(self, index: int) -> None:
        """One less needs the bodies in a log entry; the last one releases it."""
        key = record_keys.entry_key(index)
        living = self.state.get(key)
        assert living is not None, "who lets go has held"
        if living == record_keys.u32(1):
            self.state.delete(key)
            self.state.release(index)
        else:
            self.state.put(key, record_keys.u32(record_keys.read_u32(living) - 1))

    def refile(self, queue: Queue, chunk_id: int, chunk: Chunk, *, keep_history: bool = False) -> None:
        """After a change of a chunk's segments: put counts, ready mark and timers right; drop an empty chunk.

        The only place where these are kept.
        """
        name = (queue.number, chunk_id)
        before, after = self._stood[name], standing(chunk.segments)
        self._stood[name] = after
        queue.ready += after.ready - before.ready
        if after.ready > before.ready or (after.leased < before.leased and queue.settings.limits_leases):
            self.readier.add(queue.name)
        queue.leased += after.leased - before.leased
        queue.delayed += after.delayed - before.delayed
        queue.dead += after.dead - before.dead
        if chunk.extras is not None and chunk.extras.grouped:
            groups.refile(self, queue, chunk_id, chunk, before, after)
        elif after.ready and not before.ready:
            self.state.put(record_keys.ready_key(queue.number, chunk.rank, chunk_id), PRESENT)
        elif before.ready and not after.ready:
            self.state.delete(record_keys.ready_key(queue.number, chunk.rank, chunk_id))
        if before.dues != after.dues:
            for due_ms in sorted(before.dues - after.dues):
                self.state.delete(record_keys.chunk_timer_key(due_ms, queue.number, chunk_id))
            for due_ms in sorted(after.dues - before.dues):
                self.state.put(record_keys.chunk_timer_key(due_ms, queue.number, chunk_id), PRESENT)
        if chunk.selected is not None:
            self._selected[name] = sifting.refile(self, queue, chunk_id, chunk, self._selected.get(name, frozenset()))
        if chunk.segments:
            self._changed.add(name)
        else:
            if queue.unsifted:
                self._unset_unsifted(queue, chunk_id)
            if self.tails.get(queue.number) == chunk_id:
                del self.tails[queue.number]
            if not keep_history:
                history.chunk_gone(self, queue, chunk_id)
            self._remove_chunk(queue.number, chunk_id, chunk)

    def unsifted_since(self, queue: Queue, chunk_id: int) -> int:
        """Since which log entry a chunk is to be sifted; 0: it is not."""
        found = self.state.get(sieves.unsifted_key(queue.number, chunk_id)) if queue.unsifted else None
        return 0 if found is None else record_keys.read_u64(found)

    def _unset_unsifted(self, queue: Queue, chunk_id: int) -> None:
        key = sieves.unsifted_key(queue.number, chunk_id)
        if self.state.get(key) is not None:
            self.state.delete(key)
            queue.unsifted -= 1

    def drop(self, queue: Queue, chunk: Chunk, segment: Segment) -> None:
        """The segment's messages are gone. The caller refiles the chunk."""
        queue.bytes -= sum(message_sizes(chunk, segment.first, segment.count))
        chunk.segments.remove(segment)

    def remove_dead_chunk(self, number: int, chunk_id: int) -> None:
        """Remove a chunk whose queue was purged or deleted, with its timers."""
        chunk = self.known_chunk(number, chunk_id)
        stood = self._stood[number, chunk_id]
        for due_ms in sorted(stood.dues):
            self.state.delete(record_keys.chunk_timer_key(due_ms, number, chunk_id))
        self._remove_chunk(number, chunk_id, chunk)

    def _remove_chunk(self, number: int, chunk_id: int, chunk: Chunk) -> None:
        self.state.delete(record_keys.chunk_key(number, chunk_id))
        self._chunks.pop((number, chunk_id), None)
        self._stood.pop((number, chunk_id), None)
        self._selected.pop((number, chunk_id), None)
        self._changed.discard((number, chunk_id))
        extras = chunk.extras
        if extras is not None:
            if extras.key:
                self.state.delete(record_keys.key_prefix(number, extras.key) + record_keys.u64(chunk_id))
            if extras.expires_ms:
                self.cancel_timer(
                    extras.expires_ms, record_keys.TIMER_EXPIRY, record_keys.chunk_subject(number, chunk_id)
                )
        self.let_go_of_entry(chunk.index)
