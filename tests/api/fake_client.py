"""A cluster of one, in the same process: the real rules over the store in memory, one operation an entry."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientSession, TCPConnector

from api.http import HttpServer
from api.request import HttpSettings
from cluster.client import Client, Reply
from cluster.dispatcher import Request
from cluster.metrics import GatewayMetrics, PeerMetrics, ProcessMetrics, ReplicaMetrics, ShardMetrics
from cluster.occurrences import Occurrences
from cluster.questions import ShardDigest
from cluster.router import Router
from cluster.status import NodeStatus, ShardStatus, Status
from cluster.trouble import ClusterTrouble
from cluster.wire import ScrubReport, ToldLook, ToldMetrics
from storage import queries, redrive_look
from storage.machine import apply
from storage.memory_store import MemoryStore
from storage.operations import (
    Keyed,
    Operation,
    Outcome,
    Pulse,
    Query,
    Receive,
    Received,
    encode_entry,
    encode_item,
)
from storage.reading import find_queue
from storage.sift_look import Sifter

START_MS = 1_700_000_000_000


class FakeClient(Client):
    """`fails_with`: what the next operations run into. `asked`: every operation, in order. `now_ms`: cluster time."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.now_ms = START_MS
        self.asked: list[Operation] = []
        self.fails_with: Exception | None = None
        self.refuses_with: Outcome | None = None
        self.trouble: str | None = None
        self.has_leader = True
        self.changed: list[tuple[str, str, str]] = []
        self.staleness_ms: int | None = 3
        self.handed_in: list[GatewayMetrics] = []
        self.others: dict[str, GatewayMetrics] = {}
        self._calls = {}
        self.waiting, self.cancelled = asyncio.Event(), asyncio.Event()
        self._sent = asyncio.Condition()
        self._session = 1

    async def submit(self, operation: Operation, block: bytes = b"", *, timeout_ms: int) -> Reply:
        self.asked.append(operation)
        if self.fails_with is not None:
            raise self.fails_with
        if self.refuses_with is not None:
            return Reply(self.refuses_with, memoryview(b""))
        if isinstance(operation, Query):
            outcome, bodies = queries.answer(self.store, operation)
            return Reply(outcome, memoryview(bodies))
        receive = operation.operation if isinstance(operation, Keyed) else operation
        if not isinstance(receive, Receive):
            reply = self._apply(operation, block)
            async with self._sent:
                self._sent.notify_all()
            return reply
        return await self._receive(operation, receive)

    async def _receive(self, operation: Operation, receive: Receive) -> Reply:
        """Hold the receive until there is something; nobody waits for the time to be over here."""
        try:
            async with self._sent:
                while True:
                    outcome = self._apply(operation).outcome
                    if receive.filter and isinstance(outcome, Received) and not outcome.deliveries:
                        self.sift()
                        outcome = self._apply(operation).outcome
                    if not isinstance(outcome, Received):
                        return Reply(outcome, memoryview(b""))
                    held, bodies = queries.received(self.store, receive.queue, outcome)
                    if held.deliveries or not self._wait_ms(receive):
                        return Reply(held, memoryview(bodies))
                    self.waiting.set()
                    await self._sent.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    def access_index(self) -> int | None:
        """As the leader says; None: there is none."""
        return queries.access_changed_index(self.store) if self.has_leader else None

    def _wait_ms(self, receive: Receive) -> int:
        queue = find_queue(self.store, receive.queue)
        return receive.wait_ms if receive.wait_ms >= 0 or queue is None else queue.settings.wait_ms

    async def look(self, query: Query, *, timeout_ms: int) -> ToldLook:
        outcome, block = queries.answer(self.store, query)
        return ToldLook(1, outcome, block, self.store.last_index, self.staleness_ms)

    def _apply(self, operation: Operation, block: bytes = b"") -> Reply:
        index = self.store.last_index + 1
        raw = encode_item(self._session, index, operation, block)
        request = Request("gateway", self._session, index, operation, raw, 0.0, 0)
        refused = Router(self.store, lambda: 0.0).route(request)
        if refused is not None:
            return Reply(refused, memoryview(b""))
        entry = encode_entry(self.now_ms, [request.raw])
        self.store.begin()
        self.store.append(index, 1, entry)
        outcome = apply(self.store, index, entry).applied[0].outcome
        self.store.commit()
        return Reply(outcome, memoryview(b""))

    def lead(self) -> None:
        """Take all steps of redrives that are due, and have all times of schedules come."""
        while (step := redrive_look.next_step(self.store, self.now_ms)) is not None:
            self._write(encode_item(0, 0, step))
        while items := Occurrences(self.store, Router(self.store, time.monotonic).targets).due(self.now_ms, ""):
            for item in items:
                self._write(item)

    def sift(self) -> None:
        """Put all messages to all filters of consumers."""
        sifter = Sifter(self.store)
        while sifter.is_due:
            step = sifter.next(lambda: False)
            if step is not None:
                self._write(encode_item(0, 0, step))

    def _write(self, item: bytes) -> Outcome:
        index = self.store.last_index + 1
        entry = encode_entry(self.now_ms, [item])
        self.store.begin()
        self.store.append(index, 1, entry)
        (applied,) = apply(self.store, index, entry).applied
        self.store.commit()
        return applied.outcome

    def pass_time(self, milliseconds: int) -> None:
        """Let cluster time pass and do what is due."""
        self.now_ms += milliseconds
        self._write(encode_item(0, 0, Pulse(500)))
        self.lead()

    async def digest(self, *, timeout_ms: int) -> ShardDigest:
        if self.fails_with is not None:
            raise self.fails_with
        swept = self.store.start_sweep().result
        return ShardDigest(0, self.store.last_index, swept.digest.hex(), swept.records)

    async def scrub(self, *, timeout_ms: int) -> int:
        if self.fails_with is not None:
            raise self.fails_with
        return self.now_ms

    async def change(self, verb: str, name: str, address: str = "", *, timeout_ms: int) -> None:
        if self.fails_with is not None:
            raise self.fails_with
        self.changed.append((verb, name, address))

    async def metrics(self, name: str, own: GatewayMetrics, *, timeout_ms: int) -> ToldMetrics:
        self.handed_in.append(own)
        if self.fails_with is not None:
            raise self.fails_with
        shard = ShardMetrics(
            ProcessMetrics(1000, 2.5),
            ReplicaMetrics(elections={"won": 3}),
            {"n2": PeerMetrics(True, 7), "n3": PeerMetrics(False, 2, 50)},
            "leader" if self.has_leader else "follower",
            last_index=9,
            queues=queries.queue_count(self.store),
            clock_ms=self.now_ms,
        )
        return ToldMetrics(1, shard, self.others | {name: own})

    def status(self) -> Status:
        nodes = [NodeStatus("n1", "a:1", True, scrub=ScrubReport())]
        return Status("n1", nodes, [ShardStatus(0, "n1", 3, 9, 9, self.trouble)])


