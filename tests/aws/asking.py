"""Asking a served gateway as AWS's clients do, in either protocol, with botocore's serializers, signers and parsers."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.api.fake_client import Gateway
from tests.aws import models

URL = "http://anywhere/123456789012/jobs"
KEY_ID, SECRET = "AKIATRIMARANTEST", "secret/+="


class RefusedError(Exception):
    """What botocore would raise."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.told = (status, code, message)


class Caller:
    """`await caller("SendMessage", QueueUrl=…)` gives what boto3 would give. `path` is where requests go."""

    def __init__(
        self, gateway: Gateway, *, in_json: bool, service: str = "sqs", sign: bool = False, path: str = "/"
    ) -> None:
        self.gateway, self.in_json, self.path = gateway, in_json, path
        self._service, self._sign = service, sign
        self._model = models.service(service) if in_json else models.in_query(service)

    async def __call__(self, action: str, /, headers: dict[str, str] | None = None, **asked: Any) -> dict[str, Any]:
        status, got, body = await self.raw(action, headers, **asked)
        parsed = models.parse(self._model.operation_model(action), status, got, body)
        told = parsed.pop("ResponseMetadata")
        assert told["HTTPStatusCode"] == status
        assert len(told["RequestId"]) == 36
        if status >= 300:
            raise RefusedError(status, parsed["Error"]["Code"], parsed["Error"]["Message"])
        return parsed

    async def raw(
        self, action: str, headers: dict[str, str] | None = None, **asked: Any
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer."""
        sent = models.serialize(self._model.operation_model(action), asked)
        body = sent["body"] if self.in_json else urlencode(sent["body"]).encode()
        url = f"http://127.0.0.1:{self.gateway.port}{self.path}"
        request = AWSRequest("POST", url, headers=sent["headers"] | (headers or {}), data=body)
        if self._sign:
            SigV4Auth(Credentials(KEY_ID, SECRET), self._service, "eu-west-1").add_auth(request)
        prepared = request.prepare()
        async with self.gateway.http.post(self.path, data=body, headers=dict(prepared.headers)) as answer:
            return answer.status, dict(answer.headers), await answer.read()


async def refused(caller: Caller, action: str, /, **asked: Any) -> tuple[int, str, str]:
    """Status, code and words of an action that must be refused."""
    with pytest.raises(RefusedError) as raised:
        await caller(action, **asked)
    return raised.value.told


# --- SQS, on the queue called jobs ------------------------------------------------------------------------------------


async def send(sqs: Caller, body: str = "hi", **more: Any) -> dict[str, Any]:
    return await sqs("SendMessage", QueueUrl=URL, MessageBody=body, **more)


async def receive(sqs: Caller, **more: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await sqs("ReceiveMessage", QueueUrl=URL, **more)).get("Messages", [])
    return found


async def counts(sqs: Caller) -> tuple[int, int]:
    """Messages ready and in flight."""
    shown = await sqs("GetQueueAttributes", QueueUrl=URL, AttributeNames=["All"])
    names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
    ready, leased = (int(shown["Attributes"][name]) for name in names)
    return ready, leased
