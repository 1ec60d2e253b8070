"""Room: who must have some before what adds is taken, and what it is that adds."""

from __future__ import annotations

import pytest

from cluster.room import NEWS_S, RELIEF_S, STORE_FULL, Room, adds
from storage.block import encode_block
from storage.operations import (
    Ack,
    Claim,
    Keyed,
    Operation,
    Outcome,
    Receive,
    Received,
    Refused,
    Send,
    Sent,
    Settled,
    Transaction,
)
from storage.queue_operations import DeleteQueue, PutQueue
from storage.settings import QueueSettings
from tests.cluster.trio import STEP_S, Trio

VOTERS = ["a", "b", "c"]


@pytest.mark.parametrize(
    ("here", "others", "suffices"),
    [
        (True, {}, True),  # without a majority nothing is committed, but not for lack of room
        (True, {"b": False}, False),
        (True, {"b": True, "c": False}, True),
        (True, {"b": False, "c": False}, False),
        (False, {"b": True, "c": True}, False),
        (False, {"b": True}, False),
        (True, {"d": False}, True),  # it has no vote
    ],
)
def test_the_leader_and_a_majority_must_have_room(here: bool, others: dict[str, bool], suffices: bool) -> None:
    room = Room(100)
    room.measured(100 if here else 99, 0.0)
    for node, has_room in others.items():
        room.heard(node, has_room, 0.0)
    assert room.suffices(VOTERS, NEWS_S) is suffices


def test_a_leader_hears_of_the_others_before_it_minds_its_own_lack_of_room() -> None:
    room = Room(100)
    room.measured(99, 0.0)
    for node in "bc":
        room.heard(node, True, 0.0)
    room.measured(98, 0.1)
    assert room.suffices(VOTERS, 0.2)
    assert not room.suffices(VOTERS, NEWS_S)
    assert not room.suffices(["a"], 0.2), "there is nobody to hear of"
    room.heard("c", False, 0.2)
    assert not room.suffices(VOTERS, 0.2)


def test_who_has_room_again_is_handed_over_to_when_it_has_had_it_for_a_while() -> None:
    room, able = Room(100), {"b": 7, "c": 8}
    room.measured(99, 0.0)
    room.heard("b", True, 0.0)
    room.heard("c", True, 0.0)
    assert room.heir(VOTERS, able, 0.0) == "c", "it holds most"
    assert room.heir(VOTERS, {"b": 7}, 0.0) == "b"
    room.heard("c", False, 1.0)
    assert room.heir(VOTERS, able, 1.0) is None, "whoever leads could take nothing"
    room.heard("c", True, 2.0)
    assert room.heir(VOTERS, able, 2.2) is None
    assert room.heir(VOTERS, able, 2.0 + 2 * NEWS_S) == "c"


def test_who_is_not_heard_any_more_has_no_say() -> None:
    room = Room(100)
    room.heard("b", False, 0.0)
    room.silent("b")
    assert room.suffices(VOTERS, 0.0)


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (Send("q", 1), True),
        (Keyed(b"", b"", Send("q", 1)), True),
        (PutQueue("q", QueueSettings()), True),
        (Transaction([Ack("q", []), Send("q", 1)]), True),
        (Transaction([Ack("q", [])]), False),
        (Receive("q", 1, 0, 1), False),
        (Ack("q", []), False),
        (DeleteQueue("q"), False),
    ],
)
def test_what_adds_is_told_from_what_makes_room(operation: Operation, expected: bool) -> None:
    assert adds(operation) is expected


# --- a replica that has none, among others ----------------------------------------------------------------------------


def serving(names: str = "abc") -> Trio:
    trio = Trio(names)
    trio.start()
    trio.run(1.0)
    trio.do(PutQueue("q", QueueSettings()))
    trio.run(0.2)
    return trio


def send(trio: Trio) -> Outcome:
    return trio.do(Send("q", 1), encode_block([(b"x", b"")]))


def followers(trio: Trio) -> list[str]:
    return [name for name in trio.names if name != trio.leader]


def test_a_leader_without_room_has_somebody_lead_who_has_some() -> None:
    trio = serving()
    leader = trio.leader
    trio.fill(leader)
    asked = trio.ask(Send("q", 1), encode_block([(b"x", b"")]))
    engine, held_s = trio.replicas[leader].engine, 0.0
    while not any(replica.report().serving for name, replica in trio.replicas.items() if name != leader):
        trio.run(STEP_S)
        held_s += 0.0 if engine.is_leader and engine.may_propose else STEP_S
        assert not isinstance(trio.answer(asked), Refused), "what is asked meanwhile is asked again of the next leader"
        assert held_s <= 0.05
    assert trio.leader != leader
    assert isinstance(send(trio), Sent)
    trio.run(2 * RELIEF_S)
    assert trio.leader != leader
    assert isinstance(send(trio), Sent)
    trio.run(0.1)
    assert trio.replicas[leader].engine.applied_index == trio.replicas[trio.leader].engine.applied_index
    assert engine.handovers == {"no_room": 1}


