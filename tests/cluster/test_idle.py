"""What replicas say to one another while nothing happens: it is taken between ticks, and no transaction is opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec
import pytest

import cluster.reads
from cluster.messages import Append, Appended, Digest, Message, PreVote
from cluster.scrub import ScrubSettings
from cluster.tuning import Tuning
from cluster.wire import AskLook
from storage.block import encode_block
from storage.memory_store import MemoryStore
from storage.message_operations import Browse, Page
from storage.operations import Operation, Send, Sent
from storage.queue_operations import GetQueue, PutQueue, QueueInfo
from storage.settings import QueueSettings
from tests.cluster.bench import Bench
from tests.cluster.trio import Trio

HEARTBEAT_S, SILENCE_S = Tuning().heartbeat_s, Tuning().election_min_s


def but(message: Append | Appended, **changes: object) -> Message:
    return msgspec.structs.replace(message, **changes)


# --- who follows ------------------------------------------------------------------------------------------------------


def following() -> Bench:
    """An engine that follows b in term 1, and has applied its entry 2."""
    bench = Bench()
    bench.connect("b", "c")
    bench.tick(("b", bench.append((1, 0), (1, "x"), term=1, commit=2)))
    bench.tick()
    assert (bench.engine.leader, bench.engine.applied_index, bench.engine.durable_index) == ("b", 2, 2)
    bench.sent.clear()
    return bench


def heartbeat(bench: Bench) -> Append:
    return bench.append((2, 1), term=1, commit=2)


def test_a_heartbeat_is_answered_between_ticks_and_puts_the_election_off() -> None:
    bench = following()
    for _ in range(100):
        bench.wait(HEARTBEAT_S)
        assert bench.engine.heed("b", heartbeat(bench))
        assert bench.engine.next_wakeup() >= bench.now_s + SILENCE_S
    answers = bench.got(Appended, "b")
    assert len(answers) == 100
    assert all((answer.ok, answer.term, answer.match_index) == (True, 1, 2) for answer in answers)


def test_a_heartbeat_that_commits_something_has_a_tick_apply_it() -> None:
    bench = following()
    bench.tick(("b", bench.append((2, 1), (1, "y"), term=1, commit=2)))
    assert bench.engine.heed("b", bench.append((3, 1), term=1, commit=3))
    assert bench.engine.next_wakeup() <= bench.now_s
    bench.tick()
    assert bench.applied[-1] == (3, 1, "y")
    assert bench.engine.next_wakeup() > bench.now_s


def forget_the_leader(bench: Bench) -> None:
    bench.engine.disconnected("b")
    bench.connect("b")


NOT_TO_A_FOLLOWER: dict[str, tuple[Callable[[Bench], object], str, Callable[[Append], Message]]] = {
    "of another": (lambda bench: None, "c", lambda beat: beat),
    "of a leader to follow first": (forget_the_leader, "b", lambda beat: beat),
    "of a later term": (lambda bench: None, "b", lambda beat: but(beat, term=2)),
    "of an earlier term": (lambda bench: None, "b", lambda beat: but(beat, term=0)),
    "with an entry": (lambda bench: None, "b", lambda beat: but(beat, entries=[(1, b"\x01")])),
    "of a journal that goes on": (lambda bench: None, "b", lambda beat: but(beat, prev_index=3)),
    "of a journal that ends before": (lambda bench: None, "b", lambda beat: but(beat, prev_index=1, prev_term=1)),
    "of another journal": (lambda bench: None, "b", lambda beat: but(beat, prev_term=0)),
    "after long silence": (lambda bench: bench.wait(SILENCE_S), "b", lambda beat: beat),
    "beside what is to be saved": (lambda bench: bench.engine.adopt("c"), "b", lambda beat: beat),
    "of another kind": (lambda bench: None, "b", lambda beat: PreVote(2, 2, 1, 1)),
}


@pytest.mark.parametrize(("prepare", "node", "change"), NOT_TO_A_FOLLOWER.values(), ids=NOT_TO_A_FOLLOWER)
def test_a_follower_leaves_all_else_to_the_tick(
    prepare: Callable[[Bench], object], node: str, change: Callable[[Append], Message]
) -> None:
    bench = following()
    prepare(bench)
    bench.sent.clear()
    assert not bench.engine.heed(node, change(heartbeat(bench)))
    assert bench.sent == []


def test_an_answer_that_comes_late_is_nothing_to_a_follower() -> None:
    bench = following()
    assert not bench.engine.heed("b", bench.ack(2))


def test_a_heartbeat_has_nothing_read_from_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads may meet damage, which is dealt with in ticks."""
    bench = Bench(store=following().store.crashed())  # nothing of its journal is in memory
    bench.connect("b", "c")
    bench.tick(("b", heartbeat(bench)))
    monkeypatch.setattr(MemoryStore, "logged", lambda store, index: pytest.fail(f"entry {index} is read"))
    assert bench.engine.heed("b", heartbeat(bench))


