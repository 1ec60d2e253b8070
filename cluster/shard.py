"""The process of one replica of a shard: sockets around `cluster.replica`, on an event loop of its own."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import msgspec
import structlog
import uvloop

from cluster.engine import ReinstalledError
from cluster.messages import decode_message
from cluster.peers import Peers
from cluster.process import configure_logging, die_with, fail, fail_on_surprise
from cluster.replica import Replica
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
    REPORT,
    TOLD,
    VERSION,
    Ask,
    AskLook,
    Connection,
    Hello,
    Report,
    ToldDigest,
    ask_decoder,
    hello_decoder,
)
from storage.disk import UnusableError
from storage.lmdb_store import LmdbStore
from storage.state import StorageFailure, Sweep

REPORT_S = 0.2
"""How often gateways are told how things are, if nothing else tells them sooner."""
SWEEP_POLL_S = 0.02
"""How often it is looked whether a sweep that somebody waits for is done."""
TRANSFER_S = 1.0
"""How long a stopping leader tries to hand over before it goes anyway."""

ELECTION_STEPS = {"asked": "asks for pre-votes", "campaigned": "campaigns", "won": "won the election"}
"""How the log tells the steps of an election: `trimaran bench failover` reads from it where the time went."""

_log = structlog.get_logger()


class ShardConfig(msgspec.Struct, frozen=True):
    """What a shard's process is told. `peers` are all replicas by name, itself included; `socket` is for gateways."""

    parent: int
    node: str
    cluster: str
    shard: int
    directory: str
    socket: str
    listen: str
    peers: dict[str, str]
    store_bytes_max: int
    room_reserve_bytes: int
    journal_keep_bytes: int
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
        self._replica = self._open()
        others = {name: address for name, address in config.peers.items() if name != config.node}
        self._peers = Peers(
            self._hello, others, connected=self._connected, disconnected=self._disconnected, tls=self._tls
        )
        self._majority = len(config.peers) // 2 + 1
        self._gateways: set[Connection] = set()
        self._ports = (Port(self._accept, self._tls), Port(self._accept))
        self._sweep: Sweep | None = None
        self._digests_asked: list[tuple[Connection, int]] = []
        self._digests_due: list[tuple[Connection, int]] = []
        self._told: Report | None = None
        self._told_s = 0.0
        self._election_steps: Counter[str] = Counter()
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._stopping: asyncio.Future[None] | None = None
        self._seen_off: asyncio.Future[None] | None = None
        self._closed = False

    def _open(self) -> Replica:
        config = self._config
        self._store = LmdbStore(
            Path(config.directory),
            bytes_max=config.store_bytes_max,
            identity=f"shard {config.shard} of node {config.node} of cluster {config.cluster}",
            migrating=lambda old, new: _log.info("migrating the store", from_format=old, to_format=new),
        )
        return Replica(
            config.node,
            list(config.peers),
            self._store,
            post=lambda node, message: self._peers.send(node, message),
            answer=self._answer,
            monotonic=time.monotonic,
            wall_ms=lambda: time.time_ns() // 1_000_000,
            rng=random.Random(),
            tuning=self._tuning,
            room_reserve_bytes=config.room_reserve_bytes,
        )

    async def run(self) -> None:
        """Serve until SIGTERM, then hand over and stop. Raises `OSError` when an address cannot be had."""
        loop = asyncio.get_running_loop()
        fail_on_surprise(loop)
        await self._ports[0].listen(*split_address(self._config.listen))
        self._ports[1].listen_unix(self._config.socket)
        self._peers.start()
        self._mind_certificates()
        self._poke()
        _log.info("shard started", listen=self._config.listen, applied_index=self._replica.engine.applied_index)
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
        self._store.close()
        _log.info("shard stopped")

    def _mind_certificates(self) -> None:
        if self._tls is not None:
            self._tls.refresh()
            asyncio.get_running_loop().call_later(REFRESH_S, self._mind_certificates)

    async def _hand_over(self) -> None:
        """A planned stop is no failure: somebody else leads before this replica goes."""
        engine = self._replica.engine
        if not engine.is_leader or len(self._config.peers) == 1:
            return
        _log.info("handing over", term=engine.term)
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
            self._replica.tick()
        except ReinstalledError:
            self._reopen()
        except StorageFailure as error:
            fail("storage failed", error)
        self._tell_digest()
        self._tell_elections()
        self._tell()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        delay_s = self._replica.next_wakeup() - time.monotonic()
        if delay_s <= 0:
            self._poke()
        else:
            longest_s = SWEEP_POLL_S if self._sweep is not None else REPORT_S
            self._timer = asyncio.get_running_loop().call_later(min(delay_s, longest_s), self._poke)

    def _reopen(self) -> None:
        """A snapshot has taken the store's place: begin again on it."""
        self._store.close()
        self._digests_asked, self._sweep = self._digests_due + self._digests_asked, None
        self._digests_due = []
        self._replica = self._open()
        self._election_steps.clear()
        _log.info("snapshot installed", applied_index=self._replica.engine.applied_index)
        for name, born in self._peers.present():
            self._replica.connected(name, born)

    def _connected(self, name: str, born: bool) -> None:
        self._replica.connected(name, born)
        self._poke()

    def _disconnected(self, name: str) -> None:
        self._replica.disconnected(name)
        self._poke()

    # --- gateways -----------------------------------------------------------------------------------------------------

    def _tell_elections(self) -> None:
        engine = self._replica.engine
        if engine.election_steps != self._election_steps:
            for step, count in (engine.election_steps - self._election_steps).items():
                _log.info(ELECTION_STEPS[step], term=engine.term, times=count)
            self._election_steps = engine.election_steps.copy()

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
        encoded = msgspec.msgpack.encode(report)
        for gateway in self._gateways:
            gateway.send(REPORT, encoded)

    def _tell_digest(self) -> None:
        """Answer those who have asked for this replica's digest, with one sweep begun after they asked."""
        if self._sweep is None:
            if self._digests_asked:
                self._sweep, self._digests_due = self._store.start_sweep(), self._digests_asked
                self._digests_asked = []
            return
        try:
            if not self._sweep.ready:
                return
            swept = self._sweep.result
            told = ToldDigest(0, swept.applied[0], swept.digest, swept.records)
        except StorageFailure as failure:
            told = ToldDigest(0, 0, b"", 0, f"the state cannot be read: {failure}")
        self._sweep = None
        for gateway, number in self._digests_due:
            gateway.send(TOLD, msgspec.msgpack.encode(msgspec.structs.replace(told, number=number)))

    def _report(self) -> Report:
        report = self._replica.report()
        reachable = 1 + sum(self._peers.reachable(name) for name in self._config.peers)
        has_quorum = report.has_quorum and reachable >= self._majority
        # A leader that has just lost its majority still believes that it leads: nobody should wait for it.
        return msgspec.structs.replace(report, has_quorum=has_quorum, serving=report.serving and has_quorum)

    def _answer(self, gateway: object, parts: list[bytes]) -> None:
        assert isinstance(gateway, Connection)
        gateway.send(OUTCOMES, *parts)

    # --- incoming connections -----------------------------------------------------------------------------------------

    def _hello(self) -> Hello:
        config = self._config
        return Hello(VERSION, config.cluster, config.shard, "replica", config.node, self._replica.engine.born)

    def _accept(self) -> Connection:
        return Connection(self._on_frame, self._on_lost)

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
                self._replica.deliver(peer.name, decode_message(payload))
                self._poke()
            elif kind != PING:
                raise ValueError(f"a replica does not send frames of kind {kind}")
        elif kind == OPERATIONS:
            if self._replica.request(connection, payload):
                self._poke()
            else:
                connection.send(REPORT, msgspec.msgpack.encode(self._report()))
        elif kind == ASK:
            self._on_question(connection, ask_decoder.decode(payload))
        elif kind == CANCEL and len(payload) == CANCEL_PAYLOAD.size:
            self._replica.cancel(*CANCEL_PAYLOAD.unpack(payload))
        else:
            raise ValueError(f"a gateway does not send such frames of kind {kind}")

    def _on_question(self, connection: Connection, question: Ask) -> None:
        if isinstance(question, AskLook):
            connection.send(TOLD, msgspec.msgpack.encode(self._replica.look(question)))
        else:
            self._digests_asked.append((connection, question.number))
            self._poke()

    def _greet(self, connection: Connection, hello: Hello) -> None:
        config, trouble = self._config, None
        if connection.certified not in (None, hello.name):
            trouble = f"the certificate of {connection.certified} does not speak for {hello.name}"
        elif hello.version != VERSION:
            trouble = f"this node speaks version {VERSION} of the protocol, the other {hello.version}"
        elif (hello.cluster, hello.shard) != (config.cluster, config.shard):
            trouble = f"this is shard {config.shard} of cluster {config.cluster}, not {hello.shard} of {hello.cluster}"
        elif hello.name not in config.peers:
            trouble = f"{hello.name} is not a member of this cluster ({', '.join(sorted(config.peers))})"
        elif hello.role == "replica" and hello.name == config.node:
            trouble = f"{hello.name} is this node itself"
        elif hello.role not in ("replica", "gateway"):
            trouble = f"the role {hello.role!r} is unknown"
        if trouble is not None:
            connection.refuse(trouble)
            return
        connection.introduce(hello)
        connection.send(HELLO, msgspec.json.encode(self._hello()))
        if hello.role == "replica":
            self._peers.accepted(hello.name, connection)
        else:
            self._gateways.add(connection)
            connection.send(REPORT, msgspec.msgpack.encode(self._report()))

    def _on_lost(self, connection: Connection) -> None:
        if connection.peer is None:
            return
        if connection.peer.role == "replica":
            self._peers.lost(connection.peer.name, connection)
        else:
            self._gateways.discard(connection)
            self._replica.forsake(connection)
            self._mind_gateways()


def _gist(report: Report) -> tuple[object, ...]:
    return (report.leader, report.term, report.serving, report.has_quorum, report.trouble)


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
    except Exception as error:
        fail("shard failed", error)


if __name__ == "__main__":
    main()
