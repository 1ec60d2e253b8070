"""Attempts to do what one may not: requests that nobody signed, signed ones used for something else, browsers' pages.

Each is sent to a served gateway. What counts is the answer, and that nothing has reached the cluster.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from yarl import URL

from api.aws.endpoint import FORM
from api.aws.protocols import SNS, SQS
from api.aws.query import FORM_BYTES_MAX
from api.rights import ROUTES, Right
from storage.access_operations import ListAccessKeys
from tests.api.asking import ask
from tests.api.fake_client import Gateway, gateway
from tests.api.keys import basic, keyed_gateway, make_key
from tests.aws.asking import KEY_ID, SECRET, Caller, RefusedError

VERSIONS = {service.name: service.version for service in (SQS, SNS)}
ACTIONS = [(service.name, action) for service in (SQS, SNS) for action in service.shapes]
TOPIC = quote("arn:aws:sns:us-east-1:000000000000:jobs", safe="")
STALE = "20200101T000000Z"
IN_FORM = {"Content-Type": FORM}


@pytest.fixture
async def node() -> AsyncIterator[Gateway]:
    """A gateway with a queue called jobs, in which a message waits, and an admin's key."""
    async with keyed_gateway() as opened:
        caller = Caller(opened, in_json=True)
        await caller("CreateQueue", QueueName="jobs")
        await caller("SendMessage", QueueUrl="jobs", MessageBody="a")
        make_key(opened, KEY_ID, SECRET, "admin")
        yield opened


def done(node: Gateway) -> list[Any]:
    """What has reached the cluster, but for the gateway's own look at the keys."""
    return [operation for operation in node.client.asked if not isinstance(operation, ListAccessKeys)]


async def told(node: Gateway, method: str, target: str, **more: Any) -> tuple[int, str]:
    async with node.http.request(method, URL(target, encoded=True), **more) as answer:
        return answer.status, await answer.text()


async def is_kept_out(node: Gateway, method: str, target: str, code: str, **more: Any) -> None:
    """The request is refused, in these words, and does nothing."""
    before = len(done(node))
    status, said = await told(node, method, target, **more)
    assert status in (400, 401, 403), (status, said)
    assert code in said
    assert len(done(node)) == before


# --- nobody's requests ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("service", "action"), ACTIONS)
async def test_no_action_is_done_for_whoever_does_not_sign(node: Gateway, service: str, action: str) -> None:
    asked = f"Action={action}&Version={VERSIONS[service]}&QueueUrl=jobs&QueueName=jobs&TopicArn={TOPIC}"
    claim = f"AWS4-HMAC-SHA256 Credential={KEY_ID}/{STALE[:8]}/x/{service}/aws4_request, SignedHeaders=host, Signature="
    for headers, code in (
        ({}, "MissingAuthenticationToken"),
        ({"Authorization": claim + "0" * 64, "X-Amz-Date": STALE}, "SignatureDoesNotMatch"),
        ({"Authorization": claim + "0" * 64}, "IncompleteSignature"),
        ({"Authorization": basic(KEY_ID, SECRET)}, "IncompleteSignature"),
        ({"Authorization": "", "X-Amz-Date": STALE}, "IncompleteSignature"),
    ):
        await is_kept_out(node, "GET", f"/?{asked}", code, headers=headers)
        await is_kept_out(node, "GET", f"/000000000000/jobs?{asked}", code, headers=headers)
        await is_kept_out(node, "POST", "/", code, data=asked, headers=headers | IN_FORM)
        if service == "sqs":
            shape = {"SignatureDoesNotMatch": "InvalidSignature"}.get(code, code)
            named = headers | {"X-Amz-Target": f"AmazonSQS.{action}"}
            for path in ("/", "/v1/queues", "/metrics", "/healthz"):
                await is_kept_out(node, "POST", path, shape, data=b'{"QueueUrl":"jobs"}', headers=named)


