"""`GET /metrics`: what an operator watches, in Prometheus's text format. `docs/operations.md` says what to alert on.

One scrape asks this node's own replica once, and, as long as it leads, reads its queues in pages: it costs no entry, no
other node, and never more than `QUEUES_MAX` queues. Scrapes that come together share what was read, and the text is put
together beside the loop: it may take 0.1 s, and nobody's request waits for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import get_args

from aiohttp import web
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from api.access import admitted
from api.measures import METER, Meter
from api.problem import SERVER
from api.request import SETTINGS
from api.rest import CLIENT, look_here
from cluster.client import Client
from cluster.handover import Cause
from cluster.metrics import LATENCY_S, GatewayMetrics, Histogram, ProcessMetrics, ShardMetrics
from cluster.status import Status
from cluster.trouble import ClusterTrouble
from storage.queue_operations import ListQueues, QueueInfo, QueueList

QUEUES_MAX = 500
"""Queues that have numbers of their own: the first by name. More would make a scrape, and what stores it, too large."""
PAGE = 100
"""Queues that are read at a time: the replica goes on to serve between two pages."""
FRESH_S = 1.0
"""How long what was read is told again: scraping more often costs nothing."""
TIMEOUT_MS = 2000
"""How long a replica may take to tell its numbers: an answer that says that it is silent says more than none."""

HAND_IN_S = 5.0
"""How old the numbers of the gateways that were not asked may be."""

_EDGES = [*(repr(bound) for bound in LATENCY_S), "+Inf"]


class Scrape:
    """Everything that one answer tells."""

    def __init__(
        self,
        node: str,
        status: Status,
        shard: ShardMetrics | None,
        gateways: dict[str, GatewayMetrics],
        queues: list[QueueInfo],
        now_ms: int,
    ) -> None:
        """`shard` is None when the replica did not answer. `now_ms`: the time to which ages are told."""
        self.node, self.status, self.shard, self.gateways = node, status, shard, gateways
        self.queues, self.now_ms = queues, now_ms

    def collect(self) -> Iterator[Metric]:
        """All metrics, by families."""
        named = {"node": self.node, "cluster": self.status.cluster, "version": _own_version()}
        yield _gauge("trimaran_info", "What runs here.", named)
        yield _gauge("trimaran_replica_up", "1: the node's replica answers.", value=self.shard is not None)
        yield from self._cluster()
        yield from self._processes()
        yield from self._requests()
        if self.shard is not None:
            yield from self._shard(self.shard)
        yield from self._scrub()
        yield from self._queues()

    def _cluster(self) -> Iterator[Metric]:
        shard = self.status.shards[0]
        yield _gauge("trimaran_ready", "1: this node is fit for work.", value=shard.trouble is None)
        yield _gauge("trimaran_has_leader", "1: this node knows a leader.", value=shard.leader is not None)
        yield _gauge("trimaran_leader", "1: this node's replica leads.", value=shard.leader == self.node)
        yield _gauge("trimaran_term", "The Raft term.", value=shard.term)
        yield _gauge("trimaran_commit_index", "The last entry known to be committed.", value=shard.commit_index)
        yield _gauge("trimaran_applied_index", "The last entry applied here.", value=shard.applied_index)

    def _shard(self, shard: ShardMetrics) -> Iterator[Metric]:
        yield _gauge("trimaran_role", "1 for the replica's role.", {"role": shard.role})
        steps = _counter("trimaran_elections", "Steps of elections by this replica.", "step")
        for step in ("asked", "campaigned", "won"):
            steps.add_metric([step], shard.replica.elections.get(step, 0))
        yield steps
        handovers = _counter("trimaran_handovers", "Times that this replica began to hand over.", "cause")
        for cause in get_args(Cause):
            handovers.add_metric([cause], shard.replica.handovers.get(cause, 0))
        yield handovers
        yield _gauge("trimaran_first_index", "The first entry that can be sent to a peer.", value=shard.first_index)
        yield _gauge("trimaran_last_index", "The last entry of the journal.", value=shard.last_index)
        yield _gauge("trimaran_journal_bytes", "Payload added since the start and kept.", value=shard.journal_bytes)
        yield _gauge("trimaran_store_bytes", "Size of the store's file.", value=shard.store_bytes)
        yield _gauge("trimaran_room_bytes", "How much more fits into the store.", value=shard.room_bytes)
        yield _gauge("trimaran_snapshot_failing", "1: a copy could not be had.", value=shard.snapshot_trouble)
        connected = _family("trimaran_peer_connected", "1: the member is reached.", "peer")
        behind = _family("trimaran_peer_behind_entries", "Entries that it lacks, as the leader knows.", "peer")
        copied = _family("trimaran_peer_copy_ratio", "How much of a copy it has, while it gets one.", "peer")
        for name, peer in sorted(shard.peers.items()):
            connected.add_metric([name], peer.connected)
            if peer.held_index is not None and shard.role == "leader":
                behind.add_metric([name], max(shard.last_index - peer.held_index, 0))
            if peer.copy_percent is not None and shard.role == "leader":
                copied.add_metric([name], peer.copy_percent / 100)
        yield from (connected, behind, copied)
        yield _histogram("trimaran_commit_seconds", "Commits with fsync.", (), [((), shard.replica.commits)])
        yield _histogram(
            "trimaran_replication_seconds",
            "From when the leader proposed an entry to when it was applied.",
            (),
            [((), shard.replica.replications)],
        )
        operations = _counter("trimaran_operations", "Operations that this replica led through the log.")
        operations.add_metric([], shard.replica.operations)
        yield operations
        yield _gauge("trimaran_waiting_receives", "Receives that wait for messages here.", value=shard.waiting_receives)
        yield _gauge("trimaran_gateways_connected", "Gateways connected to the replica.", value=shard.gateways)
        refused = _counter("trimaran_raft_connections_refused", "Connections turned away at the raft port.")
        refused.add_metric([], shard.refused)
        yield refused
        yield _gauge("trimaran_cluster_time_seconds", "The cluster's time.", value=shard.clock_ms / 1000)
        yield _gauge("trimaran_queues", "How many queues there are.", value=shard.queues)

    def _processes(self) -> Iterator[Metric]:
        processes: dict[str, ProcessMetrics] = {name: own.process for name, own in sorted(self.gateways.items())}
        if self.shard is not None:
            processes["shard-0"] = self.shard.process
        memory = _family("trimaran_process_resident_bytes", "Resident memory.", "process")
        cpu = _counter("trimaran_process_cpu_seconds", "Processor time.", "process")
        for name, process in processes.items():
            memory.add_metric([name], process.resident_bytes)
            cpu.add_metric([name], process.cpu_s)
        yield from (memory, cpu)
        lags = [((name,), process.loop_lag) for name, process in processes.items()]
        yield _histogram("trimaran_event_loop_lag_seconds", "How late the event loop came.", ("process",), lags)

    def _requests(self) -> Iterator[Metric]:
        requests = _counter("trimaran_http_requests", "Requests answered.", "gateway", "route", "status")
        refusals = _counter("trimaran_http_refusals", "Refusals by kind of problem.", "gateway", "problem")
        connections = _family("trimaran_http_connections", "Client connections.", "gateway")
        waiting = _family("trimaran_operations_waiting", "Operations under way.", "gateway")
        durations: list[tuple[tuple[str, ...], Histogram]] = []
        for name, own in sorted(self.gateways.items()):
            for route, statuses in own.requests.items():
                for status, count in statuses.items():
                    requests.add_metric([name, route, str(status)], count)
            for problem, count in own.refusals.items():
                refusals.add_metric([name, problem], count)
            connections.add_metric([name], own.connections)
            waiting.add_metric([name], own.waiting)
            durations += [((name, route), histogram) for route, histogram in own.durations.items()]
        yield from (requests, refusals, connections, waiting)
        yield _histogram(
            "trimaran_http_request_seconds",
            "How long requests took, waiting included.",
            ("gateway", "route"),
            durations,
        )

    def _scrub(self) -> Iterator[Metric]:
        own = next((node.scrub for node in self.status.nodes if node.name == self.node), None)
        if own is None:
            return
        for name, help_, value in (
            ("trimaran_scrub_passes", "Whole passes of the scrub.", own.passes),
            ("trimaran_scrub_bytes", "Bytes read again.", own.bytes),
            ("trimaran_scrub_damages", "How often this node found itself damaged.", own.damages),
            ("trimaran_scrub_repairs", "How often it was repaired.", own.repairs),
        ):
            counter = _counter(name, help_)
            counter.add_metric([], value)
            yield counter
        yield _gauge("trimaran_scrub_ended_seconds", "When the last pass ended.", value=own.ended_ms / 1000)
        yield _gauge("trimaran_scrub_ailing_nodes", "Nodes known to be damaged.", value=len(own.ailing))
        yield _gauge("trimaran_scrub_disagreement", "1: nodes differ.", value=own.disagreement is not None)

    def _queues(self) -> Iterator[Metric]:
        messages = _family("trimaran_queue_messages", "Messages by state.", "queue", "state")
        sizes = _family("trimaran_queue_bytes", "Bytes of its messages.", "queue")
        ages = _family("trimaran_queue_oldest_seconds", "Age of its oldest message.", "queue")
        for queue in self.queues:
            for state in ("ready", "leased", "delayed", "dead"):
                messages.add_metric([queue.queue, state], getattr(queue, state))
            sizes.add_metric([queue.queue], queue.bytes)
            ages.add_metric([queue.queue], max(self.now_ms - queue.oldest_ms, 0) / 1000 if queue.oldest_ms else 0)
        yield from (messages, sizes, ages)
        yield _gauge("trimaran_queues_told", "Queues that have numbers of their own here.", value=len(self.queues))


@cache
def _own_version() -> str:
    try:
        return version("trimaran")
    except PackageNotFoundError:
        return "unknown"


def _family(name: str, help_: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, help_, labels=labels)


def _counter(name: str, help_: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(name, help_, labels=labels)


def _gauge(name: str, help_: str, labels: dict[str, str] | None = None, value: float = 1) -> GaugeMetricFamily:
    labels = labels or {}
    family = _family(name, help_, *labels)
    family.add_metric(list(labels.values()), float(value))
    return family


def _histogram(
    name: str, help_: str, labels: tuple[str, ...], histograms: Iterable[tuple[tuple[str, ...], Histogram]]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, help_, labels=labels)
    for values, histogram in histograms:
        total, buckets = 0, []
        for edge, count in zip(_EDGES, histogram.counts, strict=True):
            total += count
            buckets.append((edge, float(total)))
        family.add_metric(list(values), buckets, histogram.sum_s)
    return family


class _Once(Collector):
    def __init__(self, scrape: Scrape) -> None:
        self._scrape = scrape

    def collect(self) -> Iterable[Metric]:
        return self._scrape.collect()


def render(scrape: Scrape) -> bytes:
    """The text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(scrape))
    return generate_latest(registry)


