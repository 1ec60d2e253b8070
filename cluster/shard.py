"""The process of one replica of a shard: sockets around `cluster.replica`, on an event loop of its own."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter
from math import inf
from pathlib import Path

import msgspec
import structlog
import uvloop

from cluster.admission import Here, Refusal, adopts, refuse
from cluster.handover import Cause
from cluster.identity import store_name
from cluster.keeper import Change, Keeper
from cluster.membership import Membership, configured
from cluster.messages import Message, decode_message
from cluster.metrics import GatewayMetrics, ProcessMeter, ReplicaMetrics
from cluster.peers import Peers
from cluster.process import EXIT_DISK_FAILED, EXIT_FAILED, configure_logging, die_with, fail, fail_on_surprise
from cluster.repair import Absent, Patient
from cluster.replica import Replica
from cluster.scrub import ScrubSettings, Tally
from cluster.sockets import Port, split_address
from cluster.tls import REFRESH_S, Tls, TlsError, TlsFiles
from cluster.tuning import Tuning
from cluster.wire import (
    ASK,
    CANCEL,
    CANCEL_PAYLOAD,
    HELLO,
    OPERATIONS,
    OUTCOMES,
    PING,
    RAFT,
    REFUSED,
    REMOVED,
    REPORT,
    TOLD,
    VERSION,
    Ask,
    AskChange,
    AskDigest,
    AskLook,
    AskMetrics,
    AskScrub,
    Connection,
    Hello,
    Report,
    ToldChange,
    ToldDigest,
    ToldMetrics,
    ToldScrub,
    ask_decoder,
    hello_decoder,
)
from storage.disk import UnusableError
from storage.lmdb_store import LmdbStore
from storage.state import DamageError, StorageFailure, Sweep

REPORT_S = 0.2
"""How often gateways are told how things are, if nothing else tells them sooner."""
SWEEP_POLL_S = 0.02
"""How often it is looked whether a sweep that somebody waits for is done."""
TRANSFER_S = 1.0
"""How long a stopping leader tries to hand over before it goes anyway."""

ELECTION_STEPS = {"asked": "asks for pre-votes", "campaigned": "campaigns", "won": "won the election"}
"""How the log tells the steps of an election: `trimaran bench failover` reads from it where the time went."""

HANDOVERS: dict[Cause, str] = {
    "stop": "this node stops",
    "removal": "this node is to be removed",
    "damage": "this node's store is damaged",
    "no_room": "this node's disk has too little room, and others have enough",
}
"""How the log tells why a leader hands over."""

_log = structlog.get_logger()


class ShardConfig(msgspec.Struct, frozen=True):
    """What a shard's process is told. `socket` is for gateways.

    `peers` are the configured replicas, itself included: they are the members until the log says otherwise. `founders`
    are those that were configured when the data directory was made, `cluster` is the identity that they gave it.
    """

    parent: int
    node: str
    cluster: str
    shard: int
    directory: str
    socket: str
    listen: str
    peers: dict[str, str]
    founders: list[str]
    store_bytes_max: int
    room_reserve_bytes: int
    journal_keep_bytes: int
    scrub_interval_ms: int
    scrub_bytes_per_s: int
    heartbeat_ms: int
    election_min_ms: int
    election_max_ms: int
    log_format: str
    log_level: str
    tls: TlsFiles | None = None


class Shard:
    """A replica with its connections."""

    def __init__(self, config: ShardConfig) -> None:
        self._config = config
        self._tuning = Tuning(
            heartbeat_s=config.heartbeat_ms / 1000,
            election_min_s=config.election_min_ms / 1000,
            election_max_s=config.election_max_ms / 1000,
            journal_keep_bytes=config.journal_keep_bytes,
        )
        self._tls = Tls(config.tls, config.node) if config.tls is not None else None
        self._meter, self._metrics = ProcessMeter(), ReplicaMetrics()
        self._handed_in: dict[Connection, tuple[str, GatewayMetrics]] = {}
        """What each connected gateway last told of itself."""
        self._keeper = Keeper(
            config.node,
            configured(config.peers, config.cluster),
            Path(config.directory),
            open_store=self._open_store,
            make=self._make,
            post=lambda node, message: self._peers.send(node, message),
            monotonic=time.monotonic,
        )
        self._check_members()
        self._peers = Peers(
            self._hello,
            welcome=self._welcome,
            removed=self._removed,
            connected=self._connected,
            disconnected=self._disconnected,
            tls=self._tls,
        )
        self._followed: tuple[Replica | Patient, int] | None = None
        self._gateways: set[Connection] = set()
        self._own: set[Connection] = set()
        self._ports = (Port(self._accept, self._tls), Port(self._accept_own))
        self._sweep: Sweep | None = None
        self._digests_asked: list[tuple[Connection, int]] = []
        self._digests_due: list[tuple[Connection, int]] = []
        self._told: Report | None = None
        self._told_s = 0.0
        self._election_steps: Counter[str] = Counter()
        self._handovers: Counter[Cause] = Counter()
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._wakeup_s = -inf
        self._stopping: asyncio.Future[None] | None = None
        self._seen_off: asyncio.Future[None] | None = None
        self._closed = False

    @property
    def _replica(self) -> Replica | Patient:
        return self._keeper.replica

    def _open_store(self) -> LmdbStore:
        config = self._config
        return LmdbStore(
            Path(config.directory),
            bytes_max=config.store_bytes_max,
            identity=store_name(config.shard, config.node, config.cluster),
            migrating=lambda old, new: _log.info("migrating the store", from_format=old, to_format=new),
        )

    def _make(self, membership: Membership, store: LmdbStore, tally: Tally, ailing: str | None) -> Replica:
        config = self._config
        return Replica(
            config.node,
            membership.members,
            store,
            post=lambda node, message: self._peers.send(node, message),
            answer=self._answer,
            monotonic=time.monotonic,
            wall_ms=lambda: time.time_ns() // 1_000_000,
            rng=random.Random(),
            tuning=self._tuning,
            room_reserve_bytes=config.room_reserve_bytes,
            cluster=membership.cluster,
            tell=self._told_change,
            scrub=ScrubSettings(config.scrub_interval_ms, config.scrub_bytes_per_s),
            tally=tally,
            ailing=ailing,
            metrics=self._metrics,
        )

    def _check_members(self) -> None:
        """The log wins over the configuration. Raises `UnusableError` when there is no log to win."""
        config, engine = self._config, self._replica.engine
        if isinstance(engine, Absent):
            return
        members = engine.membership.members
        if engine.memberships.is_changed:
            if members != config.peers:
                _log.warning(
                    "the members are not those of the configuration: the cluster's record counts",
                    members=members,
                    configured=config.peers,
                )
        elif config.founders != sorted(config.peers):
            raise UnusableError(
                f"{config.directory} belongs to a cluster of {', '.join(config.founders)}, "
                f"but --peers says {', '.join(sorted(config.peers))}: members are added and removed with "
                "trimaran cluster add and remove"
            )

    async def run(self) -> None:
        """Serve until SIGTERM, then hand over and stop. Raises `OSError` when an address cannot be had."""
        loop = asyncio.get_running_loop()
        fail_on_surprise(loop)
        await self._ports[0].listen(*split_address(self._config.listen))
        self._ports[1].listen_unix(self._config.socket)
        self._peers.start()
        self._follow()
        self._mind_certificates()
        self._meter.start()
        self._poke()
        _log.info("shard started", listen=self._config.listen, applied_index=self._replica.report().applied_index)
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
        await stopped.wait()
        await self._hand_over()
        await self._see_gateways_off()
        await self._hand_over()  # should it have come back meanwhile
        self._closed = True
        for port in self._ports:
            await port.close()
        await self._peers.close()
        self._keeper.close()
        _log.info("shard stopped")

    def _mind_certificates(self) -> None:
        if self._tls is not None:
            self._tls.refresh()
            asyncio.get_running_loop().call_later(REFRESH_S, self._mind_certificates)

    async def _hand_over(self) -> None:
        """A planned stop is no failure: somebody else leads before this replica goes."""
        if isinstance(self._replica, Patient):
            return
        engine = self._replica.engine
        if not engine.is_leader or len(engine.membership.voters) == 1:
            return
        engine.transfer()
        self._stopping = asyncio.get_running_loop().create_future()
        self._poke()
        try:
            async with asyncio.timeout(TRANSFER_S):
                await self._stopping
        except TimeoutError:
            _log.warning("nobody took over", waited_s=TRANSFER_S)

    async def _see_gateways_off(self) -> None:
        """Serve this node's own gateways until they have answered what is under way. The supervisor is not patient."""
        self._seen_off = asyncio.get_running_loop().create_future()
        self._mind_gateways()
        await self._seen_off

    def _mind_gateways(self) -> None:
        own = (gateway for gateway in self._gateways if gateway.peer and gateway.peer.name == self._config.node)
        if self._seen_off is not None and not self._seen_off.done() and not any(own):
            self._seen_off.set_result(None)

    # --- ticking ------------------------------------------------------------------------------------------------------

    def _poke(self) -> None:
        """Tick at the end of this pass of the loop, once, with all that arrives in it."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._tick)

    def _tick(self) -> None:
        self._scheduled = False
        if self._closed:
            return
        try:
            change = self._keeper.tick()
        except StorageFailure as error:
            fail("storage failed", error, code=exit_code(error))
        if change is not Change.NONE:
            self._begin_again(change)
        self._follow()
        self._tell_digest()
        self._tell_leadership()
        self._tell()
        longest_s = SWEEP_POLL_S if self._sweep is not None else REPORT_S
        self._wake_at(min(self._replica.next_wakeup(), time.monotonic() + longest_s))

    def _deliver(self, node: str, message: Message) -> None:
        """A message that changes nothing durable needs no tick, but it may make one due earlier.

        Later it makes none: a timer that is too early by now ends in a tick at most once in `REPORT_S`.
        """
        if not self._replica.heed(node, message):
            self._replica.deliver(node, message)
            self._poke()
        elif self._replica.next_wakeup() < self._wakeup_s:
            self._wake_at(self._replica.next_wakeup())

    def _wake_at(self, wakeup_s: float) -> None:
        """Tick then, and not at the time set before."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wakeup_s, delay_s = wakeup_s, wakeup_s - time.monotonic()
        if delay_s <= 0:
            self._poke()
        else:
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._poke)

    def _begin_again(self, change: Change) -> None:
        """There is another replica: it has gone on from a snapshot, or knows nothing of what was said before."""
        self._digests_asked, self._sweep = self._digests_due + self._digests_asked, None
        self._digests_due = []
        self._election_steps.clear()
        self._handovers.clear()
        if change is Change.FORGOTTEN:
            self._peers.reset()
            return
        _log.info("snapshot installed", applied_index=self._replica.report().applied_index)
        for name, born in self._peers.present():
            self._replica.connected(name, born)

    def _follow(self) -> None:
        """Keep connections to everybody who is, or may come back as, a member."""
        memberships = self._replica.engine.memberships
        if self._followed == (self._replica, memberships.version):
            return
        self._followed = (self._replica, memberships.version)
        places: dict[str, dict[str, None]] = {}
        for membership in reversed(memberships.known):
            for name, address in membership.members.items():
                places.setdefault(name, {})[address] = None
        for name in places.keys() & self._config.peers.keys():
            places[name][self._config.peers[name]] = None
        places.pop(self._config.node, None)
        self._peers.follow({name: tuple(addresses) for name, addresses in places.items()})

    def _connected(self, name: str, born: bool) -> None:
        self._replica.connected(name, born)
        self._poke()

    def _disconnected(self, name: str) -> None:
        self._replica.disconnected(name)
        self._poke()

    # --- gateways -----------------------------------------------------------------------------------------------------

    def _tell_leadership(self) -> None:
        if isinstance(self._replica, Patient):
            return
        engine = self._replica.engine
        if engine.election_steps.total() != self._election_steps.total():
            for step, count in (engine.election_steps - self._election_steps).items():
                _log.info(ELECTION_STEPS[step], term=engine.term, times=count)
                self._metrics.elections[step] = self._metrics.elections.get(step, 0) + count
            self._election_steps = engine.election_steps.copy()
        if engine.handovers.total() != self._handovers.total():
            for cause, count in (engine.handovers - self._handovers).items():
                _log.info("handing over", term=engine.term, cause=HANDOVERS[cause])
                self._metrics.handovers[cause] = self._metrics.handovers.get(cause, 0) + count
            self._handovers = engine.handovers.copy()

    def _tell(self) -> None:
        """Tell the gateways what has changed, and now and then that nothing has."""
        report, told, now_s = self._report(), self._told, time.monotonic()
        if report.leader not in (None, self._config.node) and self._stopping is not None and not self._stopping.done():
            self._stopping.set_result(None)
        if told is not None and now_s - self._told_s < REPORT_S and _gist(report) == _gist(told):
            return
        if told is None or (report.leader, report.term, report.serving) != (told.leader, told.term, told.serving):
            _log.info("leader", leader=report.leader, term=report.term, serving=report.serving)
        self._told, self._told_s = report, now_s
        encoded = msgspec.msgpack.encode(self._whole(report))
        for gateway in self._gateways:
            gateway.send(REPORT, encoded)

    def _told_change(self, gateway: object, told: ToldChange) -> None:
        assert isinstance(gateway, Connection)
        _log.info("change of the members answered", code=told.code or "done", detail=told.detail)
        gateway.send(TOLD, msgspec.msgpack.encode(told))

    def _tell_digest(self) -> None:
        """Answer those who have asked for this replica's digest, with one sweep begun after they asked."""
        store = self._keeper.store
        if not (self._digests_asked or self._digests_due):
            return
        try:
            if store is None:
                raise DamageError("the store cannot be used")
            if self._sweep is None:
                self._sweep, self._digests_due, self._digests_asked = store.start_sweep(), self._digests_asked, []
            if not self._sweep.ready:
                return
            swept = self._sweep.result
            told = ToldDigest(0, swept.applied[0], swept.digest, swept.records)
        except DamageError as error:
            told = ToldDigest(0, 0, b"", 0, f"this replica is damaged: {error}")
            self._digests_due, self._digests_asked = self._digests_due + self._digests_asked, []
            if store is not None:
                self._keeper.suspect(error)
                self._poke()
        self._sweep = None
        for gateway, number in self._digests_due:
            gateway.send(TOLD, msgspec.msgpack.encode(msgspec.structs.replace(told, number=number)))
        self._digests_due = []

    def _report(self) -> Report:
        report = self._replica.report()
        voters = self._replica.engine.membership.voters
        reachable = sum(name == self._config.node or self._peers.reachable(name) for name in voters)
        has_quorum = report.has_quorum and 2 * reachable > len(voters)
        # A leader that has just lost its majority still believes that it leads: nobody should wait for it.
        return msgspec.structs.replace(report, has_quorum=has_quorum, serving=report.serving and has_quorum)

    def _whole(self, report: Report) -> Report:
        """The report with the members, each where it was found."""
        members = [
            msgspec.structs.replace(member, address=self._peers.address(member.name) or member.address)
            for member in self._replica.members()
        ]
        return msgspec.structs.replace(report, members=members)

    def _answer(self, gateway: object, parts: list[bytes]) -> None:
        assert isinstance(gateway, Connection)
        gateway.send(OUTCOMES, *parts)

    # --- incoming connections -----------------------------------------------------------------------------------------

    def _hello(self) -> Hello:
        config, engine = self._config, self._replica.engine
        return Hello(
            VERSION,
            engine.membership.cluster,
            config.shard,
            "replica",
            config.node,
            engine.born,
            engine.is_blank,
            config.peers[config.node],
            engine.data,
        )

    def _accept(self) -> Connection:
        return Connection(self._on_frame, self._on_lost)

    def _accept_own(self) -> Connection:
        """This node's gateways: they need not know what cluster it belongs to."""
        connection = self._accept()
        self._own.add(connection)
        return connection

    def _on_frame(self, connection: Connection, kind: int, payload: memoryview) -> None:
        peer = connection.peer
        if peer is None:
            if kind != HELLO:
                raise ValueError("only a hello begins a connection")
            self._greet(connection, hello_decoder.decode(payload))
        elif peer.role == "replica":
            if not self._peers.is_current(peer.name, connection):
                raise ValueError("there is a newer connection")
            self._peers.heard(peer.name)
            if kind == RAFT:
                self._deliver(peer.name, decode_message(payload))
            elif kind != PING:
                raise ValueError(f"a replica does not send frames of kind {kind}")
        elif kind == OPERATIONS:
            if self._replica.request(connection, payload):
                self._poke()
            else:
                connection.send(REPORT, msgspec.msgpack.encode(self._whole(self._report())))
        elif kind == ASK:
            self._on_question(connection, ask_decoder.decode(payload))
        elif kind == CANCEL and len(payload) == CANCEL_PAYLOAD.size:
            self._replica.cancel(*CANCEL_PAYLOAD.unpack(payload))
        else:
            raise ValueError(f"a gateway does not send such frames of kind {kind}")

    def _on_question(self, connection: Connection, question: Ask) -> None:
        match question:
            case AskLook():
                connection.send(TOLD, msgspec.msgpack.encode(self._keeper.look(question)))
            case AskDigest():
                self._digests_asked.append((connection, question.number))
            case AskChange():
                if not self._replica.change(connection, question):
                    connection.send(REPORT, msgspec.msgpack.encode(self._whole(self._report())))
            case AskMetrics():
                self._handed_in[connection] = (question.name, question.own)
                connection.send(TOLD, msgspec.msgpack.encode(self._measure(question.number)))
            case AskScrub():
                connection.send(TOLD, msgspec.msgpack.encode(self._ask_for_scrub(question.number)))
        self._poke()

    def _measure(self, number: int) -> ToldMetrics:
        """The numbers of this process, and of the node's gateways."""
        shard = self._keeper.measure(self._meter.read(), self._peers.reached())
        shard.replica, shard.gateways = self._metrics, len(self._gateways)
        shard.refused = sum(port.refused for port in self._ports)
        shard.store_bytes = (Path(self._config.directory) / "data.mdb").stat().st_size
        return ToldMetrics(number, shard, dict(self._handed_in.values()))

    def _ask_for_scrub(self, number: int) -> ToldScrub:
        """Have a pass of the scrub begin."""
        replica = self._replica
        if isinstance(replica, Patient) or not replica.report().serving:
            return ToldScrub(number, "this replica does not lead")
        replica.scrub.ask()
        return ToldScrub(number, None, replica.clock.now_ms())

    def _here(self) -> Here:
        """What this replica knows when somebody says hello."""
        config, engine = self._config, self._replica.engine
        applied = engine.memberships.applied
        removed = applied.removed if applied is not None else ()
        return Here(config.node, config.shard, engine.is_blank, engine.membership, removed, config.peers)

    def _greet(self, connection: Connection, hello: Hello) -> None:
        refusal = self._refuse(connection, hello)
        if refusal is not None:
            connection.refuse(refusal.detail, REMOVED if refusal.removed else REFUSED)
            return
        connection.introduce(hello)
        connection.send(HELLO, msgspec.json.encode(self._hello()))
        if hello.role == "replica":
            self._peers.accepted(hello.name, connection)
        else:
            self._gateways.add(connection)
            connection.send(REPORT, msgspec.msgpack.encode(self._whole(self._report())))

    def _refuse(self, connection: Connection, hello: Hello) -> Refusal | None:
        here = self._here()
        if connection.certified not in (None, hello.name):
            return Refusal(f"the certificate of {connection.certified} does not speak for {hello.name}")
        if connection in self._own and hello.role == "gateway":
            hello = msgspec.structs.replace(hello, cluster=here.membership.cluster)
        if hello.role == "replica" and self._peers.has_other_data(hello):
            return Refusal(f"{hello.name} is connected already, with other data: two nodes cannot have one name")
        refusal = refuse(hello, here)
        if refusal is None:
            self._adopt(hello, here)
        return refusal

    def _welcome(self, hello: Hello) -> str:
        """Why the replica that answers is not to be spoken with, or nothing."""
        here = self._here()
        refusal = refuse(hello, here)
        if refusal is not None:
            return refusal.detail
        self._adopt(hello, here)
        return ""

    def _adopt(self, hello: Hello, here: Here) -> None:
        if adopts(hello, here):
            _log.info("belongs to a cluster now", cluster=hello.cluster, by=hello.name)
            self._replica.adopt(hello.cluster)
            self._poke()

    def _removed(self, words: str) -> None:
        """A member says that this replica was removed."""
        if not self._replica.engine.is_removed:
            _log.error("this node was removed from the cluster and serves no more", cause=words)
            self._replica.retire()
            self._poke()

    def _on_lost(self, connection: Connection) -> None:
        self._own.discard(connection)
        if connection.peer is None:
            return
        if connection.peer.role == "replica":
            self._peers.lost(connection.peer.name, connection)
        else:
            self._gateways.discard(connection)
            self._handed_in.pop(connection, None)
            self._replica.forsake(connection)
            self._mind_gateways()


