"""Damage: which replicas are known to be damaged, and what this one does about it.

Who is damaged serves nothing while there are others. It hands over if it leads, campaigns later than all others, and
asks until they can spare it (`cluster.repair`). Nobody hands over to it. Whoever is sound answers its question.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from math import inf

from cluster.engine import Engine
from cluster.messages import Ailing, Message, Spared
from cluster.repair import RELUCTANCE_S, Repair


class Health:
    """Of one replica, and of the others as it hears."""

    def __init__(
        self,
        name: str,
        engine: Engine,
        *,
        post: Callable[[str, Message], None],
        connected: Set[str],
        cause: str | None,
    ) -> None:
        """`connected`: who can be asked now. `cause`: what is known to be wrong with the own store, or None."""
        self._name, self._engine, self._post, self._connected = name, engine, post, connected
        self.known: dict[str, str] = {}
        """What is wrong with replicas that are damaged, by name."""
        self._repair: Repair | None = None
        if cause is not None:
            self._begin_repair(cause)

    @property
    def cause(self) -> str | None:
        """What is wrong with this replica's store, or None."""
        return self._repair.cause if self._repair is not None else None

    @property
    def is_spared(self) -> bool:
        """Whether the others can spare this damaged replica, so that its store may be set aside now."""
        return self._repair is not None and self._repair.is_spared

    @property
    def is_unfit(self) -> bool:
        """Whether this replica must not serve as leader: its store is damaged, and there are others."""
        return self._repair is not None and len(self._engine.membership.voters) > 1

    @property
    def reluctance_s(self) -> float:
        """How much later than others this replica is to campaign."""
        return RELUCTANCE_S if self.is_unfit else 0.0

    @property
    def next_s(self) -> float:
        """Monotonic time in seconds at which the others are asked again."""
        return self._repair.next_s if self._repair is not None else inf

    def mind(self, now_s: float, damage: str | None) -> None:
        """Ask to be spared, and do not lead if anybody else can. `damage`: what was found to be wrong by now."""
        if self._repair is None and damage is not None:
            self._begin_repair(damage)
        if self._repair is None:
            return
        self._repair.step(now_s)
        if self.is_unfit:
            self._engine.transfer(cause="damage")

    def asked(self, node: str, message: Ailing) -> None:
        """Another replica asks whether it can be spared."""
        self._hear_of(node, message.cause)
        engine = self._engine
        is_sound = self._repair is None and engine.counts and engine.leader is not None
        # Before an entry of the present term is here, the end of this journal may be one that nobody committed.
        if is_sound and engine.has_applied_own_term and engine.durable_index >= message.index:
            self._post(node, Spared(engine.term, message.round, engine.memberships.known[0]))

    def spared(self, node: str, message: Spared) -> None:
        """Another replica can spare this one."""
        if self._repair is not None:
            self._repair.heard(node, message)

    def silent(self, node: str) -> None:
        """`node` is not there any more: it comes back repaired, or says that it is damaged."""
        self._hear_of(node, None)

    def _begin_repair(self, cause: str) -> None:
        engine = self._engine
        self._hear_of(self._name, cause)
        self._repair = Repair(
            self._name,
            cause,
            voters=lambda: engine.membership.voters,
            tell=self._broadcast,
            index=lambda: engine.commit_index,
            term=lambda: engine.term,
        )

    def _broadcast(self, message: Message) -> None:
        for node in sorted(self._connected):
            self._post(node, message)

    def _hear_of(self, node: str, cause: str | None) -> None:
        """`node` is damaged, or that is over."""
        if self.known.get(node) == cause:
            return
        known = {name: known for name, known in self.known.items() if name != node}
        self.known = known | ({} if cause is None else {node: cause})
        self._engine.shunned = frozenset(self.known)
