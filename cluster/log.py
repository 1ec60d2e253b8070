"""The log as the consensus code sees it: what is appended, what of it is committed, and what is applied.

What is committed is never replaced: whoever says that it is another entry stops this replica. Everything is applied
once, in order. An entry counts as held by this replica once it is durable, and not before.
"""

from __future__ import annotations

from collections.abc import Callable

from cluster.journal import MARK_KIND, BrokenInvariantError, Journal
from cluster.membership import MEMBERSHIP_KIND, Membership, Memberships
from cluster.seams import Node, Seams
from cluster.tuning import Tuning
from storage.operations import ENTRY_KIND


class Log(Seams):
    """The part of the engine that keeps the log. `cluster.engine.Engine` is the whole."""

    def __init__(
        self,
        name: str,
        journal: Journal,
        memberships: Memberships,
        monotonic: Callable[[], float],
        tuning: Tuning,
        *,
        apply: Callable[[int, int, bytes], None],
        marked: Callable[[int, bytes], None],
    ) -> None:
        """Begin as a follower, where the journal ends."""
        self._journal, self._memberships = journal, memberships
        self._apply, self._marked = apply, marked
        self._nodes: dict[str, Node] = {}
        self.name = name
        self._voting = frozenset(memberships.latest.voters)
        # NB: the stock constructor reads every property of the engine, so what they stand on must be there by now.
        super().__init__(name, self._other_voters(), monotonic, tuning)
        term, vote = journal.hard()
        self._SyncObj__raftLog = journal
        self._SyncObj__raftCurrentTerm = max(term, journal.last_term)
        self._SyncObj__votedForNodeId = vote if term == self.term else None
        self._SyncObj__raftCommitIndex = self._SyncObj__raftLastApplied = journal.applied_index

    @property
    def last_index(self) -> int:
        """Index of the last entry of the journal."""
        return self._journal.last_index

    @property
    def durable_index(self) -> int:
        """Index of the last entry that a crash would not take away."""
        return self._journal.durable_index

    @property
    def first_index(self) -> int:
        """Index of the first entry that can still be replicated."""
        return self._journal.first_index

    @property
    def journal_bytes(self) -> int:
        """Payload bytes that this engine has added to the journal and that are still in it."""
        return self._journal.bytes

    @property
    def membership(self) -> Membership:
        """The membership in force: the last one in the journal, committed or not."""
        return self._memberships.latest

    @property
    def memberships(self) -> Memberships:
        """The applied membership, and those that may follow it."""
        return self._memberships

    @property
    def has_applied_own_term(self) -> bool:
        """Whether an entry of the present term is applied here. Until one is committed, its leader does not know all
        that earlier ones have committed."""
        return self._journal.applied_term == self.term

    # --- appending ----------------------------------------------------------------------------------------------------

    def _append(self, index: int, term: int, payload: bytes) -> None:
        self._journal.append(index, term, payload)
        if self._memberships.appended(index, payload):
            self._reconfigure()

    def _differs(self, index: int, term: int) -> bool:
        """Whether the leader's entry at `index` is not here. What is committed here must be the same there."""
        if index < self._journal.first_index:
            return False
        if index <= self.last_index and self._journal.term(index) == term:
            return False
        if index <= self.commit_index:
            raise BrokenInvariantError(f"entry {index} is committed, but the leader has another one of term {term}")
        return True

    def _truncate(self, index: int) -> None:
        self._journal.truncate(index)
        if self._memberships.truncated(index):
            self._reconfigure()

    def _reconfigure(self) -> None:
        """Another membership is in force."""
        self._voting = frozenset(self.membership.voters)
        self._SyncObj__otherNodes = self._other_voters()

    def _other_voters(self) -> set[Node]:
        return {self._node(name) for name in self._voting if name != self.name}

    def _node(self, name: str) -> Node:
        """The stock code's word for a replica."""
        return self._nodes.setdefault(name, Node(name))

    # --- committing and applying --------------------------------------------------------------------------------------

    def _advance_commit(self, leader_commit_index: int, verified_index: int) -> None:
        """Commit what the leader has committed, as far as this message has shown that it is the same here."""
        self._SyncObj__raftCommitIndex = max(self.commit_index, min(leader_commit_index, verified_index))

    def _SyncObj__getEntries(  # noqa: N802
        self, index: int, count: int | None = None, bytes_max: int | None = None
    ) -> list[tuple[bytes, int, int]]:
        """Only the commit rule asks, for one entry's term; it counts this node as having what it gets here."""
        return [(b"", index, self._journal.term(index))] if index <= self._journal.durable_index else []

    def _can_commit(self) -> bool:
        """Whether the next tick will commit something: an own entry became durable after others had it."""
        if not self.is_leader:
            return False
        durable_index = self._journal.durable_index
        held = sorted((durable_index, *self._SyncObj__raftMatchIndex.values()), reverse=True)
        index = min(held[len(self._voting) // 2], durable_index)
        return bool(index > self.commit_index and index >= int(self._SyncObj__noopIDx))

    def _SyncObj__applyLogEntries(self) -> bool:  # noqa: N802
        index, payload_bytes = self.applied_index, 0
        last = min(self.commit_index, index + self._tuning.apply_entries)
        if index == last:
            return False
        while index < last and payload_bytes < self._tuning.apply_bytes:
            index += 1
            entry = self._journal.entry(index)
            payload_bytes += len(entry.payload)
            if entry.payload[0] == ENTRY_KIND:
                self._apply(index, entry.term, entry.payload)
            elif entry.payload[0] == MEMBERSHIP_KIND:
                self._memberships.apply(index, entry.payload)
            self._SyncObj__raftLastApplied = index
            if entry.payload[0] == MARK_KIND:
                self._marked(index, entry.payload)
                break
        self._journal.set_applied(index, entry.term)
        return False

    def _SyncObj__tryLogCompaction(self) -> None:  # noqa: N802
        # What is applied but not yet durable stays: a copy made in this tick ends before it.
        journal, tuning, floor = self._journal, self._tuning, self._copy_floor()
        limit = journal.durable_applied_index if floor is None else floor
        journal.compact(limit, tuning.journal_keep_entries, tuning.journal_keep_bytes, tuning.compact_steps)

    def _copy_floor(self) -> int | None:
        """The journal must be kept from here on for those who take a copy now; None: nobody does."""
        raise NotImplementedError