_REMEDIES = {
    StorageFailure: "mend or replace the disk; with an empty directory the replica gets everything from the others",
    DamageError: "there are no others to get it from: restore a backup, or begin anew with an empty directory",
}


def exit_code(error: StorageFailure) -> int:
    """A disk that has failed does not get better by starting again; other failures may."""
    return EXIT_FAILED if isinstance(error, DamageError) else EXIT_DISK_FAILED


def _gist(report: Report) -> tuple[object, ...]:
    return (
        *(report.leader, report.term, report.serving, report.has_quorum, report.trouble),
        *(report.members_version, report.is_removed, report.access_index),
    )


def main() -> None:
    """Run the shard that the first argument describes, as JSON."""
    config = msgspec.json.decode(sys.argv[1], type=ShardConfig)
    die_with(config.parent)
    configure_logging(config.log_format, config.log_level, node=config.node, process=f"shard-{config.shard}")
    try:
        shard = Shard(config)
        uvloop.run(shard.run())
    except OSError as error:
        _log.critical("cannot listen", listen=config.listen, cause=error.strerror or str(error))
        os._exit(1)
    except UnusableError as error:
        _log.critical("cannot use the store", cause=str(error))
        os._exit(1)
    except TlsError as error:
        _log.critical("cannot use the certificates", cause=str(error))
        os._exit(1)
    except StorageFailure as error:
        _log.critical("cannot read the store", cause=str(error), remedy=_REMEDIES[type(error)])
        os._exit(exit_code(error))
    except Exception as error:
        fail("shard failed", error)


if __name__ == "__main__":
    main()
