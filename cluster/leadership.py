"""What a replica does for gateways while it leads in one term.

    what is asked for → reads wait for a majority, receives for messages, all else for the next entry
    → one entry with all of that, and what is due by the clock → its outcomes go back to those who asked

All of it is made with the term and dropped with it, whatever it still holds: the fate of what was proposed is unknown
here, and the gateways ask the next leader under the same ids.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf

from cluster.changes import Changes
from cluster.clock import ClusterClock
from cluster.dispatcher import Request
from cluster.duties import Duties
from cluster.engine import Engine
from cluster.metrics import ReplicaMetrics
from cluster.occurrences import Occurrences
from cluster.outbox import Outbox
from cluster.reads import Reads
from cluster.receives import Receives
from cluster.room import RELIEF_S, STORE_FULL, Room, adds
from cluster.router import Router
from cluster.sifting import Sifting
from storage import codes, queries
from storage.limits import ENTRY_BYTES_MAX
from storage.machine import Turned
from storage.operations import Forget, Received, Refused, encode_entry, encode_outcome, is_query
from storage.party_operations import PartyList
from storage.reading import find_queue
from storage.state import Store


@dataclass(slots=True)
class _Proposal:
    requests: list[Request | None]
    """Who asked for each of the entry's operations; None: the leader itself."""
    proposed_s: float


