"""The rules on both stores, step by step beside a naive model: outcomes, bodies, counts, order and every record.

Limits are lowered, so that they are met: merged sends, bytes of a receive, numbers of queues and of keys.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from storage import machine, queries, records
from storage.block import encode_block, parts
from storage.limits import SESSION_WINDOW_MS
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
from tests.storage.harness import KINDS, Place, quick_directory, tick
from tests.storage.naive import Body, Message, Naive, in_order

QUEUES_MAX, KEYS_MAX, MERGED_MAX, RECEIVE_BYTES = 3, 3, 8, 60
MINUTE_MS = 60_000

NAMES = st.sampled_from([*"aaaaaaaabbb", "b.fifo", "c", "none"])
BODIES = st.tuples(st.binary(max_size=12), st.sampled_from([b"", b"", b"\x80"]))
BATCHES = st.lists(BODIES, min_size=1, max_size=3) | st.just([(b"small", b""), (b"x" * 70, b"")])
SETTINGS = st.builds(
    QueueSettings,
    lease_ms=st.sampled_from([1000, 5000]),
    body_bytes_max=st.sampled_from([8, 100]),
    retention_ms=st.sampled_from([MINUTE_MS, 3 * MINUTE_MS, 14 * DAY_MS]),
)
SHORT = st.sampled_from([0, 0, 0, 1, 500])
PAUSES = SHORT | st.sampled_from([999, 1000, 4000, MINUTE_MS, 2 * MINUTE_MS, SESSION_WINDOW_MS // 2, SESSION_WINDOW_MS])
TIMES = st.sampled_from([0, 0, 1, 1000, 3000, 2 * MINUTE_MS, 2 * MINUTE_MS])
MORE = st.booleans()
SESSIONS = st.integers(1, 2)
KEYS = st.sampled_from([bytes([number]) * 16 for number in range(4)])
FINGERPRINTS = st.sampled_from([b"f" * 16, b"f" * 16, b"g" * 16])

Proposal = tuple[int, int, Operation, list[Body]]


class Rules(RuleBasedStateMachine):
    """Operations gather until they are proposed as one entry, which both stores and the model then carry out."""

    @initialize(first=SETTINGS, second=SETTINGS)
    def begin(self, first: QueueSettings, second: QueueSettings) -> None:
        self.temporary = quick_directory()
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
        self.received: list[tuple[str, Received]] = []
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

    def add(self, session: int, operation: Operation, bodies: list[Body] | None = None, *, more: bool = False) -> None:
        """Ask for something; it is proposed at once unless `more` is to come in the same entry."""
        self.seqs[session] += 1
        self.pending.append((session, self.seqs[session], operation, bodies or []))
        if not more:
            self.propose()

    # --- what is asked ---

    @rule(session=SESSIONS, queue=NAMES, bodies=BATCHES, more=MORE)
    def send(self, session: int, queue: str, bodies: list[Body], more: bool) -> None:
        self.add(session, Send(queue, len(bodies)), bodies, more=more)

    @rule(session=SESSIONS, queue=NAMES, messages_max=st.integers(1, 9), lease_ms=TIMES, more=MORE)
    def receive(self, session: int, queue: str, messages_max: int, lease_ms: int, more: bool) -> None:
        self.tokens += 1
        self.add(session, Receive(queue, messages_max, lease_ms, self.tokens), more=more)

    @rule(session=SESSIONS, bodies=BATCHES, off=st.sampled_from([-1, 1, 5]), token=st.sampled_from([0, -1]))
    def malformed(self, session: int, bodies: list[Body], off: int, token: int) -> None:
        self.add(session, Send("a", len(bodies) + off), bodies, more=True)
        self.add(session, Receive("a", 1, 0, token))

    @rule(session=SESSIONS, delay_ms=TIMES, more=MORE, data=st.data())
    def settle(self, session: int, delay_ms: int, more: bool, data: st.DataObject) -> None:
        """Ack, nack or extend claims that are held: whole, in part, several at once."""
        held = self.held()
        if not held:
            return
        tokens = {claim.token for _, claim in held}
        held += [(name, claim) for name, claim in self.claims[-20:] if claim.token in tokens]
        queue = data.draw(st.sampled_from(sorted({name for name, _ in held})))
        claims = [self.part(claim, data) for claim in self.drawn([c for name, c in held if name == queue], data)]
        self.add(session, self.settling(queue, claims, delay_ms, data), more=more)

    @rule(session=SESSIONS, delay_ms=TIMES, more=MORE, data=st.data())
    def settle_wrongly(self, session: int, delay_ms: int, more: bool, data: st.DataObject) -> None:
        """Claims given out long ago, too wide, under another token, or made up."""
        queue = data.draw(NAMES)
        claims = []
        for claim in self.drawn([c for name, c in self.claims[-20:] if name == queue] or [Claim(1, 1, 1)], data):
            wide = Claim(claim.token, max(0, claim.message_id - 3), claim.count + 8)
            token = data.draw(st.just(0) | st.integers(1, self.tokens + 1))
            afar = Claim(claim.token, claim.message_id + 10_000, 2)
            claims.append(data.draw(st.sampled_from([claim, wide, Claim(token, wide.message_id, wide.count), afar])))
        self.add(session, self.settling(queue, claims, delay_ms, data), more=more)

    def held(self) -> list[tuple[str, Claim]]:
        """The runs of messages that are leased now."""
        return [
            (name, Claim(message.token, message.message_id, 1 + following(queue.messages[position:])))
            for name, queue in self.model.queues.items()
            for position, message in enumerate(queue.messages)
            if message.token
        ]

    def drawn(self, claims: list[Claim], data: st.DataObject) -> list[Claim]:
        return data.draw(st.lists(st.sampled_from(claims), min_size=1, max_size=3))

    def part(self, claim: Claim, data: st.DataObject) -> Claim:
        return Claim(claim.token, claim.message_id, data.draw(st.integers(1, claim.count)))

    def settling(self, queue: str, claims: list[Claim], time_ms: int, data: st.DataObject) -> Operation:
        return data.draw(
            st.sampled_from([Ack(queue, claims), Nack(queue, claims), Nack(queue, claims, time_ms)])
            | st.just(Extend(queue, claims, time_ms))
        )

    @rule(session=SESSIONS, queue=NAMES, settings=SETTINGS, kind=st.integers(0, 6), more=MORE)
    def administer(self, session: int, queue: str, settings: QueueSettings, kind: int, more: bool) -> None:
        purge_or_put = PurgeQueue(queue) if kind in (1, 2) else PutQueue(queue, settings)
        self.add(session, DeleteQueue(queue) if kind == 0 else purge_or_put, more=more)

    @rule(session=SESSIONS, key=KEYS, fingerprint=FINGERPRINTS, queue=NAMES, bodies=BATCHES, kind=st.integers(0, 2))
    def under_a_key(
        self, session: int, key: bytes, fingerprint: bytes, queue: str, bodies: list[Body], kind: int
    ) -> None:
        """A client's own key: an operation without effect does not use it up."""
        self.tokens += 1
        operation = (Send(queue, len(bodies)), Receive(queue, 3, 0, self.tokens), PurgeQueue(queue))[kind]
        self.add(session, Keyed(key, fingerprint, operation), bodies if kind == 0 else [])

    @rule(back=st.integers(0, 15), session=st.none() | SESSIONS, more=MORE)
    @precondition(lambda self: self.history)
    def retry(self, back: int, session: int | None, more: bool) -> None:
        """An operation from before again: as it was, or under a new id, as a client's retry through another gateway."""
        old_session, seq, operation, bodies = self.history[-1 - back % len(self.history)]
        if session is not None:
            self.add(session, operation, bodies, more=more)
            return
        self.pending.append((old_session, seq, operation, bodies))
        if not more:
            self.propose()

    @rule(session=SESSIONS, kept=st.integers(0, 6), off=st.sampled_from([None, -1, 0]))
    def forget(self, session: int, kept: int, off: int | None) -> None:
        """A gateway has its answers, and perhaps asks again at the very edge of what is remembered."""
        below = max(0, self.seqs[session] - kept)
        self.pending.append((session, 0, Forget(below), []))
        if off is not None:
            self.pending += [each for each in self.history if each[:2] == (session, below + off)][-1:]
        self.propose()

    @rule(session=SESSIONS, queue=NAMES, bodies=BATCHES, kind=st.integers(0, 2), more=MORE)
    def live_in_one_entry(self, session: int, queue: str, bodies: list[Body], kind: int, more: bool) -> None:
        """Sent, received and settled in one entry, and then the next is sent."""
        self.tokens += 1
        sent = self.model.queues[queue].next_id if queue in self.model.queues else 1
        claims = [Claim(self.tokens, max(0, sent - 10), 30)]
        self.add(session, Send(queue, len(bodies)), bodies, more=True)
        self.add(session, Receive(queue, 100, 0, self.tokens), more=True)
        self.add(session, (Ack(queue, claims), Nack(queue, claims), Extend(queue, claims, 1000))[kind], more=True)
        self.add(session, Send(queue, len(bodies)), bodies, more=more)

    # --- what happens ---

    @rule(pause_ms=SHORT, back_ms=st.sampled_from([0, 0, 5000]))
    def propose_backwards(self, pause_ms: int, back_ms: int) -> None:
        """What was asked arrives in another order, and may be stamped by a clock that runs behind."""
        self.pending.reverse()
        self.propose(pause_ms, back_ms)

    def propose(self, pause_ms: int = 0, back_ms: int = 0) -> None:
        """One entry of all that was asked."""
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
                self.received.append((plain.queue, outcome))
                self.claims += [
                    (plain.queue, Claim(outcome.token, each.message_id, each.count)) for each in outcome.deliveries
                ]
        for name, ids in self.ready_ids().items():
            assert name in readier or not ids - before.get(name, set()), "whoever waits for a message is told"
        self.compare()
        for name, received in self.received[-6:]:
            self.compare_bodies(name, received)
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

    @rule(keep=st.integers(0, 3), crash=st.booleans())
    def compact(self, keep: int, crash: bool) -> None:
        """The log keeps what replication needs and what holds messages; the model is none the wiser."""
        for store in self.stores:
            with tick(store):
                store.compact(max(store.first_index, store.last_index - keep), 100)
        for place in self.places if crash else []:
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
        assert [info.queue for info in listed(self.stores[0])] == sorted(self.model.queues)
        for name in ("a", "b", "b.fifo", "c", "none"):
            self.compare_queue(self.stores[0], name)
        self.compare_queue(self.stores[1], "a")  # for its bodies: the records are the same

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
        """However late a receive is answered, it brings the bodies of what is still held under its token."""
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


