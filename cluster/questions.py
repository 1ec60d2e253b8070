"""What a gateway asks of replicas beside operations: numbers, digests, looks, and changes of the members.

Nothing here is logged as an operation is, and nothing is remembered: who gets no answer may ask again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import msgspec

from cluster.links import Leader, Links
from cluster.membership import ChangeRefusedError
from cluster.metrics import GatewayMetrics
from cluster.status import Status, read_status
from cluster.tls import Tls
from cluster.trouble import ALONE, NO_SHARD, ClusterTrouble
from cluster.wire import (
    ASK,
    Ask,
    AskChange,
    AskDigest,
    AskLook,
    AskMetrics,
    AskScrub,
    Connection,
    Told,
    ToldChange,
    ToldDigest,
    ToldLook,
    ToldMetrics,
    ToldScrub,
)
from storage.operations import Query


class ShardDigest(msgspec.Struct, frozen=True):
    """The digest of one replica's state as of `applied_index`: replicas at the same index have the same."""

    shard: int
    applied_index: int
    digest: str
    records: int


@dataclass(slots=True, eq=False)
class _Change:
    """A change of the members under way. `sent_to` is where it was last sent."""

    question: bytes
    sent_to: Leader | None = None


class Questions:
    """The part of a gateway's client that asks. `cluster.client.Client` is the whole."""

    def __init__(self, node: str, own: str, tls: Tls | None) -> None:
        """`own` is where the replica of `node`, which is this one, listens: "unix:PATH"."""
        self._node, self._tls = node, tls
        self._seq_asked = 0
        self._questions: dict[int, asyncio.Future[Told]] = {}
        self._changes: dict[int, _Change] = {}
        self._links = Links(
            node,
            own,
            tls,
            on_outcomes=self._on_outcomes,
            on_told=self._on_told,
            on_leader=self._on_leader,
            on_own_lost=self._on_own_lost,
            on_lonely=self._on_lonely,
        )

    def _on_outcomes(self, payload: memoryview) -> None:
        raise NotImplementedError

    def _on_lonely(self) -> None:
        raise NotImplementedError

    def _on_leader(self, leader: Leader) -> None:
        """There is a report of who leads: whatever an older one has not answered is asked again."""
        for change in self._changes.values():
            self._send_change(change, leader)

    def _on_own_lost(self) -> None:
        for question in self._questions.values():
            if not question.done():
                question.set_exception(_no_shard())

    def _on_told(self, told: Told) -> None:
        question = self._questions.get(told.number)
        if question is not None and not question.done():
            question.set_result(told)

    def _refuse_if_hopeless(self) -> None:
        """Raise `ClusterTrouble` when nothing can come of asking."""
        own = self._links.own.report
        if own is not None and own.is_removed:
            raise ClusterTrouble("not_done", f"{self._node} was removed from the cluster")
        if self._links.is_lonely:
            raise ClusterTrouble("not_done", ALONE)

    def status(self) -> Status:
        """What this node knows now. No I/O."""
        return read_status(self._node, self._links, self._tls)

    # --- the leader ---------------------------------------------------------------------------------------------------

    async def change(
        self, verb: Literal["add", "remove", "move"], name: str, address: str = "", *, timeout_ms: int
    ) -> None:
        """Have the leader add a learner, or remove or move a member, and wait until that is committed.

        Asked of the next leader again when leaders change, which is harmless: what is so already is not done again.
        Raises `ChangeRefusedError`, and `ClusterTrouble` when there is no answer after `timeout_ms`.
        """
        self._refuse_if_hopeless()
        self._seq_asked += 1
        number = self._seq_asked
        told: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        self._questions[number] = told
        change = self._changes[number] = _Change(msgspec.msgpack.encode(AskChange(number, verb, name, address)))
        if self._links.leader is not None:
            self._send_change(change, self._links.leader)
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                answer = await told
        except (TimeoutError, ClusterTrouble):
            outcome: Literal["not_done", "unknown"] = "unknown" if change.sent_to is not None else "not_done"
            raise ClusterTrouble(outcome, "the cluster did not answer in time") from None
        finally:
            del self._questions[number], self._changes[number]
        assert isinstance(answer, ToldChange)
        if answer.code:
            raise ChangeRefusedError(answer.code, answer.detail)

    def _send_change(self, change: _Change, leader: Leader) -> None:
        if change.sent_to != leader:
            change.sent_to = leader
            leader.connection.send(ASK, change.question)

    def access_index(self) -> int | None:
        """The log entry that last made or revoked an access key, as the leader last said; None while none is known."""
        link = self._links.of(self._links.leader.name) if self._links.leader is not None else None
        return None if link is None or link.report is None else link.report.access_index

    async def scrub(self, *, timeout_ms: int) -> int:
        """Have the leader begin a pass of the scrub, after this cluster time. Raises `ClusterTrouble`."""
        if self._links.leader is None:
            raise ClusterTrouble("not_done", "no leader is known")
        told = await self._ask(AskScrub, timeout_ms, self._links.leader.connection)
        assert isinstance(told, ToldScrub)
        if told.trouble is not None:
            raise ClusterTrouble("not_done", told.trouble)
        return told.asked_ms

    # --- this node's replica ------------------------------------------------------------------------------------------

    async def digest(self, *, timeout_ms: int) -> ShardDigest:
        """The digest of this node's own replica. Raises `ClusterTrouble`."""
        told = await self._ask(AskDigest, timeout_ms)
        assert isinstance(told, ToldDigest)
        if told.trouble is not None:
            raise ClusterTrouble("not_done", told.trouble)
        return ShardDigest(0, told.applied_index, told.digest.hex(), told.records)

    async def metrics(self, name: str, own: GatewayMetrics, *, timeout_ms: int) -> ToldMetrics:
        """Hand in this gateway's numbers, and get those of the node's replica and of all its gateways.

        Raises `ClusterTrouble`.
        """
        told = await self._ask(lambda number: AskMetrics(number, name, own), timeout_ms)
        assert isinstance(told, ToldMetrics)
        return told

    async def look(self, query: Query, *, timeout_ms: int) -> ToldLook:
        """What this node's own replica has applied says to `query`, however stale it is. Raises `ClusterTrouble`."""
        told = await self._ask(lambda number: AskLook(number, query), timeout_ms)
        assert isinstance(told, ToldLook)
        return told

    async def _ask(self, question: Callable[[int], Ask], timeout_ms: int, connection: Connection | None = None) -> Told:
        """Ask this node's replica, or the one at the other end of `connection`."""
        connection = connection or self._links.own.connection
        if connection is None:
            raise _no_shard()
        self._seq_asked += 1
        number = self._seq_asked
        told: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        self._questions[number] = told
        connection.send(ASK, msgspec.msgpack.encode(question(number)))
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                return await told
        except TimeoutError:
            raise ClusterTrouble("not_done", "this node's shard did not answer in time") from None
        finally:
            del self._questions[number]


def _no_shard() -> ClusterTrouble:
    return ClusterTrouble("not_done", NO_SHARD)
