"""The native API under /v1: queues and their messages. Each handler reads, submits, answers."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from aiohttp import web

from api.access import admitted
from api.cloud_events import is_event, read_events
from api.drain import DRAIN
from api.filters import read_selector
from api.messages import (
    MessageIn,
    PackedMessageIn,
    decode_part,
    encode_message,
    listed_message,
    not_held,
    read_receipts,
    receipt,
)
from api.options import Hold, check_text, read_runs, told_about
from api.problem import BATCH_PLACE, SERVER, Problem, invalid, refused
from api.request import (
    MESSAGE_ID_MAX,
    SETTINGS,
    Wish,
    answer,
    choice,
    idempotency,
    idempotency_key,
    integer,
    queue_name,
    read,
    read_either,
    too_large,
    wants_msgpack,
)
from api.times import timestamp
from api.tracing import carry, trace_of
from cluster.client import Client, Reply
from cluster.wire import ToldLook
from storage.block import encode_block, parts
from storage.limits import (
    BATCH_MESSAGES_MAX,
    CONSUMER_BYTES_MAX,
    KEY_BYTES_MAX,
    OPERATION_BYTES_MAX,
    REASON_BYTES_MAX,
    WAIT_MS_MAX,
)
from storage.message_operations import Browse, FindMessages, Page
from storage.operations import (
    Ack,
    Claim,
    Delivery,
    Extend,
    Keyed,
    Nack,
    Operation,
    Query,
    Receive,
    Received,
    Refused,
    Send,
    Sent,
    SentRun,
    Settled,
    is_query,
)
from storage.options import Run
from storage.queue_operations import (
    DeleteQueue,
    GetQueue,
    ListQueues,
    Purged,
    PurgeQueue,
    PutQueue,
    QueueInfo,
    QueueList,
    QueuePut,
)
from storage.settings import LIMITS, QueueSettings, contradiction, malformed, out_of_range
from storage.sift_operations import SelectorInfo

APPLIED_INDEX, STALENESS_MS = "Trimaran-Applied-Index", "Trimaran-Staleness-Ms"
"""Headers of a local read: up to where the answering replica has applied the log, and how stale that may be."""

CLIENT = web.AppKey("client", Client)
ENVELOPE_BYTES = 1024
"""What an operation may take beside its block: names, digests, headers."""

Lease = Annotated[int, msgspec.Meta(ge=LIMITS["lease_ms"][0], le=LIMITS["lease_ms"][1])]
_M = TypeVar("_M")
Batch = Annotated[list[_M], msgspec.Meta(min_length=1, max_length=BATCH_MESSAGES_MAX)]
Receipts = Annotated[list[str], msgspec.Meta(min_length=1, max_length=BATCH_MESSAGES_MAX)]


class SendIn(MessageIn):
    """One message, or a list of messages."""

    messages: Batch[MessageIn] | msgspec.UnsetType = msgspec.UNSET

    def members(self) -> int:
        """The list, and those of its messages."""
        if self.messages is msgspec.UNSET:
            return MessageIn.members(self)
        return 1 + sum([message.members() for message in self.messages])


class PackedSendIn(PackedMessageIn):
    """One message, or a list of messages, in msgpack."""

    messages: Batch[PackedMessageIn] | msgspec.UnsetType = msgspec.UNSET


class ReceiveIn(Wish):
    """What a consumer asks for."""

    max: Annotated[int, msgspec.Meta(ge=1, le=BATCH_MESSAGES_MAX)] = 1
    wait_ms: Annotated[int, msgspec.Meta(ge=0, le=WAIT_MS_MAX)] | msgspec.UnsetType = msgspec.UNSET
    lease_ms: Lease | msgspec.UnsetType = msgspec.UNSET
    consumer: str = ""
    filter: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    filter_on: Literal["attributes", "body"] = "attributes"


class AckIn(Wish):
    """Messages that are done."""

    receipts: Receipts


class NackIn(Wish):
    """Messages that were not handled."""

    receipts: Receipts
    delay_ms: Hold | msgspec.UnsetType = msgspec.UNSET
    reason: str = ""


class ExtendIn(Wish):
    """Messages that take longer."""

    receipts: Receipts
    lease_ms: Lease


async def submit(
    request: web.Request,
    operation: Operation,
    block: bytes = b"",
    *,
    keyed: bool = True,
    part: int = 0,
    tell: Callable[[Refused], Problem] = refused,
) -> Reply:
    """Have the cluster do it. Raises `Problem` for refusals, as `tell` tells them, and `ClusterTrouble`.

    `keyed`: it is what the request's Idempotency-Key, if there is one, stands for; `part` numbers several such.
    """
    app, operation = request.app, admitted(request, operation)
    key = idempotency_key(request) if keyed and not is_query(operation) else None
    if key is not None:
        named, whole = await idempotency(request, key, part)
        operation = Keyed(named, whole, under_key(operation, named))  # type: ignore[arg-type]
    reply = await app[CLIENT].submit(operation, block, timeout_ms=app[SETTINGS].request_timeout_ms)
    if isinstance(reply.outcome, Refused):
        raise tell(reply.outcome)
    return reply


async def query(request: web.Request, operation: Query) -> tuple[Reply, dict[str, str]]:
    """Answer a query, and the headers that say how stale the answer may be if ?consistency=local allows that.

    Raises `Problem` for refusals and `ClusterTrouble`.
    """
    if choice(request, "consistency", "linearizable", "local") == "linearizable":
        return await submit(request, operation), {}
    look = await look_here(request, operation)
    staleness = "unknown" if look.staleness_ms is None else str(look.staleness_ms)
    headers = {APPLIED_INDEX: str(look.applied_index), STALENESS_MS: staleness}
    if isinstance(look.outcome, Refused):
        problem = refused(look.outcome)
        problem.headers = headers
        raise problem
    return Reply(look.outcome, memoryview(look.block)), headers


async def look_here(request: web.Request, operation: Query, timeout_ms: int | None = None) -> ToldLook:
    """What this node's own replica says, however stale it is. Raises `Problem` and `ClusterTrouble`."""
    app = request.config_dict
    timeout_ms = timeout_ms or app[SETTINGS].request_timeout_ms
    return await app[CLIENT].look(admitted(request, operation, here=True), timeout_ms=timeout_ms)


