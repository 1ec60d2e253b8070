"""What a node knows of its cluster, without asking anyone."""

from __future__ import annotations

import time

import msgspec

from cluster.links import Links
from cluster.tls import Tls
from cluster.trouble import ALONE, NO_SHARD
from cluster.wire import MemberReport, ScrubReport

STALE_S = 1.5
"""A replica that has not reported for so long is not shown as reachable."""


class NodeStatus(msgspec.Struct, frozen=True):
    """A member of the cluster as this node sees it.

    `role` is "voter" or "learner". What the leader says: `held_index`, up to where the member holds the log, and
    `copy_percent`, how much of a copy it has, while it gets one. `scrub`: what the member itself last reported.
    """

    name: str
    address: str
    reachable: bool
    role: str = "voter"
    held_index: int | None = None
    copy_percent: int | None = None
    scrub: ScrubReport | None = None


class ShardStatus(msgspec.Struct, frozen=True):
    """A shard as this node's replica sees it. `trouble` is None when it can serve, else why not, in one sentence."""

    shard: int
    leader: str | None
    term: int
    commit_index: int
    applied_index: int
    trouble: str | None = None


class Status(msgspec.Struct, frozen=True):
    """What this node knows of the cluster, without asking anyone.

    `warnings`: what may become trouble, in sentences. `cluster`: its identity.
    """

    node: str
    nodes: list[NodeStatus]
    shards: list[ShardStatus]
    warnings: list[str] = []
    cluster: str = ""


def read_status(node: str, links: Links, tls: Tls | None) -> Status:
    """What `node` knows now, by what the replicas last reported."""
    now_s = time.monotonic()
    nodes = [_node_status(member, links, now_s) for member in sorted(links.members, key=lambda member: member.name)]
    warning = tls.warning() if tls is not None else None
    return Status(node, nodes, [_shard_status(links)], [warning] if warning is not None else [], links.cluster)


def _node_status(member: MemberReport, links: Links, now_s: float) -> NodeStatus:
    link = links.of(member.name)
    report = link.report if link is not None else None
    return NodeStatus(
        member.name,
        member.address,
        link is not None and report is not None and now_s - link.heard_s < STALE_S,
        "voter" if member.voter else "learner",
        member.held_index,
        member.copy_percent,
        report.scrub if report is not None else None,
    )


def _shard_status(links: Links) -> ShardStatus:
    report = links.own.report
    if report is None:
        return ShardStatus(0, None, 0, 0, 0, NO_SHARD)
    trouble = report.trouble
    if trouble is None and not report.has_quorum:
        trouble = ALONE
    return ShardStatus(0, report.leader, report.term, report.commit_index, report.applied_index, trouble)
