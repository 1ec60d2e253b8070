"""The actions of SQS that move dead letters back: redrive tasks of the cluster, as SQS tells of them."""

from __future__ import annotations

import base64
import binascii

import msgspec

from api.aws import sqs_shapes as shapes
from api.aws.calls import REFUSALS, Call, check_range, invalid
from api.aws.errors import AwsError, sqs
from api.aws.names import queue_arn, queue_of_arn
from api.aws.sqs_queues import sends_dead_letters
from storage import codes
from storage.operations import Operation, Outcome, Refused
from storage.queue_operations import ListQueues, QueueList
from storage.records import Redrive
from storage.redrive import CANCELLED, FINISHED, RUNNING, STOPPED
from storage.redrive_operations import CancelRedrive, GetRedrive, ListRedrives, RedriveTask, RedriveTasks, StartRedrive
from storage.settings import Rate

RATE_MAX = 500
"""Messages a second that a task may be asked for."""
LIST_MAX = 10
"""Tasks that one answer names."""
_PAGE = 1000
_STATUS = {RUNNING: "RUNNING", FINISHED: "COMPLETED", CANCELLED: "CANCELLED", STOPPED: "FAILED"}


class _Handle(msgspec.Struct, rename="camel"):
    """What a task's handle says, in base64: clients keep it as it is."""

    task_id: str
    source_arn: str


async def start_message_move_task(call: Call, wish: shapes.StartMessageMoveTask) -> shapes.TaskStarted:
    """Begin to move dead letters to where they came from, or elsewhere."""
    source, to = _existing(wish.source_arn, "SourceArn"), ""
    most = wish.max_number_of_messages_per_second
    reason = f"Value must be between 1 and {RATE_MAX}, if provided."
    check_range(most, "MaxNumberOfMessagesPerSecond", 1, RATE_MAX, reason)
    if wish.destination_arn:
        to = _existing(wish.destination_arn, "DestinationArn")
    await _do(call, ListRedrives(source), "SourceArn")
    if not await _takes_dead_letters(call, source):
        raise invalid("Source queue must be configured as a Dead Letter Queue.")
    rate = None if most is None else Rate(most, 1000, max(1, most // 10))
    outcome = await _do(call, StartRedrive(source, to, rate=rate), "SourceArn")
    assert isinstance(outcome, RedriveTask)
    return shapes.TaskStarted(task_handle=_handle(outcome))


async def cancel_message_move_task(call: Call, wish: shapes.CancelMessageMoveTask) -> shapes.TaskCancelled:
    """Stop a task that runs."""
    queue, task = _read_handle(wish.task_handle)
    found = await _do(call, GetRedrive(queue, task), "TaskHandle")
    assert isinstance(found, RedriveTask)
    if found.redrive.state != RUNNING:
        raise sqs("ResourceNotFoundException", "Task does not exist.")
    outcome = await _do(call, CancelRedrive(queue, task), "TaskHandle")
    assert isinstance(outcome, RedriveTask)
    return shapes.TaskCancelled(approximate_number_of_messages_moved=outcome.redrive.moved)


async def list_message_move_tasks(call: Call, wish: shapes.ListMessageMoveTasks) -> shapes.MoveTasks:
    """The latest tasks of a queue, the newest first: one, if the client does not say how many."""
    source = _existing(wish.source_arn, "SourceArn")
    reason = f"Value must be between 1 and {LIST_MAX}, if provided."
    check_range(wish.max_results, "MaxResults", 1, LIST_MAX, reason)
    outcome = await _do(call, ListRedrives(source), "SourceArn")
    assert isinstance(outcome, RedriveTasks)
    tasks = [_told(task) for task in outcome.tasks if not task.redrive.undoes]
    return shapes.MoveTasks(results=tasks[: wish.max_results or 1])


async def _do(call: Call, operation: Operation, parameter: str) -> Outcome:
    """Have it done; a queue that is not there is a resource that the parameter names. Raises `AwsError`."""
    try:
        return (await call.do(operation)).outcome
    except AwsError as error:
        if error.shape != "QueueDoesNotExist":
            raise
        said = f"The resource that you specified for the {parameter} parameter doesn't exist."
        raise sqs("ResourceNotFoundException", said) from None


def _told(task: RedriveTask) -> shapes.MoveTask:
    redrive = task.redrive
    per_second = None if redrive.rate is None else redrive.rate.messages * 1000 // redrive.rate.per_ms
    return shapes.MoveTask(
        status=_STATUS[redrive.state],
        source_arn=queue_arn(task.queue),
        started_timestamp=redrive.started_ms,
        approximate_number_of_messages_moved=redrive.moved,
        approximate_number_of_messages_to_move=redrive.messages,
        destination_arn=queue_arn(redrive.to) if redrive.to else None,
        max_number_of_messages_per_second=per_second,
        failure_reason=_failure(redrive),
        task_handle=_handle(task) if redrive.state == RUNNING else None,
    )


def _failure(redrive: Redrive) -> str | None:
    """Why a task has failed, by the code that AWS has for it."""
    if not redrive.cause:
        return None
    if redrive.cause == codes.REDRIVE_TO_NOT_FOUND:
        return "AWS.SimpleQueueService.NonExistentQueue"
    return REFUSALS[redrive.cause](Refused(redrive.cause)).code


async def _takes_dead_letters(call: Call, queue: str) -> bool:
    """Whether it is the dead-letter queue of any other: with SQS, tasks move from such queues only."""
    after = ""
    while True:
        outcome = (await call.do(ListQueues(after, _PAGE))).outcome
        assert isinstance(outcome, QueueList)
        if any(sends_dead_letters(info, queue) for info in outcome.queues):
            return True
        if len(outcome.queues) < _PAGE:
            return False
        after = outcome.queues[-1].queue


def _existing(arn: str, parameter: str) -> str:
    """The queue that an ARN means. Raises `AwsError`."""
    queue = queue_of_arn(arn)
    if queue is None:
        form = "arn:<partition>:<service>:<region>:<account-id>:<resource-id>"
        raise invalid(f"You must use this format to specify the {parameter}: {form}")
    return queue


def _handle(task: RedriveTask) -> str:
    said = msgspec.json.encode(_Handle(str(task.redrive.task), queue_arn(task.queue)))
    return base64.b64encode(said).decode()


def _read_handle(handle: str) -> tuple[str, int]:
    """The queue and the number of a task. Raises `AwsError`."""
    try:
        said = msgspec.json.decode(base64.b64decode(handle, validate=True), type=_Handle)
    except (binascii.Error, ValueError):
        said = None
    queue = None if said is None else queue_of_arn(said.source_arn)
    if said is None or queue is None or not (said.task_id.isascii() and said.task_id.isdigit()):
        raise invalid("Value for parameter TaskHandle is invalid.")
    return queue, int(said.task_id[:18])
