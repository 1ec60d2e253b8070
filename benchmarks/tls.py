"""What TLS between nodes costs: the same loads on a cluster without and one with it, in turns.

python -m benchmarks.tls
python -m benchmarks.tls --rounds 1 --scale 0.1
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path

from api.bench import Plan
from api.cli_bench import run
from api.console import say, say_table
from api.console_client import Client, queue_path
from api.local import LocalNode, local_cluster, wait_until_ready

HTTP_PORT = 18_700


def shards_cpu_s(nodes: list[LocalNode]) -> float:
    """Seconds that the shards have computed since they began."""
    ticks = 0
    for node in nodes:
        assert node.process is not None
        pid = node.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        shard = next(child for child in children if b"cluster.shard" in Path(f"/proc/{child}/cmdline").read_bytes())
        fields = Path(f"/proc/{shard}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # in user mode, in the kernel
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(nodes: list[LocalNode], scale: float) -> dict[str, float]:
    """Messages a second, milliseconds of one send, and microseconds that the three shards compute for a message.

    On a busy machine only the last means much.
    """
    urls = [node.url for node in nodes]
    found: dict[str, float] = {}
    plans = {
        "single sends, 64 outstanding": Plan(urls=urls, messages=int(20_000 * scale), connections=64),
        "sends in batches of 256, 8 outstanding": Plan(
            urls=urls, messages=int(200_000 * scale), batch=256, connections=8
        ),
        "one send at a time": Plan(urls=urls, messages=int(1_000 * scale), connections=1),
    }
    client = Client(",".join(urls))
    for name, plan in plans.items():
        client.request("PUT", queue_path(plan.queue), {})
        before_s = shards_cpu_s(nodes)
        [result], _ = run(plan, "publish")
        computed_s = shards_cpu_s(nodes) - before_s
        if plan.connections == 1:
            found[f"{name}: p50 ms"] = result.latency["send"].p50_ms
        else:
            found[f"{name}: messages/s"] = result.messages_per_s
            found[f"{name}: shards' µs a message"] = 1e6 * computed_s / plan.messages
        client.close()
        client.request("DELETE", queue_path(plan.queue))
    client.close()
    return found


async def in_cluster(directory: Path, tls: bool, scale: float) -> dict[str, float]:
    nodes = local_cluster(3, directory, HTTP_PORT, tls=tls)
    try:
        for node in nodes:
            await node.start()
        if not await wait_until_ready(nodes, asyncio.Event()):
            raise SystemExit("the cluster did not start")
        return await asyncio.to_thread(measure, nodes, scale)
    finally:
        await asyncio.gather(*(node.kill() for node in nodes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    parser.add_argument("--scale", type=float, default=1.0, help="1 is the full load")
    options = parser.parse_args()
    found: dict[str, dict[bool, list[float]]] = defaultdict(lambda: {False: [], True: []})
    for number in range(options.rounds):
        for tls in (False, True) if number % 2 == 0 else (True, False):
            say(f"==> round {number + 1}, {'with' if tls else 'without'} TLS")
            with tempfile.TemporaryDirectory(prefix="trimaran-") as directory:
                for what, figure in asyncio.run(in_cluster(Path(directory), tls, options.scale)).items():
                    found[what][tls].append(figure)
    rows = []
    for what, figures in found.items():
        plain, secured = statistics.median(figures[False]), statistics.median(figures[True])
        each = "; ".join(f"{a:,.1f} / {b:,.1f}" for a, b in zip(figures[False], figures[True], strict=True))
        rows.append((what, f"{plain:,.1f}", f"{secured:,.1f}", f"{100 * (secured / plain - 1):+.1f} %", each))
    say_table(("what", "without", "with", "difference", "each round"), rows)


if __name__ == "__main__":
    main()
