"""The actions of SQS that are about messages."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from api.aws import sqs_shapes as shapes
from api.aws.batches import check_batch, failed
from api.aws.calls import Call, Once, check_range, invalid, missing, refused, too_long
from api.aws.errors import AwsError, sayable, sqs
from api.aws.names import ACCOUNT, is_fifo, queue_arn, queue_of_url
from api.aws.sqs_messages import (
    MESSAGE_BYTES_MAX,
    Chosen,
    Outgoing,
    check_fifo_id,
    chosen,
    incoming,
    message_uuid,
    outgoing,
    size_of,
)
from api.aws.sqs_queues import INTEGERS
from api.messages import not_held, read_receipt, read_receipts, receipt
from api.rest import new_token
from storage import codes
from storage.block import encode_block, parts
from storage.message_operations import About, GetMessage
from storage.operations import (
    Ack,
    Claim,
    Delivery,
    Extend,
    Nack,
    Operation,
    Receive,
    Received,
    Refused,
    Send,
    Sent,
    Settled,
)
from storage.options import (
    Options,
    Run,
)
from storage.queue_operations import GetQueue

_, VISIBILITY_S_MAX = INTEGERS["VisibilityTimeout"]
_, DELAY_S_MAX = INTEGERS["DelaySeconds"]
_, WAIT_S_MAX = INTEGERS["ReceiveMessageWaitTimeSeconds"]
RECEIVE_MAX = 10
_MS = 1000
_PLAIN = Options()
_NONE = (None, None, None)
_NOTHING = About()


# --- sending ----------------------------------------------------------------------------------------------------------


async def send_message(call: Call, wish: shapes.SendMessage) -> shapes.Sent:
    """Send one message."""
    queue = queue_of_url(wish.queue_url)
    options = _options(queue, wish)
    message = outgoing(wish, call.trace)
    operation = Send(queue, 1, [] if options == _PLAIN else [Run(1, options)])
    sent = (await call.do(operation, encode_block([message[:2]]), call.once(queue))).outcome
    assert isinstance(sent, Sent)
    message_id, sent_ms = next(_sent(sent))
    return shapes.Sent(
        message_id=message_uuid(queue, message_id, sent_ms),
        md5_of_body=message.md5_of_body,
        md5_of_attributes=message.md5_of_attributes,
        md5_of_system_attributes=message.md5_of_system_attributes,
        sequence_number=_sequence(queue, message_id),
    )


def _options(queue: str, wish: shapes.Sendable) -> Options:
    """When, and in which order, a message is delivered; what it may say of that depends on the kind of its queue."""
    if (wish.delay_seconds, wish.message_group_id, wish.message_deduplication_id) == _NONE and not is_fifo(queue):
        return _PLAIN
    delay_s = wish.delay_seconds
    check_range(delay_s, "DelaySeconds", 0, DELAY_S_MAX, f"DelaySeconds must be >= 0 and <= {DELAY_S_MAX}.")
    check_fifo_id("MessageGroupId", wish.message_group_id)
    check_fifo_id("MessageDeduplicationId", wish.message_deduplication_id)
    if is_fifo(queue):
        if wish.message_group_id is None:
            raise missing("MessageGroupId")
        _not_of_this_kind("DelaySeconds", delay_s or None)
        delay_s = None  # the queue's
    else:
        _not_of_this_kind("MessageDeduplicationId", wish.message_deduplication_id)
    return Options(
        group=wish.message_group_id or "",
        delay_ms=-1 if delay_s is None else delay_s * _MS,
        dedup_id=wish.message_deduplication_id or "",
    )


def _not_of_this_kind(name: str, value: Any) -> None:
    if value is not None:
        raise invalid(
            f"Value {str(value)[:200]} for parameter {name} is invalid. Reason: The request include parameter that is "
            "not valid for this queue type."
        )


def _sent(outcome: Sent) -> Iterator[tuple[int, int]]:
    """Id and time of each message; of one that was sent before, the original's."""
    if not outcome.runs:
        for message_id in range(outcome.message_id, outcome.message_id + outcome.count):
            yield message_id, outcome.at_ms
    for run in outcome.runs:
        for message_id in range(run.message_id, run.message_id + run.count):
            yield message_id, run.sent_ms


def _sequence(queue: str, message_id: int) -> str | None:
    """The sequence number of a FIFO queue's message: twenty digits that grow."""
    return f"{message_id:020d}" if is_fifo(queue) else None


