"""The scrub, told on replicas in memory: everything is read, what differs is found, and nothing that does not."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import pytest

from cluster import scrub
from cluster.journal import MARK_KIND
from cluster.messages import Digest, PieceTaken
from cluster.scrub import Scrub, ScrubSettings, Tally
from storage.block import encode_block
from storage.memory_store import MemoryStore
from storage.migrations import FORMAT
from storage.operations import Ack, Claim, Receive, Received, Send
from storage.queue_operations import PutQueue
from storage.settings import QueueSettings
from tests.cluster.trio import STEP_S, Trio

INTERVAL_S = 8.0
OFTEN = ScrubSettings(interval_ms=8000)


@pytest.fixture(autouse=True)
def small_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub, "SPAN_RECORDS", 7)


def filled(settings: ScrubSettings = OFTEN, *up: str) -> Trio:
    """A cluster with some thirty records, in which the first pass has ended if there is one."""
    trio = Trio(scrub=settings)
    trio.start(*up)
    trio.run(1.0)
    for number in range(10):
        trio.do(PutQueue(f"q{number}", QueueSettings()))
        trio.do(Send(f"q{number}", 1), encode_block([(b"x", b"")]))
    trio.run(2.0)
    return trio


def passes(trio: Trio) -> set[int]:
    return {replica.scrub.tally.passes for replica in trio.replicas.values()}


def ailing(trio: Trio) -> set[str]:
    return {name for name, replica in trio.replicas.items() if replica.ailing is not None}


def next_pass(trio: Trio) -> None:
    """A whole interval, and what it takes to read everything."""
    trio.run(INTERVAL_S + 2.0)


def until_a_pass_is_under_way(trio: Trio) -> bytes:
    """Returns the key at which the present span begins."""
    for _ in range(1000):
        trio.run(STEP_S)
        mark = trio.replicas[trio.leader].scrub._mark
        if mark is not None and mark.start:
            return mark.start
    raise AssertionError("no pass begins")


def spoil(trio: Trio, name: str, key: bytes = b"n") -> None:
    """Change a record of one replica behind its back. Its checksum would be right: there is none in memory."""
    values = trio.stores[name]._state.values
    found = next(known for known in sorted(values) if known.startswith(key))
    values[found] = values[found][:-1] + bytes((values[found][-1] ^ 1,))


def test_a_pass_reads_everything_everywhere_and_the_next_comes_an_interval_later() -> None:
    trio = filled()
    assert passes(trio) == {1}, "a new cluster is looked at once"
    before = {name: replica.scrub.tally.bytes for name, replica in trio.replicas.items()}
    expected = sum(len(payload) for _, payload in trio.stores["a"]._journal.values.values())
    expected += sum(len(key) + len(value) for key, value in trio.stores["a"]._state.values.items())
    trio.run(INTERVAL_S / 4)
    assert passes(trio) == {1}
    next_pass(trio)
    assert passes(trio) == {2}
    for name, replica in trio.replicas.items():
        assert expected <= replica.scrub.tally.bytes - before[name] < 2 * expected
    assert not ailing(trio)


def test_without_an_interval_there_is_a_pass_only_when_somebody_asks() -> None:
    trio = filled(ScrubSettings(interval_ms=0))
    next_pass(trio)
    assert passes(trio) == {0}
    trio.replicas[trio.leader].scrub.ask()
    trio.run(5.0)
    assert passes(trio) == {1}
    next_pass(trio)
    assert passes(trio) == {1}


def test_a_leader_whose_copy_is_no_good_for_a_follower_reads_everything_again() -> None:
    trio = filled(ScrubSettings(interval_ms=0))
    leader = trio.replicas[trio.leader]
    follower = next(name for name in trio.names if name != trio.leader)
    leader.deliver(follower, PieceTaken(leader.engine.term, 1, -5))
    trio.run(2.0)
    assert passes(trio) == {0}, "it had no room, which says nothing about the leader"
    read_bytes = leader.scrub.tally.bytes
    leader.deliver(follower, PieceTaken(leader.engine.term, 1, -5, unfit=True))
    trio.run(2.0)
    assert passes(trio) == {1}
    assert leader.scrub.tally.bytes > read_bytes


def test_an_ask_during_a_pass_is_for_the_next_one() -> None:
    trio = filled()
    until_a_pass_is_under_way(trio)
    assert passes(trio) == {1}
    trio.replicas[trio.leader].scrub.ask()
    trio.run(3.0)
    assert passes(trio) == {3}


@pytest.mark.parametrize("key", [b"m", b"n", b"c", b"s"])
@pytest.mark.parametrize("leads", [True, False])
def test_whoever_differs_from_the_majority_knows_that_it_is_wrong(leads: bool, key: bytes) -> None:
    trio = filled()
    wrong = next(name for name in trio.names if (name == trio.leader) == leads)
    spoil(trio, wrong, key)
    next_pass(trio)
    assert ailing(trio) == {wrong}
    assert "differs from that of a majority" in str(trio.replicas[wrong].report().trouble)
    assert all(set(replica.report().scrub.ailing) == {wrong} for replica in trio.replicas.values())
    assert trio.leader != wrong, "it does not lead any more"


def test_nothing_is_found_when_the_scrub_is_off() -> None:
    trio = filled(ScrubSettings(interval_ms=0))
    spoil(trio, trio.leader)
    next_pass(trio)
    assert not ailing(trio)


def test_without_a_majority_nobody_is_repaired_and_everybody_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub, "PATIENCE_S", 1.0)
    trio = filled()
    away, wrong = (name for name in trio.names if name != trio.leader)
    trio.crash(away)
    spoil(trio, wrong)
    next_pass(trio)
    assert not ailing(trio)
    for replica in trio.replicas.values():
        assert "no majority agrees" in str(replica.report().scrub.disagreement)
        assert replica.report().trouble is None, "each may be the one that is right"
    trio.start(away)
    next_pass(trio)
    assert ailing(trio) == {wrong}
    assert {replica.scrub.disagreement for replica in trio.replicas.values()} == {None}


def test_three_that_all_differ_are_left_alone() -> None:
    trio = filled()
    for key, name in zip((b"n", b"c"), trio.names, strict=False):
        spoil(trio, name, key)
    spoil(trio, trio.names[0], b"c")
    spoil(trio, trio.names[0], b"q")
    next_pass(trio)
    assert len(ailing(trio)) <= 1, "of three that differ in one span nobody is right"


def test_a_replica_that_was_away_is_compared_when_it_comes_to_the_marks() -> None:
    """The marks lie in the log: it does not matter when a replica applies them."""
    trio = filled()
    away = next(name for name in trio.names if name != trio.leader)
    trio.crash(away)
    next_pass(trio)
    assert passes(trio) == {2}
    spoil(trio, away)
    trio.start(away)
    trio.run(5.0)
    assert ailing(trio) <= {away}
    next_pass(trio)
    assert ailing(trio) == {away}


def test_another_leader_goes_on_where_the_last_one_was() -> None:
    trio = filled()
    until_a_pass_is_under_way(trio)
    trio.crash(trio.leader)
    trio.run(4.0)
    assert passes(trio) == {2}
    journal = trio.stores[trio.leader]._journal.values
    marks = [payload for _, (_, payload) in sorted(journal.items()) if payload[0] == MARK_KIND]
    second = [payload[9:] for payload in marks if payload[:9] == marks[-1][:9]]
    assert second.count(b"") == 1, "it was not begun again"
    assert second == sorted(second)


def test_a_restarted_cluster_keeps_to_the_interval() -> None:
    trio = filled()
    for name in trio.names:
        trio.crash(name)
    trio.start()
    trio.run(2.0)
    (began_ms,) = {replica.scrub._mark.pass_ms for replica in trio.replicas.values() if replica.scrub._mark}
    next_pass(trio)
    (next_ms,) = {replica.scrub._mark.pass_ms for replica in trio.replicas.values() if replica.scrub._mark}
    assert next_ms - began_ms == pytest.approx(1000 * INTERVAL_S, abs=100)


def test_a_slow_scrub_reads_only_so_much_in_a_second() -> None:
    trio = filled(ScrubSettings(interval_ms=0, bytes_per_s=200))
    state_bytes = sum(len(key) + len(value) for key, value in trio.stores["a"]._state.values.items())
    trio.replicas[trio.leader].scrub.ask()
    before_s = trio.now_s
    while passes(trio) != {1}:
        trio.run(0.1)
        assert trio.now_s - before_s < 2 * state_bytes / 200
    assert trio.now_s - before_s > 0.7 * state_bytes / 200


def test_no_alarm_is_false_whatever_is_written_and_whoever_comes_and_goes() -> None:
    rng = random.Random(3)
    trio = filled(ScrubSettings(interval_ms=500))
    held: list[Claim] = []
    acts: list[Callable[[], object]] = [
        lambda: trio.do(Send(f"q{rng.randrange(10)}", 3), encode_block([(b"x", b"")] * 3)),
        lambda: trio.do(PutQueue(f"q{rng.randrange(30)}", QueueSettings())),
        lambda: held.extend(_taken(trio, f"q{rng.randrange(10)}", rng.getrandbits(40) | 1)),
        lambda: trio.do(Ack("q1", [held.pop()])) if held else None,
    ]
    for round_ in range(150):
        rng.choice(acts)()
        if round_ % 30 == 10:
            down = rng.choice(trio.names)
            trio.crash(down)
            trio.run(2.0)
            trio.start(down)
            trio.run(2.0)
    trio.run(3.0)
    assert max(passes(trio)) > 3
    assert not ailing(trio)
    assert {replica.scrub.disagreement for replica in trio.replicas.values()} == {None}


def _taken(trio: Trio, queue: str, token: int) -> list[Claim]:
    received = trio.do(Receive(queue, 2, 60_000, token))
    if not isinstance(received, Received) or queue != "q1":
        return []
    return [Claim(received.token, delivery.message_id, delivery.count) for delivery in received.deliveries]


def test_a_digest_that_comes_before_the_mark_is_not_forgotten() -> None:
    """The others may have ended the pass before this replica begins it."""
    store = MemoryStore()
    alone = Scrub(
        "a",
        store,
        OFTEN,
        Tally(),
        voters=lambda: "abc",
        connected=lambda: (),
        ailing=lambda: (),
        tell=lambda node, message: None,
        term=lambda: 1,
    )
    for node in "bc":
        alone.heard(node, Digest(1, 7, 500, FORMAT, b"theirs"), 0.0)
    store.begin()
    store.put(b"n", b"another value")
    alone.marked(7, struct.pack("<BQ", MARK_KIND, 500))
    store.commit()
    alone.committed(600, 0.0)
    assert alone.damage is not None


def test_digests_of_another_format_are_not_compared() -> None:
    trio = filled()
    for name in trio.names:
        for index, votes in trio.replicas[name].scrub._votes.items():
            for other in set(trio.names) - {name}:
                digest = Digest(1, index, votes.pass_ms, FORMAT + 1, b"of an upgraded node")
                trio.replicas[name].deliver(other, digest)
    trio.run(1.0)
    assert not ailing(trio)


def test_a_check_that_somebody_asked_for_does_not_stand_in_for_a_pass() -> None:
    trio = filled(ScrubSettings(interval_ms=0))
    for replica in trio.replicas.values():
        replica.scrub.check()
    trio.replicas[trio.leader].scrub.ask()
    trio.run(3.0)
    assert passes(trio) == {1}
