"""The query protocol: numbered parameters in, XML out. `api.aws.shapes` tells how members are named in it.

Parameters make a tree along their dots, and each member of a shape reads its own branch:

    Attribute.1.Name=a & Attribute.1.Value=b   →   {"Attribute": {"1": {"Name": "a", "Value": "b"}}}   →   {"a": "b"}

What reads and what writes a shape is put together once from its types, and kept.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

import msgspec
from msgspec.structs import FieldInfo

from api.aws.errors import AwsError, common
from api.aws.shapes import Entries, Flat, Shape

PARAMETERS_MAX = 10_000
"""Parameters of one request: ten messages with ten attributes need a tenth of it."""
FORM_BYTES_MAX = 4 * 1024 * 1024
"""Bytes of one form: the largest batch, 1 MiB, with every byte as %XX, has room. Reading takes 0.13 s a MiB, in which
the gateway does nothing else."""
_DEPTH_MAX = 8
"""Dots of a parameter's name that are looked at: no shape is deeper."""

_S = TypeVar("_S", bound=Shape)
_Tree = dict[Any, Any]
_Read = Callable[[_Tree], Any]
_Write = Callable[[str, Any], Iterator[str]]
_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_NUMBER = re.compile(r"\d{1,100}", re.ASCII)
"""A number in a parameter's name: what is longer is a name like any other, and Python would not read it."""
_ITSELF = None
"""Where a node keeps the value of the parameter that ends there: no part of a name, which may be empty, is the same."""
_ESCAPES = {"\r": "&#xD;", '"': "&quot;"}
"""NB: a carriage return that is not escaped becomes a line feed when XML is read."""


def parameters(*encoded: bytes) -> dict[str, str]:
    """The parameters of form bodies and query strings; of one given twice, the last. Raises `AwsError`."""
    found: dict[str, str] = {}
    if sum(map(len, encoded)) > FORM_BYTES_MAX:
        said = f"The parameters have more than {FORM_BYTES_MAX} bytes. Send smaller batches."
        raise common("RequestEntityTooLargeException", said)
    try:
        for text in encoded:
            pairs = parse_qsl(
                text.decode("ascii"),
                keep_blank_values=True,
                encoding="utf-8",
                errors="strict",
                max_num_fields=PARAMETERS_MAX,
            )
            found.update(pairs)
    except ValueError:
        raise common("SerializationException", "The parameters cannot be read: send them URL-encoded.") from None
    return found


# --- reading ----------------------------------------------------------------------------------------------------------


def parse(given: dict[str, str], kind: type[_S]) -> _S:
    """The request of this kind that the parameters make. Raises `AwsError`, and `msgspec.ValidationError`."""
    return msgspec.convert(_reader(kind)(_tree(given)) or {}, kind)


def _tree(given: dict[str, str]) -> _Tree:
    root: _Tree = {}
    for name, value in given.items():
        node = root
        for part in name.split(".", _DEPTH_MAX):
            node = node.setdefault(part, {})
        node[_ITSELF] = value
    return root


@cache
def _reader(kind: type[Shape]) -> _Read:
    members = [(field.encode_name, _member_reader(field)) for field in _fields(kind)]

    def read(node: _Tree) -> _Tree | None:
        found = {name: value for name, reader in members if (value := reader(node)) is not None}
        return found or None

    return read


def _member_reader(field: FieldInfo) -> _Read:
    """What finds a member in its parent's node. A list that has to be there and is not is one with nothing in it."""
    name = field.encode_name
    kind, form = _told(field.type)
    element, inner = (form.element, None) if isinstance(form, Flat) else (name, _WITHIN.get(get_origin(kind)))
    read = _value_reader(name, kind, form)
    empty = get_origin(kind) if field.required else None

    def find(parent: _Tree) -> Any:
        node = parent.get(element)
        if node is not None and inner is not None:
            node = node.get(inner, node)
        if node is None:
            return empty() if empty is not None else None
        return read(node)

    return find


_WITHIN = {list: "member", dict: "entry"}
"""The name between a list's or a map's own and the number, unless it is flat."""


def _value_reader(name: str, kind: Any, form: Flat | Entries | None) -> _Read:
    origin = get_origin(kind)
    if origin is list:
        item = _value_reader(name, get_args(kind)[0], None)
        return lambda node: [item(each) for each in _numbered(node)]
    if origin is dict:
        key_name, value_name = (form.key, form.value) if form is not None else ("key", "value")
        value = _value_reader(name, get_args(kind)[1], None)
        return lambda node: {
            each.get(key_name, {}).get(_ITSELF, ""): value(each.get(value_name, {})) or _nothing(kind)
            for each in _numbered(node)
        }
    if isinstance(kind, type) and issubclass(kind, Shape):
        return _reader(kind)
    convert = _SCALARS[kind]

    def read(node: _Tree) -> Any:
        text = node.get(_ITSELF)
        return None if text is None else convert(name, text)

    return read


