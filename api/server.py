"""A server that waits for nobody for ever: deadlines for a request's head and for reading answers, and caps.

aiohttp by itself gives up on a connection only when it is idle. The deadlines are kept at the one place where bytes
come and go, the connection's protocol; the body's deadline is where bodies are read (`api.request`).
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from http import HTTPStatus
from typing import Any, cast

import msgspec
import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from api.drain import Drain
from api.measures import Meter
from api.problem import CONTENT_TYPE, Problem, of_http
from api.request import HttpSettings
from cluster.process import Rarely

_log = structlog.get_logger()


class GuardedServer(web.Server):
    """Makes a guarded connection of every one that is accepted.

    `clients` are the connections that have somebody at their other end; aiohttp's own list keeps one that was lost
    until its task has ended.
    """

    def __init__(self, plain: web.Server, settings: HttpSettings, drain: Drain, meter: Meter, **options: Any) -> None:
        super().__init__(plain.request_handler, request_factory=plain.request_factory, **options)
        self.settings, self.drain, self.meter = settings, drain, meter
        self.clients: set[RequestHandler] = set()
        self._addresses: Counter[str] = Counter()
        self._refusals = Rarely("client connections refused")

    def admit(self, address: str) -> Problem | None:
        """Count one more connection from there, or tell why there must not be one."""
        most, most_from_there = self.settings.connections_max, self.settings.connections_per_address_max
        if len(self.clients) >= most:
            problem = _too_many(503, f"This node serves {most} connections at a time.", most, "Ask another node.")
        elif self._addresses[address] >= most_from_there:
            detail = f"This node serves {most_from_there} connections of one address at a time."
            problem = _too_many(429, detail, most_from_there, "Use connections again, or close those that are idle.")
        else:
            self._addresses[address] += 1
            self.meter.connections += 1
            return None
        self.meter.refused(problem.slug)
        self._refusals.warn(last=address, cause=problem.document["detail"])
        return problem

    def dismiss(self, address: str) -> None:
        """A connection from there that was admitted is gone."""
        self.meter.connections -= 1
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]

    def __call__(self) -> RequestHandler:
        """One connection's protocol."""
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(RequestHandler):
    """One connection. `_head` runs out while a head is incomplete, `_drain` while the client does not read."""

    __slots__ = ("_address", "_drain", "_guard", "_head", "_head_s", "_unread_s")

    def __init__(self, server: GuardedServer, **options: Any) -> None:
        super().__init__(server, **options)
        self._guard = server
        self._address: str | None = None
        self._head_s = server.settings.header_timeout_ms / 1000
        self._unread_s = server.settings.body_timeout_ms / 1000
        self._head: asyncio.TimerHandle | None = None
        self._drain: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Refuse what is too much; give the first head its time."""
        address = _address(transport.get_extra_info("peername"))
        problem = self._guard.admit(address)
        if problem is not None:
            stream = cast(asyncio.Transport, transport)  # uvloop's is one without saying so
            stream.write(_raw(problem))
            stream.close()
            return
        self._address = address
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
        """What aiohttp says by itself becomes a problem document. A gateway that stops says so with every answer."""
        if resp.status >= 400 and isinstance(resp, web.HTTPException):
            resp = of_http(resp)
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
        if self._address is not None:
            self._guard.dismiss(self._address)
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


def _address(peername: object) -> str:
    """The address that is counted: of IPv6 its first half, since one client has all of the second."""
    if not isinstance(peername, tuple):
        return ""
    address = ipaddress.ip_address(str(peername[0]).partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, 64), strict=False))


def _too_many(status: int, detail: str, limit: int, remedy: str) -> Problem:
    title = "There are too many connections"
    return Problem(status, "too-many-connections", title, detail, limit=limit, remedy=remedy, outcome="not_done")


def _raw(problem: Problem) -> bytes:
    """The answer to a request that was not read, after which the connection closes."""
    body = msgspec.json.encode(problem.document)
    lines = (
        f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}",
        f"Content-Type: {CONTENT_TYPE}",
        "Retry-After: 1",
        "Connection: close",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


class GuardedRunner(web.AppRunner):
    """Runs an application behind a `GuardedServer`."""

    def __init__(self, app: web.Application, settings: HttpSettings, drain: Drain, meter: Meter) -> None:
        super().__init__(app, access_log=None, shutdown_timeout=settings.request_timeout_ms / 1000)
        self._settings, self._drain, self._meter = settings, drain, meter

    async def _make_server(self) -> web.Server:
        plain = await super()._make_server()
        return GuardedServer(
            plain,
            self._settings,
            self._drain,
            self._meter,
            handler_cancellation=True,  # a client that goes away ends its long poll
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=self._settings.idle_timeout_ms / 1000,
            lingering_time=min(self._settings.body_timeout_ms / 1000, 10.0),
        )
