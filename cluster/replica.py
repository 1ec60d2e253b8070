"""One replica of a shard: engine, store, rules and what it does as leader in one tick, without I/O.

The caller says what has arrived (`deliver`, `connected`, `request`, …) and calls `tick`. What changes nothing durable
needs none (`heed`). A tick is one transaction:

    take what arrived → let the engine think → propose one entry → hand it to the replicas → commit with fsync
    → only then let go of acknowledgements, votes and answers

`post(node, message)` and `answer(gateway, parts_of_a_frame)` are called in and at the end of a tick. A request that
this replica cannot answer because it does not lead is dropped: its gateway sees in the report who leads, and asks
there.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Iterable, Mapping
from math import inf

from cluster.clock import ClusterClock
from cluster.dispatcher import Request
from cluster.engine import Engine
from cluster.freshness import Freshness
from cluster.health import Health
from cluster.leadership import Leadership
from cluster.messages import Ailing, Append, Digest, Message, Spared
from cluster.metrics import PeerMetrics, ProcessMetrics, ReplicaMetrics, ShardMetrics
from cluster.outbox import Outbox
from cluster.repair import REPLICA_DAMAGED
from cluster.room import Room
from cluster.scrub import Scrub, ScrubSettings, Tally
from cluster.tuning import Tuning
from cluster.wire import AskChange, AskLook, MemberReport, Report, ToldChange, ToldLook
from storage import machine, queries
from storage.operations import ENTRY_HEADER, Refused, decode_items
from storage.state import Store

NO_SCRUB = ScrubSettings(interval_ms=0)

STEER_S = 0.1
"""How often a leader looks at the replicas' wall clocks, and every replica at the room on its disk."""


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
        self.name, self.metrics = name, metrics or ReplicaMetrics()
        self._store, self._monotonic, self._wall_ms = store, monotonic, wall_ms
        self.clock = ClusterClock(monotonic)
        self._outbox, self._room = Outbox(post, answer, tell), Room(room_reserve_bytes)
        self._freshness = Freshness()
        self._connected: set[str] = set()
        self._inbox: list[Callable[[], None]] = []
        self._leadership: Leadership | None = None
        self._access_index = 0
        self._steered_s = -inf
        self.engine = Engine(
            name,
            members,
            store,
            apply=self._apply,
            send=self._outbox.send,
            monotonic=monotonic,
            rng=rng,
            tuning=tuning,
            stamp=self.clock.stamp_ms,
            observe=self.clock.observe,
            wall_ms=wall_ms,
            room_ok=lambda: self._room.is_here,
            heard=self._heard,
            cluster=cluster,
            marked=lambda index, payload: self.scrub.marked(index, payload),
            doubted=self._doubt,
        )
        self._reached = (self.engine.last_index, self.engine.applied_index)
        self._health = Health(name, self.engine, post=post, connected=self._connected, cause=ailing)
        self.scrub = Scrub(
            name,
            store,
            scrub,
            tally or Tally(),
            voters=lambda: self.engine.membership.voters,
            connected=lambda: self._connected,
            ailing=lambda: self._health.known,
            tell=post,
            term=lambda: self.engine.term,
        )

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
            self._health.silent(node)
            self.engine.disconnected(node)
            self.clock.silent(node)
            self._room.silent(node)

        self._inbox.append(lose)

    def adopt(self, cluster: str) -> None:
        """This replica is blank, and a member of `cluster` lets it in."""
        self.engine.adopt(cluster)

    def retire(self) -> None:
        """A member says that this replica was removed."""
        self.engine.retire()

    def heed(self, node: str, message: Message) -> bool:
        """A message of another replica has arrived, between ticks: take it at once if it needs none (`Engine.heed`).

        False: it is to be delivered. What waits for a tick is not overtaken; a clock that is not anchored, and a scrub
        that reads beside the ticks, wait for ticks. True: it may have made a tick due, see `next_wakeup`.
        """
        if self._inbox or self.scrub.is_reading or not self.clock.anchored or not self.engine.heed(node, message):
            return False
        self._outbox.release()
        self._learn(node, message)
        self._freshen()
        return True

    def deliver(self, node: str, message: Message) -> None:
        """A message of another replica has arrived."""

        def take() -> None:
            match message:
                case Digest():
                    self.scrub.heard(node, message, self._monotonic())
                    return
                case Ailing():
                    self._health.asked(node, message)
                    return
                case Spared():
                    self._health.spared(node, message)
                    return
            self.engine.receive(node, message)
            self._learn(node, message)

        self._inbox.append(take)

    def _learn(self, node: str, message: Message) -> None:
        """A follower hears from its leader what is committed."""
        if type(message) is Append and message.term == self.engine.term and node == self.engine.leader:
            self._freshness.told(message.commit_index, self._monotonic())

    def request(self, gateway: object, items: memoryview) -> bool:
        """A gateway's operations have arrived. False: this replica does not lead, and has dropped them.

        Raises `ValueError` when the bytes are not items.
        """
        arrived_s, index = self._monotonic(), self.engine.commit_index
        requests = [
            Request(gateway, item.session, item.seq, item.operation, raw, arrived_s, index)
            for item, raw in decode_items(items)
        ]
        if self._leadership is None or self._health.is_unfit:
            return False
        self._leadership.take(requests)
        return True

    def look(self, question: AskLook) -> ToldLook:
        """Answer from what is applied here, leading or not, between ticks: cheap, and perhaps stale."""
        if self._health.cause is not None:
            return ToldLook(question.number, Refused(REPLICA_DAMAGED), b"", 0, None)
        outcome, block = queries.answer(self._store, question.query)
        since_s = self._freshness.since_s
        staleness_ms = None if since_s == -inf else max(0, round(1000 * (self._monotonic() - since_s)))
        return ToldLook(question.number, outcome, block, self.engine.applied_index, staleness_ms)

    def cancel(self, session: int, seq: int) -> None:
        """A gateway does not wait for this receive any more."""
        if self._leadership is not None:
            self._leadership.cancel(session, seq)

    def change(self, gateway: object, question: AskChange) -> bool:
        """A gateway wants another membership. False: this replica does not lead, and has dropped it."""
        if self._leadership is None:
            return False
        self._leadership.changes.ask(gateway, question)
        return True

    def forsake(self, gateway: object) -> None:
        """A gateway has gone."""
        if self._leadership is not None:
            self._leadership.changes.forsake(gateway)
            self._leadership.receives.lines.forsake(gateway)

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
        is_fit, leadership = not self._health.is_unfit, self._led()
        if leadership is not None and is_fit:
            self._lead(leadership, now_s)
        self._freshen()
        engine.replicate()
        if is_fit:
            if leadership is not None:
                leadership.look_ahead()
            self._access_index = queries.access_changed_index(self._store)
        self._commit()
        engine.synced()
        self._outbox.release()
        self.scrub.committed(self.clock.now_ms(), now_s)
        self._health.mind(now_s, self.scrub.damage)
        engine.reluctance_s = max(self._health.reluctance_s, self._room.reluctance_s)

    def _commit(self) -> None:
        """Make the tick durable. What a tick without entries takes says nothing of the disk, and is not measured."""
        reached = (self.engine.last_index, self.engine.applied_index)
        if reached == self._reached:
            self._store.commit()
            return
        self._reached, begun_s = reached, self._monotonic()
        self._store.commit()
        self.metrics.commits.observe(self._monotonic() - begun_s)

    def _led(self) -> Leadership | None:
        """The leadership of the present term, if it is this replica's; that of another term is over."""
        engine = self.engine
        term = self._leadership.term if self._leadership is not None else 0
        if term != (engine.term if engine.is_leader else 0):
            self.scrub.stop_leading()
            self._leadership = None
            if engine.is_leader:
                self._leadership = Leadership(
                    engine,
                    self._store,
                    self.clock,
                    self._outbox,
                    self._room,
                    monotonic=self._monotonic,
                    metrics=self.metrics,
                )
        return self._leadership

    def _lead(self, leadership: Leadership, now_s: float) -> None:
        if not self.clock.anchored:
            self._steer(now_s)
        leadership.make_way(now_s)
        if self.clock.anchored and self.engine.may_propose and self.engine.confirmed_since() > -inf:
            leadership.propose(now_s)
            mark = self.scrub.due(self.clock.now_ms(), now_s)
            if mark is not None:
                self.scrub.proposed(self.engine.propose(mark), mark)
        leadership.answer_reads()
        self._outbox.tell(leadership.changes.advance())

    def _freshen(self) -> None:
        """See how fresh the state is by now. A leader knows from its majority what is committed."""
        engine = self.engine
        if engine.is_leader:
            self._freshness.told(engine.commit_index, engine.confirmed_since())
        if engine.has_applied_own_term:
            self._freshness.applied(engine.applied_index)

    def _apply(self, index: int, term: int, payload: bytes) -> None:
        if len(payload) < ENTRY_HEADER.size:
            raise ValueError(f"entry {index} is too short to be one")
        turned = machine.apply(self._store, index, payload)
        if self._leadership is not None:
            self._leadership.applied(index, term, turned)

    def _steer(self, now_s: float) -> None:
        self._steered_s = now_s
        self._room.measured(self._store.room_bytes(), now_s)
        if self.engine.is_leader:
            self.clock.hear(self.name, self._wall_ms())
            self.clock.steer(len(self.engine.membership.voters) // 2 + 1, queries.clock_ms(self._store))

    def _heard(self, node: str, wall_ms: int, clock_ms: int, room_ok: bool) -> None:
        self.clock.hear(node, wall_ms)
        if self.engine.confirmed_since() == -inf:
            # Nothing is stamped before a majority has confirmed, so this hears how far a majority has come.
            self.clock.catch_up(clock_ms)
        self._room.heard(node, room_ok, self._monotonic())
        self.engine.avoided = self._room.crowded

    def _doubt(self) -> None:
        """Read everything again now: whoever is to get a copy of a damaged store gets none."""
        self.scrub.check()
        self.scrub.ask()

    # --- what the caller sees -----------------------------------------------------------------------------------------

    @property
    def born(self) -> bool:
        """What this replica's connections say in their hello."""
        return self.engine.born

    @property
    def ailing(self) -> str | None:
        """What is wrong with this replica's store, or None."""
        return self._health.cause

    @property
    def is_spared(self) -> bool:
        """Whether the others can spare this ailing replica, so that its store may be set aside now."""
        return self._health.is_spared

    def report(self) -> Report:
        """What to tell the gateways. It is known without reading the store, where damage may be met."""
        engine, health, room = self.engine, self._health, self._room
        serving = engine.is_leader and not health.is_unfit and engine.confirmed_since() > -inf and self.clock.anchored
        trouble = None
        if engine.is_removed:
            trouble = f"{self.name} was removed from the cluster: stop it"
        elif health.cause is not None:
            trouble = f"this replica is damaged, and waits until the others can spare it: {health.cause}"
        elif engine.is_lost:
            trouble = "this replica was damaged, and gets everything anew from the others"
        elif engine.leader is None:
            trouble = "no leader is known"
        elif not engine.counts:  # whoever stops another node now would leave the cluster without a majority
            trouble = "this replica began empty, and its word does not count before the leader welcomes it"
        elif engine.snapshot_trouble is not None:
            trouble = engine.snapshot_trouble
        elif not room.is_here:
            trouble = f"less than {room.reserve_bytes} bytes are free for this node's store"
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
            scrub=self.scrub.tally.report(self.scrub.disagreement, health.known),
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
            waiting_receives=len(self._leadership.receives.lines) if self._leadership is not None else 0,
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
        wakeup_s = min(self.engine.next_wakeup(), self._health.next_s)
        if self._leadership is None or self._health.is_unfit:
            return wakeup_s
        return min(wakeup_s, self._leadership.next_wakeup())
