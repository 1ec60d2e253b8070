"""A server that waits for nobody for ever: deadlines for a request's head and for reading answers, and a cap.

aiohttp by itself gives up on a connection only when it is idle. The deadlines are kept at the one place where bytes
come and go, the connection's protocol; the body's deadline is where bodies are read (`api.request`).
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from api.drain import Drain
from api.problem import Problem
from api.request import HttpSettings

_log = structlog.get_logger()
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 1\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s"
)
_FULL_BODY = (
    b'{"type":"urn:trimaran:too-many-connections","title":"There are too many connections","status":503,'
    b'"detail":"This node serves no more connections at a time.","outcome":"not_done","remedy":"Ask another node."}'
)


class GuardedServer(web.Server):
    """Makes a guarded connection of every one that is accepted.

    `clients` are the connections that have somebody at their other end; aiohttp's own list keeps one that was lost
    until its task has ended.
    """

    def __init__(self, plain: web.Server, settings: HttpSettings, drain: Drain, **options: Any) -> None:
        super().__init__(plain.request_handler, request_factory=plain.request_factory, **options)
        self.settings, self.drain = settings, drain
        self.clients: set[RequestHandler] = set()

    def is_full(self) -> bool:
        """Whether there are as many connections as there may be."""
        return len(self._connections) >= self.settings.connections_max

    def __call__(self) -> RequestHandler:
        """One connection's protocol."""
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(RequestHandler):
    """One connection. `_head` runs out while a head is incomplete, `_drain` while the client does not read."""

    __slots__ = ("_drain", "_guard", "_head", "_head_s", "_unread_s")

    def __init__(self, server: GuardedServer, **options: Any) -> None:
        super().__init__(server, **options)
        self._guard = server
        self._head_s = server.settings.header_timeout_ms / 1000
        self._unread_s = server.settings.body_timeout_ms / 1000
        self._head: asyncio.TimerHandle | None = None
        self._drain: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Refuse what is too much; give the first head its time."""
        if self._guard.is_full():
            stream = cast(asyncio.Transport, transport)  # uvloop's is one without saying so
            stream.write(_FULL % (len(_FULL_BODY), _FULL_BODY))
            stream.close()
            return
        super().connection_made(transport)
        self._guard.clients.add(self)
        self._head = self._loop.call_later(self._head_s, self.force_close)

    def data_received(self, data: bytes) -> None:
        """A head has its time from its first byte on, however slowly the others trickle in."""
        heads = self._request_count
        super().data_received(data)
        if self._request_count != heads:
            _stop(self._head)
            self._head = None
        elif self._head is None and self._waiter is not None and not self._waiter.done():
            self._head = self._loop.call_later(self._head_s, self.force_close)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """While the gateway stops, say with every answer that there is none after it."""
        if self._guard.drain.begun.is_set():
            resp.force_close()
        return await super().finish_response(request, resp, start_time)

    def pause_writing(self) -> None:
        """The client reads no more: what it leaves unread is dropped after a body's time."""
        super().pause_writing()
        assert self.transport is not None
        self._drain = self._loop.call_later(self._unread_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads on."""
        super().resume_writing()
        _stop(self._drain)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The timers have nothing left to guard."""
        _stop(self._head)
        _stop(self._drain)
        super().connection_lost(exc)
        self._guard.clients.discard(self)
        if self._guard.drain.begun.is_set() and not self._guard.clients:
            self._guard.drain.deserted.set()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer what is not HTTP, or what failed outside every handler, without saying back what came in."""
        if status >= 500:
            _log.error("a request failed unexpectedly", exc_info=exc)
        title = "The node made a mistake" if status >= 500 else "This is not an HTTP request that can be served"
        remedy = "Report it." if status >= 500 else "Send HTTP/1.1 with short lines and headers."
        response = Problem(status, "http", title, f"{title}.", remedy=remedy).response()
        response.force_close()
        return response


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


class GuardedRunner(web.AppRunner):
    """Runs an application behind a `GuardedServer`."""

    def __init__(self, app: web.Application, settings: HttpSettings, drain: Drain) -> None:
        super().__init__(app, access_log=None, shutdown_timeout=settings.request_timeout_ms / 1000)
        self._settings, self._drain = settings, drain

    async def _make_server(self) -> web.Server:
        plain = await super()._make_server()
        return GuardedServer(
            plain,
            self._settings,
            self._drain,
            handler_cancellation=True,  # a client that goes away ends its long poll
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=self._settings.idle_timeout_ms / 1000,
            lingering_time=min(self._settings.body_timeout_ms / 1000, 10.0),
        )
