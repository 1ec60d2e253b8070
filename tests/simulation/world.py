"""A small world to run engines in: one clock, disks that take time, connections that keep order, and no chance but one.

A node's tick takes as long as its disk: what arrives meanwhile waits, and a crash meanwhile loses the transaction but
not the urgent messages, which have already left. Every rule that must never be broken is checked after every tick.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any

from cluster.engine import Engine, ReinstalledError
from cluster.messages import Message, decode_message, encode_message
from cluster.tuning import Tuning
from storage.memory_store import MemoryStore
from storage.operations import ENTRY_KIND

DIGEST = b"digest"


class Violation(AssertionError):
    """A rule was broken."""


@dataclass
class Read:
    """A query waiting at a leader: what it must see at least, and when it may be answered."""

    arrived_s: float
    commit_index: int
    must_see: int


@dataclass
class Node:
    name: str
    store: MemoryStore
    engine: Engine | None = None
    incarnation: int = 0
    busy: bool = False
    paused: bool = False
    doomed: bool = False
    inbox: list[tuple[str, int, Message]] = field(default_factory=list)
    notices: list[Callable[[Engine], None]] = field(default_factory=list)
    proposals: list[bytes] = field(default_factory=list)
    waiting: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    reads: list[Read] = field(default_factory=list)
    wakeup_s: float = inf
    was_leader_in: int = 0
    seen_commit: int = 0
    applied_now: list[tuple[int, int, bytes]] = field(default_factory=list)

    @property
    def is_up(self) -> bool:
        return self.engine is not None


class World:
    """Nodes, a network and an oracle. `engine_class` and `release_early` exist to break one rule at a time."""

    def __init__(
        self,
        names: str,
        seed: int,
        tuning: Tuning | None = None,
        *,
        engine_class: type[Engine] = Engine,
        release_early: bool = False,
        delay_s: tuple[float, float] = (0.0002, 0.002),
        disk_s: tuple[float, float] = (0.0002, 0.004),
    ) -> None:
        self.rng = random.Random(seed)
        self.tuning = tuning or Tuning()
        self.engine_class, self.release_early = engine_class, release_early
        self.delay_s, self.disk_s = delay_s, disk_s
        self.now_s = 1000.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0
        self.nodes = {name: Node(name, MemoryStore()) for name in names}
        self.epochs: dict[frozenset[str], int] = {}
        self.blocked: set[tuple[str, str]] = set()
        self._held_up: dict[tuple[str, str], list[Callable[[], None]]] = {}
        self._arrival_s: dict[tuple[str, str], float] = {}
        self._link_number = 0
        # The oracle.
        self.committed: dict[int, tuple[int, bytes]] = {}
        self.committed_in: dict[int, int] = {}
        self.digests: dict[int, bytes] = {}
        self.leaders: dict[int, str] = {}
        self.acknowledged: dict[bytes, int] = {}
        self.must_see = 0
        self.counts: dict[str, int] = {"elections": 0, "reads": 0, "snapshots": 0, "messages": 0, "heeded": 0}
        self.sent_log: list[tuple[float, str, str, Message]] = []
        self.log_messages = False
        self.lost: Callable[[str, str, Message], bool] = lambda source, target, message: False

    # --- time ---------------------------------------------------------------------------------------------------------

    def at(self, delay_s: float, action: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._events, (self.now_s + delay_s, self._sequence, action))

    def step(self) -> None:
        self.now_s, _, action = heapq.heappop(self._events)
        action()

    def run(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self._events and self._events[0][0] <= end_s:
            self.step()
        self.now_s = end_s

    def run_until(self, condition: Callable[[], Any], within_s: float = 10.0) -> float:
        """Go on until `condition` holds, and say how long it took."""
        start_s = self.now_s
        while not condition():
            if not self._events or self._events[0][0] > start_s + within_s:
                raise Violation(f"not within {within_s} s: {self}")
            self.step()
        return self.now_s - start_s

    def __str__(self) -> str:
        return "; ".join(
            f"{n.name}: down"
            if n.engine is None
            else f"{n.name}: term {n.engine.term} leads {n.engine.is_leader} follows {n.engine.leader} applied "
            f"{n.engine.applied_index} commit {n.engine.commit_index} last {n.engine.last_index} born {n.engine.born}"
            for n in self.nodes.values()
        )

    # --- nodes --------------------------------------------------------------------------------------------------------

    def start(self, *names: str) -> None:
        for name in names or self.nodes:
            node = self.nodes[name]
            if node.is_up:
                continue
            node.incarnation += 1
            self._build(node)
            for other in self.nodes.values():
                if other is not node and other.is_up:
                    self.link(name, other.name)

    def _build(self, node: Node) -> None:
        node.inbox, node.notices, node.proposals, node.reads = [], [], [], []
        node.waiting, node.busy, node.wakeup_s = {}, False, inf
        node.was_leader_in = 0
        self._outbox: list[tuple[str, Message]] = []

        def apply(index: int, term: int, payload: bytes) -> None:
            node.applied_now.append((index, term, payload))
            before = node.store.get(DIGEST) or b""
            digest = hashlib.blake2b(before + index.to_bytes(8, "big") + payload, digest_size=16).digest()
            node.store.put(DIGEST, digest)
            node.store.put(payload[1:9], index.to_bytes(8, "big"))
            if self.digests.setdefault(index, digest) != digest:
                raise Violation(f"{node.name} applied other entries up to {index} than the first to apply it")

        node.engine = self.engine_class(
            node.name,
            self.nodes,
            node.store,
            apply=apply,
            send=lambda target, message: self._outbox.append((target, message)),
            monotonic=lambda: self.now_s,
            rng=random.Random(self.rng.getrandbits(64)),
            tuning=self.tuning,
        )
        node.seen_commit = node.engine.commit_index
        self._wake(node, 0.0)

    def crash(self, name: str) -> None:
        """kill -9: the open transaction is lost, every connection breaks at once."""
        node = self.nodes[name]
        node.store = node.store.crashed()
        node.engine = None
        node.incarnation += 1
        node.paused = node.doomed = False
        for other in self.nodes:
            if other != name:
                self.cut(name, other)

    def doom(self, name: str) -> None:
        """kill -9 in the middle of the next tick: urgent messages have left, the transaction is lost."""
        self.nodes[name].doomed = True

    def wipe(self, name: str) -> None:
        """A new disk."""
        self.crash(name)
        self.nodes[name].store = MemoryStore()

    def pause(self, name: str, seconds: float) -> None:
        node = self.nodes[name]
        if node.is_up and not node.paused:
            node.paused = True
            incarnation = node.incarnation

            def resume() -> None:
                if node.incarnation == incarnation:
                    node.paused = False
                    self._wake(node, 0.0)

            self.at(seconds, resume)

    def _wake(self, node: Node, delay_s: float) -> None:
        """Have `node` tick in `delay_s` at the latest."""
        at_s = self.now_s + max(delay_s, 0.0)
        if node.busy or at_s >= node.wakeup_s > self.now_s:
            return
        node.wakeup_s = at_s
        incarnation = node.incarnation

        def tick() -> None:
            if node.incarnation == incarnation and not node.busy and not node.paused and node.wakeup_s <= self.now_s:
                node.wakeup_s = inf
                self._tick(node)

        self.at(max(delay_s, 0.0), tick)

    def _tick(self, node: Node) -> None:
        engine, store = node.engine, node.store
        assert engine is not None
        self._outbox = []
        if not (node.notices or node.proposals) and self._heed(node, engine):
            return
        notices, node.notices = node.notices, []
        inbox, node.inbox = node.inbox, []
        last_index = engine.last_index
        store.begin()
        for notice in notices:
            notice(engine)
        for source, epoch, message in inbox:
            if self.epochs.get(frozenset((source, node.name))) == epoch:
                engine.receive(source, message)
        engine.tick()
        self._propose(node, engine)
        engine.replicate()
        self._check(node, engine)
        # Sorted, for the stock code's sets have another order in every process.
        outbox = sorted(self._outbox, key=lambda item: item[0])
        promised = []
        for target, message in outbox:
            if message.urgent or self.release_early:
                self._transmit(node.name, target, message)
            else:
                promised.append((target, message, self.epochs.get(frozenset((node.name, target)))))
        node.busy = True
        incarnation = node.incarnation

        def synced() -> None:
            if node.incarnation != incarnation:
                return
            node.busy = False
            store.commit()
            for target, message, epoch in promised:
                if self.epochs.get(frozenset((node.name, target))) == epoch:
                    self._transmit(node.name, target, message)
            self._acknowledge(node, engine)
            try:
                engine.synced()
            except ReinstalledError:
                self.counts["snapshots"] += 1
                self.crash(node.name)
                self.start(node.name)
                return
            pending = node.inbox or node.notices or node.proposals
            self._wake(node, 0.0 if pending else engine.next_wakeup() - self.now_s)

        disk_s = self.rng.uniform(*self.disk_s)
        self.at(disk_s, synced)
        if node.doomed and (engine.is_leader or engine.last_index > last_index):
            self.at(disk_s * self.rng.random(), lambda: node.incarnation == incarnation and self.crash(node.name))

    def _heed(self, node: Node, engine: Engine) -> bool:
        """Let the engine take what needs no tick, up to the first message that does. True: nothing is due after it."""
        heeded = 0
        for source, epoch, message in node.inbox:
            if self.epochs.get(frozenset((source, node.name))) == epoch and not engine.heed(source, message):
                break
            heeded += 1
        if not heeded:
            return False
        del node.inbox[:heeded]
        self.counts["heeded"] += heeded
        self._check(node, engine)
        for target, message in self._outbox:
            self._transmit(node.name, target, message)
        self._outbox = []
        self._acknowledge(node, engine)
        if node.inbox:
            return False
        self._wake(node, engine.next_wakeup() - self.now_s)
        return True

    def _propose(self, node: Node, engine: Engine) -> None:
        if engine.may_propose:
            for payload in node.proposals:
                index = engine.propose(payload)
                node.waiting[index] = (engine.term, payload)
            node.proposals = []
        elif not engine.is_leader:
            node.proposals = []

    def _acknowledge(self, node: Node, engine: Engine) -> None:
        """The transaction is durable: tell the clients."""
        for index, term, payload in node.applied_now:
            expected = node.waiting.pop(index, None)
            if expected == (term, payload):
                self.acknowledged[payload[1:9]] = index
                self.must_see = max(self.must_see, index)
        node.applied_now = []
        if not engine.is_leader:
            node.waiting = {}
            node.reads = []
            return
        confirmed_s, kept = engine.confirmed_since(), []
        for read in node.reads:
            if confirmed_s >= read.arrived_s and engine.applied_index >= read.commit_index:
                self.counts["reads"] += 1
                if engine.applied_index < read.must_see:
                    raise Violation(f"{node.name} answers a query without entry {read.must_see}")
            else:
                kept.append(read)
        node.reads = kept

    # --- clients ------------------------------------------------------------------------------------------------------

    @property
    def leader(self) -> Node | None:
        """The leader of the highest term, if it is up."""
        leaders = [node for node in self.nodes.values() if node.engine is not None and node.engine.is_leader]
        return max(leaders, key=lambda node: node.engine.term if node.engine else 0, default=None)

    def propose(self, name: str, label: int, size: int = 0) -> bytes:
        payload = bytes((ENTRY_KIND,)) + label.to_bytes(8, "big") + bytes(size)
        node = self.nodes[name]
        node.proposals.append(payload)
        self._wake(node, 0.0)
        return payload[1:9]

    def read(self, name: str) -> None:
        node = self.nodes[name]
        if node.engine is not None and node.engine.is_leader:
            node.reads.append(Read(self.now_s, node.engine.commit_index, self.must_see))
            node.engine.confirm()
            self._wake(node, 0.0)

    def engine(self, name: str) -> Engine:
        engine = self.nodes[name].engine
        assert engine is not None
        return engine

    # --- network ------------------------------------------------------------------------------------------------------

    def link(self, a: str, b: str) -> None:
        """Connect two nodes, if both are up and neither way is blocked; else try again later."""
        pair = frozenset((a, b))
        both = self.nodes[a], self.nodes[b]
        if pair in self.epochs or not all(node.is_up for node in both):
            return
        if (a, b) in self.blocked or (b, a) in self.blocked:
            self.at(0.2, lambda: self.link(a, b))
            return
        self._link_number += 1
        epoch = self.epochs[pair] = self._link_number
        for node, other in (both, both[::-1]):
            assert other.engine is not None
            self._notify(node, other.name, epoch, connected=True, born=other.engine.born)

    def cut(self, a: str, b: str) -> None:
        """Break the connection; each end notices in its own time. They connect again by themselves."""
        if self.epochs.pop(frozenset((a, b)), None) is None:
            return
        for end, other in ((a, b), (b, a)):
            self._held_up.pop((end, other), None)
            if self.nodes[end].is_up:
                self._notify(self.nodes[end], other, None, connected=False)
        self.at(self.rng.uniform(0.01, 0.3), lambda: self.link(a, b))

    def _notify(self, node: Node, peer: str, epoch: int | None, *, connected: bool, born: bool = False) -> None:
        incarnation = node.incarnation

        def arrive() -> None:
            if node.incarnation != incarnation or self.epochs.get(frozenset((node.name, peer))) not in (epoch, None):
                return
            if connected:
                node.notices.append(lambda engine: engine.connected(peer, born=born))
            else:
                node.notices.append(lambda engine: engine.disconnected(peer))
            self._wake(node, 0.0)

        # A notice never overtakes, and is never overtaken by, what the connection carries.
        self.at(0.0 if connected else self.rng.uniform(0.0, 0.002), arrive)

    def _transmit(self, source: str, target: str, message: Message) -> None:
        epoch = self.epochs.get(frozenset((source, target)))
        self.counts["messages"] += 1
        if self.log_messages:
            self.sent_log.append((self.now_s, source, target, message))
        if epoch is None or self.lost(source, target, message):
            return
        data = encode_message(message)

        def arrive() -> None:
            node = self.nodes[target]
            if self.epochs.get(frozenset((source, target))) != epoch:
                return
            if (source, target) in self.blocked:
                self._held_up.setdefault((source, target), []).append(arrive)
                return
            node.inbox.append((source, epoch, decode_message(data)))
            self._wake(node, 0.0)

        at_s = max(self.now_s + self.rng.uniform(*self.delay_s), self._arrival_s.get((source, target), 0.0))
        self._arrival_s[source, target] = at_s
        self.at(at_s - self.now_s, arrive)

    def block(self, source: str, target: str) -> None:
        """Nothing gets from `source` to `target`, but the connection stands and what was sent arrives later."""
        self.blocked.add((source, target))

    def unblock(self, source: str, target: str) -> None:
        self.blocked.discard((source, target))
        for arrive in self._held_up.pop((source, target), []):
            arrive()

    def isolate(self, name: str) -> None:
        for other in self.nodes:
            if other != name:
                self.block(name, other)
                self.block(other, name)

    def heal(self) -> None:
        for source, target in sorted(self.blocked):
            self.unblock(source, target)
        names = list(self.nodes)
        for position, a in enumerate(names):
            for b in names[position + 1 :]:
                self.link(a, b)

    # --- the oracle ---------------------------------------------------------------------------------------------------

    def _check(self, node: Node, engine: Engine) -> None:
        if engine.is_leader and node.was_leader_in != engine.term:
            node.was_leader_in = engine.term
            self.counts["elections"] += 1
            if self.leaders.setdefault(engine.term, node.name) != node.name:
                raise Violation(f"{self.leaders[engine.term]} and {node.name} both lead in term {engine.term}")
            for index, entry in self.committed.items():
                if self.committed_in[index] < engine.term and index >= node.store.first_index:
                    self._compare(node, index, entry)
        if engine.commit_index > engine.last_index:
            raise Violation(f"{node.name} has committed {engine.commit_index} of {engine.last_index}")
        if engine.commit_index < node.seen_commit:
            raise Violation(f"{node.name} takes a commit back")
        for index in range(node.seen_commit + 1, engine.commit_index + 1):
            logged = node.store.logged(index)
            if logged is None and index < node.store.first_index:
                continue  # applied and compacted in one tick: the digest has vouched for it
            if logged is None:
                raise Violation(f"{node.name} committed entry {index}, which it does not hold")
            entry = self.committed.setdefault(index, (logged.term, logged.payload))
            self.committed_in.setdefault(index, engine.term)
            self._compare(node, index, entry)
        node.seen_commit = engine.commit_index

    def _compare(self, node: Node, index: int, entry: tuple[int, bytes]) -> None:
        logged = node.store.logged(index)
        if logged is None or (logged.term, logged.payload) != entry:
            raise Violation(f"{node.name} holds another entry {index} than was committed: {logged} for {entry}")

    def check_all_caught_up(self) -> None:
        """Every node has applied the same, and everything that was acknowledged."""
        digests = {node.store.get(DIGEST) for node in self.nodes.values()}
        if len(digests) != 1:
            raise Violation(f"the nodes' states differ: {self}")
        for node in self.nodes.values():
            for label, index in self.acknowledged.items():
                found = node.store.get(label)
                if found is None or int.from_bytes(found, "big") != index:
                    raise Violation(f"{node.name} has lost the acknowledged entry {index}")
