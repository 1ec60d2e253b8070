"""Sifting: which messages the selectors of queues want. The leader finds out, some in each tick, and proposes it.

What comes, or was edited, is put to all selectors of its queue; what was there before a selector is put to that one,
from the first message on. Whole chunks are told; what was found out of a part of one is kept here until the rest is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import NamedTuple

from storage import record_keys, records, sieves
from storage.block import Part
from storage.conditions import FilterError
from storage.filters import Filter, compile_filter
from storage.limits import SIFT_BODY_BYTES_MAX, SIFT_BYTES_MAX, SIFT_MESSAGES_MAX
from storage.reading import bodies
from storage.records import Chunk, Queue
from storage.routing import View
from storage.sift_operations import Sift, Sifted
from storage.sifting import bytes_of
from storage.state import State

FILTERS_MAX = 1024
"""Filters that are kept compiled."""


class _OutOfBudgetError(Exception):
    """Enough was done for one tick."""


class _Budget:
    """What one look may still cost. Something is looked at in any case, so that looks come to an end."""

    def __init__(self, is_over: Callable[[], bool]) -> None:
        self._is_over = is_over
        self._messages, self._bytes = SIFT_MESSAGES_MAX, SIFT_BYTES_MAX
        self._begun = False

    def spend(self, size: int) -> None:
        """One more message, or run of messages, of so many bytes. Raises `_OutOfBudgetError`."""
        self._messages -= 1
        self._bytes -= size
        if self._begun and (self._messages < 0 or self._bytes < 0 or self._is_over()):
            raise _OutOfBudgetError
        self._begun = True


class _Partly(NamedTuple):
    """A chunk that was put to selectors up to a position."""

    what: tuple[int, int, int, tuple[int, ...]]
    position: int
    selected: dict[int, int]


class Sifter:
    """Looks at one queue after the other."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._last = 0
        """The queue that was looked at last."""
        self._partly: _Partly | None = None
        self._filters: dict[int, Filter | None] = {}

    @property
    def is_due(self) -> bool:
        """Whether anything is to be sifted."""
        return self._next_queue() is not None

    def next(self, is_over: Callable[[], bool]) -> Sift | None:
        """The next step, of the next queue in turn. None: there is nothing to do, or a large chunk needs more time.

        It ends when `is_over`, sooner or later.
        """
        queue = self._next_queue()
        if queue is None:
            return None
        budget = _Budget(is_over)
        behind = [selector.number for selector in queue.selectors if selector.is_behind]
        sifted: list[Sifted] = []
        upto = 0
        looks = [self._new(queue, budget), self._old(queue, budget)]
        if queue.sift % 2:  # now one first, now the other: neither waits for the other to come to its end
            looks.reverse()
        try:
            for found, seen in chain(*looks):
                sifted.extend(found)
                upto = max(upto, seen)
        except _OutOfBudgetError:
            pass
        is_told = bool(sifted or upto)
        # A chunk that needs more time is finished before other queues have their turn.
        self._last = queue.number if is_told else queue.number - 1
        return Sift(queue.number, queue.sift, sifted, behind, upto) if is_told else None

    def _next_queue(self) -> Queue | None:
        """The first queue after the last one in which there is something to be sifted."""
        for start, end in ((self._last + 1, 1 << 32), (0, self._last + 1)):
            while start < end:
                found = self._state.first(record_keys.UNSIFTED, record_keys.u32(start))
                if found is None or (number := record_keys.read_u32(found[0][1:5])) >= end:
                    break
                record = self._state.get(record_keys.queue_key(number))
                if record is not None and (queue := records.decode_queue(record)).selectors:
                    return queue
                start = number + 1  # it was purged, or its selectors are forgotten: pulses clean what is left
        return None

    def _new(self, queue: Queue, budget: _Budget) -> Iterator[tuple[list[Sifted], int]]:
        """What has come, or was edited, put to all selectors."""
        numbers = [selector.number for selector in queue.selectors]
        for key, value in self._state.scan(sieves.unsifted_prefix(queue.number), record_keys.u64(1)):
            chunk_id, index = record_keys.read_u64(key[5:]), record_keys.read_u64(value)
            chunk = records.decode_chunk(self._state.get(record_keys.chunk_key(queue.number, chunk_id)) or b"")
            yield [self._sifted(queue, chunk_id, chunk, index, numbers, budget)], 0

    def _old(self, queue: Queue, budget: _Budget) -> Iterator[tuple[list[Sifted], int]]:
        """What was there before selectors, put to those that have not seen it; each time up to which id."""
        behind = [selector for selector in queue.selectors if selector.is_behind]
        if not behind:
            return
        since, end = min(each.sifted_id for each in behind), max(each.until_id for each in behind)
        for key, value in self._state.scan(record_keys.chunk_prefix(queue.number), record_keys.u64(since)):
            chunk_id = record_keys.read_u64(key[5:])
            if chunk_id >= end:
                break
            chunk, found = records.decode_chunk(value), list[Sifted]()
            numbers = [each.number for each in behind if each.sifted_id <= chunk_id < each.until_id]
            if self._state.get(sieves.unsifted_key(queue.number, chunk_id)) is not None:
                budget.spend(0)  # it is put to all selectors anyway
            else:
                found = [self._sifted(queue, chunk_id, chunk, 0, numbers, budget)]
            yield found if found and found[0].selected else [], chunk_id + chunk.count
        yield [], end

    def _sifted(
        self, queue: Queue, chunk_id: int, chunk: Chunk, index: int, numbers: list[int], budget: _Budget
    ) -> Sifted:
        """What of a chunk the selectors want. Raises `_OutOfBudgetError`, and goes on from there the next time."""
        what = (queue.number, chunk_id, index, tuple(numbers))
        position, selected = 0, dict[int, int]()
        if self._partly is not None and self._partly.what == what:
            _, position, selected = self._partly
        filters = [(number, filter_) for number in numbers if (filter_ := self._filter(queue, number)) is not None]
        try:
            for at, part in _living(self._state, chunk, position):
                budget.spend(len(part.data))
                view = View(part)
                for number, filter_ in filters:
                    if _wants(filter_, part, view):
                        selected[number] = selected.get(number, 0) | 1 << at
                position = at + 1
        except _OutOfBudgetError:
            self._partly = _Partly(what, position, selected)
            raise
        self._partly = None
        return Sifted(chunk_id, chunk.count, index, {number: bytes_of(bits) for number, bits in selected.items()})

    def _filter(self, queue: Queue, number: int) -> Filter | None:
        """A selector's filter, or None: a gateway of another version let it in, and it wants nothing here."""
        if number not in self._filters:
            if len(self._filters) >= FILTERS_MAX:
                self._filters.clear()
            sieve = sieves.decode_sieve(self._state.get(sieves.sieve_key(queue.number, number)) or b"")
            try:
                self._filters[number] = compile_filter(sieve.filter, sieve.filter_on)
            except FilterError:
                self._filters[number] = None
        return self._filters[number]


def _wants(filter_: Filter, part: Part, view: View) -> bool:
    if filter_.on == "body" and part.body_bytes > SIFT_BODY_BYTES_MAX:
        return False
    return filter_.matches(view.fields(filter_))


def _living(state: State, chunk: Chunk, position: int) -> Iterator[tuple[int, Part]]:
    """The messages that a chunk still has, from a position on."""
    for segment in chunk.segments:
        first, end = max(position, segment.first), segment.first + segment.count
        if first < end:
            yield from enumerate(bodies(state, chunk, first, end), first)
