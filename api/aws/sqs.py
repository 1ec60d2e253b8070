"""The actions of SQS: each reads, submits what it asks for to the cluster, and answers in SQS's shapes.

What a queue does is decided by the cluster's rules alone. What they cannot do yet is refused: see `api.aws.gaps`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from api.aws import sqs_shapes as shapes
from api.aws.batches import check_batch, failed
from api.aws.errors import AwsError, common, sqs
from api.aws.gaps import gap
from api.aws.names import ACCOUNT, is_fifo, is_queue_name, no_such_queue, queue_of_url, queue_url
from api.aws.shapes import Shape
from api.aws.sqs_messages import (
    MESSAGE_BYTES_MAX,
    Outgoing,
    chosen,
    incoming,
    message_uuid,
    outgoing,
    size_of,
    too_long,
)
from api.aws.sqs_queues import check_attributes, check_name, check_tags, difference, settings_of, shown
from api.aws.sqs_queues import chosen as chosen_attributes
from api.messages import not_held, read_receipt, read_receipts, receipt
from api.rest import new_token
from cluster.client import Reply
from cluster.replica import STORE_FULL
from storage import codes
from storage.block import encode_block, parts
from storage.operations import (
    Ack,
    Claim,
    DeleteQueue,
    Extend,
    GetQueue,
    ListQueues,
    Nack,
    Operation,
    PurgeQueue,
    PutQueue,
    QueueInfo,
    QueueList,
    Receive,
    Received,
    Refused,
    Send,
    Sent,
    Settled,
)

LIST_MAX = 1000
"""Queues that one `ListQueues` names."""
VISIBILITY_S_MAX = 43_200
DELAY_S_MAX = 900
WAIT_S_MAX = 20
RECEIVE_MAX = 10
_MS = 1000
_PREFIX = re.compile(r"[A-Za-z0-9_.-]*", re.ASCII)


class Submit(Protocol):
    """How an operation reaches the cluster. Raises `ClusterTrouble`.

    `once`: it takes effect once, however often the client's SDK repeats the request; `part` numbers several such.
    """

    async def __call__(self, operation: Operation, block: bytes = b"", *, once: bool = False, part: int = 0) -> Reply:
        """Have it done."""
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """A request under way. `base` is how its client reaches this node; `trace` its X-Ray header."""

    submit: Submit
    base: str
    trace: str | None = None

    async def do(self, operation: Operation, block: bytes = b"", *, once: bool = False, part: int = 0) -> Reply:
        """Have it done. Raises `AwsError` if it is refused, and `ClusterTrouble`."""
        reply = await self.submit(operation, block, once=once, part=part)
        if isinstance(reply.outcome, Refused):
            raise refused(reply.outcome)
        return reply


REFUSALS: dict[str, Callable[[Refused], AwsError]] = {
    codes.QUEUE_NOT_FOUND: lambda _: no_such_queue(),
    codes.QUEUE_LIMIT: lambda refusal: sqs("OverLimit", f"There are {refusal.limit} queues, and no more can be."),
    codes.QUEUE_FULL: lambda refusal: sqs("OverLimit", f"The queue is full: its {refusal.detail} is {refusal.limit}."),
    codes.SETTING_FIXED: lambda refusal: sqs(
        "InvalidAttributeValue", f"{refusal.detail} of a queue cannot be changed."
    ),
    codes.DEAD_LETTER_KIND: lambda _: _invalid("Dead letter queue of a FIFO queue must also be a FIFO queue."),
    codes.BODY_TOO_LARGE: lambda refusal: too_long(refusal.limit),
    codes.GROUP_REQUIRED: lambda _: missing("MessageGroupId"),
    codes.PRIORITY_NOT_ALLOWED: lambda _: _invalid("The queue has no priorities."),
    codes.CONSUMER_REQUIRED: lambda _: sqs(
        "UnsupportedOperation", "The queue has one consumer at a time, and must know it."
    ),
    codes.MESSAGE_NOT_FOUND: lambda _: _invalid("The message does not exist."),
    codes.MESSAGE_LEASED: lambda _: _invalid("The message is in flight."),
    codes.STALE_RECEIPT: lambda _: _invalid("The receipt handle has expired."),
    codes.MALFORMED: lambda _: _invalid("One or more parameters are invalid."),
    codes.STALE_OPERATION: lambda _: common("ServiceUnavailableException", "The request came too late. Send it again."),
    codes.IDEMPOTENCY_MISMATCH: lambda _: _invalid("The request was sent before with other parameters."),
    codes.IDEMPOTENCY_WINDOW_FULL: lambda _: sqs("RequestThrottled", "Rate exceeded."),
    STORE_FULL: lambda _: sqs("OverLimit", "There is no room for more messages. Receive and delete some first."),
}
"""How each refusal of the rules is told."""


def refused(refusal: Refused) -> AwsError:
    """The refusal of the rules as SQS's clients know it."""
    return REFUSALS[refusal.code](refusal)


