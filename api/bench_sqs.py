"""SQS against the native API, request by request, on one queue of one running cluster; and against moto, if wanted.

Every face does the same work through the same bare client, in turns, so that what else happens on the machine meets all
of them alike. A workload sends and takes away all its messages, and counts what came: a figure of a queue that loses
messages is none.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, Protocol

import msgspec

from api.bench import BenchError, Latency
from api.bench_client import Answer, Connection

BATCH = 10
"""What SQS allows at a time."""
_JSON, _AWS_JSON = "application/json", "application/x-amz-json-1.0"
_SIGNED = (
    "AWS4-HMAC-SHA256 Credential=bench/20260101/us-east-1/sqs/aws4_request, SignedHeaders=host, Signature=" + "0" * 64
)
"""SDKs always sign, and a cluster without access keys lets them."""

SILENCE_MAX_S = 60.0
"""When nothing has come for so long, what is missing is lost. Longer than a lease."""
WORKLOADS = ("send", "receive + delete", f"send {BATCH}", f"receive {BATCH} + delete {BATCH}")


class Request(NamedTuple):
    """What is sent to a node."""

    path: str
    content: bytes
    headers: bytes = b""


class Face(Protocol):
    """An API by which the queue is used. `urls` are the nodes, `kind` is the content type.

    exact: a message that comes twice while it is leased is a broken promise, and so is an error of the server. What is
    not exact is asked again instead, and only what it answers counts.
    """

    name: str
    urls: list[str]
    kind: str
    exact: bool

    def send(self, bodies: list[str]) -> Request:
        """Send one message, or several."""
        ...

    def receive(self, most: int) -> Request:
        """Receive so many at most."""
        ...

    def received(self, content: bytes) -> list[tuple[str, str]]:
        """The bodies in an answer, each with what takes it away."""
        ...

    def delete(self, receipts: list[str]) -> Request:
        """Take messages away."""
        ...


class Native:
    """The native API, in JSON."""

    name, kind, exact = "native", _JSON, True

    def __init__(self, urls: list[str], queue: str) -> None:
        self.urls, self._path = urls, f"/v1/queues/{queue}"

    def send(self, bodies: list[str]) -> Request:
        """Send one message, or several."""
        messages = [{"body": body} for body in bodies]
        wish: Any = messages[0] if len(messages) == 1 else {"messages": messages}
        return Request(f"{self._path}/messages", msgspec.json.encode(wish))

    def receive(self, most: int) -> Request:
        """Receive so many at most."""
        return Request(f"{self._path}/receive", msgspec.json.encode({"max": most}))

    def received(self, content: bytes) -> list[tuple[str, str]]:
        """The bodies in an answer, each with what takes it away."""
        return [(each["body"], each["receipt"]) for each in msgspec.json.decode(content)["messages"]]

    def delete(self, receipts: list[str]) -> Request:
        """Take messages away."""
        return Request(f"{self._path}/ack", msgspec.json.encode({"receipts": receipts}))


class Sqs:
    """SQS, in JSON 1.0, as SDKs speak it."""

    kind = _AWS_JSON

    def __init__(self, name: str, urls: list[str], queue_url: str, *, exact: bool = True) -> None:
        self.name, self.urls, self.exact, self._queue_url = name, urls, exact, queue_url

    def ask(self, action: str, **wish: Any) -> Request:
        """A request for an action."""
        headers = f"X-Amz-Target: AmazonSQS.{action}\r\nAuthorization: {_SIGNED}\r\n"
        return Request("/", msgspec.json.encode(wish), headers.encode())

    def send(self, bodies: list[str]) -> Request:
        """Send one message, or several."""
        if len(bodies) == 1:
            return self.ask("SendMessage", QueueUrl=self._queue_url, MessageBody=bodies[0])
        entries = [{"Id": str(number), "MessageBody": body} for number, body in enumerate(bodies)]
        return self.ask("SendMessageBatch", QueueUrl=self._queue_url, Entries=entries)

    def receive(self, most: int) -> Request:
        """Receive so many at most."""
        return self.ask("ReceiveMessage", QueueUrl=self._queue_url, MaxNumberOfMessages=most)

    def received(self, content: bytes) -> list[tuple[str, str]]:
        """The bodies in an answer, each with what takes it away."""
        return [(each["Body"], each["ReceiptHandle"]) for each in msgspec.json.decode(content).get("Messages", ())]

    def delete(self, receipts: list[str]) -> Request:
        """Take messages away."""
        if len(receipts) == 1:
            return self.ask("DeleteMessage", QueueUrl=self._queue_url, ReceiptHandle=receipts[0])
        entries = [{"Id": str(number), "ReceiptHandle": each} for number, each in enumerate(receipts)]
        return self.ask("DeleteMessageBatch", QueueUrl=self._queue_url, Entries=entries)


class Figure(msgspec.Struct, frozen=True):
    """One workload of one face. `requests_per_s` counts requests, of which a receive and its delete are two."""

    face: str
    workload: str
    messages: int
    requests: int
    seconds: float
    requests_per_s: float
    messages_per_s: float
    latency: Latency


class _Measured:
    """What the rounds of one workload of one face took together."""

    def __init__(self) -> None:
        self.messages, self.requests, self.seconds = 0, 0, 0.0
        self.took_s = array("d")

    def figure(self, face: str, workload: str) -> Figure:
        return Figure(
            face,
            workload,
            self.messages,
            self.requests,
            round(self.seconds, 3),
            round(self.requests / self.seconds, 1),
            round(self.messages / self.seconds, 1),
            Latency.of(self.took_s),
        )


async def compare(
    faces: dict[str, tuple[Face, int]],
    *,
    rounds: int,
    connections: int,
    body_bytes: int,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Figure]:
    """Every workload by every face in turns, `rounds` times; each face with its number of messages.

    Raises `BenchError` when something is refused, lost or doubled.
    """
    measured = {(name, workload): _Measured() for workload in WORKLOADS for name in faces}
    for number in range(rounds):
        for batch in (1, BATCH):
            for name, (face, messages) in faces.items():
                progress(f"round {number + 1} of {rounds}: {name}, {batch} at a time")
                run = _Run(face, messages, batch, connections, body_bytes)
                send, take = (WORKLOADS[0], WORKLOADS[1]) if batch == 1 else (WORKLOADS[2], WORKLOADS[3])
                await run.work(run.sends, measured[name, send])
                await run.work(run.takes, measured[name, take])
                run.check()
                run.close()
    return [found.figure(*key) for key, found in measured.items()]


class _Run:
    """All messages sent and taken away once, by one face."""

    def __init__(self, face: Face, messages: int, batch: int, connections: int, body_bytes: int) -> None:
        self._face, self._messages, self._batch, self._connections = face, messages, batch, connections
        self._tail = "x" * max(0, body_bytes - 8)
        self._numbers = iter(range(0, messages, batch))
        self._came: Counter[str] = Counter()
        self._news_s = 0.0
        self._open: list[Connection | None] = [None] * connections
        self._measured = _Measured()

    async def work(self, worker: Callable[[int], Coroutine[Any, Any, None]], measured: _Measured) -> None:
        """Let all connections work, and add up what that took."""
        self._measured = measured
        began_s = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(self._connections):
                group.create_task(worker(number))
        measured.seconds += time.perf_counter() - began_s
        measured.messages += self._messages

    async def sends(self, connection: int) -> None:
        """Send as long as there is something to send."""
        for first in self._numbers:
            bodies = [self._body(number) for number in range(first, min(first + self._batch, self._messages))]
            await self._ask(connection, self._face.send(bodies))

    async def takes(self, connection: int) -> None:
        """Receive and delete until all have come, or none any more."""
        self._news_s = time.perf_counter()
        while len(self._came) < self._messages and time.perf_counter() < self._news_s + SILENCE_MAX_S:
            answer = await self._ask(connection, self._face.receive(self._batch))
            got = self._face.received(answer.content)
            self._came.update(body for body, _ in got)
            if got:
                self._news_s = time.perf_counter()
                await self._ask(connection, self._face.delete([receipt for _, receipt in got]))

    def check(self) -> None:
        """Raises `BenchError` if not every message came once."""
        lost = self._messages - len(self._came)
        twice = sum(count != 1 for count in self._came.values()) if self._face.exact else 0
        if lost or twice:
            raise BenchError(f"{self._face.name}: of {self._messages} messages {lost} were lost and {twice} came twice")

    def close(self) -> None:
        """Let go of the connections."""
        for connection in self._open:
            if connection is not None:
                connection.close()

    def _body(self, number: int) -> str:
        return f"{number:08d}{self._tail}"

    async def _ask(self, number: int, request: Request) -> Answer:
        connection = self._open[number]
        if connection is None or not connection.is_open:
            url = self._face.urls[number % len(self._face.urls)]
            connection = self._open[number] = await Connection.open(url)
        began_s = time.perf_counter()
        answer = await connection.request("POST", request.path, request.content, self._face.kind, request.headers)
        if answer.status >= 500 and not self._face.exact:
            return await self._ask(number, request)
        self._measured.took_s.append(time.perf_counter() - began_s)
        self._measured.requests += 1
        if not 200 <= answer.status < 300:
            said = answer.content[:300].decode(errors="replace")
            raise BenchError(f"{self._face.name}: HTTP {answer.status}: {said}")
        return answer
