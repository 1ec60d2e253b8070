"""What can be read of the state without changing it. Everything here sees exactly what has been applied."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import msgspec

from storage import flow, parties, record_keys, records, redrive_look, schedule_look, sieves, sifting, topic_queries
from storage.access import matches
from storage.access_operations import AccessKeyList, ListAccessKeys
from storage.block import Part, join
from storage.codes import MALFORMED, MESSAGE_NOT_FOUND, QUEUE_NOT_FOUND
from storage.limits import BATCH_MESSAGES_MAX, ID_END, RECEIVE_BYTES_MAX, SELECTOR_WINDOW_MS
from storage.message_operations import (
    AskWhy,
    Browse,
    FindMessages,
    GetHistory,
    GetMessage,
    Listed,
    Page,
    Reason,
    Reasons,
    Told,
)
from storage.operations import Delivery, Outcome, Query, Receive, Received, Refused
from storage.party_operations import GetParty, ListParties
from storage.queue_operations import GetQueue, ListQueues, QueueInfo, QueueList
from storage.reading import bodies, chunk_of, find_queue, segments_after
from storage.receiving import about_messages, delivery
from storage.records import DEAD, Chunk, Queue, Segment
from storage.redrive_operations import GetRedrive, GroupDead, ListRedrives, PreviewRedrive
from storage.schedule_operations import GetSchedule, ListSchedules
from storage.sift_operations import SelectorInfo
from storage.state import State
from storage.topic_operations import (
    GetRoutes,
    GetTopic,
    ListSubscriptions,
    ListTopics,
    Rehearse,
)
from storage.turn import message_sizes

OLDEST_LOOKED_AT = 64
"""Runs of messages that are looked at for the oldest that is not dead, so that a heap of dead letters costs little."""


def answer(state: State, query: Query) -> tuple[Outcome, bytes]:
    """The outcome of a query, and the block of bodies that belongs to it."""
    match query:
        case GetRedrive() | ListRedrives() | PreviewRedrive() | GroupDead():
            return redrive_look.answer(state, query), b""
        case GetQueue():
            queue = find_queue(state, query.queue)
            return (Refused(QUEUE_NOT_FOUND) if queue is None else _info_with_selectors(state, queue)), b""
        case ListQueues():
            return _list_queues(state, query), b""
        case Browse() | FindMessages():
            if not (0 <= query.after < ID_END and 0 < query.limit <= BATCH_MESSAGES_MAX):
                return Refused(MALFORMED), b""
            return _browse(state, query)
        case GetMessage() | GetHistory() | AskWhy():
            if not 0 <= query.message_id < ID_END:
                return Refused(MALFORMED), b""
            return _look_at(state, query)
        case GetParty() | ListParties():
            return parties.answer(state, query), b""
        case GetSchedule() | ListSchedules():
            return schedule_look.answer(state, query), b""
        case ListAccessKeys():
            return _list_access_keys(state), b""
        case GetTopic() | ListTopics() | ListSubscriptions() | Rehearse() | GetRoutes():
            return topic_queries.answer(state, query), b""


class Takeable(NamedTuple):
    """What a queue could deliver now.

    About so many messages, to `consumer` alone (single-active queues; empty: to anybody). At `changes_ms` (cluster
    time) that is another answer by time alone; 0: only by what is done to the queue.
    """

    messages: int
    consumer: str = ""
    changes_ms: int = 0


def takeable(state: State, name: str, now_ms: int, receive: Receive | None = None) -> Takeable:
    """What a receive (with its filter; None: one without) would find. A group counts as one message: it has one at
    least. A receive whose filter is not known or was not used for long counts too: it has that noted."""
    queue = find_queue(state, name)
    if queue is None:
        return Takeable(0)
    settings, changes_ms = queue.settings, 0
    if receive is None or not receive.filter:
        messages = queue.ready - queue.grouped_ready + queue.marks
    else:
        selector = sifting.find_selector(state, queue, receive)
        if selector is None or selector.used_ms + SELECTOR_WINDOW_MS // 2 <= now_ms:
            return Takeable(BATCH_MESSAGES_MAX)
        messages = sifting.ready_for(state, queue, selector)
    if settings.rate is not None:
        allowed = flow.allowed(settings.rate, queue.served_us, now_ms)
        if allowed < messages:
            messages = allowed
            changes_ms = 0 if allowed else flow.next_ms(settings.rate, queue.served_us)
    if settings.concurrency_max:
        messages = max(0, min(messages, settings.concurrency_max - queue.leased))
    if settings.single_active and queue.active and (queue.leased or queue.active_until_ms > now_ms):
        return Takeable(messages, queue.active, max(changes_ms, queue.active_until_ms))
    return Takeable(messages, "", changes_ms)


def is_unsifted(state: State, receive: Receive, next_id: int) -> bool:
    """Whether messages with ids below `next_id` are still to be put to a receive's filter."""
    queue = find_queue(state, receive.queue) if receive.filter else None
    selector = None if queue is None else sifting.find_selector(state, queue, receive)
    if queue is None or selector is None:
        return False
    return sifting.end_of_sifted(state, queue, selector) < next_id


