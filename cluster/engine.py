"""The Raft engine: PySyncObj hardened at its seams, without I/O.

`Engine` has no sockets, threads, clock or chance of its own. Its caller opens a transaction of the store, hands it what
has arrived, and releases what it sends, in this order:

    store.begin()
    engine.receive(node, message)          for each message; connected() and disconnected() as they happen
    engine.tick()                          elections, commit, apply, compaction
    index = engine.propose(payload)        as leader
    engine.replicate()
    store.commit()
    engine.synced()                        what was written is durable: from now on this node counts as having it
    …release the messages that are not urgent

PySyncObj keeps the roles, the terms, the votes, the election and the commit rule (`cluster.seams`). When to campaign
and whom to help stands in `cluster.elections`; replication, acknowledgement, apply, snapshots and transfer here.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf, nextafter

from cluster.elections import Elections
from cluster.journal import BrokenInvariantError, Journal
from cluster.messages import (
    Append,
    Appended,
    Message,
    Piece,
    PieceTaken,
    PreVote,
    PreVoted,
    RequestVote,
    TimeoutNow,
    Vote,
    Welcome,
)
from cluster.replication import Follower
from cluster.seams import CANDIDATE, FOLLOWER, LEADER, Node
from cluster.snapshots import Incoming, Outgoing
from cluster.standing import Standing
from cluster.tuning import Tuning
from storage.operations import ENTRY_KIND
from storage.state import Store


class NotLeaderError(Exception):
    """Only a leader that is not handing over takes proposals."""


class ReinstalledError(Exception):
    """A snapshot has taken the store's place: close the store, open it again, and build a new engine on it."""


@dataclass(slots=True)
class _Transfer:
    to: str | None
    until_s: float
    asked: bool = False


