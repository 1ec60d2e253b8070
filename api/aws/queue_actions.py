"""The actions of SQS that are about queues."""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from api.aws import sqs_shapes as shapes
from api.aws.calls import Call, check_range, invalid, missing, refused
from api.aws.errors import AwsError, sqs
from api.aws.names import is_queue_name, no_such_queue, queue_of_url, queue_url
from api.aws.permissions import with_permission, without_permission
from api.aws.sqs_queues import (
    FIFO,
    STANDARD,
    changed,
    check_attributes,
    check_name,
    chosen,
    dead_letter_target,
    difference,
    sends_dead_letters,
    shown,
    tagged,
)
from storage import codes
from storage.operations import Refused
from storage.queue_operations import DeleteQueue, GetQueue, ListQueues, PurgeQueue, PutQueue, QueueInfo, QueueList
from storage.settings import QueueSettings

LIST_MAX = 1000
"""Queues that one answer names."""
SCAN_MAX = 1000
"""Queues that are looked at in one query."""
_TRIES = 5
"""How often it is tried to change a queue that others change at the same time."""
_PREFIX = re.compile(r"[A-Za-z0-9_.-]*", re.ASCII)


async def create_queue(call: Call, wish: shapes.CreateQueue) -> shapes.QueueUrl:
    """Create a queue, or find the one that has all the attributes given."""
    given, name = wish.attributes or {}, wish.queue_name
    fifo = given.get("FifoQueue", "").lower() == "true"
    check_name(name, fifo=fifo)
    checked = check_attributes(given, fifo=fifo)
    settings = tagged(name, changed(name, FIFO if fifo else STANDARD, checked), wish.tags or {})
    found = await _find(call, name)
    if found is None:
        await _check_target(call, checked)
        try:
            await call.do(PutQueue(name, settings, only_new=True))
        except AwsError as error:
            if error.shape != "QueueNameExists":
                raise
            found = await _find(call, name)  # somebody was faster
    differs = None if found is None else difference(checked, found)
    if differs is not None:
        said = f"A queue already exists with the same name and a different value for attribute {differs}"
        raise sqs("QueueNameExists", said)
    return shapes.QueueUrl(queue_url=queue_url(call.base(), name))


async def _find(call: Call, name: str) -> QueueInfo | None:
    try:
        return await _get(call, name)
    except AwsError as error:
        if error.shape != "QueueDoesNotExist":
            raise
        return None


async def _get(call: Call, name: str) -> QueueInfo:
    outcome = (await call.do(GetQueue(name))).outcome
    assert isinstance(outcome, QueueInfo)
    return outcome


async def _check_target(call: Call, checked: Mapping[str, str]) -> None:
    """With SQS, a dead-letter queue is there before the queues whose messages it takes."""
    policy = checked.get("RedrivePolicy", "")
    target = dead_letter_target(policy)
    if target is not None and await _find(call, target) is None:
        raise invalid(
            f"Value {policy} for parameter RedrivePolicy is invalid. Reason: Dead letter target does not exist."
        )


async def set_queue_attributes(call: Call, wish: shapes.SetQueueAttributes) -> None:
    """Change some attributes of a queue, and leave the others as they are."""
    name, attributes = queue_of_url(wish.queue_url), wish.attributes
    if not attributes:
        raise missing("Attribute.Name")

    async def make(settings: QueueSettings) -> QueueSettings:
        checked = check_attributes(attributes, fifo=settings.fifo)
        told = changed(name, settings, checked)
        await _check_target(call, checked)
        return told

    await _change(call, name, make)


async def _change(call: Call, name: str, make: Callable[[QueueSettings], Awaitable[QueueSettings]]) -> None:
    """Change a queue's settings, also when others do so at the same time. Raises `AwsError`."""
    for left in reversed(range(_TRIES)):
        found = await _get(call, name)
        settings = await make(found.settings)
        reply = await call.submit(PutQueue(name, settings, instead_of=found.settings))
        if not isinstance(reply.outcome, Refused):
            return
        if reply.outcome.code != codes.SETTINGS_CHANGED or not left:
            raise refused(reply.outcome)


async def tag_queue(call: Call, wish: shapes.TagQueue) -> None:
    """Put tags on a queue, in place of those with the same keys."""
    name, tags = queue_of_url(wish.queue_url), wish.tags
    if not tags:
        raise missing("Tags")

    async def make(settings: QueueSettings) -> QueueSettings:
        return tagged(name, settings, settings.tags | tags)

    await _change(call, name, make)


async def untag_queue(call: Call, wish: shapes.UntagQueue) -> None:
    """Take tags off a queue; fine if it has none of them."""
    if not wish.tag_keys:
        raise missing("TagKeys")

    async def make(settings: QueueSettings) -> QueueSettings:
        left = {key: value for key, value in settings.tags.items() if key not in wish.tag_keys}
        return msgspec.structs.replace(settings, tags=left)

    await _change(call, queue_of_url(wish.queue_url), make)


