"""Filters of consumers: what a receive through one costs, what is refused, and what is told while it is sifted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from storage import codes, limits, machine, queries, records, sifting
from storage.block import encode_block
from storage.memory_store import MemoryStore
from storage.message_operations import AskWhy, ChangeMessage, Reason, Reasons
from storage.operations import (
    Ack,
    Claim,
    Nack,
    Operation,
    Outcome,
    Pulse,
    Receive,
    Received,
    Refused,
    Send,
    encode_entry,
    encode_item,
)
from storage.options import Options, Run
from storage.queue_operations import GetQueue, PurgeQueue, PutQueue, QueueInfo
from storage.records import Chunk, Queue, Segment
from storage.settings import QueueSettings, Rate
from storage.sift_look import Sifter
from tests.storage.harness import tick
from tests.storage.life import check_records

RED, BLUE = b"\x81\xa1a\x81\xa6colour\xa3red", b"\x81\xa1a\x81\xa6colour\xa4blue"
WANTED = '{"colour": ["red"]}'
READS = ("get", "first", "floor", "scan", "entry")


class Counted(MemoryStore):
    """A store that counts what is read of the state."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = Counter[str]()

    def get(self, key: bytes) -> bytes | None:
        self.reads["get"] += 1
        return super().get(key)

    def first(self, prefix: bytes, start: bytes = b"") -> tuple[bytes, bytes] | None:
        self.reads["first"] += 1
        return super().first(prefix, start)

    def floor(self, prefix: bytes, end: bytes) -> tuple[bytes, bytes] | None:
        self.reads["floor"] += 1
        return super().floor(prefix, end)

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        for found in super().scan(prefix, start):
            self.reads["scan"] += 1
            yield found

    def entry(self, index: int) -> memoryview:
        self.reads["entry"] += 1
        return super().entry(index)


class Shard:
    """The rules, and a leader's look, on a store of their own."""

    def __init__(self, settings: QueueSettings | None = None) -> None:
        self.store = Counted()
        self.sifter = Sifter(self.store)
        self.now_ms, self.seq, self.tokens = 1_000_000, 0, 0
        self.do(PutQueue("q", settings or QueueSettings()))

    def do(self, operation: Operation, bodies: list[tuple[bytes, bytes]] | None = None, session: int = 1) -> Outcome:
        self.seq += 1
        item = encode_item(session, self.seq, operation, encode_block(bodies) if bodies else b"")
        entry = encode_entry(self.now_ms, [item])
        with tick(self.store):
            self.store.append(self.store.last_index + 1, 1, entry)
            (applied,) = machine.apply(self.store, self.store.last_index, entry).applied
        return applied.outcome

    def send(self, *properties: bytes, runs: list[Run] | None = None) -> None:
        self.do(Send("q", len(properties), runs or []), [(b"body", each) for each in properties])

    def asked(self, messages_max: int = 10, wanted: str = WANTED) -> Receive:
        self.tokens += 1
        return Receive("q", messages_max, 0, self.tokens, filter=wanted)

    def received(self, messages_max: int = 10, wanted: str = WANTED) -> list[int]:
        """The ids that a receive through a filter brings."""
        outcome = self.do(self.asked(messages_max, wanted))
        assert isinstance(outcome, Received)
        return [each.message_id + n for each in outcome.deliveries for n in range(each.count)]

    def sift(self) -> int:
        """Sift all there is. Returns the steps that took."""
        steps = 0
        while self.sifter.is_due:
            step = self.sifter.next(lambda: False)
            if step is not None:
                self.do(step, session=0)
            steps += 1
        return steps

    def info(self) -> QueueInfo:
        info, _ = queries.answer(self.store, GetQueue("q"))
        assert isinstance(info, QueueInfo)
        return info

    def why(self, message_id: int) -> list[Reason]:
        told, _ = queries.answer(self.store, AskWhy("q", message_id))
        assert isinstance(told, Reasons)
        return told.reasons


