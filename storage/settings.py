"""The settings of a queue: their names, units, defaults and limits. The only place that knows them."""

from __future__ import annotations

import re

import msgspec

SECOND_MS = 1000
DAY_MS = 24 * 60 * 60 * SECOND_MS

QUEUE_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}(\.fifo)?", re.ASCII)
"""What a queue may be called. Narrow, so that a name is safe in a path, a log line, a metric label and a file name."""

LIMITS: dict[str, tuple[int, int]] = {
    # Shorter leases would end while the answer is still on its way; twelve hours is what SQS allows.
    "lease_ms": (SECOND_MS, 12 * 60 * 60 * SECOND_MS),
    # Attempts are not limited until there is a dead-letter queue to take what is given up.
    "attempts_max": (0, 0),
    # One body must leave room for others in an entry of the log: see `limits.ENTRY_BYTES_MAX`.
    "body_bytes_max": (1, 1024 * 1024),
    # A minute to a year: a queue is no archive, and every kept message holds its log entry.
    "retention_ms": (60 * SECOND_MS, 366 * DAY_MS),
}


class QueueSettings(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How one queue behaves.

    lease_ms: how long a received message is held for its consumer when the receive does not say (milliseconds).
    attempts_max: deliveries before a message is given up; 0 is unlimited, and for now the only value.
    body_bytes_max: the largest body a message may have.
    retention_ms: how long a message is kept when nobody takes it.
    """

    lease_ms: int = 30 * SECOND_MS
    attempts_max: int = 0
    body_bytes_max: int = 1024 * 1024
    retention_ms: int = 14 * DAY_MS


def out_of_range(settings: QueueSettings) -> tuple[str, int, int] | None:
    """The first setting outside its limits as (name, lowest, highest), or None."""
    for name, (lowest, highest) in LIMITS.items():
        if not lowest <= getattr(settings, name) <= highest:
            return name, lowest, highest
    return None
