"""Whether a replica's word counts: the rule that a wiped replica cannot undo what it once promised.

A replica whose disk was replaced comes back under its old name without its votes and acknowledgements. Were its word
to count at once, a second leader could be elected in a term in which it had voted, or a majority be formed without an
entry that it had acknowledged. But in a new cluster every replica is as empty, and somebody has to begin. So:

* An *unborn* replica (empty store) neither votes nor campaigns, and its acknowledgements do not count, except: while
  every other member is connected to it and none of them was born, it may vote. The vote makes it a *founder*, in the
  same transaction: it remembers its promises like anybody else from here on, and its word counts. A founder is *born*
  when it holds the first entry of a leader. So the first election ever needs all members, and no later one does.
* Any other unborn replica is born when a leader welcomes it: a wiped one, and one that has just been added. The leader
  does so when (1) a majority of the voters, the replica itself not counted, has answered a message that was sent a
  candidacy (`Tuning.candidacy_s`) or more after the leader first heard the replica say that its word does not count,
  (2) the replica holds, and the others have committed, all that was in the leader's journal at that first moment.
  A welcome counts as a vote for that leader in its term.

Why that is enough. Let W be wiped and welcomed by L in term T, and Q be the majority of (1).

Nobody was elected in a term above T before the candidacies of W's forgotten votes were over. Else take the lowest such
term; all memberships in its leader's journal are from leaders up to T. Since memberships change one voter at a time,
each after the last was committed and after an entry of its leader's own term was (`cluster.membership`), that leader's
membership is L's or differs from it by one voter, so its electors and Q share a member, which is not W. It voted, in a
term above T, before it answered L, in term T: no. So W's forgotten votes elected nobody above T, and they never will:
a vote that arrives after its candidacy counts for nothing (`Elections._on_vote`). In T the welcome is W's vote,
whatever it voted before: L has been elected in T already, and W helps nobody else in it. Below T it votes no more.

What W had acknowledged. To leaders of terms above T: there were none. To leaders below T, who committed something by
it: L was elected by voters among whom one held it (W only if it still remembered), so it is in L's journal. To L: what
L commits by W's forgotten word is below the mark of (2), for W's next word says that it does not count.

Why a founding does not run beside living data: data is acknowledged when a majority holds it, and whoever holds an
entry and has promised is born. Replicas that were wiped are a minority, so one that was not, and was born before they
came back, is among the nodes that an empty replica is configured with; they must be connected to it to vote, and then
they know. A majority of them would not do for "every": it may consist of a wiped replica and one that never took part,
while the third is away. And no founding is needed once there was a leader: a majority has voted for it, and its votes
count ever after.

NB: with changing members this asks one thing of the operator, which `trimaran cluster remove` says: an empty replica
must not be started with a configuration that names only nodes that were removed and wiped. One that names the members
as they are, as it should, always has a living one among them. A node that joins a cluster is safe in the same way: it
names the members and itself, and founds nothing as long as one of them remembers.

A cluster of one is founded by itself at once.

A replica whose store was set aside because it was damaged (`cluster.repair`) is *lost*: like an unborn one that knows
that its cluster was founded. So it never founds, and nobody does while it is there: should all replicas lose their
stores, they wait for an operator (`cluster.recovery`), and do not begin as an empty cluster.

    meta "born" = absent: unborn | "0": founder | "1": born | "2": lost
"""

from __future__ import annotations

from collections.abc import Set

from storage.state import Store

_FOUNDER = b"0"
_BORN = b"1"
_LOST = b"2"


def lose(store: Store) -> None:
    """The store is new because a damaged one was set aside. Needs its open transaction."""
    store.set_meta("born", _LOST)


def is_trusted(store: Store) -> bool:
    """Whether the replica of this store remembers everything it has promised, by what the store says of itself."""
    return store.meta("born") in (_FOUNDER, _BORN)


def vouch(store: Store) -> None:
    """An operator takes the word of the replica of this store for good. Needs its open transaction."""
    store.set_meta("born", _BORN)


class Standing:
    """This replica's standing, and what it knows of its peers'. Changes need the store's open transaction."""

    def __init__(self, store: Store, others: Set[str]) -> None:
        """`others` are the nodes besides this one that the cluster is founded with, if it is new."""
        self._store = store
        self._others = others
        self._value = store.meta("born")
        self._unborn_peers: set[str] = set()
        # Entries of a leader, or a peer that has some: the cluster was founded long ago.
        self._is_founded = store.last_index > 1 or self.is_lost
        if self._is_founded:
            self.appended()  # by a snapshot

    @property
    def born(self) -> bool:
        """What this replica tells its peers when it connects: whether it knows that the cluster was founded."""
        return self._value in (_BORN, _LOST)

    @property
    def is_lost(self) -> bool:
        """Whether this replica's store was set aside, and no leader has vouched for it since."""
        return self._value == _LOST

    @property
    def counts(self) -> bool:
        """Whether this replica remembers everything it has promised."""
        return self._value in (_FOUNDER, _BORN)

    def may_vote(self) -> bool:
        """Whether this replica may vote or campaign now."""
        if self.counts:
            return True
        return not self._is_founded and self._others <= self._unborn_peers

    def connected(self, node: str, born: bool) -> None:
        """A peer says what it is."""
        self._is_founded |= born
        if born:
            self._unborn_peers.discard(node)
        else:
            self._unborn_peers.add(node)

    def disconnected(self, node: str) -> None:
        """A peer cannot be asked any more."""
        self._unborn_peers.discard(node)

    def promise(self) -> None:
        """This replica votes: it is a founder at least."""
        if self._value is None:
            self._set(_FOUNDER)

    def appended(self) -> None:
        """An entry of a leader is in the journal: a founder is born."""
        self._is_founded = True
        if self._value == _FOUNDER:
            self._set(_BORN)

    def welcomed(self) -> None:
        """The leader vouches for this replica."""
        self._set(_BORN)

    def _set(self, value: bytes) -> None:
        self._value = value
        self._store.set_meta("born", value)
