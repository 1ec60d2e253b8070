"""Traces and CloudEvents go along with messages: what comes in by a header or an envelope is seen by who receives."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.api.asking import Answer, ask
from tests.api.fake_client import Gateway

SEND = "/v1/queues/jobs/messages"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
HEADERS = {"ce_specversion": "1.0", "ce_id": "7", "ce_source": "/shop", "ce_type": "shop.ordered"}
EVENT = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "shop.ordered"}
CONTEXT = {"ce-specversion": "1.0", "ce-id": "7", "ce-source": "/shop", "ce-type": "shop.ordered"}
STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"


async def received(node: Gateway) -> list[dict[str, Any]]:
    return list((await ask(node, "POST", "/v1/queues/jobs/receive", {"max": 100}))["messages"])


async def send_event(node: Gateway, data: bytes, content_type: str = "application/json", **more: str) -> Answer:
    return await ask(node, "POST", SEND, data, form=content_type, **{**HEADERS, **more})


# --- traces -----------------------------------------------------------------------------------------------------------


async def test_a_trace_goes_along_with_every_message_that_names_none(node: Gateway) -> None:
    own = PARENT.replace("0af7", "1111")
    batch = {"messages": [{"body": "a", "attributes": {"b": 1}}, {"body": "c", "attributes": {"traceparent": own}}]}
    await ask(node, "POST", SEND, batch, traceparent=PARENT, tracestate="vendor=1")
    await ask(node, "POST", "/v1/transactions", {"sends": [{"queue": "jobs", **batch}]}, traceparent=PARENT)
    seen = [message["attributes"] for message in await received(node)]
    assert seen[0] == {"b": 1, "traceparent": PARENT, "tracestate": "vendor=1"}
    assert seen[1] == {"traceparent": own}
    assert seen[2:] == [{"b": 1, "traceparent": PARENT}, {"traceparent": own}]


async def test_a_trace_goes_along_with_what_is_published(node: Gateway) -> None:
    await ask(node, "PUT", "/v1/topics/shop", {})
    await ask(node, "PUT", "/v1/topics/shop/subscriptions/all", {"queue": "jobs"})
    await ask(node, "POST", "/v1/topics/shop/messages", {"body": "a"}, traceparent=PARENT)
    assert (await received(node))[0]["attributes"] == {"traceparent": PARENT}


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "x",
        PARENT.upper(),
        PARENT + "-00",
        "ff" + PARENT[2:],
        PARENT.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32),
    ],
)
async def test_what_is_no_trace_is_ignored(node: Gateway, parent: str) -> None:
    assert (await ask(node, "POST", SEND, {"body": "a"}, traceparent=parent, tracestate="v=1")).status == 201
    assert (await received(node))[0]["attributes"] == {}


async def test_a_trace_never_makes_a_send_fail(node: Gateway) -> None:
    full = {"body": "a", "attributes": {f"a{number}": 1 for number in range(64)}}
    assert (await ask(node, "POST", SEND, full, traceparent=PARENT)).status == 201
    assert "traceparent" not in (await received(node))[0]["attributes"]
    assert (await ask(node, "POST", SEND, {"body": "b"}, traceparent=PARENT, tracestate="x" * 600)).status == 201
    assert (await received(node))[0]["attributes"] == {"traceparent": PARENT}


# --- events -----------------------------------------------------------------------------------------------------------


async def test_an_event_is_the_same_message_in_whatever_mode_it_came(node: Gateway) -> None:
    await send_event(node, b'{"item": "sloop"}', ce_subject="caf%C3%A9 %25", ce_size="3", ce_urgent="true")
    more = {"subject": "café %", "size": 3, "urgent": True, "dataschema": None}
    event = json.dumps({**EVENT, **more, "datacontenttype": "application/json"})[:-1] + ', "data": {"item": "sloop"}}'
    await ask(node, "POST", SEND, event.encode(), form=STRUCTURED)
    await ask(node, "POST", SEND, f"[{event}, {event}]".encode(), form=f"{BATCH}; charset=utf-8")
    got = await received(node)
    assert len(got) == 4
    context = {**CONTEXT, "ce-subject": "café %", "ce-size": "3", "ce-urgent": "true"}
    for message in got:
        assert message["body"] == '{"item": "sloop"}'
        assert message["attributes"] == {**context, "content-type": "application/json"}
        assert message["dedup_id"] == "/shop 7"


@pytest.mark.parametrize(
    ("content_type", "data", "member", "value"),
    [
        ("text/plain", "é".encode(), "body", "é"),
        ("text/plain; charset=latin-1", b"\xe9", "body_base64", "6Q=="),
        ("application/vnd.shop+xml", b"<a/>", "body", "<a/>"),
        ("application/octet-stream", b"abc", "body_base64", "YWJj"),
        ("image/png", b"\x00\xff", "body_base64", "AP8="),
    ],
)
async def test_text_comes_as_text_and_bytes_as_bytes(
    node: Gateway, content_type: str, data: bytes, member: str, value: str
) -> None:
    assert (await send_event(node, data, content_type)).status == 201
    (message,) = await received(node)
    assert (message[member], message["attributes"]["content-type"]) == (value, content_type)


@pytest.mark.parametrize(
    ("more", "member", "value"),
    [
        ({}, "body", ""),
        ({"data": None}, "body", "null"),
        ({"data": "a"}, "body", '"a"'),
        ({"data": "a", "datacontenttype": "text/plain"}, "body", "a"),
        ({"data": {"a": 1}, "datacontenttype": "text/plain"}, "body", '{"a": 1}'),
        ({"data_base64": "AP8=", "datacontenttype": "image/png"}, "body_base64", "AP8="),
        ({"data_base64": "YQ=="}, "body", "a"),
    ],
)
async def test_data_of_a_structured_event(node: Gateway, more: dict[str, Any], member: str, value: str) -> None:
    assert (await ask(node, "POST", SEND, json.dumps({**EVENT, **more}).encode(), form=STRUCTURED)).status == 201
    (message,) = await received(node)
    assert message[member] == value


async def test_an_event_is_sent_once_where_there_is_a_window_and_goes_to_its_group(node: Gateway) -> None:
    await ask(node, "PUT", "/v1/queues/q.fifo", {"fifo": True, "dedup_window_ms": 60_000})
    path = "/v1/queues/q.fifo/messages"
    for number, source in enumerate(("/shop", "/shop", "/" + "x" * 200, "/" + "x" * 200, "/a b")):
        sent = await ask(node, "POST", path, b"{}", **{**HEADERS, "ce_source": source, "ce_partitionkey": "g"})
        assert (sent.status, "duplicate" in sent["messages"][0]) == (201, number in (1, 3))
    assert (await ask(node, "POST", path, b"{}", **HEADERS))["type"] == "urn:trimaran:group-required"
    page = (await ask(node, "GET", path))["messages"]
    assert {message["group"] for message in page} == {"g"}
    assert len(page[1]["dedup_id"]) == len(page[2]["dedup_id"]) == 64


async def test_another_event_under_the_same_idempotency_key_is_refused(node: Gateway) -> None:
    first = await send_event(node, b"{}", Idempotency_Key="k")
    again = await send_event(node, b"{}", Idempotency_Key="k")
    assert first.document == again.document
    assert (await send_event(node, b"{}", Idempotency_Key="k", ce_id="8")).status == 422


def without(name: str) -> bytes:
    return json.dumps({key: value for key, value in EVENT.items() if key != name}).encode()


@pytest.mark.parametrize(
    ("data", "form", "field"),
    [
        (b"", STRUCTURED, "$"),
        (b"[]", STRUCTURED, "$"),
        (b"{", STRUCTURED, "$"),
        (b"[" * 100_000, STRUCTURED, "$"),
        (without("specversion"), STRUCTURED, "$.specversion"),
        (without("id"), STRUCTURED, "$.id"),
        (without("source"), STRUCTURED, "$.source"),
        (without("type"), STRUCTURED, "$.type"),
        (json.dumps({**EVENT, "specversion": "0.3"}).encode(), STRUCTURED, "$.specversion"),
        (json.dumps({**EVENT, "size": 1.5}).encode(), STRUCTURED, "$.size"),
        (json.dumps({**EVENT, "Size": 1}).encode(), STRUCTURED, "$.Size"),
        (json.dumps({**EVENT, "size": {}}).encode(), STRUCTURED, "$.size"),
        (json.dumps({**EVENT, "data": 1, "data_base64": ""}).encode(), STRUCTURED, "$.data"),
        (json.dumps({**EVENT, "data_base64": "*"}).encode(), STRUCTURED, "$.data_base64"),
        (json.dumps({**EVENT, "data_base64": 1}).encode(), STRUCTURED, "$.data_base64"),
        (b'{"id": "1", ' + json.dumps(EVENT)[1:].encode(), STRUCTURED, "$"),
        (json.dumps(EVENT)[:-1].encode() + b', "data": ' + b"[" * 5000 + b"]" * 5000 + b"}", STRUCTURED, "$"),
        (json.dumps(EVENT)[:-1].encode() + b', "data": "\xff"}', STRUCTURED, "$"),
        (json.dumps({**EVENT, **{f"a{number}": 1 for number in range(64)}}).encode(), STRUCTURED, "$.attributes"),
        (json.dumps({**EVENT, "partitionkey": "x" * 129}).encode(), STRUCTURED, "$.group"),
        (b"[]", BATCH, "$"),
        (b"{}", BATCH, "$"),
        (b"[%s, {}]" % json.dumps(EVENT).encode(), BATCH, "$[1].specversion"),
        (b"[%s]" % b",".join([json.dumps(EVENT).encode()] * 1001), BATCH, "$"),
    ],
)
async def test_what_is_no_event_is_named_and_nothing_is_sent(node: Gateway, data: bytes, form: str, field: str) -> None:
    asked = len(node.client.asked)
    refused = await ask(node, "POST", SEND, data, form=form)
    assert (refused.status, refused["field"]) == (400, field)
    assert refused["remedy"]
    assert len(node.client.asked) == asked


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({"ce_specversion": "2.0"}, "ce-specversion"),
        ({"ce_id": ""}, "ce-id"),
        ({"ce_a-b": "1"}, "ce-a-b"),
        ({"ce_subject": "%00"}, None),
    ],
)
async def test_headers_of_an_event_are_checked(node: Gateway, headers: dict[str, str], field: str | None) -> None:
    answer = await send_event(node, b"{}", **headers)
    assert (answer.status, answer.document.get("field")) == ((400, field) if field else (201, None))