PRESIGNED = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-SignedHeaders=host"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        (f"{PRESIGNED}&X-Amz-Signature=0&X-Amz-Date={STALE}", "IncompleteSignature"),
        (f"{PRESIGNED}&X-Amz-Signature=&X-Amz-Date={STALE}&X-Amz-Credential=", "IncompleteSignature"),
        ("X-Amz-Algorithm=none&X-Amz-Signature=0", "IncompleteSignature"),
        ("X-Amz-Signature=0", "IncompleteSignature"),
        ("x-amz-algorithm=AWS4-HMAC-SHA256", "MissingAuthenticationToken"),
        ("AWSAccessKeyId=a&Signature=b&SignatureVersion=2", "MissingAuthenticationToken"),
    ],
)
async def test_something_like_a_signature_in_the_query_is_none(node: Gateway, query: str, code: str) -> None:
    asked = "Action=PurgeQueue&Version=2012-11-05&QueueUrl=jobs"
    await is_kept_out(node, "GET", f"/?{asked}&{query}", code)
    await is_kept_out(node, "POST", f"/?{query}", code, data=asked, headers=IN_FORM)
    await is_kept_out(node, "POST", "/", "MissingAuthenticationToken", data=f"{asked}&{query}", headers=IN_FORM)


@pytest.mark.parametrize(("method", "path"), sorted(key for key, right in ROUTES.items() if right is not Right.OPEN))
async def test_no_route_is_open_to_whoever_has_no_key(node: Gateway, method: str, path: str) -> None:
    where = re.sub(r"{\w+}", "1", path.replace("{queue}", "jobs"))
    claim = f"{PRESIGNED}&X-Amz-Signature=0&X-Amz-Credential={KEY_ID}/{STALE[:8]}/x/trimaran/aws4_request"
    for headers in ({}, {"Authorization": basic(KEY_ID, "x")}, {"X-Amz-Date": STALE}):
        for query in ("", f"?{claim}"):
            await is_kept_out(node, method, where + query, "unauthorized", headers=headers)


