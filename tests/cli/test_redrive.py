"""`trimaran redrive` against a gateway in the same process."""

from __future__ import annotations

import asyncio
import json

import pytest

from api.cli import run
from tests.api.fake_client import Gateway, gateway
from tests.api.test_redrive import fail


class Shell:
    """Runs commands beside the gateway's loop."""

    def __init__(self, node: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setenv("TRIMARAN_URL", f"http://127.0.0.1:{node.port}")
        monkeypatch.setattr("api.cli_redrive.POLL_S", 0.01)
        self._capsys = capsys

    async def __call__(self, *tokens: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(run, ["redrive", *tokens])
        said = self._capsys.readouterr()
        return code, said.out, said.err


async def test_dead_letters_are_looked_at_redriven_and_taken_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with gateway() as node:
        await fail(node, "a", "b")
        await fail(node, "c", queue="cars", reason="no fuel")
        shell = Shell(node, monkeypatch, capsys)
        code, said, _ = await shell("reasons", "dead")
        assert code == 0
        assert said.index("no wind") < said.index("no fuel")
        assert await shell("start", "dead", "--of", "cars", "--dry-run") == (0, "1 would move to cars\n", "")
        assert await shell("start", "dead", "--reason", "no hope", "--dry-run") == (0, "nothing would move\n", "")
        code, said, _ = await shell("start", "dead", "--reason", "no wind", "--per-second", "10", "--json")
        started = json.loads(said)
        assert (code, started["rate"]["messages"], started["filter"]) == (0, 10, {"dead": {"reason": ["no wind"]}})
        waiting = asyncio.create_task(shell("show", "dead", "1", "--wait"))
        while not waiting.done():
            node.client.pass_time(100)
            await asyncio.wait([waiting], timeout=0.01)
        code, said, beside = waiting.result()
        assert (code, said) == (0, "task 1, redrive: done, 2 moved, 3 looked at\n")
        assert "of 3" in beside or not beside
        assert (await shell("undo", "dead", "1"))[1].startswith("task 2, undo of task 1: running")
        assert (await shell("cancel", "dead", "2"))[1].startswith("task 2, undo of task 1: cancelled")
        assert "cancelled" in (await shell("list", "dead"))[1]


async def test_a_task_that_was_stopped_says_why_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with gateway() as node:
        await fail(node, "a")
        shell = Shell(node, monkeypatch, capsys)
        await node.http.delete("/v1/queues/trips")
        await shell("start", "dead")
        node.client.lead()
        code, said, beside = await shell("show", "dead", "1", "--wait")
        assert (code, "stopped" in said) == (1, True)
        assert "does not exist: trips" in beside


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (("start", "dead", "--filter", "{"), "--filter is not JSON"),
        (("start", "dead", "--filter", "[]"), "--filter is no JSON object"),
        (("start", "dead", "--filter", '{"dead": {}}', "--of", "q"), "give either"),
        (("start", ""), "name is empty"),
    ],
)
def test_wrong_usage_is_told(tokens: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["redrive", *tokens]) == 2
    assert said in capsys.readouterr().err
