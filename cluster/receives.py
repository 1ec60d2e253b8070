"""Receives at the leader: which are proposed, which wait for messages, and which are woken.

None waits while there are messages for it that nobody has claimed. So whatever may have added to what a queue has for
its receives has it looked at in the next tick: an entry, a receive that took less than it had claimed, or time.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from cluster.clock import ClusterClock
from cluster.dispatcher import Dispatcher, Request
from cluster.sifting import WAIT_S, Sifting
from storage import queries
from storage.operations import Keyed, Receive
from storage.reading import find_queue
from storage.state import State


class Receives:
    """The receives of one leader. `lines` holds those that wait, and what those that were proposed have claimed."""

    def __init__(self, state: State, clock: ClusterClock, monotonic: Callable[[], float], sifting: Sifting) -> None:
        self._state, self._clock, self._monotonic, self._sifting = state, clock, monotonic, sifting
        self.lines = Dispatcher()
        self._found: dict[tuple[str, str], queries.Takeable] = {}
        """What there was in this tick for receives with filters, by queue and filter."""
        self._readier: set[str] = set()
        self._revisits: dict[str, int] = {}
        """Queues that may be able to deliver more at a time (cluster milliseconds), without anything being done."""

    @property
    def next_ms(self) -> float:
        """When a queue is to be looked at again (cluster time); inf: not by the clock."""
        return min(self._revisits.values(), default=inf)

    def applied(self, readier: set[str]) -> None:
        """An entry was applied: there may be more for the receives of these queues."""
        self._found.clear()
        self._readier |= readier

    def concluded(self, receive: Receive) -> None:
        """A receive that was proposed is applied. It may have taken less than it had claimed."""
        self.lines.unclaim(receive.queue, receive.messages_max, receive.sieve)
        self._readier.add(receive.queue)

    def woken(self) -> list[Request]:
        """Take out those for whom there is something by now, and claim it for them."""
        self._found.clear()
        now_ms, woken = self._clock.now_ms(), []
        for queue in [queue for queue, at_ms in self._revisits.items() if at_ms <= now_ms]:
            del self._revisits[queue]
            self._readier.add(queue)
        for queue in sorted(filter(self.lines.has_line, self._readier)):
            for receive in self.lines.lines(queue):
                found = self._takeable(receive)
                woken += self.lines.wake(queue, found.messages, found.consumer, receive.sieve)
        self._readier.clear()
        return woken

    def must_wait(self, request: Request, receive: Receive, now_s: float) -> bool:
        """Let a receive wait if there is nothing for it now; else claim what there is."""
        if self.may_take(receive) or self.is_remembered(request):
            self.lines.claim(receive.queue, receive.messages_max, receive.sieve)
            return False
        self.lines.park(receive.queue, request, max(self._deadline_s(request, receive), now_s))
        return True

    def park(self, request: Request, receive: Receive) -> None:
        """Let a receive that came out empty wait on."""
        self.lines.park(receive.queue, request, self._deadline_s(request, receive))

    def may_take(self, receive: Receive) -> bool:
        """Whether there are messages for this receive that nobody else has claimed."""
        found = self._takeable(receive)
        if found.consumer and found.consumer != receive.consumer:
            return False
        return self.lines.available(receive.queue, found.messages, receive.sieve) > 0

    def awaits_sifting(self, request: Request, receive: Receive) -> bool:
        """Whether a receive whose time is over may soon get one of the messages that were there by then."""
        if not self._sifting.is_behind(request) or self.may_take(receive):
            return False
        return self._monotonic() < self._deadline_s(request, receive) + WAIT_S

    def _takeable(self, receive: Receive) -> queries.Takeable:
        """What there is for a receive. With a filter that costs a little, and is looked up once a tick."""
        name = (receive.queue, receive.sieve)
        found = self._found.get(name)
        if found is None:
            found = queries.takeable(self._state, receive.queue, self._clock.now_ms(), receive)
            if receive.filter:
                self._found[name] = found
        if found.changes_ms:
            self._revisits[receive.queue] = found.changes_ms
        return found

    def _deadline_s(self, request: Request, receive: Receive) -> float:
        """Up to when a receive waits: for as long as it says, or as its queue does."""
        wait_ms = receive.wait_ms
        if wait_ms < 0:
            queue = find_queue(self._state, receive.queue)
            wait_ms = 0 if queue is None else queue.settings.wait_ms
        return request.arrived_s + wait_ms / 1000

    def is_remembered(self, request: Request) -> bool:
        """Whether it had its effect before, and is asked again."""
        if type(request.operation) is Keyed and queries.is_key_remembered(self._state, request.operation.key):
            return True
        return queries.is_remembered(self._state, request.session, request.seq)
