"""Producers and consumers as resources: who is registered, and how active each is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from api.options import check_text
from api.problem import SERVER, invalid
from api.request import Wish, answer, integer, read
from api.rest import query, submit
from api.times import timestamp
from storage.limits import CONSUMER_BYTES_MAX, PARTY_TEXT_BYTES_MAX
from storage.party_operations import DeleteParty, GetParty, Kind, ListParties, PartyList, PartyPut, PutParty

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PartyIn(Wish):
    """What a producer or consumer is called, and of what type it is: both are the users' own words."""

    name: str = ""
    type: str = ""


def _id(request: web.Request, kind: Kind) -> str:
    party_id = request.match_info[kind]
    if not party_id.isprintable() or len(party_id.encode()) > CONSUMER_BYTES_MAX:
        detail = f"an id has 1 to {CONSUMER_BYTES_MAX} bytes of printable characters"
        remedy = "Use what messages and receives say as their producer and consumer."
        raise invalid(kind, detail, remedy, CONSUMER_BYTES_MAX)
    return party_id


def _told(found: PartyList, kind: Kind) -> list[dict[str, Any]]:
    """Producers or consumers as clients see them."""
    told: list[dict[str, Any]] = [
        {
            "id": party.id,
            "name": party.name,
            "type": party.type,
            "registered": timestamp(party.created_ms),
            "seen": timestamp(party.seen_ms) if party.seen_ms else None,
        }
        for party in found.parties
    ]
    if kind == "consumer" and found.waiting is not None:
        for each, waiting in zip(told, found.waiting, strict=True):
            each["waiting"] = waiting
    return told


def _put(kind: Kind) -> Handler:
    async def put(request: web.Request) -> web.Response:
        party_id, wish = _id(request, kind), await read(request, PartyIn)
        for field in ("name", "type"):
            check_text(getattr(wish, field), PARTY_TEXT_BYTES_MAX, f"$.{field}", empty=True)
        outcome = (await submit(request, PutParty(kind, party_id, wish.name or party_id, wish.type))).outcome
        assert isinstance(outcome, PartyPut)
        return answer(request, {"id": party_id, "changed": outcome.changed}, 201 if outcome.created else 200)

    return put


def _list(kind: Kind) -> Handler:
    async def list_(request: web.Request) -> web.Response:
        limit = integer(request, "limit", 1000, 1, 1000)
        (found, _), headers = await query(request, ListParties(kind, request.query.get("after", ""), limit))
        assert isinstance(found, PartyList)
        return answer(request, {f"{kind}s": _told(found, kind)}, headers=headers)

    return list_


def _get(kind: Kind) -> Handler:
    async def get(request: web.Request) -> web.Response:
        (found, _), headers = await query(request, GetParty(kind, _id(request, kind)))
        assert isinstance(found, PartyList)
        return answer(request, _told(found, kind)[0], headers=headers)

    return get


def _delete(kind: Kind) -> Handler:
    async def delete(request: web.Request) -> web.Response:
        await submit(request, DeleteParty(kind, _id(request, kind)))
        return web.Response(status=204, headers={"Server": SERVER})

    return delete


def _routes(kind: Kind) -> tuple[web.RouteDef, ...]:
    one = f"/v1/{kind}s/{{{kind}}}"
    return (
        web.get(f"/v1/{kind}s", _list(kind), allow_head=False),
        web.put(one, _put(kind)),
        web.get(one, _get(kind), allow_head=False),
        web.delete(one, _delete(kind)),
    )


ROUTES = (*_routes("producer"), *_routes("consumer"))
