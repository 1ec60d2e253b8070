"""The HTTP side of a gateway: the application, and the server around it."""

from __future__ import annotations

import socket

from aiohttp import web

from api import health, openapi, rest, seed
from api.problem import tell_problems
from api.request import SETTINGS, HttpSettings
from api.server import GuardedRunner
from cluster.client import Client


def application(client: Client, settings: HttpSettings) -> web.Application:
    """The application: every route of this node."""
    app = web.Application(middlewares=[tell_problems], client_max_size=settings.request_bytes_max)
    app[rest.CLIENT] = client
    app[rest.POLLS] = rest.Polls()
    app[SETTINGS] = settings
    app.add_routes([*rest.ROUTES, *seed.ROUTES, *health.ROUTES, *openapi.ROUTES])
    app.on_shutdown.append(rest.end_polls)
    return app


class HttpServer:
    """Serves the application on one address until closed."""

    def __init__(self, client: Client, settings: HttpSettings) -> None:
        self._runner = GuardedRunner(application(client, settings), settings)

    async def start(self, host: str, port: int) -> int:
        """Listen; several gateways may share the address. Returns the port. Raises `OSError`."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, reuse_port=hasattr(socket, "SO_REUSEPORT"), backlog=1024)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Stop listening, answer what waits, let what is under way end, and close."""
        await self._runner.cleanup()
