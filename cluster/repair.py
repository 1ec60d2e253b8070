"""Repair: a replica whose store is damaged begins again without it, if the others can spare it.

A replica is *ailing* once it knows that its store is damaged: a checksum was wrong, or its state differs from that of a
majority (`cluster.scrub`). From then on it serves nothing: if it leads, it only brings another up to date and hands
over. It goes on to follow, to vote and to acknowledge as long as its store lets it: that is the promise of its journal,
which has a checksum for every entry, and others may need it for a majority.

It asks all others, round by round, whether they can spare it. A replica says so when it is not ailing itself, its word
counts, it knows a leader, has applied an entry of its term (so that its journal is the leader's as far as it goes), and
it holds all that the ailing one had committed. When a majority of the voters, itself not
counted, has said so in one round, it sets its store aside and is *lost* (`cluster.standing`): like a wiped replica it
neither votes nor counts until a leader vouches for it, and gets everything from its peers.

Why never two at once do this that are needed. Say X goes by the word of the majority Q(X), and Y by that of Q(Y), and
Y is in Q(X), and X in Q(Y). Y spared X before it was ailing, so before it asked, so before X spared it; and the other
way round: no. So of any two that go, one at least did without the other, and behind each stands a majority that is
sound. In a cluster of three nobody goes unless both others are sound.

Why the whole store, when only one record is bad. A journal with a hole in it is no shorter journal: this replica has
acknowledged what is in the hole, and others may have committed it by its word. Who has lost any of its memory must
count as one who has lost all of it; that is what `cluster.standing` proves to be safe. And of a tree of pages that has
one bad bit nobody knows what else is bad.

A store that cannot even be opened, or that fails an ailing replica again, is no replica's: a `Patient` stands in, which
is silent but for its question. An error of the disk itself is nothing to be repaired here: the process ends.

    ailing.json  = the cause, from when damage is found until the store is set aside
    members.json = the membership in force, for when the store cannot be read: the configuration may be older, and a
                   node that joined was founded under another identity, under which nobody would let it in
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable
from math import inf
from pathlib import Path
from typing import NamedTuple

import msgspec

from cluster.membership import Membership
from cluster.messages import Ailing, Message, Spared
from cluster.metrics import PeerMetrics, ProcessMetrics, ReplicaMetrics, ShardMetrics
from cluster.scrub import Tally
from cluster.wire import AskChange, MemberReport, Report
from storage.disk import sync_directory

ROUND_S = 1.0
"""How often an ailing replica asks: answers of an earlier round count for nothing."""

RELUCTANCE_S = 2.0
"""How much later than others an ailing replica campaigns: longer than any of them waits."""

REPLICA_DAMAGED = "replica_damaged"
"""Refusal of local reads by a replica that does not trust its own store."""

_NOTE = "ailing.json"
_MEMBERS = "members.json"


class Note(msgspec.Struct, frozen=True):
    """What is remembered about a damaged store, beside it."""

    cause: str


def read_note(directory: Path) -> Note | None:
    """What was noted about the store in `directory`."""
    try:
        return msgspec.json.decode((directory / _NOTE).read_bytes(), type=Note)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        return Note(f"{_NOTE} is damaged: {error}")


def write_note(directory: Path, note: Note) -> None:
    """Remember, through crashes too, that the store in `directory` is damaged. Raises `OSError`."""
    _write(directory, _NOTE, msgspec.json.encode(note))


def remove_note(directory: Path) -> None:
    """The damaged store is no more."""
    (directory / _NOTE).unlink(missing_ok=True)
    sync_directory(directory)


def read_members(directory: Path) -> Membership | None:
    """The membership that was in force here when the store could last be read, if it is known."""
    try:
        return msgspec.json.decode((directory / _MEMBERS).read_bytes(), type=Membership)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def write_members(directory: Path, membership: Membership) -> None:
    """Remember whom to ask should the store not open one day. Raises `OSError`."""
    _write(directory, _MEMBERS, msgspec.json.encode(membership))


def _write(directory: Path, name: str, data: bytes) -> None:
    temporary = directory / f"{name}.new"
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(directory / name)
    sync_directory(directory)


class Repair:
    """The question of one ailing replica, and the answers."""

    def __init__(
        self,
        name: str,
        cause: str,
        *,
        voters: Callable[[], Iterable[str]],
        tell: Callable[[Message], None],
        index: Callable[[], int] = lambda: 0,
        term: Callable[[], int] = lambda: 0,
    ) -> None:
        """`tell` sends to all others; `index` is what they must hold at least."""
        self._name, self.cause = name, cause
        self._voters, self._tell, self._index, self._term = voters, tell, index, term
        self._round = 0
        self.next_s = -inf
        self._sparing: set[str] = set()

    def step(self, now_s: float) -> None:
        """Ask again if it is time."""
        if now_s >= self.next_s:
            self.next_s = now_s + ROUND_S
            self._round += 1
            self._sparing = set()
            self._tell(Ailing(self._term(), self._round, self._index(), self.cause))

    def heard(self, node: str, answer: Spared) -> None:
        """`node` can spare this replica."""
        if answer.round == self._round:
            self._sparing.add(node)

    @property
    def is_spared(self) -> bool:
        """Whether a majority of the voters, this replica not counted, has said so in the present round."""
        voters = set(self._voters())
        return 2 * len(self._sparing & voters - {self._name}) > len(voters)


class Absent:
    """What stands in for an engine that is not there: who the members are is all that is known."""

    is_leader = is_blank = False
    born = True  # its cluster was founded, or there would be nothing that is damaged
    data = ""

    class _Memberships(NamedTuple):
        applied: Membership
        known: list[Membership]
        version: int = 0
        is_changed: bool = True

    def __init__(self, membership: Membership) -> None:
        self.is_removed = False
        self.membership = membership
        self.memberships = self._Memberships(membership, [membership])

    def learn(self, membership: Membership) -> None:
        """These are the members now."""
        self.membership = membership
        self.memberships = self._Memberships(membership, [membership], self.memberships.version + 1)


class Patient:
    """What stands in for a replica whose store cannot be used. It has the replica's methods, and only asks."""

    def __init__(
        self,
        name: str,
        cause: str,
        membership: Membership,
        tally: Tally,
        *,
        post: Callable[[str, Message], None],
        monotonic: Callable[[], float],
    ) -> None:
        self.name, self._cause, self._tally = name, cause, tally
        self.engine = Absent(membership)
        self.born = self.engine.born
        self._post, self._monotonic = post, monotonic
        self._repair = Repair(name, cause, voters=lambda: self.engine.membership.voters, tell=self._broadcast)

    def _broadcast(self, message: Message) -> None:
        for node in sorted(self.engine.membership.members.keys() - {self.name}):
            self._post(node, message)

    @property
    def is_spared(self) -> bool:
        """Whether the store may be set aside."""
        return self._repair.is_spared

    def tick(self) -> None:
        """Ask to be spared."""
        self._repair.step(self._monotonic())

    def heed(self, node: str, message: Message) -> bool:
        """It follows nobody."""
        return False

    def deliver(self, node: str, message: Message) -> None:
        """Only an answer to the question is heard. It also tells who the members are: some may have come or gone."""
        if type(message) is Spared:
            told, known = message.membership, self.engine.membership
            if told is not None and told.cluster == known.cluster and told.age > known.age:
                self.engine.learn(told)
            self._repair.heard(node, message)

    def connected(self, node: str, born: bool) -> None:
        """A connection to another replica stands: it is asked in the next round."""

    def disconnected(self, node: str) -> None:
        """The connection to another replica is gone."""

    def request(self, gateway: object, items: memoryview) -> bool:
        """Operations are not for this replica."""
        return False

    def change(self, asker: object, question: AskChange) -> bool:
        """Nor are changes of the membership."""
        return False

    def adopt(self, cluster: str) -> None:
        """It belongs to a cluster already."""

    def retire(self) -> None:
        """A member says that this replica was removed."""
        self.engine.is_removed = True

    def measure(self, process: ProcessMetrics, connected: Container[str]) -> ShardMetrics:
        """The numbers for operators."""
        others = self.engine.membership.members.keys() - {self.name}
        return ShardMetrics(process, ReplicaMetrics(), {name: PeerMetrics(name in connected) for name in others})

    def members(self) -> list[MemberReport]:
        """The members, for the report."""
        membership = self.engine.membership
        return [MemberReport(name, at, name in membership.voters) for name, at in membership.members.items()]

    def cancel(self, session: int, seq: int) -> None:
        """Nothing is waited for here."""

    def forsake(self, gateway: object) -> None:
        """A gateway has gone."""

    def report(self) -> Report:
        """What to tell the gateways."""
        trouble = f"this replica's store cannot be used, and waits until the others can spare it: {self._cause}"
        scrub = self._tally.report(None, {self.name: self._cause})
        cluster = self.engine.membership.cluster
        return Report(self.name, None, 0, 0, 0, False, True, trouble, cluster, scrub=scrub)

    def next_wakeup(self) -> float:
        """Monotonic time in seconds at which `tick` must run."""
        return self._repair.next_s
