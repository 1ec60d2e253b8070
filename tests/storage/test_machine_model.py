"""The rules on both stores, step by step beside a naive model: outcomes, bodies, counts, order and every record.

Limits are lowered, so that they are met: merged sends, bytes of a receive, numbers of queues and of keys.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from storage import machine, queries, records
from storage.block import encode_block, parts
from storage.limits import KEY_WINDOW_MS, SESSION_WINDOW_MS
from storage.operations import (
    Ack,
    Browse,
    Claim,
    DeleteQueue,
    Extend,
    Forget,
    GetQueue,
    Keyed,
    Listed,
    ListQueues,
    Nack,
    Operation,
    Outcome,
    Page,
    Pulse,
    Pulsed,
    PurgeQueue,
    PutQueue,
    QueueInfo,
    QueueList,
    Receive,
    Received,
    Refused,
    Send,
    encode_entry,
    encode_item,
)
from storage.segments import standing
from storage.settings import DAY_MS, QueueSettings
from storage.state import Store
from tests.storage.harness import KINDS, Place, tick
from tests.storage.naive import Body, Naive, in_order

QUEUES_MAX, KEYS_MAX, MERGED_MAX, RECEIVE_BYTES = 3, 3, 6, 50
MINUTE_MS = 60_000

NAMES = st.sampled_from(["a", "a", "a", "b", "b.fifo", "c", "none"])
BODIES = st.tuples(st.binary(max_size=12), st.sampled_from([b"", b"", b"\x80"]))
BATCHES = st.lists(BODIES, min_size=1, max_size=5)
LARGE = st.just([(b"small", b""), (b"x" * 70, b"")])
SETTINGS = st.builds(
    QueueSettings,
    lease_ms=st.sampled_from([1000, 5000]),
    body_bytes_max=st.sampled_from([8, 100]),
    retention_ms=st.sampled_from([MINUTE_MS, 2 * MINUTE_MS, 14 * DAY_MS]),
)
PAUSES = st.sampled_from([0, 1, 999, 1000, 4000, MINUTE_MS, SESSION_WINDOW_MS // 2, SESSION_WINDOW_MS, DAY_MS])
TIMES = st.sampled_from([0, 0, 1, 1000, 3000, 2 * MINUTE_MS])
SESSIONS = st.integers(1, 2)
KEYS = st.sampled_from([bytes([number]) * 16 for number in range(4)])
FINGERPRINTS = st.sampled_from([b"f" * 16, b"f" * 16, b"g" * 16])

Proposal = tuple[int, int, Operation, list[Body]]


class Rules(RuleBasedStateMachine):
    """Operations gather until they are proposed as one entry, which both stores and the model then carry out."""

    @initialize(first=SETTINGS, second=SETTINGS)
    def begin(self, first: QueueSettings, second: QueueSettings) -> None:
        self.temporary = TemporaryDirectory()
        self.patches = ExitStack()
        self.patches.enter_context(patch.multiple(machine, QUEUES_MAX=QUEUES_MAX, KEYS_MAX=KEYS_MAX))
        self.patches.enter_context(patch.object(machine, "MERGED_MESSAGES_MAX", MERGED_MAX))
        for module in (machine, queries):
            self.patches.enter_context(patch.object(module, "RECEIVE_BYTES_MAX", RECEIVE_BYTES))
        self.places = [Place(kind, Path(self.temporary.name) / kind) for kind in KINDS]
        self.model = Naive(QUEUES_MAX, KEYS_MAX, RECEIVE_BYTES)
        self.now_ms = 1_000_000
        self.tokens = 0
        self.seqs = Counter[int]()
        self.pending: list[Proposal] = []
        self.history: list[Proposal] = []
        self.claims: list[tuple[str, Claim]] = []
        self.add(1, PutQueue("a", first))
        self.add(1, PutQueue("b", second))
        self.propose()

    def teardown(self) -> None:
        for place in getattr(self, "places", []):
            place.close()
        if hasattr(self, "patches"):
            self.patches.close()
            self.temporary.cleanup()

    @property
    def stores(self) -> list[Store]:
        return [place.store for place in self.places]

    def add(self, session: int, operation: Operation, bodies: list[Body] | None = None) -> None:
        self.seqs[session] += 1
        self.pending.append((session, self.seqs[session], operation, bodies or []))

    # --- what is asked ---

    @rule(session=SESSIONS, queue=NAMES, bodies=BATCHES | LARGE)
    def send(self, session: int, queue: str, bodies: list[Body]) -> None:
        self.add(session, Send(queue, len(bodies)), bodies)

    @rule(session=SESSIONS, queue=NAMES, bodies=BATCHES, off=st.sampled_from([-1, 1, 5]))
    def send_malformed(self, session: int, queue: str, bodies: list[Body], off: int) -> None:
        self.add(session, Send(queue, len(bodies) + off), bodies)

    @rule(session=SESSIONS, queue=NAMES, messages_max=st.integers(1, 9), lease_ms=TIMES)
    def receive(self, session: int, queue: str, messages_max: int, lease_ms: int) -> None:
        self.tokens += 1
        self.add(session, Receive(queue, messages_max, lease_ms, self.tokens))

    @rule(session=SESSIONS, queue=NAMES, token=st.sampled_from([0, -1]))
    def receive_malformed(self, session: int, queue: str, token: int) -> None:
        self.add(session, Receive(queue, 1, 0, token))

    def some_claims(self, data: st.DataObject) -> tuple[str, list[Claim]]:
        """Claims as they were given out, parts of them, many at once, or made up."""
        queue = data.draw(NAMES)
        given = [claim for name, claim in self.claims if name == queue] or [Claim(1, 1, 1)]
        chosen = []
        for claim in data.draw(st.lists(st.sampled_from(given[-12:]), min_size=1, max_size=3)):
            skip = data.draw(st.integers(0, claim.count - 1))
            count = data.draw(st.integers(1, claim.count - skip))
            kind = data.draw(st.sampled_from(["right", "right", "right", "wider", "foreign token", "no token", "afar"]))
            match kind:
                case "right":
                    chosen.append(Claim(claim.token, claim.message_id + skip, count))
                case "wider":
                    first = max(0, claim.message_id - 3)
                    chosen.append(Claim(claim.token, first, claim.count + 8))
                case "foreign token":
                    chosen.append(Claim(data.draw(st.integers(1, self.tokens + 1)), claim.message_id, claim.count))
                case "no token":
                    chosen.append(Claim(0, claim.message_id, claim.count))
                case _:
                    chosen.append(Claim(claim.token, claim.message_id + 10_000, 2))
        return queue, chosen

    @rule(session=SESSIONS, data=st.data())
    def ack(self, session: int, data: st.DataObject) -> None:
        self.add(session, Ack(*self.some_claims(data)))

    @rule(session=SESSIONS, delay_ms=TIMES, data=st.data())
    def nack(self, session: int, delay_ms: int, data: st.DataObject) -> None:
        self.add(session, Nack(*self.some_claims(data), delay_ms))

    @rule(session=SESSIONS, lease_ms=TIMES, data=st.data())
    def extend(self, session: int, lease_ms: int, data: st.DataObject) -> None:
        self.add(session, Extend(*self.some_claims(data), lease_ms))

    @rule(session=SESSIONS, queue=NAMES, settings=SETTINGS)
    def put_queue(self, session: int, queue: str, settings: QueueSettings) -> None:
        self.add(session, PutQueue(queue, settings))

    @rule(session=SESSIONS, queue=NAMES, often=st.integers(0, 3))
    def delete_queue(self, session: int, queue: str, often: int) -> None:
        if often == 0:
            self.add(session, DeleteQueue(queue))

    @rule(session=SESSIONS, queue=NAMES, often=st.integers(0, 2))
    def purge_queue(self, session: int, queue: str, often: int) -> None:
        if often == 0:
            self.add(session, PurgeQueue(queue))

    @rule(key=KEYS, fingerprint=FINGERPRINTS)
    @precondition(lambda self: self.pending)
    def under_a_key(self, key: bytes, fingerprint: bytes) -> None:
        """What was asked last, under a client's own key."""
        session, seq, operation, bodies = self.pending[-1]
        if not isinstance(operation, Forget | Keyed):
            self.pending[-1] = (session, seq, Keyed(key, fingerprint, operation), bodies)

    @rule(back=st.integers(0, 15), session=st.none() | SESSIONS)
    @precondition(lambda self: self.history)
    def retry(self, back: int, session: int | None) -> None:
        """An operation from before again: as it was, or under a new id, as a client's retry through another gateway."""
        old_session, seq, operation, bodies = self.history[-1 - back % len(self.history)]
        if session is None:
            self.pending.append((old_session, seq, operation, bodies))
        else:
            self.add(session, operation, bodies)

    @rule(session=SESSIONS, kept=st.integers(0, 6))
    def forget(self, session: int, kept: int) -> None:
        self.pending.append((session, 0, Forget(max(0, self.seqs[session] - kept)), []))

    # --- what happens ---

    @rule(pause_ms=PAUSES, back_ms=st.sampled_from([0, 0, 5000]))
    def propose(self, pause_ms: int = 0, back_ms: int = 0) -> None:
        """One entry of all that was asked, perhaps stamped by a clock that runs behind."""
        self.now_ms += pause_ms
        pending, self.pending = self.pending, []
        at_ms = self.now_ms - back_ms
        before = self.ready_ids()
        items = [encode_item(s, n, o, encode_block(bodies) if bodies else b"") for s, n, o, bodies in pending]
        outcomes, readier = self.apply(at_ms, items)
        self.model.now_ms = max(self.model.now_ms, at_ms)
        for (session, seq, operation, bodies), outcome in zip(pending, outcomes, strict=True):
            assert outcome == self.model.once(session, seq, operation, bodies, outcome), operation
            plain = operation.operation if isinstance(operation, Keyed) else operation
            if isinstance(outcome, Received) and isinstance(plain, Receive):
                self.claims += [
                    (plain.queue, Claim(outcome.token, each.message_id, each.count)) for each in outcome.deliveries
                ]
        for name, ids in self.ready_ids().items():
            assert name in readier or not ids - before.get(name, set()), "whoever waits for a message is told"
        self.compare()
        for (_, _, operation, _), outcome in zip(pending, outcomes, strict=True):
            plain = operation.operation if isinstance(operation, Keyed) else operation
            if isinstance(outcome, Received) and isinstance(plain, Receive):
                self.compare_bodies(plain.queue, outcome)
        self.history += [proposal for proposal in pending if proposal[1]]

    @rule(pause_ms=PAUSES, steps_max=st.integers(1, 4))
    def pulse_to_the_end(self, pause_ms: int, steps_max: int) -> None:
        self.now_ms += pause_ms
        self.model.now_ms = max(self.model.now_ms, self.now_ms)
        for _ in range(1000):
            if self.pulse(steps_max) == 0:
                break
        else:
            raise AssertionError("pulses do not end")
        self.model.all_that_is_due()
        self.compare()
        due_ms = queries.next_due_ms(self.stores[0])
        assert due_ms is None or due_ms > self.now_ms

    @rule(pause_ms=PAUSES, steps_max=st.integers(1, 3))
    def pulse_a_little(self, pause_ms: int, steps_max: int) -> None:
        """What one pulse comes to is its own affair, but nothing may happen that was not due."""
        self.now_ms += pause_ms
        self.model.now_ms = now_ms = max(self.model.now_ms, self.now_ms)
        assert self.pulse(steps_max) <= steps_max + 1  # closing a sweep or a grave counts as a step of its own
        for name, queue in self.model.queues.items():
            listed = {message.message_id: message for message, _ in self.browsed(self.stores[0], name)}
            for message in list(queue.messages):
                found = listed.pop(message.message_id, None)
                if found is None:
                    assert queue.is_over(message, now_ms)
                    assert message.due_ms <= now_ms
                    queue.messages.remove(message)
                elif found.state == "ready" and message.due_ms:
                    assert message.due_ms <= now_ms
                    message.token = message.due_ms = 0
            assert not listed
        get = self.stores[0].get
        for key, memory in list(self.model.keys.items()):
            if get(records.memory_key(key)) is None:
                assert memory.until_ms <= now_ms
                del self.model.keys[key]
        for number, session in list(self.model.sessions.items()):
            if get(records.session_key(number)) is None:
                assert session.heard_ms + SESSION_WINDOW_MS <= now_ms
                del self.model.sessions[number]
        self.compare()

    @rule(keep=st.integers(0, 3))
    def compact(self, keep: int) -> None:
        """The log keeps what replication needs and what holds messages; the model is none the wiser."""
        for store in self.stores:
            with tick(store):
                store.compact(max(store.first_index, store.last_index - keep), 100)
        self.compare()

    @rule()
    def restart(self) -> None:
        for place in self.places:
            place.reopen()
        self.compare()

    def pulse(self, steps_max: int) -> int:
        (outcome,), _ = self.apply(self.now_ms, [encode_item(0, 0, Pulse(steps_max))])
        assert isinstance(outcome, Pulsed)
        return outcome.steps

    def apply(self, at_ms: int, items: list[bytes]) -> tuple[list[Outcome], set[str]]:
        turns = []
        for store in self.stores:
            index, payload = store.last_index + 1, encode_entry(at_ms, items)
            with tick(store):
                store.append(index, 1, payload)
                turned = machine.apply(store, index, payload)
            turns.append(([(each.outcome, each.encoded) for each in turned.applied], turned.readier))
        assert turns[0] == turns[1]
        return [outcome for outcome, _ in turns[0][0]], turns[0][1]

    # --- what is compared ---

    def ready_ids(self) -> dict[str, set[int]]:
        return {
            name: {message.message_id for message in queue.messages if message.state == "ready"}
            for name, queue in self.model.queues.items()
        }

    def browsed(self, store: Store, name: str) -> list[tuple[Listed, Body]]:
        """A whole queue, page by page."""
        found: list[tuple[Listed, Body]] = []
        after = 0
        while True:
            page, block = queries.answer(store, Browse(name, after, 4))
            assert isinstance(page, Page)
            if not page.messages:
                return found
            bodies = [(bytes(part.body), bytes(part.properties)) for part in parts(block, len(page.messages))]
            found += zip(page.messages, bodies, strict=True)
            after = page.messages[-1].message_id

    def compare(self) -> None:
        memory, disk = (list(store.scan(b"")) for store in self.stores)
        assert memory == disk
        check_records(self.stores[0])
        for store in self.stores:
            names = sorted(self.model.queues)
            assert [info.queue for info in listed(store)] == names
            for name in ("a", "b", "b.fifo", "c", "none"):
                self.compare_queue(store, name)

    def compare_queue(self, store: Store, name: str) -> None:
        info, _ = queries.answer(store, GetQueue(name))
        queue = self.model.queues.get(name)
        if queue is None:
            assert info == Refused(machine.QUEUE_NOT_FOUND)
            return
        assert info == QueueInfo(
            name,
            queue.settings,
            queue.created_ms,
            queue.count("ready"),
            queue.count("leased"),
            queue.count("delayed"),
            sum(message.bytes for message in queue.messages),
        )
        assert self.browsed(store, name) == [
            (Listed(m.message_id, m.state, m.attempts, m.sent_ms, m.due_ms), m.content) for m in queue.messages
        ]
        assert in_order([message.message_id for message in queue.messages])

    def compare_bodies(self, name: str, outcome: Received) -> None:
        """A receive brings the bodies of what is still held under its token."""
        claimed = {
            delivery.message_id + position for delivery in outcome.deliveries for position in range(delivery.count)
        }
        queue = self.model.queues.get(name)
        held = [m for m in queue.messages if m.message_id in claimed and m.token == outcome.token] if queue else []
        for store in self.stores:
            received, block = queries.received(store, name, outcome)
            told = [
                (delivery.message_id + position, delivery.attempt, delivery.sent_ms)
                for delivery in received.deliveries
                for position in range(delivery.count)
            ]
            assert told == [(m.message_id, m.attempts, m.sent_ms) for m in held]
            bodies = [(bytes(part.body), bytes(part.properties)) for part in parts(block, len(held))] if held else []
            assert bodies == [m.content for m in held]


