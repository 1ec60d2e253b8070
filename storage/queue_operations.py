"""What can be asked and answered about queues as a whole. A part of `storage.operations`, with the unions."""

from __future__ import annotations

import msgspec

from storage.settings import QueueSettings
from storage.sift_operations import SelectorInfo

# --- operations -------------------------------------------------------------------------------------------------------


class PutQueue(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """Create a queue, or replace its settings. → `QueuePut`.

    only_new: refuse if there is one. instead_of: refuse unless there is one, with these settings.
    """

    queue: str
    settings: QueueSettings
    only_new: bool = False
    instead_of: QueueSettings | None = None


class DeleteQueue(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """Forget a queue and every message in it. → `Done`."""

    queue: str


class PurgeQueue(msgspec.Struct, array_like=True, frozen=True, tag=3):
    """Forget every message in a queue, leased ones too. → `Purged`."""

    queue: str


# --- queries ----------------------------------------------------------------------------------------------------------


class GetQueue(msgspec.Struct, array_like=True, frozen=True, tag=32):
    """One queue's settings and counts. → `QueueInfo`."""

    queue: str


class ListQueues(msgspec.Struct, array_like=True, frozen=True, tag=33):
    """Up to `limit` queues named after `after`, by name. → `QueueList`.

    patterns: only those that one of them is for (`storage.access.matches`); none: all. oldest: with `oldest_ms`.
    """

    after: str = ""
    limit: int = 1000
    patterns: list[str] = []
    oldest: bool = False


# --- outcomes ---------------------------------------------------------------------------------------------------------


class QueuePut(msgspec.Struct, array_like=True, frozen=True, tag=3):
    """The queue now has these settings. `created`: it did not exist before. `changed`: its settings differ now."""

    created: bool
    changed: bool


class Purged(msgspec.Struct, array_like=True, frozen=True, tag=4):
    """`count` messages were forgotten."""

    count: int


class QueueInfo(msgspec.Struct, array_like=True, frozen=True, tag=32):
    """A queue as it is. `bytes` is what its messages hold: bodies and properties, as sent.

    `active` is the consumer that alone receives (single-active queues); `changed_ms` when its settings last changed.
    `oldest_ms`, if it was asked for: when the first of its messages that is not dead was sent, 0 for none. `selectors`:
    the filters that consumers ask with (of one queue asked for by name).
    """

    queue: str
    settings: QueueSettings
    created_ms: int
    ready: int
    leased: int
    delayed: int
    bytes: int
    dead: int = 0
    changed_ms: int = 0
    active: str = ""
    oldest_ms: int = 0
    selectors: list[SelectorInfo] = []


class QueueList(msgspec.Struct, array_like=True, frozen=True, tag=33):
    """Queues in order of name."""

    queues: list[QueueInfo]
