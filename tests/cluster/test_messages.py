"""The replicas' messages: what may leave early, and that nothing but messages is ever decoded."""

from __future__ import annotations

import msgspec
import pytest

from cluster.messages import (
    Append,
    Appended,
    Piece,
    PieceTaken,
    PreVote,
    PreVoted,
    RequestVote,
    TimeoutNow,
    Vote,
    Welcome,
    decode_message,
    encode_message,
)

URGENT = [
    Append(3, 7, 2, [(3, b"\0payload"), (3, b"\1")], 6, 1_700_000_000_000, 12.5),
    PreVote(4, 9, 3, 17),
    PreVoted(3, 17, True),
    TimeoutNow(3),
    Welcome(3),
    Piece(3, 70, 2, 1000, 300, b"data"),
    PieceTaken(3, 70, -1),
]
HELD = [
    Appended(3, True, 7, 9, 8, 12.5, 1_700_000_000_000, False, True),
    RequestVote(4, 9, 3, True),
    Vote(4),
]


@pytest.mark.parametrize("message", URGENT + HELD, ids=lambda message: type(message).__name__)
def test_every_message_survives_the_wire(message: Append) -> None:
    assert decode_message(encode_message(message)) == message


def test_promises_are_held_back_and_nothing_else() -> None:
    assert [type(message).__name__ for message in URGENT + HELD if not message.urgent] == [
        "Appended",
        "RequestVote",
        "Vote",
    ]


@pytest.mark.parametrize(
    "data", [b"", b"\x80", b"\x91\x63", encode_message(URGENT[0])[:-1], b"cos\nsystem\n(S'id'\ntR."]
)
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_message(data)