def following(messages: list[Message]) -> int:
    """How many messages right after the first are held together with it."""
    first = messages[0]
    count = 0
    for message in messages[1:]:
        if message.token != first.token or message.message_id != first.message_id + count + 1:
            break
        count += 1
    return count


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
    set_timers = {key for key, _ in store.scan(b"d") if records.read_timer(key)[1] == records.TIMER_CHUNK}
    assert set_timers <= timers
    missing = {records.read_chunk_subject(records.read_timer(key)[2])[0] for key in timers - set_timers}
    assert not missing & totals.keys(), "only in the grave of a purged queue may a timer go before its chunk"
    assert living == {records.read_u64(key[1:]): records.read_u32(value) for key, value in store.scan(b"e")}
    for queue in queues:
        assert [queue.ready, queue.leased, queue.delayed, queue.bytes] == totals[queue.number]
    sessions = {key[1:] for key, _ in store.scan(records.SESSIONS)}
    assert {key[1:9] for key, _ in store.scan(b"o")} <= sessions
    kinds = Counter(records.read_timer(key)[1] for key, _ in store.scan(b"d"))
    assert kinds[records.TIMER_SESSION] == len(sessions)
    assert kinds[records.TIMER_KEY] == shard.keys


def test_a_longer_retention_also_holds_for_what_a_sweep_has_passed_by() -> None:
    """A path that chance hardly finds: leased while it is swept, given back under the new retention, then over."""
    life = Rules()
    life.begin(QueueSettings(retention_ms=MINUTE_MS), QueueSettings())
    life.add(1, Send("a", 1), [(b"body", b"")])
    life.add(1, Receive("a", 1, 10 * MINUTE_MS, token=1))
    life.pulse_to_the_end(MINUTE_MS, 4)
    life.add(1, PutQueue("a", QueueSettings(retention_ms=2 * MINUTE_MS)))
    life.add(1, Nack("a", [Claim(1, 1, 1)]))
    assert life.model.queues["a"].count("ready") == 1
    life.pulse_to_the_end(MINUTE_MS, 4)
    assert life.model.queues["a"].messages == []
    life.teardown()


TestRules = Rules.TestCase
TestRules.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
