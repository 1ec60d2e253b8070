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

Between `synced` and the next `begin` it may offer a message to `heed` first: most of what replicas say to one another
while nothing happens needs no transaction. Then it asks `next_wakeup` anew.

PySyncObj keeps the roles, the terms, the votes, the election and the commit rule (`cluster.seams`). On it stand, each
on the one before, the log (`cluster.log`), the elections (`cluster.elections`), and what follows and leads, which is
here. What a leader sends to whom is `cluster.replication`.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from math import inf, nextafter

from cluster.elections import Elections
from cluster.handover import Cause, Handover
from cluster.journal import BrokenInvariantError, Journal
from cluster.membership import (
    ChangeRefusedError,
    Membership,
    Memberships,
    check_majority_left,
    configured,
    encode_membership,
)
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
from cluster.replication import Follower, Replication
from cluster.seams import CANDIDATE, FOLLOWER, LEADER, Node
from cluster.snapshots import Incoming, Outgoing
from cluster.standing import Standing
from cluster.tuning import Tuning
from storage.state import Store

ADOPTED_META, REMOVED_META, _DATA_META = "cluster", "removed", "data"
"""Meta values: the cluster that a blank replica was let into, until its log says so; not empty when the replica was
removed; the store's own number."""


class NotLeaderError(Exception):
    """Only a leader that is not handing over takes proposals."""


class ReinstalledError(Exception):
    """A snapshot has taken the store's place: close the store, open it again, and build a new engine on it."""


