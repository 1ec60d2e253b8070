"""TLS between nodes: what a node shows the others, whom it believes, and how its files are read again.

Both ends of a connection show a certificate that an authority in `ca` has signed. A certificate speaks for the one node
that is its subject's common name, letter by letter; other names in it mean nothing here. The files are looked at when a
connection is made and every now and then, so that they are replaced without a restart: connections that exist go on,
new ones use the new files. New files that do not work are told of in the log, and the old ones stay in use.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, NoReturn

import msgspec
import structlog

EXPIRES_SOON_S = 30 * 86400.0
"""From when on a certificate's end is told of: it leaves a month's round of maintenance."""
REMIND_S = 86400.0
"""Between two reminders of it."""
REFRESH_S = 5.0
"""How often a shard looks at the files when nobody connects: whoever replaced them wants to read that it worked."""
_FLIGHTS = 4
"""A handshake is over after so many turns of both sides, or never."""

_log = structlog.get_logger()


class TlsError(Exception):
    """A node's certificates cannot be used. The message says which and why, for the operator."""


class TlsFiles(msgspec.Struct, frozen=True):
    """Paths of PEM files: the authorities that are believed, this node's certificate (and its chain), and its key."""

    ca: str
    cert: str
    key: str


class _Loaded(NamedTuple):
    accepting: ssl.SSLContext
    dialling: ssl.SSLContext
    expires_s: float


class Tls:
    """One node's certificates, in use by one process. Raises `TlsError` when they cannot be used from the start."""

    def __init__(self, files: TlsFiles, node: str, wall_s: Callable[[], float] = time.time) -> None:
        self._files, self._node, self._wall_s = files, node, wall_s
        self._reminded_s: float | None = None
        self._seen = _state(files)
        self._loaded = _load(files, node)

    def accepting(self) -> ssl.SSLContext:
        """For a connection that another node has dialled."""
        self.refresh()
        return self._loaded.accepting

    def dialling(self) -> ssl.SSLContext:
        """For a connection that this node dials."""
        self.refresh()
        return self._loaded.dialling

    def refresh(self) -> None:
        """Take up the files if they have changed, and say so; remind of the certificate's end when it is near."""
        seen = _state(self._files)
        if seen != self._seen:
            # Whoever replaces files does so one after the other: what does not fit yet is tried at the next change.
            self._seen = seen
            try:
                self._loaded = _load(self._files, self._node)
            except TlsError as error:
                _log.error("new certificates cannot be used, the old ones stay in use", cause=str(error))
            else:
                self._reminded_s = None
                _log.info("certificates read again", expires=_date(self._loaded.expires_s))
        self._remind()

    def warning(self) -> str | None:
        """What is to be said of the certificate's end, in one sentence; None while it is far."""
        left_s, when = self._loaded.expires_s - self._wall_s(), _date(self._loaded.expires_s)
        if left_s > EXPIRES_SOON_S:
            return None
        if left_s <= 0:
            return f"this node's certificate has expired on {when}: it can make no new connections to other nodes"
        return f"this node's certificate expires in {int(left_s / 86400)} days, on {when}"

    def _remind(self) -> None:
        warning, now_s = self.warning(), self._wall_s()
        if warning is not None and (self._reminded_s is None or now_s - self._reminded_s > REMIND_S):
            self._reminded_s = now_s
            _log.warning(warning, cert=self._files.cert, remedy=f"trimaran certs issue {self._node} --replace")


def certified_name(certificate: Mapping[str, Any]) -> str:
    """The node that a verified certificate (as `ssl` decodes it) speaks for; empty if that is not clear."""
    names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    return names[0] if len(names) == 1 else ""


def why(error: BaseException) -> str:
    """Why a connection failed, in the words of an operator."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or str(error)).replace('_', ' ').lower()}"
    return str(error) or ("it closed the connection" if isinstance(error, ConnectionError) else "no answer")


def _state(files: TlsFiles) -> tuple[object, ...]:
    """What differs once a file has been replaced or changed."""

    def one(path: str) -> object:
        try:
            state = os.stat(path)
        except OSError as error:
            return error.errno
        return state.st_ino, state.st_mtime_ns, state.st_size

    return one(files.ca), one(files.cert), one(files.key)


def _load(files: TlsFiles, node: str) -> _Loaded:
    for path in (files.ca, files.cert, files.key):
        try:
            with open(path, "rb") as file:
                others_may_read = os.fstat(file.fileno()).st_mode & 0o004
        except OSError as error:
            raise TlsError(f"{path} cannot be read: {error.strerror}") from error
        if path == files.key and others_may_read:
            _log.warning("everybody on this machine may read the node's key", key=path, remedy=f"chmod 600 {path}")
    accepting, dialling = _context(ssl.PROTOCOL_TLS_SERVER, files), _context(ssl.PROTOCOL_TLS_CLIENT, files)
    # Whoever comes back with a ticket would not be asked for a certificate again, and might have lost it meanwhile.
    accepting.num_tickets = 0
    shown = _rehearse(accepting, dialling, files)
    name = certified_name(shown)
    if name != node:
        raise TlsError(f"{files.cert} is the certificate of {name or 'nobody'}, but this is node {node}")
    return _Loaded(accepting, dialling, ssl.cert_time_to_seconds(shown["notAfter"]))


def _context(protocol: int, files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # nodes have names wherever they are: see `certified_name`
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(files.ca)
    except ssl.SSLError as error:
        raise TlsError(f"{files.ca} holds no certificate in PEM form") from error

    def locked() -> NoReturn:
        raise TlsError(f"{files.key} is locked with a password: a node has nobody to ask for it")

    try:
        context.load_cert_chain(files.cert, files.key, password=locked)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsError(f"{files.key} is not the key of the certificate in {files.cert}") from error
        raise TlsError(f"{files.cert} or {files.key} is not in PEM form") from error
    return context


def _rehearse(accepting: ssl.SSLContext, dialling: ssl.SSLContext, files: TlsFiles) -> dict[str, Any]:
    """Have the files shake hands with themselves, so that what is wrong shows here and not at the other nodes.

    Returns the certificate as `ssl` decodes it.
    """
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = accepting.wrap_bio(there, back, server_side=True)
    client = dialling.wrap_bio(back, there)
    try:
        for side in (client, server) * _FLIGHTS:
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
        shown = server.getpeercert()
    except ssl.SSLCertVerificationError as error:
        raise TlsError(f"{files.cert} is not accepted with {files.ca}: {error.verify_message}") from error
    except (ssl.SSLError, ValueError) as error:
        raise TlsError(f"{files.cert} cannot be used: {error}") from error
    return shown or {}


def _date(at_s: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(at_s))
