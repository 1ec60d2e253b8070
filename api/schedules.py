"""Schedules: messages that are sent at times, by cron expressions or intervals."""

from __future__ import annotations

from math import inf
from typing import Any, Literal

import msgspec
from aiohttp import web

from api.messages import MessageIn, PackedMessageIn, decode_part, encode_message
from api.options import read_runs
from api.problem import REFUSALS, SERVER, invalid
from api.request import Wish, answer, integer, read, read_either, wants_msgpack
from api.rest import query, submit
from api.times import timestamp
from cluster.cron import ScheduleError
from cluster.occurrences import next_times, timing_of
from storage.block import Part
from storage.limits import (
    CRON_CHARACTERS_MAX,
    ROUTING_CHARACTERS_MAX,
    SCHEDULE_EVERY_MS_MAX,
    SCHEDULE_EVERY_MS_MIN,
    SCHEDULE_MESSAGE_BYTES_MAX,
    TIME_ZONE_CHARACTERS_MAX,
)
from storage.options import SCHEDULE_NAME, Options, Plan
from storage.records import Schedule
from storage.schedule_operations import (
    DeleteSchedule,
    GetSchedule,
    ListSchedules,
    PauseSchedule,
    PutSchedule,
    ScheduleInfo,
    ScheduleList,
    SchedulePut,
)
from storage.settings import QUEUE_NAME

NEXT_SHOWN = 5
"""Times to come that are shown of one schedule; of each in a list it is one."""

_UNSET = msgspec.UNSET
_Unset = msgspec.UnsetType
_LIMITS = {"cron": CRON_CHARACTERS_MAX, "time_zone": TIME_ZONE_CHARACTERS_MAX}


class _Plan(Wish):
    """When to send, and where to."""

    queue: str | _Unset = _UNSET
    topic: str | _Unset = _UNSET
    routing_key: str | _Unset = _UNSET
    cron: str | _Unset = _UNSET
    every_ms: int | _Unset = _UNSET
    time_zone: str | _Unset = _UNSET
    overlap: Literal["allow", "skip"] = "allow"
    catch_up: Literal["none", "one", "all"] = "one"
    paused: bool = False


class ScheduleIn(_Plan):
    """A schedule, and the message that it sends."""

    message: MessageIn | _Unset = _UNSET


class PackedScheduleIn(_Plan):
    """A schedule, and the message that it sends, in msgpack."""

    message: PackedMessageIn | _Unset = _UNSET


class PauseIn(Wish):
    """Whether a schedule is to wait."""

    paused: bool


# --- reading ----------------------------------------------------------------------------------------------------------


def _name(request: web.Request) -> str:
    name = request.match_info["schedule"]
    if not SCHEDULE_NAME.fullmatch(name):
        raise invalid("schedule", "this is no name for a schedule", "Use 1 to 80 of A-Z a-z 0-9 _ and -.", 80)
    return name


def _plan(wish: ScheduleIn | PackedScheduleIn) -> Plan:
    """The plan that is asked for. Raises `Problem`."""
    _check_timing(wish)
    _check_target(wish)
    body, properties, options = _message(wish)
    plan = Plan(
        "" if wish.queue is _UNSET else wish.queue,
        body,
        properties,
        options,
        cron="" if wish.cron is _UNSET else wish.cron,
        every_ms=0 if wish.every_ms is _UNSET else wish.every_ms,
        time_zone="UTC" if wish.time_zone is _UNSET else wish.time_zone,
        overlap=wish.overlap,
        catch_up=wish.catch_up,
        paused=wish.paused,
        topic="" if wish.topic is _UNSET else wish.topic,
        routing_key="" if wish.routing_key is _UNSET else wish.routing_key,
    )
    try:
        timing_of(plan)
    except ScheduleError as error:
        too_long = len(getattr(plan, error.field)) > _LIMITS.get(error.field, inf)
        limit = _LIMITS[error.field] if too_long else None
        detail = f"character {error.position + 1}: {error.reason}" if error.field == "cron" else error.reason
        raise invalid(f"$.{error.field}", detail, "docs/schedules.md has the rules, and examples.", limit) from None
    return plan


