"""The rules of queues as anyone would write them at first: lists, dictionaries, and every message an object of its own.

It is slow, knows no chunks, and serves as the measure of `storage.machine`: the executable specification.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise

import msgspec

from storage import codes, limits
from storage.access_operations import CreateAccessKey, RevokeAccessKey
from storage.dead_letters import EXPIRED, LEASE_ENDED, OVERFLOW, backoff_ms
from storage.groups import FAIR_QUANTUM
from storage.message_operations import CancelMessage, ChangeMessage
from storage.operations import (
    Ack,
    Claim,
    Committed,
    Done,
    Extend,
    Forget,
    Keyed,
    Nack,
    Operation,
    Outcome,
    Pulsed,
    Receive,
    Received,
    Refused,
    Send,
    Sent,
    SentRun,
    Settled,
    Transaction,
)
from storage.options import (
    Options,
)
from storage.party_operations import DeleteParty, PutParty
from storage.queue_operations import DeleteQueue, Purged, PurgeQueue, PutQueue, QueuePut
from storage.records import DEAD, Dead
from storage.redrive_operations import CancelRedrive, StartRedrive, StepRedrive
from storage.schedule_operations import DeleteSchedule, Occur, PauseSchedule, PutSchedule
from storage.settings import QueueSettings, Rate
from storage.settling import NACKED
from storage.sift_operations import Sift
from storage.topic_operations import (
    DeleteSubscription,
    DeleteTopic,
    Publish,
    PutSubscription,
    PutTopic,
)
from tests.storage.naive_keys import AccessKeys
from tests.storage.naive_parties import Parties
from tests.storage.naive_redrive import Redrives
from tests.storage.naive_schedules import Schedules
from tests.storage.naive_sifting import Selector, Sifting
from tests.storage.naive_topics import Topics

Body = tuple[bytes, bytes]
PLAIN = Options()


@dataclass
class Message:
    message_id: int
    content: Body
    sent_ms: int
    options: Options = PLAIN
    grouped: bool = False
    rank: int = 9
    expires_ms: int = 0
    attempts: int = 0
    token: int = 0
    due_ms: int = 0
    first_ms: int = 0
    last_ms: int = 0
    consumer: str = ""
    dead: Dead | None = None
    redriven: int = 0
    topic: str = ""
    publish_id: int = 0
    unsifted: bool = False
    version: int = 0
    since: int = 0
    """The log entry by which it came, or was edited the last time."""
    seen: set[int] = field(default_factory=set)
    """Selectors that it was put to."""

    @property
    def bytes(self) -> int:
        return len(self.content[0]) + len(self.content[1])

    @property
    def group(self) -> str:
        return self.options.group if self.grouped else ""

    @property
    def state(self) -> str:
        if self.token:
            return "leased"
        if self.due_ms == DEAD:
            return "dead"
        return "delayed" if self.due_ms else "ready"


@dataclass
class Bucket:
    """A rate: the time up to which it has been used up, exactly."""

    used_up_ms: Fraction = Fraction(0)

    def allows(self, rate: Rate | None, now_ms: int) -> bool:
        if rate is None:
            return True
        step_ms = Fraction(rate.per_ms, rate.messages)
        return self.used_up_ms <= now_ms + ((rate.burst or rate.messages) - 1) * step_ms

    def use(self, rate: Rate | None, now_ms: int) -> None:
        if rate is not None:
            self.used_up_ms = max(self.used_up_ms, Fraction(now_ms)) + Fraction(rate.per_ms, rate.messages)


@dataclass
class Queue:
    settings: QueueSettings
    created_ms: int
    next_id: int = 1
    messages: list[Message] = field(default_factory=list)
    changed_ms: int = 0
    marks: dict[str, int] = field(default_factory=dict)
    """Groups that may be served, and their rank."""
    round: int = 0
    bucket: Bucket = field(default_factory=Bucket)
    buckets: dict[str, Bucket] = field(default_factory=dict)
    active: str = ""
    active_until_ms: int = 0
    dedups: dict[tuple[str, bytes | str], tuple[int, int]] = field(default_factory=dict)
    """(scope, id or content) → message, until when; in order of age."""
    selectors: list[Selector] = field(default_factory=list)
    sifts: int = 0
    number: int = field(default_factory=itertools.count(1).__next__)
    """Which queue it is, whatever its name."""

    def count(self, state: str) -> int:
        return sum(message.state == state for message in self.messages)

    @property
    def bytes(self) -> int:
        return sum(message.bytes for message in self.messages)

    def is_over(self, message: Message, now_ms: int) -> bool:
        return (message.expires_ms or message.sent_ms + self.settings.retention_ms) <= now_ms

    def has_room(self, count: int, size: int) -> bool:
        settings = self.settings
        too_many = settings.messages_max and len(self.messages) + count > settings.messages_max
        return not too_many and not (settings.bytes_max and self.bytes + size > settings.bytes_max)

    # --- groups ---

    def of_group(self, group: str) -> list[Message]:
        return [message for message in self.messages if message.grouped and message.group == group]

    def servable(self, group: str, now_ms: int) -> list[Message]:
        """The messages of a group that may be delivered in one turn now, in order."""
        settings, mine = self.settings, self.of_group(group)
        leased = sum(message.state == "leased" for message in mine)
        found: list[Message] = []
        for message in mine:
            if message.state == "ready":
                found.append(message)
            elif settings.fifo and message.state != "dead":
                break
        if settings.fifo and leased:
            return []
        if settings.group_concurrency_max:
            found = found[: max(0, settings.group_concurrency_max - leased)]
        bucket, allowed = copy.copy(self.buckets.get(group, Bucket())), 0
        while allowed < len(found) and bucket.allows(settings.group_rate, now_ms):
            bucket.use(settings.group_rate, now_ms)
            allowed += 1
        return found[:allowed]

    def touch(self, group: str, now_ms: int) -> None:
        """Something has happened to a group: it may be served now, or may not."""
        if not self.servable(group, now_ms):
            self.marks.pop(group, None)
        elif group not in self.marks:
            self.marks[group] = self.round + 1 if self.settings.fair else 9

    def next(self, now_ms: int) -> list[Message]:
        """What would be delivered next: one message of no group, or a group's turn."""
        alone = [(m.rank, m.message_id, [m]) for m in self.messages if m.state == "ready" and not m.grouped]
        turns = [(rank, turn) for group, rank in self.marks.items() if (turn := self.servable(group, now_ms))]
        in_groups = [(rank, turn[0].message_id, turn) for rank, turn in turns]
        return min(alone + in_groups, default=(0, 0, []))[2]