def listed(store: Store) -> list[QueueInfo]:
    """Every queue, page by page."""
    found: list[QueueInfo] = []
    while True:
        page, _ = queries.answer(store, ListQueues(found[-1].queue if found else "", 2))
        assert isinstance(page, QueueList)
        if not page.queues:
            return found
        found += page.queues


def check_records(store: Store) -> None:
    """The invariants that `storage.records` states."""
    shard = records.decode_shard(store.get(records.SHARD_KEY) or b"")
    queues = [records.decode_queue(value) for _, value in store.scan(b"n")]
    assert shard.queues == len(queues) == sum(1 for _ in store.scan(records.QUEUE_NAMES))
    assert shard.keys == sum(1 for _ in store.scan(b"k"))
    ready, timers, living = set(), set(), Counter[int]()
    totals: dict[int, list[int]] = {queue.number: [0, 0, 0, 0] for queue in queues}
    for key, value in store.scan(b"c"):
        number, chunk_id = records.read_chunk_subject(key[1:])
        chunk = records.decode_chunk(value)
        stands = standing(chunk.segments)
        assert chunk.segments, "a chunk without segments does not exist"
        assert in_order([segment.first for segment in chunk.segments])
        living[chunk.index] += 1
        if stands.ready:
            ready.add(key[1:])
        timers |= {records.chunk_timer_key(due_ms, number, chunk_id) for due_ms in stands.dues}
        if number in totals:
            held = sum(sum(queries.message_sizes(chunk, s.first, s.count)) for s in chunk.segments)
            counts = (stands.ready, stands.leased, stands.delayed, held)
            totals[number] = [one + other for one, other in zip(totals[number], counts, strict=True)]
    assert ready == {key[1:] for key, _ in store.scan(b"r")}
    assert timers == {key for key, _ in store.scan(b"d") if records.read_timer(key)[1] == records.TIMER_CHUNK}
    assert living == {records.read_u64(key[1:]): records.read_u32(value) for key, value in store.scan(b"e")}
    for queue in queues:
        assert [queue.ready, queue.leased, queue.delayed, queue.bytes] == totals[queue.number]
    sessions = {key[1:] for key, _ in store.scan(records.SESSIONS)}
    assert {key[1:9] for key, _ in store.scan(b"o")} <= sessions
    kinds = Counter(records.read_timer(key)[1] for key, _ in store.scan(b"d"))
    assert kinds[records.TIMER_SESSION] == len(sessions)
    assert kinds[records.TIMER_KEY] == shard.keys


def test_the_windows_are_of_a_size_that_the_pauses_reach() -> None:
    assert max(SESSION_WINDOW_MS, KEY_WINDOW_MS) <= DAY_MS


TestRules = Rules.TestCase
TestRules.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
