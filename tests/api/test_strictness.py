"""What no request may say: each is refused with 4xx, names its field, and nothing reaches the cluster."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from api.problem import Problem
from api.request import HttpSettings, _may_repeat_members, _refuse_repeated
from storage.limits import BATCH_MESSAGES_MAX
from tests.api.asking import MSGPACK, ask
from tests.api.fake_client import Gateway, gateway

SEND, RECEIVE, ACK = "/messages", "/receive", "/ack"

BAD_JSON: list[tuple[str, bytes, str]] = [
    # path, body, field
    (SEND, b"", "$.body"),
    (SEND, b"{", "$"),
    (SEND, b"[]", "$"),
    (SEND, b"null", "$"),
    (SEND, b'{"body":"x"} {}', "$"),
    (SEND, b'{"body":1}', "$.body"),
    (SEND, b'{"body":null}', "$.body"),
    (SEND, b'{"body":"x","body_base64":"eA=="}', "$.body"),
    (SEND, b'{"body_base64":"!"}', "$.body_base64"),
    (SEND, b'{"body":"x","colour":1}', "$"),
    (SEND, b'{"body":"x","body":"y"}', "$"),
    (SEND, b'{"body" :"x","body"\t:\n"y"}', "$"),
    (SEND, b'{"messages":[{"body":"x"},{"body":"y","body":"z"}]}', "$"),
    (SEND, b'{"body":"x","attributes":{"a\\\\":1,"a\\\\":2}}', "$"),
    (SEND, b'{"body":"x","attributes":{"a":1,"\\u0061":2}}', "$"),
    (SEND, b'{"body":"\\ud800"}', "$"),
    (SEND, b'{"body":"\\udc00\\ud800"}', "$"),
    (SEND, b'{"body":"\xed\xa0\x80"}', "$"),
    (SEND, b'{"body":"\xff"}', "$"),
    (SEND, b'{"body":"x","\\ud800":1}', "$"),
    (SEND, '{"body":"x"}'.encode("utf-16"), "$"),
    (SEND, b'\xef\xbb\xbf{"body":"x"}', "$"),
    (SEND, b'{"body":"x","attributes":{"a":NaN}}', "$"),
    (SEND, b'{"body":"x","attributes":{"a":-Infinity}}', "$"),
    (SEND, b'{"body":"x","attributes":{"a":1e999}}', "$.attributes[...]"),
    (SEND, b'{"body":"x","attributes":{"a":18446744073709551616}}', "$.attributes.a"),
    (SEND, b'{"body":"x","attributes":{"a":null}}', "$.attributes[...]"),
    (SEND, b'{"body":"x","attribute_types":{"a":"String"}}', "$.attribute_types.a"),
    (SEND, b'{"body":"x","attributes":{"a":1},"attribute_types":{"a":"Text"}}', "$.attribute_types.a"),
    (SEND, b'{"body":"x","attributes":{"a":1},"attribute_types":{"a":"String"}}', "$.attribute_types.a"),
    (SEND, b'{"body":"x","attributes":{"a":true},"attribute_types":{"a":"Number"}}', "$.attribute_types.a"),
    (SEND, b'{"body":"x","attributes":{"a":"*"},"attribute_types":{"a":"Binary"}}', "$.attribute_types.a"),
    (SEND, b'{"body":"x","attributes":{"a":"x"},"attribute_types":{"a":"String.a b"}}', "$.attribute_types.a"),
    (SEND, b'{"body":"x","attributes":{"a":1},"attribute_types":{"a":1}}', "$.attribute_types[...]"),
    (SEND, b'{"body":"x","attributes":{"a":1},"attribute_types":{"a":"Number","a":"Number"}}', "$"),
    (SEND, b'{"body":"x","attributes":{"a":[1]}}', "$.attributes[...]"),
    (SEND, b'{"body":"x","attributes":{"":1}}', "$.attributes"),
    (SEND, b'{"body":"x","attributes":{"a\\u0000b":1}}', "$.attributes"),
    (SEND, b'{"body":"x","attributes":{"a\\r\\nb":1}}', "$.attributes"),
    (SEND, b'{"messages":[]}', "$.messages"),
    (SEND, b'{"messages":[{"body":"x"},{}]}', "$.messages[1].body"),
    (SEND, b'{"messages":[{"body":"x"}],"body":"y"}', "$.messages"),
    (SEND, b'{"messages":[{"body":"x","attributes":{"a":{}}}]}', "$.messages[0].attributes[...]"),
    (SEND, b'{"body":' + b'{"a":' * 100_000, "$.body"),
    (SEND, b"[" * 100_000, "$"),
    (RECEIVE, b'{"max":0}', "$.max"),
    (RECEIVE, b'{"max":1001}', "$.max"),
    (RECEIVE, b'{"max":1.5}', "$.max"),
    (RECEIVE, b'{"max":true}', "$.max"),
    (RECEIVE, b'{"max":"1"}', "$.max"),
    (RECEIVE, b'{"max":1,"max":2}', "$"),
    (RECEIVE, b'{"wait_ms":-1}', "$.wait_ms"),
    (RECEIVE, b'{"wait_ms":99999999999999999999999}', "$.wait_ms"),
    (RECEIVE, b'{"lease_ms":999}', "$.lease_ms"),
    (ACK, b"{}", "$"),
    (ACK, b'{"receipts":[]}', "$.receipts"),
    (ACK, b'{"receipts":[1]}', "$.receipts[0]"),
    (ACK, b'{"receipts":["\\ud800"]}', "$"),
    ("/nack", b'{"receipts":["x"],"delay_ms":-1}', "$.delay_ms"),
    ("/nack", b'{"receipts":["x"],"reason":"%s"}' % ("é" * 513).encode(), "$.reason"),
    ("/receive", b'{"consumer":"%s"}' % ("é" * 65).encode(), "$.consumer"),
    ("/messages", b'{"body":"","at":"soon"}', "$.at"),
    ("/messages", b'{"body":"","at":"2040-01-01T00:00:00"}', "$.at"),
    ("/messages", b'{"body":"","at":"9000-01-01T00:00:01Z"}', "$.at"),
    ("/messages", b'{"body":"","at":"0001-01-01T00:00:00+14:00"}', "$.at"),
    ("/messages", b'{"body":"","at":"2040-01-01T00:00:00Z","delay_ms":1}', "$.at"),
    ("/messages", b'{"body":"","group":""}', "$.group"),
    ("/messages", b'{"messages":[{"body":""},{"body":"","key":"%s"}]}' % (b"k" * 201), "$.messages[1].key"),
    ("/messages", b'{"body":"","priority":10}', "$.priority"),
    ("/nack", b'{"receipts":["x"],"reason":"\\ud800"}', "$"),
    ("/extend", b'{"receipts":["x"]}', "$"),
    ("/extend", b'{"receipts":["x"],"lease_ms":0}', "$.lease_ms"),
]


@pytest.mark.parametrize(("path", "body", "field"), BAD_JSON, ids=[f"{p}{b[:40]!r}" for p, b, _ in BAD_JSON])
async def test_bad_json(node: Gateway, path: str, body: bytes, field: str) -> None:
    asked = len(node.client.asked)
    answer = await ask(node, "POST", "/v1/queues/jobs" + path, body)
    assert (answer.status, answer["field"]) == (400, field)
    assert answer["remedy"]
    assert len(node.client.asked) == asked


BAD_MSGPACK: list[tuple[Any, str]] = [
    (b"\xc1", "$"),
    (b"\x81", "$"),
    (b"\x91" * 100_000, "$"),
    ({"body": 1}, "$.body"),
    ({"body": None}, "$.body"),
    ({"body": ["x"]}, "$.body"),
    ({"body": "x", "body_base64": "eA=="}, "$"),
    ({1: "x"}, "$"),
    ({"body": "x", "attributes": {"a": float("nan")}}, "$.attributes.a"),
    ({"body": "x", "attributes": {"a": float("inf")}}, "$.attributes.a"),
    ({"body": "x", "attributes": {"a": None}}, "$.attributes.a"),
    ({"body": "x", "attributes": {"a": [b"bytes"]}}, "$.attributes.a"),
    ({"body": "x", "attributes": {"a": b"bytes"}, "attribute_types": {"a": "String"}}, "$.attribute_types.a"),
    ({"messages": [{"body": b"x"}, {"body": {}}]}, "$.messages[1].body"),
]


@pytest.mark.parametrize(("content", "field"), BAD_MSGPACK, ids=[repr(c)[:50] for c, _ in BAD_MSGPACK])
async def test_bad_msgpack(node: Gateway, content: Any, field: str) -> None:
    answer = await ask(node, "POST", "/v1/queues/jobs/messages", content, form=MSGPACK)
    assert answer.status == 400
    assert answer["field"].startswith(field)


@pytest.mark.parametrize(
    "name",
    ["..%2fetc", "a%00b", "a%0d%0ab", "a%0a", "%D0%B0bc", "a.b", "x" * 81, "a%20b", ".fifo", "%ff", "a" * 8000, "x;y"],
)
async def test_bad_queue_names(node: Gateway, name: str) -> None:
    answer = await ask(node, "PUT", f"/v1/queues/{name}", {})
    assert 400 <= answer.status < 500


async def test_a_name_of_a_megabyte_is_refused_without_saying_it_back(node: Gateway) -> None:
    answer = await ask(node, "PUT", "/v1/queues/" + "a" * 2**20, {})
    assert answer.status == 400
    assert len(msgspec.json.encode(answer.document)) < 500


@pytest.mark.parametrize("query", ["after=-1", "limit=0", "limit=1001", "after=x", "after=1_0", "after=٣", "limit="])
async def test_bad_queries(node: Gateway, query: str) -> None:
    answer = await ask(node, "GET", "/v1/queues/jobs/messages?" + query)
    assert (answer.status, answer["field"]) == (400, query.split("=")[0])


@pytest.mark.parametrize(
    "setting",
    [{"lease_ms": 999}, {"lease_ms": 10**9}, {"body_bytes_max": 0}, {"retention_ms": -1}, {"attempts_max": 1001}],
)
async def test_bad_settings(node: Gateway, setting: dict[str, int]) -> None:
    answer = await ask(node, "PUT", "/v1/queues/q", setting)
    assert (answer.status, answer["field"]) == (400, "$." + next(iter(setting)))
    assert "limit" in answer.document


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Type": "text/plain"},
        {"Content_Type": "application/x-www-form-urlencoded"},
        {"Content_Type": "application/octet-stream"},
        {"Content_Encoding": "gzip"},
    ],
)
async def test_other_media_types(node: Gateway, headers: dict[str, str]) -> None:
    answer = await ask(node, "POST", "/v1/queues/jobs/messages", b'{"body":"x"}', **headers)
    assert answer.status == 415


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, '""', "ключ"])
async def test_bad_idempotency_keys(node: Gateway, key: str) -> None:
    answer = await ask(node, "POST", "/v1/queues/jobs/messages", {"body": "x"}, Idempotency_Key=key)
    assert (answer.status, answer["field"]) == (400, "Idempotency-Key")


async def test_too_many_messages_and_attributes_name_their_limits(node: Gateway) -> None:
    batch = {"messages": [{"body": "x"}] * (BATCH_MESSAGES_MAX + 1)}
    many = await ask(node, "POST", "/v1/queues/jobs/messages", batch)
    assert (many.status, many["field"], many["limit"]) == (400, "$.messages", BATCH_MESSAGES_MAX)
    labels = {"body": "x", "attributes": {str(number): number for number in range(65)}}
    assert (await ask(node, "POST", "/v1/queues/jobs/messages", labels))["limit"] == 64
    heavy = {"body": "x", "attributes": {"a": "x" * 65_536}}
    assert (await ask(node, "POST", "/v1/queues/jobs/messages", heavy)).status == 413


async def test_a_large_request_and_a_large_body_are_different_things() -> None:
    async with gateway(request_bytes_max=4096) as node:
        await ask(node, "PUT", "/v1/queues/jobs", {"body_bytes_max": 10})
        request = await ask(node, "POST", "/v1/queues/jobs/messages", {"body": "x" * 5000})
        assert (request.status, request["limit"], request["field"]) == (413, 4096, "$")
        batch = {"messages": [{"body": "x"}, {"body": "x" * 11}]}
        body = await ask(node, "POST", "/v1/queues/jobs/messages", batch)
        assert (body.status, body["limit"], body["field"]) == (413, 10, "$.messages[1].body")
        assert (await ask(node, "GET", "/v1/queues/jobs"))["ready"] == 0


async def test_a_msgpack_request_at_the_limit_never_makes_an_operation_above_it(node: Gateway) -> None:
    # Kept, each message takes more than it does in msgpack: the operation may outgrow the request.
    most = HttpSettings().request_bytes_max
    batch = {"messages": [{"body": bytes(most // 1000 - 20)}] * 1000}
    content = msgspec.msgpack.encode(batch)
    assert len(content) < most
    answer = await ask(node, "POST", "/v1/queues/jobs/messages", content, form=MSGPACK)
    assert answer.status == 201
    batch = {"messages": [{"body": bytes(most // 1000 - 14)}] * 1000}
    content = msgspec.msgpack.encode(batch)
    assert len(content) < most
    assert (await ask(node, "POST", "/v1/queues/jobs/messages", content, form=MSGPACK)).status == 413


async def test_a_member_that_stands_twice_among_very_many_is_found(node: Gateway) -> None:
    names = b",".join(b'"k%d":1' % number for number in range(200_000))
    body = b'{"body":"x","attributes":{' + names + b',"k199999":2}}'
    answer = await ask(node, "POST", "/v1/queues/jobs/messages", body)
    assert (answer.status, answer["detail"]) == (400, "$: the member 'k199999' stands twice")


def test_members_that_stand_twice_are_found_in_linear_time() -> None:
    compared = 0

    class Name(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

    members = [(Name(number), 1) for number in range(1000)]
    _refuse_repeated(members)
    with pytest.raises(Problem, match="'7' stands twice"):
        _refuse_repeated([*members, (Name(7), 2)])
    assert compared < len(members)


@pytest.mark.parametrize(
    ("data", "members", "may"),
    [
        (b'{"body":"x"}', 1, False),
        (b'{"body":"at 12:30, see https://x"}', 1, False),
        (b'{"body":"{\\"a\\":1,\\"b\\":2}"}', 1, False),
        (b'{"body":"x","body":"y"}', 1, True),
        (b'{"body" : "x", "body" : "y"}', 1, True),
        (b'{"a\\\\":1,"a\\\\":2}', 1, True),
    ],
)
def test_the_cheap_bound_never_misses_a_repeated_member(data: bytes, members: int, may: bool) -> None:
    assert _may_repeat_members(data, members) is may
