"""What filters look at: the attributes of a message, or the fields of its body.

Both are maps from names to values: text, numbers, `True`, `False`, `None`, lists of values, and in bodies maps again.
Numbers are exact: an integer, or a `Decimal` as it was written. An attribute that came as a 64-bit float stands for the
shortest decimal that reads back as it, 0.1 for 0.1.

Every replica must read the same out of the same bytes, so nothing here depends on a setting, a locale or the depth of
the stack: what a parser might take here and refuse there is refused before it sees it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from itertools import accumulate
from typing import Any

import msgspec

from storage.limits import FILTER_BODY_BYTES_MAX, FILTER_BODY_DIGITS_MAX, FILTER_BODY_NESTING_MAX

Fields = Mapping[str, Any]
"""Names and values of one message."""

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?", re.ASCII)
_NUMBER_CHARACTERS_MAX = FILTER_BODY_DIGITS_MAX
_BRACKETS = b"{[}]"
_BUT_BRACKETS = bytes(byte for byte in range(256) if byte not in _BRACKETS)
_STEPS = {ord("{"): 1, ord("["): 1, ord("}"): -1, ord("]"): -1}
_DIGITS_AS_ZERO = bytes(ord("0") if chr(byte) in "0123456789" else ord(" ") for byte in range(256))
_TOO_MANY_DIGITS = b"0" * (FILTER_BODY_DIGITS_MAX + 1)


class _Told(msgspec.Struct, array_like=True):
    type: str
    text: str | None = None


class _Properties(msgspec.Struct):
    """What counts here of a message's properties: attributes, and what SQS's types say of them."""

    a: dict[str, Any] = {}
    t: dict[str, _Told] = {}


def _decimal(text: str) -> Decimal:
    if ("e" in text or "E" in text) and len(text.lower().partition("e")[2].lstrip("+-")) > 4:
        raise ValueError("an exponent has at most four digits")
    return Decimal(text)


_decode_properties = msgspec.msgpack.Decoder(_Properties).decode
_decode_json = msgspec.json.Decoder(float_hook=_decimal).decode


def attribute_fields(properties: bytes | memoryview) -> Fields:
    """The attributes in a message's encoded properties; none if these are empty or cannot be read.

    As in SNS, a String.Array is its elements, or none if it is no JSON, a Number is exact, and bytes do not exist for
    filters. What else stands after a dot in a type is a label.
    """
    if not properties:
        return {}
    try:
        found = _decode_properties(properties)
    except msgspec.DecodeError:
        return {}
    fields = found.a
    if bytes in map(type, fields.values()):
        fields = {name: value for name, value in fields.items() if type(value) is not bytes}
    for name, told in found.t.items():
        text = told.text or fields.get(name)
        if type(text) is not str:
            continue
        if told.type == "String.Array":
            fields[name] = _elements(text)
        elif told.type.startswith("Number") and (exactly := number(text)) is not None:
            fields[name] = exactly
    return fields


def _elements(text: str) -> list[Any]:
    found = _json(text.encode("utf-8", "replace"))
    return found if type(found) is list else []


def body_fields(body: bytes | memoryview) -> Fields | None:
    """The fields of a body that is one JSON object within the limits of `storage.limits.FILTER_BODY_…`, else None."""
    found = _json(bytes(body)) if len(body) <= FILTER_BODY_BYTES_MAX else None
    return found if type(found) is dict else None


def _json(data: bytes) -> Any:
    """The value that the JSON is, or None if it cannot be read."""
    if not _is_tame(data):
        return None
    try:
        return _decode_json(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _is_tame(data: bytes) -> bool:
    """Whether no JSON parser has to go deeper, or to read longer numbers, than every one of them does."""
    if len(data) <= FILTER_BODY_DIGITS_MAX and data.count(b"{") + data.count(b"[") <= FILTER_BODY_NESTING_MAX:
        return True
    bare = without_texts(data)
    return nesting(bare) <= FILTER_BODY_NESTING_MAX and _TOO_MANY_DIGITS not in bare.translate(_DIGITS_AS_ZERO)


def without_texts(data: bytes) -> bytes:
    """JSON without its strings, a space for each. Right up to the first error, if it is no JSON."""
    return b" ".join(data.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])


def nesting(bare: bytes) -> int:
    """How many objects and arrays stand within each other, in JSON `without_texts`."""
    return max(accumulate(map(_STEPS.__getitem__, bare.translate(None, _BUT_BRACKETS))), default=0)


def number(text: str) -> int | Decimal | None:
    """The number that a decimal text is, exactly, or None if it is none."""
    text = text.strip(" ")
    if len(text) > _NUMBER_CHARACTERS_MAX or not _NUMBER.fullmatch(text):
        return None
    return exact(Decimal(text))


def exact(value: object) -> int | Decimal | None:
    """A value as an exact number, or None if it is none. Booleans are no numbers."""
    if type(value) is int or type(value) is Decimal:
        return value
    if type(value) is float and math.isfinite(value):
        return Decimal(repr(value))
    return None
