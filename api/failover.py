"""Killing the leader under load, again and again, and measuring how long nothing is acknowledged.

A cluster of three is started for the purpose. In every round all kinds of requests run through the gateways of the two
nodes that do not lead; the third is killed (or asked to stop), a fresh write is sent at that very moment through each
of the two, and the node is started again when the cluster is over it. No request may fail meanwhile, and at the end
the queue is drained and held against what was acknowledged. A node that is asked to stop has clients of its own, who
leave when they are told that their connection is closed: none of their requests may be cut off either.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import secrets
import signal
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from api.bench import quantiles
from api.bench_client import Answer, Connection
from api.local import LocalNode
from cluster.shard import ELECTION_STEPS

SETTLE_S = 1.0
"""Load before each kill. A node that has just come back does not vote for the first 0.6 s (`cluster.engine`)."""
HOLD_S = 0.5
"""How much longer is measured once writes are acknowledged again, before the node is started anew."""
WHOLE_S = 60.0
"""How long anything may take before the whole run is given up."""
POLL_S = 0.02
WAIT_MS = 1000
"""How long receives on an empty queue wait: long enough that every kill meets some of them."""
QUEUE, EMPTY = "failover", "failover-empty"

Progress = Callable[[str], None]


class FailoverError(Exception):
    """The cluster did not do what every round takes for granted; the message says what."""


class Round(msgspec.Struct, frozen=True):
    """One node's end, in milliseconds since the signal was sent.

    first_ms, every_ms: a write sent after the signal was acknowledged by one, by each surviving gateway. gap_ms: the
    longest time in which nothing was acknowledged; usual_gap_ms: the same for as long before the signal. timeline:
    when the steps of the election happened, as the nodes' logs tell.
    """

    victim: str
    first_ms: float
    every_ms: float
    gap_ms: float
    usual_gap_ms: float
    timeline: dict[str, float]


class Spread(msgspec.Struct, frozen=True):
    """Some figures of all rounds, in milliseconds."""

    p50_ms: float
    p95_ms: float
    max_ms: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """The spread of at least one value."""
        return cls(*(round(value, 1) for value in quantiles(values, 0.5, 0.95, 1.0)))


class Findings(msgspec.Struct, frozen=True):
    """What a run has found. `requests` and `failures` are counted by kind, at surviving gateways only."""

    planned: bool
    rounds: list[Round]
    requests: dict[str, int]
    failures: dict[str, int]
    sent: int
    lost: int
    doubled: int

    @property
    def is_clean(self) -> bool:
        """Whether no request failed, and no message was lost or came as two."""
        return not (self.failures or self.lost or self.doubled)

    def spread(self, name: str) -> Spread:
        """The spread of one of the rounds' figures."""
        return Spread.of([getattr(each, name) for each in self.rounds])

    def timeline(self) -> dict[str, Spread]:
        """When the steps happened."""
        names = dict.fromkeys(step for each in self.rounds for step in each.timeline)
        known = {name: [each.timeline[name] for each in self.rounds if name in each.timeline] for name in names}
        return {name: Spread.of(times) for name, times in sorted(known.items(), key=lambda item: sum(item[1]))}


