"""Room: who must have some before what adds is taken, and what it is that adds."""

from __future__ import annotations

import pytest

from cluster.room import Room, adds
from storage.operations import Ack, Keyed, Operation, Receive, Send, Transaction
from storage.queue_operations import DeleteQueue, PutQueue
from storage.settings import QueueSettings

VOTERS = ["a", "b", "c"]


@pytest.mark.parametrize(
    ("here", "others", "suffices"),
    [
        (True, {}, True),  # without a majority nothing is committed, but not for lack of room
        (True, {"b": False}, False),
        (True, {"b": True, "c": False}, True),
        (True, {"b": False, "c": False}, False),
        (False, {"b": True, "c": True}, False),
        (True, {"d": False}, True),  # it has no vote
    ],
)
def test_the_leader_and_a_majority_must_have_room(here: bool, others: dict[str, bool], suffices: bool) -> None:
    room = Room(100)
    room.measured(100 if here else 99)
    for node, has_room in others.items():
        room.heard(node, has_room)
    assert room.suffices(VOTERS) is suffices


def test_who_is_not_heard_any_more_has_no_say() -> None:
    room = Room(100)
    room.heard("b", False)
    room.silent("b")
    assert room.suffices(VOTERS)


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
