"""The HTTP side of a gateway: the application, and a server that does not wait for silent clients."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

from aiohttp import web

from api import health, openapi, rest, seed
from api.problem import tell_problems
from api.request import SETTINGS, HttpSettings
from cluster.client import Client

SWEEP_S = 1.0
"""How often connections without a request are looked at."""


class _Idle:
    """When each connection last finished a request. aiohttp itself never gives up on half a request's head."""

    def __init__(self) -> None:
        self.busy: set[object] = set()
        self.since_s: dict[object, float] = {}


_IDLE = web.AppKey("idle", _Idle)


@web.middleware
async def _note_busy(request: web.Request, handler: Any) -> web.StreamResponse:
    idle, transport = request.config_dict[_IDLE], request.transport
    idle.busy.add(transport)
    try:
        response: web.StreamResponse = await handler(request)
        return response
    finally:
        idle.busy.discard(transport)
        idle.since_s[transport] = time.monotonic()


def application(client: Client, settings: HttpSettings) -> web.Application:
    """The application: every route of this node."""
    app = web.Application(middlewares=[_note_busy, tell_problems], client_max_size=settings.request_bytes_max)
    app[rest.CLIENT] = client
    app[SETTINGS] = settings
    app[_IDLE] = _Idle()
    app.add_routes([*rest.ROUTES, *seed.ROUTES, *health.ROUTES, *openapi.ROUTES])
    return app


class HttpServer:
    """Serves the application on one address until closed."""

    def __init__(self, client: Client, settings: HttpSettings) -> None:
        self._settings = settings
        self._app = application(client, settings)
        self._runner = web.AppRunner(
            self._app, access_log=None, handler_cancellation=True, keepalive_timeout=settings.header_timeout_ms / 1000
        )
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; several gateways may share the address. Returns the port. Raises `OSError`."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, reuse_port=hasattr(socket, "SO_REUSEPORT"), backlog=1024)
        await site.start()
        self._sweeper = asyncio.create_task(self._sweep())
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Stop listening, let what is under way end, and close."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self._runner.cleanup()

    async def _sweep(self) -> None:
        """Close connections that send no whole request head in time, and those above the limit."""
        idle, patience_s = self._app[_IDLE], self._settings.header_timeout_ms / 1000
        while True:
            await asyncio.sleep(min(SWEEP_S, patience_s / 2))
            server, now_s = self._runner.server, time.monotonic()
            assert server is not None
            transports = [c.transport for c in server.connections if c.transport is not None]
            for position, transport in enumerate(transports):
                silent_s = now_s - idle.since_s.setdefault(transport, now_s)
                if transport not in idle.busy and (silent_s > patience_s or position >= self._settings.connections_max):
                    transport.abort()
            for gone in idle.since_s.keys() - set(transports):
                del idle.since_s[gone]