def _check_timing(wish: _Plan) -> None:
    if wish.cron is _UNSET and wish.every_ms is _UNSET:
        raise invalid("$.cron", "a schedule has a cron or an every_ms", "Give one of them.")
    if wish.cron == "":
        raise invalid("$.cron", "this is no cron expression", 'Write five fields: "0 9 * * MON-FRI".')
    if wish.every_ms is not _UNSET:
        if wish.cron is not _UNSET:
            raise invalid("$.every_ms", "there is a cron as well", "Give one of them.")
        if wish.time_zone is not _UNSET:
            raise invalid("$.time_zone", "an interval is the same in every time zone", "Leave it out.")
        if not SCHEDULE_EVERY_MS_MIN <= wish.every_ms <= SCHEDULE_EVERY_MS_MAX:
            limit = SCHEDULE_EVERY_MS_MIN if wish.every_ms < SCHEDULE_EVERY_MS_MIN else SCHEDULE_EVERY_MS_MAX
            detail = f"from {SCHEDULE_EVERY_MS_MIN} to {SCHEDULE_EVERY_MS_MAX} is allowed"
            raise invalid("$.every_ms", detail, "Change it.", limit)


def _check_target(wish: _Plan) -> None:
    if wish.topic is _UNSET:
        if wish.routing_key is not _UNSET:
            raise invalid("$.routing_key", "only what is published has a routing key", "Name a topic, or leave it out.")
        if wish.queue is _UNSET or not QUEUE_NAME.fullmatch(wish.queue):
            raise invalid("$.queue", "the name of a queue is needed", "Say where to send: a queue, or a topic.")
        return
    if wish.queue is not _UNSET:
        raise invalid("$.topic", "there is a queue as well", "Give one of them.")
    if not QUEUE_NAME.fullmatch(wish.topic):
        raise invalid("$.topic", "this is no name for a topic", "Use the name of one that there is.")
    if wish.overlap == "skip":
        raise invalid("$.overlap", "a message that was published is in no one queue", "Leave it out, or name a queue.")
    if wish.routing_key is not _UNSET and len(wish.routing_key) > ROUTING_CHARACTERS_MAX:
        detail = f"it has at most {ROUTING_CHARACTERS_MAX} characters"
        raise invalid("$.routing_key", detail, "Choose another.", ROUTING_CHARACTERS_MAX)


def _message(wish: ScheduleIn | PackedScheduleIn) -> tuple[bytes, bytes, Options]:
    """Body, properties and options of the message. Raises `Problem`."""
    message, field = wish.message, "$.message"
    if message is _UNSET:
        raise invalid(field, "a schedule needs a message", "Give it a body.")
    if message.at is not _UNSET:
        raise invalid(f"{field}.at", "every message would be for the same time", "Use delay_ms, or leave it out.")
    body, properties = encode_message(message, field)
    if len(body) + len(properties) > SCHEDULE_MESSAGE_BYTES_MAX:
        detail = f"body and attributes have at most {SCHEDULE_MESSAGE_BYTES_MAX} bytes"
        raise invalid(field, detail, "Send a reference instead.", SCHEDULE_MESSAGE_BYTES_MAX, 413)
    runs = read_runs([message], [field])
    return body, properties, runs[0].options if runs else Options()


# --- telling ----------------------------------------------------------------------------------------------------------


