"""Real nodes, each in a network namespace and on a disk of its own, kept running as systemd would keep them."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from pathlib import Path
from typing import Any

from tests.chaos.disks import Disk
from tests.chaos.network import HTTP_PORT, RAFT_PORT, Network
from tests.chaos.tools import run
from tests.cluster.certs import Authority
from tests.processes.nodes import POLL_S, Cluster, Node, eventually

MIB = 1024 * 1024
INSIDE = Path(__file__).parent / "inside"
"""What Python finds there runs at the start of every process of a node."""
RESTART_S = 0.5
"""A node that ends again and again is started so often at most."""
DISK_BYTES = 512 * MIB
ROOM_RESERVE_BYTES = 32 * MIB
RECOVERY_S = 90.0
"""How long a healed cluster may take until every node serves."""
COMPACTED_ENTRIES = 300
"""More than `--journal-keep-bytes` holds of the load's entries."""
NEVER_SAID = frozenset(
    {
        "shard failed",
        "gateway failed",
        "unexpected error",
        "a request failed unexpectedly",
        "the replicas differ",
        "other replicas differ from the majority",
    }
)
"""What no node may say, whatever was done to it: a defect speaks, and starting again may hide it."""
SETTINGS = (
    "--insecure-listen",
    *("--journal-keep-bytes", str(MIB)),  # so that compaction goes on all the time, and a wiped node needs a copy
    *("--room-reserve-bytes", str(ROOM_RESERVE_BYTES)),
    *("--request-timeout-ms", "3000"),  # so that outcomes are unknown now and then
)


