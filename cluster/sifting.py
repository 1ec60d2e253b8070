"""Receives with filters, at the leader: what is sifted for them next, and how long an empty answer waits for that."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from cluster.dispatcher import Request
from storage import queries
from storage.operations import Keyed, Received, encode_item
from storage.reading import find_queue
from storage.sift_look import Sifter
from storage.sifting import find_selector
from storage.state import State

LOOK_MS_MAX = 2
"""How long a leader looks in one tick for what filters want: everything else waits meanwhile."""

WAIT_S = 1.0
"""How long a receive with a filter waits beyond its time for what was there before to be sifted, before it is told that
there is nothing yet."""


class Sifting:
    """The leader's part in it. One step is under way at a time."""

    def __init__(self, state: State, monotonic: Callable[[], float]) -> None:
        self._state, self._monotonic = state, monotonic
        self._sifter = Sifter(state)
        self._is_under_way = False

    @property
    def is_due(self) -> bool:
        """Whether there is something to look at."""
        return not self._is_under_way and self._sifter.is_due

    def next(self) -> list[bytes]:
        """The next step as an item to propose, if there is one and none is under way."""
        if self._is_under_way:
            return []
        end_s = self._monotonic() + LOOK_MS_MAX / 1000
        sift = self._sifter.next(lambda: self._monotonic() > end_s)
        if sift is None:
            return []
        self._is_under_way = True
        return [encode_item(0, 0, sift)]

    def done(self) -> None:
        """The step that was under way was taken, or is somebody else's concern by now."""
        self._is_under_way = False

    def logged(self, request: Request) -> bytes | memoryview:
        """A request as it is logged: the number of a selector takes the place of the filter, if it is known."""
        receive = request.receive
        if receive is None or not receive.filter:
            return request.raw
        queue = find_queue(self._state, receive.queue)
        selector = None if queue is None else find_selector(self._state, queue, receive)
        if selector is None:
            return request.raw
        short = msgspec.structs.replace(receive, filter="", selector=selector.number)
        asked = request.operation
        whole = msgspec.structs.replace(asked, operation=short) if type(asked) is Keyed else short
        return encode_item(request.session, request.seq, whole)

    def is_behind(self, request: Request) -> bool:
        """Whether messages that were there when a receive's time was over are still to be put to its filter."""
        receive = request.receive
        if receive is None or not receive.filter:
            return False
        if not request.next_id:
            queue = find_queue(self._state, receive.queue)
            request.next_id = 1 if queue is None else queue.next_id
        return queries.is_unsifted(self._state, receive, request.next_id)

    def nothing(self, request: Request) -> Received:
        """What a receive is told whose time is over."""
        assert request.receive is not None
        return Received(request.receive.token, 0, [], self.is_behind(request))
