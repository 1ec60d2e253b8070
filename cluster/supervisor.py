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

STOP_S = 5.0
"""How long a child may take to stop before it is killed."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Child:
    """A process to run. Children start in the order given and stop in the opposite one."""

    name: str
    argv: tuple[str, ...]


async def supervise(children: Sequence[Child]) -> int:
    """Run the children until SIGTERM or SIGINT, or until one of them ends. Returns the node's exit code."""
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
        for name in reversed(list(running)):
            await _stop(name, running[name])
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


async def _stop(name: str, process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        _log.warning("a process does not stop: killing it", process=name, waited_s=STOP_S)
        process.kill()
        await process.wait()
