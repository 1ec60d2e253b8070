from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.api.fake_client import gateway
from tests.aws.asking import Caller


@pytest.fixture(params=["json", "query"])
async def sqs(request: pytest.FixtureRequest) -> AsyncIterator[Caller]:
    """SQS on a gateway of its own with a queue called jobs, in each protocol."""
    async with gateway() as opened:
        caller = Caller(opened, in_json=request.param == "json")
        await caller("CreateQueue", QueueName="jobs")
        yield caller


@pytest.fixture
async def sqs_json() -> AsyncIterator[Caller]:
    """SQS on a gateway of its own with a queue called jobs, in JSON."""
    async with gateway() as opened:
        caller = Caller(opened, in_json=True)
        await caller("CreateQueue", QueueName="jobs")
        yield caller
