"""Attributes of messages, between SQS's types and the values that the cluster keeps and every API sees.

    SQS                          kept                          elsewhere
    String "a"                   "a"                           "a"
    String.json "{}"             "{}", told String.json        "{}"
    Number "42", Number.x "1.10" 42; 1.1, told Number.x 1.10   42; 1.1
    Number "1e999"               "1e999", told Number          "1e999"
    Binary                       bytes, told Binary            base64 in JSON, bytes in msgpack
    String "true"                true                          true, as it was sent elsewhere

What is told beside a value brings it back to SQS exactly as it was sent: see `api.properties`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite
from typing import Any

from api.aws.digests import Attribute
from api.properties import Told

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,5})?", re.ASCII)
_NUMBER_CHARACTERS_MAX = 256
"""SQS's numbers have 38 digits; reading much longer ones takes more than linear time."""
_INTEGER = re.compile(r"[+-]?\d{1,20}", re.ASCII)
_PLAIN = {str: "String", bool: "String", int: "Number", float: "Number", bytes: "Binary"}
"""The type that a value has of itself."""


def is_number(text: str) -> bool:
    """Whether SQS would take it for a number."""
    return len(text) <= _NUMBER_CHARACTERS_MAX and _NUMBER.fullmatch(text) is not None


def keep(attributes: Mapping[str, Attribute]) -> tuple[dict[str, Any], dict[str, Told]]:
    """Values, and what they do not say of themselves."""
    values: dict[str, Any] = {}
    types: dict[str, Told] = {}
    for name, (kind, text) in attributes.items():
        value = values[name] = _number(text) if isinstance(text, str) and kind.startswith("Number") else text
        own = _text(value)
        if kind != _PLAIN[type(value)] or own != text or kind == "Binary":
            types[name] = Told(kind, None if own == text else str(text))
    return values, types


def show(values: Mapping[str, Any], types: Mapping[str, Told]) -> dict[str, Attribute]:
    """The attributes as SQS has them."""
    shown: dict[str, Attribute] = {}
    for name, value in values.items():
        told = types.get(name)
        if told is None:
            shown[name] = Attribute(_PLAIN[type(value)], _text(value))
        else:
            shown[name] = Attribute(told.type, _text(value) if told.text is None else told.text)
    return shown


def _number(text: str) -> int | float | str:
    """The number a text is, or the text where no number of 64 bits comes near."""
    if _INTEGER.fullmatch(text):
        whole = int(text)
        if -(2**63) <= whole < 2**64:
            return whole
    number = float(text)
    return number if isfinite(number) else text


def _text(value: Any) -> str | bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
