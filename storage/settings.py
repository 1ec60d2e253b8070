"""The settings of a queue: their names, units, defaults and limits. The only place that knows them."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from storage.limits import LABELS_BYTES_MAX, SOURCES_MAX, TAGS_MAX, WAIT_MS_MAX

SECOND_MS = 1000
MINUTE_MS = 60 * SECOND_MS
DAY_MS = 24 * 60 * MINUTE_MS

QUEUE_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}(\.fifo)?", re.ASCII)
"""What a queue may be called. Narrow, so that a name is safe in a path, a log line, a metric label and a file name."""

LIMITS: dict[str, tuple[int, int]] = {
    # Shorter leases would end while the answer is still on its way; twelve hours is what SQS allows. An extend may
    # hold longer. Of a queue it may be 0 as well: see `SPECIAL`.
    "lease_ms": (SECOND_MS, 12 * 60 * MINUTE_MS),
    # 0 is without end. More than a thousand attempts is without end, too.
    "attempts_max": (0, 1000),
    # One body must leave room for others in an entry of the log: see `limits.ENTRY_BYTES_MAX`.
    "body_bytes_max": (1, 1024 * 1024),
    # A minute to a year: a queue is no archive, and every kept message holds its log entry.
    "retention_ms": (MINUTE_MS, 366 * DAY_MS),
    # A default for all messages of a queue; a message of its own may wait for years.
    "delay_ms": (0, 366 * DAY_MS),
    # 0 is without limit; beyond 2^53 a JSON reader loses digits.
    "messages_max": (0, 2**53),
    "bytes_max": (0, 2**53),
    # 0 is off; two weeks as the longest retention of SQS. Every remembered id costs a record on disk.
    "dedup_window_ms": (0, 14 * DAY_MS),
    "dedup_max": (1, 10_000_000),
    # 0 is off; shorter steps than a second would outrun the clock's own steering.
    "ageing_ms": (0, 366 * DAY_MS),
    # 0 is without limit.
    "concurrency_max": (0, 1_000_000),
    "group_concurrency_max": (0, 1_000_000),
    # As for a receive that says how long it waits.
    "wait_ms": (0, WAIT_MS_MAX),
    # 0 keeps what explains trouble, and only while the message is there.
    "history_ms": (0, 366 * DAY_MS),
}

SPECIAL = {"lease_ms": 0}
"""Values outside the limits that mean something of their own. lease_ms 0: what is received is held for nobody, and is
ready again at once, unless the receive says otherwise; SQS has such queues."""


class Backoff(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How long a message waits after a nack that names no delay.

    kind: "fixed" waits `base_ms`; "exponential" waits `base_ms` after the first attempt and twice as long after each
    further one, `max_ms` at most. jitter_percent: so much of the wait is left to chance, drawn from the lease's token.
    """

    kind: Literal["fixed", "exponential"] = "exponential"
    base_ms: int = SECOND_MS
    max_ms: int = 15 * MINUTE_MS
    jitter_percent: int = 20


