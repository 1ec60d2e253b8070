"""boto3 against three real nodes, through a follower, while the leader is killed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.processes.nodes import Cluster, eventually

pytestmark = pytest.mark.processes
MESSAGES = 150


def sqs(url: str) -> Any:
    retries = {"mode": "standard", "max_attempts": 10}
    return boto3.client(
        "sqs",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=Config(retries=retries, read_timeout=30),
    )


async def test_the_leader_is_killed_under_boto3_and_every_message_comes_once(tmp_path: Path) -> None:
    async with Cluster(tmp_path) as cluster:
        leader = await cluster.leader()
        follower, other = (name for name in cluster.nodes if name != leader)
        url = sqs(cluster.nodes[follower].url).create_queue(QueueName="q")["QueueUrl"]
        assert url == f"{cluster.nodes[follower].url}/000000000000/q"
        sent: list[str] = []
        received: list[tuple[str, str]] = []

        def produce() -> None:
            client = sqs(cluster.nodes[follower].url)
            for number in range(0, MESSAGES, 3):
                client.send_message(QueueUrl=url, MessageBody=str(number))
                entries = [{"Id": str(each), "MessageBody": str(each)} for each in (number + 1, number + 2)]
                assert "Failed" not in client.send_message_batch(QueueUrl=url, Entries=entries)
                sent.extend(str(each) for each in range(number, number + 3))

        def consume() -> None:
            client = sqs(cluster.nodes[other].url)
            while len(received) < MESSAGES:
                asked = {"QueueUrl": url, "MaxNumberOfMessages": 10, "WaitTimeSeconds": 2}
                got = client.receive_message(**asked).get("Messages", [])
                received.extend((message["Body"], message["MessageId"]) for message in got)
                entries = [{"Id": str(i), "ReceiptHandle": each["ReceiptHandle"]} for i, each in enumerate(got)]
                if entries:
                    assert "Failed" not in client.delete_message_batch(QueueUrl=url, Entries=entries)

        async def are_sent() -> bool:
            return len(sent) >= MESSAGES // 3

        at_work = [asyncio.create_task(asyncio.to_thread(act)) for act in (produce, consume)]
        await eventually(are_sent, "a third of the messages is sent")
        cluster.nodes[leader].kill()
        await asyncio.wait_for(asyncio.gather(*at_work), 60)
        assert sorted(body for body, _ in received) == sorted(sent)
        assert len({message_id for _, message_id in received}) == MESSAGES
        assert await cluster.counts(follower, "q") == {"ready": 0, "leased": 0, "delayed": 0}
