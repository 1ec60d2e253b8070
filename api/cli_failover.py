"""The command that kills leaders and says how long nobody noticed."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter, validators

from api.console import CommandError, Exit, Json, complain, say, say_json, say_table
from api.failover import Failover, FailoverError, Findings
from api.local import local_cluster, taken_port, wait_until_ready

NODES = 3
TARGETS_MS = {False: "p50 200, p95 300", True: "50"}
"""What issue and architecture promise of the time until writes are acknowledged again: killed, and asked to stop."""


def failover(
    *,
    rounds: Annotated[
        int, Parameter(alias="-n", validator=validators.Number(gte=1, lte=10_000), help="Leaders to kill.")
    ] = 50,
    planned: Annotated[bool, Parameter(help="Ask each leader to stop (SIGTERM) instead of killing it.")] = False,
    workers: Annotated[
        int, Parameter(alias="-c", validator=validators.Number(gte=6, lte=1000), help="Requests outstanding.")
    ] = 18,
    body_bytes: Annotated[
        int, Parameter(validator=validators.Number(gte=16, lte=2**20), help="Bytes of one body.")
    ] = 1024,
    data: Annotated[
        Path | None, Parameter(help="A directory on the disk to measure; else one that is deleted afterwards.")
    ] = None,
    http_port: Annotated[int, Parameter(help="HTTP port of the first node; the others follow.")] = 17_700,
    tls: Annotated[bool, Parameter(help="Let the nodes talk over TLS.")] = False,
    json: Json = False,
) -> int:
    """Start a cluster of three on this machine, kill its leader under load, and measure until it is over it.

    Sends with and without Idempotency-Key, receives, acks, receives that wait, and reads run through the gateways of
    the two other nodes all the time; not one may fail. About four seconds a round.

    ```
    trimaran bench failover
    trimaran bench failover --planned --rounds 20
    trimaran bench failover --json | jq .every_ms
    ```

    Exit code 1: a request failed, or a message was lost or came as two.
    """
    if not 1 <= http_port <= 65_000:
        raise CommandError(f"--http-port {http_port}: choose from 1 to 65000")
    if (port := taken_port(NODES, http_port)) is not None:
        raise CommandError(f"port {port} is in use: choose others with --http-port")
    try:
        if data is not None:
            found = _run(data, http_port, rounds, planned, workers, body_bytes, tls)
        else:
            with tempfile.TemporaryDirectory(prefix="trimaran-") as directory:
                found = _run(Path(directory), http_port, rounds, planned, workers, body_bytes, tls)
    except FailoverError as error:
        raise CommandError(str(error)) from error
    if json:
        spreads = {name: found.spread(name) for name in ("first_ms", "every_ms", "gap_ms", "usual_gap_ms")}
        say_json(msgspec.to_builtins({"findings": found, "timeline": found.timeline(), **spreads}))
    else:
        show(found)
    return Exit.DONE if found.is_clean else Exit.FAILED


def _run(data: Path, http_port: int, rounds: int, planned: bool, workers: int, body_bytes: int, tls: bool) -> Findings:
    import uvloop

    async def work() -> Findings:
        nodes = local_cluster(NODES, data, http_port, tls=tls)
        try:
            for node in nodes:
                await node.start()
            if not await wait_until_ready(nodes, asyncio.Event()):
                raise FailoverError("the cluster did not start")
            run = Failover(nodes, planned=planned, workers=workers, body_bytes=body_bytes)
            return await run.run([None] * rounds, complain)
        finally:
            await asyncio.gather(*(node.kill() for node in nodes))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work())


def show(found: Findings) -> None:
    """Print the figures for people, and how they came about."""
    signal = "SIGTERM to" if found.planned else "SIGKILL of"
    say(f"{len(found.rounds)} rounds: {signal} the leader of three nodes on this machine, under load")
    what = {
        "first_ms": "until a write sent after the signal is acknowledged",
        "every_ms": "until each surviving gateway has acknowledged one",
        "gap_ms": "longest time without any acknowledgement",
        "usual_gap_ms": "the same without a failure, for as long before",
    }
    columns = ("", "p50 ms", "p95 ms", "max ms")
    spreads = ((words, found.spread(name)) for name, words in what.items())
    say_table(columns, [(words, s.p50_ms, s.p95_ms, s.max_ms) for words, s in spreads], numbers=columns[1:])
    say(f"target: {TARGETS_MS[found.planned]} ms. Since the signal, as the nodes' logs tell:")
    rows = [(step, s.p50_ms, s.p95_ms, s.max_ms) for step, s in found.timeline().items()]
    say_table(columns, rows, numbers=columns[1:])
    say(f"requests at surviving gateways: {', '.join(f'{count:,} {kind}' for kind, count in found.requests.items())}")
    say(f"failed: {sum(found.failures.values()):,}")
    say(f"messages: {found.sent:,} kept, {found.lost:,} lost, {found.doubled:,} doubled")
    for failure, count in found.failures.items():
        complain(f"trimaran: failed {count} times: {failure}")
    if found.lost or found.doubled:
        complain("trimaran: a promise was broken")
