"""`trimaran topics` against a gateway in the same process."""

from __future__ import annotations

import asyncio
import json

import pytest

from api.cli import run
from tests.api.fake_client import gateway


async def test_topics_are_made_subscribed_tried_published_to_and_asked_about(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with gateway() as node:
        monkeypatch.setenv("TRIMARAN_URL", f"http://127.0.0.1:{node.port}")
        monkeypatch.setenv("COLUMNS", "200")

        async def trimaran(*tokens: str) -> tuple[int, str, str]:
            code = await asyncio.to_thread(run, ["topics", *tokens])
            said = capsys.readouterr()
            return code, said.out, said.err

        def rows(said: str) -> dict[str, list[str]]:
            lines = [line.split() for line in said.splitlines() if line.strip() and "─" not in line]
            return {line[0]: line[1:] for line in lines[1:]}

        assert "There are no topics yet" in (await trimaran())[1]
        assert await trimaran("create", "orders") == (0, "topic orders is created\n", "")
        assert await trimaran("create", "orders") == (0, "topic orders is there already\n", "")
        assert "what is published goes nowhere" in (await trimaran("show", "orders"))[1]
        for queue in ("audit", "german", "sales"):
            await node.http.put(f"/v1/queues/{queue}", json={})
        said = (await trimaran("subscribe", "orders", "all", "audit"))[1]
        assert said == "queue audit gets what subscription all wants of orders\n"
        await trimaran("subscribe", "orders", "g", "german", "--pattern", "orders.de.#")
        large = '{"total": [{"numeric": [">", 100]}]}'
        await trimaran("subscribe", "orders", "large", "sales", "--filter", large, "--filter-on", "body")
        assert rows((await trimaran("show", "orders"))[1])["large"][:2] == ["sales", "#"]

        message = ("publish", "orders", '{"total": 50}', "--routing-key", "orders.de", "-a", "kind=order")
        tried = rows((await trimaran(*message, "--dry-run"))[1])
        assert [tried[name][:2] for name in ("all", "g", "large")] == [
            ["audit", "yes"],
            ["german", "yes"],
            ["sales", "no"],
        ]
        assert "/total:" in tried["large"]
        code, said, _ = await trimaran(*message)
        assert (code, said.splitlines()[0]) == (0, "message 1 went to:")
        assert rows(said.partition("\n")[2]) == {"audit": ["all", "1", "no"], "german": ["g", "1", "no"]}
        assert (await trimaran("where", "orders", "1"))[1] == said
        assert rows((await trimaran())[1]) == {"orders": ["no", "3", "1"]}

        assert (await trimaran("unsubscribe", "orders", "all"))[0] == 0
        said = (await trimaran("publish", "orders", "x"))[1]
        assert said == "message 2 went nowhere: no subscription wants it\n"
        await node.http.delete("/v1/queues/german")
        assert rows((await trimaran("show", "orders"))[1])["g"][:4] == ["german", "(takes", "nothing)", "orders.de.#"]
        assert len(json.loads((await trimaran("show", "orders", "--json"))[1])["subscriptions"]) == 2
        assert await trimaran("delete", "orders") == (0, "topic orders is deleted\n", "")
        code, _, said = await trimaran("show", "orders")
        assert (code, "There is no such topic" in said) == (1, True)
        assert (await trimaran("create", "f.fifo", "--fifo"))[0] == 0
        assert "group" in (await trimaran("publish", "f.fifo", "x"))[2]
        assert (await trimaran("publish", "f.fifo", "x", "--group", "g"))[0] == 0


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (("show", ""), "the topic's name is empty"),
        (("unsubscribe", "t", ""), "the subscription's name is empty"),
        (("subscribe", "t", "s", "q", "--filter", "{"), "--filter is not JSON"),
        (("publish", "t", "x", "-a", "kind"), "is not NAME=VALUE"),
    ],
)
def test_wrong_usage_is_told(tokens: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["topics", *tokens]) == 2
    assert said in capsys.readouterr().err
