"""A message is a resource: stories of one message that is looked at, changed, cancelled and asked about."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.asking import MSGPACK, Answer, ask, receipts, send
from tests.api.fake_client import Gateway

ONE = "/v1/queues/jobs/messages/1"


async def messages(node: Gateway) -> list[dict[str, Any]]:
    return list((await ask(node, "POST", "/v1/queues/jobs/receive", {"max": 100}))["messages"])


async def send_one(node: Gateway, **message: Any) -> Answer:
    return await ask(node, "POST", "/v1/queues/jobs/messages", {"body": "a", **message})


async def test_a_message_is_seen_in_every_state(node: Gateway) -> None:
    await ask(node, "PUT", "/v1/queues/jobs", {"attempts_max": 1})
    await send_one(node, delay_ms=1000, key="k", attributes={"colour": "red"})
    seen = (await ask(node, "GET", ONE)).document
    assert (seen["state"], seen["due"], seen["attempts"]) == ("delayed", "2023-11-14T22:13:21.000Z", 0)
    assert (seen["body"], seen["key"], seen["attributes"]) == ("a", "k", {"colour": "red"})
    node.client.pass_time(1000)
    assert (await ask(node, "GET", ONE))["state"] == "ready"
    await ask(node, "POST", "/v1/queues/jobs/receive", {"consumer": "worker 1", "lease_ms": 1000})
    seen = (await ask(node, "GET", ONE)).document
    assert (seen["state"], seen["due"], seen["attempts"]) == ("leased", "2023-11-14T22:13:22.000Z", 1)
    assert (seen["consumer"], seen["last_delivered"]) == ("worker 1", "2023-11-14T22:13:21.000Z")
    node.client.pass_time(1000)
    assert (await ask(node, "GET", ONE))["state"] == "dead"
    assert (await ask(node, "DELETE", ONE)).status == 204
    gone = await ask(node, "GET", ONE)
    assert (gone.status, gone["type"]) == (404, "urn:trimaran:message-not-found")


async def test_messages_are_found_by_their_producers_key(node: Gateway) -> None:
    for key in ("a", "b", "a", "a/ b"):
        await send_one(node, key=key)
    await send(node, "jobs", "none")
    found = await ask(node, "GET", "/v1/queues/jobs/messages?key=a")
    assert [message["message_id"] for message in found["messages"]] == [1, 3]
    found = await ask(node, "GET", "/v1/queues/jobs/messages?key=a&after=1&limit=5")
    assert [message["message_id"] for message in found["messages"]] == [3]
    found = await ask(node, "GET", "/v1/queues/jobs/messages?key=a%2F%20b")
    assert [message["message_id"] for message in found["messages"]] == [4]
    assert (await ask(node, "GET", "/v1/queues/jobs/messages?key=c"))["messages"] == []


@pytest.mark.parametrize("path", ["", "/history", "/why"])
async def test_reads_may_be_local_and_say_how_stale_they_are(node: Gateway, path: str) -> None:
    await send(node, "jobs", "a")
    asked = len(node.client.asked)
    answer = await ask(node, "GET", f"{ONE}{path}?consistency=local")
    assert (answer.status, answer.headers["Trimaran-Staleness-Ms"]) == (200, "3")
    assert len(node.client.asked) == asked  # the leader was not asked
    assert "Trimaran-Staleness-Ms" not in (await ask(node, "GET", f"{ONE}{path}")).headers


# --- changing ---------------------------------------------------------------------------------------------------------


async def test_a_message_is_moved_in_time_and_goes_before_others(node: Gateway) -> None:
    await send(node, "jobs", "a", "b", "c")
    assert (await ask(node, "PATCH", ONE, {"at": "2023-11-14T22:13:21Z"})).status == 204
    assert (await ask(node, "GET", ONE))["due"] == "2023-11-14T22:13:21.000Z"
    assert (await ask(node, "PATCH", "/v1/queues/jobs/messages/3", {"priority": 9})).status == 204
    assert [message["body"] for message in await messages(node)] == ["c", "b"]
    await ask(node, "PATCH", ONE, {"delay_ms": 0})
    assert [message["body"] for message in await messages(node)] == ["a"]


async def test_a_message_lives_as_long_as_it_is_told_to(node: Gateway) -> None:
    await send(node, "jobs", "a")
    await ask(node, "PATCH", ONE, {"ttl_ms": 1000, "delay_ms": 500})
    assert (await ask(node, "GET", ONE))["expires"] == "2023-11-14T22:13:21.500Z"
    await ask(node, "PATCH", ONE, {"ttl_ms": 1000})
    node.client.pass_time(1500)
    assert (await ask(node, "GET", ONE)).status == 404


@pytest.mark.parametrize("binary", [False, True])
async def test_attributes_are_replaced_and_the_body_stays_what_it_was(node: Gateway, binary: bool) -> None:
    await ask(
        node,
        "POST",
        "/v1/queues/jobs/messages",
        {"body": b"\xff" if binary else "a", "attributes": {"colour": "red", "size": 1}},
        form=MSGPACK,
    )
    change = {"attributes": {"size": 2, "raw": "AP8="}, "attribute_types": {"size": "Number.int", "raw": "Binary"}}
    assert (await ask(node, "PATCH", ONE, change)).status == 204
    (seen,) = await messages(node)
    assert seen["attributes"] == change["attributes"]
    assert seen["attribute_types"] == change["attribute_types"]
    assert seen.get("body_base64" if binary else "body") == ("/w==" if binary else "a")


async def test_attributes_are_changed_in_msgpack_and_taken_away(node: Gateway) -> None:
    await send(node, "jobs", "a")
    await ask(node, "PATCH", ONE, {"attributes": {"raw": b"\x00"}}, form=MSGPACK)
    assert (await ask(node, "GET", ONE))["attribute_types"] == {"raw": "Binary"}
    await ask(node, "PATCH", ONE, {"attributes": {}})
    assert (await ask(node, "GET", ONE))["attributes"] == {}


async def test_what_sqs_keeps_of_a_message_survives_a_change(node: Gateway) -> None:
    from api.properties import Properties, decode_properties, encode_properties
    from storage.block import encode_block, parts
    from storage.message_operations import GetMessage
    from storage.operations import Send

    kept = encode_properties(Properties(system={"AWSTraceHeader": "Root=1"}))
    await node.client.submit(Send("jobs", 1), encode_block([(b"a", kept)]), timeout_ms=1000)
    await ask(node, "PATCH", ONE, {"attributes": {"a": 1}})
    _, block = await node.client.submit(GetMessage("jobs", 1), timeout_ms=1000)
    (part,) = parts(block, 1)
    assert decode_properties(part.properties) == Properties(False, {"a": 1}, system={"AWSTraceHeader": "Root=1"})


async def test_a_leased_message_is_not_changed_and_the_problem_says_where_to_look(node: Gateway) -> None:
    await send(node, "jobs", "a")
    (held,) = await receipts(node, "jobs")
    for change in ({"priority": 1}, {"attributes": {}}, {"delay_ms": 0}):
        refused = await ask(node, "PATCH", ONE, change)
        assert (refused.status, refused["type"]) == (409, "urn:trimaran:message-leased")
        assert "/why" in refused["remedy"]
    await ask(node, "POST", "/v1/queues/jobs/nack", {"receipts": [held], "delay_ms": 0})
    assert (await ask(node, "PATCH", ONE, {"priority": 1})).status == 204


async def test_a_leased_message_is_cancelled_and_its_receipt_is_stale(node: Gateway) -> None:
    await send(node, "jobs", "a")
    (held,) = await receipts(node, "jobs")
    assert (await ask(node, "DELETE", ONE)).status == 204
    results = (await ask(node, "POST", "/v1/queues/jobs/ack", {"receipts": [held]}))["results"]
    assert results[0]["status"] == "stale"


async def test_a_dead_message_that_is_given_a_time_is_delivered_once_more(node: Gateway) -> None:
    await ask(node, "PUT", "/v1/queues/jobs", {"attempts_max": 1})
    await send(node, "jobs", "a")
    (held,) = await receipts(node, "jobs")
    await ask(node, "POST", "/v1/queues/jobs/nack", {"receipts": [held], "reason": "no"})
    assert await messages(node) == []
    await ask(node, "PATCH", ONE, {"delay_ms": 0})
    (again,) = await messages(node)
    assert again["attempt"] == 2


# --- retried means once -----------------------------------------------------------------------------------------------


async def test_a_change_repeated_under_its_key_takes_effect_once_even_when_the_message_is_gone(node: Gateway) -> None:
    await send(node, "jobs", "a")
    change = {"attributes": {"a": 1}, "priority": 3}
    assert (await ask(node, "PATCH", ONE, change, Idempotency_Key="k")).status == 204
    await ask(node, "PATCH", ONE, {"attributes": {"a": 2}, "priority": 4})
    assert (await ask(node, "PATCH", ONE, change, Idempotency_Key="k")).status == 204
    seen = await ask(node, "GET", ONE)
    assert (seen["attributes"], seen["priority"]) == ({"a": 2}, 4)
    await ask(node, "DELETE", ONE)
    assert (await ask(node, "PATCH", ONE, change, Idempotency_Key="k")).status == 204
    assert (await ask(node, "PATCH", ONE, change, Idempotency_Key="new")).status == 404
    assert (await ask(node, "PATCH", ONE, change)).status == 404


async def test_a_cancelling_repeated_under_its_key_is_answered_as_the_first_time(node: Gateway) -> None:
    await send(node, "jobs", "a")
    for key, status in (("k", 204), ("k", 204), ("other", 404)):
        assert (await ask(node, "DELETE", ONE, Idempotency_Key=key)).status == status


# --- asking -----------------------------------------------------------------------------------------------------------


async def test_the_history_tells_a_life(node: Gateway) -> None:
    await ask(node, "PUT", "/v1/queues/dead", {})
    settings = {"attempts_max": 2, "dead_letter_queue": "dead", "history_ms": 60_000}
    await ask(node, "PUT", "/v1/queues/jobs", settings)
    await send(node, "jobs", "a")
    await ask(node, "PATCH", ONE, {"priority": 1})
    for reason in ("first", "last"):
        answer = await ask(node, "POST", "/v1/queues/jobs/receive", {"consumer": "w"})
        held = [message["receipt"] for message in answer["messages"]]
        await ask(node, "POST", "/v1/queues/jobs/nack", {"receipts": held, "reason": reason, "delay_ms": 0})
    told = await ask(node, "GET", f"{ONE}/history")
    assert not told["here"]
    seen = [tuple(v for k, v in event.items() if k != "timestamp") for event in told["events"]]
    assert seen == [
        ("changed",),
        ("leased", "w"),
        ("nacked", "w", "first"),
        ("leased", "w"),
        ("nacked", "w", "last"),
        ("moved", "dead", "last"),
    ]
    assert [event.get("queue") for event in told["events"]][-1] == "dead"
    came = await ask(node, "GET", "/v1/queues/dead/messages/1/history")
    assert [(event["event"], event["queue"]) for event in came["events"]] == [("came", "jobs")]


async def test_why_names_every_reason(node: Gateway) -> None:
    await ask(node, "PUT", "/v1/queues/q.fifo", {"fifo": True, "concurrency_max": 1})
    batch = {"messages": [{"body": "a", "group": "g"}, {"body": "b", "group": "g", "delay_ms": 1000}]}
    await ask(node, "POST", "/v1/queues/q.fifo/messages", batch)
    await ask(node, "POST", "/v1/queues/q.fifo/receive", {"consumer": "w", "lease_ms": 5000})
    first = await ask(node, "GET", "/v1/queues/q.fifo/messages/1/why")
    assert first["state"] == "leased"
    assert first["reasons"] == [{"code": "leased", "until": "2023-11-14T22:13:25.000Z", "detail": "w"}]
    second = await ask(node, "GET", "/v1/queues/q.fifo/messages/2/why")
    codes = [reason["code"] for reason in second["reasons"]]
    assert codes == ["delayed", "group_in_flight", "behind_in_group", "queue_concurrency"]
    await send(node, "jobs", "a")
    assert (await ask(node, "GET", f"{ONE}/why"))["reasons"] == []


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message_id", ["0", "-1", "01x", "9007199254740992", "9" * 5000, "%C2%B2", "a"])
async def test_what_is_no_id_is_refused_before_the_cluster_is_asked(node: Gateway, message_id: str) -> None:
    asked = len(node.client.asked)
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/history"), ("GET", "/why")):
        change = {"priority": 1} if method == "PATCH" else None
        refused = await ask(node, method, f"/v1/queues/jobs/messages/{message_id}{path}", change)
        assert (refused.status, refused["field"]) == (400, "message_id")
    assert len(node.client.asked) == asked


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({}, "$"),
        ({"delay_ms": 1, "at": "2030-01-01T00:00:00Z"}, "$.at"),
        ({"at": "tomorrow"}, "$.at"),
        ({"at": "9999-01-01T00:00:00Z"}, "$.at"),
        ({"delay_ms": -1}, "$.delay_ms"),
        ({"ttl_ms": -1}, "$.ttl_ms"),
        ({"priority": 10}, "$.priority"),
        ({"body": "b"}, "$"),
        ({"key": "b"}, "$"),
        ({"group": "b"}, "$"),
        ({"attributes": {"": 1}}, "$.attributes"),
        ({"attributes": {"a": None}}, "$.attributes[...]"),
        ({"attributes": {f"a{number}": 1 for number in range(65)}}, "$.attributes"),
        ({"attribute_types": {"a": "Number"}}, "$.attribute_types.a"),
        (b'{"attributes":{"a":1,"a":2}}', "$"),
    ],
)
async def test_changes_that_say_what_they_may_not_say_change_nothing(node: Gateway, change: Any, field: str) -> None:
    await send(node, "jobs", "a")
    before = (await ask(node, "GET", ONE)).document
    refused = await ask(node, "PATCH", ONE, change)
    assert (refused.status, refused["field"]) == (400, field)
    assert refused["remedy"]
    assert (await ask(node, "GET", ONE)).document == before


async def test_attributes_that_are_too_large_are_refused(node: Gateway) -> None:
    await send(node, "jobs", "a")
    refused = await ask(node, "PATCH", ONE, {"attributes": {"a": "x" * 65_536}})
    assert (refused.status, refused["field"], refused["limit"]) == (413, "$.attributes", 65_536)


async def test_a_priority_where_groups_decide_names_its_field(node: Gateway) -> None:
    await ask(node, "PUT", "/v1/queues/jobs", {"fair": True})
    await send(node, "jobs", "a")
    refused = await ask(node, "PATCH", ONE, {"priority": 1})
    assert (refused.status, refused["field"]) == (400, "$.priority")
    refused = await send_one(node, priority=1)
    assert (refused.status, refused["field"]) == (400, "$.priority")


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("DELETE", ""), ("GET", "/history"), ("GET", "/why")])
async def test_a_message_and_a_queue_that_are_not_there(node: Gateway, method: str, path: str) -> None:
    assert (await ask(node, method, f"{ONE}{path}"))["type"] == "urn:trimaran:message-not-found"
    missing = await ask(node, method, f"/v1/queues/none/messages/1{path}")
    assert (missing.status, missing["type"]) == (404, "urn:trimaran:queue-not-found")


@pytest.mark.parametrize("key", ["", "x" * 201])
async def test_a_key_to_find_has_its_limits(node: Gateway, key: str) -> None:
    refused = await ask(node, "GET", f"/v1/queues/jobs/messages?key={key}")
    assert (refused.status, refused["field"], refused["limit"]) == (400, "key", 200)
