"""What a message may have beyond body and attributes: when it is due, its group, priority, key, and so on."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import groupby
from typing import Any

import msgspec

from api.messages import MessageIn, PackedMessageIn, timestamp
from api.problem import invalid
from storage.limits import DEDUP_BYTES_MAX, GROUP_BYTES_MAX, KEY_BYTES_MAX, PRIORITY_MAX, TIME_END_MS
from storage.operations import About, Options, Run

PLAIN = Options()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TEXTS = {"group": GROUP_BYTES_MAX, "key": KEY_BYTES_MAX, "dedup_id": DEDUP_BYTES_MAX}


def read_runs(messages: Iterable[MessageIn | PackedMessageIn], fields: Iterable[str]) -> list[Run]:
    """The options of a send's messages, one after another; none if no message has any. Raises `Problem`."""
    options = [_options(message, field) for message, field in zip(messages, fields, strict=True)]
    runs = [Run(len(list(same)), wish) for wish, same in groupby(options)]
    return [] if all(run.options == PLAIN for run in runs) else runs


def _options(message: MessageIn | PackedMessageIn, field: str) -> Options:
    unset = msgspec.UNSET
    if message.delay_ms is not unset and message.at is not unset:
        raise invalid(f"{field}.at", "there is a delay_ms as well", "Give one of them.")
    for name, limit in _TEXTS.items():
        text = getattr(message, name)
        if text is not unset and not 0 < len(text.encode()) <= limit:
            raise invalid(f"{field}.{name}", f"it has 1 to {limit} bytes", "Choose another.", limit)
    return Options(
        0 if message.priority is unset else message.priority,
        "" if message.group is unset else message.group,
        "" if message.key is unset else message.key,
        -1 if message.delay_ms is unset else message.delay_ms,
        0 if message.at is unset else read_time(message.at, f"{field}.at"),
        0 if message.ttl_ms is unset else message.ttl_ms,
        "" if message.dedup_id is unset else message.dedup_id,
    )


def read_time(text: str, field: str) -> int:
    """Cluster time (milliseconds) of an RFC 3339 timestamp. Raises `Problem`."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None or at <= _EPOCH:
        raise invalid(field, "this is no time", "Write it as in RFC 3339, with its offset: 2030-01-31T08:00:00Z.")
    return min((at - _EPOCH) // timedelta(milliseconds=1), TIME_END_MS)


@lru_cache(maxsize=1024)
def told_about(about: About | None) -> dict[str, Any]:
    """What a message has that is not default, as its consumers see it. NB: `dead` names the first of several."""
    if about is None:
        return {}
    told: dict[str, Any] = {name: value for name in ("group", "key", "dedup_id") if (value := getattr(about, name))}
    if about.priority:
        told["priority"] = about.priority
    if about.expires_ms:
        told["expires"] = timestamp(about.expires_ms)
    if about.first_ms:
        told["first_delivered"] = timestamp(about.first_ms)
    if about.dead is not None:
        dead = about.dead
        told["dead"] = {
            "queue": dead.queue,
            "reason": dead.reason,
            "attempts": dead.attempts,
            "consumer": dead.consumer,
            "sent": timestamp(dead.sent_ms),
            "given_up": timestamp(dead.at_ms),
        }
    return told


# What /openapi.json says of priorities.
PRIORITIES = {"type": "integer", "minimum": 0, "maximum": PRIORITY_MAX, "default": 0}
