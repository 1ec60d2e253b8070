"""Who is let in, what is taken for whose request, and how the node names itself: raw HTTP against a served gateway."""

from __future__ import annotations

import asyncio
import xml.etree.ElementTree as ElementTree
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from unittest.mock import Mock
from urllib.parse import parse_qs, urlencode, urlsplit

import boto3
import botocore.exceptions
import msgspec
import pytest
from aiohttp.test_utils import make_mocked_request
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config as BotoConfig
from botocore.credentials import Credentials
from yarl import URL

from api.access import is_local
from api.aws import sns
from api.aws.endpoint import FORM
from api.aws.protocols import SNS
from api.aws.query import FORM_BYTES_MAX
from api.aws.sqs_messages import MESSAGE_BYTES_MAX
from api.messages import receipt
from storage.operations import Send
from tests.api.asking import ask
from tests.api.fake_client import Gateway, gateway, unknown
from tests.api.keys import keyed_gateway, make_key
from tests.aws.asking import KEY_ID, SECRET, Caller, RefusedError, refused

JSON_HEADERS = {"X-Amz-Target": "AmazonSQS.ListQueues", "Content-Type": "application/x-amz-json-1.0"}
NAMESPACE = "{http://queue.amazonaws.com/doc/2012-11-05/}"
LIST = {"Action": "ListQueues", "Version": "2012-11-05"}


@pytest.fixture
async def node() -> AsyncIterator[Gateway]:
    async with gateway() as opened:
        await Caller(opened, in_json=True)("CreateQueue", QueueName="jobs")
        yield opened


@asynccontextmanager
async def with_a_key(**settings: Any) -> AsyncIterator[Gateway]:
    async with keyed_gateway(**settings) as opened:
        make_key(opened, KEY_ID, SECRET, "admin")
        yield opened


async def told(node: Gateway, method: str, path: str, **more: Any) -> tuple[int, str, bytes]:
    async with node.http.request(method, URL(path, encoded=True), **more) as answer:
        return answer.status, answer.content_type, await answer.read()


# --- whose request it is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/000000000000/jobs", "/any/path/at/all", "/v1/queues", "/healthz"])
async def test_json_is_taken_at_any_path(node: Gateway, path: str) -> None:
    status, kind, body = await told(node, "POST", path, data=b"{}", headers=JSON_HEADERS)
    assert (status, kind) == (200, "application/x-amz-json-1.0")
    assert len(msgspec.json.decode(body)["QueueUrls"]) == 1


@pytest.mark.parametrize("path", ["/", "/000000000000/jobs", "/any/path/at/all"])
async def test_forms_and_queries_are_taken_at_any_path_that_is_nobody_elses(node: Gateway, path: str) -> None:
    asked = urlencode(LIST)
    for answer in (
        await told(node, "POST", path, data=LIST),
        await told(node, "GET", f"{path}?{asked}"),
        await told(node, "POST", f"{path}?{asked}"),
    ):
        assert answer[:2] == (200, "text/xml")
        assert len(ElementTree.fromstring(answer[2]).findall(f".//{NAMESPACE}QueueUrl")) == 1


async def test_a_request_at_a_queues_path_is_about_that_queue(node: Gateway) -> None:
    asked = {"Action": "SendMessage", "Version": "2012-11-05", "MessageBody": "a b+c"}
    assert (await told(node, "POST", "/000000000000/jobs", data=asked))[0] == 200
    got = await told(node, "GET", "/000000000000/jobs?Action=ReceiveMessage&Version=2012-11-05")
    assert ElementTree.fromstring(got[2]).findtext(f".//{NAMESPACE}Body") == "a b+c"
    other = asked | {"QueueUrl": "http://a/0/nope"}
    assert (await told(node, "POST", "/000000000000/jobs", data=other))[0] == 400


async def test_the_native_apis_keep_their_requests(node: Gateway) -> None:
    assert (await ask(node, "GET", "/")).document["description"] == "/openapi.json"
    assert (await ask(node, "GET", "/v1/queues?Action=ListQueues"))["queues"][0]["queue"] == "jobs"
    assert (await ask(node, "GET", "/healthz?Action=ListQueues")).status == 200
    form = await ask(
        node, "POST", "/v1/queues/jobs/messages", b"Action=ListQueues", form="application/x-www-form-urlencoded"
    )
    assert form.status == 415
    assert form["type"] == "urn:trimaran:media-type"
    assert (await ask(node, "POST", "/nowhere", {})).status == 404
    assert (await ask(node, "GET", "/nowhere")).status == 404
    assert (await ask(node, "POST", "/", {})).status == 405
    assert (await ask(node, "PUT", "/?Action=ListQueues", {})).status == 405


