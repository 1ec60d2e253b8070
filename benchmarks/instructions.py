"""What a request costs a gateway, and a message the rules, in instructions: the same figures on a busy machine.

python -m benchmarks.instructions

Valgrind counts them, so that nothing else on the machine matters; the kernel's are not in it. A gateway is given
requests without sockets, by 64 connections, and a cluster that answers at once; the rules are given entries, in memory.
Each is run twice, and the difference counted. It takes some minutes.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import cast

import msgspec
import uvloop

from api.console import say, say_table
from api.http import HttpServer
from api.request import HttpSettings
from api.server import GuardedServer
from cluster.client import Client, Reply
from storage import machine
from storage.block import encode_block
from storage.memory_store import MemoryStore
from storage.operations import (
    Ack,
    Claim,
    Delivery,
    Forget,
    Operation,
    Outcome,
    PutQueue,
    Receive,
    Received,
    Send,
    Sent,
    Settled,
    encode_entry,
    encode_item,
)
from storage.settings import QueueSettings

CONNECTIONS = 64
ROUNDS = {"gateway": (5, 25), "rules": (20, 70)}
"""Of the two runs of each."""
BODY = 1024
TOKEN, MESSAGE_ID, NOW_MS = 1 << 61, 12345, 1_700_000_000_000
OUTCOMES: dict[type[Operation], Outcome] = {
    Send: Sent(MESSAGE_ID, 1, NOW_MS),
    Receive: Received(TOKEN, NOW_MS, [Delivery(MESSAGE_ID, 1, 1, NOW_MS)]),
    Ack: Settled([]),
}
REQUESTS = {
    "send": ("messages", {"body": "x" * BODY}),
    "receive": ("receive", {"max": 1}),
    "ack": ("ack", {"receipts": [f"1{TOKEN:016x}{MESSAGE_ID:x}"]}),
}
ENTRIES = {"one to an entry": (1, 1), "32 single ones to an entry": (1, 32), "batches of 256": (256, 1)}
"""Messages of an operation, operations of an entry."""


# --- a gateway --------------------------------------------------------------------------------------------------------


class _Cluster:
    """Answers at once."""

    block = memoryview(encode_block([(b"x" * BODY, b"")]))

    def access_index(self) -> int:
        return 0

    async def submit(self, operation: Operation, block: bytes = b"", *, timeout_ms: int) -> Reply:
        return Reply(OUTCOMES[type(operation)], self.block)


class _Socket(asyncio.Transport):
    """Tells of answers."""

    def __init__(self, answered: asyncio.Semaphore) -> None:
        super().__init__()
        self._answered = answered

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert bytes(data).startswith(b"HTTP/1.1 20"), f"the gateway answered {bytes(data)!r}"
        self._answered.release()

    def get_extra_info(self, name: str, default: object = None) -> object:
        return ("127.0.0.1", 1) if name == "peername" else default

    def is_closing(self) -> bool:
        return False

    def resume_reading(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass


async def ask_gateway(kind: str, rounds: int) -> None:
    """Have each connection make `rounds` requests."""
    server = HttpServer(cast(Client, _Cluster()), HttpSettings())
    await server._runner.setup()
    accept = cast(GuardedServer, server._runner.server)
    path, wish = REQUESTS[kind]
    body = msgspec.json.encode(wish)
    head = f"POST /v1/queues/orders/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\nContent-Type: application/json"
    request = f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    answered = asyncio.Semaphore(0)
    connections = [accept() for _ in range(CONNECTIONS)]
    for connection in connections:
        connection.connection_made(_Socket(answered))
    for _ in range(rounds):
        for connection in connections:
            connection.data_received(request)
        for _ in connections:
            await answered.acquire()


# --- the rules --------------------------------------------------------------------------------------------------------


def live_through(batch: int, singles: int, rounds: int) -> None:
    """Send, receive and ack, an entry each, `rounds` times."""
    store, seq, now_ms = MemoryStore(), 0, NOW_MS
    block = encode_block([(b"x" * BODY, b"")] * batch)

    def apply(operations: list[Operation], blocks: bytes = b"") -> machine.Turned:
        nonlocal seq, now_ms
        now_ms += 10
        items = [encode_item(7, seq + number, each, blocks) for number, each in enumerate(operations, 1)]
        seq += len(operations)
        entry = encode_entry(now_ms, [*items, encode_item(7, 0, Forget(max(1, seq - 200)))])
        store.begin()
        index = store.last_index + 1
        store.append(index, 1, entry)
        turned = machine.apply(store, index, entry)
        store.commit()
        return turned

    apply([PutQueue("orders", QueueSettings())])
    for done in range(rounds):
        apply([Send("orders", batch)] * singles, block)
        tokens = range(1 + done * singles, 1 + (done + 1) * singles)
        turned = apply([Receive("orders", batch, 0, token) for token in tokens])
        held = [applied.outcome for applied in turned.applied if isinstance(applied.outcome, Received)]
        apply([Ack("orders", [Claim(of.token, each.message_id, each.count) for each in of.deliveries]) for of in held])


# --- counting ---------------------------------------------------------------------------------------------------------


def instructions(what: str, name: str, rounds: int) -> int:
    """What one run takes, from the start of Python to its end."""
    tool = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    run = [*tool, sys.executable, "-m", "benchmarks.instructions", what, name, str(rounds)]
    told = subprocess.run(run, env={**os.environ, "PYTHONHASHSEED": "0"}, capture_output=True, text=True, check=True)
    found = re.search(r"I\s+refs:\s+([\d,]+)", told.stderr)
    assert found is not None, told.stderr
    return int(found[1].replace(",", ""))


def count(what: str, name: str, of_a_round: int) -> int:
    """Instructions of one request, or of one message's life."""
    say(f"{what}: {name} …")
    few, many = ROUNDS[what]
    return (instructions(what, name, many) - instructions(what, name, few)) // (many - few) // of_a_round


def main() -> None:
    """Count, and show."""
    runs: dict[str, Callable[[str, int], None]] = {
        "gateway": lambda name, rounds: uvloop.run(ask_gateway(name, rounds)),
        "rules": lambda name, rounds: live_through(*ENTRIES[name], rounds),
    }
    if len(sys.argv) == 4:
        runs[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
        return
    if shutil.which("valgrind") is None:
        raise SystemExit("There is no valgrind: apt-get install valgrind")
    rows = [("gateway", name, count("gateway", name, CONNECTIONS)) for name in REQUESTS]
    rows += [("rules", name, count("rules", name, batch * singles)) for name, (batch, singles) in ENTRIES.items()]
    say_table(("of", "for one", "instructions"), [(what, name, f"{found:,}") for what, name, found in rows])


if __name__ == "__main__":
    main()
