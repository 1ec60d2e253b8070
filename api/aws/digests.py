"""The MD5 digests by which SQS's clients check that what arrived is what was sent.

    digest of attributes = MD5 of, for each attribute in order of name:
        name_bytes u32 | name | type_bytes u32 | type | kind u8 | value_bytes u32 | value

`kind` is 1 for text and numbers, 2 for bytes; numbers are big-endian; the type includes its label.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from typing import NamedTuple

_U32 = struct.Struct(">I")


class Attribute(NamedTuple):
    """An attribute as SQS has it: a type such as `Number.int`, and text or bytes."""

    type: str
    value: str | bytes


def md5_of_body(body: bytes | memoryview) -> str:
    """The digest of a message's body."""
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def md5_of_attributes(attributes: Mapping[str, Attribute]) -> str | None:
    """The digest of attributes; None if there are none."""
    if not attributes:
        return None
    digest = hashlib.md5(usedforsecurity=False)
    for name, (kind, value) in sorted(attributes.items()):
        for part in (name.encode(), kind.encode()):
            digest.update(_U32.pack(len(part)) + part)
        encoded = value if isinstance(value, bytes) else value.encode()
        digest.update((b"\x02" if isinstance(value, bytes) else b"\x01") + _U32.pack(len(encoded)) + encoded)
    return digest.hexdigest()
