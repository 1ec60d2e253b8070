"""The first process of a node: starts its shards and gateways, watches them, and stops them in order.

Crash-only: a child that ends unasked takes the whole node with it, and whatever started the node starts it again. If
the supervisor itself dies, even by SIGKILL, the kernel ends its children (`cluster.process.die_with`).
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Child:
    """A process to run."""

    name: str
    argv: tuple[str, ...]


async def supervise(children: Sequence[Child], *, stop_s: float) -> int:
    """Run the children until SIGTERM or SIGINT, or until one of them ends. Returns the node's exit code.

    All are asked to stop at once, since each knows what to wait for: a shard hands over first, and serves the node's
    gateways until they have answered everything. One that takes longer than `stop_s` is killed.
    """
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    running: dict[str, asyncio.subprocess.Process] = {}
    try:
        for child in children:
            running[child.name] = await asyncio.create_subprocess_exec(*child.argv)
        code = await _watch(running, stopping)
    finally:
        await asyncio.gather(*(_stop(name, process, stop_s) for name, process in running.items()))
    return code


async def _watch(running: dict[str, asyncio.subprocess.Process], stopping: asyncio.Event) -> int:
    ends = {asyncio.create_task(process.wait()): name for name, process in running.items()}
    asked = asyncio.create_task(stopping.wait())
    await asyncio.wait([*ends, asked], return_when=asyncio.FIRST_COMPLETED)
    code = 0
    for end, name in ends.items():
        if end.done() and not asked.done():
            code = end.result() if end.result() > 0 else 1
            _log.error("a process of this node has ended: stopping the node", process=name, code=end.result())
    for task in [*ends, asked]:
        task.cancel()
    return code


async def _stop(name: str, process: asyncio.subprocess.Process, stop_s: float) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(stop_s):
            await process.wait()
    except TimeoutError:
        _log.warning("a process does not stop: killing it", process=name, waited_s=stop_s)
        process.kill()
        await process.wait()
