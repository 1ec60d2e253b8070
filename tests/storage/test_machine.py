"""The rules as stories: one shard, a clock that is stepped by hand, and what happens to messages."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace

from storage import codes, machine, queries
from storage.block import encode_block, parts
from storage.limits import KEY_WINDOW_MS, SESSION_WINDOW_MS
from storage.memory_store import MemoryStore
from storage.message_operations import About, Browse, Page
from storage.operations import (
    Ack,
    Claim,
    Delivery,
    Done,
    Extend,
    Forget,
    Keyed,
    Nack,
    Operation,
    Outcome,
    Pulse,
    Pulsed,
    Receive,
    Received,
    Refused,
    Send,
    Sent,
    SentRun,
    Settled,
    encode_entry,
    encode_item,
)
from storage.options import (
    Options,
    Plan,
    Run,
)
from storage.party_operations import PutParty
from storage.queue_operations import DeleteQueue, Purged, PurgeQueue, PutQueue, QueuePut
from storage.schedule_operations import Occur, PutSchedule
from storage.settings import QueueSettings

SESSION = 7
START_MS = 1_000_000


class Shard:
    """A state, and the log that made it."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.now_ms = START_MS
        self.seq = 0

    def entry(self, *items: bytes) -> list[Outcome]:
        index = self.store.last_index + 1
        payload = encode_entry(self.now_ms, items)
        self.store.begin()
        self.store.append(index, 1, payload)
        turned = machine.apply(self.store, index, payload)
        self.store.commit()
        return [applied.outcome for applied in turned.applied]

    def do(self, operation: Operation, block: bytes = b"", *, seq: int | None = None) -> Outcome:
        if seq is None:
            self.seq += 1
            seq = self.seq
        return self.entry(encode_item(SESSION, seq, operation, block))[0]

    def send(self, *bodies: str, queue: str = "q") -> Outcome:
        return self.do(Send(queue, len(bodies)), encode_block([(body.encode(), b"") for body in bodies]))

    def receive(self, count: int = 10, *, token: int = 1, lease_ms: int = 0) -> list[str]:
        outcome = self.do(Receive("q", count, lease_ms, token))
        assert isinstance(outcome, Received)
        held, block = queries.received(self.store, "q", outcome)
        return [bytes(part.body).decode() for part in parts(block, sum(d.count for d in held.deliveries))]

    def after(self, pause_ms: int) -> None:
        self.now_ms += pause_ms
        while self.entry(encode_item(0, 0, Pulse(100)))[0] != Pulsed(0):
            pass

    def counts(self, queue: str = "q") -> tuple[int, int, int, int]:
        found = queries.find_queue(self.store, queue)
        assert found is not None
        return found.ready, found.leased, found.delayed, found.bytes

    def browse(self) -> list[tuple[int, str]]:
        page, _ = queries.answer(self.store, Browse("q", 0, 1000))
        assert isinstance(page, Page)
        return [(message.message_id, message.state) for message in page.messages]


@pytest.fixture
def shard() -> Shard:
    shard = Shard()
    assert shard.do(PutQueue("q", QueueSettings())) == QueuePut(created=True, changed=True)
    return shard


def claim(first: int, count: int = 1, token: int = 1) -> Claim:
    return Claim(token, first, count)


def test_a_message_is_sent_leased_and_acked(shard: Shard) -> None:
    assert shard.send("a", "bb") == Sent(1, 2, START_MS)
    assert shard.counts() == (2, 0, 0, 3)
    assert shard.receive(1) == ["a"]
    assert shard.counts() == (1, 1, 0, 3)
    assert shard.do(Ack("q", [claim(1)])) == Settled([])
    assert shard.counts() == (1, 0, 0, 2)
    assert shard.browse() == [(2, "ready")]


def test_a_queue_is_put_only_if_it_is_new_or_as_it_was_expected(shard: Shard) -> None:
    first, second = QueueSettings(lease_ms=2000), QueueSettings(lease_ms=3000)
    assert shard.do(PutQueue("q", first, only_new=True)) == Refused(codes.QUEUE_EXISTS)
    assert shard.do(PutQueue("q", QueueSettings(), only_new=True)) == Refused(codes.QUEUE_EXISTS)
    assert shard.do(PutQueue("q", second, instead_of=first)) == Refused(codes.SETTINGS_CHANGED)
    assert shard.do(PutQueue("q", first, instead_of=QueueSettings())) == QueuePut(created=False, changed=True)
    assert shard.do(PutQueue("q", second, instead_of=first)) == QueuePut(created=False, changed=True)
    assert shard.do(PutQueue("new", first, instead_of=first)) == Refused(codes.QUEUE_NOT_FOUND)
    assert shard.do(PutQueue("new", first, only_new=True)) == QueuePut(created=True, changed=True)


