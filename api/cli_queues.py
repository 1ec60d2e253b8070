"""Commands for queues."""

from __future__ import annotations

import json as json_module
from typing import Annotated, Any

from cyclopts import App, Parameter

from api.console import DEFAULT_URL, Exit, Json, Url, UsageError, printable, say, say_json, say_table
from api.console_client import Client, queue_path

Queue = Annotated[str, Parameter(help="The queue.")]
Milliseconds = int | None

queues = App(
    name="queues",
    help="""List, create, look at, purge and delete queues. Alone, it lists them.

    ```
    trimaran queues
    trimaran queues create orders --lease-ms 60000
    trimaran queues show orders
    ```
    """,
    default_parameter=Parameter(negative=""),
    help_format="markdown",
)


@queues.default
@queues.command(name="list")
def list_(*, url: Url = DEFAULT_URL, json: Json = False) -> int:
    """List all queues with their counts.

    ```
    trimaran queues list
    trimaran queues list --json | jq -r '.queues[].queue'
    ```
    """
    answer = Client(url).request("GET", "/v1/queues")
    if json:
        say_json(answer)
    elif not answer["queues"]:
        say("There are no queues yet. Create one: trimaran queues create NAME")
    else:
        columns = ("queue", "ready", "leased", "delayed", "bytes")
        rows = ([queue.get(column) for column in columns] for queue in answer["queues"])
        say_table(columns, rows, numbers=columns[1:])
    return Exit.DONE


@queues.command
def create(
    queue: Queue,
    /,
    *,
    lease_ms: Annotated[Milliseconds, Parameter(help="How long a received message is held for its consumer.")] = None,
    retention_ms: Annotated[Milliseconds, Parameter(help="How long a message is kept when nobody takes it.")] = None,
    body_bytes_max: Annotated[int | None, Parameter(help="Largest body a message may have.")] = None,
    set_: Annotated[
        tuple[str, ...], Parameter(name="--set", help="SETTING=VALUE, for any setting; VALUE is JSON, or a text.")
    ] = (),
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> int:
    """Create a queue, or replace the settings of one that exists. What is not given takes its default.

    ```
    trimaran queues create orders
    trimaran queues create thumbnails --lease-ms 600000
    trimaran queues create mails --set attempts_max=5 --set dead_letter_queue=dead --set fair=true
    trimaran queues create calls --set 'rate={"messages": 10, "per_ms": 60000}'
    ```
    """
    given = {"lease_ms": lease_ms, "retention_ms": retention_ms, "body_bytes_max": body_bytes_max}
    settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    settings |= dict(_setting(text) for text in set_)
    answer = Client(url).request("PUT", queue_path(queue), settings)
    say_json(answer) if json else say(f"queue {printable(queue)} is ready")
    return Exit.DONE


@queues.command
def show(queue: Queue, /, *, url: Url = DEFAULT_URL, json: Json = False) -> int:
    """Show one queue's counts and settings.

    ```
    trimaran queues show orders
    ```
    """
    answer = Client(url).request("GET", queue_path(queue))
    if json:
        say_json(answer)
    else:
        say_table(("what", "value"), _flat(answer))
    return Exit.DONE


@queues.command
def purge(
    queue: Queue,
    /,
    *,
    yes: Annotated[bool, Parameter(alias="-y", help="Really do it.")] = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> int:
    """Forget every message of a queue, leased ones too. The queue stays.

    ```
    trimaran queues purge orders --yes
    ```
    """
    _confirm(yes, f"every message of {queue} will be lost")
    answer = Client(url).request("POST", queue_path(queue, "purge"), {})
    say_json(answer) if json else say(f"queue {printable(queue)} is empty")
    return Exit.DONE


@queues.command
def delete(
    queue: Queue,
    /,
    *,
    yes: Annotated[bool, Parameter(alias="-y", help="Really do it.")] = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> int:
    """Delete a queue and every message in it.

    ```
    trimaran queues delete orders --yes
    ```
    """
    _confirm(yes, f"{queue} and every message in it will be lost")
    Client(url).request("DELETE", queue_path(queue))
    say_json({"queue": queue, "deleted": True}) if json else say(f"queue {printable(queue)} is deleted")
    return Exit.DONE


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"--set {text!r} is not SETTING=VALUE")
    try:
        return name, json_module.loads(value)
    except ValueError:
        return name, value


def _confirm(yes: bool, what: str) -> None:
    if not yes:
        raise UsageError(f"{what}: add --yes if you mean it")


def _flat(answer: dict[str, Any]) -> list[tuple[str, object]]:
    return [
        (f"{name}.{inner}" if inner else name, item)
        for name, value in answer.items()
        for inner, item in (value.items() if isinstance(value, dict) else (("", value),))
    ]
