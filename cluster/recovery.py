"""A cluster whose majority is lost for good goes on as a cluster of one: the last resort, on a stopped node's stores.

Raft cannot do this, for nobody can know what the lost majority had acknowledged without this node. So it is done by
hand, by an operator who says that the others will never come back, and it makes another cluster: with another identity,
so that a lost node that does come back, with all it has, is a stranger and merges with nothing, and with the names of
all the others removed, so that an emptied one is not taken for a member. The two clusters are told apart by nothing
else: should a majority of the lost ones start again after all, it serves its clients as before, as the old cluster.

What is in the journal stays, also what is not known to be committed: most of it was acknowledged, and what was not was
not refused either. The recovery is an entry after it, so it is in force at once and is committed like everything.

Why to one node, and not to all survivors: two that are recovered apart would each believe to be the cluster. One node,
the one with the newest journal, is the cluster; the others join it, empty and under new names.

A node has a store for each shard. All are opened before the first is changed, and all get the same new identity; the
operator who was interrupted between two of them does it again, and all have the same one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from cluster.engine import ADOPTED_META, REMOVED_META
from cluster.identity import Identity, read, store_name
from cluster.journal import Journal
from cluster.membership import Membership, Memberships, configured, encode_membership
from cluster.repair import read_members, read_note, write_members
from cluster.standing import is_trusted, vouch
from storage import queries
from storage.lmdb_store import LmdbStore
from storage.operations import ENTRY_HEADER, ENTRY_KIND
from storage.state import Store

_CACHE_BYTES = 1024 * 1024
_SPARE_BYTES = 64 * 1024 * 1024
"""How much more than it is a store may become here: the recovery itself needs next to nothing."""


class Found(NamedTuple):
    """What a store holds. Of several survivors, the one with the greatest (last_term, last_index) has lost least."""

    membership: Membership
    term: int
    last_term: int
    last_index: int
    applied_index: int
    clock_ms: int
    """The cluster's time when the last operation was entered here; 0 if there is none."""
    is_whole: bool
    """False: a copy that was being filled after its disk was lost, and may lack what its node once acknowledged."""
    is_removed: bool
    """The cluster had removed this node: what it holds is old."""


class NothingFoundError(Exception):
    """There is nothing to recover: the message says why."""


def look(store: Store, founders: Membership) -> Found:
    """What the store holds; nothing is changed. Raises `NothingFoundError`."""
    if store.last_index <= 1:
        raise NothingFoundError(
            "it holds nothing but an empty log: recover another node; if none holds more, nothing was ever "
            "acknowledged, and all can begin anew with empty directories"
        )
    adopted = store.meta(ADOPTED_META)
    if adopted is not None:
        founders = msgspec.structs.replace(founders, cluster=adopted.decode())
    journal = Journal(store, _CACHE_BYTES)
    applied_index, _ = journal.applied()
    term, _ = journal.hard()
    return Found(
        Memberships(store, journal, applied_index, founders).latest,
        max(term, journal.last_term),
        journal.last_term,
        journal.last_index,
        applied_index,
        _clock_ms(store, journal, applied_index),
        is_trusted(store),
        bool(store.meta(REMOVED_META)),
    )


def _clock_ms(store: Store, journal: Journal, applied_index: int) -> int:
    for index in range(journal.last_index, applied_index, -1):
        payload = journal.entry(index).payload
        if payload[0] == ENTRY_KIND:
            return int(ENTRY_HEADER.unpack_from(payload)[1])
    return queries.clock_ms(store)


def recover(store: Store, founders: Membership, node: str, address: str, cluster: str) -> Membership:
    """Make `node`, which this store belongs to, the only member of a new `cluster`. Raises `NothingFoundError`."""
    found = look(store, founders)
    gone = {*found.membership.removed, *found.membership.members} - {node}
    alone = Membership(cluster, {node: address}, {}, tuple(sorted(gone)))
    store.begin()
    journal = Journal(store, _CACHE_BYTES)
    journal.append(journal.last_index + 1, found.term + 1, encode_membership(alone))
    journal.setCurrentTerm(found.term + 1, None)
    vouch(store)
    store.set_meta(REMOVED_META, b"")
    store.commit()
    return alone


class Shard(NamedTuple):
    """One of the survivor's stores, open. `damage`: why it is known not to be what was written, or None."""

    number: int
    directory: Path
    store: LmdbStore
    damage: str | None


class Survivor(NamedTuple):
    """A stopped node's data directory with all its stores open: `with survivor(directory) as node`."""

    identity: Identity
    shards: list[Shard]

    @property
    def founders(self) -> Membership:
        """The membership that was in force before any change."""
        return configured(self.identity.members, self.identity.cluster)

    @property
    def address(self) -> str | None:
        """Where the others reached the node, if that is remembered: no entry says so before the first change."""
        known = [read_members(self.shards[0].directory), look(self.shards[0].store, self.founders).membership]
        addresses = [membership.members.get(self.identity.node) for membership in known if membership is not None]
        return addresses[-1] or addresses[0]

    def look(self) -> list[Found]:
        """What each shard holds. Raises `NothingFoundError`, `StorageFailure`."""
        return [look(shard.store, self.founders) for shard in self.shards]

    def recover(self, address: str, cluster: str) -> Membership:
        """Make the node the only member of a new `cluster`, in every shard. Raises `StorageFailure`, `OSError`."""
        for shard in self.shards:
            alone = recover(shard.store, self.founders, self.identity.node, address, cluster)
            write_members(shard.directory, alone)
        return alone


@contextmanager
def survivor(data: Path) -> Iterator[Survivor]:
    """Open what a stopped node has in its directory `data`.

    Raises `IdentityError`, `NothingFoundError`, `UnusableError` (also when the node runs), `StorageFailure`.
    """
    identity = read(data)
    directories = sorted(path for path in data.glob("shard-[0-9]*") if path.is_dir())
    if not directories or any(not (path / "data.mdb").exists() for path in directories):
        raise NothingFoundError("it holds no log, or not that of every shard")
    with ExitStack() as stack:
        shards = []
        for directory in directories:
            number = int(directory.name.removeprefix("shard-"))
            store = LmdbStore(
                directory,
                bytes_max=(directory / "data.mdb").stat().st_size + _SPARE_BYTES,
                identity=store_name(number, identity.node, identity.cluster),
            )
            stack.callback(store.close)
            note = read_note(directory)
            shards.append(Shard(number, directory, store, note.cause if note is not None else None))
        yield Survivor(identity, shards)