def test_a_queue_may_insist_on_dedup_ids_and_tells_when_the_original_was_sent(shard: Shard) -> None:
    shard.do(PutQueue("q", QueueSettings(dedup_window_ms=60_000, dedup_by="required_id")))
    block = encode_block([(b"a", b""), (b"b", b"")])
    plain, known = Run(1, Options()), Run(1, Options(dedup_id="1"))
    assert shard.do(Send("q", 2), block) == Refused(codes.DEDUP_ID_REQUIRED)
    assert shard.do(Send("q", 2, [known, plain]), block) == Refused(codes.DEDUP_ID_REQUIRED, 0, 1)
    assert shard.counts() == (0, 0, 0, 0)
    assert shard.do(Send("q", 2, [known, Run(1, Options(dedup_id="2"))]), block) == Sent(1, 2, START_MS)
    shard.after(1000)
    again = [known, Run(1, Options(dedup_id="3"))]
    runs = [SentRun(1, 1, True, START_MS), SentRun(3, 1, False, START_MS + 1000)]
    assert shard.do(Send("q", 2, again), block) == Sent(3, 1, START_MS + 1000, runs)


def test_ready_order_is_send_order_also_for_what_comes_back(shard: Shard) -> None:
    shard.send("a", "b", "c")
    shard.send("d")
    assert shard.receive(2) == ["a", "b"]
    assert shard.receive(1, token=2) == ["c"]
    shard.do(Nack("q", [claim(3, token=2)]))
    shard.do(Nack("q", [claim(1)]))
    assert shard.receive(token=3) == ["a", "c", "d"]


def test_a_lease_is_exclusive_until_it_ends(shard: Shard) -> None:
    shard.send("a")
    assert shard.receive(lease_ms=5000) == ["a"]
    shard.after(4999)
    assert shard.receive(token=2) == []
    shard.after(1)
    assert shard.receive(token=2) == ["a"]
    assert shard.do(Ack("q", [claim(1, token=1)])) == Settled([1])
    assert shard.counts() == (0, 1, 0, 1)
    assert shard.do(Ack("q", [claim(1, token=2)])) == Settled([])


def test_a_lease_can_be_extended(shard: Shard) -> None:
    shard.send("a")
    shard.receive(lease_ms=5000)
    shard.after(4000)
    assert shard.do(Extend("q", [claim(1)], 5000)) == Settled([])
    shard.after(4999)
    assert shard.counts() == (0, 1, 0, 1)
    shard.after(1)
    assert shard.counts() == (1, 0, 0, 1)


def test_a_nack_with_a_delay_hides_the_message_for_so_long(shard: Shard) -> None:
    shard.send("a")
    shard.receive()
    shard.do(Nack("q", [claim(1)], 2000))
    assert shard.counts() == (0, 0, 1, 1)
    shard.after(1999)
    assert shard.receive(token=2) == []
    shard.after(1)
    outcome = shard.do(Receive("q", 1, 0, 3))
    assert isinstance(outcome, Received)
    assert outcome.deliveries == [Delivery(1, 1, 2, START_MS, About(first_ms=START_MS))]


@pytest.mark.parametrize(
    "claims",
    [
        [claim(1, token=99)],  # forged
        [claim(50)],  # never sent
        [claim(2**62, 3)],  # far beyond
        [Claim(0, 1, 1)],  # no lease at all
    ],
)
def test_what_is_not_held_is_refused_without_effect(shard: Shard, claims: list[Claim]) -> None:
    shard.send("a")
    shard.receive()
    before = shard.counts(), shard.browse()
    for operation in (Ack("q", claims), Nack("q", claims), Extend("q", claims, 1000)):
        outcome = shard.do(operation)
        assert isinstance(outcome, Settled)
        assert len(outcome.stale) == sum(c.count for c in claims)
    assert (shard.counts(), shard.browse()) == before


PLAN = Plan("q", b"", every_ms=1000)
BAD_PLANS = [
    replace(PLAN, **change)
    for change in (
        *({"queue": ""}, {"queue": "no name"}, {"topic": "t"}, {"routing_key": "k"}, {"body": bytes(64 * 1024 + 1)}),
        *({"every_ms": 0}, {"every_ms": 999}, {"cron": "@daily"}, {"every_ms": 0, "cron": "x" * 257}),
        *({"time_zone": "x" * 65}, {"options": Options(at_ms=1)}, {"options": Options(priority=10)}),
        *({"queue": "", "topic": "t", "overlap": "skip"}, {"queue": "", "topic": "t", "routing_key": "x" * 256}),
    )
]


