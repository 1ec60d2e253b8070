"""Nodes that break one rule each, to show that chaos would notice.

Runs in every process of every node (`inside/sitecustomize.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec


def no_sync() -> None:
    """Commits are not synced: they are gone with the power."""
    import lmdb

    real = lmdb.Environment

    def environment(*args: Any, **settings: Any) -> Any:
        return real(*args, **settings | {"sync": False, "metasync": False})

    setattr(lmdb, "Environment", environment)  # noqa: B010


def no_memory() -> None:
    """What had an effect is forgotten, so that a retry has it again."""
    from storage import machine

    machine._has_effect = lambda outcome: False


def own_clock() -> None:
    """Leases and delays go by the leader's own wall clock."""
    from cluster.clock import ClusterClock

    ClusterClock.now_ms = lambda self: time.time_ns() // 1_000_000  # type: ignore[method-assign]


def goes_on() -> None:
    """A commit that failed is taken for done, as LMDB itself would after a failed sync."""
    from storage.lmdb_store import LmdbStore
    from storage.state import StorageFailure

    real = LmdbStore.commit

    def commit(self: Any) -> None:
        try:
            real(self)
        except StorageFailure:
            self._failure = None

    LmdbStore.commit = commit  # type: ignore[method-assign]


def no_checksums() -> None:
    """What was read is taken for what was written."""
    from storage import block, lmdb_store, lmdb_tables, seals

    def unseal_entry(index: int, sealed: memoryview) -> tuple[int, memoryview]:
        return seals._ENTRY.unpack_from(sealed)[0], sealed[seals.ENTRY_SEAL_BYTES :]

    for module in (lmdb_store, lmdb_tables):
        module.unseal = lambda key, sealed: bytes(sealed[4:])  # type: ignore[attr-defined]
        module.unseal_entry = unseal_entry  # type: ignore[attr-defined]
    setattr(block, "zlib", SimpleNamespace(crc32=lambda data, start=0: 0))  # noqa: B010


def any_token() -> None:
    """Whoever was once given a message may ack it, also when it is leased to another."""
    from storage import settling

    real = settling._settle_chunk

    def settle(turn: Any, queue: Any, operation: Any, claim: Any, chunk_id: int, chunk: Any, *span: int) -> Any:
        token = next((segment.token for segment in chunk.segments if segment.token), claim.token)
        return real(turn, queue, operation, msgspec.structs.replace(claim, token=token), chunk_id, chunk, *span)

    setattr(settling, "_settle_chunk", settle)  # noqa: B010


def no_extension() -> None:
    """A lease that is extended ends when it would have."""
    from storage import settling
    from storage.operations import Extend

    real = settling._settle_segment

    def settle(turn: Any, queue: Any, operation: Any, *rest: Any) -> None:
        if type(operation) is not Extend:
            real(turn, queue, operation, *rest)

    setattr(settling, "_settle_segment", settle)  # noqa: B010


def no_fifo() -> None:
    """A fifo queue is made as one that is not: its groups are nobody's alone, and go on while a message waits."""
    from storage import machine, queue_rules

    real = queue_rules.put_queue

    def put_queue(turn: Any, operation: Any) -> Any:
        settings = msgspec.structs.replace(operation.settings, fifo=False)
        return real(turn, msgspec.structs.replace(operation, settings=settings))

    setattr(machine, "put_queue", put_queue)  # noqa: B010


def no_marks() -> None:
    """A chunk of which something was ever taken is not marked for filters: they pass over what is left of it."""
    from storage import sifting

    real = sifting.marked
    setattr(sifting, "marked", lambda chunk: frozenset() if any(s.attempts for s in chunk.segments) else real(chunk))  # noqa: B010


BROKEN: dict[str, Callable[[], None]] = {
    "no-sync": no_sync,
    "no-memory": no_memory,
    "own-clock": own_clock,
    "goes-on": goes_on,
    "no-checksums": no_checksums,
    "any-token": any_token,
    "no-extension": no_extension,
    "no-fifo": no_fifo,
    "no-marks": no_marks,
}
"""Every broken rule by its name."""
