"""Queues come, change and go."""

from __future__ import annotations

from storage import record_keys
from storage.codes import (
    DEAD_LETTER_DENIED,
    DEAD_LETTER_KIND,
    QUEUE_EXISTS,
    QUEUE_LIMIT,
    QUEUE_NOT_FOUND,
    SETTING_FIXED,
    SETTINGS_CHANGED,
)
from storage.limits import QUEUES_MAX
from storage.operations import Done, Outcome, Refused
from storage.queue_operations import Purged, PutQueue, QueuePut
from storage.records import Queue
from storage.redrive import queue_emptied
from storage.sifting import forget_selectors
from storage.turn import Turn


def put_queue(turn: Turn, operation: PutQueue) -> Outcome:
    """Create a queue, or replace its settings."""
    name, settings = operation.queue, operation.settings
    queue = turn.queue(name)
    if operation.only_new and queue is not None:
        return Refused(QUEUE_EXISTS)
    if operation.instead_of is not None:
        if queue is None:
            return Refused(QUEUE_NOT_FOUND)
        if queue.settings != operation.instead_of:
            return Refused(SETTINGS_CHANGED)
    if queue is not None and queue.settings == settings:
        return QueuePut(created=False, changed=False)
    if queue is not None and queue.settings.fifo != settings.fifo:
        return Refused(SETTING_FIXED, detail="fifo")
    dead_letters = None if settings.dead_letter_queue is None else turn.queue(settings.dead_letter_queue)
    if dead_letters is not None and dead_letters.settings.fifo != settings.fifo:
        return Refused(DEAD_LETTER_KIND)
    sources = None if dead_letters is None else dead_letters.settings.dead_letters_from
    is_new = queue is None or queue.settings.dead_letter_queue != settings.dead_letter_queue
    if sources is not None and is_new and name not in sources:
        return Refused(DEAD_LETTER_DENIED)
    if queue is None:
        if turn.shard.queues >= QUEUES_MAX:
            return Refused(QUEUE_LIMIT, QUEUES_MAX)
        turn.shard.queues += 1
        turn.add_queue(Queue(name, turn.next_number(), settings, turn.now_ms))
        return QueuePut(created=True, changed=True)
    queue.settings = settings
    queue.changed_ms = turn.now_ms
    queue.swept_id = 0
    turn.schedule_retention(queue)
    if settings.rate is None:
        queue.served_us = 0  # a rate that was taken away is forgotten
    if not settings.single_active:
        queue.active, queue.active_until_ms = "", 0
    if settings.groups:
        forget_selectors(turn, queue)
    turn.readier.add(name)
    if turn.has_groups(queue.number):
        turn.set_timer(turn.now_ms, record_keys.TIMER_REMARK, record_keys.group_subject(queue.number, ""))
    return QueuePut(created=False, changed=True)


def delete_queue(turn: Turn, name: str) -> Outcome:
    """Forget a queue with its messages."""
    queue = turn.queue(name)
    if queue is None:
        return Refused(QUEUE_NOT_FOUND)
    turn.cancel_retention(queue)
    turn.bury_queue(queue)
    queue_emptied(turn, queue.number, None)
    turn.state.delete(record_keys.name_key(name))
    turn.shard.queues -= 1
    return Done()


def purge_queue(turn: Turn, name: str) -> Outcome:
    """Forget a queue's messages, and what was remembered of them."""
    queue = turn.queue(name)
    if queue is None:
        return Refused(QUEUE_NOT_FOUND)
    count = queue.messages
    turn.cancel_retention(queue)
    turn.bury_queue(queue)
    emptied = Queue(name, turn.next_number(), queue.settings, queue.created_ms, queue.next_id)
    emptied.changed_ms = queue.changed_ms
    turn.add_queue(emptied)
    queue_emptied(turn, queue.number, emptied.number)
    return Purged(count)
