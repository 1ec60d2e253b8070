"""The rules of queues: pure, deterministic, and behind one door.

`apply(state, index, entry)` does every operation of a log entry and returns their outcomes. The same state, index and
entry give the same writes and the same outcomes, byte for byte, on every replica and every `State`: no I/O, no clock,
no chance; the leader stamped time (`at_ms`) and gateways chose tokens before the entry was logged.

The life of a message:

          send                 receive                  ack
    ────────────────▶ READY ─────────────▶ LEASED ───────────────▶ gone
       │              ▲  ▲                 │    │  ▲               ▲
       │ delay, at    │  │  lease ended,   │    │  │ extend        │ its time is over: of what nobody holds
       ▼              │  └── nack ─────────┤    │  └─┐             │ (or it moves to the dead-letter queue)
     DELAYED ─────────┘                    │    ▼
       ▲   delay ended                     │    nack with a delay
       └───────────────────────────────────┼────┘
                                           │ last attempt failed
                                           ▼
                    moved to the dead-letter queue, READY there; where there is none: DEAD

A rule that says no returns `Refused` and nothing has changed. `storage.records` is the map of what is kept;
`storage.queries` reads it. The rules themselves: `queue_rules`, `sending`, `receiving`, `sifting`, `groups`, `flow`,
`settling`, `dead_letters`, `redrive`, `addressing`, `transactions`, `publishing`, `schedules`, `parties`, `history`,
`pulse`, `access`.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from storage import access, record_keys, records
from storage.access_operations import CreateAccessKey, RevokeAccessKey
from storage.addressing import cancel_message, change_message
from storage.codes import (
    IDEMPOTENCY_MISMATCH,
    IDEMPOTENCY_WINDOW_FULL,
    MALFORMED,
    STALE_OPERATION,
)
from storage.limits import (
    BATCH_MESSAGES_MAX,
    CONSUMER_BYTES_MAX,
    CRON_CHARACTERS_MAX,
    DEDUP_BYTES_MAX,
    FILTER_BYTES_MAX,
    GROUP_BYTES_MAX,
    HOLD_MS_MAX,
    ID_END,
    KEY_BYTES_MAX,
    KEY_WINDOW_MS,
    KEYS_MAX,
    PARTY_TEXT_BYTES_MAX,
    PRIORITY_MAX,
    PROPERTIES_BYTES_MAX,
    REASON_BYTES_MAX,
    ROUTING_CHARACTERS_MAX,
    SCHEDULE_EVERY_MS_MAX,
    SCHEDULE_EVERY_MS_MIN,
    SCHEDULE_MESSAGE_BYTES_MAX,
    SELECTOR_BYTES_MAX,
    TIME_END_MS,
    TIME_ZONE_CHARACTERS_MAX,
    TRANSACTION_MESSAGES_MAX,
    TRANSACTION_STEPS_MAX,
)
from storage.message_operations import CancelMessage, ChangeMessage
from storage.operations import (
    Ack,
    Claim,
    Done,
    Extend,
    Forget,
    Item,
    Keyed,
    Nack,
    Operation,
    Outcome,
    Pulse,
    Receive,
    Received,
    Refused,
    Send,
    Transaction,
    decode_entry,
    decode_outcome,
    encode_outcome,
    messages_of,
)
from storage.options import SCHEDULE_NAME, Options, Plan
from storage.parties import delete_party, put_party
from storage.party_operations import DeleteParty, PutParty
from storage.publishing import delete_subscription, delete_topic, publish, put_subscription, put_topic
from storage.pulse import pulse
from storage.queue_operations import DeleteQueue, PurgeQueue, PutQueue
from storage.queue_rules import delete_queue, purge_queue, put_queue
from storage.receiving import receive
from storage.records import KeyMemory
from storage.redrive import cancel_redrive, start_redrive, step_redrive
from storage.redrive_operations import CancelRedrive, StartRedrive, StepRedrive
from storage.schedule_operations import DeleteSchedule, Occur, PauseSchedule, PutSchedule
from storage.schedules import delete_schedule, occur, pause_schedule, put_schedule
from storage.sending import Bodies, send
from storage.settings import QUEUE_NAME, contradiction, malformed, out_of_range, rate_out_of_range
from storage.settling import settle
from storage.sift_operations import Sift
from storage.sifting import sift
from storage.state import State
from storage.topic_operations import (
    DeleteSubscription,
    DeleteTopic,
    Publish,
    PutSubscription,
    PutTopic,
)
from storage.transactions import transact
from storage.turn import Turn


class Applied(msgspec.Struct, frozen=True):
    """An operation of the entry and what came of it; `encoded` is the outcome's encoding."""

    item: Item
    outcome: Outcome
    encoded: bytes


class Turned(NamedTuple):
    """What came of an entry: its operations in order, and the queues in which more messages are ready than before."""

    applied: list[Applied]
    readier: set[str]


def apply(state: State, index: int, entry: bytes | memoryview) -> Turned:
    """Do every operation of the entry at `index`, in order."""
    at_ms, items = decode_entry(entry)
    turn = Turn(state, index, at_ms)
    applied = []
    for item in items:
        outcome, encoded = _once(turn, item) if item.session else _fresh(turn, item)
        applied.append(Applied(item, outcome, encoded))
    turn.finish()
    return Turned(applied, turn.readier)