def missing(parameter: str) -> AwsError:
    """The refusal of a request that lacks a parameter."""
    return sqs("MissingRequiredParameterException", f"The request must contain the parameter {parameter}.")


def _invalid(message: str) -> AwsError:
    return sqs("InvalidParameterValueException", message)


def _within(value: int | None, name: str, lowest: int, highest: int, reason: str) -> None:
    if value is not None and not lowest <= value <= highest:
        raise _invalid(f"Value {value} for parameter {name} is invalid. Reason: {reason}")


# --- queues -----------------------------------------------------------------------------------------------------------


async def create_queue(call: Call, wish: shapes.CreateQueue) -> shapes.QueueUrl:
    """Create a queue, or find the one that has all the attributes given.

    NB: two that create one queue with different attributes at the same moment may both succeed: the rules can put a
    queue, not yet create one only if it is not there.
    """
    given, name = wish.attributes or {}, wish.queue_name
    fifo = given.get("FifoQueue", "").lower() == "true"
    check_name(name, fifo=fifo)
    checked = check_attributes(given, fifo=fifo)
    if wish.tags:
        check_tags(wish.tags, name)
        raise gap("Tags")
    settings = settings_of(checked)
    try:
        found = (await call.do(GetQueue(name))).outcome
    except AwsError as error:
        if error.shape != "QueueDoesNotExist":
            raise
        await call.do(PutQueue(name, settings))
    else:
        assert isinstance(found, QueueInfo)
        differs = difference(checked, found)
        if differs is not None:
            said = f"A queue already exists with the same name and a different value for attribute {differs}"
            raise sqs("QueueNameExists", said)
    return shapes.QueueUrl(queue_url=queue_url(call.base, name))


async def get_queue_url(call: Call, wish: shapes.GetQueueUrl) -> shapes.QueueUrl:
    """Where a queue is."""
    if not is_queue_name(wish.queue_name):
        raise no_such_queue()
    await call.do(GetQueue(wish.queue_name))
    return shapes.QueueUrl(queue_url=queue_url(call.base, wish.queue_name))


async def list_queues(call: Call, wish: shapes.ListQueues) -> shapes.QueueUrls:
    """Queues by the beginning of their name, in order, a page at a time if the client says how many."""
    prefix, most = wish.queue_name_prefix or "", wish.max_results
    _within(most, "MaxResults", 1, LIST_MAX, f"MaxResults must be an integer between 1 and {LIST_MAX}.")
    names: list[str] = []
    if _PREFIX.fullmatch(prefix):  # else no queue is called so
        after = _read_token(wish.next_token) if wish.next_token else _just_before(prefix)
        outcome = (await call.do(ListQueues(after, (most or LIST_MAX) + 1))).outcome
        assert isinstance(outcome, QueueList)
        names = [info.queue for info in outcome.queues if info.queue.startswith(prefix)]
    page = names[: most or LIST_MAX]
    more = most is not None and len(names) > len(page)
    return shapes.QueueUrls(
        queue_urls=[queue_url(call.base, name) for name in page] or None,
        next_token=base64.urlsafe_b64encode(page[-1].encode()).decode() if more else None,
    )


def _just_before(prefix: str) -> str:
    """A text after which the first name with this beginning comes, and none before it that has not."""
    return prefix[:-1] + chr(ord(prefix[-1]) - 1) + "\x7f" if prefix else ""


def _read_token(token: str) -> str:
    try:
        return base64.urlsafe_b64decode(token).decode("ascii")
    except ValueError:
        raise _invalid("Invalid or expired next token.") from None


