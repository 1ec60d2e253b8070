"""How a gateway reaches the shards: finds the leader, sends operations, and sends them again after a leader change."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from storage.operations import Operation, Outcome


class ClusterTrouble(Exception):  # noqa: N818 - named for what it tells
    """The cluster could not answer in time.

    `outcome` is "not_done" when the operation surely has not taken effect and never will, "unknown" when it may have.
    """

    def __init__(self, outcome: Literal["not_done", "unknown"], detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.detail = detail


class Reply(NamedTuple):
    """An outcome, and the block of message bodies that belongs to it (`Received`, `Page`), else empty."""

    outcome: Outcome
    block: memoryview


class NodeStatus(msgspec.Struct, frozen=True):
    """A node of the cluster as this node sees it."""

    name: str
    address: str
    reachable: bool


class ShardStatus(msgspec.Struct, frozen=True):
    """A shard as this node's replica sees it. `trouble` is None when it can serve, else why not, in one sentence."""

    shard: int
    leader: str | None
    term: int
    commit_index: int
    applied_index: int
    trouble: str | None = None


class Status(msgspec.Struct, frozen=True):
    """What this node knows of the cluster, without asking anyone."""

    node: str
    nodes: list[NodeStatus]
    shards: list[ShardStatus]


class Client:
    """One gateway's way to the shards."""

    async def submit(self, operation: Operation, block: bytes = b"", *, timeout_ms: int) -> Reply:
        """Have `operation` carried out by the leader and return its outcome.

        Coalesced with what else is submitted in the same pass of the loop; retried under the same operation id through
        leader changes. A cancelled receive gives back what it may have leased.
        Raises `ClusterTrouble` when there is no answer after `timeout_ms` (plus the `wait_ms` of a `Receive`).
        """
        raise NotImplementedError

    def status(self) -> Status:
        """What this node knows now. No I/O."""
        raise NotImplementedError
