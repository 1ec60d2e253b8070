"""Connections between replicas, against a peer that does not do what it should."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from cluster import peers
from cluster.peers import Peers
from cluster.process import forever
from cluster.wire import HELLO, REMOVED, VERSION, Connection, Hello, hello_decoder


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
        welcome=lambda hello: "",
        removed=lambda words: None,
        connected=lambda name, born: connected.set_result(name),
        disconnected=lambda name: None,
    )
    mine.start()
    mine.follow({"n2": (f"127.0.0.1:{port}",)})
    async with asyncio.timeout(5):
        assert await connected == "n2"
    await mine.close()
    server.close()


class Other:
    """Another replica of a few lines, listening."""

    def __init__(self, name: str) -> None:
        self.hello = hello(name)
        self.refuses: tuple[int, str] | None = None
        self.present: list[Connection] = []

    async def start(self) -> str:
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(lambda: Connection(self.on_frame, self.on_lost), "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self.address

    def on_frame(self, connection: Connection, kind: int, payload: memoryview) -> None:
        if self.refuses is not None:
            connection.refuse(self.refuses[1], self.refuses[0])
        elif kind == HELLO:
            connection.introduce(hello_decoder.decode(payload))
            connection.send(HELLO, msgspec.json.encode(self.hello))
            self.present.append(connection)

    def on_lost(self, connection: Connection) -> None:
        if connection in self.present:
            self.present.remove(connection)


class Mine:
    """Replica n1's connections, and what it was told of them, in order."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[str] = asyncio.Queue()
        self.unwelcome = ""
        self.peers = Peers(
            lambda: hello("n1"),
            welcome=self.welcome,
            removed=lambda words: self.told.put_nowait(f"removed: {words}"),
            connected=lambda name, born: self.told.put_nowait(f"+{name}"),
            disconnected=lambda name: self.told.put_nowait(f"-{name}"),
        )

    def welcome(self, hello: Hello) -> str:
        if self.unwelcome:
            self.told.put_nowait("unwelcome")
        return self.unwelcome

    async def next(self) -> str:
        async with asyncio.timeout(5):
            return await self.told.get()


@pytest.fixture
async def mine() -> AsyncIterator[Mine]:
    mine = Mine()
    mine.peers.start()
    yield mine
    await mine.peers.close()


@pytest.fixture
async def other() -> AsyncIterator[Other]:
    other = Other("n2")
    await other.start()
    yield other
    other.server.close()


async def test_members_come_and_go(mine: Mine, other: Other) -> None:
    mine.peers.follow({"n2": (other.address,)})
    assert await mine.next() == "+n2"
    mine.peers.follow({"n2": (other.address,)})
    mine.peers.follow({})
    assert await mine.next() == "-n2"
    assert mine.peers.present() == []
    mine.peers.follow({"n2": (other.address,)})
    assert await mine.next() == "+n2"
    assert mine.told.empty()


async def test_a_member_is_looked_for_wherever_it_may_be(mine: Mine, other: Other) -> None:
    elsewhere = Other("n3")
    mine.peers.follow({"n2": (await elsewhere.start(), other.address)})
    assert await mine.next() == "+n2"
    assert mine.peers.address("n2") == other.address, "at the other place another one answered"
    elsewhere.server.close()


async def test_one_that_is_not_known_yet_is_dialled_as_long_as_it_stays(mine: Mine, other: Other) -> None:
    inbound = Connection(lambda connection, kind, payload: None, lambda connection: None)
    inbound.introduce(msgspec.structs.replace(other.hello, address=other.address))
    mine.peers.accepted("n2", inbound)
    assert await mine.next() == "+n2"
    mine.peers.follow({})
    mine.peers.lost("n2", inbound)
    assert await mine.next() == "-n2"
    mine.peers.accepted("n2", inbound)
    mine.peers.follow({"n2": (other.address,)})
    assert await mine.next() == "+n2"
    mine.peers.lost("n2", inbound)
    assert [await mine.next() for _ in range(2)] == ["-n2", "+n2"], "a member is dialled again"


async def test_what_answers_must_be_welcome(mine: Mine, other: Other) -> None:
    mine.unwelcome = "it belongs to another cluster"
    mine.peers.follow({"n2": (other.address,)})
    assert await mine.next() == "unwelcome"
    assert await mine.next() == "unwelcome", "it is looked at again: it may be another one by then"
    mine.unwelcome = ""
    assert await mine.next() == "+n2"


async def test_it_is_told_that_it_was_removed(mine: Mine, other: Other) -> None:
    other.refuses = (REMOVED, "n1 is gone")
    mine.peers.follow({"n2": (other.address,)})
    assert await mine.next() == "removed: n1 is gone"


async def test_a_second_one_with_other_data_is_known_as_such_while_the_first_lives(mine: Mine, other: Other) -> None:
    first, second = (msgspec.structs.replace(other.hello, data=data) for data in ("1", "2"))
    mine.peers.follow({"n2": (other.address,)})
    await mine.next()
    assert not mine.peers.has_other_data(second)
    inbound = Connection(lambda connection, kind, payload: None, lambda connection: None)
    inbound.introduce(first)
    mine.peers.accepted("n2", inbound)
    assert mine.peers.has_other_data(second)
    assert not mine.peers.has_other_data(first), "it may connect again at any time"
    mine.peers.lost("n2", inbound)
    assert not mine.peers.has_other_data(second), "it may have lost its disk"


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


async def test_those_that_are_no_members_any_more_are_left_in_the_order_of_the_members(
    mine: Mine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in that of a set, which differs from process to process: a simulated run repeats exactly."""
    names = [f"n{number}" for number in range(2, 22)]
    mine.peers.follow(dict.fromkeys(names, ("127.0.0.1:1",)))
    left: list[str] = []
    leave = mine.peers._leave
    monkeypatch.setattr(mine.peers, "_leave", lambda name: (left.append(name), leave(name)))
    mine.peers.follow({})
    assert left == names
