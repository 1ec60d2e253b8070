"""What can be asked and answered about messages by their ids, whoever holds them.

A part of `storage.operations`, with the unions.
"""

from __future__ import annotations

import msgspec

from storage.records import Dead, Event

# --- operations -------------------------------------------------------------------------------------------------------


class ChangeMessage(msgspec.Struct, array_like=True, frozen=True, tag=12):
    """Change a message that is not leased. → `Done`.

    delay_ms, at_ms: deliver it so long from now, or then (-1: as it is; `delay_ms` 0: now). ttl_ms: keep it so long
    from now, or from when it is due (-1: as it is; 0: as long as the queue says). priority: -1: as it is. properties:
    None: as they are.
    """

    queue: str
    message_id: int
    delay_ms: int = -1
    at_ms: int = -1
    ttl_ms: int = -1
    priority: int = -1
    properties: bytes | None = None


class CancelMessage(msgspec.Struct, array_like=True, frozen=True, tag=13):
    """Forget one message, in whatever state. Who holds it finds its receipt stale. → `Done`."""

    queue: str
    message_id: int


# --- queries ----------------------------------------------------------------------------------------------------------


class Browse(msgspec.Struct, array_like=True, frozen=True, tag=34):
    """Up to `limit` messages with an id above `after`, in any state, without leasing them. → `Page`."""

    queue: str
    after: int
    limit: int


class GetMessage(msgspec.Struct, array_like=True, frozen=True, tag=35):
    """One message, whatever its state. → `Page` of one, or `Refused`."""

    queue: str
    message_id: int


class FindMessages(msgspec.Struct, array_like=True, frozen=True, tag=36):
    """Up to `limit` messages with an id above `after` that have the producer's own `key`. → `Page`."""

    queue: str
    key: str
    after: int
    limit: int


class GetHistory(msgspec.Struct, array_like=True, frozen=True, tag=37):
    """What happened to a message, as far as it is kept. → `Told`."""

    queue: str
    message_id: int


class AskWhy(msgspec.Struct, array_like=True, frozen=True, tag=38):
    """Why a message is not being delivered now. → `Reasons`."""

    queue: str
    message_id: int


# --- outcomes ---------------------------------------------------------------------------------------------------------


class About(msgspec.Struct, array_like=True, frozen=True):
    """What messages have beyond body and properties, as their consumers see it. See `storage.records.Extras`.

    `first_ms` is when they were first delivered, 0 for never; `dead` says why they were given up elsewhere before.
    """

    priority: int = 0
    group: str = ""
    key: str = ""
    dedup_id: str = ""
    expires_ms: int = 0
    first_ms: int = 0
    dead: Dead | None = None
    topic: str = ""
    publish_id: int = 0
    schedule: str = ""
    occurrence_ms: int = 0
    producer: str = ""


class Listed(msgspec.Struct, array_like=True, frozen=True):
    """A message as it stands.

    `state`: "ready", "leased", "delayed" or "dead"; `due_ms`: when the lease or delay ends, else 0; `last_ms` and
    `consumer`: when and to whom it was last delivered.
    """

    message_id: int
    state: str
    attempts: int
    sent_ms: int
    due_ms: int
    last_ms: int = 0
    consumer: str = ""
    about: About | None = None


class Page(msgspec.Struct, array_like=True, frozen=True, tag=34):
    """Browsed messages in order of id. Their bodies are the block beside."""

    messages: list[Listed]


class Told(msgspec.Struct, array_like=True, frozen=True, tag=35):
    """Events of one message, oldest first; `forgotten` older ones of it and its neighbours are not kept any more.

    `sent_ms` is when it was sent, `here` whether it still is there.
    """

    sent_ms: int
    here: bool
    events: list[Event]
    forgotten: int


class Reason(msgspec.Struct, array_like=True, frozen=True):
    """Why a message is not delivered: `code`, until when (0: unknown), and who or what holds it."""

    code: str
    until_ms: int = 0
    detail: str = ""


class Reasons(msgspec.Struct, array_like=True, frozen=True, tag=36):
    """All that keeps a message from being delivered now; none: it is next in its turn. `state` as in `Listed`."""

    state: str
    reasons: list[Reason]
