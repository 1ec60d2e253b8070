"""A gateway that learns from reports who the members are, and asks for changes of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from cluster.client import Client
from cluster.membership import ChangeRefusedError
from cluster.trouble import ClusterTrouble
from cluster.wire import (
    ASK,
    HELLO,
    REFUSED,
    REMOVED,
    REPORT,
    TOLD,
    VERSION,
    AskChange,
    Connection,
    Hello,
    MemberReport,
    Report,
    ToldChange,
    ask_decoder,
    hello_decoder,
)
from storage.queue_operations import PurgeQueue


class Member:
    """One replica of a few lines. It says what the story has it say."""

    def __init__(self, name: str) -> None:
        self.name, self.address = name, ""
        self.gateways: list[Connection] = []
        self.hellos: list[Hello] = []
        self.asked: list[AskChange] = []
        self.answers = True
        self.refuses: tuple[int, str] | None = None
        self.told = ToldChange(0)
        self.report = Report(name, None, 0, 1, 1, False, True, None, "c")
        self.changed = asyncio.Condition()

    async def start(self, path: Path | None = None) -> None:
        loop = asyncio.get_running_loop()
        if path is not None:
            self.server, self.address = await loop.create_unix_server(self.make, str(path)), f"unix:{path}"
        else:
            self.server = await loop.create_server(self.make, "127.0.0.1", 0)
            self.address = f"127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    def make(self) -> Connection:
        return Connection(self.on_frame, self.on_lost)

    def on_frame(self, connection: Connection, kind: int, payload: memoryview) -> None:
        if kind == HELLO:
            self.hellos.append(hello_decoder.decode(payload))
            if self.refuses is not None:
                connection.refuse(self.refuses[1], self.refuses[0])
                self.notify()
                return
            connection.introduce(self.hellos[-1])
            connection.send(HELLO, msgspec.json.encode(Hello(VERSION, "c", 0, "replica", self.name, True)))
            self.gateways.append(connection)
            self.say()
        elif kind == ASK:
            question = ask_decoder.decode(payload)
            assert isinstance(question, AskChange)
            self.asked.append(question)
            if self.answers:
                told = msgspec.structs.replace(self.told, number=question.number)
                connection.send(TOLD, msgspec.msgpack.encode(told))
        self.notify()

    def on_lost(self, connection: Connection) -> None:
        if connection in self.gateways:
            self.gateways.remove(connection)
        self.notify()

    def notify(self) -> None:
        async def wake() -> None:
            async with self.changed:
                self.changed.notify_all()

        self.waking = asyncio.ensure_future(wake())

    async def until(self, condition: object) -> None:
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(condition)  # type: ignore[arg-type]

    def say(self, *members: Member, leads: int = 0, is_removed: bool = False) -> None:
        """Report; with members: that those are the members now. `leads`: in this term."""
        report = msgspec.structs.replace(self.report, is_removed=is_removed)
        if members:
            reports = [MemberReport(m.name, m.address, m.name != "n4", 7, None) for m in members]
            report = msgspec.structs.replace(report, members=reports)
        if leads:
            report = msgspec.structs.replace(report, leader=self.name, term=leads, serving=True)
        self.report = report
        for gateway in self.gateways:
            gateway.send(REPORT, msgspec.msgpack.encode(report))


@pytest.fixture
async def members(tmp_path: Path) -> AsyncIterator[list[Member]]:
    found = [Member(f"n{number}") for number in range(1, 5)]
    await found[0].start(tmp_path / "s")
    for member in found[1:]:
        await member.start()
    yield found
    for member in found:
        member.server.close()


@pytest.fixture
async def client(members: list[Member]) -> AsyncIterator[Client]:
    client = Client("n1", members[0].address)
    await client.start()
    await members[0].until(lambda: members[0].gateways)
    yield client
    await client.close()


async def test_it_finds_the_members_that_its_own_replica_names(members: list[Member], client: Client) -> None:
    one, two, three, _ = members
    one.say(one, two)
    await two.until(lambda: two.gateways)
    assert two.hellos[0].cluster == "c", "as its own replica has told it"
    one.say(one, two, three)
    await three.until(lambda: three.gateways)
    one.say(one, three)
    await two.until(lambda: not two.gateways)
    assert [node.name for node in client.status().nodes] == ["n1", "n3"]


async def test_the_leader_knows_better_than_its_own_replica(members: list[Member], client: Client) -> None:
    one, two, three, four = members
    one.say(one, two)
    await two.until(lambda: two.gateways)
    two.say(one, two, three, four, leads=3)
    await four.until(lambda: four.gateways)
    assert [(node.name, node.role) for node in client.status().nodes][-2:] == [("n3", "voter"), ("n4", "learner")]
    one.say(one, two)
    two.say(one, two, three, four, leads=3)
    await client.change("remove", "x", timeout_ms=5000)
    assert four.gateways, "what a replica that lags says changes nothing"


async def test_a_change_is_asked_of_the_leader_and_of_the_next_one_again(members: list[Member], client: Client) -> None:
    one, two, three, _ = members
    one.say(one, two, three)
    await three.until(lambda: three.gateways)
    two.answers = False
    two.say(leads=3)
    change = asyncio.ensure_future(client.change("add", "n9", "nine:1", timeout_ms=10_000))
    await two.until(lambda: two.asked)
    three.say(leads=4)
    await change
    (asked,) = three.asked
    assert (asked.verb, asked.name, asked.address) == ("add", "n9", "nine:1")


async def test_a_refusal_is_raised(members: list[Member], client: Client) -> None:
    one = members[0]
    one.told = ToldChange(0, "last_voter", "n1 is the only voter")
    one.say(one, leads=1)
    with pytest.raises(ChangeRefusedError, match="the only voter") as refused:
        await client.change("remove", "n1", timeout_ms=5000)
    assert refused.value.code == "last_voter"


@pytest.mark.parametrize("outcome", ["unknown", "not_done"])
async def test_what_a_change_has_come_to_is_said(members: list[Member], client: Client, outcome: str) -> None:
    one = members[0]
    one.answers = False
    one.say(one, leads=1 if outcome == "unknown" else 0)
    with pytest.raises(ClusterTrouble) as trouble:
        await client.change("remove", "n2", timeout_ms=200)
    assert trouble.value.outcome == outcome


async def test_a_removed_node_does_nothing_for_anybody(members: list[Member], client: Client) -> None:
    one = members[0]
    one.say(one, leads=1)
    await client.change("remove", "n2", timeout_ms=5000)
    one.say(is_removed=True)

    async def refused() -> None:
        while True:
            await client.change("remove", "n2", timeout_ms=5000)

    with pytest.raises(ClusterTrouble, match="n1 was removed from the cluster"):
        await refused()
    with pytest.raises(ClusterTrouble, match="n1 was removed from the cluster") as trouble:
        await client.submit(PurgeQueue("q"), timeout_ms=5000)
    assert trouble.value.outcome == "not_done"


@pytest.mark.parametrize("kind", [REFUSED, REMOVED])
async def test_a_gateway_that_is_refused_says_why_and_dials_more_and_more_seldom(
    members: list[Member], client: Client, kind: int
) -> None:
    """What is no trouble is dialled again at once, and twenty handshakes a second are a burden to the members."""
    one, two, *_ = members
    two.refuses = (kind, "n1 is not welcome here")
    with capture_logs() as logs:
        one.say(one, two)
        await two.until(lambda: len(two.hellos) > 1)
    told = [(line["peer"], line["cause"]) for line in logs if line["event"] == "cannot reach shard"]
    assert told == [("n2", "n1 is not welcome here")]