def under_key(operation: Operation, key: bytes) -> Operation:
    """A receive repeated under its key must come to the same lease: its token is then made from the key."""
    if not isinstance(operation, Receive):
        return operation
    digest = hashlib.blake2b(key, digest_size=8, person=b"lease-token").digest()
    return msgspec.structs.replace(operation, token=int.from_bytes(digest) >> 1 | 1)


# --- queues -----------------------------------------------------------------------------------------------------------


async def put_queue(request: web.Request) -> web.Response:
    """Create a queue, or replace its settings."""
    name, settings = queue_name(request), await read(request, QueueSettings)
    wrong = out_of_range(settings)
    if wrong is not None:
        field, lowest, highest = wrong
        raise invalid(f"$.{field}", f"from {lowest} to {highest} is allowed", "Change it.", highest)
    bad = malformed(settings)
    if bad is not None:
        raise invalid(f"$.{bad[0]}", bad[1], "Change it.", bad[2])
    at_odds = contradiction(name, settings)
    if at_odds is not None:
        raise invalid(f"$.{at_odds[0]}", at_odds[1], "Change one of the two.")
    outcome = (await submit(request, PutQueue(name, settings))).outcome
    assert isinstance(outcome, QueuePut)
    document = {"queue": name, "settings": _settings(settings), "changed": outcome.changed}
    return answer(request, document, 201 if outcome.created else 200)


async def list_queues(request: web.Request) -> web.Response:
    """Queues in order of name, with settings and counts."""
    limit = integer(request, "limit", 1000, 1, 1000)
    (outcome, _), headers = await query(request, ListQueues(request.query.get("after", ""), limit))
    assert isinstance(outcome, QueueList)
    return answer(request, {"queues": [_queue(info) for info in outcome.queues]}, headers=headers)


async def get_queue(request: web.Request) -> web.Response:
    """One queue, with settings and counts."""
    (outcome, _), headers = await query(request, GetQueue(queue_name(request)))
    assert isinstance(outcome, QueueInfo)
    return answer(request, _queue(outcome), headers=headers)


async def delete_queue(request: web.Request) -> web.Response:
    """Forget a queue and all its messages."""
    await submit(request, DeleteQueue(queue_name(request)))
    return web.Response(status=204, headers={"Server": SERVER})


async def purge_queue(request: web.Request) -> web.Response:
    """Forget all messages of a queue."""
    outcome = (await submit(request, PurgeQueue(queue_name(request)))).outcome
    assert isinstance(outcome, Purged)
    return answer(request, {"purged": outcome.count})


def _queue(info: QueueInfo) -> dict[str, Any]:
    return {
        "queue": info.queue,
        "settings": _settings(info.settings),
        "created": timestamp(info.created_ms),
        "ready": info.ready,
        "leased": info.leased,
        "delayed": info.delayed,
        "bytes": info.bytes,
        "dead": info.dead,
        **({"active": info.active} if info.active else {}),
        **({"filters": [_filter(selector) for selector in info.selectors]} if info.selectors else {}),
    }