class Cache:
    """The last text, for those who may see the same queues. One scrape at a time."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self._patterns: list[str] | None = None
        self._text = b""
        self._read_s = 0.0

    def get(self, patterns: list[str]) -> bytes | None:
        """What was read a moment ago."""
        is_fresh = patterns == self._patterns and time.monotonic() - self._read_s < FRESH_S
        return self._text if is_fresh else None

    def put(self, patterns: list[str], text: bytes) -> None:
        """What was read now."""
        self._patterns, self._text, self._read_s = patterns, text, time.monotonic()


async def hand_in(client: Client, meter: Meter) -> None:
    """Tell the node's replica this gateway's numbers, again and again, for when another gateway is asked."""
    while True:
        with suppress(ClusterTrouble):
            await client.metrics(meter.name, meter.read(client.under_way), timeout_ms=TIMEOUT_MS)
        await asyncio.sleep(HAND_IN_S)


CACHE = web.AppKey("metrics_cache", Cache)


async def metrics(request: web.Request) -> web.Response:
    """What is measured on this node, as Prometheus reads it."""
    app = request.config_dict
    kept, patterns = app[CACHE], admitted(request, ListQueues(), here=True).patterns
    async with kept.lock:
        text = kept.get(patterns)
        if text is None:
            text = await _read(request)
            kept.put(patterns, text)
    headers = {"Content-Type": CONTENT_TYPE_PLAIN_0_0_4, "Cache-Control": "no-store", "Server": SERVER}
    return web.Response(body=text, headers=headers)


async def _read(request: web.Request) -> bytes:
    client, meter = request.config_dict[CLIENT], request.config_dict[METER]
    timeout_ms = min(TIMEOUT_MS, request.config_dict[SETTINGS].request_timeout_ms)
    own, shard, queues = meter.read(client.under_way), None, []
    gateways = {meter.name: own}
    try:
        told = await client.metrics(meter.name, own, timeout_ms=timeout_ms)
        shard, gateways = told.shard, told.gateways | gateways
        if shard.role == "leader":
            queues = await _read_queues(request, timeout_ms)
    except ClusterTrouble:
        pass  # trimaran_replica_up says so
    status = client.status()
    scrape = Scrape(status.node, status, shard, gateways, queues, shard.clock_ms if shard is not None else 0)
    return await asyncio.to_thread(render, scrape)


async def _read_queues(request: web.Request, timeout_ms: int) -> list[QueueInfo]:
    queues: list[QueueInfo] = []
    while len(queues) < QUEUES_MAX:
        after = queues[-1].queue if queues else ""
        told = await look_here(request, ListQueues(after, PAGE, oldest=True), timeout_ms)
        if not isinstance(told.outcome, QueueList):
            break
        queues += told.outcome.queues
        if len(told.outcome.queues) < PAGE:
            break
    return queues


ROUTES = (web.get("/metrics", metrics, allow_head=False),)