def _nothing(kind: Any) -> Any:
    """The value of an entry that gives none."""
    return "" if get_args(kind)[1] is str else {}


def _numbered(node: _Tree) -> list[_Tree]:
    """A list's nodes in order of their numbers."""
    return [node[number] for number in sorted((part for part in node if part and _NUMBER.fullmatch(part)), key=int)]


def _integer(name: str, text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise _unreadable(name, text, "an integer")
    return int(text)


def _flag(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise _unreadable(name, text, "true or false")
    return text.lower() == "true"


def _bytes(name: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _unreadable(name, text, "base64") from None


def _unreadable(name: str, text: str, wanted: str) -> AwsError:
    return common(
        "SerializationException", f"Value {text[:100]} for parameter {name} is invalid. Reason: Must be {wanted}."
    )


_SCALARS: dict[Any, Callable[[str, str], Any]] = {
    str: lambda _, text: text,
    int: _integer,
    bool: _flag,
    bytes: _bytes,
}


# --- writing ----------------------------------------------------------------------------------------------------------


def render(action: str, namespace: str, answer: Shape | None, request_id: str) -> bytes:
    """A response as XML."""
    result = "" if answer is None else f"<{action}Result>{''.join(_writer(type(answer))(answer))}</{action}Result>"
    return (
        f'<?xml version="1.0"?><{action}Response xmlns="{namespace}">{result}'
        f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{action}Response>"
    ).encode()


def render_error(namespace: str, error: AwsError, message: str, request_id: str) -> bytes:
    """A refusal as XML."""
    fault = "Sender" if error.is_senders_fault else "Receiver"
    return (
        f'<?xml version="1.0"?><ErrorResponse xmlns="{namespace}"><Error><Type>{fault}</Type><Code>{error.code}</Code>'
        f"<Message>{_text(message)}</Message><Detail/></Error><RequestId>{request_id}</RequestId></ErrorResponse>"
    ).encode()


@cache
def _writer(kind: type[Shape]) -> Callable[[Shape], Iterator[str]]:
    members = [(field.name, field.encode_name, _member_writer(field.type)) for field in _fields(kind)]

    def write(shape: Shape) -> Iterator[str]:
        for attribute, name, writer in members:
            value = getattr(shape, attribute)
            if value is not None:
                yield from writer(name, value)

    return write


def _member_writer(annotated: Any) -> _Write:
    kind, form = _told(annotated)
    origin = get_origin(kind)
    if origin is list:
        item = _value_writer(get_args(kind)[0])
        if isinstance(form, Flat):
            return lambda name, values: (part for each in values for part in item(form.element, each))
        return lambda name, values: _within(name, (part for each in values for part in item("member", each)))
    if origin is dict:
        return _map_writer(_value_writer(get_args(kind)[1]), form)
    return _value_writer(kind)


def _map_writer(value: _Write, form: Flat | Entries | None) -> _Write:
    key_name, value_name = (form.key, form.value) if form is not None else ("key", "value")

    def entries(element: str, values: dict[str, Any]) -> Iterator[str]:
        for key, each in values.items():
            yield f"<{element}><{key_name}>{_text(key)}</{key_name}>"
            yield from value(value_name, each)
            yield f"</{element}>"

    if isinstance(form, Flat):
        return lambda name, values: entries(form.element, values)
    return lambda name, values: _within(name, entries("entry", values))


def _value_writer(kind: Any) -> _Write:
    if isinstance(kind, type) and issubclass(kind, Shape):
        inner = _writer(kind)
        return lambda name, shape: _within(name, inner(shape))
    return lambda name, value: iter((f"<{name}>{_scalar(value)}</{name}>",))


def _within(name: str, inner: Iterator[str]) -> Iterator[str]:
    yield f"<{name}>"
    yield from inner
    yield f"</{name}>"


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return _text(str(value))


def _text(text: str) -> str:
    return escape(text, _ESCAPES)


# --- types ------------------------------------------------------------------------------------------------------------


def _fields(kind: type[Shape]) -> tuple[FieldInfo, ...]:
    return msgspec.structs.fields(kind)


def _told(annotated: Any) -> tuple[Any, Flat | Entries | None]:
    """A member's type without its being optional, and the form it is given."""
    form = next((each for each in getattr(annotated, "__metadata__", ()) if isinstance(each, Flat | Entries)), None)
    kind = getattr(annotated, "__origin__", annotated) if form is not None else annotated
    if isinstance(kind, UnionType):
        kind = next(each for each in get_args(kind) if each is not NoneType)
    return kind, form
