"""A message's properties: what the cluster keeps beside a body. Nothing for a plain text, else a msgpack map:

    b   true when the body was sent as bytes
    a   the attributes: text, numbers, true and false, and bytes from clients that can send them
    t   what a value does not say of itself: the type that its sender named ("Number.int"), and its text where another
        text would read as the same value ("1.10")
    k   the routing key by which it was published
    s   what SQS keeps of a message beside the sender's attributes, such as AWSTraceHeader

Whoever reads attributes needs `a` alone; `t` is for those who sent them with types, and want them back as they were.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

TYPE = re.compile(r"(String|Number|Binary)(\.[A-Za-z0-9_.-]+)?", re.ASCII)
"""What the type of an attribute may be: SQS's three, and a label that is the sender's own."""
TYPE_CHARACTERS_MAX = 256


class Told(msgspec.Struct, array_like=True, frozen=True, omit_defaults=True):
    """What an attribute's value does not say of itself. `text` is None where the value's own text is right."""

    type: str
    text: str | None = None


class Properties(msgspec.Struct, frozen=True, omit_defaults=True):
    """The properties of one message."""

    binary: bool = msgspec.field(default=False, name="b")
    attributes: dict[str, Any] = msgspec.field(default_factory=dict, name="a")
    types: dict[str, Told] = msgspec.field(default_factory=dict, name="t")
    system: dict[str, str] = msgspec.field(default_factory=dict, name="s")
    routing_key: str = msgspec.field(default="", name="k")


NONE = Properties()
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Properties).decode


def encode_properties(properties: Properties) -> bytes:
    """The properties as they are kept."""
    return b"" if properties == NONE else _encode(properties)


def decode_properties(kept: bytes | memoryview) -> Properties:
    """The properties that were kept. Raises `msgspec.MsgspecError` for what `encode_properties` did not make."""
    return _decode(kept) if kept else NONE
