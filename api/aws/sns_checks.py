"""What SNS asks of topics, subscriptions and messages, in its own words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from api.aws import sns_shapes as shapes
from api.aws.attributes import is_number
from api.aws.digests import Attribute
from api.aws.errors import AwsError, sns
from api.aws.gaps import SNS_GAPS, sns_gap
from api.aws.names import ACCOUNT, REGION, is_fifo, queue_of_arn
from api.properties import TYPE
from storage.conditions import FilterError
from storage.filters import compile_filter
from storage.settings import QUEUE_NAME

NAME_MAX = 256
MESSAGE_BYTES_MAX = 256 * 1024
"""Bytes of a message with its attributes, and of a whole batch."""
SUBJECT_MAX = 100
FILTER_KEYS_MAX = 5
"""Keys of a filter policy; the native API takes more."""
NATIVE_NAME_MAX = 80
"""Characters of a topic's name in the cluster, before .fifo; with AWS it has 256."""
ENTRIES_MAX = 10
TAGS_MAX = 50
_ARN_PARTS = 6

_NAME = re.compile(r"[A-Za-z0-9_-]+(\.fifo)?", re.ASCII)
_SUBJECT = re.compile(r"[!-~][ -~]*", re.ASCII)
_ID = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_ID_MAX = 80
_FIFO_ID = re.compile(r"[A-Za-z0-9!-/:-@\[-`{-~]{1,128}", re.ASCII)
_ATTRIBUTE_NAME = re.compile(r"[A-Za-z0-9_.-]", re.ASCII)
_PROTOCOLS = {*("application", "email", "email-json", "firehose", "http", "https", "lambda", "sms", "sqs")}
_TOPIC_ATTRIBUTES = {
    *(
        "ArchivePolicy",
        "ContentBasedDeduplication",
        "DeliveryPolicy",
        "DisplayName",
        "FifoThroughputScope",
        "FifoTopic",
    ),
    *("KmsMasterKeyId", "Policy", "SignatureVersion", "TracingConfig"),
}
_SUBSCRIPTION_ATTRIBUTES = {
    *("DeliveryPolicy", "FilterPolicy", "FilterPolicyScope", "RawMessageDelivery", "RedrivePolicy", "ReplayPolicy"),
    "SubscriptionRoleArn",
}
SCOPES = {"MessageAttributes": "attributes", "MessageBody": "body"}
"""What a filter looks at, by SNS's name and by the cluster's."""


def invalid(what: str) -> AwsError:
    """The refusal of a value."""
    return sns("InvalidParameterException", f"Invalid parameter: {what}")


def _invalid_value(message: str) -> AwsError:
    return sns("InvalidParameterValueException", message)


# --- names ------------------------------------------------------------------------------------------------------------


def topic_arn(name: str) -> str:
    """The name of a topic for clients."""
    return f"arn:aws:sns:{REGION}:{ACCOUNT}:{name}"


def subscription_arn(topic: str, subscription: str) -> str:
    """The name of a subscription for clients."""
    return f"{topic_arn(topic)}:{subscription}"


def topic_of_arn(arn: str, parameter: str = "TopicArn") -> str:
    """The topic that an ARN means: its sixth element, wherever the ARN was made. Raises `AwsError`."""
    return _parts(arn, parameter)[5]


def subscription_of_arn(arn: str) -> tuple[str, str]:
    """Topic and subscription that an ARN means. Raises `AwsError`."""
    if not arn:
        raise invalid("SubscriptionArn Reason: no value for required parameter")
    parts = _parts(arn, "SubscriptionArn")
    if len(parts) != _ARN_PARTS + 1 or not parts[6]:
        raise invalid("SubscriptionId")
    return parts[5], parts[6]


def _parts(arn: str, parameter: str) -> list[str]:
    parts = arn.split(":")
    if len(parts) < _ARN_PARTS:
        raise invalid(f"{parameter} Reason: An ARN must have at least {_ARN_PARTS} elements, not {len(parts)}")
    if parts[0] != "arn" or parts[2] != "sns" or not _is_topic_name(parts[5]):
        raise invalid(parameter)
    return parts


def _is_topic_name(name: str) -> bool:
    return len(name) <= NAME_MAX and _NAME.fullmatch(name) is not None


# --- topics -----------------------------------------------------------------------------------------------------------


