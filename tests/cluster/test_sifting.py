"""Receives with filters at the leader: who is woken, what an empty answer means, and what a leader's death costs."""

from __future__ import annotations

from collections import Counter

import pytest

from cluster.dispatcher import Dispatcher, Request
from storage import codes, limits, receiving, sift_look
from storage.block import Part, encode_block
from storage.filters import Filter
from storage.operations import Ack, Claim, Receive, Received, Refused, Send, decode_entry
from storage.queue_operations import GetQueue, PurgeQueue, PutQueue, QueueInfo
from storage.routing import View
from storage.settings import QueueSettings
from tests.cluster.test_waiting import WAIT_MS, written
from tests.cluster.trio import STEP_S, Trio

RED, BLUE = b"\x81\xa1a\x81\xa6colour\xa3red", b"\x81\xa1a\x81\xa6colour\xa4blue"
WANTED, UNWANTED = '{"colour": ["red"]}', '{"colour": ["green"]}'


def ready(settings: QueueSettings | None = None) -> Trio:
    trio = Trio()
    trio.start()
    trio.run(1.0)
    trio.do(PutQueue("q", settings or QueueSettings()))
    return trio


def send(trio: Trio, *properties: bytes) -> None:
    trio.do(Send("q", len(properties)), encode_block([(b"x", each) for each in properties]))


def asked(token: int, wait_ms: int = 0, messages_max: int = 1, wanted: str = WANTED) -> Receive:
    return Receive("q", messages_max, 0, token, wait_ms, filter=wanted)


def ids(outcome: object) -> list[int]:
    assert isinstance(outcome, Received)
    return [each.message_id + n for each in outcome.deliveries for n in range(each.count)]


def logged(trio: Trio, since: int) -> Counter[str]:
    """Operations in the log after entry `since`."""
    store, kinds = trio.stores[trio.leader], Counter[str]()
    for index in range(since + 1, store.last_index + 1):
        entry = store.logged(index)
        assert entry is not None
        kinds.update(type(item.operation).__name__ for item in decode_entry(entry.payload)[1])
    return kinds


def test_one_message_wakes_exactly_one_of_those_who_want_it_and_nobody_else() -> None:
    trio = ready()
    reds = [trio.ask(asked(token, WAIT_MS)) for token in (1, 2, 3)]
    greens = [trio.ask(asked(token, WAIT_MS, wanted=UNWANTED)) for token in (4, 5)]
    trio.run(1.0)
    before = trio.stores[trio.leader].last_index
    send(trio, BLUE, BLUE)
    trio.run(1.0)
    assert logged(trio, before) == {"Send": 1, "Sift": 1}
    before = trio.stores[trio.leader].last_index
    send(trio, BLUE, RED, BLUE)
    trio.run(1.0)
    assert [ids(outcome) for seq in reds if (outcome := trio.answer(seq)) is not None] == [[4]]
    assert [trio.answer(seq) for seq in greens] == [None, None]
    assert logged(trio, before) == {"Send": 1, "Sift": 1, "Receive": 1}


def test_idle_waiting_with_a_filter_costs_the_log_nothing() -> None:
    trio = ready()
    send(trio, BLUE, BLUE)
    trio.ask(asked(1, WAIT_MS))
    trio.run(1.0)
    assert written(trio, 5.0) == 0
    for token in range(2, 6):
        assert ids(trio.do(asked(token))) == []
    assert written(trio, 0.5) == 0


def test_what_was_sent_before_is_found_without_waiting() -> None:
    """An empty answer sees everything that was answered before, with a filter too."""
    trio = ready()
    send(trio, BLUE, RED)
    assert ids(trio.do(asked(1))) == [2]
    for number in range(5):
        send(trio, BLUE, RED)
        assert ids(trio.do(asked(2 + number))) == [4 + 2 * number]


def test_an_answer_says_that_not_all_was_sifted_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sift_look, "SIFT_MESSAGES_MAX", 1)
    trio = ready()
    send(trio, *[BLUE] * 1000)
    seq = trio.ask(asked(1))
    trio.run(0.9)
    assert trio.answer(seq) is None
    trio.run(0.5)
    assert trio.answer(seq) == Received(1, 0, [], sifting=True)


def test_a_leaders_death_while_it_sifts_loses_nothing_and_nothing_is_looked_at_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sift_look, "SIFT_MESSAGES_MAX", 1)
    looked = 0
    wants = sift_look._wants

    def counted(filter_: Filter, part: Part, view: View) -> bool:
        nonlocal looked
        looked += 1
        return wants(filter_, part, view)

    monkeypatch.setattr(sift_look, "_wants", counted)
    trio = ready()
    for _ in range(400):
        send(trio, BLUE, RED, BLUE)
    messages, deaths = 1200, 0
    got = ids(trio.do(asked(1)))
    for token in range(2, 500):
        got += ids(trio.do(asked(token, messages_max=5)))
        if len(got) > 5 * (deaths + 1) and deaths < 2:
            deaths += 1
            info = trio.do(GetQueue("q"))
            assert isinstance(info, QueueInfo)
            assert info.selectors[0].unsifted, "it is under way"
            old = trio.leader
            trio.crash(old)
            trio.run(1.5)
            trio.start(old)
            trio.run(0.2)
        if len(got) == 400:
            break
    assert deaths == 2
    assert got == list(range(2, messages + 1, 3))
    assert looked <= messages + deaths * 10


