"""Producers and consumers who retry as a careful client would, and write down what they saw."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tests.chaos.history import DIED, STALE, UNKNOWN, Delivery, History, Receiving, Sending, check
from tests.processes.nodes import POLL_S, Cluster, eventually

RETRY_POLLS_MAX = 10
"""A request is sent again after one `POLL_S`, then two, and so on up to so many."""
KINDS = ("order", "order.paid", "refund", "note")
"""What messages of filtered queues are, at random."""
FILTERS = (
    ({"kind": ["refund"]}, frozenset({"refund"})),
    ({"kind": [{"prefix": "order"}]}, frozenset({"order", "order.paid"})),
    ({"kind": [{"anything-but": {"prefix": "order"}}]}, frozenset({"refund", "note"})),
)
"""Filters of consumers, and the kinds that each wants: all together every kind."""
ERA_S, ERAS_MAX = 20.0, 12
"""The first filter is a new one so often, so that what is there is put to it. A queue has 16 filters at most."""
DRAIN_S = 90.0
"""How long a drain may take: the longest lease, and what a slow machine needs."""
DELAYS_MS = (0, 500, 3000)
"""Delays with which messages of delayed queues are sent."""


@dataclass(frozen=True, slots=True)
class Habits:
    """How the load behaves. Chances are per batch. Without a pause, everybody asks again at once."""

    producers: int = 4
    consumers: int = 4
    queues: tuple[str, ...] = ("q",)
    fifo_queues: tuple[str, ...] = ()
    """Those of them that are fifo."""
    groups: tuple[str, ...] = ("a", "b", "c")
    """The groups of fifo queues; a batch belongs to one of them."""
    filtered_queues: tuple[str, ...] = ()
    """Those whose messages are of several kinds, and whose consumers mostly want some of them only."""
    unfiltered_share: float = 0.25
    """How often a consumer of those wants everything. While queues are drained, none does: what filters miss stays."""
    delayed_queues: tuple[str, ...] = ()
    """Those to which most batches are sent with a delay."""
    batch_max: int = 5
    body_bytes_max: int = 0
    """Bodies are filled up to a random size of at most that."""
    receive_max: int = 20
    wait_ms: int = 200
    lease_ms: int = 30_000
    pause_s: float = 0.0
    """Mean pause of a producer after a batch."""
    nack_chance: float = 0.0
    """A consumer gives its messages back, at once or with a delay."""
    death_chance: float = 0.0
    """A consumer forgets its messages."""
    dawdle_chance: float = 0.0
    """A consumer acks when its lease is about to end, or over."""
    extend_chance: float = 0.0
    """A consumer extends its leases when half of their time is over, and acks when they would have been over."""
    work_s: float = 0.0
    """Mean time that a consumer takes before it acks."""
    patience_s: float = 60.0
    """How long a request is retried before its outcome stays unknown."""


@dataclass(slots=True)
class _Asked:
    """A request: when it was asked first and answered last, and the answer that told its outcome, if any did."""

    asked_s: float
    answered_s: float = 0.0
    answer: Any = None
    is_unsure: bool = False


class Load:
    """Producers and consumers on the given nodes. A request is repeated on any of them, under the same key.

    `names` may change meanwhile.
    """

    def __init__(self, cluster: Cluster, names: list[str], habits: Habits = Habits(), seed: str = "") -> None:
        self.cluster, self.names, self.habits, self.seed = cluster, names, habits, seed
        self.history = History()
        self.producing, self.consuming = True, True
        self.producers: list[asyncio.Task[None]] = []
        self.consumers: list[asyncio.Task[None]] = []
        self._stopped = asyncio.Event()
        self._began_s = time.monotonic()

    def start(self) -> None:
        self.producers = [asyncio.create_task(self._produce(f"p{n}")) for n in range(self.habits.producers)]
        self.consumers = [asyncio.create_task(self._consume(f"c{n}")) for n in range(self.habits.consumers)]

    async def quiet(self) -> None:
        """Stop everybody, and see what the queues count now that no request is under way."""
        self.producing = self.consuming = False
        self._stopped.set()
        await asyncio.gather(*self.producers, *self.consumers)
        for queue in self.habits.queues:
            self.history.count(queue, await self._counted(queue))

    async def drain(self) -> None:
        """Stop producing, and consume until every queue is empty."""
        self.producing = False
        self._stopped.set()
        await asyncio.gather(*self.producers)
        if not self.consuming:
            self.consuming = True
            self.consumers = [asyncio.create_task(self._consume(f"d{n}")) for n in range(self.habits.consumers)]

        async def empty() -> bool:
            ended = [task for task in self.consumers if task.done()]
            await asyncio.gather(*ended)  # raises what went wrong in one of them
            return not sum([await self._counted(queue) for queue in self.habits.queues])

        await eventually(empty, "the queues are empty", DRAIN_S)
        self.consuming = False
        await asyncio.gather(*self.consumers)
        for queue in self.habits.queues:
            self.history.count(queue, await self._counted(queue))

    async def finish(self) -> None:
        """Drain, and check what happened."""
        await self.drain()
        found = check(self.history, drained=True)
        assert not found.violations, "\n".join(found.violations)

    async def _counted(self, queue: str) -> int:
        async def counts() -> dict[str, int] | None:
            for name in list(self.names):
                status, document = await self.cluster.call(name, "GET", f"/v1/queues/{queue}")
                if status == 200:
                    return {state: document[state] for state in ("ready", "leased", "delayed")}
            return None

        found: dict[str, int] = await eventually(counts, f"some node counts {queue}")
        return sum(found.values())

    async def _ask(self, what: str, rng: random.Random, path: str, document: Any) -> _Asked:
        """Ask until there is an answer, on any node and under one key."""
        asked = _Asked(time.monotonic())
        key, tries = str(uuid.UUID(int=rng.getrandbits(128), version=4)), 0
        while asked.answer is None and time.monotonic() < asked.asked_s + self.habits.patience_s:
            name = rng.choice(self.names)
            status, answer = await self.cluster.call(name, "POST", path, document, Idempotency_Key=key)
            asked.answered_s = time.monotonic()
            outcome = answer.get("outcome", "") if isinstance(answer, dict) else "unknown"
            self.history.answers[f"{what} {status} {outcome}".rstrip()] += 1
            if 200 <= status < 300:
                asked.answer = answer
            elif status in (0, 503, 507):
                asked.is_unsure |= outcome == "unknown"
                tries += 1
                for _ in range(min(tries, RETRY_POLLS_MAX)):
                    await asyncio.sleep(POLL_S)
            else:
                self.history.surprises.append(f"{what}: {status} {answer}")
                break
        return asked

    async def _produce(self, who: str) -> None:
        habits, rng, count = self.habits, random.Random(f"{self.seed}/{who}"), 0
        while self.producing:
            bodies = []
            for _ in range(rng.randint(1, habits.batch_max)):
                bodies.append(f"{who}-{count}-".ljust(int(habits.body_bytes_max * rng.random() ** 3), "x"))
                count += 1
            sending = Sending(rng.choice(habits.queues), [body.rstrip("x") for body in bodies], time.monotonic())
            options: dict[str, Any] = {}
            if sending.queue in habits.delayed_queues:
                options["delay_ms"] = rng.choice(DELAYS_MS)
                sending.delay_s = options["delay_ms"] / 1000
            if sending.queue in habits.fifo_queues:
                options["group"] = sending.group = rng.choice(habits.groups)
            kinds: list[dict[str, str]] = [{} for _ in bodies]
            if sending.queue in habits.filtered_queues:
                sending.kinds = rng.choices(KINDS, k=len(bodies))
                kinds = [{"kind": kind} for kind in sending.kinds]
            self.history.sendings.append(sending)
            messages = [
                {"body": body, "attributes": {"size": len(body)} | kind} | options
                for body, kind in zip(bodies, kinds, strict=True)
            ]
            document = {"messages": messages}
            path = f"/v1/queues/{sending.queue}/messages"
            asked = await self._ask("send", rng, path, document)
            if asked.answer is not None:
                sending.answered_s = asked.answered_s
                sending.message_ids = [message["message_id"] for message in asked.answer["messages"]]
            if habits.pause_s:
                await self._pause(rng.expovariate(1 / habits.pause_s))

    async def _pause(self, seconds: float) -> None:
        """Let so much time pass, or less if the load is to stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()

    async def _consume(self, who: str) -> None:
        habits, rng = self.habits, random.Random(f"{self.seed}/{who}")
        wish = {"max": habits.receive_max, "wait_ms": habits.wait_ms, "lease_ms": habits.lease_ms}
        while self.consuming:
            receiving = Receiving(rng.choice(habits.queues), habits.receive_max, time.monotonic())
            self.history.receivings.append(receiving)
            filter_, receiving.wanted = self._filter(rng, receiving.queue)
            path = f"/v1/queues/{receiving.queue}/receive"
            asked = await self._ask("receive", rng, path, wish | ({"filter": filter_} if filter_ else {}))
            receiving.asked_s, receiving.is_unsure = asked.asked_s, asked.is_unsure
            if asked.answer is None:
                continue
            receiving.answered_s = asked.answered_s
            receiving.deliveries = [self._seen(receiving, message) for message in asked.answer["messages"]]
            receiving.is_sifting = asked.answer.get("sifting", False)
            if receiving.deliveries:
                await self._settle(rng, receiving.queue, receiving.deliveries)

    def _filter(self, rng: random.Random, queue: str) -> tuple[dict[str, Any] | None, frozenset[str] | None]:
        """What a consumer asks for, and the kinds that are that. None: everything."""
        habits = self.habits
        if queue not in habits.filtered_queues or (self.producing and rng.random() < habits.unfiltered_share):
            return None, None
        filter_, wanted = rng.choice(FILTERS)
        if filter_ is FILTERS[0][0]:
            era = min(int((time.monotonic() - self._began_s) / ERA_S), ERAS_MAX)
            filter_ = {"kind": [*filter_["kind"], f"era-{era}"]}
        return filter_, wanted

    def _seen(self, receiving: Receiving, message: Any) -> Delivery:
        body = message["body"]
        if len(body) != message["attributes"]["size"] or body.rstrip("x").count("-") != 2:
            self.history.surprises.append(f"a body is damaged: {message}")
        return Delivery(
            receiving.queue,
            message["message_id"],
            message["attempt"],
            body.rstrip("x"),
            message["receipt"],
            receiving.asked_s,
            receiving.answered_s,
            self.habits.lease_ms / 1000,
            group=message.get("group", ""),
            kind=message["attributes"].get("kind", ""),
        )

    async def _settle(self, rng: random.Random, queue: str, mine: list[Delivery]) -> None:
        habits, dice = self.habits, rng.random()
        if self.producing and dice < habits.death_chance:
            for delivery in mine:
                delivery.end = DIED
            return
        what, delay = "ack", {}
        if self.producing and dice < habits.death_chance + habits.nack_chance:
            what, delay = "nack", {"delay_ms": rng.choice((0, 0, 500, 2000))}
        elif self.producing and rng.random() < habits.dawdle_chance:
            await self._pause(mine[0].lease_s * rng.uniform(0.8, 1.5))
        elif self.producing and rng.random() < habits.extend_chance:
            mine = await self._extend(rng, queue, mine)
        elif habits.work_s:
            await self._pause(rng.expovariate(1 / habits.work_s))
        asked, results = await self._tell(rng, queue, what, mine, delay)
        for delivery, delivery.end in zip(mine, results, strict=True):
            delivery.wish, delivery.end_asked_s, delivery.end_known_s = what, asked.asked_s, asked.answered_s
            delivery.delay_s = delay.get("delay_ms", 0) / 1000

    async def _extend(self, rng: random.Random, queue: str, mine: list[Delivery]) -> list[Delivery]:
        """Extend leases, and go on until after they would have been over. Returns what is still held."""
        await self._pause(mine[0].lease_s / 2)
        asked, results = await self._tell(rng, queue, "extend", mine, {"lease_ms": self.habits.lease_ms})
        for delivery, result in zip(mine, results, strict=True):
            if result == STALE:
                delivery.end, delivery.end_asked_s, delivery.end_known_s = STALE, asked.asked_s, asked.answered_s
            elif result == "extended":
                delivery.extended_s = asked.asked_s
        await self._pause(mine[0].lease_s * rng.uniform(0.6, 0.8))
        return [delivery for delivery in mine if delivery.end != STALE]

    async def _tell(
        self, rng: random.Random, queue: str, what: str, mine: list[Delivery], wish: dict[str, int]
    ) -> tuple[_Asked, list[str]]:
        """Ask for something to be done with what is held. Returns how each of it went."""
        if not mine:
            return _Asked(time.monotonic()), []
        receipts = [delivery.receipt for delivery in mine]
        asked = await self._ask(what, rng, f"/v1/queues/{queue}/{what}", {"receipts": receipts} | wish)
        results = [result["status"] for result in asked.answer["results"]] if asked.answer else [UNKNOWN] * len(mine)
        return asked, results