def next_due_ms(state: State) -> int | None:
    """When the earliest timer is due (cluster time), or None if there is none."""
    found = state.first(record_keys.TIMERS)
    return None if found is None else record_keys.read_timer(found[0])[0]


def clock_ms(state: State) -> int:
    """The cluster time of the last applied entry."""
    found = state.get(record_keys.SHARD_KEY)
    return 0 if found is None else records.decode_shard(found).clock_ms


def queue_count(state: State) -> int:
    """How many queues there are."""
    found = state.get(record_keys.SHARD_KEY)
    return 0 if found is None else records.decode_shard(found).queues


def received(state: State, name: str, outcome: Received) -> tuple[Received, bytes]:
    """A receive's deliveries with their bodies; those no longer held under its token are left out.

    They all are held right after the receive; a retried receive finds them as they are now.
    """
    queue = find_queue(state, name)
    if queue is None:
        return Received(outcome.token, outcome.until_ms, []), b""
    deliveries: list[Delivery] = []
    chosen: list[Part] = []
    for told in outcome.deliveries:
        first_id, end_id = told.message_id, told.message_id + told.count
        while first_id < end_id:  # the chunk may have been cut into pieces since
            found = chunk_of(state, queue, first_id)
            if found is None:
                later = state.first(record_keys.chunk_prefix(queue.number), record_keys.u64(first_id))
                first_id = end_id if later is None else record_keys.read_u64(later[0][5:])
                continue
            chunk_id, chunk = found
            for segment in chunk.segments:
                begin = max(first_id - chunk_id, segment.first)
                end = min(end_id - chunk_id, segment.first + segment.count)
                if segment.token == outcome.token and begin < end:
                    deliveries.append(delivery(chunk_id, chunk, segment, begin, end - begin))
                    chosen.extend(bodies(state, chunk, begin, end))
            first_id = chunk_id + chunk.count
    return Received(outcome.token, outcome.until_ms, deliveries), join(chosen)


def access_changed_index(state: State) -> int:
    """The log entry that last made or revoked an access key; 0: none ever was."""
    found = state.get(record_keys.ACCESS)
    return 0 if found is None else records.decode_access(found).changed_index


def digest(state: State) -> str:
    """A digest of the whole queue state: equal on all replicas at the same applied index."""
    hashed = hashlib.blake2b(digest_size=16)
    for key, value in state.scan(b""):
        hashed.update(record_keys.u32(len(key)) + key + record_keys.u32(len(value)) + value)
    return hashed.hexdigest()


def _info(queue: Queue) -> QueueInfo:
    return QueueInfo(
        queue.name,
        queue.settings,
        queue.created_ms,
        queue.ready,
        queue.leased,
        queue.delayed,
        queue.bytes,
        queue.dead,
        queue.changed_ms,
        queue.active,
    )


def _info_with_selectors(state: State, queue: Queue) -> QueueInfo:
    selectors: list[SelectorInfo] = []
    for selector in queue.selectors:
        sieve = sieves.decode_sieve(state.get(sieves.sieve_key(queue.number, selector.number)) or b"")
        unsifted = max(0, queue.next_id - sifting.end_of_sifted(state, queue, selector))
        selectors.append(SelectorInfo(sieve.filter, sieve.filter_on, selector.used_ms, unsifted))
    return msgspec.structs.replace(_info(queue), selectors=selectors)


def _list_queues(state: State, query: ListQueues) -> QueueList:
    queues: list[QueueInfo] = []
    for key, number in state.scan(record_keys.QUEUE_NAMES, query.after.encode()):
        name = key[1:].decode()
        if name == query.after or (query.patterns and not any(matches(each, name) for each in query.patterns)):
            continue
        if len(queues) >= query.limit:
            break
        record = state.get(b"n" + number)
        assert record is not None, "a named queue has a record"
        queue = records.decode_queue(record)
        info = _info(queue)
        queues.append(msgspec.structs.replace(info, oldest_ms=_oldest_ms(state, queue)) if query.oldest else info)
    return QueueList(queues)