class Engine(Elections):
    """One replica's consensus. See the module for the order of calls."""

    def __init__(
        self,
        name: str,
        members: Iterable[str],
        store: Store,
        *,
        apply: Callable[[int, int, bytes], None],
        send: Callable[[str, Message], None],
        monotonic: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        tuning: Tuning | None = None,
        on_dropped: Callable[[int], None] = lambda index: None,
        stamp: Callable[[], int] = lambda: 0,
        observe: Callable[[int], None] = lambda clock_ms: None,
        wall_ms: Callable[[], int] = lambda: 0,
        room_ok: Callable[[], bool] = lambda: True,
        heard: Callable[[str, int, bool], None] = lambda node, wall_ms, room_ok: None,
    ) -> None:
        """Stand where the store says. No transaction may be open: this takes one of its own.

        name, members: this replica and all replicas of the shard, itself included.
        apply(index, term, payload): an entry is committed; write its effects into the open transaction. What it
            raises is fatal. Each entry is applied once, in order.
        send(node, message): hand over to the transport, now or after the commit, see `cluster.messages`.
        monotonic, rng: time in seconds and chance.
        on_dropped(index): an own proposal will never be committed.
        stamp() → observe(clock_ms): the leader's cluster time, told to followers with every append.
        wall_ms(), room_ok() → heard(node, wall_ms, room_ok): a follower's facts, told to the leader with every answer.
        """
        self._names = sorted(set(members))
        if name not in self._names:
            raise ValueError(f"{name} is not among the members {', '.join(self._names)}")
        self._peers = {peer: Node(peer) for peer in self._names if peer != name}
        self._store, self._apply, self._send = store, apply, send
        self._rng = rng or random.Random()
        self._dropped, self._stamp, self._observe = on_dropped, stamp, observe
        self._wall_ms, self._room_ok, self._heard = wall_ms, room_ok, heard

        tuning = tuning or Tuning()
        store.begin()
        self._journal = Journal(store, tuning.cache_bytes)
        self._standing = Standing(store, len(self._names))
        term, vote = self._journal.hard()
        applied_index, _ = self._journal.applied()
        store.commit()
        if applied_index > self._journal.last_index:
            raise BrokenInvariantError(f"entry {applied_index} was applied but is not in the journal")
        self._durable_index, self._durable_applied_index = self._journal.last_index, applied_index
        self._outgoing, self._incoming = Outgoing(store, tuning), Incoming(store)

        self._connected: set[str] = set()
        self._followers: dict[str, Follower] = {}
        self._transfer: _Transfer | None = None
        self._proposed: deque[int] = deque()

        # NB: the stock constructor reads every property of this class, so what they stand on must be there by now.
        super().__init__(name, self._peers.values(), monotonic, tuning)
        self._SyncObj__raftLog = self._journal
        self._SyncObj__raftCurrentTerm = max(term, self._journal.last_term)
        self._SyncObj__votedForNodeId = vote if term == self.term else None
        self._SyncObj__raftCommitIndex = self._SyncObj__raftLastApplied = applied_index
        self._begin_elections(monotonic(), alone=not self._peers)

    # --- what the caller sees -----------------------------------------------------------------------------------------

    @property
    def last_index(self) -> int:
        """Index of the last entry of the journal."""
        return self._journal.last_index

    @property
    def born(self) -> bool:
        """What this replica's connections say in their hello."""
        return self._standing.born

    @property
    def may_propose(self) -> bool:
        """Whether `propose` would take a proposal: as leader, unless it is handing over."""
        return self.is_leader and self._transfer is None

    @property
    def has_quorum(self) -> bool:
        """Whether a majority was heard lately: as leader from itself, as follower from a leader or by connection."""
        now_s = self._monotonic()
        if self.is_leader:
            since_s = now_s - self._tuning.election_min_s
            return self._is_majority(1 + sum(at_s > since_s for at_s in self._SyncObj__lastResponseTime.values()))
        return self._hears_leader(now_s) or self._is_majority(1 + len(self._connected))

    @property
    def snapshot_trouble(self) -> str | None:
        """Why the snapshot that this replica needs could not be had, or None."""
        return self._incoming.trouble

    def next_wakeup(self) -> float:
        """Monotonic time in seconds at which `tick` must run even if nothing arrives."""
        if self.commit_index > self.applied_index or self._can_commit():
            return self._monotonic()
        if self.is_leader:
            wakeup_s = self._SyncObj__newAppendEntriesTime
        elif self._SyncObj__transferInProgress:
            return self._monotonic()
        else:
            wakeup_s = max(self._SyncObj__raftElectionDeadline, self._rest_until_s)
        return nextafter(wakeup_s, inf)

    def confirmed_since(self) -> float:
        """The latest time (monotonic seconds) since which a majority has certainly known no other leader.

        A query that arrived before may be answered from the applied state, as soon as that has reached the commit
        index of the moment it arrived. -inf if this replica does not lead, or has not applied the first entry of its
        term: until then that commit index may be older than what an earlier leader has answered.
        """
        if not self.is_leader or self.applied_index < self._SyncObj__noopIDx:
            return -inf
        echoes = sorted((follower.echo_s for follower in self._followers.values()), reverse=True)
        others = len(self._names) // 2
        return echoes[others - 1] if others else self._monotonic()

    def confirm(self) -> None:
        """Send a heartbeat to everyone with the next `replicate`, so that `confirmed_since` moves on."""
        for follower in self._followers.values():
            follower.heartbeat_due = True

    # --- what the caller does -----------------------------------------------------------------------------------------

    def connected(self, node: str, born: bool) -> None:
        """A connection to `node` stands; whatever was under way on an earlier one is lost."""
        peer = self._peers.get(node)
        if peer is None:
            return
        self._enter()
        self._connected.add(node)
        self._SyncObj__onNodeConnected(peer)
        self._standing.connected(node, born)
        if node in self._followers:
            self._followers[node].restart(self.last_index + 1)
            self._outgoing.leave(node)
        if self.leader is None:
            self._hurry()

    def disconnected(self, node: str) -> None:
        """The connection to `node` is gone. If it led, an election begins almost at once."""
        peer = self._peers.get(node)
        if peer is None:
            return
        self._enter()
        self._connected.discard(node)
        self._SyncObj__onNodeDisconnected(peer)
        self._standing.disconnected(node)
        self._outgoing.leave(node)
        if self.leader == node:
            self._SyncObj__raftLeader = None
            self._incoming.abandon()
            deadline_s = self._monotonic() + self._jitter_s()
            self._SyncObj__raftElectionDeadline = min(self._SyncObj__raftElectionDeadline, deadline_s)
            self._rest_until_s = 0.0

    def receive(self, node: str, message: Message) -> None:
        """A message has arrived over the present connection to `node`. Raises `BrokenInvariantError`."""
        peer = self._peers.get(node)
        if peer is None:
            return
        self._enter()
        match message:
            case Append():
                self._on_append(peer, message)
            case Appended():
                self._on_appended(peer, message)
            case PreVote():
                self._on_pre_vote(peer, message)
            case PreVoted():
                self._on_pre_voted(peer, message)
            case RequestVote():
                self._on_request_vote(peer, message)
            case Vote():
                self._on_vote(peer, message)
            case TimeoutNow() if message.term == self.term:
                self._SyncObj__onMessageReceived(peer, {"type": "timeout_now", "term": message.term})
            case Welcome() if message.term == self.term and self.leader == node and not self._standing.counts:
                self._standing.welcomed()
                self._votes_from_s = self._monotonic() + self._tuning.election_max_s
            case Piece():
                self._on_piece(peer, message)
            case PieceTaken() if message.term == self.term and self.is_leader:
                index = self._outgoing.taken(node, message, self._monotonic())
                if index is not None:
                    self._followers[node].restart(index + 1)

    def tick(self) -> None:
        """Let time pass: begin an election, commit and apply what is due, compact. Raises what `apply` raises."""
        self._enter()
        self._hand_over()
        self.doTick(0.0)

    def propose(self, payload: bytes) -> int:
        """Append an entry and return its index. `payload[0]` is its kind. Raises `NotLeaderError`."""
        if not self.may_propose:
            raise NotLeaderError(f"{self.name} does not take proposals: the leader is {self.leader}")
        index = self.last_index + 1
        self._journal.append(index, self.term, payload)
        self._proposed.append(index)
        return index

    def replicate(self) -> None:
        """As leader, send every follower what it lacks, as far as its window allows, and heartbeats where due."""
        if not self.is_leader:
            return
        now_s = self._monotonic()
        for name, follower in self._followers.items():
            if name in self._connected:
                self._replicate(name, follower, now_s)
        self._outgoing.expire(now_s)

    def synced(self) -> None:
        """The store has committed. Raises `ReinstalledError` if a snapshot has taken its place."""
        self._durable_index, self._durable_applied_index = self.last_index, self.applied_index
        told, is_installed = self._incoming.step(self.commit_index, self._monotonic())
        if told is not None and self.leader is not None:
            self._send(self.leader, told)
        if is_installed:
            raise ReinstalledError(f"{self.name} begins again on a snapshot")

    def transfer(self, to: str | None = None) -> None:
        """As leader, hand over to `to`, or to whoever has most, as soon as it has everything; else lead on.

        No proposals are taken while it is tried, for `transfer_s` at most.
        """
        if self.is_leader and self._peers and self._transfer is None:
            self._transfer = _Transfer(to, self._monotonic() + self._tuning.transfer_s)

    # --- following ----------------------------------------------------------------------------------------------------

    def _on_append(self, peer: Node, message: Append) -> None:
        if message.term < self.term:
            self._answer(peer, message, ok=False)
            return
        self._follow(peer, message.term)
        self._observe(message.clock_ms)
        prev = message.prev_index
        if self._differs(prev, message.prev_term):
            self._answer(peer, message, ok=False)
            return
        self._take_entries(prev + 1, message.entries)
        verified = prev + len(message.entries)
        self._advance_commit(message.commit_index, verified)
        self._answer(peer, message, ok=True, match_index=verified)

    def _take_entries(self, index: int, entries: list[tuple[int, bytes]]) -> None:
        """Append what is new from `index` on. Only an entry of another term is truncated, with all that follow it."""
        for term, payload in entries:
            if index <= self.last_index and self._differs(index, term):
                self._truncate(index)
            if index > self.last_index:
                self._journal.append(index, term, payload)
                self._standing.appended()
            index += 1

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
        self._durable_index = min(self._durable_index, index - 1)
        while self._proposed and self._proposed[-1] >= index:
            self._dropped(self._proposed.pop())

    def _advance_commit(self, leader_commit_index: int, verified_index: int) -> None:
        """Commit what the leader has committed, as far as this message has shown that it is the same here."""
        self._SyncObj__raftCommitIndex = max(self.commit_index, min(leader_commit_index, verified_index))

    def _answer(self, peer: Node, message: Append, *, ok: bool, match_index: int = 0) -> None:
        answer = Appended(
            self.term,
            ok,
            message.prev_index,
            match_index,
            self.commit_index + 1,
            message.echo,
            self._wall_ms(),
            self._room_ok(),
            self._standing.counts,
        )
        self._send(peer.id, answer)

    def _on_piece(self, peer: Node, message: Piece) -> None:
        if message.term < self.term:
            return
        self._follow(peer, message.term)
        self._send(peer.id, self._incoming.take(message, self.commit_index, self._monotonic()))

    def _follow(self, peer: Node, term: int) -> None:
        """`peer` leads in `term`, which is not below the own one."""
        if term == self.term and self.is_leader:
            raise BrokenInvariantError(f"{peer.id} and {self.name} both lead in term {term}")
        if term > self.term:
            self._adopt(term)
        elif self._SyncObj__raftState == CANDIDATE:
            self._SyncObj__setState(FOLLOWER)
        if self.leader != peer.id:
            self._incoming.abandon()
        self._SyncObj__raftLeader = peer
        self._leader_heard_s = self._monotonic()
        self._granted = None
        if not self._SyncObj__transferInProgress:
            self._SyncObj__raftElectionDeadline = self._leader_heard_s + self._timeout_s()

    # --- leading ------------------------------------------------------------------------------------------------------

    def _SyncObj__onBecomeLeader(self) -> None:  # noqa: N802
        self._followers = {name: Follower(self.last_index + 1) for name in self._peers}
        super()._SyncObj__onBecomeLeader()
        self.election_steps["won"] += 1
        self._standing.appended()

    def _SyncObj__sendAppendEntries(self) -> None:  # noqa: N802
        """A heartbeat is due; `replicate` sends it."""
        self._SyncObj__newAppendEntriesTime = self._monotonic() + self._tuning.heartbeat_s
        self.confirm()

    def _replicate(self, name: str, follower: Follower, now_s: float) -> None:
        tuning = self._tuning
        if follower.next_index <= self._journal.first_index:
            for piece in self._outgoing.pieces(name, self.term, self._durable_applied_index, now_s):
                self._send(name, piece)
            if follower.heartbeat_due:
                self._send_append(name, follower, 0, [], now_s)
            return
        if follower.is_stalled(now_s, tuning.resend_s):
            follower.resend()
        next_index = follower.next_index
        while next_index <= self.last_index and follower.has_room(tuning.window_messages, tuning.window_bytes):
            entries: list[tuple[int, bytes]] = []
            payload_bytes, prev_index = 0, next_index - 1
            while next_index <= self.last_index and len(entries) < tuning.batch_entries:
                entry = self._journal.entry(next_index)
                if entries and payload_bytes + len(entry.payload) > tuning.batch_bytes:
                    break
                entries.append((entry.term, entry.payload))
                payload_bytes += len(entry.payload)
                next_index += 1
            self._send_append(name, follower, prev_index, entries, now_s)
            follower.entries_sent(next_index - 1, payload_bytes, now_s)
        if follower.heartbeat_due:
            self._send_append(name, follower, follower.next_index - 1, [], now_s)

    def _send_append(
        self, name: str, follower: Follower, prev_index: int, entries: list[tuple[int, bytes]], now_s: float
    ) -> None:
        follower.heartbeat_due = False
        prev_term = self._journal.term(prev_index)
        self._send(name, Append(self.term, prev_index, prev_term, entries, self.commit_index, self._stamp(), now_s))

    def _on_appended(self, peer: Node, message: Appended) -> None:
        if message.term > self.term:
            self._adopt(message.term)
        if message.term != self.term or not self.is_leader:
            return
        if message.match_index > self.last_index:
            raise BrokenInvariantError(f"{peer.id} acknowledges entry {message.match_index} of {self.last_index}")
        follower, matches = self._followers[peer.id], self._SyncObj__raftMatchIndex
        if message.ok:
            follower.accepted(message.match_index)
        else:
            follower.refused(message.prev_index, message.next_index)
        if message.counts:
            follower.echo_s = max(follower.echo_s, message.echo)
            matches[peer] = max(matches[peer], message.match_index)
            self._SyncObj__lastResponseTime[peer] = self._monotonic()
        else:
            follower.echo_s = -inf
            matches[peer] = 0
            self._consider_welcome(peer, follower)
        self._heard(peer.id, message.wall_ms, message.room_ok)

    def _consider_welcome(self, peer: Node, follower: Follower) -> None:
        """`peer` says that its word does not count. See `cluster.standing` for when it does again."""
        if follower.welcome_index is None:
            follower.welcome_index, follower.welcome_s = self.last_index, self._monotonic()
        elif (
            min(follower.match_index, self.commit_index) >= follower.welcome_index
            and self.confirmed_since() > follower.welcome_s
        ):
            self._send(peer.id, Welcome(self.term))

    def _hand_over(self) -> None:
        transfer, now_s = self._transfer, self._monotonic()
        if transfer is None:
            return
        if now_s > transfer.until_s:
            self._transfer = None
        elif not transfer.asked:
            able = [
                (follower.match_index, name)
                for name, follower in self._followers.items()
                if name in self._connected and follower.echo_s > -inf and transfer.to in (None, name)
            ]
            match_index, name = max(able, default=(0, ""))
            if match_index == self.last_index:
                transfer.asked = True
                self._send(name, TimeoutNow(self.term))

    def _state_changed(self, old: int, new: int) -> None:
        if old == LEADER:
            self._followers = {}
            self._transfer = None
            self._outgoing.close()
            self._SyncObj__raftElectionDeadline = self._monotonic() + self._timeout_s()

    # --- committing and applying --------------------------------------------------------------------------------------

    def _SyncObj__getEntries(  # noqa: N802
        self, index: int, count: int | None = None, bytes_max: int | None = None
    ) -> list[tuple[bytes, int, int]]:
        """Only the commit rule asks, for one entry's term; it counts this node as having what it gets here."""
        return [(b"", index, self._journal.term(index))] if index <= self._durable_index else []

    def _can_commit(self) -> bool:
        """Whether the next tick will commit something: an own entry became durable after others had it."""
        if not self.is_leader:
            return False
        held = sorted((self._durable_index, *self._SyncObj__raftMatchIndex.values()), reverse=True)
        index = min(held[len(self._names) // 2], self._durable_index)
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
            self._SyncObj__raftLastApplied = index
        self._journal.set_applied(index, entry.term)
        while self._proposed and self._proposed[0] <= index:
            self._proposed.popleft()
        return False

    def _SyncObj__tryLogCompaction(self) -> None:  # noqa: N802
        # What is applied but not yet durable stays: a copy made in this tick ends before it.
        limit = self._durable_applied_index if self._outgoing.floor is None else self._outgoing.floor
        tuning = self._tuning
        self._journal.compact(limit, tuning.journal_keep_entries, tuning.journal_keep_bytes, tuning.compact_steps)
