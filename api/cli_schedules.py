"""Commands for schedules: messages that are sent at times."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import quote

from cyclopts import App, Parameter, validators

from api.console import DEFAULT_URL, Exit, Json, Url, UsageError, printable, say, say_json, say_table
from api.console_client import Client

Name = Annotated[str, Parameter(help="The schedule.")]

schedules = App(
    name="schedules",
    help="""Send messages at times: list, put, look at, pause, resume and delete schedules. Alone, it lists them.

    ```
    trimaran schedules put digest mails "what is new" --cron "0 9 * * MON-FRI" --time-zone Europe/Berlin
    trimaran schedules show digest
    trimaran schedules pause digest
    ```
    """,
    default_parameter=Parameter(negative=""),
    help_format="markdown",
)


@schedules.default
@schedules.command(name="list")
def list_(*, url: Url = DEFAULT_URL, json: Json = False) -> int:
    """List all schedules, with when each sends next.

    ```
    trimaran schedules list
    ```
    """
    client, found, after = Client(url), [], ""
    while page := client.request("GET", f"/v1/schedules?after={after}")["schedules"]:
        found += page
        after = page[-1]["schedule"]
    if json:
        say_json({"schedules": found})
    elif not found:
        say("There are no schedules yet. Make one: trimaran schedules put NAME QUEUE BODY --cron '0 9 * * *'")
    else:
        columns = ("schedule", "when", "to", "next", "sent")
        say_table(columns, (_row(schedule) for schedule in found), numbers=("sent",))
    return Exit.DONE


@schedules.command
def put(
    name: Name,
    queue: Annotated[str, Parameter(help="The queue to send to; with --topic, leave it out.")],
    body: Annotated[str | None, Parameter(help="The message.")] = None,
    /,
    *,
    topic: Annotated[str | None, Parameter(help="Publish to this topic instead.")] = None,
    routing_key: Annotated[str | None, Parameter(help="With --topic: what patterns look at.")] = None,
    cron: Annotated[str | None, Parameter(help="When: minute, hour, day of month, month, day of week.")] = None,
    time_zone: Annotated[str | None, Parameter(help="Whose clocks cron means, such as Europe/Berlin.")] = None,
    every_ms: Annotated[int | None, Parameter(validator=validators.Number(gte=1), help="Or: how often.")] = None,
    overlap: Annotated[
        Literal["allow", "skip"], Parameter(help="skip: not while the message before is still in the queue.")
    ] = "allow",
    catch_up: Annotated[
        Literal["none", "one", "all"], Parameter(help="How many of the times that an outage or a pause held up.")
    ] = "one",
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> int:
    """Create a schedule, or replace it.

    ```
    trimaran schedules put digest mails "what is new" --cron "0 9 * * MON-FRI" --time-zone Europe/Berlin
    trimaran schedules put beat jobs tick --every-ms 60000 --overlap skip
    trimaran schedules put news "what is new" --topic news --cron @daily
    ```
    """
    target: dict[str, str | None] = {"queue": queue}
    if topic is not None:
        if body is not None:
            raise UsageError("give either a queue or --topic")
        target, body = {"topic": topic}, queue
    elif body is None:
        raise UsageError("say where to send, and what: NAME QUEUE BODY, or NAME BODY --topic TOPIC")
    given = target | {"routing_key": routing_key, "cron": cron, "time_zone": time_zone, "every_ms": every_ms}
    asked: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
    asked |= {"message": {"body": body}, "overlap": overlap, "catch_up": catch_up}
    return _say_next(Client(url).request("PUT", _path(name), asked), json=json)


@schedules.command
def show(name: Name, /, *, url: Url = DEFAULT_URL, json: Json = False) -> int:
    """Show what a schedule sends, when it does so next, and what came of it.

    ```
    trimaran schedules show digest
    ```
    """
    answer = Client(url).request("GET", _path(name))
    say_json(answer) if json else say_table(("what", "value"), _flat(answer))
    return Exit.DONE


@schedules.command
def pause(name: Name, /, *, url: Url = DEFAULT_URL, json: Json = False) -> int:
    """Send nothing until it is resumed.

    ```
    trimaran schedules pause digest
    ```
    """
    return _set_paused(name, True, url, json=json)


@schedules.command
def resume(name: Name, /, *, url: Url = DEFAULT_URL, json: Json = False) -> int:
    """Go on after a pause. What becomes of what it has held up is the schedule's catch_up.

    ```
    trimaran schedules resume digest
    ```
    """
    return _set_paused(name, False, url, json=json)


@schedules.command
def delete(name: Name, /, *, url: Url = DEFAULT_URL, json: Json = False) -> int:
    """Delete a schedule. What it has sent stays.

    ```
    trimaran schedules delete digest
    ```
    """
    Client(url).request("DELETE", _path(name))
    say_json({"schedule": name, "deleted": True}) if json else say(f"schedule {printable(name)} is deleted")
    return Exit.DONE


def _set_paused(name: str, paused: bool, url: str, *, json: bool) -> int:
    client = Client(url)
    client.request("PATCH", _path(name), {"paused": paused})
    return _say_next(client.request("GET", _path(name)), json=json)


def _say_next(answer: dict[str, Any], *, json: bool) -> int:
    name, times = printable(answer["schedule"]), answer["next"]
    if json:
        say_json(answer)
    elif times:
        say(f"schedule {name} sends next at {times[0]}, then at {', '.join(times[1:3]) or 'no time more'}")
    else:
        say(f"schedule {name} sends nothing until it is resumed")
    return Exit.DONE


def _path(name: str) -> str:
    if not name:
        raise UsageError("the schedule's name is empty")
    return f"/v1/schedules/{quote(name, safe='')}"


def _row(schedule: dict[str, Any]) -> list[Any]:
    when = f"{schedule['cron']} {schedule['time_zone']}" if "cron" in schedule else f"every {schedule['every_ms']} ms"
    to = schedule["queue"] if "queue" in schedule else f"topic {schedule['topic']}"
    following = "paused" if schedule["paused"] else (schedule["next"] or ["never"])[0]
    return [schedule["schedule"], when, to, following, schedule["sent"]]


def _flat(answer: dict[str, Any]) -> list[tuple[str, object]]:
    return [
        (f"{name}.{inner}" if inner else name, ", ".join(item) if isinstance(item, list) else item)
        for name, value in answer.items()
        for inner, item in (value.items() if isinstance(value, dict) else (("", value),))
    ]
