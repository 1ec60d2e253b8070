"""Stopping without failing anybody: what a gateway does between SIGTERM and its end.

New connections are refused, waiting receives wait no longer, and every other answer says that its connection is
closed after it. Clients that keep a connection have a moment to use it once more and be told so; what is under way
after that is waited for as long as a request may take.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from aiohttp import web

from cluster.client import Reply
from cluster.trouble import ClusterTrouble
from storage.operations import Receive

LINGER_S = 0.25
"""How long an idle connection stays open, so that a request on its way to it is answered and not cut off."""


class Drain:
    """Whether this gateway is stopping; the receives that wait; and whether every client has gone."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.polls: set[asyncio.Task[Any]] = set()
        self.deserted = asyncio.Event()

    def begin(self) -> None:
        """The gateway is stopping: let no receive wait any longer."""
        self.begun.set()
        for poll in list(self.polls):
            poll.cancel()

    async def poll(self, operation: Receive, submit: Callable[[Receive], Coroutine[Any, Any, Reply]]) -> Reply:
        """Submit a receive that may wait. If the gateway stops meanwhile, it is asked again, and does not wait.

        It may have taken messages by then. Under a key it gets them so; others are given back. Raises `ClusterTrouble`:
        its outcome is unknown if that cannot be asked.
        """
        at_once = msgspec.structs.replace(operation, wait_ms=0)
        if not operation.wait_ms or self.begun.is_set():
            return await submit(at_once)
        task = asyncio.current_task()
        assert task is not None
        self.polls.add(task)
        try:
            return await submit(operation)
        except asyncio.CancelledError:
            if not self.begun.is_set() or task.uncancel():
                raise  # the client has gone
        finally:
            self.polls.discard(task)
        try:
            return await submit(at_once)
        except ClusterTrouble as trouble:
            raise ClusterTrouble("unknown", trouble.detail) from None

    async def linger(self) -> None:
        """Give clients a moment to hear of it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                await self.deserted.wait()


DRAIN = web.AppKey("drain", Drain)
