"""CloudEvents over HTTP: a send may be an event, in binary, structured or batched mode.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md

In whatever mode it came, an event is kept the same way: its data is the body, its context attributes are attributes of
the message named `ce-…`, as text, and `content-type` says what the data is. `partitionkey` is the message's group;
source and id, which tell an event from all others, are its dedup id.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, TypeVar
from urllib.parse import unquote

import msgspec
from aiohttp import web

from api.messages import MessageIn, PackedMessageIn
from api.problem import invalid
from api.request import media_type, read_bytes
from storage.limits import BATCH_MESSAGES_MAX, DEDUP_BYTES_MAX

EVENT, EVENTS = "application/cloudevents+json", "application/cloudevents-batch+json"
_PREFIX = "ce-"
_NAME = re.compile(r"[a-z0-9]+", re.ASCII)
_REQUIRED = ("id", "source", "type")
_DATA = ("data", "data_base64")
_JSON = re.compile(r"(.*[/+])json", re.ASCII)
_TEXT = re.compile(r"text/.*|(.*[/+])(json|xml)|application/(javascript|x-www-form-urlencoded)", re.ASCII)

_T = TypeVar("_T")


def is_event(request: web.Request) -> bool:
    """Whether a send is an event, or a batch of them."""
    return "ce-specversion" in request.headers or media_type(request) in (EVENT, EVENTS)


async def read_events(request: web.Request) -> tuple[list[MessageIn | PackedMessageIn], str]:
    """The events of a request as messages to send, and where each stands. Raises `Problem`."""
    if "ce-specversion" in request.headers:
        return [await _binary(request)], "$"
    if media_type(request) == EVENT:
        return [_structured(await read_bytes(request), "$")], "$"
    events = _decoded(await read_bytes(request), list[msgspec.Raw], "$")
    if not 0 < len(events) <= BATCH_MESSAGES_MAX:
        detail = f"{len(events)} events, 1 to {BATCH_MESSAGES_MAX} are allowed"
        raise invalid("$", detail, "Send other batches.", BATCH_MESSAGES_MAX)
    return [_structured(bytes(event), f"$[{position}]") for position, event in enumerate(events)], "$[{position}]"


def _decoded(data: bytes, kind: type[_T], place: str) -> _T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise invalid(place, "this is no event in JSON", "Send one object, or an array of them for a batch.") from None


async def _binary(request: web.Request) -> MessageIn | PackedMessageIn:
    context: dict[str, str] = {}
    for header, value in request.headers.items():
        name = header.lower()
        if name.startswith(_PREFIX):
            if name.removeprefix(_PREFIX) in context:
                raise invalid(name, "the header stands twice", "Name each attribute once.")
            context[name.removeprefix(_PREFIX)] = unquote(_checked(value, name))
    content_type = _checked(request.headers.get("Content-Type", ""), "content-type")
    return _message(context, content_type, await read_bytes(request), _PREFIX)


def _checked(value: str, name: str) -> str:
    """A header's value, which may have been any bytes."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise invalid(name, "the header is not UTF-8", "Percent-encode what is not ASCII.") from None
    return value


def _structured(data: bytes, place: str) -> MessageIn | PackedMessageIn:
    event = _decoded(data, dict[str, msgspec.Raw], place)
    if len(_names(data, place)) != len(event):
        raise invalid(place, "a member stands twice", "Name each member once.")
    context: dict[str, str] = {}
    for name, raw in event.items():
        if name in _DATA:
            continue
        text = _as_text(_decoded(bytes(raw), Any, f"{place}.{name}"), f"{place}.{name}")
        if text is not None:
            context[name] = text
    content_type = context.pop("datacontenttype", "application/json")
    if "data" in event and "data_base64" in event:
        raise invalid(f"{place}.data", "there is a data_base64 as well", "Give one of them.")
    body = bytes(event.get("data", b""))
    if "data_base64" in event:
        body = _decoded(bytes(event["data_base64"]), bytes, f"{place}.data_base64")
    elif body[:1] == b'"' and not _JSON.fullmatch(_media_type(content_type)):
        body = _decoded(body, str, f"{place}.data").encode()
    return _message(context, content_type, body, f"{place}.")


def _names(data: bytes, place: str) -> list[str]:
    """The names of an object's members, those that stand twice as well."""
    try:
        return [name for name, _ in json.loads(data, object_pairs_hook=list)]
    except (ValueError, RecursionError):  # the data in it is nested deeper, or has longer numbers, than Python reads
        raise invalid(place, "this is no event in JSON", "Send less nested data, or send it in binary mode.") from None


def _as_text(value: Any, field: str) -> str | None:
    """The canonical text of a context attribute's value; null is as good as not there."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    raise invalid(field, "a context attribute is text, an integer, true or false", "Put other values into the data.")


def _message(context: dict[str, str], content_type: str, body: bytes, place: str) -> MessageIn | PackedMessageIn:
    """`place`: what stands before an attribute's name where the problem is told."""
    if context.get("specversion") != "1.0":
        raise invalid(f"{place}specversion", "only CloudEvents 1.0 are known", "Send specversion 1.0.")
    for name in _REQUIRED:
        if not context.get(name):
            raise invalid(f"{place}{name}", "an event has one", "Give it.")
    for name in context:
        if not _NAME.fullmatch(name):
            raise invalid(f"{place}{name}", "a context attribute's name is lower-case letters and digits", "Rename it.")
    attributes: dict[str, Any] = {f"{_PREFIX}{name}": text for name, text in context.items()}
    if content_type:
        attributes["content-type"] = content_type
    options: dict[str, Any] = {"attributes": attributes, "dedup_id": _dedup_id(context["source"], context["id"])}
    if context.get("partitionkey"):
        options["group"] = context["partitionkey"]
    text = _text(content_type, body)
    return PackedMessageIn(body=body, **options) if text is None else MessageIn(body=text, **options)


def _dedup_id(source: str, event_id: str) -> str:
    name = f"{source} {event_id}"
    if len(name.encode()) <= DEDUP_BYTES_MAX and " " not in source:
        return name
    return hashlib.blake2b(f"{len(source)} {name}".encode(), digest_size=32).hexdigest()


def _text(content_type: str, body: bytes) -> str | None:
    """The body as text, if that is what it is."""
    if body and not _TEXT.fullmatch(_media_type(content_type)):
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