class Load:
    """Requests of every kind through the gateways at `urls`, until stopped. All loads of a run share one `Ledger`.

    `leaves`: a client whose connection the gateway closes after an answer is done, and is no consumer who would have to
    ack elsewhere.
    """

    def __init__(self, ledger: Ledger, urls: list[str], workers: int, body_bytes: int, *, leaves: bool = False) -> None:
        kinds = (self._send, self._consume, self._send_keyed, self._read, self._send, self._wait)
        if leaves:
            kinds = (self._send, self._wait, self._send_keyed, self._read, self._send, self._wait)
        self._ledger, self._fill = ledger, "x" * max(0, body_bytes - 16)
        self._stopping, self._leaves = False, leaves
        self._tasks = [
            asyncio.create_task(self._work(url, kind))
            for kind, url in zip(itertools.islice(itertools.cycle(kinds), workers), itertools.cycle(urls), strict=False)
        ]

    async def stop(self) -> None:
        """Let every request come to its end."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def _work(self, url: str, kind: Callable[[Connection], Coroutine[Any, Any, None]]) -> None:
        connection: Connection | None = None
        while not self._stopping:
            try:
                if connection is None or not connection.is_open:
                    if connection is not None and self._leaves:
                        return
                    connection = await Connection.open(url)
                await kind(connection)
            except (OSError, TimeoutError) as error:
                self._ledger.failures[f"{type(error).__name__}: {error}"] += 1
                connection = None
                await asyncio.sleep(POLL_S)
        if connection is not None:
            connection.close()

    async def _send(self, connection: Connection) -> None:
        await self._ledger.send(connection, self._fill)

    async def _send_keyed(self, connection: Connection) -> None:
        await self._ledger.send(connection, self._fill, key=secrets.token_hex(8))

    async def _consume(self, connection: Connection) -> None:
        await self._ledger.consume(connection, wait_ms=200)

    async def _read(self, connection: Connection) -> None:
        await self._ledger.ask("read", connection, "GET", f"/v1/queues/{QUEUE}")

    async def _wait(self, connection: Connection) -> None:
        content = msgspec.json.encode({"wait_ms": WAIT_MS})
        await self._ledger.ask("receive that waits", connection, "POST", f"/v1/queues/{EMPTY}/receive", content)


class Ledger:
    """What was asked, what failed, what was acknowledged when, and what has become of every message."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.acknowledged_s: list[float] = []
        self.sent = itertools.count()
        self.kept: set[int] = set()
        self.came: dict[int, int] = {}
        self.doubled = 0

    async def ask(
        self, kind: str, connection: Connection, method: str, path: str, content: bytes = b"", headers: bytes = b""
    ) -> Answer | None:
        """One request; None if it failed."""
        self.requests[kind] += 1
        try:
            answer = await connection.request(method, path, content, headers=headers)
        except (OSError, TimeoutError) as error:
            self.failures[f"{kind}: {error}"] += 1
            return None
        if answer.status < 300:
            return answer
        self.failures[f"{kind}: {answer.status} {answer.content[:200].decode(errors='replace')}"] += 1
        return None

    async def send(self, connection: Connection, fill: str, key: str | None = None) -> None:
        """Send the next message."""
        number = next(self.sent)
        content = msgspec.json.encode({"body": f"{number:016x}{fill}"})
        kind, headers = ("send", b"") if key is None else ("send with a key", f"Idempotency-Key: {key}\r\n".encode())
        if await self.ask(kind, connection, "POST", f"/v1/queues/{QUEUE}/messages", content, headers) is not None:
            self.acknowledged_s.append(time.perf_counter())
            self.kept.add(number)

    async def consume(self, connection: Connection, wait_ms: int) -> int:
        """Receive and ack; returns how many messages there were."""
        content = msgspec.json.encode({"max": 100, "wait_ms": wait_ms})
        answer = await self.ask("receive", connection, "POST", f"/v1/queues/{QUEUE}/receive", content)
        messages = [] if answer is None else msgspec.json.decode(answer.content)["messages"]
        for message in messages:
            number, message_id = int(message["body"][:16], 16), message["message_id"]
            self.doubled += self.came.setdefault(number, message_id) != message_id
        if messages:
            content = msgspec.json.encode({"receipts": [message["receipt"] for message in messages]})
            await self.ask("ack", connection, "POST", f"/v1/queues/{QUEUE}/ack", content)
        return len(messages)


class Failover:
    """A run on a cluster that is started, and ready."""

    def __init__(self, nodes: list[LocalNode], *, planned: bool, workers: int, body_bytes: int) -> None:
        self._nodes = {node.name: node for node in nodes}
        self._planned, self._workers, self._body_bytes = planned, workers, body_bytes
        self._ledger = Ledger()

    async def run(self, victims: Sequence[str | None], progress: Progress = lambda text: None) -> Findings:
        """Go through one round for each of `victims`; None is whoever leads. Raises `FailoverError`."""
        first = await Connection.open(next(iter(self._nodes.values())).url)
        for queue in (QUEUE, EMPTY):
            answer = await first.request("PUT", f"/v1/queues/{queue}", b"{}")
            if answer.status >= 300:
                raise FailoverError(f"a queue could not be created: {answer.content.decode(errors='replace')}")
        first.close()
        measured = []
        for number, victim in enumerate(victims, 1):
            last = await self._round(victim or await self._leader())
            measured.append(last)
            progress(
                f"{number} of {len(victims)}: {last.victim} {'stopped' if self._planned else 'killed'}, "
                f"acknowledged again after {last.first_ms:.0f} ms, longest gap {last.gap_ms:.0f} ms"
            )
        await self._drain()
        ledger = self._ledger
        lost = len(ledger.kept - ledger.came.keys())
        requests, failures = dict(ledger.requests), dict(ledger.failures)
        return Findings(self._planned, measured, requests, failures, len(ledger.kept), lost, ledger.doubled)

    async def _round(self, victim: str) -> Round:
        doomed = self._nodes[victim]
        survivors = [node for node in self._nodes.values() if node is not doomed]
        urls, acknowledged_s = [node.url for node in survivors], self._ledger.acknowledged_s
        acknowledged_s.clear()
        load = Load(self._ledger, urls, self._workers, self._body_bytes)
        own = Load(
            self._ledger, [doomed.url], self._workers // 2 if self._planned else 0, self._body_bytes, leaves=True
        )
        fresh = [await Connection.open(url) for url in urls]
        await asyncio.sleep(SETTLE_S)
        logs = {node.name: node.log.stat().st_size for node in self._nodes.values()}

        at_s, began_s = time.time(), time.perf_counter()
        assert doomed.process is not None
        if self._planned:
            doomed.process.terminate()
        else:
            os.killpg(doomed.process.pid, signal.SIGKILL)
        answered_s = await asyncio.gather(*(self._probe(connection) for connection in fresh))
        code = await doomed.process.wait()
        if self._planned and code != 0:
            raise FailoverError(f"{victim} ended with code {code} when it was asked to stop; see {doomed.log}")
        await own.stop()
        await asyncio.sleep(HOLD_S)
        ended_s = time.perf_counter()

        first_ms, every_ms = (1000 * (pick(answered_s) - began_s) for pick in (min, max))
        measured = Round(
            victim,
            first_ms,
            every_ms,
            longest_gap_ms(acknowledged_s, began_s, ended_s),
            longest_gap_ms(acknowledged_s, began_s - (ended_s - began_s), began_s),
            timeline(self._nodes.values(), logs, victim, at_s) | {"a fresh write is acknowledged": first_ms},
        )
        await doomed.start()
        await self._whole(doomed, survivors)
        await load.stop()
        return measured

    async def _probe(self, connection: Connection) -> float:
        """Send one fresh message; returns when it was acknowledged."""
        with contextlib.closing(connection):
            await self._ledger.send(connection, "")
            return time.perf_counter()

    async def _drain(self) -> None:
        connection = await Connection.open(next(iter(self._nodes.values())).url)
        deadline_s = time.perf_counter() + WHOLE_S
        # What a consumer had leased when its load ended was acked, so nothing has to wait for a lease to end.
        while await self._ledger.consume(connection, wait_ms=200):
            if time.perf_counter() > deadline_s:
                raise FailoverError(f"the queue was not drained within {WHOLE_S:.0f} s")
        connection.close()

    async def _leader(self) -> str:
        async def agreed() -> str | None:
            leaders = {(await _shard(node))["leader"] for node in self._nodes.values()}
            return leaders.pop() if len(leaders) == 1 else None

        return str(await _eventually(agreed, "the nodes do not agree on a leader"))

    async def _whole(self, returned: LocalNode, survivors: list[LocalNode]) -> None:
        goal = (await _shard(survivors[0]))["applied_index"]

        async def level() -> bool:
            shard = await _shard(returned)
            return shard["trouble"] is None and shard["leader"] is not None and shard["applied_index"] >= goal

        await _eventually(level, f"{returned.name} did not come back; see {returned.log}")


