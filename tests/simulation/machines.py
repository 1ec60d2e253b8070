"""A world of machines on which the product's own processes run: a shard and a gateway each.

`Shard`, `Replica`, `Engine`, `Peers` and `Client` are the real ones; what is replaced under them, for as long as a
world stands (`World.standing`), is the clock, chance, the store's disk, the sockets, and the way a process ends.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import signal
import socket
import sys
import time
import types
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from math import ceil, inf
from typing import Any, Literal, NoReturn, TypeVar, cast
from unittest.mock import patch

import structlog

import cluster.keeper
import cluster.leadership
import cluster.links
import cluster.metrics
import cluster.peers
import cluster.process
import cluster.replica
import cluster.shard
from cluster import identity
from cluster.client import Client, Reply
from cluster.keeper import Keeper
from cluster.links import NO_QUORUM_S
from cluster.membership import ChangeRefusedError
from cluster.metrics import LAG_PROBE_S
from cluster.peers import PING_S, SILENCE_S
from cluster.replica import Replica
from cluster.shard import REPORT_S, Shard, ShardConfig
from cluster.trouble import ClusterTrouble
from cluster.tuning import Tuning
from storage import machine as rules
from storage import sift_look, sifting
from storage.operations import Operation
from storage.state import StorageFailure
from tests.simulation.broken import Variant
from tests.simulation.clockwork import Clockwork, Killed, Process
from tests.simulation.cluster_time import EPOCH_MS
from tests.simulation.disk import Disk, DiskStore
from tests.simulation.network import Network, Socket
from tests.simulation.oracle import Oracle
from tests.simulation.plan import Plan
from tests.simulation.rooms import RELIEF_S
from tests.storage.naive_sifting import SELECTORS_MAX, WINDOW_MS

T = TypeVar("T")
RESTART_S = (0.3, 1.5)
"""How soon a node that has ended is started again, as systemd would."""
HOP_S = (0.0001, 0.0005)
"""From a client to a gateway, or back."""
LINE_MAX = 240
"""Characters of a line of the transcript."""
DRAIN_S = 20.0
"""How long a stopping gateway waits for what it was asked."""
BESIDE = ("read_note", "write_note", "remove_note", "read_members", "write_members", "set_aside")
"""Functions on the files beside a store, by which a keeper repairs it: each is the disk's."""
PASSING = ("change_under_way", "no_majority_left", "no_heir", "too_many_members")
"""Refusals of a change that may come about later."""
SIFT_MESSAGES_MAX = 8
"""How many messages a leader looks at for filters in one step."""
HANG_S = 5.0
"""After how long a client notices that a machine without power does not answer."""

# Small numbers, so that limits are met all the time. On a slow network enough may be under way for the load, though.
_TIGHT = Tuning(
    batch_bytes=1000,
    batch_entries=4,
    window_messages=3,
    window_bytes=2000,
    apply_entries=5,
    apply_bytes=2000,
    cache_bytes=500,
    journal_keep_entries=12,
    compact_steps=4,
    piece_bytes=700,
    window_pieces=2,
    snapshot_stall_s=2.0,
    snapshot_linger_s=1.0,
)
TUNINGS = {
    "plain": Tuning(),
    "tight": _TIGHT,
    "far": replace(_TIGHT, window_messages=12, window_bytes=8000, window_pieces=8, snapshot_linger_s=3.0),
    "brief": replace(_TIGHT, piece_bytes=1 << 20, window_messages=64, window_bytes=1 << 20),
}


class BrokenError(Exception):
    """A client's connection to a gateway broke: what it asked for may have happened."""


class Failed(Killed):
    """A process ended itself, and said why."""

    def __init__(self, event: str, error: BaseException) -> None:
        super().__init__(f"{event}: {type(error).__name__}: {error}")
        self.error = error