class Leadership:
    """See the module. Used within a tick of the leader, but for `take`, which may come between two."""

    def __init__(
        self,
        engine: Engine,
        store: Store,
        clock: ClusterClock,
        outbox: Outbox,
        room: Room,
        *,
        monotonic: Callable[[], float],
        metrics: ReplicaMetrics,
    ) -> None:
        self.term = engine.term
        self._engine, self._store, self._clock = engine, store, clock
        self._outbox, self._room = outbox, room
        self._monotonic, self._metrics = monotonic, metrics
        self._pending: deque[Request] = deque()
        self._forgets: dict[int, bytes | memoryview] = {}
        self._proposals: dict[int, _Proposal] = {}
        self._due_ms = inf
        self._relief_s = monotonic() + RELIEF_S if engine.is_heir else -inf
        """From when on this replica hands over if it has no room."""
        self._router = Router(store, monotonic)
        self._sifting = Sifting(store, monotonic)
        self._duties = Duties(store, Occurrences(store, self._router.targets), self._sifting)
        self._reads = Reads(engine, outbox, monotonic, self._answer)
        self.receives = Receives(store, clock, monotonic, self._sifting)
        self.changes = Changes(engine)

    def take(self, requests: Iterable[Request]) -> None:
        """What a gateway asks for."""
        for request in requests:
            if type(request.operation) is Forget:
                self._forgets[request.session] = request.raw
            elif is_query(request.operation):
                self._reads.ask(request)
            else:
                self._pending.append(request)

    def cancel(self, session: int, seq: int) -> None:
        """A gateway does not wait for this receive any more: if it is not proposed by now, it never will be."""
        if not self.receives.lines.cancel(session, seq):
            self._reads.cancel(session, seq)
            self._pending = deque(r for r in self._pending if (r.session, r.seq) != (session, seq))

    def make_way(self, now_s: float) -> None:
        """Have somebody lead who has room, if this replica has none: what adds then waits instead of being refused."""
        if now_s < self._relief_s or not self._room.is_scarce(now_s):
            return
        heir = self._room.heir(self._engine.membership.voters, self._engine.heirs, now_s)
        if heir is not None:
            self._relief_s = now_s + RELIEF_S
            self._engine.transfer(heir, cause="no_room")

    # --- the entry ----------------------------------------------------------------------------------------------------

    def propose(self, now_s: float) -> None:
        """Put all that can be done now into one entry, with what is due by the clock."""
        is_full = not self._room.suffices(self._engine.membership.voters, now_s)
        requests = self._due_requests(now_s, is_full)
        at_ms = self._clock.now_ms()
        items: list[bytes | memoryview] = list(self._duties.due(at_ms, STORE_FULL if is_full else ""))
        if not (requests or items):
            return
        items.extend(self._forgets.values())
        self._forgets.clear()
        owners: list[Request | None] = [None] * len(items)
        items.extend(map(self._sifting.logged, requests))
        owners.extend(requests)
        index = self._engine.propose(encode_entry(at_ms, items))
        self._proposals[index] = _Proposal(owners, self._monotonic())

    def _due_requests(self, now_s: float, is_full: bool) -> list[Request]:
        """What to propose now, in order of arrival; receives for which nothing is ready wait instead."""
        chosen = self.receives.woken()
        bytes_left = ENTRY_BYTES_MAX - sum(len(request.raw) for request in chosen)
        while self._pending and (bytes_left >= len(self._pending[0].raw) or not chosen):
            request = self._pending.popleft()
            if is_full and adds(request.operation):
                self._outbox.reply(request, Refused(STORE_FULL, self._room.reserve_bytes))
                continue
            receive = request.receive
            if receive is not None and self.receives.must_wait(request, receive, now_s):
                continue
            refused = self._router.route(request)
            if refused is not None:
                self._outbox.reply(request, refused)
                continue
            chosen.append(request)
            bytes_left -= len(request.raw)
        self._reads.ask_all(self.receives.lines.given_up(now_s))
        return chosen

    def applied(self, index: int, term: int, turned: Turned) -> None:
        """An entry is applied: answer those who asked for what is in it."""
        self.receives.applied(turned.readier)
        proposal = self._proposals.pop(index, None)
        if proposal is None or term != self.term:
            return
        self._metrics.replications.observe(self._monotonic() - proposal.proposed_s)
        self._metrics.operations += len(proposal.requests)
        for request, applied in zip(proposal.requests, turned.applied, strict=True):
            if request is None:
                self._duties.done(applied.item.operation)
                continue
            receive, outcome = request.receive, applied.outcome
            if receive is not None:
                self.receives.concluded(receive)
            if receive is None or type(outcome) is not Received:
                self._outbox.reply_encoded(request, applied.encoded, b"")
            elif outcome.deliveries:
                held, block = queries.received(self._store, receive.queue, outcome)
                self._outbox.reply_encoded(request, encode_outcome(held), block)
                self._pending.extend(self.receives.lines.asked_again(request.key))
            else:
                self.receives.park(request, receive)

    # --- reads --------------------------------------------------------------------------------------------------------

    def answer_reads(self) -> None:
        """Answer queries, and receives whose time is over."""
        self._reads.answer()

    def _answer(self, request: Request) -> bool:
        """Answer from what is applied. False: what is to be answered is not known yet."""
        receive = request.receive
        if receive is None:
            assert is_query(request.operation)
            outcome, block = queries.answer(self._store, request.operation)
            if type(outcome) is PartyList:
                waiting = self.receives.lines.waiting()
                outcome = PartyList(outcome.parties, [waiting[party.id] for party in outcome.parties])
            self._outbox.reply_encoded(request, encode_outcome(outcome), block)
        elif self.receives.awaits_sifting(request, receive):
            return False
        elif find_queue(self._store, receive.queue) is None:
            self._outbox.reply(request, Refused(codes.QUEUE_NOT_FOUND))
        elif self.receives.may_take(receive) or self.receives.is_remembered(request):
            self._pending.append(request)
        elif receive.filter and self.receives.lines.is_claimed(receive.queue, receive.sieve):
            self.receives.park(request, receive)  # what was sifted meanwhile is another's, who may leave some
        else:
            self._outbox.reply(request, self._sifting.nothing(request))
        return True

    # --- when to go on ------------------------------------------------------------------------------------------------

    def look_ahead(self) -> None:
        """See when there is something to do by the clock. It reads the store, where damage may be met."""
        self._due_ms = min(self._duties.next_ms(), self.receives.next_ms)

    def next_wakeup(self) -> float:
        """Monotonic time in seconds at which there is something to do even if nothing arrives."""
        now_s = self._monotonic()
        if self._reads.are_due:
            return now_s
        if self._pending and self._engine.may_propose and self._engine.confirmed_since() > -inf:
            return now_s
        wakeup_s = self.receives.lines.next_deadline_s
        if self._due_ms < inf and self._clock.anchored:
            wakeup_s = min(wakeup_s, now_s + max(self._due_ms - self._clock.now_ms(), 0) / 1000)
        return wakeup_s
