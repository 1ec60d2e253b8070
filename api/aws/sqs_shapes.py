"""Every request and response of SQS (API version 2012-11-05). A test holds them against AWS's own service model."""

from __future__ import annotations

from typing import Annotated

from msgspec import field

from api.aws.shapes import Flat, Shape

_Attributes = Annotated[dict[str, str] | None, Flat("Attribute")]
_AttributeNames = Annotated[list[str] | None, Flat("AttributeName")]
_Tags = Annotated[dict[str, str] | None, Flat("Tag", "Key", "Value")]


class AttributeValue(Shape):
    """One attribute of a message: a type, and a value in the member that belongs to it."""

    data_type: str
    string_value: str | None = None
    binary_value: bytes | None = None
    string_list_values: Annotated[list[str] | None, Flat("StringListValue")] = None
    binary_list_values: Annotated[list[bytes] | None, Flat("BinaryListValue")] = None


MessageAttributes = Annotated[dict[str, AttributeValue] | None, Flat("MessageAttribute")]
MessageSystemAttributes = Annotated[dict[str, AttributeValue] | None, Flat("MessageSystemAttribute")]


# --- queues -----------------------------------------------------------------------------------------------------------


class OnQueue(Shape):
    """A request about one queue."""

    queue_url: str


class CreateQueue(Shape):
    """Create a queue, or find it again."""

    queue_name: str
    attributes: _Attributes = None
    tags: _Tags = field(default=None, name="tags")


class GetQueueUrl(Shape):
    """Where a queue is."""

    queue_name: str
    queue_owner_account_id: str | None = field(default=None, name="QueueOwnerAWSAccountId")


class QueueUrl(Shape):
    """Where a queue is. Answers `CreateQueue` and `GetQueueUrl`."""

    queue_url: str


class ListQueues(Shape):
    """Queues by the beginning of their name."""

    queue_name_prefix: str | None = None
    next_token: str | None = None
    max_results: int | None = None


class QueueUrls(Shape):
    """Some queues, and where to go on."""

    queue_urls: Annotated[list[str] | None, Flat("QueueUrl")] = None
    next_token: str | None = None


class DeleteQueue(OnQueue):
    """Forget a queue."""


class PurgeQueue(OnQueue):
    """Forget a queue's messages."""


class GetQueueAttributes(OnQueue):
    """A queue's settings and counts."""

    attribute_names: _AttributeNames = None


class QueueAttributes(Shape):
    """A queue's settings and counts, all as text."""

    attributes: _Attributes = None


class SetQueueAttributes(OnQueue):
    """Change some settings of a queue."""

    attributes: Annotated[dict[str, str], Flat("Attribute")]


class AddPermission(OnQueue):
    """Allow accounts to use a queue."""

    label: str
    account_ids: Annotated[list[str], Flat("AWSAccountId")] = field(name="AWSAccountIds")
    actions: Annotated[list[str], Flat("ActionName")]


class RemovePermission(OnQueue):
    """Take back what was allowed."""

    label: str


class TagQueue(OnQueue):
    """Put tags on a queue."""

    tags: Annotated[dict[str, str], Flat("Tag", "Key", "Value")]


class UntagQueue(OnQueue):
    """Take tags off a queue."""

    tag_keys: Annotated[list[str], Flat("TagKey")]


class ListQueueTags(OnQueue):
    """The tags of a queue."""


class QueueTags(Shape):
    """The tags of a queue."""

    tags: _Tags = None


# --- messages ---------------------------------------------------------------------------------------------------------


class Sendable(Shape):
    """What a message to send consists of."""

    message_body: str
    delay_seconds: int | None = None
    message_attributes: MessageAttributes = None
    message_system_attributes: MessageSystemAttributes = None
    message_deduplication_id: str | None = None
    message_group_id: str | None = None


class SendMessage(Sendable, kw_only=True):
    """Send one message."""

    queue_url: str


class Sent(Shape):
    """One message was sent."""

    message_id: str
    md5_of_body: str = field(name="MD5OfMessageBody")
    md5_of_attributes: str | None = field(default=None, name="MD5OfMessageAttributes")
    md5_of_system_attributes: str | None = field(default=None, name="MD5OfMessageSystemAttributes")
    sequence_number: str | None = None


class SendEntry(Sendable, kw_only=True):
    """One message of a batch."""

    id: str


class SendMessageBatch(OnQueue):
    """Send up to ten messages."""

    entries: Annotated[list[SendEntry], Flat("SendMessageBatchRequestEntry")]


class SentEntry(Sent, kw_only=True):
    """One message of a batch was sent."""

    id: str


class FailedEntry(Shape):
    """One entry of a batch was refused."""

    id: str
    sender_fault: bool
    code: str
    message: str | None = None


_Failed = Annotated[list[FailedEntry] | None, Flat("BatchResultErrorEntry")]


class SentBatch(Shape):
    """What became of a batch to send. As with AWS, an empty list is left out."""

    successful: Annotated[list[SentEntry] | None, Flat("SendMessageBatchResultEntry")] = None
    failed: _Failed = None


class ReceiveMessage(OnQueue):
    """Receive up to ten messages."""

    attribute_names: _AttributeNames = None
    message_system_attribute_names: Annotated[list[str] | None, Flat("MessageSystemAttributeName")] = None
    message_attribute_names: Annotated[list[str] | None, Flat("MessageAttributeName")] = None
    max_number_of_messages: int | None = None
    visibility_timeout: int | None = None
    wait_time_seconds: int | None = None
    receive_request_attempt_id: str | None = None


