"""The example of scheduled e-mails against a gateway in the same process, whose time is stepped."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import pytest

from examples.scheduled_emails import Cluster, Outbox, Refused, main, send, subscribe
from tests.api.asking import ask
from tests.api.fake_client import gateway

HOUR_MS = 3_600_000


def work(cluster: Cluster, path: Path) -> int:
    with closing(Outbox(path)) as outbox:
        return send(cluster, outbox)


def outbox(path: Path) -> list[tuple[str, str, str]]:
    with closing(Outbox(path)) as outbox:
        return outbox.sent()


async def test_digests_come_by_their_readers_clocks_and_a_reminder_on_its_day(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with gateway() as node:
        url = ["--url", f"http://127.0.0.1:{node.port}"]
        berlin = ["--cron", "0 9 * * *", "--time-zone", "Europe/Berlin"]
        await asyncio.to_thread(main, [*url, "subscribe", "ada@example.org", *berlin])
        assert capsys.readouterr().out.startswith("next: 2023-11-15T08:00:00.000Z, 2023-11-16T08:00:00.000Z")
        await asyncio.to_thread(main, [*url, "subscribe", "lin@example.org", "--cron", "0 9 * * *"])
        reminder = ["remind", "ada@example.org", "the regatta begins", "--at", "2023-11-15T09:00:00+01:00"]
        await asyncio.to_thread(main, [*url, *reminder])
        node.client.pass_time(0)
        news = []
        for _ in range(36):
            node.client.pass_time(HOUR_MS)
            if (await ask(node, "GET", "/v1/queues/mails"))["ready"]:
                news.append(await asyncio.to_thread(work, Cluster(url[1]), tmp_path / "mails.sqlite"))
    assert news == [2, 1, 1, 1]
    assert outbox(tmp_path / "mails.sqlite") == [
        ("1", "ada@example.org", "the regatta begins"),
        ("digest-ada-example-org 2023-11-15T08:00:00.000Z", "ada@example.org", "your digest"),
        ("digest-ada-example-org 2023-11-16T08:00:00.000Z", "ada@example.org", "your digest"),
        ("digest-lin-example-org 2023-11-15T09:00:00.000Z", "lin@example.org", "your digest"),
        ("digest-lin-example-org 2023-11-16T09:00:00.000Z", "lin@example.org", "your digest"),
    ]


async def test_a_refusal_says_what_to_do() -> None:
    async with gateway() as node:
        cluster = Cluster(f"http://127.0.0.1:{node.port}")
        with pytest.raises(Refused, match="this never fires"):
            await asyncio.to_thread(subscribe, cluster, "ada@example.org", {"cron": "0 0 30 2 *"})
