"""Receives that wait at the leader: whoever can be served is, and who cannot writes nothing to the log."""

from __future__ import annotations

import pytest

from storage.block import encode_block
from storage.operations import Ack, Claim, Keyed, Receive, Received, Refused, Send, Settled
from storage.party_operations import GetParty, ListParties, PartyList, PutParty
from storage.queue_operations import PutQueue
from storage.settings import QueueSettings, Rate
from tests.cluster.trio import Trio

WAIT_MS = 20_000


def ready(settings: QueueSettings, messages: int) -> Trio:
    trio = Trio()
    trio.start()
    trio.run(1.0)
    trio.do(PutQueue("q", settings))
    if messages:
        trio.do(Send("q", messages), encode_block([(b"x", b"")] * messages))
    return trio


def written(trio: Trio, seconds: float) -> int:
    """How many entries the log grows by."""
    engine = trio.replicas[trio.leader].engine
    before = engine.last_index
    trio.run(seconds)
    return engine.last_index - before


def test_a_refused_receive_gives_back_what_it_had_claimed() -> None:
    trio = ready(QueueSettings(single_active=True), 1)
    nameless = trio.ask(Receive("q", 10, 0, 1))
    named = trio.ask(Receive("q", 1, 0, 2, WAIT_MS, "worker"))
    trio.run(1.0)
    assert isinstance(trio.answer(nameless), Refused)
    outcome = trio.answer(named)
    assert isinstance(outcome, Received)
    assert outcome.deliveries


def test_who_waits_behind_the_one_active_consumer_costs_the_log_nothing() -> None:
    trio = ready(QueueSettings(single_active=True, lease_ms=5000), 2)
    assert isinstance(trio.do(Receive("q", 1, 0, 1, 0, "first")), Received)
    second = trio.ask(Receive("q", 1, 0, 2, WAIT_MS, "second"))
    assert written(trio, 4.0) == 0
    assert trio.answer(second) is None
    trio.do(Ack("q", [Claim(1, 1, 1)]))
    trio.run(3.0)  # the first has been silent for a lease's length
    outcome = trio.answer(second)
    assert isinstance(outcome, Received)
    assert outcome.deliveries


def test_who_waits_for_a_rate_or_a_place_costs_the_log_next_to_nothing() -> None:
    """A pulse when the rate lets one through, an entry for the receive."""
    trio = ready(QueueSettings(rate=Rate(1, 4000), concurrency_max=2), 3)
    assert isinstance(trio.do(Receive("q", 3, 0, 1)), Received)
    waiting = [trio.ask(Receive("q", 1, 0, token, WAIT_MS)) for token in (2, 3)]
    assert written(trio, 3.0) <= 1
    assert [trio.answer(seq) for seq in waiting] == [None, None]
    trio.run(2.0)
    (served,) = [outcome for seq in waiting if (outcome := trio.answer(seq)) is not None]
    assert isinstance(served, Received)
    assert written(trio, 5.0) <= 2  # two are leased: there is no place for a third
    assert isinstance(trio.do(Ack("q", [Claim(1, 1, 1)])), Settled)
    trio.run(1.0)
    assert any(trio.answer(seq) is not None for seq in waiting)


def test_consumers_that_wait_are_counted_and_cost_the_log_nothing() -> None:
    trio = ready(QueueSettings(), 0)
    for name in ("one", "two"):
        trio.do(PutParty("consumer", name, name, "worker"))
    for token in range(1, 4):
        trio.ask(Receive("q", 1, 0, token, WAIT_MS, "one"))
    assert written(trio, 1.0) == 0
    told = trio.do(ListParties("consumer"))
    assert isinstance(told, PartyList)
    assert [(party.id, party.seen_ms) for party in told.parties] == [("one", 0), ("two", 0)]
    assert told.waiting == [3, 0]
    trio.do(Send("q", 1), encode_block([(b"x", b"")]))
    told = trio.do(GetParty("consumer", "one"))
    assert isinstance(told, PartyList)
    assert told.waiting == [2]
    assert told.parties[0].seen_ms


