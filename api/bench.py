"""Loading a running cluster, and checking while doing so that nothing is lost, doubled or damaged.

Every body begins with its number, so that what was received can be held against what was sent without trusting the
cluster's own ids. Three workloads: *publish* sends everything, *consume* then receives and acks it all, *stream* does
both at once and measures from the start of a send to the arrival of its message.
"""

from __future__ import annotations

import asyncio
import base64
import random
import time
from array import array
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, Literal

import msgspec

from api.bench_client import Answer, Connection

NUMBER_BYTES = 16
TAILS = 251
"""Different random bodies: enough that nothing compresses or caches well, few enough to be kept in memory."""
POLL_MS = 200
RETRY_S = 0.05
SILENCE_MAX_S = 60.0
"""When nothing has come for so long, what is missing is lost. Longer than a lease, which a lost answer may hold."""

Format = Literal["msgpack", "json"]
Progress = Callable[[str, int, int], None]
"""Called now and then with a workload, how many messages are through, and of how many."""


class BenchError(Exception):
    """The cluster refused a request that it should have taken; the message is what it said."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to load with. `connections` is how many requests are outstanding, spread over `urls`."""

    urls: list[str]
    queue: str = "bench"
    messages: int = 100_000
    batch: int = 1
    receive_batch: int = 256
    body_bytes: int = 1024
    connections: int = 64
    format: Format = "msgpack"
    seed: int = 1


def quantiles(values: Iterable[float], *shares: float) -> list[float]:
    """The values that such shares of all lie below, 1.0 being the greatest. There is at least one."""
    ordered = sorted(values)
    return [ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in shares]


class Latency(msgspec.Struct, frozen=True):
    """How long requests took, in milliseconds."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Latency:
        """That of at least one request."""
        return cls(*(round(1000 * each, 3) for each in quantiles(seconds, 0.5, 0.95, 0.99, 1.0)))


class Result(msgspec.Struct, frozen=True):
    """One workload's figures. `retries`: requests that failed and were made again."""

    workload: str
    messages: int
    seconds: float
    messages_per_s: float
    mib_per_s: float
    requests: int
    retries: int
    latency: dict[str, Latency]


class Verdict(msgspec.Struct, frozen=True):
    """What the check found. `lost`: kept, but never received; `twice`: came again although acked."""

    sent: int
    received: int
    lost: int
    twice: int
    damaged: int

    @property
    def is_clean(self) -> bool:
        """Whether every promise held."""
        return not (self.lost or self.twice or self.damaged)


class _Delivered(msgspec.Struct):
    receipt: str
    body: Any


class _Deliveries(msgspec.Struct):
    messages: list[_Delivered]


class _Settled(msgspec.Struct):
    status: str


class _Settlement(msgspec.Struct):
    results: list[_Settled]


class _Samples(dict[str, "array[float]"]):
    def __missing__(self, name: str) -> array[float]:
        self[name] = array("d")
        return self[name]

    def latency(self) -> dict[str, Latency]:
        return {name: Latency.of(seconds) for name, seconds in self.items() if seconds}


class Bodies:
    """The bodies of a run, made from its seed and each known by its number."""

    def __init__(self, plan: Plan) -> None:
        self._count = 2 * plan.messages
        source, size = random.Random(plan.seed), max(0, plan.body_bytes - NUMBER_BYTES)
        raw = [source.randbytes(size) for _ in range(TAILS)]
        self._tails = raw if plan.format == "msgpack" else [base64.b64encode(tail)[:size] for tail in raw]

    def make(self, number: int) -> bytes:
        """Body number `number`."""
        return b"%016x" % number + self._tails[number % TAILS]

    def number(self, body: bytes | str) -> int | None:
        """Which body this is, or None if it is none of them, byte for byte."""
        data = body.encode() if isinstance(body, str) else body
        try:
            number = int(data[:NUMBER_BYTES], 16)
        except ValueError:
            return None
        return number if number < self._count and data == self.make(number) else None


