"""Filters as requests carry them: JSON within JSON, or within msgpack."""

from __future__ import annotations

import msgspec
from aiohttp import web

from api.problem import invalid
from api.request import MSGPACK, media_type
from storage.conditions import FilterError
from storage.filters import On, compile_filter
from storage.limits import SELECTOR_BYTES_MAX


def read_selector(request: web.Request, given: msgspec.Raw | msgspec.UnsetType, on: On) -> str:
    """The filter of a receive; empty: none. Those that differ in white space alone are one. Raises `Problem`."""
    if given is msgspec.UNSET or bytes(given) in (b"null", b"\xc0"):
        return ""
    text = msgspec.json.format(read_filter(request, given, on, "$.filter"), indent=-1)
    size = len(text.encode())
    if size > SELECTOR_BYTES_MAX:
        detail = f"the filter has {size} bytes, at most {SELECTOR_BYTES_MAX} are allowed for a receive"
        raise invalid("$.filter", detail, "Say less, or have a topic filter.", SELECTOR_BYTES_MAX)
    return text


def read_filter(request: web.Request, given: msgspec.Raw, on: On, field: str) -> str:
    """The filter's JSON, checked. Raises `Problem`, which says where the fault is."""
    raw = bytes(given)
    if media_type(request) == MSGPACK:
        raw = msgspec.json.encode(msgspec.msgpack.decode(raw))
    text = raw.decode()
    try:
        compile_filter(text, on)
    except FilterError as error:
        raise invalid(
            f"{field}{error.position}", error.reason, "docs/filters.md has the language.", error.limit
        ) from None
    return text
