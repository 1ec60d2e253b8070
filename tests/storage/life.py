"""What the tests that measure the rules by the naive model share.

Operations gather until they are proposed as one entry, which both stores and the model then carry out; after it
outcomes, bodies, counts, order and every record are compared. Limits are lowered, so that they are met: merged sends,
bytes of a receive, numbers of queues and of keys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from storage import (
    access,
    codes,
    machine,
    parties,
    publishing,
    queries,
    queue_rules,
    receiving,
    record_keys,
    records,
    redrive,
    redrive_look,
    sending,
    sieves,
    sift_look,
    sifting,
)
from storage.access_operations import AccessKeyList, ListAccessKeys
from storage.block import encode_block, parts
from storage.message_operations import About, Browse, Listed, Page
from storage.operations import (
    Claim,
    Committed,
    Keyed,
    Operation,
    Outcome,
    Pulse,
    Pulsed,
    Receive,
    Received,
    Refused,
    Send,
    Sent,
    SentRun,
    Settled,
    Transaction,
    encode_entry,
    encode_item,
)
from storage.party_operations import Kind, ListParties, PartyList
from storage.queue_operations import GetQueue, ListQueues, QueueInfo, QueueList
from storage.reading import chunk_of, find_queue
from storage.records import Extras, Placed, Routed
from storage.redrive_operations import ListRedrives, RedriveTasks
from storage.routing import find_topic, table_of
from storage.schedule_operations import ListSchedules, ScheduleList
from storage.schedules import has_alarm
from storage.segments import standing
from storage.sift_look import Sifter
from storage.state import Store
from storage.topic_operations import (
    DeleteSubscription,
    DeleteTopic,
    GetRoutes,
    GetTopic,
    ListSubscriptions,
    Publish,
    Published,
    PutSubscription,
    PutTopic,
    RoutesTold,
    SubscriptionList,
    Target,
    TopicInfo,
)
from storage.turn import message_sizes
from tests.storage.harness import KINDS, Place, quick_directory, tick
from tests.storage.naive import Body, Message, Naive, in_order
from tests.storage.naive_parties import PARTIES_MAX
from tests.storage.naive_redrive import REDRIVES_MAX, as_told
from tests.storage.naive_sifting import SELECTORS_MAX, WINDOW_MS

KEYS_MAX, ACCESS_KEYS_MAX, MERGED_MAX, RECEIVE_BYTES, LOOK_SEGMENTS_MAX, SIFT_MAX = 3, 3, 8, 60, 3, 4
ROUTES_MS = 150_000
TOPICS = ("t", "t.fifo")
STATES = ("ready", "leased", "delayed", "dead")
NAMES = ("a", "b", "b.fifo", "c", "none", "dead", "dead.fifo")

Proposal = tuple[int, int, Operation, list[Body]]


class Life(RuleBasedStateMachine):
    """The stores, the model, and what was asked so far."""

    def prepare(self, queues_max: int = 3) -> None:
        """Empty stores and an empty model."""
        self.temporary = quick_directory()
        self.patches = ExitStack()
        self.patches.enter_context(patch.object(machine, "KEYS_MAX", KEYS_MAX))
        self.patches.enter_context(patch.object(access, "ACCESS_KEYS_MAX", ACCESS_KEYS_MAX))
        self.patches.enter_context(patch.object(queue_rules, "QUEUES_MAX", queues_max))
        self.patches.enter_context(patch.object(parties, "PARTIES_MAX", PARTIES_MAX))
        self.patches.enter_context(patch.object(sending, "MERGED_MESSAGES_MAX", MERGED_MAX))
        self.patches.enter_context(patch.object(publishing, "ROUTES_MS", ROUTES_MS))
        for module in (receiving, queries):
            self.patches.enter_context(patch.object(module, "RECEIVE_BYTES_MAX", RECEIVE_BYTES))
        self.patches.enter_context(patch.object(redrive, "REDRIVES_MAX", REDRIVES_MAX))
        self.patches.enter_context(patch.object(redrive_look, "REDRIVE_LOOK_SEGMENTS_MAX", LOOK_SEGMENTS_MAX))
        self.patches.enter_context(patch.object(sifting, "SELECTORS_MAX", SELECTORS_MAX))
        self.patches.enter_context(patch.object(sifting, "SELECTOR_WINDOW_MS", WINDOW_MS))
        self.patches.enter_context(patch.object(sift_look, "SIFT_MESSAGES_MAX", SIFT_MAX))
        self.places = [Place(kind, Path(self.temporary.name) / kind) for kind in KINDS]
        self.sifters = [Sifter(store) for store in self.stores]
        self.model = Naive(queues_max, KEYS_MAX, RECEIVE_BYTES, ACCESS_KEYS_MAX)
        self.now_ms = 1_000_000
        self.tokens = 0
        self.seqs = Counter[int]()
        self.pending: list[Proposal] = []
        self.history: list[Proposal] = []
        self.received: list[tuple[str, Received]] = []
        self.claims: list[tuple[str, Claim]] = []
        self.named: dict[int, tuple[str, PutSubscription]] = {}
        """Subscriptions by version."""

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

    def publish(self, operation: Publish, bodies: list[Body], *, more: bool = False) -> None:
        """Publish, as a leader does: it looks at what is applied when it proposes."""
        changes = PutTopic | DeleteTopic | PutSubscription | DeleteSubscription
        if any(isinstance(asked, changes) for _, _, asked, _ in self.pending):
            self.propose()
        self.publish_as_it_is(operation, bodies, more=more)

    def publish_as_it_is(self, operation: Publish, bodies: list[Body], *, more: bool = False) -> None:
        """Publish by what is applied now, whatever is pending."""
        topic = find_topic(self.stores[0], operation.topic)
        targets: list[Target] = []
        if topic is not None:
            table = table_of(self.stores[0], topic)
            targets = table.targets(operation, memoryview(encode_block(bodies)), lambda: False)
        self.add(1, msgspec.structs.replace(operation, targets=targets), bodies, more=more)

    def propose(self, pause_ms: int = 0, back_ms: int = 0) -> None:
        """One entry of all that was asked."""
        self.now_ms += pause_ms
        pending, self.pending = self.pending, []
        at_ms = self.now_ms - back_ms
        before = self.ready_ids()
        items = [item(*proposal) for proposal in pending]
        outcomes, readier = self.apply(at_ms, items)
        self.model.now_ms = max(self.model.now_ms, at_ms)
        for (session, seq, operation, bodies), outcome in zip(pending, outcomes, strict=True):
            assert flat(outcome) == self.model.once(session, seq, operation, bodies, outcome), operation
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

    def compact_all(self, keep: int) -> None:
        """The log keeps what replication needs and what holds messages."""
        for store in self.stores:
            with tick(store):
                store.compact(max(store.first_index, store.last_index - keep), 100)

    def align(self) -> None:
        """In what order messages came to a dead-letter queue in one pulse is nobody's promise: take over the ids."""
        for name, queue in self.model.queues.items():
            came = [m for m in queue.messages if m.dead and not m.redriven and m.sent_ms == self.model.now_ms]
            if len(came) < 2:
                continue
            listed = [listed for listed, _ in self.browsed(self.stores[0], name)]
            dead = {each.message_id: each.about.dead for each in listed if each.about is not None}
            ids = {(d.queue, d.message_id): message_id for message_id, d in dead.items() if d is not None}
            before = {message.message_id for message in came}
            for message in came:
                assert message.dead is not None
                message.message_id = ids[message.dead.queue, message.dead.message_id]
            assert {message.message_id for message in came} == before
            queue.messages.sort(key=lambda message: message.message_id)

    def pulse_once(self, steps_max: int) -> int:
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

    def look_for_redrive(self) -> None:
        """The leader looks for what the next step of a redrive is, and will propose it with what is asked already."""
        self.model.now_ms = max(self.model.now_ms, self.now_ms)
        step, other = (redrive_look.next_step(store, self.now_ms) for store in self.stores)
        assert step == other
        if step is not None:
            self.model.redrives.look(step)
            self.pending.append((0, 0, step, []))

    def look_for_sift(self) -> bool:
        """The leader looks for what selectors want, and will propose it with what is asked already. Whether any is."""
        step, other = (sifter.next(lambda: False) for sifter in self.sifters)
        assert step == other
        if step is None:
            return False
        record = records.decode_queue(self.stores[0].get(record_keys.queue_key(step.number)) or b"")
        numbers = [selector.number for selector in record.selectors]
        self.model.sifting.look(self.model.queues[record.name], step, numbers)
        self.pending.append((0, 0, step, []))
        return True

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
        keys, _ = queries.answer(self.stores[0], ListAccessKeys())
        assert isinstance(keys, AccessKeyList)
        assert keys.keys == sorted(self.model.access_keys.known.values(), key=lambda key: key.id)
        for name in NAMES:
            self.compare_queue(self.stores[0], name)
        self.compare_schedules(self.stores[0])
        self.compare_parties(self.stores[0])
        self.compare_queue(self.stores[1], "a")  # for its bodies: the records are the same
        for name in TOPICS:
            self.compare_topic(self.stores[0], name)

    def compare_queue(self, store: Store, name: str) -> None:
        info, _ = queries.answer(store, GetQueue(name))
        queue = self.model.queues.get(name)
        if queue is None:
            assert info == Refused(codes.QUEUE_NOT_FOUND)
            return
        assert isinstance(info, QueueInfo)
        told = [(f"{each.filter_on} {each.filter}", each.used_ms, bool(each.unsifted)) for each in info.selectors]
        assert told == [
            (each.sieve, each.used_ms, self.model.sifting.end(queue, each) is not None) for each in queue.selectors
        ]
        check_selected(store, name, self.model)
        assert msgspec.structs.replace(info, selectors=[]) == QueueInfo(
            name,
            queue.settings,
            queue.created_ms,
            queue.count("ready"),
            queue.count("leased"),
            queue.count("delayed"),
            queue.bytes,
            queue.count("dead"),
            queue.changed_ms,
            queue.active,
        )
        assert self.browsed(store, name) == [(listed_as(m), m.content) for m in queue.messages]
        assert in_order([message.message_id for message in queue.messages])
        tasks, _ = queries.answer(store, ListRedrives(name))
        assert isinstance(tasks, RedriveTasks)
        expected = [(number, *task.told()) for number, task in self.model.redrives.of(queue).items()]
        assert [(each.redrive.task, *as_told(each.redrive)) for each in tasks.tasks] == expected[::-1]

    def compare_parties(self, store: Store) -> None:
        kinds: tuple[Kind, ...] = ("producer", "consumer")
        for kind in kinds:
            told, _ = queries.answer(store, ListParties(kind))
            known = self.model.parties.known
            assert told == PartyList([known[key] for key in sorted(known) if key[0] == kind])

    def compare_schedules(self, store: Store) -> None:
        found: list[records.Schedule] = []
        for _ in range(len(self.model.schedules.known) + 1):
            told, _ = queries.answer(store, ListSchedules(found[-1].name if found else ""))
            assert isinstance(told, ScheduleList)
            found += told.schedules
        assert [schedule.name for schedule in found] == sorted(self.model.schedules.known)
        for schedule in found:
            expected = self.model.schedules.known[schedule.name]
            for field in expected.__dict__:
                if field != "last":
                    assert getattr(schedule, field) == getattr(expected, field), field
            assert schedule.last_id == (expected.last[1] if expected.last else 0)

    def compare_topic(self, store: Store, name: str) -> None:
        told, _ = queries.answer(store, GetTopic(name))
        topic = self.model.topics.known.get(name)
        if topic is None:
            assert told == Refused(codes.TOPIC_NOT_FOUND)
            return
        subscriptions, labels = len(topic.subscriptions), topic.labels
        expected = TopicInfo(name, topic.fifo, topic.created_ms, subscriptions, topic.next_id - 1, labels)
        assert told == expected
        listed, _ = queries.answer(store, ListSubscriptions(name))
        assert isinstance(listed, SubscriptionList)
        assert [(each.name, each.queue, each.pattern) for each in listed.subscriptions] == [
            (each.name, each.queue, each.pattern) for _, each in sorted(topic.subscriptions.items())
        ]
        topic.versions = {each.name: each.version for each in listed.subscriptions}
        for each in listed.subscriptions:
            subscription = name, topic.subscriptions[each.name]
            assert self.named.setdefault(each.version, subscription) == subscription, "a version names one state"
        for message_id, at_ms, routed in topic.routes[-12:]:
            told, _ = queries.answer(store, GetRoutes(name, message_id))
            assert told == RoutesTold(at_ms, routed)
        assert queries.answer(store, GetRoutes(name, topic.next_id))[0] == Refused(codes.ROUTES_NOT_FOUND)

    def compare_bodies(self, name: str, outcome: Received) -> None:
        """However late a receive is answered, it brings the bodies of what is still held under its token."""
        claimed = [
            delivery.message_id + position for delivery in outcome.deliveries for position in range(delivery.count)
        ]
        queue = self.model.queues.get(name)
        mine = {m.message_id: m for m in queue.messages if m.token == outcome.token} if queue else {}
        held = [mine[message_id] for message_id in claimed if message_id in mine]
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

    def pulses(self, pause_ms: int, steps_max: int) -> None:
        """Time passes, and all that is due is done."""
        self.now_ms += pause_ms
        self.model.now_ms = max(self.model.now_ms, self.now_ms)
        for _ in range(1000):
            if self.pulse_once(steps_max) == 0:
                break
        else:
            raise AssertionError("pulses do not end")
        self.model.all_that_is_due()
        for topic in self.model.topics.known.values():
            topic.routes = [each for each in topic.routes if each[1] + ROUTES_MS > self.model.now_ms]
        self.align()
        self.compare()
        due_ms = queries.next_due_ms(self.stores[0])
        assert due_ms is None or due_ms > self.now_ms

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


