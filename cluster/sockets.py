"""How connections come about: dialling and accepting, with TLS where the node has certificates.

Somebody who has not said who he is yet, a *stranger*, costs little: handshake and hello have one deadline together, and
there are only so many strangers at a time: one more ends the one that has waited longest, for an honest node is no
stranger for more than a moment. Nothing that a stranger does reaches further than this file and the hello.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog

from cluster.process import Rarely, forever
from cluster.tls import Tls, why
from cluster.wire import HELLO_TIMEOUT_S, Connection

STRANGERS_MAX = 64
"""Strangers at a time: about as many as gateways and replicas dial at once after a start. Each may come to cost the
buffer of 256 KiB that uvloop reads TLS into, so all together cost 20 MiB at worst."""
BACKLOG = 128
"""Connections that the kernel keeps until they are accepted."""
GOODBYE_S = 1.0
"""How long the other end may take to close an encrypted connection properly."""
PAUSE_S = 0.1
"""Pause when the system has no room for another connection."""

_log = structlog.get_logger()


def split_address(address: str) -> tuple[str, int]:
    """Host and port of "HOST:PORT"."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


async def dial(connection: Connection, address: str, name: str, tls: Tls | None) -> None:
    """Connect to the node `name` at `address`: "HOST:PORT", or "unix:PATH" for the own one, which is never encrypted.

    Raises `ConnectionError`, whose text says why, when it does not come about within `HELLO_TIMEOUT_S`.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(HELLO_TIMEOUT_S):
            if address.startswith("unix:"):
                await loop.create_unix_connection(lambda: connection, address.removeprefix("unix:"))
            elif tls is None:
                await loop.create_connection(lambda: connection, *split_address(address))
            else:
                connection.needs_certificate, connection.expects = True, name
                await loop.create_connection(
                    lambda: connection,
                    *split_address(address),
                    ssl=tls.dialling(),
                    server_hostname=name,
                    ssl_handshake_timeout=HELLO_TIMEOUT_S,
                    ssl_shutdown_timeout=GOODBYE_S,
                )
    except (OSError, TimeoutError, UnicodeError) as error:
        connection.close()
        raise ConnectionError(connection.trouble or why(error)) from error


class Port:
    """Accepts connections, each made by `make`, until closed."""

    def __init__(self, make: Callable[[], Connection], tls: Tls | None = None) -> None:
        self._make, self._tls = make, tls
        self._sockets: list[socket.socket] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._strangers: dict[asyncio.Task[None], None] = {}
        self._refusals, self._closed = Rarely("connections refused"), False

    async def listen(self, host: str, port: int) -> int:
        """Listen on every address of `host`. Returns the port. Raises `OSError` when one cannot be had."""
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, _, _, _, address in dict.fromkeys(found):
            listening = socket.socket(family, socket.SOCK_STREAM)
            self._sockets.append(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self._serve(listening, address)
        return int(self._sockets[0].getsockname()[1])

    def listen_unix(self, path: str) -> None:
        """Listen on a Unix socket in the place of whatever is there. Raises `OSError`."""
        with suppress(FileNotFoundError):
            os.unlink(path)
        self._sockets.append(listening := socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        self._serve(listening, path)

    def _serve(self, listening: socket.socket, address: Any) -> None:
        listening.setblocking(False)
        listening.bind(address)
        listening.listen(BACKLOG)
        self._tasks.append(forever(self._accept_on(listening)))

    @property
    def refused(self) -> int:
        """How many connections were turned away since the process began."""
        return self._refusals.total

    async def close(self) -> None:
        """Accept no more, and leave those who are strangers still."""
        self._closed = True
        tasks = [*self._tasks, *self._strangers]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listening in self._sockets:
            listening.close()

    async def _accept_on(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, address = await loop.sock_accept(listening)
            except ConnectionError:
                continue  # it went before it was let in
            except OSError as error:
                _log.error("cannot accept a connection", cause=error.strerror)
                await asyncio.sleep(PAUSE_S)
                continue
            if len(self._strangers) >= STRANGERS_MAX:
                longest = next(iter(self._strangers))
                del self._strangers[longest]
                longest.cancel("too many do not say who they are")
            stranger = asyncio.create_task(self._meet(accepted, str(address[0]) if address else "local"))
            self._strangers[stranger] = None
            stranger.add_done_callback(lambda task: self._strangers.pop(task, None))

    async def _meet(self, accepted: socket.socket, address: str) -> None:
        """Wait until the other end has said who it is, or is gone."""
        connection, trouble = self._make(), ""
        loop, options = asyncio.get_running_loop(), dict[str, Any]()
        if self._tls is not None:
            connection.needs_certificate = True
            options = {"ssl": self._tls.accepting(), "ssl_handshake_timeout": HELLO_TIMEOUT_S}
            options["ssl_shutdown_timeout"] = GOODBYE_S
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                await loop.connect_accepted_socket(lambda: connection, accepted, **options)
                await connection.settled.wait()
        except TimeoutError:
            trouble = f"it did not say who it is within {HELLO_TIMEOUT_S} s"
        except OSError as error:
            trouble = why(error)
        except asyncio.CancelledError as error:
            trouble = str(error)
            raise
        finally:
            if connection.peer is None:
                connection.close()
                if not self._closed:
                    cause = connection.trouble or trouble or "it said nothing that makes sense"
                    self._refusals.warn(last=address, cause=cause)
