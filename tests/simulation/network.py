"""A network of machines: connections that keep order, and what happens to them.

A connection delivers in order or breaks, as TCP does. A blocked direction holds back what is sent until it is opened
again; a machine without power says nothing, and answers with a reset when it is back. Delays come from a stream of
chance of each direction's own, so that what one connection does changes nothing for another.
"""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Callable
from math import ceil
from typing import Any

from tests.simulation.clockwork import Clockwork, Process

LOCAL_DELAY_S = (0.00002, 0.0001)
SYN_AGAIN_S = 1.0
"""When a dial that was not answered is tried again by the kernel."""


class End(asyncio.Transport):
    """One end of a connection. What it sends arrives at `other`."""

    def __init__(self, network: Network, process: Process, far: str) -> None:
        super().__init__()
        self._network, self.process = network, process
        self.way = (process.machine.name, far)
        self.protocol: Any = None
        self.other: End | None = None
        self.is_open = True
        self.is_cut = False
        self.arrival_s = 0.0
        self.held: list[tuple[float, bytes | None]] = []
        self.silenced_s: float | None = None
        self._early: list[bytes] = []
        network.ends.append(self)

    # --- asyncio's side ---

    def write(self, data: Any) -> None:
        if self.is_open and not self.process.is_dead:
            self._send(bytes(data))

    def abort(self) -> None:
        if self.is_open and not self.process.is_dead:
            self.is_open = False
            self._send(None)
            self.process.loop.call_soon(self._lose, None)

    close = abort

    def is_closing(self) -> bool:
        return not self.is_open

    # --- the wire's side ---

    def _send(self, data: bytes | None) -> None:
        """Put data, or the end of it (None), on its way."""
        if self.is_cut:
            self._network.sent_in_vain(self)
            return
        network = self._network
        now_s = self.process.now_s()
        self.arrival_s = max(network.grained_s(now_s + network.delay_s(self.way)), self.arrival_s)
        network.clockwork.arrival(self.arrival_s, network.order(self.way), self.arrive, now_s, data)

    def arrive(self, left_s: float, data: bytes | None) -> None:
        other = self.other
        if self.is_cut or other is None or (self.silenced_s is not None and left_s > self.silenced_s):
            return
        if self.held or self.way in self._network.blocked:
            self.held.append((left_s, data))
            self._network.holding[self] = None
            return
        if data is None:
            other.lose(None)
        elif not other.process.is_dead:
            self._network.carried += 1
            other.process.dispatch(other.receive, data)

    def open_again(self) -> None:
        held, self.held = self.held, []
        for left_s, data in held:
            self.arrive(left_s, data)

    def adopt(self, protocol: Any) -> None:
        """From now on `protocol` takes what arrives, beginning with what the kernel has kept for it."""
        self.protocol = protocol
        protocol.connection_made(self)
        early, self._early = self._early, []
        for data in early:
            protocol.data_received(data)
        if not self.is_open:
            protocol.connection_lost(None)

    def receive(self, data: bytes) -> None:
        if not self.is_open:
            return
        if self.protocol is None:
            self._early.append(data)
        else:
            self.protocol.data_received(data)

    def lose(self, error: Exception | None) -> None:
        """This end learns that the connection is gone."""
        if not self.process.is_dead:
            self.process.dispatch(self._lost, error)

    def _lost(self, error: Exception | None) -> None:
        if self.is_open:
            self.is_open = False
            if not self.is_cut:
                self._send(None)
            self._lose(error)

    def _lose(self, error: Exception | None) -> None:
        self._network.forget(self)
        if self.protocol is not None:
            self.protocol.connection_lost(error)


