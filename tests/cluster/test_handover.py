"""Handing over, at one engine: to whom, how soon, and what whoever takes over knows."""

from __future__ import annotations

from cluster.messages import TimeoutNow, Vote, Welcome
from tests.cluster.bench import Bench

MEMBERS = "abcde"


def leading() -> Bench:
    bench = Bench(MEMBERS)
    bench.lead()
    bench.wait(0.01)
    bench.tick(propose=("x",))
    return bench


def answer(bench: Bench, *names: str, index: int | None = None) -> None:
    """These hold the log up to `index`, or all of it."""
    last_index = bench.engine.last_index if index is None else index
    bench.tick(*((name, bench.ack(last_index)) for name in names))


def asked(bench: Bench) -> list[str]:
    return [node for node, message in bench.sent if isinstance(message, TimeoutNow)]


def test_whoever_has_everything_already_is_asked_without_waiting_for_anything_to_arrive() -> None:
    bench = leading()
    answer(bench, *"bcde")
    assert bench.engine.next_wakeup() > bench.now_s
    bench.engine.transfer()
    assert bench.engine.next_wakeup() <= bench.now_s
    bench.tick()
    assert len(asked(bench)) == 1
    assert bench.engine.next_wakeup() > bench.now_s


def test_who_is_to_be_avoided_is_asked_only_if_nobody_else_has_everything() -> None:
    bench = leading()
    bench.engine.avoided = frozenset("de")
    answer(bench, *"bde")
    bench.engine.transfer()
    bench.tick()
    assert asked(bench) == ["b"]
    bench = leading()
    bench.engine.avoided = frozenset("de")
    bench.engine.transfer()
    answer(bench, "d")
    assert asked(bench) == ["d"]


def test_who_could_take_over_at_once_is_sound_and_keeps_up() -> None:
    bench = leading()
    bench.engine.shunned = frozenset("e")
    answer(bench, *"bcde")
    assert bench.engine.heirs == dict.fromkeys("bcd", bench.engine.last_index)
    for _ in range(3):  # d is silent, and c does not come up to where the log was long ago
        bench.wait(0.4)
        bench.tick(propose=("y",))
        answer(bench, "b")
        answer(bench, "c", index=2)
    assert bench.engine.heirs.keys() == {"b"}
    bench.engine.disconnected("b")
    assert bench.engine.heirs == {}


def test_whoever_was_handed_over_to_knows_it() -> None:
    bench = leading()
    assert not bench.engine.is_heir, "it was elected by itself"
    bench = Bench("abc")
    bench.connect("b", "c", born=True)
    bench.tick(("b", bench.append((1, 0), (1, "x"), term=1)))
    bench.tick(("b", Welcome(1)))
    bench.tick(("b", TimeoutNow(1)))
    bench.tick(("b", Vote(2)))
    assert bench.engine.is_leader
    assert bench.engine.is_heir


def test_it_is_counted_why_a_leader_hands_over_and_one_that_is_under_way_is_not_begun_again() -> None:
    bench = leading()
    bench.engine.transfer(cause="no_room")
    bench.engine.transfer(cause="damage")
    assert bench.engine.handovers == {"no_room": 1}
    for _ in range(3):
        bench.wait(0.4)
        bench.tick(*((name, bench.ack(1)) for name in MEMBERS[1:]))
    assert bench.engine.may_propose, "it was given up"
    bench.engine.transfer(cause="damage")
    assert bench.engine.handovers == {"no_room": 1, "damage": 1}
