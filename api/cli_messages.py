"""Commands for messages: send, receive, ack, nack, extend."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter, validators

from api.console import (
    DEFAULT_URL,
    Exit,
    Json,
    Url,
    UsageError,
    complain,
    json_option,
    printable,
    read_lines,
    say,
    say_json,
)
from api.console_client import Client, queue_path
from storage.limits import BATCH_MESSAGES_MAX, OPERATION_BYTES_MAX

BATCH_BYTES_MAX = OPERATION_BYTES_MAX // 4
"""Bytes of bodies in one request: a quarter, because JSON may spell a byte with several."""

WAIT_MS_MAX = 20_000
"""Longest a node holds back an empty answer; a longer --wait asks again."""

Queue = Annotated[str, Parameter(help="The queue.")]
Receipts = Annotated[
    tuple[str, ...], Parameter(allow_leading_hyphen=True, help="Receipts of messages; - reads one from each line.")
]


def send(
    queue: Queue,
    body: Annotated[
        str | None, Parameter(allow_leading_hyphen=True, help="The body; - reads it from standard input.")
    ] = None,
    /,
    *,
    file: Annotated[
        Path | None,
        Parameter(allow_leading_hyphen=True, help="Send each line of this file as a message; - is standard input."),
    ] = None,
    attribute: Annotated[
        tuple[str, ...], Parameter(alias="-a", help="NAME=VALUE, sent beside each body; may be repeated.")
    ] = (),
    delay_ms: Annotated[int | None, Parameter(help="Deliver it so long from now.")] = None,
    at: Annotated[str | None, Parameter(help="Deliver it then: 2030-01-31T08:00:00Z.")] = None,
    ttl_ms: Annotated[int | None, Parameter(help="How long it is kept when nobody takes it.")] = None,
    priority: Annotated[int | None, Parameter(help="0 to 9; higher goes first.")] = None,
    group: Annotated[str | None, Parameter(help="Its group: order in fifo queues, turns in fair ones.")] = None,
    key: Annotated[str | None, Parameter(help="A key of your own to find it by.")] = None,
    dedup_id: Annotated[str | None, Parameter(help="What was sent with this id before is not sent again.")] = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> int:
    """Send a message, or a file of them. The options are those of each message.

    When it returns, the messages are on the disks of a majority of the nodes.

    ```
    trimaran send orders "one sloop, two oars"
    trimaran send orders --attribute colour=red "a red buoy"
    trimaran send orders --priority 9 --key order-7 "a red buoy, quickly"
    trimaran send orders --at 2030-01-31T08:00:00Z "a sloop in winter"
    trimaran send photos - < cat.jpg
    trimaran send orders --file orders.jsonl
    ```

    With --json, one line for each message: its id and its time.
    """
    if (body is None) == (file is None):
        raise UsageError("give either a body (- for standard input) or --file")
    bodies = read_lines(_read(file)) if file is not None else [read_body(body or "")]
    if not bodies:
        complain(f"{file} is empty: nothing was sent")
        return Exit.DONE
    given = {
        "attributes": dict(read_attribute(text) for text in attribute) or None,
        "delay_ms": delay_ms,
        "at": at,
        "ttl_ms": ttl_ms,
        "priority": priority,
        "group": group,
        "key": key,
        "dedup_id": dedup_id,
    }
    options = {name: value for name, value in given.items() if value is not None}
    client, sent = Client(url), 0
    for batch in _batches(bodies):
        messages = [as_message(item) | options for item in batch]
        answer = client.request("POST", queue_path(queue, "messages"), {"messages": messages})
        sent += len(answer["messages"])
        for message in answer["messages"] if json else ():
            say_json(message)
    if not json:
        what = f"message {answer['messages'][0]['message_id']}" if sent == 1 else f"{sent:,} messages"
        say(f"sent {what} to {printable(queue)}")
    return Exit.DONE


def receive(
    queue: Queue,
    /,
    *,
    max_: Annotated[
        int, Parameter(name=["--max", "-n"], validator=validators.Number(gte=1), help="Messages at most.")
    ] = 1,
    wait: Annotated[
        float, Parameter(alias="-w", validator=validators.Number(gte=0), help="Seconds to wait for a message.")
    ] = 0.0,
    lease: Annotated[
        float | None,
        Parameter(validator=validators.Number(gt=0), help="Seconds until it is delivered again; default: the queue's."),
    ] = None,
    filter_: Annotated[str | None, Parameter(name="--filter", help="Only what matches: a filter in JSON.")] = None,
    filter_on: Annotated[Literal["attributes", "body"], Parameter(help="What the filter looks at.")] = "attributes",
    ack: Annotated[bool, Parameter(help="Ack what was printed: it is gone then.")] = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> int:
    """Receive messages: each is leased to you, and comes back when the lease ends and it was not acked.

    ```
    trimaran receive orders
    trimaran receive orders --max 100 --wait 20 --ack
    trimaran receive orders --lease 300 --json | jq -r .receipt
    trimaran receive orders --filter '{"colour": ["red"]}' --wait 20
    ```

    With --json, one line for each message. Exit code 3: nothing was received.
    """
    asked: dict[str, Any] = {"max": min(max_, BATCH_MESSAGES_MAX)}
    client, left_ms = Client(url), round(wait * 1000)
    if lease is not None:
        asked["lease_ms"] = max(1, round(lease * 1000))
    if filter_ is not None:
        asked |= {"filter": json_option("--filter", filter_), "filter_on": filter_on}
    messages: list[Any] = []
    while not messages:
        wait_ms = min(left_ms, WAIT_MS_MAX)
        answer = client.request("POST", queue_path(queue, "receive"), {**asked, "wait_ms": wait_ms}, wait_ms=wait_ms)
        messages, left_ms = answer["messages"], left_ms - wait_ms
        if not messages and left_ms <= 0:
            if answer.get("sifting"):
                complain("not all messages have been put to the filter yet: ask again, or --wait")
            return Exit.NOTHING_RECEIVED
    # One answer is bounded in bytes as well: the rest of what was asked for is fetched as long as there is any.
    while len(messages) < max_:
        more = {**asked, "max": min(max_ - len(messages), BATCH_MESSAGES_MAX), "wait_ms": 0}
        answer = client.request("POST", queue_path(queue, "receive"), more)
        if not answer["messages"]:
            break
        messages += answer["messages"]
    for message in messages:
        say_json(message) if json else _show(message, with_receipt=not ack)
    if not ack:
        return Exit.DONE
    sys.stdout.flush()  # acked means gone: not before it is really printed
    return _settle(client, queue, "ack", [message["receipt"] for message in messages], json=False, quiet=True)


def ack(queue: Queue, receipts: Receipts, /, *, url: Url = DEFAULT_URL, json: Json = False) -> int:
    """Ack messages: they are done, and never delivered again.

    ```
    trimaran ack orders AQAAAAAAAAABb3N2
    trimaran receive orders --json | jq -r .receipt | trimaran ack orders -
    ```

    With --json, one line for each receipt. Exit code 1: some receipt was stale (its lease is over) or invalid.
    """
    return _settle(Client(url), queue, "ack", _read_receipts(receipts, "acked"), json=json)


def nack(
    queue: Queue,
    receipts: Receipts,
    /,
    *,
    delay_ms: Annotated[
        int | None, Parameter(help="Deliver them so long from now; default: the queue's backoff.")
    ] = None,
    reason: Annotated[str, Parameter(help="Why; it is kept with a message that is given up for it.")] = "",
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> int:
    """Nack messages: they were not handled, and are delivered again.

    ```
    trimaran nack orders AQAAAAAAAAABb3N2 --delay-ms 60000 --reason "the yard is closed"
    ```

    With --json, one line for each receipt. Exit code 1: some receipt was stale (its lease is over) or invalid.
    """
    more = {"reason": reason} | ({} if delay_ms is None else {"delay_ms": delay_ms})
    return _settle(Client(url), queue, "nack", _read_receipts(receipts, "nacked"), more, json=json)


def extend(
    queue: Queue,
    receipts: Receipts,
    /,
    *,
    lease_ms: Annotated[int, Parameter(help="Hold them so long from now.")],
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> int:
    """Extend leases: messages are held longer than they were received for.

    ```
    trimaran extend orders AQAAAAAAAAABb3N2 --lease-ms 600000
    ```

    With --json, one line for each receipt. Exit code 1: some receipt was stale (its lease is over) or invalid.
    """
    more = {"lease_ms": lease_ms}
    return _settle(Client(url), queue, "extend", _read_receipts(receipts, "extended"), more, json=json)


def _read_receipts(receipts: tuple[str, ...], done: str) -> Iterable[str]:
    if receipts != ("-",):
        return receipts
    found = [line.decode("utf-8", "replace") for line in read_lines(sys.stdin.buffer.read()) if line]
    if not found:
        complain(f"no receipts came in: nothing was {done}")
    return found


def _settle(
    client: Client,
    queue: str,
    verb: str,
    receipts: Iterable[str],
    more: dict[str, Any] | None = None,
    *,
    json: bool,
    quiet: bool = False,
) -> int:
    done = f"{verb}ed"
    receipts, settled, failed = list(receipts), 0, 0
    for start in range(0, len(receipts), BATCH_MESSAGES_MAX):
        wish = {"receipts": receipts[start : start + BATCH_MESSAGES_MAX]} | (more or {})
        for result in client.request("POST", queue_path(queue, verb), wish)["results"]:
            if json:
                say_json(result)
            if result["status"] == done:
                settled += 1
            else:
                failed += 1
                complain(f"not {done}, {result['status']}: {printable(str(result['receipt']))}")
    if receipts and not json and not quiet:
        say(f"{done} {settled:,} of {settled + failed:,}")
    return Exit.FAILED if failed else Exit.DONE


def read_body(text: str) -> bytes:
    """A body that was given, or standard input for -."""
    return sys.stdin.buffer.read() if text == "-" else text.encode("utf-8", "surrogateescape")


def _read(file: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise UsageError(f"--file {file} cannot be read: {error.strerror}") from error


def read_attribute(text: str) -> tuple[str, str]:
    """Name and value of NAME=VALUE. Raises `UsageError`."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"--attribute {text!r} is not NAME=VALUE")
    return name, value


def as_message(body: bytes) -> dict[str, Any]:
    """The body of a message, as the native API takes it."""
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode()}


def _batches(bodies: list[bytes]) -> Iterable[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for body in bodies:
        if batch and (len(batch) == BATCH_MESSAGES_MAX or size + len(body) > BATCH_BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(body)
        size += len(body)
    yield batch


def _show(message: dict[str, Any], *, with_receipt: bool) -> None:
    say(f"message {message['message_id']}, attempt {message['attempt']}, sent {message['timestamp']}")
    show_message(message)
    if with_receipt:
        say(f"  receipt {message['receipt']}")


def show_message(message: dict[str, Any]) -> None:
    """Print what a message carries: options, attributes, body."""
    for name in ("key", "group", "priority", "dedup_id", "expires"):
        if name in message:
            say(f"  {name} {printable(str(message[name]))}")
    for name, value in (message.get("attributes") or {}).items():
        say(f"  {printable(name)}: {printable(str(value))}")
    body = message.get("body")
    text = printable(body) if body is not None else f"(binary, base64) {message.get('body_base64', '')}"
    say("\n".join(f"    {line}" for line in text.split("\n")))
