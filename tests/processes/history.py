"""What producers and consumers saw, and what must be true of it whatever happened to the nodes."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

from tests.processes.nodes import POLL_S, Cluster, eventually


@dataclass
class Delivery:
    body: str
    receipt: str
    begun_s: float
    until_s: float
    ack_known_s: float | None = None


@dataclass
class History:
    """Every send and delivery. `begun_s`/`until_s`: when a lease was surely held, by the client's monotonic clock."""

    attempted: set[str] = field(default_factory=set)
    kept: set[str] = field(default_factory=set)
    deliveries: list[Delivery] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    def check(self) -> None:
        received = Counter(delivery.body for delivery in self.deliveries)
        assert not self.kept - received.keys(), f"lost: {sorted(self.kept - received.keys())[:5]}"
        assert not received.keys() - self.attempted, "received what was never sent"
        by_body: dict[str, list[Delivery]] = {}
        for delivery in self.deliveries:
            by_body.setdefault(delivery.body, []).append(delivery)
        for body, deliveries in by_body.items():
            deliveries.sort(key=lambda delivery: delivery.begun_s)
            for earlier, later in pairwise(deliveries):
                assert earlier.ack_known_s is None or later.begun_s < earlier.ack_known_s, f"{body} came back acked"
                assert later.begun_s >= earlier.until_s, f"two leases of {body} overlap"


class Load:
    """Producers and consumers on the given nodes, who retry as a careful client would."""

    def __init__(self, cluster: Cluster, names: list[str], lease_ms: int = 30_000) -> None:
        self.cluster, self.names, self.lease_ms = cluster, names, lease_ms
        self.history = History()
        self.producing = self.consuming = True
        self.tasks: list[asyncio.Task[None]] = []

    def start(self, producers: int = 4, consumers: int = 4) -> None:
        self.producers = [asyncio.create_task(self.produce(f"p{n}", n)) for n in range(producers)]
        self.consumers = [asyncio.create_task(self.consume(n)) for n in range(consumers)]

    async def produce(self, who: str, number: int) -> None:
        count = 0
        while self.producing:
            bodies = [f"{who}-{count + n}" for n in range(5)]
            count += 5
            self.history.attempted.update(bodies)
            key = str(uuid.uuid4())
            document = {"messages": [{"body": body} for body in bodies]}
            while True:
                name = self.names[(number + count // 5) % len(self.names)]
                status, _ = await self.cluster.call(
                    name, "POST", "/v1/queues/q/messages", document, Idempotency_Key=key
                )
                if status == 201:
                    self.history.kept.update(bodies)
                    break
                self.history.failures[f"send {status}"] += 1
                await asyncio.sleep(POLL_S)

    async def consume(self, number: int) -> None:
        turn = number
        while self.consuming:
            turn += 1
            name = self.names[turn % len(self.names)]
            asked = {"max": 20, "wait_ms": 200, "lease_ms": self.lease_ms}
            asked_s = time.monotonic()
            status, answer = await self.cluster.call(name, "POST", "/v1/queues/q/receive", asked)
            if status != 200:
                self.history.failures[f"receive {status}"] += 1
                await asyncio.sleep(POLL_S)
                continue
            received_s = time.monotonic()
            # The lease began after the request and before the answer, so it surely lasts lease_ms from the request.
            mine = [
                Delivery(m["body"], m["receipt"], received_s, asked_s + self.lease_ms / 1000)
                for m in answer["messages"]
            ]
            self.history.deliveries += mine
            if mine:
                await self.ack(name, mine)

    async def ack(self, name: str, mine: list[Delivery]) -> None:
        receipts = {"receipts": [delivery.receipt for delivery in mine]}
        began_s = time.monotonic()
        status, answer = await self.cluster.call(name, "POST", "/v1/queues/q/ack", receipts)
        if status != 200:
            self.history.failures[f"ack {status}"] += 1
        for delivery, result in zip(mine, answer["results"] if status == 200 else [], strict=False):
            if result["status"] == "acked":
                delivery.ack_known_s = time.monotonic()
                delivery.until_s = min(delivery.until_s, began_s)  # it may have ended as soon as the ack was sent

    async def drain(self) -> None:
        """Stop producing, consume everything, and check what happened."""
        self.producing = False
        await asyncio.gather(*self.producers)

        async def empty() -> bool:
            counts = await self.cluster.counts(self.names[0], "q")
            return not any(counts.values())

        await eventually(empty, "the queue is empty", 60)
        self.consuming = False
        await asyncio.gather(*self.consumers)
        self.history.check()