@pytest.mark.parametrize(
    "operation",
    [
        *(
            PutQueue("n" * 81, QueueSettings()),
            PutQueue("", QueueSettings()),
            PutQueue("q", QueueSettings(lease_ms=-1)),
        ),
        *(Send("q", 0), Send("q", -1), Send("q", 2), Receive("q", -1, 0, 5), Receive("q", 1, -(10**15), 5)),
        *(Receive("q", 1, 0, 0), Receive("q", 1, 0, 2**63), Receive("q", 1, 10**17, 5)),
        *(Ack("q", [claim(-1)]), Ack("q", [claim(2**64 - 1)]), Ack("q", [claim(1, 2**40)]), Ack("q", [claim(1, 0)])),
        *(PutSchedule("s", plan) for plan in BAD_PLANS),
        *(PutSchedule("no name", PLAN), Occur("s", 1, 2**63, 0), Occur("s", 1, 0, -2)),
        *(PutParty("consumer", "", "", ""), PutParty("producer", "x" * 129, "", "")),
        PutParty("producer", "x", "x" * 257, ""),
        *(Nack("q", [claim(1)], -(10**15)), Extend("q", [claim(1)], 10**18), Keyed(b"k" * 500, b"", DeleteQueue("q"))),
    ],
)
def test_what_the_rules_cannot_work_with_is_refused_without_effect(shard: Shard, operation: Operation) -> None:
    shard.send("a")
    before = shard.counts(), shard.browse()
    block = encode_block([(b"a", b"")]) if isinstance(operation, Send) else b""
    assert shard.do(operation, block) == Refused(codes.MALFORMED)
    assert (shard.counts(), shard.browse()) == before


def test_retried_means_once(shard: Shard) -> None:
    block = encode_block([(b"a", b"")])
    first = shard.do(Send("q", 1), block, seq=100)
    assert shard.do(Send("q", 1), block, seq=100) == first
    assert shard.counts() == (1, 0, 0, 1)
    received = shard.do(Receive("q", 1, 0, 5), seq=101)
    assert shard.do(Receive("q", 1, 0, 5), seq=101) == received
    item = encode_item(SESSION, 103, Send("q", 1), block)
    assert shard.entry(item, item) == [Sent(2, 1, START_MS)] * 2


def test_an_empty_receive_may_be_tried_again_under_its_id(shard: Shard) -> None:
    assert shard.do(Receive("q", 1, 0, 5), seq=50) == Received(5, START_MS + 30_000, [])
    shard.send("a")
    outcome = shard.do(Receive("q", 1, 0, 5), seq=50)
    assert isinstance(outcome, Received)
    assert len(outcome.deliveries) == 1


def test_what_a_session_has_received_is_forgotten_and_never_done_again(shard: Shard) -> None:
    block = encode_block([(b"a", b"")])
    shard.do(Send("q", 1), block, seq=100)
    assert shard.entry(encode_item(SESSION, 0, Forget(101))) == [Done()]
    assert shard.do(Send("q", 1), block, seq=100) == Refused(codes.STALE_OPERATION)
    assert shard.counts() == (1, 0, 0, 1)
    assert not list(shard.store.scan(b"o"))


def test_a_silent_session_is_forgotten(shard: Shard) -> None:
    shard.send("a")
    shard.after(SESSION_WINDOW_MS - 1)
    assert list(shard.store.scan(b"s"))
    shard.after(1)
    assert not list(shard.store.scan(b"s"))
    assert not list(shard.store.scan(b"o"))


def test_an_idempotency_key_stands_for_one_request(shard: Shard) -> None:
    block = encode_block([(b"a", b"")])
    send = Keyed(b"k" * 16, b"f" * 16, Send("q", 1))
    assert shard.do(send, block) == shard.do(send, block) == Sent(1, 1, START_MS)
    assert shard.counts() == (1, 0, 0, 1)
    other = Keyed(b"k" * 16, b"g" * 16, Send("q", 1))
    assert shard.do(other, block) == Refused(codes.IDEMPOTENCY_MISMATCH)
    shard.after(KEY_WINDOW_MS)
    assert shard.do(other, block) == Sent(2, 1, shard.now_ms)


@pytest.mark.parametrize(
    "operation",
    [
        *(Send("none", 1), Receive("none", 1, 0, 5), Ack("none", [claim(1)]), Nack("none", [claim(1)])),
        *(Extend("none", [claim(1)], 1000), DeleteQueue("none"), PurgeQueue("none")),
    ],
)
def test_an_unknown_queue_is_refused(shard: Shard, operation: Operation) -> None:
    block = encode_block([(b"a", b"")]) if isinstance(operation, Send) else b""
    assert shard.do(operation, block) == Refused(codes.QUEUE_NOT_FOUND)


def test_a_batch_with_one_body_too_large_is_refused_whole(shard: Shard) -> None:
    shard.do(PutQueue("q", QueueSettings(body_bytes_max=3)))
    assert shard.send("abc", "abcd") == Refused(codes.BODY_TOO_LARGE, 3, 1)
    assert shard.counts() == (0, 0, 0, 0)


