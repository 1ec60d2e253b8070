"""The command that loads a cluster and says what it did."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import nullcontext
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import App, Parameter, validators

from api.bench import NUMBER_BYTES, Bench, BenchError, Format, Plan, Progress, Result, Verdict
from api.console import DEFAULT_URL, CommandError, Exit, Json, Url, complain, say, say_json, say_table
from api.console_client import Client, queue_path
from storage.limits import BATCH_MESSAGES_MAX

_batch = validators.Number(gte=1, lte=BATCH_MESSAGES_MAX)
_positive = validators.Number(gte=1)


bench = App(name="bench", help_format="markdown", default_parameter=Parameter(negative=""))
bench.command("api.cli_failover:failover", name="failover")
bench.command("api.cli_bench_sqs:sqs", name="sqs")


@bench.default
def load(
    *,
    messages: Annotated[int, Parameter(alias="-n", validator=_positive, help="Messages of each workload.")] = 50_000,
    batch: Annotated[int, Parameter(alias="-b", validator=_batch, help="Messages in one send.")] = 1,
    receive_batch: Annotated[int, Parameter(validator=_batch, help="Messages in one receive and one ack.")] = 256,
    body_bytes: Annotated[
        int, Parameter(validator=validators.Number(gte=NUMBER_BYTES, lte=2**20), help="Bytes of one body.")
    ] = 1024,
    connections: Annotated[
        int, Parameter(alias="-c", validator=validators.Number(gte=1, lte=10_000), help="Requests outstanding.")
    ] = 64,
    workload: Annotated[
        Literal["all", "backlog", "stream"],
        Parameter(help="backlog: send all, then receive all; stream: both at once."),
    ] = "all",
    format_: Annotated[Format, Parameter(name="--format", help="How requests are written.")] = "msgpack",
    seed: Annotated[int, Parameter(help="What the bodies are made from.")] = 1,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> int:
    """Load a running cluster, and check that nothing is lost, doubled or damaged.

    It works on a queue of its own, which is deleted afterwards. Several URLs share the connections.

    ```
    trimaran bench
    trimaran bench --messages 500000 --batch 256 --connections 8
    trimaran bench --url http://127.0.0.1:7700,http://127.0.0.1:7701,http://127.0.0.1:7702 --json
    ```

    Exit code 1: the check failed, or the cluster refused.
    """
    client, queue = Client(url), f"bench-{secrets.token_hex(4)}"
    plan = Plan(
        urls=client.urls,
        queue=queue,
        messages=messages,
        batch=batch,
        receive_batch=receive_batch,
        body_bytes=body_bytes,
        connections=connections,
        format=format_,
        seed=seed,
    )
    client.request("PUT", queue_path(queue), {})
    try:
        with _progress(quiet=json) as progress:
            results, verdict = run(plan, workload, progress)
    except BenchError as error:
        raise CommandError(str(error)) from error
    finally:
        client.close()  # a node may have closed it while it was idle
        client.request("DELETE", queue_path(queue))
    if json:
        say_json(msgspec.to_builtins({"plan": plan, "results": results, "check": verdict}))
    else:
        show(plan, results, verdict)
    return Exit.DONE if verdict.is_clean else Exit.FAILED


def run(plan: Plan, workload: str = "all", progress: Progress = lambda *_: None) -> tuple[list[Result], Verdict]:
    """Run the workloads on a queue that exists and is empty. Raises `BenchError`.

    "publish" leaves everything waiting, which the check takes for lost.
    """
    import uvloop

    async def work() -> tuple[list[Result], Verdict]:
        load = Bench(plan, progress)
        try:
            results = []
            if workload in ("all", "backlog", "publish"):
                results.append(await load.publish())
            if workload in ("all", "backlog"):
                results.append(await load.consume())
            if workload in ("all", "stream"):
                results.append(await load.stream())
            return results, load.verdict()
        finally:
            load.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work())


def show(plan: Plan, results: list[Result], verdict: Verdict) -> None:
    """Print the figures for people."""
    say(
        f"{plan.messages:,} messages of {plan.body_bytes:,} bytes, {plan.batch} in a send, {plan.receive_batch} in a "
        f"receive, {plan.connections} connections to {len(plan.urls)} node(s), {plan.format}"
    )
    rates = ("workload", "messages/s", "MiB/s", "seconds", "requests", "retries")
    say_table(
        rates,
        [(r.workload, round(r.messages_per_s), r.mib_per_s, r.seconds, r.requests, r.retries) for r in results],
        numbers=rates[1:],
    )
    times = ("workload", "what", "p50 ms", "p95 ms", "p99 ms", "max ms")
    rows = [
        (r.workload, what, f"{took.p50_ms:.1f}", f"{took.p95_ms:.1f}", f"{took.p99_ms:.1f}", f"{took.max_ms:.1f}")
        for r in results
        for what, took in r.latency.items()
        if what != "end_to_end" or r.workload == "stream"
    ]
    say_table(times, rows, numbers=times[2:])
    say(
        f"check: {verdict.sent:,} sent, {verdict.received:,} received, {verdict.lost:,} lost, "
        f"{verdict.twice:,} twice, {verdict.damaged:,} damaged"
    )
    if not verdict.is_clean:
        complain("trimaran: a promise was broken")


def _progress(*, quiet: bool) -> Any:
    if quiet:
        return nullcontext(lambda *_: None)
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    class Shown(Bars):
        def __enter__(self) -> Any:
            super().__enter__()
            known: dict[str, Any] = {}

            def update(name: str, through: int, total: int) -> None:
                if name not in known:
                    known[name] = self.add_task(name, total=total)
                self.update(known[name], completed=through)

            return update

    columns = (TextColumn("{task.description:8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Shown(*columns, console=Console(stderr=True), transient=True)
