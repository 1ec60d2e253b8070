"""What an access key may do: its roles give it rights, its patterns say on which queues.

Rights are asked for twice. Every route of the native API has one in `ROUTES`, which is looked at before anything is
read. And every operation, by whichever API it comes, needs what `needs` says, for each queue that it names.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto
from functools import lru_cache
from typing import NamedTuple, TypeVar, assert_never

import msgspec

from cluster.trouble import ClusterTrouble
from storage.access import ADMIN, ALL_QUEUES, matches
from storage.access_operations import CreateAccessKey, ListAccessKeys, RevokeAccessKey
from storage.message_operations import (
    AskWhy,
    Browse,
    CancelMessage,
    ChangeMessage,
    FindMessages,
    GetHistory,
    GetMessage,
)
from storage.operations import Ack, Extend, Forget, Keyed, Nack, Operation, Pulse, Receive, Send, Transaction
from storage.party_operations import DeleteParty, GetParty, ListParties, PutParty
from storage.queue_operations import DeleteQueue, GetQueue, ListQueues, PurgeQueue, PutQueue
from storage.redrive_operations import (
    CancelRedrive,
    GetRedrive,
    GroupDead,
    ListRedrives,
    PreviewRedrive,
    StartRedrive,
    StepRedrive,
)
from storage.schedule_operations import DeleteSchedule, GetSchedule, ListSchedules, Occur, PauseSchedule, PutSchedule
from storage.sift_operations import Sift
from storage.topic_operations import (
    DeleteSubscription,
    DeleteTopic,
    GetRoutes,
    GetTopic,
    ListSubscriptions,
    ListTopics,
    Publish,
    PutSubscription,
    PutTopic,
    Rehearse,
)


class Right(Enum):
    """Something that a key may be allowed to do."""

    __hash__ = object.__hash__  # each is there once; that of an enumeration is its name's, in Python

    OPEN = auto()
    """What anybody may ask, without any key."""
    OBSERVE = auto()
    """Ask the node how it and the cluster are."""
    LOOK = auto()
    """See that a queue is there, with its settings and counts."""
    SEND = auto()
    RECEIVE = auto()
    """Receive and settle messages, and see what is in them."""
    MANAGE = auto()
    """Make, change, purge and delete queues; change and cancel single messages."""
    INSPECT = auto()
    """Ask the node for what is costly to tell."""
    ADMINISTER = auto()
    """Change the cluster and its access keys."""


_ALL = frozenset(Right)
_PRODUCER = frozenset({Right.OBSERVE, Right.LOOK, Right.SEND})
_CONSUMER = frozenset({Right.OBSERVE, Right.LOOK, Right.RECEIVE})
ROLES: dict[str, frozenset[Right]] = {
    "producer": _PRODUCER,
    "consumer": _CONSUMER,
    "manager": _PRODUCER | _CONSUMER | {Right.MANAGE},
    ADMIN: _ALL,
}
TOLD_BY_THE_NODE = frozenset({Right.OBSERVE, Right.INSPECT})
"""What a node answers by itself, and also when it does not reach the cluster."""

# To add a route: one line here, with the least right that any request to it needs. A test fails for a route without.
ROUTES: dict[tuple[str, str], Right] = {
    ("GET", "/"): Right.OPEN,
    ("GET", "/healthz"): Right.OPEN,
    ("GET", "/readyz"): Right.OPEN,
    ("GET", "/openapi.json"): Right.OPEN,
    ("GET", "/v1/queues"): Right.LOOK,
    ("PUT", "/v1/queues/{queue}"): Right.MANAGE,
    ("GET", "/v1/queues/{queue}"): Right.LOOK,
    ("DELETE", "/v1/queues/{queue}"): Right.MANAGE,
    ("POST", "/v1/queues/{queue}/purge"): Right.MANAGE,
    ("POST", "/v1/queues/{queue}/messages"): Right.SEND,
    ("GET", "/v1/queues/{queue}/messages"): Right.RECEIVE,
    ("GET", "/v1/queues/{queue}/messages/{message_id}"): Right.RECEIVE,
    ("PATCH", "/v1/queues/{queue}/messages/{message_id}"): Right.MANAGE,
    ("DELETE", "/v1/queues/{queue}/messages/{message_id}"): Right.MANAGE,
    ("GET", "/v1/queues/{queue}/messages/{message_id}/history"): Right.LOOK,
    ("GET", "/v1/queues/{queue}/messages/{message_id}/why"): Right.LOOK,
    ("POST", "/v1/queues/{queue}/receive"): Right.RECEIVE,
    ("POST", "/v1/queues/{queue}/ack"): Right.RECEIVE,
    ("POST", "/v1/queues/{queue}/nack"): Right.RECEIVE,
    ("POST", "/v1/queues/{queue}/extend"): Right.RECEIVE,
    ("GET", "/v1/queues/{queue}/dead-letters"): Right.RECEIVE,
    ("POST", "/v1/queues/{queue}/redrive"): Right.MANAGE,
    ("GET", "/v1/queues/{queue}/redrive"): Right.LOOK,
    ("GET", "/v1/queues/{queue}/redrive/{task}"): Right.LOOK,
    ("DELETE", "/v1/queues/{queue}/redrive/{task}"): Right.MANAGE,
    ("POST", "/v1/queues/{queue}/redrive/{task}/undo"): Right.MANAGE,
    ("POST", "/v1/transactions"): Right.LOOK,  # its steps say what else
    ("GET", "/v1/schedules"): Right.MANAGE,
    ("PUT", "/v1/schedules/{schedule}"): Right.MANAGE,
    ("GET", "/v1/schedules/{schedule}"): Right.MANAGE,
    ("PATCH", "/v1/schedules/{schedule}"): Right.MANAGE,
    ("DELETE", "/v1/schedules/{schedule}"): Right.MANAGE,
    ("GET", "/v1/topics"): Right.LOOK,
    ("PUT", "/v1/topics/{topic}"): Right.MANAGE,
    ("GET", "/v1/topics/{topic}"): Right.LOOK,
    ("DELETE", "/v1/topics/{topic}"): Right.MANAGE,
    ("GET", "/v1/topics/{topic}/subscriptions"): Right.LOOK,
    ("PUT", "/v1/topics/{topic}/subscriptions/{subscription}"): Right.MANAGE,
    ("GET", "/v1/topics/{topic}/subscriptions/{subscription}"): Right.LOOK,
    ("DELETE", "/v1/topics/{topic}/subscriptions/{subscription}"): Right.MANAGE,
    ("POST", "/v1/topics/{topic}/messages"): Right.LOOK,  # to publish needs more, to try only this
    ("GET", "/v1/topics/{topic}/messages/{message_id}"): Right.LOOK,
    ("GET", "/v1/producers"): Right.LOOK,
    ("PUT", "/v1/producers/{producer}"): Right.MANAGE,
    ("GET", "/v1/producers/{producer}"): Right.LOOK,
    ("DELETE", "/v1/producers/{producer}"): Right.MANAGE,
    ("GET", "/v1/consumers"): Right.LOOK,
    ("PUT", "/v1/consumers/{consumer}"): Right.MANAGE,
    ("GET", "/v1/consumers/{consumer}"): Right.LOOK,
    ("DELETE", "/v1/consumers/{consumer}"): Right.MANAGE,
    ("GET", "/v1/cluster"): Right.OBSERVE,
    ("GET", "/metrics"): Right.OBSERVE,
    ("GET", "/v1/cluster/digest"): Right.INSPECT,
    ("POST", "/v1/cluster/scrub"): Right.ADMINISTER,
    ("PUT", "/v1/cluster/members/{member}"): Right.ADMINISTER,
    ("PATCH", "/v1/cluster/members/{member}"): Right.ADMINISTER,
    ("DELETE", "/v1/cluster/members/{member}"): Right.ADMINISTER,
    ("GET", "/v1/keys"): Right.ADMINISTER,
    ("POST", "/v1/keys"): Right.ADMINISTER,
    ("GET", "/v1/keys/{key}"): Right.ADMINISTER,
    ("DELETE", "/v1/keys/{key}"): Right.ADMINISTER,
    ("POST", "/"): Right.ADMINISTER,  # what is not for SQS or SNS, which have rights of their own
    ("POST", "/send_message"): Right.SEND,
    ("GET", "/receive_message"): Right.RECEIVE,
    ("GET", "/messages"): Right.RECEIVE,
    ("POST", "/ack_message"): Right.RECEIVE,
}
NAMED = ("queue", "topic", "schedule")
"""What in a path is a name that patterns are for."""


_BOUND = ListQueues | ListSchedules | ListTopics | PreviewRedrive | StartRedrive
_O = TypeVar("_O", bound=Operation)


class Need(NamedTuple):
    """A right, on the queue of this name; None: on none in particular."""

    right: Right
    name: str | None = None


def needs(operation: Operation) -> Iterator[Need]:
    """What one must be allowed to have an operation carried out. To add an operation: one line here."""
    match operation:
        case Keyed():
            yield from needs(operation.operation)
        case Transaction():
            for step in operation.steps:
                yield from needs(step)
        case Send():
            yield Need(Right.SEND, operation.queue)
        case Receive() | Ack() | Nack() | Extend():
            yield Need(Right.RECEIVE, operation.queue)
        case Browse() | GetMessage() | FindMessages() | PreviewRedrive() | GroupDead():  # what is in messages
            yield Need(Right.RECEIVE, operation.queue)
        case GetQueue() | GetHistory() | AskWhy() | GetRedrive() | ListRedrives():
            yield Need(Right.LOOK, operation.queue)
        case PutQueue():
            yield Need(Right.MANAGE, operation.queue)
            before, to = operation.instead_of, operation.settings.dead_letter_queue
            if to is not None and (before is None or before.dead_letter_queue != to):  # it would have the cluster send
                yield Need(Right.SEND, to)
        case DeleteQueue() | PurgeQueue() | ChangeMessage() | CancelMessage() | CancelRedrive():
            yield Need(Right.MANAGE, operation.queue)
        case StartRedrive():
            yield Need(Right.MANAGE, operation.queue)
            if operation.to:  # without, `Grant.bound` sees to it that messages go only where one may send
                yield Need(Right.SEND, operation.to)
        case PutSchedule():
            yield Need(Right.MANAGE, operation.schedule)
            yield Need(Right.SEND, operation.plan.queue or operation.plan.topic)
        case DeleteSchedule() | PauseSchedule() | GetSchedule():
            yield Need(Right.MANAGE, operation.schedule)
        case ListSchedules():  # as of queues
            yield Need(Right.MANAGE)
        case Publish():
            yield Need(Right.SEND, operation.topic)
        case PutTopic() | DeleteTopic() | DeleteSubscription():
            yield Need(Right.MANAGE, operation.topic)
        case PutSubscription():
            yield Need(Right.MANAGE, operation.topic)
            yield Need(Right.SEND, operation.queue)  # where it would have the cluster send
        case GetTopic() | ListSubscriptions() | Rehearse() | GetRoutes():
            yield Need(Right.LOOK, operation.topic)
        case ListQueues() | ListTopics():  # `Grant.bound` sees to it that only those are told that may be seen
            yield Need(Right.LOOK)
        case GetParty() | ListParties():  # patterns are for names of queues
            yield Need(Right.LOOK)
        case PutParty() | DeleteParty():
            yield Need(Right.MANAGE)
        case CreateAccessKey() | RevokeAccessKey() | ListAccessKeys():
            yield Need(Right.ADMINISTER)
        case Pulse() | Forget() | Occur() | StepRedrive() | Sift():  # the leader's and the gateways' own, nobody's
            yield Need(Right.ADMINISTER)
        case _:
            assert_never(operation)


@lru_cache(maxsize=64)
def _rights(roles: tuple[str, ...]) -> frozenset[Right]:
    return frozenset().union(*(ROLES[role] for role in roles))


class AccessKey(NamedTuple):
    """A key that is known, with its secret."""

    id: str
    secret: str
    roles: tuple[str, ...]
    queues: tuple[str, ...]

    def __repr__(self) -> str:
        """Without the secret: what is shown may be logged."""
        return f"AccessKey({self.id}, {', '.join(self.roles)})"


class Grant(NamedTuple):
    """What whoever asks may do: all that `key` allows; all there is if there is no key.

    trouble: why it may be out of date. Nothing but what this node holds itself may then be told.
    """

    key: AccessKey | None
    trouble: ClusterTrouble | None = None

    def sees(self, name: str) -> bool:
        """Whether it is for the queue of this name."""
        if self.key is None or ALL_QUEUES in self.key.queues:
            return True
        return any(matches(pattern, name) for pattern in self.key.queues)

    def allows(self, need: Need) -> bool:
        """Whether this may be done."""
        if self.key is None:
            return True
        return need.right in _rights(self.key.roles) and (need.name is None or self.sees(need.name))

    def bound(self, operation: _O) -> _O:
        """The operation as far as it may be done: of a list, of what would be redriven, what the patterns are for."""
        if self.key is not None and isinstance(operation, _BOUND) and ALL_QUEUES not in self.key.queues:
            return msgspec.structs.replace(operation, patterns=list(self.key.queues))
        return operation

    def missing(self, operation: Operation) -> Need | None:
        """What is not allowed of an operation, or None."""
        if self.key is None:
            return None
        return next((need for need in needs(operation) if not self.allows(need)), None)
