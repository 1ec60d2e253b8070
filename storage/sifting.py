"""Receiving through filters, at a cost that does not grow with what they skip.

A filter that consumers of a queue ask with becomes a *selector* of the queue. Its messages are *sifted*: the leader
puts each of them to each selector, once (`storage.sift_look`), and proposes what matches. The rules write that into the
chunk, and mark the chunk for a selector while a ready message of it matches: a receive through the selector begins with
the first mark, as any other does with the first ready mark. No rule reads JSON, and a new leader goes on where the last
one stopped.

Order is that of all messages. So a receive stops at the first message that has not been put to its selector, for that
might come first.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING

from storage import record_keys, records, sieves
from storage.codes import FILTER_NOT_ALLOWED, SELECTOR_LIMIT
from storage.limits import ID_END, SELECTOR_WINDOW_MS, SELECTORS_MAX, TAKEABLE_CHUNKS_MAX
from storage.operations import Done, Outcome, Receive, Refused
from storage.record_keys import PRESENT
from storage.records import Chunk, Queue, Selector
from storage.sieves import Sieve
from storage.sift_operations import Sift, Sifted
from storage.state import State

if TYPE_CHECKING:
    from storage.turn import Turn


# --- bits -------------------------------------------------------------------------------------------------------------


def bits_of(selected: bytes) -> int:
    """The positions that a selector wants, as the bits of a number."""
    return int.from_bytes(selected, "little")


def bytes_of(bits: int) -> bytes:
    """The same as it is kept."""
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")


def ready_bits(chunk: Chunk) -> int:
    """The positions of a chunk that are ready."""
    bits = 0
    for segment in chunk.segments:
        if not segment.due_ms:
            bits |= ((1 << segment.count) - 1) << segment.first
    return bits


def cut(selected: dict[int, bytes] | None, first: int, count: int) -> dict[int, bytes] | None:
    """What is selected of `count` messages from position `first` on."""
    if selected is None:
        return None
    inside = (1 << count) - 1
    pieces = {number: bits_of(mine) >> first & inside for number, mine in selected.items()}
    return {number: bytes_of(bits) for number, bits in pieces.items() if bits} or None


# --- selectors --------------------------------------------------------------------------------------------------------


def digest(receive: Receive) -> bytes:
    """How the state names a receive's filter."""
    return blake2b(receive.sieve.encode(), digest_size=16).digest()


def find_selector(state: State, queue: Queue, receive: Receive) -> Selector | None:
    """The selector of a receive's filter, if it is known."""
    if not queue.selectors:
        return None
    number = receive.selector
    if not number:
        found = state.get(sieves.digest_key(queue.number, digest(receive)))
        number = 0 if found is None else record_keys.read_u32(found)
    return next((each for each in queue.selectors if each.number == number), None)


def end_of_sifted(state: State, queue: Queue, selector: Selector) -> int:
    """The first chunk that is still to be put to a selector; `ID_END` for none."""
    end = selector.sifted_id if selector.is_behind else ID_END
    if queue.unsifted:
        found = state.first(sieves.unsifted_prefix(queue.number), record_keys.u64(1))
        assert found is not None, "what is counted is there"
        end = min(end, record_keys.read_u64(found[0][5:]))
    return end


def not_seen_by(state: State, queue: Queue, chunk_id: int) -> int:
    """How many selectors a chunk is still to be put to."""
    if queue.unsifted and state.get(sieves.unsifted_key(queue.number, chunk_id)) is not None:
        return len(queue.selectors)
    return sum(each.sifted_id <= chunk_id < each.until_id for each in queue.selectors)


