"""What travels over HTTP and what the cluster keeps: bodies and attributes, receipts, timestamps.

A message's properties are empty for a plain text body, else a msgpack map: `b: true` for a body that was sent as
bytes, `a` its attributes. A receipt is base64url of version u8, message id u64 and lease token u64: 63 random bits, so
that nobody can ack what was not delivered to them, and a receipt of another queue or an ended lease is stale.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from api.problem import invalid
from storage.block import Part
from storage.operations import Claim

ATTRIBUTES_MAX = 64
"""Attributes of one message: they are labels, not a second body."""
ATTRIBUTE_NAME_CHARACTERS_MAX = 256
PROPERTIES_BYTES_MAX = 64 * 1024
"""Bytes of all attributes of one message, as kept."""

_RECEIPT = struct.Struct(">BQQ")
_RECEIPT_VERSION = 1


class MessageIn(msgspec.Struct, forbid_unknown_fields=True):
    """A message to send: `body` is text (or bytes in msgpack), `body_base64` is bytes; exactly one of them."""

    body: Any = msgspec.UNSET
    body_base64: str | msgspec.UnsetType = msgspec.UNSET
    attributes: dict[str, str | int | float | bool] = {}


def encode_message(message: MessageIn, field: str) -> tuple[bytes, bytes]:
    """Body and properties to keep. Raises `Problem`."""
    body, binary = message.body, False
    if (body is msgspec.UNSET) == (message.body_base64 is msgspec.UNSET):
        raise invalid(f"{field}.body", "exactly one of body and body_base64 is needed", "Give one of them.")
    if isinstance(message.body_base64, str):
        try:
            body = base64.b64decode(message.body_base64, validate=True)
        except (binascii.Error, ValueError):
            raise invalid(f"{field}.body_base64", "this is not base64", "Encode it as RFC 4648, section 4.") from None
    if isinstance(body, bytes):
        encoded, binary = body, True
    elif isinstance(body, str):
        encoded = encode_text(body, f"{field}.body")
    else:
        raise invalid(f"{field}.body", "a body is text", "Send a string, or bytes as body_base64.")
    properties: dict[str, Any] = {"b": True} if binary else {}
    if message.attributes:
        _check_attributes(message.attributes, field)
        properties["a"] = message.attributes
    kept = msgspec.msgpack.encode(properties) if properties else b""
    if len(kept) > PROPERTIES_BYTES_MAX:
        detail = f"attributes take {len(kept)} bytes, at most {PROPERTIES_BYTES_MAX} are allowed"
        raise invalid(f"{field}.attributes", detail, "Put large values into the body.", PROPERTIES_BYTES_MAX, 413)
    return encoded, kept


def encode_text(text: str, field: str) -> bytes:
    """UTF-8 of `text`. Raises `Problem` for lone surrogates, which no encoding can carry."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise invalid(field, "it holds half of a surrogate pair", "Send whole Unicode characters.") from None


def _check_attributes(attributes: dict[str, str | int | float | bool], field: str) -> None:
    if len(attributes) > ATTRIBUTES_MAX:
        detail = f"{len(attributes)} attributes, at most {ATTRIBUTES_MAX} are allowed"
        raise invalid(f"{field}.attributes", detail, "Send fewer.", ATTRIBUTES_MAX)
    for name, value in attributes.items():
        if not 0 < len(name) <= ATTRIBUTE_NAME_CHARACTERS_MAX or not name.isprintable():
            detail = f"a name has 1 to {ATTRIBUTE_NAME_CHARACTERS_MAX} printable characters"
            raise invalid(f"{field}.attributes", detail, "Rename the attribute.", ATTRIBUTE_NAME_CHARACTERS_MAX)
        encode_text(name, f"{field}.attributes")
        if isinstance(value, str):
            encode_text(value, f"{field}.attributes.{name}")
        elif isinstance(value, int) and not -(2**63) <= value < 2**64:
            raise invalid(f"{field}.attributes.{name}", "the number has more than 64 bits", "Send it as a string.")


def decode_part(part: Part, *, raw: bool) -> dict[str, Any]:
    """The members of a message that say what it is. `raw`: the answer can carry bytes as they are."""
    properties = msgspec.msgpack.decode(part.properties) if part.properties else {}
    body = bytes(part.body)
    members: dict[str, Any] = {}
    if not properties.get("b"):
        members["body"] = body.decode()
    elif raw:
        members["body"] = body
    else:
        members["body_base64"] = base64.b64encode(body).decode()
    members["attributes"] = properties.get("a", {})
    return members


def receipt(message_id: int, token: int) -> str:
    """What proves that a message was delivered under a lease."""
    return base64.urlsafe_b64encode(_RECEIPT.pack(_RECEIPT_VERSION, message_id, token)).rstrip(b"=").decode()


def read_receipt(text: str) -> tuple[int, int] | None:
    """Message id and token of a receipt, or None if it is not one."""
    try:
        version, message_id, token = _RECEIPT.unpack(base64.urlsafe_b64decode(text.encode("ascii") + b"=="))
    except (ValueError, struct.error):
        return None
    known = version == _RECEIPT_VERSION and 0 < message_id < 2**63 and 0 < token < 2**63
    return (message_id, token) if known and receipt(message_id, token) == text else None


def read_receipts(receipts: Sequence[str]) -> tuple[list[Claim], list[int | None]]:
    """Claims for the receipts, runs of one lease put together, and each receipt's message id (None: not a receipt)."""
    claims: list[Claim] = []
    ids: list[int | None] = []
    for text in receipts:
        found = read_receipt(text)
        ids.append(found[0] if found else None)
        if found is None:
            continue
        message_id, token = found
        last = claims[-1] if claims else None
        if last is not None and last.token == token and last.message_id + last.count == message_id:
            claims[-1] = Claim(token, last.message_id, last.count + 1)
        else:
            claims.append(Claim(token, message_id, 1))
    return claims, ids


@lru_cache(maxsize=1024)
def timestamp(at_ms: int) -> str:
    """RFC 3339, UTC, with milliseconds."""
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at_ms % 1000:03d}Z"
