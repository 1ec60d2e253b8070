"""Queues between SQS and the cluster: the attributes a queue may be given, and those it shows.

Every attribute is text. What is checked is also brought into one form, so that equal attributes are equal texts: that
is how `CreateQueue` tells whether it is asked for the queue that exists already.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from api.aws.calls import invalid
from api.aws.errors import AwsError, sqs
from api.aws.names import is_fifo, is_queue_name, queue_arn, queue_of_arn
from api.aws.sqs_messages import MESSAGE_BYTES_MAX
from storage.queue_operations import QueueInfo
from storage.settings import DAY_MS, MINUTE_MS, SECOND_MS, QueueSettings, contradiction, malformed, out_of_range

INTEGERS: dict[str, tuple[int, int]] = {
    "DelaySeconds": (0, 900),
    "KmsDataKeyReusePeriodSeconds": (60, 86_400),
    "MaximumMessageSize": (1024, MESSAGE_BYTES_MAX),
    "MessageRetentionPeriod": (60, 1_209_600),
    "ReceiveMessageWaitTimeSeconds": (0, 20),
    "VisibilityTimeout": (0, 43_200),
}
"""Attributes that are numbers, with the least and the most."""
FLAGS = {"ContentBasedDeduplication", "FifoQueue", "SqsManagedSseEnabled"}
CHOICES = {
    "DeduplicationScope": ("queue", "messageGroup"),
    "FifoThroughputLimit": ("perQueue", "perMessageGroupId"),
}
READ_ONLY = {
    *("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesDelayed", "ApproximateNumberOfMessagesNotVisible"),
    *("CreatedTimestamp", "LastModifiedTimestamp", "QueueArn"),
}
KNOWN = {*INTEGERS, *FLAGS, *CHOICES, *READ_ONLY, "KmsMasterKeyId", "Policy", "RedriveAllowPolicy", "RedrivePolicy"}

TAGS_MAX = 50
TAG_KEY_MAX, TAG_VALUE_MAX = 128, 256
SOURCE_QUEUES_MAX = 10
"""Queues that a RedriveAllowPolicy may name."""
MAX_RECEIVES = (1, 1000)

_INTEGER = re.compile(r"[+-]?\d{1,12}", re.ASCII)
_SETTINGS = {
    "DelaySeconds": ("delay_ms", SECOND_MS),
    "MaximumMessageSize": ("body_bytes_max", 1),
    "MessageRetentionPeriod": ("retention_ms", SECOND_MS),
    "ReceiveMessageWaitTimeSeconds": ("wait_ms", SECOND_MS),
    "VisibilityTimeout": ("lease_ms", SECOND_MS),
}
"""Numbers that are settings of the cluster's queues, and in what unit."""
_KEPT = {
    "FifoThroughputLimit": "perQueue",
    "KmsDataKeyReusePeriodSeconds": "300",
    "KmsMasterKeyId": "",
    "Policy": "",
    "SqsManagedSseEnabled": "false",
}
"""Attributes that are kept and shown and mean nothing to the cluster, and what a queue has when none was given."""
POLICY_BYTES_MAX = 8192
"""Bytes of a policy."""
DEDUP_WINDOW_MS = 5 * MINUTE_MS
"""How long SQS remembers a deduplication id."""
DEDUP_MAX = 1_000_000
"""Ids that a FIFO queue remembers: five minutes of 3,000 messages a second."""
STANDARD = QueueSettings(fair=True, retention_ms=4 * DAY_MS)
"""A standard queue with no attributes given. With SQS, message groups of such a queue share it fairly."""
FIFO = QueueSettings(
    fifo=True,
    retention_ms=4 * DAY_MS,
    dedup_window_ms=DEDUP_WINDOW_MS,
    dedup_max=DEDUP_MAX,
    dedup_by="required_id",
)
"""A FIFO queue with no attributes given."""


class RedrivePolicy(msgspec.Struct, rename="camel", omit_defaults=True):
    """Where messages go that were received too often."""

    dead_letter_target_arn: str | None = None
    max_receive_count: int | str | None = None


class RedriveAllowPolicy(msgspec.Struct, rename="camel", omit_defaults=True):
    """Whose messages may come here."""

    redrive_permission: str | None = None
    source_queue_arns: list[str] | None = None