@pytest.mark.parametrize(
    ("target", "code"),
    [("AmazonSQS.Nope", "InvalidAction"), ("AmazonSNS.Publish", "InvalidAction"), ("", "InvalidAction")],
)
async def test_targets_that_are_not_known(node: Gateway, target: str, code: str) -> None:
    async with node.http.post("/", data=b"{}", headers={"X-Amz-Target": target}) as answer:
        assert answer.status == 400
        assert answer.headers["x-amzn-query-error"] == f"{code};Sender"
        assert msgspec.json.decode(await answer.read())["__type"].endswith("UnknownOperationException")


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (b"Version=2012-11-05", "MissingAction"),
        (b"", "MissingAction"),
        (b"Action=Nope", "InvalidAction"),
        (b"Action=Publish", "InvalidAction"),
        (b"Action=ListQueues&x=%FF", "MalformedInput"),
        (b"Action=ListQueues&" + b"a&" * 10_001, "MalformedInput"),
        ("Action=ListQueues&x=ü".encode(), "MalformedInput"),
    ],
)
async def test_forms_that_ask_for_nothing_known(node: Gateway, asked: bytes, code: str) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    status, kind, body = await told(node, "POST", "/", data=asked, headers=headers)
    assert (status, kind) == (400, "text/xml")
    assert ElementTree.fromstring(body).findtext(f".//{NAMESPACE}Code") == code


def test_every_action_of_sns_is_there() -> None:
    assert set(sns.HANDLERS) == set(SNS.shapes)


@pytest.mark.parametrize(
    "asked",
    [
        b"QueueUrl=jobs&QueueUrl.=jobs",
        b"QueueUrl=jobs&MaxNumberOfMessages.=1",
        b"QueueUrl=jobs&AttributeName." + b"1" * 5000 + b"=All",
        b"QueueUrl=jobs&=1&.=2&..=3",
        b"Action=CreateQueue&QueueName=q&Attribute.1.Name.=a&Attribute.1.Value=1",
    ],
    ids=["twice", "a number", "far", "nameless", "a key"],
)
async def test_names_of_parameters_however_odd_are_no_mistake_of_the_node(node: Gateway, asked: bytes) -> None:
    data = b"Action=ReceiveMessage&" + asked
    status, _, _ = await told(node, "POST", "/", data=data, headers={"Content-Type": FORM})
    assert status in (200, 400)


@pytest.mark.parametrize("header", ["X-Amz-Target", "X-Amzn-Trace-Id", "amz-sdk-invocation-id", "Authorization"])
async def test_a_header_that_is_no_text_is_refused_and_no_mistake(header: str) -> None:
    claim = f"AWS4-HMAC-SHA256 Credential={KEY_ID}/20261124/\udcff/sqs/aws4_request, SignedHeaders=host, Signature=a"
    is_claim = header == "Authorization"
    odd = {"X-Amz-Target": "AmazonSQS.SendMessage", "X-Amz-Date": "20261124T000000Z"}
    odd |= {header: claim if is_claim else "\udcff"}
    body = b'{"QueueUrl":"jobs","MessageBody":"a"}'
    head = [f"{name}: {value}" for name, value in odd.items()]
    head = ["POST / HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", "Connection: close", *head, "", ""]
    async with with_a_key() if is_claim else gateway() as node:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writer.write("\r\n".join(head).encode("utf-8", "surrogateescape") + body)
        answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"x-amzn-query-error" in answer
        assert Send not in map(type, node.client.asked)


@pytest.mark.parametrize("asked", [b"Action=%01", b"Action=SendMessage&QueueUrl=jobs&DelaySeconds=%EF%BF%BF"])
async def test_what_is_said_back_is_xml(node: Gateway, asked: bytes) -> None:
    status, _, body = await told(node, "POST", "/", data=asked, headers={"Content-Type": FORM})
    assert status == 400
    assert "\ufffd" in str(ElementTree.fromstring(body).findtext(f".//{NAMESPACE}Message"))


