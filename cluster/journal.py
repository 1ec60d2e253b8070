"""The replica's journal and hard state, as the consensus code sees them.

Entries, term and vote go straight into the store's open transaction. The last entries stay in memory, bounded by
bytes, so that replicating and applying what has just arrived reads nothing back; older entries come from the store.

    meta "hard"    = term u64 | name of the member voted for in that term (UTF-8, empty for none)
    meta "applied" = index u64 | term u64 of the last applied entry, written beside its effects

The commit index is not kept: it is at least the applied index, and the leader knows the rest.
"""

from __future__ import annotations

import struct
from collections import deque

from storage.state import Logged, Store

NO_OP = 1
"""Kind of an entry that only marks the beginning of a term."""

MARK_KIND = 3
"""Kind of an entry after which a replica ends its tick, so that its commit is the state at exactly this index."""

_TERM = struct.Struct("<Q")
_APPLIED = struct.Struct("<QQ")


class BrokenInvariantError(Exception):
    """What cannot happen has happened. The process must end before it spreads."""


class Journal:
    """Entries `first_index` … `last_index` with their terms, the term and the vote."""

    def __init__(self, store: Store, cache_bytes: int) -> None:
        """Read what is there. An empty store gets the entry every replica begins with. Needs a transaction."""
        self._store = store
        self._cache_bytes_max = cache_bytes
        self._cache: dict[int, Logged] = {}
        self._cached_bytes = 0
        self._sizes: deque[int] = deque()
        self.bytes = 0
        """Payload bytes added since the start that are still in the contiguous journal."""
        self.last_index = store.last_index
        self.last_term = self.applied_term = 0
        self.applied_index = 0
        self.durable_index = self.durable_applied_index = 0
        """Up to where a crash would take nothing away, of the entries and of what they have done."""
        if self.last_index == 0:
            self.append(1, 0, bytes((NO_OP,)))
            self.set_applied(1, 0)
        else:
            self.last_term = self.entry(self.last_index).term
            self.applied_index, self.applied_term = self.applied()
            if self.applied_index > self.last_index:
                raise BrokenInvariantError(f"entry {self.applied_index} was applied but is not in the journal")

    # --- entries ------------------------------------------------------------------------------------------------------

    @property
    def first_index(self) -> int:
        """Index of the first entry that can still be replicated."""
        return self._store.first_index

    def entry(self, index: int) -> Logged:
        """The entry at `index`. Raises `BrokenInvariantError` when it is not in the contiguous journal."""
        found = self._cache.get(index) or self._store.logged(index)
        if found is None:
            raise BrokenInvariantError(f"entry {index} is needed but not in the journal")
        return found

    def term(self, index: int) -> int:
        """The term of the entry at `index`; 0 for index 0."""
        if index == self.last_index:
            return self.last_term
        return self.entry(index).term if index else 0

    def append(self, index: int, term: int, payload: bytes) -> None:
        """Add the entry after the last."""
        self._store.append(index, term, payload)
        self.last_index, self.last_term = index, term
        self._cache[index] = Logged(index, term, payload)
        self._cached_bytes += len(payload)
        while self._cached_bytes > self._cache_bytes_max and len(self._cache) > 1:
            self._cached_bytes -= len(self._cache.pop(next(iter(self._cache))).payload)
        self._sizes.append(len(payload))
        self.bytes += len(payload)

    def truncate(self, index: int) -> None:
        """Drop every entry from `index` on."""
        self._store.truncate(index)
        for dropped in range(self.last_index, index - 1, -1):
            cached = self._cache.pop(dropped, None)
            if cached is not None:
                self._cached_bytes -= len(cached.payload)
            if self._sizes:
                self.bytes -= self._sizes.pop()
        self.last_term = self.term(index - 1)
        self.last_index = index - 1
        self.durable_index = min(self.durable_index, self.last_index)

    def compact(self, limit: int, entries_max: int, bytes_max: int, steps_max: int) -> None:
        """Keep the last `entries_max` entries and `bytes_max` bytes of payload, and everything from `limit` on."""
        first = self.first_index
        target = max(first, self.last_index - entries_max)
        unsized = self.last_index - len(self._sizes)
        excess = self.bytes - bytes_max
        for offset, size in enumerate(self._sizes):
            if excess <= 0:
                break
            excess -= size
            target = max(target, unsized + offset + 2)
        target = min(target, limit, first + steps_max)
        if target <= first:
            return
        self._store.compact(target, steps_max)
        while self._sizes and self.last_index - len(self._sizes) + 1 < self.first_index:
            self.bytes -= self._sizes.popleft()

    # --- hard state ---------------------------------------------------------------------------------------------------

    def hard(self) -> tuple[int, str | None]:
        """The durable term, and who got this replica's vote in it."""
        value = self._store.meta("hard")
        if value is None:
            return 0, None
        return _TERM.unpack_from(value)[0], value[_TERM.size :].decode() or None

    def applied(self) -> tuple[int, int]:
        """Index and term of the last applied entry."""
        value = self._store.meta("applied")
        if value is None:
            raise BrokenInvariantError("the store holds a journal but no applied index")
        index, term = _APPLIED.unpack(value)
        return index, term

    def set_applied(self, index: int, term: int) -> None:
        """Everything up to entry `index` has had its effect in this transaction or before."""
        self.applied_index, self.applied_term = index, term
        self._store.set_meta("applied", _APPLIED.pack(index, term))

    def synced(self) -> None:
        """The transaction is committed."""
        self.durable_index, self.durable_applied_index = self.last_index, self.applied_index

    # --- what the consensus code calls, under its own names -----------------------------------------------------------

    def __getitem__(self, position: int) -> tuple[bytes, int, int]:
        """The last entry as (payload, index, term), without its payload; no other is ever asked for."""
        if position != -1:
            raise IndexError(position)
        return b"", self.last_index, self.last_term

    def add(self, payload: bytes, index: int, term: int) -> None:
        """Add the entry after the last."""
        self.append(index, term, payload)

    def setCurrentTerm(self, term: int, voted_for: str | None) -> None:  # noqa: N802
        """Remember the term and the vote."""
        self._store.set_meta("hard", _TERM.pack(term) + (voted_for or "").encode())

    def setRaftCommitIndex(self, index: int) -> None:  # noqa: N802
        """Not kept."""

    def onOneSecondTimer(self) -> None:  # noqa: N802
        """Nothing is done by the clock."""

    def _destroy(self) -> None:
        """The store belongs to the caller."""
