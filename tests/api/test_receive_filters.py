"""Receives with filters over HTTP: what comes, what is refused, and what is told of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from storage import limits
from storage.operations import Received
from tests.api.asking import MSGPACK, Answer, ask
from tests.api.fake_client import Gateway

RED = {"colour": ["red"]}


async def prepare(node: Gateway, **settings: Any) -> None:
    """A queue with two red messages among others."""
    await ask(node, "PUT", "/v1/queues/q", settings)
    colours = ["blue", "red", "blue", "red", "green"]
    messages = [{"body": f'{{"n": {n}}}', "attributes": {"colour": colour}} for n, colour in enumerate(colours)]
    await ask(node, "POST", "/v1/queues/q/messages", {"messages": messages})


async def receive(node: Gateway, **wish: Any) -> Answer:
    return await ask(node, "POST", "/v1/queues/q/receive", wish)


def ids(answer: Answer) -> list[int]:
    return [message["message_id"] for message in answer["messages"]]


async def test_a_consumer_gets_only_what_it_asks_for_in_order(node: Gateway) -> None:
    await prepare(node)
    assert ids(await receive(node, filter=RED, max=1)) == [2]
    assert ids(await receive(node, filter={"n": [{"numeric": [">", 1]}]}, filter_on="body", max=2)) == [3, 4]
    assert ids(await receive(node, filter=RED)) == []
    assert ids(await receive(node, max=9)) == [1, 5]


async def test_null_is_no_filter(node: Gateway) -> None:
    await prepare(node)
    assert ids(await receive(node, filter=None, max=2)) == [1, 2]
    assert ids(await ask(node, "POST", "/v1/queues/q/receive", {"filter": None}, form=MSGPACK)) == [3]


async def test_a_filter_may_come_in_msgpack_and_white_space_does_not_make_another(node: Gateway) -> None:
    await prepare(node)
    assert ids(await ask(node, "POST", "/v1/queues/q/receive", {"filter": RED}, form=MSGPACK)) == [2]
    for spaced in (b'{"filter": {"colour":   ["red"]}}', b'{"filter":{"colour":\n["red"]}}'):
        assert (await ask(node, "POST", "/v1/queues/q/receive", spaced)).status == 200
    told = await ask(node, "GET", "/v1/queues/q")
    (only,) = told["filters"]
    assert only == {"filter": RED, "filter_on": "attributes", "last_used": only["last_used"], "unsifted": 0}
    listed = await ask(node, "GET", "/v1/queues")
    assert "filters" not in listed["queues"][0], "they are told of one queue at a time"


async def test_who_waits_is_given_what_comes(node: Gateway) -> None:
    await prepare(node)
    waiting = asyncio.create_task(receive(node, filter={"colour": ["black"]}, wait_ms=20_000))
    await node.client.waiting.wait()
    await ask(node, "POST", "/v1/queues/q/messages", {"body": "x", "attributes": {"colour": "black"}})
    assert ids(await waiting) == [6]


async def test_a_receive_repeated_under_its_key_comes_to_the_same_lease(node: Gateway) -> None:
    await prepare(node)
    first = await ask(node, "POST", "/v1/queues/q/receive", {"filter": RED}, Idempotency_Key="k")
    again = await ask(node, "POST", "/v1/queues/q/receive", {"filter": RED}, Idempotency_Key="k")
    assert first.document == again.document
    other = await ask(node, "POST", "/v1/queues/q/receive", {"filter": {"colour": ["blue"]}}, Idempotency_Key="k")
    assert other.status == 422


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"filter": {"colour": "red"}}, "$.filter/colour"),
        ({"filter": {"colour": [{"prefix": 1}]}}, "$.filter/colour/0"),
        ({"filter": {}}, "$.filter"),
        ({"filter": ["red"]}, "$.filter"),
        ({"filter": {"a": {"b": ["c"]}}}, "$.filter/a"),
        ({"filter": RED, "filter_on": "all"}, "$.filter_on"),
    ],
)
async def test_a_filter_that_makes_no_sense_is_refused_with_the_place_of_the_fault(
    node: Gateway, wish: Any, field: str
) -> None:
    await prepare(node)
    refused = await receive(node, **wish)
    assert refused.status == 400
    assert refused["field"].startswith(field)
    assert "filters" not in (await ask(node, "GET", "/v1/queues/q")).document


async def test_a_filter_that_is_too_large_for_a_receive_is_refused(node: Gateway) -> None:
    await prepare(node)
    large = {"colour": ["x" * 1000 + str(number) for number in range(9)]}
    refused = await receive(node, filter=large)
    assert (refused.status, refused["field"], refused["limit"]) == (400, "$.filter", limits.SELECTOR_BYTES_MAX)


async def test_too_many_filters_are_refused_and_the_problem_says_what_to_do(node: Gateway) -> None:
    await prepare(node)
    for number in range(limits.SELECTORS_MAX):
        assert (await receive(node, filter={"colour": [str(number)]})).status == 200
    refused = await receive(node, filter=RED)
    assert (refused.status, refused["type"]) == (429, "urn:trimaran:selector-limit")
    assert refused["limit"] == limits.SELECTORS_MAX
    assert "GET /v1/queues/{queue}" in refused["remedy"]
    assert len((await ask(node, "GET", "/v1/queues/q"))["filters"]) == limits.SELECTORS_MAX
    node.client.pass_time(limits.SELECTOR_WINDOW_MS)
    assert ids(await receive(node, filter=RED)) == [2]


@pytest.mark.parametrize("settings", [{"fair": True}, {"group_concurrency_max": 1}])
async def test_where_groups_decide_the_order_there_are_no_filters(node: Gateway, settings: Any) -> None:
    await prepare(node, **settings)
    refused = await receive(node, filter=RED)
    assert (refused.status, refused["type"]) == (409, "urn:trimaran:filter-not-allowed")
    assert "topic" in refused["remedy"]


async def test_why_names_that_a_message_is_still_to_be_sifted(node: Gateway) -> None:
    await prepare(node)
    await receive(node, filter=RED)
    await ask(node, "POST", "/v1/queues/q/messages", {"body": "x"})
    reasons = (await ask(node, "GET", "/v1/queues/q/messages/6/why"))["reasons"]
    assert reasons == [{"code": "unsifted", "detail": "1 of 1 filters of consumers have not seen it yet"}]
    assert (await ask(node, "GET", "/v1/queues/q"))["filters"][0]["unsifted"] == 1
    node.client.sift()
    assert (await ask(node, "GET", "/v1/queues/q/messages/6/why"))["reasons"] == []


async def test_an_empty_answer_says_that_not_all_is_sifted(node: Gateway) -> None:
    await prepare(node)
    node.client.refuses_with = Received(1, 0, [], sifting=True)
    assert (await receive(node, filter=RED)).document == {"messages": [], "sifting": True}
