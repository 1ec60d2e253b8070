"""A Celery application on SQS, as anyone would write it: only the settings say that it is Trimaran.

Tasks note each run in a file, so that a test can tell what ran, when, and how often.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery import Celery

PREFIX = "celery-"
POLL_S = 0.05
PATIENCE_S = 30
LOG = Path(os.environ.get("TASKS_LOG", os.devnull))
app = Celery("tasks", broker=os.environ.get("TASKS_BROKER"))
app.conf.update(
    broker_transport_options={
        "is_secure": False,
        "region": "us-east-1",
        "queue_name_prefix": PREFIX,
        "wait_time_seconds": 5,
        "polling_interval": 0.1,
        "client-config": {"retries": {"mode": "standard", "total_max_attempts": 10}},
    },
    broker_connection_retry_on_startup=True,
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    worker_enable_remote_control=False,
    worker_hijack_root_logger=False,
)


def note(*words: object) -> None:
    """One line at once, so that processes do not mix theirs."""
    with LOG.open("ab", buffering=0) as log:
        log.write((" ".join(map(str, words)) + "\n").encode())


@app.task
def count(number: int) -> None:
    """A task that just runs."""
    note("count", number)


@app.task(bind=True, max_retries=5)
def stumble(self: Any, number: int) -> None:
    """A task that succeeds at the third time."""
    note("stumble", number, self.request.retries)
    if self.request.retries < 2:
        raise self.retry(countdown=0.2)


@app.task
def late(number: int, not_before_s: float) -> None:
    """A task that must not run before its time."""
    note("late", number, time.time() >= not_before_s)


@app.task
def linger(number: int, until: str, times: int) -> None:
    """A task that goes on until a line has been noted so often, by whatever task."""
    note("linger", number, "begun")
    deadline_s = time.monotonic() + PATIENCE_S
    while LOG.read_text().splitlines().count(until) < times and time.monotonic() < deadline_s:
        time.sleep(POLL_S)
    note("linger", number, "done")
