"""What holds for every batch of SQS: how many entries, and that each can be told from the others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from api.aws import sqs_shapes as shapes
from api.aws.errors import AwsError, sqs

ENTRIES_MAX = 10
_ID = re.compile(r"[A-Za-z0-9_-]{1,80}", re.ASCII)


class Entry(Protocol):
    """An entry of a batch."""

    id: str


def check_batch(entries: Sequence[Entry], element: str) -> None:
    """Check a batch as a whole; `element` is what AWS calls one of its entries. Raises `AwsError`."""
    if not entries:
        raise sqs("EmptyBatchRequest", f"There should be at least one {element} in the request.")
    if len(entries) > ENTRIES_MAX:
        said = f"Maximum number of entries per request are {ENTRIES_MAX}. You have sent {len(entries)}."
        raise sqs("TooManyEntriesInBatchRequest", said)
    seen: set[str] = set()
    for entry in entries:
        if not _ID.fullmatch(entry.id):
            raise sqs(
                "InvalidBatchEntryId",
                "A batch entry id can only contain alphanumeric characters, hyphens and underscores. "
                "It can be at most 80 letters long.",
            )
        if entry.id in seen:
            raise sqs("BatchEntryIdsNotDistinct", f"Id {entry.id} repeated.")
        seen.add(entry.id)


def failed(entry_id: str, error: AwsError) -> shapes.FailedEntry:
    """The entry that was refused."""
    return shapes.FailedEntry(id=entry_id, sender_fault=error.is_senders_fault, code=error.code, message=error.message)
