"""Python runs this at the start of every process of a node: from then on its wall clock is wrong by what a file says.
Where a rule is to be broken (`tests.chaos.broken`), it is broken here.

libfaketime would do it for any program, but with it (0.9.10) threads of CPython hang for seconds: it gets timed waits
on the monotonic clock wrong. Nothing but Python reads a wall clock in a node.
"""

import os
import sys
import time
from pathlib import Path

_time, _time_ns = time.time, time.time_ns
_path = os.environ["TRIMARAN_CHAOS_CLOCK"]


def _offset_s() -> int:
    with open(_path) as file:
        return int(file.read())


if "TRIMARAN_CHAOS_BROKEN" in os.environ:
    sys.path.insert(0, str(Path(__file__).parents[3]))
    from tests.chaos.broken import BROKEN

    BROKEN[os.environ["TRIMARAN_CHAOS_BROKEN"]]()

time.time = lambda: _time() + _offset_s()
time.time_ns = lambda: _time_ns() + _offset_s() * 1_000_000_000
