"""The last resort: what a lone survivor keeps, what it becomes, and what can never merge with it."""

from __future__ import annotations

import pytest

from cluster.admission import Here, refuse
from cluster.membership import Membership, configured, encode_membership
from cluster.messages import Append, RequestVote
from cluster.recovery import NothingFoundError, look, recover
from cluster.standing import lose
from cluster.wire import VERSION, Hello
from storage.codes import QUEUE_EXISTS
from storage.memory_store import MemoryStore
from storage.operations import Refused
from storage.queue_operations import PutQueue
from storage.settings import QueueSettings
from tests.cluster.bench import Bench, payload
from tests.cluster.trio import START_MS, Trio

FOUNDERS = configured({"a": "A", "b": "B", "c": "C"}, "old")
ALONE = Membership("new", {"a": "A"}, {}, ("b", "c"))
TEXTS = ["x-------", "y-------", "z-------"]
"""Of entries that a bench takes for real ones: their stamp is what begins them."""


def survivor(*, born: bool = True, commit: int = 2, entries: list[tuple[int, bytes]] | None = None) -> MemoryStore:
    """Replica a, that holds three entries of term 4, of which it has applied some."""
    bench = Bench("abc")
    bench.connect("b", "c", born=True)
    bench.tick(("b", Append(4, 1, 0, entries or [(4, payload(text)) for text in TEXTS], commit, 0, 0.0)))
    if born:
        bench.store.begin()
        bench.engine._standing.welcomed()
        bench.store.commit()
    return bench.store.crashed()


def start(store: MemoryStore, members: str = "abc") -> Bench:
    """Start it again; it is configured as it was."""
    bench = Bench(members, store=store.crashed())
    bench.wait(0.1)
    for _ in range(4):
        bench.tick()
        bench.wait(0.01)
    return bench


def test_a_survivor_without_its_majority_never_leads() -> None:
    bench = start(survivor())
    bench.wait(100.0)
    bench.tick()
    assert not bench.engine.is_leader


@pytest.mark.parametrize("born", [True, False], ids=["whole", "once wiped, and never welcomed"])
def test_recovered_it_leads_alone_and_has_all_it_had(born: bool) -> None:
    store = survivor(born=born)
    assert recover(store, FOUNDERS, "a", "A", "new") == ALONE
    bench = start(store)
    assert bench.engine.is_leader
    assert [text for _, _, text in bench.applied] == TEXTS[1:], "also what was not known to be committed"
    assert bench.engine.membership == bench.engine.memberships.applied == ALONE
    assert bench.engine.term > 4
    entries = map(bench.store.logged, range(1, bench.store.last_index + 1))
    terms = [entry.term for entry in entries if entry is not None]
    assert terms == sorted(terms), "as in every journal"
    again = start(bench.store)
    assert again.engine.membership == ALONE


def test_a_change_that_was_under_way_is_overruled() -> None:
    under_way = FOUNDERS.with_learner("d", "D")
    store = survivor(commit=1, entries=[(4, encode_membership(under_way))])
    assert look(store, FOUNDERS).membership == under_way
    recover(store, FOUNDERS, "a", "A", "new")
    bench = start(store)
    assert bench.engine.is_leader
    assert bench.engine.memberships.applied == Membership("new", {"a": "A"}, {}, ("b", "c", "d"))


def test_those_who_were_lost_are_strangers_and_their_names_are_gone() -> None:
    store = survivor()
    recover(store, FOUNDERS, "a", "A", "new")
    engine = start(store).engine
    here = Here("a", 0, engine.is_blank, engine.membership, engine.membership.removed, ("a", "b", "c"))
    came_back = refuse(Hello(VERSION, "old", 0, "replica", "b", True, False, "B", "1"), here)
    emptied = refuse(Hello(VERSION, "old", 0, "replica", "c", False, True, "C", "2"), here)
    assert came_back is not None
    assert "recovered by force" in came_back.detail
    assert not came_back.removed, "it may be right, and this one wrong: it is not told to give up"
    assert emptied is not None
    assert emptied.removed


def test_what_the_lost_ones_still_say_counts_for_nothing() -> None:
    store = survivor()
    recover(store, FOUNDERS, "a", "A", "new")
    bench = start(store)
    last_index = bench.engine.last_index
    bench.tick(("b", Append(99, 4, 4, [(99, payload("theirs"))], 5, 0, 0.0)), ("c", RequestVote(99, 99, 99, True)))
    assert (bench.engine.last_index, bench.engine.is_leader) == (last_index, True)


def test_a_removed_node_can_be_recovered_too() -> None:
    bench = Bench("abc")
    bench.connect("b", "c", born=True)
    bench.tick(("b", bench.append((1, 0), (1, "x"), term=1, commit=2)))
    bench.engine.retire()
    bench.tick()
    store = bench.store.crashed()
    assert look(store, FOUNDERS).is_removed
    recover(store, FOUNDERS, "a", "A", "new")
    again = start(store)
    assert again.engine.is_leader
    assert not again.engine.is_removed


def test_looking_changes_nothing_and_tells_what_is_there() -> None:
    store = survivor(born=False)
    found = look(store, FOUNDERS)
    assert (found.term, found.last_term, found.last_index, found.applied_index) == (4, 4, 4, 2)
    assert (found.is_whole, found.is_removed) == (False, False)
    assert look(store.crashed(), FOUNDERS) == found


def test_an_empty_store_is_no_survivor() -> None:
    empty = Bench("abc").store.crashed()
    with pytest.raises(NothingFoundError):
        recover(empty, FOUNDERS, "a", "A", "new")
    with pytest.raises(NothingFoundError):
        look(MemoryStore(), FOUNDERS)


def test_a_store_that_was_set_aside_is_told_to_be_incomplete_and_recovered_counts() -> None:
    store = survivor()
    store.begin()
    lose(store)
    store.commit()
    assert not look(store, FOUNDERS).is_whole
    recover(store, FOUNDERS, "a", "A", "new")
    assert start(store).engine.is_leader


def test_the_name_of_a_cluster_that_was_joined_is_what_is_told() -> None:
    bench = Bench("abc")
    bench.connect("b", "c", born=True)
    bench.engine.adopt("joined")
    bench.tick(("b", Append(4, 1, 0, [(4, payload(TEXTS[0]))], 2, 0, 0.0)))
    assert look(bench.store.crashed(), FOUNDERS).membership.cluster == "joined"


def test_one_never_took_part_and_another_lost_its_disk() -> None:
    """All are up again, and yet nobody can lead: founding needs three that are new, and electing two that count."""
    trio = Trio()
    trio.start()
    trio.block("c")
    trio.run(3.0)
    trio.do(PutQueue("q", QueueSettings(), True))
    left = trio.leader
    (wiped,) = {"a", "b"} - {left}
    trio.run(2.0)
    for name in "abc":
        trio.crash(name)
    assert not trio.replicas
    trio.stores[wiped] = MemoryStore()
    trio.heal()
    trio.start()
    trio.run(60.0)
    assert all(replica.report().leader is None for replica in trio.replicas.values())

    trio.crash(left)
    found = look(trio.stores[left], FOUNDERS)
    assert found.is_whole
    assert START_MS < found.clock_ms < START_MS + 5_000, "when the last operation was entered"
    recover(trio.stores[left], FOUNDERS, left, "A", "new")
    for name in set("abc") - {left}:
        trio.crash(name)
    trio.start(left)
    trio.run(3.0)
    assert trio.leader == left
    assert trio.replicas[left].report().cluster == "new"
    assert trio.do(PutQueue("q", QueueSettings(), True)) == Refused(QUEUE_EXISTS), "the queue is there"
