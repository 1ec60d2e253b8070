"""What is measured in a node's processes, cheaply enough to be done for every entry and request.

What it is called for operators stands in `api.metrics`. A gateway that is asked for the node's metrics asks its own
replica (`AskMetrics`), and hands in its own numbers with the question; the answer has those of all the node's gateways.
So whichever gateway is asked, it tells of all of them.
"""

from __future__ import annotations

import asyncio
import os
import time
from bisect import bisect_left
from pathlib import Path

import msgspec

LATENCY_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of a histogram's buckets: from what a fast disk takes to the longest that a request may."""

LAG_PROBE_S = 0.25
"""How often it is measured how late the event loop is."""

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Histogram(msgspec.Struct, array_like=True):
    """How many durations fell in each bucket of `LATENCY_S` (the last is for longer ones), and their sum in seconds."""

    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(LATENCY_S) + 1))
    sum_s: float = 0.0

    def observe(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect_left(LATENCY_S, seconds)] += 1
        self.sum_s += seconds

    def copy(self) -> Histogram:
        """What it is now."""
        return Histogram(self.counts.copy(), self.sum_s)

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)


class ProcessMetrics(msgspec.Struct):
    """One process: its resident memory, processor time since its start, and how late its event loop came."""

    resident_bytes: int = 0
    cpu_s: float = 0.0
    loop_lag: Histogram = msgspec.field(default_factory=Histogram)


class GatewayMetrics(msgspec.Struct):
    """What one gateway has counted since its start.

    requests: by "METHOD route", by status. refusals: by the slug of the problem. waiting: operations under way.
    """

    process: ProcessMetrics = msgspec.field(default_factory=ProcessMetrics)
    requests: dict[str, dict[int, int]] = {}
    durations: dict[str, Histogram] = {}
    refusals: dict[str, int] = {}
    connections: int = 0
    waiting: int = 0


class PeerMetrics(msgspec.Struct):
    """Another member: whether it is connected, and, as far as this replica leads, up to where it holds the log."""

    connected: bool
    held_index: int | None = None
    copy_percent: int | None = None


class ReplicaMetrics(msgspec.Struct):
    """A replica's work since its process began, through however many engines.

    commits: transactions with something in them, each with fsync. replications: from when an own entry was proposed to
    when it was applied. elections: its steps, by name. handovers: begun by this replica as leader, by cause.
    """

    commits: Histogram = msgspec.field(default_factory=Histogram)
    replications: Histogram = msgspec.field(default_factory=Histogram)
    operations: int = 0
    elections: dict[str, int] = {}
    handovers: dict[str, int] = {}


class ShardMetrics(msgspec.Struct):
    """A shard's process and its replica, as they are now."""

    process: ProcessMetrics
    replica: ReplicaMetrics
    peers: dict[str, PeerMetrics]
    role: str = "none"
    """"leader", "follower", "learner", or "none" while the store cannot be used."""
    first_index: int = 0
    last_index: int = 0
    journal_bytes: int = 0
    store_bytes: int = 0
    room_bytes: int = 0
    queues: int = 0
    clock_ms: int = 0
    waiting_receives: int = 0
    gateways: int = 0
    refused: int = 0
    """Connections that were turned away at the raft port."""
    snapshot_trouble: bool = False


class ProcessMeter:
    """Measures this process. `start` needs a running loop."""

    def __init__(self) -> None:
        self._lag = Histogram()
        self._due_s = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin to measure how late the loop is."""
        self._loop = asyncio.get_running_loop()
        self._due_s = self._loop.time() + LAG_PROBE_S
        self._loop.call_at(self._due_s, self._probe)

    def _probe(self) -> None:
        assert self._loop is not None
        now_s = self._loop.time()
        self._lag.observe(max(now_s - self._due_s, 0.0))
        self._due_s = now_s + LAG_PROBE_S
        self._loop.call_at(self._due_s, self._probe)

    def read(self) -> ProcessMetrics:
        """The numbers now."""
        resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
        return ProcessMetrics(resident_pages * _PAGE_BYTES, time.process_time(), self._lag.copy())