async def get_queue_attributes(call: Call, wish: shapes.GetQueueAttributes) -> shapes.QueueAttributes:
    """Settings and counts of a queue."""
    outcome = (await call.do(GetQueue(queue_of_url(wish.queue_url)))).outcome
    assert isinstance(outcome, QueueInfo)
    return shapes.QueueAttributes(attributes=chosen_attributes(wish.attribute_names or [], shown(outcome)) or None)


async def purge_queue(call: Call, wish: shapes.PurgeQueue) -> None:
    """Forget all messages of a queue, at once and as often as one likes."""
    await call.do(PurgeQueue(queue_of_url(wish.queue_url)))


async def delete_queue(call: Call, wish: shapes.DeleteQueue) -> None:
    """Forget a queue. Another of its name may be created at once."""
    await call.do(DeleteQueue(queue_of_url(wish.queue_url)))


# --- sending ----------------------------------------------------------------------------------------------------------


async def send_message(call: Call, wish: shapes.SendMessage) -> shapes.Sent:
    """Send one message."""
    queue = queue_of_url(wish.queue_url)
    _check_order(queue, wish)
    message = outgoing(wish, call.trace)
    block = encode_block([(message.body, message.properties)])
    sent = (await call.do(Send(queue, 1), block, once=True)).outcome
    assert isinstance(sent, Sent)
    return shapes.Sent(
        message_id=message_uuid(queue, sent.message_id, sent.at_ms),
        md5_of_body=message.md5_of_body,
        md5_of_attributes=message.md5_of_attributes,
        md5_of_system_attributes=message.md5_of_system_attributes,
    )


def _check_order(queue: str, wish: shapes.Sendable) -> None:
    """What a message may say of when, and in which order, it is delivered depends on the kind of its queue."""
    delay_s = wish.delay_seconds
    _within(delay_s, "DelaySeconds", 0, DELAY_S_MAX, f"DelaySeconds must be >= 0 and <= {DELAY_S_MAX}.")
    if is_fifo(queue):
        if wish.message_group_id is None:
            raise missing("MessageGroupId")
        _not_of_this_kind("DelaySeconds", delay_s or None)
        raise gap("FifoQueue")
    _not_of_this_kind("MessageDeduplicationId", wish.message_deduplication_id)
    if delay_s:
        raise gap("DelaySeconds")


def _not_of_this_kind(name: str, value: Any) -> None:
    if value is not None:
        raise _invalid(
            f"Value {str(value)[:200]} for parameter {name} is invalid. Reason: The request include parameter that is "
            "not valid for this queue type."
        )


async def send_message_batch(call: Call, wish: shapes.SendMessageBatch) -> shapes.SentBatch:
    """Send up to ten messages; those that are refused leave the others unharmed."""
    queue = queue_of_url(wish.queue_url)
    check_batch(wish.entries, "SendMessageBatchRequestEntry")
    size = sum(size_of(entry) for entry in wish.entries)
    if size > MESSAGE_BYTES_MAX:
        said = f"Batch requests cannot be longer than {MESSAGE_BYTES_MAX} bytes. You have sent {size} bytes."
        raise sqs("BatchRequestTooLong", said)
    if is_fifo(queue) and any(entry.message_group_id is None for entry in wish.entries):
        raise _invalid("The request must contain the parameter MessageGroupId.")

    messages: dict[str, Outgoing] = {}
    refusals: dict[str, shapes.FailedEntry] = {}
    for entry in wish.entries:
        try:
            _check_order(queue, entry)
            messages[entry.id] = outgoing(entry, call.trace)
        except AwsError as error:
            refusals[entry.id] = failed(entry.id, error)
    done = await _send_all(call, queue, messages, refusals)
    answered = [
        shapes.SentEntry(
            id=entry_id,
            message_id=message_id,
            md5_of_body=messages[entry_id].md5_of_body,
            md5_of_attributes=messages[entry_id].md5_of_attributes,
            md5_of_system_attributes=messages[entry_id].md5_of_system_attributes,
        )
        for entry_id, message_id in done.items()
    ]
    return shapes.SentBatch(successful=answered or None, failed=list(refusals.values()) or None)


