"""Room: full is refused early. What adds is refused before a store is full; receives, acks and deletes go on.

Every replica measures its own store and tells the leader with every answer. The leader refuses what adds when fewer
than a majority have enough: what it took then would perhaps never be committed. If it is the leader itself that has too
little, while others have enough, it hands over to one of them, and refuses what adds only when that cannot be.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import inf

from storage.operations import Keyed, Operation, Send, Transaction
from storage.queue_operations import PutQueue
from storage.redrive_operations import StartRedrive
from storage.schedule_operations import PutSchedule
from storage.topic_operations import Publish, PutSubscription, PutTopic

STORE_FULL = "store_full"
"""Refusal by the leader: publishing would not leave enough room on enough replicas."""

NEWS_S = 0.3
"""How long a leader goes on before it minds its own lack of room, or the room that another has again: by then it knows
of all. Often they lack it at the same time, and have it again at the same time, since they hold the same."""

RELIEF_S = 10.0
"""So long a leader leads on, though it has no room, after it was handed over to, or has tried to hand over for that:
leadership stays where it is for a while when room comes and goes on several disks."""

RELUCTANCE_S = 0.1
"""How much later than others a replica without room campaigns: whoever has room, and everything else, has long won."""

_ADDING = (Send, Publish, PutQueue, PutTopic, PutSubscription, PutSchedule, StartRedrive)


def adds(operation: Operation) -> bool:
    """Whether an operation is refused while there is little room."""
    if type(operation) is Keyed:
        operation = operation.operation
    return type(operation) in _ADDING or (
        type(operation) is Transaction and any(type(step) is Send for step in operation.steps)
    )


class Room:
    """Who has room: this replica, and the others as it hears."""

    def __init__(self, reserve_bytes: int) -> None:
        """`reserve_bytes`: so much must stay free of a store."""
        self.reserve_bytes = reserve_bytes
        self.is_here = True
        """Whether this replica has enough."""
        self._since_s = 0.0
        self._others: dict[str, bool] = {}
        self._again_s: dict[str, float] = {}
        """Since when others have room that had none."""
        self.crowded: frozenset[str] = frozenset()
        """The others that have too little."""

    @property
    def reluctance_s(self) -> float:
        """How much later than others this replica is to campaign."""
        return 0.0 if self.is_here else RELUCTANCE_S

    def measured(self, free_bytes: int, now_s: float) -> None:
        """So much is free for this replica's store."""
        was_here, self.is_here = self.is_here, free_bytes >= self.reserve_bytes
        if was_here is not self.is_here:
            self._since_s = now_s

    def is_scarce(self, now_s: float) -> bool:
        """Whether this replica has too little, and has had time to hear of the others."""
        return not self.is_here and now_s - self._since_s >= NEWS_S

    def heard(self, node: str, has_room: bool, now_s: float) -> None:
        """Another replica says whether it has enough."""
        known = self._others.get(node)
        if known is not has_room:
            self._others[node] = has_room
            if known is not None:
                self._again_s[node] = now_s
            self.crowded = frozenset(name for name, has_some in self._others.items() if not has_some)

    def silent(self, node: str) -> None:
        """`node` is not heard any more."""
        self._others.pop(node, None)
        self._again_s.pop(node, None)
        self.crowded -= {node}

    def suffices(self, voters: Collection[str], now_s: float) -> bool:
        """Whether this replica, as leader, may take what adds."""
        if self.is_scarce(now_s):
            return False
        rooms = [self.is_here, *(self._others[name] for name in voters if name in self._others)]
        # Without a majority nothing is committed, but not for lack of room.
        return 2 * len(rooms) <= len(voters) or 2 * sum(rooms) > len(voters)

    def heir(self, voters: Collection[str], able: Mapping[str, int], now_s: float) -> str | None:
        """Who should lead in the place of this replica, so that what adds can be taken; None: nobody.

        `able`: up to where each of those holds the log who could.
        """
        old_s = now_s - NEWS_S
        roomy = {name for name in voters if self._others.get(name) and self._again_s.get(name, -inf) <= old_s}
        if 2 * len(roomy) <= len(voters):
            return None
        return max(roomy & able.keys(), key=lambda name: (able[name], name), default=None)
