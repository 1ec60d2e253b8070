"""Transactions over HTTP: everything happens, or nothing does and the problem says which step is at fault."""

from __future__ import annotations

from typing import Any

import pytest

from storage.operations import Keyed, Transaction
from storage.queries import digest
from tests.api.asking import MSGPACK, Answer, ask, receipts, send
from tests.api.fake_client import Gateway

STALE = "10000000000000007" + "1"


async def transact(node: Gateway, **steps: Any) -> Answer:
    return await ask(node, "POST", "/v1/transactions", steps)


async def bodies(node: Gateway, queue: str) -> list[str]:
    page = await ask(node, "GET", f"/v1/queues/{queue}/messages")
    return [message["body"] for message in page["messages"]]


@pytest.fixture
async def out(node: Gateway) -> str:
    await ask(node, "PUT", "/v1/queues/out", {})
    return "out"


async def test_a_message_is_consumed_and_what_follows_from_it_is_sent_in_one_entry(node: Gateway, out: str) -> None:
    await send(node, "jobs", *"abcd")
    done, failed, slow, other = await receipts(node, "jobs", lease_ms=10_000)
    asked, index = len(node.client.asked), node.client.store.last_index
    committed = await transact(
        node,
        acks=[{"queue": "jobs", "receipts": [done, other]}],
        nacks=[{"queue": "jobs", "receipts": [failed], "delay_ms": 5000, "reason": "no"}],
        extends=[{"queue": "jobs", "receipts": [slow], "lease_ms": 60_000}],
        sends=[{"queue": out, "messages": [{"body": "e"}, {"body": "f", "priority": 9, "key": "k"}]}],
    )
    assert (committed.status, committed["acked"], committed["nacked"], committed["extended"]) == (200, 2, 1, 1)
    assert [message["message_id"] for message in committed["sends"][0]["messages"]] == [1, 2]
    assert (len(node.client.asked), node.client.store.last_index) == (asked + 1, index + 1)
    page = (await ask(node, "GET", "/v1/queues/jobs/messages"))["messages"]
    assert [(m["body"], m["state"], m["due"]) for m in page] == [
        ("b", "delayed", "2023-11-14T22:13:25.000Z"),
        ("c", "leased", "2023-11-14T22:14:20.000Z"),
    ]
    got = (await ask(node, "POST", f"/v1/queues/{out}/receive", {"max": 9}))["messages"]
    assert [(message["body"], message.get("key")) for message in got] == [("f", "k"), ("e", None)]


async def test_a_nack_without_a_delay_waits_as_the_queue_says(node: Gateway) -> None:
    await ask(node, "PUT", "/v1/queues/jobs", {"backoff": {"kind": "fixed", "base_ms": 7000, "jitter_percent": 0}})
    await send(node, "jobs", "a")
    await transact(node, nacks=[{"queue": "jobs", "receipts": await receipts(node, "jobs")}])
    page = await ask(node, "GET", "/v1/queues/jobs/messages")
    assert page["messages"][0]["due"] == "2023-11-14T22:13:27.000Z"


async def test_msgpack_sends_bytes(node: Gateway, out: str) -> None:
    sends = {"sends": [{"queue": out, "messages": [{"body": b"\xff", "attributes": {"raw": b"\x00"}}]}]}
    assert (await ask(node, "POST", "/v1/transactions", sends, form=MSGPACK)).status == 200
    (message,) = (await ask(node, "POST", f"/v1/queues/{out}/receive", {}))["messages"]
    assert (message["body_base64"], message["attributes"]) == ("/w==", {"raw": "AA=="})


