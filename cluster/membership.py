"""Who belongs to the cluster: a replicated record, changed by log entries of their own kind, one member at a time.

A *voter* counts towards majorities. A *learner* is sent everything and counts for nothing; it is made a voter when it
holds everything. A name that was removed is never used again: whatever its old owner still says is known to be old.

    membership entry = kind u8 | record                     the whole membership after the change, not the change
    state MEMBERSHIP_KEY = record                           of the last applied entry; travels with every copy

The membership in force is that of the last membership entry in the journal, committed or not: it takes effect when it
is appended and is undone when it is truncated (Ongaro's thesis, section 4.1). A replica without any has never seen a
change, and takes the nodes that it was configured with for voters.

Majorities of memberships that differ in one voter share a member. Hence one change at a time: a leader appends the next
only when the last one is committed, and its first only when an entry of its own term is. Without the latter two leaders
could each replace the other's uncommitted change by one of its own, with majorities that share nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

import msgspec

from cluster.journal import Journal
from storage.record_keys import MEMBERSHIP_KEY
from storage.state import Store

MEMBERSHIP_KIND = 2
"""Kind of an entry that holds a membership."""

MEMBERS_MAX = 8
"""Each more costs every write a copy, and seven survive the loss of three; the eighth takes the place of another."""


class ChangeRefusedError(Exception):
    """The membership cannot be changed like this, or not now. `code` is for programs, the message for people."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


class Membership(msgspec.Struct, array_like=True, frozen=True):
    """Addresses by name: of those who vote and of those who do not yet; and the names that were removed.

    `cluster` is the cluster's identity: nodes with another one are strangers. It changes only when a cluster that has
    lost its majority is recovered by force, so that what was left behind is not taken for a part of it.
    """

    cluster: str
    voters: dict[str, str]
    learners: dict[str, str] = {}
    removed: tuple[str, ...] = ()

    @property
    def members(self) -> dict[str, str]:
        """Addresses of all, by name."""
        return self.voters | self.learners

    @property
    def age(self) -> int:
        """Of two memberships of a cluster that of greater age came later: who joins, votes or goes adds to it."""
        return len(self.members) + len(self.voters) + 3 * len(self.removed)

    def with_learner(self, name: str, address: str) -> Membership:
        """With a new learner. The same again changes nothing. Raises `ChangeRefusedError`."""
        members = self.members
        if members.get(name) == address:
            return self
        if name in members:
            raise ChangeRefusedError("name_in_use", f"{name} is a member already, at {members[name]}")
        if name in self.removed:
            raise ChangeRefusedError(
                "name_removed", f"{name} was removed from this cluster, and a name is never used again: choose another"
            )
        self._check_address(address)
        if len(members) >= MEMBERS_MAX:
            raise ChangeRefusedError(
                "too_many_members", f"a cluster has at most {MEMBERS_MAX} members, and this one has {len(members)}"
            )
        return self._with(learners=self.learners | {name: address})

    def with_voter(self, name: str) -> Membership:
        """With the learner `name` made a voter."""
        learners = {other: address for other, address in self.learners.items() if other != name}
        return self._with(voters=self.voters | {name: self.learners[name]}, learners=learners)

    def without(self, name: str) -> Membership:
        """Without a member. The same again changes nothing. Raises `ChangeRefusedError`."""
        if name in self.removed:
            return self
        self._check_member(name)
        if list(self.voters) == [name]:
            raise ChangeRefusedError("last_voter", f"{name} is the only voter: without it there is no cluster")
        voters = {other: address for other, address in self.voters.items() if other != name}
        learners = {other: address for other, address in self.learners.items() if other != name}
        return self._with(voters=voters, learners=learners, removed=tuple(sorted({*self.removed, name})))

    def moved(self, name: str, address: str) -> Membership:
        """With a member at another address. The same again changes nothing. Raises `ChangeRefusedError`."""
        self._check_member(name)
        if self.members[name] == address:
            return self
        self._check_address(address)
        if name in self.voters:
            return self._with(voters=self.voters | {name: address})
        return self._with(learners=self.learners | {name: address})

    def _with(self, **changes: object) -> Membership:
        return msgspec.structs.replace(self, **changes)

    def _check_member(self, name: str) -> None:
        if name not in self.members:
            raise ChangeRefusedError("not_a_member", f"{name} is not a member: there are {', '.join(self.members)}")

    def _check_address(self, address: str) -> None:
        for name, taken in self.members.items():
            if taken == address:
                raise ChangeRefusedError("address_in_use", f"{address} is the address of {name}")


