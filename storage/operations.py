"""Operations and outcomes: everything that can be asked of the rules, and everything they can answer.

An *operation* is proposed by the leader and applied by every replica; a *query* reads the leader's applied state and
writes nothing. Both are answered by an *outcome*. A rule that says no answers `Refused`; it never raises.

Here is what sends, receives and settles messages, the unions of all there is, and how it is encoded. The rest is in
`storage.…_operations`, a file for each thing that it is about.

One encoding serves the wire between gateway and shard and the entry in the Raft log, so that a shard proposes what it
received without re-encoding it:

    item  = session u64 | seq u64 | operation_bytes u32 | block_bytes u32 | operation (msgpack) | block (raw)
    entry = kind u8 | at_ms u64 | item*

`kind` is the engine's: `ENTRY_KIND` for these entries, others for its own (no-ops, membership), which hold no items.

`session` and `seq` are the operation's id: `session` names one run of one gateway, `seq` counts its operations from 1.
Session 0 is the leader itself (`Pulse`, `Occur`, `StepRedrive`, `Sift`), whose operations are not remembered. `block`
carries message bodies, see `storage.block`; only what adds messages has one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Literal, TypeGuard, get_args

import msgspec

from storage.access_operations import AccessKeyList, AccessKeyMade, CreateAccessKey, ListAccessKeys, RevokeAccessKey
from storage.message_operations import (
    About,
    AskWhy,
    Browse,
    CancelMessage,
    ChangeMessage,
    FindMessages,
    GetHistory,
    GetMessage,
    Page,
    Reasons,
    Told,
)
from storage.options import Run
from storage.party_operations import DeleteParty, GetParty, ListParties, PartyList, PartyPut, PutParty
from storage.queue_operations import (
    DeleteQueue,
    GetQueue,
    ListQueues,
    Purged,
    PurgeQueue,
    PutQueue,
    QueueInfo,
    QueueList,
    QueuePut,
)
from storage.redrive_operations import (
    CancelRedrive,
    DeadGroups,
    GetRedrive,
    GroupDead,
    ListRedrives,
    Previewed,
    PreviewRedrive,
    RedriveTask,
    RedriveTasks,
    StartRedrive,
    StepRedrive,
)
from storage.schedule_operations import (
    DeleteSchedule,
    GetSchedule,
    ListSchedules,
    Occur,
    Occurred,
    PauseSchedule,
    PutSchedule,
    ScheduleInfo,
    ScheduleList,
    SchedulePut,
)
from storage.sift_operations import Sift
from storage.topic_operations import (
    DeleteSubscription,
    DeleteTopic,
    GetRoutes,
    GetTopic,
    ListSubscriptions,
    ListTopics,
    Publish,
    Published,
    PutSubscription,
    PutTopic,
    Rehearse,
    RoutesTold,
    SubscriptionList,
    TopicInfo,
    TopicList,
    TopicPut,
    Verdicts,
)

ITEM_HEADER = struct.Struct("<QQII")
ENTRY_HEADER = struct.Struct("<BQ")
ENTRY_KIND = 0


class Claim(msgspec.Struct, array_like=True, frozen=True):
    """A run of `count` messages from `message_id` on, held under one lease `token`. What receipts decode to."""

    token: int
    message_id: int
    count: int


# --- operations: proposed, logged, applied by every replica -----------------------------------------------------------


class Send(msgspec.Struct, array_like=True, frozen=True, tag=4):
    """Add the `count` messages of the item's block, all or none. → `Sent`.

    `runs` say what their options are, from the first message on; none: no message has any.
    """

    queue: str
    count: int
    runs: list[Run] = []


class Receive(msgspec.Struct, array_like=True, frozen=True, tag=5):
    """Lease up to `messages_max` ready messages under `token`. → `Received`, perhaps with no messages.

    `token` is 63 random bits made by the gateway: with the message id it is what a receipt proves.
    `lease_ms` 0 takes the queue's, and so does `wait_ms` -1: the leader holds the operation back meanwhile, unlogged,
    until something is ready or the time is over. `consumer` names who receives.

    filter: only messages that it matches (JSON, see `storage.filters`; empty: all), of those already sifted. The leader
    puts the number of the `selector` in its place, if it is known (see `storage.sifting`).
    """

    queue: str
    messages_max: int
    lease_ms: int
    token: int
    wait_ms: int = 0
    consumer: str = ""
    filter: str = ""
    filter_on: Literal["attributes", "body"] = "attributes"
    selector: int = 0

    @property
    def sieve(self) -> str:
        """What tells its filter from others; empty: it has none."""
        return f"{self.filter_on} {self.filter}" if self.filter else ""


class Ack(msgspec.Struct, array_like=True, frozen=True, tag=6):
    """Messages are done: forget those still held under their claim's token. → `Settled`."""

    queue: str
    claims: list[Claim]