def cost_behind(skipped: int, batch: int) -> Counter[str]:
    """What is read for a receive of two messages that stand behind so many that are not wanted, and for whom waits."""
    shard = Shard()
    assert shard.received() == []
    for _ in range(skipped // batch):
        shard.send(*[BLUE] * batch)
    shard.send(RED, BLUE, RED)
    shard.sift()
    shard.store.reads.clear()
    assert queries.takeable(shard.store, "q", shard.now_ms, shard.asked()).messages == 2
    assert shard.received() == [skipped + 1, skipped + 3]
    return shard.store.reads


@pytest.mark.parametrize("batch", [10, 1000])
def test_a_receive_costs_the_same_whatever_it_skips(batch: int) -> None:
    costs = [cost_behind(skipped, min(batch, skipped)) for skipped in (10, 1000, 100_000 if batch > 10 else 10_000)]
    assert costs[0] == costs[1] == costs[2]
    assert sum(costs[0].values()) < 40


def test_each_message_is_matched_once_for_a_filter_whatever_happens_to_it() -> None:
    shard = Shard()
    shard.received()
    shard.send(*[RED, BLUE] * 10)
    shard.sift()
    shard.store.reads.clear()
    for _ in range(5):
        taken = shard.received(4)
        assert taken == [1, 3, 5, 7]
        shard.do(Nack("q", [Claim(shard.tokens, message_id, 1) for message_id in taken], 0))
    assert not shard.sifter.is_due
    assert not shard.store.reads["entry"]


def test_what_was_there_before_a_filter_comes_out_in_order_while_it_is_sifted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.sift_look.SIFT_MESSAGES_MAX", 4)
    shard = Shard()
    for _ in range(5):
        shard.send(BLUE, RED)
    assert shard.received() == []
    shard.send(RED)
    (selector,) = shard.info().selectors
    assert (selector.filter, selector.filter_on, selector.unsifted) == (WANTED, "attributes", 11)
    assert shard.why(2) == [Reason("unsifted", 0, "1 of 1 filters of consumers have not seen it yet")]
    seen: list[int] = []
    for _ in range(20):
        step = shard.sifter.next(lambda: False)
        if step is None:
            break
        shard.do(step, session=0)
        seen += shard.received()
        check_records(shard.store)
    assert seen == [2, 4, 6, 8, 10, 11]
    assert shard.info().selectors[0].unsifted == 0
    assert shard.why(1) == []


def test_a_message_of_higher_priority_comes_first_through_a_filter_too() -> None:
    shard = Shard()
    shard.received()
    shard.send(RED, RED)
    shard.send(RED, runs=[Run(1, Options(priority=5))])
    shard.sift()
    assert [shard.received(1), shard.received(2)] == [[3], [1, 2]]


def test_a_large_chunk_is_looked_at_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.sift_look.SIFT_BYTES_MAX", 2000)
    shard = Shard()
    shard.received()
    shard.do(Send("q", 10), [(b"x" * 1000, RED)] * 10)
    assert shard.sift() > 3
    assert shard.received() == list(range(1, 11))


def test_a_step_ends_when_its_time_is_over_but_looks_at_something() -> None:
    shard = Shard()
    shard.received()
    for _ in range(3):
        shard.send(RED)
    for left in (2, 1, 0):
        step = shard.sifter.next(lambda: True)
        assert step is not None
        shard.do(step, session=0)
        assert shard.info().selectors[0].unsifted == left
    assert shard.received() == [1, 2, 3]


def test_only_so_many_filters_are_asked_with_and_those_unused_are_forgotten_with_all_they_left() -> None:
    shard = Shard()
    for number in range(limits.SELECTORS_MAX):
        shard.received(wanted=f'{{"colour": ["{number}", "red"]}}')
    outcome = shard.do(shard.asked())
    assert outcome == Refused(codes.SELECTOR_LIMIT, limits.SELECTORS_MAX)
    shard.send(*[RED, BLUE] * 5)
    shard.sift()
    shard.send(RED)
    assert len(shard.received(3, '{"colour": ["0", "red"]}')) == 3
    shard.now_ms += limits.SELECTOR_WINDOW_MS
    shard.do(Ack("q", [Claim(1, 1, 1)]))
    shard.received(wanted='{"colour": ["0", "red"]}')
    for _ in range(10):
        shard.do(Pulse(7), session=0)
        check_records(shard.store)
    assert [selector.filter for selector in shard.info().selectors] == ['{"colour": ["0", "red"]}']
    assert len(list(shard.store.scan(b"f"))) == 1
    shard.now_ms += limits.SELECTOR_WINDOW_MS
    for _ in range(10):
        shard.do(Pulse(7), session=0)
        check_records(shard.store)
    assert not shard.sifter.is_due
    assert not [key for key, _ in shard.store.scan(b"") if key[:1] in (b"f", b"F", b"w", b"x")]
    shard.sift()
    assert shard.received() == []
    shard.sift()
    assert shard.received(20) == [1, 3, 5, 7, 9, 11]


def test_nothing_is_left_of_a_purged_queues_filters() -> None:
    shard = Shard()
    shard.received()
    shard.send(RED, BLUE)
    shard.sift()
    shard.send(RED)
    shard.do(PurgeQueue("q"))
    assert not shard.sifter.is_due
    shard.do(Pulse(100), session=0)
    assert not [key for key, _ in shard.store.scan(b"") if key[:1] in (b"f", b"F", b"w", b"x")]
    check_records(shard.store)
    shard.received()
    shard.send(RED)
    shard.sift()
    assert shard.received() == [4]


@pytest.mark.parametrize(
    "settings",
    [
        QueueSettings(fifo=True),
        QueueSettings(fair=True),
        QueueSettings(group_concurrency_max=1),
        QueueSettings(group_rate=Rate(1, 1000)),
    ],
)
def test_a_queue_whose_groups_decide_the_order_takes_no_filters(settings: QueueSettings) -> None:
    shard = Shard(settings if settings.fifo else None)
    if not settings.fifo:
        shard.received()
        shard.send(RED)
        shard.do(PutQueue("q", settings))
        shard.do(Pulse(100), session=0)
        assert shard.info().selectors == []
    assert shard.do(shard.asked()) == Refused(codes.FILTER_NOT_ALLOWED)
    assert not shard.sifter.is_due


def test_limits_of_the_queue_count_for_filters_too() -> None:
    shard = Shard(QueueSettings(concurrency_max=2))
    shard.received()
    shard.send(RED, BLUE, RED, RED)
    shard.sift()
    assert shard.received() == [1, 3]
    assert shard.received() == []
    assert queries.takeable(shard.store, "q", shard.now_ms, shard.asked()).messages == 0


def test_bodies_beyond_a_size_match_no_filter_of_bodies() -> None:
    shard = Shard()
    receive = msgspec.structs.replace(shard.asked(wanted='{"k": [1]}'), filter_on="body")
    shard.do(receive)
    padding = b" " * limits.SIFT_BODY_BYTES_MAX
    shard.do(Send("q", 2), [(b'{"k":1}' + padding, b""), (b'{"k":1}', b"")])
    shard.sift()
    outcome = shard.do(msgspec.structs.replace(receive, token=99))
    assert isinstance(outcome, Received)
    assert [each.message_id for each in outcome.deliveries] == [2]


def test_a_filter_that_cannot_be_read_here_wants_nothing() -> None:
    shard = Shard()
    shard.received(wanted='{"colour": [{"newer": 1}]}')
    shard.send(RED)
    shard.sift()
    assert shard.received(wanted='{"colour": [{"newer": 1}]}') == []


def test_a_filter_that_was_not_used_for_long_is_noted_again_though_nothing_is_there() -> None:
    shard = Shard()
    shard.received()
    assert queries.takeable(shard.store, "q", shard.now_ms, shard.asked()).messages == 0
    later_ms = shard.now_ms + limits.SELECTOR_WINDOW_MS // 2
    assert queries.takeable(shard.store, "q", later_ms, shard.asked()).messages > 0
    shard.now_ms = later_ms
    shard.received()
    assert queries.takeable(shard.store, "q", shard.now_ms, shard.asked()).messages == 0


def test_records_of_before_there_were_filters_open() -> None:
    def shorter(record: Any, fields: int) -> bytes:
        return msgspec.msgpack.encode(msgspec.msgpack.decode(records.encode(record))[:-fields])

    chunk = Chunk(1, 2, [], b"\x01\x00\x00\x00", [Segment(0, 1)])
    assert records.decode_chunk(shorter(chunk, 1)) == chunk
    queue = Queue("q", 1, QueueSettings(), 2)
    assert records.decode_queue(shorter(queue, 3)) == queue


def test_runs_of_bits_are_those_that_are_ready_and_wanted() -> None:
    chunk = Chunk(1, 2, [], b"", [Segment(0, 3), Segment(3, 2, token=1, due_ms=5), Segment(5, 300)])
    chunk.selected = {7: sifting.bytes_of(0b10111 | 1 << 6 | 1 << 7 | 1 << 304)}
    selector = records.Selector(7, 0, 0, 0)
    assert list(sifting.ready_runs(chunk, selector)) == [(0, 3), (6, 2), (304, 1)]


@pytest.mark.parametrize("is_new", [True, False])
def test_an_edit_between_look_and_step_is_looked_at_again(is_new: bool) -> None:
    """What the leader has seen of the message is not true any more."""
    shard = Shard()
    if is_new:
        shard.received()
    shard.send(RED, RED, BLUE)
    if not is_new:
        shard.received()
    step = shard.sifter.next(lambda: False)
    assert step is not None
    shard.do(ChangeMessage("q", 2, properties=BLUE))
    shard.do(ChangeMessage("q", 3, properties=RED))
    shard.do(step, session=0)
    check_records(shard.store)
    assert shard.received() == [1], "order is kept: the second may come before the third"
    assert shard.sift() == 1
    assert shard.received() == [3]


def test_a_step_that_was_taken_already_is_not_taken_again() -> None:
    """What it says may not be true any more: messages were edited, and looked at again."""
    shard = Shard()
    shard.send(RED, RED, BLUE)
    assert shard.received() == []
    step = shard.sifter.next(lambda: False)
    assert step is not None
    shard.do(step, session=0)
    shard.do(ChangeMessage("q", 2, properties=BLUE))
    shard.do(ChangeMessage("q", 3, properties=RED))
    assert shard.sift() == 1
    shard.do(step, session=0)
    assert shard.received() == [1, 3]