async def test_a_form_that_would_hold_up_others_is_refused(node: Gateway) -> None:
    asked, headers = b"Action=SendMessage&QueueUrl=jobs&MessageBody=", {"Content-Type": FORM}
    assert (await told(node, "POST", "/", data=asked + b"%41" * MESSAGE_BYTES_MAX, headers=headers))[0] == 200
    status, _, body = await told(node, "POST", "/", data=asked + b"%41" * (FORM_BYTES_MAX // 3), headers=headers)
    assert status == 413
    refusal = ElementTree.fromstring(body)
    assert refusal.findtext(f".//{NAMESPACE}Code") == "RequestEntityTooLarge"
    assert str(FORM_BYTES_MAX) in str(refusal.findtext(f".//{NAMESPACE}Message"))


# --- who is let in ----------------------------------------------------------------------------------------------------


async def test_without_keys_this_machine_is_let_in_signed_or_not(node: Gateway) -> None:
    for in_json in (True, False):
        for sign in (True, False):
            assert await Caller(node, in_json=in_json, sign=sign)("ListQueues")


@pytest.mark.parametrize(
    "header",
    [
        {"X-Forwarded-For": "203.0.113.9"},
        {"Forwarded": "for=203.0.113.9"},
        {"X-Forwarded-Host": "queue.example.com"},
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_without_keys_nobody_is_let_in_through_a_proxy_or_a_browsers_page(
    node: Gateway, header: dict[str, str]
) -> None:
    with pytest.raises(RefusedError, match="only clients on the same machine") as raised:
        await Caller(node, in_json=True)("ListQueues", header)
    assert raised.value.told[:2] == (403, "AccessDenied")
    status, _, body = await told(node, "POST", "/", data=LIST, headers=header)
    assert (status, b"AccessDenied" in body) == (403, True)


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.1.2.3", False),
        ("::ffff:10.1.2.3", False),
        ("fe80::1%eth0", False),
        ("", False),
    ],
)
def test_this_machine_is_known_by_its_address(peer: str, local: bool) -> None:
    transport = Mock(get_extra_info=Mock(return_value=(peer, 4711)))
    assert is_local(make_mocked_request("GET", "/", transport=transport)) == local


@pytest.mark.parametrize("in_json", [True, False])
async def test_with_a_key_only_what_it_signed_is_let_in(in_json: bool) -> None:
    async with with_a_key() as node:
        signed, unsigned = Caller(node, in_json=in_json, sign=True), Caller(node, in_json=in_json)
        assert await signed("CreateQueue", QueueName="jobs")
        assert await signed("ListQueues", {"X-Forwarded-For": "203.0.113.9", "Origin": "https://a.example"})
        assert await refused(unsigned, "ListQueues") == (
            403,
            "MissingAuthenticationToken",
            "Request is missing Authentication Token",
        )
        async with node.http.get("/v1/queues") as native:
            assert native.status == 401


HANDLE = receipt(1, 1)
OF_ALL = {"GetQueueUrl": {}, "GetQueueAttributes": {}, "CreateQueue": {}}
OF_A_PRODUCER = {
    "SendMessage": {"MessageBody": "a"},
    "SendMessageBatch": {"Entries": [{"Id": "1", "MessageBody": "a"}]},
}
OF_A_CONSUMER = {
    "ReceiveMessage": {},
    "DeleteMessage": {"ReceiptHandle": HANDLE},
    "DeleteMessageBatch": {"Entries": [{"Id": "1", "ReceiptHandle": HANDLE}]},
    "ChangeMessageVisibility": {"ReceiptHandle": HANDLE, "VisibilityTimeout": 1},
    "ChangeMessageVisibilityBatch": {"Entries": [{"Id": "1", "ReceiptHandle": HANDLE, "VisibilityTimeout": 1}]},
}
OF_A_MANAGER = {"SetQueueAttributes": {"Attributes": {"VisibilityTimeout": "7"}}, "PurgeQueue": {}, "DeleteQueue": {}}
ACTIONS: dict[str, dict[str, Any]] = OF_ALL | OF_A_PRODUCER | OF_A_CONSUMER | OF_A_MANAGER


@pytest.mark.parametrize("in_json", [True, False])
@pytest.mark.parametrize(
    ("role", "more"),
    [
        ("producer", OF_A_PRODUCER),
        ("consumer", OF_A_CONSUMER),
        ("manager", OF_A_PRODUCER | OF_A_CONSUMER | OF_A_MANAGER),
    ],
)
async def test_a_role_allows_its_actions_on_its_queues(in_json: bool, role: str, more: dict[str, Any]) -> None:
    async with keyed_gateway() as node:
        for name in ("mine", "other"):
            await Caller(node, in_json=in_json)("CreateQueue", QueueName=name)
        make_key(node, "ADMINADMINADMIN0", SECRET, "admin")
        make_key(node, KEY_ID, SECRET, role, "m*e")
        caller = Caller(node, in_json=in_json, sign=True)
        assert len((await caller("ListQueues"))["QueueUrls"]) == 1
        for name in ("other", "mine"):
            for action, wish in ACTIONS.items():
                named = {"QueueName" if action in ("GetQueueUrl", "CreateQueue") else "QueueUrl": name}
                try:
                    await caller(action, **named, **wish)
                    code = ""
                except RefusedError as error:
                    code = error.told[1]
                assert (code != "AccessDenied") == (name == "mine" and action in OF_ALL | more), (name, action, code)
        if role != "manager":  # to find a queue by creating it is not to create one
            code, words = (await refused(caller, "CreateQueue", QueueName="mule"))[1:]
            assert code == "AccessDenied"
            assert words == (
                f"User: arn:aws:iam::000000000000:user/{KEY_ID} is not authorized to perform: sqs:createqueue on "
                "resource: arn:aws:sqs:us-east-1:000000000000:mule because no identity-based policy allows the "
                "sqs:createqueue action"
            )


async def test_a_stranger_a_forger_and_a_late_comer_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with with_a_key() as node:
        signed = Caller(node, in_json=True, sign=True)
        monkeypatch.setattr("tests.aws.asking.KEY_ID", "AKIASTRANGER0000")
        assert await refused(signed, "ListQueues") == (
            403,
            "InvalidClientTokenId",
            "The security token included in the request is invalid.",
        )
        monkeypatch.setattr("tests.aws.asking.KEY_ID", KEY_ID)
        monkeypatch.setattr("tests.aws.asking.SECRET", "forged")
        assert (await refused(signed, "ListQueues"))[:2] == (403, "SignatureDoesNotMatch")
        monkeypatch.setattr("tests.aws.asking.SECRET", SECRET)
        monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: datetime(2026, 1, 1, tzinfo=UTC))
        code, words = (await refused(signed, "ListQueues"))[1:]
        assert code == "SignatureDoesNotMatch"
        assert "is now earlier than" in words


async def test_a_signature_for_one_service_is_none_for_the_other() -> None:
    async with with_a_key() as node:
        caller = Caller(node, in_json=False, service="sns", sign=True)
        assert await caller("ListTopics") == {"Topics": []}
        caller._service = "sqs"
        assert (await refused(caller, "ListTopics"))[1] == "SignatureDoesNotMatch"


async def test_a_presigned_url_is_let_in_and_a_changed_one_is_not() -> None:
    async with with_a_key() as node:
        await Caller(node, in_json=True, sign=True)("CreateQueue", QueueName="jobs")
        request = AWSRequest(
            "GET", f"http://127.0.0.1:{node.port}/000000000000/jobs", params={"Action": "ReceiveMessage"}
        )
        SigV4QueryAuth(Credentials(KEY_ID, SECRET), "sqs", "eu-west-1", expires=60).add_auth(request)
        url = urlsplit(request.url)
        assert (await told(node, "GET", f"{url.path}?{url.query}"))[0] == 200
        assert "X-Amz-Signature" in parse_qs(url.query)
        status, _, body = await told(node, "GET", f"{url.path}?{url.query}".replace("ReceiveMessage", "PurgeQueue"))
        assert (status, b"SignatureDoesNotMatch" in body) == (403, True)


# --- where the node says it is ----------------------------------------------------------------------------------------


async def url_told(node: Gateway, **headers: str) -> str:
    headers = {name.replace("_", "-"): value for name, value in headers.items()} | JSON_HEADERS
    headers["X-Amz-Target"] = "AmazonSQS.CreateQueue"
    async with node.http.post("/", data=b'{"QueueName":"jobs"}', headers=headers) as answer:
        assert answer.status == 200
        return str(msgspec.json.decode(await answer.read())["QueueUrl"])


async def test_urls_are_where_the_client_came_to(node: Gateway) -> None:
    async with with_a_key() as other:
        signed, host = Caller(other, in_json=True, sign=True), {"Host": "queue.example.com:8080"}
        url = (await signed("CreateQueue", host, QueueName="jobs"))["QueueUrl"]
        assert url == "http://queue.example.com:8080/000000000000/jobs"
    assert await url_told(node, Host="[::1]:7700") == "http://[::1]:7700/000000000000/jobs"
    for wrong in ("a b", 'a"><script>', "a/b", ""):
        assert await url_told(node, Host=wrong) == f"http://127.0.0.1:{node.port}/000000000000/jobs"


async def test_forwarded_headers_count_only_if_the_node_is_told_to_trust_them() -> None:
    said = {"X_Forwarded_Host": "queue.example.com, inner", "X_Forwarded_Proto": "https"}
    for trust, expected in ((True, "https://queue.example.com"), (False, "http://inner:1")):
        async with with_a_key(trust_forwarded=trust) as node:
            signed = Caller(node, in_json=True, sign=True)
            headers = {"Host": "inner:1"} | {name.replace("_", "-"): value for name, value in said.items()}
            if trust:  # the proxy's client signed for the host that it was told
                headers["Host"] = "queue.example.com"
            url = (await signed("CreateQueue", headers, QueueName="jobs"))["QueueUrl"]
            assert url == f"{expected}/000000000000/jobs"


async def test_a_proxy_may_change_the_host_if_it_says_what_it_was() -> None:
    async with with_a_key(trust_forwarded=True) as node:
        request = AWSRequest("POST", "http://queue.example.com/", headers=dict(JSON_HEADERS), data=b"{}")
        SigV4Auth(Credentials(KEY_ID, SECRET), "sqs", "eu-west-1").add_auth(request)
        headers = dict(request.headers.items()) | {"Host": "inner:1"}
        for forwarded, status in (("queue.example.com", 200), ("other.example.com", 403)):
            came = headers | {"X-Forwarded-Host": forwarded}
            assert (await told(node, "POST", "/", data=b"{}", headers=came))[0] == status
        assert (await told(node, "POST", "/", data=b"{}", headers=headers))[0] == 403


async def test_a_configured_url_is_what_is_told() -> None:
    async with gateway(public_url="https://queue.example.com/sqs/") as node:
        assert await url_told(node, Host="inner:1") == "https://queue.example.com/sqs/000000000000/jobs"


# --- when things go wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_json", [True, False])
async def test_trouble_of_the_cluster_is_what_sdks_try_again(node: Gateway, in_json: bool) -> None:
    node.client.fails_with = unknown()
    assert await refused(Caller(node, in_json=in_json), "ListQueues") == (
        503,
        "ServiceUnavailable",
        "The cluster cannot answer now: the leader fell silent.",
    )


@pytest.mark.parametrize("in_json", [True, False])
async def test_a_mistake_of_the_node_is_logged_and_not_shown(node: Gateway, in_json: bool) -> None:
    node.client.fails_with = RuntimeError("secret detail")
    status, code, words = await refused(Caller(node, in_json=in_json), "ListQueues")
    assert (status, code) == (500, "InternalFailure")
    assert "secret" not in words


async def test_bodies_that_are_too_large_slow_or_packed_are_refused_in_shape() -> None:
    async with gateway(request_bytes_max=1000) as node:
        caller = Caller(node, in_json=True)
        assert (await refused(caller, "SendMessage", QueueUrl="q", MessageBody="x" * 2000))[:2] == (
            413,
            "RequestEntityTooLarge",
        )
        packed = {"Content-Encoding": "gzip"}
        with pytest.raises(RefusedError, match="MalformedInput"):
            await caller("ListQueues", packed)
        nothing = await told(node, "POST", "/", data=b"", headers=JSON_HEADERS)
        assert nothing[0] == 200


# --- boto3 itself -----------------------------------------------------------------------------------------------------


def client(port: int, **config: Any) -> Any:
    return boto3.client(
        "sqs",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="eu-west-1",
        aws_access_key_id=KEY_ID,
        aws_secret_access_key=SECRET,
        config=BotoConfig(**config),
    )


async def test_boto3_does_all_there_is_to_do() -> None:
    def story(port: int) -> None:
        sqs = client(port)
        url = sqs.create_queue(QueueName="q", Attributes={"VisibilityTimeout": "5"})["QueueUrl"]
        assert sqs.get_queue_url(QueueName="q")["QueueUrl"] == url
        assert sqs.list_queues(QueueNamePrefix="q")["QueueUrls"] == [url]
        pages = sqs.get_paginator("list_queues").paginate(PaginationConfig={"PageSize": 1})
        assert [page["QueueUrls"] for page in pages] == [[url]]
        attributes = {"a": {"DataType": "Binary", "BinaryValue": b"\x00"}}
        sent = sqs.send_message(QueueUrl=url, MessageBody="1", MessageAttributes=attributes)
        batch = sqs.send_message_batch(QueueUrl=url, Entries=[{"Id": i, "MessageBody": i} for i in "234"])
        assert [done["Id"] for done in batch["Successful"]] == ["2", "3", "4"]
        assert "Failed" not in batch
        got = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"])["Messages"]
        assert [message["Body"] for message in got] == ["1", "2", "3", "4"]
        assert (got[0]["MessageId"], got[0]["MessageAttributes"]) == (sent["MessageId"], attributes)
        one, two, three, four = (message["ReceiptHandle"] for message in got)
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=one, VisibilityTimeout=0)
        sqs.change_message_visibility_batch(
            QueueUrl=url, Entries=[{"Id": "2", "ReceiptHandle": two, "VisibilityTimeout": 100}]
        )
        sqs.delete_message(QueueUrl=url, ReceiptHandle=two)
        sqs.delete_message_batch(
            QueueUrl=url, Entries=[{"Id": "3", "ReceiptHandle": three}, {"Id": "4", "ReceiptHandle": four}]
        )
        shown = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])["Attributes"]
        assert shown == {"ApproximateNumberOfMessages": "1"}
        sqs.purge_queue(QueueUrl=url)
        assert "Messages" not in sqs.receive_message(QueueUrl=url)
        sqs.delete_queue(QueueUrl=url)
        with pytest.raises(sqs.exceptions.QueueDoesNotExist) as missing:
            sqs.get_queue_url(QueueName="q")
        assert missing.value.response["Error"]["Code"] == "AWS.SimpleQueueService.NonExistentQueue"

    async with with_a_key() as node:
        await asyncio.to_thread(story, node.port)