class Machine:
    """One machine: its clocks and its disk, which outlive its processes."""

    def __init__(self, name: str, network: Network, disk: Disk, pace: float, skew_s: float) -> None:
        self.name, self.network, self.disk = name, network, disk
        self.pace, self.skew_s = pace, skew_s
        self.boot_s = random.Random(f"boot {name}").uniform(10.0, 1e6)
        self.shard: Process | None = None
        self.gateway: Process | None = None
        self.client: Client | None = None
        self.keeper: Keeper | None = None
        self.asked: dict[asyncio.Future[Any], None] = {}
        self.jumped_s = 0.0
        self.is_dark = False
        self.is_member = True
        self.is_stopping = False
        self.rest_s = 0.0
        self.starts = 0

    @property
    def is_up(self) -> bool:
        return self.shard is not None

    @property
    def replica(self) -> Replica | None:
        """The replica that runs here, if one can: a damaged store has none."""
        replica = self.keeper.replica if self.keeper is not None else None
        return replica if isinstance(replica, Replica) else None

    @property
    def leads(self) -> bool:
        return self.replica is not None and self.replica.engine.is_leader


class _Time:
    """Stands for the module `time`: whoever asks is a process, and has its machine's clocks."""

    def __init__(self, clockwork: Clockwork) -> None:
        self._clockwork = clockwork

    def monotonic(self) -> float:
        # What `Process.monotonic` says: asked for so often that a call less is worth a line.
        clockwork = self._clockwork
        process: Any = clockwork.current
        machine = process.machine
        return machine.boot_s + (clockwork.now_s + process._spent_s) * machine.pace  # type: ignore[no-any-return]

    def time_ns(self) -> int:
        process = self._clockwork.current
        assert process is not None
        return int((EPOCH_MS / 1000 + process.now_s() + process.machine.skew_s) * 1e9)


