"""Whose data a directory holds: the node's name and its cluster, written once, compared at every start."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

FILE = "identity.json"


class IdentityError(Exception):
    """The data directory belongs to another node or cluster, or cannot be used. The message is for the operator."""


class Identity(msgspec.Struct, frozen=True):
    """`cluster` names the cluster: a digest of the peers it was founded with, the same on every node."""

    node: str
    cluster: str
    members: list[str]


def found(node: str, peers: Mapping[str, str]) -> Identity:
    """The identity of `node` in a new cluster of these peers (name → address)."""
    text = ",".join(f"{name}={address}" for name, address in sorted(peers.items()))
    return Identity(node, hashlib.blake2b(text.encode(), digest_size=8).hexdigest(), sorted(peers))


def claim(directory: Path, node: str, peers: Mapping[str, str]) -> Identity:
    """Check that `directory` is this node's, or make it so if it is new. Raises `IdentityError`.

    Addresses may change between starts; names may not.
    """
    path = directory / FILE
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _write(path, found(node, peers))
        identity = msgspec.json.decode(path.read_bytes(), type=Identity)
    except OSError as error:
        raise IdentityError(f"the data directory {directory} cannot be used: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise IdentityError(f"{path} is damaged: {error}; restore it, or start with an empty directory") from error
    if identity.node != node:
        raise IdentityError(f"{directory} holds the data of node {identity.node}, but this is --node {node}")
    if identity.members != sorted(peers):
        raise IdentityError(
            f"{directory} belongs to a cluster of {', '.join(identity.members)}, "
            f"but --peers says {', '.join(sorted(peers))}"
        )
    return identity


def _write(path: Path, identity: Identity) -> None:
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        file.write(msgspec.json.encode(identity))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
