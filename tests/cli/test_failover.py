"""What `trimaran bench failover` counts and measures, against answers and logs that are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from api import failover
from api.bench_client import Answer
from api.failover import Findings, Ledger, Load, Round, Spread, longest_gap_ms, timeline
from api.local import LocalNode
from cluster.shard import ELECTION_STEPS


class Wire:
    """Stands for a connection: gives the answers in order, and notes what was asked."""

    def __init__(self, *answers: Answer | OSError) -> None:
        self.answers, self.asked = list(answers), list[tuple[str, bytes]]()

    async def request(self, method: str, path: str, content: bytes = b"", *, headers: bytes = b"") -> Answer:
        self.asked.append((f"{method} {path}", headers))
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer


def delivery(number: int, message_id: int) -> dict[str, object]:
    return {"body": f"{number:016x}xx", "message_id": message_id, "receipt": f"r{message_id}"}


def received(*messages: dict[str, object]) -> Answer:
    return Answer(200, json.dumps({"messages": messages}).encode())


@pytest.mark.parametrize("answer", [Answer(503, b"{}"), Answer(404, b""), ConnectionError("gone")])
async def test_whatever_is_not_a_success_counts_as_failed(answer: Answer | OSError) -> None:
    ledger = Ledger()
    await ledger.send(Wire(answer), "")  # type: ignore[arg-type]
    assert sum(ledger.failures.values()) == 1
    assert not ledger.kept
    assert not ledger.acknowledged_s


async def test_an_acknowledged_message_must_come_and_come_as_one() -> None:
    ledger = Ledger()
    wire = Wire(*[Answer(201, b"")] * 3, received(delivery(0, 7), delivery(1, 8)), Answer(200, b""))
    for _ in range(3):
        await ledger.send(wire, "")  # type: ignore[arg-type]
    assert await ledger.consume(wire, 0) == 2  # type: ignore[arg-type]
    assert ledger.kept - ledger.came.keys() == {2}
    again = Wire(received(delivery(1, 8), delivery(0, 9)), Answer(200, b""))
    await ledger.consume(again, 0)  # type: ignore[arg-type]
    assert ledger.doubled == 1, "the same number under another id is another message; under its own it came again"


async def test_a_key_is_sent_along() -> None:
    wire = Wire(Answer(201, b""))
    await Ledger().send(wire, "", key="k1")  # type: ignore[arg-type]
    assert wire.asked[0][1] == b"Idempotency-Key: k1\r\n"


async def test_a_node_that_cannot_be_reached_is_a_failure() -> None:
    ledger = Ledger()
    load = Load(ledger, ["http://127.0.0.1:1"], 1, 64)
    while not ledger.failures:
        await failover.asyncio.sleep(0)
    await load.stop()
    assert "Connect" in next(iter(ledger.failures))


def test_the_longest_gap_reaches_over_the_beginning_and_the_end() -> None:
    assert longest_gap_ms([1.0, 2.0, 2.5, 3.0], 2.1, 3.1) == pytest.approx(500)
    assert longest_gap_ms([1.0, 3.0], 2.0, 3.1) == pytest.approx(2000)
    assert longest_gap_ms([1.9, 2.0], 2.0, 3.0) == pytest.approx(1000)
    assert longest_gap_ms([], 2.0, 3.0) == pytest.approx(1000)


def test_the_timeline_is_what_the_winner_did(tmp_path: Path) -> None:
    nodes = [LocalNode(name, tmp_path, 7700, "") for name in ("n1", "n2", "n3")]
    shard = {"process": "shard-0"}
    lines = {
        "n1": [(0.5, {"event": "leader", "leader": "n1", "serving": False, **shard})],
        "n2": [
            (10, {"event": "replica disconnected", "peer": "n1", **shard}),
            (15, {"event": ELECTION_STEPS["asked"], **shard}),
            (90, {"event": "leader", "leader": "n3", "serving": False, **shard}),
        ],
        "n3": [
            (11, {"event": "replica disconnected", "peer": "n1", **shard}),
            (20, {"event": ELECTION_STEPS["asked"], **shard}),
            (22, {"event": ELECTION_STEPS["campaigned"], **shard}),
            (25, {"event": ELECTION_STEPS["won"], **shard}),
            (26, {"event": "leader", "leader": "n3", "serving": False, **shard}),
            (30, {"event": "leader", "leader": "n3", "serving": True, **shard}),
            (31, {"event": "leader", "leader": "n3", "process": "gateway"}),
        ],
    }
    for node in nodes:
        node.log.parent.mkdir()
        told = [
            json.dumps({"node": node.name, "timestamp": f"2026-01-01T00:00:01.{int(1000 * ms):06}Z", **line})
            for ms, line in lines[node.name]
        ]
        node.log.write_text("\n".join(["an older line", *told, '{"half a li']))
    logs = {node.name: len("an older line\n") for node in nodes}
    found = timeline(nodes, logs, "n1", 1767225601.0)
    assert list(found.values()) == [10, 20, 22, 25, 30, 31]


@pytest.mark.parametrize("wrong", [{"failures": {"send: 503": 1}}, {"lost": 1}, {"doubled": 1}])
def test_only_a_run_without_fault_is_clean(wrong: dict[str, object]) -> None:
    fine: dict[str, object] = {"planned": False, "requests": {}, "failures": {}, "sent": 9, "lost": 0, "doubled": 0}
    rounds = [Round("n1", float(n), n, n, n, {"elected": n, **({"asked": 1} if n > 1 else {})}) for n in (1, 2, 3)]
    assert Findings(rounds=rounds, **fine).is_clean  # type: ignore[arg-type]
    found = Findings(rounds=rounds, **fine | wrong)  # type: ignore[arg-type]
    assert not found.is_clean
    assert found.spread("first_ms") == Spread(2, 3, 3)
    assert found.timeline()["asked"] == Spread(1, 1, 1)
