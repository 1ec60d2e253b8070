"""W3C trace context: what a request to send names as its trace goes along with its messages, as attributes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec
from aiohttp import web

from api.messages import ATTRIBUTES_MAX, MessageIn, PackedMessageIn

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
_TRACESTATE = re.compile(r"[ -~]{1,512}", re.ASCII)
"""As long as every implementation passes it on: https://www.w3.org/TR/trace-context/#tracestate-limits"""


def trace_of(request: web.Request) -> dict[str, str]:
    """The trace that the request is part of, as attributes. What is no traceparent is ignored, as the standard says."""
    parent = request.headers.get("traceparent")
    if parent is None or not _TRACEPARENT.fullmatch(parent):
        return {}
    state = ",".join(request.headers.getall("tracestate", []))
    return {TRACEPARENT: parent, **({TRACESTATE: state} if _TRACESTATE.fullmatch(state) else {})}


def carry(trace: Mapping[str, str], messages: Iterable[MessageIn | PackedMessageIn]) -> None:
    """Have the trace go along with messages that name none of their own, and have room for it."""
    if not trace:
        return
    for message in messages:
        given = {} if message.attributes is msgspec.UNSET else message.attributes
        if TRACEPARENT not in given and len(given) + len(trace) <= ATTRIBUTES_MAX:
            message.attributes = {**given, **trace}