class Rate(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """At most `messages` deliveries in `per_ms` in the long run, and `burst` of them at once (0: as many as
    `messages`)."""

    messages: int
    per_ms: int = SECOND_MS
    burst: int = 0


class QueueSettings(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How one queue behaves. Times are milliseconds; 0 as a maximum is no limit.

    fifo: messages have groups; within a group they are delivered in strict order, one batch in flight. Fixed for good.
    lease_ms: how long a received message is held for its consumer when the receive does not say.
    attempts_max: deliveries before a message is given up: moved to the dead-letter queue, else kept here, dead.
    dead_letter_queue: the queue that takes what is given up, of the same kind (fifo or not).
    backoff: how long a message waits after a nack that names no delay; none: not at all.
    body_bytes_max: the largest body a message may have.
    retention_ms: how long a message is kept when nobody takes it, unless it has a `ttl_ms` of its own.
    on_expiry: what becomes of a message whose time is over: dropped, or moved to the dead-letter queue.
    delay_ms: how long a sent message is held back when it does not say.
    messages_max, bytes_max, overflow: how much the queue may hold, and what gives way to a message too many: the new
        one is refused, or the oldest ready ones are dropped, or they are moved to the dead-letter queue.
    dedup_window_ms, dedup_max: how long, and how many at most, dedup ids are remembered, whatever became of their
        messages. dedup_by: a message without a dedup id is new, or known by its content, or refused. dedup_scope: ids
        are compared within the queue, or within the message's group.
    fair: groups take turns, so that one with a large backlog does not keep the others waiting.
    ageing_ms: a message that has waited so long counts as one priority higher; 0: priorities are strict.
    concurrency_max, rate: how many messages may be leased at a time, and how fast they are delivered, in all;
        group_concurrency_max, group_rate: within one group.
    single_active: one consumer at a time receives; another takes over when it has been silent for a lease's length.
    wait_ms: how long a receive waits for messages when it does not say.
    dead_letters_from: the queues that may have this one as their dead-letter queue; none given: any.
    tags: whatever people want to say about the queue. sqs: attributes of SQS that mean nothing to the rules.
    history_ms: how long the whole history of a message is kept after it has gone; 0 keeps only what explains trouble,
        while the message is there.
    """

    fifo: bool = False
    lease_ms: int = 30 * SECOND_MS
    attempts_max: int = 0
    dead_letter_queue: str | None = None
    backoff: Backoff | None = None
    body_bytes_max: int = 1024 * 1024
    retention_ms: int = 14 * DAY_MS
    on_expiry: Literal["drop", "dead_letter"] = "drop"
    delay_ms: int = 0
    messages_max: int = 0
    bytes_max: int = 0
    overflow: Literal["reject", "drop_oldest", "dead_letter"] = "reject"
    dedup_window_ms: int = 0
    dedup_max: int = 100_000
    dedup_by: Literal["id", "content", "required_id"] = "id"
    dedup_scope: Literal["queue", "group"] = "queue"
    fair: bool = False
    ageing_ms: int = 0
    concurrency_max: int = 0
    group_concurrency_max: int = 0
    rate: Rate | None = None
    group_rate: Rate | None = None
    single_active: bool = False
    history_ms: int = 0
    wait_ms: int = 0
    dead_letters_from: list[str] | None = None
    tags: dict[str, str] = {}
    sqs: dict[str, str] = {}

    @property
    def groups(self) -> bool:
        """Whether a message's group decides when it is delivered."""
        return self.fifo or self.fair or self.group_concurrency_max > 0 or self.group_rate is not None

    @property
    def takes_plain(self) -> bool:
        """Whether messages without any options are just added: none is refused, and none may have been sent before."""
        return not (self.fifo or self.dedup_window_ms or self.dedup_by == "required_id")

    @property
    def limits_leases(self) -> bool:
        """Whether a message that is leased no longer may let another be delivered."""
        return self.concurrency_max > 0 or self.single_active


def rate_out_of_range(name: str, rate: Rate) -> tuple[str, int, int] | None:
    """The first member of the rate called `name` outside its limits as (name, lowest, highest), or None."""
    for part, lowest, highest in (("messages", 1, 1_000_000), ("per_ms", 1, DAY_MS), ("burst", 0, 1_000_000)):
        if not lowest <= getattr(rate, part) <= highest:
            return f"{name}.{part}", lowest, highest
    return None


def out_of_range(settings: QueueSettings) -> tuple[str, int, int] | None:
    """The first setting outside its limits as (name, lowest, highest), or None."""
    for name, (lowest, highest) in LIMITS.items():
        value = getattr(settings, name)
        if not lowest <= value <= highest and value != SPECIAL.get(name):
            return name, lowest, highest
    for name in ("rate", "group_rate"):
        rate = getattr(settings, name)
        if rate is not None and (wrong := rate_out_of_range(name, rate)) is not None:
            return wrong
    backoff = settings.backoff
    if backoff is not None:
        for part, lowest, highest in (("base_ms", 0, DAY_MS), ("max_ms", 0, 366 * DAY_MS), ("jitter_percent", 0, 100)):
            if not lowest <= getattr(backoff, part) <= highest:
                return f"backoff.{part}", lowest, highest
    return None


def malformed(settings: QueueSettings) -> tuple[str, str, int] | None:
    """The first setting that is no number and breaks a limit as (name, why, limit), or None."""
    if len(settings.tags) > TAGS_MAX:
        return "tags", f"there are {len(settings.tags)} tags, at most {TAGS_MAX} are allowed", TAGS_MAX
    for name in ("tags", "sqs"):
        labels = getattr(settings, name)
        if "" in labels:
            return name, "a name is empty", 1
        size = sum(len(text.encode()) for pair in labels.items() for text in pair)
        if size > LABELS_BYTES_MAX:
            return name, f"it has {size} bytes, at most {LABELS_BYTES_MAX} are allowed", LABELS_BYTES_MAX
    sources = settings.dead_letters_from or []
    if len(sources) > SOURCES_MAX:
        return "dead_letters_from", f"at most {SOURCES_MAX} queues are allowed", SOURCES_MAX
    if not all(map(QUEUE_NAME.fullmatch, sources)):
        return "dead_letters_from", "one of these is no name of a queue", 80
    return None


def contradiction(queue: str, settings: QueueSettings) -> tuple[str, str] | None:
    """The first setting of `queue` that does not go with another as (name, why), or None."""
    name = settings.dead_letter_queue
    if name is not None and QUEUE_NAME.fullmatch(name) is None:
        return "dead_letter_queue", "this is no name of a queue"
    if name == queue:
        return "dead_letter_queue", "a queue cannot be its own dead-letter queue"
    if name is None and settings.overflow == "dead_letter":
        return "overflow", "there is no dead_letter_queue to take what gives way"
    if name is None and settings.on_expiry == "dead_letter":
        return "on_expiry", "there is no dead_letter_queue to take what expires"
    if settings.overflow != "reject" and not (settings.messages_max or settings.bytes_max):
        return "overflow", "nothing gives way without messages_max or bytes_max"
    if settings.overflow != "reject" and settings.fifo:
        return "overflow", "dropping the oldest would break the order of a group"
    if settings.ageing_ms and settings.groups:
        return "ageing_ms", "groups have no priorities that could age"
    if settings.dedup_by != "id" and not settings.dedup_window_ms:
        return "dedup_by", "what was sent before is known within dedup_window_ms, which is 0"
    return None
