"""Dead letters: grouped by reason, and given another chance by tasks that can be watched, cancelled and undone."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import msgspec
from aiohttp import web

from api.filters import read_filter
from api.problem import REFUSALS, Problem, invalid, refused
from api.request import MESSAGE_ID_MAX, Wish, answer, choice, integer, path_number, queue_name, read_either
from api.rest import query, submit
from api.times import timestamp
from storage import codes
from storage.filters import On
from storage.operations import Refused
from storage.records import Redrive, RedriveFilter
from storage.redrive_look import joined
from storage.redrive_operations import (
    CancelRedrive,
    DeadGroup,
    DeadGroups,
    GetRedrive,
    GroupDead,
    ListRedrives,
    Previewed,
    PreviewRedrive,
    RedriveTask,
    RedriveTasks,
    StartRedrive,
)
from storage.settings import QUEUE_NAME, Rate, rate_out_of_range

LOOKS_MAX = 100
"""Looks that one request for a preview or for groups takes; what they did not come to, another request goes on with."""
GROUPS_MAX = 1000
"""Groups in one answer, but for those of the last look."""

_FILTERS_ON: dict[str, On] = {"dead": "attributes", "attributes": "attributes", "body": "body"}


class FilterIn(Wish):
    """Which dead letters are wanted: filters of why they died, of their attributes, and of their bodies."""

    dead: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    attributes: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    body: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class UndoIn(Wish):
    """How fast to move back."""

    rate: Rate | None = None


class RedriveIn(UndoIn):
    """Which dead letters to move where, or only to be told of. `after`: where a preview goes on."""

    to: str | None = None
    filter: FilterIn | None = None
    dry_run: bool = False
    after: int = 0


# --- reading ----------------------------------------------------------------------------------------------------------


def _filter(request: web.Request, given: FilterIn | None) -> RedriveFilter:
    """The filter, checked. Raises `Problem`, which says where the fault is."""
    texts: dict[str, str] = {}
    for name, on in _FILTERS_ON.items():
        raw = msgspec.UNSET if given is None else getattr(given, name)
        if raw is not msgspec.UNSET:
            texts[name] = read_filter(request, raw, on, f"$.filter.{name}")
    return RedriveFilter(**texts)


def _checked_rate(rate: Rate | None) -> Rate | None:
    wrong = None if rate is None else rate_out_of_range("rate", rate)
    if wrong is not None:
        field, lowest, highest = wrong
        raise invalid(f"$.{field}", f"from {lowest} to {highest} is allowed", "Change it.", highest)
    return rate


def _task_number(request: web.Request) -> int:
    return path_number(request, "task", "Use the number that the task was answered with.")


def _told_refusal(refusal: Refused) -> Problem:
    problem = refused(refusal)
    if refusal.code in (codes.REDRIVE_TO_NOT_FOUND, codes.REDRIVE_TO_KIND):
        problem.document["field"] = "$.to"
    if refusal.detail:
        problem.document["detail"] += f" It is {refusal.detail}."
    return problem


# --- telling ----------------------------------------------------------------------------------------------------------


def _told(task: RedriveTask) -> dict[str, Any]:
    redrive = task.redrive
    document: dict[str, Any] = {
        "task": redrive.task,
        "queue": task.queue,
        "state": redrive.state,
        "messages": redrive.messages,
        "looked": redrive.looked,
        "moved": redrive.moved,
        "held": redrive.held,
        "started": timestamp(redrive.started_ms),
    }
    if redrive.ended_ms:
        document["ended"] = timestamp(redrive.ended_ms)
    if redrive.undoes:
        document["undoes"] = redrive.undoes
    else:
        document["to"] = redrive.to or None
        document["filter"] = {name: json.loads(text) for name in _FILTERS_ON if (text := getattr(redrive.filter, name))}
        document["destinations"] = _destinations(redrive)
    if redrive.rate is not None:
        document["rate"] = {name: getattr(redrive.rate, name) for name in Rate.__struct_fields__}
    if redrive.cause:
        _, title, remedy = REFUSALS[redrive.cause]
        document["cause"] = {"code": redrive.cause, "title": title, "remedy": remedy}
        if redrive.detail:
            document["cause"]["queue"] = redrive.detail
    return document


def _destinations(redrive: Redrive) -> dict[str, int]:
    moved: Counter[str] = Counter()
    for target in redrive.targets:
        moved[target.queue] += target.count
    return dict(moved)


def _told_group(group: DeadGroup) -> dict[str, Any]:
    return {
        "reason": group.reason,
        "queue": group.queue,
        "count": group.count,
        "first_id": group.first_id,
        "last_id": group.last_id,
        "first_given_up": timestamp(group.first_ms),
        "last_given_up": timestamp(group.last_ms),
    }


# --- handlers ---------------------------------------------------------------------------------------------------------


async def start_redrive(request: web.Request) -> web.Response:
    """Begin to move dead letters, or say what would be moved."""
    queue = queue_name(request)
    wish = await read_either(request, RedriveIn, RedriveIn)
    if wish.to is not None and not QUEUE_NAME.fullmatch(wish.to):
        raise invalid("$.to", "this is no name for a queue", "Name a queue, or leave it out: each goes back.", 80)
    wanted, rate = _filter(request, wish.filter), _checked_rate(wish.rate)
    if wish.dry_run:
        if not 0 <= wish.after <= MESSAGE_ID_MAX:
            raise invalid("$.after", f"from 0 to {MESSAGE_ID_MAX} is allowed", "Use what the last answer said.")
        return await _preview(request, PreviewRedrive(queue, wish.to or "", wanted, wish.after))
    if wish.after:
        raise invalid("$.after", "only a preview goes on somewhere", "Leave it out, or set dry_run.")
    started = (await submit(request, StartRedrive(queue, wish.to or "", wanted, rate), tell=_told_refusal)).outcome
    assert isinstance(started, RedriveTask)
    return answer(request, _told(started), 201)


async def _preview(request: web.Request, wanted: PreviewRedrive) -> web.Response:
    looked = held = after = 0
    complete = False
    destinations: Counter[str] = Counter()
    for _ in range(LOOKS_MAX):
        found = (await submit(request, wanted)).outcome
        assert isinstance(found, Previewed)
        looked, held = looked + found.looked, held + found.held
        destinations.update(found.destinations)
        after, complete = found.upto, found.complete
        if complete:
            break
        wanted = msgspec.structs.replace(wanted, after=after)
    document = {
        "dry_run": True,
        "looked": looked,
        "held": held,
        "destinations": dict(sorted(destinations.items())),
        "complete": complete,
        "after": after,
    }
    return answer(request, document)


async def list_redrives(request: web.Request) -> web.Response:
    """The latest tasks of a queue, the newest first."""
    (found, _), headers = await query(request, ListRedrives(queue_name(request)))
    assert isinstance(found, RedriveTasks)
    return answer(request, {"tasks": [_told(task) for task in found.tasks]}, headers=headers)


async def get_redrive(request: web.Request) -> web.Response:
    """A task: how far it is, or how it ended."""
    (task, _), headers = await query(request, GetRedrive(queue_name(request), _task_number(request)))
    assert isinstance(task, RedriveTask)
    return answer(request, _told(task), headers=headers)


async def cancel_redrive(request: web.Request) -> web.Response:
    """Stop a task where it is."""
    task = (await submit(request, CancelRedrive(queue_name(request), _task_number(request)))).outcome
    assert isinstance(task, RedriveTask)
    return answer(request, _told(task))


async def undo_redrive(request: web.Request) -> web.Response:
    """Begin to move back what a task has moved and is as it came."""
    queue, number = queue_name(request), _task_number(request)
    rate = _checked_rate((await read_either(request, UndoIn, UndoIn)).rate)
    task = (await submit(request, StartRedrive(queue, rate=rate, undo=number), tell=_told_refusal)).outcome
    assert isinstance(task, RedriveTask)
    return answer(request, _told(task), 201)


async def group_dead_letters(request: web.Request) -> web.Response:
    """The dead letters of a queue by reason, the most frequent first."""
    choice(request, "group_by", "reason")
    queue, after, complete = queue_name(request), integer(request, "after", 0, 0, MESSAGE_ID_MAX), False
    groups: dict[tuple[str, str], DeadGroup] = {}
    headers: dict[str, str] = {}
    for _ in range(LOOKS_MAX):
        (found, _), headers = await query(request, GroupDead(queue, after))
        assert isinstance(found, DeadGroups)
        for group in found.groups:
            known = groups.get((group.reason, group.queue))
            groups[group.reason, group.queue] = group if known is None else joined(known, group)
        after, complete = found.upto, found.complete
        if complete or len(groups) >= GROUPS_MAX:
            break
    by_count = sorted(groups.values(), key=lambda group: (-group.count, group.first_id))
    document = {"groups": [_told_group(group) for group in by_count], "complete": complete, "after": after}
    return answer(request, document, headers=headers)


_TASKS = "/v1/queues/{queue}/redrive"
ROUTES = (
    web.get("/v1/queues/{queue}/dead-letters", group_dead_letters, allow_head=False),
    web.post(_TASKS, start_redrive),
    web.get(_TASKS, list_redrives, allow_head=False),
    web.get(f"{_TASKS}/{{task}}", get_redrive, allow_head=False),
    web.delete(f"{_TASKS}/{{task}}", cancel_redrive),
    web.post(f"{_TASKS}/{{task}}/undo", undo_redrive),
)
