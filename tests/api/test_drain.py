"""A gateway that stops: whoever has asked is answered, and told that nobody will be there for the next request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from cluster.client import Reply
from cluster.trouble import ClusterTrouble
from storage.operations import Operation, Receive
from storage.queue_operations import GetQueue
from tests.api.asking import ask, send
from tests.api.fake_client import FakeClient, Gateway, gateway
from tests.api.test_server import PATIENCE_S, connected, until_closed

HEAD = (
    b"POST /v1/queues/jobs/receive HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n"
)
KEY = '"8e03978e-40d5-43e8-bc93-6894a57f9324"'
LONG_POLL = HEAD + b'{"wait_ms":20000}'


class Held:
    """Holds back every answer of the cluster until it is let go."""

    def __init__(self, client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked, self.go = asyncio.Event(), asyncio.Event()
        submit = client.submit

        async def hold(operation: Operation, block: bytes = b"", *, timeout_ms: int) -> Reply:
            self.asked.set()
            await self.go.wait()
            return await submit(operation, block, timeout_ms=timeout_ms)

        monkeypatch.setattr(client, "submit", hold)


@pytest.fixture
async def node() -> AsyncIterator[Gateway]:
    async with gateway() as opened:
        await ask(opened, "PUT", "/v1/queues/jobs", {})
        yield opened


async def test_what_is_under_way_is_answered_and_its_connection_said_to_be_closed(
    node: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(node.client, monkeypatch)
    sending = asyncio.create_task(send(node, "jobs", "a"))
    await held.asked.wait()
    stopping = asyncio.create_task(node.stop())
    await node.drain.begun.wait()
    held.go.set()
    sent = await sending
    assert (sent.status, sent.headers["Connection"]) == (201, "close")
    await stopping


async def test_a_long_poll_is_answered_empty_at_once(node: Gateway) -> None:
    async with connected(node.port) as (reader, writer):
        writer.write(LONG_POLL)
        await node.client.waiting.wait()
        stopping = asyncio.create_task(node.stop())
        answer = await until_closed(reader)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"Connection: close" in answer
        assert answer.endswith(b'{"messages":[]}')
        await stopping


async def test_a_long_poll_that_had_taken_something_under_its_key_gets_it(
    node: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer is still on its way when the gateway is told to stop."""
    submit, asked = node.client.submit, asyncio.Event()

    async def slow(operation: Operation, block: bytes = b"", *, timeout_ms: int) -> Reply:
        reply = await submit(operation, block, timeout_ms=timeout_ms)
        if not asked.is_set():
            asked.set()
            await asyncio.Event().wait()
        return reply

    await send(node, "jobs", "a")
    monkeypatch.setattr(node.client, "submit", slow)
    polling = asyncio.create_task(
        node.http.post("/v1/queues/jobs/receive", json={"wait_ms": 20000}, headers={"Idempotency-Key": KEY})
    )
    await asked.wait()
    stopping = asyncio.create_task(node.stop())
    async with await polling as answer:
        assert [message["body"] for message in (await answer.json())["messages"]] == ["a"]
    await stopping


async def test_a_long_poll_whose_cluster_has_gone_is_not_told_that_nothing_is_there(node: Gateway) -> None:
    polling = asyncio.create_task(node.http.post("/v1/queues/jobs/receive", json={"wait_ms": 20000}))
    await node.client.waiting.wait()
    node.client.fails_with = ClusterTrouble("not_done", "this node does not reach a majority of the cluster")
    stopping = asyncio.create_task(node.stop())
    async with await polling as answer:
        assert (answer.status, (await answer.json())["outcome"]) == (503, "unknown")
    await stopping


async def test_an_idle_connection_may_be_used_once_more(node: Gateway) -> None:
    async with connected(node.port) as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        first = await asyncio.wait_for(reader.readuntil(b"}"), PATIENCE_S)
        assert b"Connection: close" not in first
        stopping = asyncio.create_task(node.stop())
        await node.drain.begun.wait()
        writer.write(b"GET /readyz?verbose=1 HTTP/1.1\r\nHost: a\r\n\r\n")
        second = await until_closed(reader)
        assert second.startswith(b"HTTP/1.1 503")
        assert b"Connection: close" in second
        assert b"this node is stopping" in second
        await stopping


async def test_a_long_poll_that_comes_late_does_not_wait(node: Gateway) -> None:
    async with connected(node.port) as (reader, writer):
        stopping = asyncio.create_task(node.stop())
        await node.drain.begun.wait()
        writer.write(LONG_POLL)
        assert (await until_closed(reader)).endswith(b'{"messages":[]}')
        receive = node.client.asked[-1]
        assert isinstance(receive, Receive)
        assert receive.wait_ms == 0
        await stopping


async def test_nobody_new_is_let_in(node: Gateway) -> None:
    async with connected(node.port):
        stopping = asyncio.create_task(node.stop())
        await node.drain.begun.wait()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", node.port)
        await stopping


async def test_an_idle_client_holds_nobody_up(node: Gateway) -> None:
    async with connected(node.port) as (reader, _writer):
        await asyncio.wait_for(node.stop(), PATIENCE_S)
        assert await until_closed(reader) == b""


async def test_one_that_never_answers_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async with gateway(request_timeout_ms=100) as node:
        held = Held(node.client, monkeypatch)
        asking = asyncio.create_task(node.http.get("/v1/queues/jobs"))
        await held.asked.wait()
        await asyncio.wait_for(node.stop(), PATIENCE_S)
        asking.cancel()
        assert not any(isinstance(operation, GetQueue) for operation in node.client.asked)


async def test_a_gateway_whose_clients_have_gone_stops_at_once(node: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.drain.LINGER_S", 60.0)
    await ask(node, "GET", "/healthz")
    await node.http.close()
    await asyncio.wait_for(node.stop(), PATIENCE_S)