def test_nothing_is_acknowledged_between_ticks_that_is_not_durable() -> None:
    bench = following()
    bench.tick(("b", bench.append((2, 1), (1, "y"), term=1, commit=2)), sync=False)
    assert not bench.engine.heed("b", bench.append((3, 1), term=1, commit=2))
    bench.engine.synced()
    assert bench.engine.heed("b", bench.append((3, 1), term=1, commit=2))


# --- who leads --------------------------------------------------------------------------------------------------------


def leading(members: str = "abc", tuning: Tuning | None = None) -> Bench:
    bench = Bench(members, tuning=tuning)
    bench.lead()
    bench.sent.clear()
    return bench


def test_an_answer_is_taken_between_ticks_and_confirms_the_leader() -> None:
    bench = leading()
    for _ in range(100):
        bench.wait(HEARTBEAT_S)
        assert bench.engine.heed("b", bench.ack(bench.engine.last_index))
        assert bench.engine.confirmed_since() == bench.now_s
        assert bench.engine.has_quorum
    assert bench.heard[-1][0] == "b"
    assert bench.sent == []
    bench.tick()
    assert bench.engine.is_leader


def test_an_answer_that_completes_a_majority_has_a_tick_commit() -> None:
    bench = leading("abcde")
    bench.tick(propose=("x",))
    index = bench.engine.last_index
    assert bench.engine.heed("b", bench.ack(index))
    assert bench.engine.next_wakeup() > bench.now_s, "two of five"
    assert bench.engine.heed("c", bench.ack(index))
    assert bench.engine.next_wakeup() <= bench.now_s
    bench.tick()
    assert bench.engine.applied_index == index
    assert bench.engine.heed("d", bench.ack(index))
    assert bench.engine.next_wakeup() > bench.now_s, "it is committed already"
    assert bench.engine.held_index("d") == index


def add_a_learner(bench: Bench) -> None:
    bench.connect("d")
    bench.store.begin()
    index = bench.engine.change(bench.engine.membership.with_learner("d", "d:1"))
    bench.store.commit()
    bench.engine.synced()
    bench.tick(("b", bench.ack(index)), ("c", bench.ack(index)))
    assert bench.engine.heed("b", bench.ack(index))


def send_more_than_fits(bench: Bench) -> None:
    bench.tick(propose=("x",))
    bench.tick(propose=("y",))
    bench.wait(HEARTBEAT_S)


NOT_TO_A_LEADER: dict[str, tuple[Callable[[Bench], object], str, Callable[[Appended], Message]]] = {
    "of a stranger": (lambda bench: bench.connect("x"), "x", lambda answer: answer),
    "of a learner": (add_a_learner, "d", lambda answer: answer),
    "of a later term": (lambda bench: None, "b", lambda answer: but(answer, term=answer.term + 1)),
    "of an earlier term": (lambda bench: None, "b", lambda answer: but(answer, term=answer.term - 1)),
    "that refuses": (lambda bench: None, "b", lambda answer: but(answer, ok=False)),
    "of one whose word does not count": (lambda bench: None, "b", lambda answer: but(answer, counts=False)),
    "about more than there is": (lambda bench: None, "b", lambda answer: but(answer, match_index=9)),
    "of one who lacks more": (send_more_than_fits, "b", lambda answer: answer),
    "while handing over": (lambda bench: bench.engine.transfer("c"), "b", lambda answer: answer),
    "after long silence": (lambda bench: bench.wait(SILENCE_S), "b", lambda answer: answer),
}


@pytest.mark.parametrize(("prepare", "node", "change"), NOT_TO_A_LEADER.values(), ids=NOT_TO_A_LEADER)
def test_a_leader_leaves_all_else_to_the_tick(
    prepare: Callable[[Bench], object], node: str, change: Callable[[Appended], Message]
) -> None:
    bench = leading(tuning=Tuning(window_messages=1))
    answer = bench.ack(bench.engine.last_index)
    prepare(bench)
    heard = len(bench.heard)
    assert not bench.engine.heed(node, change(answer))
    assert len(bench.heard) == heard


def test_the_answers_that_make_a_leader_serve_have_a_tick() -> None:
    """Without them it serves nobody, and whoever waits for it is told when it does."""
    bench = leading("ab")
    forgetful, remembers = bench.ack(bench.engine.last_index, counts=False), bench.ack(bench.engine.last_index)
    bench.tick(("b", forgetful))
    assert not bench.engine.heed("b", remembers)
    bench.tick(("b", remembers))
    assert bench.engine.heed("b", remembers)


# --- whole replicas ---------------------------------------------------------------------------------------------------