async def send_message_batch(call: Call, wish: shapes.SendMessageBatch) -> shapes.SentBatch:
    """Send up to ten messages; those that are refused leave the others unharmed."""
    queue = queue_of_url(wish.queue_url)
    check_batch(wish.entries, "SendMessageBatchRequestEntry")
    size = sum(size_of(entry) for entry in wish.entries)
    if size > MESSAGE_BYTES_MAX:
        said = f"Batch requests cannot be longer than {MESSAGE_BYTES_MAX} bytes. You have sent {size} bytes."
        raise sqs("BatchRequestTooLong", said)
    if is_fifo(queue) and any(entry.message_group_id is None for entry in wish.entries):
        raise invalid("The request must contain the parameter MessageGroupId.")

    messages: dict[str, tuple[Outgoing, Options]] = {}
    refusals: list[shapes.FailedEntry] = []
    for entry in wish.entries:
        try:
            messages[entry.id] = outgoing(entry, call.trace), _options(queue, entry)
        except AwsError as error:
            refusals.append(failed(entry.id, error))
    done = await _send_all(call, queue, messages, refusals)
    answered = [
        shapes.SentEntry(
            id=entry_id,
            message_id=message_uuid(queue, message_id, sent_ms),
            md5_of_body=messages[entry_id][0].md5_of_body,
            md5_of_attributes=messages[entry_id][0].md5_of_attributes,
            md5_of_system_attributes=messages[entry_id][0].md5_of_system_attributes,
            sequence_number=_sequence(queue, message_id),
        )
        for entry_id, (message_id, sent_ms) in done.items()
    ]
    return shapes.SentBatch(successful=answered or None, failed=refusals or None)


async def _send_all(
    call: Call, queue: str, messages: dict[str, tuple[Outgoing, Options]], refusals: list[shapes.FailedEntry]
) -> dict[str, tuple[int, int]]:
    """Send messages in one operation; one that is too large for the queue is left out, and the others sent again."""
    waiting = list(messages)
    if not waiting:
        await call.do(GetQueue(queue))  # a queue that is not there is told before what its messages lack
    while waiting:
        block = encode_block([messages[entry_id][0][:2] for entry_id in waiting])
        runs = [Run(1, messages[entry_id][1]) for entry_id in waiting]
        plain = all(run.options is _PLAIN for run in runs)
        operation = Send(queue, len(waiting), [] if plain else runs)
        outcome = (await call.submit(operation, block, call.once(f"{queue} {len(waiting)}"))).outcome
        if isinstance(outcome, Sent):
            return dict(zip(waiting, _sent(outcome), strict=True))
        assert isinstance(outcome, Refused)
        if outcome.code != codes.BODY_TOO_LARGE:
            raise refused(outcome)
        refusals.append(failed(waiting.pop(outcome.position), too_long(outcome.limit, in_batch=True)))
    return {}


# --- receiving --------------------------------------------------------------------------------------------------------


async def receive_message(call: Call, wish: shapes.ReceiveMessage) -> shapes.Received:
    """Receive up to ten messages, waiting for the first if the client says how long."""
    queue = queue_of_url(wish.queue_url)
    most, wait_s, visibility_s = wish.max_number_of_messages, wish.wait_time_seconds, wish.visibility_timeout
    check_range(most, "MaxNumberOfMessages", 1, RECEIVE_MAX, f"Must be between 1 and {RECEIVE_MAX}, if provided.")
    check_range(wait_s, "WaitTimeSeconds", 0, WAIT_S_MAX, f"Must be >= 0 and <= {WAIT_S_MAX}, if provided.")
    _check_visibility(visibility_s)
    choice = chosen(wish)
    once: Once | None = None
    if wish.receive_request_attempt_id is not None:
        check_fifo_id("ReceiveRequestAttemptId", wish.receive_request_attempt_id)
        if not is_fifo(queue):
            _not_of_this_kind("ReceiveRequestAttemptId", wish.receive_request_attempt_id)
        once = Once(f"{queue}\n{wish.receive_request_attempt_id}")
    lease_ms = 0 if visibility_s is None else max(1, visibility_s * _MS)  # to the rules, 0 is the queue's own
    operation = Receive(queue, most or 1, lease_ms, new_token(), -1 if wait_s is None else wait_s * _MS)
    outcome, block = await call.do(operation, once=once)
    assert isinstance(outcome, Received)
    return shapes.Received(messages=_delivered(queue, outcome, block, choice) or None)