async def test_a_stranger_does_not_have_forms_read(node: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a large form takes half a second in which nobody else is served."""
    large = "Action=SendMessage&QueueUrl=jobs&MessageBody=" + "%41" * (FORM_BYTES_MAX // 3)
    await is_kept_out(node, "POST", "/", "MissingAuthenticationToken", data=large, headers=IN_FORM)
    read: list[str] = []
    monkeypatch.setattr("api.aws.query.parse_qsl", lambda text, **_: read.append(text) or [])
    await is_kept_out(node, "POST", "/", "MissingAuthenticationToken", data="Action=X", headers=IN_FORM)
    assert not read


# --- signed for something else ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sent:
    """A request that its sender has signed, as somebody else may have seen it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    def with_headers(self, **headers: str | None) -> Sent:
        """The same with other headers; None takes one away."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        kept = {name: value for name, value in self.headers.items() if name not in named}
        return replace(self, headers=kept | {name: value for name, value in named.items() if value is not None})


def signed(
    node: Gateway,
    method: str,
    target: str,
    body: bytes = b"",
    *,
    presign: bool = False,
    service: str = "sqs",
    **headers: str,
) -> Sent:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = AWSRequest(method, f"http://127.0.0.1:{node.port}{target}", headers=named, data=body)
    credentials = Credentials(KEY_ID, SECRET)
    signer = SigV4QueryAuth(credentials, service, "any", 60) if presign else SigV4Auth(credentials, service, "any")
    signer.add_auth(request)
    url = urlsplit(request.url)
    host = {"Host": f"127.0.0.1:{node.port}"}
    return Sent(
        method, f"{url.path}?{url.query}" if url.query else url.path, host | dict(request.headers.items()), body
    )


async def answered(node: Gateway, sent: Sent) -> tuple[int, str]:
    return await told(node, sent.method, sent.target, data=sent.body, headers=sent.headers)


async def is_forged(node: Gateway, sent: Sent) -> None:
    """Nobody has signed this."""
    before = len(done(node))
    status, said = await answered(node, sent)
    assert (status, len(done(node))) == (403, before), said
    assert "SignatureDoesNotMatch" in said or "InvalidSignature" in said


SEND = "Action=SendMessage&Version=2012-11-05&MessageBody=a%2Bb"


@pytest.mark.parametrize("presign", [False, True])
async def test_a_signed_query_is_good_for_that_query_alone(node: Gateway, presign: bool) -> None:
    sent = signed(node, "GET", f"/000000000000/jobs?{SEND}", presign=presign)
    for target in (
        sent.target.replace("a%2Bb", "a+b"),  # which is "a b"
        sent.target.replace("a%2Bb", "a%20b"),
        sent.target.replace("a%2Bb", "a"),
        sent.target.replace("SendMessage", "PurgeQueue"),
        sent.target.replace("/jobs", "/other"),
        sent.target.replace("/000000000000/jobs", "/jobs"),
        sent.target.replace("/jobs", "/%6Aobs"),
        sent.target + "&QueueUrl=other",
        sent.target + "&Action=PurgeQueue",
        sent.target + "&DelaySeconds=9",
        "/?" + sent.target.partition("?")[2],
    ):
        assert target != sent.target
        await is_forged(node, replace(sent, target=target))
    await is_forged(node, replace(sent, method="POST"))
    await is_forged(node, replace(sent, method="POST", body=b"DelaySeconds=9").with_headers(Content_Type=FORM))
    await is_forged(node, replace(sent, body=b"DelaySeconds=9"))
    await is_forged(node, sent.with_headers(X_Amz_Target="AmazonSQS.PurgeQueue"))
    await is_forged(node, sent.with_headers(Host="queue.example.com"))
    assert (await answered(node, sent))[0] == 200
    assert (await answered(node, replace(sent, target=sent.target.replace("a%2Bb", "a%2bb"))))[0] == 200, "as it was"


async def test_a_signed_form_is_good_for_that_form_alone(node: Gateway) -> None:
    sent = signed(node, "POST", "/", f"{SEND}&QueueUrl=jobs".encode(), Content_Type=FORM)
    for body in (sent.body + b"&DelaySeconds=9", sent.body.replace(b"%2B", b"+"), b"", sent.body[:-1]):
        await is_forged(node, replace(sent, body=body))
    await is_forged(node, replace(sent, target=f"/?{sent.body.decode()}", body=b""))
    await is_forged(node, replace(sent, target=f"/?{sent.body.decode()}"))
    await is_forged(node, replace(sent, target="/000000000000/other"))
    await is_forged(node, replace(sent, target="/?QueueUrl=other"))
    await is_forged(node, replace(sent, method="GET", target="/?Action=PurgeQueue"))
    await is_forged(node, sent.with_headers(X_Amz_Target="AmazonSQS.PurgeQueue"))
    assert (await answered(node, sent))[0] == 200


async def test_signed_json_is_good_for_that_action_alone(node: Gateway) -> None:
    target = "AmazonSQS.DeleteMessage"
    body = b'{"QueueUrl":"jobs","MessageBody":"a"}'
    sent = signed(node, "POST", "/", body, X_Amz_Target="AmazonSQS.SendMessage")
    claim = sent.headers["Authorization"]
    forged = [
        sent.with_headers(X_Amz_Target="AmazonSQS.PurgeQueue"),
        sent.with_headers(X_Amz_Target=target, Authorization=claim.replace(";x-amz-target", "")),
        sent.with_headers(Authorization=claim.replace("host;", "")),
        sent.with_headers(Authorization=claim.replace("host;", ""), Host="queue.example.com"),
        sent.with_headers(Authorization=claim.replace("/any/", "/other/")),
        sent.with_headers(Authorization=claim.replace("/sqs/", "/sns/")),
        sent.with_headers(Authorization=re.sub("Signature=.*", "Signature=" + "0" * 64, claim)),
        sent.with_headers(Authorization=claim[:-1]),
        sent.with_headers(Authorization=claim + "0"),
        sent.with_headers(Authorization=claim + ",Signature=0"),
        replace(sent, body=body.replace(b'"a"', b'"b"')),
        replace(sent, target="/?Action=PurgeQueue"),
        replace(sent, target="/v1/queues/jobs/purge"),
        sent.with_headers(X_Amz_Date=STALE, Authorization=re.sub(r"/\d{8}/", f"/{STALE[:8]}/", claim)),
    ]
    for each in forged:
        await is_forged(node, each)
    assert (await answered(node, sent))[0] == 200


async def test_a_body_in_signed_chunks_is_not_read(node: Gateway) -> None:
    """As S3 takes them: the digest that is signed then says nothing of the body."""
    body = b'{"QueueUrl":"jobs"}'
    for digest in ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"):
        sent = signed(node, "POST", "/", body, X_Amz_Target="AmazonSQS.PurgeQueue", X_Amz_Content_SHA256=digest)
        await is_forged(node, sent)
        before = len(done(node))
        status, said = await answered(node, sent.with_headers(Content_Encoding="aws-chunked"))
        assert (status, "SerializationException" in said) == (400, True)
        assert len(done(node)) == before


async def test_what_is_signed_for_aws_opens_no_native_route_and_the_other_way_round(node: Gateway) -> None:
    for service, status in (("sqs", 401), ("sns", 401), ("trimaran", 200)):
        sent = signed(node, "POST", "/v1/queues/jobs/purge", service=service)
        assert (await answered(node, sent))[0] == status
    for service, status in (("trimaran", 403), ("sns", 403), ("sqs", 200)):
        sent = signed(node, "GET", "/jobs?Action=PurgeQueue&Version=2012-11-05", service=service)
        assert (await answered(node, sent))[0] == status
    for service, status in (("sqs", 403), ("sns", 200)):
        sent = signed(node, "GET", "/?Action=ListTopics&Version=2010-03-31", service=service)
        assert (await answered(node, sent))[0] == status
    presigned = signed(node, "POST", "/v1/queues/jobs/purge", service="trimaran", presign=True)
    assert (await answered(node, presigned))[0] == 401, "the native API has no presigned URLs"


# --- repetitions that are none ----------------------------------------------------------------------------------------


async def test_two_queries_under_one_invocation_are_two(node: Gateway) -> None:
    """A GET has no body: what it asks for is in its query, and counts as much."""
    once = {"amz_sdk_invocation_id": "11111111-2222-4333-8444-555555555555"}
    for body in ("b", "c"):
        sent = signed(node, "GET", f"/jobs?Action=SendMessage&Version=2012-11-05&MessageBody={body}", **once)
        assert (await answered(node, sent))[0] == 200
    got = await told(
        node, "GET", signed(node, "GET", "/jobs?Action=ReceiveMessage&MaxNumberOfMessages=10", presign=True).target
    )
    assert re.findall("<Body>(.)</Body>", got[1]) == ["a", "b", "c"]


async def test_a_topic_and_a_queue_of_one_name_have_nothing_of_each_other(node: Gateway) -> None:
    once = {"amz_sdk_invocation_id": "11111111-2222-4333-8444-555555555555"}
    entry = "SendMessageBatchRequestEntry.1.Id=1&SendMessageBatchRequestEntry.1.MessageBody=b"
    sent = signed(node, "GET", f"/jobs?Action=SendMessageBatch&Version=2012-11-05&{entry}", **once)
    assert (await answered(node, sent))[0] == 200
    for asked in ("Action=CreateTopic&Name=jobs", f"Action=Publish&TopicArn={TOPIC}&Message=c"):
        sent = signed(node, "GET", f"/?{asked}&Version=2010-03-31", service="sns", **once)
        assert (await answered(node, sent))[0] == 200


# --- browsers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7700", "127.0.0.1.evil.example", "localhost.evil.example"]
)
async def test_without_keys_a_page_whose_name_leads_here_is_kept_out(host: str) -> None:
    """A browser takes evil.example for its own server when its owner has it lead to 127.0.0.1, and says no Origin."""
    async with gateway() as node:
        assert (await ask(node, "PUT", "/v1/queues/jobs", {})).status == 201
        for method, path in (
            ("GET", "/?Action=PurgeQueue&QueueUrl=jobs"),
            ("POST", "/?Action=PurgeQueue&QueueUrl=jobs"),
        ):
            await is_kept_out(node, method, path, "AccessDenied", headers={"Host": host})
        await is_kept_out(node, "GET", "/v1/queues", "unauthorized", headers={"Host": host})
        with pytest.raises(RefusedError, match="AccessDenied"):
            await Caller(node, in_json=True)("ListQueues", {"Host": host})


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:80", "localhost", "localhost:80", "a.localhost", "node:80"]
)
async def test_without_keys_this_machine_is_called_by_address_or_by_a_name_of_its_own(host: str) -> None:
    async with gateway() as node:
        assert (await told(node, "GET", "/v1/queues", headers={"Host": host}))[0] == 200
        assert await Caller(node, in_json=True)("ListQueues", {"Host": host}) == {}


@pytest.mark.parametrize("name", ["Via", "X-Real-IP", "X-Forwarded-Proto"])
async def test_without_keys_whatever_says_that_it_is_a_proxy_is_believed(name: str) -> None:
    async with gateway() as node:
        await is_kept_out(node, "GET", "/v1/queues", "unauthorized", headers={name: "x"})
        await is_kept_out(node, "GET", "/?Action=ListQueues", "AccessDenied", headers={name: "x"})
