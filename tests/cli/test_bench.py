"""The bench's check, against a queue that keeps its promises and against queues that break one each."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from api import bench
from api.bench import Bench, BenchError, Latency, Plan, Verdict, quantiles

MESSAGES = 60
Break = Callable[["Queue", list[str]], list[str]]


class Queue:
    """A queue in memory, whose answers to receives go through `breaks` first."""

    def __init__(self, breaks: Break = lambda queue, bodies: bodies, failures: int = 0) -> None:
        self.ready: list[str] = []
        self.acked: list[str] = []
        self.breaks, self.failures = breaks, failures

    async def send(self, request: web.Request) -> web.Response:
        bodies = [message["body"] for message in (await request.json())["messages"]]
        self.ready += bodies
        if self.failures:
            self.failures -= 1
            return web.json_response({"outcome": "unknown"}, status=503)  # and yet it was done
        return web.json_response({"messages": [{"message_id": 1}] * len(bodies)}, status=201)

    async def receive(self, request: web.Request) -> web.Response:
        count = (await request.json())["max"]
        taken, self.ready = self.ready[:count], self.ready[count:]
        messages = [{"receipt": body[:16], "body": body} for body in self.breaks(self, taken)]
        if not messages:
            await asyncio.sleep(0)
        return web.json_response({"messages": messages})

    async def ack(self, request: web.Request) -> web.Response:
        receipts = (await request.json())["receipts"]
        self.acked += receipts
        return web.json_response({"results": [{"receipt": receipt, "status": "acked"} for receipt in receipts]})


@asynccontextmanager
async def served(queue: Queue) -> AsyncIterator[str]:
    app = web.Application(client_max_size=2**20)
    app.add_routes(
        web.post(f"/v1/queues/bench/{name}", handler)
        for name, handler in (("messages", queue.send), ("receive", queue.receive), ("ack", queue.ack))
    )
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def plan(url: str) -> Plan:
    return Plan(
        urls=[url], messages=MESSAGES, batch=3, receive_batch=7, body_bytes=64, connections=4, format="json", seed=5
    )


async def load(queue: Queue) -> tuple[list[bench.Result], Verdict]:
    async with served(queue) as url:
        run = Bench(plan(url))
        results = [await run.publish(), await run.consume(), await run.stream()]
        run.close()
        return results, run.verdict()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "SILENCE_MAX_S", 0.5)


def lose_one(queue: Queue, bodies: list[str]) -> list[str]:
    return [body for body in bodies if int(body[:16], 16) != 11]


def repeat_one_that_was_acked(queue: Queue, bodies: list[str]) -> list[str]:
    again, queue.breaks = queue.acked[:1], queue.breaks if not queue.acked else lambda _, bodies: bodies
    return [*bodies, *(body for body in (bench.Bodies(plan("")).make(int(r, 16)).decode() for r in again))]


def damage_one(queue: Queue, bodies: list[str]) -> list[str]:
    queue.breaks = lambda _, bodies: bodies
    return [bodies[0][:-1] + "!", *bodies[1:]]


@pytest.mark.parametrize(
    ("breaks", "verdict"),
    [
        (lambda queue, bodies: bodies, Verdict(2 * MESSAGES, 2 * MESSAGES, 0, 0, 0)),
        (lose_one, Verdict(2 * MESSAGES, 2 * MESSAGES - 1, 1, 0, 0)),
        (repeat_one_that_was_acked, Verdict(2 * MESSAGES, 2 * MESSAGES, 0, 1, 0)),
        (damage_one, Verdict(2 * MESSAGES, 2 * MESSAGES - 1, 1, 0, 1)),
    ],
)
async def test_the_check_finds_every_broken_promise(breaks: Break, verdict: Verdict) -> None:
    _, found = await load(Queue(breaks))
    assert found == verdict
    assert found.is_clean is (breaks.__name__ == "<lambda>")


async def test_a_send_that_was_repeated_may_come_twice() -> None:
    results, found = await load(Queue(failures=1))
    assert results[0].retries == 1
    assert found == Verdict(2 * MESSAGES, 2 * MESSAGES, 0, 0, 0)


async def test_figures_are_counted() -> None:
    (publish, consume, stream), _ = await load(Queue())
    assert [each.workload for each in (publish, consume, stream)] == ["publish", "consume", "stream"]
    assert [each.messages for each in (publish, consume, stream)] == [MESSAGES] * 3
    assert publish.requests == MESSAGES / 3
    assert publish.latency.keys() == {"send"}
    assert stream.latency.keys() == {"send", "receive", "ack", "end_to_end"}
    took = stream.latency["end_to_end"]
    assert 0 < took.p50_ms <= took.p95_ms <= took.p99_ms <= took.max_ms


async def test_a_refusal_ends_it() -> None:
    async with served(Queue()) as url:
        run = Bench(Plan(urls=[url], queue="missing", messages=9, format="json"))
        with pytest.raises(BenchError, match="refused with 404"):
            await run.publish()


async def test_a_node_that_is_gone_is_replaced_by_another() -> None:
    async with served(Queue()) as url:
        run = Bench(Plan(urls=["http://127.0.0.1:1", url], messages=20, format="json", connections=2))
        assert (await run.publish()).messages == 20
        assert (await run.consume()).messages == 20
        assert run.verdict().is_clean


def test_a_latency_is_told_by_its_quantiles() -> None:
    assert quantiles([3.0, 1.0, 2.0], 0.0, 0.5, 0.95, 1.0) == [1.0, 2.0, 3.0, 3.0]
    assert Latency.of(number / 1000 for number in range(100, 0, -1)) == Latency(51.0, 96.0, 100.0, 100.0)