# --- nothing happens --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["acks", "nacks", "extends"])
async def test_a_stale_receipt_undoes_everything_and_is_named(node: Gateway, out: str, kind: str) -> None:
    await send(node, "jobs", *"abcd")
    held = await receipts(node, "jobs")
    gone = [held[1], held[3]]
    await ask(node, "POST", "/v1/queues/jobs/ack", {"receipts": gone})
    before = digest(node.client.store)
    more = {"lease_ms": 60_000} if kind == "extends" else {}
    asked: dict[str, Any] = {
        "acks": [{"queue": "jobs", "receipts": [held[2]]}],
        "sends": [{"queue": out, "messages": [{"body": "e"}]}],
    }
    asked[kind] = [*asked.get(kind, []), {"queue": "jobs", "receipts": [held[0], *gone], **more}]
    refused = await transact(node, **asked)
    place = f"$.{kind}[{len(asked[kind]) - 1}].receipts"
    assert (refused.status, refused["type"]) == (409, "urn:trimaran:stale-receipt")
    assert refused["stale"] == [f"{place}[1]", f"{place}[2]"]
    assert refused["field"] == f"{place}[1]"
    assert digest(node.client.store) == before


async def test_of_a_message_named_under_two_leases_the_older_one_is_stale(node: Gateway) -> None:
    await send(node, "jobs", "a")
    (old,) = await receipts(node, "jobs", lease_ms=1000)
    node.client.pass_time(2000)
    (new,) = await receipts(node, "jobs")
    for order in ([old, new], [new, old]):
        refused = await transact(node, acks=[{"queue": "jobs", "receipts": order}])
        assert refused["stale"] == [f"$.acks[0].receipts[{order.index(old)}]"]
    assert (await transact(node, acks=[{"queue": "jobs", "receipts": [new, new]}]))["acked"] == 1


@pytest.mark.parametrize(
    ("settings", "messages", "status", "kind", "field"),
    [
        ({"fifo": True}, [{"body": "a", "group": "g"}, {"body": "b"}], 400, "group-required", "messages[1].group"),
        (
            {"fair": True},
            [{"body": "a"}, {"body": "b", "priority": 1}],
            400,
            "priority-not-allowed",
            "messages[1].priority",
        ),
        ({"body_bytes_max": 1}, [{"body": "a"}, {"body": "bb"}], 413, "body-too-large", "messages[1].body"),
        ({"messages_max": 1}, [{"body": "a"}, {"body": "b"}], 507, "queue-full", "queue"),
        (
            {"dedup_by": "required_id", "dedup_window_ms": 1000},
            [{"body": "a", "dedup_id": "d"}, {"body": "b"}],
            400,
            "dedup-id-required",
            "messages[1].dedup_id",
        ),
        (None, [{"body": "a"}], 404, "queue-not-found", "queue"),
    ],
)
async def test_a_send_that_is_refused_undoes_everything_and_is_named(
    node: Gateway, out: str, settings: dict[str, Any] | None, messages: list[Any], status: int, kind: str, field: str
) -> None:
    if settings is not None:
        await ask(node, "PUT", "/v1/queues/target", settings)
    await send(node, "jobs", "a")
    held = await receipts(node, "jobs")
    before = digest(node.client.store)
    sends = [{"queue": out, "messages": [{"body": "e"}]}, {"queue": "target", "messages": messages}]
    refused = await transact(node, acks=[{"queue": "jobs", "receipts": held}], sends=sends)
    assert (refused.status, refused["type"]) == (status, f"urn:trimaran:{kind}")
    assert refused["field"] == f"$.sends[1].{field}"
    assert digest(node.client.store) == before


async def test_a_settlement_of_a_queue_that_is_not_there_is_named(node: Gateway) -> None:
    refused = await transact(node, acks=[{"queue": "none", "receipts": [STALE]}])
    assert (refused.status, refused["field"]) == (404, "$.acks[0].queue")


# --- retried means once -----------------------------------------------------------------------------------------------


