"""How a gateway reaches a shard: finds the leader, sends operations, and sends them again after a leader change.

The gateway keeps a connection to every replica; each reports whether it leads, and who the members are, so that a
gateway that knows its own node's replica finds the others. What is submitted within one pass of the loop leaves as one
frame. An operation keeps its id (session, seq) however often it is sent, so that it takes effect
once; the session forgets outcomes it has received by telling the leader up to where it has all of them.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, NamedTuple

import msgspec
import structlog

from cluster.membership import ChangeRefusedError
from cluster.metrics import GatewayMetrics
from cluster.peers import GIVE_UP_S, REDIAL_S
from cluster.process import forever
from cluster.sockets import dial
from cluster.tls import Tls
from cluster.wire import (
    ASK,
    CANCEL,
    CANCEL_PAYLOAD,
    FRAME_BYTES_MAX,
    HELLO,
    OPERATIONS,
    OUTCOMES,
    REFUSED,
    REMOVED,
    REPORT,
    TOLD,
    VERSION,
    Ask,
    AskChange,
    AskDigest,
    AskLook,
    AskMetrics,
    AskScrub,
    Connection,
    Hello,
    MemberReport,
    Report,
    ScrubReport,
    Told,
    ToldChange,
    ToldDigest,
    ToldLook,
    ToldMetrics,
    ToldScrub,
    hello_decoder,
    report_decoder,
    told_decoder,
)
from storage.limits import WAIT_MS_MAX
from storage.operations import (
    ITEM_HEADER,
    Claim,
    Forget,
    Keyed,
    Nack,
    Operation,
    Outcome,
    Query,
    Receive,
    Received,
    decode_outcome,
    encode_item,
)

NO_QUORUM_S = 0.3
"""How long this node's replica may be without a majority before what waits is answered with 503: well under a second
after the silence began, while an ordinary election, which a majority holds, is waited for."""
STALE_S = 1.5
"""A replica that has not reported for so long is not shown as reachable."""
NACK_TIMEOUT_MS = 5000
"""How long it is tried to give back what a consumer that has gone had received; after that its lease ends by itself."""

_log = structlog.get_logger()


class ClusterTrouble(Exception):
    """The cluster could not answer in time.

    `outcome` is "not_done" when the operation surely has not taken effect and never will, "unknown" when it may have.
    """

    def __init__(self, outcome: Literal["not_done", "unknown"], detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.detail = detail


class Reply(NamedTuple):
    """An outcome, and the block of message bodies that belongs to it (`Received`, `Page`), else empty."""

    outcome: Outcome
    block: memoryview


class NodeStatus(msgspec.Struct, frozen=True):
    """A member of the cluster as this node sees it.

    `role` is "voter" or "learner". What the leader says: `held_index`, up to where the member holds the log, and
    `copy_percent`, how much of a copy it has, while it gets one. `scrub`: what the member itself last reported.
    """

    name: str
    address: str
    reachable: bool
    role: str = "voter"
    held_index: int | None = None
    copy_percent: int | None = None
    scrub: ScrubReport | None = None


class ShardStatus(msgspec.Struct, frozen=True):
    """A shard as this node's replica sees it. `trouble` is None when it can serve, else why not, in one sentence."""

    shard: int
    leader: str | None
    term: int
    commit_index: int
    applied_index: int
    trouble: str | None = None


class ShardDigest(msgspec.Struct, frozen=True):
    """The digest of one replica's state as of `applied_index`: replicas at the same index have the same."""

    shard: int
    applied_index: int
    digest: str
    records: int


class Status(msgspec.Struct, frozen=True):
    """What this node knows of the cluster, without asking anyone.

    `warnings`: what may become trouble, in sentences. `cluster`: its identity.
    """

    node: str
    nodes: list[NodeStatus]
    shards: list[ShardStatus]
    warnings: list[str] = []
    cluster: str = ""


class _Leader(NamedTuple):
    """A leadership as this gateway reaches it: over another connection it is another one, and is asked again."""

    name: str
    term: int
    connection: Connection


@dataclass(slots=True, eq=False)
class _Call:
    """An operation under way. `sent_to` is where it was last sent."""

    seq: int
    item: bytes
    answer: asyncio.Future[Reply]
    receive: Receive | None
    is_keyed: bool
    sent_to: _Leader | None = None
    gone: bool = False
    """Its consumer has gone; a late delivery is given back."""


@dataclass(slots=True, eq=False)
class _Change:
    """A change of the members under way. `sent_to` is where it was last sent."""

    question: bytes
    sent_to: _Leader | None = None


