"""What every process of a node does first: die with its parent, log in one way, end at the first surprise."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Coroutine
from math import inf
from typing import Any, NoReturn

import structlog

PR_SET_PDEATHSIG = 1
EXIT_FAILED = 70
"""Exit code of a process that could not trust itself any more (EX_SOFTWARE)."""

EXIT_DISK_FAILED = 74
"""Exit code when the disk has failed (EX_IOERR): nothing gets better by starting again, so do not."""


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, even by SIGKILL. `parent` is the parent's pid."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel was asked
        os._exit(EXIT_FAILED)


def allow_descriptors(wanted: int) -> int:
    """Raise the number of files and sockets this process may have open towards `wanted`. Returns what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed


def configure_logging(log_format: str, level: str, **context: Any) -> None:
    """Log to stderr: "json" for machines, "console" for people. `context` is in every line."""
    renderer: Any = structlog.processors.JSONRenderer()
    if log_format == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(**context)


class Rarely:
    """A warning that outsiders can cause as often as they like: said every `SAID_S` at most, with how often it was due.

    The log is not theirs to fill.
    """

    SAID_S = 10.0

    def __init__(self, event: str) -> None:
        self._event, self._count, self._said_s = event, 0, -inf
        self.total = 0
        """How often it was due since the process began."""

    def warn(self, **context: Any) -> None:
        """It is due. `context` is of this time; earlier ones that were not said are only counted."""
        self._count += 1
        self.total += 1
        now_s = time.monotonic()
        if now_s - self._said_s > self.SAID_S:
            structlog.get_logger().warning(self._event, count=self._count, **context)
            self._count, self._said_s = 0, now_s


def fail(event: str, error: BaseException, *, code: int = EXIT_FAILED) -> NoReturn:
    """Log why, and end this process at once: nothing it holds can be trusted, and nothing more may leave it."""
    structlog.get_logger().critical(event, error=f"{type(error).__name__}: {error}", exc_info=error)
    sys.stderr.flush()
    os._exit(code)


def fail_on_surprise(loop: asyncio.AbstractEventLoop) -> None:
    """An exception that nobody caught in a callback or task ends the process instead of being logged and forgotten."""

    def handle(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception") or RuntimeError(context["message"])
        fail("unexpected error", error)

    loop.set_exception_handler(handle)


def forever(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task that only ends when it is cancelled. Any other end is a surprise, and told at once.

    asyncio tells of a task's exception only when the task is collected: never, for one that somebody holds. And a task
    may cancel itself, by a future that it waits for: then it tells nobody at all.
    """
    task = asyncio.ensure_future(coroutine)

    def over(task: asyncio.Task[None]) -> None:
        if not task.cancelling():
            error = None if task.cancelled() else task.exception()
            message = f"{task.get_coro()} has ended"
            task.get_loop().call_exception_handler({"message": message, "exception": error or RuntimeError(message)})

    task.add_done_callback(over)
    return task
