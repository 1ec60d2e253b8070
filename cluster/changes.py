"""Changes of the membership that gateways wait for, at the leader: each is answered when it is committed, or refused.

What is asked for is how it shall be in the end, so that asking again, of the next leader too, is harmless. A change
waits for the one before it. A leader that is to be removed hands over; whoever asked finds the next leader by itself.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from cluster.engine import Engine
from cluster.membership import ChangeRefusedError, Membership
from cluster.wire import AskChange, ToldChange


@dataclass(slots=True, eq=False)
class _Wish:
    asker: object
    question: AskChange
    index: int = 0
    has_made_way: bool = False


class Changes:
    """See the module. Used within a tick of the leader."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._wishes: deque[_Wish] = deque()

    def ask(self, asker: object, question: AskChange) -> None:
        """A gateway wants a change."""
        self._wishes.append(_Wish(asker, question))

    def forsake(self, asker: object) -> None:
        """A gateway has gone. What was appended stays."""
        self._wishes = deque(wish for wish in self._wishes if wish.asker is not asker)

    def clear(self) -> None:
        """This replica does not lead any more. The askers ask the next leader."""
        self._wishes.clear()

    def advance(self) -> list[tuple[object, ToldChange]]:
        """Do what can be done now, in order. Returns who is to be told what once this tick is durable."""
        answers = []
        for wish in list(self._wishes):
            told = self._advance(wish)
            if told is not None:
                self._wishes.remove(wish)
                answers.append((wish.asker, told))
        return answers

    def _advance(self, wish: _Wish) -> ToldChange | None:
        engine, number = self._engine, wish.question.number
        if wish.index:
            return ToldChange(number) if engine.applied_index >= wish.index else None
        try:
            wanted = _wanted(engine.membership, wish.question)
            if wanted == engine.membership:
                return None if engine.memberships.pending_index else ToldChange(number)
            if engine.name not in wanted.voters:
                self._make_way(wish)
            elif engine.may_change:
                wish.index = engine.change(wanted)
        except ChangeRefusedError as refused:
            return ToldChange(number, refused.code, refused.detail)
        return None

    def _make_way(self, wish: _Wish) -> None:
        """The leader itself is to be removed: somebody else must lead first."""
        engine = self._engine
        if not wish.has_made_way:
            engine.transfer(cause="removal")
            wish.has_made_way = True
        elif engine.may_propose:
            raise ChangeRefusedError(
                "no_heir", f"{engine.name} leads, and no other voter has all it has: nobody could take over from it"
            )


def _wanted(membership: Membership, question: AskChange) -> Membership:
    match question.verb:
        case "add":
            return membership.with_learner(question.name, question.address)
        case "remove":
            return membership.without(question.name)
        case "move":
            return membership.moved(question.name, question.address)
