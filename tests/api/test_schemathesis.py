"""A live node is asked all that its description allows, and some that it does not: it answers as described.

The cases are the same every time. `make fuzz EXAMPLES=200` asks more, and others each time.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from api.openapi import document
from tests.processes.nodes import Cluster

pytestmark = pytest.mark.processes
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
"""Requests of each kind to each operation; 0: a few, the same ones every time."""
HELD = 500
OPERATIONS = [found.ok() for found in schemathesis.openapi.from_dict(document()).get_all_operations()]
NOT_HELD_AGAINST = {
    # A schema cannot say everything: settings at odds, receipts that are none, integers that are written 1.0.
    GenerationMode.POSITIVE: [positive_data_acceptance, negative_data_rejection],
    GenerationMode.NEGATIVE: [positive_data_acceptance],
}


class Asked:
    """A node, asked by an admin, with a queue `jobs`, of whose messages 1 to 500 are leased, and their receipts."""

    def __init__(self, url: str) -> None:
        self.url, self.http = url, requests.Session()
        admin = self.http.post(f"{url}/v1/keys", json={"roles": ["admin"]}, timeout=10)
        self.http.auth = (admin.json()["id"], admin.json()["secret"])
        for queue in ("jobs", "other"):
            self.http.put(f"{url}/v1/queues/{queue}", json={}, timeout=10).raise_for_status()
        jobs = f"{url}/v1/queues/jobs"
        batch = {"messages": [{"body": str(number)} for number in range(HELD)]}
        self.http.post(f"{jobs}/messages", json=batch, timeout=10).raise_for_status()
        wish = {"max": HELD, "lease_ms": 3_600_000}
        got = self.http.post(f"{jobs}/receive", json=wish, timeout=10).json()["messages"]
        self.receipts = [message["receipt"] for message in got]

    def ground(self, case: Case) -> None:
        """Have what was made up meet what is there. What changes whole queues meets another one."""
        whole = case.method in ("PUT", "DELETE") or case.path.endswith("/purge")
        known = {"queue": "other" if whole else "jobs", "message_id": 1 + HELD // 2, "task": 1}
        for name in case.path_parameters or {}:
            case.path_parameters[name] = known.get(name, case.path_parameters[name])
        case.body = self._grounded(case.body)

    def _grounded(self, told: Any) -> Any:
        if isinstance(told, list):
            return [self._grounded(each) for each in told]
        if not isinstance(told, dict):
            return told
        told = {name: self._grounded(value) for name, value in told.items()}
        if "queue" in told:
            told["queue"] = "jobs"
        if told.get("receipts") and self.receipts:
            told["receipts"] = [self.receipts.pop()]
        return told


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    cluster = Cluster(tmp_path_factory.mktemp("node"), 1)

    async def start() -> None:
        async with aiohttp.ClientSession() as cluster.http:
            cluster.nodes["n1"].start()
            await cluster.ready("n1")

    try:
        asyncio.run(start())
        yield Asked(cluster.nodes["n1"].url)
    finally:
        cluster.nodes["n1"].kill()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["sound", "unsound"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=[operation.label for operation in OPERATIONS])
def test_a_node_answers_as_it_is_described(asked: Asked, operation: APIOperation, mode: GenerationMode) -> None:
    @settings(
        max_examples=EXAMPLES or 4,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(mode))
    def ask(case: Case) -> None:
        if mode is GenerationMode.POSITIVE:
            asked.ground(case)
        if isinstance(case.body, dict) and "wait_ms" in case.body:
            case.body["wait_ms"] = 0
        answer = case.call(base_url=asked.url, session=asked.http, timeout=15)
        case.validate_response(answer, excluded_checks=NOT_HELD_AGAINST[mode])

    try:
        ask()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE  # it takes nothing that could be wrong
