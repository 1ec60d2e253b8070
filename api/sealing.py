"""The seal key: what access keys' secrets are sealed with, in a file of the nodes and not in their stores.

A secret must be known to check a signature made with it, so it cannot be kept as a digest alone. Sealed, it is worth
nothing to whoever gets hold of a store, a copy of one, or what travels between nodes. All nodes have the same seal key.

    sealed = 1 u8 | which seal key, 4 bytes | nonce, 12 bytes | AES-256-GCM of the secret, with the access key's id
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
from pathlib import Path

import structlog

KEY_BYTES = 32
SEAL_KEY = "seal.key"
"""What the file is called where nobody says otherwise."""
_FORM = b"\x01"
_WHICH_BYTES, _NONCE_BYTES = 4, 12
_log = structlog.get_logger()


class SealError(Exception):
    """A secret cannot be sealed or opened here; the message says why, and what to do."""


class Sealer:
    """Seals and opens secrets with one key."""

    def __init__(self, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # slow to import, and seldom needed

        self._cipher = AESGCM(key)
        self._which = hashlib.sha256(b"trimaran seal key" + key).digest()[:_WHICH_BYTES]

    def seal(self, key_id: str, secret: str) -> bytes:
        """The secret of this access key, sealed."""
        nonce = os.urandom(_NONCE_BYTES)
        return _FORM + self._which + nonce + self._cipher.encrypt(nonce, secret.encode(), key_id.encode())

    def open(self, key_id: str, sealed: bytes) -> str:
        """The secret of this access key. Raises `SealError`."""
        from cryptography.exceptions import InvalidTag

        head = len(_FORM) + _WHICH_BYTES
        nonce, content = sealed[head : head + _NONCE_BYTES], sealed[head + _NONCE_BYTES :]
        if sealed[:head] != _FORM + self._which:
            raise SealError("the secret was sealed with another seal key: give this node that of the others")
        try:
            return self._cipher.decrypt(nonce, content, key_id.encode()).decode()
        except (InvalidTag, ValueError):
            raise SealError("the sealed secret is damaged: revoke the key and make another") from None


class SealFile:
    """The seal key in a file, read when it is first needed: it may be put there while the node runs."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._sealer: Sealer | None = None

    def sealer(self) -> Sealer:
        """What seals and opens here. Raises `SealError`."""
        if self._sealer is None:
            if self._path is None:
                raise SealError("this node has no seal key: name its file with --seal-key")
            self._sealer = Sealer(read(self._path))
            _log.info("seal key read", file=str(self._path))
        return self._sealer


def read(path: Path) -> bytes:
    """The seal key in a file. Raises `SealError`."""
    try:
        key = base64.b64decode(path.read_bytes().strip(), validate=True)
    except FileNotFoundError:
        raise SealError(
            f"this node has no seal key, {path}: make one with `trimaran keys seal-key {SEAL_KEY}`, and give the same "
            "to every node"
        ) from None
    except OSError as error:
        raise SealError(f"the seal key {path} cannot be read: {error.strerror}") from error
    except binascii.Error as error:
        raise SealError(f"{path} is no seal key: it must be as `trimaran keys seal-key` makes it") from error
    if len(key) != KEY_BYTES:
        raise SealError(f"{path} is no seal key: it must be as `trimaran keys seal-key` makes it")
    return key


def make(path: Path) -> bool:
    """Make a new seal key there, unless there is one: another would make all access keys worthless. Raises `OSError`.

    Returns whether it was made.
    """
    if path.exists():
        return False
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")
            file.flush()
            os.fsync(descriptor)
        os.link(temporary, path)  # unlike a rename, it replaces nothing
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return True
