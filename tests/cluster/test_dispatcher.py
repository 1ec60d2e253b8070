"""Receives that wait: who is woken, who gives up, and what becomes of one that is asked twice."""

from __future__ import annotations

import pytest

from cluster.dispatcher import Dispatcher, Request
from storage.operations import Keyed, Receive


def request(seq: int, *, messages_max: int = 1, gateway: object = "g") -> Request:
    return Request(gateway, 7, seq, Receive("q", messages_max, 0, seq, 1000), b"", 0.0, 0)


def keyed(seq: int, key: bytes) -> Request:
    return Request("g", 7, seq, Keyed(key, b"", Receive("q", 1, 0, seq, 1000)), b"", 0.0, 0)


@pytest.fixture
def dispatcher() -> Dispatcher:
    return Dispatcher()


def test_one_ready_message_wakes_exactly_one_and_the_first(dispatcher: Dispatcher) -> None:
    first, second = request(1), request(2)
    dispatcher.park("q", first, 10.0)
    dispatcher.park("q", second, 10.0)
    assert dispatcher.wake("q", 1) == [first]
    assert dispatcher.wake("q", 1) == []
    dispatcher.unclaim("q", 1)
    assert dispatcher.wake("q", 1) == [second]


def test_one_waits_until_its_time_is_over(dispatcher: Dispatcher) -> None:
    waiting = request(1)
    dispatcher.park("q", waiting, 10.0)
    assert dispatcher.given_up(9.9) == []
    assert dispatcher.given_up(10.0) == [waiting]
    assert len(dispatcher) == 0


def test_nobody_is_told_that_nothing_is_there_while_it_is_only_claimed(dispatcher: Dispatcher) -> None:
    dispatcher.claim("q", 1)
    waiting = request(1)
    dispatcher.park("q", waiting, 10.0)
    assert dispatcher.given_up(11.0) == []
    dispatcher.unclaim("q", 1)
    assert dispatcher.given_up(11.0) == [waiting]


def test_one_that_is_asked_again_takes_its_own_place(dispatcher: Dispatcher) -> None:
    old, new = request(1, gateway="lost"), request(1, gateway="found")
    dispatcher.park("q", old, 10.0)
    dispatcher.park("q", new, 20.0)
    assert len(dispatcher) == 1
    assert dispatcher.given_up(10.0) == []
    assert dispatcher.wake("q", 5) == [new]
    assert dispatcher.given_up(30.0) == []


def test_who_has_gone_is_not_woken(dispatcher: Dispatcher) -> None:
    dispatcher.park("q", request(1, gateway="gone"), 10.0)
    dispatcher.park("q", request(2), 10.0)
    dispatcher.forsake("gone")
    dispatcher.cancel(7, 2)
    dispatcher.cancel(7, 2)
    assert dispatcher.wake("q", 5) == []
    assert dispatcher.given_up(10.0) == []


def test_what_is_woken_at_once_leaves_nothing_behind(dispatcher: Dispatcher) -> None:
    for seq in range(10_000):
        dispatcher.park("q", request(seq), 1e9)
        dispatcher.unclaim("q", len(dispatcher.wake("q", 1)))
    assert dispatcher.remembered < 5_000


@pytest.mark.parametrize("seqs", [range(100), range(99, -1, -1)], ids=["upwards", "downwards"])
def test_those_whose_time_is_over_at_once_give_up_in_the_order_of_their_times(
    dispatcher: Dispatcher, seqs: range
) -> None:
    """Whatever else they have in common, as where they lie in memory: a simulated run repeats exactly."""
    requests = [request(seq) for seq in range(100)]
    for deadline_s, seq in enumerate(seqs):
        dispatcher.park("q", requests[seq], float(deadline_s))
    assert [found.seq for found in dispatcher.given_up(100.0)] == list(seqs)


def test_whoever_waits_under_a_key_is_found_by_it_for_as_long_as_it_waits(dispatcher: Dispatcher) -> None:
    first, second, other = keyed(1, b"k"), keyed(2, b"k"), keyed(3, b"l")
    for each in (first, second, other, request(4)):
        dispatcher.park("q", each, 10.0)
    assert dispatcher.wake("q", 1) == [first]
    assert dispatcher.asked_again(b"k") == [second]
    assert dispatcher.asked_again(b"k") == []
    assert dispatcher.cancel(7, 3)
    assert dispatcher.asked_again(b"l") == []
    assert dispatcher.asked_again(b"") == [], "who has no key asks nothing again"
    assert len(dispatcher) == 1
