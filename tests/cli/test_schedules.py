"""`trimaran schedules` against a gateway in the same process."""

from __future__ import annotations

import asyncio
import json

import pytest

from api.cli import run
from tests.api.fake_client import gateway


async def test_a_schedule_is_put_looked_at_paused_resumed_and_deleted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with gateway() as node:
        monkeypatch.setenv("TRIMARAN_URL", f"http://127.0.0.1:{node.port}")
        monkeypatch.setenv("COLUMNS", "200")

        async def trimaran(*tokens: str) -> tuple[int, str, str]:
            code = await asyncio.to_thread(run, ["schedules", *tokens])
            said = capsys.readouterr()
            return code, said.out, said.err

        assert "There are no schedules yet" in (await trimaran())[1]
        put = ("put", "digest", "mails", "what is new", "--cron", "0 9 * * MON-FRI", "--time-zone", "Europe/Berlin")
        code, said, _ = await trimaran(*put)
        assert (code, said) == (
            0,
            "schedule digest sends next at 2023-11-15T08:00:00.000Z, "
            "then at 2023-11-16T08:00:00.000Z, 2023-11-17T08:00:00.000Z\n",
        )
        assert (await trimaran("put", "beat", "jobs", "tick", "--every-ms", "60000", "--overlap", "skip"))[0] == 0
        node.client.pass_time(0)
        code, said, _ = await trimaran()
        rows = {line.split()[0]: line.split() for line in said.splitlines() if line.strip()}
        assert rows["beat"] == ["beat", "every", "60000", "ms", "jobs", "2023-11-14T22:14:00.000Z", "0"]
        assert rows["digest"][1:8] == ["0", "9", "*", "*", "MON-FRI", "Europe/Berlin", "mails"]
        node.client.pass_time(60_000)
        code, said, _ = await trimaran("show", "beat")
        assert code == 0
        assert "There is no such queue" in said
        assert (await trimaran("pause", "beat"))[1] == "schedule beat sends nothing until it is resumed\n"
        assert "paused" in (await trimaran("list"))[1]
        paused = json.loads((await trimaran("show", "beat", "--json"))[1])
        assert (paused["paused"], paused["overlap"], paused["message"]["body"]) == (True, "skip", "tick")
        assert json.loads((await trimaran("resume", "beat", "--json"))[1])["paused"] is False
        assert "sends next at" in (await trimaran("resume", "beat"))[1]
        assert len(json.loads((await trimaran("list", "--json"))[1])["schedules"]) == 2
        assert await trimaran("delete", "beat") == (0, "schedule beat is deleted\n", "")
        code, _, said = await trimaran("show", "beat")
        assert (code, "There is no such schedule" in said) == (1, True)
        code, _, said = await trimaran("put", "leap", "jobs", "x", "--cron", "0 0 30 2 *")
        assert (code, "never fires" in said) == (1, True)
        code, _, said = await trimaran("pause", "none")
        assert (code, "There is no such schedule" in said) == (1, True)


async def test_a_schedule_publishes_to_a_topic(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with gateway() as node:
        monkeypatch.setenv("TRIMARAN_URL", f"http://127.0.0.1:{node.port}")

        async def trimaran(*tokens: str) -> tuple[int, str, str]:
            code = await asyncio.to_thread(run, ["schedules", *tokens])
            said = capsys.readouterr()
            return code, said.out, said.err

        put = ("put", "daily", "what is new", "--topic", "news", "--routing-key", "at.noon", "--cron", "0 12 * * *")
        assert (await trimaran(*put))[0] == 0
        told = json.loads((await trimaran("show", "daily", "--json"))[1])
        assert (told["topic"], told["routing_key"], told["message"]) == (
            "news",
            "at.noon",
            {"body": "what is new", "attributes": {}},
        )
        for asked in (("put", "x", "jobs", "tick", "--topic", "news"), ("put", "x", "tick")):
            code, _, said = await trimaran(*asked, "--every-ms", "1000")
            assert (code, "--topic" in said) == (2, True)
        code, _, said = await trimaran("put", "x", "jobs", "tick", "--every-ms", "1000", "--routing-key", "a")
        assert (code, "$.routing_key" in said) == (1, True)
