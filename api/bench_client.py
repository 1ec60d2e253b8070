"""A bare HTTP/1.1 client for loading a cluster: keep-alive, one request at a time on each connection.

A complete client costs twice what the server costs, and would be measured instead of it. This one understands only
what a gateway answers: a status, headers with a Content-Length, a body.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple, cast
from urllib.parse import urlsplit

from api.own_key import authorization

CONNECT_TIMEOUT_S = 3.0
ANSWER_TIMEOUT_S = 40.0
"""Longer than a node holds any request, so that running into it means that the node is gone."""


class Answer(NamedTuple):
    """What came back."""

    status: int
    content: bytes


class Connection(asyncio.Protocol):
    """A connection to one node. Raises `ConnectionError` when it breaks and `TimeoutError` when nothing comes."""

    def __init__(self, host: str) -> None:
        self._host, key = host, authorization()
        self._key = "" if key is None else f"Authorization: {key}\r\n"
        self._received = bytearray()
        self._waiting: asyncio.Future[Answer] | None = None
        self._transport: asyncio.Transport | None = None
        self._heads: dict[tuple[str, str], bytes] = {}

    @classmethod
    async def open(cls, url: str) -> Connection:
        """Connect to the node at `url`."""
        parts = urlsplit(url)
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: cls(parts.netloc), parts.hostname or "", parts.port or 80
            )
        return connection

    @property
    def is_open(self) -> bool:
        """Whether a request can be made."""
        return self._transport is not None and not self._transport.is_closing()

    async def request(
        self, method: str, path: str, content: bytes = b"", kind: str = "application/json", headers: bytes = b""
    ) -> Answer:
        """Make one request and wait for its answer. `headers` are further ones, each line with its end."""
        if self._transport is None or not self.is_open:
            raise ConnectionError("the connection is closed")
        assert self._waiting is None, "one request at a time"
        head = self._heads.get((method, path))
        if head is None:
            head = self._heads[method, path] = (
                f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: {kind}\r\nAccept: {kind}\r\n"
                f"{self._key}Content-Length: "
            ).encode()
        waiting: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting = waiting
        # One timer for the whole request, without the cost of a cancel scope.
        timer = asyncio.get_running_loop().call_later(ANSWER_TIMEOUT_S, self._give_up)
        self._transport.write(b"%b%d\r\n%b\r\n%b" % (head, len(content), headers, content))
        try:
            return await waiting
        finally:
            timer.cancel()
            self._waiting = None

    def close(self) -> None:
        """Let go of the connection."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._transport = None
        self._fail(ConnectionError(str(exc) if exc else "the node closed the connection"))

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._received[:end]).lower()
        at = head.find(b"\r\ncontent-length:")
        size = int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self._received) < end + 4 + size:
            return
        answer = Answer(int(head[9:12]), bytes(self._received[end + 4 : end + 4 + size]))
        del self._received[: end + 4 + size]
        if b"\r\nconnection: close" in head:
            self.close()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(answer)

    def _give_up(self) -> None:
        self._fail(TimeoutError(f"no answer within {ANSWER_TIMEOUT_S:.0f} s"))
        self.close()

    def _fail(self, error: Exception) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)
