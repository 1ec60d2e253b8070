"""A served gateway with access keys."""

from __future__ import annotations

import tempfile
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from api import sealing
from storage.access_operations import AccessKeyMade, CreateAccessKey
from tests.api.fake_client import FakeClient, Gateway, gateway

_PLACE = tempfile.TemporaryDirectory(prefix="trimaran-")
SEAL = Path(_PLACE.name) / sealing.SEAL_KEY


@asynccontextmanager
async def keyed_gateway(**settings: Any) -> AsyncIterator[Gateway]:
    """A gateway that has a seal key."""
    sealing.make(SEAL)
    async with gateway(**{"seal_key": SEAL} | settings) as opened:
        yield opened


def make_key(node: Gateway | FakeClient, key_id: str, secret: str, role: str, *queues: str) -> None:
    """Make a key as another gateway would."""
    client = node if isinstance(node, FakeClient) else node.client
    sealed = sealing.Sealer(sealing.read(SEAL)).seal(key_id, secret)
    made = CreateAccessKey(key_id, sealed, [role], list(queues or ["*"]))
    reply = client._apply(made)
    assert isinstance(reply.outcome, AccessKeyMade)


def basic(key_id: str, secret: str) -> str:
    """The Authorization header of HTTP Basic."""
    return "Basic " + b64encode(f"{key_id}:{secret}".encode()).decode()