async def test_boto3_tries_a_send_again_until_it_is_done_and_it_is_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with gateway() as node:
        await Caller(node, in_json=True)("CreateQueue", QueueName="q")
        submit, attempts = node.client.submit, []

        async def unlucky(operation: Any, block: bytes = b"", *, timeout_ms: int) -> Any:
            """The first answer is lost on its way: it has happened, and the gateway cannot tell."""
            reply = await submit(operation, block, timeout_ms=timeout_ms)
            attempts.append(operation)
            if len(attempts) == 1:
                raise unknown()
            return reply

        monkeypatch.setattr(node.client, "submit", unlucky)
        sqs = client(node.port, retries={"mode": "standard", "max_attempts": 3})
        sent = await asyncio.to_thread(sqs.send_message, QueueUrl="http://a/0/q", MessageBody="once")
        assert sent["ResponseMetadata"]["RetryAttempts"] == 1
        assert len(attempts) == 2
        page = await ask(node, "GET", "/v1/queues/q/messages")
        assert [message["body"] for message in page["messages"]] == ["once"]


async def test_boto3_gives_up_on_what_trying_again_does_not_help(node: Gateway) -> None:
    sqs = client(node.port, retries={"mode": "standard", "max_attempts": 3})
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        await asyncio.to_thread(sqs.send_message, QueueUrl="http://a/0/jobs", MessageBody="\x00")
    assert raised.value.response["Error"]["Code"] == "InvalidMessageContents"
    assert raised.value.response["ResponseMetadata"]["RetryAttempts"] == 0
