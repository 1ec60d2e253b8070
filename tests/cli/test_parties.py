"""`trimaran producers` and `trimaran consumers` against a gateway in the same process."""

from __future__ import annotations

import asyncio
import json

import pytest

from api.cli import run
from tests.api.fake_client import gateway


@pytest.mark.parametrize("kind", ["producer", "consumer"])
async def test_they_are_registered_listed_and_forgotten(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with gateway() as node:
        monkeypatch.setenv("TRIMARAN_URL", f"http://127.0.0.1:{node.port}")
        monkeypatch.setenv("COLUMNS", "200")

        async def trimaran(*tokens: str) -> tuple[int, str, str]:
            code = await asyncio.to_thread(run, [f"{kind}s", *tokens])
            said = capsys.readouterr()
            return code, said.out, said.err

        assert "registered; none has to be" in (await trimaran())[1]
        asked = ("register", "shop 1", "--name", "The shop", "--type", "web")
        assert await trimaran(*asked) == (0, f"{kind} shop 1 is registered\n", "")
        code, said, _ = await trimaran("list")
        assert code == 0
        assert "The shop" in said
        (told,) = json.loads((await trimaran("--json"))[1])[f"{kind}s"]
        assert (told["id"], told["type"], told["seen"]) == ("shop 1", "web", None)
        assert await trimaran("forget", "shop 1") == (0, f"{kind} shop 1 is forgotten\n", "")
        code, _, said = await trimaran("forget", "shop 1")
        assert (code, "not registered" in said) == (1, True)
        assert (await trimaran("forget", ""))[0] == 2