def _filter(selector: SelectorInfo) -> dict[str, Any]:
    return {
        "filter": json.loads(selector.filter),
        "filter_on": selector.filter_on,
        "last_used": timestamp(selector.used_ms),
        "unsifted": selector.unsifted,
    }


def _settings(settings: QueueSettings) -> dict[str, Any]:
    return {field: getattr(settings, field) for field in QueueSettings.__struct_fields__}


# --- messages ---------------------------------------------------------------------------------------------------------


async def send(request: web.Request) -> web.Response:
    """Send one message or a batch, all or none."""
    name = queue_name(request)
    batch, place = await _read_batch(request)
    runs, block = encode_batch(batch, place, trace_of(request))
    if len(block) > OPERATION_BYTES_MAX - ENVELOPE_BYTES:
        raise too_large(OPERATION_BYTES_MAX)
    tell = partial(refused, place=place)
    sent = (await submit(request, Send(name, len(batch), runs), block, tell=tell)).outcome
    assert isinstance(sent, Sent)
    return answer(request, {"messages": told_sent(sent)}, 201)


async def _read_batch(request: web.Request) -> tuple[Sequence[MessageIn | PackedMessageIn], str]:
    """Messages to send, and where each stands in the request."""
    if is_event(request):
        return await read_events(request)
    wish = await read_either(request, SendIn, PackedSendIn)
    if wish.messages is msgspec.UNSET:
        return [wish], "$"
    if any(getattr(wish, name, msgspec.UNSET) is not msgspec.UNSET for name in MessageIn.__struct_fields__):
        raise invalid("$.messages", "there is a message beside the list", "Put every message into the list.")
    return wish.messages, BATCH_PLACE


def encode_batch(
    batch: Sequence[MessageIn | PackedMessageIn], place: str, trace: Mapping[str, str] | None = None
) -> tuple[list[Run], bytes]:
    """The options of messages to send, and their block. Raises `Problem`.

    place: where each stands. trace: attributes that a message without a trace of its own gets, see `api.tracing`.
    """
    if trace:
        carry(trace, batch)
    places = [place.format(position=position) for position in range(len(batch))]
    block = encode_block([encode_message(message, at) for message, at in zip(batch, places, strict=True)])
    return read_runs(batch, places), block


def told_sent(sent: Sent) -> list[dict[str, Any]]:
    """What became of each message of a send."""
    at = timestamp(sent.at_ms)
    told: list[dict[str, Any]] = []
    for run in sent.runs or [SentRun(sent.message_id, sent.count, False)]:
        more = {"duplicate": True} if run.duplicate else {"timestamp": at}
        told += [{"message_id": run.message_id + position, **more} for position in range(run.count)]
    return told


async def receive(request: web.Request) -> web.Response:
    """Lease messages."""
    name, wish = queue_name(request), await read(request, ReceiveIn)
    lease_ms = 0 if wish.lease_ms is msgspec.UNSET else wish.lease_ms
    check_text(wish.consumer, CONSUMER_BYTES_MAX, "$.consumer", empty=True)
    wait_ms = -1 if wish.wait_ms is msgspec.UNSET else wish.wait_ms
    wanted = read_selector(request, wish.filter, wish.filter_on)
    operation = Receive(name, wish.max, lease_ms, new_token(), wait_ms, wish.consumer, wanted, wish.filter_on)
    reply = await request.config_dict[DRAIN].poll(operation, lambda asked: submit(request, asked))
    assert isinstance(reply.outcome, Received)
    messages = delivered(reply.outcome, reply.block, raw=wants_msgpack(request))
    return answer(request, {"messages": messages} | ({"sifting": True} if reply.outcome.sifting else {}))


def new_token() -> int:
    """A lease's token: what nobody can guess."""
    return secrets.randbits(63) | 1


def delivered(outcome: Received, block: memoryview, *, raw: bool) -> list[dict[str, Any]]:
    """Received messages as clients see them."""
    found = parts(block, sum(delivery.count for delivery in outcome.deliveries))
    messages: list[dict[str, Any]] = []
    for delivery in outcome.deliveries:
        same = {"attempt": delivery.attempt, "timestamp": timestamp(delivery.sent_ms)}
        for position, message_id in enumerate(_ids(delivery)):
            told = {"message_id": message_id, "receipt": receipt(message_id, outcome.token)}
            message = told | decode_part(next(found), raw=raw) | same
            if delivery.about is not None:
                message |= told_about(delivery.about, position)
            messages.append(message)
    return messages


async def ack(request: web.Request) -> web.Response:
    """Messages are done."""
    name, wish = queue_name(request), await read(request, AckIn)
    return await _settle(request, wish.receipts, "acked", lambda claims: Ack(name, claims))


