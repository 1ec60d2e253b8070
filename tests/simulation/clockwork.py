"""One clock for a world of processes: an event loop of asyncio's kind on which the real code runs as it is.

Every process has a loop of its own, but all their events stand in one queue, ordered by time and by the order in which
they were asked for. A callback takes no time but what it spends at the disk (`Process.spend`); until that is over
whatever else concerns the process waits, as it does while the process is paused. Nothing here is left to chance.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from math import inf
from typing import Any

ARRIVALS = 1 << 62
"""Above the number of any event, and the order of any arrival."""
LATE_S = 1e-6
"""Timers are late, never early: whoever sleeps for the rest of a time wakes when it is over, whatever was rounded."""


class Killed(BaseException):
    """The process ends here, in the middle of whatever it does."""


class Handle(list[Any]):
    """Something to be done: [when_s, number, process, callback, args, context]. Part of asyncio's loop interface.

    A list, so that the queue orders handles without asking Python.
    """

    __slots__ = ()

    def cancel(self) -> None:
        self[3], self[4] = None, ()

    def cancelled(self) -> bool:
        return self[3] is None

    def when(self) -> float:
        when_s, process = self[0], self[2]
        return float(process.monotonic_at(when_s) if process is not None else when_s)


class Clockwork:
    """True time in seconds, and all that is going to happen."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.current: Process | None = None
        self.running: Loop | None = None
        self.events = 0
        self._is_halted = False
        self._queue: list[Handle] = []
        self._next = itertools.count().__next__

    def at(self, when_s: float, process: Process | None, callback: Callable[..., object], *args: Any) -> Handle:
        """Have `callback` called at `when_s`, in `process` or from outside."""
        handle = Handle((when_s, self._next(), process, callback, args, None))
        heapq.heappush(self._queue, handle)
        return handle

    def arrival(self, when_s: float, order: int, callback: Callable[..., object], *args: Any) -> None:
        """Have `callback` called from outside at `when_s`, before whatever else happens then; those by `order`."""
        heapq.heappush(self._queue, Handle((when_s, order - ARRIVALS, None, callback, args, None)))

    def later(self, delay_s: float, callback: Callable[..., object], *args: Any) -> Handle:
        """Have `callback` called from outside all processes in `delay_s`."""
        return self.at(self.now_s + delay_s, None, callback, *args)

    def run(self, until_s: float) -> None:
        """Let time pass until `until_s`."""
        queue = self._queue
        while queue and queue[0][0] <= until_s and not self._is_halted:
            handle = heapq.heappop(queue)
            when_s, _, process, callback, args, context = handle
            if callback is None:
                continue
            self.now_s = when_s
            if process is None:
                callback(*args)
            elif process.free_at_s <= when_s:
                self.events += 1
                process.run(callback, args, context)
            elif process.held is not None:
                process.held.append(handle)
            elif process.free_at_s < inf:
                self.put_off(handle, process.free_at_s)
        self.running = None
        asyncio._set_running_loop(None)
        if not self._is_halted:
            self.now_s = until_s

    def put_off(self, handle: Handle, when_s: float) -> None:
        """Do it later instead, but before what was asked for after it."""
        handle[0] = when_s
        heapq.heappush(self._queue, handle)

    def halt(self) -> None:
        """Let no more time pass."""
        self._is_halted = True


