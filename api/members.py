"""Members over HTTP: added, moved and removed, each answered when the change is committed. See `cluster.membership`.

Every request says how it shall be in the end, so that it may be repeated, on any node.
"""

from __future__ import annotations

from typing import Literal

from aiohttp import web

from api.config import NODE_NAME, Address, ConfigError
from api.problem import Problem, invalid
from api.request import SETTINGS, Wish, answer, read
from api.rest import CLIENT
from cluster.membership import ChangeRefusedError

_REFUSALS: dict[str, tuple[int, str, str]] = {
    # code: (status, title, remedy)
    "name_in_use": (409, "The name is in use", "Choose another name; an address is changed with PATCH."),
    "name_removed": (409, "The name was used before", "Choose a name that the cluster never had."),
    "address_in_use": (409, "The address is in use", "Give each node its own address."),
    "too_many_members": (409, "There are too many members", "Remove one first."),
    "not_a_member": (404, "There is no such member", "GET /v1/cluster shows the members."),
    "last_voter": (409, "The last voter cannot be removed", "Add another node first."),
    "no_majority_left": (409, "Too few would be left", "Bring the other nodes back first, or remove one that is gone."),
    "no_heir": (409, "Nobody can take over", "Wait until another voter has caught up, and ask again."),
    "change_under_way": (409, "Another change is under way", "Ask again in a moment."),
}


class MemberIn(Wish):
    """Where the other nodes reach the member: HOST:PORT of its raft port."""

    address: str


def _name(request: web.Request) -> str:
    name = request.match_info["member"]
    if not NODE_NAME.fullmatch(name):
        raise invalid("member", "this is no name for a node", "Use 1 to 32 letters, digits, - and _.", 32)
    return name


async def _address(request: web.Request) -> str:
    wish = await read(request, MemberIn)
    try:
        return str(Address.parse(wish.address))
    except ConfigError as error:
        raise invalid("$.address", str(error), "Send HOST:PORT of the node's raft port.") from None


async def _change(
    request: web.Request, verb: Literal["add", "remove", "move"], name: str, address: str = ""
) -> web.Response:
    app = request.config_dict
    try:
        await app[CLIENT].change(verb, name, address, timeout_ms=app[SETTINGS].request_timeout_ms)
    except ChangeRefusedError as refused:
        status, title, remedy = _REFUSALS[refused.code]
        raise Problem(status, refused.code.replace("_", "-"), title, f"{refused.detail}.", remedy=remedy) from None
    return answer(request, {"name": name} | ({"address": address} if address else {}))


async def add(request: web.Request) -> web.Response:
    """A new member: it learns until it holds everything, and then becomes a voter by itself."""
    return await _change(request, "add", _name(request), await _address(request))


async def move(request: web.Request) -> web.Response:
    """A member is at another address."""
    return await _change(request, "move", _name(request), await _address(request))


async def remove(request: web.Request) -> web.Response:
    """A member is none any more, and its name never will be one again."""
    return await _change(request, "remove", _name(request))


ROUTES = (
    web.put("/v1/cluster/members/{member}", add),
    web.patch("/v1/cluster/members/{member}", move),
    web.delete("/v1/cluster/members/{member}", remove),
)
