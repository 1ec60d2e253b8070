"""Receives that wait for messages, at the leader. Nothing here is logged: idle polling costs one small object each.

A queue's receives wait in lines, one for each filter and one for those without, first come, first served, on whatever
node their consumers poll. A receive that is proposed *claims* the messages it may take until it is applied, so that one
ready message wakes exactly one consumer of a line.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass
from itertools import count
from math import inf

from storage.operations import Keyed, Operation, Receive

DEADLINES_SPARE = 1024
"""Deadlines of receives that were woken before: so many more than needed are kept before they are swept out."""


@dataclass(slots=True, eq=False)
class Request:
    """An operation that a gateway waits for. `raw` is its item as it came; `index` the commit index at its arrival."""

    gateway: object
    session: int
    seq: int
    operation: Operation
    raw: bytes | memoryview
    arrived_s: float
    index: int
    next_id: int = 0
    """Of a receive with a filter whose time is over: the id of the queue's next message by then."""

    @property
    def receive(self) -> Receive | None:
        """The receive that this request is, perhaps under an idempotency key."""
        operation = self.operation.operation if type(self.operation) is Keyed else self.operation
        return operation if type(operation) is Receive else None

    @property
    def key(self) -> bytes:
        """The idempotency key that it is asked under, or nothing."""
        return self.operation.key if type(self.operation) is Keyed else b""

    @property
    def sieve(self) -> str:
        """What tells the filter of a receive from others; empty: it has none."""
        receive = self.receive
        return "" if receive is None else receive.sieve


class Dispatcher:
    """The lines of waiting receives, and what proposed ones have claimed."""

    def __init__(self) -> None:
        self._lines: dict[str, dict[str, dict[Request, None]]] = {}
        self._queues: dict[tuple[int, int], tuple[str, Request]] = {}
        self._keys: dict[bytes, dict[Request, None]] = {}
        """Those that are asked under an idempotency key, by it."""
        self._deadlines: list[tuple[float, int, Request]] = []
        self._number = count()
        self._over: dict[Request, None] = {}
        """Requests whose time is over, but whose queue's messages are claimed: they may yet get one that is left."""
        self._claimed: Counter[tuple[str, str]] = Counter()
        """By queue and filter. Lines do not count with each other's: who wants a thousand red messages, of which there
        is one, keeps nobody from the others. At worst somebody is woken for what another line has got."""

    def __len__(self) -> int:
        return len(self._queues)

    @property
    def remembered(self) -> int:
        """How many deadlines are kept, those of requests that do not wait any more among them."""
        return len(self._deadlines)

    @property
    def next_deadline_s(self) -> float:
        """When the next waiting receive gives up; inf: none waits."""
        return self._deadlines[0][0] if self._deadlines else inf

    def has_line(self, queue: str) -> bool:
        """Whether anyone waits for the queue's messages."""
        return queue in self._lines

    def lines(self, queue: str) -> list[Receive]:
        """The lines of a queue, each by a receive that waits in it."""
        first = [next(iter(line)).receive for line in self._lines.get(queue, {}).values()]
        return [receive for receive in first if receive is not None]

    def park(self, queue: str, request: Request, deadline_s: float) -> None:
        """Let a receive wait in line until `deadline_s`. One asked again over another connection replaces itself."""
        self.cancel(request.session, request.seq)
        self._lines.setdefault(queue, {}).setdefault(request.sieve, {})[request] = None
        self._queues[request.session, request.seq] = (queue, request)
        if request.key:
            self._keys.setdefault(request.key, {})[request] = None
        heapq.heappush(self._deadlines, (deadline_s, next(self._number), request))
        if len(self._deadlines) > 2 * len(self._queues) + DEADLINES_SPARE:
            self._deadlines = [deadline for deadline in self._deadlines if self._waits(deadline[2])]
            heapq.heapify(self._deadlines)

    def waiting(self) -> Counter[str]:
        """How many receives of each consumer wait, in all queues."""
        receives = [request.receive for _, request in self._queues.values()]
        return Counter(receive.consumer for receive in receives if receive is not None)

    def claim(self, queue: str, messages: int, sieve: str = "") -> None:
        """A proposed receive may take so many messages of the queue; as many are given back when it is applied."""
        self._claimed[queue, sieve] += messages

    def unclaim(self, queue: str, messages: int, sieve: str = "") -> None:
        """A proposed receive was applied."""
        self._claimed[queue, sieve] -= messages
        if self._claimed[queue, sieve] <= 0:
            del self._claimed[queue, sieve]

    def available(self, queue: str, ready: int, sieve: str = "") -> int:
        """How many of the messages that are ready for a filter nobody with the same filter has claimed."""
        return ready - self._claimed[queue, sieve]

    def is_claimed(self, queue: str, sieve: str = "") -> bool:
        """Whether a proposed receive with the same filter may still take something."""
        return (queue, sieve) in self._claimed

    def wake(self, queue: str, ready: int, consumer: str = "", sieve: str = "") -> list[Request]:
        """Take from a line those who can be served with what is ready for it, and claim it for them.

        consumer: only this one may be served; empty: anybody.
        """
        line, woken = self._lines.get(queue, {}).get(sieve), []
        while line and self.available(queue, ready, sieve) > 0:
            request = next(
                (r for r in line if not consumer or (r.receive is not None and r.receive.consumer == consumer)), None
            )
            if request is None:
                break
            self._leave(queue, request)
            receive = request.receive
            assert receive is not None, "only receives wait"
            self.claim(queue, receive.messages_max, sieve)
            woken.append(request)
        return woken

    def asked_again(self, key: bytes) -> list[Request]:
        """Take out those that are asked under an idempotency key, whose outcome is known now."""
        again = list(self._keys.get(key, ()))
        for request in again:
            queue, _ = self._queues[request.session, request.seq]
            self._leave(queue, request)
        return again

    def given_up(self, now_s: float) -> list[Request]:
        """Take out those who have waited long enough and have nothing to hope for."""
        while self._deadlines and self._deadlines[0][0] <= now_s:
            request = heapq.heappop(self._deadlines)[2]
            if self._waits(request):
                self._over[request] = None
        hopeless = []
        for request in list(self._over):
            queue, _ = self._queues[request.session, request.seq]
            if not self.is_claimed(queue, request.sieve):
                self._leave(queue, request)
                hopeless.append(request)
        return hopeless

    def cancel(self, session: int, seq: int) -> bool:
        """The consumer has gone. Returns whether it waited in a line."""
        found = self._queues.get((session, seq))
        if found is not None:
            self._leave(*found)
        return found is not None

    def forsake(self, gateway: object) -> None:
        """The gateway has gone, with all its consumers."""
        for queue, request in list(self._queues.values()):
            if request.gateway is gateway:
                self._leave(queue, request)

    def _waits(self, request: Request) -> bool:
        found = self._queues.get((request.session, request.seq))
        return found is not None and found[1] is request

    def _leave(self, queue: str, request: Request) -> None:
        lines = self._lines[queue]
        del lines[request.sieve][request]
        if not lines[request.sieve]:
            del lines[request.sieve]
        if not lines:
            del self._lines[queue]
        del self._queues[request.session, request.seq]
        if request.key:
            del self._keys[request.key][request]
            if not self._keys[request.key]:
                del self._keys[request.key]
        self._over.pop(request, None)
