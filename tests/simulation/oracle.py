"""Whoever knows what must be true: watches every write, every entry applied, every tick, and every answer.

Checked of the consensus, at every step: one leader per term; logs match (an entry of an index and a term is the same
everywhere, and so is what precedes it); committed entries never change, and every later leader has them; a commit index
never goes back nor beyond the log; states are the same after the same entry; a copy that is taken in is newer than what
it replaces and leaves what is held after it, and who has taken it finds the rest in the leader's journal.
Checked of the rules, at every entry: outcomes are those of the naive model (`tests.storage.naive`), fed once.
Checked of answers: see `tests.simulation.history`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from cluster.client import Reply
from cluster.leadership import Leadership
from cluster.replica import Replica
from storage import limits, machine, queries, record_keys, sieves
from storage.block import parts
from storage.operations import (
    Change,
    Operation,
    Outcome,
    Pulse,
    Pulsed,
    Received,
    Send,
    Sent,
    decode_outcome,
)
from storage.records import Queue
from storage.sift_operations import Sift
from storage.state import StorageFailure
from tests.simulation.cluster_time import ClusterTime
from tests.simulation.disk import DiskStore, Watch, applied_in
from tests.simulation.rooms import Rooms
from tests.simulation.sieves import ON, SIEVES
from tests.storage import naive
from tests.storage.naive import Body, Naive, has_effect


class Violation(BaseException):
    """A promise was broken. `check` names it."""

    def __init__(self, check: str, detail: str) -> None:
        super().__init__(f"{check}: {detail}")
        self.check, self.detail = check, detail


Counts = tuple[int, int, int, int, int]


class Oracle(Watch):
    """What is known of the whole run."""

    def __init__(self) -> None:
        self.halt: Callable[[], object] = lambda: None
        self.trouble: BaseException | None = None
        self.leaders: dict[int, str] = {}
        self.entries: dict[tuple[int, int], tuple[int, int]] = {}
        self.committed: dict[int, tuple[int, int]] = {}
        self.committed_in: dict[int, int] = {}
        self.states: dict[int, int] = {}
        self.model = Naive(limits.QUEUES_MAX, limits.KEYS_MAX, limits.RECEIVE_BYTES_MAX)
        self.model.sifting.sieves = {ON + text: partial(_wants, text) for text in SIEVES}
        self.looks: dict[tuple[int, int], int] = {}
        """Proposed entry and term → what its leader had applied by then."""
        self.numbered: dict[int, naive.Queue] = {}
        """Queues that consumers ask with filters, by the rules' numbers."""
        self.applied_index = 0
        self.effects: dict[tuple[int, int], tuple[int, bytes]] = {}
        self.denials: set[tuple[int, int]] = set()
        self.seen_index = 0
        """The last entry whose effect some client knows of."""
        self.counts: dict[str, list[tuple[int, Counts | None]]] = {}
        self.sends: dict[bytes, tuple[str, Sent]] = {}
        self.totals: dict[str, int] = {}
        self.time = ClusterTime(self.violate)
        self._seen: dict[Replica, list[int]] = {}
        self._rooms = Rooms(self.violate)

    def violate(self, check: str, detail: str) -> None:
        """A promise was broken: the run ends here."""
        violation = Violation(check, detail)
        if self.trouble is None:
            self.trouble = violation
        self.halt()
        raise violation

    def count(self, what: str, number: int = 1) -> None:
        self.totals[what] = self.totals.get(what, 0) + number

    # --- processes ----------------------------------------------------------------------------------------------------

    def process_ended(self, where: Any, name: str, cause: BaseException) -> None:
        error = getattr(cause, "error", None)
        if error is not None and not (isinstance(error, StorageFailure) and where.disk.is_troubled):
            self.violate("no process fails", f"{name}: {cause}")

    # --- the consensus ------------------------------------------------------------------------------------------------

    def appended(self, index: int, term: int, payload: bytes, term_before: int) -> None:
        entry = (hash(payload), term_before)
        known = self.entries.setdefault((index, term), entry)
        if known != entry:
            self.violate("logs match", f"there are two entries {index} of term {term}")

    def copied(self, store: DiskStore, index: int) -> None:
        self.count("copies begun")
        first_index = store.first_index
        if first_index > index:
            self.violate(
                "what follows a copy is there", f"{store.name} copies up to {index}, and begins at {first_index}"
            )

    def installed(self, store: DiskStore, journal: dict[int, tuple[int, bytes]], applied_index: int) -> None:
        self.count("copies installed")
        index, term = applied_in(store._meta.values)
        if index < applied_index:
            self.violate("a copy is newer", f"{store.name} had applied {applied_index}, and takes a copy up to {index}")
        if index in journal and journal[index][0] == term:  # what is held after it may have been acknowledged
            later = {each for each in journal if each > index}
            lost = later - store._journal.values.keys()
            if lost:
                where = f"{store.name} loses {min(lost)} to {max(lost)}"
                self.violate("what is held is kept", f"{where} by a copy up to {index}")

    def began(self, replica: Replica) -> None:
        self._seen = {other: seen for other, seen in self._seen.items() if other.name != replica.name}
        self._seen[replica] = [replica.engine.commit_index, 0]
        self.time.began(replica)

    def ticked(self, replica: Replica) -> None:
        """A replica has done all there was to do, and made it durable."""
        engine, seen = replica.engine, self._seen[replica]
        commit_index = engine.commit_index
        if engine.is_leader and seen[1] != engine.term:
            seen[1] = engine.term
            self._elected(replica, engine.term)
        self._rooms.ticked(replica, self._has_room)
        if commit_index == seen[0]:
            return
        if commit_index < seen[0]:
            self.violate("a commit is final", f"{replica.name} goes back from {seen[0]} to {commit_index}")
        if commit_index > engine.last_index:
            self.violate("a commit is final", f"{replica.name} has committed {commit_index} of {engine.last_index}")
        store: Any = replica._store
        for index in range(seen[0] + 1, commit_index + 1):
            found = store._journal.values.get(index)
            if found is None:
                if index >= store.first_index:
                    self.violate("a commit is final", f"{replica.name} committed entry {index}, but lacks it")
                continue
            entry = (found[0], hash(found[1]))
            if self.committed.setdefault(index, entry) != entry:
                self.violate(
                    "committed entries never change",
                    f"{replica.name} has committed entry {index} of term {found[0]}, but it was one of term "
                    f"{self.committed[index][0]}",
                )
            self.committed_in.setdefault(index, engine.term)
        seen[0] = commit_index

    def _has_room(self, name: str) -> bool:
        stores: list[Any] = [replica._store for replica in self._seen if replica.name == name]
        return all(store._disk.room_bytes is None for store in stores)

    def _elected(self, replica: Replica, term: int) -> None:
        self.count("elections")
        name = self.leaders.setdefault(term, replica.name)
        if name != replica.name:
            self.violate("one leader per term", f"{name} and {replica.name} both lead in term {term}")
        store: Any = replica._store
        for index in range(store.first_index, max(self.committed, default=0) + 1):
            if index in self.committed and self.committed_in[index] < term:
                found = store._journal.values.get(index)
                if found is None or (found[0], hash(found[1])) != self.committed[index]:
                    self.violate(
                        "leaders have what is committed",
                        f"{replica.name} leads in term {term} without entry {index}, committed in term "
                        f"{self.committed_in[index]}",
                    )

    # --- the rules ----------------------------------------------------------------------------------------------------

    def applied(self, store: DiskStore, index: int, entry: bytes, turned: machine.Turned) -> None:
        """A replica has applied an entry: the first to do so feeds the model, all others must agree."""
        digest = self.states.get(index)
        if digest is not None:
            if digest != store.digest:
                self.violate("states are the same", f"{store.name} is in another state after entry {index}")
            return
        if index <= self.applied_index:
            self.violate("states are the same", f"{store.name} applies entry {index}, which was none when others did")
        self.states[index] = store.digest
        self.applied_index = index
        self.count("entries")
        model = self.model
        model.now_ms = max(model.now_ms, int.from_bytes(entry[1:9], "little"))
        model.sifting.index = index
        names = set()
        for applied in turned.applied:
            item, outcome, encoded = applied.item, applied.outcome, applied.encoded
            operation = item.operation
            if isinstance(operation, Pulse):
                assert isinstance(outcome, Pulsed)
                if outcome.steps < operation.steps_max:
                    model.all_that_is_due()
                names.update(model.queues)
                continue
            if isinstance(operation, Sift):
                look_index = self.looks[index, store._journal.values[index][0]]
                model.sifting.look_back(self.numbered.get(operation.number), operation, look_index)
                self.count("steps of sifting")
            inner: Any = getattr(operation, "operation", operation)
            bodies: list[Body] = []
            if isinstance(inner, Send):
                bodies = [(bytes(part.body), bytes(part.properties)) for part in parts(item.block, inner.count)]
            right = model.once(item.session, item.seq, operation, bodies, outcome)
            if right != outcome:
                self.violate("outcomes follow the rules", f"{operation} at entry {index} gave {outcome}, not {right}")
            name = getattr(inner, "queue", None)
            if name is None:
                continue
            self.count("operations")
            names.add(name)
            if has_effect(outcome):
                self._has_effect(index, (item.session, item.seq), encoded)
            if isinstance(inner, Send) and isinstance(outcome, Sent):
                known = self.sends.setdefault(bodies[0][0], (inner.queue, outcome))
                # A cluster whose clock began behind, by a wrong wall clock, and was put right has forgotten its keys.
                is_remembered = outcome.at_ms - known[1].at_ms < limits.KEY_WINDOW_MS
                if known != (inner.queue, outcome) and is_remembered:
                    self.violate("retried means once", f"{bodies[0][0]!r} was sent as {known} and as {outcome}")
        self._count_queues(store, index, names)

    def _has_effect(self, index: int, call: tuple[int, int], encoded: bytes) -> None:
        if call in self.denials:
            self.violate("what was not done is never done", f"operation {call} took effect at entry {index}")
        known = self.effects.setdefault(call, (index, encoded))
        if known[1] != encoded:
            self.violate("retried means once", f"operation {call} took effect at entries {known[0]} and {index}")

    def _count_queues(self, store: DiskStore, index: int, names: set[str]) -> None:
        for name in names:
            found = queries.find_queue(store, name)
            counts = None if found is None else (found.ready, found.leased, found.delayed, found.dead, found.bytes)
            history = self.counts.setdefault(name, [(0, None)])
            if history[-1][1] != counts:
                history.append((index, counts))
            if found is not None:
                self._tell_selectors(store, name, found)
            if index % 8 == 0:
                self.check_counts(name, counts)

    def _tell_selectors(self, store: DiskStore, name: str, record: Queue) -> None:
        """A queue's selectors are the model's, which learns their numbers here."""
        queue = self.model.queues.get(name)
        if queue is None or not (record.selectors or queue.selectors):
            return
        told = []
        for selector in record.selectors:
            sieve = sieves.decode_sieve(store.get(sieves.sieve_key(record.number, selector.number)) or b"")
            told.append((f"{sieve.filter_on} {sieve.filter}", selector.used_ms))
        right = [(each.sieve, each.used_ms) for each in queue.selectors]
        if told != right:
            self.violate("selectors are known", f"those of queue {name} are {told}, not {right}")
        for selector, mine in zip(record.selectors, queue.selectors, strict=True):
            mine.number = selector.number
        self.numbered[record.number] = queue

    def check_counts(self, name: str, counts: Counts | None) -> None:
        """A queue's counts are exactly the model's."""
        queue = self.model.queues.get(name)
        right = None
        if queue is not None:
            states = [message.state for message in queue.messages]
            held = sum(message.bytes for message in queue.messages)
            right = (*(states.count(state) for state in ("ready", "leased", "delayed", "dead")), held)
        if right != counts:
            self.violate(
                "counts are exact", f"queue {name} has {counts} (ready, leased, delayed, dead, bytes), not {right}"
            )

    # --- answers ------------------------------------------------------------------------------------------------------

    def answered(self, session: int, seq: int, operation: Operation, reply: Reply) -> None:
        """A gateway has the answer to an operation: what it says must have happened, and stay."""
        known = self.effects.get((session, seq))
        outcome: Outcome = reply.outcome
        if not has_effect(outcome) or not isinstance(operation, Change):
            return
        if known is None:
            self.violate("acked means kept", f"{operation} was answered by {outcome}, but is in no log")
            return
        index, encoded = known
        right = decode_outcome(encoded)
        if isinstance(outcome, Received) and isinstance(right, Received):
            held = {message_id for each in right.deliveries for message_id in _ids(each)}
            if outcome.token != right.token or not {i for each in outcome.deliveries for i in _ids(each)} <= held:
                self.violate("answers are what happened", f"{operation} was answered by {outcome}, not {right}")
        elif right != outcome:
            self.violate("answers are what happened", f"{operation} was answered by {outcome}, not {right}")
        self.seen_index = max(self.seen_index, index)

    def denied(self, session: int, seq: int) -> None:
        """A gateway has said that an operation was not done and never will be."""
        self.denials.add((session, seq))
        if (session, seq) in self.effects:
            self.violate("what was not done is never done", f"operation {(session, seq)} had taken effect")

    def read_counts(self, name: str, asked_index: int, counts: Counts | None) -> None:
        """A query was answered: by a state that held at some moment since it was asked."""
        history = self.counts.get(name, [(0, None)])
        self.count("reads")
        fitting = [
            max(begin, asked_index)
            for position, (begin, then) in enumerate(history)
            if then == counts
            and (history[position + 1][0] - 1 if position + 1 < len(history) else self.applied_index) >= asked_index
        ]
        if not fitting:
            self.violate(
                "reads are linearizable",
                f"queue {name} was said to have {counts}, which it had at no moment since entry {asked_index}: "
                f"{[h for h in history if h[0] >= asked_index] or history[-1]}",
            )
        self.seen_index = max(self.seen_index, min(fitting))


