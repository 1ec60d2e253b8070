"""The command that has everything read again: whom it waits for, and how it ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from api import cli_scrub
from api.cli import run

ASKED_MS = 1000


def node(name: str, began_ms: int, *, damages: int = 0, reachable: bool = True, **more: Any) -> dict[str, Any]:
    scrub = {"passes": 1, "bytes": 10, "began_ms": began_ms, "damages": damages, "repairs": 0, "ailing": {}}
    return {"name": name, "reachable": reachable, "scrub": {**scrub, "disagreement": None, **more}}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[dict[str, Any]]]]:
    """What `GET /v1/cluster` says, time after time; all of it must have been asked for."""
    told: list[list[dict[str, Any]]] = []

    class Scripted:
        def __init__(self, url: str) -> None: ...

        def request(self, method: str, path: str) -> dict[str, Any]:
            if method == "POST":
                return {"asked_ms": ASKED_MS}
            return {"nodes": told.pop(0)}

    monkeypatch.setattr(cli_scrub, "Client", Scripted)
    monkeypatch.setattr(cli_scrub, "POLL_S", 0)
    yield told
    assert not told


def test_a_pass_that_was_under_way_when_it_asked_does_not_count(answers: list[list[dict[str, Any]]]) -> None:
    answers += [[node("n1", 0)], [node("n1", 0)], [node("n1", ASKED_MS - 1)], [node("n1", ASKED_MS)]]
    assert run(["scrub"]) == 0


def test_it_waits_for_all_that_can_be_reached_and_names_the_others(
    answers: list[list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    away = node("n3", 0, reachable=False)
    answers += [
        [node("n1", 0), node("n2", 0), away],
        [node("n1", ASKED_MS), node("n2", 0), away],
        [node("n1", ASKED_MS), node("n2", ASKED_MS), away],
    ]
    assert run(["scrub"]) == 1
    assert "n3 was not reached" in capsys.readouterr().err


def test_damage_ends_the_wait_and_is_told(
    answers: list[list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    ailing = {"n2": "a checksum is wrong"}
    answers += [
        [node("n1", 0, damages=2), node("n2", 0, damages=1)],
        [node("n1", ASKED_MS, damages=2), node("n2", 0, damages=1)],
        [node("n1", ASKED_MS, damages=2, ailing=ailing, disagreement="they differ"), node("n2", 0, damages=2)],
    ]
    assert run(["scrub"]) == 1
    said = capsys.readouterr().err
    assert "n2 is damaged: a checksum is wrong" in said
    assert "they differ" in said


def test_it_does_not_wait_for_ever(answers: list[list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]) -> None:
    answers += [[node("n1", 0)], [node("n1", 0)]]
    assert run(["scrub", "--timeout-s", "-1"]) == 1
    assert "n1 did not get through everything within" in capsys.readouterr().err
