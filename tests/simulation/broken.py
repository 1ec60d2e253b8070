"""Variants of the product that break one rule each, to show that the simulation would notice.

docs/testing.md has the table: what each of them stands for, and after how many seeds it was noticed.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import msgspec

import cluster.clock
import storage.machine
import storage.settling
import storage.sifting
from cluster.client import Client
from cluster.clock import ClusterClock
from cluster.dispatcher import Dispatcher
from cluster.engine import Engine
from cluster.leadership import Leadership
from cluster.messages import Message
from cluster.outbox import Outbox
from cluster.peers import Peers
from cluster.repair import Repair
from cluster.replication import Follower
from cluster.snapshots import Incoming
from cluster.tuning import Tuning
from storage import record_keys, sieves
from storage.limits import ID_END
from storage.memory_store import MemoryStore
from storage.segments import isolate
from storage.state import Logged
from storage.turn import SessionTurn, Turn
from tests.simulation import broken_engines as engines
from tests.simulation.disk import Disk, DiskStore, SlowCopy, WornStore, applied_in
from tests.simulation.oracle import Watched


@dataclass(frozen=True)
class Variant:
    """What is put in the place of what. `patches`: module or class → its names → what they stand for."""

    engine: type[Engine] = Engine
    replica: type[Watched] = Watched
    disk: type[Disk] = Disk
    tuning: Callable[[Tuning], Tuning] = lambda tuning: tuning
    patches: dict[Any, dict[str, Any]] = field(default_factory=dict)


SOUND = Variant()


# --- what is durable, and when ----------------------------------------------------------------------------------------


def _send_early(outbox: Outbox, node: str, message: Message) -> None:
    """Acknowledgements and votes leave before the commit."""
    outbox._post(node, message)


class UnsyncedDisk(Disk):
    """A disk whose commits are durable only now and then."""

    COMMITS = 5

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._commits, self._synced = 0, None

    def committed(self) -> None:
        self._commits += 1
        if self._commits % self.COMMITS == 0 and self.store is not None:
            self._synced = self.store._committed()

    def lose_power(self) -> None:
        self._rest = self._synced

    def wipe(self) -> None:
        super().wipe()
        self._synced = None

    def set_aside(self) -> None:
        super().set_aside()
        self._synced = None


class TornDisk(Disk):
    """A disk that keeps the state of an open transaction, and loses up to where the log was applied."""

    def stop(self) -> None:
        store = self.store
        super().stop()
        if store is not None and store._writing:
            self._rest.state = dict(store._state.values)


def _entry_unchecked(store: WornStore, index: int) -> memoryview:
    payload = bytes(DiskStore.entry(store, index))
    return memoryview(_flipped(payload) if index in store._disk.flipped else payload)


def _logged_unchecked(store: WornStore, index: int) -> Logged | None:
    found = DiskStore.logged(store, index)
    if found is None or index not in store._disk.flipped:
        return found
    return Logged(index, found.term, _flipped(found.payload))


def _flipped(payload: bytes) -> bytes:
    return payload[:-1] + bytes([payload[-1] ^ 1])


def _copy_of_later(store: DiskStore) -> SlowCopy:
    """A copy of the last commit that says it has what is applied since."""
    copy = SlowCopy(store, store._committed())
    copy._applied = applied_in(store._meta.values)
    return copy


_replace = MemoryStore._replace
_take, _step = Incoming.take, Incoming.step


def _replace_all(store: MemoryStore, copy: Any, applied: tuple[int, int]) -> None:
    """The journal after what a snapshot holds goes with the old store."""
    store._journal.values = {index: entry for index, entry in store._journal.values.items() if index <= applied[0]}
    _replace(store, copy, applied)


# --- connections and leadership ---------------------------------------------------------------------------------------

_accepted = Peers.accepted


def _accept_beside(peers: Peers, node: str, connection: Any) -> None:
    """A connection does not end the one before it."""
    peers._inbound.pop(node, None)
    _accepted(peers, node, connection)


def _refused_by_one(follower: Follower, prev_index: int, next_index: int) -> None:
    """A refusal moves back by one entry, whichever message it answers."""
    follower._probe(max(1, follower.next_index - 1))
    follower.probing = False


# --- rules above the log ----------------------------------------------------------------------------------------------

_settle_chunk = storage.settling._settle_chunk


def _settle_anybodys(turn: Any, queue: Any, operation: Any, claim: Any, chunk_id: int, chunk: Any, *span: int) -> Any:
    """Who held a message once may settle it, whoever holds it now."""
    for segment in isolate(list(chunk.segments), span[0] - chunk_id, span[1] - chunk_id):
        if segment.token:
            claim = msgspec.structs.replace(claim, token=segment.token)
    return _settle_chunk(turn, queue, operation, claim, chunk_id, chunk, *span)


# --- filters of consumers ---------------------------------------------------------------------------------------------

_sift, _select = storage.sifting.sift, storage.sifting._select


def _select_what_was(turn: Turn, queue: Any, sifted: Any) -> None:
    """What was found out of a message is believed, whatever it was edited to since."""
    for chunk_id, chunk, _, _ in turn.chunks_between(queue, sifted.first_id, sifted.count):
        if chunk is not None and sifted.index and turn.unsifted_since(queue, chunk_id):
            turn.state.put(sieves.unsifted_key(queue.number, chunk_id), record_keys.u64(sifted.index))
    _select(turn, queue, sifted)


def _sift_untold(turn: Turn, operation: Any) -> Any:
    """Nobody who waits is told of what was found out."""
    readier = set(turn.readier)
    outcome = _sift(turn, operation)
    turn.readier.intersection_update(readier)
    return outcome


class SiftsForever(Watched):
    """A leader that loses its office while a step is under way waits for that step when it leads again."""

    is_under_way = False

    def _led(self) -> Leadership | None:
        before, now = self._leadership, super()._led()
        if before is not None and before is not now:
            self.is_under_way |= before._sifting._is_under_way
        if now is not None and before is not now:
            now._sifting._is_under_way = self.is_under_way
        return now


_abandon = Client._abandon


def _abandon_all_alike(client: Client, call: Any) -> None:
    call.is_keyed = False
    _abandon(client, call)


BROKEN: dict[str, Variant] = {
    "truncates": Variant(engine=engines.Truncates),
    "commits-unverified": Variant(engine=engines.CommitsUnverified),
    "drops-the-suffix": Variant(patches={MemoryStore: {"_replace": _replace_all}}),
    "commits-in-parts": Variant(disk=TornDisk),
    "never-syncs": Variant(disk=UnsyncedDisk),
    "releases-early": Variant(patches={Outbox: {"send": _send_early}}),
    "counts-itself-too-soon": Variant(engine=engines.CountsItselfTooSoon),
    "believes-its-journal": Variant(engine=engines.BelievesItsJournal),
    "trusts-old-answers": Variant(engine=engines.TrustsOldAnswers),
    "takes-old-snapshots": Variant(
        patches={
            Incoming: {
                "take": lambda self, piece, commit_index, now_s: _take(self, piece, 0, now_s),
                "step": lambda self, commit_index, now_s: _step(self, 0, now_s),
            }
        }
    ),
    "copies-of-later": Variant(patches={DiskStore: {"start_copy": _copy_of_later}}),
    "hears-old-connections": Variant(
        patches={Peers: {"accepted": _accept_beside, "is_current": lambda self, node, connection: True}}
    ),
    "counts-votes-twice": Variant(engine=engines.CountsVotesTwice),
    "ignores-checksums": Variant(patches={WornStore: {"entry": _entry_unchecked, "logged": _logged_unchecked}}),
    "forgets-that-it-forgot": Variant(engine=engines.ForgetsThatItForgot),
    "welcomes-at-once": Variant(engine=engines.WelcomesAtOnce),
    "spares-itself": Variant(patches={Repair: {"is_spared": True}}),
    "compacts-too-much": Variant(engine=engines.CompactsWhatIsNotDurable),
    "walks-back-by-one": Variant(patches={Follower: {"refused": _refused_by_one}}),
    "asks-nobody-before": Variant(engine=engines.AsksNobodyBefore),
    "answers-alone": Variant(engine=engines.AnswersAlone),
    "answers-too-soon": Variant(engine=engines.AnswersTooSoon),
    "forgets-outcomes": Variant(patches={SessionTurn: {"remembered": lambda self, seq: b""}}),
    "forgets-keys": Variant(
        patches={storage.machine: {"_keyed": lambda turn, keyed, b: storage.machine._do(turn, keyed.operation, b)}}
    ),
    "believes-stale-receipts": Variant(patches={storage.settling: {"_settle_chunk": _settle_anybodys}}),
    "gives-back-under-a-key": Variant(patches={Client: {"_abandon": _abandon_all_alike}}),
    "believes-the-fastest-clock": Variant(
        patches={cluster.clock: {"statistics": SimpleNamespace(**{**vars(statistics), "median_low": max})}}
    ),
    "begins-a-new-time": Variant(
        patches={ClusterClock: {"observe": lambda self, ms: None, "catch_up": lambda self, ms: None}}
    ),
    "believes-old-verdicts": Variant(patches={storage.sifting: {"_select": _select_what_was}}),
    "ignores-what-is-unsifted": Variant(
        patches={storage.sifting: {"end_of_sifted": lambda state, queue, selector: ID_END}}
    ),
    "tells-nobody-of-marks": Variant(patches={storage.machine: {"sift": _sift_untold}}),
    "sifts-for-ever": Variant(replica=SiftsForever),
    "leads-without-room": Variant(patches={Leadership: {"make_way": lambda self, now_s: None}}),
    "wakes-nobody": Variant(patches={Dispatcher: {"wake": lambda self, queue, ready, consumer="", sieve="": []}}),
}
