"""Connections between replicas, against a peer that does not do what it should."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from cluster import peers
from cluster.peers import Peers
from cluster.process import forever
from cluster.wire import HELLO, VERSION, Connection, Hello


def hello(name: str) -> Hello:
    return Hello(VERSION, "c", 0, "replica", name, True)


async def test_a_peer_that_did_not_answer_is_dialled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one is that was stopped (SIGSTOP): its kernel takes connections, and nobody says hello."""
    monkeypatch.setattr(peers, "HELLO_TIMEOUT_S", 0.01)
    hellos: list[Connection] = []
    connected: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def on_frame(connection: Connection, kind: int, payload: memoryview) -> None:
        hellos.append(connection)
        if len(hellos) > 2:
            connection.send(HELLO, msgspec.json.encode(hello("n2")))

    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(on_frame, lambda connection: None), "127.0.0.1", 0
    )
    port = server.sockets[0].getsockname()[1]
    mine = Peers(
        lambda: hello("n1"),
        {"n2": f"127.0.0.1:{port}"},
        connected=lambda name, born: connected.set_result(name),
        disconnected=lambda name: None,
    )
    mine.start()
    async with asyncio.timeout(5):
        assert await connected == "n2"
    await mine.close()
    server.close()


async def test_a_task_that_should_go_on_and_ends_is_told_at_once() -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))

    async def fails() -> None:
        raise ValueError("no")

    async def gives_up() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async def goes_on() -> None:
        await asyncio.Event().wait()

    held = [forever(fails()), forever(gives_up()), forever(goes_on())]
    await asyncio.wait(held[:2])
    held[2].cancel()
    await asyncio.wait(held)
    await asyncio.sleep(0)
    assert [type(context["exception"]) for context in told] == [ValueError, RuntimeError]