# --- checking ---------------------------------------------------------------------------------------------------------


def check_name(name: str, *, fifo: bool) -> None:
    """Check the name of a queue to create. Raises `AwsError`."""
    if fifo and not (is_queue_name(name) and is_fifo(name)):
        raise invalid(
            "The name of a FIFO queue can only include alphanumeric characters, hyphens, or underscores, "
            "must end with .fifo suffix and be 1 to 80 in length"
        )
    if not fifo and (is_fifo(name) or not is_queue_name(name)):
        raise invalid("Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length")


def check_attributes(given: Mapping[str, str], *, fifo: bool) -> dict[str, str]:
    """The attributes given for a queue, checked, and each in its one form. Raises `AwsError`."""
    checked = {name: _checked(name, text, fifo) for name, text in given.items()}
    if checked.get("FifoThroughputLimit") == "perMessageGroupId" and checked.get("DeduplicationScope") == "queue":
        raise _throughput_without_scope()
    return checked


def _throughput_without_scope() -> AwsError:
    return _invalid_value(
        "The FifoThroughputLimit attribute can be set to perMessageGroupId only when the DeduplicationScope "
        "attribute is set to messageGroup."
    )


def _checked(name: str, text: str, fifo: bool) -> str:
    if name not in KNOWN or name in READ_ONLY:
        raise sqs("InvalidAttributeName", f"Unknown Attribute {name[:100]}.")
    if not fifo and name in CHOICES:
        raise sqs("InvalidAttributeName", f"You can specify the {name} only when FifoQueue is set to true.")
    if not fifo and name in ("FifoQueue", "ContentBasedDeduplication"):
        raise sqs("InvalidAttributeName", f"Unknown Attribute {name}.")
    if name in INTEGERS:
        lowest, highest = INTEGERS[name]
        if not _INTEGER.fullmatch(text) or not lowest <= int(text) <= highest:
            raise _invalid_value(f"Invalid value for the parameter {name}.")
        return str(int(text))
    if name in FLAGS:
        if text.lower() not in ("true", "false"):
            raise _invalid_value(f"Invalid value for the parameter {name}.")
        if name == "FifoQueue" and text.lower() == "false":
            raise _invalid_value(
                "Invalid value for the parameter FifoQueue. Reason: Modifying queue type is not supported."
            )
        return text.lower()
    if name in CHOICES:
        if text not in CHOICES[name]:
            raise _invalid_value(f"Invalid value for the parameter {name}.")
        return text
    match name:
        case "Policy":
            return _policy(text)
        case "RedrivePolicy":
            return _redrive_policy(text)
        case "RedriveAllowPolicy":
            return _redrive_allow_policy(text)
        case _:
            return text


def _policy(text: str) -> str:
    """A policy is kept as it came, if it is a JSON object and not too long."""
    if text and (len(text.encode()) > POLICY_BYTES_MAX or _read(text, dict[str, Any]) is None):
        raise _invalid_value("Invalid value for the parameter Policy.")
    return text


def _redrive_policy(text: str) -> str:
    if not text:
        return ""
    policy = _read(text, RedrivePolicy)
    if policy is None:
        raise _invalid_redrive(text, "Redrive policy is not a valid JSON map.")
    if not policy.dead_letter_target_arn:
        raise _invalid_redrive(text, "Redrive policy does not contain mandatory attribute: deadLetterTargetArn.")
    if policy.max_receive_count is None:
        raise _invalid_redrive(text, "Redrive policy does not contain mandatory attribute: maxReceiveCount.")
    count, (lowest, highest) = str(policy.max_receive_count), MAX_RECEIVES
    if not _INTEGER.fullmatch(count) or not lowest <= int(count) <= highest:
        raise _invalid_redrive(
            text, f"Invalid value for maxReceiveCount: {count[:20]}, valid values are from 1 to 1000 both inclusive."
        )
    queue = queue_of_arn(policy.dead_letter_target_arn)
    if queue is None:
        raise _invalid_redrive(text, "Invalid value for deadLetterTargetArn.")
    return msgspec.json.encode(RedrivePolicy(queue_arn(queue), int(count))).decode()