@dataclass
class Session:
    heard_ms: int
    below: int = 0
    outcomes: dict[int, Outcome] = field(default_factory=dict)


@dataclass
class Memory:
    fingerprint: bytes
    outcome: Outcome
    until_ms: int


class Naive:
    """`queues_max`, `keys_max` and `access_keys_max` stand for the limits of a shard, `receive_bytes_max` for that of a
    receive."""

    def __init__(self, queues_max: int, keys_max: int, receive_bytes_max: int, access_keys_max: int = 0) -> None:
        self.queues_max, self.keys_max, self.receive_bytes_max = queues_max, keys_max, receive_bytes_max
        self.now_ms = 0
        self.queues: dict[str, Queue] = {}
        self.topics = Topics(self)
        self.sessions: dict[int, Session] = {}
        self.keys: dict[bytes, Memory] = {}
        self.schedules = Schedules(self)
        self.parties = Parties(self)
        self.redrives = Redrives(self)
        self.sifting = Sifting(self)
        self.access_keys = AccessKeys(self, access_keys_max)

    # --- once ---

    def once(self, session_id: int, seq: int, operation: Operation, bodies: list[Body], actual: Outcome) -> Outcome:
        """The right outcome. How much a receive takes is read from `actual`, and checked to be allowed."""
        if not session_id:
            return self.do(operation, bodies, actual)
        session = self.sessions.setdefault(session_id, Session(self.now_ms))
        session.heard_ms = self.now_ms
        if isinstance(operation, Forget):
            session.below = max(session.below, operation.below)
            return Done()
        if seq < session.below:
            return Refused(codes.STALE_OPERATION)
        if seq not in session.outcomes:
            outcome = self.do(operation, bodies, actual)
            if not has_effect(outcome):
                return outcome
            session.outcomes[seq] = outcome
        return session.outcomes[seq]

    def do(self, operation: Operation, bodies: list[Body], actual: Outcome) -> Outcome:
        match operation:
            case Keyed():
                return self.keyed(operation, bodies, actual)
            case PutQueue():
                return self.put_queue(operation)
            case Transaction():
                return self.transact(operation, bodies)
            case PutSchedule() | DeleteSchedule() | PauseSchedule() | Occur():
                return self.schedules.do(operation, bodies)
            case PutParty() | DeleteParty():
                return self.parties.do(operation)
            case StepRedrive():
                return self.redrives.step(operation)
            case Sift():
                return self.sifting.sift(operation)
            case CreateAccessKey() | RevokeAccessKey():
                return self.access_keys.do(operation)
            case PutTopic() | DeleteTopic() | PutSubscription() | DeleteSubscription() | Publish():
                return self.topics.do(operation, bodies)
            case Receive() if operation.token <= 0:
                return Refused(codes.MALFORMED)
        assert isinstance(
            operation,
            Send
            | Receive
            | Ack
            | Nack
            | Extend
            | DeleteQueue
            | PurgeQueue
            | ChangeMessage
            | CancelMessage
            | StartRedrive
            | CancelRedrive,
        )
        queue = self.queues.get(operation.queue)
        if queue is None:
            return Refused(codes.QUEUE_NOT_FOUND)
        match operation:
            case Send():
                return self.send(queue, operation, bodies)
            case Receive():
                return self.receive(queue, operation, actual)
            case DeleteQueue():
                del self.queues[operation.queue]
                return Done()
            case PurgeQueue():
                count = len(queue.messages)
                fresh = Queue(queue.settings, queue.created_ms, queue.next_id, changed_ms=queue.changed_ms)
                self.queues[operation.queue] = fresh
                self.redrives.purged(queue, fresh)
                return Purged(count)
            case ChangeMessage():
                return self.change(queue, operation)
            case CancelMessage():
                return self.cancel(queue, operation)
            case StartRedrive():
                return self.redrives.start(queue, operation, actual)
            case CancelRedrive():
                return self.redrives.cancel(queue, operation, actual)
            case _:
                stale = [n for claim in operation.claims for n in self.settle(queue, operation, claim)]
                return Settled(stale)

    def keyed(self, operation: Keyed, bodies: list[Body], actual: Outcome) -> Outcome:
        memory = self.keys.get(operation.key)
        if memory is None:
            if len(self.keys) >= self.keys_max:
                return Refused(codes.IDEMPOTENCY_WINDOW_FULL, self.keys_max)
            outcome = self.do(operation.operation, bodies, actual)
            if has_effect(outcome):
                until_ms = self.now_ms + limits.KEY_WINDOW_MS
                self.keys[operation.key] = Memory(operation.fingerprint, outcome, until_ms)
            return outcome
        if memory.fingerprint != operation.fingerprint:
            return Refused(codes.IDEMPOTENCY_MISMATCH)
        return memory.outcome

    def transact(self, operation: Transaction, bodies: list[Body]) -> Outcome:
        """Tried on a copy of everything, which takes its place if all went well."""
        before, seen, outcomes = copy.deepcopy(self.queues), dict(self.parties.known), []
        rest = list(bodies)
        for number, step in enumerate(operation.steps):
            mine = [rest.pop(0) for _ in range(step.count)] if isinstance(step, Send) else []
            outcome = self.do(step, mine, Done())
            if isinstance(outcome, Settled) and outcome.stale:
                outcome = Refused(codes.STALE_RECEIPT, stale=outcome.stale)
            if isinstance(outcome, Refused):
                self.queues, self.parties.known = before, seen
                return Refused(outcome.code, outcome.limit, outcome.position, number, outcome.detail, outcome.stale)
            assert isinstance(outcome, Sent | Settled)
            outcomes.append(outcome)
        return Committed(outcomes)

    # --- queues ---

    def put_queue(self, operation: PutQueue) -> Outcome:
        queue, settings = self.queues.get(operation.queue), operation.settings
        if operation.only_new and queue is not None:
            return Refused(codes.QUEUE_EXISTS)
        if operation.instead_of is not None and queue is None:
            return Refused(codes.QUEUE_NOT_FOUND)
        if operation.instead_of is not None and queue is not None and queue.settings != operation.instead_of:
            return Refused(codes.SETTINGS_CHANGED)
        if queue is not None and queue.settings == settings:
            return QueuePut(created=False, changed=False)
        if queue is not None and queue.settings.fifo != settings.fifo:
            return Refused(codes.SETTING_FIXED, detail="fifo")
        taker = self.queues.get(settings.dead_letter_queue or "")
        if taker is not None and taker.settings.fifo != settings.fifo:
            return Refused(codes.DEAD_LETTER_KIND)
        is_new = queue is None or queue.settings.dead_letter_queue != settings.dead_letter_queue
        sources = None if taker is None else taker.settings.dead_letters_from
        if is_new and sources is not None and operation.queue not in sources:
            return Refused(codes.DEAD_LETTER_DENIED)
        if queue is not None:
            queue.settings, queue.changed_ms = settings, self.now_ms
            if settings.rate is None:
                queue.bucket = Bucket()
            if settings.group_rate is None:
                queue.buckets.clear()
            if not settings.single_active:
                queue.active, queue.active_until_ms = "", 0
            if settings.groups:
                self.sifting.forget(queue, queue.selectors)
            return QueuePut(created=False, changed=True)
        if len(self.queues) >= self.queues_max:
            return Refused(codes.QUEUE_LIMIT, self.queues_max)
        self.queues[operation.queue] = Queue(settings, self.now_ms)
        return QueuePut(created=True, changed=True)

    # --- sending ---

    def send(self, queue: Queue, operation: Send, bodies: list[Body]) -> Outcome:
        options = [run.options for run in operation.runs for _ in range(run.count)] or [Options()] * operation.count
        if not bodies or len(bodies) != operation.count or len(options) != operation.count:
            return Refused(codes.MALFORMED)
        settings = queue.settings
        for position, (body, _) in enumerate(bodies):
            if len(body) > settings.body_bytes_max:
                return Refused(codes.BODY_TOO_LARGE, settings.body_bytes_max, position)
        for position, wish in enumerate(options):
            if settings.fifo and not wish.group:
                return Refused(codes.GROUP_REQUIRED, 0, position)
            if settings.dedup_by == "required_id" and not wish.dedup_id:
                return Refused(codes.DEDUP_ID_REQUIRED, 0, position)
            if settings.groups and wish.priority:
                return Refused(codes.PRIORITY_NOT_ALLOWED, 0, position)
        originals = self.originals(queue, options, bodies)
        new = [content for content, original in zip(bodies, originals, strict=True) if original is None]
        refused = self.make_room(queue, len(new), sum(len(body) + len(rest) for body, rest in new))
        if refused is not None:
            return refused
        for wish in options:
            self.parties.saw("producer", wish.producer)
        first_id, ids, said = queue.next_id, [], []
        for wish, content, original in zip(options, bodies, originals, strict=True):
            if original is None:
                ids.append(self.add(queue, wish, content))
            else:
                ids.append(ids[-1 - original[0]] if original[0] < 0 else original[0])
            said.append(SentRun(ids[-1], 1, original is not None, self.now_ms if original is None else original[1]))
        duplicates = any(run.duplicate for run in said)
        return Sent(first_id, queue.next_id - first_id, self.now_ms, said if duplicates else [])

    def dedup(self, queue: Queue, wish: Options, content: Body) -> tuple[str, bytes | str] | None:
        settings = queue.settings
        if not settings.dedup_window_ms or not (wish.dedup_id or settings.dedup_by == "content"):
            return None
        return wish.group if settings.dedup_scope == "group" else "", wish.dedup_id or content[0]

    def originals(self, queue: Queue, options: list[Options], bodies: list[Body]) -> list[tuple[int, int] | None]:
        """For each message None if it is new, else the original's id, or -1 - its position in this very send, and when
        it was sent."""
        found: list[tuple[int, int] | None] = []
        seen: dict[tuple[str, bytes | str], int] = {}
        for position, (wish, content) in enumerate(zip(options, bodies, strict=True)):
            dedup = self.dedup(queue, wish, content)
            known = queue.dedups.get(dedup) if dedup is not None else None
            if dedup is None:
                found.append(None)
            elif dedup in seen:
                found.append((-1 - seen[dedup], self.now_ms))
            elif known is not None and known[1] > self.now_ms:
                found.append((known[0], known[1] - queue.settings.dedup_window_ms))
            else:
                seen[dedup] = position
                found.append(None)
        return found

    def make_room(self, queue: Queue, count: int, size: int) -> Refused | None:
        settings = queue.settings
        if settings.messages_max and count > settings.messages_max:
            return Refused(codes.QUEUE_FULL, settings.messages_max, detail="messages_max")
        if settings.bytes_max and size > settings.bytes_max:
            return Refused(codes.QUEUE_FULL, settings.bytes_max, detail="bytes_max")
        if queue.has_room(count, size):
            return None
        over = settings.messages_max and len(queue.messages) + count > settings.messages_max
        what, limit = ("messages_max", settings.messages_max) if over else ("bytes_max", settings.bytes_max)
        refused = Refused(codes.QUEUE_FULL, limit, detail=what)
        if settings.overflow == "reject":
            return refused
        excess = len(queue.messages) + count - settings.messages_max if settings.messages_max else 0
        excess_bytes = queue.bytes + size - settings.bytes_max if settings.bytes_max else 0
        leaving: list[Message] = []
        for message in queue.messages:
            if message.state == "ready" and (
                len(leaving) < excess or sum(each.bytes for each in leaving) < excess_bytes
            ):
                leaving.append(message)
        if len(leaving) < excess or sum(each.bytes for each in leaving) < excess_bytes:
            return refused
        if settings.overflow == "dead_letter":
            taker = self.taker(queue, len(leaving), sum(each.bytes for each in leaving))
            if taker is None:
                return refused
        for message in leaving:
            if settings.overflow == "dead_letter":
                self.move(queue, message, OVERFLOW)
            else:
                self.remove(queue, message)
        return None

    def add(self, queue: Queue, wish: Options, content: Body) -> int:
        settings, now_ms = queue.settings, self.now_ms
        delay_ms = settings.delay_ms if wish.delay_ms < 0 else wish.delay_ms
        due_ms = wish.at_ms or (now_ms + delay_ms if delay_ms else 0)
        due_ms = due_ms if due_ms > now_ms else 0
        expires_ms = (due_ms or now_ms) + (wish.ttl_ms or settings.retention_ms) if wish.ttl_ms or due_ms else 0
        message = Message(queue.next_id, content, now_ms, wish, due_ms=due_ms, expires_ms=expires_ms)
        message.rank = rank(settings, wish.priority, now_ms)
        self.arrive(queue, message)
        dedup = self.dedup(queue, wish, content)
        if dedup is not None:
            queue.dedups.pop(dedup, None)
            while len(queue.dedups) >= settings.dedup_max:
                del queue.dedups[next(iter(queue.dedups))]
            queue.dedups[dedup] = (message.message_id, now_ms + settings.dedup_window_ms)
        return message.message_id

    def arrive(self, queue: Queue, message: Message) -> None:
        queue.next_id += 1
        message.grouped = queue.settings.groups and bool(message.options.group)
        queue.messages.append(message)
        self.sifting.came(queue, message)
        self.touched(queue, message)

    # --- receiving ---

    def receive(self, queue: Queue, operation: Receive, actual: Outcome) -> Outcome:
        settings, now_ms = queue.settings, self.now_ms
        until_ms = now_ms + (operation.lease_ms or settings.lease_ms)
        asks = bool(operation.filter or operation.selector)
        selector = self.sifting.selector(queue, operation) if asks else None
        if isinstance(selector, Refused):
            return selector
        if asks and selector is None:
            return Received(operation.token, until_ms, [])
        if settings.single_active:
            if not operation.consumer:
                return Refused(codes.CONSUMER_REQUIRED)
            if queue.active != operation.consumer and (queue.count("leased") or queue.active_until_ms > now_ms):
                return Received(operation.token, until_ms, [])
            queue.active, queue.active_until_ms = operation.consumer, max(queue.active_until_ms, until_ms)
        assert isinstance(actual, Received)
        count = sum(delivery.count for delivery in actual.deliveries)
        taken: list[Message] = []
        while len(taken) < count:
            turn = self.turn(queue, operation.messages_max - len(taken), selector)
            assert turn, "more was delivered than could be"
            turn = turn[: count - len(taken)]
            for message in turn:
                self.lease(queue, message, operation, until_ms)
            if selector is None:
                self.served(queue, turn[0])
            else:
                self.touched(queue, turn[0])
            taken += turn
        left = self.turn(queue, operation.messages_max - len(taken), selector)
        taken_bytes = sum(m.bytes for m in taken)
        assert taken_bytes <= self.receive_bytes_max or count == 1
        if left:  # why not more?
            assert taken_bytes >= self.receive_bytes_max or taken_bytes + left[0].bytes > self.receive_bytes_max
        told = [
            (delivery.message_id + position, delivery.attempt, delivery.sent_ms)
            for delivery in actual.deliveries
            for position in range(delivery.count)
        ]
        assert told == [(message.message_id, message.attempts, message.sent_ms) for message in taken]
        if taken:
            self.parties.saw("consumer", operation.consumer)
        return Received(operation.token, until_ms, actual.deliveries)

    def turn(self, queue: Queue, messages_max: int, selector: Selector | None = None) -> list[Message]:
        """What may be delivered next in one go, by all that limits it."""
        settings = queue.settings
        if settings.concurrency_max:
            messages_max = min(messages_max, settings.concurrency_max - queue.count("leased"))
        if messages_max <= 0 or not queue.bucket.allows(settings.rate, self.now_ms):
            return []
        bucket, allowed = copy.copy(queue.bucket), 0
        found = queue.next(self.now_ms) if selector is None else self.sifting.next(queue, selector)
        if found and found[0].grouped and settings.fair:
            found = found[:FAIR_QUANTUM]
        while allowed < len(found) and bucket.allows(settings.rate, self.now_ms):
            bucket.use(settings.rate, self.now_ms)
            allowed += 1
        return found[: min(messages_max, allowed)]

    def lease(self, queue: Queue, message: Message, operation: Receive, until_ms: int) -> None:
        message.attempts += 1
        message.token, message.due_ms = operation.token, until_ms
        message.first_ms, message.last_ms = message.first_ms or self.now_ms, self.now_ms
        message.consumer = operation.consumer
        queue.bucket.use(queue.settings.rate, self.now_ms)
        if message.grouped:
            queue.buckets.setdefault(message.group, Bucket()).use(queue.settings.group_rate, self.now_ms)

    def served(self, queue: Queue, message: Message) -> None:
        if message.grouped:
            rank = queue.marks.pop(message.group)
            if queue.settings.fair:
                queue.round = max(queue.round, rank)
            queue.touch(message.group, self.now_ms)

    # --- settling ---

    def settle(self, queue: Queue, operation: Ack | Nack | Extend, claim: Claim) -> list[int]:
        """The ids that are stale."""
        stale = []
        for message_id in range(claim.message_id, claim.message_id + claim.count):
            held = [m for m in queue.messages if m.message_id == message_id and m.token and m.token == claim.token]
            if not held:
                stale.append(message_id)
                continue
            (message,) = held
            match operation:
                case Ack():
                    self.remove(queue, message)
                case Extend():
                    message.due_ms = self.now_ms + operation.lease_ms
                    if queue.active == message.consumer:
                        queue.active_until_ms = max(queue.active_until_ms, message.due_ms)
                case Nack():
                    delay_ms = operation.delay_ms
                    if delay_ms < 0:  # NB: chance is drawn for messages that stand alike together; here there is none
                        delay_ms = backoff_ms(queue.settings, message.attempts, 0, 0)
                    self.give_back(queue, message, delay_ms, operation.reason or NACKED)
        return stale

    def give_back(self, queue: Queue, message: Message, delay_ms: int, why: str) -> None:
        message.token = message.due_ms = 0
        attempts_max = queue.settings.attempts_max
        if attempts_max and message.attempts >= attempts_max:
            if self.move(queue, message, why):
                pass
            elif queue.is_over(message, self.now_ms):
                self.expire(queue, message)
            else:
                message.due_ms, message.dead, message.redriven = DEAD, self.dead(queue, message, why), 0
        elif delay_ms:
            message.due_ms = self.now_ms + delay_ms
        elif queue.is_over(message, self.now_ms):
            self.expire(queue, message)
        self.touched(queue, message)

    def expire(self, queue: Queue, message: Message) -> None:
        if queue.settings.on_expiry != "dead_letter" or not self.move(queue, message, EXPIRED):
            self.remove(queue, message)

    def dead(self, queue: Queue, message: Message, why: str) -> Dead:
        name = next(name for name, each in self.queues.items() if each is queue)
        told = (name, message.message_id, why, message.attempts, message.consumer)
        return Dead(*told, message.sent_ms, message.first_ms, message.last_ms, self.now_ms)

    def taker(self, queue: Queue, count: int, size: int) -> Queue | None:
        taker = self.queues.get(queue.settings.dead_letter_queue or "")
        if taker is None or taker is queue or taker.settings.fifo != queue.settings.fifo:
            return None
        return taker if taker.has_room(count, size) else None

    def move(self, queue: Queue, message: Message, why: str) -> bool:
        """To the dead-letter queue, if that can take it."""
        taker = self.taker(queue, 1, message.bytes)
        if taker is None or (taker.settings.fifo and not message.options.group):
            return False
        self.transfer(queue, message, taker, self.dead(queue, message, why))
        return True

    def transfer(self, queue: Queue, message: Message, taker: Queue, dead: Dead | None, due_ms: int = 0) -> Message:
        old = message.options
        kept = Options(
            0 if taker.settings.groups else old.priority,
            old.group,
            old.key,
            dedup_id=old.dedup_id,
            schedule=old.schedule,
            occurrence_ms=old.occurrence_ms,
            producer=old.producer,
        )
        moved = Message(taker.next_id, message.content, self.now_ms, kept, due_ms=due_ms, dead=dead)
        moved.topic, moved.publish_id = message.topic, message.publish_id
        moved.rank = rank(taker.settings, kept.priority, self.now_ms)
        self.arrive(taker, moved)
        self.remove(queue, message)
        return moved

    def remove(self, queue: Queue, message: Message) -> None:
        queue.messages.remove(message)
        self.touched(queue, message)

    def touched(self, queue: Queue, message: Message) -> None:
        if message.grouped:
            queue.touch(message.group, self.now_ms)

    # --- a message is a resource ---

    def found(self, queue: Queue, message_id: int) -> Message | None:
        return next((message for message in queue.messages if message.message_id == message_id), None)

    def cancel(self, queue: Queue, operation: CancelMessage) -> Outcome:
        message = self.found(queue, operation.message_id)
        if message is None:
            return Refused(codes.MESSAGE_NOT_FOUND)
        self.remove(queue, message)
        return Done()

    def change(self, queue: Queue, operation: ChangeMessage) -> Outcome:
        if operation.priority > 0 and queue.settings.groups:
            return Refused(codes.PRIORITY_NOT_ALLOWED)
        message = self.found(queue, operation.message_id)
        if message is None:
            return Refused(codes.MESSAGE_NOT_FOUND)
        if message.token:
            return Refused(codes.MESSAGE_LEASED)
        is_moved = operation.at_ms >= 0 or operation.delay_ms >= 0
        if is_moved:
            due_ms = operation.at_ms if operation.at_ms >= 0 else self.now_ms + operation.delay_ms
            message.due_ms = due_ms if due_ms > self.now_ms else 0
        if operation.ttl_ms >= 0 or (is_moved and message.due_ms):
            start_ms = message.due_ms if message.due_ms > 0 else self.now_ms
            message.expires_ms = start_ms + (operation.ttl_ms if operation.ttl_ms > 0 else queue.settings.retention_ms)
        if operation.priority >= 0:
            old = message.options
            message.options = msgspec.structs.replace(old, priority=operation.priority)
            message.rank = rank(queue.settings, operation.priority, message.sent_ms)
        if operation.properties is not None:
            message.content = (message.content[0], operation.properties)
            self.sifting.edited(queue, message)
        self.touched(queue, message)
        return Done()

    # --- time ---

    def all_that_is_due(self) -> None:
        """What pulses do, when they have come to their end."""
        now_ms = self.now_ms
        for queue, message in self.everything():
            if message.due_ms > 0 and message.due_ms <= now_ms:
                if message.token:
                    self.give_back(queue, message, 0, LEASE_ENDED)
                else:
                    message.due_ms = 0
                    self.touched(queue, message)
        for queue, message in self.everything():
            if message.due_ms <= 0 and queue.is_over(message, now_ms):
                self.expire(queue, message)
        for queue in self.queues.values():
            for group in {message.group for message in queue.messages if message.grouped}:
                queue.touch(group, now_ms)
            queue.dedups = {dedup: known for dedup, known in queue.dedups.items() if known[1] > now_ms}
        self.sifting.due()
        over = [key for key, memory in self.keys.items() if memory.until_ms <= now_ms]
        silent = [
            number for number, session in self.sessions.items() if session.heard_ms + limits.SESSION_WINDOW_MS <= now_ms
        ]
        for key in over:
            del self.keys[key]
        for number in silent:
            del self.sessions[number]

    def everything(self) -> Iterator[tuple[Queue, Message]]:
        for queue in list(self.queues.values()):
            for message in list(queue.messages):
                yield queue, message


def rank(settings: QueueSettings, priority: int, sent_ms: int) -> int:
    """What comes first: strict priorities, or the time at which the message would be urgent."""
    return sent_ms + (9 - priority) * settings.ageing_ms if settings.ageing_ms else 9 - priority


def has_effect(outcome: Outcome) -> bool:
    return not isinstance(outcome, Refused | Pulsed) and not (isinstance(outcome, Received) and not outcome.deliveries)


def in_order(ids: list[int]) -> bool:
    return all(one < other for one, other in pairwise(ids))
