"""One replica of a shard: engine, store, rules and waiting receives in one tick, without I/O.

The caller says what has arrived (`deliver`, `connected`, `request`, …) and calls `tick`. A tick is one transaction:

    take what arrived → let the engine think → propose one entry → hand it to the replicas → commit with fsync
    → only then let go of acknowledgements, votes and answers

`post(node, message)` and `answer(gateway, parts_of_a_frame)` are called in and at the end of a tick. A request that
this replica cannot answer because it does not lead is dropped: its gateway sees in the report who leads, and asks
there.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from math import inf

from cluster.changes import Changes
from cluster.clock import ClusterClock
from cluster.dispatcher import Dispatcher, Request
from cluster.engine import Engine
from cluster.freshness import Freshness
from cluster.messages import Ailing, Append, Digest, Message, Spared
from cluster.metrics import PeerMetrics, ProcessMetrics, ReplicaMetrics, ShardMetrics
from cluster.occurrences import Occurrences
from cluster.repair import RELUCTANCE_S, REPLICA_DAMAGED, Repair
from cluster.router import Router
from cluster.scrub import Scrub, ScrubSettings, Tally
from cluster.sifting import WAIT_S, Sifting
from cluster.tuning import Tuning
from cluster.wire import FRAME_BYTES_MAX, AskChange, AskLook, MemberReport, Report, ToldChange, ToldLook
from storage import codes, machine, queries, redrive_look
from storage.limits import ENTRY_BYTES_MAX, ENTRY_RECEIVE_BYTES_MAX, PULSE_STEPS_MAX
from storage.operations import (
    ENTRY_HEADER,
    ITEM_HEADER,
    Forget,
    Keyed,
    Operation,
    Outcome,
    Pulse,
    PutQueue,
    Query,
    Receive,
    Received,
    Refused,
    Send,
    Transaction,
    decode_items,
    encode_entry,
    encode_item,
    encode_outcome,
)
from storage.party_operations import PartyList
from storage.reading import find_queue
from storage.redrive_operations import StartRedrive, StepRedrive
from storage.schedule_operations import Occur, PutSchedule
from storage.sift_operations import Sift
from storage.state import Store
from storage.topic_operations import (
    Publish,
    PutSubscription,
    PutTopic,
)

STORE_FULL = "store_full"
"""Refusal by the leader: publishing would not leave enough room on enough replicas."""

_ADDING = (Send, Publish, PutQueue, PutTopic, PutSubscription, PutSchedule, StartRedrive)
"""Operations that are refused while there is little room."""

NO_SCRUB = ScrubSettings(interval_ms=0)

STEER_S = 0.1
"""How often a leader looks at the replicas' wall clocks, and every replica at the room on its disk."""


@dataclass(slots=True)
class _Proposal:
    term: int
    requests: list[Request | None]
    proposed_s: float


