"""Connections between the replicas of a shard.

Each replica dials every other and sends only on the connection it dialled. A lost connection is told at once, and so is
a silent one: a machine that vanishes does not say goodbye. Members come and go (`follow`); one that this replica has
not heard of yet is dialled for as long as it keeps its own connection here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

import msgspec
import structlog

from cluster.messages import Message, encode_message
from cluster.process import forever
from cluster.sockets import dial
from cluster.tls import Tls
from cluster.wire import HELLO, HELLO_TIMEOUT_S, PING, RAFT, REFUSED, REMOVED, Connection, Hello, hello_decoder

PING_S = 0.1
"""How often something is sent on every connection, so that silence means something."""
SILENCE_S = 0.5
"""A replica not heard for so long does not count as reachable."""
GIVE_UP_S = 3.0
"""A connection to a replica silent for so long is closed and dialled again: it may lead to nowhere."""
REDIAL_S = (0.05, 1.0)
"""Pause before dialling again, from the first time to the last."""

_log = structlog.get_logger()


class Peers:
    """This replica's connections to the others."""

    def __init__(
        self,
        hello: Callable[[], Hello],
        *,
        welcome: Callable[[Hello], str],
        removed: Callable[[str], None],
        connected: Callable[[str, bool], None],
        disconnected: Callable[[str], None],
        tls: Tls | None = None,
    ) -> None:
        """What the caller knows and wants to know.

        hello() says who dials. welcome(hello): why what answers is not to be spoken with, or "". removed(words): a
        member says that this replica is none any more. connected, disconnected: a replica can be sent to, or not.
        """
        self._hello, self._welcome, self._removed = hello, welcome, removed
        self._connected, self._disconnected, self._tls = connected, disconnected, tls
        self._addresses: dict[str, tuple[str, ...]] = {}
        self._guests: set[str] = set()
        self._dialled: dict[str, Connection] = {}
        self._inbound: dict[str, Connection] = {}
        self._heard_s: dict[str, float] = {}
        self._used: dict[str, str] = {}
        self._redial: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._is_closed = False

    def start(self) -> None:
        """Begin to dial whom `follow` names."""
        self._tasks[""] = forever(self._ping())

    def follow(self, addresses: Mapping[str, tuple[str, ...]]) -> None:
        """These are the other members: all places where each may be, the likeliest first."""
        self._guests = {name for name in self._guests - addresses.keys() if name in self._inbound}
        for name in [name for name in self._addresses if name not in addresses and name not in self._guests]:
            self._leave(name)
        for name, places in addresses.items():
            self._dial_to(name, places)

    def _dial_to(self, name: str, places: tuple[str, ...]) -> None:
        is_new = name not in self._addresses
        self._addresses[name] = places
        if is_new:
            self._redial[name] = asyncio.Event()
            self._tasks[name] = forever(self._dial_on(name))

    def _leave(self, name: str) -> None:
        del self._addresses[name], self._redial[name]
        self._tasks.pop(name).cancel()
        if name in self._inbound:
            self._inbound[name].close()

    async def close(self) -> None:
        """Close every connection. Nothing more is told."""
        self._is_closed = True
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for connection in list(self._inbound.values()):
            connection.close()

    def reset(self) -> None:
        """Close every connection, to dial anew: this replica is not the one that the others were talking to."""
        for connection in [*self._dialled.values(), *self._inbound.values()]:
            connection.close()

    def send(self, node: str, message: Message) -> None:
        """Send to `node`; nothing happens when it is not connected."""
        connection = self._dialled.get(node)
        if connection is not None:
            connection.send(RAFT, encode_message(message))

    def reachable(self, node: str) -> bool:
        """Whether `node` is connected and was heard lately."""
        return node in self._dialled and time.monotonic() - self._heard_s.get(node, -SILENCE_S) < SILENCE_S

    def reached(self) -> list[str]:
        """The replicas that are connected and were heard lately."""
        return [name for name in self._dialled if self.reachable(name)]

    def address(self, node: str) -> str | None:
        """Where `node` was found when it was last connected."""
        return self._used.get(node)

    def has_other_data(self, hello: Hello) -> bool:
        """Whether somebody else is connected under this name, with other data, and alive."""
        connection = self._inbound.get(hello.name)
        peer = connection.peer if connection is not None else None
        return peer is not None and peer.data != hello.data and self.reachable(hello.name)

    def present(self) -> list[tuple[str, bool]]:
        """The replicas this one can send to now, and whether each is born."""
        return [(name, connection.peer.born) for name, connection in self._dialled.items() if connection.peer]

    def heard(self, node: str) -> None:
        """Something has arrived from `node`."""
        self._heard_s[node] = time.monotonic()

    def accepted(self, node: str, connection: Connection) -> None:
        """`node` has dialled this replica. Its older connection, if there is one, is closed and no longer heard."""
        older = self._inbound.get(node)
        self._inbound[node] = connection
        if older is not None:
            older.close()
        self.heard(node)
        if node not in self._addresses and connection.peer is not None and connection.peer.address:
            self._guests.add(node)
            self._dial_to(node, (connection.peer.address,))
        if node in self._redial:
            self._redial[node].set()

    def lost(self, node: str, connection: Connection) -> None:
        """A connection that `node` had dialled is gone: most likely so is `node`."""
        if self._inbound.get(node) is connection:
            del self._inbound[node]
            if node in self._dialled:
                self._dialled[node].close()
            if node in self._guests:
                self._guests.discard(node)
                self._leave(node)

    def is_current(self, node: str, connection: Connection) -> bool:
        """Whether this is the newest connection that `node` has dialled."""
        return self._inbound.get(node) is connection

    async def _dial_on(self, name: str) -> None:
        pause_s, said, turn = REDIAL_S[0], dict[str, str](), 0
        while True:
            places = self._addresses[name]
            address = places[turn % len(places)]
            trouble = await self._dial(name, address)
            if trouble and trouble != said.get(address):
                _log.warning("cannot reach replica", peer=name, address=address, cause=trouble)
            said[address] = trouble
            turn += bool(trouble)
            pause_s = min(2 * pause_s, REDIAL_S[1]) if trouble else REDIAL_S[0]
            self._redial[name].clear()
            try:
                async with asyncio.timeout(pause_s):
                    await self._redial[name].wait()
            except TimeoutError:
                pass

    async def _dial(self, name: str, address: str) -> str:
        """One connection from dialling to its loss. Returns why it did not come about, or nothing."""
        greeted: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        lost = asyncio.Event()

        def on_frame(connection: Connection, kind: int, payload: memoryview) -> None:
            if greeted.done():
                return
            if kind == HELLO:
                peer = hello_decoder.decode(payload)
                connection.introduce(peer)
                greeted.set_result(self._welcome(peer) if peer.name == name else f"it is {peer.name}")
            elif kind in (REFUSED, REMOVED):
                greeted.set_result(bytes(payload).decode(errors="replace"))
                if kind == REMOVED:
                    self._removed(greeted.result())

        def on_lost(connection: Connection) -> None:
            if not greeted.done():
                greeted.set_result(connection.trouble or "it closed the connection; its log may say why")
            lost.set()

        connection = Connection(on_frame, on_lost)
        try:
            await dial(connection, address, name, self._tls)
        except ConnectionError as error:
            return str(error)
        trouble = "no answer"
        try:
            connection.send(HELLO, msgspec.json.encode(self._hello()))
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                trouble = await greeted
        except TimeoutError:
            pass
        finally:
            if trouble:
                connection.close()
        if trouble or connection.peer is None:
            return trouble
        self._dialled[name], self._used[name] = connection, address
        _log.info("replica connected", peer=name)
        self._connected(name, connection.peer.born)
        try:
            await lost.wait()
        finally:
            connection.close()
            del self._dialled[name]
            if not self._is_closed:
                _log.warning("replica disconnected", peer=name)
                self._disconnected(name)
        return ""

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(PING_S)
            now_s = time.monotonic()
            for name, connection in list(self._dialled.items()):
                connection.send(PING)
                if now_s - self._heard_s.get(name, now_s) > GIVE_UP_S:
                    _log.warning("replica is silent", peer=name, silent_s=GIVE_UP_S)
                    self._heard_s[name] = now_s
                    connection.close()
