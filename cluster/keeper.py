"""Keeps a shard's replica on its store: opens it, opens it again on a snapshot, and repairs it when it is damaged.

`cluster.repair` has the rules. What is here is their order on the disk: the note that a store is damaged is there
before anything is done about it, and goes when the store that was opened without the old one knows that it is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from enum import Enum, auto
from pathlib import Path

import structlog

from cluster.engine import ReinstalledError
from cluster.membership import Membership
from cluster.messages import Message
from cluster.metrics import ProcessMetrics, ReplicaMetrics, ShardMetrics
from cluster.repair import (
    REPLICA_DAMAGED,
    Note,
    Patient,
    read_members,
    read_note,
    remove_note,
    write_members,
    write_note,
)
from cluster.replica import Replica
from cluster.scrub import Tally
from cluster.standing import lose
from cluster.wire import AskLook, ToldLook
from storage.block import BadChecksumError
from storage.lmdb_store import ASIDE, LmdbStore, set_aside
from storage.operations import Refused
from storage.state import DamageError

DOUBT_S = 60.0
"""How long after the store was read anew because of a bad message another one is not the store's fault any more."""

_log = structlog.get_logger()


class Change(Enum):
    """What has become of the replica in a tick: it is the same, it goes on from a snapshot, or it has forgotten."""

    NONE = auto()
    INSTALLED = auto()
    FORGOTTEN = auto()


