"""Room: full is refused early. What adds is refused before a store is full; receives, acks and deletes go on.

Every replica measures its own store and tells the leader with every answer. The leader refuses what adds when its own
store has too little room, or when fewer than a majority have enough: what it took then would perhaps never be
committed.
"""

from __future__ import annotations

from collections.abc import Collection

from storage.operations import Keyed, Operation, Send, Transaction
from storage.queue_operations import PutQueue
from storage.redrive_operations import StartRedrive
from storage.schedule_operations import PutSchedule
from storage.topic_operations import Publish, PutSubscription, PutTopic

STORE_FULL = "store_full"
"""Refusal by the leader: publishing would not leave enough room on enough replicas."""

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
        self._others: dict[str, bool] = {}

    def measured(self, free_bytes: int) -> None:
        """So much is free for this replica's store."""
        self.is_here = free_bytes >= self.reserve_bytes

    def heard(self, node: str, has_room: bool) -> None:
        """Another replica says whether it has enough."""
        self._others[node] = has_room

    def silent(self, node: str) -> None:
        """`node` is not heard any more."""
        self._others.pop(node, None)

    def suffices(self, voters: Collection[str]) -> bool:
        """Whether this replica, as leader, may take what adds."""
        if not self.is_here:
            return False
        rooms = [True, *(self._others[name] for name in voters if name in self._others)]
        # Without a majority nothing is committed, but not for lack of room.
        return 2 * len(rooms) <= len(voters) or 2 * sum(rooms) > len(voters)