class Replica:
    """See the module."""

    def __init__(
        self,
        name: str,
        members: Mapping[str, str] | Iterable[str],
        store: Store,
        *,
        post: Callable[[str, Message], None],
        answer: Callable[[object, list[bytes]], None],
        monotonic: Callable[[], float],
        wall_ms: Callable[[], int],
        rng: random.Random,
        tuning: Tuning,
        room_reserve_bytes: int,
        cluster: str = "",
        tell: Callable[[object, ToldChange], None] = lambda asker, told: None,
        scrub: ScrubSettings = NO_SCRUB,
        tally: Tally | None = None,
        ailing: str | None = None,
        metrics: ReplicaMetrics | None = None,
    ) -> None:
        """`ailing`: what is known to be wrong with the store (`cluster.repair`). `tally`, `metrics`: go on counting."""
        self.metrics = metrics or ReplicaMetrics()
        self.name, self._tell = name, tell
        self._store, self._post, self._answer = store, post, answer
        self._monotonic, self._wall_ms = monotonic, wall_ms
        self._reserve_bytes = room_reserve_bytes
        self.clock = ClusterClock(monotonic)
        self._freshness = Freshness()
        self._connected: set[str] = set()
        self._inbox: list[Callable[[], None]] = []
        self._held: list[tuple[str, Message]] = []
        self._answers: dict[object, list[tuple[bytes, bytes, bytes]]] = {}
        self._answer_bytes = 0
        self._leading_term = 0
        self._pending: deque[Request] = deque()
        self._forgets: dict[int, bytes | memoryview] = {}
        self._proposals: dict[int, _Proposal] = {}
        self._reads: list[Request] = []
        self._is_put_off = False
        """Whether reads wait only because this tick has answered enough."""
        self._confirm_asked_s = -inf
        self._dispatcher = Dispatcher()
        self._router = Router(store, monotonic)
        self._occurrences = Occurrences(store, self._router.targets)
        self._sifting = Sifting(store, monotonic)
        self._found: dict[tuple[str, str], queries.Takeable] = {}
        """What there was in this tick for receives with filters, by queue and filter."""
        self._readier: set[str] = set()
        self._revisits: dict[str, int] = {}
        """Queues that may be able to deliver more at a time (cluster milliseconds), without anything being done."""
        self._pulsing = self._redriving = False
        self._due_ms: int | None = None
        self._access_index = 0
        self._steered_s = -inf
        self.room_ok = True
        self._rooms: dict[str, bool] = {}
        self.engine = Engine(
            name,
            members,
            store,
            apply=self._apply,
            send=self._send,
            monotonic=monotonic,
            rng=rng,
            tuning=tuning,
            stamp=self.clock.stamp_ms,
            observe=self.clock.observe,
            wall_ms=wall_ms,
            room_ok=lambda: self.room_ok,
            heard=self._heard,
            cluster=cluster,
            marked=lambda index, payload: self.scrub.marked(index, payload),
            doubted=self._doubt,
        )
        self._reached = (self.engine.last_index, self.engine.applied_index)
        self._changes = Changes(self.engine)
        self._changed: list[tuple[object, ToldChange]] = []
        self._known_ailing: dict[str, str] = {}
        self._repair: Repair | None = None
        self.scrub = Scrub(
            name,
            store,
            scrub,
            tally or Tally(),
            voters=lambda: self.engine.membership.voters,
            connected=lambda: self._connected,
            ailing=lambda: self._known_ailing,
            tell=post,
            term=lambda: self.engine.term,
        )
        if ailing is not None:
            self._begin_repair(ailing)

    # --- what arrives -------------------------------------------------------------------------------------------------

    def connected(self, node: str, born: bool) -> None:
        """A connection to another replica stands."""

        def gain() -> None:
            self._connected.add(node)
            self.engine.connected(node, born)
            self.scrub.connected(node)

        self._inbox.append(gain)

    def disconnected(self, node: str) -> None:
        """The connection to another replica is gone."""

        def lose() -> None:
            self._connected.discard(node)
            self._hear_of(node, None)
            self.engine.disconnected(node)
            self.clock.silent(node)
            self._rooms.pop(node, None)

        self._inbox.append(lose)

    def adopt(self, cluster: str) -> None:
        """This replica is blank, and a member of `cluster` lets it in."""
        self.engine.adopt(cluster)

    def retire(self) -> None:
        """A member says that this replica was removed."""
        self.engine.retire()

    def deliver(self, node: str, message: Message) -> None:
        """A message of another replica has arrived."""

        def take() -> None:
            match message:
                case Digest():
                    self.scrub.heard(node, message, self._monotonic())
                    return
                case Ailing():
                    self._on_ailing(node, message)
                    return
                case Spared():
                    if self._repair is not None:
                        self._repair.heard(node, message)
                    return
            self.engine.receive(node, message)
            if type(message) is Append and message.term == self.engine.term and node == self.engine.leader:
                self._freshness.told(message.commit_index, self._monotonic())

        self._inbox.append(take)

    def request(self, gateway: object, items: memoryview) -> bool:
        """A gateway's operations have arrived. False: this replica does not lead, and has dropped them.

        Raises `ValueError` when the bytes are not items.
        """
        arrived_s, index = self._monotonic(), self.engine.commit_index
        requests = [
            Request(gateway, item.session, item.seq, item.operation, raw, arrived_s, index)
            for item, raw in decode_items(items)
        ]
        if not self.engine.is_leader or self._is_unfit:
            return False
        for request in requests:
            if type(request.operation) is Forget:
                self._forgets[request.session] = request.raw
            elif isinstance(request.operation, Query):
                self._reads.append(request)
            else:
                self._pending.append(request)
        return True

    def look(self, question: AskLook) -> ToldLook:
        """Answer from what is applied here, leading or not, between ticks: cheap, and perhaps stale."""
        if self._repair is not None:
            return ToldLook(question.number, Refused(REPLICA_DAMAGED), b"", 0, None)
        outcome, block = queries.answer(self._store, question.query)
        since_s = self._freshness.since_s
        staleness_ms = None if since_s == -inf else max(0, round(1000 * (self._monotonic() - since_s)))
        return ToldLook(question.number, outcome, block, self.engine.applied_index, staleness_ms)

    def cancel(self, session: int, seq: int) -> None:
        """A gateway does not wait for this receive any more."""
        self._dispatcher.cancel(session, seq)

    def change(self, gateway: object, question: AskChange) -> bool:
        """A gateway wants another membership. False: this replica does not lead, and has dropped it."""
        if self.engine.is_leader:
            self._changes.ask(gateway, question)
        return self.engine.is_leader

    def forsake(self, gateway: object) -> None:
        """A gateway has gone."""
        self._changes.forsake(gateway)
        self._dispatcher.forsake(gateway)

    # --- the tick -----------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Do all there is to do now, and make it durable. Storage errors and broken invariants end the process."""
        engine, now_s = self.engine, self._monotonic()
        self._store.begin()
        if now_s - self._steered_s >= STEER_S:
            self._steer(now_s)
        inbox, self._inbox = self._inbox, []
        for arrive in inbox:
            arrive()
        engine.tick()
        if engine.is_leader:
            if self._leading_term != engine.term:
                self._start_leading()
            self._lead(now_s)
        elif self._leading_term:
            self._stop_leading()
        if engine.has_applied_own_term():
            self._freshness.applied(engine.applied_index)
        engine.replicate()
        self._due_ms = self._next_due_ms() if engine.is_leader and not self._is_unfit else None
        if not self._is_unfit:
            self._access_index = queries.access_changed_index(self._store)
        self._commit()
        engine.synced()
        self._release()
        self.scrub.committed(self.clock.now_ms(), now_s)
        self._mind_damage(now_s)

    def _commit(self) -> None:
        """Make the tick durable. What a tick without entries takes says nothing of the disk, and is not measured."""
        reached = (self.engine.last_index, self.engine.applied_index)
        if reached == self._reached:
            self._store.commit()
            return
        self._reached, begun_s = reached, self._monotonic()
        self._store.commit()
        self.metrics.commits.observe(self._monotonic() - begun_s)

    def _lead(self, now_s: float) -> None:
        if self._is_unfit:
            return
        self._freshness.told(self.engine.commit_index, self.engine.confirmed_since())
        if not self.clock.anchored:
            self._steer(now_s)
        if self.clock.anchored and self.engine.may_propose and self.engine.confirmed_since() > -inf:
            self._propose(self._due_requests(now_s))
            mark = self.scrub.due(self.clock.now_ms(), now_s)
            if mark is not None:
                self.scrub.proposed(self.engine.propose(mark), mark)
        self._answer_reads()
        self._changed += self._changes.advance()

    def _due_requests(self, now_s: float) -> list[Request]:
        """What to propose now, in order of arrival; receives for which nothing is ready wait instead."""
        chosen: list[Request] = []
        bytes_left = ENTRY_BYTES_MAX
        self._found.clear()
        now_ms = self.clock.now_ms()
        for queue in [queue for queue, at_ms in self._revisits.items() if at_ms <= now_ms]:
            del self._revisits[queue]
            self._readier.add(queue)
        for queue in sorted(filter(self._dispatcher.has_line, self._readier)):
            for receive in self._dispatcher.lines(queue):
                found = self._takeable(receive)
                for request in self._dispatcher.wake(queue, found.messages, found.consumer, receive.sieve):
                    chosen.append(request)
                    bytes_left -= len(request.raw)
        self._readier.clear()
        while self._pending and (bytes_left >= len(self._pending[0].raw) or not chosen):
            request = self._pending.popleft()
            if self._is_refused(request) or self._is_parked(request, now_s) or not self._is_routed(request):
                continue
            chosen.append(request)
            bytes_left -= len(request.raw)
        self._reads.extend(self._dispatcher.given_up(now_s))
        return chosen

    def _is_refused(self, request: Request) -> bool:
        """Full is refused early: publishing stops while receives, acks and deletes go on."""
        operation = request.operation.operation if type(request.operation) is Keyed else request.operation
        adds = type(operation) in _ADDING or (
            type(operation) is Transaction and any(type(step) is Send for step in operation.steps)
        )
        if not adds or self._has_room():
            return False
        self._reply(request, Refused(STORE_FULL, self._reserve_bytes))
        return True

    def _is_routed(self, request: Request) -> bool:
        """A publish is told where it goes."""
        refused = self._router.route(request)
        if refused is not None:
            self._reply(request, refused)
        return refused is None

    def _is_parked(self, request: Request, now_s: float) -> bool:
        receive = request.receive
        if receive is None:
            return False
        if self._may_take(receive) or self._is_remembered(request):
            self._dispatcher.claim(receive.queue, receive.messages_max, receive.sieve)
            return False
        self._dispatcher.park(receive.queue, request, max(self._deadline_s(request, receive), now_s))
        return True

    def _deadline_s(self, request: Request, receive: Receive) -> float:
        """Up to when a receive waits: for as long as it says, or as its queue does."""
        wait_ms = receive.wait_ms
        if wait_ms < 0:
            queue = find_queue(self._store, receive.queue)
            wait_ms = 0 if queue is None else queue.settings.wait_ms
        return request.arrived_s + wait_ms / 1000

    def _is_remembered(self, request: Request) -> bool:
        if type(request.operation) is Keyed and queries.is_key_remembered(self._store, request.operation.key):
            return True
        return queries.is_remembered(self._store, request.session, request.seq)

    def _propose(self, requests: list[Request]) -> None:
        """Put everything into one entry, with what is due by the clock."""
        at_ms = self.clock.now_ms()
        items: list[bytes | memoryview] = []
        owners: list[Request | None] = []
        due_ms = None if self._pulsing else queries.next_due_ms(self._store)
        if due_ms is not None and due_ms <= at_ms:
            self._pulsing = True
            items.append(encode_item(0, 0, Pulse(PULSE_STEPS_MAX)))
        items.extend(self._occurrences.due(at_ms, "" if self._has_room() else STORE_FULL))
        step = None if self._redriving else redrive_look.next_step(self._store, at_ms)
        if step is not None:
            self._redriving = True
            items.append(encode_item(0, 0, step))
        items.extend(self._sifting.next())
        if not (requests or items):
            return
        items.extend(self._forgets.values())
        self._forgets.clear()
        owners.extend([None] * len(items))
        items.extend(map(self._sifting.logged, requests))
        owners.extend(requests)
        index = self.engine.propose(encode_entry(at_ms, items))
        self._proposals[index] = _Proposal(self.engine.term, owners, self._monotonic())

    def _next_due_ms(self) -> int | None:
        """When the leader has something of its own to propose (cluster time), of what is not under way already."""
        dues_ms = (
            None if self._pulsing else queries.next_due_ms(self._store),
            None if self._redriving else redrive_look.next_due_ms(self._store),
            self._occurrences.next_ms(),
            self.clock.now_ms() if self._sifting.is_due else None,
        )
        return min((due_ms for due_ms in dues_ms if due_ms is not None), default=None)

    def _apply(self, index: int, term: int, payload: bytes) -> None:
        if len(payload) < ENTRY_HEADER.size:
            raise ValueError(f"entry {index} is too short to be one")
        turned = machine.apply(self._store, index, payload)
        self._found.clear()
        self._readier |= turned.readier
        proposal = self._proposals.pop(index, None)
        if proposal is None or proposal.term != term:
            return
        self.metrics.replications.observe(self._monotonic() - proposal.proposed_s)
        self.metrics.operations += len(proposal.requests)
        for owner, applied in zip(proposal.requests, turned.applied, strict=True):
            if owner is None:
                self._end_own(applied.item.operation)
                continue
            receive = owner.receive
            if receive is not None:
                self._dispatcher.unclaim(receive.queue, receive.messages_max, receive.sieve)
                self._readier.add(receive.queue)  # it may have taken less than it had claimed
            self._conclude(owner, applied.outcome, applied.encoded)

    def _end_own(self, operation: Operation) -> None:
        """What the leader itself has proposed is done."""
        if type(operation) is Pulse:
            self._pulsing = False
        elif type(operation) is StepRedrive:
            self._redriving = False
        elif type(operation) is Sift:
            self._sifting.done()
        elif type(operation) is Occur:
            self._occurrences.done()

    def _conclude(self, request: Request, outcome: Outcome, encoded: bytes) -> None:
        """An operation was applied: answer it, or let an empty receive wait on."""
        receive = request.receive
        if receive is None or type(outcome) is not Received:
            self._reply_encoded(request, encoded, b"")
        elif outcome.deliveries:
            held, block = queries.received(self._store, receive.queue, outcome)
            self._reply_encoded(request, encode_outcome(held), block)
        else:
            self._dispatcher.park(receive.queue, request, self._deadline_s(request, receive))

    # --- reads --------------------------------------------------------------------------------------------------------

    def _answer_reads(self) -> None:
        """Answer queries once a majority has confirmed, after they arrived, that this replica leads.

        Raft, section 6.4 of Ongaro's thesis: the applied state is then at least as new as any answer given before.
        """
        if not self._reads:
            return
        confirmed_s, waiting, self._is_put_off = self.engine.confirmed_since(), [], False
        for request in self._reads:
            if request.arrived_s > confirmed_s or request.index > self.engine.applied_index:
                waiting.append(request)
            elif self._answer_bytes > ENTRY_RECEIVE_BYTES_MAX:
                waiting.append(request)
                self._is_put_off = True
            elif self._awaits_sifting(request):
                waiting.append(request)
            else:
                self._answer_read(request)
        self._reads = waiting
        if any(request.arrived_s > self._confirm_asked_s for request in waiting):
            self._confirm_asked_s = self._monotonic()
            self.engine.confirm()

    def _answer_read(self, request: Request) -> None:
        receive = request.receive
        if receive is None:
            assert isinstance(request.operation, Query)
            outcome, block = queries.answer(self._store, request.operation)
            if type(outcome) is PartyList:
                waiting = self._dispatcher.waiting()
                outcome = PartyList(outcome.parties, [waiting[party.id] for party in outcome.parties])
            self._reply_encoded(request, encode_outcome(outcome), block)
        elif find_queue(self._store, receive.queue) is None:
            self._reply(request, Refused(codes.QUEUE_NOT_FOUND))
        elif self._may_take(receive):
            self._pending.append(request)
        else:
            self._reply(request, self._sifting.nothing(request))

    def _awaits_sifting(self, request: Request) -> bool:
        """Whether a receive whose time is over may soon get one of the messages that were there by then."""
        receive = request.receive
        if receive is None or not self._sifting.is_behind(request) or self._may_take(receive):
            return False
        return self._monotonic() < self._deadline_s(request, receive) + WAIT_S

    def _takeable(self, receive: Receive) -> queries.Takeable:
        """What there is for a receive. With a filter that costs a little, and is looked up once a tick."""
        name = (receive.queue, receive.sieve)
        found = self._found.get(name)
        if found is None:
            found = queries.takeable(self._store, receive.queue, self.clock.now_ms(), receive)
            if receive.filter:
                self._found[name] = found
        if found.changes_ms:
            self._revisits[receive.queue] = found.changes_ms
        return found

    def _may_take(self, receive: Receive) -> bool:
        """Whether there are messages for this receive that nobody else has claimed."""
        found = self._takeable(receive)
        if found.consumer and found.consumer != receive.consumer:
            return False
        return self._dispatcher.available(receive.queue, found.messages, receive.sieve) > 0

    # --- leading ------------------------------------------------------------------------------------------------------

    def _start_leading(self) -> None:
        self._stop_leading()
        self._leading_term = self.engine.term

    def _stop_leading(self) -> None:
        """The fate of what was proposed is unknown here; the gateways ask the next leader under the same ids."""
        self._leading_term = 0
        self._pending.clear()
        self._forgets.clear()
        self._proposals.clear()
        self._reads.clear()
        self._readier.clear()
        self._revisits.clear()
        self._dispatcher = Dispatcher()
        self._pulsing = self._redriving = False
        self._occurrences.done()
        self._sifting.done()
        self._changes.clear()
        self.scrub.stop_leading()

    # --- damage -------------------------------------------------------------------------------------------------------

    @property
    def born(self) -> bool:
        """What this replica's connections say in their hello."""
        return self.engine.born

    @property
    def ailing(self) -> str | None:
        """What is wrong with this replica's store, or None."""
        return self._repair.cause if self._repair is not None else None

    @property
    def is_spared(self) -> bool:
        """Whether the others can spare this ailing replica, so that its store may be set aside now."""
        return self._repair is not None and self._repair.is_spared

    @property
    def _is_unfit(self) -> bool:
        """Whether this replica must not serve as leader: its store is damaged, and there are others."""
        return self._repair is not None and len(self.engine.membership.voters) > 1

    def _doubt(self) -> None:
        """Read everything again now: whoever is to get a copy of a damaged store gets none."""
        self.scrub.check()
        self.scrub.ask()

    def _begin_repair(self, cause: str) -> None:
        self._hear_of(self.name, cause)
        self._repair = Repair(
            self.name,
            cause,
            voters=lambda: self.engine.membership.voters,
            tell=self._broadcast,
            index=lambda: self.engine.commit_index,
            term=lambda: self.engine.term,
        )

    def _broadcast(self, message: Message) -> None:
        for node in sorted(self._connected):
            self._post(node, message)

    def _mind_damage(self, now_s: float) -> None:
        """An ailing replica asks to be spared, and does not lead if anybody else can."""
        if self._repair is None and self.scrub.damage is not None:
            self._begin_repair(self.scrub.damage)
        if self._repair is None:
            return
        self._repair.step(now_s)
        self.engine.reluctance_s = RELUCTANCE_S if self._is_unfit else 0.0
        if self._is_unfit:
            self.engine.transfer()

    def _on_ailing(self, node: str, message: Ailing) -> None:
        """Another replica asks whether it can be spared."""
        self._hear_of(node, message.cause)
        engine = self.engine
        is_sound = self._repair is None and engine.counts and engine.leader is not None
        # Before an entry of the present term is here, the end of this journal may be one that nobody committed.
        if is_sound and engine.has_applied_own_term() and engine.durable_index >= message.index:
            self._post(node, Spared(engine.term, message.round, engine.memberships.known[0]))

    def _hear_of(self, node: str, cause: str | None) -> None:
        """`node` is damaged, or that is over."""
        if self._known_ailing.get(node) == cause:
            return
        known = {name: known for name, known in self._known_ailing.items() if name != node}
        self._known_ailing = known | ({} if cause is None else {node: cause})
        self.engine.shunned = frozenset(self._known_ailing)

    def _steer(self, now_s: float) -> None:
        self._steered_s = now_s
        self.room_ok = self._store.room_bytes() >= self._reserve_bytes
        if self.engine.is_leader:
            self.clock.hear(self.name, self._wall_ms())
            self.clock.steer(len(self.engine.membership.voters) // 2 + 1, queries.clock_ms(self._store))

    def _has_room(self) -> bool:
        voters = self.engine.membership.voters
        rooms = [self.room_ok, *(self._rooms[name] for name in voters if name in self._rooms)]
        # Without a majority nothing is committed, but not for lack of room.
        return self.room_ok and (2 * len(rooms) <= len(voters) or 2 * sum(rooms) > len(voters))

    def _heard(self, node: str, wall_ms: int, clock_ms: int, room_ok: bool) -> None:
        self.clock.hear(node, wall_ms)
        if self.engine.confirmed_since() == -inf:
            # Nothing is stamped before a majority has confirmed, so this hears how far a majority has come.
            self.clock.catch_up(clock_ms)
        self._rooms[node] = room_ok

    # --- what leaves --------------------------------------------------------------------------------------------------

    def _send(self, node: str, message: Message) -> None:
        if message.urgent:
            self._post(node, message)
        else:
            self._held.append((node, message))

    def _reply(self, request: Request, outcome: Outcome) -> None:
        self._reply_encoded(request, encode_outcome(outcome), b"")

    def _reply_encoded(self, request: Request, outcome: bytes, block: bytes) -> None:
        header = ITEM_HEADER.pack(request.session, request.seq, len(outcome), len(block))
        self._answers.setdefault(request.gateway, []).append((header, outcome, block))
        self._answer_bytes += len(block)

    def _release(self) -> None:
        held, self._held = self._held, []
        for node, message in held:
            self._post(node, message)
        answers, self._answers, self._answer_bytes = self._answers, {}, 0
        for gateway, items in answers.items():
            frame: list[bytes] = []
            size = 0
            for item in items:
                item_bytes = sum(map(len, item))
                if frame and size + item_bytes > FRAME_BYTES_MAX // 2:
                    self._answer(gateway, frame)
                    frame, size = [], 0
                frame.extend(item)
                size += item_bytes
            self._answer(gateway, frame)
        changed, self._changed = self._changed, []
        for asker, told in changed:
            self._tell(asker, told)

    # --- what the caller sees -----------------------------------------------------------------------------------------

    def report(self) -> Report:
        """What to tell the gateways. It is known without reading the store, where damage may be met."""
        engine = self.engine
        serving = engine.is_leader and not self._is_unfit and engine.confirmed_since() > -inf and self.clock.anchored
        trouble = None
        if engine.is_removed:
            trouble = f"{self.name} was removed from the cluster: stop it"
        elif self._repair is not None:
            trouble = f"this replica is damaged, and waits until the others can spare it: {self._repair.cause}"
        elif engine.is_lost:
            trouble = "this replica was damaged, and gets everything anew from the others"
        elif engine.leader is None:
            trouble = "no leader is known"
        elif not engine.counts:  # whoever stops another node now would leave the cluster without a majority
            trouble = "this replica began empty, and its word does not count before the leader welcomes it"
        elif engine.snapshot_trouble is not None:
            trouble = engine.snapshot_trouble
        elif not self.room_ok:
            trouble = f"less than {self._reserve_bytes} bytes are free for this node's store"
        elif engine.commit_index - engine.applied_index > 1000:
            trouble = "this replica is catching up"
        return Report(
            self.name,
            engine.leader,
            engine.term,
            engine.commit_index,
            engine.applied_index,
            serving,
            engine.has_quorum,
            trouble,
            engine.membership.cluster,
            engine.memberships.version,
            is_removed=engine.is_removed,
            scrub=self.scrub.tally.report(self.scrub.disagreement, self._known_ailing),
            access_index=self._access_index,
        )

    def measure(self, process: ProcessMetrics, connected: Container[str]) -> ShardMetrics:
        """The numbers for operators. `connected`: the replicas that are reached. Raises `DamageError`."""
        engine, members = self.engine, self.engine.membership.members
        role = "leader" if engine.is_leader else "follower"
        if self.name not in engine.membership.voters:
            role = "learner" if self.name in members else "none"
        return ShardMetrics(
            process,
            self.metrics,
            {
                name: PeerMetrics(name in connected, engine.held_index(name), engine.copy_percent(name))
                for name in members
                if name != self.name
            },
            role,
            engine.first_index,
            engine.last_index,
            engine.journal_bytes,
            room_bytes=self._store.room_bytes(),
            queues=queries.queue_count(self._store),
            clock_ms=queries.clock_ms(self._store),
            waiting_receives=len(self._dispatcher),
            snapshot_trouble=engine.snapshot_trouble is not None,
        )

    def members(self) -> list[MemberReport]:
        """The members in force, for the report."""
        engine, membership = self.engine, self.engine.membership
        return [
            MemberReport(name, address, name in membership.voters, engine.held_index(name), engine.copy_percent(name))
            for name, address in membership.members.items()
        ]

    def next_wakeup(self) -> float:
        """Monotonic time in seconds at which `tick` must run even if nothing arrives."""
        wakeup_s = self.engine.next_wakeup()
        if self._repair is not None:
            wakeup_s = min(wakeup_s, self._repair.next_s)
        if not self.engine.is_leader or self._is_unfit:
            return wakeup_s
        if self._is_put_off and self._reads:
            return self._monotonic()
        if self._pending and self.engine.may_propose and self.engine.confirmed_since() > -inf:
            return self._monotonic()
        deadline_s = self._dispatcher.next_deadline_s
        if deadline_s is not None:
            wakeup_s = min(wakeup_s, deadline_s)
        dues_ms = [*self._revisits.values(), *(() if self._due_ms is None else (self._due_ms,))]
        if dues_ms and self.clock.anchored:
            wakeup_s = min(wakeup_s, self._monotonic() + max(min(dues_ms) - self.clock.now_ms(), 0) / 1000)
        return wakeup_s
