"""Commands for messages: send, receive, ack."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, validators

from api.console import DEFAULT_URL, Exit, Json, Url, UsageError, complain, printable, read_lines, say, say_json
from api.console_client import Client, queue_path
from storage.limits import BATCH_MESSAGES_MAX, OPERATION_BYTES_MAX

BATCH_BYTES_MAX = OPERATION_BYTES_MAX // 4
"""Bytes of bodies in one request: a quarter, because JSON may spell a byte with several."""

WAIT_MS_MAX = 20_000
"""Longest a node holds back an empty answer; a longer --wait asks again."""

Queue = Annotated[str, Parameter(help="The queue.")]


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
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> int:
    """Send a message, or a file of them.

    When it returns, the messages are on the disks of a majority of the nodes.

    ```
    trimaran send orders "one sloop, two oars"
    trimaran send orders --attribute colour=red "a red buoy"
    trimaran send photos - < cat.jpg
    trimaran send orders --file orders.jsonl
    ```

    With --json, one line for each message: its id and its time.
    """
    if (body is None) == (file is None):
        raise UsageError("give either a body (- for standard input) or --file")
    bodies = read_lines(_read(file)) if file is not None else [_body(body or "")]
    if not bodies:
        complain(f"{file} is empty: nothing was sent")
        return Exit.DONE
    attributes = dict(_attribute(text) for text in attribute)
    client, sent = Client(url), 0
    for batch in _batches(bodies):
        messages = [_message(item, attributes) for item in batch]
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
    ack: Annotated[bool, Parameter(help="Ack what was printed: it is gone then.")] = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> int:
    """Receive messages: each is leased to you, and comes back when the lease ends and it was not acked.

    ```
    trimaran receive orders
    trimaran receive orders --max 100 --wait 20 --ack
    trimaran receive orders --lease 300 --json | jq -r .receipt
    ```

    With --json, one line for each message. Exit code 3: nothing was received.
    """
    client, asked, left_ms = Client(url), {"max": min(max_, BATCH_MESSAGES_MAX)}, round(wait * 1000)
    if lease is not None:
        asked["lease_ms"] = max(1, round(lease * 1000))
    messages: list[Any] = []
    while not messages:
        wait_ms = min(left_ms, WAIT_MS_MAX)
        answer = client.request("POST", queue_path(queue, "receive"), {**asked, "wait_ms": wait_ms}, wait_ms=wait_ms)
        messages, left_ms = answer["messages"], left_ms - wait_ms
        if not messages and left_ms <= 0:
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
    return _settle(client, queue, [message["receipt"] for message in messages], json=False, quiet=True)


def ack(
    queue: Queue,
    receipts: Annotated[
        tuple[str, ...], Parameter(allow_leading_hyphen=True, help="Receipts of messages; - reads one from each line.")
    ],
    /,
    *,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> int:
    """Ack messages: they are done, and never delivered again.

    ```
    trimaran ack orders AQAAAAAAAAABb3N2
    trimaran receive orders --json | jq -r .receipt | trimaran ack orders -
    ```

    With --json, one line for each receipt. Exit code 1: some receipt was stale (its lease is over) or invalid.
    """
    if receipts == ("-",):
        receipts = tuple(line.decode("utf-8", "replace") for line in read_lines(sys.stdin.buffer.read()) if line)
        if not receipts:
            complain("no receipts came in: nothing was acked")
            return Exit.DONE
    return _settle(Client(url), queue, receipts, json=json, quiet=False)


def _settle(client: Client, queue: str, receipts: Iterable[str], *, json: bool, quiet: bool) -> int:
    receipts, acked, failed = list(receipts), 0, 0
    for start in range(0, len(receipts), BATCH_MESSAGES_MAX):
        batch = receipts[start : start + BATCH_MESSAGES_MAX]
        for result in client.request("POST", queue_path(queue, "ack"), {"receipts": batch})["results"]:
            if json:
                say_json(result)
            if result["status"] == "acked":
                acked += 1
            else:
                failed += 1
                complain(f"not acked, {result['status']}: {printable(str(result['receipt']))}")
    if not json and not quiet:
        say(f"acked {acked:,} of {acked + failed:,}")
    return Exit.FAILED if failed else Exit.DONE


def _body(text: str) -> bytes:
    return sys.stdin.buffer.read() if text == "-" else text.encode("utf-8", "surrogateescape")


def _read(file: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise UsageError(f"--file {file} cannot be read: {error.strerror}") from error


def _attribute(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"--attribute {text!r} is not NAME=VALUE")
    return name, value


def _message(body: bytes, attributes: dict[str, str]) -> dict[str, Any]:
    try:
        message: dict[str, Any] = {"body": body.decode()}
    except UnicodeDecodeError:
        message = {"body_base64": base64.b64encode(body).decode()}
    return message | ({"attributes": attributes} if attributes else {})


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
    for name, value in (message.get("attributes") or {}).items():
        say(f"  {printable(name)}: {printable(str(value))}")
    body = message.get("body")
    text = printable(body) if body is not None else f"(binary, base64) {message.get('body_base64', '')}"
    say("\n".join(f"    {line}" for line in text.split("\n")))
    if with_receipt:
        say(f"  receipt {message['receipt']}")