class Process:
    """A process of one machine. `ended(process, cause)` is called when it fails or kills itself."""

    def __init__(
        self, clockwork: Clockwork, name: str, machine: Any, ended: Callable[[Process, BaseException], None]
    ) -> None:
        self.clockwork, self.name, self.machine = clockwork, name, machine
        self._ended = ended
        self.loop = Loop(self)
        self.signals: dict[int, Callable[[], object]] = {}
        self.free_at_s = clockwork.now_s
        self.held: list[Handle] | None = None
        self.is_dead = False
        self._spent_s = self._busy_until_s = 0.0

    def now_s(self) -> float:
        """True time as this process has come to it: what it has spent in the present callback is over."""
        return self.clockwork.now_s + self._spent_s

    def monotonic(self) -> float:
        """This machine's monotonic clock."""
        machine = self.machine
        return float(machine.boot_s + (self.clockwork.now_s + self._spent_s) * machine.pace)

    def monotonic_at(self, when_s: float) -> float:
        return float(self.machine.boot_s + when_s * self.machine.pace)

    def true_time(self, monotonic_s: float) -> float:
        return float((monotonic_s - self.machine.boot_s) / self.machine.pace)

    def spend(self, seconds: float) -> None:
        """The present callback takes so much longer."""
        self._spent_s += seconds

    def run(self, callback: Callable[..., object], args: tuple[Any, ...], context: Any = None) -> None:
        """Call `callback` in this process now."""
        clockwork = self.clockwork
        clockwork.current, self._spent_s = self, 0.0
        if clockwork.running is not self.loop:
            clockwork.running = self.loop
            asyncio._set_running_loop(self.loop)
        try:
            if context is None:
                callback(*args)
            else:
                context.run(callback, *args)
        except Killed as killed:
            self._ended(self, killed)
        except Exception as error:
            self._surprise({"message": "an exception in a callback", "exception": error})
        finally:
            clockwork.current = None
            if not self.is_dead:
                self.free_at_s = clockwork.now_s + self._spent_s
            self._spent_s = 0.0

    def _surprise(self, context: dict[str, Any]) -> None:
        try:
            self.loop.call_exception_handler(context)
        except Killed as killed:
            self._ended(self, killed)

    def dispatch(self, callback: Callable[..., object], *args: Any) -> None:
        """Call `callback` in this process as soon as it is free, from outside."""
        clockwork = self.clockwork
        if self.is_dead:
            return
        if self.free_at_s <= clockwork.now_s and clockwork.current is None:
            clockwork.events += 1
            self.run(callback, args)
        else:
            clockwork.at(clockwork.now_s, self, callback, *args)

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Begin a task in this process."""
        self.dispatch(self.loop.create_task, coroutine)

    async def rest(self, seconds: float) -> None:
        """For a task of this process: let so much simulated time pass."""
        rested = self.loop.create_future()
        self.loop.call_later(seconds, lambda: rested.done() or rested.set_result(None))
        await rested

    def pause(self) -> None:
        """SIGSTOP."""
        if self.held is None and not self.is_dead:
            self.held, self._busy_until_s, self.free_at_s = [], self.free_at_s, inf

    def resume(self) -> None:
        """SIGCONT."""
        held, self.held = self.held, None
        if held is not None and not self.is_dead:
            self.free_at_s = max(self.clockwork.now_s, self._busy_until_s)
            for handle in held:
                self.clockwork.put_off(handle, self.clockwork.now_s)

    def kill(self) -> None:
        """The process is no more; nothing it had in mind happens.

        Its tasks are closed now, for their last words, which nobody hears, would else be said at any time.
        """
        self.is_dead, self.held, self.free_at_s = True, None, inf
        clockwork = self.clockwork
        current, clockwork.current = clockwork.current, self
        asyncio._set_running_loop(self.loop)  # what they ask for is asked of a loop that is no more
        for task in asyncio.all_tasks(self.loop):
            with suppress(BaseException):
                task.get_coro().close()  # type: ignore[union-attr]
        clockwork.current = current
        asyncio._set_running_loop(clockwork.running)


class Loop(asyncio.AbstractEventLoop):
    """What asyncio wants of a loop, as far as the code under test uses it. Sockets are the network's business."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.network: Any = process.machine.network
        self._exception_handler: Callable[[Any, dict[str, Any]], object] | None = None

    def time(self) -> float:
        return self.process.monotonic()

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Any = None) -> Any:
        process = self.process
        handle = process.clockwork.at(process.now_s(), process, callback, *args)
        handle[5] = context
        return handle

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None) -> Any:
        process = self.process
        handle = process.clockwork.at(
            process.now_s() + max(delay, 0.0) / process.machine.pace + LATE_S, process, callback, *args
        )
        handle[5] = context
        return handle

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, context: Any = None) -> Any:
        process = self.process
        handle = process.clockwork.at(max(process.true_time(when), process.now_s()) + LATE_S, process, callback, *args)
        handle[5] = context
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> asyncio.Task[Any]:
        if self.process.is_dead:
            coro.close()
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        return task

    def get_debug(self) -> bool:
        return False

    def is_closed(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: Any) -> None:
        self.process.signals[sig] = lambda: callback(*args)

    def set_exception_handler(self, handler: Any) -> None:
        self._exception_handler = handler

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self._exception_handler is not None and not self.process.is_dead:
            self._exception_handler(self, context)

    async def create_connection(self, factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        return await self.network.dial(self.process, factory, (host, port))

    async def create_unix_connection(self, factory: Any, path: Any = None, **_: Any) -> Any:
        return await self.network.dial(self.process, factory, (self.process.machine.name, path))

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, port))]

    async def sock_accept(self, sock: Any) -> Any:
        return await self.network.accept(self.process, sock)

    async def connect_accepted_socket(self, factory: Any, sock: Any, **_: Any) -> Any:
        sock.end.adopt(factory())
        return sock.end, sock.end.protocol
