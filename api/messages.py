"""What travels over HTTP and what the cluster keeps: bodies and attributes, receipts, timestamps.

A message's properties are those of `api.properties`. A receipt is a version digit, the lease token as 16 hex digits,
and the message id in hex. The token is 63 random bits, so that nobody can ack what was not delivered to them, and a
receipt of another queue or an ended lease is stale.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple

import msgspec

from api.options import Hold, OptionsIn, Priority, told_about
from api.problem import invalid
from api.properties import TYPE, TYPE_CHARACTERS_MAX, Properties, Told, decode_properties, encode_properties
from api.request import Wish
from api.times import timestamp
from storage.block import Part
from storage.limits import PROPERTIES_BYTES_MAX
from storage.message_operations import Listed
from storage.operations import Claim, Settled

ATTRIBUTES_MAX = 64
"""Attributes of one message: they are labels, not a second body."""
ATTRIBUTE_NAME_CHARACTERS_MAX = 256

_RECEIPT_VERSION = 1
_RECEIPT = re.compile(rf"{_RECEIPT_VERSION}[0-9a-f]{{16}}[1-9a-f][0-9a-f]{{0,15}}", re.ASCII)


class MessageIn(OptionsIn):
    """A message to send: `body` is any Unicode text, NUL included, `body_base64` is bytes; exactly one of them."""

    body: str | msgspec.UnsetType = msgspec.UNSET
    body_base64: bytes | msgspec.UnsetType = msgspec.UNSET
    attributes: dict[str, str | int | float | bool] | msgspec.UnsetType = msgspec.UNSET
    attribute_types: dict[str, str] | msgspec.UnsetType = msgspec.UNSET

    def members(self) -> int:
        """One body, the attributes, and their types."""
        maps = [each for each in (self.attributes, self.attribute_types) if each is not msgspec.UNSET]
        return 1 + OptionsIn.members(self) + sum([1 + len(each) for each in maps])


class PackedMessageIn(OptionsIn):
    """A message to send, in msgpack: `body` is text or bytes, and so may attributes be."""

    body: Any = msgspec.UNSET
    attributes: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    attribute_types: dict[str, str] | msgspec.UnsetType = msgspec.UNSET


class _Change(Wish):
    delay_ms: Hold | msgspec.UnsetType = msgspec.UNSET
    at: str | msgspec.UnsetType = msgspec.UNSET
    ttl_ms: Hold | msgspec.UnsetType = msgspec.UNSET
    priority: Priority | msgspec.UnsetType = msgspec.UNSET


class ChangeIn(_Change):
    """What shall be otherwise. `at` is an RFC 3339 time, instead of `delay_ms`; `attributes` take the place of all
    that there are."""

    attributes: dict[str, str | int | float | bool] | msgspec.UnsetType = msgspec.UNSET
    attribute_types: dict[str, str] | msgspec.UnsetType = msgspec.UNSET

    def members(self) -> int:
        """Those given, and those of the attributes and their types."""
        given = [value for name in self.__struct_fields__ if (value := getattr(self, name)) is not msgspec.UNSET]
        return len(given) + sum([len(value) for value in given if isinstance(value, dict)])


class PackedChangeIn(_Change):
    """What shall be otherwise, in msgpack: attributes may be bytes."""

    attributes: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    attribute_types: dict[str, str] | msgspec.UnsetType = msgspec.UNSET


def encode_message(message: MessageIn | PackedMessageIn, field: str, routing_key: str = "") -> tuple[bytes, bytes]:
    """Body and properties to keep. `routing_key`: by which it is published. Raises `Problem`."""
    body = message.body
    if isinstance(message, MessageIn) and message.body_base64 is not msgspec.UNSET:
        if body is not msgspec.UNSET:
            raise invalid(f"{field}.body", "there is a body_base64 as well", "Give one of them.")
        body = message.body_base64
    has_attributes = message.attributes is not msgspec.UNSET or message.attribute_types is not msgspec.UNSET
    if type(body) is str:
        if not has_attributes and not routing_key:  # as most are
            return body.encode(), b""
        return body.encode(), encode_attributes(Properties(routing_key=routing_key), message, field)
    if type(body) is bytes:
        return body, encode_attributes(Properties(True, routing_key=routing_key), message, field)
    if body is msgspec.UNSET:
        raise invalid(f"{field}.body", "a message needs a body", "Give body, or body_base64.")
    raise invalid(f"{field}.body", "a body is text or bytes", "Send it as str or bin.")


def encode_attributes(
    properties: Properties, wish: MessageIn | PackedMessageIn | ChangeIn | PackedChangeIn, field: str
) -> bytes:
    """The properties with a wish's attributes instead of their own. Raises `Problem`."""
    attributes: dict[str, Any] = {} if wish.attributes is msgspec.UNSET else wish.attributes
    types: dict[str, Told] = {}
    if attributes:
        _check_attributes(attributes, field)
    if wish.attribute_types is not msgspec.UNSET:
        for name, kind in wish.attribute_types.items():
            attributes[name] = _typed(attributes.get(name), kind, f"{field}.attribute_types.{name}")
            types[name] = Told(kind)
    kept = encode_properties(
        Properties(properties.binary, attributes, types, properties.system, properties.routing_key)
    )
    if len(kept) > PROPERTIES_BYTES_MAX:
        detail = f"attributes take {len(kept)} bytes, at most {PROPERTIES_BYTES_MAX} are allowed"
        raise invalid(f"{field}.attributes", detail, "Put large values into the body.", PROPERTIES_BYTES_MAX, 413)
    return kept


_TYPED = {"String": (str,), "Number": (int, float), "Binary": (bytes, str)}