def _oldest_ms(state: State, queue: Queue) -> int:
    """When the first message that is not dead was sent; 0 if the first `OLDEST_LOOKED_AT` runs of messages all are."""
    for _, chunk, segment in islice(segments_after(state, queue, 0), OLDEST_LOOKED_AT):
        if _state_of(segment) != "dead":
            return chunk.sent_ms
    return 0


def _list_access_keys(state: State) -> AccessKeyList:
    found = state.scan(record_keys.ACCESS, b"\x00")
    return AccessKeyList([records.decode_access_key(record) for _, record in found], access_changed_index(state))


def _browse(state: State, query: Browse | FindMessages) -> tuple[Outcome, bytes]:
    queue = find_queue(state, query.queue)
    if queue is None:
        return Refused(QUEUE_NOT_FOUND), b""
    if isinstance(query, FindMessages):
        return _page(state, _keyed_after(state, queue, query.key, query.after), query.after, query.limit)
    return _page(state, segments_after(state, queue, query.after), query.after, query.limit)


def _page(
    state: State, segments: Iterable[tuple[int, Chunk, Segment]], after: int, limit: int
) -> tuple[Outcome, bytes]:
    """Up to `limit` messages with ids above `after`, of segments in order of id."""
    listed: list[Listed] = []
    chosen: list[Part] = []
    bytes_left = RECEIVE_BYTES_MAX
    for chunk_id, chunk, segment in segments:
        first = max(segment.first, after + 1 - chunk_id)
        end = min(segment.first + segment.count, first + limit - len(listed))
        sizes = message_sizes(chunk, first, end - first)
        while first < end and sum(sizes[: end - first]) > bytes_left and (listed or end - first > 1):
            end -= 1
        bytes_left -= sum(sizes[: end - first])
        listed.extend(_listed(chunk_id, chunk, segment, position) for position in range(first, end))
        chosen.extend(bodies(state, chunk, first, end))
        if len(listed) >= limit or bytes_left <= 0 or end < segment.first + segment.count:
            break
    return Page(listed), join(chosen)


def _listed(chunk_id: int, chunk: Chunk, segment: Segment, position: int) -> Listed:
    return Listed(
        chunk_id + position,
        _state_of(segment),
        segment.attempts,
        chunk.sent_ms,
        max(segment.due_ms, 0),
        segment.last_ms,
        segment.consumer,
        about_messages(chunk, segment, position),
    )


def _keyed_after(state: State, queue: Queue, key: str, after: int) -> Iterator[tuple[int, Chunk, Segment]]:
    """The segments of messages with the producer's own `key` and ids above `after`. Each is alone in its chunk."""
    prefix = record_keys.key_prefix(queue.number, key)
    for found, _ in state.scan(prefix, record_keys.u64(after + 1)):
        chunk_id = record_keys.read_u64(found[len(prefix) :])
        chunk = records.decode_chunk(state.get(record_keys.chunk_key(queue.number, chunk_id)) or b"")
        for segment in chunk.segments:
            yield chunk_id, chunk, segment


def _state_of(segment: Segment) -> str:
    if segment.token:
        return "leased"
    if segment.due_ms == DEAD:
        return "dead"
    return "delayed" if segment.due_ms else "ready"


# --- one message ------------------------------------------------------------------------------------------------------


def _look_at(state: State, query: GetMessage | GetHistory | AskWhy) -> tuple[Outcome, bytes]:
    queue = find_queue(state, query.queue)
    if queue is None:
        return Refused(QUEUE_NOT_FOUND), b""
    found = _standing_of(state, queue, query.message_id)
    if isinstance(query, GetHistory):
        return _told(state, queue, query.message_id, found), b""
    if found is None:
        return Refused(MESSAGE_NOT_FOUND), b""
    chunk_id, chunk, segment = found
    position = query.message_id - chunk_id
    if isinstance(query, AskWhy):
        return Reasons(_state_of(segment), list(_reasons(state, queue, chunk_id, chunk, segment, position))), b""
    return Page([_listed(chunk_id, chunk, segment, position)]), join(bodies(state, chunk, position, position + 1))