def test_purging_takes_everything_and_cleans_up_behind_itself(shard: Shard) -> None:
    shard.send("a", "b")
    shard.receive(1)
    assert shard.do(PurgeQueue("q")) == Purged(2)
    assert shard.counts() == (0, 0, 0, 0)
    assert shard.do(Ack("q", [claim(1)])) == Settled([1])
    assert shard.send("c") == Sent(3, 1, START_MS)
    shard.after(31_000)
    assert shard.receive(token=2) == ["c"]
    assert shard.do(Ack("q", [claim(3, token=2)])) == Settled([])
    for prefix in (b"c", b"r", b"e"):
        assert not list(shard.store.scan(prefix))


def test_a_deleted_queue_is_gone_and_its_name_is_free(shard: Shard) -> None:
    shard.send("a")
    assert shard.do(DeleteQueue("q")) == Done()
    assert shard.send("b") == Refused(codes.QUEUE_NOT_FOUND)
    shard.do(PutQueue("q", QueueSettings()))
    shard.after(1)
    assert shard.counts() == (0, 0, 0, 0)
    assert not list(shard.store.scan(b"c"))


def test_retention_drops_what_is_ready_and_lets_leases_end(shard: Shard) -> None:
    shard.do(PutQueue("q", QueueSettings(retention_ms=60_000)))
    shard.send("a", "b")
    shard.after(50_000)
    shard.receive(1, lease_ms=30_000)
    shard.send("c")
    shard.after(10_000)
    assert shard.browse() == [(1, "leased"), (3, "ready")]
    shard.after(20_000)
    assert shard.browse() == [(3, "ready")]
    shard.after(60_000)
    assert shard.counts() == (0, 0, 0, 0)


def test_time_never_runs_back(shard: Shard) -> None:
    shard.send("a")
    shard.now_ms -= 500_000
    assert shard.send("b") == Sent(2, 1, START_MS)


def test_sends_of_one_entry_share_a_chunk(shard: Shard) -> None:
    block = encode_block([(b"a", b"")])
    shard.entry(*(encode_item(SESSION, 200 + n, Send("q", 1), block) for n in range(5)))
    assert len(list(shard.store.scan(b"c"))) == 1
    assert shard.receive(3) == ["a"] * 3
    assert shard.do(Ack("q", [claim(2)])) == Settled([])
    assert shard.browse() == [(1, "leased"), (3, "leased"), (4, "ready"), (5, "ready")]


def test_the_same_log_gives_the_same_state(shard: Shard) -> None:
    twin = Shard()
    twin.do(PutQueue("q", QueueSettings()))
    for step in range(300):
        for each in (shard, twin):
            chance = random.Random(step)
            each.send(*("x" * chance.randrange(9) for _ in range(chance.randrange(1, 6))))
            each.receive(chance.randrange(1, 9), token=step + 1, lease_ms=1000)
            each.do(Ack("q", [Claim(step + 1, chance.randrange(1, 400), 5)]))
            each.after(chance.randrange(900))
    assert queries.digest(shard.store) == queries.digest(twin.store)


def test_every_refusal_has_a_code_that_is_listed() -> None:
    constants = {value for name, value in vars(codes).items() if name.isupper() and isinstance(value, str)}
    assert constants == codes.CODES


def test_a_dead_letter_queue_chooses_whose_messages_it_takes(shard: Shard) -> None:
    shard.do(PutQueue("dead", QueueSettings(dead_letters_from=["friend"])))
    wish = QueueSettings(dead_letter_queue="dead", attempts_max=1)
    assert shard.do(PutQueue("q", wish)) == Refused(codes.DEAD_LETTER_DENIED)
    assert shard.do(PutQueue("friend", wish)) == QueuePut(created=True, changed=True)
    shard.do(PutQueue("dead", QueueSettings(dead_letters_from=[])))
    assert shard.do(PutQueue("new", wish)) == Refused(codes.DEAD_LETTER_DENIED)
    later = QueueSettings(dead_letter_queue="dead", attempts_max=2)
    assert shard.do(PutQueue("friend", later)) == QueuePut(created=False, changed=True), "it was let in before"


@pytest.mark.parametrize(
    "settings",
    [
        QueueSettings(tags={"": "x"}),
        QueueSettings(tags={str(number): "" for number in range(51)}),
        QueueSettings(sqs={"Policy": "x" * 13_000}),
        QueueSettings(dead_letters_from=["no name"]),
        QueueSettings(dead_letters_from=["q"] * 101),
        QueueSettings(wait_ms=20_001),
    ],
)
def test_settings_that_the_rules_cannot_work_with(shard: Shard, settings: QueueSettings) -> None:
    assert shard.do(PutQueue("q", settings)) == Refused(codes.MALFORMED)
