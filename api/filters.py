"""Filters as requests carry them: JSON within JSON, or within msgpack."""

from __future__ import annotations

import msgspec
from aiohttp import web

from api.problem import invalid
from api.request import MSGPACK
from storage.conditions import FilterError
from storage.filters import On, compile_filter


def read_filter(request: web.Request, given: msgspec.Raw, on: On, field: str) -> str:
    """The filter's JSON, checked. Raises `Problem`, which says where the fault is."""
    raw = bytes(given)
    if request.content_type == MSGPACK:
        raw = msgspec.json.encode(msgspec.msgpack.decode(raw))
    text = raw.decode()
    try:
        compile_filter(text, on)
    except FilterError as error:
        raise invalid(
            f"{field}{error.position}", error.reason, "docs/filters.md has the language.", error.limit
        ) from None
    return text
