"""Transactions: what was received is settled and what follows from it is sent, all in one entry or not at all.

The steps are done in this order: acks, nacks, extends, sends; each as its own request would be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple, TypeVar

import msgspec
from aiohttp import web

from api.messages import MessageIn, PackedMessageIn, not_held, read_receipts
from api.options import Hold, check_text
from api.problem import BATCH_PLACE, Problem, invalid, refused
from api.request import Wish, answer, check_queue, read_either, too_large
from api.rest import ENVELOPE_BYTES, Batch, Lease, Receipts, encode_batch, submit, told_sent
from api.tracing import trace_of
from storage import codes
from storage.limits import OPERATION_BYTES_MAX, REASON_BYTES_MAX, TRANSACTION_MESSAGES_MAX, TRANSACTION_STEPS_MAX
from storage.operations import (
    Ack,
    Claim,
    Committed,
    Extend,
    Nack,
    Refused,
    Send,
    Sent,
    Settled,
    Transaction,
    messages_of,
)


class AcksIn(Wish):
    """Messages of a queue that are done."""

    queue: str
    receipts: Receipts


class NacksIn(AcksIn):
    """Messages of a queue that were not handled."""

    delay_ms: Hold | msgspec.UnsetType = msgspec.UNSET
    reason: str = ""


class ExtendsIn(Wish):
    """Messages of a queue that take longer."""

    queue: str
    receipts: Receipts
    lease_ms: Lease


class SendsIn(Wish):
    """Messages to send to a queue."""

    queue: str
    messages: Batch[MessageIn]


class PackedSendsIn(Wish):
    """Messages to send to a queue, in msgpack."""

    queue: str
    messages: Batch[PackedMessageIn]


_S = TypeVar("_S")
_Steps = Annotated[list[_S], msgspec.Meta(max_length=TRANSACTION_STEPS_MAX)]


class _Settlings(Wish):
    acks: _Steps[AcksIn] = []
    nacks: _Steps[NacksIn] = []
    extends: _Steps[ExtendsIn] = []


class TransactionIn(_Settlings):
    """What shall happen together."""

    sends: _Steps[SendsIn] = []

    def members(self) -> int:
        """The lists, those of their steps, and of the messages."""
        told = sum([2 * len(self.acks), 3 * len(self.extends), 2 * len(self.nacks), 2 * len(self.sends)])
        told += sum([(nack.delay_ms is not msgspec.UNSET) + bool(nack.reason) for nack in self.nacks])
        lists = sum([bool(steps) for steps in (self.acks, self.nacks, self.extends, self.sends)])
        return lists + told + sum([message.members() for step in self.sends for message in step.messages])


class PackedTransactionIn(_Settlings):
    """What shall happen together, in msgpack."""

    sends: _Steps[PackedSendsIn] = []


class _Step(NamedTuple):
    """A step of the transaction, and where it stands in the request. `proven`: where in its list each receipt stands,
    by what it proves."""

    operation: Ack | Nack | Extend | Send
    place: str
    proven: dict[tuple[int, int], int] = {}


async def transact(request: web.Request) -> web.Response:
    """Do all steps, or none."""
    wish = await read_either(request, TransactionIn, PackedTransactionIn)
    steps: list[_Step] = []
    for name in ("acks", "nacks", "extends"):
        for number, settling in enumerate(getattr(wish, name)):
            steps += _settle(settling, f"$.{name}[{number}]")
    blocks: list[bytes] = []
    trace = trace_of(request)
    sends: Sequence[SendsIn | PackedSendsIn] = wish.sends
    for number, sending in enumerate(sends):
        place = f"$.sends[{number}]"
        check_queue(sending.queue, f"{place}.queue")
        runs, block = encode_batch(sending.messages, place + BATCH_PLACE.removeprefix("$"), trace)
        blocks.append(block)
        steps.append(_Step(Send(sending.queue, len(sending.messages), runs), place))
    _check_limits(steps, sum(map(len, blocks)))
    operation = Transaction([step.operation for step in steps], [len(block) for block in blocks])
    committed = (await submit(request, operation, b"".join(blocks), tell=lambda no: _refused(no, steps))).outcome
    assert isinstance(committed, Committed)
    sent = [outcome for outcome in committed.outcomes if isinstance(outcome, Sent)]
    document = {
        "acked": _receipts(wish.acks),
        "nacked": _receipts(wish.nacks),
        "extended": _receipts(wish.extends),
        "sends": [
            {"queue": sending.queue, "messages": told_sent(each)} for sending, each in zip(sends, sent, strict=True)
        ],
    }
    return answer(request, document)


def _settle(wish: AcksIn | NacksIn | ExtendsIn, place: str) -> list[_Step]:
    """The steps that a settlement comes to: one, and one more for every further lease that a message is named under,
    since a refusal tells by the message's id alone what was stale."""
    check_queue(wish.queue, f"{place}.queue")
    if isinstance(wish, NacksIn):
        check_text(wish.reason, REASON_BYTES_MAX, f"{place}.reason", empty=True)
    known, rounds = read_receipts(wish.receipts)
    proven: dict[tuple[int, int], int] = {}
    for position, pair in enumerate(known):
        if pair is None:
            field = f"{place}.receipts[{position}]"
            raise invalid(field, "this is no receipt", "Give it as it was received.")
        proven.setdefault(pair, position)
    return [_Step(_operation(wish, claims), place, proven) for claims in rounds]


