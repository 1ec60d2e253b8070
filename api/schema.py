"""What requests may hold and what answers hold: the one description that decodes, encodes and documents them.

The same structs serve JSON and MessagePack. In MessagePack a body is bytes or text as it was sent, and `body_base64`
does not occur; timestamps are text in both.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from storage.limits import BATCH_MESSAGES_MAX
from storage.settings import DAY_MS, LIMITS

WAIT_MS_MAX = 20_000
"""A long poll: long enough to make idle polling cheap, short enough for the proxies on the way."""

NACK_DELAY_MS_MAX = 7 * DAY_MS
"""A nack's delay backs off from a failure; what must rest longer should be sent again."""

REASON_CHARS_MAX = 1024
"""A nack's reason is a line for people, and every replica writes it."""

PAGE_MAX = 1000
RECEIPT_CHARS_MAX = 64
Value = str | int | float | bool
"""What an attribute may be."""

_Lease = Annotated[int, Meta(ge=LIMITS["lease_ms"][0], le=LIMITS["lease_ms"][1], description="Milliseconds.")]
_Receipts = Annotated[list[str], Meta(min_length=1, max_length=BATCH_MESSAGES_MAX)]
_Timestamp = Annotated[str, Meta(description="RFC 3339, UTC, milliseconds; the cluster's clock.")]
_SettingsRef = Annotated[dict[str, int], Meta(extra_json_schema={"$ref": "#/components/schemas/QueueSettings"})]
_Base64 = Annotated[bytes, Meta(description="A binary body; JSON only.")]


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """What every request body has in common: it holds nothing unknown. Fields left out are `UNSET` or their default."""


# --- requests ---------------------------------------------------------------------------------------------------------


class Message(Request):
    """A message to send: `body` (any Unicode text, NUL included) or `body_base64`, and attributes."""

    body: str | UnsetType = UNSET
    body_base64: _Base64 | UnsetType = UNSET
    attributes: dict[str, Value] | UnsetType = UNSET


class Send(Request):
    """One message, or up to 1000 that are sent all or none."""

    body: str | UnsetType = UNSET
    body_base64: bytes | UnsetType = UNSET
    attributes: dict[str, Value] | UnsetType = UNSET
    messages: Annotated[list[Message], Meta(min_length=1, max_length=BATCH_MESSAGES_MAX)] | UnsetType = UNSET


class PackedMessage(Request):
    """A message to send, in MessagePack: its body is text or bytes."""

    body: Any = UNSET
    attributes: dict[str, Value] | UnsetType = UNSET


class PackedSend(Request):
    """`Send`, in MessagePack."""

    body: Any = UNSET
    attributes: dict[str, Value] | UnsetType = UNSET
    messages: Annotated[list[PackedMessage], Meta(min_length=1, max_length=BATCH_MESSAGES_MAX)] | UnsetType = UNSET


class Receive(Request):
    """How many messages to take at most, how long to wait for the first, and how long to hold them."""

    max: Annotated[int, Meta(ge=1, le=BATCH_MESSAGES_MAX)] | UnsetType = UNSET
    wait_ms: Annotated[int, Meta(ge=0, le=WAIT_MS_MAX)] | UnsetType = UNSET
    lease_ms: _Lease | UnsetType = UNSET


class Ack(Request):
    """The messages of these receipts are done."""

    receipts: _Receipts


class Nack(Request):
    """The messages of these receipts were not handled; deliver them again, `delay_ms` from now."""

    receipts: _Receipts
    delay_ms: Annotated[int, Meta(ge=0, le=NACK_DELAY_MS_MAX)] | UnsetType = UNSET
    reason: Annotated[str, Meta(max_length=REASON_CHARS_MAX)] | UnsetType = UNSET


class Extend(Request):
    """Hold the messages of these receipts for `lease_ms` from now."""

    receipts: _Receipts
    lease_ms: _Lease


class SeedSend(Request):
    """A message to send to the queue called default."""

    message: str


class SeedAck(Request):
    """The message of this receipt is done."""

    receipt: str


# --- answers ----------------------------------------------------------------------------------------------------------


class QueuePut(msgspec.Struct):
    """The queue has these settings. `changed`: they were others before."""

    queue: str
    created: bool
    changed: bool
    settings: _SettingsRef


class Queue(msgspec.Struct):
    """A queue, how many messages it holds by state, and the bytes of their bodies and attributes."""

    queue: str
    created: _Timestamp
    ready: int
    leased: int
    delayed: int
    bytes: int
    settings: _SettingsRef


class Queues(msgspec.Struct):
    """Queues in order of name. Ask on with `after` = `next`, until it is null."""

    queues: list[Queue]
    next: str | None


class Deleted(msgspec.Struct):
    """The queue and its messages are gone."""

    queue: str
    deleted: bool


class Purged(msgspec.Struct):
    """So many messages were forgotten."""

    queue: str
    purged: int


class Receipted(msgspec.Struct):
    """A message that is kept, fsynced on a majority."""

    message_id: int
    timestamp: _Timestamp


class Sent(msgspec.Struct):
    """The messages, in the order they were given."""

    messages: list[Receipted]


class Delivered(msgspec.Struct):
    """A received message, held until its lease ends. It has `body` if it was sent as text, else `body_base64`."""

    message_id: int
    receipt: str
    attempt: int
    timestamp: _Timestamp
    body: str | UnsetType = UNSET
    body_base64: bytes | UnsetType = UNSET
    attributes: dict[str, Value] | UnsetType = UNSET


class Received(msgspec.Struct):
    """Received messages, none if there were none in time."""

    messages: list[Delivered]


class Result(msgspec.Struct):
    """What became of a receipt. "stale": its lease has ended; "invalid": it is none."""

    receipt: str
    status: Literal["acked", "nacked", "extended", "stale", "invalid"]


class Results(msgspec.Struct):
    """What became of each receipt, in the order they were given."""

    results: list[Result]


class Browsed(msgspec.Struct):
    """A message as it lies in the queue. `due`: when its lease or delay ends."""

    message_id: int
    state: Literal["ready", "leased", "delayed"]
    attempts: int
    timestamp: _Timestamp
    due: _Timestamp | UnsetType = UNSET
    body: str | UnsetType = UNSET
    body_base64: bytes | UnsetType = UNSET
    attributes: dict[str, Value] | UnsetType = UNSET


class Page(msgspec.Struct):
    """Messages in order of id. Ask on with `after` = `next`, until it is null."""

    messages: list[Browsed]
    next: int | None


class SeedReceived(msgspec.Struct):
    """The next message of the queue called default; empty when there is none. Ack it by its receipt."""

    message_id: int | UnsetType = UNSET
    content: str | UnsetType = UNSET
    timestamp: _Timestamp | UnsetType = UNSET
    receipt: str | UnsetType = UNSET


class SeedMessage(msgspec.Struct):
    """A message of the queue called default."""

    message_id: int
    content: str
    timestamp: _Timestamp


class SeedPage(msgspec.Struct):
    """Messages in order of id. Ask on with `after` = `next`, until it is null."""

    messages: list[SeedMessage]
    next: int | None


class SeedAcked(msgspec.Struct):
    """What became of the receipt."""

    status: Literal["acked", "stale", "invalid"]


class Health(msgspec.Struct):
    """Whether this node can serve, and with ?verbose=1 what stands in the way."""

    status: Literal["ok", "not_ready"]
    troubles: list[str] | UnsetType = UNSET
