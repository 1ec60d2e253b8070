"""A queue's policy, as AddPermission and RemovePermission change it.

It is kept and shown, and lets nobody in and keeps nobody out: there is one account, and access keys say what each may
do.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from api.aws.calls import invalid, missing
from api.aws.errors import sqs
from api.aws.names import queue_arn

ACTIONS = frozenset(
    {"*", "ChangeMessageVisibility", "DeleteMessage", "GetQueueAttributes", "GetQueueUrl"}
    | {"ListDeadLetterSourceQueues", "PurgeQueue", "ReceiveMessage", "SendMessage"}
)
"""What may be permitted to others; all else is the owner's."""
ACTIONS_MAX = 7
"""Actions of one statement."""
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,80}", re.ASCII)
_ACCOUNT = re.compile(r"\d{12}", re.ASCII)
_VERSION = "2008-10-17"


def with_permission(policy: str, queue: str, label: str, accounts: list[str], actions: list[str]) -> str:
    """The policy with one more statement. Raises `AwsError`."""
    if not _LABEL.fullmatch(label):
        raise invalid(
            f"Value {label[:100]} for parameter Label is invalid. Reason: Can only include alphanumeric characters, "
            "hyphens, or underscores. 1 to 80 in length."
        )
    if not accounts:
        raise missing("PrincipalId")
    if not actions:
        raise missing("Actions")
    if len(actions) > ACTIONS_MAX:
        raise sqs("OverLimit", f"{len(actions)} Actions were found, maximum allowed is {ACTIONS_MAX}.")
    for account in accounts:
        if not _ACCOUNT.fullmatch(account):
            raise invalid(f"Value {account[:100]} for parameter PrincipalId is invalid. Reason: Unable to verify.")
    for action in actions:
        if action not in ACTIONS:
            raise invalid(
                f"Value SQS:{action[:100]} for parameter ActionName is invalid. Reason: Only the queue owner is "
                "allowed to invoke this action."
            )
    document, statements = _read(policy, queue)
    if any(_label(each) == label for each in statements):
        raise invalid(f"Value {label} for parameter Label is invalid. Reason: Already exists.")
    statement = {
        "Sid": label,
        "Effect": "Allow",
        "Principal": {"AWS": _one_or_many([f"arn:aws:iam::{account}:root" for account in accounts])},
        "Action": _one_or_many([f"SQS:{action}" for action in actions]),
        "Resource": queue_arn(queue),
    }
    return _written(document, [*statements, statement])


def without_permission(policy: str, queue: str, label: str) -> str:
    """The policy without the statement of this label. Raises `AwsError`."""
    document, statements = _read(policy, queue)
    left = [each for each in statements if _label(each) != label]
    if len(left) == len(statements):
        raise invalid(f"Value {label[:100]} for parameter Label is invalid. Reason: can't find label.")
    return _written(document, left) if left else ""


def _read(policy: str, queue: str) -> tuple[dict[str, Any], list[Any]]:
    """A policy that is kept was checked to be an object; what else a client has put into it is left as it is."""
    document: dict[str, Any] = {"Version": _VERSION, "Id": f"{queue_arn(queue)}/SQSDefaultPolicy"}
    if policy:
        document = msgspec.json.decode(policy, type=dict[str, Any])
    statements = document.get("Statement", [])
    return document, statements if isinstance(statements, list) else [statements]


def _written(document: dict[str, Any], statements: list[Any]) -> str:
    return msgspec.json.encode(document | {"Statement": statements}).decode()


def _label(statement: Any) -> Any:
    return statement.get("Sid") if isinstance(statement, dict) else None


def _one_or_many(names: list[str]) -> str | list[str]:
    return names[0] if len(names) == 1 else names
