"""The standard measurement: three nodes and the client on this one machine.

    python -m benchmarks.local
    python -m benchmarks.local --quick --json figures.json

Everything shares the machine's cores, so figures of different machines, or of a busy one, say little: compare what was
measured in one run.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from api.bench import Plan
from api.cli_bench import run
from api.console import say, say_table
from api.console_client import Client, queue_path

NODES = ("n1", "n2", "n3")
PATIENCE_S = 60.0
POLL_S = 0.02


class Node:
    """A `trimaran serve` of our own."""

    def __init__(self, name: str, data: Path, http: int, raft: int, peers: str) -> None:
        self.name, self.url = name, f"http://127.0.0.1:{http}"
        self._argv = [
            *(sys.executable, "-m", "api.cli", "serve", "--node", name, "--data", str(data / name)),
            *("--http", f"127.0.0.1:{http}", "--raft", f"127.0.0.1:{raft}", "--peers", peers),
        ]
        self._log = data / f"{name}.log"

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._argv, stderr=log, start_new_session=True)

    def kill(self) -> None:
        """End all its processes at once."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def wait(self) -> None:
        """Wait until it is ready."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not self._is_ready():
            if time.monotonic() > deadline_s or self._process.poll() is not None:
                raise SystemExit(f"{self.name} did not become ready; see {self._log}")
            time.sleep(POLL_S)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=2):
                return True
        except (OSError, urllib.error.URLError):
            return False

    def shard_memory_mib(self) -> dict[str, float]:
        """Resident memory of its shard: its own, and what the kernel keeps mapped of the store and can take back."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        shard = next(pid for pid in children if b"cluster.shard" in Path(f"/proc/{pid}/cmdline").read_bytes())
        status = dict(line.split(":", 1) for line in Path(f"/proc/{shard}/status").read_text().splitlines())
        return {
            kind: round(int(status[field].split()[0]) / 1024, 1)
            for kind, field in (("own", "RssAnon"), ("mapped", "RssFile"))
        }


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses right now."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def measure(nodes: list[Node], scale: float, report: Callable[[str], None]) -> dict[str, Any]:
    """Run the standard set; `scale` 1 is the full one."""
    urls = [node.url for node in nodes]
    found: dict[str, Any] = {}
    sets = {
        "one by one, 64 outstanding": Plan(urls=urls, messages=int(20_000 * scale), connections=64),
        "one by one, 512 outstanding": Plan(urls=urls, messages=int(40_000 * scale), connections=512),
        "batches of 256, 8 outstanding": Plan(urls=urls, messages=int(200_000 * scale), batch=256, connections=8),
    }
    for name, plan in sets.items():
        report(name)
        found[name] = _load(plan, "all")
    waiting = int(1_000_000 * scale)
    name = f"{waiting:,} messages waiting"
    report(name)
    found[name] = _backlog(nodes, waiting, report)
    return found


def _load(plan: Plan, workload: str) -> dict[str, Any]:
    client = Client(",".join(plan.urls))
    client.request("PUT", queue_path(plan.queue), {})
    results, verdict = run(plan, workload)
    client.close()
    client.request("DELETE", queue_path(plan.queue))
    return {"plan": plan, "results": results, "check": verdict}


def _backlog(nodes: list[Node], waiting: int, report: Callable[[str], None]) -> dict[str, Any]:
    client = Client(nodes[0].url)
    client.request("PUT", queue_path("bench"), {})
    empty = [node.shard_memory_mib() for node in nodes]
    plan = Plan(urls=[node.url for node in nodes], messages=waiting, batch=256, connections=8)
    results, _ = run(plan, "publish")
    full = [node.shard_memory_mib() for node in nodes]
    report("killing a node and starting it again")
    restarts = []
    for node in nodes:
        node.kill()
        began_s = time.monotonic()
        node.start()
        node.wait()
        restarts.append(round(time.monotonic() - began_s, 2))
    client.close()
    assert client.request("GET", queue_path("bench"))["ready"] == waiting, "messages are missing"
    client.request("DELETE", queue_path("bench"))
    return {"results": results, "memory_mib_empty": empty, "memory_mib_waiting": full, "restart_s": restarts}


def show(found: dict[str, Any]) -> None:
    """Print the figures for people."""
    rows = []
    for name, figures in found.items():
        for result in figures["results"]:
            send = result.latency.get("end_to_end") if result.workload == "stream" else None
            took = send or result.latency.get("send") or result.latency["receive"]
            rows.append((name, result.workload, round(result.messages_per_s), took.p50_ms, took.p99_ms))
    say_table(("what", "workload", "messages/s", "p50 ms", "p99 ms"), rows, numbers=("messages/s", "p50 ms", "p99 ms"))
    say("p50 and p99: of a send; of a receive when consuming; of a message from end to end when streaming.")
    for name, figures in found.items():
        if "restart_s" in figures:
            for when in ("empty", "waiting"):
                memory = [f"{each['own']} own + {each['mapped']} mapped" for each in figures[f"memory_mib_{when}"]]
                say(f"{name}: MiB of each shard, {when}: {'; '.join(memory)}")
            say(f"{name}: seconds from start to ready after a kill: {figures['restart_s']}")
        else:
            say(f"{name}: {'nothing lost, doubled or damaged' if figures['check'].is_clean else figures['check']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--data", type=Path, help="a directory on the disk to measure; 10 GiB should be free")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="trimaran-", dir=options.data) as directory:
        ports = free_ports(2 * len(NODES))
        peers = ",".join(f"{name}=127.0.0.1:{port}" for name, port in zip(NODES, ports[3:], strict=True))
        nodes = [
            Node(name, Path(directory), http, raft, peers)
            for name, http, raft in zip(NODES, ports[:3], ports[3:], strict=True)
        ]
        started: list[Node] = []
        try:
            for node in nodes:
                node.start()
                started.append(node)
            for node in nodes:
                node.wait()
            found = measure(nodes, 0.1 if options.quick else 1.0, lambda what: print(f"==> {what}", flush=True))
        finally:
            for node in started:
                node.kill()
    show(found)
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(found)))


if __name__ == "__main__":
    main()
