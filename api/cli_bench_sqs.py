"""The command that holds SQS against the native API, and against moto."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter, validators

from api.bench import BenchError
from api.bench_client import Connection
from api.bench_sqs import BATCH, WORKLOADS, Face, Figure, Native, Sqs, compare
from api.console import DEFAULT_URL, CommandError, Exit, Json, Url, UsageError, complain, say, say_json, say_table
from api.console_client import Client, queue_path

MOTO_SHARE = 20
"""Moto gets one message where the others get so many: it is that much slower, and the run would never end."""
MOTO_STARTS_S = 30.0

_positive = validators.Number(gte=1)


def sqs(
    *,
    messages: Annotated[int, Parameter(alias="-n", validator=_positive, help="Messages of a workload's round.")] = 4000,
    rounds: Annotated[int, Parameter(validator=_positive, help="How often everything is done in turns.")] = 3,
    body_bytes: Annotated[int, Parameter(validator=validators.Number(gte=8, lte=2**18), help="Of one body.")] = 1024,
    connections: Annotated[
        int, Parameter(alias="-c", validator=validators.Number(gte=1, lte=10_000), help="Requests outstanding.")
    ] = 64,
    moto: Annotated[bool, Parameter(help="Start moto's server as well, and measure it in the same run.")] = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> int:
    """Hold SQS against the native API: one at a time and ten at a time, on one queue of a running cluster.

    The cluster must be without access keys. Moto is not installed with Trimaran: `pipx install 'moto[server]'`, or
    anything else that puts `moto_server` on the path.

    ```
    trimaran bench sqs
    trimaran bench sqs --moto --json
    ```

    Exit code 1: something was refused, lost or doubled (but by moto, which now and then leases a message to two).
    """
    client, queue = Client(url), f"bench-{secrets.token_hex(4)}"
    if moto and shutil.which("moto_server") is None:
        raise UsageError("moto_server is not on the path: pipx install 'moto[server]'")
    try:
        with _moto(wanted=moto) as moto_url:
            figures = _run(client.urls, moto_url, queue, messages, rounds, connections, body_bytes, quiet=json)
    except* (BenchError, OSError, TimeoutError) as errors:
        raise CommandError(str(errors.exceptions[0])) from None
    finally:
        client.close()
        client.request("DELETE", queue_path(queue))
    if json:
        say_json({"figures": msgspec.to_builtins(figures)})
    else:
        _show(figures, connections, body_bytes)
    return Exit.DONE


def _run(
    urls: list[str],
    moto_url: str | None,
    queue: str,
    messages: int,
    rounds: int,
    connections: int,
    body_bytes: int,
    *,
    quiet: bool,
) -> list[Figure]:
    import uvloop

    async def work() -> list[Figure]:
        made = Sqs("sqs", urls, await _create(urls[0], queue))
        faces: dict[str, tuple[Face, int]] = {"native": (Native(urls, queue), messages), "sqs": (made, messages)}
        if moto_url is not None:
            moto = Sqs("moto", [moto_url], await _create(moto_url, queue), exact=False)  # its threads race
            faces["moto"] = (moto, max(BATCH, messages // MOTO_SHARE))
        progress = (lambda _: None) if quiet else complain
        return await compare(faces, rounds=rounds, connections=connections, body_bytes=body_bytes, progress=progress)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work())


async def _create(url: str, queue: str) -> str:
    """Create the queue by SQS: what both faces use is then the very same."""
    request = Sqs("", [url], "").ask("CreateQueue", QueueName=queue)
    connection = await Connection.open(url)
    with closing(connection):
        answer = await connection.request("POST", request.path, request.content, Sqs.kind, request.headers)
    if answer.status != 200:
        raise BenchError(f"HTTP {answer.status}: {answer.content[:300].decode(errors='replace')}")
    created: dict[str, Any] = msgspec.json.decode(answer.content)
    return str(created["QueueUrl"])


@contextmanager
def _moto(*, wanted: bool) -> Iterator[str | None]:
    """Moto's server on a free port of this machine, as long as it is needed."""
    if not wanted:
        yield None
        return
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    command = ["moto_server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    until_s = time.monotonic() + MOTO_STARTS_S
    while time.monotonic() < until_s and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise CommandError("moto's server does not come up")


def _show(figures: list[Figure], connections: int, body_bytes: int) -> None:
    say(f"bodies of {body_bytes:,} bytes, {connections} connections")
    columns = ("workload", "face", "requests/s", "messages/s", "p50 ms", "p95 ms", "p99 ms")
    rows = [
        (
            *(each.workload, each.face, round(each.requests_per_s), round(each.messages_per_s)),
            *(f"{took:.1f}" for took in (each.latency.p50_ms, each.latency.p95_ms, each.latency.p99_ms)),
        )
        for each in figures
    ]
    say_table(columns, rows, numbers=columns[2:])
    rates = {(each.face, each.workload): each.requests_per_s for each in figures}
    for workload in WORKLOADS:
        share = rates["sqs", workload] / rates["native", workload]
        more = f", {rates['sqs', workload] / rates['moto', workload]:.1f} × moto" if ("moto", workload) in rates else ""
        say(f"{workload}: SQS makes {share:.0%} of the native API's requests{more}")
