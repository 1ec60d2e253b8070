"""All that goes wrong. A fault is a small class: `inject` makes it so and says what it did, `heal` ends it.

Faults of different layers (nodes, network, clock) may go on at the same time; of one layer, one at a time. What
destroys a node's data goes on alone: nothing is promised when one node's data is gone and another's is cut off. So does
what waits for nodes to become ready.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import zip_longest

from tests.chaos.fault import Fault
from tests.chaos.fault_calls import KillAtCommit, KillAtCopy, KillAtInstall, KillCopier, SyncFails, Wipe, WriteFails
from tests.chaos.fault_clocks import ClockJump
from tests.chaos.fault_disks import DiskFull, DiskLow, FewFlippedBits, FlippedBits, LostTail, PowerCut
from tests.chaos.fault_members import GrowAndShrink, Replace
from tests.chaos.fault_networks import Cut, CutAll, CutHalves, CutLeader, CutOneWay, CutRing, Loss, SlowLinks
from tests.chaos.fault_processes import (
    Kill,
    KillAll,
    KillLeader,
    KillMajority,
    Pause,
    PauseLeader,
    PauseMajority,
    RollingRestart,
)

FAMILIES: dict[str, tuple[type[Fault], ...]] = {
    "processes": (Kill, KillLeader, KillMajority, KillAll, Pause, PauseLeader, PauseMajority, RollingRestart),
    "system calls": (KillAtCommit, SyncFails, WriteFails),
    "copies": (Wipe, KillAtCopy, KillAtInstall, KillCopier),
    "disks": (PowerCut, DiskLow, DiskFull),
    "damage": (FlippedBits, FewFlippedBits, LostTail),
    "networks": (Cut, CutLeader, CutHalves, CutAll, CutOneWay, CutRing, Loss, SlowLinks),
    "members": (Replace, GrowAndShrink),
    "clocks": (ClockJump,),
}
FAULTS = {kind.name: kind for kinds in FAMILIES.values() for kind in kinds}
"""Every fault by its name."""


def spread(names: Sequence[str], rng: random.Random) -> list[str]:
    """Faults in an order that has one of every family before the second of any."""
    families = [[kind.name for kind in kinds if kind.name in names] for kinds in FAMILIES.values()]
    rng.shuffle(families)
    for family in families:
        rng.shuffle(family)
    return [name for turn in zip_longest(*families) for name in turn if name is not None]