async def _send_all(
    call: Call, queue: str, messages: dict[str, Outgoing], refusals: dict[str, shapes.FailedEntry]
) -> dict[str, str]:
    """Send messages in one operation; one that is too large for the queue is left out, and the others sent again."""
    waiting = list(messages)
    if not waiting and refusals:
        await call.do(GetQueue(queue))  # a queue that is not there is told before what its messages lack
    for part in range(len(messages)):
        block = encode_block([messages[entry_id][:2] for entry_id in waiting])
        outcome = (await call.submit(Send(queue, len(waiting)), block, once=True, part=part)).outcome
        if isinstance(outcome, Sent):
            ids = range(outcome.message_id, outcome.message_id + outcome.count)
            return {key: message_uuid(queue, id_, outcome.at_ms) for key, id_ in zip(waiting, ids, strict=True)}
        assert isinstance(outcome, Refused)
        if outcome.code != codes.BODY_TOO_LARGE:
            raise refused(outcome)
        entry_id = waiting.pop(outcome.position)
        refusals[entry_id] = failed(entry_id, too_long(outcome.limit, in_batch=True))
        if not waiting:
            break
    return {}


# --- receiving --------------------------------------------------------------------------------------------------------


async def receive_message(call: Call, wish: shapes.ReceiveMessage) -> shapes.Received:
    """Receive up to ten messages, waiting for the first if the client says how long."""
    queue = queue_of_url(wish.queue_url)
    most, wait_s, visibility_s = wish.max_number_of_messages, wish.wait_time_seconds, wish.visibility_timeout
    _within(most, "MaxNumberOfMessages", 1, RECEIVE_MAX, f"Must be between 1 and {RECEIVE_MAX}, if provided.")
    _within(wait_s, "WaitTimeSeconds", 0, WAIT_S_MAX, f"Must be >= 0 and <= {WAIT_S_MAX}, if provided.")
    _check_visibility(visibility_s)
    if wish.receive_request_attempt_id is not None:
        if is_fifo(queue):
            raise gap("ReceiveRequestAttemptId")
        _not_of_this_kind("ReceiveRequestAttemptId", wish.receive_request_attempt_id)
    lease_ms = 0 if visibility_s is None else max(1, visibility_s * _MS)  # to the rules, 0 is the queue's own
    operation = Receive(queue, most or 1, lease_ms, new_token(), (wait_s or 0) * _MS)
    outcome, block = await call.do(operation)
    assert isinstance(outcome, Received)
    messages = _delivered(queue, outcome, block, wish)
    return shapes.Received(messages=messages or None)


def _delivered(queue: str, outcome: Received, block: memoryview, wish: shapes.ReceiveMessage) -> list[shapes.Message]:
    choice = chosen(wish)
    found = parts(block, sum(delivery.count for delivery in outcome.deliveries))
    messages: list[shapes.Message] = []
    for delivery in outcome.deliveries:
        system = {
            "SenderId": ACCOUNT,
            "SentTimestamp": str(delivery.sent_ms),
            "ApproximateReceiveCount": str(delivery.attempt),
        }
        for message_id in range(delivery.message_id, delivery.message_id + delivery.count):
            identity = message_uuid(queue, message_id, delivery.sent_ms)
            messages.append(incoming(next(found), identity, receipt(message_id, outcome.token), system, choice))
    return messages


def _check_visibility(visibility_s: int | None) -> None:
    reason = f"VisibilityTimeout must be an integer between 0 and {VISIBILITY_S_MAX}."
    _within(visibility_s, "VisibilityTimeout", 0, VISIBILITY_S_MAX, reason)


# --- settling ---------------------------------------------------------------------------------------------------------


async def delete_message(call: Call, wish: shapes.DeleteMessage) -> None:
    """A message is done. As with SQS, a handle that is no longer good changes nothing and is no error."""
    queue = queue_of_url(wish.queue_url)
    await _settle(call, [_held(wish.receipt_handle)], lambda claims: Ack(queue, claims))


async def delete_message_batch(call: Call, wish: shapes.DeleteMessageBatch) -> shapes.DeletedBatch:
    """Up to ten messages are done."""
    queue = queue_of_url(wish.queue_url)
    check_batch(wish.entries, "DeleteMessageBatchRequestEntry")
    held, refusals = _sort(wish.entries)
    if held:
        await _settle(call, list(held.values()), lambda claims: Ack(queue, claims))
    done = [shapes.DoneEntry(id=entry_id) for entry_id in held]
    return shapes.DeletedBatch(successful=done or None, failed=refusals or None)


