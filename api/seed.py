"""The seed's API: send, receive and list on one queue called `default`, which exists from its first use."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from api.messages import decode_part, read_receipts
from api.problem import Problem
from api.request import MESSAGE_ID_MAX, Wish, answer, integer, read
from api.rest import delivered, new_token, settle, submit
from api.times import timestamp
from cluster.client import Reply
from storage.block import encode_block, parts
from storage.limits import BATCH_MESSAGES_MAX
from storage.message_operations import Browse, Page
from storage.operations import Ack, Operation, Receive, Received, Send, Sent
from storage.queue_operations import PutQueue
from storage.settings import QueueSettings

QUEUE = "default"


class SeedMessage(Wish):
    """What the seed's API sends."""

    message: str


class SeedAck(Wish):
    """A message is done."""

    receipt: str


async def _on_default(request: web.Request, operation: Operation, block: bytes = b"") -> Reply:
    try:
        return await submit(request, operation, block)
    except Problem as problem:
        if problem.status != 404:
            raise
    await submit(request, PutQueue(QUEUE, QueueSettings()), keyed=False)
    return await submit(request, operation, block)


async def send_message(request: web.Request) -> web.Response:
    """Send a new message to the queue."""
    text = (await read(request, SeedMessage)).message
    block = encode_block([(text.encode(), b"")])
    sent = (await _on_default(request, Send(QUEUE, 1), block)).outcome
    assert isinstance(sent, Sent)
    return answer(request, {"message_id": sent.message_id, "timestamp": timestamp(sent.at_ms)}, 201)


async def receive_message(request: web.Request) -> web.Response:
    """Receive the next available message, or {} if there is none."""
    outcome, block = await _on_default(request, Receive(QUEUE, 1, 0, new_token()))
    assert isinstance(outcome, Received)
    found = delivered(outcome, block, raw=False)
    if not found:
        return answer(request, {})
    message = found[0]
    return answer(request, {**_seen(message), "receipt": message["receipt"]})


async def list_messages(request: web.Request) -> web.Response:
    """All messages in the queue, a page at a time."""
    after = integer(request, "after", 0, 0, MESSAGE_ID_MAX)
    limit = integer(request, "limit", BATCH_MESSAGES_MAX, 1, BATCH_MESSAGES_MAX)
    page, block = await _on_default(request, Browse(QUEUE, after, limit))
    assert isinstance(page, Page)
    found = zip(page.messages, parts(block, len(page.messages)), strict=True)
    messages = [
        _seen({"message_id": m.message_id, **decode_part(p, raw=False), "timestamp": timestamp(m.sent_ms)})
        for m, p in found
    ]
    return answer(request, {"messages": messages})


async def ack_message(request: web.Request) -> web.Response:
    """A received message is done."""
    text = (await read(request, SeedAck)).receipt
    rounds = read_receipts([text]).rounds
    stale = await settle(request, rounds, lambda claims: Ack(QUEUE, claims))
    status = "stale" if stale else "acked" if rounds else "invalid"
    return answer(request, {"receipt": text, "status": status})


def _seen(message: dict[str, Any]) -> dict[str, Any]:
    content = message["body"] if "body" in message else message["body_base64"]
    return {"message_id": message["message_id"], "content": content, "timestamp": message["timestamp"]}


ROUTES = (
    web.post("/send_message", send_message),
    web.get("/receive_message", receive_message, allow_head=False),
    web.get("/messages", list_messages, allow_head=False),
    web.post("/ack_message", ack_message),
)
