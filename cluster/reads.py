"""Linearizable reads: each is answered by a state that has everything that was answered before it was asked.

Raft, section 6.4 of Ongaro's thesis: a majority has confirmed, after a read arrived, that this replica leads, and what
was committed at its arrival is applied. docs/architecture.md has the argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf

from cluster.dispatcher import Request
from cluster.engine import Engine
from cluster.outbox import Outbox
from storage.limits import ENTRY_RECEIVE_BYTES_MAX


class Reads:
    """Requests that are answered from what is applied here, at the leader, until they may be."""

    def __init__(
        self,
        engine: Engine,
        outbox: Outbox,
        monotonic: Callable[[], float],
        answer: Callable[[Request], bool],
    ) -> None:
        """`answer` is called for a request that may be answered; False: not yet, for reasons of its own."""
        self._engine, self._outbox, self._monotonic, self._answer = engine, outbox, monotonic, answer
        self._waiting: list[Request] = []
        self._is_put_off = False
        self._asked_s = -inf
        self._awaited_s = inf

    @property
    def are_due(self) -> bool:
        """Whether some wait only because the last tick had answered enough, or were confirmed since."""
        return self._is_put_off or self._awaited_s <= self._engine.confirmed_since()

    def ask(self, request: Request) -> None:
        """A request that reads."""
        self._waiting.append(request)

    def ask_all(self, requests: Iterable[Request]) -> None:
        """Requests that read."""
        self._waiting.extend(requests)

    def cancel(self, session: int, seq: int) -> None:
        """Nobody waits for this request any more."""
        self._waiting = [r for r in self._waiting if (r.session, r.seq) != (session, seq)]

    def answer(self) -> None:
        """Answer those that may be, and have a majority asked for the others."""
        self._is_put_off, self._awaited_s = False, inf
        if not self._waiting:
            return
        confirmed_s, applied_index = self._engine.confirmed_since(), self._engine.applied_index
        waiting: list[Request] = []
        for request in self._waiting:
            if request.arrived_s > confirmed_s:
                waiting.append(request)
                self._awaited_s = min(self._awaited_s, request.arrived_s)
            elif request.index > applied_index:
                waiting.append(request)
            elif self._outbox.block_bytes > ENTRY_RECEIVE_BYTES_MAX:
                waiting.append(request)
                self._is_put_off = True
            elif not self._answer(request):
                waiting.append(request)
        self._waiting = waiting
        if any(request.arrived_s > self._asked_s for request in waiting):
            self._asked_s = self._monotonic()
            self._engine.confirm()