def test_a_receive_that_does_not_say_waits_as_long_as_its_queue() -> None:
    trio = ready(QueueSettings(wait_ms=5000), 1)
    assert isinstance(trio.do(Receive("q", 1, 0, 1, -1)), Received)
    asked = trio.ask(Receive("q", 1, 0, 2, -1))
    assert written(trio, 4.5) == 0
    assert trio.answer(asked) is None
    trio.run(1.0)
    assert trio.answer(asked) == Received(2, 0, [])
    trio.do(PutQueue("q", QueueSettings()))
    asked = trio.ask(Receive("q", 1, 0, 3, -1))
    trio.run(0.1)
    assert trio.answer(asked) == Received(3, 0, [])


def test_a_queue_without_leases_gives_its_messages_again_and_again() -> None:
    trio = ready(QueueSettings(lease_ms=0), 1)
    attempts = []
    for token in range(1, 4):
        outcome = trio.do(Receive("q", 1, 0, token))
        assert isinstance(outcome, Received)
        attempts += [delivery.attempt for delivery in outcome.deliveries]
        trio.run(0.1)
    assert attempts == [1, 2, 3]


def keyed(token: int, wait_ms: int) -> Keyed:
    return Keyed(bytes(16), bytes(16), Receive("q", 1, 0, token, wait_ms))


@pytest.mark.parametrize("wait_ms", [0, WAIT_MS])
def test_who_asks_again_under_its_key_while_the_first_is_under_way_gets_what_that_got(wait_ms: int) -> None:
    """Nothing was ready when it asked again: the first had claimed it."""
    trio = ready(QueueSettings(), 1)
    first = trio.ask(keyed(5, WAIT_MS))
    trio.replicas[trio.leader].tick()  # it is in the log, and not committed
    again = trio.ask(keyed(5, wait_ms))
    trio.run(0.2)
    outcome = trio.answer(again)
    assert outcome == trio.answer(first)
    assert isinstance(outcome, Received)
    assert [delivery.message_id for delivery in outcome.deliveries] == [1]


def test_who_asks_again_and_waits_gets_what_the_first_got_as_soon_as_that_has_got_it() -> None:
    trio = ready(QueueSettings(), 0)
    first, again = trio.ask(keyed(5, WAIT_MS)), trio.ask(keyed(5, WAIT_MS))
    other = trio.ask(Receive("q", 1, 0, 6, WAIT_MS))
    trio.run(0.2)
    trio.do(Send("q", 1), encode_block([(b"x", b"")]))
    trio.run(0.2)
    outcome = trio.answer(first)
    assert isinstance(outcome, Received)
    assert [delivery.message_id for delivery in outcome.deliveries] == [1]
    assert trio.answer(again) == outcome
    assert trio.answer(other) is None
    assert trio.do(Receive("q", 1, 0, 7, 100)) == Received(7, 0, []), "nothing is claimed that is not there"
    trio.do(Send("q", 1), encode_block([(b"y", b"")]))
    trio.run(0.2)
    outcome = trio.answer(other)
    assert isinstance(outcome, Received)
    assert [delivery.message_id for delivery in outcome.deliveries] == [2]


def test_a_receive_that_is_given_up_before_the_leader_has_seen_to_it_takes_nothing() -> None:
    trio = ready(QueueSettings(), 0)
    seq = trio.ask(Receive("q", 1, 0, 5, WAIT_MS))
    trio.replicas[trio.leader].cancel(7, seq)
    trio.run(0.2)
    trio.do(Send("q", 1), encode_block([(b"x", b"")]))
    trio.run(0.2)
    assert trio.answer(seq) is None
    outcome = trio.do(Receive("q", 1, 0, 6))
    assert isinstance(outcome, Received)
    assert [(delivery.message_id, delivery.attempt) for delivery in outcome.deliveries] == [(1, 1)]