def _redrive_allow_policy(text: str) -> str:
    if not text:
        return ""
    policy = _read(text, RedriveAllowPolicy)
    named = None if policy is None else policy.source_queue_arns
    if (
        policy is None
        or policy.redrive_permission not in ("allowAll", "denyAll", "byQueue")
        or (policy.redrive_permission == "byQueue") != bool(named)
        or len(named or ()) > SOURCE_QUEUES_MAX
        or None in map(queue_of_arn, named or ())
    ):
        raise invalid(
            f"Value {text[:200]} for parameter RedriveAllowPolicy is invalid. Reason: Amazon SQS can't create the "
            "redrive allow policy, as it's in an unsupported format."
        )
    return (
        "" if policy.redrive_permission == "allowAll" else _allowing([queue_of_arn(arn) or "" for arn in named or ()])
    )


def _allowing(sources: list[str]) -> str:
    """The RedriveAllowPolicy that allows these queues and no others."""
    arns = [queue_arn(source) for source in sources]
    return msgspec.json.encode(RedriveAllowPolicy("byQueue" if arns else "denyAll", arns or None)).decode()


def _read(text: str, kind: Any) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, RecursionError):
        return None


def check_tags(tags: Mapping[str, str], queue: str) -> None:
    """Check the tags of a queue. Raises `AwsError`."""
    if len(tags) > TAGS_MAX:
        raise invalid(f"Too many tags added for queue {queue}.")
    for key, value in tags.items():
        if not 1 <= len(key) <= TAG_KEY_MAX:
            raise invalid("Tag keys must be between 1 and 128 characters in length.")
        if len(value) > TAG_VALUE_MAX:
            raise invalid("Tag values must be between 0 and 256 characters in length.")
        if key.lower().startswith("aws:"):
            raise invalid("Tag keys beginning with 'aws:' are reserved for internal use.")


def tagged(queue: str, settings: QueueSettings, tags: Mapping[str, str]) -> QueueSettings:
    """The settings of a queue that has these tags. Raises `AwsError`."""
    check_tags(tags, queue)
    told = msgspec.structs.replace(settings, tags=dict(tags))
    _check_size(told)
    return told


def _check_size(settings: QueueSettings) -> None:
    """Each may be as large as with SQS, but not all of them together. Raises `AwsError`."""
    bad = malformed(settings)
    if bad is not None:
        raise sqs("OverLimit", f"The {bad[0]} of the queue are too much: {bad[1]}.")


def _invalid_value(message: str) -> AwsError:
    return sqs("InvalidAttributeValue", message)


def _invalid_redrive(text: str, reason: str) -> AwsError:
    return invalid(f"Value {text[:200]} for parameter RedrivePolicy is invalid. Reason: {reason}")


# --- the cluster's settings -------------------------------------------------------------------------------------------


def changed(queue: str, settings: QueueSettings, checked: Mapping[str, str]) -> QueueSettings:
    """The settings of a queue with checked attributes changed. Raises `AwsError`."""
    changes: dict[str, Any] = {}
    kept = dict(settings.sqs)
    for name, text in checked.items():
        match name:
            case "FifoQueue":
                pass  # the name has said it
            case "ContentBasedDeduplication":
                changes["dedup_by"] = "content" if text == "true" else "required_id"
            case "DeduplicationScope":
                changes["dedup_scope"] = "group" if text == "messageGroup" else "queue"
            case "RedrivePolicy":
                changes["dead_letter_queue"] = dead_letter_target(text)
                changes["attempts_max"] = _read(text, RedrivePolicy).max_receive_count if text else 0
            case _ if name in _SETTINGS:
                setting, unit = _SETTINGS[name]
                changes[setting] = int(text) * unit
            case "RedriveAllowPolicy":
                changes["dead_letters_from"] = _allowed_sources(text)
            case _:
                kept[name] = text
    _check_encryption(checked, kept)
    changes["sqs"] = {name: text for name, text in kept.items() if text != _KEPT.get(name)}
    told = msgspec.structs.replace(settings, **changes)
    if told.sqs.get("FifoThroughputLimit") == "perMessageGroupId" and told.dedup_scope != "group":
        raise _throughput_without_scope()
    assert out_of_range(told) is None, "the limits of SQS are the narrower ones"
    _check_size(told)
    at_odds = contradiction(queue, told)
    if at_odds is not None and at_odds[0] == "dead_letter_queue":
        raise _invalid_redrive(checked.get("RedrivePolicy", ""), "A queue cannot be its own dead-letter queue.")
    if at_odds is not None:  # with what only the native API can set
        raise _invalid_value("The queue's setting {} does not allow it: {}.".format(*at_odds))
    return told


