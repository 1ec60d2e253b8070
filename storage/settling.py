"""Ack, nack and extend: alike in what they may touch, messages still held under the claim's token."""

from __future__ import annotations

from storage import history
from storage.codes import QUEUE_NOT_FOUND
from storage.dead_letters import backoff_ms, give_back
from storage.operations import Ack, Claim, Extend, Nack, Outcome, Refused, Settled
from storage.records import Chunk, Queue, Segment
from storage.segments import isolate
from storage.turn import Turn

NACKED = "it was nacked"


def settle(turn: Turn, operation: Ack | Nack | Extend) -> Outcome:
    """Settle what is held under the claims; the rest is named as stale."""
    queue = turn.queue(operation.queue)
    if queue is None:
        return Refused(QUEUE_NOT_FOUND)
    stale: list[int] = []
    for claim in operation.claims:
        for chunk_id, chunk, first, end in turn.chunks_between(queue, claim.message_id, claim.count):
            if chunk is None:
                stale.extend(range(first, end))
            else:
                stale.extend(_settle_chunk(turn, queue, operation, claim, chunk_id, chunk, first, end))
    return Settled(stale)


def _settle_chunk(
    turn: Turn,
    queue: Queue,
    operation: Ack | Nack | Extend,
    claim: Claim,
    chunk_id: int,
    chunk: Chunk,
    first: int,
    end: int,
) -> list[int]:
    """Settle messages `first` … `end - 1` of one chunk; return those not held under the claim's token."""
    inside = isolate(chunk.segments, first - chunk_id, end - chunk_id)
    held = [segment for segment in inside if segment.token and segment.token == claim.token]
    if not held:
        return list(range(first, end))
    stale: list[int] = []
    position = first
    for segment in held:
        stale.extend(range(position, chunk_id + segment.first))
        position = chunk_id + segment.first + segment.count
        _settle_segment(turn, queue, operation, chunk_id, chunk, segment)
    stale.extend(range(position, end))
    turn.refile(queue, chunk_id, chunk)
    return stale


def _settle_segment(
    turn: Turn, queue: Queue, operation: Ack | Nack | Extend, chunk_id: int, chunk: Chunk, segment: Segment
) -> None:
    match operation:
        case Ack():
            if queue.settings.history_ms:
                history.note(turn, queue, chunk_id, segment.first, segment.count, history.ACKED, segment.consumer)
            turn.drop(queue, chunk, segment)
        case Nack():
            why, delay_ms = operation.reason or NACKED, operation.delay_ms
            if delay_ms < 0:
                delay_ms = backoff_ms(queue.settings, segment.attempts, segment.token, chunk_id + segment.first)
            if operation.reason or queue.settings.history_ms or queue.settings.attempts_max:
                who = segment.consumer
                history.note(turn, queue, chunk_id, segment.first, segment.count, history.NACKED, who, operation.reason)
            give_back(turn, queue, chunk_id, chunk, segment, delay_ms, why)
        case Extend():
            segment.due_ms = turn.now_ms + operation.lease_ms
            if queue.active == segment.consumer:
                queue.active_until_ms = max(queue.active_until_ms, segment.due_ms)