def check_majority_left(present: Membership, wanted: Membership, sound: Set[str]) -> None:
    """Raise `ChangeRefusedError` when those who would be left to vote could not commit anything now, not even this.

    `sound` are those who can be counted on.
    """
    sound &= wanted.voters.keys()
    if 2 * len(sound) <= len(wanted.voters) and not wanted.voters.keys() >= present.voters.keys():
        raise ChangeRefusedError(
            "no_majority_left",
            f"of the voters that would be left, {', '.join(wanted.voters)}, only {', '.join(sorted(sound))} "
            "can be counted on now, which is no majority",
        )


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Membership).decode


def encode_membership(membership: Membership) -> bytes:
    """The payload of the entry that puts `membership` in force."""
    return bytes((MEMBERSHIP_KIND,)) + _encode(membership)


def read_record(store: Store) -> Membership | None:
    """The applied membership; None if it was never changed."""
    record = store.get(MEMBERSHIP_KEY)
    return None if record is None else _decode(record)


class Memberships:
    """The applied membership, and those in the journal after it."""

    def __init__(self, store: Store, journal: Journal, applied_index: int, configured: Membership) -> None:
        """Read the record, and look for entries that are not applied yet."""
        self._store = store
        self.applied = read_record(store)
        self._configured = configured
        self._entries: list[tuple[int, Membership]] = []
        self.version = 0
        """Counts how often anything has changed here."""
        for index in range(applied_index + 1, journal.last_index + 1):
            self.appended(index, journal.entry(index).payload)

    @property
    def latest(self) -> Membership:
        """The membership in force."""
        return self._entries[-1][1] if self._entries else self.applied or self._configured

    @property
    def pending_index(self) -> int:
        """Index of the last membership entry that is not applied, or 0."""
        return self._entries[-1][0] if self._entries else 0

    @property
    def known(self) -> list[Membership]:
        """All that may still be, or come back, in force."""
        return [self.applied or self._configured, *(membership for _, membership in self._entries)]

    @property
    def is_changed(self) -> bool:
        """Whether the membership in force comes from the log, and not from the configuration."""
        return bool(self._entries or self.applied)

    def adopt(self, cluster: str) -> None:
        """This replica was blank, and belongs to `cluster` from now on."""
        self._configured = msgspec.structs.replace(self._configured, cluster=cluster)
        self.version += 1

    def appended(self, index: int, payload: bytes) -> bool:
        """An entry was appended. True: another membership is in force now."""
        if payload[0] != MEMBERSHIP_KIND:
            return False
        self._entries.append((index, _decode(payload[1:])))
        self.version += 1
        return True

    def truncated(self, index: int) -> bool:
        """The entries from `index` on are gone. True: another membership is in force now."""
        before = len(self._entries)
        while self._entries and self._entries[-1][0] >= index:
            self._entries.pop()
            self.version += 1
        return len(self._entries) < before

    def apply(self, index: int, payload: bytes) -> None:
        """A membership entry is committed: write the record into the open transaction."""
        self._store.put(MEMBERSHIP_KEY, payload[1:])
        self.applied = _decode(payload[1:])
        self.version += 1
        while self._entries and self._entries[0][0] <= index:
            self._entries.pop(0)


def configured(members: Mapping[str, str] | Iterable[str], cluster: str = "") -> Membership:
    """What is in force before the first change: all configured nodes vote. Names alone will do where nobody dials."""
    addresses = dict(members) if isinstance(members, Mapping) else dict.fromkeys(members, "")
    return Membership(cluster, addresses)
