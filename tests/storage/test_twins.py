"""Both stores step by step through the same life, crashes and copies included: they look the same all the way."""

from __future__ import annotations

from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from storage.record_keys import entry_key
from tests.storage.harness import KINDS, Place, dump, finished, install, quick_directory, set_applied, whole

KEYS = st.sampled_from([b"a", b"a\x00", b"a\x00\xff", b"a\xff", b"b", b"b" * 400, b"\xff", b"\xff\xff"])
PARTS = st.sampled_from([b"", b"a", b"a\x00", b"a\xff", b"b", b"bb", b"e", b"\xff", b"\xff\xff\xff"])
VALUES = st.binary(max_size=6) | st.just(b"x" * 5000)
WIDE = st.integers(0, 30)


class Twins(RuleBasedStateMachine):
    """Writes of one transaction gather until `commit`; `crash` may come at any time.

    As in a replica, only entries up to the applied one hold messages, are compacted, or are copied, and only those
    after it are truncated.
    """

    @initialize()
    def begin_life(self) -> None:
        self.temporary = quick_directory()
        self.places = [Place(kind, Path(self.temporary.name) / kind) for kind in KINDS]
        self.copy: tuple[tuple[int, int], list[list[tuple[int, bytes]]]] | None = None
        for place in self.places:
            place.store.begin()
            place.store.append(1, 0, b"first")
            set_applied(place.store, 1, 0)
            place.store.commit()
        self.term = 1
        self.settle()
        self.begin()

    def teardown(self) -> None:
        for place in getattr(self, "places", []):
            place.close()
        if hasattr(self, "temporary"):
            self.temporary.cleanup()

    @property
    def memory(self):
        return self.places[0].store

    def settle(self) -> None:
        """Look where the stores stand after a commit, a crash or an install."""
        self.applied = int.from_bytes(self.memory.meta("applied")[:8], "little")

    def begin(self) -> None:
        for place in self.places:
            place.store.begin()

    def both(self, name: str, *arguments: object) -> object:
        """Call both stores; they answer alike."""
        answers = [getattr(place.store, name)(*arguments) for place in self.places]
        assert answers[0] == answers[1], (name, arguments)
        return answers[0]

    # --- the map ---

    @rule(key=KEYS, value=VALUES)
    def put(self, key: bytes, value: bytes) -> None:
        self.both("put", key, value)
        self.both("get", key)

    @rule(key=KEYS)
    def delete(self, key: bytes) -> None:
        self.both("delete", key)
        self.both("get", key)

    @rule(prefix=PARTS, rest=PARTS)
    def look(self, prefix: bytes, rest: bytes) -> None:
        self.both("first", prefix, rest)
        self.both("floor", prefix, rest)
        for one, other in zip(*(place.store.scan(prefix, rest) for place in self.places), strict=True):
            assert one == other

    # --- the journal ---

    @rule(payload=VALUES, next_term=st.booleans())
    def append(self, payload: bytes, next_term: bool) -> None:
        self.term += next_term
        self.both("append", self.memory.last_index + 1, self.term, payload)

    @rule(above=WIDE)
    def truncate(self, above: int) -> None:
        self.both("truncate", self.applied + 1 + above)

    @precondition(lambda self: self.applied < self.memory.last_index)
    @rule(live=st.booleans())
    def apply(self, live: bool) -> None:
        self.applied += 1
        for place in self.places:
            set_applied(place.store, self.applied, place.store.logged(self.applied).term)
        if live:
            self.both("put", entry_key(self.applied), b"\0\0\0\1")

    @rule(index=WIDE)
    def release(self, index: int) -> None:
        if self.memory.get(entry_key(index)) is not None:
            self.both("delete", entry_key(index))
            self.both("release", index)

    @rule(index=WIDE, steps_max=st.integers(0, 5))
    def compact(self, index: int, steps_max: int) -> None:
        self.both("compact", min(index, self.applied), steps_max)

    @rule(name=st.sampled_from(["hard", "born"]), value=VALUES)
    def set_meta(self, name: str, value: bytes) -> None:
        self.both("set_meta", name, value)
        self.both("meta", name)

    # --- transactions and copies ---

    @rule()
    def commit(self) -> None:
        self.both("commit")
        self.same()
        self.begin()

    @rule()
    def crash(self) -> None:
        for place in self.places:
            place.reopen()
        self.settle()
        self.same()
        self.begin()

    @rule()
    def take_copy(self) -> None:
        copies = [finished(place.store.start_copy()) for place in self.places]
        assert copies[0].applied == copies[1].applied
        self.copy = (copies[0].applied, [whole(copy) for copy in copies])
        for copy in copies:
            copy.close()

    @precondition(lambda self: self.copy is not None)
    @rule(stale=st.booleans())
    def install(self, stale: bool) -> None:
        """A copy of any age, right or said to be of another moment."""
        applied, pieces = self.copy
        self.both("commit")
        for place, own in zip(self.places, pieces, strict=True):
            try:
                install(place.store, own, (applied[0], applied[1] + stale))
            except ValueError:
                assert stale
            else:
                assert not stale
                place.reopen()
        self.settle()
        self.same()
        self.begin()

    # --- what holds ---

    def same(self) -> None:
        seen = [dump(place.store) for place in self.places]
        assert seen[0] == seen[1]

    @invariant()
    def bounds_are_the_same(self) -> None:
        if hasattr(self, "places"):
            first, last = self.memory.first_index, self.memory.last_index
            assert (first, last) == (self.places[1].store.first_index, self.places[1].store.last_index)
            assert 1 <= first <= last, "the last entry is always there"


TestTwins = Twins.TestCase
TestTwins.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
