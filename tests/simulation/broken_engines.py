"""Engines that break one rule each, to show that the simulation would notice."""

from __future__ import annotations

from typing import Any

import msgspec

from cluster.engine import Engine
from cluster.messages import Append, Appended, Message, Vote, Welcome
from cluster.replication import Follower


class Truncates(Engine):
    """Drops whatever follows the entry before a message, also what is the same."""

    def _take_entries(self, index: int, entries: list[tuple[int, bytes]]) -> None:
        if self.commit_index < index <= self.last_index:
            self._truncate(index)
        super()._take_entries(index, entries)


class TrustsOldAnswers(Engine):
    """Counts acknowledgements of other terms."""

    def receive(self, node: str, message: Message) -> None:
        if isinstance(message, Appended) and message.term < self.term:
            message = msgspec.structs.replace(message, term=self.term)
        super().receive(node, message)


class CommitsUnverified(Engine):
    """Commits up to its own last entry, whether the leader has shown it to be the same or not."""

    def _advance_commit(self, leader_commit_index: int, verified_index: int) -> None:
        super()._advance_commit(leader_commit_index, self.last_index)


class ForgetsThatItForgot(Engine):
    """A wiped replica votes and acknowledges as if it remembered."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._standing.may_vote = lambda: True

    def _answer(self, peer: Any, message: Append, **kwargs: Any) -> None:
        known = self._standing._value
        self._standing._value = known or b"0"
        super()._answer(peer, message, **kwargs)
        self._standing._value = known


class AnswersAlone(Engine):
    """Answers queries without asking whether it still leads."""

    def confirmed_since(self) -> float:
        return self._monotonic() if self.is_leader else super().confirmed_since()


class AnswersTooSoon(Engine):
    """Answers queries before the first entry of its term is applied."""

    def confirmed_since(self) -> float:
        first_index, self._SyncObj__noopIDx = self._SyncObj__noopIDx, 0
        try:
            return super().confirmed_since()
        finally:
            self._SyncObj__noopIDx = first_index


class CompactsWhatIsNotDurable(Engine):
    """Compacts up to what it has applied in a transaction that is still open."""

    def _SyncObj__tryLogCompaction(self) -> None:  # noqa: N802
        durable = self._journal.durable_applied_index
        self._journal.durable_applied_index = self.applied_index
        super()._SyncObj__tryLogCompaction()
        self._journal.durable_applied_index = durable


class CountsItselfTooSoon(Engine):
    """A leader counts its own copy of an entry before that is durable."""

    def propose(self, payload: bytes) -> int:
        index = self._journal.durable_index = super().propose(payload)
        return index


class BelievesItsJournal(Engine):
    """Takes whatever is in its journal at the start for committed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._SyncObj__raftCommitIndex = self.last_index


class CountsVotesTwice(Engine):
    """Counts votes without asking who gave them."""

    def _on_vote(self, peer: Any, message: Vote) -> None:
        self._voters.discard(peer.id)
        super()._on_vote(peer, message)


class WelcomesAtOnce(Engine):
    """A leader vouches for whoever has forgotten everything."""

    def _consider_welcome(self, peer: Any, follower: Follower) -> None:
        self._send(peer.id, Welcome(self.term))


class AsksNobodyBefore(Engine):
    """Campaigns without a pre-vote."""

    def _SyncObj__connectedToAnyone(self) -> bool:  # noqa: N802
        self._granted = set(self._voting)
        return super()._SyncObj__connectedToAnyone()


BROKEN: dict[str, dict[str, Any]] = {
    "releases-early": {"release_early": True},
    "truncates": {"engine_class": Truncates},
    "trusts-old-answers": {"engine_class": TrustsOldAnswers},
    "commits-unverified": {"engine_class": CommitsUnverified},
    "forgets-that-it-forgot": {"engine_class": ForgetsThatItForgot},
    "answers-alone": {"engine_class": AnswersAlone},
    "answers-too-soon": {"engine_class": AnswersTooSoon},
    "compacts-too-much": {"engine_class": CompactsWhatIsNotDurable},
    "asks-nobody-before": {"engine_class": AsksNobodyBefore},
    "counts-itself-too-soon": {"engine_class": CountsItselfTooSoon},
    "believes-its-journal": {"engine_class": BelievesItsJournal},
    "counts-votes-twice": {"engine_class": CountsVotesTwice},
    "welcomes-at-once": {"engine_class": WelcomesAtOnce},
}
