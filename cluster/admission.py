"""Who is let in at a shard's port: the one place that says whom a replica hears, by what it says in its hello.

A replica is *blank* while it belongs to nobody: it holds nothing and has promised nothing. A blank one may be let into
a cluster that expects it, under the name and at the address that the members know; it takes that cluster's identity
before it hears anything else. All others are of one cluster for good. A name that was removed is told so.

A replica that is not blank and of the same cluster is heard even if its name is new here: this replica may be the one
that knows less, and the other a leader of later times.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from cluster.membership import Membership
from cluster.wire import VERSION, Hello


class Refusal(NamedTuple):
    """Why somebody is not let in. `removed`: its name is no member any more, and never will be again."""

    detail: str
    removed: bool = False


class Here(NamedTuple):
    """What a replica knows when somebody says hello to it.

    membership: in force. removed: names whose removal is committed. configured: the nodes in the configuration.
    """

    node: str
    shard: int
    is_blank: bool
    membership: Membership
    removed: Collection[str]
    configured: Collection[str]


def refuse(hello: Hello, here: Here) -> Refusal | None:
    """Why whoever says `hello` is not let in, or None."""
    if hello.version != VERSION:
        return Refusal(f"this node speaks version {VERSION} of the protocol, the other {hello.version}")
    if hello.role not in ("replica", "gateway"):
        return Refusal(f"the role {hello.role!r} is unknown")
    if hello.shard != here.shard:
        return Refusal(f"this is shard {here.shard}, not {hello.shard}")
    if hello.role == "replica" and hello.name == here.node:
        return Refusal(f"{hello.name} is the name of this node itself")
    is_same = hello.cluster == here.membership.cluster
    if hello.name in here.removed and (is_same or hello.blank):
        return Refusal(
            f"{hello.name} was removed from this cluster, and its name is never used again: stop it; to bring its "
            "machine back, give it another name and an empty data directory, and add that",
            removed=True,
        )
    if hello.role == "gateway":
        return None if is_same else _stranger(hello, here)
    if hello.blank and not here.is_blank:
        return _refuse_blank(hello, here)
    if not is_same and not adopts(hello, here):
        return _stranger(hello, here)
    return None


def adopts(hello: Hello, here: Here) -> bool:
    """Whether this blank replica takes the identity of the cluster of whoever says `hello`."""
    return here.is_blank and not hello.blank and hello.role == "replica" and hello.name in here.configured


def _refuse_blank(hello: Hello, here: Here) -> Refusal | None:
    """It has nothing yet, or nothing any more: the members must expect it, and where it is."""
    expected = here.membership.members.get(hello.name)
    if expected is None:
        members = ", ".join(sorted(here.membership.members))
        return Refusal(
            f"{hello.name} is not a member of this cluster ({members}): add it with trimaran cluster add {hello.name} "
            f"{hello.address}"
        )
    if hello.address not in ("", expected):
        return Refusal(
            f"{hello.name} is expected at {expected}, but this one is empty and says it is at {hello.address}: if it "
            f"has moved, tell the cluster with trimaran cluster move {hello.name} {hello.address}"
        )
    return None


def _stranger(hello: Hello, here: Here) -> Refusal:
    detail = f"this is cluster {here.membership.cluster}, but {hello.name} belongs to cluster {hello.cluster}"
    if hello.name in here.removed:
        detail += (
            "; if that is what was left behind when this one was recovered by force, it cannot come back: empty its "
            "data directory, give it another name, and add it"
        )
    return Refusal(detail)
