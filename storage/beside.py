"""Work beside the ticks: a thread that reads, keeps to its pace, and stops when it is told to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from math import inf
from typing import Generic, NamedTuple, TypeVar

PAUSE_S = 0.0005
"""Least pause between two steps: whoever waits for the interpreter gets it at once."""

Pause = Callable[[int], None]
"""Called with the bytes just read, after every step of well under a millisecond."""


class Pace(NamedTuple):
    """How much of the machine work beside the ticks may take: bytes read in a second, and its share of the time."""

    bytes_per_s: float
    share: float


FULL = Pace(inf, 1.0)
"""As fast as it goes."""

_T = TypeVar("_T")


class StoppedError(Exception):
    """The work was told to stop."""


class Beside(Generic[_T]):
    """One piece of work in a thread of its own, polled by the tick.

    `work(pause)` runs in the thread and calls `pause(bytes)` often: it keeps the work to its pace, and ends it by
    `StoppedError` when it was told to stop.
    """

    def __init__(self, name: str, work: Callable[[Pause], _T], pace: Pace) -> None:
        self._pace = pace
        self._result: _T | None = None
        self._error: BaseException | None = None
        self._stopping = threading.Event()
        self._due_s = self._begun_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, args=(work,), name=name, daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[Pause], _T]) -> None:
        # NB: nothing but this call may hold on to the work: a transaction lives as long as there is a reference to it.
        try:
            self._result = work(self._pause)
        except BaseException as error:
            self._error = error  # raised to whoever asks whether the work is done

    def _pause(self, size: int) -> None:
        now_s = time.monotonic()
        self._due_s = max(self._due_s, now_s - 1.0) + size / self._pace.bytes_per_s
        rest_s = (now_s - self._begun_s) * (1 / self._pace.share - 1)
        if self._stopping.wait(max(PAUSE_S, rest_s, self._due_s - now_s)):
            raise StoppedError
        self._begun_s = time.monotonic()

    @property
    def is_running(self) -> bool:
        """Whether the thread still runs, and may use what the work was given."""
        return self._thread.is_alive()

    @property
    def ready(self) -> bool:
        """Whether the work is done. Raises what it has raised."""
        if self._thread.is_alive():
            return False
        if self._error is not None:
            raise self._error
        return True

    @property
    def result(self) -> _T:
        """What the work returned; only when it is `ready`."""
        assert self._result is not None, "asked before it was ready"
        return self._result

    def close(self) -> None:
        """Tell the work to stop. It ends at its next pause."""
        self._stopping.set()

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()