class Bench:
    """One run against one queue, which must exist and be empty."""

    def __init__(self, plan: Plan, progress: Progress = lambda *_: None) -> None:
        self.plan = plan
        self._progress = progress
        self._bodies = Bodies(plan)
        self._kind = f"application/{plan.format}"
        self._encode = msgspec.msgpack.encode if plan.format == "msgpack" else msgspec.json.encode
        codec = msgspec.msgpack.Decoder if plan.format == "msgpack" else msgspec.json.Decoder
        self._deliveries: Callable[[bytes], _Deliveries] = codec(_Deliveries).decode
        self._settlement: Callable[[bytes], _Settlement] = codec(_Settlement).decode
        total = 2 * plan.messages  # of both publish and stream
        self._kept = bytearray(total)
        self._unsure = bytearray(total)  # may be there twice, because the answer to its send was lost
        self._came = bytearray(total)
        self._acked = bytearray(total)
        self._began_s = array("d", bytes(8 * total))
        self._twice = self._damaged = 0
        self._open: list[Connection | None] = [None] * max(2, plan.connections)

    async def publish(self) -> Result:
        """Send everything."""
        numbers = range(self.plan.messages)
        return await self._run("publish", numbers, self._publishers(numbers, range(self.plan.connections)))

    async def consume(self) -> Result:
        """Receive and ack everything that was published."""
        numbers = range(self.plan.messages)
        return await self._run("consume", numbers, self._consumers(numbers, range(self.plan.connections)))

    async def stream(self) -> Result:
        """Send with one half of the connections and receive with the other."""
        numbers = range(self.plan.messages, 2 * self.plan.messages)
        middle = max(1, self.plan.connections // 2)
        return await self._run(
            "stream",
            numbers,
            lambda run: [
                *self._publishers(numbers, range(middle))(run),
                *self._consumers(numbers, range(middle, len(self._open)))(run),
            ],
        )

    def verdict(self) -> Verdict:
        """What is to be said about every message so far."""
        lost = sum(kept and not came for kept, came in zip(self._kept, self._came, strict=True))
        return Verdict(sum(self._kept), sum(self._came), lost, self._twice, self._damaged)

    def close(self) -> None:
        """Let go of the connections."""
        for connection in self._open:
            if connection is not None:
                connection.close()

    # --- how a workload runs ------------------------------------------------------------------------------------------

    async def _run(
        self, name: str, numbers: range, workers: Callable[[_Run], list[Coroutine[Any, Any, None]]]
    ) -> Result:
        run = _Run(name)
        began_s = run.moved_s

        async def report() -> None:
            while True:
                self._progress(name, run.through, len(numbers))
                await asyncio.sleep(0.2)

        reporter = asyncio.create_task(report())
        try:
            async with asyncio.TaskGroup() as group:
                for worker in workers(run):
                    group.create_task(worker)
        except* BenchError as errors:
            raise errors.exceptions[0] from None
        finally:
            reporter.cancel()
        self._progress(name, run.through, len(numbers))
        seconds = run.moved_s - began_s
        return Result(
            workload=name,
            messages=run.through,
            seconds=round(seconds, 3),
            messages_per_s=round(run.through / seconds, 1) if seconds else 0.0,
            mib_per_s=round(run.through * self.plan.body_bytes / seconds / 2**20, 2) if seconds else 0.0,
            requests=run.requests,
            retries=run.retries,
            latency=run.samples.latency(),
        )

    def _publishers(self, numbers: range, slots: range) -> Callable[[_Run], list[Coroutine[Any, Any, None]]]:
        starts = iter(numbers[:: self.plan.batch])
        return lambda run: [self._publish(run, starts, numbers.stop, slot) for slot in slots]

    def _consumers(self, numbers: range, slots: range) -> Callable[[_Run], list[Coroutine[Any, Any, None]]]:
        return lambda run: [self._consume(run, numbers, slot) for slot in slots]

    async def _publish(self, run: _Run, starts: Iterator[int], stop: int, slot: int) -> None:
        path = f"/v1/queues/{self.plan.queue}/messages"
        for first in starts:
            numbers = range(first, min(first + self.plan.batch, stop))
            bodies = [self._bodies.make(number) for number in numbers]
            sendable = bodies if self.plan.format == "msgpack" else [body.decode() for body in bodies]
            content = self._encode({"messages": [{"body": body} for body in sendable]})
            began_s = time.perf_counter()
            for number in numbers:
                self._began_s[number] = began_s
            await self._insist(run, slot, path, content, numbers)
            run.samples["send"].append(time.perf_counter() - began_s)
            for number in numbers:
                self._kept[number] = 1
            if run.name == "publish":
                run.advance(len(numbers))

    async def _consume(self, run: _Run, numbers: range, slot: int) -> None:
        receive, ack = (f"/v1/queues/{self.plan.queue}/{what}" for what in ("receive", "ack"))
        wish = self._encode({"max": self.plan.receive_batch, "wait_ms": POLL_MS})
        while run.through < len(numbers) and time.perf_counter() - run.moved_s < SILENCE_MAX_S:
            began_s = time.perf_counter()
            answer = await self._insist(run, slot, receive, wish)
            arrived_s = time.perf_counter()
            messages = self._deliveries(answer.content).messages
            if not messages:
                continue
            run.samples["receive"].append(arrived_s - began_s)
            known = [self._bodies.number(message.body) for message in messages]
            new = self._arrived(known)
            if run.name == "stream":
                run.samples["end_to_end"].extend(arrived_s - self._began_s[n] for n in known if n is not None)
            began_s = time.perf_counter()
            content = self._encode({"receipts": [message.receipt for message in messages]})
            answer = await self._insist(run, slot, ack, content)
            run.samples["ack"].append(time.perf_counter() - began_s)
            for number, settled in zip(known, self._settlement(answer.content).results, strict=True):
                if number is not None and settled.status == "acked":
                    self._acked[number] = 1
            run.advance(new)

    def _arrived(self, known: list[int | None]) -> int:
        """Note what came; returns how many came for the first time."""
        new = 0
        for number in known:
            if number is None:
                self._damaged += 1
                continue
            # Once more is no fault when the lease was over, or when the send was repeated because it went unanswered.
            self._twice += self._acked[number] and not self._unsure[number]
            new += not self._came[number]
            self._came[number] = 1
        return new

    async def _insist(self, run: _Run, slot: int, path: str, content: bytes, unsure: range = range(0)) -> Answer:
        """Make a request until it is answered. Raises `BenchError` when it is refused."""
        attempt = 0
        while True:
            try:
                connection = await self._connection(slot, attempt)
                answer = await connection.request("POST", path, content, self._kind)
            except (OSError, TimeoutError) as error:
                trouble, self._open[slot] = str(error), None
            else:
                run.requests += 1
                if answer.status < 300:
                    return answer
                trouble = answer.content[:500].decode(errors="replace")
                if answer.status != 503:
                    raise BenchError(f"{path} was refused with {answer.status}: {trouble}")
            attempt += 1
            run.retries += 1
            for number in unsure:
                self._unsure[number] = 1
            if time.perf_counter() - run.moved_s > SILENCE_MAX_S:
                raise BenchError(f"nothing moved for {SILENCE_MAX_S:.0f} s: {trouble}")
            await asyncio.sleep(RETRY_S)

    async def _connection(self, slot: int, attempt: int) -> Connection:
        connection = self._open[slot]
        if connection is None or not connection.is_open:
            urls = self.plan.urls
            connection = self._open[slot] = await Connection.open(urls[(slot + attempt) % len(urls)])
        return connection


class _Run:
    """A workload's counters. `through`: messages done; `moved_s`: when one last was."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.through = self.requests = self.retries = 0
        self.moved_s = time.perf_counter()
        self.samples = _Samples()

    def advance(self, count: int) -> None:
        self.through += count
        self.moved_s = time.perf_counter()
