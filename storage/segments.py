"""Arithmetic on a chunk's segments: which messages stand where. Pure functions on short lists, kept in order."""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter

import msgspec

from storage.records import DEAD, Blocks, Segment

_FIRST = attrgetter("first")
_NONE_MS = -2  # no segment is due then


class Standing(msgspec.Struct, frozen=True):
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
    """Count what stands where, and join neighbours that stand alike. Made after every change: each segment is looked at
    once, and as a whole only if it might be joined."""
    ready = leased = delayed = dead = 0
    dues: set[int] = set()
    last_token, last_due_ms, may_join = 0, _NONE_MS, False
    for segment in segments:
        token, due_ms, count = segment.token, segment.due_ms, segment.count
        if token:
            leased += count
        elif not due_ms:
            ready += count
        elif due_ms == DEAD:
            dead += count
        else:
            delayed += count
        if due_ms != last_due_ms:
            if due_ms > 0:
                dues.add(due_ms)
            last_due_ms = due_ms
        elif token == last_token:
            may_join = True
        last_token = token
    if may_join:
        _join(segments)
    return Standing(ready, leased, delayed, dues, dead)


def _join(segments: list[Segment]) -> None:
    last, *others = segments
    kept = [last]
    for segment in others:
        if (
            last.first + last.count == segment.first
            and last.token == segment.token
            and last.due_ms == segment.due_ms
            and last.attempts == segment.attempts
            and last.last_ms == segment.last_ms
            and last.first_ms == segment.first_ms
            and last.consumer == segment.consumer
            and last.dead == segment.dead
            and last.redriven == segment.redriven
        ):
            last.count += segment.count
        else:
            kept.append(segment)
            last = segment
    segments[:] = kept


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
            rest = msgspec.structs.replace(segment, first=cut, count=segment_end - cut)
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
