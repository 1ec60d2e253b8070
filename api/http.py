"""The HTTP side of a gateway: the application, and the server around it."""

from __future__ import annotations

import socket

from aiohttp import web

from api import (
    addressing,
    health,
    keys,
    members,
    metrics,
    openapi,
    parties,
    redrive,
    rest,
    schedules,
    seed,
    topics,
    transactions,
)
from api.access import KEYS, KeyRing, admit
from api.aws import endpoint
from api.drain import DRAIN, Drain
from api.measures import METER, Meter, measured
from api.problem import tell_problems
from api.request import SETTINGS, HttpSettings
from api.sealing import SealFile
from api.server import GuardedRunner, GuardedServer
from cluster.client import Client


def application(client: Client, settings: HttpSettings) -> web.Application:
    """The application: every route of this node."""
    app = web.Application(
        middlewares=[endpoint.face, measured, tell_problems, admit], client_max_size=settings.request_bytes_max
    )
    app[rest.CLIENT] = client
    app[DRAIN] = Drain()
    app[KEYS] = KeyRing(client, SealFile(settings.seal_key), settings.request_timeout_ms)
    app[SETTINGS] = settings
    app[METER] = Meter(settings.gateway)
    app[metrics.CACHE] = metrics.Cache()
    for face in (
        *(rest, addressing, transactions, redrive, topics, schedules, parties),
        *(members, keys, seed, health, metrics, openapi, endpoint),
    ):
        app.add_routes(face.ROUTES)
    return app


class HttpServer:
    """Serves the application on one address until closed."""

    def __init__(self, client: Client, settings: HttpSettings) -> None:
        app = application(client, settings)
        self._drain, self.meter = app[DRAIN], app[METER]
        self._runner = GuardedRunner(app, settings, self._drain, self.meter)

    async def start(self, host: str, port: int) -> int:
        """Listen; several gateways may share the address. Returns the port. Raises `OSError`."""
        await self._runner.setup()
        self.meter.process.start()
        site = web.TCPSite(self._runner, host, port, reuse_port=hasattr(socket, "SO_REUSEPORT"), backlog=1024)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Stop listening, answer what waits, let what is under way end, and close. See `api.drain`."""
        for site in list(self._runner.sites):
            await site.stop()
        self._drain.begin()
        if isinstance(self._runner.server, GuardedServer) and self._runner.server.clients:
            await self._drain.linger()
        await self._runner.cleanup()
