"""Work beside the ticks keeps to its pace, and ends when it is told to."""

from __future__ import annotations

import threading

import pytest

from storage import beside
from storage.beside import FULL, PAUSE_S, Beside, Pace, Pause, StoppedError


class Clock:
    """Time that only passes where the story says so: in a step, and in a pause."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        self.waits: list[float] = []
        monkeypatch.setattr(beside.time, "monotonic", lambda: self.now_s)
        real = threading.Event.wait
        # Without a timeout it is a thread that waits for another to have started.
        fake = lambda event, timeout=None: real(event) if timeout is None else self.wait(timeout)  # noqa: E731
        monkeypatch.setattr(threading.Event, "wait", fake)

    def wait(self, timeout: float) -> bool:
        self.waits.append(timeout)
        self.now_s += timeout
        return False


@pytest.mark.parametrize(
    ("pace", "step_s", "step_bytes", "rests_s"),
    [
        (FULL, 0.01, 1000, PAUSE_S),
        (Pace(1000, 1.0), 0.0, 50, 0.05),
        (Pace(1e9, 0.1), 0.01, 50, 0.09),
        (Pace(1e9, 0.5), 0.01, 50, 0.01),
    ],
)
def test_work_keeps_to_its_pace(
    monkeypatch: pytest.MonkeyPatch, pace: Pace, step_s: float, step_bytes: int, rests_s: float
) -> None:
    clock = Clock(monkeypatch)

    def work(pause: Pause) -> float:
        begun_s = clock.now_s
        for _ in range(100):
            clock.now_s += step_s
            pause(step_bytes)
        return clock.now_s - begun_s

    running = Beside("work", work, pace)
    running.join()
    assert running.ready
    assert running.result == pytest.approx(100 * (step_s + rests_s), rel=0.02)


def test_work_that_was_kept_waiting_does_not_hurry_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    def work(pause: Pause) -> bool:
        pause(1000)
        clock.now_s += 3600
        for _ in range(100):
            pause(50)
        return True

    running = Beside("work", work, Pace(1000, 1.0))
    running.join()
    assert running.ready
    assert sum(wait_s for wait_s in clock.waits if wait_s > PAUSE_S) == pytest.approx(5.0, abs=1.1)


def test_work_ends_when_it_is_told_to_and_tells_what_it_raised() -> None:
    def for_ever(pause: Pause) -> bool:
        while True:
            pause(1)

    def fail(pause: Pause) -> bool:
        raise ZeroDivisionError

    running = Beside("work", for_ever, FULL)
    assert not running.ready
    running.close()
    running.join()
    with pytest.raises(StoppedError):
        assert running.ready
    failed = Beside("work", fail, FULL)
    failed.join()
    with pytest.raises(ZeroDivisionError):
        assert failed.ready
