"""Arithmetic on a chunk's segments: which messages stand where. Pure functions on short lists, kept in order."""

from __future__ import annotations

from bisect import bisect_right
from copy import copy
from operator import attrgetter
from typing import NamedTuple

from storage.records import DEAD, Blocks, Segment

_FIRST = attrgetter("first")


class Standing(NamedTuple):
    """How many messages of a chunk stand where, and when its leases and delays end."""

    ready: int
    leased: int
    delayed: int
    dues: set[int]
    dead: int = 0

    @property
    def living(self) -> int:
        """How many messages are not dead."""
        return self.ready + self.leased + self.delayed


def standing(segments: list[Segment]) -> Standing:
    """Count what stands where, and join neighbours that stand alike: one pass, for it is made after every change."""
    ready = leased = delayed = dead = 0
    dues: set[int] = set()
    kept: list[Segment] = []
    last: Segment | None = None
    for segment in segments:
        count, due_ms, token = segment.count, segment.due_ms, segment.token
        if token:
            leased += count
            dues.add(due_ms)
        elif not due_ms:
            ready += count
        elif due_ms == DEAD:
            dead += count
        else:
            delayed += count
            dues.add(due_ms)
        if (
            last is not None
            and last.token == token
            and last.due_ms == due_ms
            and last.first + last.count == segment.first
            and last.attempts == segment.attempts
            and last.last_ms == segment.last_ms
            and last.first_ms == segment.first_ms
            and last.consumer == segment.consumer
            and last.dead == segment.dead
            and last.redriven == segment.redriven
        ):
            last.count += count
        else:
            kept.append(segment)
            last = segment
    if len(kept) < len(segments):
        segments[:] = kept
    return Standing(ready, leased, delayed, dues, dead)


def isolate(segments: list[Segment], first: int, end: int) -> list[Segment]:
    """Split segments so that none crosses `first` or `end`, and return those in between, in order."""
    inside = []
    position = max(bisect_right(segments, first, key=_FIRST) - 1, 0)
    while position < len(segments):
        segment = segments[position]
        if segment.first >= end:
            break
        segment_end = segment.first + segment.count
        cut = first if segment.first < first else end
        if segment.first < cut < segment_end:
            rest = copy(segment)
            rest.first, rest.count = cut, segment_end - cut
            segment.count = cut - segment.first
            segments.insert(position + 1, rest)
        if first <= segment.first:
            inside.append(segment)
        position += 1
    return inside


def slice_blocks(blocks: list[Blocks], first: int, count: int) -> list[Blocks]:
    """Where `count` messages from position `first` on lie, of those that lie in `blocks`."""
    found: list[Blocks] = []
    base, end = 0, first + count
    for block in blocks:
        begin, stop = max(first - base, 0), min(end - base, block.count)
        if begin < stop:
            found.append(Blocks(block.offset, block.total, block.first + begin, stop - begin))
        base += block.count
    return found
