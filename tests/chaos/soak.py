"""Full load on three nodes to which nothing is done: `python -m tests.chaos.soak --minutes 10`, or `make soak`.

Nobody may ask for an election, no request may fail, and nothing may be lost, come twice or be damaged, however long it
goes on. Rounds of `trimaran bench`'s stream follow one another: single messages, small batches and large ones.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

from api.bench import Bench, BenchError, Plan
from cluster.shard import ELECTION_STEPS
from tests.chaos.run import say
from tests.processes.nodes import Cluster

QUEUE = "soak"
CONNECTIONS = 64
BATCHES = {1: 20_000, 10: 50_000, 100: 100_000}
"""Messages of a round, by how many are sent at once: each takes some ten seconds on two cores."""
MIB = 1024 * 1024


@dataclass(slots=True)
class Soaked:
    """What a soak has come to so far. `memory_mib`: of all processes, after each round."""

    seconds: float = 0.0
    rounds: int = 0
    messages: int = 0
    requests: int = 0
    end_to_end_max_ms: float = 0.0
    memory_mib: list[float] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)


class Soak:
    """A soak of a cluster that is ready."""

    def __init__(self, cluster: Cluster, scale: float = 1.0) -> None:
        """`scale` makes rounds shorter."""
        self._cluster, self._scale = cluster, scale
        self.soaked = Soaked()

    async def run(self, seconds: float) -> Soaked:
        """Load it for so long, and to the end of the last round."""
        began_s, soaked = time.monotonic(), self.soaked
        await self._cluster.ok("n1", "PUT", f"/v1/queues/{QUEUE}", {})
        terms = await self._terms()
        heard = {node.log: node.log.stat().st_size for node in self._cluster.nodes.values()}
        for batch, messages in cycle(BATCHES.items()):
            await self._round(batch, max(batch, int(messages * self._scale)))
            soaked.seconds = time.monotonic() - began_s
            soaked.memory_mib.append(self._memory_mib())
            say(
                f"[{soaked.seconds:5.0f} s] {soaked.messages:,} messages, {soaked.messages / soaked.seconds:,.0f} a "
                f"second, {soaked.memory_mib[-1]:.0f} MiB"
            )
            if soaked.seconds >= seconds or soaked.troubles:
                break
        if (now := await self._terms()) != terms:
            soaked.troubles.append(f"terms were {terms} and are {now}")
        for log, size in heard.items():
            said = log.read_bytes()[size:].decode(errors="replace").splitlines()
            asked = [line for line in said if any(step in line for step in ELECTION_STEPS.values())]
            soaked.troubles += [f"{log.stem}: {line}" for line in asked]
        return soaked

    async def _round(self, batch: int, messages: int) -> None:
        urls = [node.url for node in self._cluster.nodes.values()]
        plan = Plan(
            urls=urls, queue=QUEUE, messages=messages, batch=batch, connections=CONNECTIONS, seed=self.soaked.rounds
        )
        bench, soaked = Bench(plan), self.soaked
        try:
            result = await bench.stream()
        except BenchError as error:
            soaked.troubles.append(str(error))
            return
        finally:
            bench.close()
        soaked.rounds += 1
        soaked.messages += result.messages
        soaked.requests += result.requests
        soaked.end_to_end_max_ms = max(soaked.end_to_end_max_ms, result.latency["end_to_end"].max_ms)
        if not bench.verdict().is_clean:
            soaked.troubles.append(f"round {soaked.rounds}: {bench.verdict()}")
        if result.retries:
            soaked.troubles.append(f"round {soaked.rounds}: {result.retries} requests failed")

    async def _terms(self) -> dict[str, int]:
        """The term that each node is in; 0 if it does not answer."""
        answers = {name: await self._cluster.call(name, "GET", "/v1/cluster") for name in self._cluster.nodes}
        return {name: told["shards"][0]["term"] if status == 200 else 0 for name, (status, told) in answers.items()}

    def _memory_mib(self) -> float:
        pids = [
            pid
            for node in self._cluster.nodes.values()
            for pid in (*node.children(), *([node.process.pid] if node.process else []))
        ]
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
        return pages * os.sysconf("SC_PAGE_SIZE") / MIB


async def soak(directory: Path, seconds: float) -> Soaked:
    """Start a cluster in `directory` and load it."""
    async with Cluster(directory) as cluster:
        await cluster.leader()
        return await Soak(cluster).run(seconds)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    with tempfile.TemporaryDirectory(prefix="trimaran-soak-") as directory:
        soaked = asyncio.run(soak(Path(directory), 60 * parser.parse_args().minutes))
    say(
        f"{soaked.rounds} rounds, {soaked.messages:,} messages, {soaked.requests:,} requests in "
        f"{soaked.seconds / 60:.1f} minutes; the slowest message took {soaked.end_to_end_max_ms:,.0f} ms; memory "
        f"{soaked.memory_mib[0]:.0f} MiB after the first round, {soaked.memory_mib[-1]:.0f} MiB after the last"
    )
    for trouble in soaked.troubles:
        say(f"TROUBLE {trouble}")
    say("FAILED" if soaked.troubles else "no election, no failed request, nothing lost")
    return 1 if soaked.troubles else 0


if __name__ == "__main__":
    sys.exit(main())