class Nack(msgspec.Struct, array_like=True, frozen=True, tag=7):
    """Messages were not handled: ready again, `delay_ms` from now (-1: when the queue's backoff says), or given up if
    that was their last attempt. → `Settled`."""

    queue: str
    claims: list[Claim]
    delay_ms: int = -1
    reason: str = ""


class Extend(msgspec.Struct, array_like=True, frozen=True, tag=8):
    """Hold messages for `lease_ms` from now instead of until their present deadline. → `Settled`."""

    queue: str
    claims: list[Claim]
    lease_ms: int


class Pulse(msgspec.Struct, array_like=True, frozen=True, tag=9):
    """Do up to `steps_max` steps of what is due: end leases, release delayed messages, expire, clean. → `Pulsed`."""

    steps_max: int


class Transaction(msgspec.Struct, array_like=True, frozen=True, tag=14):
    """All of `steps` or nothing. → `Committed`, or the `Refused` of the first `step` that cannot be done.

    A claim that is stale refuses the whole; `Refused.stale` names the messages. The item's block is the blocks of its
    sends one after another, `block_bytes` of each.
    """

    steps: list[Send | Ack | Nack | Extend]
    block_bytes: list[int] = []


def messages_of(step: Send | Ack | Nack | Extend) -> int:
    """How many messages a step sends or settles."""
    return step.count if isinstance(step, Send) else sum(claim.count for claim in step.claims)


class Forget(msgspec.Struct, array_like=True, frozen=True, tag=10):
    """The session has its answers to every operation with a `seq` below `below`. → `Done`."""

    below: int


Plain = (
    PutQueue
    | DeleteQueue
    | PurgeQueue
    | Send
    | Receive
    | Ack
    | Nack
    | Extend
    | ChangeMessage
    | CancelMessage
    | Transaction
    | PutTopic
    | DeleteTopic
    | PutSubscription
    | DeleteSubscription
    | Publish
    | PutSchedule
    | DeleteSchedule
    | PauseSchedule
    | StartRedrive
    | CancelRedrive
    | CreateAccessKey
    | RevokeAccessKey
    | PutParty
    | DeleteParty
)
"""An operation as clients ask for it, without a key around it."""


class Keyed(msgspec.Struct, array_like=True, frozen=True, tag=11):
    """`operation` under the client's own `Idempotency-Key`: it takes effect once per `key` (16 bytes).

    `fingerprint` (16 bytes) is the digest of the whole request: the same key with another request is refused.
    """

    key: bytes
    fingerprint: bytes
    operation: Plain


Change = Plain | Pulse | Forget | Keyed | Occur | StepRedrive | Sift


# --- queries: answered by the leader from what it has applied ---------------------------------------------------------


Query = (
    GetQueue
    | ListQueues
    | Browse
    | GetMessage
    | FindMessages
    | GetHistory
    | AskWhy
    | GetTopic
    | ListTopics
    | ListSubscriptions
    | Rehearse
    | GetRoutes
    | GetSchedule
    | ListSchedules
    | GetRedrive
    | ListRedrives
    | PreviewRedrive
    | GroupDead
    | ListAccessKeys
    | GetParty
    | ListParties
)
Operation = Change | Query
_QUERIES = frozenset(get_args(Query))


def is_query(operation: Operation) -> TypeGuard[Query]:
    """Whether it only asks. (An `isinstance` of so many kinds takes 3 µs, which every operation would pay twice.)"""
    return type(operation) in _QUERIES


# --- outcomes ---------------------------------------------------------------------------------------------------------