class Gateway:
    """A served application: `client` behind it, `http` in front of it, `port` for raw sockets."""

    def __init__(self, client: FakeClient, server: HttpServer, port: int, http: ClientSession) -> None:
        self.client, self.port, self.http = client, port, http
        self.stop, self.drain, self._server = server.close, server._drain, server

    def connect(self, transport: asyncio.BaseTransport) -> asyncio.Protocol:
        """The protocol of a new connection, as the loop makes it."""
        factory = self._server._runner.server
        assert factory is not None
        protocol = factory()
        protocol.connection_made(transport)
        return protocol

    def busy_connections(self) -> int:
        """Connections whose client does not read what it asked for."""
        served = self._server._runner.server
        return 0 if served is None else sum(connection.writing_paused for connection in served.connections)


@asynccontextmanager
async def gateway(**settings: Any) -> AsyncIterator[Gateway]:
    client = FakeClient()
    server = HttpServer(client, HttpSettings(**settings))
    port = await server.start("127.0.0.1", 0)
    async with ClientSession(f"http://127.0.0.1:{port}", connector=TCPConnector(limit=50)) as http:
        try:
            yield Gateway(client, server, port, http)
        finally:
            await http.close()  # first: a server that stops waits a moment for those who are still there
            await server.close()


def unknown() -> ClusterTrouble:
    return ClusterTrouble("unknown", "the leader fell silent")
