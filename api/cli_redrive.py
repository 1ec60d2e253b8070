"""Commands for dead letters: by reason, and given another chance."""

from __future__ import annotations

import time
from typing import Annotated, Any

from cyclopts import App, Parameter, validators

from api.console import (
    DEFAULT_URL,
    Exit,
    Json,
    Url,
    UsageError,
    complain,
    json_option,
    printable,
    say,
    say_json,
    say_table,
)
from api.console_client import Client, queue_path

POLL_S = 0.5
"""How often a task that is waited for is looked at."""

Queue = Annotated[str, Parameter(help="The queue that holds the dead letters.")]
Task = Annotated[int, Parameter(validator=validators.Number(gte=1), help="The task's number.")]
Wait = Annotated[bool, Parameter(help="Wait until it has ended, and say how far it is.")]
PerSecond = Annotated[
    int | None, Parameter(validator=validators.Number(gte=1, lte=1_000_000), help="Messages a second at most.")
]

redrive = App(
    name="redrive",
    help="""Give dead letters another chance, watch that, cancel it, or take it back.

    ```
    trimaran redrive reasons orders-dead
    trimaran redrive start orders-dead --reason timeout --dry-run
    trimaran redrive start orders-dead --reason timeout --per-second 100 --wait
    trimaran redrive undo orders-dead 1
    ```
    """,
    default_parameter=Parameter(negative=""),
    help_format="markdown",
)


@redrive.command
def reasons(queue: Queue, /, *, url: Url = DEFAULT_URL, json: Json = False) -> int:
    """Show why the dead letters of a queue were given up, the most frequent reason first.

    ```
    trimaran redrive reasons orders-dead
    ```
    """
    client, path, after = Client(url), queue_path(queue, "dead-letters"), 0
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    while True:
        answer = client.request("GET", f"{path}?group_by=reason&after={after}")
        for group in answer["groups"]:
            key = (group["reason"], group["queue"])
            groups[key] = _joined(groups[key], group) if key in groups else group
        after = answer["after"]
        if answer["complete"]:
            break
        complain(f"looked through messages up to {after:,}")
    by_count = sorted(groups.values(), key=lambda group: -group["count"])
    if json:
        say_json({"groups": by_count})
    elif not by_count:
        say(f"queue {printable(queue)} has no dead letters")
    else:
        columns = ("count", "queue", "reason", "last_given_up")
        say_table(columns, ([group[column] for column in columns] for group in by_count), numbers=("count",))
    return Exit.DONE


