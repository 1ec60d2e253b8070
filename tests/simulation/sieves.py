"""Filters of the world's consumers, and what they mean: the messages have an attribute `x`, or none."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

PROPERTIES = (b"", *(msgspec.msgpack.encode({"a": attributes}) for attributes in ({"x": 1}, {"x": 2, "y": "a"})))


def x_of(properties: bytes) -> int:
    """A message's `x`, or 0."""
    return int(msgspec.msgpack.decode(properties)["a"]["x"]) if properties else 0


SIEVES: dict[str, Callable[[bytes], bool]] = {
    '{"x": [1]}': lambda properties: x_of(properties) == 1,
    '{"x": [{"numeric": [">", 1]}]}': lambda properties: x_of(properties) > 1,
    '{"x": [{"exists": false}]}': lambda properties: x_of(properties) == 0,
}
"""More than a queue may have at a time (`tests.storage.naive_sifting.SELECTORS_MAX`)."""
ON = "attributes "
"""What the rules put before a filter, to tell those of attributes from those of bodies."""