def check_topic(wish: shapes.CreateTopic) -> dict[str, str]:
    """Check a topic to create; returns its attributes. Raises `AwsError`."""
    given = wish.attributes or {}
    fifo = given.get("FifoTopic", "").lower() == "true"
    attributes = {name: check_topic_attribute(name, text, fifo=fifo) for name, text in given.items()}
    if not _is_topic_name(wish.name) or is_fifo(wish.name) != fifo:
        if fifo or is_fifo(wish.name):
            raise invalid(
                "Fifo Topic names must end with .fifo and must be made up of only uppercase and lowercase ASCII "
                "letters, numbers, underscores, and hyphens, and must be between 1 and 256 characters long."
            )
        raise invalid("Topic Name")
    if QUEUE_NAME.fullmatch(wish.name) is None:
        raise invalid(f"Topic Name Reason: names have at most {NATIVE_NAME_MAX} characters here, without .fifo")
    check_tags(wish.tags or [])
    return attributes


def check_topic_attribute(name: str, text: str | None, *, fifo: bool) -> str:
    """Check one attribute of a topic. Raises `AwsError`."""
    if name not in _TOPIC_ATTRIBUTES:
        raise invalid("AttributeName")
    text = text or ""
    if name == "ContentBasedDeduplication" and not fifo:
        raise invalid("Attributes Reason: Content-based deduplication can only be set for FIFO topics")
    if name == "FifoThroughputScope" and (not fifo or text not in ("Topic", "MessageGroup")):
        raise invalid("FifoThroughputScope Reason: it is Topic or MessageGroup, of a FIFO topic")
    if name in ("FifoTopic", "ContentBasedDeduplication"):
        if text.lower() not in ("true", "false"):
            raise invalid(f"Attributes Reason: {name}: Invalid value [{text[:100]}]. Must be true or false.")
        return text.lower()
    if name in ("Policy", "DeliveryPolicy", "ArchivePolicy") and text and _object(text) is None:
        raise invalid(f"{name}: failed to parse JSON.")
    if name in SNS_GAPS and name != "DeliveryPolicy" and text not in ("", "{}", "PassThrough"):
        raise sns_gap(name)
    return text if name not in SNS_GAPS or name == "DeliveryPolicy" else ""


def check_tags(tags: Sequence[shapes.Tag]) -> None:
    """Check the tags of a topic. Raises `AwsError`."""
    if len({tag.key for tag in tags}) != len(tags):
        raise invalid("Duplicated keys are not allowed.")
    if len(tags) > TAGS_MAX:
        raise sns("TagLimitExceededException", "Could not complete request: tag quota of per resource exceeded")
    for tag in tags:
        if not 1 <= len(tag.key) <= 128 or len(tag.value) > 256 or tag.key.lower().startswith("aws:"):
            raise invalid("Tags Reason: a key has 1 to 128 characters and no prefix aws:, a value at most 256")


# --- subscriptions ----------------------------------------------------------------------------------------------------


def check_subscription(wish: shapes.Subscribe) -> tuple[str, str, dict[str, str]]:
    """Check a subscription to make; returns topic, queue and attributes. Raises `AwsError`."""
    topic = topic_of_arn(wish.topic_arn)
    if wish.protocol not in _PROTOCOLS:
        raise invalid(f"Amazon SNS does not support this protocol string: {wish.protocol[:100]}")
    if wish.protocol != "sqs":
        raise invalid(f"Protocol Reason: {wish.protocol} is not supported here, only sqs is")
    if not wish.endpoint:
        raise sns("NotFoundException", "Endpoint not specified in subscription")
    queue = queue_of_arn(wish.endpoint)
    if queue is None:
        raise invalid("SQS endpoint ARN")
    if is_fifo(queue) and not is_fifo(topic):
        raise invalid(
            "Invalid parameter: Endpoint Reason: FIFO SQS Queues can not be subscribed to standard SNS topics"
        )
    given = wish.attributes or {}
    scope = given.get("FilterPolicyScope") or "MessageAttributes"
    checked = {name: _checked(name, text, scope, topic, "Attributes Reason: ") for name, text in given.items()}
    return topic, queue, checked


def check_subscription_attribute(name: str, text: str | None, *, topic: str, scope: str) -> str:
    """Check one attribute of a subscription to a topic whose filter has this scope. Raises `AwsError`."""
    return _checked(name, text or "", scope, topic, "")


