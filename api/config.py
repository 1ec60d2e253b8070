"""What a node can be told: every setting with its meaning, default and reason, checked before anything starts.

A value is taken from the first of: a flag (`--heartbeat-ms`), the environment (`TRIMARAN_HEARTBEAT_MS`), the file named
by `--config` (TOML, `heartbeat_ms = 50`), the default. In the file, the settings `tls_*` may stand in a table: `[tls]`,
`ca = "…"`. Whatever is wrong ends in a `ConfigError` that says where the value came from and, where two settings
contradict each other, names both.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import msgspec

from cluster.membership import MEMBERS_MAX
from storage.limits import OPERATION_BYTES_MAX

KIB, MIB, GIB = 2**10, 2**20, 2**30
ELECTION_HEARTBEATS_MIN = 4
"""Heartbeats an election must wait at least: fewer, and two lost packets depose a healthy leader."""

NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}", re.ASCII)
_PUBLIC_URL = re.compile(r"https?://[A-Za-z0-9._:\[\]-]+(/[A-Za-z0-9._~/-]*)?", re.ASCII)
_SIZE = re.compile(r"(\d+)\s*(KiB|MiB|GiB|TiB)", re.ASCII)
_SIZE_UNITS = {"KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": 1024 * GIB}
_ANY_HOST = ("0.0.0.0", "::")


class ConfigError(Exception):
    """The configuration is wrong; the message says what, where it came from and what would be right."""


class Address(NamedTuple):
    """Where to listen or to connect."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `HOST:PORT` or `[IPV6]:PORT`. Raises `ConfigError`."""
        host, _, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ConfigError(f"{text!r} is no address: write an IPv6 host in brackets, such as [::1]:7700")
        if not host or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
            raise ConfigError(f"{text!r} is no address: HOST:PORT is expected, such as 127.0.0.1:7700")
        return cls(host, int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it. A name other than localhost is taken for one others can reach."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _setting(description: str, **bounds: Any) -> msgspec.Meta:
    return msgspec.Meta(description=description, **bounds)


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One node's settings. The descriptions are what `trimaran serve --help` shows."""

    node: Annotated[str, _setting("This node's name, one of --peers.")] = "n1"
    data: Annotated[Path, _setting("Directory of everything the node must remember.")] = Path("trimaran-data")
    http: Annotated[str, _setting("HOST:PORT where clients are served.")] = "127.0.0.1:7700"
    raft: Annotated[str, _setting("HOST:PORT where the other nodes reach this one.")] = "127.0.0.1:7800"
    peers: Annotated[
        dict[str, str],
        _setting(
            "All nodes of the cluster, this one too: n1=HOST:PORT,n2=HOST:PORT. None: a single node. "
            "Once nodes were added or removed, what the cluster has recorded counts."
        ),
    ] = {}
    gateways: Annotated[int, _setting("Processes that serve HTTP: one more per core that is free.", ge=1, le=64)] = 1

    store_bytes_max: Annotated[
        int,
        # Address space, not disk: it costs nothing until it is used, so the default is far away.
        _setting("Most that a store may grow to. Address space, not disk.", ge=64 * MIB, le=64 * 1024 * GIB),
    ] = 256 * GIB
    room_reserve_bytes: Annotated[
        int,
        # Acks and deletes need room to be written too: what is kept free for them is what lets a full queue drain.
        _setting("Room that is kept for receiving and acking: below it publishing is refused.", ge=16 * MIB),
    ] = 64 * MIB

    journal_keep_bytes: Annotated[
        int,
        # A node that was away for less than this costs its peers a resend, and not a copy of everything.
        _setting(
            "Log kept for nodes that are away; one further behind gets a copy. At most a quarter of the store.", ge=MIB
        ),
    ] = 256 * MIB

    scrub_interval_ms: Annotated[
        int,
        # What lies unread for years rots unseen; a day is short beside the time between two disks that fail.
        _setting("How often everything stored is read again and compared with the other nodes; 0: never.", ge=0),
    ] = 86_400_000
    scrub_bytes_per_s: Annotated[
        int, _setting("How fast it is read again at most: a small part of what a disk can do.", ge=64 * KIB)
    ] = 16 * MIB

    heartbeat_ms: Annotated[int, _setting("How often the leader says that it lives.", ge=10, le=10_000)] = 50
    election_min_ms: Annotated[int, _setting("Shortest silence after which a new leader is sought.", ge=100)] = 600
    election_max_ms: Annotated[int, _setting("Longest such silence. The actual one is random.", le=60_000)] = 1200

    request_timeout_ms: Annotated[
        int, _setting("How long a request waits for the cluster before 503.", ge=100, le=120_000)
    ] = 10_000
    header_timeout_ms: Annotated[int, _setting("How long a client may take to send a request's head.", ge=100)] = 10_000
    body_timeout_ms: Annotated[int, _setting("How long a client may take to send a request's body.", ge=100)] = 30_000
    connections_max: Annotated[
        int, _setting("Open client connections of a gateway; more are turned away.", ge=1, le=1_000_000)
    ] = 10_000
    connections_per_address_max: Annotated[
        int,
        # Not all, so that one client cannot keep out the others. A proxy is one address for all that come by it.
        _setting("Those of one client address (IPv6: of one /64); 0 for half of all.", ge=0, le=1_000_000),
    ] = 0
    request_bytes_max: Annotated[int, _setting("Largest request body.", ge=KIB)] = 16 * MIB

    public_url: Annotated[
        str,
        # Clients in Java and JavaScript go where a queue's URL points, wherever they were told to go first.
        _setting("How SQS clients reach the cluster: queue URLs begin with it. None: as the client's request came."),
    ] = ""
    trust_forwarded: Annotated[
        bool,
        # Anyone can write these headers: they mean something only if a proxy overwrites them.
        _setting("Believe X-Forwarded-Host and -Proto, as the proxy in front of this node writes them."),
    ] = False

    insecure_listen: Annotated[
        bool,
        # Without it, whoever comes from another machine needs a key, and so is refused as long as there is none.
        _setting(
            "As long as there is no access key, let programs on other machines use the native API too. Whoever "
            "reaches --http may then do everything."
        ),
    ] = False
    seal_key: Annotated[
        Path | None,
        # Not in the store, so that whoever has a copy of a store has no keys; the same on all nodes.
        _setting(
            "The file with what access keys' secrets are sealed with, the same on every node. None: seal.key beside "
            "--tls-key, or in --data, where a single node makes it."
        ),
    ] = None
    tls_ca: Annotated[
        Path | None, _setting("Certificates of the authorities that other nodes' certificates must be signed by.")
    ] = None
    tls_cert: Annotated[Path | None, _setting("This node's certificate: its common name is --node.")] = None
    tls_key: Annotated[Path | None, _setting("The key of --tls-cert.")] = None
    tls_insecure: Annotated[
        bool,
        # Whoever reaches the raft port without TLS is believed to be any node: he may read and change everything.
        _setting("Let nodes on several machines talk without TLS, on a network that is trusted wholly."),
    ] = False
    log_format: Annotated[Literal["json", "console"], _setting("Log lines for programs or for people.")] = "json"
    log_level: Annotated[Literal["debug", "info", "warning", "error"], _setting("Least severe line logged.")] = "info"

    @property
    def members(self) -> Mapping[str, str]:
        """Every node of the cluster by name, with the address of its raft port; of a single node, only itself."""
        return self.peers or {self.node: self.raft}

    def to_json(self) -> bytes:
        """Encode for a child process."""
        return msgspec.json.encode(self, enc_hook=str)

    @classmethod
    def from_json(cls, data: bytes | str) -> Config:
        """Decode what `to_json` made, and check it again. Raises `ConfigError`."""
        try:
            config = msgspec.json.decode(data, type=cls, dec_hook=_decode_other)
        except msgspec.MsgspecError as error:
            raise ConfigError(f"the configuration handed to a process is damaged: {error}") from error
        check(config)
        return config


TLS_FILES = ("tls_ca", "tls_cert", "tls_key")
FIELDS = {field.name: field for field in msgspec.structs.fields(Config)}


def load(flags: Mapping[str, Any], environment: Mapping[str, str] | None = None, file: Path | None = None) -> Config:
    """Put the layers together and check the whole. Raises `ConfigError`.

    `flags` holds only what was given, by field name; the environment's other `TRIMARAN_*` variables are left alone:
    service discovery makes some of its own.
    """
    given: dict[str, tuple[Any, str]] = {}
    if file is not None:
        given |= {name: (value, f"{name} in {file}") for name, value in _read(file).items()}
    for variable, value in (environment or {}).items():
        name = variable.removeprefix("TRIMARAN_").lower()
        if variable.startswith("TRIMARAN_") and name in FIELDS:
            given[name] = (value, variable)
    given |= {name: (value, flag(name)) for name, value in flags.items()}

    values = {name: _convert(name, value, source) for name, (value, source) in given.items()}
    if "raft" not in values:
        own = values.get("peers", {}).get(values.get("node", FIELDS["node"].default))
        values |= {"raft": own} if own else {}
    config = Config(**values)
    check(config)
    return config


def flag(name: str) -> str:
    """The command line's spelling of a setting."""
    return "--" + name.replace("_", "-")


def check(config: Config) -> None:
    """Check what no single field can tell. Raises `ConfigError`."""
    if not NODE_NAME.fullmatch(config.node):
        raise ConfigError(f"--node {config.node!r}: 1 to 32 letters, digits, - and _ are allowed, a letter first")
    http, raft = Address.parse(config.http), Address.parse(config.raft)
    if http.port == raft.port:
        raise ConfigError(f"--http {http} and --raft {raft} use the same port: give each its own")
    _check_peers(config, raft)
    if config.public_url and not _PUBLIC_URL.fullmatch(config.public_url):
        raise ConfigError(f"--public-url {config.public_url!r} is no URL: http(s)://HOST[:PORT][/PATH] is expected")
    _check_tls(config)
    _check_order(config)


def _check_peers(config: Config, raft: Address) -> None:
    if not config.peers:
        return
    names = ", ".join(config.peers)
    if config.node not in config.peers:
        raise ConfigError(f"--node {config.node} is not among --peers {names}")
    if len(config.peers) > MEMBERS_MAX:
        raise ConfigError(f"--peers names {len(config.peers)} nodes, but a cluster has at most {MEMBERS_MAX}")
    seen: dict[Address, str] = {}
    for name, text in config.peers.items():
        if not NODE_NAME.fullmatch(name):
            raise ConfigError(f"--peers {name!r}: 1 to 32 letters, digits, - and _ are allowed, a letter first")
        address = Address.parse(text)
        if address in seen:
            raise ConfigError(f"--peers {seen[address]} and {name} have the same address {address}")
        seen[address] = name
    own = Address.parse(config.peers[config.node])
    # Listening on every interface is fine as long as it is the port that the others will call.
    if own != raft and (raft.host not in _ANY_HOST or own.port != raft.port):
        raise ConfigError(f"--raft {raft} is not the address of {config.node} in --peers, {own}")


def _check_tls(config: Config) -> None:
    files = {flag(name): getattr(config, name) for name in TLS_FILES}
    given = [name for name, path in files.items() if path is not None]
    if given and config.tls_insecure:
        raise ConfigError(f"{given[0]} and --tls-insecure contradict each other: leave one out")
    if given and len(given) < len(files):
        missing = next(name for name in files if name not in given)
        raise ConfigError(f"{', '.join(files)} belong together: {missing} is missing")
    if given or config.tls_insecure:
        return
    for name, text in {"--raft": config.raft, **{f"--peers {name}": a for name, a in config.peers.items()}}.items():
        if not Address.parse(text).is_loopback:
            raise ConfigError(
                f"{name} {text} is another machine, or can be reached from one, and without certificates whoever "
                "reaches a node can pass for another: make them with `trimaran certs init` and "
                f"`trimaran certs issue {config.node}`, and name them with {', '.join(files)}; "
                "or add --tls-insecure on a network that you trust"
            )


def _check_order(config: Config) -> None:
    shortest = ELECTION_HEARTBEATS_MIN * config.heartbeat_ms
    if config.election_min_ms < shortest:
        raise ConfigError(
            f"--election-min-ms {config.election_min_ms} is less than {ELECTION_HEARTBEATS_MIN} times "
            f"--heartbeat-ms {config.heartbeat_ms}: use at least {shortest}"
        )
    if config.election_max_ms <= config.election_min_ms:
        raise ConfigError(
            f"--election-max-ms {config.election_max_ms} must be above --election-min-ms {config.election_min_ms}"
        )
    if config.request_bytes_max > OPERATION_BYTES_MAX:
        raise ConfigError(
            f"--request-bytes-max {config.request_bytes_max} is above what one operation may carry, "
            f"{OPERATION_BYTES_MAX}"
        )
    if config.room_reserve_bytes * 2 > config.store_bytes_max:
        raise ConfigError(
            f"--room-reserve-bytes {config.room_reserve_bytes} is more than half of "
            f"--store-bytes-max {config.store_bytes_max}"
        )


def _read(file: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--config {file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"--config {file} is no TOML: {error}") from error
    if isinstance(table := values.get("tls"), dict):
        del values["tls"]
        values |= {f"tls_{name}": value for name, value in table.items()}
    unknown = [name for name in values if name not in FIELDS]
    if unknown:
        raise ConfigError(f"{unknown[0]} in {file} is no setting; there are: {', '.join(FIELDS)}")
    return values


def _convert(name: str, value: Any, source: str) -> Any:
    if name == "peers" and isinstance(value, str):
        value = _parse_peers(value, source)
    elif "bytes" in name and isinstance(value, str) and (size := _SIZE.fullmatch(value)):
        value = int(size[1]) * _SIZE_UNITS[size[2]]
    try:
        return msgspec.convert(value, FIELDS[name].type, strict=False, dec_hook=_decode_other)
    except msgspec.ValidationError as error:
        kind = get_args(FIELDS[name].type)[0]
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        why = f"choose from {', '.join(choices)}" if choices else str(error).replace("`", "")
        raise ConfigError(f"{source}: {value!r} is not allowed: {why}") from error


def _parse_peers(text: str, source: str) -> dict[str, str]:
    peers: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, address = part.partition("=")
        if not equals or name in peers:
            why = "is given twice" if equals else "is not NAME=HOST:PORT"
            raise ConfigError(f"{source}: {part!r} {why}")
        peers[name] = address
    return peers


def _decode_other(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str) and value:
        return Path(value)
    raise ValueError("expected a path")
