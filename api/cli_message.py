"""Commands for one message: look at it, change it, cancel it, and ask what became of it."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from cyclopts import App, Parameter, validators

from api.cli_messages import read_attribute, show_message
from api.console import DEFAULT_URL, Exit, Json, Url, UsageError, printable, say, say_json
from api.console_client import Client, queue_path
from storage.limits import BATCH_MESSAGES_MAX

Queue = Annotated[str, Parameter(help="The queue.")]
Id = Annotated[int, Parameter(validator=validators.Number(gte=1), help="The message's id.")]

message = App(
    name="message",
    help="""Look at messages without leasing them, change or cancel one, and ask what became of it.

    ```
    trimaran message list orders --key order-7
    trimaran message why orders 7
    trimaran message change orders 7 --delay-ms 0 --priority 9
    ```
    """,
    default_parameter=Parameter(negative=""),
    help_format="markdown",
)


@message.command(name="list")
def list_(
    queue: Queue,
    /,
    *,
    key: Annotated[str | None, Parameter(help="Only messages that were sent with this key.")] = None,
    after: Annotated[int, Parameter(validator=validators.Number(gte=0), help="Only ids above this one.")] = 0,
    max_: Annotated[
        int,
        Parameter(name=["--max", "-n"], validator=validators.Number(gte=1), help="Messages at most."),
    ] = 20,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> int:
    """List messages in any state, in order of id.

    ```
    trimaran message list orders
    trimaran message list orders --key order-7 --json | jq .message_id
    ```

    With --json, one line for each message.
    """
    client, found = Client(url), 0
    while found < max_:
        asked: dict[str, Any] = {"after": after, "limit": min(max_ - found, BATCH_MESSAGES_MAX)}
        if key is not None:
            asked["key"] = key
        page = client.request("GET", f"{queue_path(queue, 'messages')}?{urlencode(asked)}")["messages"]
        if not page:
            break
        for each in page:
            say_json(each) if json else _show(each)
        found, after = found + len(page), page[-1]["message_id"]
    if not found and not json:
        say(f"queue {printable(queue)} has no such message")
    return Exit.DONE


@message.command
def get(queue: Queue, message_id: Id, /, *, url: Url = DEFAULT_URL, json: Json = False) -> int:
    """Show one message, whatever its state.

    ```
    trimaran message get orders 7
    ```
    """
    answer = Client(url).request("GET", _path(queue, message_id))
    say_json(answer) if json else _show(answer)
    return Exit.DONE


@message.command
def change(
    queue: Queue,
    message_id: Id,
    /,
    *,
    delay_ms: Annotated[
        int | None, Parameter(validator=validators.Number(gte=0), help="Deliver it so long from now; 0: now.")
    ] = None,
    at: Annotated[str | None, Parameter(help="Deliver it then: 2030-01-31T08:00:00Z.")] = None,
    ttl_ms: Annotated[
        int | None,
        Parameter(
            validator=validators.Number(gte=0), help="Keep it so long from when it is due; 0: as the queue says."
        ),
    ] = None,
    priority: Annotated[int | None, Parameter(help="0 to 9; higher goes first.")] = None,
    attribute: Annotated[
        tuple[str, ...], Parameter(alias="-a", help="NAME=VALUE, instead of all attributes it has; may be repeated.")
    ] = (),
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> int:
    """Change a message that nobody holds. What is not given stays as it is.

    ```
    trimaran message change orders 7 --at 2030-01-31T08:00:00Z
    trimaran message change orders 7 --priority 9 -a colour=red
    ```
    """
    given: dict[str, Any] = {"delay_ms": delay_ms, "at": at, "ttl_ms": ttl_ms, "priority": priority}
    wish = {name: value for name, value in given.items() if value is not None}
    if attribute:
        wish["attributes"] = dict(read_attribute(text) for text in attribute)
    if not wish:
        raise UsageError("say what to change: --delay-ms, --at, --ttl-ms, --priority or --attribute")
    Client(url).request("PATCH", _path(queue, message_id), wish)
    done = {"queue": queue, "message_id": message_id, "changed": True}
    say_json(done) if json else say(f"message {message_id} of {printable(queue)} is changed")
    return Exit.DONE


@message.command
def cancel(queue: Queue, message_id: Id, /, *, url: Url = DEFAULT_URL, json: Json = False) -> int:
    """Forget one message, whatever its state. Whoever holds it finds its receipt stale.

    ```
    trimaran message cancel orders 7
    ```
    """
    Client(url).request("DELETE", _path(queue, message_id))
    done = {"queue": queue, "message_id": message_id, "cancelled": True}
    say_json(done) if json else say(f"message {message_id} of {printable(queue)} is cancelled")
    return Exit.DONE


@message.command
def history(queue: Queue, message_id: Id, /, *, url: Url = DEFAULT_URL, json: Json = False) -> int:
    """Tell what happened to a message, as far as it is kept (see the queue's history_ms).

    ```
    trimaran message history orders 7
    ```
    """
    answer = Client(url).request("GET", _path(queue, message_id, "history"))
    if json:
        say_json(answer)
        return Exit.DONE
    say(f"{answer['timestamp']}  sent")
    if answer["forgotten"]:
        say(f"{answer['forgotten']} older events are not kept any more")
    for event in answer["events"]:
        more = (f"{name} {printable(event[name])}" for name in ("consumer", "queue", "reason") if name in event)
        say(f"{event['timestamp']}  {', '.join([event['event'].replace('_', ' '), *more])}")
    if not answer["here"]:
        say("it is not in the queue any more")
    return Exit.DONE


@message.command
def why(queue: Queue, message_id: Id, /, *, url: Url = DEFAULT_URL, json: Json = False) -> int:
    """Tell why a message is not being delivered now.

    ```
    trimaran message why orders 7
    ```
    """
    answer = Client(url).request("GET", _path(queue, message_id, "why"))
    if json:
        say_json(answer)
        return Exit.DONE
    say(f"message {message_id} is {answer['state']}")
    for reason in answer["reasons"]:
        until = f", until {reason['until']}" if "until" in reason else ""
        detail = f": {printable(reason['detail'])}" if "detail" in reason else ""
        say(f"  {reason['code'].replace('_', ' ')}{until}{detail}")
    if not answer["reasons"]:
        say("  nothing keeps it: it is next in its turn")
    return Exit.DONE


def _path(queue: str, message_id: int, *rest: str) -> str:
    return queue_path(queue, "messages", str(message_id), *rest)


def _show(told: dict[str, Any]) -> None:
    due = f" until {told['due']}" if told["due"] else ""
    consumer = f" by {printable(told['consumer'])}" if told["state"] == "leased" and "consumer" in told else ""
    state = f"{told['state']}{consumer}{due}"
    say(f"message {told['message_id']}, {state}, {told['attempts']} attempts, sent {told['timestamp']}")
    show_message(told)
