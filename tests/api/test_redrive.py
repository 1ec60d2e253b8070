"""Dead letters over HTTP: grouped, previewed, redriven, watched, cancelled and undone; and what is refused."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest

import api.redrive
from storage import redrive_look
from tests.api.asking import MSGPACK, Answer, ask, receipts
from tests.api.fake_client import Gateway

PATH = "/v1/queues/dead/redrive"


async def fail(node: Gateway, *bodies: str, queue: str = "trips", reason: str = "no wind") -> None:
    await ask(node, "PUT", "/v1/queues/dead", {})
    await ask(node, "PUT", f"/v1/queues/{queue}", {"attempts_max": 1, "dead_letter_queue": "dead"})
    for body in bodies:
        await ask(node, "POST", f"/v1/queues/{queue}/messages", {"body": body, "attributes": {"size": len(body)}})
        held = await receipts(node, queue)
        await ask(node, "POST", f"/v1/queues/{queue}/nack", {"receipts": held, "reason": reason})


async def counts(node: Gateway) -> dict[str, int]:
    return {queue["queue"]: queue["ready"] for queue in (await ask(node, "GET", "/v1/queues"))["queues"]}


async def start(node: Gateway, **wish: Any) -> Answer:
    return await ask(node, "POST", PATH, wish)


async def test_dead_letters_go_home_and_are_taken_back(node: Gateway) -> None:
    await fail(node, "a", "b")
    await fail(node, "c", queue="cars", reason="no fuel")
    started = await start(node)
    assert (started.status, started["state"], started["messages"]) == (201, "running", 3)
    node.client.lead()
    told = await ask(node, "GET", f"{PATH}/{started['task']}")
    assert (told["state"], told["moved"], told["destinations"]) == ("done", 3, {"trips": 2, "cars": 1})
    assert told["ended"] >= told["started"]
    history = await ask(node, "GET", "/v1/queues/cars/messages/2/history")
    assert history["events"] == [
        {"timestamp": told["started"], "event": "redriven", "queue": "dead", "reason": "no fuel"}
    ]
    undo = await ask(node, "POST", f"{PATH}/{started['task']}/undo")
    assert (undo.status, undo["undoes"], undo["messages"]) == (201, started["task"], 3)
    node.client.lead()
    assert await counts(node) == {"cars": 0, "dead": 3, "jobs": 0, "trips": 0}
    listed = (await ask(node, "GET", PATH))["tasks"]
    assert [(task["task"], task["state"], task["moved"]) for task in listed] == [(2, "done", 3), (1, "done", 3)]


async def test_a_preview_says_what_then_happens(node: Gateway) -> None:
    await fail(node, "a", "bb", "ccc")
    wanted = {"filter": {"attributes": {"size": [{"numeric": [">", 1]}]}}}
    preview = await start(node, **wanted, dry_run=True)
    assert (preview.status, preview["destinations"], preview["complete"]) == (200, {"trips": 2}, True)
    assert await counts(node) == {"dead": 3, "jobs": 0, "trips": 0}
    started = await ask(node, "POST", PATH, wanted, form=MSGPACK)
    node.client.lead()
    assert (await ask(node, "GET", f"{PATH}/{started['task']}"))["destinations"] == preview["destinations"]


async def test_a_long_look_is_continued(node: Gateway) -> None:
    await fail(node, *"abcdefg")
    with patch.object(redrive_look, "REDRIVE_LOOK_SEGMENTS_MAX", 2), patch.object(api.redrive, "LOOKS_MAX", 2):
        first = await start(node, dry_run=True)
        assert (first["destinations"], first["complete"], first["after"]) == ({"trips": 4}, False, 4)
        rest = await start(node, dry_run=True, after=first["after"])
        assert (rest["destinations"], rest["complete"]) == ({"trips": 3}, True)
        groups = await ask(node, "GET", "/v1/queues/dead/dead-letters")
        assert (groups["groups"][0]["count"], groups["complete"], groups["after"]) == (4, False, 4)
        groups = await ask(node, "GET", "/v1/queues/dead/dead-letters?group_by=reason&after=4&consistency=local")
        assert (groups["groups"][0]["count"], groups["complete"]) == (3, True)
        assert groups.headers["Trimaran-Staleness-Ms"] == "3"


async def test_groups_come_with_the_most_frequent_reason_first(node: Gateway) -> None:
    await fail(node, "a")
    await fail(node, "b", "c", reason="no sail")
    groups = (await ask(node, "GET", "/v1/queues/dead/dead-letters"))["groups"]
    assert [(group["reason"], group["queue"], group["count"]) for group in groups] == [
        ("no sail", "trips", 2),
        ("no wind", "trips", 1),
    ]


async def test_a_task_keeps_its_rate_and_is_cancelled(node: Gateway) -> None:
    await fail(node, *"abcde")
    started = await start(node, to="jobs", rate={"messages": 2, "per_ms": 1000})
    node.client.lead()
    node.client.pass_time(500)
    cancelled = await ask(node, "DELETE", f"{PATH}/{started['task']}")
    assert (cancelled["state"], cancelled["destinations"]) == ("cancelled", {"jobs": 3})
    node.client.pass_time(60_000)
    assert (await counts(node))["jobs"] == 3
    assert (await ask(node, "DELETE", f"{PATH}/{started['task']}"))["ended"] == cancelled["ended"]


async def test_a_task_that_cannot_go_on_says_why(node: Gateway) -> None:
    await fail(node, "a", "b")
    await ask(node, "PUT", "/v1/queues/trips", {"messages_max": 1})
    task = (await start(node))["task"]
    node.client.lead()
    told = await ask(node, "GET", f"{PATH}/{task}")
    assert (told["state"], told["moved"]) == ("stopped", 1)
    assert (told["cause"]["code"], told["cause"]["queue"]) == ("redrive_to_full", "trips")
    assert "nothing is lost" in told["cause"]["remedy"]


async def test_a_repeated_start_under_its_key_is_one_task(node: Gateway) -> None:
    await fail(node, "a")
    first = await ask(node, "POST", PATH, {}, Idempotency_Key="k")
    assert (await ask(node, "POST", PATH, {}, Idempotency_Key="k")).document == first.document
    assert len((await ask(node, "GET", PATH))["tasks"]) == 1


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"to": "no name"}, "$.to"),
        ({"rate": {"messages": 0}}, "$.rate.messages"),
        ({"rate": {"messages": 1, "per_ms": 10**9}}, "$.rate.per_ms"),
        ({"filter": {"body": {"total": [{"numeric": [">"]}]}}}, "$.filter.body/total/0/numeric"),
        ({"filter": {"dead": {"reason": "timeout"}}}, "$.filter.dead/reason"),
        ({"filter": {"attributes": []}}, "$.filter.attributes"),
        ({"filter": {"reason": ["timeout"]}}, "$.filter"),
        ({"filter": {"dead": None}}, "$.filter.dead"),
        ({"after": 3}, "$.after"),
        ({"after": -3, "dry_run": True}, "$.after"),
        ({"dry": True}, "$"),
    ],
)
async def test_bad_wishes_are_named_and_nothing_begins(node: Gateway, wish: dict[str, Any], field: str) -> None:
    await fail(node, "a")
    refused = await ask(node, "POST", PATH, wish)
    assert (refused.status, refused["field"]) == (400, field)
    assert refused["remedy"]
    assert (await ask(node, "GET", PATH))["tasks"] == []


async def test_what_the_rules_refuse_is_told(node: Gateway) -> None:
    await fail(node, "a")
    await ask(node, "PUT", "/v1/queues/strict", {"fifo": True})
    refused = await start(node, to="strict")
    assert (refused.status, refused["field"]) == (409, "$.to")
    refused = await start(node, to="nowhere")
    assert (refused.status, refused["field"]) == (404, "$.to")
    assert "nowhere" in refused["detail"]
    await start(node, rate={"messages": 1})
    refused = await start(node)
    assert refused.status == 409
    assert "It is 1." in refused["detail"]
    node.client.lead()
    assert (await ask(node, "POST", f"{PATH}/9/undo", {})).status == 404
    assert (await ask(node, "GET", f"{PATH}/9")).status == 404
    assert (await ask(node, "GET", f"{PATH}/x"))["field"] == "task"
    assert (await ask(node, "GET", "/v1/queues/nowhere/dead-letters")).status == 404
    assert (await ask(node, "GET", "/v1/queues/dead/dead-letters?group_by=colour"))["field"] == "group_by"