def _fresh(turn: Turn, item: Item) -> tuple[Outcome, bytes]:
    outcome = _do(turn, item.operation, Bodies(item.block, item.offset))
    return outcome, encode_outcome(outcome)


def _once(turn: Turn, item: Item) -> tuple[Outcome, bytes]:
    """Retried means once: an operation of a session whose outcome is remembered is not done again.

    After Ongaro's thesis, section 6.3, with a window instead of a single outcome: a gateway has many operations under
    way, and says with `Forget` up to where it has its answers.
    """
    session = turn.session(item.session)
    operation = item.operation
    if type(operation) is Forget:
        session.forget(operation.below)
        return Done(), b""
    if item.seq < session.record.below:
        outcome: Outcome = Refused(STALE_OPERATION)
        return outcome, encode_outcome(outcome)
    encoded = session.remembered(item.seq)
    if encoded:
        return decode_outcome(encoded), encoded
    outcome = _do(turn, operation, Bodies(item.block, item.offset))
    encoded = encode_outcome(outcome)
    if _has_effect(outcome):
        session.remember(item.seq, encoded)
    return outcome, encoded


def _has_effect(outcome: Outcome) -> bool:
    """Whether doing it twice would differ from doing it once; an empty receive is simply tried again."""
    return not (type(outcome) is Refused or (type(outcome) is Received and not outcome.deliveries))


# --- what the rules can work with -------------------------------------------------------------------------------------


def _is_sound(operation: Operation) -> bool:
    """Whether the rules can work with its numbers and names: what they choke on would choke every replica for ever."""
    match operation:
        case PutQueue():
            name, settings = operation.queue, operation.settings
            return (
                QUEUE_NAME.fullmatch(name) is not None
                and out_of_range(settings) is None
                and malformed(settings) is None
                and contradiction(name, settings) is None
            )
        case Send() | Publish():
            return not operation.runs or all(run.count > 0 and _are_sound(run.options) for run in operation.runs)
        case Receive():
            return (
                0 < operation.messages_max <= BATCH_MESSAGES_MAX
                and 0 <= operation.lease_ms <= HOLD_MS_MAX
                and 0 < operation.token < ID_END
                and _is_text(operation.consumer, CONSUMER_BYTES_MAX)
                and _is_text(operation.filter, SELECTOR_BYTES_MAX)
            )
        case Ack():
            return _are_claims(operation.claims)
        case Nack():
            return (
                -1 <= operation.delay_ms <= HOLD_MS_MAX
                and _is_text(operation.reason, REASON_BYTES_MAX)
                and _are_claims(operation.claims)
            )
        case Extend():
            return 0 <= operation.lease_ms <= HOLD_MS_MAX and _are_claims(operation.claims)
        case ChangeMessage():
            return (
                0 <= operation.message_id < ID_END
                and -1 <= operation.delay_ms <= HOLD_MS_MAX
                and -1 <= operation.ttl_ms <= HOLD_MS_MAX
                and -1 <= operation.at_ms <= TIME_END_MS
                and -1 <= operation.priority <= PRIORITY_MAX
                and len(operation.properties or b"") <= PROPERTIES_BYTES_MAX
            )
        case CancelMessage():
            return 0 <= operation.message_id < ID_END
        case Transaction():
            return (
                0 < len(operation.steps) <= TRANSACTION_STEPS_MAX
                and all(map(_is_sound, operation.steps))
                and sum(map(messages_of, operation.steps)) <= TRANSACTION_MESSAGES_MAX
            )
        case PutSchedule():
            return SCHEDULE_NAME.fullmatch(operation.schedule) is not None and _is_sound_plan(operation.plan)
        case Occur():
            return 0 <= operation.due_ms < ID_END and -1 <= operation.next_ms < ID_END
        case StartRedrive():
            wanted, rate = operation.filter, operation.rate
            return (
                (not operation.to or QUEUE_NAME.fullmatch(operation.to) is not None)
                and max(len(wanted.dead), len(wanted.attributes), len(wanted.body)) <= FILTER_BYTES_MAX
                and (rate is None or rate_out_of_range("rate", rate) is None)
                and 0 <= operation.undo < ID_END
            )
        case CancelRedrive():
            return 0 <= operation.task < ID_END
        case CreateAccessKey():
            return access.is_sound(operation)
        case PutTopic():
            return QUEUE_NAME.fullmatch(operation.topic) is not None
        case PutSubscription():
            return (
                QUEUE_NAME.fullmatch(operation.name) is not None
                and len(operation.pattern) <= ROUTING_CHARACTERS_MAX
                and _is_text(operation.filter, FILTER_BYTES_MAX)
            )
        case PutParty():
            return (
                _is_text(operation.name, PARTY_TEXT_BYTES_MAX)
                and _is_text(operation.type_, PARTY_TEXT_BYTES_MAX)
                and (0 < len(operation.id.encode()) <= CONSUMER_BYTES_MAX)
            )
        case DeleteParty():
            return _is_text(operation.id, CONSUMER_BYTES_MAX)
        case Keyed():
            return len(operation.key) == 16
        case _:
            return True


