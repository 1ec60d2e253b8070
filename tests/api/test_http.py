"""The HTTP side over a real single node: what it takes, what it refuses, and that refusals change nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import pytest_asyncio

from api import openapi
from api.messages import read_receipt, read_receipts, receipt
from api.problem import REFUSALS
from cluster.repair import REPLICA_DAMAGED
from cluster.room import STORE_FULL
from storage import codes
from storage.operations import Claim
from tests.processes.nodes import Cluster

pytestmark = pytest.mark.processes


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    directory: Path = tmp_path_factory.mktemp("node")
    # A body that is too large must be through in time, also on a busy machine.
    extra = ("--header-timeout-ms", "300", "--body-timeout-ms", "1500")
    async with Cluster(directory, 1, extra) as cluster:
        await cluster.ok("n1", "PUT", "/v1/queues/q", {"body_bytes_max": 100})
        yield cluster


async def raw(node: Cluster, method: str, path: str, data: bytes, **headers: str) -> tuple[int, Any]:
    headers = {key.replace("_", "-"): value for key, value in headers.items()}
    async with node.http.request(method, node.nodes["n1"].url + path, data=data, headers=headers) as answer:
        body = await answer.read()
        if answer.content_type == "application/msgpack":
            return answer.status, msgspec.msgpack.decode(body)
        return answer.status, json.loads(body) if body else None


MESSAGES = "/v1/queues/q/messages"
BAD = [
    # method, path, body, status, field
    ("POST", MESSAGES, b"{", 400, "$"),
    ("POST", MESSAGES, b"\xff", 400, "$"),
    ("POST", MESSAGES, b"[" * 100_000, 400, "$"),
    ("POST", MESSAGES, b'{"body": "a", "body": "b"}', 400, "$"),
    ("POST", MESSAGES, b"{" + b",".join(b'"%d": 1' % n for n in range(300_000)) + b', "7": 1}', 400, "$"),
    ("POST", MESSAGES, b'{"body": NaN}', 400, "$"),
    ("POST", MESSAGES, b'{"body": "\\ud800"}', 400, "$"),
    ("POST", MESSAGES, b'{"body": 1}', 400, "$.body"),
    ("POST", MESSAGES, b"{}", 400, "$.body"),
    ("POST", MESSAGES, b'{"body": "a", "body_base64": "YQ=="}', 400, "$.body"),
    ("POST", MESSAGES, b'{"body_base64": "*"}', 400, "$.body_base64"),
    ("POST", MESSAGES, b'{"body": "a", "colour": "red"}', 400, "$"),
    ("POST", MESSAGES, b'{"body": "a", "attributes": {"a": [1]}}', 400, "$.attributes[...]"),
    ("POST", MESSAGES, b'{"body": "a", "attributes": {"a\\u0000": 1}}', 400, "$.attributes"),
    ("POST", MESSAGES, b'{"body": "a", "attributes": {"a": 99999999999999999999}}', 400, "$.attributes.a"),
    ("POST", MESSAGES, b'{"messages": []}', 400, "$.messages"),
    ("POST", MESSAGES, json.dumps({"messages": [{"body": ""}] * 1001}).encode(), 400, "$.messages"),
    (
        "POST",
        MESSAGES,
        json.dumps({"messages": [{"body": "a"}, {"body": "b" * 101}]}).encode(),
        413,
        "$.messages[1].body",
    ),
    ("POST", MESSAGES, b'{"body": "' + b"a" * 17_000_000 + b'"}', 413, "$"),
    ("POST", "/v1/queues/q/receive", b'{"max": 0}', 400, "$.max"),
    ("POST", "/v1/queues/q/receive", b'{"max": 1e99}', 400, "$.max"),
    ("POST", "/v1/queues/q/receive", b'{"wait_ms": -1}', 400, "$.wait_ms"),
    ("POST", "/v1/queues/q/receive", b'{"lease_ms": 99999999999}', 400, "$.lease_ms"),
    ("POST", "/v1/queues/q/ack", b'{"receipts": []}', 400, "$.receipts"),
    ("POST", "/v1/queues/q/ack", b'{"receipts": "x"}', 400, "$.receipts"),
    ("POST", "/v1/queues/q/extend", b'{"receipts": ["x"]}', 400, "$"),
    ("PUT", "/v1/queues/q", b'{"lease_ms": 5}', 400, "$.lease_ms"),
    ("PUT", "/v1/queues/q", b'{"attempts_max": 1001}', 400, "$.attempts_max"),
    ("PUT", "/v1/queues/q", b'{"speed": 3}', 400, "$"),
    ("PUT", "/v1/queues/" + "a" * 81, b"{}", 400, "queue"),
    ("PUT", "/v1/queues/..%2fq", b"{}", 400, "queue"),
    ("PUT", "/v1/queues/a%00", b"{}", 400, "queue"),
    ("PUT", "/v1/queues/a%0d%0a", b"{}", 400, "queue"),
    ("PUT", "/v1/queues/%D0%B0", b"{}", 400, "queue"),
    ("GET", MESSAGES + "?limit=0", b"", 400, "limit"),
    ("GET", MESSAGES + "?after=-1", b"", 400, "after"),
    ("GET", MESSAGES + "?after=\u0661", b"", 400, "after"),
    ("POST", "/send_message", b'{"message": 1}', 400, "$.message"),
    ("GET", "/v1/queues/none", b"", 404, None),
    ("GET", "/nothing", b"", 404, None),
    ("PATCH", "/v1/queues/q", b"", 405, None),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "field"), BAD, ids=range(len(BAD)))
@pytest.mark.asyncio(loop_scope="module")
async def test_bad_input_is_named_and_changes_nothing(
    node: Cluster, method: str, path: str, body: bytes, status: int, field: str | None
) -> None:
    before = await node.ok("n1", "GET", "/v1/queues/q")
    got, problem = await raw(node, method, path, body, Content_Type="application/json")
    assert (got, problem.get("field")) == (status, field), problem
    assert problem["title"]
    assert problem["remedy"]
    assert "Traceback" not in json.dumps(problem)
    assert await node.ok("n1", "GET", "/v1/queues/q") == before


@pytest.mark.asyncio(loop_scope="module")
async def test_other_media_types_and_keys_are_refused(node: Cluster) -> None:
    assert (await raw(node, "POST", MESSAGES, b"<a/>", Content_Type="text/xml"))[0] == 415
    headers = {"Content_Type": "application/json", "Idempotency_Key": "k" * 256}
    status, problem = await raw(node, "POST", MESSAGES, b'{"body": "a"}', **headers)
    assert (status, problem["field"], problem["limit"]) == (400, "Idempotency-Key", 255)


@pytest.mark.asyncio(loop_scope="module")
async def test_msgpack_carries_bytes_as_they_are(node: Cluster) -> None:
    await node.ok("n1", "PUT", "/v1/queues/bin", {})
    body = msgspec.msgpack.encode({"messages": [{"body": b"\x00\xff"}, {"body": "text"}]})
    assert (await raw(node, "POST", "/v1/queues/bin/messages", body, Content_Type="application/msgpack"))[0] == 201
    wish = msgspec.msgpack.encode({"max": 10})
    _, answer = await raw(node, "POST", "/v1/queues/bin/receive", wish, Content_Type="application/msgpack")
    assert [message["body"] for message in answer["messages"]] == [b"\x00\xff", "text"]


@pytest.mark.asyncio(loop_scope="module")
async def test_the_simple_api(node: Cluster) -> None:
    document = openapi.document()
    assert await node.ok("n1", "GET", "/receive_message") == {}
    sent = await node.ok("n1", "POST", "/send_message", {"message": "Hello, world!"}, Idempotency_Key="hello")
    assert sent == await node.ok("n1", "POST", "/send_message", {"message": "Hello, world!"}, Idempotency_Key="hello")
    assert isinstance(sent["message_id"], int)
    assert len((await node.ok("n1", "GET", "/messages"))["messages"]) == 1
    got = await node.ok("n1", "GET", "/receive_message")
    assert got["content"] == "Hello, world!"
    jsonschema.validate(got, {**document["components"]["schemas"]["SeedReceived"], "components": {}})
    assert (await node.ok("n1", "POST", "/ack_message", {"receipt": got["receipt"]}))["status"] == "acked"
    assert (await node.ok("n1", "POST", "/ack_message", {"receipt": got["receipt"]}))["status"] == "stale"
    assert (await node.ok("n1", "POST", "/ack_message", {"receipt": "forged"}))["status"] == "invalid"


@pytest.mark.asyncio(loop_scope="module")
async def test_a_waiting_receive_is_woken(node: Cluster) -> None:
    await node.ok("n1", "PUT", "/v1/queues/wait", {})
    waiting = asyncio.create_task(node.ok("n1", "POST", "/v1/queues/wait/receive", {"wait_ms": 20_000}))
    await node.ok("n1", "POST", "/v1/queues/wait/messages", {"body": "a"})
    assert [message["body"] for message in (await waiting)["messages"]] == ["a"]


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /v1/queues/q/messages HTTP/1.1\r\nHost: a\r\n",
        b"POST /v1/queues/q/messages HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{",
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_silent_client_is_cut(node: Cluster, sent: bytes) -> None:
    host, port = node.nodes["n1"].url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    try:
        async with asyncio.timeout(10):
            await reader.read(-1)
    except ConnectionError:
        pass
    writer.close()


@pytest.mark.asyncio(loop_scope="module")
async def test_the_description_is_served_as_it_is(node: Cluster) -> None:
    assert await node.ok("n1", "GET", "/openapi.json") == openapi.document()


def test_every_refusal_is_told() -> None:
    assert set(REFUSALS) == codes.CODES | {STORE_FULL, REPLICA_DAMAGED}


def test_receipts_of_one_lease_are_one_claim() -> None:
    texts = [receipt(n, 77) for n in (1, 2, 3)] + [receipt(9, 77), "forged", receipt(10, 5)]
    known, rounds = read_receipts(texts)
    assert rounds == [[Claim(77, 1, 3), Claim(77, 9, 1), Claim(5, 10, 1)]]
    assert known == [(1, 77), (2, 77), (3, 77), (9, 77), None, (10, 5)]


@pytest.mark.parametrize("text", ["", "x", "é", receipt(1, 2) + "A", receipt(1, 2)[:-1], "A" * 23])
def test_what_is_no_receipt_is_none(text: str) -> None:
    assert read_receipt(text) is None


@pytest.mark.asyncio(loop_scope="module")
async def test_messages_have_options(node: Cluster) -> None:
    """Groups in order, one batch in flight; what was sent before is told; what a message has is seen."""
    await node.ok("n1", "PUT", "/v1/queues/opt", {"fifo": True, "dedup_window_ms": 60_000})
    one = {"body": "1", "group": "g", "key": "k", "dedup_id": "d"}
    sent = await node.ok("n1", "POST", "/v1/queues/opt/messages", {"messages": [one, one, {"body": "2", "group": "g"}]})
    assert [(m["message_id"], m.get("duplicate")) for m in sent["messages"]] == [(1, None), (1, True), (2, None)]
    got = await node.ok("n1", "POST", "/v1/queues/opt/receive", {"max": 1, "consumer": "me"})
    assert [(m["body"], m["group"], m["key"], m["dedup_id"]) for m in got["messages"]] == [("1", "g", "k", "d")]
    assert (await node.ok("n1", "POST", "/v1/queues/opt/receive", {"max": 1}))["messages"] == []


REFUSED_BY_THE_QUEUE = [
    ("PUT", "/v1/queues/strict", {}, 409, "setting-fixed", "$.fifo"),
    ("POST", "/v1/queues/strict/messages", {"body": ""}, 400, "group-required", "$.group"),
    (
        "POST",
        "/v1/queues/strict/messages",
        {"messages": [{"body": "", "group": "g"}, {"body": "", "group": "g", "priority": 1}]},
        400,
        "priority-not-allowed",
        "$.messages[1].priority",
    ),
    ("POST", "/v1/queues/strict/messages", {"messages": [{"body": "", "group": "g"}] * 4}, 507, "queue-full", None),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "kind", "field"), REFUSED_BY_THE_QUEUE)
@pytest.mark.asyncio(loop_scope="module")
async def test_what_a_queue_refuses_is_named(
    node: Cluster, method: str, path: str, body: dict[str, object], status: int, kind: str, field: str | None
) -> None:
    await node.ok("n1", "PUT", "/v1/queues/strict", {"fifo": True, "messages_max": 3})
    got, problem = await raw(node, method, path, json.dumps(body).encode(), Content_Type="application/json")
    assert (got, problem["type"], problem.get("field")) == (status, f"urn:trimaran:{kind}", field)
    assert kind != "queue-full" or "messages_max is 3" in problem["detail"]
    assert (await node.ok("n1", "GET", "/v1/queues/strict"))["ready"] == 0


@pytest.mark.asyncio(loop_scope="module")
async def test_the_farthest_time_can_be_told(node: Cluster) -> None:
    await node.ok("n1", "PUT", "/v1/queues/later", {})
    ten_years_ms = 10 * 366 * 24 * 60 * 60 * 1000
    message = {"body": "x", "at": "8999-12-31T23:59:59.999Z", "ttl_ms": ten_years_ms, "priority": 7}
    await node.ok("n1", "POST", "/v1/queues/later/messages", message)
    (listed,) = (await node.ok("n1", "GET", "/v1/queues/later/messages"))["messages"]
    told = (listed["state"], listed["due"], listed["expires"][:4], listed["priority"])
    assert told == ("delayed", "8999-12-31T23:59:59.999Z", "9010", 7)
