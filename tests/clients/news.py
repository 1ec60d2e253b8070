"""A Celery application whose workers all hear what is broadcast, each by a queue of its own."""

from __future__ import annotations

import os

from celery import Celery
from kombu.common import Broadcast

from tests.clients import tasks

PREFIX = "news-"
EXCHANGE = "news"
OPTIONS = tasks.app.conf.broker_transport_options | {"queue_name_prefix": PREFIX, "supports_fanout": True}
app = Celery("news", broker=os.environ.get("TASKS_BROKER"))
app.conf.update(
    broker_transport_options=OPTIONS | {"wait_time_seconds": 2},
    broker_connection_retry_on_startup=True,
    task_queues=(Broadcast(EXCHANGE),),
    task_routes={"tests.clients.news.hear": {"queue": EXCHANGE, "exchange": EXCHANGE}},
    task_acks_late=True,
    task_ignore_result=True,
    worker_enable_remote_control=False,
    worker_hijack_root_logger=False,
)


@app.task
def hear(number: int) -> None:
    """What every worker does."""
    tasks.note("hear", number)