class Keeper:
    """The replica, or what stands in for it, and its store."""

    def __init__(
        self,
        name: str,
        membership: Membership,
        directory: Path,
        *,
        open_store: Callable[[], LmdbStore],
        make: Callable[[Membership, LmdbStore, Tally, str | None], Replica],
        post: Callable[[str, Message], None],
        monotonic: Callable[[], float],
    ) -> None:
        """`make(membership, store, tally, ailing)` builds the replica. `membership`, with which the node is configured,
        counts as long as no other is known to have been in force: whom to ask should the store not open, and what a
        replica begins with that has forgotten everything.

        Raises what `open_store` raises, but `DamageError` only when there are no others to get everything from.
        """
        self._name, self._directory = name, directory
        self._configured, self._remembered = membership, read_members(directory)
        self._membership = self._remembered or membership
        self._open_store, self._make, self._post, self._monotonic = open_store, make, post, monotonic
        self.tally = Tally()
        self.store: LmdbStore | None = None
        self._note = read_note(directory)
        self._was_lost = False
        self._doubted_s: float | None = None
        self._suspicion: DamageError | BadChecksumError | None = None
        self.replica = self._open()

    def _open(self) -> Replica | Patient:
        """Open the store and build the replica on it; of a damaged store only a stand-in can be made."""
        try:
            store = self.store = self._open_store()
            if self._note is not None and store.last_index == 0:
                store.begin()
                lose(store)
                store.commit()
                remove_note(self._directory)
                self._note = None
            replica = self._make(self._known, store, self.tally, self._note.cause if self._note is not None else None)
            self._was_lost = replica.engine.is_lost
            return replica
        except DamageError as error:
            self._close()
            return self._stand_in(error)

    @property
    def _known(self) -> Membership:
        """What a replica begins with that has forgotten: of those it was configured with, all may have gone."""
        return self._membership if self._name in self._membership.members else self._configured

    def _stand_in(self, error: DamageError) -> Patient:
        """What asks for the repair of a store that serves no replica. Raises `error` when there is nobody to ask."""
        note = self._notice(str(error))
        if self._membership.voters.keys() == {self._name}:
            raise error
        return Patient(self._name, note.cause, self._membership, self.tally, post=self._post, monotonic=self._monotonic)

    def _notice(self, cause: str) -> Note:
        """The store is damaged: remember it before anything is done about it."""
        if self._note is None:
            self._note = Note(cause)
            write_note(self._directory, self._note)
            self.tally.damages += 1
            _log.critical("the store is damaged", cause=cause, remedy="it is set aside when the others can spare it")
        return self._note

    def tick(self) -> Change:
        """Let the replica tick, and see to what has become of it. Raises `StorageFailure` when the disk has failed."""
        try:
            if self._suspicion is not None:
                raise self._suspicion
            self.replica.tick()
            if isinstance(self.replica, Replica):
                self._mind(self.replica)
        except ReinstalledError:
            self._close()
            self.replica = self._open()
            return Change.INSTALLED
        except BadChecksumError as error:
            self._doubt(error)
            return Change.FORGOTTEN
        except DamageError as error:
            self._retire(error)
            return Change.FORGOTTEN
        if self.replica.is_spared:
            self._set_aside()
            return Change.FORGOTTEN
        return Change.NONE

    def _mind(self, replica: Replica) -> None:
        if replica.ailing is not None:
            self._notice(replica.ailing)
        if self._was_lost and not replica.engine.is_lost:
            self._was_lost = False
            self.tally.repairs += 1
            _log.warning("the replica is repaired", applied_index=replica.engine.applied_index)
        if replica.engine.counts and self._membership is not replica.engine.membership:
            self._remember(replica.engine.membership)

    def _remember(self, membership: Membership) -> None:
        """Another membership is in force, by the word of a replica that has not forgotten any."""
        self._membership = membership
        if membership == self._remembered:
            return
        self._remembered = membership
        try:
            write_members(self._directory, membership)
        except OSError as error:
            _log.error(
                "the members could not be remembered beside the store",
                cause=error.strerror,
                remedy="make room; should the store be damaged now, this node asks those it knew before",
            )

    def _doubt(self, error: BadChecksumError) -> None:
        """A message is not what its sender sent. The entry was right when it was first read: read everything anew.

        Should it still be right, the message was wrong before it came here, and nothing on this disk is to blame.
        """
        now_s = self._monotonic()
        if self._doubted_s is not None and now_s - self._doubted_s < DOUBT_S:
            raise error
        self._doubted_s, self._suspicion = now_s, None
        _log.error("a message does not match its checksum: the store is read anew", cause=str(error))
        self._close()
        self.replica = self._open()
        if isinstance(self.replica, Replica):
            self.replica.scrub.check()

    def _retire(self, error: DamageError) -> None:
        """The replica has met damage in the middle of a tick, which is undone. It goes on as an ailing one, once."""
        if self._membership.voters.keys() == {self._name}:
            raise error
        is_first, self._suspicion = self._note is None, None
        self._notice(str(error))
        self._close()
        self.replica = self._open() if is_first else self._stand_in(error)

    def _set_aside(self) -> None:
        _log.critical("the others can spare this replica: its store is set aside", kept_as=ASIDE)
        last = self.replica.engine.membership
        if last.cluster == self._membership.cluster and last.age > self._membership.age:
            self._remember(last)
        self._close()
        set_aside(self._directory)
        self.replica = self._open()

    def suspect(self, error: DamageError | BadChecksumError) -> None:
        """Damage was met between ticks."""
        self._suspicion = error

    def look(self, question: AskLook) -> ToldLook:
        """What the replica has applied says to a query, unless it is damaged."""
        if isinstance(self.replica, Replica):
            try:
                return self.replica.look(question)
            except (BadChecksumError, DamageError) as error:
                self.suspect(error)
        return ToldLook(question.number, Refused(REPLICA_DAMAGED), b"", 0, None)

    def measure(self, process: ProcessMetrics, connected: Container[str]) -> ShardMetrics:
        """The replica's numbers for operators, unless it is damaged: then those of the process alone."""
        try:
            return self.replica.measure(process, connected)
        except DamageError as error:
            self.suspect(error)
            return ShardMetrics(process, ReplicaMetrics(), {})

    def close(self) -> None:
        """Let go of the store."""
        self._close()

    def _close(self) -> None:
        if self.store is not None:
            self.store.close()
        self.store = None