async def test_a_transaction_repeated_under_its_key_happens_once(node: Gateway, out: str) -> None:
    await send(node, "jobs", "a")
    steps = {
        "acks": [{"queue": "jobs", "receipts": await receipts(node, "jobs")}],
        "sends": [{"queue": out, "messages": [{"body": "b"}]}],
    }
    first, again = [await ask(node, "POST", "/v1/transactions", steps, Idempotency_Key="k") for _ in range(2)]
    assert first.status == 200
    assert again.document == first.document
    assert await bodies(node, out) == ["b"]
    operation = node.client.asked[-2]
    assert isinstance(operation, Keyed)
    assert isinstance(operation.operation, Transaction)
    other = await ask(node, "POST", "/v1/transactions", {"sends": steps["sends"]}, Idempotency_Key="k")
    assert other.status == 422


# --- bad input --------------------------------------------------------------------------------------------------------


def acks(*texts: str, queue: str = "jobs") -> dict[str, Any]:
    return {"queue": queue, "receipts": list(texts)}


def sends(count: int, queue: str = "jobs") -> dict[str, Any]:
    return {"queue": queue, "messages": [{"body": ""}] * count}


@pytest.mark.parametrize(
    ("steps", "field", "limit"),
    [
        ({}, "$", None),
        ({"acks": [], "sends": []}, "$", None),
        ({"acks": {}}, "$.acks", None),
        ({"publishes": []}, "$", None),
        ({"acks": [acks()]}, "$.acks[0].receipts", 1),
        ({"acks": [acks("nonsense")]}, "$.acks[0].receipts[0]", None),
        ({"acks": [acks(STALE), acks(STALE, "")]}, "$.acks[1].receipts[1]", None),
        ({"acks": [acks(STALE, queue="a b")]}, "$.acks[0].queue", 80),
        ({"acks": [{"receipts": [STALE]}]}, "$.acks[0]", None),
        ({"acks": [{**acks(STALE), "delay_ms": 1}]}, "$.acks[0]", None),
        ({"nacks": [{**acks(STALE), "delay_ms": -1}]}, "$.nacks[0].delay_ms", 0),
        ({"nacks": [{**acks(STALE), "reason": "x" * 1025}]}, "$.nacks[0].reason", 1024),
        ({"extends": [acks(STALE)]}, "$.extends[0]", None),
        ({"extends": [{**acks(STALE), "lease_ms": 999}]}, "$.extends[0].lease_ms", 1000),
        ({"sends": [sends(0)]}, "$.sends[0].messages", 1),
        ({"sends": [sends(1), sends(1, "é")]}, "$.sends[1].queue", 80),
        ({"sends": [{"queue": "jobs", "messages": [{"body": ""}, {}]}]}, "$.sends[0].messages[1].body", None),
        (
            {"sends": [{"queue": "jobs", "messages": [{"body": "", "at": "x"}]}]},
            "$.sends[0].messages[0].at",
            None,
        ),
        ({"sends": [sends(1)] * 101}, "$.sends", 100),
        ({"acks": [acks(STALE)] * 60, "sends": [sends(1)] * 41}, "$", 100),
        ({"acks": [acks(STALE)], "sends": [sends(1000)]}, "$", 1000),
        (b'{"sends":[{"queue":"jobs","messages":[{"body":"","body":""}]}]}', "$", None),
        (b'{"acks":[{"queue":"jobs","queue":"jobs","receipts":["%s"]}]}' % STALE.encode(), "$", None),
    ],
)
async def test_what_no_transaction_may_say_is_named_and_does_nothing(
    node: Gateway, steps: Any, field: str, limit: int | None
) -> None:
    asked = len(node.client.asked)
    refused = await ask(node, "POST", "/v1/transactions", steps)
    assert (refused.status, refused["field"], refused.document.get("limit")) == (400, field, limit)
    assert refused["remedy"]
    assert len(node.client.asked) == asked


async def test_as_many_messages_as_are_allowed(node: Gateway) -> None:
    assert (await transact(node, sends=[sends(10)] * 100)).status == 200
