"""What becomes of messages that come back, are given up, or whose time is over.

Nothing given up is ever lost: what the dead-letter queue cannot take, because it is missing, full or of the other kind,
stays where it is, dead, until it is revived or its retention ends.
"""

from __future__ import annotations

from storage import history
from storage.records import DEAD, RANK_DEFAULT, Chunk, Dead, Extras, Queue, Segment
from storage.segments import slice_blocks
from storage.settings import QueueSettings
from storage.turn import Turn, message_sizes

NO_EXTRAS = Extras()
LEASE_ENDED = "the lease ended"
EXPIRED = "the time to live was over"
OVERFLOW = "the queue was full"


def rank_of(settings: QueueSettings, priority: int, sent_ms: int) -> int:
    """What a chunk's ready mark is filed under: the smallest comes first."""
    level = RANK_DEFAULT - priority
    return sent_ms + level * settings.ageing_ms if settings.ageing_ms else level


def backoff_ms(settings: QueueSettings, attempts: int, token: int, message_id: int) -> int:
    """How long a message waits after its `attempts`th delivery failed. Its share of chance is in the lease's token."""
    backoff = settings.backoff
    if backoff is None:
        return 0
    wait_ms = backoff.base_ms
    if backoff.kind == "exponential":
        wait_ms = min(backoff.max_ms, wait_ms << min(max(attempts - 1, 0), 40))
    spread_ms = wait_ms * backoff.jitter_percent // 100
    chance = ((token ^ message_id) * 0x9E3779B97F4A7C15 & (1 << 64) - 1) >> 32
    return wait_ms - spread_ms + (chance * (spread_ms + 1) >> 32)


def is_over(queue: Queue, chunk: Chunk, now_ms: int) -> bool:
    """Whether the chunk's messages have been kept for long enough."""
    if chunk.extras is not None and chunk.extras.expires_ms:
        return chunk.extras.expires_ms <= now_ms
    return chunk.sent_ms + queue.settings.retention_ms <= now_ms


def give_back(turn: Turn, queue: Queue, chunk_id: int, chunk: Chunk, segment: Segment, delay_ms: int, why: str) -> None:
    """Messages come back from a lease: ready, delayed, given up, or gone if their time is over. Refile the chunk."""
    segment.token = segment.due_ms = 0
    attempts_max = queue.settings.attempts_max
    if attempts_max and segment.attempts >= attempts_max:
        give_up(turn, queue, chunk_id, chunk, segment, why)
    elif delay_ms:
        segment.due_ms = turn.now_ms + delay_ms
    elif is_over(queue, chunk, turn.now_ms):
        expire(turn, queue, chunk_id, chunk, segment)


def give_up(turn: Turn, queue: Queue, chunk_id: int, chunk: Chunk, segment: Segment, why: str) -> None:
    """Messages are given up: moved to the dead-letter queue, else kept here, dead, while their time is not over. Refile
    the chunk."""
    if move_to_dead_letters(turn, queue, chunk_id, chunk, segment, why):
        return
    if is_over(queue, chunk, turn.now_ms):
        expire(turn, queue, chunk_id, chunk, segment)
    else:
        history.note(turn, queue, chunk_id, segment.first, segment.count, history.DEAD, segment.consumer, why)
        segment.dead = _dead(turn, queue, chunk_id, chunk, segment, why)
        segment.token, segment.due_ms, segment.redriven = 0, DEAD, 0


def expire(turn: Turn, queue: Queue, chunk_id: int, chunk: Chunk, segment: Segment) -> None:
    """The time of messages that nobody holds is over. Refile the chunk."""
    if queue.settings.on_expiry == "dead_letter" and move_to_dead_letters(
        turn, queue, chunk_id, chunk, segment, EXPIRED
    ):
        return
    history.note(turn, queue, chunk_id, segment.first, segment.count, history.EXPIRED)
    turn.drop(queue, chunk, segment)


def move_to_dead_letters(turn: Turn, queue: Queue, chunk_id: int, chunk: Chunk, segment: Segment, why: str) -> bool:
    """Move messages to the queue's dead-letter queue, if that can take them. Refile the chunk."""
    size = sum(message_sizes(chunk, segment.first, segment.count))
    target = taker(turn, queue, segment.count, size)
    if target is None or (target.settings.fifo and (chunk.extras is None or not chunk.extras.group)):
        return False
    dead = _dead(turn, queue, chunk_id + segment.first, chunk, segment, why)
    move(turn, queue, chunk_id, chunk, segment, target, dead, why=why)
    return True


def taker(turn: Turn, queue: Queue, count: int, size: int) -> Queue | None:
    """The queue's dead-letter queue, if there is one that can take so many messages and bytes."""
    name = queue.settings.dead_letter_queue
    target = None if name is None else turn.queue(name)
    if target is None or target is queue or target.settings.fifo != queue.settings.fifo:
        return None
    return target if has_room(target, count, size) else None


def has_room(queue: Queue, count: int, size: int) -> bool:
    """Whether a queue can hold so many more messages and bytes."""
    settings = queue.settings
    if settings.messages_max and queue.messages + count > settings.messages_max:
        return False
    return not (settings.bytes_max and queue.bytes + size > settings.bytes_max)


def move(
    turn: Turn,
    queue: Queue,
    chunk_id: int,
    chunk: Chunk,
    segment: Segment,
    target: Queue,
    dead: Dead | None,
    *,
    due_ms: int = 0,
    redriven: int = 0,
    what: str = history.CAME,
    why: str = "",
) -> int:
    """Move messages to another queue, where they are new but for their `dead`. Their bodies stay where they are in the
    log. Returns their first id there. Refile the chunk they came from.

    `what` and `why` say in their history how they came there.
    """
    first, count = segment.first, segment.count
    message_id = target.next_id
    settings = target.settings
    old = chunk.extras or NO_EXTRAS
    extras = Extras(
        group=old.group,
        grouped=settings.groups and bool(old.group),
        priority=0 if settings.groups else old.priority,
        key=old.key,
        dedup_id=old.dedup_id,
        properties=old.properties,
        topic=old.topic,
        publish_id=old.publish_id + first if old.topic else 0,
        schedule=old.schedule,
        occurrence_ms=old.occurrence_ms,
        producer=old.producer,
    )
    moved = Chunk(
        chunk.index,
        turn.now_ms,
        slice_blocks(chunk.blocks, first, count),
        chunk.sizes[4 * first : 4 * (first + count)],
        [Segment(0, count, due_ms=due_ms, dead=dead, redriven=redriven)],
        rank_of(settings, extras.priority, turn.now_ms),
        None if extras == NO_EXTRAS else extras,
    )
    target.next_id += count
    target.bytes += sum(message_sizes(chunk, first, count))
    turn.add_chunk(target, message_id, moved)
    if not target.retention_due_ms:
        turn.schedule_retention(target)
    history.note(turn, queue, chunk_id, first, count, history.MOVED, target.name, why)
    history.note(turn, target, message_id, 0, count, what, queue.name, why)
    turn.drop(queue, chunk, segment)
    return message_id


def _dead(turn: Turn, queue: Queue, message_id: int, chunk: Chunk, segment: Segment, why: str) -> Dead:
    return Dead(
        queue.name,
        message_id,
        why,
        segment.attempts,
        segment.consumer,
        chunk.sent_ms,
        segment.first_ms,
        segment.last_ms,
        turn.now_ms,
    )
