"""Producers and consumers over HTTP: registered or not, and when they were seen."""

from __future__ import annotations

import pytest

from tests.api.asking import ask, receipts
from tests.api.fake_client import Gateway

KINDS = ("producer", "consumer")


async def seen(node: Gateway, path: str) -> str | None:
    told: str | None = (await ask(node, "GET", f"/v1/{path}"))["seen"]
    return told


@pytest.mark.parametrize("kind", KINDS)
async def test_they_are_registered_renamed_listed_and_forgotten(node: Gateway, kind: str) -> None:
    url = f"/v1/{kind}s"
    made = await ask(node, "PUT", f"{url}/b", {"name": "The shop", "type": "web"})
    assert (made.status, made["changed"]) == (201, True)
    assert (await ask(node, "PUT", f"{url}/b", {"name": "The shop", "type": "web"}))["changed"] is False
    again = await ask(node, "PUT", f"{url}/b", {"name": "The new shop", "type": "web"})
    assert (again.status, again["changed"]) == (200, True)
    await ask(node, "PUT", f"{url}/worker%20%C3%A9", {})
    told = (await ask(node, "GET", f"{url}/worker%20%C3%A9")).document
    assert (told["id"], told["name"], told["type"], told["seen"]) == ("worker é", "worker é", "", None)
    assert [each["name"] for each in (await ask(node, "GET", url))[f"{kind}s"]] == ["The new shop", "worker é"]
    page = await ask(node, "GET", f"{url}?after=b&limit=1&consistency=local")
    assert [each["id"] for each in page[f"{kind}s"]] == ["worker é"]
    assert (await ask(node, "DELETE", f"{url}/b")).status == 204
    for method in ("GET", "DELETE"):
        gone = await ask(node, method, f"{url}/b")
        assert (gone.status, gone["type"]) == (404, "urn:trimaran:party-not-found")


async def test_a_producer_and_a_consumer_of_one_name_are_two(node: Gateway) -> None:
    await ask(node, "PUT", "/v1/producers/a", {})
    assert (await ask(node, "GET", "/v1/consumers/a")).status == 404


async def test_a_message_names_its_producer_registered_or_not(node: Gateway) -> None:
    await ask(node, "PUT", "/v1/producers/shop", {})
    batch = {"messages": [{"body": "a", "producer": "shop"}, {"body": "b", "producer": "stranger"}, {"body": "c"}]}
    await ask(node, "POST", "/v1/queues/jobs/messages", batch)
    page = await ask(node, "GET", "/v1/queues/jobs/messages")
    assert [message.get("producer") for message in page["messages"]] == ["shop", "stranger", None]
    received = await ask(node, "POST", "/v1/queues/jobs/receive", {"max": 3})
    assert [message.get("producer") for message in received["messages"]] == ["shop", "stranger", None]
    assert await seen(node, "producers/shop") == "2023-11-14T22:13:20.000Z"
    assert (await ask(node, "GET", "/v1/producers/stranger")).status == 404


async def test_it_is_noted_to_the_minute_when_they_were_last_seen(node: Gateway) -> None:
    await ask(node, "PUT", "/v1/producers/shop", {})
    await ask(node, "PUT", "/v1/consumers/worker", {})
    assert await receipts(node, "jobs", consumer="worker") == []  # type: ignore[arg-type]
    assert await seen(node, "consumers/worker") is None, "it was delivered nothing"
    for pause_ms, noted in ((0, "22:13:20"), (59_999, "22:13:20"), (1, "22:14:20"), (90_000, "22:15:50")):
        node.client.pass_time(pause_ms)
        await ask(node, "POST", "/v1/queues/jobs/messages", {"body": "a", "producer": "shop"})
        assert await receipts(node, "jobs", consumer="worker")  # type: ignore[arg-type]
        for path in ("producers/shop", "consumers/worker"):
            assert await seen(node, path) == f"2023-11-14T{noted}.000Z"


async def test_a_single_active_queue_says_who_is_active(node: Gateway) -> None:
    await ask(node, "PUT", "/v1/queues/one", {"single_active": True})
    assert "active" not in (await ask(node, "GET", "/v1/queues/one")).document
    await receipts(node, "one", consumer="worker")  # type: ignore[arg-type]
    assert (await ask(node, "GET", "/v1/queues/one"))["active"] == "worker"


@pytest.mark.parametrize("kind", KINDS)
async def test_what_cannot_be_is_refused(node: Gateway, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for wish, field, limit in (
        ({"name": "x" * 257}, "$.name", 256),
        ({"type": "é" * 129}, "$.type", 256),
        ({"name": 1}, "$.name", None),
        ({"colour": "red"}, "$", None),
    ):
        refused = await ask(node, "PUT", f"/v1/{kind}s/a", wish)
        assert (refused.status, refused["field"], refused.document.get("limit")) == (400, field, limit)
    for party_id in ("%00", "x" * 129, "%C3%A9" * 65):
        for method in ("PUT", "GET", "DELETE"):
            refused = await ask(node, method, f"/v1/{kind}s/{party_id}")
            assert (refused.status, refused["field"], refused["limit"]) == (400, kind, 128)
    refused = await ask(node, "POST", "/v1/queues/jobs/messages", {"body": "a", "producer": "x" * 129})
    assert (refused.status, refused["field"], refused["limit"]) == (400, "$.producer", 128)
    monkeypatch.setattr("storage.parties.PARTIES_MAX", 1)
    await ask(node, "PUT", f"/v1/{kind}s/a", {})
    refused = await ask(node, "PUT", f"/v1/{kind}s/b", {})
    assert (refused.status, refused["type"], refused["limit"]) == (409, "urn:trimaran:party-limit", 1)
