"""Stories of the native API, told over real HTTP on the real rules."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cluster.trouble import ClusterTrouble
from storage.operations import Ack, Keyed
from tests.api.asking import MSGPACK, ask, receipts, send
from tests.api.fake_client import Gateway


async def test_a_queue_is_created_updated_emptied_and_deleted(node: Gateway) -> None:
    created = await ask(node, "PUT", "/v1/queues/q.fifo", {"lease_ms": 5000})
    assert (created.status, created["settings"]["lease_ms"]) == (201, 5000)
    assert (await ask(node, "PUT", "/v1/queues/q.fifo", {"lease_ms": 5000})).status == 200
    assert (await ask(node, "PUT", "/v1/queues/q.fifo", {"lease_ms": 6000}))["changed"]
    await send(node, "q.fifo", "a", "bc")
    shown = await ask(node, "GET", "/v1/queues/q.fifo")
    assert {name: shown[name] for name in ("ready", "leased", "delayed", "bytes")} == {
        "ready": 2,
        "leased": 0,
        "delayed": 0,
        "bytes": 3,
    }
    assert (await ask(node, "POST", "/v1/queues/q.fifo/purge"))["purged"] == 2
    assert [queue["queue"] for queue in (await ask(node, "GET", "/v1/queues"))["queues"]] == ["jobs", "q.fifo"]
    assert (await ask(node, "DELETE", "/v1/queues/q.fifo")).status == 204
    assert (await ask(node, "GET", "/v1/queues/q.fifo")).status == 404


async def test_what_is_sent_is_what_is_received(node: Gateway) -> None:
    attributes = {"region": "eu", "tries": 3, "share": 0.5, "urgent": True, "big": 2**64 - 1}
    bodies = ["", "plain", "NUL \x00 and 😀", '{"json":"in: json"}']
    for body in bodies:
        assert (await ask(node, "POST", "/v1/queues/jobs/messages", {"body": body})).status == 201
    rich = {"body": "rich", "attributes": attributes}
    await ask(node, "POST", "/v1/queues/jobs/messages", {"messages": [rich, {"body_base64": "AP8="}]})
    got = (await ask(node, "POST", "/v1/queues/jobs/receive", {"max": 10}))["messages"]
    assert [message.get("body") for message in got] == [*bodies, "rich", None]
    assert got[4]["attributes"] == attributes
    assert got[5]["body_base64"] == "AP8="
    assert [message["message_id"] for message in got] == list(range(1, 7))
    assert got[0]["timestamp"] == "2023-11-14T22:13:20.000Z"


async def test_msgpack_carries_bytes_as_they_are_and_json_sees_the_same_messages(node: Gateway) -> None:
    batch = {"messages": [{"body": b"\x00\xff", "attributes": {"a": 1}}, {"body": "text"}]}
    sent = await ask(node, "POST", "/v1/queues/jobs/messages", batch, form=MSGPACK)
    assert [message["message_id"] for message in sent["messages"]] == [1, 2]
    page = await ask(node, "GET", "/v1/queues/jobs/messages")
    assert [m.get("body_base64", m.get("body")) for m in page["messages"]] == ["AP8=", "text"]
    got = await ask(node, "POST", "/v1/queues/jobs/receive", {"max": 2}, form=MSGPACK)
    assert [message["body"] for message in got["messages"]] == [b"\x00\xff", "text"]
    mixed = await ask(node, "POST", "/v1/queues/jobs/receive", {"max": 2}, Accept=MSGPACK)
    assert mixed.document == {"messages": []}


async def test_attributes_may_have_types_and_bytes(node: Gateway) -> None:
    types = {"n": "Number.int", "t": "String.json", "b": "Binary.png"}
    sent = {"body": "x", "attributes": {"n": 1, "t": "{}", "b": "AP8=", "plain": "AP8="}, "attribute_types": types}
    assert (await ask(node, "POST", "/v1/queues/jobs/messages", sent)).status == 201
    packed = {"body": "y", "attributes": {"b": b"\x00\xff"}}
    assert (await ask(node, "POST", "/v1/queues/jobs/messages", packed, form=MSGPACK)).status == 201
    first, second = (await ask(node, "GET", "/v1/queues/jobs/messages"))["messages"]
    assert {name: first[name] for name in sent} == sent
    assert (second["attributes"], second["attribute_types"]) == ({"b": "AP8="}, {"b": "Binary"})
    got = await ask(node, "POST", "/v1/queues/jobs/receive", {"max": 2}, form=MSGPACK)
    assert [message["attributes"]["b"] for message in got["messages"]] == [b"\x00\xff", b"\x00\xff"]


async def test_an_ack_ends_a_message_and_a_receipt_works_once(node: Gateway) -> None:
    await send(node, "jobs", "a", "b")
    first, second = await receipts(node, "jobs")
    asked = {"receipts": [first, "nonsense", first, second[:-1] + "f"]}
    results = (await ask(node, "POST", "/v1/queues/jobs/ack", asked))["results"]
    assert [result["status"] for result in results] == ["acked", "invalid", "acked", "stale"]
    assert [result["receipt"] for result in results] == asked["receipts"]
    again = await ask(node, "POST", "/v1/queues/jobs/ack", {"receipts": [first, second]})
    assert [result["status"] for result in again["results"]] == ["stale", "acked"]


async def test_a_receipt_of_another_queue_is_stale(node: Gateway) -> None:
    await ask(node, "PUT", "/v1/queues/other", {})
    await send(node, "jobs", "a")
    await send(node, "other", "b")
    (own,), _ = await receipts(node, "jobs"), await receipts(node, "other")
    results = (await ask(node, "POST", "/v1/queues/other/ack", {"receipts": [own]}))["results"]
    assert results[0]["status"] == "stale"


async def test_a_batch_of_256_is_acked_by_one_claim(node: Gateway) -> None:
    await send(node, "jobs", *("x" for _ in range(256)))
    held = await receipts(node, "jobs")
    await ask(node, "POST", "/v1/queues/jobs/ack", {"receipts": held})
    operation = node.client.asked[-1]
    assert isinstance(operation, Ack)
    assert [(claim.message_id, claim.count) for claim in operation.claims] == [(1, 256)]


async def test_a_message_named_under_an_old_and_a_new_lease_is_told_apart(node: Gateway) -> None:
    await send(node, "jobs", "a")
    (old,) = await receipts(node, "jobs", lease_ms=1000)
    node.client.pass_time(2000)
    (new,) = await receipts(node, "jobs")
    for order in ([new, old], [old, new]):
        results = (await ask(node, "POST", "/v1/queues/jobs/extend", {"receipts": order, "lease_ms": 5000}))["results"]
        told = {result["receipt"]: result["status"] for result in results}
        assert told == {old: "stale", new: "extended"}


async def test_both_parts_of_a_settling_take_effect_once_under_a_key(node: Gateway) -> None:
    await send(node, "jobs", "a")
    (old,) = await receipts(node, "jobs", lease_ms=1000)
    node.client.pass_time(2000)
    (new,) = await receipts(node, "jobs")
    asked = {"receipts": [old, new]}
    first = await ask(node, "POST", "/v1/queues/jobs/ack", asked, Idempotency_Key="k")
    again = await ask(node, "POST", "/v1/queues/jobs/ack", asked, Idempotency_Key="k")
    assert [result["status"] for result in first["results"]] == ["stale", "acked"]
    assert again.document == first.document


async def test_a_nack_delays_and_an_extension_holds(node: Gateway) -> None:
    await send(node, "jobs", "a", "b")
    first, second = await receipts(node, "jobs", lease_ms=10_000)
    nacked = await ask(node, "POST", "/v1/queues/jobs/nack", {"receipts": [first], "delay_ms": 60_000, "reason": "no"})
    extended = await ask(node, "POST", "/v1/queues/jobs/extend", {"receipts": [second], "lease_ms": 90_000})
    assert (nacked["results"][0]["status"], extended["results"][0]["status"]) == ("nacked", "extended")
    page = (await ask(node, "GET", "/v1/queues/jobs/messages"))["messages"]
    assert [(m["state"], m["due"]) for m in page] == [
        ("delayed", "2023-11-14T22:14:20.000Z"),
        ("leased", "2023-11-14T22:14:50.000Z"),
    ]
    node.client.pass_time(60_000)
    got = (await ask(node, "POST", "/v1/queues/jobs/receive", {}))["messages"]
    assert [(message["body"], message["attempt"]) for message in got] == [("a", 2)]


async def test_browsing_goes_page_by_page(node: Gateway) -> None:
    await send(node, "jobs", *"abcde")
    seen, after = [], 0
    while page := (await ask(node, "GET", f"/v1/queues/jobs/messages?after={after}&limit=2"))["messages"]:
        seen += [message["body"] for message in page]
        after = page[-1]["message_id"]
    assert seen == [*"abcde"]


async def test_a_long_poll_ends_with_the_first_message(node: Gateway) -> None:
    polling = asyncio.create_task(ask(node, "POST", "/v1/queues/jobs/receive", {"wait_ms": 20_000}))
    await node.client.waiting.wait()
    await send(node, "jobs", "at last")
    assert [message["body"] for message in (await polling)["messages"]] == ["at last"]


async def test_a_client_that_goes_away_takes_its_long_poll_along(node: Gateway) -> None:
    polling = asyncio.create_task(ask(node, "POST", "/v1/queues/jobs/receive", {"wait_ms": 20_000}))
    await node.client.waiting.wait()
    polling.cancel()
    await asyncio.wait_for(node.client.cancelled.wait(), 5)


async def test_a_send_repeated_under_its_key_is_one_message(node: Gateway) -> None:
    answers = [
        await ask(node, "POST", "/v1/queues/jobs/messages", {"body": "a"}, Idempotency_Key=key)
        for key in ("one", '"one"', "two")
    ]
    assert [answer["messages"][0]["message_id"] for answer in answers] == [1, 1, 2]
    other = await ask(node, "POST", "/v1/queues/jobs/messages", {"body": "b"}, Idempotency_Key="one")
    assert other.status == 422


async def test_a_key_belongs_to_its_queue_and_route(node: Gateway) -> None:
    await ask(node, "PUT", "/v1/queues/other", {})
    for path in ("jobs/messages", "other/messages"):
        assert (await ask(node, "POST", f"/v1/queues/{path}", {"body": "a"}, Idempotency_Key="k")).status == 201
    assert (await ask(node, "POST", "/v1/queues/jobs/purge", {}, Idempotency_Key="k"))["purged"] == 1


async def test_a_receive_repeated_under_its_key_gives_the_same_receipts(node: Gateway) -> None:
    await send(node, "jobs", "a", "b", "c")
    first, again = [
        await ask(node, "POST", "/v1/queues/jobs/receive", {"max": 2}, Idempotency_Key="k") for _ in range(2)
    ]
    assert [message["body"] for message in first["messages"]] == ["a", "b"]
    assert again.document == first.document
    assert isinstance(node.client.asked[-1], Keyed)


async def test_tokens_are_never_used_twice_without_a_key(node: Gateway) -> None:
    for _ in range(5):
        await ask(node, "POST", "/v1/queues/jobs/receive", {})
    tokens = {operation.token for operation in node.client.asked[-5:]}  # type: ignore[union-attr]
    assert len(tokens) == 5
    assert all(0 < token < 2**63 for token in tokens)


async def test_the_cluster_is_shown(node: Gateway) -> None:
    shown = await ask(node, "GET", "/v1/cluster")
    (node_shown,) = shown["nodes"]
    assert (node_shown["name"], node_shown["address"], node_shown["reachable"]) == ("n1", "a:1", True)
    assert node_shown["role"] == "voter"
    assert shown["shards"][0]["leader"] == "n1"


async def test_the_digest_is_of_this_nodes_state(node: Gateway) -> None:
    before = (await ask(node, "GET", "/v1/cluster/digest"))["shards"][0]
    assert len(before["digest"]) == 32
    await ask(node, "POST", "/v1/queues/jobs/messages", {"body": "x"})
    after = (await ask(node, "GET", "/v1/cluster/digest"))["shards"][0]
    assert after["applied_index"] > before["applied_index"]
    assert after["digest"] != before["digest"]
    node.client.fails_with = ClusterTrouble("not_done", "this node's shard does not answer")
    assert (await ask(node, "GET", "/v1/cluster/digest")).status == 503


LOCAL = ("/v1/queues", "/v1/queues/jobs", "/v1/queues/jobs/messages")


@pytest.mark.parametrize("path", LOCAL)
async def test_a_local_read_is_answered_without_the_leader_and_says_how_stale_it_is(node: Gateway, path: str) -> None:
    await send(node, "jobs", "a")
    whole = await ask(node, "GET", path)
    assert "Trimaran-Staleness-Ms" not in whole.headers
    node.client.fails_with = ClusterTrouble("not_done", "this node does not reach a majority of the cluster")
    assert (await ask(node, "GET", f"{path}?consistency=linearizable")).status == 503
    local = await ask(node, "GET", f"{path}?consistency=local")
    assert local.document == whole.document
    assert local.headers["Trimaran-Staleness-Ms"] == "3"
    assert int(local.headers["Trimaran-Applied-Index"]) == node.client.store.last_index
    node.client.staleness_ms = None
    assert (await ask(node, "GET", f"{path}?consistency=local")).headers["Trimaran-Staleness-Ms"] == "unknown"


async def test_a_local_read_of_what_is_not_there_says_how_stale_that_is(node: Gateway) -> None:
    missing = await ask(node, "GET", "/v1/queues/missing?consistency=local")
    assert missing.status == 404
    assert missing.headers["Trimaran-Staleness-Ms"] == "3"


@pytest.mark.parametrize("path", LOCAL)
async def test_a_consistency_that_there_is_not_is_refused(node: Gateway, path: str) -> None:
    refused = await ask(node, "GET", f"{path}?consistency=eventual")
    assert (refused.status, refused["field"]) == (400, "consistency")
    assert "linearizable, local" in refused["detail"]


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"tags": {"": "x"}}, "$.tags"),
        ({"tags": {str(number): "" for number in range(51)}}, "$.tags"),
        ({"sqs": {"Policy": "x" * 13_000}}, "$.sqs"),
        ({"dead_letters_from": ["no name"]}, "$.dead_letters_from"),
        ({"wait_ms": 20_001}, "$.wait_ms"),
    ],
)
async def test_settings_that_break_a_limit_are_named(node: Gateway, settings: dict[str, Any], field: str) -> None:
    refused = await ask(node, "PUT", "/v1/queues/new", settings)
    assert (refused.status, refused["field"]) == (400, field)


async def test_a_receive_that_does_not_say_waits_as_long_as_the_queue(node: Gateway) -> None:
    await ask(node, "PUT", "/v1/queues/jobs", {"wait_ms": 20_000, "tags": {"team": "sails"}})
    waiting = asyncio.create_task(ask(node, "POST", "/v1/queues/jobs/receive", {}))
    await node.client.waiting.wait()
    assert (await ask(node, "POST", "/v1/queues/jobs/receive", {"wait_ms": 0}))["messages"] == []
    await send(node, "jobs", "a")
    assert [message["body"] for message in (await waiting)["messages"]] == ["a"]