def _typed(value: Any, kind: str, field: str) -> Any:
    """The value of an attribute for which this type is claimed: in JSON, bytes come as base64. Raises `Problem`."""
    if not TYPE.fullmatch(kind) or len(kind) > TYPE_CHARACTERS_MAX:
        remedy = "Say String, Number or Binary, with a label if you like: Number.int."
        raise invalid(field, "this is no type of an attribute", remedy, TYPE_CHARACTERS_MAX)
    base, _, _ = kind.partition(".")
    if type(value) not in _TYPED[base]:
        raise invalid(field, f"the attribute's value is no {base}", "Say String of text, Number of a number.")
    if base != "Binary" or type(value) is bytes:
        return value
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:
        raise invalid(field, "the attribute's value is not base64", "Encode bytes as base64.") from None


def _check_attributes(attributes: Mapping[str, Any], field: str) -> None:
    if len(attributes) > ATTRIBUTES_MAX:
        detail = f"{len(attributes)} attributes, at most {ATTRIBUTES_MAX} are allowed"
        raise invalid(f"{field}.attributes", detail, "Send fewer.", ATTRIBUTES_MAX)
    for name, value in attributes.items():
        if not 0 < len(name) <= ATTRIBUTE_NAME_CHARACTERS_MAX or not name.isprintable():
            detail = f"a name has 1 to {ATTRIBUTE_NAME_CHARACTERS_MAX} printable characters"
            raise invalid(f"{field}.attributes", detail, "Rename the attribute.", ATTRIBUTE_NAME_CHARACTERS_MAX)
        if type(value) not in (str, int, float, bool, bytes):
            raise invalid(f"{field}.attributes.{name}", "this is no value of an attribute", "Send text, or a number.")
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            raise invalid(f"{field}.attributes.{name}", "the number has more than 64 bits", "Send it as a string.")
        if isinstance(value, float) and not isfinite(value):
            raise invalid(f"{field}.attributes.{name}", "this is not a number", "JSON knows finite numbers only.")


def decode_part(part: Part, *, raw: bool) -> dict[str, Any]:
    """The members of a message that say what it is. `raw`: the answer can carry bytes as they are."""
    if part.body_bytes == len(part.data):  # plain text, as most are
        return {"body": str(part.data, "utf-8"), "attributes": {}}
    properties = decode_properties(part.properties)
    attributes = properties.attributes
    told: dict[str, Any] = {"attributes": attributes}
    if properties.binary:
        told["body" if raw else "body_base64"] = bytes(part.body)
    else:
        told["body"] = str(part.body, "utf-8")
    if properties.routing_key:
        told["routing_key"] = properties.routing_key
    types = {name: "Binary" for name, value in attributes.items() if type(value) is bytes}
    types |= {name: each.type for name, each in properties.types.items()}
    return told | {"attribute_types": types} if types else told


def listed_message(listed: Listed, part: Part, *, raw: bool) -> dict[str, Any]:
    """A message as it stands, for who looks at it without leasing it."""
    told = {
        "message_id": listed.message_id,
        "state": listed.state,
        "attempts": listed.attempts,
        "due": timestamp(listed.due_ms) if listed.due_ms else None,
        **decode_part(part, raw=raw),
        "timestamp": timestamp(listed.sent_ms),
        **told_about(listed.about),
    }
    if listed.last_ms:
        told["last_delivered"] = timestamp(listed.last_ms)
    if listed.consumer:
        told["consumer"] = listed.consumer
    return told


def receipt(message_id: int, token: int) -> str:
    """What proves that a message was delivered under a lease."""
    return f"{_RECEIPT_VERSION}{token:016x}{message_id:x}"


def read_receipt(text: str) -> tuple[int, int] | None:
    """Message id and token of a receipt, or None if it is not one."""
    if not _RECEIPT.fullmatch(text):
        return None
    message_id, token = int(text[17:], 16), int(text[1:17], 16)
    return (message_id, token) if 0 < token < 2**63 else None


class Settling(NamedTuple):
    """What receipts ask for. `known`: message id and token of each, None for what is no receipt.

    `rounds`: claims to settle one after another. A message named under several leases has one claim a round, because an
    outcome tells what was stale by the message's id alone; all else is in the first.
    """

    known: list[tuple[int, int] | None]
    rounds: list[list[Claim]]


def read_receipts(receipts: Sequence[str]) -> Settling:
    """Claims for the receipts, each asked for once, runs of one lease put together."""
    known = [read_receipt(text) for text in receipts]
    rounds: list[list[tuple[int, int]]] = []
    leases_of: dict[int, int] = {}
    for message_id, token in dict.fromkeys(pair for pair in known if pair is not None):
        number = leases_of.get(message_id, 0)
        leases_of[message_id] = number + 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append((message_id, token))
    return Settling(known, [_claims(pairs) for pairs in rounds])


def _claims(pairs: list[tuple[int, int]]) -> list[Claim]:
    claims: list[Claim] = []
    first, held_under, end = 0, 0, 0
    for message_id, token in pairs:
        if message_id != end or token != held_under:
            if held_under:
                claims.append(Claim(held_under, first, end - first))
            first, held_under = message_id, token
        end = message_id + 1
    claims.append(Claim(held_under, first, end - first))
    return claims


def not_held(claims: Iterable[Claim], outcome: Settled) -> set[tuple[int, int]]:
    """Message id and token of each claimed message that was no longer held."""
    missed = set(outcome.stale)
    held = ((id_, claim.token) for claim in claims for id_ in range(claim.message_id, claim.message_id + claim.count))
    return {pair for pair in held if pair[0] in missed} if missed else set()