def flat(outcome: Outcome) -> Outcome:
    """The outcome with every sent message told by itself, as the model does."""
    if isinstance(outcome, Committed):
        return Committed([each for each in map(flat, outcome.outcomes) if isinstance(each, Sent | Settled)])
    if isinstance(outcome, Published):
        routed = [Routed(each.subscription, each.queue, one_by_one(each.placed)) for each in outcome.routed]
        return msgspec.structs.replace(outcome, routed=routed)
    if not isinstance(outcome, Sent):
        return outcome
    runs = [
        SentRun(run.message_id + position, 1, run.duplicate, run.sent_ms)
        for run in outcome.runs
        for position in range(run.count)
    ]
    return msgspec.structs.replace(outcome, runs=runs)


def one_by_one(placed: list[Placed]) -> list[Placed]:
    """Runs of placed messages, each message told by itself."""
    return [Placed(run.first + n, 1, run.message_id + n, run.duplicate) for run in placed for n in range(run.count)]


def item(session: int, seq: int, operation: Operation, bodies: list[Body]) -> bytes:
    """A proposal as it is logged."""
    plain = operation.operation if isinstance(operation, Keyed) else operation
    if not isinstance(plain, Transaction):
        return encode_item(session, seq, operation, encode_block(bodies) if bodies else b"")
    blocks, rest = [], list(bodies)
    for step in plain.steps:
        if isinstance(step, Send):
            blocks.append(encode_block([rest.pop(0) for _ in range(step.count)]))
    plain = msgspec.structs.replace(plain, block_bytes=[len(block) for block in blocks])
    whole = msgspec.structs.replace(operation, operation=plain) if isinstance(operation, Keyed) else plain
    return encode_item(session, seq, whole, b"".join(blocks))


