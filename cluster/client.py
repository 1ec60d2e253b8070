"""How a gateway has operations carried out by a shard: sends them to the leader, and again after a leader change.

What is submitted within one pass of the loop leaves as one frame. An operation keeps its id (session, seq) however
often it is sent, so that it takes effect once; the session forgets outcomes it has received by telling the leader up to
where it has all of them. Who leads is found out in `cluster.links`; what is asked beside operations is in
`cluster.questions`.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from typing import Literal, NamedTuple

import structlog

from cluster.links import Leader
from cluster.questions import Questions
from cluster.tls import Tls
from cluster.trouble import ALONE, ClusterTrouble
from cluster.wire import CANCEL, CANCEL_PAYLOAD, FRAME_BYTES_MAX, OPERATIONS
from storage.limits import WAIT_MS_MAX
from storage.operations import (
    ITEM_HEADER,
    Claim,
    Forget,
    Keyed,
    Nack,
    Operation,
    Outcome,
    Receive,
    Received,
    decode_outcome,
    encode_item,
)

NACK_TIMEOUT_MS = 5000
"""How long it is tried to give back what a consumer that has gone had received; after that its lease ends by itself."""

_log = structlog.get_logger()


class Reply(NamedTuple):
    """An outcome, and the block of message bodies that belongs to it (`Received`, `Page`), else empty."""

    outcome: Outcome
    block: memoryview


@dataclass(slots=True, eq=False)
class _Call:
    """An operation under way. `sent_to` is where it was last sent."""

    seq: int
    item: bytes
    answer: asyncio.Future[Reply]
    receive: Receive | None
    is_keyed: bool
    sent_to: Leader | None = None
    gone: bool = False
    """Its consumer has gone; a late delivery is given back."""


class Client(Questions):
    """One gateway's way to a shard. See `Questions` for what it is made of."""

    def __init__(self, node: str, own: str, tls: Tls | None = None) -> None:
        """`own` is where the replica of `node`, which is this one, listens: "unix:PATH"."""
        super().__init__(node, own, tls)
        self._session = secrets.randbits(63) | 1
        self._seq = 0
        self._answered_below = 1
        self._told_below = 1
        self._calls: dict[int, _Call] = {}
        self._unsent: list[_Call] = []
        self._flushing = False
        self._givebacks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to connect."""
        self._links.start()

    async def close(self) -> None:
        """Close every connection. What is under way ends with `ClusterTrouble`."""
        for task in self._givebacks:
            task.cancel()
        await asyncio.gather(*self._givebacks, self._links.close(), return_exceptions=True)
        self._fail_all("this gateway is stopping")

    @property
    def under_way(self) -> int:
        """Operations that have no answer yet."""
        return len(self._calls)

    # --- operations ---------------------------------------------------------------------------------------------------

    async def submit(self, operation: Operation, block: bytes = b"", *, timeout_ms: int) -> Reply:
        """Have `operation` carried out by the leader and return its outcome.

        Coalesced with what else is submitted in the same pass of the loop; retried under the same operation id through
        leader changes. A cancelled receive gives back what it may have leased, unless it has a key.
        Raises `ClusterTrouble` when there is no answer after `timeout_ms` (plus the `wait_ms` of a `Receive`).
        """
        self._refuse_if_hopeless()
        inner = operation.operation if type(operation) is Keyed else operation
        receive = inner if type(inner) is Receive else None
        self._seq += 1
        item = encode_item(self._session, self._seq, operation, block)
        loop = asyncio.get_running_loop()
        call = _Call(self._seq, item, loop.create_future(), receive, type(operation) is Keyed)
        self._calls[call.seq] = call
        self._unsent.append(call)
        self._schedule_flush()
        patience_s = (timeout_ms + (_wait_ms(receive) if receive is not None else 0)) / 1000
        timer = loop.call_later(patience_s, self._give_up, call, "the cluster did not answer in time")
        try:
            return await call.answer
        except asyncio.CancelledError:
            self._abandon(call)
            raise
        finally:
            timer.cancel()

    def _give_up(self, call: _Call, detail: str) -> None:
        if not call.answer.done():
            outcome: Literal["not_done", "unknown"] = "unknown" if call.sent_to is not None else "not_done"
            call.answer.set_exception(ClusterTrouble(outcome, detail))
        self._abandon(call)

    def _abandon(self, call: _Call) -> None:
        """Nobody waits for the answer any more. What was sent may still happen; a lease is then given back.

        Not one under a key: whoever has the key may ask again, on another node, and gets this very lease.
        """
        if call.sent_to is None or call.receive is None:
            self._finish(call)
            return
        call.sent_to.connection.send(CANCEL, CANCEL_PAYLOAD.pack(self._session, call.seq))
        if call.is_keyed:
            self._finish(call)
            return
        call.gone = True
        # Should the leader have logged it already, its outcome arrives within moments; else it never will.
        asyncio.get_running_loop().call_later(NACK_TIMEOUT_MS / 1000, self._finish, call)

    def _finish(self, call: _Call) -> None:
        self._calls.pop(call.seq, None)
        while self._answered_below <= self._seq and self._answered_below not in self._calls:
            self._answered_below += 1

    def _on_lonely(self) -> None:
        self._fail_all(ALONE)

    def _fail_all(self, detail: str) -> None:
        for call in list(self._calls.values()):
            self._give_up(call, detail)

    # --- sending ------------------------------------------------------------------------------------------------------

    def _schedule_flush(self) -> None:
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Send what waits, as one frame where it fits. Without a leader it goes on waiting."""
        self._flushing = False
        leader = self._links.leader
        if leader is None:
            return
        connection = leader.connection
        parts: list[bytes] = []
        size = 0
        if self._answered_below > self._told_below:
            self._told_below = self._answered_below
            parts.append(encode_item(self._session, 0, Forget(self._answered_below)))
        calls, self._unsent = self._unsent, []
        for call in calls:
            if call.seq not in self._calls or call.gone:
                continue
            if parts and size + len(call.item) > FRAME_BYTES_MAX // 2:
                connection.send(OPERATIONS, *parts)
                parts, size = [], 0
            call.sent_to = leader
            parts.append(call.item)
            size += len(call.item)
        if size:
            connection.send(OPERATIONS, *parts)

    def _on_leader(self, leader: Leader) -> None:
        super()._on_leader(leader)
        queued = {call.seq for call in self._unsent}
        again = [c for c in self._calls.values() if c.sent_to not in (None, leader) and c.seq not in queued]
        self._unsent = again + self._unsent
        self._schedule_flush()

    # --- answers ------------------------------------------------------------------------------------------------------

    def _on_outcomes(self, payload: memoryview) -> None:
        position = 0
        while position < len(payload):
            _, seq, outcome_bytes, block_bytes = ITEM_HEADER.unpack_from(payload, position)
            start = position + ITEM_HEADER.size
            position = start + outcome_bytes + block_bytes
            call = self._calls.get(seq)
            if call is None:
                continue
            outcome = decode_outcome(payload[start : start + outcome_bytes])
            self._finish(call)
            if call.gone or call.answer.done():
                self._give_back(call, outcome)
            else:
                call.answer.set_result(Reply(outcome, payload[start + outcome_bytes : position]))

    def _give_back(self, call: _Call, outcome: Outcome) -> None:
        """A consumer that has gone had received messages: the next should not wait for its lease to end."""
        if call.receive is None or type(outcome) is not Received or not outcome.deliveries:
            return
        claims = [Claim(outcome.token, delivery.message_id, delivery.count) for delivery in outcome.deliveries]
        nack = Nack(call.receive.queue, claims, 0, "the consumer went away before the answer")

        async def send() -> None:
            try:
                await self.submit(nack, timeout_ms=NACK_TIMEOUT_MS)
            except ClusterTrouble as trouble:
                _log.warning("a lost consumer's messages stay leased", queue=nack.queue, cause=trouble.detail)

        task = asyncio.create_task(send())
        self._givebacks.add(task)
        task.add_done_callback(self._givebacks.discard)


def _wait_ms(receive: Receive) -> int:
    """How long a receive may wait: if its queue says, we do not know, and expect the longest."""
    return receive.wait_ms if receive.wait_ms >= 0 else WAIT_MS_MAX