class Fleet(Cluster):
    """`async with Fleet(directory, 3) as fleet`, in a world of its own. Logs go to `directory`."""

    answer_s = 5.0
    start_s = RECOVERY_S

    def __init__(self, directory: Path, count: int = 3, seed: str = "", broken: str = "") -> None:
        self.directory, self.rng, self.broken = directory, random.Random(seed), broken
        self.network, self.authority = Network(), Authority(directory / "certs")
        self.disks: dict[str, Disk] = {}
        self.trouble: list[str] = []
        """What nodes did that nothing explains."""
        self._wanted: set[str] = set()
        self._may_end: set[str] = set()
        self._started_s: dict[str, float] = {}
        self.nodes = {name: self._node(name) for name in (f"n{number}" for number in range(1, count + 1))}
        self.named = count
        """Nodes there ever were: a name is never used again."""
        self.serving = list(self.nodes)
        """The nodes that clients may ask, kept up to date."""
        self.configure()

    def _node(self, name: str) -> Node:
        """A node as it is started, but for its peers."""
        http, raft = (f"{self.network.address(name)}:{port}" for port in (HTTP_PORT, RAFT_PORT))
        place = Path("/run") / self.directory.name / name
        files = self.authority.files(name)
        tls = ("--tls-ca", files.ca, "--tls-cert", files.cert, "--tls-key", files.key)
        node = Node(name, place / "data", self.directory / f"{name}.log", http, raft, "", (*SETTINGS, *tls))
        node.prefix = self.network.inside(name)
        node.environment = {"PYTHONPATH": str(INSIDE), "TRIMARAN_CHAOS_CLOCK": str(self._clock_file(name))}
        if self.broken:
            node.environment["TRIMARAN_CHAOS_BROKEN"] = self.broken
        return node

    @property
    def majority(self) -> int:
        """How many nodes are a majority."""
        return len(self.nodes) // 2 + 1

    def configure(self) -> None:
        """Name all nodes in the configuration of each, from its next start on."""
        peers = ",".join(f"{node.name}={node.raft}" for node in self.nodes.values())
        for node in self.nodes.values():
            argv = node.argv[: node.argv.index("--peers")] if "--peers" in node.argv else node.argv
            node.argv = [*argv, "--peers", peers]

    def _build(self, name: str) -> None:
        self.network.add(name)
        self.disks[name] = Disk(self.nodes[name].directory.parent, DISK_BYTES)
        self.set_clock(name, 0)

    async def __aenter__(self) -> Fleet:
        run("mount", "-t", "tmpfs", "tmpfs", "/run")
        self.network.build()
        for name in self.nodes:
            self._build(name)
        await super().__aenter__()
        self._wanted |= self.nodes.keys()
        self._keeper = asyncio.create_task(self._keep())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._keeper.cancel()
        await asyncio.gather(self._keeper, return_exceptions=True)
        await super().__aexit__(*error)

    # --- nodes --------------------------------------------------------------------------------------------------------

    def down(self, name: str) -> None:
        """Kill a node, and keep it down."""
        self._wanted.discard(name)
        self.nodes[name].kill()

    def up(self, name: str) -> None:
        """Have a node running from now on."""
        self._wanted.add(name)
        if not self.is_running(name):
            self._start(name)

    def may_end(self, name: str, *, may: bool) -> None:
        """Say whether something was done to a node that may make it end by itself. It is started again anyway."""
        (self._may_end.add if may else self._may_end.discard)(name)

    def is_running(self, name: str) -> bool:
        """Whether the node's first process lives."""
        process = self.nodes[name].process
        return process is not None and process.poll() is None

    async def stop(self, name: str) -> None:
        """Stop a node as an operator would, and keep it down."""
        self._wanted.discard(name)
        process = self.nodes[name].process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(process.wait)

    def _start(self, name: str) -> None:
        self._started_s[name] = time.monotonic()
        self.nodes[name].start()

    # --- members ------------------------------------------------------------------------------------------------------

    async def enlist(self) -> str:
        """Have one more node become a member that votes; returns its name."""
        self.named += 1
        name = f"n{self.named}"
        node = self.nodes[name] = self._node(name)
        self.configure()
        self._build(name)
        self.up(name)
        await self._change(f"{name} is added", "PUT", name, {"address": node.raft})

        async def votes() -> bool:
            return await self._roles() == dict.fromkeys(self.nodes, "voter")

        await eventually(votes, f"{name} votes", RECOVERY_S)
        self.serving.append(name)
        return name

    async def dismiss(self, name: str) -> None:
        """Have a node be no member any more, and switch it off."""
        self.serving.remove(name)
        await self._change(f"{name} is removed", "DELETE", name, None)
        self.down(name)
        self.disks.pop(name).destroy()
        del self.nodes[name]
        self.configure()

    async def _change(self, what: str, method: str, name: str, document: dict[str, str] | None) -> None:
        async def is_done() -> bool:
            asked = self.rng.choice(self.serving)
            status, answer = await self.call(asked, method, f"/v1/cluster/members/{name}", document)
            assert status in (0, 200, 201, 202, 204, 503), f"{what}: {status} {answer}"
            return 200 <= status < 300

        await eventually(is_done, what, RECOVERY_S)

    async def _roles(self) -> dict[str, str]:
        status, document = await self.call(self.rng.choice(self.serving), "GET", "/v1/cluster")
        return {node["name"]: node["role"] for node in document["nodes"]} if status == 200 else {}

    # --- running ------------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        while True:
            for name in sorted(self._wanted):
                if self.is_running(name) or time.monotonic() < self._started_s.get(name, 0.0) + RESTART_S:
                    continue
                if name not in self._may_end:
                    self.trouble.append(f"{name} ended by itself: {self._last_words(name)}")
                self._start(name)
            await asyncio.sleep(POLL_S)

    def _last_words(self, name: str) -> str:
        lines = self.nodes[name].log.read_text(errors="replace").splitlines()
        return " | ".join(line for line in lines[-30:] if '"critical"' in line or '"error"' in line)[-2000:]

    def defects(self) -> list[str]:
        """What nodes have said, those that are gone among them, that no fault explains."""
        logs = sorted(self.directory.glob("n*.log"))
        return [f"{log.stem} says {what}" for log in logs for what in never_said(log.read_text(errors="replace"))]

    def shard_pid(self, name: str) -> int | None:
        """The process that writes to the node's disk."""
        if not self.is_running(name):
            return None
        for pid in self.nodes[name].children():
            try:
                if b"cluster.shard" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
            except OSError:
                continue
        return None

    async def leader_now(self) -> str:
        """Who leads, as most nodes say; somebody if nobody knows."""
        answers = await asyncio.gather(*(self.call(name, "GET", "/v1/cluster") for name in self.nodes))
        told = [self.shard_of(answer).get("leader") for answer in answers]
        known = [name for name in told if name in self.nodes]
        return max(set(known), key=known.count) if known else self.rng.choice(list(self.nodes))

    async def recovered(self) -> None:
        """Wait until every node is ready, takes a write, reaches all others and has caught up."""
        began_s = time.monotonic()
        leader = self.shard_of(await self.call(await self.leader_now(), "GET", "/v1/cluster"))
        target = leader["commit_index"] if leader else 0

        async def trouble(name: str) -> str:
            """What is still wrong with a node."""
            status, answer = await self.call(name, "PUT", "/v1/queues/probe", {})
            if status in (200, 201):
                status, answer = await self.call(name, "GET", "/readyz?verbose=1")
            if status != 200:
                return f"says {status} {answer}"
            status, answer = await self.call(name, "GET", "/v1/cluster")
            unreached = [node["name"] for node in answer["nodes"] if not node["reachable"]] if status == 200 else ["it"]
            if unreached:
                return f"does not reach {', '.join(unreached)}"
            applied = answer["shards"][0]["applied_index"]
            return f"has applied {applied} of {target}" if applied < target else ""

        async def serves(name: str) -> str:
            while what := await trouble(name):
                if time.monotonic() > began_s + RECOVERY_S:
                    return f"{RECOVERY_S:.0f} s after everything was healed, {name} {what}"
                await asyncio.sleep(POLL_S)
            return ""

        self.trouble += filter(None, await asyncio.gather(*map(serves, self.nodes)))

    async def compacted(self) -> None:
        """Wait until so much was written that what a wiped node needs is not in the log any more."""

        async def is_long() -> bool:
            shard = self.shard_of(await self.call(await self.leader_now(), "GET", "/v1/cluster"))
            return int(shard.get("applied_index", 0)) > COMPACTED_ENTRIES

        await eventually(is_long, f"{COMPACTED_ENTRIES} entries are written")

    @staticmethod
    def shard_of(answer: tuple[int, Any]) -> dict[str, Any]:
        """The shard in a node's answer about the cluster; {} if there was none."""
        status, document = answer
        found: dict[str, Any] = document["shards"][0] if status == 200 else {}
        return found

    async def scrubbed(self) -> None:
        """Wait until the scrub has read everything again and found nothing damaged."""

        async def scrubs() -> dict[str, Any] | None:
            """What each node says of its own; None if one does not answer or is damaged."""
            found = {}
            for name in self.nodes:
                status, document = await self.call(name, "GET", "/v1/cluster")
                told = {node["name"]: node["scrub"] for node in document["nodes"]} if status == 200 else {}
                if not told.get(name) or told[name]["ailing"] or told[name].get("disagreement"):
                    return None
                found[name] = told[name]
            return found

        async def is_clean() -> bool:
            before = await scrubs()
            if (
                before is None
                or (await self.call(self.rng.choice(self.serving), "POST", "/v1/cluster/scrub"))[0] != 202
            ):
                return False
            last_ms = max(scrub["began_ms"] for scrub in before.values())

            def is_repaired(now: dict[str, Any]) -> bool:
                """Between two looks a node may have found damage and got everything anew: its pass is gone with it."""
                return any(scrub["repairs"] != before[name]["repairs"] for name, scrub in now.items())

            async def has_ended() -> bool:
                now = await scrubs()
                return (
                    now is None
                    or is_repaired(now)
                    or all(last_ms < scrub["began_ms"] <= scrub["ended_ms"] for scrub in now.values())
                )

            await eventually(has_ended, "a pass of the scrub ends", RECOVERY_S)
            now = await scrubs()
            return now is not None and not is_repaired(now)

        await eventually(is_clean, "the scrub finds nothing damaged", RECOVERY_S)

    # --- clocks -------------------------------------------------------------------------------------------------------

    def _clock_file(self, name: str) -> Path:
        return self.directory / f"{name}.clock"

    def set_clock(self, name: str, offset_s: int) -> None:
        """Set a node's wall clock wrong by so much, while it runs. Its monotonic clock goes on."""
        path = self._clock_file(name)
        path.with_suffix(".new").write_text(str(offset_s))
        path.with_suffix(".new").replace(path)


def never_said(log: str) -> list[str]:
    """What a log must not hold, each once. A line may be cut off where its process was killed."""
    found: dict[str, None] = {}
    for line in log.splitlines():
        try:
            told = json.loads(line)
        except ValueError:
            if line.startswith(("Traceback", "Fatal Python error")):
                found[line] = None
            continue
        if isinstance(told, dict) and told.get("event") in NEVER_SAID:
            found[f"{told['event']}: {told.get('error') or told.get('cause') or told.get('exception')}"] = None
    return list(found)