class World:
    """All machines, and the clients outside."""

    def __init__(self, plan: Plan, variant: Variant, oracle: Oracle, log: Callable[[str, str], None] | None) -> None:
        self.plan, self.variant, self.oracle = plan, variant, oracle
        self.clockwork = Clockwork()
        self.network = Network(self.clockwork, plan.chance, plan.delay_s, plan.grain_s)
        self.rng = random.Random(f"world {plan.chance}")
        self.machines: dict[str, Machine] = {}
        self.names = list(plan.names)
        """Of all machines that there ever were: a name is not used again."""
        for name, skew_s, pace in zip(plan.names, plan.skews_s, plan.paces, strict=True):
            self.machines[name] = self._machine(name, skew_s, pace)
        outside = Machine("outside", self.network, variant.disk(self.rng, plan.commit_s, 0.0), 1.0, 0.0)
        self.outside = Process(self.clockwork, "clients", outside, self._client_failed)
        self.outside.loop.set_exception_handler(self._client_surprised)
        self._log = log
        self.counts: dict[str, int] = {}
        self.tuning = variant.tuning(TUNINGS[plan.tuning])
        self.healed = 0
        self.story_over_s = 0.0
        """One story is told at a time (`tests.simulation.stories`)."""
        self.changes = 0
        """Changes of the members that are under way."""
        oracle.time.true_ms = lambda: EPOCH_MS + self.present.now_s() * 1000
        oracle.time.skews_ms = lambda: [machine.skew_s * 1000 for machine in self.machines.values()]

    def _machine(self, name: str, skew_s: float, pace: float) -> Machine:
        disk = self.variant.disk(random.Random(f"disk {self.plan.chance} {name}"), self.plan.commit_s, self.plan.copy_s)
        return Machine(name, self.network, disk, pace, skew_s)

    # --- what is replaced under the product's code -------------------------------------------------------------------

    @contextmanager
    def standing(self) -> Iterator[None]:
        """While this lasts, the product's code runs in this world."""
        clock = _Time(self.clockwork)
        chance = types.SimpleNamespace(Random=self._chance, randbits=lambda count: self._chance().getrandbits(count))
        with ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore", RuntimeWarning)  # a killed process leaves coroutines that never began

            def put(module: Any, **values: Any) -> None:
                stack.enter_context(patch.multiple(module, **values))

            sockets = types.SimpleNamespace(**{**vars(socket), "socket": lambda family, kind: Socket(self.network)})
            stands_for: dict[str, tuple[Any, Any]] = {"time": (time, clock), "socket": (socket, sockets)}
            stands_for |= {"random": (random, chance), "secrets": (secrets, chance)}
            for name, module in list(sys.modules.items()):
                for library, (real, simulated) in stands_for.items():
                    if name.startswith("cluster.") and getattr(module, library, None) is real:
                        put(module, **{library: simulated})
            put(cluster.shard, LmdbStore=self._open_store, Keeper=self._make_keeper, Replica=self._make_replica)
            put(cluster.shard, Tuning=self._tune, fail=self._fail)
            ease = self.plan.ease
            put(cluster.peers, PING_S=PING_S * ease, SILENCE_S=SILENCE_S * ease)
            put(cluster.shard, REPORT_S=REPORT_S * ease)
            put(cluster.links, NO_QUORUM_S=NO_QUORUM_S * ease)
            put(cluster.leadership, RELIEF_S=RELIEF_S)
            put(cluster.metrics, LAG_PROBE_S=LAG_PROBE_S * 100)
            put(cluster.keeper, **{name: partial(self._beside, name) for name in BESIDE})
            put(cluster.process, fail=self._fail)
            put(cluster.replica, machine=_Rules(self.oracle), Engine=self.variant.engine)
            put(sifting, SELECTORS_MAX=SELECTORS_MAX, SELECTOR_WINDOW_MS=WINDOW_MS)
            put(sift_look, SIFT_MESSAGES_MAX=SIFT_MESSAGES_MAX)
            for module, values in self.variant.patches.items():
                put(module, **values)
            stack.enter_context(self._logging())
            try:
                yield
            finally:
                self.end()

    def end(self) -> None:
        """Nothing more happens."""
        for machine in self.machines.values():
            for process in (machine.shard, machine.gateway):
                if process is not None:
                    process.kill()
        self.outside.kill()

    @contextmanager
    def _logging(self) -> Iterator[None]:
        before = structlog.get_config()
        level = 20 if self._log is not None else 50
        structlog.configure(
            processors=[self._note],
            wrapper_class=structlog.make_filtering_bound_logger(level),
            logger_factory=structlog.ReturnLoggerFactory(),
            cache_logger_on_first_use=False,
        )
        try:
            yield
        finally:
            structlog.configure(**before)

    def _note(self, _logger: Any, _method: str, event: dict[str, Any]) -> str:
        process = self.clockwork.current
        if process is not None and not process.is_dead:  # nobody hears the last words of the killed
            self.say(process.name, event.pop("event") + "".join(f" {key}={value}" for key, value in event.items()))
        raise structlog.DropEvent

    def say(self, who: str, text: str, subject: object = "") -> None:
        """A line of the transcript: a text, and what it speaks of."""
        if self._log is not None:
            self._log(who, f"{text}{subject}"[:LINE_MAX])

    @property
    def present(self) -> Process:
        assert self.clockwork.current is not None
        return self.clockwork.current

    def _chance(self) -> random.Random:
        process = self.present
        return random.Random(f"{self.plan.chance} {process.name} {process.machine.starts}")

    def _open_store(self, directory: Any, **_: Any) -> DiskStore:
        process = self.present
        return process.machine.disk.open(process, self.oracle)

    def _beside(self, name: str, directory: Any, *args: Any) -> Any:
        """What a keeper does with the files beside its store."""
        return getattr(self.present.machine.disk, name)(*args)

    def _make_keeper(self, *args: Any, **kwargs: Any) -> Keeper:
        keeper = self.present.machine.keeper = object.__new__(Keeper)  # known before it opens the store
        keeper.replica = None  # type: ignore[assignment]
        Keeper.__init__(keeper, *args, **kwargs)
        return keeper

    def _make_replica(self, *args: Any, **kwargs: Any) -> Replica:
        replica: Replica = self.variant.replica(self.oracle, *args, **kwargs)
        self.oracle.began(replica)
        return replica

    def _tune(self, **given: Any) -> Tuning:
        kept = {key: value for key, value in given.items() if not key.startswith("journal_keep")}
        return replace(self.tuning, **kept)

    def _fail(self, event: str, error: BaseException, *, code: int = 0) -> NoReturn:
        raise Failed(event, error)

    # --- machines -----------------------------------------------------------------------------------------------------

    def boot(self, machine: Machine) -> None:
        """Start the machine's node, if it is not running."""
        if machine.is_up or machine.is_dark or machine.rest_s == inf:
            return
        machine.starts += 1
        machine.is_stopping, machine.rest_s = False, 0.0
        shard = machine.shard = Process(self.clockwork, f"{machine.name} shard", machine, self._ended)
        gateway = machine.gateway = Process(self.clockwork, f"{machine.name} gateway", machine, self._ended)
        gateway.dispatch(lambda: gateway.loop.create_task(self._run_gateway(machine)))
        shard.dispatch(self._run_shard, shard)

    def boot_soon(self, machine: Machine, within_s: float = 0.0) -> None:
        low_s, high_s = RESTART_S
        self.clockwork.later(within_s + self.rng.uniform(low_s, high_s), self.boot, machine)

    def _run_shard(self, process: Process) -> None:
        plan, name, disk = self.plan, process.machine.name, process.machine.disk
        disk.founders = disk.founders or sorted({*self.members(), name})
        peers = {other: address(other) for other in disk.founders}
        config = ShardConfig(
            parent=0,
            node=name,
            cluster=identity.found(name, peers).cluster,
            shard=0,
            directory=f"/simulated/{name}",
            socket=f"/simulated/{name}/socket",
            listen=address(name),
            peers=peers,
            founders=disk.founders,
            store_bytes_max=1 << 30,
            room_reserve_bytes=1 << 20,
            journal_keep_bytes=1 << 26,
            scrub_interval_ms=plan.scrub_ms,
            scrub_bytes_per_s=1 << 24,
            heartbeat_ms=plan.heartbeat_ms,
            election_min_ms=plan.election_min_ms,
            election_max_ms=plan.election_max_ms,
            log_format="",
            log_level="",
        )
        try:
            shard = Shard(config)
        except StorageFailure as error:
            raise Failed("storage failed at the start", error) from error

        def over(task: asyncio.Task[None]) -> None:
            error = task.exception()
            self._ended(process, Killed("stopped") if error is None else Failed("shard failed", error))

        process.loop.create_task(shard.run()).add_done_callback(over)

    async def _run_gateway(self, machine: Machine) -> None:
        cluster.process.fail_on_surprise(asyncio.get_running_loop())
        name = machine.name
        client = Client(name, f"unix:/simulated/{name}/socket")
        await client.start()
        machine.client = client

    def _ended(self, process: Process, cause: BaseException) -> None:
        """A process has ended by itself, and takes its node with it."""
        machine = process.machine
        if process.is_dead:
            return
        self.say(process.name, f"ended: {cause}")
        self.oracle.process_ended(machine, process.name, cause)
        self.crash(machine)
        if machine.disk.trouble is not None and machine.disk.trouble.steps <= 0:
            machine.disk.trouble = None
        if machine.rest_s < inf:
            self.boot_soon(machine, machine.rest_s)

    def crash(self, machine: Machine, *, power: bool = False) -> None:
        """The node is gone at once: SIGKILL, or with the machine's power."""
        for process in (machine.shard, machine.gateway):
            if process is not None:
                process.kill()
        machine.disk.stop()
        if power:
            machine.is_dark = True
            self.network.darken(machine.name)
            machine.disk.lose_power()
        for process in (machine.shard, machine.gateway):
            if process is not None and not power:
                self.network.end_process(process)
        machine.shard = machine.gateway = machine.client = machine.keeper = None
        asked, machine.asked = list(machine.asked), {}
        for future in asked:
            delay_s = HANG_S if power else self.rng.uniform(*HOP_S)
            self.clockwork.later(delay_s, self.outside.dispatch, _break, future)

    def restore_power(self, machine: Machine) -> None:
        if machine.is_dark:
            machine.is_dark = False
            self.network.lighten(machine.name)

    def stop(self, machine: Machine, rest_s: float) -> None:
        """A planned stop: SIGTERM to all, as the supervisor does, and a start `rest_s` after everything has ended.

        The gateway ends when it has answered everything.
        """
        shard, gateway, client = machine.shard, machine.gateway, machine.client
        if shard is None or gateway is None or machine.is_stopping:
            return
        machine.is_stopping, machine.rest_s = True, rest_s
        term = shard.signals.get(signal.SIGTERM)
        if term is None or client is None:
            self._ended(shard, Killed("stopped before it had started"))
            return

        async def close() -> None:
            began_s = gateway.now_s()
            while machine.asked and gateway.now_s() - began_s < DRAIN_S:
                await gateway.rest(0.01)
            await client.close()
            self.clockwork.at(gateway.now_s(), None, end)

        def end() -> None:
            if not gateway.is_dead:
                gateway.kill()
                self.network.end_process(gateway)
                machine.client = None

        shard.dispatch(term)
        gateway.dispatch(lambda: gateway.loop.create_task(close()))

    def heal(self) -> None:
        """Every fault ends; what is down is started, and a disk that reads wrong is replaced when it is found out."""
        self.healed += 1
        self.say("", "--- all is healed")
        self.network.blocked.clear()
        self.network.slow_s.clear()
        self.network.unblock([])
        for machine in self.machines.values():
            machine.disk.heal()
            machine.skew_s -= machine.jumped_s
            machine.jumped_s = 0.0
            machine.rest_s = 0.0
            self.restore_power(machine)
            for process in (machine.shard, machine.gateway):
                if process is not None:
                    process.resume()
            self.boot(machine)

    def remember(self) -> bool:
        """Whether every machine's disk remembers what its replica has promised."""
        return all(machine.disk.meta("born") in (b"0", b"1") for machine in self.machines.values())

    def members(self) -> list[str]:
        """Who belongs to the cluster, as whoever administers it knows."""
        return [name for name, machine in self.machines.items() if machine.is_member]

    async def join(self) -> None:
        """Add a machine to the cluster, and go on trying until it is a member."""
        number = len(self.names) + 1
        name = f"n{number}"
        self.names.append(name)
        chance = random.Random(f"machine {self.plan.chance} {name}")
        machine = self.machines[name] = self._machine(name, chance.uniform(-0.5, 0.5), chance.uniform(0.9999, 1.0001))
        machine.is_member = False
        self.boot(machine)
        await self._change("add", name)
        machine.is_member = True

    async def leave(self, name: str) -> None:
        """Remove a machine from the cluster, unless the cluster will not have it, and switch it off."""
        if await self._change("remove", name):
            machine = self.machines[name]
            machine.rest_s = inf
            self.crash(machine)
            del self.machines[name]

    async def _change(self, verb: Literal["add", "remove"], name: str) -> bool:
        """Ask any gateway for a change, until it is done or refused."""
        self.changes += 1
        try:
            return await self._persist(verb, name)
        finally:
            self.changes -= 1

    async def _persist(self, verb: Literal["add", "remove"], name: str) -> bool:
        while True:
            at = self.rng.choice([other for other in self.members() if other != name])
            try:
                await self.through(at, lambda client: client.change(verb, name, address(name), timeout_ms=2000))
            except ChangeRefusedError as refused:
                self.say("", f"--- {verb} {name} is refused: {refused}")
                self.oracle.count(f"refused {refused.code}")
                if refused.code not in PASSING:
                    return False
            except (ClusterTrouble, BrokenError):
                pass
            else:
                self.say("", f"--- {verb} {name} is done")
                self.oracle.count(f"done {verb}")
                return True
            await self.outside.rest(0.2)

    def leader(self) -> Machine | None:
        """The leader of the highest term."""
        leaders = [machine for machine in self.machines.values() if machine.leads]
        return max(leaders, key=lambda machine: machine.replica.engine.term if machine.replica else 0, default=None)

    # --- clients ------------------------------------------------------------------------------------------------------

    def spawn(self, coroutine: Any) -> None:
        """Begin a task outside, whose errors end the run."""

        def over(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception() is not None and self.oracle.trouble is None:
                self.oracle.trouble = task.exception()
                self.clockwork.halt()

        def begin() -> None:
            self.outside.loop.create_task(coroutine).add_done_callback(over)

        self.outside.dispatch(begin)

    async def ask(self, name: str, operation: Operation, block: bytes = b"", *, timeout_ms: int = 10_000) -> Reply:
        """Have the gateway of machine `name` carry out an operation.

        Raises `BrokenError` when its connection breaks or is refused, `ClusterTrouble` as the gateway does.
        """

        async def submit(client: Client) -> Reply:
            session, seq = client._session, client._seq + 1
            self.say(f"{name} gateway", f"{seq} is asked: ", operation)
            try:
                reply = await client.submit(operation, block, timeout_ms=timeout_ms)
            except ClusterTrouble as trouble:
                self.say(f"{name} gateway", f"{seq} is {trouble.outcome}: {trouble}")
                if trouble.outcome == "not_done" and client._seq >= seq:
                    self.oracle.denied(session, seq)
                raise
            self.say(f"{name} gateway", f"{seq} is answered: ", reply.outcome)
            self.oracle.answered(session, seq, operation, reply)
            return reply

        return await self.through(name, submit)

    async def through(self, name: str, work: Callable[[Client], Awaitable[T]]) -> T:
        """Have `work` done by the gateway of machine `name`. Raises `BrokenError`, and what `work` raises."""
        machine, clockwork = self.machines.get(name), self.clockwork
        answer: asyncio.Future[T] = self.outside.loop.create_future()
        serving: list[asyncio.Task[None]] = []
        if machine is None:
            raise BrokenError("there is no such machine any more")

        def settle(result: T | None, error: Exception | None) -> None:
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(cast(T, result))

        async def serve() -> None:
            client, process = machine.client, clockwork.current
            assert client is not None
            assert process is not None
            result: T | None = None
            error: Exception | None = None
            try:
                result = await work(client)
            except (ClusterTrouble, ChangeRefusedError) as trouble:
                error = trouble
            machine.asked.pop(answer, None)
            clockwork.at(process.now_s() + self.rng.uniform(*HOP_S), self.outside, settle, result, error)

        def arrive() -> None:
            gateway = machine.gateway
            if machine.is_dark:
                clockwork.later(HANG_S, self.outside.dispatch, _break, answer)
            elif gateway is None or machine.client is None or machine.is_stopping:
                self.outside.dispatch(_break, answer)
            else:
                machine.asked[answer] = None
                gateway.dispatch(lambda: serving.append(gateway.loop.create_task(serve())))

        def leave() -> None:
            gateway = machine.gateway
            if serving and gateway is not None and not gateway.is_dead:
                gateway.dispatch(serving[0].cancel)

        arrives_s, beat_s = self.outside.now_s() + self.rng.uniform(*HOP_S), self.plan.beat_s
        clockwork.at(ceil(arrives_s / beat_s) * beat_s if beat_s else arrives_s, None, arrive)
        try:
            return await answer
        except asyncio.CancelledError:
            machine.asked.pop(answer, None)
            clockwork.at(self.outside.now_s() + self.rng.uniform(*HOP_S), None, leave)
            raise

    def _client_failed(self, process: Process, cause: BaseException) -> None:
        raise cause

    def _client_surprised(self, _loop: Any, context: dict[str, Any]) -> None:
        self.oracle.trouble = context.get("exception") or RuntimeError(context["message"])
        self.clockwork.halt()


def address(name: str) -> str:
    """Where the shard of machine `name` listens."""
    return f"{name}:7001"


def _break(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(BrokenError("the connection broke"))


class _Rules:
    """Stands for `storage.machine`, and lets the oracle see what is applied."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle

    def __getattr__(self, name: str) -> Any:
        return getattr(rules, name)

    def apply(self, state: DiskStore, index: int, entry: bytes) -> rules.Turned:
        turned = rules.apply(state, index, entry)
        self._oracle.applied(state, index, entry, turned)
        return turned
