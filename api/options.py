"""What a message may have beyond body and attributes: when it is due, its group, priority, key, and so on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from typing import Annotated, Any

import msgspec

from api.problem import invalid
from api.request import Wish
from api.times import read_time, timestamp
from storage.limits import (
    CONSUMER_BYTES_MAX,
    DEDUP_BYTES_MAX,
    GROUP_BYTES_MAX,
    HOLD_MS_MAX,
    KEY_BYTES_MAX,
    PRIORITY_MAX,
)
from storage.message_operations import About
from storage.options import (
    Options,
    Run,
)

Hold = Annotated[int, msgspec.Meta(ge=0, le=HOLD_MS_MAX)]
Kept = Annotated[int, msgspec.Meta(ge=1, le=HOLD_MS_MAX)]
Priority = Annotated[int, msgspec.Meta(ge=0, le=PRIORITY_MAX)]


class OptionsIn(Wish):
    """Options of a message to send. `at` is an RFC 3339 time, instead of `delay_ms`."""

    delay_ms: Hold | msgspec.UnsetType = msgspec.UNSET
    at: str | msgspec.UnsetType = msgspec.UNSET
    ttl_ms: Kept | msgspec.UnsetType = msgspec.UNSET
    priority: Priority | msgspec.UnsetType = msgspec.UNSET
    group: str | msgspec.UnsetType = msgspec.UNSET
    key: str | msgspec.UnsetType = msgspec.UNSET
    dedup_id: str | msgspec.UnsetType = msgspec.UNSET
    producer: str | msgspec.UnsetType = msgspec.UNSET

    def members(self) -> int:
        """Those given."""
        given = _given(self)
        return 0 if given == _NONE else sum([each is not msgspec.UNSET for each in given])


_given = attrgetter(*OptionsIn.__struct_fields__)
_NONE = _given(OptionsIn())
_PLAIN = Options()
_TEXTS = {"group": GROUP_BYTES_MAX, "key": KEY_BYTES_MAX, "dedup_id": DEDUP_BYTES_MAX, "producer": CONSUMER_BYTES_MAX}


def check_text(text: str, bytes_max: int, field: str, *, empty: bool = False) -> None:
    """Raises `Problem` for a text that is too long, or empty where that is not allowed."""
    if not (text or empty) or len(text.encode()) > bytes_max:
        least = 0 if empty else 1
        raise invalid(field, f"it has {least} to {bytes_max} bytes in UTF-8", "Choose another.", bytes_max)


def read_runs(messages: Sequence[OptionsIn], fields: Iterable[str]) -> list[Run]:
    """The options of a send's messages, one after another; none if no message has any. Raises `Problem`."""
    given = [_given(message) for message in messages]
    if given.count(_NONE) == len(given):  # as most are
        return []
    options = [
        _PLAIN if each == _NONE else _options(message, field)
        for each, message, field in zip(given, messages, fields, strict=True)
    ]
    runs = [Run(len(list(same)), wish) for wish, same in groupby(options)]
    return [] if len(runs) == 1 and runs[0].options == _PLAIN else runs


def refuse_two_times(delay_ms: int | msgspec.UnsetType, at: str | msgspec.UnsetType, field: str) -> None:
    """Raises `Problem` where there is both a delay and a time."""
    if delay_ms is not msgspec.UNSET and at is not msgspec.UNSET:
        raise invalid(f"{field}.at", "there is a delay_ms as well", "Give one of them.")


def _options(message: OptionsIn, field: str) -> Options:
    refuse_two_times(message.delay_ms, message.at, field)
    given: dict[str, Any] = {
        name: value
        for name, value in zip(OptionsIn.__struct_fields__, _given(message), strict=True)
        if value is not msgspec.UNSET
    }
    for name, bytes_max in _TEXTS.items():
        if name in given:
            check_text(given[name], bytes_max, f"{field}.{name}")
    if "at" in given:
        given["at_ms"] = read_time(given.pop("at"), f"{field}.at")
    return Options(**given)


@lru_cache(maxsize=1024)
def told_about(about: About | None, position: int = 0) -> dict[str, Any]:
    """What a message has that is not default. `position` is its place among those that `about` is about."""
    if about is None:
        return {}
    told: dict[str, Any] = {name: value for name in (*_TEXTS, "priority") if (value := getattr(about, name))}
    if about.expires_ms:
        told["expires"] = timestamp(about.expires_ms)
    if about.first_ms:
        told["first_delivered"] = timestamp(about.first_ms)
    if about.schedule:
        told |= {"schedule": about.schedule, "occurrence": timestamp(about.occurrence_ms)}
    if about.topic:
        told["topic"], told["topic_message_id"] = about.topic, about.publish_id + position
    if about.dead is not None:
        dead = about.dead
        told["dead"] = {
            "queue": dead.queue,
            "message_id": dead.message_id + position,
            "reason": dead.reason,
            "attempts": dead.attempts,
            "consumer": dead.consumer,
            "sent": timestamp(dead.sent_ms),
            "given_up": timestamp(dead.at_ms),
        }
    return told
