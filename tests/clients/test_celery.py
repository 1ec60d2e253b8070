"""A Celery worker on kombu's SQS transport, unchanged, while the leader is killed under it; and kombu alone.

The application sends through one follower and its worker receives through the other.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from celery import Celery
from kombu import Connection, Consumer, Exchange, Message, Producer, Queue

from tests.clients import tasks
from tests.clients.conftest import Key
from tests.processes.nodes import Cluster, eventually

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="package")]
COUNTED, STUMBLING, LATE = 60, 4, 4
LATE_S = 3.0
STOP_S = 15.0
"""How long a worker may take to stop: it waits for the long polls that are under way."""


def broker(cluster: Cluster, node: str, key: Key) -> str:
    """The one line that says where a Celery application's broker is."""
    return f"sqs://{key.id}:{key.secret}@{urlsplit(cluster.nodes[node].url).netloc}"


@contextmanager
def worker(broker: str, queues: str, directory: Path, module: str = "tests.clients.tasks") -> Iterator[Path]:
    """A worker as it is started anywhere; yields where its tasks note what they do."""
    notes, said = directory / "notes", (directory / "worker.log").open("wb")
    notes.touch()
    argv = [sys.executable, "-m", "celery", "-A", module, "worker", "-c", "4", "-Q", queues]
    process = subprocess.Popen(
        [*argv, "--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "INFO"],
        env=os.environ | {"TASKS_LOG": str(notes), "TASKS_BROKER": broker},
        stdout=said,
        stderr=said,
        start_new_session=True,
    )
    said.close()
    try:
        yield notes
        process.terminate()
        process.wait(STOP_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


async def test_a_celery_worker_runs_every_task_though_the_leader_is_killed(
    cluster: Cluster, admin: Key, tmp_path: Path
) -> None:
    leader = await admin.leader()
    producing, consuming = (node for node in cluster.nodes if node != leader)
    key = await admin.make(producing, "manager", queues=f"{tasks.PREFIX}*")
    queues = [f"{tasks.PREFIX}{name}" for name in ("celery", "stumbling", "late", "long", "short")]
    await admin.ok(producing, "PUT", f"/v1/queues/{queues[4]}", {"lease_ms": 1000, "fair": True})
    app = Celery("sender", broker=broker(cluster, producing, key))
    app.conf.broker_transport_options = tasks.app.conf.broker_transport_options

    def send(name: str, *arguments: object, queue: str, countdown: float | None = None) -> None:
        app.send_task(f"tests.clients.tasks.{name}", arguments, queue=queue, countdown=countdown)

    def produce() -> None:
        for number in range(LATE):
            send("late", number, time.time() + LATE_S, queue="late", countdown=LATE_S)
        for number in range(STUMBLING):
            send("stumble", number, queue="stumbling")
        send("linger", 1, "late 0 True", 1, queue="long")
        send("linger", 2, "linger 2 begun", 2, queue="short")
        for number in range(COUNTED):
            send("count", number, queue="celery")

    names = ",".join(queue.removeprefix(tasks.PREFIX) for queue in queues)
    with worker(broker(cluster, consuming, key), names, tmp_path) as notes:

        def counted() -> Counter[str]:
            return Counter(notes.read_text().splitlines())

        async def is_under_way() -> bool:
            return sum(line.startswith("count") for line in counted()) > COUNTED // 10

        sending = asyncio.create_task(asyncio.to_thread(produce))
        await eventually(is_under_way, "the worker runs tasks")
        cluster.nodes[leader].kill()
        await sending
        expected = {
            *(f"count {number}" for number in range(COUNTED)),
            *(f"stumble {number} {tries}" for number in range(STUMBLING) for tries in range(3)),
            *(f"late {number} True" for number in range(LATE)),
            *("linger 1 done", "linger 2 done"),
        }

        async def have_run() -> bool:
            return expected <= counted().keys()

        async def are_gone() -> bool:
            return not any([await admin.messages(producing, queue) for queue in queues])

        await eventually(have_run, "every task has run")
        await eventually(are_gone, "every task is acked")
        runs = counted()
    assert not {line for line in runs if line.startswith("late") and line.endswith("False")}, "none came too early"
    assert runs["linger 1 begun"] == 1, "a task within its visibility timeout is nobody else's"
    assert runs["linger 2 begun"] >= 2, "one that outlasts it is given to another, while it runs"
    once = {line: runs[line] for line in expected if not line.startswith("linger 2")}
    assert set(once.values()) == {1}, "with a leader killed, no task need run twice"
    cluster.nodes[leader].start()
    await cluster.ready(leader)


async def test_kombu_alone_publishes_receives_acks_and_requeues(cluster: Cluster, admin: Key) -> None:
    key = await admin.make("n1", "manager", queues="kombu-*")
    sent = [f"message {number}" for number in range(25)]

    def story() -> list[str]:
        options = tasks.app.conf.broker_transport_options | {"queue_name_prefix": "kombu-", "wait_time_seconds": 1}
        queue = Queue("jobs", routing_key="jobs")
        with Connection(broker(cluster, "n1", key), transport_options=options) as connection:
            producer = Producer(connection.channel())
            for body in sent:
                producer.publish(body, routing_key="jobs", declare=[queue])
        received: list[str] = []
        refused: list[str] = []

        def handle(body: str, message: Message) -> None:
            if not refused:
                refused.append(body)
                message.requeue()
                return
            received.append(body)
            message.ack()

        with (
            Connection(broker(cluster, "n2", key), transport_options=options) as connection,
            Consumer(connection.channel(), [queue], callbacks=[handle]),
        ):
            while len(received) < len(sent):
                connection.drain_events(timeout=10)
        assert refused[0] in received
        return received

    assert sorted(await asyncio.to_thread(story)) == sorted(sent)
    assert await admin.messages("n3", "kombu-jobs") == 0


async def test_kombu_broadcasts_to_every_worker_through_sns(cluster: Cluster, admin: Key) -> None:
    """As Celery's `Broadcast` does it: a fanout exchange is a topic, to which each worker's own queue is subscribed."""
    key = await admin.make("n1", "manager", queues="cast-*")
    sent = [f"news {number}" for number in range(5)]

    def story() -> dict[str, list[str]]:
        options = tasks.app.conf.broker_transport_options | {
            "queue_name_prefix": "cast-",
            "wait_time_seconds": 1,
            "supports_fanout": True,
        }
        exchange, received = Exchange("news", type="fanout"), {"one": list[str](), "two": list[str]()}

        def handler(name: str) -> Callable[[str, Message], None]:
            def handle(body: str, message: Message) -> None:
                received[name].append(body)
                message.ack()

            return handle

        with (
            Connection(broker(cluster, "n1", key), transport_options=options) as sending,
            Connection(broker(cluster, "n2", key), transport_options=options) as receiving,
            Consumer(receiving.channel(), [Queue("one", exchange)], callbacks=[handler("one")]),
            Consumer(receiving.channel(), [Queue("two", exchange)], callbacks=[handler("two")]),
        ):
            producer = Producer(sending.channel(), exchange)
            for body in sent:
                producer.publish(body)
            while min(map(len, received.values())) < len(sent):
                receiving.drain_events(timeout=10)
        return received

    received = await asyncio.to_thread(story)
    assert {name: sorted(bodies) for name, bodies in received.items()} == {"one": sent, "two": sent}
