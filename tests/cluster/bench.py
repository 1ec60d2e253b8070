"""One engine on a bench: messages in by hand, messages out in a list, a clock that stands still until it is moved."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TypeVar

from cluster.engine import Engine
from cluster.messages import Append, Appended, Message, PreVote, PreVoted, Vote
from cluster.tuning import Tuning
from storage.memory_store import MemoryStore
from storage.operations import ENTRY_KIND

M = TypeVar("M")


def payload(text: str) -> bytes:
    return bytes((ENTRY_KIND,)) + text.encode()


class Bench:
    """Engine "a" of a, b and c, unless told otherwise; what it sends is kept in `sent` as (node, message)."""

    def __init__(
        self, members: Mapping[str, str] | str = "abc", store: MemoryStore | None = None, tuning: Tuning | None = None
    ) -> None:
        self.store = store or MemoryStore()
        self.now_s = 1000.0
        self.sent: list[tuple[str, Message]] = []
        self.applied: list[tuple[int, int, str]] = []
        self.heard: list[tuple[str, int, int, bool]] = []
        self.engine = Engine(
            "a",
            members,
            self.store,
            apply=lambda index, term, data: self.applied.append((index, term, data[1:].decode())),
            send=lambda node, message: self.sent.append((node, message)),
            monotonic=lambda: self.now_s,
            rng=random.Random(1),
            tuning=tuning,
            heard=lambda node, wall_ms, clock_ms, room_ok: self.heard.append((node, wall_ms, clock_ms, room_ok)),
        )

    def connect(self, *nodes: str, born: bool = False) -> None:
        self.store.begin()
        for node in nodes:
            self.engine.connected(node, born)
        self.store.commit()

    def tick(self, *arrivals: tuple[str, Message], propose: tuple[str, ...] = (), sync: bool = True) -> None:
        """One tick; `sync=False` leaves out that its entries are durable."""
        self.sent.clear()
        self.store.begin()
        for node, message in arrivals:
            self.engine.receive(node, message)
        self.engine.tick()
        for text in propose:
            self.engine.propose(payload(text))
        self.engine.replicate()
        self.store.commit()
        if sync:
            self.engine.synced()

    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    def got(self, kind: type[M], node: str | None = None) -> list[M]:
        """The messages of one kind that the last tick sent."""
        return [m for to, m in self.sent if isinstance(m, kind) and node in (None, to)]

    def lead(self) -> None:
        """Be elected, and have the first entry acknowledged."""
        self.elect()
        peers = sorted(self.engine.membership.members.keys() - {"a"})
        self.tick(*((n, self.ack(self.engine.last_index)) for n in peers))
        assert self.engine.commit_index == self.engine.last_index

    def elect(self) -> None:
        """Be elected: two pre-votes and two votes."""
        peers = sorted(self.engine.membership.members.keys() - {"a"})
        self.connect(*peers)
        self.wait(2.0)
        self.tick()
        question = self.got(PreVote)[0]
        self.tick(*((n, PreVoted(question.term - 1, question.round, True)) for n in peers))
        self.tick(*((n, Vote(self.engine.term)) for n in peers))
        assert self.engine.is_leader

    def ack(self, index: int, *, term: int | None = None, counts: bool = True, echo: float | None = None) -> Appended:
        term = self.engine.term if term is None else term
        return Appended(term, True, index, index, 0, self.now_s if echo is None else echo, 0, True, counts)

    def append(self, prev: tuple[int, int], *entries: tuple[int, str], term: int, commit: int = 1) -> Append:
        return Append(term, *prev, [(t, payload(text)) for t, text in entries], commit, 0, 0.0)

    def log(self) -> list[tuple[int, str]]:
        """(term, text) of every entry after the first."""
        found = [self.store.logged(index) for index in range(2, self.store.last_index + 1)]
        return [(entry.term, entry.payload[1:].decode()) for entry in found if entry is not None]
