"""Clients that are slow, silent, many or not HTTP at all, on raw sockets against short deadlines."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from unittest.mock import Mock

import pytest

from api.server import _address
from tests.api.asking import ask, send
from tests.api.fake_client import gateway

HEAD = (
    b"POST /v1/queues/jobs/messages HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n"
)
PATIENCE_S = 5.0


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    """What still came before the server closed the connection."""
    try:
        return await asyncio.wait_for(reader.read(), PATIENCE_S)
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize("said", [b"", b"GET /hea", b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-"])
async def test_a_head_that_does_not_come_ends_the_connection(said: bytes) -> None:
    async with gateway(header_timeout_ms=100) as node, connected(node.port) as (reader, writer):
        writer.write(said)
        assert await until_closed(reader) == b""


EVENT = b"ce-specversion: 1.0\r\nce-source: s\r\nce-id: 1\r\n"


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        (EVENT + b"ce-type: \xff\r\n", b'HTTP/1.1 400 .*"field":"ce-type"'),
        (EVENT + b"ce-type: t\r\nContent-Type: a/\xff\r\n", b'HTTP/1.1 400 .*"field":"content-type"'),
        (EVENT + b"ce-type: t\r\nce-ID: 2\r\n", b'HTTP/1.1 400 .*"field":"ce-id"'),
        (b"Content-Type: \xff\r\n", b"HTTP/1.1 415 .*cannot be read"),
        (b"Content-Type: application/json\r\nce-x: \xff\r\nAuthorization: \xff\r\n", b"HTTP/1.1 201 "),
    ],
)
@pytest.mark.parametrize("key", [b"", b"Idempotency-Key: k\r\n"])
async def test_headers_of_any_bytes_are_read_or_refused(headers: bytes, said: bytes, key: bytes) -> None:
    async with gateway() as node, connected(node.port) as (reader, writer):
        await ask(node, "PUT", "/v1/queues/jobs", {})
        writer.write(HEAD.replace(b"Content-Type: application/json\r\n", b"Connection: close\r\n" + key + headers))
        writer.write(b'{"body":"x"}')
        assert re.match(said, await until_closed(reader), re.DOTALL)


async def test_half_a_head_that_comes_with_the_connection_has_its_deadline_too() -> None:
    # uvloop delivers the first bytes before any task of the connection has run.
    closed = asyncio.Event()
    transport = Mock(spec=asyncio.Transport, get_extra_info=Mock(return_value=None), close=closed.set)
    async with gateway(header_timeout_ms=50) as node:
        protocol = node.connect(transport)
        protocol.data_received(b"GET /healthz HTTP/1.1\r\nHost: a\r\n")
        await asyncio.wait_for(closed.wait(), PATIENCE_S)
        protocol.connection_lost(None)


async def test_a_second_head_has_no_more_time_than_the_first_however_it_trickles() -> None:
    async with gateway(header_timeout_ms=100) as node, connected(node.port) as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
        closed = asyncio.create_task(until_closed(reader))
        head = iter(b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + b"X" * 10_000)
        while not closed.done():
            writer.write(bytes([next(head)]))
            await asyncio.wait([closed], timeout=0.01)
        assert await closed == b""


async def test_an_idle_connection_is_kept_longer_than_a_head_may_take_but_not_for_ever() -> None:
    async with gateway(header_timeout_ms=50, idle_timeout_ms=400) as node, connected(node.port) as (reader, writer):
        for _ in range(2):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
        began_s = asyncio.get_running_loop().time()
        assert await until_closed(reader) == b""
        assert asyncio.get_running_loop().time() - began_s > 0.2


async def test_half_a_body_is_answered_and_ends_the_connection() -> None:
    async with gateway(body_timeout_ms=100) as node, connected(node.port) as (reader, writer):
        writer.write(HEAD + b'{"bo')
        answer = await until_closed(reader)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"application/problem+json" in answer
        assert b'"limit":100' in answer
        assert b'"remedy":' in answer


async def test_a_body_that_comes_in_two_pieces_in_time_is_read() -> None:
    async with gateway() as node, connected(node.port) as (reader, writer):
        await ask(node, "PUT", "/v1/queues/jobs", {})
        writer.write(HEAD)
        await writer.drain()
        writer.write(b'{"body":"x"}')
        assert (await reader.readline()).startswith(b"HTTP/1.1 201")


async def test_a_client_that_does_not_read_its_answer_is_left() -> None:
    async with gateway(body_timeout_ms=200) as node:
        await ask(node, "PUT", "/v1/queues/jobs", {})
        for _ in range(7):
            await send(node, "jobs", "x" * 1_000_000)
        with socket.create_connection(("127.0.0.1", node.port)) as silent:
            silent.sendall(b"GET /v1/queues/jobs/messages HTTP/1.1\r\nHost: a\r\n\r\n")
            async with asyncio.timeout(PATIENCE_S):
                while not node.busy_connections():
                    await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=0.01)
            # The kernel holds what it took, so only the server's side can tell that it has let go.
            async with asyncio.timeout(PATIENCE_S):
                while node.busy_connections():
                    await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=0.01)


async def test_connections_above_the_limit_are_turned_away_and_room_is_found_again() -> None:
    async with gateway(connections_max=2) as node:
        async with connected(node.port) as (first, one), connected(node.port) as (_, two):
            for writer in (one, two):
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n")
                await writer.drain()
            async with connected(node.port) as (reader, _):
                refused = await until_closed(reader)
                assert refused.startswith(b"HTTP/1.1 503")
                assert b'"outcome":"not_done"' in refused
            one.write(b"Connection: close\r\n\r\n")
            assert (await until_closed(first)).startswith(b"HTTP/1.1 200")
        assert (await asyncio.wait_for(_served(node.port), PATIENCE_S)).startswith(b"HTTP/1.1 200")


async def test_one_address_cannot_keep_out_the_others() -> None:
    async with gateway(connections_per_address_max=2) as node:
        async with connected(node.port) as (first, one), connected(node.port) as (_, two):
            for writer in (one, two):
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n")
                await writer.drain()
            async with connected(node.port) as (reader, _):
                refused = await until_closed(reader)
                assert refused.startswith(b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/problem+json")
                assert b'"limit":2' in refused
            reader, other = await asyncio.open_connection("127.0.0.1", node.port, local_addr=("127.0.0.2", 0))
            other.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert (await until_closed(reader)).startswith(b"HTTP/1.1 200"), "another address is served"
            other.close()
            one.write(b"Connection: close\r\n\r\n")
            assert (await until_closed(first)).startswith(b"HTTP/1.1 200")
        assert (await asyncio.wait_for(_served(node.port), PATIENCE_S)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("peername", "address"),
    [
        (("10.0.0.1", 1), "10.0.0.1"),
        (("::ffff:10.0.0.1", 1, 0, 0), "10.0.0.1"),
        (("fd00:1:2:3:4:5:6:7", 1, 0, 0), "fd00:1:2:3::/64"),
        (("fe80::1%eth0", 1, 0, 2), "fe80::/64"),
        (None, ""),
        ("", ""),
    ],
)
def test_an_address_is_what_one_client_has(peername: object, address: str) -> None:
    assert _address(peername) == address


async def test_an_unknown_expectation_is_refused_in_a_problem_and_not_said_back() -> None:
    async with gateway() as node, connected(node.port) as (reader, writer):
        await ask(node, "PUT", "/v1/queues/jobs", {})
        writer.write(HEAD.replace(b"Host: a", b"Host: a\r\nExpect: miracles") + b'{"body":"x"}')
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 417")
        assert b"application/problem+json" in head
        assert b"miracles" not in await reader.readuntil(b"}")
        writer.write(b"GET /v1/queues/jobs HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert b'"ready":0' in await until_closed(reader), "nothing was sent"


async def test_a_client_that_waits_to_be_told_to_go_on_is_told() -> None:
    async with gateway() as node, connected(node.port) as (reader, writer):
        await ask(node, "PUT", "/v1/queues/jobs", {})
        writer.write(HEAD.replace(b"Host: a", b"Host: a\r\nExpect: 100-continue"))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b'{"body":"x"}')
        assert (await reader.readline()).startswith(b"HTTP/1.1 201")


async def _served(port: int) -> bytes:
    while True:
        async with connected(port) as (reader, writer):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            answer = await until_closed(reader)
            if not answer.startswith((b"HTTP/1.1 503", b"HTTP/1.1 429")):
                return answer


@pytest.mark.parametrize(
    "said",
    [
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 10_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    ],
)
async def test_what_is_not_http_is_refused_in_few_words_and_not_said_back(said: bytes) -> None:
    async with gateway() as node, connected(node.port) as (reader, writer):
        writer.write(said)
        answer = await until_closed(reader)
        assert b" 400 " in answer.splitlines()[0]
        assert b"application/problem+json" in answer
        assert b"xxxx" not in answer
        assert len(answer) < 800
