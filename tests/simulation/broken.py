"""Engines that break one rule each, to show that the simulation would notice."""

from __future__ import annotations

from typing import Any

import msgspec

from cluster.engine import Engine
from cluster.messages import Appended, Message


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


class CountsItsUndurableEntries(Engine):
    """As leader, counts entries that its own disk does not have yet."""

    def tick(self) -> None:
        self._durable_index = self.last_index
        super().tick()


class ForgetsToBeBorn(Engine):
    """A wiped replica votes and acknowledges as if it remembered."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._standing.may_vote = lambda: True

    def _answer(self, *args: Any, **kwargs: Any) -> None:
        value, self._standing._value = self._standing._value, self._standing._value or b"0"
        super()._answer(*args, **kwargs)
        self._standing._value = value


class TrustsItsReplies(Engine):
    """Answers queries without asking anybody."""

    def confirmed_since(self) -> float:
        return self._monotonic() if self.is_leader else super().confirmed_since()


BROKEN: dict[str, dict[str, Any]] = {
    "release-early": {"release_early": True},
    "truncates": {"engine_class": Truncates},
    "old-answers": {"engine_class": TrustsOldAnswers},
    "unverified": {"engine_class": CommitsUnverified},
    "undurable": {"engine_class": CountsItsUndurableEntries},
    "unborn": {"engine_class": ForgetsToBeBorn},
    "reads": {"engine_class": TrustsItsReplies},
}
