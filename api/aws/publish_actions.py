"""The actions of SNS that publish.

Subscribers get a message as it was published (RawMessageDelivery), or as the `Message` of a JSON document that tells
the rest. Both forms are sent along; the leader keeps those that a subscription takes, each once.
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from api.aws import sns_shapes as shapes
from api.aws.attributes import keep
from api.aws.calls import Call
from api.aws.errors import AwsError
from api.aws.names import is_fifo
from api.aws.sns_calls import do, find_topic, no_dedup_id, refused
from api.aws.sns_checks import Notice, check_publish, check_publish_batch, topic_arn
from api.aws.topic_actions import CONTENT_DEDUP
from api.properties import Properties, encode_properties
from storage import codes
from storage.block import encode_block
from storage.operations import Refused
from storage.options import Options, Run
from storage.topic_operations import GetTopic, Published
from storage.topic_operations import Publish as PublishAll

_PLAIN = Options()


async def publish(call: Call, wish: shapes.Publish) -> shapes.Published:
    """Publish one message."""
    topic, notice = check_publish(wish)
    done, refusals = await _publish_all(call, topic, {"": notice})
    if refusals:
        raise refusals[""]
    message_id, sequence = done[""]
    return shapes.Published(message_id=message_id, sequence_number=sequence)


async def publish_batch(call: Call, wish: shapes.PublishBatch) -> shapes.PublishedBatch:
    """Publish up to ten messages; those that are refused leave the others unharmed."""
    topic, found = check_publish_batch(wish)
    notices = {each: notice for each, notice in found.items() if isinstance(notice, Notice)}
    done, refusals = await _publish_all(call, topic, notices)
    refusals |= {each: error for each, error in found.items() if isinstance(error, AwsError)}
    return shapes.PublishedBatch(
        successful=[
            shapes.PublishedEntry(id=each, message_id=message_id, sequence_number=sequence)
            for each, (message_id, sequence) in done.items()
        ],
        failed=[
            shapes.FailedEntry(id=each, code=error.code, message=error.message, sender_fault=error.is_senders_fault)
            for each, error in refusals.items()
        ],
    )


async def _publish_all(
    call: Call, topic: str, notices: dict[str, Notice]
) -> tuple[dict[str, tuple[str, str | None]], dict[str, AwsError]]:
    """Publish in one operation; a message that a queue does not take for its size is left out, and the others are
    published. Returns the id and sequence number of each message, or why it is refused."""
    refusals: dict[str, AwsError] = {}
    if is_fifo(topic):
        notices = await _with_dedup_ids(call, topic, notices, refusals)
    ids = dict(zip(notices, _message_ids(call, topic, notices), strict=True))
    waiting = list(notices)
    if not waiting:
        await do(call, GetTopic(topic))  # a topic that is not there is told before what its messages lack
    while waiting:
        operation, block = _operation(topic, {ids[each]: notices[each] for each in waiting})
        outcome = (await call.submit(operation, block, call.once(f"{topic} {len(waiting)}"))).outcome
        if isinstance(outcome, Published):
            numbers = range(outcome.message_id, outcome.message_id + outcome.count)
            told = zip(waiting, numbers, strict=True)
            return {each: (ids[each], f"{n:020d}" if is_fifo(topic) else None) for each, n in told}, refusals
        assert isinstance(outcome, Refused)
        if outcome.code != codes.BODY_TOO_LARGE:
            raise refused(outcome)
        refusals[waiting.pop(outcome.position)] = refused(outcome)
    return {}, refusals


async def _with_dedup_ids(
    call: Call, topic: str, notices: dict[str, Notice], refusals: dict[str, AwsError]
) -> dict[str, Notice]:
    """Messages with their deduplication ids, those of their contents if the topic is set so; the others are refused."""
    if all(notice.dedup_id is not None for notice in notices.values()):
        return notices
    by_content = (await find_topic(call, topic)).labels.get(CONTENT_DEDUP) == "true"
    found: dict[str, Notice] = {}
    for each, notice in notices.items():
        if notice.dedup_id is not None:
            found[each] = notice
        elif by_content:
            found[each] = notice._replace(dedup_id=hashlib.sha256(notice.text.encode()).hexdigest())
        else:
            refusals[each] = no_dedup_id()
    return found


def _message_ids(call: Call, topic: str, entries: Iterable[str]) -> Iterable[str]:
    """An id for each message, the same however often an SDK repeats the call: the first call's are kept in messages."""
    for entry in entries:
        if call.invocation is None:
            yield str(uuid.uuid4())
        else:
            digest = hashlib.blake2b(f"{topic}\n{call.invocation}\n{entry}".encode(), digest_size=16, key=call.whole)
            yield str(uuid.UUID(bytes=digest.digest(), version=4))


def _operation(topic: str, notices: dict[str, Notice]) -> tuple[PublishAll, bytes]:
    """What publishes messages, by their ids, and the block of both their forms."""
    runs = [Run(1, Options(group=each.group or "", dedup_id=each.dedup_id or "")) for each in notices.values()]
    plain = all(run.options == _PLAIN for run in runs)
    block = encode_block([*map(_raw, notices.values()), *(_enveloped(topic, *each) for each in notices.items())])
    return PublishAll(topic, len(notices), runs=[] if plain else runs, enveloped=True), block


def _raw(notice: Notice) -> tuple[bytes, bytes]:
    """A message as it was published."""
    if not notice.attributes:
        return notice.text.encode(), b""
    values, types = keep(notice.attributes)
    return notice.text.encode(), encode_properties(Properties(False, values, types, {}))


def _enveloped(topic: str, message_id: str, notice: Notice) -> tuple[bytes, bytes]:
    """The document that tells of a message. It is not signed: it never leaves the cluster on its way."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    document: dict[str, Any] = {"Type": "Notification", "MessageId": message_id, "TopicArn": topic_arn(topic)}
    if notice.subject is not None:
        document["Subject"] = notice.subject
    document |= {"Message": notice.text, "Timestamp": now}
    if notice.attributes:
        document["MessageAttributes"] = {
            name: {"Type": kind, "Value": base64.b64encode(value).decode() if isinstance(value, bytes) else value}
            for name, (kind, value) in notice.attributes.items()
        }
    return msgspec.json.encode(document), b""
