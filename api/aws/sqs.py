"""The actions of SQS: each reads, submits what it asks for to the cluster, and answers in SQS's shapes.

What a queue does is decided by the cluster's rules alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from api.aws import message_actions, move_actions, queue_actions
from api.aws.calls import Call
from api.aws.shapes import Shape

Handler = Callable[[Call, Any], Awaitable[Shape | None]]
HANDLERS: dict[str, Handler] = {
    "AddPermission": queue_actions.add_permission,
    "CancelMessageMoveTask": move_actions.cancel_message_move_task,
    "ChangeMessageVisibility": message_actions.change_message_visibility,
    "ChangeMessageVisibilityBatch": message_actions.change_message_visibility_batch,
    "CreateQueue": queue_actions.create_queue,
    "DeleteMessage": message_actions.delete_message,
    "DeleteMessageBatch": message_actions.delete_message_batch,
    "DeleteQueue": queue_actions.delete_queue,
    "GetQueueAttributes": queue_actions.get_queue_attributes,
    "GetQueueUrl": queue_actions.get_queue_url,
    "ListDeadLetterSourceQueues": queue_actions.list_dead_letter_source_queues,
    "ListMessageMoveTasks": move_actions.list_message_move_tasks,
    "ListQueueTags": queue_actions.list_queue_tags,
    "ListQueues": queue_actions.list_queues,
    "PurgeQueue": queue_actions.purge_queue,
    "ReceiveMessage": message_actions.receive_message,
    "RemovePermission": queue_actions.remove_permission,
    "SendMessage": message_actions.send_message,
    "SendMessageBatch": message_actions.send_message_batch,
    "SetQueueAttributes": queue_actions.set_queue_attributes,
    "StartMessageMoveTask": move_actions.start_message_move_task,
    "TagQueue": queue_actions.tag_queue,
    "UntagQueue": queue_actions.untag_queue,
}
"""All actions of SQS."""
