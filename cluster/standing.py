"""Whether a replica's word counts: the rule that a wiped replica cannot undo what it once promised.

A replica whose disk was replaced comes back under its old name without its votes and acknowledgements. Were its word
to count at once, a second leader could be elected in a term in which it had voted, or a majority be formed without an
entry that it had acknowledged. But in a new cluster every replica is as empty, and somebody has to begin. So:

* An *unborn* replica (empty store) neither votes nor campaigns, and its acknowledgements do not count, except: while
  every other member is connected to it and none of them was born, it may vote. The vote makes it a *founder*, in the
  same transaction: it remembers its promises like anybody else from here on, and its word counts. A founder is *born*
  when it holds the first entry of a leader. So the first election ever needs all members, and no later one does.
* Any other unborn replica is born when a leader welcomes it. The leader does so when, after it first heard the replica
  say that its word does not count, (1) a majority *of others* has answered a message sent since, (2) the replica holds,
  and the others have committed, all that was in the leader's journal at that moment.

Why that is enough. Let W be wiped and welcomed by L in term T. By (1) a majority Q without W was at term ≤ T after the
wipe. A leader of a term above T, elected with W's forgotten vote, would have had the vote of somebody in Q, who would
not have answered L. So W's forgotten votes elected nobody later than L, and what leaders before L committed, with W's
acknowledgement or not, is in L's journal: L's majority shares with theirs a member that is not W. What L itself
committed by W's word is below the mark of (2). A vote that was still under way when W was wiped is spent by the time W
votes again: it waits an election timeout after it was welcomed.

Why a founding does not run beside living data: data is acknowledged when a majority holds it, and whoever holds an
entry and has promised is born. Replicas that were wiped are a minority, so one that was not, and was born before they
came back, is among the members; they must be connected to it to vote, and then they know. A majority of the members
would not do for "every": it may consist of a wiped replica and one that never took part, while the third is away.
And no founding is needed once there was a leader: a majority has voted for it, and its votes count ever after.

A cluster of one is founded by itself at once.

    meta "born" = absent: unborn | "0": founder | "1": born
"""

from __future__ import annotations

from storage.state import Store

_FOUNDER = b"0"
_BORN = b"1"


class Standing:
    """This replica's standing, and what it knows of its peers'. Changes need the store's open transaction."""

    def __init__(self, store: Store, members: int) -> None:
        self._store = store
        self._members = members
        self._value = store.meta("born")
        self._unborn_peers: set[str] = set()
        # Entries of a leader, or a peer that has some: the cluster was founded long ago.
        self._is_founded = store.last_index > 1
        if self._is_founded:
            self.appended()  # by a snapshot

    @property
    def born(self) -> bool:
        """What this replica tells its peers when it connects."""
        return self._value == _BORN

    @property
    def counts(self) -> bool:
        """Whether this replica remembers everything it has promised."""
        return self._value is not None

    def may_vote(self) -> bool:
        """Whether this replica may vote or campaign now."""
        if self.counts:
            return True
        return not self._is_founded and len(self._unborn_peers) + 1 == self._members

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