def test_room_that_comes_back_everywhere_moves_nobody() -> None:
    """The leader may hear of it before it has measured its own."""
    trio = serving()
    leader = trio.leader
    for _ in range(5):
        trio.fill(*trio.names)
        trio.run(1.0)
        assert isinstance(send(trio), Refused)
        trio.make_room(*followers(trio))
        trio.run(STEP_S)
        trio.make_room(leader)
        trio.run(0.73)
        assert isinstance(send(trio), Sent)
    assert trio.leader == leader


@pytest.mark.parametrize("crowd", [2, 3])
def test_without_room_on_a_majority_nobody_hands_over_and_only_what_adds_is_refused(crowd: int) -> None:
    trio = serving()
    assert isinstance(send(trio), Sent)
    leader, term = trio.leader, trio.replicas["a"].engine.term
    trio.fill(*[leader, *followers(trio)][:crowd])
    trio.run(0.3)
    refused = send(trio)
    assert isinstance(refused, Refused)
    assert refused.code == STORE_FULL
    received = trio.do(Receive("q", 1, 10_000, 1))
    assert isinstance(received, Received)
    assert isinstance(trio.do(Ack("q", [Claim(1, 1, 1)])), Settled)
    trio.run(2 * RELIEF_S)
    assert (trio.leader, trio.replicas[leader].engine.term) == (leader, term)


def test_a_follower_without_room_keeps_nobody_from_sending_and_keeps_up() -> None:
    trio = serving()
    leader, (crowded, _) = trio.leader, followers(trio)
    trio.fill(crowded)
    trio.run(0.3)
    for _ in range(10):
        assert isinstance(send(trio), Sent)
    trio.run(0.2)
    assert trio.leader == leader
    assert trio.replicas[crowded].engine.applied_index == trio.replicas[leader].engine.applied_index


def test_leadership_does_not_bounce_among_disks_that_have_little_room_in_turn() -> None:
    trio = serving()
    first = trio.leader
    trio.fill(first)
    trio.run(0.5)
    second = trio.leader
    assert second != first
    trio.make_room(first)
    trio.fill(second)
    trio.run(RELIEF_S - 1.0)
    assert trio.leader == second, "it was handed over to a moment ago"
    assert isinstance(send(trio), Refused)
    trio.run(1.0)
    assert trio.leader != second
    assert isinstance(send(trio), Sent)


def test_a_hand_over_that_came_to_nothing_is_not_tried_again_at_once() -> None:
    trio = serving()
    leader, (deaf, other) = trio.leader, followers(trio)
    engine = trio.replicas[leader].engine
    for name in (deaf, other):
        trio.replicas[name].engine.retire()  # it never campaigns
    trio.fill(leader)
    trio.run(RELIEF_S - 0.5)
    assert engine.handovers == {"no_room": 1}
    assert isinstance(send(trio), Refused), "it leads on"
    trio.run(1.0)
    assert engine.handovers == {"no_room": 2}


def test_whoever_was_elected_without_room_hands_over_at_once() -> None:
    """Only it had everything."""
    trio = serving()
    leader, (crowded, other) = trio.leader, followers(trio)
    trio.fill(crowded)
    trio.run(0.3)
    trio.block(other)
    assert isinstance(send(trio), Sent)
    trio.heal()
    trio.crash(leader)
    trio.run(1.5)
    assert trio.leader == crowded
    trio.start(leader)
    trio.run(1.0)
    assert trio.leader != crowded
    assert isinstance(send(trio), Sent)


@pytest.mark.parametrize("position", [0, 1])
def test_a_replica_without_room_lets_others_campaign_first(position: int) -> None:
    trio = serving()
    crowded = followers(trio)[position]
    trio.fill(crowded)
    trio.run(1.0)
    trio.crash(trio.leader)
    trio.run(1.0)
    assert trio.leader != crowded


def test_replicas_without_room_lead_when_nobody_else_can() -> None:
    trio = serving()
    trio.fill(*followers(trio))
    trio.run(1.0)
    trio.crash(trio.leader)
    trio.run(0.5)
    assert isinstance(trio.do(Receive("q", 1, 10_000, 1)), Received)


def test_a_planned_stop_hands_over_to_who_has_room() -> None:
    """Of all who have everything."""
    trio = serving("abcde")
    leader = trio.leader
    crowded = followers(trio)[2:]
    trio.fill(*crowded)
    trio.run(1.0)
    trio.replicas[leader].engine.transfer()
    trio.run(0.2)
    assert trio.leader in set(trio.names) - set(crowded) - {leader}
