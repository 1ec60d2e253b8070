"""What can be asked and answered about filters of consumers. A part of `storage.operations`, which has the unions."""

from __future__ import annotations

from typing import Literal

import msgspec


class Sifted(msgspec.Struct, array_like=True, frozen=True):
    """Of the `count` messages from `first_id` on, which lay in one chunk that was to be sifted since the log entry
    `index` (0: only for selectors that are behind), these match: by selector, bits from the first message on."""

    first_id: int
    count: int
    index: int
    selected: dict[int, bytes]


class Sift(msgspec.Struct, array_like=True, frozen=True, tag=30):
    """The leader's own: these messages match. → `Done`, and nothing if it is not the queue's next step (`sift`).

    The `behind` selectors have now seen all messages with ids below `upto`.
    """

    number: int
    sift: int
    sifted: list[Sifted]
    behind: list[int] = []
    upto: int = 0


class SelectorInfo(msgspec.Struct, array_like=True, frozen=True):
    """A filter that consumers of a queue ask with, the last time at `used_ms`.

    The messages with the last `unsifted` ids, some of which may be gone or may have been put to it, are to be.
    """

    filter: str
    filter_on: Literal["attributes", "body"]
    used_ms: int
    unsifted: int
