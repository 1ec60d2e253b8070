"""`trimaran message`, `transaction`, `nack`, `extend`, and all that `send` and `queues create` can say: against a
gateway in the same process."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from api.cli import run
from tests.api.asking import ask, receipts, send
from tests.api.fake_client import Gateway, gateway

Trimaran = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
async def node() -> AsyncIterator[Gateway]:
    async with gateway() as opened:
        await ask(opened, "PUT", "/v1/queues/jobs", {})
        yield opened


@pytest.fixture
async def trimaran(node: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Trimaran:
    """Run a command line beside the gateway's loop: exit code, output, and what was said beside it."""
    monkeypatch.setenv("TRIMARAN_URL", f"http://127.0.0.1:{node.port}")

    async def command(*tokens: str, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = await asyncio.to_thread(run, tokens)
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


async def test_messages_are_listed_found_and_shown(node: Gateway, trimaran: Trimaran) -> None:
    await trimaran("send", "jobs", "a red buoy", "--key", "order-7", "--priority", "9", "-a", "colour=red")
    await trimaran("send", "jobs", "later", "--delay-ms", "5000")
    code, said, _ = await trimaran("message", "list", "jobs")
    assert code == 0
    assert "message 1, ready, 0 attempts, sent 2023-11-14T22:13:20.000Z\n  key order-7\n  priority 9\n" in said
    assert "  colour: red\n    a red buoy\n" in said
    assert "message 2, delayed until 2023-11-14T22:13:25.000Z, 0 attempts" in said
    _, found, _ = await trimaran("message", "list", "jobs", "--key", "order-7", "--json")
    assert [json.loads(line)["message_id"] for line in found.splitlines()] == [1]
    assert (await trimaran("message", "list", "jobs", "--key", "none"))[1] == "queue jobs has no such message\n"
    assert json.loads((await trimaran("message", "get", "jobs", "2", "--json"))[1])["state"] == "delayed"
    await receipts(node, "jobs", consumer="w")  # type: ignore[arg-type]
    assert "message 1, leased by w until " in (await trimaran("message", "get", "jobs", "1"))[1]


async def test_as_many_messages_are_listed_as_asked_for(node: Gateway, trimaran: Trimaran) -> None:
    await send(node, "jobs", *map(str, range(1000)))
    await send(node, "jobs", *map(str, range(1000)))
    _, said, _ = await trimaran("message", "list", "jobs", "--after", "500", "--max", "1200", "--json")
    assert [json.loads(line)["message_id"] for line in said.splitlines()] == list(range(501, 1701))


async def test_a_message_is_changed_and_cancelled(node: Gateway, trimaran: Trimaran) -> None:
    await send(node, "jobs", "a")
    tokens = ("--at", "2023-11-14T22:13:21Z", "--ttl-ms", "1000", "--priority", "3", "-a", "colour=blue")
    assert await trimaran("message", "change", "jobs", "1", *tokens) == (0, "message 1 of jobs is changed\n", "")
    seen = await ask(node, "GET", "/v1/queues/jobs/messages/1")
    assert (seen["due"], seen["expires"]) == ("2023-11-14T22:13:21.000Z", "2023-11-14T22:13:22.000Z")
    assert (seen["priority"], seen["attributes"]) == (3, {"colour": "blue"})
    await trimaran("message", "change", "jobs", "1", "--delay-ms", "0")
    assert (await ask(node, "GET", "/v1/queues/jobs/messages/1"))["state"] == "ready"
    assert (await trimaran("message", "change", "jobs", "1"))[0] == 2
    assert await trimaran("message", "cancel", "jobs", "1") == (0, "message 1 of jobs is cancelled\n", "")
    code, _, said = await trimaran("message", "cancel", "jobs", "1")
    assert (code, said.startswith("trimaran: There is no such message")) == (1, True)


async def test_a_message_tells_its_history_and_why_it_waits(node: Gateway, trimaran: Trimaran) -> None:
    await ask(node, "PUT", "/v1/queues/jobs", {"history_ms": 60_000})
    await send(node, "jobs", "a")
    assert "next in its turn" in (await trimaran("message", "why", "jobs", "1"))[1]
    code, said, _ = await trimaran("receive", "jobs", "--json")
    receipt = json.loads(said)["receipt"]
    code, said, _ = await trimaran("extend", "jobs", receipt, "--lease-ms", "90000")
    assert (code, said) == (0, "extended 1 of 1\n")
    _, said, _ = await trimaran("message", "why", "jobs", "1")
    assert said == "message 1 is leased\n  leased, until 2023-11-14T22:14:50.000Z\n"
    tokens = ("--delay-ms", "7000", "--reason", "no \x1b wind")
    assert await trimaran("nack", "jobs", receipt, *tokens) == (0, "nacked 1 of 1\n", "")
    assert json.loads((await trimaran("message", "why", "jobs", "1", "--json"))[1])["reasons"][0]["code"] == "delayed"
    await trimaran("message", "cancel", "jobs", "1")
    _, said, _ = await trimaran("message", "history", "jobs", "1")
    told = [line.partition("  ")[2] for line in said.splitlines()[:-1]]
    assert told == ["sent", "leased", "nacked, reason no \\x1b wind", "cancelled"]
    assert said.endswith("it is not in the queue any more\n")
    assert (await trimaran("nack", "jobs", receipt))[0] == 1
    assert await trimaran("nack", "jobs", "-") == (0, "", "no receipts came in: nothing was nacked\n")


async def test_a_transaction_happens_or_says_what_keeps_it(node: Gateway, trimaran: Trimaran, tmp_path: Path) -> None:
    await trimaran("queues", "create", "mails")
    await send(node, "jobs", "a", "b", "c")
    one, two, three = await receipts(node, "jobs")
    steps = {
        "acks": [{"queue": "jobs", "receipts": [one]}],
        "nacks": [{"queue": "jobs", "receipts": [two]}],
        "extends": [{"queue": "jobs", "receipts": [three], "lease_ms": 60_000}],
        "sends": [{"queue": "mails", "messages": [{"body": "x"}, {"body": "y"}]}],
    }
    file = tmp_path / "steps.json"
    file.write_text(json.dumps(steps))
    done = "acked 1\nnacked 1\nextended 1\nsent 2 to mails\n"
    assert await trimaran("transaction", str(file)) == (0, done, "")
    code, _, said = await trimaran("transaction", "-", stdin=json.dumps(steps).encode())
    assert (code, "A receipt is stale: nothing was done" in said) == (1, True)
    assert "$.acks[0].receipts[0]" in said
    assert (await ask(node, "GET", "/v1/queues/mails"))["ready"] == 2
    assert (await trimaran("transaction", "-", stdin=b"{"))[0] == 2
    assert (await trimaran("transaction", str(tmp_path / "none")))[0] == 2


async def test_a_message_is_sent_with_every_option_and_a_queue_created_with_any_setting(
    node: Gateway, trimaran: Trimaran
) -> None:
    settings = ("dead_letter_queue=dead", "attempts_max=5", 'rate={"messages": 3}', "dedup_window_ms=1000")
    tokens = [token for setting in settings for token in ("--set", setting)]
    assert (await trimaran("queues", "create", "mails", "--lease-ms", "5000", *tokens))[0] == 0
    told = (await ask(node, "GET", "/v1/queues/mails"))["settings"]
    assert (told["lease_ms"], told["attempts_max"], told["dead_letter_queue"]) == (5000, 5, "dead")
    assert told["rate"]["messages"] == 3
    assert (await trimaran("queues", "create", "mails", "--set", "nonsense"))[0] == 2
    options = ("--at", "2023-11-14T22:13:30Z", "--ttl-ms", "5000", "--group", "g", "--dedup-id", "d")
    for _ in range(2):
        assert (await trimaran("send", "mails", "a", *options))[0] == 0
    page = (await ask(node, "GET", "/v1/queues/mails/messages"))["messages"]
    assert [(m["due"], m["expires"], m["group"], m["dedup_id"]) for m in page] == [
        ("2023-11-14T22:13:30.000Z", "2023-11-14T22:13:35.000Z", "g", "d")
    ]