class Lazy(Trio):
    """A trio whose replicas tick when they must, as their processes have them do. `ticks` counts."""

    def __init__(self, scrub: ScrubSettings | None = None) -> None:
        super().__init__(scrub=scrub or ScrubSettings(interval_ms=0))
        self.ticks: Counter[str] = Counter()
        self.beats = 0
        self._poked: set[str] = set()
        self.start()
        self._poked.update(self.names)
        self.run(1.0)

    def _tick(self, name: str) -> None:
        if name in self._poked or self.replicas[name].next_wakeup() <= self.now_s:
            self._poked.discard(name)
            self.ticks[name] += 1
            before = len(self._mail)
            super()._tick(name)
            self.beats += any(type(mail[2]) is Append and not mail[2].entries for mail in list(self._mail)[before:])

    def _deliver(self) -> None:
        waiting = {name: len(replica._inbox) for name, replica in self.replicas.items()}
        super()._deliver()
        self._poked.update(name for name, replica in self.replicas.items() if len(replica._inbox) > waiting[name])

    def ask(self, operation: Operation, block: bytes = b"") -> int:
        self._poked.add(self.leader)
        return super().ask(operation, block)

    def forget_ticks(self) -> None:
        self.ticks.clear()
        self.beats = 0

    @property
    def followers(self) -> list[str]:
        return [name for name in self.names if name != self.leader]


def test_who_has_nothing_to_do_opens_no_transaction() -> None:
    trio = Lazy()
    trio.forget_ticks()
    trio.run(10.0)
    assert all(trio.ticks[name] == 0 for name in trio.followers)
    assert trio.ticks[trio.leader] == trio.beats, "an answer has no tick"
    assert trio.beats > 100


def test_an_entry_has_two_ticks_of_each() -> None:
    """One to hold it, one to apply it. The leader's second comes with the first answer, the last answer has none."""
    trio = Lazy()
    trio.do(PutQueue("q", QueueSettings()))
    trio.run(1.0)
    trio.forget_ticks()
    assert isinstance(trio.do(Send("q", 1), encode_block([(b"x", b"")])), Sent)
    trio.run(1.0)
    assert [trio.ticks[name] for name in trio.followers] == [2, 2]
    assert trio.ticks[trio.leader] - trio.beats == 2


def test_a_read_is_answered_as_soon_as_a_majority_has_confirmed_the_leader() -> None:
    trio = Lazy()
    trio.do(PutQueue("q", QueueSettings()))
    trio.run(1.0)
    for _ in range(10):
        trio.run(0.02)
        trio.forget_ticks()
        trio.now_s += 0.001
        seq = trio.ask(GetQueue("q"))
        trio.run(0.02)
        assert isinstance(trio.answer(seq), QueueInfo), "in the same step, which is shorter than a heartbeat"
        assert all(trio.ticks[name] == 0 for name in trio.followers)
        assert trio.ticks[trio.leader] == 2


def test_a_read_that_this_tick_has_no_room_for_is_answered_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    trio = Lazy()
    trio.do(PutQueue("q", QueueSettings()))
    trio.do(Send("q", 1), encode_block([(b"x", b"")]))
    trio.run(1.0)
    monkeypatch.setattr(cluster.reads, "ENTRY_RECEIVE_BYTES_MAX", 0)
    asked = [trio.ask(Browse("q", 0, 1)) for _ in range(2)]
    trio.run(0.02)
    assert all(isinstance(trio.answer(seq), Page) for seq in asked)


def test_who_has_nothing_to_do_knows_how_fresh_it_is() -> None:
    trio = Lazy()
    trio.do(PutQueue("q", QueueSettings()))
    trio.run(5.0)
    for name in trio.names:
        told = trio.replicas[name].look(AskLook(9, GetQueue("q")))
        assert told.staleness_ms is not None
        assert told.staleness_ms <= 60


def idle(trio: Trio) -> tuple[str, str, Append]:
    """A leader, its follower, and a heartbeat that the follower would heed."""
    leader = trio.leader
    engine = trio.replicas[leader].engine
    follower = min(set(trio.names) - {leader})
    last_index = engine.last_index
    return leader, follower, Append(engine.term, last_index, engine.term, [], last_index, 0, trio.now_s)


@pytest.mark.parametrize("earlier", ["a message", "a connection"])
def test_what_waits_for_a_tick_is_not_overtaken(earlier: str) -> None:
    trio = Lazy()
    leader, name, beat = idle(trio)
    follower = trio.replicas[name]
    assert follower.heed(leader, beat)
    if earlier == "a message":
        assert not follower.heed(leader, Digest(1, 1, 1, 0, b""))
        follower.deliver(leader, Digest(1, 1, 1, 0, b""))
    else:
        (other,) = set(trio.names) - {leader, name}
        follower.connected(other, born=True)
    assert not follower.heed(leader, beat)
    follower.tick()
    assert follower.heed(leader, beat)


def test_before_the_clock_is_anchored_there_are_ticks() -> None:
    trio = Lazy()
    leader, name, beat = idle(trio)
    follower = trio.replicas[name]
    follower.clock.anchored = False
    assert not follower.heed(leader, beat)
    follower.clock.anchored = True
    assert follower.heed(leader, beat)


def test_while_the_store_is_read_beside_the_ticks_they_go_on() -> None:
    trio = Lazy()
    leader, name, beat = idle(trio)
    follower = trio.replicas[name]
    follower.scrub.check()
    assert not follower.heed(leader, beat)
    follower.tick()
    assert follower.heed(leader, beat)
