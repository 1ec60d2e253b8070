"""The examples, as separate programs against three real nodes, while nodes and programs are killed."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from examples import fair_tenants, order_saga
from examples.notifications.corpus import notifications, sentences
from examples.notifications.feeder import differences
from examples.notifications.outbox import Outbox
from examples.orders.payments import Ledger
from tests.processes.nodes import Cluster, eventually, free_ports

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path) as cluster:
        yield cluster


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a program of the examples; all of them are ended afterwards."""
    with contextlib.ExitStack() as stack:

        def run(program: str, *arguments: object) -> subprocess.Popen[bytes]:
            argv = [sys.executable, "-m", f"examples.{program}", *map(str, arguments)]
            log = stack.enter_context((tmp_path / f"{program}.log").open("ab"))
            process = subprocess.Popen(argv, cwd=ROOT, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        yield run


def reach(cluster: Cluster) -> tuple[str, ...]:
    """Flags for any program: where the nodes are, and a lease short enough to wait for."""
    return "--url", ",".join(node.url for node in cluster.nodes.values()), "--lease-ms", "4000"


@pytest.mark.processes
async def test_every_notification_is_sent_once_though_the_leader_and_the_worker_are_killed(
    cluster: Cluster, start: Start, tmp_path: Path
) -> None:
    (port,), path, url = free_ports(1), tmp_path / "outbox.sqlite", reach(cluster)
    start("notifications.app", "--port", port, *url)
    worker = start("notifications.worker", *url, "--outbox", path)
    feeder = start("notifications.feeder", "--app", f"http://127.0.0.1:{port}", "--outbox", path, "--count", 6000)
    outbox = Outbox(path)

    async def some_are_sent() -> bool:
        return outbox.count() > 500

    async def fed() -> bool:
        return feeder.poll() is not None

    await eventually(some_are_sent, "notifications are sent")
    worker.kill()
    cluster.nodes[await cluster.leader()].kill()
    start("notifications.worker", *url, "--outbox", path)
    await eventually(fed, "the feeder has checked everything", 90)
    assert feeder.returncode == 0, (tmp_path / "notifications.feeder.log").read_text()
    assert outbox.count() == 6000
    outbox.close()


@pytest.mark.processes
async def test_every_order_is_paid_once_though_the_leader_and_payments_are_killed(
    cluster: Cluster, start: Start, tmp_path: Path
) -> None:
    (port,), orders, url = free_ports(1), 60, reach(cluster)
    shop = f"http://127.0.0.1:{port}/orders"
    start("orders.shop", "--port", port, *url, "--data", tmp_path / "shop.sqlite")
    payments = start("orders.payments", *url, "--ledger", tmp_path / "ledger.sqlite")

    async with aiohttp.ClientSession() as http:

        async def is_open() -> bool:
            with contextlib.suppress(aiohttp.ClientError):
                async with http.get(f"{shop}/1") as response:
                    return response.status == 404
            return False

        async def order(cents: int) -> int:
            async with http.post(shop, json={"item": "sloop", "cents": cents}) as response:
                assert response.status == 201, await response.text()
                return int((await response.json())["id"])

        async def state(number: int) -> str:
            async with http.get(f"{shop}/{number}") as response:
                return str((await response.json())["state"])

        async def settled() -> bool:
            return all([await state(number) in ("paid", "declined") for number in numbers])

        await eventually(is_open, "the shop is open")
        numbers = [await order(100 + number) for number in range(orders // 2)]
        payments.kill()
        cluster.nodes[await cluster.leader()].kill()
        numbers += await asyncio.gather(*(order(100 + number) for number in range(orders // 2, orders)))
        numbers.append(await order(2_000_000))
        start("orders.payments", *url, "--ledger", tmp_path / "ledger.sqlite")
        await eventually(settled, "every order is settled", 60)
        assert await state(numbers[-1]) == "declined"

    ledger = Ledger(tmp_path / "ledger.sqlite")
    assert ledger.total() == (orders + 1, sum(range(100, 100 + orders)))
    ledger.close()


@pytest.mark.processes
async def test_a_saga_ends_well_and_tenants_are_served_fairly_though_the_leader_is_killed(cluster: Cluster) -> None:
    _, urls, _, lease_ms = reach(cluster)
    saga = asyncio.create_task(order_saga.run(urls, 40, int(lease_ms)))

    async def some_have_ended() -> bool:
        status, queue = await cluster.call("n1", "GET", "/v1/queues/saga-ended")
        return status == 200 and queue["ready"] > 0

    await eventually(some_have_ended, "orders end")
    killed = await cluster.leader()
    cluster.nodes[killed].kill()
    shop, seen = await saga
    paid_for = {number for number in range(1, 41) if 250 * number < order_saga.DECLINED_FROM_CENTS}
    assert shop.shipped == shop.paid == shop.reserved == paid_for
    assert seen == {"given up": len(paid_for), "ended": 40}

    urls = ",".join(node.url for name, node in cluster.nodes.items() if name != killed)
    served = await fair_tenants.run(urls, 300, lease_ms=int(lease_ms))
    assert len(served) == 305
    others = len(set(served)) - 1
    for tenant in set(served) - {"noisy"}:
        assert served.index(tenant) <= 8 * others + 2 * fair_tenants.AT_A_TIME  # and what was in flight already


def test_the_corpus_is_large_varied_and_the_same_again() -> None:
    made = list(notifications(2000))
    assert made == list(notifications(2000))
    assert made != list(notifications(2000, seed=2))
    assert len(sentences()) > 5000
    assert len({each["text"] for each in made}) == 2000
    assert any(not each["text"].isascii() for each in made)


@pytest.mark.parametrize(
    ("change", "count"),
    [
        (lambda sent: sent, 0),
        (lambda sent: sent[:-1], 1),
        (lambda sent: [*sent[:-1], {**sent[-1], "text": "changed"}], 1),
        (lambda sent: [*sent, {**sent[0], "id": "n-9"}], 1),
    ],
)
def test_the_feeders_check_finds_what_is_missing_changed_or_too_many(
    tmp_path: Path, change: Callable[[list[Any]], list[Any]], count: int
) -> None:
    outbox = Outbox(tmp_path / "outbox.sqlite")
    outbox.add(change(list(notifications(5))))
    assert len(differences(outbox, notifications(5), "n")) == count
    outbox.close()


def test_the_outbox_takes_a_notification_once(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.sqlite")
    assert outbox.add(notifications(5)) == 5
    assert outbox.add(notifications(7)) == 2
    assert outbox.count() == 7
    outbox.close()
