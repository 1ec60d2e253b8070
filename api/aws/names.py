"""How AWS's clients name queues: by name, by URL, by ARN.

Only a name says which queue is meant. Clients put URLs together themselves, with any host and account, and keep ARNs
from elsewhere; so of both only the last element counts.
"""

from __future__ import annotations

import re

from api.aws.errors import AwsError, sqs
from api.aws.protocols import NO_SUCH_QUEUE
from storage.settings import QUEUE_NAME

ACCOUNT = "000000000000"
"""The one account there is."""
REGION = "us-east-1"
"""The region in ARNs. Requests may be signed for any."""
NAME_MAX = 80
"""Characters of a queue's name; with SQS, .fifo counts."""
FIFO = ".fifo"

_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?", re.ASCII)
_ARN = re.compile(r"arn:[a-z-]+:([a-z]+):[a-z0-9-]*:\d*:(\S+)", re.ASCII)


def is_queue_name(name: str) -> bool:
    """Whether a queue of this name may exist in SQS."""
    return len(name) <= NAME_MAX and QUEUE_NAME.fullmatch(name) is not None


def is_fifo(name: str) -> bool:
    """Whether a queue is a FIFO queue: with SQS, its name says so."""
    return name.endswith(FIFO)


def is_host(text: str) -> bool:
    """Whether a Host header may become part of a URL."""
    return _HOST.fullmatch(text) is not None


def queue_url(base: str, name: str) -> str:
    """Where a queue is, for clients that came by `base`."""
    return f"{base}/{ACCOUNT}/{name}"


def queue_of_url(url: str) -> str:
    """The queue that a URL, or a path, or a bare name, means. Raises `AwsError`."""
    name = url.partition("?")[0].rstrip("/").rpartition("/")[2]
    if not is_queue_name(name):
        raise no_such_queue()
    return name


def no_such_queue() -> AwsError:
    """The refusal of a queue that does not exist, or could not."""
    return sqs("QueueDoesNotExist", NO_SUCH_QUEUE)


def queue_arn(name: str) -> str:
    """The name of a queue for other services."""
    return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"


def queue_of_arn(arn: str) -> str | None:
    """The queue that an ARN means; None if it is not the ARN of a queue."""
    found = _ARN.fullmatch(arn)
    return found[2] if found is not None and found[1] == "sqs" and is_queue_name(found[2]) else None
