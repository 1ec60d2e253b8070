"""The scrub: what lies on the disks is read again, and the replicas' states are compared, before anybody needs them.

A *pass* reads everything once. It begins every `interval_ms`, or when somebody asks, and keeps to a pace.

* *The state*, span by span. The leader puts a *mark* into the log: an entry that says at which key a span begins. A
  replica that applies a mark ends its tick there, so that what it commits next is the state at exactly this index, and
  sweeps the span as of that commit beside its further ticks. So every replica digests the same span of the same state,
  whenever it comes to it, whatever is written meanwhile, and however large the whole is. It tells its digest to all
  others; the leader puts the next mark where its own span ended.
* *The journal*, and the replica's own values: by each replica on its own, at the pass's first mark.

A bad checksum damages the replica that finds it. Of digests, that of a majority of the voters is right: whoever has
another one knows by itself that it is the one to be repaired (`cluster.repair`). As long as there is no majority nobody
is, and every replica says that they differ.

    mark entry     = kind u8 | pass_ms u64 | key            pass_ms: the cluster time at which the pass began
    meta "scrub"   = pass_ms u64 | key                      the last mark applied: where another leader goes on
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

import structlog

from cluster.journal import MARK_KIND
from cluster.messages import Digest, Message
from cluster.wire import ScrubReport
from storage.beside import Pace
from storage.migrations import FORMAT
from storage.state import DamageError, Store, Sweep
from storage.sweeps import Span, Swept

SPAN_RECORDS = 20_000
"""Records of a span: they are read in a third of a second, for so long no page of that commit is used again."""

SHARE = 0.1
"""Of the time of one core that a scrub may take."""

PATIENCE_S = 10.0
"""How long the next mark waits for replicas that have not told their digest; and how long digests may differ before
it is said that there is no majority."""

DIGESTS_KEPT = 8
"""Marks of which the digests are remembered, and as many disputed ones: replicas may be so many spans apart."""

_MARK = struct.Struct("<BQ")
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ScrubSettings:
    """`interval_ms`: from the beginning of a pass to that of the next, 0 for none; `bytes_per_s` at most are read."""

    interval_ms: int = 0
    bytes_per_s: int = 16 * 1024 * 1024


@dataclass(slots=True)
class Tally:
    """What has been scrubbed, found and repaired since the process began, through however many replicas in turn.

    `began_ms` and `ended_ms`: cluster times of the last pass that has ended here, 0 for none.
    """

    bytes: int = 0
    passes: int = 0
    began_ms: int = 0
    ended_ms: int = 0
    damages: int = 0
    repairs: int = 0

    def report(self, disagreement: str | None, ailing: dict[str, str]) -> ScrubReport:
        """It, as gateways are told."""
        return ScrubReport(
            self.bytes,
            self.passes,
            self.began_ms,
            self.ended_ms,
            self.damages,
            self.repairs,
            disagreement,
            ailing,
        )


class _Mark(NamedTuple):
    pass_ms: int
    start: bytes

    def encode(self) -> bytes:
        return _MARK.pack(MARK_KIND, self.pass_ms) + self.start


def _decode(payload: bytes) -> _Mark:
    return _Mark(_MARK.unpack_from(payload)[1], bytes(payload[_MARK.size :]))


@dataclass(slots=True)
class _Votes:
    """Who has which digest of the span that a mark asked for, in which pass."""

    since_s: float
    pass_ms: int
    digests: dict[str, bytes] = field(default_factory=dict)
    is_told: bool = False

    @property
    def is_disputed(self) -> bool:
        return len(set(self.digests.values())) > 1


class Scrub:
    """One replica's part in the scrub."""

    def __init__(
        self,
        name: str,
        store: Store,
        settings: ScrubSettings,
        tally: Tally,
        *,
        voters: Callable[[], Iterable[str]],
        connected: Callable[[], Iterable[str]],
        ailing: Callable[[], Iterable[str]],
        tell: Callable[[str, Message], None],
        term: Callable[[], int],
    ) -> None:
        """`tell(node, message)` sends; `voters` count, `connected` can be told, of the `ailing` nothing is expected."""
        self._name, self._store, self._settings, self.tally = name, store, settings, tally
        self._voters, self._connected, self._ailing = voters, connected, ailing
        self._tell, self._term = tell, term
        self._pace = Pace(settings.bytes_per_s, SHARE)
        found = store.meta("scrub")
        self._mark = _decode(found) if found is not None else None
        self._mark_index = 0
        self._marked_s = -inf
        self._is_new = False
        self._sweep: Sweep | None = None
        self._swept_mark = (0, 0)
        self._swept: Swept | None = None
        self._check: Sweep | None = None
        self._check_ms = -1
        self._checked_ms = -1
        self._votes: dict[int, _Votes] = {}
        self._awaited_index = 0
        self._is_asked = False
        self.damage: str | None = None
        """What is wrong with this replica's store, once it is known."""
        self.disagreement: str | None = None
        """That the replicas' states differ and no majority agrees, or None."""

    # --- on every replica ---------------------------------------------------------------------------------------------

    def marked(self, index: int, payload: bytes) -> None:
        """A mark is applied: nothing else is in this transaction."""
        self._store.set_meta("scrub", payload)
        self._mark, self._mark_index, self._swept = _decode(payload), index, None
        self._is_new = True
        if index >= self._awaited_index:
            self._awaited_index = 0

    def committed(self, now_ms: int, now_s: float) -> None:
        """The tick's transaction is durable: begin what a mark has asked for, and see to what is done."""
        if self.damage is not None:
            return
        if self._is_new:
            self._is_new = False
            self._begin(now_s)
        try:
            self._see_to_sweep(now_s)
            self._see_to_check()
        except DamageError as error:
            self.damage = str(error)
            return
        self._judge(now_s)
        self._see_to_pass(now_ms)

    def _begin(self, now_s: float) -> None:
        assert self._mark is not None
        self._marked_s = now_s
        if self._sweep is None:
            self._sweep = self._store.start_sweep(Span(self._mark.start, SPAN_RECORDS), self._pace)
            self._swept_mark = (self._mark_index, self._mark.pass_ms)

    @property
    def is_reading(self) -> bool:
        """Whether something is read beside the ticks, of which the next tick may hear the end."""
        return self._sweep is not None or self._check is not None

    def check(self) -> None:
        """Read the journal again now, beside whatever pass there is."""
        if self._check is None:
            self._check, self._check_ms = self._store.start_check(self._pace), -1

    def _see_to_sweep(self, now_s: float) -> None:
        if self._sweep is None or not self._sweep.ready:
            return
        swept, self._sweep = self._sweep.result, None
        index, pass_ms = self._swept_mark
        self.tally.bytes += swept.bytes
        if index == self._mark_index:
            self._swept = swept
        self._vote(index, pass_ms, self._name, swept.digest, now_s)
        for node in self._connected() if index in self._votes else ():  # else it is too old for anybody
            self._tell_digest(node, index)

    def _see_to_check(self) -> None:
        if self._check is not None and self._check.ready:
            self.tally.bytes += self._check.result.bytes
            self._check, self._checked_ms = None, self._check_ms
        if self._check is None and self._mark is not None and self._mark_index and self._check_ms != self._mark.pass_ms:
            self._check, self._check_ms = self._store.start_check(self._pace), self._mark.pass_ms

    def _see_to_pass(self, now_ms: int) -> None:
        """A pass has ended here when both the last span and the journal have been read."""
        mark, swept = self._mark, self._swept
        if mark is None or swept is None or swept.next_key or self._checked_ms != mark.pass_ms:
            return
        if self.tally.began_ms != mark.pass_ms:
            self.tally.began_ms, self.tally.ended_ms = mark.pass_ms, now_ms
            self.tally.passes += 1
            _log.info("scrub ended", took_ms=now_ms - mark.pass_ms)
            # What the last pass could not decide was looked at again in this one.
            self._votes = {index: votes for index, votes in self._votes.items() if votes.pass_ms >= mark.pass_ms}

    # --- digests ------------------------------------------------------------------------------------------------------

    def connected(self, node: str) -> None:
        """`node` may not have heard what was told before."""
        for index, votes in self._votes.items():
            if self._name in votes.digests:
                self._tell_digest(node, index)

    def heard(self, node: str, message: Digest, now_s: float) -> None:
        """A replica tells its digest."""
        if message.format == FORMAT:
            self._vote(message.index, message.pass_ms, node, message.digest, now_s)

    def _tell_digest(self, node: str, index: int) -> None:
        votes = self._votes[index]
        self._tell(node, Digest(self._term(), index, votes.pass_ms, FORMAT, votes.digests[self._name]))

    def _vote(self, index: int, pass_ms: int, node: str, digest: bytes, now_s: float) -> None:
        if index not in self._votes:
            self._votes[index] = _Votes(now_s, pass_ms)
        self._votes[index].digests[node] = digest
        for is_disputed in (False, True):
            known = sorted(index for index, votes in self._votes.items() if votes.is_disputed == is_disputed)
            for old in known[:-DIGESTS_KEPT]:
                del self._votes[old]

    def _judge(self, now_s: float) -> None:
        disputed = [(index, votes) for index, votes in self._votes.items() if votes.is_disputed]
        if not disputed:
            self.disagreement = None
            return
        voters = set(self._voters())
        disagreement = None
        for index, votes in disputed:
            counts = Counter(digest for node, digest in votes.digests.items() if node in voters)
            digest, count = counts.most_common(1)[0] if counts else (b"", 0)
            if 2 * count > len(voters):
                self._tell_apart(index, votes, digest)
            elif now_s - votes.since_s > PATIENCE_S or self.disagreement is not None:
                said = ", ".join(f"{node}: {found.hex()}" for node, found in sorted(votes.digests.items()))
                disagreement = f"the replicas' states differ at entry {index}, and no majority agrees ({said})"
        if disagreement is not None and disagreement != self.disagreement:
            _log.error("the replicas differ", cause=disagreement)
        self.disagreement = disagreement

    def _tell_apart(self, index: int, votes: _Votes, digest: bytes) -> None:
        """A majority has `digest`."""
        own = votes.digests.get(self._name)
        if own is not None and own != digest:
            self.damage = f"the state differs from that of a majority at entry {index}"
        elif not votes.is_told:
            votes.is_told = True
            others = sorted(node for node, found in votes.digests.items() if found != digest)
            _log.error("other replicas differ from the majority", nodes=others, index=index)

    # --- on the leader ------------------------------------------------------------------------------------------------

    def ask(self) -> None:
        """Begin a pass as soon as the one under way has ended."""
        self._is_asked = True

    def due(self, now_ms: int, now_s: float) -> bytes | None:
        """The mark to propose now, or None. What is proposed is told by `proposed`."""
        mark, swept = self._mark, self._swept
        if self.damage is not None or self._awaited_index or self._sweep is not None or self._is_new:
            return None
        if mark is None or (swept is not None and not swept.next_key):
            is_due = mark is None or now_ms - mark.pass_ms >= self._settings.interval_ms
            if self._is_asked or (self._settings.interval_ms and is_due):
                return _Mark(now_ms, b"").encode()
            return None
        if swept is None:
            return mark.encode()  # whoever led before has not told where its span ended
        waited_s = now_s - self._marked_s
        if waited_s < swept.bytes / self._settings.bytes_per_s:
            return None
        votes = self._votes.get(self._mark_index)
        told = votes.digests.keys() if votes is not None else set()
        if waited_s < PATIENCE_S and set(self._connected()) & set(self._voters()) - set(self._ailing()) - told:
            return None
        return _Mark(mark.pass_ms, swept.next_key).encode()

    def proposed(self, index: int, payload: bytes) -> None:
        """The mark that was due is the entry `index`."""
        self._awaited_index = index
        if not _decode(payload).start:
            self._is_asked = False

    def stop_leading(self) -> None:
        """Whether what was proposed will be applied is not known."""
        self._awaited_index, self._is_asked = 0, False