def _delivered(queue: str, outcome: Received, block: memoryview, choice: Chosen) -> list[shapes.Message]:
    found = parts(block, sum(delivery.count for delivery in outcome.deliveries))
    messages: list[shapes.Message] = []
    for delivery in outcome.deliveries:
        shared = _system(queue, delivery) if choice.system else {}
        for position in range(delivery.count):
            part, message_id = next(found), delivery.message_id + position
            system = shared
            if shared and is_fifo(queue):
                system = shared | {"SequenceNumber": str(_sequence(queue, message_id))}
                if "MessageDeduplicationId" not in shared:  # then it is the content's
                    system["MessageDeduplicationId"] = hashlib.sha256(part.body).hexdigest()
            identity = _identity(queue, message_id, delivery, position)
            messages.append(incoming(part, identity, receipt(message_id, outcome.token), system, choice))
    return messages


def _identity(queue: str, message_id: int, delivery: Delivery, position: int) -> str:
    """A message's id, which it keeps in a dead-letter queue."""
    dead = None if delivery.about is None else delivery.about.dead
    if dead is None:
        return message_uuid(queue, message_id, delivery.sent_ms)
    return message_uuid(dead.queue, dead.message_id + position, dead.sent_ms)


def _system(queue: str, delivery: Delivery) -> dict[str, str]:
    """What is known of the messages of a delivery. In a dead-letter queue, their counts and times go on."""
    about = delivery.about or _NOTHING
    dead = about.dead
    first_ms = about.first_ms or int(time.time() * _MS)
    system = {"SenderId": ACCOUNT}
    if about.group:
        system["MessageGroupId"] = sayable(about.group)
    if about.dedup_id:
        system["MessageDeduplicationId"] = sayable(about.dedup_id)
    if dead is not None:
        system["DeadLetterQueueSourceArn"] = queue_arn(dead.queue)
    attempts, sent_ms = (dead.attempts, dead.sent_ms) if dead is not None else (0, delivery.sent_ms)
    return system | {
        "ApproximateReceiveCount": str(attempts + delivery.attempt),
        "ApproximateFirstReceiveTimestamp": str((dead.first_ms if dead is not None else 0) or first_ms),
        "SentTimestamp": str(sent_ms),
    }


def _check_visibility(visibility_s: int | None) -> None:
    reason = f"VisibilityTimeout must be an integer between 0 and {VISIBILITY_S_MAX}."
    check_range(visibility_s, "VisibilityTimeout", 0, VISIBILITY_S_MAX, reason)


# --- settling ---------------------------------------------------------------------------------------------------------


async def delete_message(call: Call, wish: shapes.DeleteMessage) -> None:
    """A message is done."""
    queue, handle = queue_of_url(wish.queue_url), _held(wish.receipt_handle)
    expired = await _delete(call, queue, [handle])
    if expired:
        raise _expired(handle)


async def delete_message_batch(call: Call, wish: shapes.DeleteMessageBatch) -> shapes.DeletedBatch:
    """Up to ten messages are done."""
    queue = queue_of_url(wish.queue_url)
    check_batch(wish.entries, "DeleteMessageBatchRequestEntry")
    held, refusals = _sort(wish.entries)
    expired = await _delete(call, queue, list(held.values()))
    refusals += [failed(entry_id, _expired(handle)) for entry_id, handle in held.items() if handle in expired]
    done = [shapes.DoneEntry(id=entry_id) for entry_id, handle in held.items() if handle not in expired]
    return shapes.DeletedBatch(successful=done or None, failed=refusals or None)


async def _delete(call: Call, queue: str, handles: list[str]) -> set[str]:
    """Delete messages; returns the handles that have expired.

    As with SQS, a standard queue takes any handle: one that is no longer good changes nothing. A FIFO queue wants to
    know of one that has expired; a message that is gone already is none of them.
    """
    if not handles:
        await call.do(GetQueue(queue))
        return set()
    stale = await _settle(call, handles, lambda claims: Ack(queue, claims))
    return {handle for handle in stale if await _is_there(call, queue, handle)} if is_fifo(queue) else set()


async def _is_there(call: Call, queue: str, handle: str) -> bool:
    known = read_receipt(handle)
    assert known is not None, "what was settled was read before"
    outcome = (await call.submit(GetMessage(queue, known[0]))).outcome
    return not isinstance(outcome, Refused)


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
    if not held:
        await call.do(GetQueue(queue))
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


def _expired(handle: str) -> AwsError:
    return invalid(f"Value {handle} for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired.")


def _no_longer_held(handle: str) -> AwsError:
    return invalid(
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