def ready_for(state: State, queue: Queue, selector: Selector) -> int:
    """How many messages a receive through a selector would find, of the first `TAKEABLE_CHUNKS_MAX` chunks."""
    end, messages = end_of_sifted(state, queue, selector), 0
    marks = state.scan(sieves.selected_prefix(queue.number, selector.number))
    for key, _ in islice(marks, TAKEABLE_CHUNKS_MAX):
        chunk_id = record_keys.read_u64(key[-8:])
        if chunk_id >= end:
            break
        chunk = records.decode_chunk(state.get(record_keys.chunk_key(queue.number, chunk_id)) or b"")
        assert chunk.selected is not None, "what is marked is selected"
        messages += (ready_bits(chunk) & bits_of(chunk.selected[selector.number])).bit_count()
    return messages


def selector_of(turn: Turn, queue: Queue, receive: Receive) -> Selector | Refused | None:
    """The selector that a receive asks with, made known if need be. None: the one that its leader knew is forgotten."""
    if queue.settings.groups:
        return Refused(FILTER_NOT_ALLOWED)
    selector = find_selector(turn.state, queue, receive)
    if selector is None and receive.filter:
        return _add(turn, queue, receive)
    if selector is not None:
        selector.used_ms = turn.now_ms
    return selector


def _add(turn: Turn, queue: Queue, receive: Receive) -> Selector | Refused:
    if len(queue.selectors) >= SELECTORS_MAX:
        return Refused(SELECTOR_LIMIT, SELECTORS_MAX)
    number, until_id = turn.next_number(), queue.next_id
    found = turn.state.first(record_keys.chunk_prefix(queue.number))
    sifted_id = until_id if found is None else record_keys.read_u64(found[0][5:])
    selector = Selector(number, turn.now_ms, sifted_id, until_id)
    queue.selectors.append(selector)
    turn.tails.pop(queue.number, None)  # what comes after it lies in no chunk of what was there before
    turn.state.put(sieves.digest_key(queue.number, digest(receive)), record_keys.u32(number))
    sieve = Sieve(receive.filter, receive.filter_on)
    turn.state.put(sieves.sieve_key(queue.number, number), records.encode(sieve))
    if selector.is_behind:
        turn.state.put(sieves.unsifted_key(queue.number, 0), PRESENT)
    subject = sieves.selector_subject(queue.number, number)
    turn.set_timer(turn.now_ms + SELECTOR_WINDOW_MS, record_keys.TIMER_SELECTOR, subject)
    return selector


def forget_selectors(turn: Turn, queue: Queue) -> None:
    """The queue's settings do not go with filters any more. What the selectors leave is cleaned by pulses."""
    for selector in list(queue.selectors):
        _forget(turn, queue, selector)
        subject = sieves.selector_subject(queue.number, selector.number)
        turn.set_timer(turn.now_ms, record_keys.TIMER_SELECTOR, subject)


def _forget(turn: Turn, queue: Queue, selector: Selector) -> None:
    queue.selectors.remove(selector)
    key = sieves.sieve_key(queue.number, selector.number)
    sieve = sieves.decode_sieve(turn.state.get(key) or b"")
    receive = Receive(queue.name, 1, 0, 1, filter=sieve.filter, filter_on=sieve.filter_on)
    turn.state.delete(sieves.digest_key(queue.number, digest(receive)))
    turn.state.delete(key)
    _put_backlog_right(turn, queue)


def _put_backlog_right(turn: Turn, queue: Queue) -> None:
    if not any(each.is_behind for each in queue.selectors):
        turn.state.delete(sieves.unsifted_key(queue.number, 0))


