"""Topics over HTTP: subscribed, tried, published to, asked about; and what is refused."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest

import cluster.router
from storage import publishing
from storage.topic_operations import PutTopic
from tests.api.asking import MSGPACK, Answer, ask
from tests.api.fake_client import Gateway

RED = {"colour": ["red"]}


async def prepare(node: Gateway) -> None:
    """A topic `t`; its red messages go to queue `red`, those of orders to `orders`, all to `all`."""
    for queue in ("red", "orders", "all"):
        await ask(node, "PUT", f"/v1/queues/{queue}", {})
    await ask(node, "PUT", "/v1/topics/t", {})
    await subscribe(node, "s1", queue="red", filter=RED)
    await subscribe(node, "s2", queue="orders", pattern="orders.#")
    await subscribe(node, "s3", queue="all")


async def subscribe(node: Gateway, name: str, **wish: Any) -> Answer:
    return await ask(node, "PUT", f"/v1/topics/t/subscriptions/{name}", wish)


async def publish(node: Gateway, *messages: dict[str, Any], query: str = "", **headers: str) -> Answer:
    return await ask(node, "POST", f"/v1/topics/t/messages{query}", {"messages": list(messages)}, **headers)


async def bodies(node: Gateway, queue: str) -> list[str]:
    return [message["body"] for message in (await ask(node, "GET", f"/v1/queues/{queue}/messages"))["messages"]]


async def test_a_publish_reaches_the_queues_of_all_that_want_it(node: Gateway) -> None:
    await prepare(node)
    red = {"body": "a red order", "routing_key": "orders.de", "attributes": {"colour": "red"}, "key": "k"}
    told = await publish(node, red, {"body": "else"})
    assert told.status == 201
    first, second = told["messages"]
    assert [(each["queue"], each["subscription"], each["message_id"]) for each in first["queues"]] == [
        ("red", "s1", 1),
        ("orders", "s2", 1),
        ("all", "s3", 1),
    ]
    assert (second["message_id"], [each["queue"] for each in second["queues"]]) == (2, ["all"])
    assert [await bodies(node, queue) for queue in ("red", "orders", "all")] == [
        ["a red order"],
        ["a red order"],
        ["a red order", "else"],
    ]
    (received,) = (await ask(node, "POST", "/v1/queues/red/receive", {}))["messages"]
    assert (received["topic"], received["topic_message_id"], received["routing_key"]) == ("t", 1, "orders.de")
    assert (await ask(node, "GET", "/v1/topics/t/messages/2"))["queues"] == second["queues"]
    assert (await ask(node, "GET", "/v1/topics/t"))["published"] == 2


async def test_the_position_of_a_message_among_others_of_its_publish_is_right(node: Gateway) -> None:
    await prepare(node)
    await publish(node, *({"body": str(number)} for number in range(3)))
    received = (await ask(node, "POST", "/v1/queues/all/receive", {"max": 3}))["messages"]
    assert [(each["body"], each["topic_message_id"]) for each in received] == [("0", 1), ("1", 2), ("2", 3)]


async def test_a_dry_run_says_who_would_get_it_and_why_others_not(node: Gateway) -> None:
    await prepare(node)
    await subscribe(node, "s4", queue="all")
    await ask(node, "DELETE", "/v1/queues/orders")
    told = await publish(node, {"body": "", "routing_key": "orders"}, {"body": ""}, query="?dry_run=true")
    assert told.status == 200
    first, second = told["messages"]
    assert first["queues"] == second["queues"] == ["all"]
    assert {each["subscription"]: each.get("why") for each in first["subscriptions"]} == {
        "s1": 'the filter does not match: /colour: wanted ["red"], found nothing',
        "s2": "there is no queue orders",
        "s3": None,
        "s4": "queue all gets it by another subscription",
    }
    (why,) = (each["why"] for each in second["subscriptions"] if each["subscription"] == "s2")
    assert why == "the routing key '' does not fit the pattern 'orders.#'"
    assert await bodies(node, "all") == [], "nothing was sent"


async def test_a_publish_under_a_key_happens_once(node: Gateway) -> None:
    await prepare(node)
    one = await publish(node, {"body": "once"}, Idempotency_Key="k")
    again = await publish(node, {"body": "once"}, Idempotency_Key="k")
    assert one.document == again.document
    assert await bodies(node, "all") == ["once"]


async def test_subscriptions_come_change_and_go(node: Gateway) -> None:
    await prepare(node)
    assert (await subscribe(node, "s1", queue="red", filter=RED)).status == 200
    changed = await subscribe(node, "s1", queue="red", filter={"a": [1]}, filter_on="body")
    assert (changed.status, changed["changed"]) == (200, True)
    told = await ask(node, "GET", "/v1/topics/t/subscriptions/s1")
    assert (told["filter"], told["filter_on"], told["queue_exists"]) == ({"a": [1]}, "body", True)
    listed = (await ask(node, "GET", "/v1/topics/t/subscriptions?after=s1&limit=1"))["subscriptions"]
    assert [each["subscription"] for each in listed] == ["s2"]
    assert (await ask(node, "DELETE", "/v1/topics/t/subscriptions/s1")).status == 204
    assert (await ask(node, "GET", "/v1/topics/t/subscriptions/s1")).status == 404
    assert [each["topic"] for each in (await ask(node, "GET", "/v1/topics?consistency=local"))["topics"]] == ["t"]
    assert (await ask(node, "DELETE", "/v1/topics/t")).status == 204
    assert (await publish(node, {"body": ""})).status == 404


async def test_what_sns_has_said_of_a_topic_is_told(node: Gateway) -> None:
    await ask(node, "PUT", "/v1/topics/t", {})
    assert "labels" not in (await ask(node, "GET", "/v1/topics/t")).document
    labels = {"DisplayName": "Orders", "tag:team": "=shop"}
    await node.client.submit(PutTopic("t", False, labels), timeout_ms=1000)
    assert (await ask(node, "GET", "/v1/topics/t"))["labels"] == labels


async def test_msgpack_is_read_as_json_is(node: Gateway) -> None:
    await prepare(node)
    path = "/v1/topics/t/subscriptions/s1"
    put = await ask(node, "PUT", path, {"queue": "red", "filter": RED}, form=MSGPACK)
    assert (put.status, put["filter"]) == (200, RED)
    message = {"body": b"\x00\xff", "attributes": {"colour": "red"}}
    told = await ask(node, "POST", "/v1/topics/t/messages", message, form=MSGPACK)
    assert [each["queue"] for each in told["messages"][0]["queues"]] == ["red", "all"]


async def test_a_queue_that_refuses_is_named_and_nothing_was_published(node: Gateway) -> None:
    await prepare(node)
    await ask(node, "PUT", "/v1/queues/red", {"messages_max": 1})
    await publish(node, {"body": "1", "attributes": {"colour": "red"}})
    refused = await publish(node, {"body": "2", "attributes": {"colour": "red"}})
    assert (refused.status, refused["queue"]) == (507, "red")
    await ask(node, "PUT", "/v1/queues/red", {"body_bytes_max": 3})
    refused = await publish(node, {"body": "ok"}, {"body": "too long", "attributes": {"colour": "red"}})
    assert (refused.status, refused["queue"], refused["field"]) == (413, "red", "$.messages[1].body")
    assert await bodies(node, "all") == ["1"]


async def test_bounds_of_one_publish(node: Gateway) -> None:
    await prepare(node)
    with patch.object(publishing, "PUBLISH_COPIES_MAX", 1):
        told = await publish(node, {"body": ""}, {"body": ""})
        assert (told.status, told["limit"]) == (413, 1)
    with patch.object(cluster.router, "MATCHING_MS_MAX", -1):
        assert (await publish(node, {"body": ""})).status == 413
    told = await publish(node, *[{"body": ""}] * 11, query="?dry_run=true")
    assert (told.status, told["field"], told["limit"]) == (400, "$.messages", 10)
    assert await bodies(node, "all") == []


REFUSED = {
    "a topic's name": ("PUT", "/v1/topics/a%20b", {}, 400, "topic"),
    "a subscription's name": ("PUT", "/v1/topics/t/subscriptions/%C3%A9", {"queue": "all"}, 400, "subscription"),
    "another kind": ("PUT", "/v1/topics/t", {"fifo": True}, 409, None),
    "no queue named": ("PUT", "/v1/topics/t/subscriptions/s", {}, 400, "$"),
    "no such queue": ("PUT", "/v1/topics/t/subscriptions/s", {"queue": "none"}, 404, None),
    "no such topic": ("PUT", "/v1/topics/none/subscriptions/s", {"queue": "all"}, 404, None),
    "a queue of another kind": ("PUT", "/v1/topics/t/subscriptions/s", {"queue": "line.fifo"}, 409, None),
    "a pattern": ("PUT", "/v1/topics/t/subscriptions/s", {"queue": "all", "pattern": "a.b*"}, 400, "$.pattern"),
    "a filter": (
        "PUT",
        "/v1/topics/t/subscriptions/s",
        {"queue": "all", "filter": {"a": [{"prefix": 1}]}},
        400,
        "$.filter/a/0/prefix",
    ),
    "a filter that is none": ("PUT", "/v1/topics/t/subscriptions/s", {"queue": "all", "filter": 7}, 400, "$.filter"),
    "filtered on what": (
        "PUT",
        "/v1/topics/t/subscriptions/s",
        {"queue": "all", "filter_on": "subject"},
        400,
        "$.filter_on",
    ),
    "a routing key": ("POST", "/v1/topics/t/messages", {"body": "", "routing_key": "a..b"}, 400, "$.routing_key"),
    "two forms": ("POST", "/v1/topics/t/messages", {"body": "", "messages": [{"body": ""}]}, 400, "$.messages"),
    "no body": ("POST", "/v1/topics/t/messages", {"messages": [{}]}, 400, "$.messages[0].body"),
    "a dry run of sorts": ("POST", "/v1/topics/t/messages?dry_run=1", {"body": ""}, 400, "dry_run"),
    "no such subscription": ("DELETE", "/v1/topics/t/subscriptions/none", None, 404, None),
    "a message's id": ("GET", "/v1/topics/t/messages/x", None, 400, "message_id"),
    "an id never given": ("GET", "/v1/topics/t/messages/1", None, 404, None),
}


@pytest.mark.parametrize(("method", "path", "content", "status", "field"), REFUSED.values(), ids=REFUSED)
async def test_what_is_wrong_is_named_and_nothing_happens(
    node: Gateway, method: str, path: str, content: Any, status: int, field: str | None
) -> None:
    await prepare(node)
    await ask(node, "PUT", "/v1/queues/line.fifo", {"fifo": True})
    before = list(node.client.store.scan(b"b"))
    told = await ask(node, method, path, content)
    assert told.status == status, told.document
    assert told.document.get("field") == field, told.document
    assert told["remedy"]
    assert list(node.client.store.scan(b"b")) == before
    assert await bodies(node, "all") == []