def _operation(wish: AcksIn | NacksIn | ExtendsIn, claims: list[Claim]) -> Ack | Nack | Extend:
    match wish:
        case ExtendsIn():
            return Extend(wish.queue, claims, wish.lease_ms)
        case NacksIn():
            delay_ms = -1 if wish.delay_ms is msgspec.UNSET else wish.delay_ms  # the queue's backoff says
            return Nack(wish.queue, claims, delay_ms, wish.reason)
        case AcksIn():
            return Ack(wish.queue, claims)


def _check_limits(steps: list[_Step], block_bytes: int) -> None:
    if not steps:
        raise invalid("$", "there is nothing to do", "Give acks, nacks, extends or sends.")
    if len(steps) > TRANSACTION_STEPS_MAX:
        detail = f"{len(steps)} steps, at most {TRANSACTION_STEPS_MAX} are allowed"
        raise invalid("$", detail, "Put receipts, and messages, of one queue together.", TRANSACTION_STEPS_MAX)
    messages = sum(messages_of(step.operation) for step in steps)
    if messages > TRANSACTION_MESSAGES_MAX:
        detail = f"{messages} receipts and messages, at most {TRANSACTION_MESSAGES_MAX} are allowed"
        raise invalid("$", detail, "Make several transactions.", TRANSACTION_MESSAGES_MAX)
    if block_bytes > OPERATION_BYTES_MAX - ENVELOPE_BYTES:
        raise too_large(OPERATION_BYTES_MAX)


def _refused(refusal: Refused, steps: list[_Step]) -> Problem:
    """The problem, with the field of the step that is at fault."""
    step = steps[refusal.step]
    problem = refused(refusal, step.place + BATCH_PLACE.removeprefix("$"))
    match refusal.code:
        case codes.STALE_RECEIPT:
            assert not isinstance(step.operation, Send)
            claimed = step.operation.claims
            pairs = not_held(claimed, Settled(refusal.stale))
            stale = sorted(step.proven[pair] for pair in pairs)
            fields = [f"{step.place}.receipts[{position}]" for position in stale]
            more = f" and {len(fields) - 1} more" if len(fields) > 1 else ""
            problem.document["detail"] = f"{fields[0]}{more}: the message is not held under it any more."
            problem.document |= {"field": fields[0], "stale": fields}
        case codes.QUEUE_NOT_FOUND | codes.QUEUE_FULL:
            problem.document["field"] = f"{step.place}.queue"
    return problem


def _receipts(settlings: Sequence[AcksIn | ExtendsIn]) -> int:
    return sum(len(set(settling.receipts)) for settling in settlings)


ROUTES = (web.post("/v1/transactions", transact),)
