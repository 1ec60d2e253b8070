"""Slow and uneven links: a TCP proxy that holds back what passes, for a time of each connection's own.

Bytes of one connection stay in order, as TCP promises; connections overtake one another, so that what a node says on
two of them arrives in any order.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

TIE_S = 1e-6
"""Two writes are never due at the same moment: the loop does not keep their order."""


@dataclass(slots=True)
class _Pipe(asyncio.Protocol):
    """One side of a connection: what it receives, the other side sends later."""

    delay_s: Callable[[], float]
    other: _Pipe | None = None
    transport: asyncio.Transport | None = None
    due_s: float = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self.other is None or self.other.transport is None:
            transport.pause_reading()  # until there is where to send it
        else:
            self.other.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self._later(lambda transport: transport.write(data))

    def connection_lost(self, exc: Exception | None) -> None:
        self._later(lambda transport: transport.close())

    def _later(self, act: Callable[[asyncio.Transport], None]) -> None:
        loop = asyncio.get_running_loop()
        self.due_s = max(self.due_s + TIE_S, loop.time() + self.delay_s())

        def do() -> None:
            if self.other is not None and self.other.transport is not None and not self.other.transport.is_closing():
                act(self.other.transport)

        loop.call_at(self.due_s, do)


class SlowLink:
    """Listens on a port of its own and passes everything on to `host`:`port`, late."""

    def __init__(self, host: str, port: int, rng: random.Random, delay_max_s: float) -> None:
        self._host, self._port = host, port
        self._rng, self._delay_max_s = rng, delay_max_s
        self._pipes: list[_Pipe] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, host: str) -> int:
        """Listen on `host`; returns the port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, host, 0)
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Close everything at once."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        for pipe in self._pipes:
            if pipe.transport is not None:
                pipe.transport.abort()

    def _accept(self) -> _Pipe:
        slowest_s = self._rng.uniform(0, self._delay_max_s)

        def delay_s() -> float:
            return self._rng.uniform(0.2, 1.0) * slowest_s

        inner, outer = _Pipe(delay_s), _Pipe(delay_s)
        inner.other, outer.other = outer, inner
        self._pipes += [inner, outer]
        task = asyncio.create_task(self._connect(inner, outer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return inner

    async def _connect(self, inner: _Pipe, outer: _Pipe) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: outer, self._host, self._port)
        except OSError:
            if inner.transport is not None:
                inner.transport.abort()
