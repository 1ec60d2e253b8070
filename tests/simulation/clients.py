"""Clients of the world, each a few lines that act, wait for the answer, and act again until the run is over."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from cluster.client import Reply
from cluster.trouble import ClusterTrouble
from storage.block import Part, encode_block, parts
from storage.codes import SELECTOR_LIMIT
from storage.message_operations import Browse, ChangeMessage, Page
from storage.operations import (
    Ack,
    Claim,
    Extend,
    Keyed,
    Nack,
    Operation,
    Outcome,
    Receive,
    Received,
    Refused,
    Send,
    Sent,
    Settled,
)
from storage.queue_operations import DeleteQueue, GetQueue, ListQueues, PurgeQueue, PutQueue, QueueInfo, QueueList
from storage.settings import QueueSettings
from tests.simulation.history import History, Hold
from tests.simulation.machines import BrokenError, World
from tests.simulation.oracle import Counts
from tests.simulation.plan import Clients
from tests.simulation.sieves import PROPERTIES, SIEVES

QUEUES = ("a", "b", "c")
BACKLOG = 40
"""Messages waiting in a queue, beyond which producers rest: the run should be about faults, not about scanning."""


class Client:
    """What all clients share."""

    def __init__(self, world: World, history: History, plan: Clients) -> None:
        self.world, self.history, self.plan = world, history, plan
        self.rng = random.Random(f"client {world.plan.chance} {plan.number}")
        self.count = 0
        self.sieve = self.rng.choice(list(SIEVES))
        self.acts: Callable[[], Awaitable[None]] = getattr(self, plan.kind)

    async def live(self) -> None:
        """Until the end of the run."""
        await self.world.outside.rest(1.0)
        while True:
            await self.world.outside.rest(self.rng.expovariate(1 / self.plan.pause_s))
            await self.acts()

    @property
    def now_s(self) -> float:
        return self.world.outside.now_s()

    async def ask(self, operation: Operation, block: bytes = b"", timeout_ms: int = 10_000) -> Reply | None:
        """Ask any gateway; None when there is no answer."""
        name = self.rng.choice(list(self.world.machines))
        try:
            reply = await self.world.ask(name, operation, block, timeout_ms=timeout_ms)
        except (ClusterTrouble, BrokenError) as trouble:
            self.world.oracle.count(f"{type(trouble).__name__} {getattr(trouble, 'outcome', '')}".strip())
            return None
        self.world.oracle.count("answers")
        if isinstance(reply.outcome, Refused):
            self.world.oracle.count(f"refused {reply.outcome.code}")
        return reply

    async def persist(self, operation: Operation, block: bytes = b"") -> Reply | None:
        """Ask under a key of the client's own, and again until there is an answer, or patience is at an end."""
        keyed = Keyed(self.rng.randbytes(16), bytes(16), operation)  # type: ignore[arg-type]
        for _ in range(self.rng.choice((1, 30, 30, 30))):
            reply = await self.ask(keyed, block, self.rng.choice((200, 1000, 10_000)))
            if reply is not None:
                return reply
            await self.world.outside.rest(self.rng.uniform(0.01, 1.0))
        return None

    # --- producers ----------------------------------------------------------------------------------------------------

    def _batch(self) -> tuple[list[bytes], bytes]:
        """The labels of new messages, and their block."""
        self.count += 1
        size = self.rng.choice((1, 1, 1, 2, 5))
        labels = [b"%d-%d-%d" % (self.plan.number, self.count, position) for position in range(size)]
        bodies = [label + b"." * self.rng.choice((0, 3, 100, 800)) for label in labels]
        return labels, encode_block([(body, self.rng.choice(PROPERTIES)) for body in bodies])

    async def producer(self) -> None:
        await self._produce(self.ask)

    async def keyed_producer(self) -> None:
        await self._produce(self.persist)

    async def _produce(self, ask: Callable[[Operation, bytes], Awaitable[Reply | None]]) -> None:
        queue = self.rng.choice(QUEUES)
        model = self.world.oracle.model.queues.get(queue)
        if model is not None and len(model.messages) > BACKLOG:
            return
        labels, block = self._batch()
        self.history.attempted.update(labels)
        reply = await ask(Send(queue, len(labels)), block)
        if reply is not None and isinstance(reply.outcome, Sent):
            self.world.oracle.count("sends acknowledged")
        elif reply is not None and isinstance(reply.outcome, Refused) and reply.outcome.code == "queue_not_found":
            await self.ask(PutQueue(queue, self._settings()))

    def _settings(self) -> QueueSettings:
        return QueueSettings(lease_ms=self.rng.choice((1000, 3000)), retention_ms=self.rng.choice((60_000, 10**9)))

    # --- consumers ----------------------------------------------------------------------------------------------------

    async def _receive(self, *, keyed: bool = False, sieve: str = "") -> tuple[str, list[tuple[Claim, Hold]]]:
        queue, asked_s, call = self.rng.choice(QUEUES), self.now_s, self.history.call()
        lease_ms = self.rng.choice((300, 1000, 3000, 10_000))
        wait_ms = self.rng.choice((0, 0, 500, 3000))
        token = self.rng.getrandbits(62) | 1
        receive = Receive(queue, self.rng.choice((1, 2, 10)), lease_ms, token, wait_ms, filter=sieve)
        reply = await (self.persist(receive) if keyed else self.ask(receive, b"", self.rng.choice((1000, 10_000))))
        if reply is not None and isinstance(reply.outcome, Refused) and reply.outcome.code == SELECTOR_LIMIT:
            self.sieve = self.rng.choice(list(SIEVES))
        if reply is None or not isinstance(reply.outcome, Received):
            return queue, []
        found = []
        count = sum(delivery.count for delivery in reply.outcome.deliveries)
        came = list(parts(reply.block, count)) if count else []
        if sieve:
            self.world.oracle.count("received with filters", count)
            self.history.selected(sieve, came)
        labels = [_label(part) for part in came]
        for delivery in reply.outcome.deliveries:
            for position in range(delivery.count):
                label = labels[len(found)]
                hold = self.history.delivered(call, label, delivery.attempt, asked_s, self.now_s, lease_ms / 1000)
                found.append((Claim(reply.outcome.token, delivery.message_id + position, 1), hold))
        return queue, found

    async def sifter(self) -> None:
        """Asks with a filter for a while, and then with another one; now and then it edits what is there."""
        if self.rng.random() < 0.05:
            self.sieve = self.rng.choice(list(SIEVES))
        if self.rng.random() < 0.3:
            await self._edit()
        await self._consume(self.sieve)

    async def _edit(self) -> None:
        """Change the attributes of a message several times at once."""
        queue = self.rng.choice(QUEUES)
        reply = await self.ask(Browse(queue, 0, BACKLOG))
        if reply is not None and isinstance(reply.outcome, Page) and reply.outcome.messages:
            message_id = self.rng.choice(reply.outcome.messages).message_id
            changes = [ChangeMessage(queue, message_id, properties=each) for each in self.rng.sample(PROPERTIES, 3)]
            await asyncio.gather(*map(self.ask, changes))

    async def consumer(self) -> None:
        await self._consume()

    async def _consume(self, sieve: str = "") -> None:
        queue, found = await self._receive(keyed=self.rng.random() < 0.4, sieve=sieve)
        if not found:
            return
        if self.rng.random() < 0.3:
            await self.world.outside.rest(self.rng.uniform(0.0, 4.0))
        deed = self.rng.choice((self._ack, self._ack, self._ack, self._ack, self._nack, self._extend, self._drop))
        await deed(queue, found)

    async def _drop(self, queue: str, found: list[tuple[Claim, Hold]]) -> None:
        """It has died: its leases end by themselves."""

    async def _ack(self, queue: str, found: list[tuple[Claim, Hold]]) -> None:
        for hold in self._settled(found, await self._settle(Ack(queue, [claim for claim, _ in found]), found)):
            self.history.acked_by(hold)

    async def _nack(self, queue: str, found: list[tuple[Claim, Hold]]) -> None:
        delay_ms, asked_s = self.rng.choice((0, 500, 5000)), self.now_s
        outcome = await self._settle(Nack(queue, [claim for claim, _ in found], delay_ms), found)
        for hold in self._settled(found, outcome):
            self.history.held(hold, asked_s, delay_ms / 1000)

    async def _extend(self, queue: str, found: list[tuple[Claim, Hold]]) -> None:
        lease_ms, asked_s = self.rng.choice((500, 3000)), self.now_s
        outcome = await self._settle(Extend(queue, [claim for claim, _ in found], lease_ms), found)
        for hold in self._settled(found, outcome):
            self.history.held(hold, asked_s, lease_ms / 1000)
        if self.rng.random() < 0.5:
            await self._ack(queue, found)

    async def _settle(self, operation: Any, found: list[tuple[Claim, Hold]]) -> Settled | None:
        for _, hold in found:
            self.history.settling(hold)
        reply = await (self.persist if self.rng.random() < 0.5 else self.ask)(operation)
        return reply.outcome if reply is not None and isinstance(reply.outcome, Settled) else None

    def _settled(self, found: list[tuple[Claim, Hold]], outcome: Settled | None) -> list[Hold]:
        if outcome is None:
            return []
        return [hold for claim, hold in found if claim.message_id not in outcome.stale]

    async def leaver(self) -> None:
        """Asks for messages and goes away before they come."""
        task = asyncio.ensure_future(self._receive())
        await self.world.outside.rest(self.rng.uniform(0.0, 1.0))
        if task.cancel():
            await asyncio.wait([task])
        elif not task.cancelled():
            task.result()

    # --- others -------------------------------------------------------------------------------------------------------

    async def reader(self) -> None:
        oracle, asked_index = self.world.oracle, self.world.oracle.seen_index
        queue = self.rng.choice((*QUEUES, "none"))
        kind = self.rng.randrange(8)
        if kind == 0:
            reply = await self.ask(ListQueues())
            if reply is not None and isinstance(reply.outcome, QueueList):
                for info in reply.outcome.queues:
                    oracle.read_counts(info.queue, asked_index, counts(info))
        elif kind == 1:
            reply = await self.ask(Browse(queue, 0, 5))
            if reply is not None and isinstance(reply.outcome, Page):
                for part in parts(reply.block, len(reply.outcome.messages)):
                    assert _label(part) in self.history.attempted
        else:
            reply = await self.ask(GetQueue(queue))
            if reply is not None:
                oracle.read_counts(queue, asked_index, counts(reply.outcome))

    async def admin(self) -> None:
        await self.world.outside.rest(self.rng.uniform(0.0, 10.0))
        queue = self.rng.choice(QUEUES)
        if self.rng.random() < 0.2:
            await self.persist(DeleteQueue(queue))
        elif self.rng.random() < 0.5:
            await self.ask(PurgeQueue(queue))
        else:
            await self.persist(PutQueue(queue, self._settings()))


def _label(part: Part) -> bytes:
    """The label of a message, or all of its body if that is not what was sent."""
    body = bytes(part.body)
    label, _, rest = body.partition(b".")
    return body if rest.strip(b".") else label


def counts(outcome: Outcome) -> Counts | None:
    """What an answer says of a queue; None: there is none."""
    if not isinstance(outcome, QueueInfo):
        return None
    return outcome.ready, outcome.leased, outcome.delayed, outcome.dead, outcome.bytes