def _are_claims(claims: list[Claim]) -> bool:
    return all(0 <= claim.message_id < ID_END and 0 < claim.count <= BATCH_MESSAGES_MAX for claim in claims)


def _are_sound(options: Options) -> bool:
    return (
        0 <= options.priority <= PRIORITY_MAX
        and -1 <= options.delay_ms <= HOLD_MS_MAX
        and 0 <= options.at_ms <= TIME_END_MS
        and 0 <= options.ttl_ms <= HOLD_MS_MAX
        and _is_text(options.group, GROUP_BYTES_MAX)
        and _is_text(options.key, KEY_BYTES_MAX)
        and _is_text(options.dedup_id, DEDUP_BYTES_MAX)
        and _is_text(options.producer, CONSUMER_BYTES_MAX)
    )


def _is_sound_plan(plan: Plan) -> bool:
    return (
        QUEUE_NAME.fullmatch(plan.queue or plan.topic) is not None
        and not (plan.queue and (plan.topic or plan.routing_key))
        and not (plan.topic and plan.overlap == "skip")
        and len(plan.routing_key) <= ROUTING_CHARACTERS_MAX
        and len(plan.body) + len(plan.properties) <= SCHEDULE_MESSAGE_BYTES_MAX
        and _are_sound(plan.options)
        and not plan.options.at_ms
        and (not plan.every_ms if plan.cron else SCHEDULE_EVERY_MS_MIN <= plan.every_ms <= SCHEDULE_EVERY_MS_MAX)
        and _is_text(plan.cron, CRON_CHARACTERS_MAX)
        and _is_text(plan.time_zone, TIME_ZONE_CHARACTERS_MAX)
    )


def _is_text(text: str, bytes_max: int) -> bool:
    """Whether a text is short enough. One character has four bytes at most: most texts need no encoding to tell."""
    return len(text) * 4 <= bytes_max or len(text.encode()) <= bytes_max


# --- what is done -----------------------------------------------------------------------------------------------------


def _do(turn: Turn, operation: Operation, bodies: Bodies) -> Outcome:
    if not _is_sound(operation):
        return Refused(MALFORMED)
    match operation:
        case Send():
            return send(turn, operation, bodies)
        case Receive():
            return receive(turn, operation)
        case Ack() | Nack() | Extend():
            return settle(turn, operation)
        case Keyed():
            return _keyed(turn, operation, bodies)
        case Pulse():
            return pulse(turn, operation.steps_max)
        case Transaction():
            return transact(turn, operation, bodies, _do)
        case ChangeMessage():
            return change_message(turn, operation)
        case CancelMessage():
            return cancel_message(turn, operation)
        case Occur():
            return occur(turn, operation, bodies)
        case PutSchedule():
            return put_schedule(turn, operation)
        case DeleteSchedule():
            return delete_schedule(turn, operation.schedule)
        case PauseSchedule():
            return pause_schedule(turn, operation)
        case PutParty():
            return put_party(turn, operation)
        case DeleteParty():
            return delete_party(turn, operation.kind, operation.id)
        case Publish():
            return publish(turn, operation, bodies)
        case PutTopic():
            return put_topic(turn, operation)
        case DeleteTopic():
            return delete_topic(turn, operation.topic)
        case PutSubscription():
            return put_subscription(turn, operation)
        case DeleteSubscription():
            return delete_subscription(turn, operation)
        case PutQueue():
            return put_queue(turn, operation)
        case DeleteQueue():
            return delete_queue(turn, operation.queue)
        case PurgeQueue():
            return purge_queue(turn, operation.queue)
        case StartRedrive():
            return start_redrive(turn, operation)
        case CancelRedrive():
            return cancel_redrive(turn, operation)
        case StepRedrive():
            return step_redrive(turn, operation)
        case Sift():
            return sift(turn, operation)
        case CreateAccessKey():
            return access.create_access_key(turn, operation)
        case RevokeAccessKey():
            return access.revoke_access_key(turn, operation)
        case _:
            return Refused(MALFORMED)  # a query, or `Forget` without a session: nothing to do here


def _keyed(turn: Turn, operation: Keyed, bodies: Bodies) -> Outcome:
    key = record_keys.memory_key(operation.key)
    found = turn.state.get(key)
    if found is not None:
        memory = records.decode_key_memory(found)
        if memory.fingerprint != operation.fingerprint:
            return Refused(IDEMPOTENCY_MISMATCH)
        return decode_outcome(memory.outcome)
    if turn.shard.keys >= KEYS_MAX:
        return Refused(IDEMPOTENCY_WINDOW_FULL, KEYS_MAX)
    outcome = _do(turn, operation.operation, bodies)
    if _has_effect(outcome):
        turn.state.put(key, records.encode(KeyMemory(operation.fingerprint, encode_outcome(outcome))))
        turn.set_timer(turn.now_ms + KEY_WINDOW_MS, record_keys.TIMER_KEY, operation.key)
        turn.shard.keys += 1
    return outcome
