from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.api.asking import ask
from tests.api.fake_client import Gateway, gateway


@pytest.fixture
async def node() -> AsyncIterator[Gateway]:
    """A gateway with a queue called jobs."""
    async with gateway() as opened:
        await ask(opened, "PUT", "/v1/queues/jobs", {})
        yield opened