class Refused(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """A rule said no and nothing changed.

    `code` is one of the constants in `storage.codes` (`queue_not_found`, `body_too_large`, …); `limit` is the limit
    that was crossed, 0 where there is none; `position` names the offending message of a batch, `step` that of a
    transaction, `queue` that of several; `detail` says what a code alone cannot; `stale` has the ids of messages that
    were not held under their claim's token any more.
    """

    code: str
    limit: int = 0
    position: int = 0
    step: int = 0
    detail: str = ""
    stale: list[int] = []
    queue: str = ""


class Done(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """It has happened, and there is nothing more to say."""


class SentRun(msgspec.Struct, array_like=True, frozen=True):
    """So many messages of a send, one after another, have ids from `message_id` on. duplicate: they were sent before,
    and these are the originals' ids. `sent_ms`: when (of duplicates as the queue's present dedup window tells it)."""

    message_id: int
    count: int
    duplicate: bool
    sent_ms: int = 0


class Sent(msgspec.Struct, array_like=True, frozen=True, tag=5):
    """The messages have the ids `message_id` … `message_id + count - 1`; they were sent at `at_ms` (cluster time).

    When some of them were duplicates, `runs` say what became of each, in order.
    """

    message_id: int
    count: int
    at_ms: int
    runs: list[SentRun] = []


class Delivery(msgspec.Struct, array_like=True, frozen=True):
    """`count` messages from `message_id` on, delivered for the `attempt`th time, sent at `sent_ms`.

    about: None when there is nothing to say that is not default.
    """

    message_id: int
    count: int
    attempt: int
    sent_ms: int
    about: About | None = None


class Received(msgspec.Struct, array_like=True, frozen=True, tag=6):
    """These messages are leased under `token` until `until_ms` (cluster time). Their bodies are the block beside.

    sifting: there are none because not all messages have been put to the filter yet.
    """

    token: int
    until_ms: int
    deliveries: list[Delivery]
    sifting: bool = False


class Settled(msgspec.Struct, array_like=True, frozen=True, tag=7):
    """All claimed messages were settled, but for those in `stale`, no longer held under the claim's token."""

    stale: list[int]


class Pulsed(msgspec.Struct, array_like=True, frozen=True, tag=8):
    """`steps` due steps were done."""

    steps: int


class Committed(msgspec.Struct, array_like=True, frozen=True, tag=9):
    """The transaction has happened; `outcomes` of its steps, in order."""

    outcomes: list[Sent | Settled]


Outcome = (
    Refused
    | Done
    | QueuePut
    | Purged
    | Sent
    | Received
    | Settled
    | Pulsed
    | Committed
    | QueueInfo
    | QueueList
    | Page
    | Told
    | Reasons
    | SchedulePut
    | Occurred
    | ScheduleInfo
    | ScheduleList
    | RedriveTask
    | RedriveTasks
    | Previewed
    | DeadGroups
    | TopicPut
    | Published
    | TopicInfo
    | TopicList
    | SubscriptionList
    | Verdicts
    | RoutesTold
    | AccessKeyMade
    | AccessKeyList
    | PartyPut
    | PartyList
)


# --- encoding ---------------------------------------------------------------------------------------------------------

_encoder = msgspec.msgpack.Encoder()
_operation_decoder: msgspec.msgpack.Decoder[Operation] = msgspec.msgpack.Decoder(Operation)
_outcome_decoder: msgspec.msgpack.Decoder[Outcome] = msgspec.msgpack.Decoder(Outcome)


class Item(msgspec.Struct, frozen=True):
    """One operation as it travels and as it is logged. `offset` is where its block begins in the entry."""

    session: int
    seq: int
    operation: Operation
    block: memoryview
    offset: int


def encode_item(session: int, seq: int, operation: Operation, block: bytes | memoryview = b"") -> bytes:
    """Encode one item."""
    encoded = _encoder.encode(operation)
    return b"".join((ITEM_HEADER.pack(session, seq, len(encoded), len(block)), encoded, block))


def decode_items(data: bytes | memoryview, offset: int = 0) -> Iterator[tuple[Item, memoryview]]:
    """Decode the items that fill `data` from `offset` on, each with the slice it was decoded from.

    Raises `ValueError` when the bytes are not items.
    """
    view = memoryview(data)
    while offset < len(view):
        if len(view) - offset < ITEM_HEADER.size:
            raise ValueError("an item is cut short")
        session, seq, operation_bytes, block_bytes = ITEM_HEADER.unpack_from(view, offset)
        start, block_start = offset, offset + ITEM_HEADER.size + operation_bytes
        offset = block_start + block_bytes
        if offset > len(view):
            raise ValueError("an item is cut short")
        try:
            operation = _operation_decoder.decode(view[start + ITEM_HEADER.size : block_start])
        except msgspec.MsgspecError as error:
            raise ValueError(f"an operation cannot be decoded: {error}") from error
        yield Item(session, seq, operation, view[block_start:offset], block_start), view[start:offset]


def encode_entry(at_ms: int, items: Iterable[bytes | memoryview]) -> bytes:
    """Encode one entry: what the leader stamps and the log keeps."""
    return b"".join((ENTRY_HEADER.pack(ENTRY_KIND, at_ms), *items))


def decode_entry(entry: bytes | memoryview) -> tuple[int, Iterator[Item]]:
    """Decode one entry into its stamp and its items; item offsets are relative to the entry."""
    _, at_ms = ENTRY_HEADER.unpack_from(entry, 0)
    return at_ms, (item for item, _ in decode_items(entry, ENTRY_HEADER.size))


def encode_outcome(outcome: Outcome) -> bytes:
    """Encode an outcome."""
    return _encoder.encode(outcome)


def decode_outcome(data: bytes | memoryview) -> Outcome:
    """Decode an outcome. Raises `ValueError` (msgspec's is one) when the bytes are none."""
    return _outcome_decoder.decode(data)