def _checked(name: str, text: str, scope: str, topic: str, before: str) -> str:
    if name not in _SUBSCRIPTION_ATTRIBUTES:
        raise invalid("AttributeName")
    match name:
        case "RawMessageDelivery":
            if text.lower() not in ("true", "false"):
                raise invalid(f"{before}{name}: Invalid value [{text[:100]}]. Must be true or false.")
            return text.lower()
        case "FilterPolicyScope":
            if text not in SCOPES:
                raise invalid(
                    f"{before}{name}: Invalid value [{text[:100]}]. Please use either MessageBody or MessageAttributes"
                )
        case "FilterPolicy" if _object(text) == {}:
            return ""  # with SNS, that takes the filter off
        case "FilterPolicy" if text:
            try:
                compile_filter(text, "body" if SCOPES.get(scope) == "body" else "attributes")
            except FilterError as error:
                raise invalid(f"{before}{name}: {error}") from None
            if _keys(_object(text)) > FILTER_KEYS_MAX:
                raise invalid(f"{before}{name}: Filter policy can not have more than {FILTER_KEYS_MAX} keys")
        case "RedrivePolicy" if text:
            _check_redrive(text, topic, before)
        case "DeliveryPolicy" | "ReplayPolicy" if text and _object(text) is None:
            raise invalid(f"{before}{name}: failed to parse JSON.")
    if name in SNS_GAPS and text not in ("", "{}"):
        raise sns_gap(name)
    return text


def _keys(policy: Any) -> int:
    """Keys that have conditions, at any depth."""
    if isinstance(policy, dict):
        return sum(_keys(value) if name == "$or" or isinstance(value, dict) else 1 for name, value in policy.items())
    return sum(map(_keys, policy)) if isinstance(policy, list) else 1


def _check_redrive(text: str, topic: str, before: str) -> None:
    policy = _object(text)
    if policy is None:
        raise invalid(f"{before}RedrivePolicy: failed to parse JSON.")
    queue = queue_of_arn(str(policy.get("deadLetterTargetArn")))
    if queue is None:
        raise invalid(f"{before}RedrivePolicy: deadLetterTargetArn is an invalid arn")
    if is_fifo(topic) and not is_fifo(queue):
        raise invalid(f"{before}RedrivePolicy: must use a FIFO queue as DLQ for a FIFO Subscription to a FIFO Topic.")


def _object(text: str) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        return None


# --- messages ---------------------------------------------------------------------------------------------------------


class Notice(NamedTuple):
    """A message to publish, as subscribers by SQS get it."""

    text: str
    subject: str | None
    attributes: dict[str, Attribute]
    group: str | None
    dedup_id: str | None


def check_publish(wish: shapes.Publish) -> tuple[str, Notice]:
    """Check a message to publish; returns its topic, and itself. Raises `AwsError`."""
    if wish.phone_number is not None:
        raise invalid("PhoneNumber Reason: text messages are not supported here")
    if not (wish.topic_arn or wish.target_arn):
        raise invalid("TopicArn or TargetArn Reason: no value for required parameter")
    parameter = "TopicArn" if wish.topic_arn else "TargetArn"
    topic = topic_of_arn(wish.topic_arn or wish.target_arn or "", parameter)
    notice = _notice(topic, wish)
    if _size(wish) > MESSAGE_BYTES_MAX:
        raise invalid("Message too long")
    return topic, notice


def check_publish_batch(wish: shapes.PublishBatch) -> tuple[str, dict[str, Notice | AwsError]]:
    """Check messages to publish; returns their topic, and by id each message or why it is refused. Raises `AwsError`
    for what is wrong with the batch as a whole."""
    topic = topic_of_arn(wish.topic_arn)
    if not wish.entries:
        raise sns("EmptyBatchRequestException", "The batch request doesn't contain any entries.")
    if len(wish.entries) > ENTRIES_MAX:
        raise sns("TooManyEntriesInBatchRequestException", "The batch request contains more entries than permissible.")
    if len({entry.id for entry in wish.entries}) != len(wish.entries):
        raise sns("BatchEntryIdsNotDistinctException", "Two or more batch entries in the request have the same Id.")
    for entry in wish.entries:
        if len(entry.id) > _ID_MAX:
            said = f"The Id of a batch entry in the batch request is too long: {entry.id[:200]}"
            raise sns("InvalidBatchEntryIdException", said)
        if not _ID.fullmatch(entry.id):
            said = f"The Id of a batch entry in the batch request contains an impermissible character: {entry.id}"
            raise sns("InvalidBatchEntryIdException", said)
    if sum(map(_size, wish.entries)) > MESSAGE_BYTES_MAX:
        said = "The length of all the messages put together is more than the limit."
        raise sns("BatchRequestTooLongException", said)
    found: dict[str, Notice | AwsError] = {}
    for entry in wish.entries:
        try:
            found[entry.id] = _notice(topic, entry)
        except AwsError as error:
            found[entry.id] = error
    return topic, found