def listed_as(message: Message) -> Listed:
    """A message of the model as the queries list it."""
    options = message.options
    about = About(
        options.priority,
        options.group,
        options.key,
        options.dedup_id,
        message.expires_ms,
        message.first_ms,
        None if message.redriven else message.dead,
        message.topic,
        message.publish_id,
        options.schedule,
        options.occurrence_ms,
        options.producer,
    )
    return Listed(
        message.message_id,
        message.state,
        message.attempts,
        message.sent_ms,
        max(message.due_ms, 0),
        message.last_ms,
        message.consumer,
        None if about == About() else about,
    )


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
    shard = records.decode_shard(store.get(record_keys.SHARD_KEY) or b"")
    queues = {queue.number: queue for queue in map(records.decode_queue, (value for _, value in store.scan(b"n")))}
    assert shard.queues == len(queues) == sum(1 for _ in store.scan(record_keys.QUEUE_NAMES))
    assert shard.keys == sum(1 for _ in store.scan(b"k"))
    schedules = [records.decode_schedule(value) for _, value in store.scan(record_keys.SCHEDULES)]
    assert shard.schedules == len(schedules)
    assert shard.parties == sum(1 for _ in store.scan(b"p"))
    alarms = {record_keys.alarm_key(each.next_ms, each.name) for each in schedules if has_alarm(each)}
    assert alarms == {key for key, _ in store.scan(record_keys.ALARMS)}
    ready, timers, living = set(), set(), Counter[int]()
    in_groups, in_flight, by_key, expiries = set(), Counter[bytes](), set(), set()
    totals = {number: Counter[str]() for number in queues}
    for key, value in store.scan(b"c"):
        number, chunk_id = record_keys.read_chunk_subject(key[1:])
        chunk = records.decode_chunk(value)
        stands, extras = standing(chunk.segments), chunk.extras or Extras()
        assert chunk.segments, "a chunk without segments does not exist"
        assert in_order([segment.first for segment in chunk.segments])
        living[chunk.index] += 1
        timers |= {record_keys.chunk_timer_key(due_ms, number, chunk_id) for due_ms in stands.dues}
        if number not in queues:
            continue
        if extras.grouped:
            in_flight[record_keys.group_key(number, extras.group)] += stands.leased
            if stands.living if queues[number].settings.fifo else stands.ready:
                in_groups.add(record_keys.group_chunk_key(number, extras.group, chunk_id))
        elif stands.ready:
            ready.add(record_keys.ready_key(number, chunk.rank, chunk_id))
        if extras.key:
            by_key.add(record_keys.key_prefix(number, extras.key) + record_keys.u64(chunk_id))
        if extras.expires_ms:
            expiries.add(record_keys.timer_key(extras.expires_ms, record_keys.TIMER_EXPIRY, key[1:]))
        held = sum(sum(message_sizes(chunk, segment.first, segment.count)) for segment in chunk.segments)
        counts = {"ready": stands.ready, "leased": stands.leased, "delayed": stands.delayed, "dead": stands.dead}
        totals[number].update(counts, bytes=held, grouped_ready=stands.ready if extras.grouped else 0)
    groups = {key: records.decode_group(value) for key, value in of_queues(store, b"h", queues)}
    for key, group in groups.items():
        number, name = record_keys.read_group_subject(key[1:])
        assert group.in_flight == in_flight.pop(key, 0)
        if group.marked:
            totals[number]["marks"] += 1
            ready.add(record_keys.ready_key(number, group.rank, group.marked))
            assert record_keys.group_chunk_key(number, name, group.marked) == min(
                each for each in in_groups if each.startswith(record_keys.group_chunk_prefix(number, name))
            )
    assert not any(in_flight.values()), "a group with messages in flight is known"
    assert ready == {key for key, _ in of_queues(store, b"r", queues)}
    assert in_groups == {key for key, _ in of_queues(store, b"g", queues)}
    assert by_key == {key for key, _ in of_queues(store, b"i", queues)}
    set_timers = {key for key, _ in store.scan(b"d") if record_keys.read_timer(key)[1] == record_keys.TIMER_CHUNK}
    assert set_timers <= timers
    missing = {record_keys.read_chunk_subject(record_keys.read_timer(key)[2])[0] for key in timers - set_timers}
    assert not missing & totals.keys(), "only in the grave of a purged queue may a timer go before its chunk"
    assert living == {record_keys.read_u64(key[1:]): record_keys.read_u32(value) for key, value in store.scan(b"e")}
    for number, queue in queues.items():
        told = {name: getattr(queue, name) for name in (*STATES, "bytes", "grouped_ready", "marks")}
        assert Counter(told) == totals[number]
        dedups = {key[5:]: records.decode_dedup(value) for key, value in of_queues(store, b"u", {number: queue})}
        assert {known.until_ms: None for known in dedups.values()}.keys() == {
            record_keys.read_u64(key[5:13]) for key, _ in of_queues(store, b"v", {number: queue})
        }
        assert queue.dedups == len(dedups)
    check_selectors(store, queues)
    dues = set()
    for key, value in store.scan(b"z"):
        number, task = record_keys.read_chunk_subject(key[1:])
        running = records.decode_redrive(value)
        assert number in queues, "tasks go with their queue"
        assert bool(running.due_ms) == (running.state == "running")
        if running.due_ms:
            dues.add(record_keys.redrive_due_key(running.due_ms, number, task))
    assert dues == {key for key, _ in store.scan(b"Z")}
    access_keys = [records.decode_access_key(value) for _, value in store.scan(record_keys.ACCESS, b"\x00")]
    kept = records.decode_access(store.get(record_keys.ACCESS) or records.encode(records.Access()))
    assert kept.keys == len(access_keys)
    assert kept.admins == sum("admin" in key.roles for key in access_keys)
    topics = {
        topic.number: topic
        for topic in map(records.decode_topic, (value for _, value in store.scan(record_keys.TOPICS)))
    }
    assert shard.topics == len(topics)
    for number, topic in topics.items():
        assert topic.subscriptions == sum(1 for _ in store.scan(record_keys.subscription_prefix(number)))
        assert topic.routes == sum(1 for _ in store.scan(record_keys.routes_prefix(number)))
        assert bool(topic.routes) <= bool(topic.routes_due_ms)
    sessions = {key[1:] for key, _ in store.scan(record_keys.SESSIONS)}
    assert {key[1:9] for key, _ in store.scan(b"o")} <= sessions
    kinds = Counter(record_keys.read_timer(key)[1] for key, _ in store.scan(b"d"))
    assert kinds[record_keys.TIMER_SESSION] == len(sessions)
    assert kinds[record_keys.TIMER_KEY] == shard.keys
    assert kinds[record_keys.TIMER_ROUTES] == sum(bool(topic.routes_due_ms) for topic in topics.values())