class Message(Shape):
    """A message as it is received. `attributes` are SQS's, `message_attributes` the sender's."""

    message_id: str
    receipt_handle: str
    md5_of_body: str = field(name="MD5OfBody")
    body: str
    attributes: _Attributes = None
    md5_of_attributes: str | None = field(default=None, name="MD5OfMessageAttributes")
    message_attributes: MessageAttributes = None


class Received(Shape):
    """Messages; the member is missing when there are none."""

    messages: Annotated[list[Message] | None, Flat("Message")] = None


class DeleteMessage(OnQueue):
    """A message is done."""

    receipt_handle: str


class DeleteEntry(Shape):
    """One message of a batch is done."""

    id: str
    receipt_handle: str


class DeleteMessageBatch(OnQueue):
    """Up to ten messages are done."""

    entries: Annotated[list[DeleteEntry], Flat("DeleteMessageBatchRequestEntry")]


class DoneEntry(Shape):
    """One entry of a batch was done."""

    id: str


class DeletedBatch(Shape):
    """What became of a batch to delete."""

    successful: Annotated[list[DoneEntry] | None, Flat("DeleteMessageBatchResultEntry")] = None
    failed: _Failed = None


class ChangeMessageVisibility(OnQueue):
    """Hold a message for longer, or give it back."""

    receipt_handle: str
    visibility_timeout: int


class ChangeEntry(Shape):
    """One message of a batch to hold for longer, or to give back."""

    id: str
    receipt_handle: str
    visibility_timeout: int | None = None


class ChangeMessageVisibilityBatch(OnQueue):
    """Hold up to ten messages for longer, or give them back."""

    entries: Annotated[list[ChangeEntry], Flat("ChangeMessageVisibilityBatchRequestEntry")]


class ChangedBatch(Shape):
    """What became of a batch to change."""

    successful: Annotated[list[DoneEntry] | None, Flat("ChangeMessageVisibilityBatchResultEntry")] = None
    failed: _Failed = None


# --- dead letters -----------------------------------------------------------------------------------------------------


class ListDeadLetterSourceQueues(OnQueue):
    """Queues whose dead letters come here."""

    next_token: str | None = None
    max_results: int | None = None


class SourceQueueUrls(Shape):
    """Queues whose dead letters come here, and where to go on."""

    queue_urls: Annotated[list[str], Flat("QueueUrl")] = field(name="queueUrls")
    next_token: str | None = None


class StartMessageMoveTask(Shape):
    """Move dead letters back, or elsewhere."""

    source_arn: str
    destination_arn: str | None = None
    max_number_of_messages_per_second: int | None = None


class TaskStarted(Shape):
    """A move task was started."""

    task_handle: str | None = None


class CancelMessageMoveTask(Shape):
    """Stop moving."""

    task_handle: str


class TaskCancelled(Shape):
    """A move task was stopped."""

    approximate_number_of_messages_moved: int


class ListMessageMoveTasks(Shape):
    """The latest move tasks of a queue."""

    source_arn: str
    max_results: int | None = None


class MoveTask(Shape):
    """A move task. `task_handle` is there while it runs."""

    status: str
    source_arn: str
    started_timestamp: int
    approximate_number_of_messages_moved: int
    approximate_number_of_messages_to_move: int | None = None
    destination_arn: str | None = None
    max_number_of_messages_per_second: int | None = None
    failure_reason: str | None = None
    task_handle: str | None = None


class MoveTasks(Shape):
    """The latest move tasks of a queue, the newest first."""

    results: Annotated[list[MoveTask] | None, Flat("ListMessageMoveTasksResultEntry")] = None


SHAPES: dict[str, tuple[type[Shape], type[Shape] | None]] = {
    "AddPermission": (AddPermission, None),
    "CancelMessageMoveTask": (CancelMessageMoveTask, TaskCancelled),
    "ChangeMessageVisibility": (ChangeMessageVisibility, None),
    "ChangeMessageVisibilityBatch": (ChangeMessageVisibilityBatch, ChangedBatch),
    "CreateQueue": (CreateQueue, QueueUrl),
    "DeleteMessage": (DeleteMessage, None),
    "DeleteMessageBatch": (DeleteMessageBatch, DeletedBatch),
    "DeleteQueue": (DeleteQueue, None),
    "GetQueueAttributes": (GetQueueAttributes, QueueAttributes),
    "GetQueueUrl": (GetQueueUrl, QueueUrl),
    "ListDeadLetterSourceQueues": (ListDeadLetterSourceQueues, SourceQueueUrls),
    "ListMessageMoveTasks": (ListMessageMoveTasks, MoveTasks),
    "ListQueueTags": (ListQueueTags, QueueTags),
    "ListQueues": (ListQueues, QueueUrls),
    "PurgeQueue": (PurgeQueue, None),
    "ReceiveMessage": (ReceiveMessage, Received),
    "RemovePermission": (RemovePermission, None),
    "SendMessage": (SendMessage, Sent),
    "SendMessageBatch": (SendMessageBatch, SentBatch),
    "SetQueueAttributes": (SetQueueAttributes, None),
    "StartMessageMoveTask": (StartMessageMoveTask, TaskStarted),
    "TagQueue": (TagQueue, None),
    "UntagQueue": (UntagQueue, None),
}
"""Request and response of each action; None where AWS answers with nothing."""
