"""What can be asked and answered about redriving dead letters. A part of `storage.operations`, which has the unions."""

from __future__ import annotations

import msgspec

from storage.records import Redrive, RedriveFilter
from storage.settings import Rate

EVERY_LETTER = RedriveFilter()


class StartRedrive(msgspec.Struct, array_like=True, frozen=True, tag=23):
    """Move the queue's dead letters that `filter` wants to the queue `to` (empty: each to where it was given up), at
    `rate`. → `RedriveTask`.

    undo: move back what that task has moved instead; `to` and `filter` do not count then. patterns: without `to`, only
    to (of an undo: only from) queues that one of them is for (`storage.access.matches`); none: all.
    """

    queue: str
    to: str = ""
    filter: RedriveFilter = EVERY_LETTER
    rate: Rate | None = None
    undo: int = 0
    patterns: list[str] = []


class CancelRedrive(msgspec.Struct, array_like=True, frozen=True, tag=24):
    """Stop a task where it is; fine if it has ended. → `RedriveTask`."""

    queue: str
    task: int


class StepRedrive(msgspec.Struct, array_like=True, frozen=True, tag=25):
    """The leader's own: move these messages. → `Done`, and nothing if it is not the task's next step.

    `runs` are ids, each with how many follow. The task has then looked at all ids up to `upto` (of an undo: in the
    `target`th queue of those it looks through), `looked` messages since the last step, of which `held` were wanted but
    leased. `cause`: it cannot go on, and why.
    """

    number: int
    task: int
    step: int
    runs: list[tuple[int, int]]
    upto: int
    target: int = 0
    looked: int = 0
    held: int = 0
    cause: str = ""


class GetRedrive(msgspec.Struct, array_like=True, frozen=True, tag=47):
    """One task. → `RedriveTask`."""

    queue: str
    task: int


class ListRedrives(msgspec.Struct, array_like=True, frozen=True, tag=48):
    """The latest tasks of a queue, the newest first. → `RedriveTasks`."""

    queue: str


class PreviewRedrive(msgspec.Struct, array_like=True, frozen=True, tag=49):
    """What a task would move, of the messages with ids above `after`, as far as one look goes. → `Previewed`."""

    queue: str
    to: str = ""
    filter: RedriveFilter = EVERY_LETTER
    after: int = 0
    patterns: list[str] = []


class GroupDead(msgspec.Struct, array_like=True, frozen=True, tag=50):
    """The dead letters with ids above `after` by reason and origin, as far as one look goes. → `DeadGroups`."""

    queue: str
    after: int = 0


class RedriveTask(msgspec.Struct, array_like=True, frozen=True, tag=16):
    """A task of a queue."""

    queue: str
    redrive: Redrive


class RedriveTasks(msgspec.Struct, array_like=True, frozen=True, tag=48):
    """Tasks of a queue, the newest first."""

    tasks: list[RedriveTask]


class Previewed(msgspec.Struct, array_like=True, frozen=True, tag=49):
    """Of `looked` messages, `held` are wanted but leased, and so many would be moved, by where they would go.

    The look ended with the id `upto`; `complete`: that was all.
    """

    looked: int
    held: int
    destinations: dict[str, int]
    upto: int
    complete: bool


class DeadGroup(msgspec.Struct, array_like=True, frozen=True):
    """Dead letters given up in `queue` for the same reason: how many, from which id to which, and when the first and
    the last was given up."""

    reason: str
    queue: str
    count: int
    first_id: int
    last_id: int
    first_ms: int
    last_ms: int


class DeadGroups(msgspec.Struct, array_like=True, frozen=True, tag=50):
    """Groups of the dead letters with ids up to `upto`; `complete`: those were all."""

    groups: list[DeadGroup]
    upto: int
    complete: bool
