"""The protocol on a shard's port: what gateways and other replicas send over one connection.

    frame = bytes u32 | kind u8 | payload        `bytes` counts kind and payload, at most `FRAME_BYTES_MAX`

The dialling side opens with HELLO, the other answers with HELLO or REFUSED and closes. Until then nothing but a small
HELLO is accepted; what else arrives closes the connection unread. Replicas dial one another and use the connection they
dialled only to send, so messages from one replica to another have one connection, one order, and one beginning.

Over TLS (`cluster.tls`), the name in a HELLO must be the one that the certificate speaks for.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable
from typing import Literal, cast

import msgspec

from cluster.metrics import GatewayMetrics, ShardMetrics
from cluster.tls import certified_name, why
from storage.limits import OPERATION_BYTES_MAX
from storage.operations import Outcome, Query

VERSION = 1
FRAME_BYTES_MAX = 2 * OPERATION_BYTES_MAX
"""A frame carries at least one whole operation, and may be filled up with others to twice that."""
HELLO_BYTES_MAX = 4096
"""Before it is known who speaks, nobody gets more of the memory than this."""
HELLO_TIMEOUT_S = 2.0
"""How long a new connection may take to say who it is."""

HELLO, REFUSED, RAFT, PING, OPERATIONS, CANCEL, OUTCOMES, REPORT, ASK, TOLD, REMOVED = range(1, 12)

HEADER = struct.Struct("<IB")
CANCEL_PAYLOAD = struct.Struct("<QQ")


class Hello(msgspec.Struct, frozen=True, tag="trimaran"):
    """Who speaks: `role` is "replica" or "gateway". `cluster` names the cluster that it belongs to.

    A replica also says whether it is born (`cluster.standing`) and whether it is blank (`cluster.admission`), where
    the others reach it, and which data it speaks for: a number made with its data directory.
    """

    version: int
    cluster: str
    shard: int
    role: str
    name: str
    born: bool = False
    blank: bool = False
    address: str = ""
    data: str = ""


class MemberReport(msgspec.Struct, array_like=True, frozen=True):
    """A member as a replica sees it. What a leader knows: up to where it holds the log, and how much of a copy."""

    name: str
    address: str
    voter: bool
    held_index: int | None = None
    copy_percent: int | None = None


class ScrubReport(msgspec.Struct, frozen=True):
    """What the scrub has come to at one replica since its process began; times in cluster milliseconds, 0 for never.

    bytes: read again. began_ms, ended_ms: of the last whole pass. disagreement: that replicas differ and no majority
    agrees. ailing: the replicas known to be damaged, and why.
    """

    bytes: int = 0
    passes: int = 0
    began_ms: int = 0
    ended_ms: int = 0
    damages: int = 0
    repairs: int = 0
    disagreement: str | None = None
    ailing: dict[str, str] = {}


class Report(msgspec.Struct, array_like=True, frozen=True):
    """What a shard's replica tells its gateways when it changes, and every now and then.

    serving: this replica leads and can take operations. has_quorum: it hears a majority of the replicas.
    trouble: why this replica is not fit to serve, in one sentence, or None. members: those in force here;
    `members_version` counts how often that has changed. is_removed: this replica is none, and never will be again.
    access_index: the log entry that last made or revoked an access key, as far as this replica has applied.
    """

    node: str
    leader: str | None
    term: int
    commit_index: int
    applied_index: int
    serving: bool
    has_quorum: bool
    trouble: str | None
    cluster: str = ""
    members_version: int = 0
    members: list[MemberReport] = []
    is_removed: bool = False
    scrub: ScrubReport = ScrubReport()
    access_index: int = 0


class AskDigest(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """A gateway asks this very replica, leading or not, for the digest of its state. → `ToldDigest`."""

    number: int


class AskLook(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """A gateway asks this very replica what it has applied, however stale that is. → `ToldLook`."""

    number: int
    query: Query


class ToldLook(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """The answer to the question of this `number`, from the state as of `applied_index`. See `cluster.freshness`.

    `block` holds the bodies that belong to a `Page`. staleness_ms: None if this replica has not been told what is
    committed since it started.
    """

    number: int
    outcome: Outcome
    block: bytes
    applied_index: int
    staleness_ms: int | None


class AskChange(msgspec.Struct, array_like=True, frozen=True, tag=3):
    """A gateway asks the leader for another membership. → `ToldChange`, once it is committed; silence elsewhere."""

    number: int
    verb: Literal["add", "remove", "move"]
    name: str
    address: str = ""


class ToldChange(msgspec.Struct, array_like=True, frozen=True, tag=3):
    """It is so now, or else the code and the words of the refusal (`ChangeRefusedError`)."""

    number: int
    code: str = ""
    detail: str = ""


class ToldDigest(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """The answer to the question of this `number`: the state's digest as of `applied_index`, or the `trouble`."""

    number: int
    applied_index: int
    digest: bytes
    records: int
    trouble: str | None = None


class AskScrub(msgspec.Struct, array_like=True, frozen=True, tag=4):
    """A gateway asks the leader to begin a pass of the scrub as soon as the one under way has ended. → `ToldScrub`."""

    number: int