async def _eventually(condition: Callable[[], Coroutine[Any, Any, Any]], trouble: str) -> Any:
    deadline_s = time.perf_counter() + WHOLE_S
    while True:
        with contextlib.suppress(OSError, TimeoutError, LookupError):
            found = await condition()
            if found:
                return found
        if time.perf_counter() > deadline_s:
            raise FailoverError(f"{trouble} (waited {WHOLE_S:.0f} s)")
        await asyncio.sleep(POLL_S)


async def _shard(node: LocalNode) -> Any:
    connection = await Connection.open(node.url)
    with contextlib.closing(connection):
        answer = await connection.request("GET", "/v1/cluster")
        return msgspec.json.decode(answer.content)["shards"][0]


def longest_gap_ms(moments_s: list[float], begin_s: float, end_s: float) -> float:
    """The longest time without a moment that lies in, or reaches into, the given span."""
    ordered = sorted(moment_s for moment_s in moments_s if moment_s < end_s)
    later = [moment_s for moment_s in ordered if moment_s >= begin_s]
    earlier = ordered[: len(ordered) - len(later)][-1:] or [begin_s]
    return 1000 * max(after - before for before, after in itertools.pairwise([*earlier, *later, end_s]))


def timeline(nodes: Iterable[LocalNode], logs: dict[str, int], victim: str, at_s: float) -> dict[str, float]:
    """When each step happened for the first time, in milliseconds after `at_s`, from what the nodes have logged since.

    An election may have been tried by several; what the winner did is what counts.
    """
    told: list[tuple[float, dict[str, Any]]] = []
    for node in nodes:
        for line in node.log.read_bytes()[logs[node.name] :].splitlines():
            with contextlib.suppress(msgspec.DecodeError, KeyError, ValueError):
                said = msgspec.json.decode(line)
                told.append((1000 * (datetime.fromisoformat(said["timestamp"]).timestamp() - at_s), said))
    told.sort(key=lambda each: each[0])
    winner = next((s["node"] for _, s in told if s["event"] == ELECTION_STEPS["won"] and s["node"] != victim), None)
    steps: dict[str, Callable[[dict[str, Any]], bool]] = {
        "the leader hands over": lambda s: s["event"] == "handing over" and s["node"] == victim,
        "a node loses its connection to it": lambda s: s["event"] == "replica disconnected" and s["peer"] == victim,
        "the winner asks for pre-votes": lambda s: s["event"] == ELECTION_STEPS["asked"] and s["node"] == winner,
        "the winner asks for votes": lambda s: s["event"] == ELECTION_STEPS["campaigned"] and s["node"] == winner,
        "the winner is elected": lambda s: s["event"] == ELECTION_STEPS["won"] and s["node"] == winner,
        "its first entry is committed": lambda s: (
            s["event"] == "leader" and s["node"] == winner and s.get("serving") is True
        ),
        "a gateway knows": lambda s: s["event"] == "leader" and s["process"] == "gateway" and s["leader"] == winner,
    }
    found: dict[str, float] = {}
    for step, is_it in steps.items():
        at_ms = next((at_ms for at_ms, said in told if is_it(said)), None)
        if at_ms is not None:
            found[step] = round(at_ms, 1)
    return found
