"""Whole replicas side by side, without I/O: one monotonic clock for all, a wall clock for each, messages at once."""

from __future__ import annotations

import random
from collections import deque

from cluster.membership import Membership, configured
from cluster.messages import Message
from cluster.replica import NO_SCRUB, Replica
from cluster.scrub import ScrubSettings, Tally
from cluster.tuning import Tuning
from storage.memory_store import MemoryStore
from storage.operations import ITEM_HEADER, Operation, Outcome, decode_outcome, encode_item
from storage.state import Store

START_MS = 1_700_000_000_000
STEP_S = 0.02


class Trio:
    """Replicas a, b and c. `wrong_ms`: how far each one's wall clock is off; `replicas` holds those that are up."""

    def __init__(self, names: str = "abc", scrub: ScrubSettings = NO_SCRUB) -> None:
        self.names, self.now_s, self.scrub = names, 1000.0, scrub
        self.wrong_ms = dict.fromkeys(names, 0)
        self.stores = {name: MemoryStore() for name in names}
        self.replicas: dict[str, Replica] = {}
        self._blocked: set[str] = set()
        self._mail: deque[tuple[str, str, Message]] = deque()
        self._answers: dict[int, Outcome] = {}
        self._seq = 0

    # --- the world ----------------------------------------------------------------------------------------------------

    def start(self, *names: str) -> None:
        for name in names or self.names:
            self.replicas[name] = self._build(name)
            for other in self.replicas:
                if other != name:
                    self.replicas[name].connected(other, self.replicas[other].born)
                    self.replicas[other].connected(name, self.replicas[name].born)

    def _build(self, name: str) -> Replica:
        return self._replica(name, self.stores[name])

    def _replica(
        self,
        name: str,
        store: Store,
        tally: Tally | None = None,
        ailing: str | None = None,
        membership: Membership | None = None,
    ) -> Replica:
        membership = membership or configured(self.names)
        return Replica(
            name,
            membership.members,
            store,
            cluster=membership.cluster,
            post=lambda node, message: self._mail.append((name, node, message)),
            answer=self._answered,
            monotonic=lambda: self.now_s,
            wall_ms=lambda: round(START_MS + (self.now_s - 1000.0) * 1000) + self.wrong_ms[name],
            rng=random.Random(name),
            tuning=Tuning(),
            room_reserve_bytes=0,
            scrub=self.scrub,
            tally=tally,
            ailing=ailing,
        )

    def crash(self, name: str) -> None:
        del self.replicas[name]
        self.stores[name] = self.stores[name].crashed()
        for other in self.replicas.values():
            other.disconnected(name)

    def block(self, *names: str) -> None:
        """Whatever these send or are sent is lost from now on; their connections stand."""
        self._blocked.update(names)

    def fill(self, *names: str) -> None:
        """The disks of these have too little room from now on, until there is less to be kept free."""
        for name in names:
            self.replicas[name]._room.reserve_bytes = 1 << 62

    def make_room(self, *names: str) -> None:
        """The disks of these have room again."""
        for name in names:
            self.replicas[name]._room.reserve_bytes = 0

    def heal(self) -> None:
        """Nobody is blocked any more."""
        self._blocked.clear()

    def run(self, seconds: float) -> None:
        """Let so much time pass, a step at a time."""
        for _ in range(round(seconds / STEP_S)):
            self.now_s += STEP_S
            for _ in range(4):  # a round trip and what follows from it
                for name in list(self.replicas):
                    self._tick(name)
                self._deliver()

    def _tick(self, name: str) -> None:
        self.replicas[name].tick()

    def _deliver(self) -> None:
        mail, self._mail = self._mail, deque()
        for source, target, message in mail:
            if target in self.replicas and not {source, target} & self._blocked:
                replica = self.replicas[target]
                if not replica.heed(source, message):
                    replica.deliver(source, message)

    # --- what a gateway does ------------------------------------------------------------------------------------------

    def lead_again(self, name: str) -> None:
        """Stop whoever leads, one after the other, until `name` does."""
        while self.leader != name:
            other = self.leader
            self.crash(other)
            self.run(2.0)
            self.start(other)
            self.run(1.0)

    @property
    def leader(self) -> str:
        """Who leads; whoever is cut off does not count."""
        (leader,) = {n for n, r in self.replicas.items() if n not in self._blocked and r.report().serving}
        return leader

    def ask(self, operation: Operation, block: bytes = b"") -> int:
        """Ask the leader."""
        self._seq += 1
        assert self.replicas[self.leader].request("gateway", memoryview(encode_item(7, self._seq, operation, block)))
        return self._seq

    def do(self, operation: Operation, block: bytes = b"") -> Outcome:
        """Ask, and wait for the answer."""
        seq = self.ask(operation, block)
        for _ in range(100):
            if seq in self._answers:
                return self._answers.pop(seq)
            self.run(STEP_S)
        raise AssertionError(f"{operation} is not answered")

    def answer(self, seq: int) -> Outcome | None:
        """The answer to what was asked, taken; None if there is none yet."""
        return self._answers.pop(seq, None)

    def _answered(self, gateway: object, parts: list[bytes]) -> None:
        for header, outcome in zip(parts[::3], parts[1::3], strict=True):
            self._answers[ITEM_HEADER.unpack(header)[1]] = decode_outcome(outcome)
