"""One run: a plan is lived through, and what must hold is checked at every step and whenever there is calm."""

from __future__ import annotations

import asyncio
import gc
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

import tests.simulation.stories  # noqa: F401 (faults of its own)
from storage import queries
from storage.block import encode_block, parts
from storage.operations import Receive, Received, Refused, Send, Sent
from storage.queue_operations import PutQueue
from storage.settings import QueueSettings
from tests.simulation.broken import SOUND, Variant
from tests.simulation.clients import Client
from tests.simulation.faults import happen
from tests.simulation.history import History
from tests.simulation.machines import BrokenError, ClusterTrouble, World
from tests.simulation.oracle import Oracle, Violation, check_shape
from tests.simulation.plan import Plan
from tests.simulation.sieves import PROPERTIES, SIEVES

SERVES_S = 20.0
"""Calm after which every gateway must have served a request."""
LEVEL_S = 60.0
"""Calm after which every replica must have everything."""
STABLE_S = 3.0
"""How long calm goes on when all is well: no leader may be replaced in it, unless its store is found to be damaged."""
WAKE_S = 5.0
"""Time in which a receive that waits must get what was sent."""
LOOK_S = 0.1


class Run:
    """See the module. `log(who, text)` takes the transcript."""

    def __init__(
        self, plan: Plan, variant: Variant = SOUND, log: Callable[[float, str, str], None] | None = None
    ) -> None:
        self.plan = plan
        self.oracle = Oracle()
        self.world = World(
            plan, variant, self.oracle, None if log is None else lambda who, text: log(self.now_s, who, text)
        )
        self.oracle.halt = self.world.clockwork.halt
        self.history = History(self.oracle.violate, self.oracle.time.leapt_s)
        self.probes = 0

    @property
    def now_s(self) -> float:
        return self.world.clockwork.now_s

    def live(self) -> None:
        """Live through the plan. Raises `Violation`, or whatever went wrong in the test itself."""
        with self.world.standing():
            for machine, boot_s in zip(self.world.machines.values(), self.plan.boots_s, strict=True):
                self.world.clockwork.later(boot_s, self.world.boot, machine)
            for client in self.plan.clients:
                self.world.spawn(Client(self.world, self.history, client).live())
            for episode in self.plan.episodes:
                for event in episode.events:
                    self.world.clockwork.later(event.at_s, happen, self.world, event)
                self.go_on(episode.trouble_s)
                self.calm()
            self._check_return()
            self.oracle.totals["ms the clock was behind max"] = self.oracle.time.behind_ms_max

    def go_on(self, seconds: float) -> None:
        self.world.clockwork.run(self.now_s + seconds)
        if self.oracle.trouble is not None:
            raise self.oracle.trouble

    def go_on_until(self, condition: Callable[[], bool], within_s: float) -> bool:
        """Go on until `condition` holds; False if it does not in time."""
        end_s = self.now_s + within_s
        while not condition():
            if self.now_s >= end_s:
                return False
            self.go_on(LOOK_S)
        return True

    # --- calm ---------------------------------------------------------------------------------------------------------

    def calm(self) -> None:
        """All faults end; everything must come right again."""
        world, began_s = self.world, self.now_s
        world.heal()
        served: dict[str, float] = {}
        selected: set[str] = set()
        for name in list(world.machines):
            world.spawn(self._probe(name, served, selected))
        if not self.go_on_until(lambda: world.machines.keys() <= served.keys(), SERVES_S):
            silent = sorted(world.machines.keys() - served.keys())
            self.oracle.violate("it serves again", f"{silent} do not serve {SERVES_S} s after all was healed: {self}")
        if not self.go_on_until(self._is_level, LEVEL_S):
            self.oracle.violate("all catch up", f"not {LEVEL_S} s after all was healed: {self}")
        if not self.go_on_until(lambda: world.machines.keys() <= selected, SERVES_S):
            silent = sorted(world.machines.keys() - selected)
            self.oracle.violate("waiting receives are woken", f"{silent} bring nothing through a filter: {self}")
        self._check_states()
        term, may_change = max(self.oracle.leaders), self._may_change_leaders()
        self.go_on(STABLE_S)
        if max(self.oracle.leaders) != term and not may_change:
            self.oracle.violate("leadership is stable", f"there was an election in calm: {self}")
        slowest_s = max(served.values()) - began_s
        self.oracle.totals["ms to recover max"] = max(
            self.oracle.totals.get("ms to recover max", 0), int(slowest_s * 1000)
        )

    def _check_return(self) -> None:
        """Somebody who was alone for long comes back to those who have a leader, and disturbs nobody."""
        world, leader = self.world, self.world.leader()
        if leader is None or self._may_change_leaders():
            return
        term = max(self.oracle.leaders)
        alone = next(name for name in world.machines if name != leader.name)
        ways = [way for name in world.machines if name != alone for way in ((alone, name), (name, alone))]
        world.say("", f"--- {alone} is alone, and comes back")
        world.network.block(ways)
        self.go_on(2 * self.plan.election_max_ms / 1000)
        world.network.unblock(ways)
        self.go_on(STABLE_S)
        if max(self.oracle.leaders) != term and not self._may_change_leaders():
            self.oracle.violate(
                "who comes back disturbs nobody", f"{alone} was alone, and there was an election: {self}"
            )

    def _may_change_leaders(self) -> bool:
        """Whether something is under way that may end a leadership: the end of a damaged store, or of a member. Who has
        lost its memory does not count yet: without another one there may be no majority."""
        machines = self.world.machines.values()
        return self.world.changes > 0 or not all(
            machine.disk.is_sound and machine.replica is not None and machine.replica.engine.counts
            for machine in machines
        )

    async def _probe(self, name: str, served: dict[str, float], selected: set[str]) -> None:
        """Send messages through one gateway, to receives that wait at it: first one that takes all, then one that takes
        by a filter; what that has skipped is there for all others."""
        world, queue = self.world, f"probe-{name}"
        while name in world.machines:
            try:
                await world.ask(name, PutQueue(queue, QueueSettings(lease_ms=1000)))
                if name not in served:
                    await self._send_to_waiting(name, queue, "", [b""])
                    served[name] = self.now_s
                sieve = self.world.rng.choice(list(SIEVES))
                skipped = await self._send_to_waiting(name, queue, sieve, list(PROPERTIES))
                self.probes += 1
                left = await world.ask(name, Receive(queue, 100, 600_000, self.probes))
            except (ClusterTrouble, BrokenError):
                queue = f"probe-{name}-{self.probes}"  # who waited at the other one may take what is sent there yet
                await self.world.outside.rest(0.05)
                continue
            if isinstance(left.outcome, Received):
                there = {each.message_id + n for each in left.outcome.deliveries for n in range(each.count)}
                if not skipped <= there:
                    self.oracle.violate("what is skipped stays", f"of {skipped} at {name} there is only {there}")
                selected.add(name)
                return

    async def _send_to_waiting(self, name: str, queue: str, sieve: str, properties: list[bytes]) -> set[int]:
        """Send messages to a receive that waits already. Returns the ids of those that it does not bring."""
        world = self.world
        self.probes += 1
        receive = Receive(queue, 100, 600_000, self.probes, 10_000, filter=sieve)
        waiting = asyncio.ensure_future(world.ask(name, receive))
        waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
        block = encode_block([(b"probe-%d-%d" % (self.probes, n), each) for n, each in enumerate(properties)])
        sent = await world.ask(name, Send(queue, len(properties)), block)
        if isinstance(sent.outcome, Refused):
            raise ClusterTrouble("not_done", sent.outcome.code)  # a disk was full, and is not measured again yet
        sent_s = self.now_s
        received = await waiting
        assert isinstance(sent.outcome, Sent)
        assert isinstance(received.outcome, Received)
        if not received.outcome.deliveries or self.now_s - sent_s > WAKE_S:
            whose = f"one for {sieve}" if sieve else "one"
            self.oracle.violate("waiting receives are woken", f"{whose} at {name} is told late of what was sent")
        if sieve:
            count = sum(each.count for each in received.outcome.deliveries)
            self.history.selected(sieve, list(parts(received.block, count)))
        sent_ids = {run.message_id + n for run in sent.outcome.runs for n in range(run.count)}
        return sent_ids - {each.message_id + n for each in received.outcome.deliveries for n in range(each.count)}

    def _is_level(self) -> bool:
        machines = self.world.machines.values()
        replicas = [machine.replica for machine in machines]
        if not all(replica is not None and replica.engine.born for replica in replicas):
            return False
        engines = [replica.engine for replica in replicas if replica is not None]
        last_index = max(engine.last_index for engine in engines)
        return all(engine.applied_index >= last_index - 2 for engine in engines)

    def _check_states(self) -> None:
        """All that is not checked at every step: whole states, and the rules' own invariants."""
        with ExitStack() as stack:
            for machine in self.world.machines.values():
                stack.enter_context(machine.disk.trusted())
            self._compare_states()

    def _compare_states(self) -> None:
        digests: dict[int, tuple[str, str]] = {}
        for machine in self.world.machines.values():
            replica = machine.replica
            if replica is None:
                continue
            store: Any = replica._store
            index, digest = replica.engine.applied_index, queries.digest(store)
            name, known = digests.setdefault(index, (machine.name, digest))
            if known != digest:
                self.oracle.violate("states are the same", f"{name} and {machine.name} differ at entry {index}")
        for machine in self.world.machines.values():
            if machine.replica is not None and machine.replica.engine.applied_index == self.oracle.applied_index:
                store = machine.replica._store
                check_shape(store, self.oracle.model)
                for name in self.oracle.model.queues:
                    found = queries.find_queue(store, name)
                    counts = (
                        None if found is None else (found.ready, found.leased, found.delayed, found.dead, found.bytes)
                    )
                    self.oracle.check_counts(name, counts)
                break

    def __str__(self) -> str:
        told = []
        for machine in self.world.machines.values():
            replica = machine.replica
            if replica is None:
                told.append(f"{machine.name}: down")
                continue
            engine = replica.engine
            told.append(
                f"{machine.name}: term {engine.term}, {'leads' if engine.is_leader else f'follows {engine.leader}'}, "
                f"applied {engine.applied_index} of {engine.commit_index} of {engine.last_index}"
                + ("" if engine.born else ", unborn")
            )
        return "; ".join(told)


class Told(NamedTuple):
    """How a run went. `check` is the promise that was broken, or None."""

    seed: int
    check: str | None
    detail: str
    simulated_s: float
    totals: dict[str, int]
    transcript: list[str]


def lived(plan: Plan, variant: Variant = SOUND, *, transcript: bool = False) -> Told:
    """Live through a plan, and tell how it went."""
    lines: list[str] = []

    def log(now_s: float, who: str, text: str) -> None:
        lines.append(f"{now_s:10.4f} {who:12} {text}")

    run, check, detail = Run(plan, variant, log if transcript else None), None, ""
    gc.disable()  # a tenth of the time, for a few megabytes that are gone with the run
    try:
        run.live()
    except Violation as violation:
        check, detail = violation.check, violation.detail
    except Exception as error:  # the rules' own assertions, and whatever else was not foreseen
        trace = traceback.format_exc().splitlines()
        check, detail = f"no surprise ({type(error).__name__})", "\n".join([str(error), *trace[-8:]])
    finally:
        gc.enable()
    if check is not None:
        lines.append(f"{run.now_s:10.4f} broken       {check}: {detail}")
    return Told(plan.seed, check, detail, run.now_s, run.oracle.totals, lines)
