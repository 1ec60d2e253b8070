"""A replica says that it is fit only when the others may do without one of themselves."""

from __future__ import annotations

from storage.memory_store import MemoryStore
from tests.cluster.trio import STEP_S, Trio


def test_a_wiped_replica_is_not_fit_before_its_word_counts() -> None:
    trio = Trio()
    trio.start()
    trio.run(1.0)
    wiped = next(name for name in trio.names if name != trio.leader)
    trio.crash(wiped)
    trio.stores[wiped] = MemoryStore()
    trio.start(wiped)
    replica, seen = trio.replicas[wiped], set()
    for _ in range(300):
        trio.run(STEP_S)
        seen.add((replica.report().trouble is None, replica.engine.counts))
    assert (True, True) in seen, "it becomes fit"
    assert (False, False) in seen, "it was not at first"
    assert (True, False) not in seen, "it said it was fit while its word did not count"