def check_selectors(store: Store, queues: Mapping[int, records.Queue]) -> None:
    """The same of selectors."""
    marks, unsifted = set(), Counter[int]()
    for key, value in of_queues(store, b"c", queues):
        number, chunk_id = record_keys.read_chunk_subject(key[1:])
        chunk, present = records.decode_chunk(value), {each.number for each in queues[number].selectors}
        for marked in sifting.marked(chunk) & present:
            marks.add(sieves.selected_key(number, marked, chunk.rank, chunk_id))
    for number, queue in queues.items():
        for selector in queue.selectors:
            sieve = sieves.decode_sieve(store.get(sieves.sieve_key(number, selector.number)) or b"")
            receive = Receive(queue.name, 1, 0, 1, filter=sieve.filter, filter_on=sieve.filter_on)
            assert sifting.find_selector(store, queue, receive) == selector
        living = {record_keys.u32(each.number) for each in queue.selectors}
        assert {key[5:] for key, _ in of_queues(store, b"x", {number: queue})} == living
        assert {value for _, value in of_queues(store, b"w", {number: queue})} == living
        found = {key for key, _ in of_queues(store, b"f", {number: queue}) if key[5:9] in living}
        assert found == {key for key in marks if record_keys.read_u32(key[1:5]) == number}
        for key, _ in of_queues(store, b"F", {number: queue}):
            _, chunk_id = record_keys.read_chunk_subject(key[1:])
            unsifted[number] += bool(chunk_id)
            assert not chunk_id or store.get(b"c" + key[1:]) is not None
        assert queue.unsifted == unsifted[number]
        is_behind = any(selector.is_behind for selector in queue.selectors)
        assert is_behind == (store.get(sieves.unsifted_key(number, 0)) is not None)


def check_selected(store: Store, name: str, model: Naive) -> None:
    """What a selector has seen is selected if it matches, and nothing else is."""
    queue, record = model.queues[name], find_queue(store, name)
    assert record is not None
    for selector, mine in zip(record.selectors, queue.selectors, strict=True):
        for message in queue.messages:
            found = chunk_of(store, record, message.message_id)
            assert found is not None
            chunk_id, chunk = found
            is_unsifted = store.get(sieves.unsifted_key(record.number, chunk_id)) is not None
            assert is_unsifted == message.unsifted
            if not is_unsifted and not selector.sifted_id <= chunk_id < selector.until_id:
                assert mine.key in message.seen
            bits = sifting.bits_of((chunk.selected or {}).get(selector.number, b""))
            is_selected = bool(bits >> message.message_id - chunk_id & 1)
            assert is_selected == (mine.key in message.seen and model.sifting.sieves[mine.sieve](message))


def of_queues(store: Store, prefix: bytes, queues: Mapping[int, object]) -> Iterator[tuple[bytes, bytes]]:
    """Records of queues that were not purged."""
    return ((key, value) for key, value in store.scan(prefix) if record_keys.read_u32(key[1:5]) in queues)
