"""Arithmetic on a chunk's segments: which messages stand where. Pure functions on short lists, kept in order."""

from __future__ import annotations

from typing import NamedTuple

from storage.records import Segment


class Standing(NamedTuple):
    """How many messages of a chunk stand where, and when its leases and delays end."""

    ready: int
    leased: int
    delayed: int
    dues: set[int]


def standing(segments: list[Segment]) -> Standing:
    """Count what stands where."""
    ready = leased = delayed = 0
    dues: set[int] = set()
    for segment in segments:
        if segment.token:
            leased += segment.count
            dues.add(segment.due_ms)
        elif segment.due_ms:
            delayed += segment.count
            dues.add(segment.due_ms)
        else:
            ready += segment.count
    return Standing(ready, leased, delayed, dues)


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
        rest = Segment(cut, segment_end - cut, segment.attempts, segment.token, segment.due_ms)
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
            ):
                last.count += segment.count
                continue
        segments[kept] = segment
        kept += 1
    del segments[kept:]