def test_too_many_filters_are_refused_to_whoever_asks_with_another() -> None:
    trio = ready()
    for number in range(limits.SELECTORS_MAX):
        trio.do(asked(1 + number, wanted=f'{{"colour": ["{number}"]}}'))
    outcome = trio.do(asked(99, WAIT_MS))
    assert outcome == Refused(codes.SELECTOR_LIMIT, limits.SELECTORS_MAX)
    trio.now_s += limits.SELECTOR_WINDOW_MS / 1000
    trio.run(2.0)
    assert ids(trio.do(asked(100))) == []


def test_who_waits_gets_what_comes_after_a_purge() -> None:
    trio = ready()
    seq = trio.ask(asked(1, WAIT_MS))
    trio.run(0.5)
    trio.do(PurgeQueue("q"))
    trio.run(0.5)
    send(trio, BLUE, RED)
    trio.run(0.5)
    assert ids(trio.answer(seq)) == [2]


def test_consumers_with_and_without_a_filter_share_a_queue() -> None:
    trio = ready()
    assert ids(trio.do(asked(1))) == []
    send(trio, BLUE, RED, BLUE, RED)
    assert ids(trio.do(asked(2))) == [2]
    assert ids(trio.do(Receive("q", 2, 0, 3))) == [1, 3]
    assert ids(trio.do(asked(4, messages_max=9))) == [4]
    trio.do(Ack("q", [Claim(2, 2, 1)]))
    trio.run(31.0)  # the leases have ended
    assert ids(trio.do(asked(5, messages_max=9))) == [4]
    assert ids(trio.do(Receive("q", 9, 0, 6))) == [1, 3]


def test_who_waits_with_a_filter_gives_up_in_time_whoever_else_is_served() -> None:
    dispatcher = Dispatcher()
    waiting = Request("g", 7, 1, asked(1), b"", 0.0, 0)
    dispatcher.park("q", waiting, 10.0)
    dispatcher.claim("q", 5)
    assert dispatcher.given_up(10.0) == [waiting]
    dispatcher.park("q", waiting, 10.0)
    dispatcher.claim("q", 1, waiting.sieve)
    assert dispatcher.given_up(10.0) == []
    dispatcher.unclaim("q", 1, waiting.sieve)
    assert dispatcher.given_up(10.0) == [waiting]


def test_many_who_wait_are_served_from_one_batch_at_once() -> None:
    trio = ready()
    waiting = [trio.ask(asked(token, WAIT_MS)) for token in range(1, 6)]
    trio.run(0.5)
    before = trio.stores[trio.leader].last_index
    send(trio, *[RED, BLUE] * 4)
    trio.run(STEP_S * 3)
    assert sorted(ids(outcome)[0] for seq in waiting if (outcome := trio.answer(seq)) is not None) == [1, 3, 5, 7]
    assert logged(trio, before)["Receive"] == 4


def test_who_waits_for_what_is_behind_the_unsifted_costs_no_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sift_look, "SIFT_MESSAGES_MAX", 1)
    trio = ready()
    for _ in range(50):
        send(trio, *[BLUE] * 10)
    before = trio.stores[trio.leader].last_index
    seq = trio.ask(asked(1, WAIT_MS))
    trio.run(0.1)
    send(trio, RED)
    trio.run(5.0)
    assert ids(trio.answer(seq)) == [501]
    assert logged(trio, before)["Receive"] == 2, "one that made the filter known, one that brought the message"


def test_a_leader_whose_step_came_to_nothing_goes_on_when_it_leads_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sift_look, "SIFT_MESSAGES_MAX", 1)
    trio = ready()
    send(trio, *[BLUE] * 700, RED)
    trio.ask(asked(1, WAIT_MS))
    trio.run(0.1)
    first = trio.leader
    trio.block(first)  # what it proposes from now on is lost
    trio.run(0.5)
    monkeypatch.setattr(sift_look, "SIFT_MESSAGES_MAX", 1000)
    trio.run(2.5)
    trio.heal()
    trio.run(1.0)
    trio.lead_again(first)
    send(trio, RED)
    assert len(ids(trio.do(asked(2, WAIT_MS, 9)))) == 2


def test_who_asks_for_much_with_a_filter_keeps_nobody_from_the_rest() -> None:
    dispatcher = Dispatcher()
    plain = Request("g", 7, 1, Receive("q", 1, 0, 1, WAIT_MS), b"", 0.0, 0)
    dispatcher.claim("q", 1000, asked(2).sieve)
    dispatcher.park("q", plain, 10.0)
    assert dispatcher.wake("q", 5) == [plain]


def test_what_another_claims_and_leaves_is_not_called_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sift_look, "SIFT_MESSAGES_MAX", 1)
    monkeypatch.setattr(receiving, "RECEIVE_BYTES_MAX", 1)  # one message at a time
    trio = ready()
    first = trio.ask(asked(1, WAIT_MS, messages_max=10))
    trio.run(0.5)
    send(trio, *[BLUE] * 50, RED, RED)
    second = trio.ask(asked(2))
    trio.run(1.0)
    assert ids(trio.answer(first)) == [51]
    assert ids(trio.answer(second)) == [52], "it was there before it asked"