def _ids(delivery: Any) -> range:
    return range(delivery.message_id, delivery.message_id + delivery.count)


def _wants(text: str, message: naive.Message) -> bool:
    return SIEVES[text](message.content[1])


class Watched(Replica):
    """A replica whose ticks the oracle sees."""

    def __init__(self, oracle: Oracle, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.oracle, self._observe = oracle, self.engine._observe
        self.engine._observe = self._told

    def _told(self, stamp_ms: int) -> None:
        self.oracle.time.told(self, stamp_ms)
        self._observe(stamp_ms)

    def _lead(self, leadership: Leadership, now_s: float) -> None:
        engine, before_index = self.engine, self.engine.last_index
        super()._lead(leadership, now_s)
        for index in range(before_index + 1, engine.last_index + 1):
            self.oracle.looks[index, engine.term] = engine.applied_index

    def tick(self) -> None:
        super().tick()
        self.oracle.ticked(self)
        if self.engine.is_leader and self.clock.anchored:
            self.oracle.time.stamped(self, self.clock.now_ms())


def check_shape(store: DiskStore, model: Naive) -> None:
    """What the model tests of the rules check, too (`tests.storage.life`)."""
    from tests.storage.life import check_records, check_selected

    if store.get(record_keys.SHARD_KEY):
        check_records(store)
        for name in model.queues:
            check_selected(store, name, model)
