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
    """`cluster` is a digest of the peers at the node's first start: the same on every node of a new cluster.

    A node that joins one takes over what that one has (`cluster.admission`).
    """

    node: str
    cluster: str
    members: list[str]


def store_name(shard: int, node: str, cluster: str) -> str:
    """What the store of a shard remembers, so that it is not mistaken for another one's."""
    return f"shard {shard} of node {node} of cluster {cluster}"


def read(directory: Path) -> Identity:
    """The identity in a data directory. Raises `IdentityError`."""
    path = directory / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Identity)
    except OSError as error:
        raise IdentityError(f"the data directory {directory} cannot be used: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise IdentityError(f"{path} is damaged: {error}; restore it, or start with an empty directory") from error


def found(node: str, peers: Mapping[str, str]) -> Identity:
    """The identity of `node` in a new cluster of these peers (name → address)."""
    text = ",".join(f"{name}={address}" for name, address in sorted(peers.items()))
    return Identity(node, hashlib.blake2b(text.encode(), digest_size=8).hexdigest(), sorted(peers))


def claim(directory: Path, node: str, peers: Mapping[str, str]) -> Identity:
    """Check that `directory` is this node's, or make it so if it is new. Raises `IdentityError`.

    Whether the peers may be others than at its first start is for the shard to say, which knows the cluster's record.
    """
    path = directory / FILE
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _write(path, found(node, peers))
    except OSError as error:
        raise IdentityError(f"the data directory {directory} cannot be used: {error.strerror}") from error
    identity = read(directory)
    if identity.node != node:
        raise IdentityError(f"{directory} holds the data of node {identity.node}, but this is --node {node}")
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