def _standing_of(state: State, queue: Queue, message_id: int) -> tuple[int, Chunk, Segment] | None:
    found = chunk_of(state, queue, message_id)
    if found is not None:
        for segment in found[1].segments:
            if segment.first <= message_id - found[0] < segment.first + segment.count:
                return *found, segment
    return None


def _told(state: State, queue: Queue, message_id: int, found: tuple[int, Chunk, Segment] | None) -> Outcome:
    kept = state.floor(record_keys.history_prefix(queue.number), record_keys.u64(message_id))
    if kept is not None:
        chunk_id, history = record_keys.read_u64(kept[0][5:]), records.decode_history(kept[1])
        if message_id < chunk_id + history.count:
            position = message_id - chunk_id
            events = [event for event in history.events if event.first <= position < event.first + event.count]
            return Told(history.sent_ms, found is not None, events, history.forgotten)
    if found is None:
        return Refused(MESSAGE_NOT_FOUND)
    return Told(found[1].sent_ms, True, [], 0)


def _reasons(
    state: State, queue: Queue, chunk_id: int, chunk: Chunk, segment: Segment, position: int
) -> Iterator[Reason]:
    """What keeps a message from being delivered now."""
    if segment.token:
        yield Reason("leased", segment.due_ms, segment.consumer)
        return
    if segment.due_ms == DEAD:
        yield Reason("dead", 0, segment.dead.reason if segment.dead else "")
        return
    now_ms, settings = clock_ms(state), queue.settings
    if segment.due_ms:
        yield Reason("delayed", segment.due_ms)
    waiting = sifting.not_seen_by(state, queue, chunk_id)
    if waiting:
        yield Reason("unsifted", 0, f"{waiting} of {len(queue.selectors)} filters of consumers have not seen it yet")
    if chunk.extras is not None and chunk.extras.grouped:
        yield from _group_reasons(state, queue, chunk_id, chunk, position, now_ms)
    if settings.concurrency_max and queue.leased >= settings.concurrency_max:
        yield Reason("queue_concurrency", 0, f"{queue.leased} of {settings.concurrency_max} are leased")
    if settings.rate is not None and not flow.allowed(settings.rate, queue.served_us, now_ms):
        yield Reason("queue_rate", flow.next_ms(settings.rate, queue.served_us))
    if settings.single_active and queue.active and queue.active_until_ms > now_ms:
        yield Reason("single_active", queue.active_until_ms, queue.active)


def _group_reasons(
    state: State, queue: Queue, chunk_id: int, chunk: Chunk, position: int, now_ms: int
) -> Iterator[Reason]:
    assert chunk.extras is not None
    settings, name = queue.settings, chunk.extras.group
    record = state.get(record_keys.group_key(queue.number, name))
    if record is None:
        return
    group = records.decode_group(record)
    if settings.fifo:
        prefix = record_keys.group_chunk_prefix(queue.number, name)
        first = state.first(prefix)
        head_id = record_keys.read_u64(first[0][len(prefix) :]) if first is not None else chunk_id
        head = records.decode_chunk(state.get(record_keys.chunk_key(queue.number, head_id)) or b"")
        living = [segment for segment in head.segments if segment.due_ms != DEAD]
        if group.in_flight:
            yield Reason("group_in_flight", 0, f"{group.in_flight} messages of group {name} are leased")
        if living and head_id + living[0].first < chunk_id + position:
            detail = f"message {head_id + living[0].first} of group {name} comes first"
            yield Reason("behind_in_group", max(living[0].due_ms, 0), detail)
    if settings.group_concurrency_max and group.in_flight >= settings.group_concurrency_max:
        detail = f"{group.in_flight} of {settings.group_concurrency_max} of group {name} are leased"
        yield Reason("group_concurrency", 0, detail)
    if settings.group_rate is not None and not flow.allowed(settings.group_rate, group.served_us, now_ms):
        yield Reason("group_rate", flow.next_ms(settings.group_rate, group.served_us), name)


def is_remembered(state: State, session: int, seq: int) -> bool:
    """Whether an operation of a session took effect and is remembered."""
    found = state.get(record_keys.session_key(session))
    if found is None or seq > records.decode_session(found).top:
        return False
    run = state.floor(record_keys.run_prefix(session), record_keys.u64(seq))
    return run is not None and seq < record_keys.read_u64(run[0][9:]) + len(records.decode_run(run[1]))


def is_key_remembered(state: State, key: bytes) -> bool:
    """Whether an operation under this idempotency key took effect and is remembered."""
    return state.get(record_keys.memory_key(key)) is not None
