"""kombu's fan-out exchanges, which are topics of SNS, against a gateway in the same process."""

from __future__ import annotations

import asyncio
from typing import Any

import kombu
import pytest

from tests.api.fake_client import gateway
from tests.aws.asking import Caller
from tests.aws.test_sns import Aws

OPTIONS = {
    "is_secure": False,
    "region": "us-east-1",
    "supports_fanout": True,
    "wait_time_seconds": 0,
    "polling_interval": 0.05,
}
QUEUES = ("first", "second")
PATIENCE_S = 20


def broadcast(port: int) -> list[tuple[str, Any]]:
    """Publish once to an exchange that two queues are bound to; returns what came by which."""

    def connect() -> Any:
        return kombu.Connection(f"sqs://any:any@127.0.0.1:{port}//", transport_options=OPTIONS)

    exchange, got = kombu.Exchange("news", type="fanout"), []

    def taker(queue: str) -> Any:
        def take(body: Any, message: Any) -> None:
            got.append((queue, body))
            message.ack()

        return take

    with connect() as first, connect() as second, connect() as publisher:
        consumers = [
            connection.Consumer([kombu.Queue(queue, exchange)], callbacks=[taker(queue)], accept=["json"])
            for connection, queue in zip((first, second), QUEUES, strict=True)
        ]
        for consumer in consumers:
            consumer.consume()
        publisher.Producer().publish({"wind": 5}, exchange=exchange, serializer="json", declare=[exchange])
        for connection in (first, second):
            connection.drain_events(timeout=PATIENCE_S)
    return got


async def test_what_is_broadcast_reaches_every_queue_that_is_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    async with gateway() as node:
        got = await asyncio.to_thread(broadcast, node.port)
        aws = Aws(Caller(node, in_json=False, service="sns"), Caller(node, in_json=True))
        subscriptions = (await aws.sns("ListSubscriptions"))["Subscriptions"]
        assert [await aws.bodies(queue) for queue in QUEUES] == [[], []]
    assert sorted(got) == [(queue, {"wind": 5}) for queue in QUEUES]
    assert sorted(each["Endpoint"].rpartition(":")[2] for each in subscriptions) == sorted(QUEUES)