def _told(schedule: Schedule, shown: int, *, raw: bool) -> dict[str, Any]:
    """A schedule as clients see it."""
    plan = schedule.plan
    timing = {"cron": plan.cron, "time_zone": plan.time_zone} if plan.cron else {"every_ms": plan.every_ms}
    target = {"queue": plan.queue} if plan.queue else {"topic": plan.topic, "routing_key": plan.routing_key}
    told = {
        "schedule": schedule.name,
        **timing,
        **target,
        "message": _told_message(plan, raw=raw),
        "overlap": plan.overlap,
        "catch_up": plan.catch_up,
        "paused": plan.paused,
        "created": timestamp(schedule.created_ms),
        "next": _told_times(schedule, shown),
        "sent": schedule.sent,
        "skipped": schedule.skipped,
    }
    if schedule.changed_ms:
        told["changed"] = timestamp(schedule.changed_ms)
    if schedule.sent:
        told["last"] = {
            "occurrence": timestamp(schedule.last_ms),
            "sent": timestamp(schedule.last_sent_ms),
            "message_id": schedule.last_id,
        }
    if schedule.skipped:
        told["last_skipped"] = timestamp(schedule.skipped_ms)
    if schedule.missed_ms:
        told["last_missed"] = timestamp(schedule.missed_ms)
    if schedule.trouble:
        _, detail, _ = REFUSALS.get(schedule.trouble, (0, schedule.trouble, ""))
        told["last_error"] = {"detail": detail, "at": timestamp(schedule.trouble_ms)}
    return told


def _told_times(schedule: Schedule, count: int) -> list[str]:
    return [timestamp(at_ms) for at_ms in next_times(schedule, count)]


def _told_message(plan: Plan, *, raw: bool) -> dict[str, Any]:
    """The message, so that it can be put again as it is told."""
    options, plain = plan.options, Options()
    told = decode_part(Part(memoryview(plan.body + plan.properties), len(plan.body)), raw=raw)
    for name in ("priority", "group", "key", "delay_ms", "ttl_ms", "dedup_id", "producer"):
        if getattr(options, name) != getattr(plain, name):
            told[name] = getattr(options, name)
    return told


# --- routes -----------------------------------------------------------------------------------------------------------


async def put_schedule(request: web.Request) -> web.Response:
    """Create a schedule, or replace it. What has been sent stays sent."""
    name = _name(request)
    plan = _plan(await read_either(request, ScheduleIn, PackedScheduleIn))
    put = (await submit(request, PutSchedule(name, plan))).outcome
    assert isinstance(put, SchedulePut)
    schedule = Schedule(name, plan, 0, 0, next_ms=put.next_ms, after_ms=put.after_ms)
    document = {"schedule": name, "changed": put.changed, "next": _told_times(schedule, NEXT_SHOWN)}
    return answer(request, document, 201 if put.created else 200)


async def list_schedules(request: web.Request) -> web.Response:
    """Schedules in order of name."""
    limit = integer(request, "limit", 100, 1, 1000)
    (found, _), headers = await query(request, ListSchedules(request.query.get("after", ""), limit))
    assert isinstance(found, ScheduleList)
    told = [_told(schedule, 1, raw=wants_msgpack(request)) for schedule in found.schedules]
    return answer(request, {"schedules": told}, headers=headers)


async def get_schedule(request: web.Request) -> web.Response:
    """One schedule: what it sends when, and what came of it."""
    (found, _), headers = await query(request, GetSchedule(_name(request)))
    assert isinstance(found, ScheduleInfo)
    return answer(request, _told(found.schedule, NEXT_SHOWN, raw=wants_msgpack(request)), headers=headers)


async def pause_schedule(request: web.Request) -> web.Response:
    """Pause a schedule, or have it go on, whatever else it is told meanwhile."""
    name, wish = _name(request), await read(request, PauseIn)
    await submit(request, PauseSchedule(name, wish.paused))
    return web.Response(status=204, headers={"Server": SERVER})


async def delete_schedule(request: web.Request) -> web.Response:
    """Forget a schedule."""
    await submit(request, DeleteSchedule(_name(request)))
    return web.Response(status=204, headers={"Server": SERVER})


ROUTES = (
    web.get("/v1/schedules", list_schedules, allow_head=False),
    web.put("/v1/schedules/{schedule}", put_schedule),
    web.get("/v1/schedules/{schedule}", get_schedule, allow_head=False),
    web.patch("/v1/schedules/{schedule}", pause_schedule),
    web.delete("/v1/schedules/{schedule}", delete_schedule),
)