class Network:
    """All machines, listeners and connections."""

    def __init__(self, clockwork: Clockwork, seed: str, delay_s: tuple[float, float], grain_s: float) -> None:
        self.clockwork = clockwork
        self._seed, self._delay_s, self._grain_s = seed, delay_s, grain_s
        self._chance: dict[tuple[str, str], Callable[[], float]] = {}
        self._order: dict[tuple[str, str], int] = {}
        self.slow_s: dict[tuple[str, str], float] = {}
        self.blocked: set[tuple[str, str]] = set()
        self.ends: list[End] = []
        self.holding: dict[End, None] = {}
        """Ends whose data are held back, also of processes that have ended since."""
        self.listeners: dict[tuple[Any, Any], Socket] = {}
        self.dark: set[str] = set()
        """Machines without power."""
        self.in_vain: dict[str, dict[End, None]] = {}
        """Machine without power → ends on which something was sent to it since."""
        self.carried = 0

    def chance(self, way: tuple[str, str]) -> float:
        stream = self._chance.get(way)
        if stream is None:
            stream = self._chance[way] = random.Random(f"{self._seed} {way[0]} {way[1]}").random
        return stream()

    def delay_s(self, way: tuple[str, str]) -> float:
        low_s, high_s = LOCAL_DELAY_S if way[0] == way[1] else self._delay_s
        return low_s + (high_s - low_s) * self.chance(way) + self.slow_s.get(way, 0.0)

    def order(self, way: tuple[str, str]) -> int:
        """Which of the things that arrive at one moment comes first, whichever was sent first: one way's before
        another's."""
        order = self._order.get(way, zlib.crc32(f"{way[0]} {way[1]}".encode()) << 28)
        self._order[way] = order + 1
        return order

    def grained_s(self, at_s: float) -> float:
        """When that arrives which would be there at `at_s`."""
        return ceil(at_s / self._grain_s) * self._grain_s if self._grain_s else at_s

    # --- dialling ---

    async def accept(self, process: Process, listening: Socket) -> tuple[Socket, tuple[str, int]]:
        while not listening.backlog:
            listening.waiter = process.loop.create_future()
            await listening.waiter
        end = listening.backlog.pop(0)
        return Socket(self, end=end), (end.way[1], 0)

    async def dial(self, process: Process, factory: Callable[[], Any], address: tuple[Any, Any]) -> Any:
        """Connect to `address`, whose first part is the name of a machine."""
        answer: asyncio.Future[tuple[End, Any]] = process.loop.create_future()
        here, there = process.machine.name, address[0]

        def knock() -> None:
            if answer.done() or process.is_dead:
                return
            if there in self.dark or (here, there) in self.blocked or (there, here) in self.blocked:
                self.clockwork.later(SYN_AGAIN_S, knock)
                return
            back_s = self.delay_s((there, here))
            listener = self.listeners.get(address)
            if listener is None or listener.process.is_dead:
                self.clockwork.later(back_s, process.dispatch, refuse)
                return
            far = End(self, listener.process, here)
            near = End(self, process, there)
            near.other, far.other = far, near
            far.arrival_s = self.clockwork.now_s + back_s
            listener.process.dispatch(listener.arrived, far)
            self.clockwork.later(back_s, process.dispatch, greeted, near)

        def refuse() -> None:
            if not answer.done():
                answer.set_exception(ConnectionRefusedError(111, "Connection refused"))

        def greeted(end: End) -> None:
            if answer.done() or not end.is_open:
                end.abort()
                refuse()
                return
            end.adopt(factory())
            answer.set_result((end, end.protocol))

        self.clockwork.at(process.now_s() + self.delay_s((here, there)), None, knock)
        return await answer

    def forget(self, end: End) -> None:
        if end in self.ends:
            self.ends.remove(end)

    # --- trouble ---

    def block(self, ways: list[tuple[str, str]]) -> None:
        self.blocked.update(ways)

    def unblock(self, ways: list[tuple[str, str]]) -> None:
        self.blocked.difference_update(ways)
        for end in list(self.holding):
            if end.way not in self.blocked:
                del self.holding[end]
                end.open_again()

    def cut(self, one: str, other: str) -> None:
        """Break every connection between two machines; each end notices in its own time."""
        for end in list(self.ends):
            if end.way in ((one, other), (other, one)):
                self._break(end, 0.3 * self.chance(end.way))

    def _break(self, end: End, notice_s: float) -> None:
        end.is_cut = True
        end.held.clear()
        self.clockwork.later(notice_s, end.lose, ConnectionResetError(104, "Connection reset by peer"))

    def end_process(self, process: Process) -> None:
        """The kernel closes what a killed process had open; what it has not sent by now will never be sent."""
        for end in [end for end in self.ends if end.process is process]:
            self.forget(end)
            if not end.is_cut:
                end.silenced_s = self.clockwork.now_s
                end.arrival_s = max(self.clockwork.now_s + self.delay_s(end.way), end.arrival_s + 1e-9)
                self.clockwork.at(end.arrival_s, None, end.arrive, self.clockwork.now_s, None)
        self.listeners = {address: found for address, found in self.listeners.items() if found.process is not process}

    def darken(self, machine: str) -> None:
        """The machine has no power: its connections end without a word."""
        self.dark.add(machine)
        for end in [end for end in self.ends if end.process.machine.name == machine]:
            self.forget(end)
            end.is_cut = True
            if end.other is not None:
                end.other.is_cut = True

    def lighten(self, machine: str) -> None:
        """Power is back. The machine knows nothing of its old connections, and says so to whoever uses them."""
        self.dark.discard(machine)
        for end in self.in_vain.pop(machine, {}):
            self.clockwork.later(self.chance(end.way), end.lose, ConnectionResetError(104, "Connection reset by peer"))

    def sent_in_vain(self, end: End) -> None:
        """Something was sent on a connection that is no more: told as soon as the other machine can be heard."""
        here, there = end.way
        if there in self.dark:
            self.in_vain.setdefault(there, {})[end] = None
        elif (here, there) not in self.blocked and (there, here) not in self.blocked:
            self.clockwork.later(self.delay_s(end.way), end.lose, ConnectionResetError(104, "Connection reset by peer"))


class Socket:
    """Stands for `socket.socket`: one that listens, or one that was accepted."""

    def __init__(self, network: Network, *, end: End | None = None) -> None:
        self._network, self.end = network, end
        self._address: Any = None
        self.backlog: list[End] = []
        self.waiter: asyncio.Future[None] | None = None
        assert network.clockwork.current is not None, "only a process has sockets"
        self.process = network.clockwork.current

    def bind(self, address: Any) -> None:
        self._address = (self.process.machine.name, address) if isinstance(address, str) else tuple(address[:2])

    def listen(self, backlog: int) -> None:
        self._network.listeners[self._address] = self

    def arrived(self, end: End) -> None:
        """The kernel has made a connection, whether anybody takes it or not."""
        self.backlog.append(end)
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def setsockopt(self, *option: Any) -> None:
        """Nothing here depends on options."""

    def setblocking(self, flag: bool) -> None:
        """Nothing here blocks."""

    def getsockname(self) -> Any:
        return self._address

    def close(self) -> None:
        if self._network.listeners.get(self._address) is self and not self.process.is_dead:
            del self._network.listeners[self._address]
        if not self.process.is_dead:
            for end in self.backlog if self.end is None else [self.end]:
                end.abort()
