"""Replication: what a leader knows about each follower, and what it sends it next.

A follower is *probed* until one message has shown where its journal agrees with the leader's: one message at a time.
Then it is *streamed* to: many messages under way, bounded in number and bytes. A refusal, a new connection or a long
silence leads back to probing. Messages and answers arrive in the order they were sent, on one connection at a time.
Who lacks what is compacted gets a copy of the store (`cluster.snapshots`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable, Set
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from cluster.journal import Journal
from cluster.messages import Append, Message, PieceTaken
from cluster.snapshots import Outgoing
from cluster.tuning import Tuning


class _Sent(NamedTuple):
    last_index: int
    payload_bytes: int
    at_s: float


@dataclass(slots=True)
class Follower:
    """One follower as its leader sees it.

    Invariant: match_index < next_index. While probing, the message under way follows the entry `next_index - 1`.
    """

    next_index: int
    match_index: int = 0
    probing: bool = True
    heartbeat_due: bool = True
    echo_s: float = -inf
    """When the last message it has answered was sent, by the leader's clock; -inf while its word does not count."""
    welcome_index: int | None = None
    """What it must hold, committed by others, before its word counts again; None if it was never in doubt."""
    welcome_s: float = inf
    is_level: bool = False
    """Whether its word counts and it keeps up: a learner that is level is made a voter."""
    _race: tuple[int, float] = (0, -inf)
    _sent: deque[_Sent] = field(default_factory=deque)
    _sent_bytes: int = 0

    def restart(self, next_index: int) -> None:
        """A new connection: whatever was under way is gone, and whoever is there may have forgotten everything."""
        self._probe(next_index)
        self.match_index = 0
        self.welcome_index = None
        self.is_level = False
        self._race = (0, -inf)

    def has_room(self, messages_max: int, bytes_max: int) -> bool:
        """Whether another message with entries may be sent."""
        if self.probing:
            return not self._sent
        return len(self._sent) < messages_max and self._sent_bytes < bytes_max

    def entries_sent(self, last_index: int, payload_bytes: int, now_s: float) -> None:
        """The entries `next_index` … `last_index` are on their way."""
        self._sent.append(_Sent(last_index, payload_bytes, now_s))
        self._sent_bytes += payload_bytes
        if not self.probing:
            self.next_index = last_index + 1

    def is_stalled(self, now_s: float, patience_s: float) -> bool:
        """Whether the oldest message under way has not been answered for too long."""
        return bool(self._sent) and now_s - self._sent[0].at_s > patience_s

    def resend(self) -> None:
        """Begin again after what is known to be there."""
        self._probe(self.match_index + 1 if self.match_index else self.next_index)

    def accepted(self, match_index: int) -> None:
        """It holds everything up to `match_index`. 0 says nothing: a heartbeat that follows no entry."""
        if match_index == 0:
            return
        while self._sent and self._sent[0].last_index <= match_index:
            self._sent_bytes -= self._sent.popleft().payload_bytes
        self.match_index = max(self.match_index, match_index)
        if match_index + 1 >= self.next_index:
            self.next_index = match_index + 1
            self.probing = False

    def race(self, last_index: int, now_s: float, patience_s: float) -> None:
        """It has answered, and its word counts. `last_index` is the leader's.

        It is level when it has caught up with where the leader was within `patience_s` (Ongaro's thesis, 4.2.1).
        """
        goal_index, since_s = self._race
        if self.match_index >= goal_index:
            self.is_level = now_s - since_s < patience_s or self.match_index == last_index
            self._race = (last_index, now_s)

    def keeps_up(self, now_s: float, patience_s: float) -> bool:
        """Whether it is level, and was so a moment ago."""
        return self.is_level and now_s - self._race[1] < patience_s

    def refused(self, prev_index: int, next_index: int) -> None:
        """It does not hold the entry `prev_index`, but everything before `next_index`. Old refusals change nothing."""
        if prev_index <= self.match_index or prev_index >= self.next_index:
            return
        if self.probing and prev_index != self.next_index - 1:
            return
        self._probe(max(self.match_index + 1, min(next_index, prev_index)))

    def _probe(self, next_index: int) -> None:
        self.next_index = next_index
        self.probing = True
        self.heartbeat_due = True
        self._sent.clear()
        self._sent_bytes = 0


