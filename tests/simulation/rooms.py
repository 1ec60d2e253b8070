"""A check of the oracle: sends go on while a majority of the disks has room.

A leader may refuse them for a while: until it has heard of the others, until one of them can take over, and until it
hands over again. So it is given time, which does not count while those who have room are no majority, or slow.
"""

from __future__ import annotations

from collections.abc import Callable

from cluster.replica import Replica

RELIEF_S = 1.0
"""What `cluster.room.RELIEF_S` is here: disks are full for some seconds only."""
PATIENCE_S = 5.0
"""So long a leader may refuse sends that it need not refuse: several attempts to hand over."""
QUICK_S = 0.15
"""Who answers later may need longer for an election than a candidate waits."""


class Rooms:
    """See the module. `violate(check, detail)` ends the run."""

    def __init__(self, violate: Callable[[str, str], None]) -> None:
        self._violate = violate
        self._since_s: dict[Replica, float] = {}

    def ticked(self, replica: Replica, has_room: Callable[[str], bool]) -> None:
        """A replica has ticked. `has_room(name)`: what is true of the disks, whatever the replicas believe."""
        engine, now_s = replica.engine, replica._monotonic()
        voters = engine.membership.voters
        if not engine.is_leader or replica.ailing is not None or replica._room.suffices(voters, now_s):
            self._since_s.pop(replica, None)
            return
        followers = engine._replication.followers
        fit = {name for name in engine.heirs if followers[name]._race[1] - followers[name].echo_s < QUICK_S}
        roomy = sorted(name for name in (replica.name, *fit) if has_room(name))
        if 2 * len(roomy) <= len(voters):
            self._since_s.pop(replica, None)
        elif now_s - self._since_s.setdefault(replica, now_s) > PATIENCE_S:
            self._violate(
                "sends go on while a majority has room",
                f"{replica.name} has refused them for {PATIENCE_S} s, although {', '.join(roomy)} have room",
            )
