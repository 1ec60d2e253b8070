"""Whether this node is alive, and whether it is fit to be given work."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from api.drain import DRAIN
from api.request import answer
from api.rest import CLIENT


async def healthz(request: web.Request) -> web.Response:
    """The process answers. No I/O."""
    return answer(request, {"status": "alive"})


async def readyz(request: web.Request) -> web.Response:
    """A leader is known, this node's replica has caught up, its disk has room, and it is not stopping.

    ?verbose=1 tells more.
    """
    status = request.config_dict[CLIENT].status()
    troubles = [f"shard {shard.shard}: {shard.trouble}" for shard in status.shards if shard.trouble is not None]
    if request.config_dict[DRAIN].begun.is_set():
        troubles.append("this node is stopping")
    document: dict[str, Any] = {"status": "not ready" if troubles else "ready"}
    if request.query.get("verbose") == "1":
        document |= {"troubles": troubles, "warnings": status.warnings, "nodes": status.nodes}
    if not troubles:
        return answer(request, document)
    response = answer(request, {**document, "outcome": "not_done"}, 503)
    response.headers["Retry-After"] = "1"
    return response


async def root(request: web.Request) -> web.Response:
    """Where to look."""
    return answer(request, {"name": "trimaran", "description": "/openapi.json", "ready": "/readyz"})


ROUTES = (
    web.get("/", root, allow_head=False),
    web.get("/healthz", healthz, allow_head=False),
    web.get("/readyz", readyz, allow_head=False),
)