async def list_queue_tags(call: Call, wish: shapes.ListQueueTags) -> shapes.QueueTags:
    """The tags of a queue."""
    found = await _get(call, queue_of_url(wish.queue_url))
    return shapes.QueueTags(tags=found.settings.tags or None)


async def add_permission(call: Call, wish: shapes.AddPermission) -> None:
    """Add a statement to the queue's policy."""
    name = queue_of_url(wish.queue_url)

    async def make(settings: QueueSettings) -> QueueSettings:
        policy = settings.sqs.get("Policy", "")
        told = with_permission(policy, name, wish.label, wish.account_ids, wish.actions)
        return changed(name, settings, check_attributes({"Policy": told}, fifo=settings.fifo))

    await _change(call, name, make)


async def remove_permission(call: Call, wish: shapes.RemovePermission) -> None:
    """Take a statement out of the queue's policy."""
    name = queue_of_url(wish.queue_url)

    async def make(settings: QueueSettings) -> QueueSettings:
        told = without_permission(settings.sqs.get("Policy", ""), name, wish.label)
        return changed(name, settings, {"Policy": told})

    await _change(call, name, make)


async def get_queue_url(call: Call, wish: shapes.GetQueueUrl) -> shapes.QueueUrl:
    """Where a queue is."""
    if not is_queue_name(wish.queue_name):
        raise no_such_queue()
    await _get(call, wish.queue_name)
    return shapes.QueueUrl(queue_url=queue_url(call.base(), wish.queue_name))


async def list_queues(call: Call, wish: shapes.ListQueues) -> shapes.QueueUrls:
    """Queues by the beginning of their name, in order, a page at a time if the client says how many."""
    prefix, most = wish.queue_name_prefix or "", _most(wish.max_results)
    names: list[str] = []
    if _PREFIX.fullmatch(prefix):  # else no queue is called so
        after = _read_token(wish.next_token) if wish.next_token else _just_before(prefix)
        infos = await _list(call, after, most + 1)
        names = [info.queue for info in infos if info.queue.startswith(prefix)]
    (page, token), base = _page(names, most, wish.max_results), call.base()
    return shapes.QueueUrls(queue_urls=[queue_url(base, name) for name in page] or None, next_token=token)


async def list_dead_letter_source_queues(call: Call, wish: shapes.ListDeadLetterSourceQueues) -> shapes.SourceQueueUrls:
    """The queues whose dead letters come to this one, in order, a page at a time if the client says how many."""
    name, most = queue_of_url(wish.queue_url), _most(wish.max_results)
    await _get(call, name)
    names: list[str] = []
    after: str | None = _read_token(wish.next_token) if wish.next_token else ""
    while after is not None and len(names) <= most:
        infos = await _list(call, after, SCAN_MAX)
        names += [info.queue for info in infos if sends_dead_letters(info, name)]
        after = infos[-1].queue if len(infos) == SCAN_MAX else None
    (page, token), base = _page(names, most, wish.max_results), call.base()
    return shapes.SourceQueueUrls(queue_urls=[queue_url(base, each) for each in page], next_token=token)


def _most(max_results: int | None) -> int:
    reason = f"MaxResults must be an integer between 1 and {LIST_MAX}."
    check_range(max_results, "MaxResults", 1, LIST_MAX, reason)
    return max_results or LIST_MAX


async def _list(call: Call, after: str, limit: int) -> list[QueueInfo]:
    outcome = (await call.do(ListQueues(after, limit))).outcome
    assert isinstance(outcome, QueueList)
    return outcome.queues


def _page(names: list[str], most: int, max_results: int | None) -> tuple[list[str], str | None]:
    """A page of names and where to go on: as with SQS, only clients that say how many they want are told."""
    page = names[:most]
    more = max_results is not None and len(names) > most
    return page, base64.urlsafe_b64encode(page[-1].encode()).decode() if more else None


def _just_before(prefix: str) -> str:
    """A text after which the first name with this beginning comes, and none before it that has not."""
    return prefix[:-1] + chr(ord(prefix[-1]) - 1) + "\x7f" if prefix else ""


def _read_token(token: str) -> str:
    try:
        return base64.urlsafe_b64decode(token).decode("ascii")
    except ValueError:
        raise invalid("Invalid or expired next token.") from None


async def get_queue_attributes(call: Call, wish: shapes.GetQueueAttributes) -> shapes.QueueAttributes:
    """Settings and counts of a queue."""
    found = await _get(call, queue_of_url(wish.queue_url))
    return shapes.QueueAttributes(attributes=chosen(wish.attribute_names or [], shown(found)) or None)


async def purge_queue(call: Call, wish: shapes.PurgeQueue) -> None:
    """Forget all messages of a queue, at once and as often as one likes."""
    await call.do(PurgeQueue(queue_of_url(wish.queue_url)))


async def delete_queue(call: Call, wish: shapes.DeleteQueue) -> None:
    """Forget a queue. Another of its name may be created at once."""
    await call.do(DeleteQueue(queue_of_url(wish.queue_url)))
