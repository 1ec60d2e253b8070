"""What is measured: that it is counted right, told whole, bounded, and documented."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from api import metrics
from cluster.metrics import LATENCY_S, GatewayMetrics, Histogram
from tests.api.asking import ask
from tests.api.fake_client import START_MS, Gateway, gateway, unknown
from tests.aws.asking import Caller

DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"


@pytest.fixture(autouse=True)
def _always_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "FRESH_S", 0.0)


async def scrape(node: Gateway) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Every sample, by its name and its labels, as Prometheus's own parser reads them."""
    async with node.http.get("/metrics") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = await answer.text()
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            assert found.setdefault(sample.name, {}).setdefault(_key(**sample.labels), sample.value) == sample.value
    return found


def _key(**labels: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))


async def test_requests_are_counted_by_route_and_status_and_not_by_what_clients_make_up() -> None:
    async with gateway() as node:
        for name in ("a", "b"):
            await ask(node, "PUT", f"/v1/queues/{name}", {})
        await ask(node, "GET", "/v1/queues/none")
        await ask(node, "GET", "/nowhere/at/all")
        found = await scrape(node)
        count = found["trimaran_http_requests_total"]
        own = {"gateway": "gateway-0"}
        assert count[_key(**own, route="PUT /v1/queues/{queue}", status="201")] == 2
        assert count[_key(**own, route="GET /v1/queues/{queue}", status="404")] == 1
        assert count[_key(**own, route="other", status="404")] == 1
        assert found["trimaran_http_refusals_total"][_key(**own, problem="queue-not-found")] == 1
        seconds = found["trimaran_http_request_seconds_count"]
        assert seconds[_key(**own, route="PUT /v1/queues/{queue}")] == 2
        assert found["trimaran_http_connections"][_key(**own)] >= 1


async def test_calls_of_aws_are_told_by_their_action() -> None:
    async with gateway() as node:
        call = Caller(node, in_json=True)
        for _ in range(2):
            await call("ListQueues")
        assert (await call.raw("GetQueueUrl", QueueName="none"))[0] == 400
        found = await scrape(node)
        assert (
            found["trimaran_http_requests_total"][_key(gateway="gateway-0", route="SQS ListQueues", status="200")] == 2
        )
        assert found["trimaran_http_refusals_total"][_key(gateway="gateway-0", problem="QueueDoesNotExist")] == 1


async def test_a_client_that_goes_away_is_counted() -> None:
    async with gateway() as node:
        await ask(node, "PUT", "/v1/queues/q", {})
        task = asyncio.ensure_future(node.http.post("/v1/queues/q/receive", json={"wait_ms": 20_000}).__aenter__())
        await node.client.waiting.wait()
        task.cancel()
        await node.client.cancelled.wait()
        route = _key(gateway="gateway-0", route="POST /v1/queues/{queue}/receive", status="499")
        assert (await scrape(node))["trimaran_http_requests_total"][route] == 1


async def test_queues_are_told_by_the_leader_alone() -> None:
    async with gateway() as node:
        await ask(node, "PUT", "/v1/queues/q", {})
        messages = [{"body": "x"}, {"body": "y", "delay_ms": 60_000}]
        await ask(node, "POST", "/v1/queues/q/messages", {"messages": messages})
        node.client.now_ms = START_MS + 5000
        found = await scrape(node)
        counts = {dict(key)["state"]: count for key, count in found["trimaran_queue_messages"].items()}
        assert counts == {"ready": 1, "leased": 0, "delayed": 1, "dead": 0}
        assert found["trimaran_queue_oldest_seconds"][_key(queue="q")] == 5
        assert found["trimaran_queue_bytes"][_key(queue="q")] > 0
        assert found["trimaran_queues"][()] == 1
        node.client.has_leader = False
        found = await scrape(node)
        assert "trimaran_queue_messages" not in found
        assert found["trimaran_queues"][()] == 1


async def test_so_many_queues_at_most_are_told_and_the_others_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "QUEUES_MAX", 4)
    monkeypatch.setattr(metrics, "PAGE", 2)
    async with gateway() as node:
        for name in "edcba":
            await ask(node, "PUT", f"/v1/queues/{name}", {})
        found = await scrape(node)
        assert [dict(key)["queue"] for key in found["trimaran_queue_bytes"]] == list("abcd")
        assert (found["trimaran_queues"][()], found["trimaran_queues_told"][()]) == (5, 4)


async def test_a_replica_that_is_silent_is_told_and_not_waited_for() -> None:
    async with gateway() as node:
        assert (await scrape(node))["trimaran_replica_up"][()] == 1
        node.client.fails_with = unknown()
        found = await scrape(node)
        assert found["trimaran_replica_up"][()] == 0
        assert "trimaran_http_requests_total" in found
        assert "trimaran_commit_seconds_count" not in found


async def test_what_the_other_gateways_have_handed_in_is_told_too() -> None:
    async with gateway(gateway="gateway-1") as node:
        node.client.others = {"gateway-0": GatewayMetrics(connections=7), "gateway-1": GatewayMetrics(connections=99)}
        await scrape(node)
        connections = (await scrape(node))["trimaran_http_connections"]
        assert connections[_key(gateway="gateway-0")] == 7
        assert connections[_key(gateway="gateway-1")] < 99, "its own are those of now"
        assert node.client.handed_in[-1].requests["GET /metrics"] == {200: 1}


async def test_scrapes_that_come_together_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "FRESH_S", 1000.0)
    async with gateway() as node:
        first = await scrape(node)
        assert await scrape(node) == first
        assert len(node.client.handed_in) == 1


async def test_every_name_is_documented_and_every_documented_name_is_told() -> None:
    async with gateway() as node:
        await ask(node, "PUT", "/v1/queues/q", {})
        await ask(node, "GET", "/v1/queues/none")
        async with node.http.get("/metrics") as answer:
            told = set(re.findall(r"^# TYPE (\S+)", await answer.text(), re.MULTILINE))
        documented = set(re.findall(r"^\| `(trimaran_\w+)", DOCUMENT.read_text(), re.MULTILINE))
        assert told == documented


def test_a_histogram_counts_each_duration_once_and_in_its_bucket() -> None:
    histogram = Histogram()
    for seconds in (0.0, LATENCY_S[0], LATENCY_S[0] * 1.01, 1e9):
        histogram.observe(seconds)
    assert histogram.counts == [2, 1, *([0] * (len(LATENCY_S) - 2)), 1]
    assert histogram.count == 4