def _notice(topic: str, wish: shapes.Publishable) -> Notice:
    if not wish.message:
        raise invalid("Empty message")
    if wish.subject is not None and (not _SUBJECT.fullmatch(wish.subject) or len(wish.subject) > SUBJECT_MAX):
        raise invalid("Subject")
    attributes = {name: _attribute(name, value) for name, value in (wish.message_attributes or {}).items()}
    _check_order(topic, wish)
    return Notice(_text(wish), wish.subject, attributes, wish.message_group_id, wish.message_deduplication_id)


def _text(wish: shapes.Publishable) -> str:
    """What subscribers by SQS get: all of it, or their part."""
    if wish.message_structure is None:
        return wish.message
    if wish.message_structure != "json":
        raise invalid("MessageStructure")
    told = _object(wish.message)
    if told is None:
        raise invalid("Message Structure - JSON message body failed to parse")
    if not isinstance(told.get("default"), str):
        raise invalid("Message Structure - No default entry in JSON message body")
    own = told.get("sqs")
    return own if isinstance(own, str) else str(told["default"])


def _check_order(topic: str, wish: shapes.Publishable) -> None:
    for name, text in (
        ("MessageGroupId", wish.message_group_id),
        ("MessageDeduplicationId", wish.message_deduplication_id),
    ):
        if text is not None and not _FIFO_ID.fullmatch(text):
            raise invalid(f"{name} Reason: it has 1 to 128 alphanumeric and punctuation characters")
    if is_fifo(topic) and wish.message_group_id is None:
        raise invalid("The MessageGroupId parameter is required for FIFO topics")
    if not is_fifo(topic) and wish.message_deduplication_id is not None:
        raise invalid(
            "MessageDeduplicationId Reason: The request includes MessageDeduplicationId parameter that is not valid "
            "for this topic type"
        )


def _size(wish: shapes.Publishable) -> int:
    """The bytes that SNS counts of a message, which need not be a valid one."""
    texts = [wish.message]
    binary_bytes = 0
    for name, value in (wish.message_attributes or {}).items():
        texts += (name, value.data_type, value.string_value or "")
        binary_bytes += len(value.binary_value or b"")
    return binary_bytes + sum(len(text.encode()) for text in texts)


def _attribute(name: str, given: shapes.AttributeValue) -> Attribute:
    _check_name(name)
    kind, _, _ = given.data_type.partition(".")
    if not TYPE.fullmatch(given.data_type):
        raise _invalid_value(
            f"The message attribute '{name}' has an invalid message attribute type, the set of supported type prefixes "
            "is Binary, Number, and String."
        )
    value = given.binary_value if kind == "Binary" else given.string_value
    other = given.string_value if kind == "Binary" else given.binary_value
    if not value and other:
        field = "Binary" if kind == "Binary" else "String"
        raise _invalid_value(f"The message attribute '{name}' with type '{kind}' must use field '{field}'.")
    if not value:
        raise _invalid_value(
            f"The message attribute '{name}' must contain non-empty message attribute value for message attribute type "
            f"'{kind}'."
        )
    if kind == "Number" and not is_number(str(value)):
        raise _invalid_value(f"Could not cast message attribute '{name}' value to number.")
    return Attribute(given.data_type, value)


def _check_name(name: str) -> None:
    if not 0 < len(name) < NAME_MAX:
        raise _invalid_value("Length of message attribute name must be less than 256 bytes.")
    wrong = next((character for character in name if not _ATTRIBUTE_NAME.fullmatch(character)), None)
    if wrong is not None:
        raise _invalid_value(
            f"Invalid non-alphanumeric character '#x{ord(wrong):X}' was found in the message attribute name. Can only "
            "include alphanumeric characters, hyphens, underscores, or dots."
        )
    for end, where in ((name[0], "starting"), (name[-1], "ending")):
        if end == ".":
            raise _invalid_value(f"Invalid message attribute name {where} with character '.' was found.")
    if ".." in name:
        raise _invalid_value("Message attribute name can not have successive '.' character.")
