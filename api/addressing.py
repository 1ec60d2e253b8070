"""A message is a resource: read, changed, cancelled and asked about by its id, in whatever state it is."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
from aiohttp import web

from api.messages import ChangeIn, PackedChangeIn, encode_attributes, listed_message
from api.options import refuse_two_times
from api.problem import SERVER, Problem, invalid, refused
from api.properties import decode_properties
from api.request import answer, path_number, queue_name, read_either, wants_msgpack
from api.rest import query, submit
from api.times import read_time, timestamp
from storage import history
from storage.block import parts
from storage.message_operations import AskWhy, CancelMessage, ChangeMessage, GetHistory, GetMessage, Page, Reasons, Told
from storage.records import Event


def _given(wish: ChangeIn | PackedChangeIn) -> dict[str, Any]:
    named = {name: getattr(wish, name) for name in wish.__struct_fields__}
    return {name: value for name, value in named.items() if value is not msgspec.UNSET}


def _message_id(request: web.Request) -> int:
    return path_number(request, "message_id", "Use the message_id that the send was answered with.")


async def get_message(request: web.Request) -> web.Response:
    """One message, whatever its state, without leasing it."""
    (page, block), headers = await query(request, GetMessage(queue_name(request), _message_id(request)))
    assert isinstance(page, Page)
    (part,) = parts(block, 1)
    return answer(request, listed_message(page.messages[0], part, raw=wants_msgpack(request)), headers=headers)


async def change_message(request: web.Request) -> web.Response:
    """Change a message that nobody holds."""
    queue, message_id = queue_name(request), _message_id(request)
    wish = await read_either(request, ChangeIn, PackedChangeIn)
    given = _given(wish)
    if not given:
        remedy = f"Give at least one of {', '.join(wish.__struct_fields__)}."
        raise invalid("$", "there is nothing to change", remedy)
    refuse_two_times(wish.delay_ms, wish.at, "$")
    if "at" in given:
        given["at_ms"] = read_time(given.pop("at"), "$.at")
    if given.keys() & {"attributes", "attribute_types"}:
        given = {name: value for name, value in given.items() if not name.startswith("attribute")}
        given["properties"] = await _new_properties(request, queue, message_id, wish)
    await submit(request, ChangeMessage(queue, message_id, **given), tell=partial(refused, place="$"))
    return web.Response(status=204, headers={"Server": SERVER})


async def _new_properties(
    request: web.Request, queue: str, message_id: int, wish: ChangeIn | PackedChangeIn
) -> bytes | None:
    """The message's properties with other attributes. What else they say belongs to the body, which never changes."""
    try:
        outcome, block = await submit(request, GetMessage(queue, message_id))
    except Problem as problem:
        if problem.status != 404 or "Idempotency-Key" not in request.headers:
            raise
        return None  # perhaps it is gone since this very request was carried out: the rules remember
    assert isinstance(outcome, Page)
    (part,) = parts(block, 1)
    return encode_attributes(decode_properties(part.properties), wish, "$")


async def cancel_message(request: web.Request) -> web.Response:
    """Forget a message, whatever its state."""
    await submit(request, CancelMessage(queue_name(request), _message_id(request)))
    return web.Response(status=204, headers={"Server": SERVER})


async def get_history(request: web.Request) -> web.Response:
    """What happened to a message, as far as it is kept."""
    message_id = _message_id(request)
    (told, _), headers = await query(request, GetHistory(queue_name(request), message_id))
    assert isinstance(told, Told)
    document = {
        "message_id": message_id,
        "timestamp": timestamp(told.sent_ms),
        "here": told.here,
        "events": [_told(event) for event in told.events],
        "forgotten": told.forgotten,
    }
    return answer(request, document, headers=headers)


def _told(event: Event) -> dict[str, Any]:
    who = "queue" if event.what in history.OF_QUEUES else "consumer"
    more = {who: event.who, "reason": event.why}
    named = {name: text for name, text in more.items() if text}
    return {"timestamp": timestamp(event.at_ms), "event": event.what, **named}


async def ask_why(request: web.Request) -> web.Response:
    """Why a message is not being delivered now."""
    message_id = _message_id(request)
    (found, _), headers = await query(request, AskWhy(queue_name(request), message_id))
    assert isinstance(found, Reasons)
    reasons = []
    for reason in found.reasons:
        more = {"until": timestamp(reason.until_ms) if reason.until_ms else "", "detail": reason.detail}
        reasons.append({"code": reason.code, **{name: text for name, text in more.items() if text}})
    return answer(request, {"message_id": message_id, "state": found.state, "reasons": reasons}, headers=headers)


_MESSAGE = "/v1/queues/{queue}/messages/{message_id}"
ROUTES = (
    web.get(_MESSAGE, get_message, allow_head=False),
    web.patch(_MESSAGE, change_message),
    web.delete(_MESSAGE, cancel_message),
    web.get(f"{_MESSAGE}/history", get_history, allow_head=False),
    web.get(f"{_MESSAGE}/why", ask_why, allow_head=False),
)
