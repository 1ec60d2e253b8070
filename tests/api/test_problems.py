"""Every no is a problem document, and none of them says more than it should."""

from __future__ import annotations

import pytest

from api.problem import REFUSALS
from cluster.repair import REPLICA_DAMAGED
from cluster.room import STORE_FULL
from cluster.trouble import ClusterTrouble
from storage.codes import CODES
from storage.operations import Refused
from tests.api.asking import PROBLEM, ask
from tests.api.fake_client import Gateway


def test_every_reason_to_refuse_has_an_answer() -> None:
    assert set(REFUSALS) == CODES | {STORE_FULL, REPLICA_DAMAGED}


@pytest.mark.parametrize("code", sorted(REFUSALS))
async def test_a_refusal_is_told(node: Gateway, code: str) -> None:
    node.client.refuses_with = Refused(code, 7)
    answer = await ask(node, "POST", "/v1/queues/jobs/messages", {"body": "x"})
    assert answer.status == REFUSALS[code][0]
    assert answer.headers["Content-Type"] == PROBLEM
    assert code.replace("_", "-") in answer["type"]
    assert answer["limit"] == 7
    assert answer["title"]
    assert answer["remedy"]


@pytest.mark.parametrize("outcome", ["not_done", "unknown"])
async def test_trouble_of_the_cluster_says_what_is_known(node: Gateway, outcome: str) -> None:
    node.client.fails_with = ClusterTrouble(outcome, "the leader fell silent")  # type: ignore[arg-type]
    answer = await ask(node, "POST", "/v1/queues/jobs/messages", {"body": "x"})
    assert (answer.status, answer["outcome"], answer.headers["Retry-After"]) == (503, outcome, "1")
    assert "the leader fell silent" in answer["detail"]


async def test_what_was_not_foreseen_is_logged_under_a_number_and_not_shown(
    node: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    node.client.fails_with = RuntimeError("a secret of the house")
    answer = await ask(node, "POST", "/v1/queues/jobs/messages", {"body": "x"})
    assert answer.status == 500
    assert "secret" not in str(answer.document)
    logged = capsys.readouterr().out
    assert "a secret of the house" in logged
    assert answer["id"] in logged


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("PATCH", "/v1/queues/jobs", 405), ("HEAD", "/receive_message", 405)],
)
async def test_what_the_http_layer_refuses_is_a_problem_too(node: Gateway, method: str, path: str, status: int) -> None:
    async with node.http.request(method, path) as response:
        assert (response.status, response.headers["Content-Type"]) == (status, PROBLEM)
        assert (status == 405) == ("Allow" in response.headers)


async def test_no_answer_names_the_software_underneath(node: Gateway) -> None:
    for path in ("/healthz", "/nowhere", "/openapi.json", "/v1/queues/none"):
        assert (await ask(node, "GET", path)).headers["Server"] == "trimaran"