class Replication:
    """Sends to all followers what they lack. There are none while this replica does not lead."""

    def __init__(
        self,
        journal: Journal,
        copies: Outgoing,
        tuning: Tuning,
        *,
        send: Callable[[str, Message], None],
        stamp: Callable[[], int],
    ) -> None:
        """`stamp` is the cluster time that goes with every message."""
        self._journal, self.copies, self._tuning = journal, copies, tuning
        self._send, self._stamp = send, stamp
        self._term = 0
        self.followers: dict[str, Follower] = {}

    def begin(self, term: int, others: Iterable[str]) -> None:
        """This replica leads in `term`, and `others` follow."""
        self._term = term
        self.followers = {name: Follower(self._journal.last_index + 1) for name in sorted(others)}

    def end(self) -> None:
        """It does not lead any more."""
        self.followers = {}
        self.copies.close()

    def reconfigure(self, others: list[str]) -> None:
        """As leader: these follow now."""
        for name in self.followers.keys() - set(others):
            del self.followers[name]
            self.copies.leave(name)
        for name in others:
            self.followers.setdefault(name, Follower(self._journal.last_index + 1))

    def connected(self, node: str) -> None:
        """A connection to `node` stands, and whatever was under way on an earlier one is lost."""
        if node in self.followers:
            self.followers[node].restart(self._journal.last_index + 1)
            self.copies.leave(node)

    def disconnected(self, node: str) -> None:
        """The connection to `node` is gone."""
        self.copies.leave(node)

    def taken(self, node: str, answer: PieceTaken, now_s: float) -> None:
        """`node` has answered a piece of a copy. When it has the whole, what follows is sent to it."""
        index = self.copies.taken(node, answer, now_s)
        if index is not None and node in self.followers:
            self.followers[node].restart(index + 1)

    def confirm(self) -> None:
        """Send a heartbeat to everyone with the next `replicate`."""
        for follower in self.followers.values():
            follower.heartbeat_due = True

    def echoed_s(self, voting: Container[str], count: int) -> float:
        """The latest time (monotonic seconds) since which so many of `voting` have known no other leader."""
        echoes = [follower.echo_s for name, follower in self.followers.items() if name in voting]
        return sorted(echoes, reverse=True)[count - 1]

    def replicate(self, connected: Set[str], commit_index: int, now_s: float) -> None:
        """Send every follower that is reached what it lacks, as far as its window allows, and heartbeats where due."""
        for name, follower in self.followers.items():
            if name in connected:
                self._replicate(name, follower, commit_index, now_s)
        self.copies.expire(now_s)

    def _replicate(self, name: str, follower: Follower, commit_index: int, now_s: float) -> None:
        journal, tuning = self._journal, self._tuning
        if follower.is_stalled(now_s, tuning.resend_s):
            follower.resend()  # perhaps to what is compacted by now
        if follower.next_index <= journal.first_index:
            for piece in self.copies.pieces(name, self._term, journal.durable_applied_index, now_s):
                self._send(name, piece)
            if follower.heartbeat_due:
                self._append(name, follower, 0, [], commit_index, now_s)
            return
        next_index = follower.next_index
        while next_index <= journal.last_index and follower.has_room(tuning.window_messages, tuning.window_bytes):
            entries: list[tuple[int, bytes]] = []
            payload_bytes, prev_index = 0, next_index - 1
            while next_index <= journal.last_index and len(entries) < tuning.batch_entries:
                entry = journal.entry(next_index)
                if entries and payload_bytes + len(entry.payload) > tuning.batch_bytes:
                    break
                entries.append((entry.term, entry.payload))
                payload_bytes += len(entry.payload)
                next_index += 1
            self._append(name, follower, prev_index, entries, commit_index, now_s)
            follower.entries_sent(next_index - 1, payload_bytes, now_s)
        if follower.heartbeat_due:
            self._append(name, follower, follower.next_index - 1, [], commit_index, now_s)

    def _append(
        self,
        name: str,
        follower: Follower,
        prev_index: int,
        entries: list[tuple[int, bytes]],
        commit_index: int,
        now_s: float,
    ) -> None:
        follower.heartbeat_due = False
        prev_term = self._journal.term(prev_index)
        self._send(name, Append(self._term, prev_index, prev_term, entries, commit_index, self._stamp(), now_s))