@redrive.command
def start(
    queue: Queue,
    /,
    *,
    to: Annotated[str | None, Parameter(help="Where to; default: each to the queue that gave it up.")] = None,
    reason: Annotated[str | None, Parameter(help="Only what was given up for this reason.")] = None,
    of: Annotated[str | None, Parameter(help="Only what this queue gave up.")] = None,
    filter_: Annotated[
        str | None,
        Parameter(name="--filter", help='A filter in JSON: {"dead": {…}, "attributes": {…}, "body": {…}}.'),
    ] = None,
    per_second: PerSecond = None,
    dry_run: Annotated[bool, Parameter(help="Say what would be moved, and move nothing.")] = False,
    wait: Wait = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> int:
    """Move dead letters back to the queues that gave them up, or elsewhere.

    ```
    trimaran redrive start orders-dead
    trimaran redrive start orders-dead --of orders --per-second 50
    trimaran redrive start orders-dead --filter '{"body": {"total": [{"numeric": [">", 100]}]}}' --dry-run
    ```

    With --wait, exit code 1: the task was stopped before its end.
    """
    asked: dict[str, Any] = {"filter": _filter(filter_, reason, of)} if filter_ or reason or of else {}
    asked |= {"to": to} if to is not None else {}
    asked |= _rate(per_second)
    client = Client(url)
    if dry_run:
        return _preview(client, queue, asked, json=json)
    return _tell(client, client.request("POST", queue_path(queue, "redrive"), asked), wait=wait, json=json)


@redrive.command(name="list")
def list_(queue: Queue, /, *, url: Url = DEFAULT_URL, json: Json = False) -> int:
    """List the latest tasks of a queue, the newest first.

    ```
    trimaran redrive list orders-dead
    ```
    """
    answer = Client(url).request("GET", queue_path(queue, "redrive"))
    if json:
        say_json(answer)
    elif not answer["tasks"]:
        say(f"queue {printable(queue)} was never redriven")
    else:
        columns = ("task", "state", "moved", "looked", "messages", "started")
        rows = ([task[column] for column in columns] for task in answer["tasks"])
        say_table(columns, rows, numbers=("task", "moved", "looked", "messages"))
    return Exit.DONE


@redrive.command
def show(queue: Queue, task: Task, /, *, wait: Wait = False, url: Url = DEFAULT_URL, json: Json = False) -> int:
    """Show how far a task is, or how it ended.

    ```
    trimaran redrive show orders-dead 1 --wait
    ```
    """
    client = Client(url)
    return _tell(client, client.request("GET", queue_path(queue, "redrive", str(task))), wait=wait, json=json)


@redrive.command
def cancel(queue: Queue, task: Task, /, *, url: Url = DEFAULT_URL, json: Json = False) -> int:
    """Stop a task where it is.

    ```
    trimaran redrive cancel orders-dead 1
    ```
    """
    client = Client(url)
    return _tell(client, client.request("DELETE", queue_path(queue, "redrive", str(task))), wait=False, json=json)


@redrive.command
def undo(
    queue: Queue,
    task: Task,
    /,
    *,
    per_second: PerSecond = None,
    wait: Wait = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> int:
    """Move back what a task has moved and nobody has received since.

    ```
    trimaran redrive undo orders-dead 1 --wait
    ```
    """
    client = Client(url)
    started = client.request("POST", queue_path(queue, "redrive", str(task), "undo"), _rate(per_second))
    return _tell(client, started, wait=wait, json=json)


def _rate(per_second: int | None) -> dict[str, Any]:
    return {} if per_second is None else {"rate": {"messages": per_second, "burst": max(1, per_second // 10)}}


def _filter(text: str | None, reason: str | None, of: str | None) -> dict[str, Any]:
    wanted = json_option("--filter", text) if text else {}
    if not isinstance(wanted, dict):
        raise UsageError("--filter is no JSON object")
    simple = {name: [value] for name, value in (("reason", reason), ("queue", of)) if value is not None}
    if simple and "dead" in wanted:
        raise UsageError("give either --reason and --of, or what is dead in --filter")
    return wanted | ({"dead": simple} if simple else {})


def _preview(client: Client, queue: str, asked: dict[str, Any], *, json: bool) -> int:
    destinations: dict[str, int] = {}
    held, after = 0, 0
    while True:
        answer = client.request("POST", queue_path(queue, "redrive"), asked | {"dry_run": True, "after": after})
        for name, count in answer["destinations"].items():
            destinations[name] = destinations.get(name, 0) + count
        held, after = held + answer["held"], answer["after"]
        if answer["complete"]:
            break
        complain(f"looked through messages up to {after:,}")
    if json:
        say_json({"destinations": destinations, "held": held})
        return Exit.DONE
    for name, count in sorted(destinations.items()):
        say(f"{count:,} would move to {printable(name)}")
    if not destinations:
        say("nothing would move")
    if held:
        say(f"{held:,} are leased, and would stay")
    return Exit.DONE


def _tell(client: Client, task: dict[str, Any], *, wait: bool, json: bool) -> int:
    path, said = queue_path(task["queue"], "redrive", str(task["task"])), None
    while wait and task["state"] == "running":
        if task["looked"] != said:
            said = task["looked"]
            complain(f"moved {task['moved']:,}; looked at {said:,} of {task['messages']:,}")
        time.sleep(POLL_S)
        task = client.request("GET", path)
    if json:
        say_json(task)
    else:
        what = f"undo of task {task['undoes']}" if "undoes" in task else "redrive"
        say(f"task {task['task']}, {what}: {task['state']}, {task['moved']:,} moved, {task['looked']:,} looked at")
        if "cause" in task:
            cause = task["cause"]
            which = f": {printable(cause['queue'])}" if "queue" in cause else ""
            complain(f"{cause['title']}{which}\n{cause['remedy']}")
    return Exit.FAILED if wait and task["state"] != "done" else Exit.DONE


def _joined(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """A group and more of it. Ids and times of later pages are later ones."""
    first, last = min(one["first_given_up"], other["first_given_up"]), max(one["last_given_up"], other["last_given_up"])
    count = one["count"] + other["count"]
    return one | {"count": count, "last_id": other["last_id"], "first_given_up": first, "last_given_up": last}