class Engine(Elections):
    """One replica's consensus. See the module for the order of calls."""

    def __init__(
        self,
        name: str,
        members: Mapping[str, str] | Iterable[str],
        store: Store,
        *,
        apply: Callable[[int, int, bytes], None],
        send: Callable[[str, Message], None],
        monotonic: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        tuning: Tuning | None = None,
        stamp: Callable[[], int] = lambda: 0,
        observe: Callable[[int], None] = lambda clock_ms: None,
        wall_ms: Callable[[], int] = lambda: 0,
        room_ok: Callable[[], bool] = lambda: True,
        heard: Callable[[str, int, int, bool], None] = lambda node, wall_ms, clock_ms, room_ok: None,
        cluster: str = "",
        marked: Callable[[int, bytes], None] = lambda index, payload: None,
        doubted: Callable[[], None] = lambda: None,
    ) -> None:
        """Stand where the store says. No transaction may be open: this takes one of its own.

        name, members: this replica, and the replicas that the shard is configured with (addresses by name, or names):
            they are the voters until the journal or the state says otherwise (`cluster.membership`).
        apply(index, term, payload): an entry is committed; write its effects into the open transaction. What it
            raises is fatal. Each entry is applied once, in order.
        send(node, message): hand over to the transport, now or after the commit, see `cluster.messages`.
        monotonic, rng: time in seconds and chance.
        stamp() → observe(clock_ms): the leader's cluster time, told to followers with every append.
        wall_ms(), stamp(), room_ok() → heard(node, wall_ms, clock_ms, room_ok): a follower's facts, told to the leader
            with every answer.
        cluster: the cluster's identity, for the record of the first change.
        marked(index, payload): a mark is applied (`MARK_KIND`), and nothing after it in this tick.
        doubted(): a copy of this store came whole to a follower, and was not fit for use.
        """
        adopted = store.meta(ADOPTED_META)
        founders = configured(members, adopted.decode() if adopted is not None else cluster)
        if name not in founders.voters:
            raise ValueError(f"{name} is not among the members {', '.join(founders.voters)}")
        self._store, self._send = store, send
        self._rng = rng or random.Random()
        self._stamp, self._observe = stamp, observe
        self._wall_ms, self._room_ok, self._heard = wall_ms, room_ok, heard
        self._doubted = doubted
        self.shunned: frozenset[str] = frozenset()
        """Who is handed nothing over to."""
        self.avoided: frozenset[str] = frozenset()
        """Who is handed over to only if nobody else has everything."""
        self.handovers: Counter[Cause] = Counter()
        """How often since its start this replica has begun to hand over."""

        tuning = tuning or Tuning()
        store.begin()
        journal = Journal(store, tuning.cache_bytes)
        self._standing = Standing(store, founders.voters.keys() - {name})
        memberships = Memberships(store, journal, journal.applied_index, founders)
        self.data = (store.meta(_DATA_META) or self._rng.getrandbits(64).to_bytes(8)).hex()
        """A number made with the store: tells it from another one under the same name."""
        store.set_meta(_DATA_META, bytes.fromhex(self.data))
        store.commit()
        journal.synced()
        self._replication = Replication(journal, Outgoing(store, tuning), tuning, send=send, stamp=stamp)
        self._handover, self._incoming = Handover(), Incoming(store)
        self._connected: set[str] = set()
        self._is_adopted, self.is_removed = adopted is not None, bool(store.meta(REMOVED_META))
        self._unsaved: dict[str, bytes] = {}

        super().__init__(name, journal, memberships, monotonic, tuning, apply=apply, marked=marked)
        self._begin_elections(monotonic(), alone=self._voting == {name})

    # --- what the caller sees -----------------------------------------------------------------------------------------

    @property
    def born(self) -> bool:
        """What this replica's connections say in their hello."""
        return self._standing.born

    @property
    def counts(self) -> bool:
        """Whether this replica remembers all that it has promised."""
        return self._standing.counts

    @property
    def is_lost(self) -> bool:
        """Whether this replica's store was set aside, and no leader has vouched for it since."""
        return self._standing.is_lost

    @property
    def may_propose(self) -> bool:
        """Whether `propose` would take a proposal: as leader, unless it is handing over."""
        return self.is_leader and not self._handover.is_under_way

    @property
    def is_heir(self) -> bool:
        """Whether this replica leads because another one has handed over to it."""
        return self.is_leader and self._forced

    @property
    def has_quorum(self) -> bool:
        """Whether a majority was heard lately: as leader from itself, as follower from a leader or by connection."""
        now_s = self._monotonic()
        if self.is_leader:
            since_s = now_s - self._tuning.election_min_s
            heard = {node.id for node, at_s in self._SyncObj__lastResponseTime.items() if at_s > since_s}
            return self._is_majority(heard | {self.name})
        return self._hears_leader(now_s) or self._is_majority(self._connected | {self.name})

    @property
    def is_blank(self) -> bool:
        """Whether this replica holds nothing, has promised nothing, and belongs to no cluster yet."""
        return not (self._standing.counts or self._is_adopted or self.last_index > 1)

    def held_index(self, name: str) -> int | None:
        """As leader: up to where `name` is known to hold the log."""
        if name == self.name and self.is_leader:
            return self.durable_index
        follower = self._replication.followers.get(name)
        return follower.match_index if follower is not None else None

    def copy_percent(self, name: str) -> int | None:
        """As leader: how much `name` has taken of the copy that it is being sent, if it is."""
        return self._replication.copies.percent(name)

    @property
    def snapshot_trouble(self) -> str | None:
        """Why the snapshot that this replica needs could not be had, or None."""
        return self._incoming.trouble

    def next_wakeup(self) -> float:
        """Monotonic time in seconds at which `tick` must run even if nothing arrives."""
        if self.commit_index > self.applied_index or self._can_commit() or self._handover.is_new:
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
        others = len(self._voting) // 2
        return self._replication.echoed_s(self._voting, others) if others else self._monotonic()

    def confirm(self) -> None:
        """Send a heartbeat to everyone with the next `replicate`, so that `confirmed_since` moves on."""
        self._replication.confirm()

    # --- what the caller does -----------------------------------------------------------------------------------------

    def connected(self, node: str, born: bool) -> None:
        """A connection to `node` stands; whatever was under way on an earlier one is lost.

        It may be a node that this replica's journal knows nothing of yet: a leader of later times, for example.
        """
        self._connected.add(node)
        self._standing.connected(node, born)
        self._replication.connected(node)
        if self.leader is None:
            self._hurry()

    def disconnected(self, node: str) -> None:
        """The connection to `node` is gone. If it led, an election begins almost at once."""
        self._connected.discard(node)
        self._standing.disconnected(node)
        self._replication.disconnected(node)
        if self.leader == node:
            self._SyncObj__raftLeader = None
            self._incoming.abandon()
            deadline_s = self._monotonic() + self._jitter_s()
            self._SyncObj__raftElectionDeadline = min(self._SyncObj__raftElectionDeadline, deadline_s)
            self._rest_until_s = 0.0

    def receive(self, node: str, message: Message) -> None:
        """A message has arrived over the present connection to `node`. Raises `BrokenInvariantError`."""
        if node not in self._connected and node not in self.membership.members:
            return
        self._enter()
        peer = self._node(node)
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
                self._SyncObj__setCurrentTerm(self.term, node)
                self._votes_from_s = self._monotonic() + self._tuning.election_max_s
            case Piece():
                self._on_piece(peer, message)
            case PieceTaken() if message.term == self.term and self.is_leader:
                if message.unfit:
                    self._doubted()
                self._replication.taken(node, message, self._monotonic())

    def heed(self, node: str, message: Message) -> bool:
        """Between two ticks: do at once what `receive` does, if nothing durable comes of it; else False.

        No transaction is open, so nothing may be written, and what is sent leaves before any commit. So a heartbeat is
        taken only when all that its answer says is durable: the term, the standing, the end of the journal. An answer
        to the leader only changes what the leader keeps in memory; it is taken when that makes nothing due but a
        commit, of which `next_wakeup` tells.

        Nothing may be offered while an earlier message waits for a tick. Either side must have heard the other lately,
        so that what `has_quorum` says does not change.
        """
        match message:
            case Append():
                is_idle = self._is_mere_heartbeat(node, message)
            case Appended():
                is_idle = self._is_mere_answer(node, message)
            case _:
                is_idle = False
        if is_idle:
            self.receive(node, message)
        return is_idle

    def tick(self) -> None:
        """Let time pass: begin an election, commit and apply what is due, compact. Raises what `apply` raises."""
        self._enter()
        while self._unsaved:
            self._store.set_meta(*self._unsaved.popitem())
        self._hand_over()
        self.doTick(0.0)
        self._promote()

    def propose(self, payload: bytes) -> int:
        """Append an entry and return its index. `payload[0]` is its kind. Raises `NotLeaderError`."""
        if not self.may_propose:
            raise NotLeaderError(f"{self.name} does not take proposals: the leader is {self.leader}")
        index = self.last_index + 1
        self._append(index, self.term, payload)
        return index

    def change(self, membership: Membership) -> int:
        """Append a membership that differs from the one in force in one member, and return the entry's index.

        It is in force at once. A leader that is to be removed hands over first, so that no replica ever holds the entry
        that removes it. Raises `NotLeaderError`, and `ChangeRefusedError` while another change is under way, or when
        those who would be left to vote could not commit anything now, not even this.
        """
        if not self.may_propose:
            raise NotLeaderError(f"{self.name} does not take proposals: the leader is {self.leader}")
        if len(membership.voters.keys() ^ self.membership.voters.keys()) > 1 or self.name not in membership.voters:
            raise BrokenInvariantError(f"from {self.membership} to {membership} is more than one step for {self.name}")
        if not self.may_change:
            raise ChangeRefusedError("change_under_way", "another change of the membership is under way")
        check_majority_left(self.membership, membership, self.sound)
        return self.propose(encode_membership(membership))

    @property
    def sound(self) -> set[str]:
        """As leader: itself, and those that are connected, have answered lately, and whose word counts."""
        since_s, followers = self._monotonic() - self._tuning.election_min_s, self._replication.followers
        return {self.name} | {name for name in self._connected & followers.keys() if followers[name].echo_s > since_s}

    @property
    def heirs(self) -> dict[str, int]:
        """As leader: who could take over at once, since it keeps up, and up to where each is known to hold the log."""
        now_s, patience_s, followers = self._monotonic(), self._tuning.election_min_s, self._replication.followers
        return {n: index for n, index in self._able().items() if followers[n].keeps_up(now_s, patience_s)}

    @property
    def may_change(self) -> bool:
        """Whether `change` would take one: see `cluster.membership` for why one waits for the other."""
        return (
            self.may_propose
            and self.commit_index >= self._SyncObj__noopIDx
            and self.commit_index >= self._memberships.pending_index
        )

    def replicate(self) -> None:
        """As leader, send every follower what it lacks, as far as its window allows, and heartbeats where due."""
        if self.is_leader:
            self._replication.replicate(self._connected, self.commit_index, self._monotonic())

    def synced(self) -> None:
        """The store has committed. Raises `ReinstalledError` if a snapshot has taken its place."""
        self._journal.synced()
        told, is_installed = self._incoming.step(self.commit_index, self._monotonic())
        if told is not None and self.leader is not None:
            self._send(self.leader, told)
        if is_installed:
            raise ReinstalledError(f"{self.name} begins again on a snapshot")

    def transfer(self, to: str | None = None, *, cause: Cause = "stop") -> None:
        """As leader, hand over to `to`, or to whoever is first to have everything; else lead on.

        No proposals are taken while it is tried, for `transfer_s` at most.
        """
        if self.may_propose and self._voting != {self.name}:
            self._handover.begin(to, self._monotonic() + self._tuning.transfer_s)
            self.handovers[cause] += 1

    def adopt(self, cluster: str) -> None:
        """This blank replica belongs to `cluster` from now on: the next tick remembers it with all that it brings."""
        self._unsaved[ADOPTED_META] = cluster.encode()
        self._is_adopted = True
        self._memberships.adopt(cluster)

    def retire(self) -> None:
        """Members say that this replica was removed: it never campaigns again."""
        self._unsaved[REMOVED_META] = b"1"
        self.is_removed = True

    # --- following ----------------------------------------------------------------------------------------------------

    def _is_mere_heartbeat(self, node: str, message: Append) -> bool:
        """Whether the leader that is followed and heard says only that it leads, of a journal that is durable here."""
        journal = self._journal
        return (
            self.leader == node
            and message.term == self.term
            and not message.entries
            and (message.prev_index, message.prev_term) == (journal.last_index, journal.last_term)
            and journal.durable_index == journal.last_index
            and not self._unsaved
            and self._hears_leader(self._monotonic())
        )

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
                self._append(index, term, payload)
                self._standing.appended()
            index += 1

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
            self._stamp(),
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
        self._replication.begin(self.term, self.membership.members.keys() - {self.name})
        self._SyncObj__raftMatchIndex: dict[Node, int] = {}
        super()._SyncObj__onBecomeLeader()
        self.election_steps["won"] += 1
        self._standing.appended()

    def _SyncObj__sendAppendEntries(self) -> None:  # noqa: N802
        """A heartbeat is due; `replicate` sends it."""
        self._SyncObj__newAppendEntriesTime = self._monotonic() + self._tuning.heartbeat_s
        self.confirm()

    def _is_mere_answer(self, node: str, message: Appended) -> bool:
        """Whether a voter that is heard, whose word counts, and that was sent everything, says how much it has."""
        follower = self._replication.followers.get(node)
        return (
            follower is not None
            and node in self._voting
            and message.term == self.term
            and message.ok
            and message.counts
            and message.match_index <= self.last_index < follower.next_index
            and self.may_propose
            and self.confirmed_since() > -inf
            and self._SyncObj__lastResponseTime[self._node(node)] > self._monotonic() - self._tuning.election_min_s
        )

    def _on_appended(self, peer: Node, message: Appended) -> None:
        if message.term > self.term:
            self._adopt(message.term)
        if message.term != self.term or not self.is_leader:
            return
        if message.match_index > self.last_index:
            raise BrokenInvariantError(f"{peer.id} acknowledges entry {message.match_index} of {self.last_index}")
        follower = self._replication.followers.get(peer.id)
        if follower is None:
            return  # it was removed
        if message.ok:
            follower.accepted(message.match_index)
        else:
            follower.refused(message.prev_index, message.next_index)
        matches, now_s = self._SyncObj__raftMatchIndex, self._monotonic()
        if message.counts:
            follower.echo_s = max(follower.echo_s, message.echo)
            follower.race(self.last_index, now_s, self._tuning.election_min_s)
        else:
            follower.echo_s = -inf
            follower.is_level = False
            self._consider_welcome(peer, follower)
        if peer in matches:
            matches[peer] = max(matches[peer], message.match_index) if message.counts else 0
            if message.counts:
                self._SyncObj__lastResponseTime[peer] = now_s
        self._heard(peer.id, message.wall_ms, message.clock_ms, message.room_ok)

    def _consider_welcome(self, peer: Node, follower: Follower) -> None:
        """`peer` says that its word does not count. See `cluster.standing` for when it does again."""
        if follower.welcome_index is None:
            follower.welcome_index = self.last_index
            follower.welcome_s = self._monotonic() + self._tuning.candidacy_s
        elif (
            min(follower.match_index, self.commit_index) >= follower.welcome_index
            and self.confirmed_since() > follower.welcome_s
        ):
            self._send(peer.id, Welcome(self.term))

    def _hand_over(self) -> None:
        if not self._handover.is_under_way:
            return
        heir = self._handover.heir(self._able(), self.last_index, self._monotonic(), self.avoided)
        if heir is not None:
            self._send(heir, TimeoutNow(self.term))

    def _able(self) -> dict[str, int]:
        """Who may be handed over to, and up to where each is known to hold the log."""
        fit = self._connected & self._voting - self.shunned
        return {
            name: follower.match_index
            for name, follower in self._replication.followers.items()
            if name in fit and follower.echo_s > -inf
        }

    def _promote(self) -> None:
        """As leader, make a voter of a learner that holds everything and whose word counts."""
        if not (self.membership.learners and self.is_leader and self.may_change):
            return
        for name in self.membership.learners:
            if name in self._connected and self._replication.followers[name].is_level:
                self.change(self.membership.with_voter(name))
                return

    def _reconfigure(self) -> None:
        super()._reconfigure()
        if not self.is_leader:
            return
        self._replication.reconfigure([name for name in self.membership.members if name != self.name])
        matches = {}
        for name, follower in self._replication.followers.items():
            if name in self._voting:
                node = self._node(name)
                # A learner becomes a voter only while its word counts, and with it what it has acknowledged.
                matches[node] = self._SyncObj__raftMatchIndex.get(node, follower.match_index)
                self._SyncObj__lastResponseTime.setdefault(node, self._monotonic())
        self._SyncObj__raftMatchIndex = matches

    def _state_changed(self, old: int, new: int) -> None:
        if old == LEADER:
            self._replication.end()
            self._handover.end()
            self._SyncObj__raftElectionDeadline = self._monotonic() + self._timeout_s()

    def _copy_floor(self) -> int | None:
        return self._replication.copies.floor