class _Replica:
    """The connection to one replica, and what it last reported."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.report: Report | None = None
        self.heard_s = 0.0


class Client:
    """One gateway's way to a shard. `own` is where the replica of its own node listens: "unix:PATH"."""

    def __init__(self, node: str, own: str, tls: Tls | None = None) -> None:
        self._node, self._cluster, self._tls = node, "", tls
        self._addresses = {node: own}
        self._members: list[MemberReport] = []
        self._session = secrets.randbits(63) | 1
        self._seq = 0
        self._answered_below = 1
        self._told_below = 1
        self._calls: dict[int, _Call] = {}
        self._unsent: list[_Call] = []
        self._flushing = False
        self._replicas = {node: _Replica()}
        self._leader: _Leader | None = None
        self._lonely_since_s: float | None = time.monotonic()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._givebacks: set[asyncio.Task[None]] = set()
        self._seq_asked = 0
        self._questions: dict[int, asyncio.Future[Told]] = {}
        self._changes: dict[int, _Change] = {}

    async def start(self) -> None:
        """Begin to connect."""
        self._tasks = {self._node: forever(self._dial_on(self._node)), "": forever(self._watch())}

    async def close(self) -> None:
        """Close every connection. What is under way ends with `ClusterTrouble`."""
        tasks = [*self._tasks.values(), *self._givebacks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._fail_all("this gateway is stopping")

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
        leader = self._leader
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

    def _choose_leader(self) -> None:
        """Follow the newest leader; what an older one has not answered is sent again."""
        leaders = [
            _Leader(name, replica.report.term, replica.connection)
            for name, replica in self._replicas.items()
            if replica.report is not None and replica.report.serving and replica.connection is not None
        ]
        chosen = max(leaders, key=lambda leader: leader.term, default=None)
        if chosen != self._leader:
            self._leader = chosen
            _log.info("leader", leader=chosen.name if chosen else None, term=chosen.term if chosen else None)
        if chosen is not None:
            queued = {call.seq for call in self._unsent}
            again = [c for c in self._calls.values() if c.sent_to not in (None, chosen) and c.seq not in queued]
            self._unsent = again + self._unsent
            self._schedule_flush()
            self._send_changes()

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

    # --- connections --------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Keep connections to the members: those that the leader names, or else this node's replica."""
        named = [self._leader.name] if self._leader is not None else []
        reports = [self._replicas[name].report for name in (*named, self._node) if name in self._replicas]
        report = next((report for report in reports if report is not None and report.members), None)
        if report is None:
            return
        self._members = report.members
        addresses = {member.name: member.address for member in report.members if member.name != self._node}
        for name in self._addresses.keys() - addresses.keys() - {self._node}:
            self._tasks.pop(name).cancel()
            del self._addresses[name], self._replicas[name]
        for name, address in addresses.items():
            is_new, self._addresses[name] = name not in self._addresses, address
            if is_new:
                self._replicas[name] = _Replica()
                self._tasks[name] = forever(self._dial_on(name))

    async def _dial_on(self, name: str) -> None:
        pause_s, said = REDIAL_S[0], ""
        while True:
            trouble = await self._dial(name)
            if trouble and trouble != said:
                _log.warning("cannot reach shard", peer=name, cause=trouble)
            said = trouble
            pause_s = min(2 * pause_s, REDIAL_S[1]) if trouble else REDIAL_S[0]
            await asyncio.sleep(pause_s)

    async def _dial(self, name: str) -> str:
        """One connection from dialling to its loss. Returns why it did not come about, or nothing."""
        replica, lost = self._replicas[name], asyncio.Event()
        refused = ""

        def on_frame(connection: Connection, kind: int, payload: memoryview) -> None:
            nonlocal refused
            if kind in (REFUSED, REMOVED):
                refused = bytes(payload).decode(errors="replace")
            elif kind == HELLO:
                connection.introduce(hello_decoder.decode(payload))
                replica.connection = connection
            elif kind == OUTCOMES:
                self._on_outcomes(payload)
            elif kind == TOLD:
                self._on_told(told_decoder.decode(payload))
            elif kind == REPORT:
                replica.report, replica.heard_s = report_decoder.decode(payload), time.monotonic()
                if name == self._node:
                    self._cluster = replica.report.cluster
                    self._mind_quorum(replica.report.has_quorum)
                self._choose_leader()
                self._follow()

        def on_lost(connection: Connection) -> None:
            lost.set()

        connection = Connection(on_frame, on_lost)
        try:
            await dial(connection, self._addresses[name], name, self._tls)
        except ConnectionError as error:
            return str(error)
        hello = Hello(VERSION, self._cluster, 0, "gateway", self._node)
        connection.send(HELLO, msgspec.json.encode(hello))
        try:
            await self._hear_out(name, connection, lost)
        finally:
            connection.close()
            replica.connection = replica.report = None
            self._choose_leader()
        for question in self._questions.values() if name == self._node else ():
            if not question.done():
                question.set_exception(_no_shard())
        return refused or connection.trouble

    async def _hear_out(self, name: str, connection: Connection, lost: asyncio.Event) -> None:
        """Wait until the connection is lost, or end it when it is silent: shards report all the time.

        A machine that loses its power says no goodbye, and its next life knows nothing of the connection. Nothing is
        sent on it while another replica leads, so that nothing would tell.
        """
        while not lost.is_set():
            silent_s = time.monotonic() - connection.heard_s
            if silent_s > GIVE_UP_S:
                _log.warning("shard is silent", peer=name, silent_s=round(silent_s, 1))
                connection.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(GIVE_UP_S - silent_s, 0.0)):
                    await lost.wait()
            await asyncio.sleep(0)  # after a pause of this process, what has arrived meanwhile is read first

    # --- trouble ------------------------------------------------------------------------------------------------------

    def _mind_quorum(self, has_quorum: bool) -> None:
        if has_quorum:
            self._lonely_since_s = None
        elif self._lonely_since_s is None:
            self._lonely_since_s = time.monotonic()

    def _is_lonely(self) -> bool:
        """Whether this node has been without a majority for longer than an election should be waited for."""
        since_s = self._lonely_since_s
        return self._leader is None and since_s is not None and time.monotonic() - since_s > NO_QUORUM_S

    def _refuse_if_hopeless(self) -> None:
        """Raise `ClusterTrouble` when nothing can come of asking."""
        own = self._replicas[self._node].report
        if own is not None and own.is_removed:
            raise ClusterTrouble("not_done", f"{self._node} was removed from the cluster")
        if self._is_lonely():
            raise ClusterTrouble("not_done", "this node does not reach a majority of the cluster")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(NO_QUORUM_S / 3)
            if self._calls and self._is_lonely():
                self._fail_all("this node does not reach a majority of the cluster")

    # --- members ------------------------------------------------------------------------------------------------------

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
        self._send_changes()
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

    def _send_changes(self) -> None:
        leader = self._leader
        for change in self._changes.values() if leader is not None else ():
            if change.sent_to != leader and leader is not None:
                change.sent_to = leader
                leader.connection.send(ASK, change.question)

    def access_index(self) -> int | None:
        """The log entry that last made or revoked an access key, as the leader last said; None while none is known."""
        report = self._replicas[self._leader.name].report if self._leader is not None else None
        return None if report is None else report.access_index

    # --- this node's replica ------------------------------------------------------------------------------------------

    async def digest(self, *, timeout_ms: int) -> ShardDigest:
        """The digest of this node's own replica. Raises `ClusterTrouble`."""
        told = await self._ask(AskDigest, timeout_ms)
        assert isinstance(told, ToldDigest)
        if told.trouble is not None:
            raise ClusterTrouble("not_done", told.trouble)
        return ShardDigest(0, told.applied_index, told.digest.hex(), told.records)

    async def scrub(self, *, timeout_ms: int) -> int:
        """Have the leader begin a pass of the scrub, after this cluster time. Raises `ClusterTrouble`."""
        if self._leader is None:
            raise ClusterTrouble("not_done", "no leader is known")
        told = await self._ask(AskScrub, timeout_ms, self._leader.connection)
        assert isinstance(told, ToldScrub)
        if told.trouble is not None:
            raise ClusterTrouble("not_done", told.trouble)
        return told.asked_ms

    @property
    def under_way(self) -> int:
        """Operations that have no answer yet."""
        return len(self._calls)

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
        connection = connection or self._replicas[self._node].connection
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

    def _on_told(self, told: Told) -> None:
        question = self._questions.get(told.number)
        if question is not None and not question.done():
            question.set_result(told)

    def status(self) -> Status:
        """What this node knows now. No I/O."""
        now_s = time.monotonic()
        nodes = []
        for member in sorted(self._members, key=lambda member: member.name):
            replica = self._replicas.get(member.name)
            told = replica.report if replica is not None else None
            nodes.append(
                NodeStatus(
                    member.name,
                    member.address,
                    replica is not None and told is not None and now_s - replica.heard_s < STALE_S,
                    "voter" if member.voter else "learner",
                    member.held_index,
                    member.copy_percent,
                    told.scrub if told is not None else None,
                )
            )
        report = self._replicas[self._node].report
        if report is None:
            shard = ShardStatus(0, None, 0, 0, 0, "this node's shard does not answer")
        else:
            trouble = report.trouble
            if trouble is None and not report.has_quorum:
                trouble = "this node does not reach a majority of the cluster"
            shard = ShardStatus(0, report.leader, report.term, report.commit_index, report.applied_index, trouble)
        warning = self._tls.warning() if self._tls is not None else None
        return Status(self._node, nodes, [shard], [warning] if warning is not None else [], self._cluster)


def _no_shard() -> ClusterTrouble:
    return ClusterTrouble("not_done", "this node's shard does not answer")


def _wait_ms(receive: Receive) -> int:
    """How long a receive may wait: if its queue says, we do not know, and expect the longest."""
    return receive.wait_ms if receive.wait_ms >= 0 else WAIT_MS_MAX
