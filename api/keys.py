"""Access keys over HTTP: made, listed, revoked. A secret is told once, in the answer to the request that made it."""

from __future__ import annotations

import secrets
import string
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web

from api.access import KEYS
from api.options import check_text
from api.problem import SERVER, Problem, invalid
from api.request import Wish, answer, read
from api.rest import submit
from api.sealing import SealError
from api.times import timestamp
from storage import codes
from storage.access import ADMIN, ALL_QUEUES, KEY_ID, is_pattern
from storage.access_operations import AccessKeyList, AccessKeyMade, CreateAccessKey, ListAccessKeys, RevokeAccessKey
from storage.limits import ACCESS_NOTE_BYTES_MAX, ACCESS_PATTERN_STARS_MAX, ACCESS_PATTERNS_MAX
from storage.records import AccessKey

ID_PREFIX, ID_CHARACTERS = "TRI", 20
SECRET_CHARACTERS = 40
"""Letters and digits: 238 bits, and nothing that a shell or a URL would take for its own."""

Role = Literal["producer", "consumer", "manager", "admin"]


class KeyIn(Wish):
    """A key to make."""

    roles: Annotated[list[Role], msgspec.Meta(min_length=1, max_length=4)]
    queues: Annotated[list[str], msgspec.Meta(min_length=1, max_length=ACCESS_PATTERNS_MAX)] = msgspec.field(
        default_factory=lambda: [ALL_QUEUES]
    )
    note: str = ""


async def create(request: web.Request) -> web.Response:
    """Make a key, and tell its secret: nobody ever will again."""
    wish = await read(request, KeyIn)
    roles: list[str] = list(dict.fromkeys(wish.roles))
    for position, pattern in enumerate(wish.queues):
        if not is_pattern(pattern):
            said = f"a name of a queue is needed, with at most {ACCESS_PATTERN_STARS_MAX} stars for any characters"
            raise invalid(f"$.queues[{position}]", said, "Use A-Z a-z 0-9 _ - . and *, such as orders-*.", 100)
    if ADMIN in roles and wish.queues != [ALL_QUEUES]:
        raise invalid("$.queues", "an admin's key is for all queues", "Leave them out, or make it a manager's.")
    check_text(wish.note, ACCESS_NOTE_BYTES_MAX, "$.note", empty=True)
    key_id, secret = _new_id(), _random(string.ascii_letters + string.digits, SECRET_CHARACTERS)
    ring = request.config_dict[KEYS]
    try:
        sealed = ring.seal(key_id, secret)
        outcome = (await submit(request, CreateAccessKey(key_id, sealed, roles, wish.queues, wish.note))).outcome
        assert isinstance(outcome, AccessKeyMade)
        # Repeated under its Idempotency-Key, it is another gateway that has chosen the secret.
        told = ring.unseal(outcome.key)
    except SealError as error:
        remedy = "See docs/security.md, The seal key."
        raise Problem(409, "no-seal-key", "Keys cannot be made here", f"{error}.", remedy=remedy) from error
    return answer(request, {**_shown(outcome.key), "secret": told}, 201)


def _new_id() -> str:
    return ID_PREFIX + _random(string.ascii_uppercase + "234567", ID_CHARACTERS - len(ID_PREFIX))


def _random(characters: str, count: int) -> str:
    return "".join(secrets.choice(characters) for _ in range(count))


async def list_keys(request: web.Request) -> web.Response:
    """All keys, without their secrets."""
    return answer(request, {"keys": [_shown(key) for key in await _keys(request)]})


async def show(request: web.Request) -> web.Response:
    """One key, without its secret."""
    key_id = _key_id(request)
    for key in await _keys(request):
        if key.id == key_id:
            return answer(request, _shown(key))
    title, remedy = "There is no such access key", "GET /v1/keys lists them."
    raise Problem(404, codes.ACCESS_KEY_NOT_FOUND.replace("_", "-"), title, f"{title}.", remedy=remedy)


async def revoke(request: web.Request) -> web.Response:
    """A key is none any more."""
    await submit(request, RevokeAccessKey(_key_id(request)))
    return web.Response(status=204, headers={"Server": SERVER})


async def _keys(request: web.Request) -> list[AccessKey]:
    outcome = (await submit(request, ListAccessKeys())).outcome
    assert isinstance(outcome, AccessKeyList)
    return outcome.keys


def _key_id(request: web.Request) -> str:
    key_id = request.match_info["key"]
    if not KEY_ID.fullmatch(key_id):
        raise invalid("key", "this is no id of a key", "Ids are capital letters and digits, as `keys create` told.", 32)
    return key_id


def _shown(key: AccessKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "roles": key.roles,
        "queues": key.queues,
        "note": key.note,
        "created": timestamp(key.created_ms),
    }


ROUTES = (
    web.get("/v1/keys", list_keys, allow_head=False),
    web.post("/v1/keys", create),
    web.get("/v1/keys/{key}", show, allow_head=False),
    web.delete("/v1/keys/{key}", revoke),
)