def selector_due(turn: Turn, timer: bytes, number: int, selector_number: int, steps_max: int) -> int:
    """Forget a selector that nobody has asked with for long, and what it has left. Returns the steps done."""
    queue = turn.queue_by_number(number)
    if queue is None:  # purged meanwhile
        turn.state.delete(timer)
        return 0
    selector = next((each for each in queue.selectors if each.number == selector_number), None)
    if selector is not None:
        if selector.used_ms + SELECTOR_WINDOW_MS > turn.now_ms:
            turn.state.delete(timer)
            subject = sieves.selector_subject(number, selector_number)
            turn.set_timer(selector.used_ms + SELECTOR_WINDOW_MS, record_keys.TIMER_SELECTOR, subject)
            return 0
        _forget(turn, queue, selector)
    steps = 0
    while steps < steps_max:
        found = turn.state.first(sieves.selected_prefix(number, selector_number))
        if found is None and queue.unsifted and not queue.selectors:
            found = turn.state.first(sieves.unsifted_prefix(number))
            queue.unsifted -= 1
        if found is None:
            turn.state.delete(timer)
            break
        turn.state.delete(found[0])
        steps += 1
    return steps


# --- what is selected -------------------------------------------------------------------------------------------------


def marked(chunk: Chunk) -> frozenset[int]:
    """The selectors that want a ready message of a chunk."""
    if chunk.selected is None:
        return frozenset()
    ready = ready_bits(chunk)
    return frozenset(number for number, selected in chunk.selected.items() if bits_of(selected) & ready)


def refile(turn: Turn, queue: Queue, chunk_id: int, chunk: Chunk, before: frozenset[int]) -> frozenset[int]:
    """A chunk stands otherwise than before: put its marks right. Returns the selectors that it is marked for now."""
    living = {selector.number for selector in queue.selectors}
    if chunk.selected is not None and not living.issuperset(chunk.selected):
        chunk.selected = {number: mine for number, mine in chunk.selected.items() if number in living} or None
    after = marked(chunk)
    for number in sorted(before - after):
        turn.state.delete(sieves.selected_key(queue.number, number, chunk.rank, chunk_id))
    for number in sorted(after - before):
        turn.state.put(sieves.selected_key(queue.number, number, chunk.rank, chunk_id), PRESENT)
    return after


def ready_runs(chunk: Chunk, selector: Selector) -> Iterator[tuple[int, int]]:
    """The runs of ready messages that a selector wants, as (first position, count)."""
    assert chunk.selected is not None, "what is marked is selected"
    bits = ready_bits(chunk) & bits_of(chunk.selected[selector.number])
    first = 0
    while bits:
        gap = (bits & -bits).bit_length() - 1
        bits >>= gap
        count = (~bits & bits + 1).bit_length() - 1
        yield first + gap, count
        first += gap + count
        bits >>= count


# --- a step of sifting ------------------------------------------------------------------------------------------------


def sift(turn: Turn, operation: Sift) -> Outcome:
    """Take a step: write down what the leader has found out. A message that was edited meanwhile is left for another
    step, and so is a selector that was made known meanwhile."""
    queue = turn.queue_by_number(operation.number)
    if queue is None or queue.sift != operation.sift:
        return Done()
    queue.sift += 1
    for sifted in operation.sifted:
        _select(turn, queue, sifted)
    for selector in queue.selectors:
        if selector.number in operation.behind:
            selector.sifted_id = min(max(selector.sifted_id, operation.upto), selector.until_id)
    _put_backlog_right(turn, queue)
    turn.readier.add(queue.name)
    return Done()


def _select(turn: Turn, queue: Queue, sifted: Sifted) -> None:
    """The chunk may have been cut into pieces since it was looked at, some of which were edited."""
    living = {selector.number for selector in queue.selectors}
    for chunk_id, chunk, _, _ in turn.chunks_between(queue, sifted.first_id, sifted.count):
        if chunk is None:
            continue
        if turn.unsifted_since(queue, chunk_id) != sifted.index:
            continue
        if sifted.index:
            turn.state.delete(sieves.unsifted_key(queue.number, chunk_id))
            queue.unsifted -= 1
        found = cut(sifted.selected, chunk_id - sifted.first_id, chunk.count) or {}
        found = {number: mine for number, mine in found.items() if number in living}
        if found:
            chunk.selected = dict(sorted(((chunk.selected or {}) | found).items()))
            turn.refile(queue, chunk_id, chunk)
