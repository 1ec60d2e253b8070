"""Arithmetic on a chunk's segments: which messages stand where. Pure functions on short lists, kept in order."""

from __future__ import annotations

from copy import copy
from typing import NamedTuple

from storage.records import DEAD, Blocks, Segment


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
    """Count what stands where."""
    ready = leased = delayed = dead = 0
    dues: set[int] = set()
    for segment in segments:
        if segment.token:
            leased += segment.count
            dues.add(segment.due_ms)
        elif not segment.due_ms:
            ready += segment.count
        elif segment.due_ms == DEAD:
            dead += segment.count
        else:
            delayed += segment.count
            dues.add(segment.due_ms)
    return Standing(ready, leased, delayed, dues, dead)


def isolate(segments: list[Segment], first: int, end: int) -> list[Segment]:
    """Split segments so that none crosses `first` or `end`, and return those in between, in order."""
    inside = []
    position = 0
    while position < len(segments):
        segment = segments[position]
        segment_end = segment.first + segment.count
        if segment.first < first < segment_end:
            cut = first
        elif segment.first < end < segment_end:
            cut = end
        else:
            if first <= segment.first and segment_end <= end:
                inside.append(segment)
            position += 1
            continue
        rest = copy(segment)
        rest.first, rest.count = cut, segment_end - cut
        segment.count = cut - segment.first
        segments.insert(position + 1, rest)
        if first <= segment.first:
            inside.append(segment)
        position += 1
    return inside


def merge(segments: list[Segment]) -> None:
    """Join neighbours that stand alike."""
    kept = 0
    for segment in segments:
        if kept:
            last = segments[kept - 1]
            if (
                last.first + last.count == segment.first
                and last.due_ms == segment.due_ms
                and last.token == segment.token
                and last.attempts == segment.attempts
                and last.last_ms == segment.last_ms
                and last.first_ms == segment.first_ms
                and last.consumer == segment.consumer
                and last.dead == segment.dead
                and last.redriven == segment.redriven
            ):
                last.count += segment.count
                continue
        segments[kept] = segment
        kept += 1
    del segments[kept:]


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