async def nack(request: web.Request) -> web.Response:
    """Messages were not handled: deliver them again."""
    name, wish = queue_name(request), await read(request, NackIn)
    check_text(wish.reason, REASON_BYTES_MAX, "$.reason", empty=True)
    delay_ms = -1 if wish.delay_ms is msgspec.UNSET else wish.delay_ms  # the queue's backoff says
    return await _settle(request, wish.receipts, "nacked", lambda claims: Nack(name, claims, delay_ms, wish.reason))


async def extend(request: web.Request) -> web.Response:
    """Messages take longer."""
    name, wish = queue_name(request), await read(request, ExtendIn)
    return await _settle(request, wish.receipts, "extended", lambda claims: Extend(name, claims, wish.lease_ms))


async def _settle(
    request: web.Request, receipts: list[str], done: str, operation: Callable[[list[Claim]], Ack | Nack | Extend]
) -> web.Response:
    settling = read_receipts(receipts)
    stale = await settle(request, settling.rounds, operation)
    results = [
        {"receipt": text, "status": "invalid" if pair is None else "stale" if pair in stale else done}
        for text, pair in zip(receipts, settling.known, strict=True)
    ]
    return answer(request, {"results": results})


async def settle(
    request: web.Request, rounds: list[list[Claim]], operation: Callable[[list[Claim]], Ack | Nack | Extend]
) -> set[tuple[int, int]]:
    """Settle claims, round by round; returns message id and token of what was not held."""
    idempotency_key(request)  # is refused also where nothing is asked for
    stale: set[tuple[int, int]] = set()
    for part, claims in enumerate(rounds):
        outcome = (await submit(request, operation(claims), part=part)).outcome
        assert isinstance(outcome, Settled)
        stale |= not_held(claims, outcome)
    return stale


def _ids(run: Delivery) -> range:
    return range(run.message_id, run.message_id + run.count)


async def browse(request: web.Request) -> web.Response:
    """Look at messages in any state without leasing them, perhaps only at those with a key."""
    name = queue_name(request)
    after = integer(request, "after", 0, 0, MESSAGE_ID_MAX)
    limit = integer(request, "limit", 100, 1, BATCH_MESSAGES_MAX)
    key = request.query.get("key")
    if key is None:
        wanted: Browse | FindMessages = Browse(name, after, limit)
    else:
        check_text(key, KEY_BYTES_MAX, "key")
        wanted = FindMessages(name, key, after, limit)
    (page, block), headers = await query(request, wanted)
    assert isinstance(page, Page)
    raw = wants_msgpack(request)
    found = zip(page.messages, parts(block, len(page.messages)), strict=True)
    messages = [listed_message(listed, part, raw=raw) for listed, part in found]
    return answer(request, {"messages": messages}, headers=headers)


# --- the cluster ------------------------------------------------------------------------------------------------------


async def cluster(request: web.Request) -> web.Response:
    """What this node knows of the cluster."""
    return answer(request, request.config_dict[CLIENT].status())


async def digest(request: web.Request) -> web.Response:
    """The digest of this node's own replica: those that have applied the same have the same."""
    app = request.config_dict
    found = await app[CLIENT].digest(timeout_ms=app[SETTINGS].request_timeout_ms)
    return answer(request, {"node": app[CLIENT].status().node, "shards": [found]})


async def scrub(request: web.Request) -> web.Response:
    """Read everything stored again and compare the nodes, now: each is through when it has begun after `asked_ms`."""
    app = request.config_dict
    asked_ms = await app[CLIENT].scrub(timeout_ms=app[SETTINGS].request_timeout_ms)
    return answer(request, {"asked_ms": asked_ms}, 202)


ROUTES = (
    # Routes are tried in this order: what is asked for most stands first.
    web.post("/v1/queues/{queue}/messages", send),
    web.get("/v1/queues/{queue}/messages", browse, allow_head=False),
    web.post("/v1/queues/{queue}/receive", receive),
    web.post("/v1/queues/{queue}/ack", ack),
    web.post("/v1/queues/{queue}/nack", nack),
    web.post("/v1/queues/{queue}/extend", extend),
    web.get("/v1/queues", list_queues, allow_head=False),
    web.put("/v1/queues/{queue}", put_queue),
    web.get("/v1/queues/{queue}", get_queue, allow_head=False),
    web.delete("/v1/queues/{queue}", delete_queue),
    web.post("/v1/queues/{queue}/purge", purge_queue),
    web.get("/v1/cluster", cluster, allow_head=False),
    web.post("/v1/cluster/scrub", scrub),
    web.get("/v1/cluster/digest", digest, allow_head=False),
)

__all__ = ["CLIENT", "ROUTES", "Claim", "delivered", "look_here", "new_token", "settle", "submit"]
