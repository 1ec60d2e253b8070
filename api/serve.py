"""The recipe of a node: whose data it is, which processes it has, and how they find one another."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path

import msgspec
import structlog

from api.config import TLS_FILES, Address, Config
from api.sealing import SEAL_KEY, make
from cluster.identity import Identity, IdentityError, claim
from cluster.process import configure_logging
from cluster.shard import ShardConfig
from cluster.supervisor import Child, supervise
from cluster.tls import Tls, TlsError, TlsFiles

STOP_SPARE_S = 2.0
"""How much longer than a request a process may take to stop: for what comes before and after the last answer."""

_log = structlog.get_logger()


class GatewayConfig(msgspec.Struct, frozen=True):
    """What a gateway's process is told."""

    parent: int
    socket: str
    config: str
    number: int


def socket_path(config: Config) -> str:
    """Where the node's own shard listens for gateways.

    NB: a socket's path may have 107 bytes only, so a long one is reached through the supervisor's open directory.
    """
    path = str((config.data / "shard-0" / "gateway.sock").absolute())
    if len(path.encode()) < 100:
        return path
    descriptor = os.open(config.data / "shard-0", os.O_RDONLY | os.O_DIRECTORY)
    return f"/proc/{os.getpid()}/fd/{descriptor}/gateway.sock"


def tls_files(config: Config) -> TlsFiles | None:
    """The node's certificates; None if it talks to the others in plain."""
    if config.tls_ca is None:
        return None
    return TlsFiles(*(str(getattr(config, name).absolute()) for name in TLS_FILES))


def seal_key(config: Config) -> Path:
    """Where the node's seal key is, or will be: where it was told, or beside its certificate, or in its data."""
    if config.seal_key is not None:
        return config.seal_key.absolute()
    if config.tls_key is not None and config.tls_key.with_name(SEAL_KEY).exists():
        return config.tls_key.with_name(SEAL_KEY).absolute()
    return (config.data / SEAL_KEY).absolute()


def serve(config: Config) -> int:
    """Run a node until it is stopped. Returns its exit code."""
    configure_logging(config.log_format, config.log_level, node=config.node, process="supervisor")
    try:
        identity = claim(config.data, config.node, config.members)
        (config.data / "shard-0").mkdir(exist_ok=True)
        for flag, address in (("--http", config.http), ("--raft", config.raft)):
            _check_free(flag, Address.parse(address))
        if not config.peers and config.seal_key is None:
            make(seal_key(config))  # a cluster's nodes must have the same one, so none makes it
        files = tls_files(config)
        if files is not None:
            Tls(files, config.node)
    except (IdentityError, TlsError, OSError) as error:
        sys.stderr.write(f"trimaran: {error}\n")
        return 1
    _log.info("node starting", cluster=identity.cluster, http=config.http, data=str(config.data))
    return asyncio.run(supervise(_children(config, identity), stop_s=config.request_timeout_ms / 1000 + STOP_SPARE_S))


def _check_free(flag: str, address: Address) -> None:
    """Raise `OSError` when somebody listens there: gateways share their address, and so would not notice."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(tuple(address))
        except OSError as error:
            raise OSError(f"{flag} {address}: cannot listen there: {error.strerror}") from error


def _children(config: Config, identity: Identity) -> list[Child]:
    gateway_socket = socket_path(config)
    shard = ShardConfig(
        parent=os.getpid(),
        node=config.node,
        cluster=identity.cluster,
        shard=0,
        directory=str(config.data / "shard-0"),
        socket=gateway_socket,
        listen=config.raft,
        peers=dict(config.members),
        founders=identity.members,
        store_bytes_max=config.store_bytes_max,
        room_reserve_bytes=config.room_reserve_bytes,
        # What is kept for absent nodes must not be what fills the store: acked messages would free nothing.
        journal_keep_bytes=min(config.journal_keep_bytes, config.store_bytes_max // 4),
        scrub_interval_ms=config.scrub_interval_ms,
        scrub_bytes_per_s=config.scrub_bytes_per_s,
        heartbeat_ms=config.heartbeat_ms,
        election_min_ms=config.election_min_ms,
        election_max_ms=config.election_max_ms,
        log_format=config.log_format,
        log_level=config.log_level,
        tls=tls_files(config),
    )
    gateways = [
        GatewayConfig(os.getpid(), gateway_socket, config.to_json().decode(), n) for n in range(config.gateways)
    ]
    python = (sys.executable, "-m")
    return [
        Child("shard-0", (*python, "cluster.shard", msgspec.json.encode(shard).decode())),
        *(Child(f"gateway-{g.number}", (*python, "api.gateway", msgspec.json.encode(g).decode())) for g in gateways),
    ]
