"""PySyncObj, opened at the seams on which the engine stands: pinned, checked, silent, and under plain names.

Its private methods call each other through `self`, so a subclass that defines `_SyncObj__name` replaces one; each such
name is checked when this module is imported, and the version is pinned. PySyncObj keeps the roles, the terms, the
votes, the election and the commit rule; it opens no descriptor, starts no thread, and reads no clock but the one given.

NB: two things of the stock code are worth knowing when reading on. It asks `__connectedToAnyone` exactly when an
election is due, and campaigns if that says yes: there the pre-vote takes place. And its commit rule counts this node as
having every entry that `__getEntries` gives it, so it is given durable ones only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import pysyncobj.syncobj
from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.node import Node
from pysyncobj.poller import Poller
from pysyncobj.transport import Transport
from pysyncobj.version import VERSION

from cluster.tuning import Tuning

_PINNED = "0.3.17"
_METHODS = (
    *("connectedToAnyone", "onBecomeLeader", "sendAppendEntries", "applyLogEntries", "tryLogCompaction", "getEntries"),
    *(
        "generateRaftTimeout",
        "onMessageReceived",
        "setCurrentTerm",
        "setState",
    ),
)
_ATTRIBUTES = (
    *("raftLog", "raftState", "raftCurrentTerm", "votedForNodeId", "raftLeader", "raftElectionDeadline", "noopIDx"),
    *("raftCommitIndex", "raftLastApplied", "raftMatchIndex", "lastResponseTime", "transferInProgress"),
    *("newAppendEntriesTime", "needLoadDumpFile", "otherNodes"),
)

if VERSION != _PINNED:
    raise ImportError(f"pysyncobj {VERSION} is installed, but the engine was made for {_PINNED} and no other")
_missing = [name for name in _METHODS if not hasattr(SyncObj, f"_SyncObj__{name}")] + [
    name for name in _ATTRIBUTES if f"_SyncObj__{name}" not in SyncObj.__init__.__code__.co_names
]
if _missing:
    raise ImportError(f"pysyncobj {VERSION} lacks what the engine replaces or reads: {', '.join(_missing)}")

FOLLOWER, CANDIDATE, LEADER = 0, 1, 2

__all__ = ["CANDIDATE", "FOLLOWER", "LEADER", "Node", "Seams"]


class _Clock:
    """The clock that PySyncObj reads: a module-wide name there, so each engine puts its own in before it calls."""

    read: Callable[[], float] = staticmethod(time.monotonic)

    def __call__(self) -> float:
        return self.read()


_clock = _Clock()
pysyncobj.syncobj.monotonicTime = _clock


class _Quiet(Poller):  # type: ignore[misc]
    """No descriptors, nothing to wait for."""

    def poll(self, timeout: float) -> None:
        """Return at once."""


class _Outlet(Transport):  # type: ignore[misc]
    """The one place where the stock code's dicts leave; it only ever sends requests for votes, and votes."""

    ready = True

    def __init__(self, send: Callable[[Node, dict[str, Any]], None]) -> None:
        super().__init__(None, None, ())
        self._send = send

    def send(self, node: Node, message: dict[str, Any]) -> bool:
        """Pass `message` on."""
        self._send(node, message)
        return True


class Seams(SyncObj):  # type: ignore[misc]
    """The stock code as a base class. Subclasses replace what they do better."""

    def __init__(self, name: str, peers: Iterable[Node], monotonic: Callable[[], float], tuning: Tuning) -> None:
        """Begin as a follower; the subclass puts in the journal, term and vote."""
        self.name = name
        self._monotonic, self._tuning = monotonic, tuning
        self._enter()
        super().__init__(Node(name), peers, self._conf(), transport=_Outlet(self._translate))
        self._poller = _Quiet()
        self._SyncObj__needLoadDumpFile = False

    def _conf(self) -> SyncObjConf:
        tuning = self._tuning
        return SyncObjConf(
            autoTick=False,
            appendEntriesUseBatch=True,
            commandsWaitLeader=False,
            dynamicMembershipChange=False,
            pollerType="poll",
            appendEntriesPeriod=tuning.heartbeat_s,
            raftMinTimeout=tuning.election_min_s,
            raftMaxTimeout=tuning.election_max_s,
            leaderFallbackTimeout=tuning.election_min_s,
            connectionTimeout=tuning.election_max_s,
            onStateChanged=self._state_changed,
        )

    @property
    def is_leader(self) -> bool:
        """Whether this replica believes that it leads. Others may already know better."""
        return bool(self._SyncObj__raftState == LEADER)

    @property
    def leader(self) -> str | None:
        """Who leads, as far as this replica knows."""
        node = self._SyncObj__raftLeader
        return None if node is None else str(node.id)

    @property
    def term(self) -> int:
        """The current term."""
        return int(self._SyncObj__raftCurrentTerm)

    @property
    def commit_index(self) -> int:
        """Index of the last entry known to be committed."""
        return int(self._SyncObj__raftCommitIndex)

    @property
    def applied_index(self) -> int:
        """Index of the last applied entry."""
        return int(self._SyncObj__raftLastApplied)

    def _enter(self) -> None:
        """Before the stock code is called: it reads this engine's clock."""
        _clock.read = self._monotonic

    def _translate(self, peer: Node, message: dict[str, Any]) -> None:
        """The stock code sends `message` to `peer`."""
        raise NotImplementedError

    def _state_changed(self, old: int, new: int) -> None:
        """The stock code has changed its role."""

    def _checkCommandsToApply(self) -> None:  # noqa: N802
        """Proposals do not pass through the stock queue."""
