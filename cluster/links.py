"""A gateway's connections to the replicas of a shard: who belongs to it, who leads it, and whether a majority is there.

There is one to every replica; each reports whether it leads, and who the members are, so that a gateway that knows its
own node's replica finds the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import msgspec
import structlog

from cluster.peers import GIVE_UP_S, REDIAL_S
from cluster.process import forever
from cluster.sockets import dial
from cluster.tls import Tls
from cluster.wire import (
    HELLO,
    OUTCOMES,
    REFUSED,
    REMOVED,
    REPORT,
    TOLD,
    VERSION,
    Connection,
    Hello,
    MemberReport,
    Report,
    Told,
    hello_decoder,
    report_decoder,
    told_decoder,
)

NO_QUORUM_S = 0.3
"""How long this node's replica may be without a majority before what waits is answered with 503: well under a second
after the silence began, while an ordinary election, which a majority holds, is waited for."""

_log = structlog.get_logger()


class Leader(NamedTuple):
    """A leadership as this gateway reaches it: over another connection it is another one, and is asked again."""

    name: str
    term: int
    connection: Connection


class Link:
    """The connection to one replica, and what it last reported."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.report: Report | None = None
        self.heard_s = 0.0


class Links:
    """Dials every replica, again and again. `node` is this one, `own` where its replica listens: "unix:PATH"."""

    def __init__(
        self,
        node: str,
        own: str,
        tls: Tls | None,
        *,
        on_outcomes: Callable[[memoryview], None],
        on_told: Callable[[Told], None],
        on_leader: Callable[[Leader], None],
        on_own_lost: Callable[[], None],
        on_lonely: Callable[[], None],
    ) -> None:
        """Call on_outcomes(payload) and on_told(told) with what replicas answer, on_leader(leader) with every report
        of one, new or not, on_own_lost() when the connection to this node's replica has ended, and on_lonely() time and
        again while `is_lonely`."""
        self._node, self._tls = node, tls
        self._on_outcomes, self._on_told = on_outcomes, on_told
        self._on_leader, self._on_own_lost, self._on_lonely = on_leader, on_own_lost, on_lonely
        self.cluster = ""
        """The cluster's identity, as this node's replica says."""
        self.members: list[MemberReport] = []
        self.leader: Leader | None = None
        self.own = Link()
        self._addresses = {node: own}
        self._links = {node: self.own}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._lonely_since_s: float | None = time.monotonic()

    def start(self) -> None:
        """Begin to connect."""
        self._tasks = {self._node: forever(self._dial_on(self._node)), "": forever(self._watch())}

    async def close(self) -> None:
        """Close every connection."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def of(self, name: str) -> Link | None:
        """The connection to a replica, if it is known."""
        return self._links.get(name)

    @property
    def is_lonely(self) -> bool:
        """Whether this node has been without a majority for longer than an election should be waited for."""
        since_s = self._lonely_since_s
        return self.leader is None and since_s is not None and time.monotonic() - since_s > NO_QUORUM_S

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(NO_QUORUM_S / 3)
            if self.is_lonely:
                self._on_lonely()

    def _mind_quorum(self, has_quorum: bool) -> None:
        if has_quorum:
            self._lonely_since_s = None
        elif self._lonely_since_s is None:
            self._lonely_since_s = time.monotonic()

    def _choose_leader(self) -> None:
        """Follow the newest leader."""
        leaders = [
            Leader(name, link.report.term, link.connection)
            for name, link in self._links.items()
            if link.report is not None and link.report.serving and link.connection is not None
        ]
        chosen = max(leaders, key=lambda leader: leader.term, default=None)
        if chosen != self.leader:
            self.leader = chosen
            _log.info("leader", leader=chosen.name if chosen else None, term=chosen.term if chosen else None)
        if chosen is not None:
            self._on_leader(chosen)

    def _follow(self) -> None:
        """Keep connections to the members: those that the leader names, or else this node's replica."""
        named = [self.leader.name] if self.leader is not None else []
        reports = [self._links[name].report for name in (*named, self._node) if name in self._links]
        report = next((report for report in reports if report is not None and report.members), None)
        if report is None:
            return
        self.members = report.members
        addresses = {member.name: member.address for member in report.members if member.name != self._node}
        for name in self._addresses.keys() - addresses.keys() - {self._node}:
            self._tasks.pop(name).cancel()
            del self._addresses[name], self._links[name]
        for name, address in addresses.items():
            is_new, self._addresses[name] = name not in self._addresses, address
            if is_new:
                self._links[name] = Link()
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
        link, lost = self._links[name], asyncio.Event()
        refused = ""

        def on_frame(connection: Connection, kind: int, payload: memoryview) -> None:
            nonlocal refused
            if kind in (REFUSED, REMOVED):
                refused = bytes(payload).decode(errors="replace")
            elif kind == HELLO:
                connection.introduce(hello_decoder.decode(payload))
                link.connection = connection
            elif kind == OUTCOMES:
                self._on_outcomes(payload)
            elif kind == TOLD:
                self._on_told(told_decoder.decode(payload))
            elif kind == REPORT:
                link.report, link.heard_s = report_decoder.decode(payload), time.monotonic()
                if name == self._node:
                    self.cluster = link.report.cluster
                    self._mind_quorum(link.report.has_quorum)
                self._choose_leader()
                self._follow()

        def on_lost(connection: Connection) -> None:
            lost.set()

        connection = Connection(on_frame, on_lost)
        try:
            await dial(connection, self._addresses[name], name, self._tls)
        except ConnectionError as error:
            return str(error)
        hello = Hello(VERSION, self.cluster, 0, "gateway", self._node)
        connection.send(HELLO, msgspec.json.encode(hello))
        try:
            await self._hear_out(name, connection, lost)
        finally:
            connection.close()
            link.connection = link.report = None
            self._choose_leader()
        if name == self._node:
            self._on_own_lost()
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
