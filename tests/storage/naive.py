"""The rules of queues as anyone would write them at first: lists, dictionaries, and every message an object of its own.

It is slow, knows no chunks, and serves as the measure of `storage.machine`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from storage import limits, machine
from storage.operations import (
    Ack,
    Claim,
    DeleteQueue,
    Done,
    Extend,
    Forget,
    Keyed,
    Nack,
    Operation,
    Outcome,
    Pulsed,
    Purged,
    PurgeQueue,
    PutQueue,
    QueuePut,
    Receive,
    Received,
    Refused,
    Send,
    Sent,
    Settled,
)
from storage.settings import QueueSettings

Body = tuple[bytes, bytes]


@dataclass
class Message:
    message_id: int
    content: Body
    sent_ms: int
    attempts: int = 0
    token: int = 0
    due_ms: int = 0

    @property
    def bytes(self) -> int:
        return len(self.content[0]) + len(self.content[1])

    @property
    def state(self) -> str:
        return "leased" if self.token else "delayed" if self.due_ms else "ready"


@dataclass
class Queue:
    settings: QueueSettings
    created_ms: int
    next_id: int = 1
    messages: list[Message] = field(default_factory=list)

    def count(self, state: str) -> int:
        return sum(message.state == state for message in self.messages)

    def is_over(self, message: Message, now_ms: int) -> bool:
        return message.sent_ms + self.settings.retention_ms <= now_ms


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
    """`queues_max` and `keys_max` stand for the limits of a shard, `receive_bytes_max` for that of a receive."""

    def __init__(self, queues_max: int, keys_max: int, receive_bytes_max: int) -> None:
        self.queues_max, self.keys_max, self.receive_bytes_max = queues_max, keys_max, receive_bytes_max
        self.now_ms = 0
        self.queues: dict[str, Queue] = {}
        self.sessions: dict[int, Session] = {}
        self.keys: dict[bytes, Memory] = {}

    def once(self, session_id: int, seq: int, operation: Operation, bodies: list[Body], actual: Outcome) -> Outcome:
        """The right outcome. How much a receive takes is read from `actual`, and checked to be allowed."""
        session = self.sessions.setdefault(session_id, Session(self.now_ms))
        session.heard_ms = self.now_ms
        if isinstance(operation, Forget):
            session.below = max(session.below, operation.below)
            return Done()
        if seq < session.below:
            return Refused(machine.STALE_OPERATION)
        if seq not in session.outcomes:
            outcome = self.do(operation, bodies, actual)
            if not has_effect(outcome):
                return outcome
            session.outcomes[seq] = outcome
        return session.outcomes[seq]

    def do(self, operation: Operation, bodies: list[Body], actual: Outcome) -> Outcome:
        if isinstance(operation, Keyed):
            return self.keyed(operation, bodies, actual)
        if isinstance(operation, PutQueue):
            return self.put_queue(operation)
        assert isinstance(operation, Send | Receive | Ack | Nack | Extend | DeleteQueue | PurgeQueue)
        if isinstance(operation, Receive) and operation.token <= 0:
            return Refused(machine.MALFORMED)
        queue = self.queues.get(operation.queue)
        if queue is None:
            return Refused(machine.QUEUE_NOT_FOUND)
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
                queue.messages = []
                return Purged(count)
            case _:
                stale = [n for claim in operation.claims for n in self.settle(queue, operation, claim)]
                return Settled(stale)

    def keyed(self, operation: Keyed, bodies: list[Body], actual: Outcome) -> Outcome:
        memory = self.keys.get(operation.key)
        if memory is None:
            if len(self.keys) >= self.keys_max:
                return Refused(machine.IDEMPOTENCY_WINDOW_FULL, self.keys_max)
            outcome = self.do(operation.operation, bodies, actual)
            if has_effect(outcome):
                until_ms = self.now_ms + limits.KEY_WINDOW_MS
                self.keys[operation.key] = Memory(operation.fingerprint, outcome, until_ms)
            return outcome
        if memory.fingerprint != operation.fingerprint:
            return Refused(machine.IDEMPOTENCY_MISMATCH)
        return memory.outcome

    def put_queue(self, operation: PutQueue) -> Outcome:
        queue = self.queues.get(operation.queue)
        if queue is not None:
            changed = queue.settings != operation.settings
            queue.settings = operation.settings
            return QueuePut(created=False, changed=changed)
        if len(self.queues) >= self.queues_max:
            return Refused(machine.QUEUE_LIMIT, self.queues_max)
        self.queues[operation.queue] = Queue(operation.settings, self.now_ms)
        return QueuePut(created=True, changed=True)

    def send(self, queue: Queue, operation: Send, bodies: list[Body]) -> Outcome:
        if not bodies or len(bodies) != operation.count:
            return Refused(machine.MALFORMED)
        for position, (body, _) in enumerate(bodies):
            if len(body) > queue.settings.body_bytes_max:
                return Refused(machine.BODY_TOO_LARGE, queue.settings.body_bytes_max, position)
        first_id = queue.next_id
        for content in bodies:
            queue.messages.append(Message(queue.next_id, content, self.now_ms))
            queue.next_id += 1
        return Sent(first_id, len(bodies), self.now_ms)

    def receive(self, queue: Queue, operation: Receive, actual: Outcome) -> Outcome:
        assert isinstance(actual, Received)
        until_ms = self.now_ms + (operation.lease_ms or queue.settings.lease_ms)
        ready = [message for message in queue.messages if message.state == "ready"]
        count = sum(delivery.count for delivery in actual.deliveries)
        taken, left = ready[:count], ready[count:]
        taken_bytes = sum(message.bytes for message in taken)
        assert count <= operation.messages_max
        assert taken_bytes <= self.receive_bytes_max or count == 1
        if count < operation.messages_max and left:  # why not more?
            assert taken_bytes >= self.receive_bytes_max or taken_bytes + left[0].bytes > self.receive_bytes_max
        for message in taken:
            message.attempts += 1
            message.token, message.due_ms = operation.token, until_ms
        told = [
            (delivery.message_id + position, delivery.attempt, delivery.sent_ms)
            for delivery in actual.deliveries
            for position in range(delivery.count)
        ]
        assert told == [(message.message_id, message.attempts, message.sent_ms) for message in taken]
        return Received(operation.token, until_ms, actual.deliveries)

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
                    queue.messages.remove(message)
                case Extend():
                    message.due_ms = self.now_ms + operation.lease_ms
                case Nack() if operation.delay_ms:
                    message.token, message.due_ms = 0, self.now_ms + operation.delay_ms
                case Nack():
                    self.give_back(queue, message)
        return stale

    def give_back(self, queue: Queue, message: Message) -> None:
        message.token = message.due_ms = 0
        if queue.is_over(message, self.now_ms):
            queue.messages.remove(message)

    def all_that_is_due(self) -> None:
        """What pulses do, when they have come to their end."""
        for queue in self.queues.values():
            for message in list(queue.messages):
                if message.due_ms and message.due_ms <= self.now_ms:
                    self.give_back(queue, message)
                elif message.state == "ready" and queue.is_over(message, self.now_ms):
                    queue.messages.remove(message)
        over = [key for key, memory in self.keys.items() if memory.until_ms <= self.now_ms]
        silent = [
            number
            for number, session in self.sessions.items()
            if session.heard_ms + limits.SESSION_WINDOW_MS <= self.now_ms
        ]
        for key in over:
            del self.keys[key]
        for number in silent:
            del self.sessions[number]


def has_effect(outcome: Outcome) -> bool:
    return not isinstance(outcome, Refused | Pulsed) and not (isinstance(outcome, Received) and not outcome.deliveries)


def in_order(ids: list[int]) -> bool:
    return all(one < other for one, other in pairwise(ids))