def _check_encryption(checked: Mapping[str, str], kept: dict[str, str]) -> None:
    """One kind at a time is shown: choosing one gives up the other. Raises `AwsError` for both at once."""
    by_kms, by_sqs = bool(checked.get("KmsMasterKeyId")), checked.get("SqsManagedSseEnabled") == "true"
    if by_kms and by_sqs:
        raise _invalid_value(
            "You can use one type of server-side encryption (SSE) at one time. "
            "You can either enable KMS SSE or SQS SSE."
        )
    if by_kms:
        kept.pop("SqsManagedSseEnabled", None)
    if by_sqs:
        kept.pop("KmsMasterKeyId", None)


def _allowed_sources(policy: str) -> list[str] | None:
    """The queues that a checked RedriveAllowPolicy names; None for any."""
    if not policy:
        return None
    return [queue_of_arn(arn) or "" for arn in _read(policy, RedriveAllowPolicy).source_queue_arns or ()]


def dead_letter_target(policy: str) -> str | None:
    """The queue that a checked RedrivePolicy names."""
    read = _read(policy, RedrivePolicy) if policy else None
    return None if read is None else queue_of_arn(read.dead_letter_target_arn)


def sends_dead_letters(info: QueueInfo, target: str) -> bool:
    """Whether the queue's messages that were received too often go to `target`."""
    return info.settings.dead_letter_queue == target and info.settings.attempts_max > 0


def shown(info: QueueInfo) -> dict[str, str]:
    """All attributes of a queue, as SQS shows them."""
    settings = info.settings
    attributes = {
        "QueueArn": queue_arn(info.queue),
        "ApproximateNumberOfMessages": str(info.ready),
        "ApproximateNumberOfMessagesNotVisible": str(info.leased),
        "ApproximateNumberOfMessagesDelayed": str(info.delayed),
        "CreatedTimestamp": str(info.created_ms // SECOND_MS),
        "LastModifiedTimestamp": str((info.changed_ms or info.created_ms) // SECOND_MS),
        "SqsManagedSseEnabled": _KEPT["SqsManagedSseEnabled"],
    }
    if "KmsMasterKeyId" in settings.sqs:
        attributes["KmsDataKeyReusePeriodSeconds"] = _KEPT["KmsDataKeyReusePeriodSeconds"]
    attributes |= {name: str(getattr(settings, setting) // unit) for name, (setting, unit) in _SETTINGS.items()}
    if settings.dead_letter_queue is not None and settings.attempts_max:
        policy = RedrivePolicy(queue_arn(settings.dead_letter_queue), settings.attempts_max)
        attributes["RedrivePolicy"] = msgspec.json.encode(policy).decode()
    if settings.fifo:
        attributes |= {
            "FifoQueue": "true",
            "ContentBasedDeduplication": "true" if settings.dedup_by == "content" else "false",
            "DeduplicationScope": "messageGroup" if settings.dedup_scope == "group" else "queue",
            "FifoThroughputLimit": _KEPT["FifoThroughputLimit"],
        }
    if settings.dead_letters_from is not None:
        attributes["RedriveAllowPolicy"] = _allowing(settings.dead_letters_from)
    return attributes | {name: text for name, text in settings.sqs.items() if name in _KEPT}


def chosen(names: list[str], attributes: Mapping[str, str]) -> dict[str, str]:
    """The attributes that were asked for. Raises `AwsError` for what is none."""
    if "All" in names:
        return dict(attributes)
    for name in names:
        if name not in KNOWN:
            raise sqs("InvalidAttributeName", f"Unknown Attribute {name[:100]}.")
    return {name: attributes[name] for name in names if name in attributes}


def difference(given: Mapping[str, str], info: QueueInfo) -> str | None:
    """The first attribute given that the queue has otherwise, or None."""
    own = {"RedriveAllowPolicy": "", "RedrivePolicy": "", **_KEPT, **shown(info)}
    return next((name for name, text in given.items() if own.get(name) != text), None)
