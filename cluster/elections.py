"""Elections: when a replica campaigns, whom it helps, and what it waits for.

A campaign begins with a *pre-vote*: a round of questions that binds nobody, so that a replica that was cut off disturbs
no living leader. Only who would surely win begins a term. A replica whose leader's connection broke need not wait for
silence, and asks at once.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from math import inf
from typing import Any

from cluster.journal import BrokenInvariantError
from cluster.log import Log
from cluster.messages import Message, PreVote, PreVoted, RequestVote, Vote
from cluster.seams import FOLLOWER, Node
from cluster.standing import Standing


class Elections(Log):
    """The part of the engine that elects. `cluster.engine.Engine` is the whole."""

    is_removed: bool
    _rng: random.Random
    _send: Callable[[str, Message], None]
    _standing: Standing
    _connected: set[str]
    _SyncObj__transferInProgress: bool
    reluctance_s = 0.0
    """How much later than others this replica campaigns: it leads only if nobody else can."""
    _campaigning = False  # the stock constructor asks for a timeout already

    def _begin_elections(self, now_s: float, alone: bool) -> None:
        """Nobody leads, as far as this replica knows; it has just started. `alone`: there is nobody else to vote."""
        self._leader_heard_s = -inf
        # A campaign: the pre-vote's round and who has granted it, then who has voted (voters only).
        self._round = 0
        self._granted: set[str] | None = None
        self._voters: set[str] = set()
        self._forced = False
        self.election_steps: Counter[str] = Counter()
        """How often since its start this replica has asked for pre-votes, campaigned, and won."""
        self._rest_until_s = now_s
        waits = self._standing.counts and not alone
        # After a restart nobody knows whom this node was following a moment ago, so it does not help to depose them.
        self._votes_from_s = now_s + (self._tuning.election_min_s if waits else 0.0)
        # Nothing to lose for a new or a single node by trying at once.
        self._SyncObj__raftElectionDeadline = now_s + (self._timeout_s() if waits else self._jitter_s())

    def _SyncObj__connectedToAnyone(self) -> bool:  # noqa: N802
        """An election is due: whether to campaign now. Asks for pre-votes first, unless the leader wants it."""
        now_s, forced = self._monotonic(), bool(self._SyncObj__transferInProgress)
        if self.is_removed or self.name not in self._voting or not self._standing.may_vote():
            self._SyncObj__transferInProgress = False
            self._rest(now_s)
            return False
        if forced or self._is_majority({self.name, *(self._granted or ())}):
            self._campaigning, self._forced, self._granted = True, forced, None
            self._voters = set()
            self._standing.promise()
            self.election_steps["campaigned"] += 1
            return True
        if now_s > self._rest_until_s:
            self._round += 1
            self._granted = set()
            self._rest(now_s)
            self.election_steps["asked"] += 1
            question = PreVote(self.term + 1, self.last_index, self._journal.last_term, self._round)
            for name in sorted(self._connected & self._voting):
                self._send(name, question)
        return False

    def _on_pre_vote(self, peer: Node, message: PreVote) -> None:
        now_s = self._monotonic()
        theirs = (message.last_term, message.last_index)
        ours = (self._journal.last_term, self.last_index)
        granted = (
            message.term > self.term
            and theirs >= ours
            and self._may_help(now_s)
            # Two that ask each other at once would both win and then split the votes: only one does.
            and (self._granted is None or (*theirs, peer.id) > (*ours, self.name))
        )
        if granted:
            self._granted = None
            self._rest(now_s)
        self._send(peer.id, PreVoted(self.term, message.round, granted))

    def _on_pre_voted(self, peer: Node, message: PreVoted) -> None:
        if message.term > self.term and not self.is_leader:
            self._adopt(message.term)
        elif message.granted and message.round == self._round and self._granted is not None:
            self._granted.add(peer.id)

    def _on_request_vote(self, peer: Node, message: RequestVote) -> None:
        if not self._standing.may_vote() or not (message.forced or self._may_help(self._monotonic())):
            return
        request = {
            "type": "request_vote",
            "term": message.term,
            "last_log_index": message.last_index,
            "last_log_term": message.last_term,
        }
        self._SyncObj__onMessageReceived(peer, request)

    def _on_vote(self, peer: Node, message: Vote) -> None:
        # A candidacy ends with its time: from then on nobody is elected by a vote that its giver may have forgotten.
        if self._monotonic() > self._SyncObj__raftElectionDeadline:
            return
        if message.term == self.term and peer.id in self._voting - self._voters:
            self._voters.add(peer.id)
            self._SyncObj__onMessageReceived(peer, {"type": "response_vote", "term": message.term})

    def _may_help(self, now_s: float) -> bool:
        """Whether another election would be welcome. A leader that has lost its majority gives up by itself."""
        return (
            not self.is_leader
            and not self._hears_leader(now_s)
            and now_s >= self._votes_from_s
            and self._standing.may_vote()
        )

    def _translate(self, peer: Node, message: dict[str, Any]) -> None:
        if message["type"] == "request_vote":
            index, last_term = message["last_log_index"], message["last_log_term"]
            self._send(peer.id, RequestVote(message["term"], index, last_term, self._forced))
        elif message["type"] == "response_vote":
            self._standing.promise()
            self._send(peer.id, Vote(message["term"]))
        else:
            raise BrokenInvariantError(f"the stock code sends {message['type']}")

    def _SyncObj__generateRaftTimeout(self) -> float:  # noqa: N802
        """How long to wait for a leader; for a candidate, how long to wait for votes."""
        if self._campaigning:
            self._campaigning = False
            return self._rng.uniform(0.5, 1) * self._tuning.candidacy_s
        return self._timeout_s()

    def _timeout_s(self) -> float:
        return self._rng.uniform(self._tuning.election_min_s, self._tuning.election_max_s) + self.reluctance_s

    def _jitter_s(self) -> float:
        return self._rng.uniform(0.0, self._tuning.jitter_s) + self.reluctance_s

    def _rest(self, now_s: float) -> None:
        self._rest_until_s = now_s + self._rng.uniform(1, 2) * self._tuning.retry_s

    def _hurry(self) -> None:
        self._rest_until_s = min(self._rest_until_s, self._monotonic() + self._jitter_s())

    def _is_majority(self, names: set[str]) -> bool:
        return 2 * len(self._voting & names) > len(self._voting)

    def _adopt(self, term: int) -> None:
        """There is a higher term: follow in it, nobody yet."""
        self._SyncObj__setCurrentTerm(term, None)
        self._SyncObj__setState(FOLLOWER)
        self._SyncObj__raftLeader = None
        self._SyncObj__transferInProgress = False

    def _hears_leader(self, now_s: float) -> bool:
        # A leader whose connection broke is None here, so that its followers need not wait for one another.
        return self.leader is not None and now_s - self._leader_heard_s < self._tuning.election_min_s