async def change_message_visibility(call: Call, wish: shapes.ChangeMessageVisibility) -> None:
    """Hold a message for so long from now, or give it back."""
    queue = queue_of_url(wish.queue_url)
    _check_visibility(wish.visibility_timeout)
    handle = _held(wish.receipt_handle)
    if await _settle(call, [handle], _change(queue, wish.visibility_timeout)):
        raise _no_longer_held(handle)


async def change_message_visibility_batch(call: Call, wish: shapes.ChangeMessageVisibilityBatch) -> shapes.ChangedBatch:
    """Hold up to ten messages for so long from now, or give them back."""
    queue = queue_of_url(wish.queue_url)
    check_batch(wish.entries, "ChangeMessageVisibilityBatchRequestEntry")
    held, refusals = _sort(wish.entries)
    by_timeout: dict[int, list[str]] = {}
    for entry in wish.entries:
        try:
            if entry.visibility_timeout is None:
                raise missing("VisibilityTimeout")
            _check_visibility(entry.visibility_timeout)
        except AwsError as error:
            if held.pop(entry.id, None) is not None:
                refusals.append(failed(entry.id, error))
        else:
            by_timeout.setdefault(entry.visibility_timeout, []).append(entry.id)
    done: list[shapes.DoneEntry] = []
    for visibility_s, ids in by_timeout.items():
        handles = {entry_id: held[entry_id] for entry_id in ids if entry_id in held}
        stale = await _settle(call, list(handles.values()), _change(queue, visibility_s)) if handles else set()
        for entry_id, handle in handles.items():
            if handle in stale:
                refusals.append(failed(entry_id, _no_longer_held(handle)))
            else:
                done.append(shapes.DoneEntry(id=entry_id))
    return shapes.ChangedBatch(successful=done or None, failed=refusals or None)


def _change(queue: str, visibility_s: int) -> Callable[[list[Claim]], Operation]:
    if not visibility_s:
        return lambda claims: Nack(queue, claims, 0)
    return lambda claims: Extend(queue, claims, visibility_s * _MS)


def _held(handle: str) -> str:
    """A receipt handle that is one. Raises `AwsError`."""
    if read_receipt(handle) is None:
        said = f'The input receipt handle "{handle[:100]}" is not a valid receipt handle.'
        raise sqs("ReceiptHandleIsInvalid", said)
    return handle


def _no_longer_held(handle: str) -> AwsError:
    return _invalid(
        f"Value {handle} for parameter ReceiptHandle is invalid. Reason: Message does not exist or is not available "
        "for visibility timeout change."
    )


def _sort(
    entries: Sequence[shapes.DeleteEntry | shapes.ChangeEntry],
) -> tuple[dict[str, str], list[shapes.FailedEntry]]:
    """Receipt handles by id of their entry, and the entries whose handle is none."""
    held: dict[str, str] = {}
    refusals: list[shapes.FailedEntry] = []
    for entry in entries:
        try:
            held[entry.id] = _held(entry.receipt_handle)
        except AwsError as error:
            refusals.append(failed(entry.id, error))
    return held, refusals


async def _settle(call: Call, handles: list[str], operation: Callable[[list[Claim]], Operation]) -> set[str]:
    """Settle messages; returns the handles that were no longer held."""
    settling = read_receipts(handles)
    stale: set[tuple[int, int]] = set()
    for claims in settling.rounds:
        outcome = (await call.do(operation(claims))).outcome
        assert isinstance(outcome, Settled)
        stale |= not_held(claims, outcome)
    return {handle for handle, known in zip(handles, settling.known, strict=True) if known in stale}


Handler = Callable[[Call, Any], Awaitable[Shape | None]]
HANDLERS: dict[str, Handler] = {
    "ChangeMessageVisibility": change_message_visibility,
    "ChangeMessageVisibilityBatch": change_message_visibility_batch,
    "CreateQueue": create_queue,
    "DeleteMessage": delete_message,
    "DeleteMessageBatch": delete_message_batch,
    "DeleteQueue": delete_queue,
    "GetQueueAttributes": get_queue_attributes,
    "GetQueueUrl": get_queue_url,
    "ListQueues": list_queues,
    "PurgeQueue": purge_queue,
    "ReceiveMessage": receive_message,
    "SendMessage": send_message,
    "SendMessageBatch": send_message_batch,
}
"""The actions that there are; the others are gaps."""