class ToldScrub(msgspec.Struct, array_like=True, frozen=True, tag=4):
    """The answer to the question of this `number`: a pass begins after `asked_ms`, unless there is `trouble`."""

    number: int
    trouble: str | None
    asked_ms: int = 0


class AskMetrics(msgspec.Struct, array_like=True, frozen=True, tag=5):
    """The gateway `name` hands in its own numbers, and asks for those of this very replica. → `ToldMetrics`."""

    number: int
    name: str
    own: GatewayMetrics


class ToldMetrics(msgspec.Struct, array_like=True, frozen=True, tag=5):
    """The replica's numbers, and what the node's gateways that are connected last handed in, by name."""

    number: int
    shard: ShardMetrics
    gateways: dict[str, GatewayMetrics]


Ask = AskDigest | AskLook | AskChange | AskScrub | AskMetrics
Told = ToldDigest | ToldLook | ToldChange | ToldScrub | ToldMetrics
ask_decoder: msgspec.msgpack.Decoder[Ask] = msgspec.msgpack.Decoder(Ask)
told_decoder: msgspec.msgpack.Decoder[Told] = msgspec.msgpack.Decoder(Told)
hello_decoder = msgspec.json.Decoder(Hello)
report_decoder = msgspec.msgpack.Decoder(Report)


def frame(kind: int, *payload: bytes | memoryview) -> bytes:
    """Encode one frame."""
    return b"".join((HEADER.pack(1 + sum(map(len, payload)), kind), *payload))


class Connection(asyncio.Protocol):
    """One connection, cut into frames.

    `on_frame(connection, kind, payload)` may raise `ValueError`: the connection is then closed.
    """

    def __init__(
        self, on_frame: Callable[[Connection, int, memoryview], None], on_lost: Callable[[Connection], None]
    ) -> None:
        self._on_frame, self._on_lost = on_frame, on_lost
        self._buffer = bytearray()
        self._closing = False
        self.transport: asyncio.Transport | None = None
        self.needs_certificate = False
        """Set before the connection is made: without a certificate of a node it ends there."""
        self.expects: str | None = None
        """The node that was dialled: a certificate of another one ends the connection."""
        self.certified: str | None = None
        """The node that the other end's certificate speaks for; None on a connection without TLS."""
        self.peer: Hello | None = None
        """Who is at the other end, once it is known."""
        self.heard_s = time.monotonic()
        """When bytes last arrived, by the monotonic clock; in the beginning, now."""
        self.settled = asyncio.Event()
        """Set when it is known, or when the connection is gone."""
        self.trouble = ""
        """Why the connection was closed by this end, or lost, as far as there is a reason to tell."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of `asyncio.Protocol`. Over TLS, the handshake is done."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one without saying so
        if self.needs_certificate:
            self.certified = certified_name(transport.get_extra_info("peercert") or {})
            if not self.certified:
                self._give_up("its certificate names no node")
            elif self.expects not in (None, self.certified):
                self._give_up(f"its certificate is of {self.certified}")

    def introduce(self, peer: Hello) -> None:
        """It is known who is at the other end."""
        self.peer = peer
        self.settled.set()

    def refuse(self, trouble: str, kind: int = REFUSED) -> None:
        """Tell the other end why it is not welcome (`REMOVED`: and never will be again), and close."""
        self.send(kind, trouble.encode())
        self.trouble, self._closing = trouble, True
        if self.transport is not None:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Part of `asyncio.Protocol`."""
        self.heard_s = time.monotonic()
        if self._closing:
            return
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._needed():
                return
            data = bytes(self._buffer)
            self._buffer.clear()
        view, position = memoryview(data), 0
        while len(view) - position >= HEADER.size:
            size, kind = HEADER.unpack_from(view, position)
            if self.peer is None and kind not in (HELLO, REFUSED, REMOVED):
                self._give_up("it did not begin with a hello")
                return
            if not 1 <= size <= (FRAME_BYTES_MAX if self.peer is not None else HELLO_BYTES_MAX):
                self._give_up(f"it sent a frame of {size} bytes")
                return
            end = position + HEADER.size - 1 + size
            if end > len(view):
                break
            try:
                self._on_frame(self, kind, view[position + HEADER.size : end])
            except ValueError as error:
                self._give_up(str(error))
                return
            if self.transport is None or self._closing:
                return
            position = end
        self._buffer += view[position:]

    def _needed(self) -> int:
        if len(self._buffer) < HEADER.size:
            return HEADER.size
        size, _ = HEADER.unpack_from(self._buffer)
        limit = FRAME_BYTES_MAX if self.peer is not None else HELLO_BYTES_MAX
        return HEADER.size - 1 + min(int(size), limit + 1)

    def connection_lost(self, error: Exception | None) -> None:
        """Part of `asyncio.Protocol`."""
        self.transport = None
        self._buffer.clear()
        self.trouble = self.trouble or (why(error) if error is not None else "")
        self.settled.set()
        self._on_lost(self)

    def send(self, kind: int, *payload: bytes | memoryview) -> None:
        """Send one frame; nothing happens when the connection is gone."""
        if self.transport is not None:
            self.transport.write(frame(kind, *payload))

    def close(self) -> None:
        """Close at once."""
        self._closing = True
        if self.transport is not None:
            self.transport.abort()

    def _give_up(self, trouble: str) -> None:
        self.trouble = trouble
        self.close()
