"""Asking a served gateway, and holding every answer against the description it gives of itself."""

from __future__ import annotations

from typing import Any

import msgspec
from jsonschema import Draft202012Validator

from api.openapi import document, template
from tests.api.fake_client import Gateway


def _complete(described: Any) -> Any:
    """A description that is taken at its word: what it does not name is not there."""
    if isinstance(described, list):
        return [_complete(each) for each in described]
    if not isinstance(described, dict):
        return described
    strict = {name: _complete(each) for name, each in described.items()}
    if described.get("type") == "object" and "properties" in described:
        strict.setdefault("additionalProperties", False)
    return strict


DESCRIPTION = _complete(document())
JSON, MSGPACK, PROBLEM = "application/json", "application/msgpack", "application/problem+json"


class Answer:
    """A status, headers, and the decoded document."""

    def __init__(self, status: int, headers: Any, document: Any) -> None:
        self.status, self.headers, self.document = status, headers, document

    def __getitem__(self, name: str) -> Any:
        return self.document[name]


async def ask(
    gateway: Gateway, method: str, path: str, content: Any = None, *, form: str = JSON, **headers: str
) -> Answer:
    """`content` is encoded unless it is bytes; the answer is validated when it is JSON and described."""
    data = content
    if content is not None and not isinstance(content, bytes):
        data = msgspec.msgpack.encode(content) if form == MSGPACK else msgspec.json.encode(content)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    if content is not None:
        headers.setdefault("Content-Type", form)
    async with gateway.http.request(method, path, data=data, headers=headers) as response:
        body = await response.read()
        kind = response.headers.get("Content-Type", "")
        told = body if kind not in (JSON, MSGPACK, PROBLEM) else None
        if kind in (JSON, PROBLEM):
            told = msgspec.json.decode(body)
            _validate(method, path, response.status, kind, told)
        elif kind == MSGPACK:
            told = msgspec.msgpack.decode(body)
        return Answer(response.status, response.headers, told)


def _validate(method: str, path: str, status: int, kind: str, told: Any) -> None:
    found = DESCRIPTION["paths"].get(template(path), {}).get(method.lower())
    if found is None:
        return
    answers = found["responses"]
    schema = answers.get(str(status), answers["default"])["content"][kind]["schema"]
    validator(schema).validate(told)


def validator(schema: Any) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": DESCRIPTION["components"]})


async def receipts(gateway: Gateway, queue: str, most: int = 1000, **asked: int) -> list[str]:
    answer = await ask(gateway, "POST", f"/v1/queues/{queue}/receive", {"max": most, **asked})
    return [message["receipt"] for message in answer["messages"]]


async def send(gateway: Gateway, queue: str, *bodies: str) -> Answer:
    batch = {"messages": [{"body": body} for body in bodies]}
    return await ask(gateway, "POST", f"/v1/queues/{queue}/messages", batch)
