"""The gateway's client against a shard of a few lines, which loses connections when the story wants it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from cluster.client import Client
from cluster.trouble import ClusterTrouble
from cluster.wire import (
    ASK,
    HELLO,
    OPERATIONS,
    OUTCOMES,
    REPORT,
    TOLD,
    VERSION,
    Ask,
    Connection,
    Hello,
    Report,
    ToldLook,
    ask_decoder,
    hello_decoder,
)
from storage.operations import (
    ITEM_HEADER,
    Delivery,
    Done,
    Forget,
    Item,
    Keyed,
    Nack,
    Operation,
    Receive,
    Received,
    decode_items,
    encode_outcome,
)
from storage.queue_operations import GetQueue, PurgeQueue

Answer = Callable[[Connection, Item], None]


class Shard:
    """Says that it leads, and hands every operation to `on_operation`."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []
        self.on_operation: Answer = self.done
        self.on_question: Callable[[Connection, Ask], None] = self.tell
        self.term = 1

    async def start(self, path: Path) -> None:
        loop = asyncio.get_running_loop()
        self.server = await loop.create_unix_server(lambda: Connection(self.on_frame, lambda _: None), str(path))

    def on_frame(self, connection: Connection, kind: int, payload: memoryview) -> None:
        if kind == HELLO:
            connection.peer = hello_decoder.decode(payload)
            connection.send(HELLO, msgspec.json.encode(Hello(VERSION, "c", 0, "replica", "n1", True)))
            self.report(connection)
        elif kind == OPERATIONS:
            for item, _ in decode_items(payload):
                if not isinstance(item.operation, Forget):
                    self.seen.append((item.session, item.seq))
                    self.on_operation(connection, item)
        elif kind == ASK:
            self.on_question(connection, ask_decoder.decode(payload))

    def report(self, connection: Connection) -> None:
        report = Report("n1", "n1", self.term, 1, 1, True, True, None)
        connection.send(REPORT, msgspec.msgpack.encode(report))

    def done(self, connection: Connection, item: Item) -> None:
        outcome = encode_outcome(Done())
        connection.send(OUTCOMES, ITEM_HEADER.pack(item.session, item.seq, len(outcome), 0), outcome)

    def tell(self, connection: Connection, question: Ask) -> None:
        connection.send(TOLD, msgspec.msgpack.encode(ToldLook(question.number, Done(), b"x", 7, None)))

    def lose(self, connection: Connection, item: Item) -> None:
        self.on_operation = self.done
        connection.close()

    def elect(self, connection: Connection, item: Item) -> None:
        self.on_operation = self.done
        self.term += 1
        self.report(connection)


@pytest.fixture
async def shard(tmp_path: Path) -> AsyncIterator[Shard]:
    shard = Shard()
    await shard.start(tmp_path / "s")
    yield shard
    shard.server.close()


@pytest.fixture
async def client(shard: Shard, tmp_path: Path) -> AsyncIterator[Client]:
    """Connected: what is not answered soon has been sent at least."""
    client = Client("n1", f"unix:{tmp_path / 's'}")
    await client.start()
    async with asyncio.timeout(30):
        while client.status().shards[0].leader is None:  # noqa: ASYNC110
            await asyncio.sleep(0)
    yield client
    await client.close()


async def test_an_operation_is_answered(shard: Shard, client: Client) -> None:
    assert (await client.submit(PurgeQueue("q"), timeout_ms=5000)).outcome == Done()


@pytest.mark.parametrize("trouble", ["lose", "elect"])
async def test_what_was_not_answered_is_sent_again_under_its_id(shard: Shard, client: Client, trouble: str) -> None:
    shard.on_operation = getattr(shard, trouble)
    assert (await client.submit(PurgeQueue("q"), timeout_ms=5000)).outcome == Done()
    assert len(shard.seen) == 2
    assert len(set(shard.seen)) == 1


async def test_a_silent_connection_is_dialled_again(
    shard: Shard, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a machine loses its power: no goodbye comes, and its next life does not know the connection."""
    monkeypatch.setattr("cluster.links.GIVE_UP_S", 0.1)

    def fall_silent(connection: Connection, item: Item) -> None:
        shard.on_operation = shard.done

    shard.on_operation = fall_silent
    assert (await client.submit(PurgeQueue("q"), timeout_ms=5000)).outcome == Done()
    assert len(shard.seen) == 2


async def test_what_was_sent_and_not_answered_is_unknown(shard: Shard, client: Client) -> None:
    shard.on_operation = lambda connection, item: None
    with pytest.raises(ClusterTrouble) as trouble:
        await client.submit(PurgeQueue("q"), timeout_ms=50)
    assert trouble.value.outcome == "unknown"


async def test_what_was_never_sent_is_not_done(tmp_path: Path) -> None:
    client = Client("n1", f"unix:{tmp_path / 'nobody'}")
    await client.start()
    with pytest.raises(ClusterTrouble) as trouble:
        await client.submit(PurgeQueue("q"), timeout_ms=50)
    assert trouble.value.outcome == "not_done"
    await client.close()


@pytest.mark.parametrize("is_keyed", [False, True])
async def test_a_lease_that_comes_too_late_is_given_back_unless_it_can_be_asked_for_again(
    is_keyed: bool, shard: Shard, client: Client
) -> None:
    receive, asked = Receive("q", 1, 1000, 7), list[tuple[Connection, Item]]()
    shard.on_operation = lambda connection, item: asked.append((connection, item))
    with pytest.raises(ClusterTrouble) as raised:
        await client.submit(Keyed(bytes(16), bytes(16), receive) if is_keyed else receive, timeout_ms=50)
    assert raised.value.outcome == "unknown"
    late = encode_outcome(Received(7, 1, [Delivery(4, 1, 1, 0)]))
    (connection, item), settled = asked[0], list[Operation]()

    def note(connection: Connection, item: Item) -> None:
        settled.append(item.operation)
        shard.done(connection, item)

    shard.on_operation = note
    connection.send(OUTCOMES, ITEM_HEADER.pack(item.session, item.seq, len(late), 0), late)
    await client.submit(PurgeQueue("q"), timeout_ms=1000)
    await client.submit(PurgeQueue("q"), timeout_ms=1000)  # by now the client has read what was late, and acted on it
    assert [type(operation) is Nack for operation in settled].count(True) == (not is_keyed)


async def test_the_own_replica_is_asked_for_what_it_has(shard: Shard, client: Client) -> None:
    await client.submit(PurgeQueue("q"), timeout_ms=5000)  # it is connected then
    told = await client.look(GetQueue("q"), timeout_ms=5000)
    assert (told.outcome, told.block, told.applied_index, told.staleness_ms) == (Done(), b"x", 7, None)
    assert shard.seen == [(shard.seen[0][0], 1)], "nothing more went to the leader"


async def test_a_question_to_a_replica_that_goes_away_is_given_up_at_once(shard: Shard, client: Client) -> None:
    await client.submit(PurgeQueue("q"), timeout_ms=5000)
    shard.on_question = lambda connection, question: connection.close()
    with pytest.raises(ClusterTrouble, match="does not answer") as trouble:
        await client.look(GetQueue("q"), timeout_ms=60_000)
    assert trouble.value.outcome == "not_done"
