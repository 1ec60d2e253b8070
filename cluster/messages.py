"""What replicas say to one another.

A message is *urgent* when it promises nothing: it may leave before this tick's transaction is durable. All others are
promises (votes, acknowledgements, whatever names a term that was just adopted) and must be held back until the store
has committed, else a crash would break a promise already given. The caller of the engine does the holding back; it
looks at the class attribute.

Every message names its sender's term. Bytes travel as MessagePack with a small tag; nothing is ever unpickled.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from cluster.membership import Membership


class Append(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """The leader's entries after `prev_index`, perhaps none (a heartbeat). → `Appended`.

    Urgent: an entry counts for its leader only when it is durable there, and a term only leads once it is.
    `prev_index` 0 precedes everything and always matches. `clock_ms` is the leader's cluster time (0: unknown), `echo`
    its monotonic clock (seconds), which comes back in the answer.
    """

    urgent: ClassVar[bool] = True
    term: int
    prev_index: int
    prev_term: int
    entries: list[tuple[int, bytes]]
    commit_index: int
    clock_ms: int
    echo: float


class Appended(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """The answer to an `Append` with this `prev_index` and `echo`.

    ok: every entry up to `match_index` is durable here and the same as the leader's.
    not ok: the entry before was another one; the leader may go on at `next_index`.
    counts: this replica's word may count towards a majority (see `cluster.standing`).
    wall_ms, clock_ms: its wall clock, and the cluster time it has come to (0: unknown).
    """

    urgent: ClassVar[bool] = False
    term: int
    ok: bool
    prev_index: int
    match_index: int
    next_index: int
    echo: float
    wall_ms: int
    room_ok: bool
    counts: bool
    clock_ms: int = 0


class PreVote(msgspec.Struct, array_like=True, frozen=True, tag=3):
    """Would you vote for me in `term`, which I have not begun? → `PreVoted` with the same `round`."""

    urgent: ClassVar[bool] = True
    term: int
    last_index: int
    last_term: int
    round: int


class PreVoted(msgspec.Struct, array_like=True, frozen=True, tag=4):
    """Whether I would. `term` is my own term."""

    urgent: ClassVar[bool] = True
    term: int
    round: int
    granted: bool


class RequestVote(msgspec.Struct, array_like=True, frozen=True, tag=5):
    """I have begun `term` and voted for myself. → `Vote`, or silence. `forced`: the leader itself asked me to."""

    urgent: ClassVar[bool] = False
    term: int
    last_index: int
    last_term: int
    forced: bool


class Vote(msgspec.Struct, array_like=True, frozen=True, tag=6):
    """You have my only vote in `term`."""

    urgent: ClassVar[bool] = False
    term: int


class TimeoutNow(msgspec.Struct, array_like=True, frozen=True, tag=7):
    """The leader hands over: campaign at once."""

    urgent: ClassVar[bool] = True
    term: int


class Welcome(msgspec.Struct, array_like=True, frozen=True, tag=8):
    """The leader found that you know again all you may have promised before you forgot it: you are born."""

    urgent: ClassVar[bool] = True
    term: int


class Piece(msgspec.Struct, array_like=True, frozen=True, tag=9):
    """`data` of a snapshot of `size` bytes, whose last applied entry is `(index, index_term)`. → `PieceTaken`.

    `format` is the store's (`storage.migrations`).
    """

    urgent: ClassVar[bool] = True
    term: int
    index: int
    index_term: int
    size: int
    offset: int
    data: bytes
    format: int = 1


class PieceTaken(msgspec.Struct, array_like=True, frozen=True, tag=10):
    """The snapshot at `index` is here up to `offset`, or not needed any more if that is its size.

    A negative offset asks the leader to begin again, and not before so many seconds have passed.
    unfit: it came whole, and is not what it should be: the leader's own store may be damaged.
    Urgent: it opens the window and promises nothing. That a snapshot was installed shows in later answers only.
    """

    urgent: ClassVar[bool] = True
    term: int
    index: int
    offset: int
    unfit: bool = False


class Digest(msgspec.Struct, array_like=True, frozen=True, tag=20):
    """The digest of the span of my state that the mark at `index` asks for, in the pass `pass_ms` (`cluster.scrub`).

    `format` is that of my store: states of different formats are not to be compared.
    """

    urgent: ClassVar[bool] = True
    term: int
    index: int
    pass_ms: int
    format: int
    digest: bytes


class Ailing(msgspec.Struct, array_like=True, frozen=True, tag=21):
    """My store is damaged: can I be spared? → `Spared` with the same `round`, or silence (`cluster.repair`).

    Whoever spares me must hold everything up to `index`.
    """

    urgent: ClassVar[bool] = True
    term: int
    round: int
    index: int
    cause: str


class Spared(msgspec.Struct, array_like=True, frozen=True, tag=22):
    """You can be spared: I am sound, my word counts, and what you asked for is durable here.

    `membership` is what I have applied: who cannot read a store any more may remember members who have gone.
    """

    urgent: ClassVar[bool] = True
    term: int
    round: int
    membership: Membership | None = None


_Consensus = Append | Appended | PreVote | PreVoted | RequestVote | Vote | TimeoutNow | Welcome | Piece | PieceTaken
Message = _Consensus | Digest | Ailing | Spared

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode_message(message: Message) -> bytes:
    """Encode one message."""
    return _encoder.encode(message)


def decode_message(data: bytes | memoryview) -> Message:
    """Decode one message. Raises `ValueError` (msgspec's is one) when the bytes are none."""
    return _decoder.decode(data)
