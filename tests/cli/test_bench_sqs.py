"""`trimaran bench sqs`: it does the same by both APIs, and notices what is lost or comes twice."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest
from aiohttp import web

from api.bench import BenchError
from api.bench_sqs import WORKLOADS, Figure, Sqs, compare
from api.cli import run
from tests.api.fake_client import gateway


async def test_both_apis_do_the_same_work(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    async with gateway() as node:
        monkeypatch.setenv("TRIMARAN_URL", f"http://127.0.0.1:{node.port}")
        asked = ["bench", "sqs", "-n", "25", "--rounds", "2", "-c", "4", "--body-bytes", "100"]
        assert await asyncio.to_thread(run, [*asked, "--json"]) == 0
        figures = msgspec.convert(json.loads(capsys.readouterr().out)["figures"], list[Figure])
        assert {(each.face, each.workload) for each in figures} == {
            (face, workload) for face in ("native", "sqs") for workload in WORKLOADS
        }
        found = {(each.face, each.workload): (each.messages, each.requests) for each in figures}
        for face in ("native", "sqs"):
            assert found[face, "send"] == (50, 50)
            assert found[face, "send 10"] == (50, 6)
            assert found[face, "receive + delete"][1] >= 100
        assert await asyncio.to_thread(run, asked) == 0
        said = capsys.readouterr()
        assert "SQS makes" in said.out
        assert "round 2 of 2: sqs, 10 at a time" in said.err
        assert [queue["queue"] for queue in (await (await node.http.get("/v1/queues")).json())["queues"]] == []


@pytest.mark.parametrize(("breaks", "said"), [("loses", "1 were lost"), ("doubles", "1 came twice")])
async def test_a_queue_that_breaks_a_promise_has_no_figures(
    breaks: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting: list[str] = []
    monkeypatch.setattr("api.bench_sqs.SILENCE_MAX_S", 0.3)

    async def answer(request: web.Request) -> web.Response:
        wish = await request.json()
        match request.headers["X-Amz-Target"]:
            case "AmazonSQS.SendMessage":
                copies = {"loses": 0, "doubles": 2}[breaks] if wish["MessageBody"].startswith("00000003") else 1
                waiting.extend([wish["MessageBody"]] * copies)
            case "AmazonSQS.ReceiveMessage" if waiting:
                body = waiting.pop(0)
                return web.json_response({"Messages": [{"Body": body, "ReceiptHandle": body}]})
        return web.json_response({})

    app = web.Application()
    app.add_routes([web.post("/", answer)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        with pytest.raises(BenchError, match=said):
            await compare({"sqs": (Sqs("sqs", [url], url), 5)}, rounds=1, connections=1, body_bytes=10)
    finally:
        await runner.cleanup()


def test_moto_is_asked_for_in_words_when_it_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert run(["bench", "sqs", "--moto"]) == 2
    assert "pipx install" in capsys.readouterr().err
