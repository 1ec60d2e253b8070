"""The seed's API: send, receive, list, and an ack, on a queue that exists from its first use."""

from __future__ import annotations

from tests.api.asking import ask
from tests.api.fake_client import Gateway


async def test_a_message_is_sent_listed_received_and_acked(node: Gateway) -> None:
    sent = await ask(node, "POST", "/send_message", {"message": "Hello, world!"})
    assert (sent.status, sent.document) == (201, {"message_id": 1, "timestamp": "2023-11-14T22:13:20.000Z"})
    listed = (await ask(node, "GET", "/messages"))["messages"]
    assert listed == [{"message_id": 1, "content": "Hello, world!", "timestamp": sent["timestamp"]}]
    got = await ask(node, "GET", "/receive_message")
    receipt = got.document.pop("receipt")
    assert got.document == listed[0]
    acked = await ask(node, "POST", "/ack_message", {"receipt": receipt})
    assert (acked.status, acked["status"]) == (200, "acked")
    assert (await ask(node, "POST", "/ack_message", {"receipt": receipt}))["status"] == "stale"
    assert (await ask(node, "POST", "/ack_message", {"receipt": "none"}))["status"] == "invalid"


async def test_there_is_nothing_on_first_use(node: Gateway) -> None:
    nothing = await ask(node, "GET", "/receive_message")
    assert (nothing.status, nothing.document) == (200, {})
    assert (await ask(node, "GET", "/v1/queues/default")).status == 200


async def test_all_messages_come_in_pages(node: Gateway) -> None:
    for text in "abc":
        await ask(node, "POST", "/send_message", {"message": text})
    page = (await ask(node, "GET", "/messages?after=1&limit=1"))["messages"]
    assert [message["content"] for message in page] == ["b"]


async def test_the_first_send_repeated_under_its_key_is_one_message(node: Gateway) -> None:
    ids = [
        (await ask(node, "POST", "/send_message", {"message": "once"}, Idempotency_Key="k"))["message_id"]
        for _ in range(2)
    ]
    assert ids == [1, 1]


async def test_a_message_needs_a_message(node: Gateway) -> None:
    for body in (b"{}", b'{"message":1}', b'{"message":"a","message":"b"}', b'{"message":"\\ud800"}'):
        assert (await ask(node, "POST", "/send_message", body)).status == 400
