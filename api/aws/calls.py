"""A request under way: how its operations reach the cluster, and how the cluster's refusals are told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from api.aws.errors import AwsError, common, sqs
from api.aws.names import no_such_queue
from api.aws.protocols import SQS
from cluster.client import Reply
from cluster.room import STORE_FULL
from storage import codes
from storage.operations import Operation, Refused


class Once(NamedTuple):
    """What an operation is called, so that it takes effect once however often it is asked for under this name.

    `whole` stands for all that is asked: the same name for something else is something else.
    """

    name: str
    whole: bytes = b""


class Submit(Protocol):
    """How an operation reaches the cluster. Raises `ClusterTrouble`."""

    async def __call__(self, operation: Operation, block: bytes = b"", once: Once | None = None) -> Reply:
        """Have it done."""
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """A request under way.

    base: tells how its client reaches this node. trace: its X-Ray header. invocation: what its SDK calls it, however
    often it repeats it; `whole` is a digest of it.
    """

    submit: Submit
    base: Callable[[], str]
    trace: str | None = None
    invocation: str | None = None
    whole: bytes = b""

    async def do(self, operation: Operation, block: bytes = b"", once: Once | None = None) -> Reply:
        """Have it done. Raises `AwsError` if it is refused, and `ClusterTrouble`."""
        reply = await self.submit(operation, block, once)
        if isinstance(reply.outcome, Refused):
            raise refused(reply.outcome)
        return reply

    def once(self, what: str) -> Once | None:
        """The name under which a part of this call takes effect once; None if the client gives none."""
        return None if self.invocation is None else Once(f"{what}\n{self.invocation}", self.whole)


# --- refusals ---------------------------------------------------------------------------------------------------------


def invalid(message: str) -> AwsError:
    """The refusal of a value."""
    return sqs("InvalidParameterValueException", message)


def missing(parameter: str) -> AwsError:
    """The refusal of a request that lacks a parameter."""
    return SQS.missing(parameter)


def too_long(limit: int, *, in_batch: bool = False) -> AwsError:
    """The refusal of a message above its limit."""
    said = "One or more parameters cannot be validated." if in_batch else "One or more parameters are invalid."
    return invalid(f"{said} Reason: Message must be shorter than {limit} bytes.")


def _no_dedup_id(_: Refused) -> AwsError:
    return invalid(
        "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly"
    )


_OF_ACCESS_KEYS = (
    *(codes.ACCESS_KEY_NOT_FOUND, codes.ACCESS_KEY_EXISTS, codes.ACCESS_KEY_LIMIT),
    *(codes.FIRST_ADMIN, codes.LAST_ADMIN),
)
_OF_OTHERS = (
    *(codes.TOPIC_NOT_FOUND, codes.TOPIC_LIMIT, codes.TOPIC_FIXED, codes.TOPIC_KIND, codes.LABELS_LIMIT),
    *(codes.SUBSCRIPTION_NOT_FOUND, codes.SUBSCRIPTION_LIMIT, codes.SUBSCRIPTION_CHANGED, codes.ROUTES_NOT_FOUND),
    *(codes.COPIES_LIMIT, codes.MATCHING_TOO_LONG, codes.SCHEDULE_NOT_FOUND, codes.SCHEDULE_LIMIT),
    *(codes.PARTY_NOT_FOUND, codes.PARTY_LIMIT, codes.FILTER_NOT_ALLOWED, codes.SELECTOR_LIMIT),
)
"""Refusals of what no client of SQS can ask for; for those of SNS, see `api.aws.sns_calls`."""

REFUSALS: dict[str, Callable[[Refused], AwsError]] = {
    codes.QUEUE_NOT_FOUND: lambda _: no_such_queue(),
    codes.QUEUE_EXISTS: lambda _: sqs("QueueNameExists", "A queue already exists with the same name"),
    codes.QUEUE_LIMIT: lambda refusal: sqs("OverLimit", f"There are {refusal.limit} queues, and no more can be."),
    codes.QUEUE_FULL: lambda refusal: sqs("OverLimit", f"The queue is full: its {refusal.detail} is {refusal.limit}."),
    codes.SETTINGS_CHANGED: lambda _: common("ServiceUnavailableException", "Others change the queue. Send it again."),
    codes.SETTING_FIXED: lambda refusal: sqs(
        "InvalidAttributeValue", f"{refusal.detail} of a queue cannot be changed."
    ),
    codes.DEAD_LETTER_KIND: lambda _: invalid("Dead letter queue of a FIFO queue must also be a FIFO queue."),
    codes.DEAD_LETTER_DENIED: lambda _: invalid(
        "The RedriveAllowPolicy of the dead letter queue does not allow this source queue."
    ),
    codes.BODY_TOO_LARGE: lambda refusal: too_long(refusal.limit),
    codes.DEDUP_ID_REQUIRED: _no_dedup_id,
    codes.GROUP_REQUIRED: lambda _: missing("MessageGroupId"),
    codes.PRIORITY_NOT_ALLOWED: lambda _: invalid("The queue has no priorities."),
    codes.CONSUMER_REQUIRED: lambda _: sqs("UnsupportedOperation", "The queue has one consumer, and must know it."),
    codes.MESSAGE_NOT_FOUND: lambda _: invalid("The message does not exist."),
    codes.MESSAGE_LEASED: lambda _: invalid("The message is in flight."),
    codes.STALE_RECEIPT: lambda _: invalid("The receipt handle has expired."),
    codes.REDRIVE_NOT_FOUND: lambda _: sqs("ResourceNotFoundException", "Task does not exist."),
    codes.REDRIVE_RUNNING: lambda _: invalid(
        "There is already a task running. Only one active task is allowed for a source queue arn at a given time."
    ),
    codes.REDRIVE_IS_UNDO: lambda _: sqs("UnsupportedOperation", "The task moves messages back."),
    codes.REDRIVE_TO_NOT_FOUND: lambda _: sqs(
        "ResourceNotFoundException", "The resource that you specified for the DestinationArn parameter doesn't exist."
    ),
    codes.REDRIVE_TO_KIND: lambda _: sqs("UnsupportedOperation", "The destination is of another type than the source."),
    codes.REDRIVE_TO_FULL: lambda _: sqs("OverLimit", "The destination is full."),
    codes.REDRIVE_TARGETS: lambda _: sqs("OverLimit", "There are too many destinations."),
    codes.REDRIVE_PURGED: lambda _: sqs("UnsupportedOperation", "The queue was purged."),
    codes.REDRIVE_FILTER: lambda _: invalid("The filter cannot be read."),
    codes.MALFORMED: lambda _: invalid("One or more parameters are invalid."),
    codes.STALE_OPERATION: lambda _: common("ServiceUnavailableException", "The request came too late. Send it again."),
    codes.IDEMPOTENCY_MISMATCH: lambda _: invalid("The request was sent before with other parameters."),
    codes.IDEMPOTENCY_WINDOW_FULL: lambda _: sqs("RequestThrottled", "Rate exceeded."),
    **dict.fromkeys(_OF_ACCESS_KEYS, lambda _: common("AccessDeniedException", "Access denied.")),
    **dict.fromkeys(_OF_OTHERS, lambda _: sqs("UnsupportedOperation", "SQS does not have this operation.")),
    STORE_FULL: lambda _: sqs("OverLimit", "There is no room for more messages. Receive and delete some first."),
}
"""How each refusal of the rules is told."""


def refused(refusal: Refused) -> AwsError:
    """The refusal of the rules as SQS's clients know it."""
    return REFUSALS[refusal.code](refusal)


def check_range(value: int | None, name: str, lowest: int, highest: int, reason: str) -> None:
    """Check a number, if it is given. Raises `AwsError`."""
    if value is not None and not lowest <= value <= highest:
        raise invalid(f"Value {value} for parameter {name} is invalid. Reason: {reason}")
