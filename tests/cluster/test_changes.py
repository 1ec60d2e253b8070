"""Changes of the membership as a leader works them off: when they are answered, and with what."""

from __future__ import annotations

from typing import Any

from cluster.changes import Changes
from cluster.messages import TimeoutNow
from cluster.tuning import Tuning
from cluster.wire import AskChange, ToldChange
from tests.cluster.bench import Bench


class Leader:
    """Leader a of a, b and c."""

    def __init__(self) -> None:
        self.bench = Bench({"a": "A", "b": "B", "c": "C"})
        self.bench.lead()
        self.changes = Changes(self.bench.engine)
        self.count = 0

    def ask(self, verb: Any, name: str, address: str = "", asker: object = "g") -> int:
        self.count += 1
        self.changes.ask(asker, AskChange(self.count, verb, name, address))
        return self.count

    def advance(self, *, acked: bool = False) -> list[tuple[object, ToldChange]]:
        bench = self.bench
        arrivals = [(n, bench.ack(bench.engine.last_index)) for n in "bc"] if acked else []
        bench.tick(*arrivals)
        bench.store.begin()
        told = self.changes.advance()
        bench.engine.replicate()
        bench.store.commit()
        bench.engine.synced()
        return told


def test_a_change_is_answered_when_it_is_committed() -> None:
    leader = Leader()
    number = leader.ask("add", "d", "D")
    assert leader.advance() == []
    assert leader.bench.engine.membership.learners == {"d": "D"}
    assert leader.advance() == []
    assert leader.advance(acked=True) == [("g", ToldChange(number))]


def test_asked_again_it_is_answered_when_it_is_so_and_not_before() -> None:
    leader = Leader()
    leader.ask("add", "d", "D")
    leader.advance()
    again = leader.ask("add", "d", "D", asker="h")
    assert leader.advance() == []
    assert [asker for asker, _ in leader.advance(acked=True)] == ["g", "h"]
    last_index = leader.bench.engine.last_index
    again = leader.ask("add", "d", "D")
    assert leader.advance() == [("g", ToldChange(again))]
    assert leader.bench.engine.last_index == last_index


def test_one_change_waits_for_the_other() -> None:
    leader = Leader()
    leader.ask("add", "d", "D")
    leader.ask("move", "b", "B2")
    leader.advance()
    leader.advance()
    assert leader.bench.engine.membership.voters["b"] == "B"
    leader.advance(acked=True)
    assert leader.bench.engine.membership.voters["b"] == "B2"


def test_a_refusal_is_told_with_its_code() -> None:
    leader = Leader()
    leader.ask("add", "b", "elsewhere")
    ((asker, told),) = leader.advance()
    assert (asker, told.code) == ("g", "name_in_use")
    assert told.detail


def test_a_leader_that_is_to_be_removed_hands_over() -> None:
    leader = Leader()
    leader.ask("remove", "a")
    assert leader.advance() == []
    leader.bench.tick(*((n, leader.bench.ack(leader.bench.engine.last_index)) for n in "bc"))
    assert leader.bench.got(TimeoutNow)
    assert "a" in leader.bench.engine.membership.voters


def test_without_an_heir_it_is_refused_and_leads_on() -> None:
    leader = Leader()
    leader.bench.tick(propose=("x",))
    leader.ask("remove", "a")
    assert leader.advance() == []
    for _ in range(5):
        leader.bench.wait(Tuning().transfer_s / 4)
        leader.bench.tick(*((n, leader.bench.ack(2)) for n in "bc"))
    ((_, told),) = leader.advance()
    assert told.code == "no_heir"
    assert leader.bench.engine.is_leader


def test_who_has_gone_and_who_asked_an_earlier_leadership_are_not_answered() -> None:
    leader = Leader()
    leader.ask("add", "d", "D", asker="gone")
    leader.changes.forsake("gone")
    leader.ask("add", "e", "E")
    leader.changes.clear()
    assert leader.advance() == []
    assert leader.bench.engine.membership.learners == {}
