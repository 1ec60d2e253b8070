"""Members over HTTP: what is asked of the cluster, and how refusals are told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from api import members
from cluster import changes, engine, membership
from cluster.membership import ChangeRefusedError
from tests.api.asking import ask
from tests.api.fake_client import Gateway, unknown


@pytest.mark.parametrize(
    ("method", "verb", "content"),
    [("PUT", "add", {"address": "n4:1"}), ("PATCH", "move", {"address": "[::1]:7"}), ("DELETE", "remove", None)],
)
async def test_each_change_is_asked_for(node: Gateway, method: str, verb: str, content: dict[str, str] | None) -> None:
    answer = await ask(node, method, "/v1/cluster/members/n4", content)
    assert answer.status == 200
    assert answer.document == {"name": "n4", **(content or {})}
    assert node.client.changed == [(verb, "n4", (content or {}).get("address", ""))]


@pytest.mark.parametrize(
    ("path", "content", "field"),
    [
        ("n4", {"address": "somewhere"}, "$.address"),
        ("n4", {"address": "n4:0"}, "$.address"),
        ("n4", {"address": 7}, "$.address"),
        ("n4", {}, "$"),
        ("n4", {"address": "n4:1", "votes": True}, "$"),
        ("a.b", {"address": "n4:1"}, "member"),
        ("n" * 33, {"address": "n4:1"}, "member"),
    ],
)
async def test_bad_input_is_named_and_asks_for_nothing(
    node: Gateway, path: str, content: dict[str, object], field: str
) -> None:
    answer = await ask(node, "PUT", f"/v1/cluster/members/{path}", content)
    assert (answer.status, answer["field"]) == (400, field)
    assert answer["remedy"]
    assert node.client.changed == []


async def test_a_refusal_says_why_and_what_to_do(node: Gateway) -> None:
    node.client.fails_with = ChangeRefusedError("name_removed", "n4 was removed")
    answer = await ask(node, "PUT", "/v1/cluster/members/n4", {"address": "n4:1"})
    assert (answer.status, answer["type"]) == (409, "urn:trimaran:name-removed")
    assert answer["detail"] == "n4 was removed."
    assert answer["remedy"]


async def test_what_is_not_known_is_said(node: Gateway) -> None:
    node.client.fails_with = unknown()
    answer = await ask(node, "DELETE", "/v1/cluster/members/n4")
    assert (answer.status, answer["outcome"]) == (503, "unknown")


def test_every_refusal_there_is_can_be_told() -> None:
    sources = [Path(module.__file__ or "").read_text() for module in (changes, engine, membership)]
    codes = {code for source in sources for code in re.findall(r'ChangeRefusedError\(\s*"(\w+)"', source)}
    assert codes == set(members._REFUSALS)
