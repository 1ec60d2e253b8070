"""The command for the worst day: a majority of the nodes is lost for good."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from api.console import CommandError, Exit, Json, UsageError, complain, say_json, say_table
from api.times import timestamp

if TYPE_CHECKING:
    from cluster.recovery import Found, Survivor


def recover(
    *,
    data: Annotated[Path, Parameter(help="The stopped node's data directory.")],
    force: Annotated[bool, Parameter(help="Make this node a cluster of its own.")] = False,
    confirm: Annotated[
        str | None, Parameter(help="The cluster's name, instead of being asked to type it: that you mean it.")
    ] = None,
    address: Annotated[
        str | None, Parameter(help="HOST:PORT of the node's raft port; by default what the cluster has recorded.")
    ] = None,
    json: Json = False,
) -> int:
    """When a majority is lost for good: go on with what one stopped node has.

    As long as a majority can come back, let it: start those nodes, and nothing is lost. If not, look at every node that
    is left, and recover the one with the newest log, the greatest last_term and then the greatest last_index:

    ```
    trimaran recover --data /var/lib/trimaran
    trimaran recover --data /var/lib/trimaran --force
    ```

    Without --force it only shows what the directory holds. With it, and after the cluster's name was typed, the node is
    a cluster of its own with a new name. What the others had acknowledged without this node is lost. A lost node that
    comes back is refused, not merged: empty its directory, give it another name, and add it.
    """
    from cluster.identity import IdentityError
    from cluster.recovery import NothingFoundError, survivor
    from storage.disk import UnusableError
    from storage.state import StorageFailure

    try:
        with survivor(data) as node:
            name, found = node.identity.node, node.look()
            _show(node, found, json=json)
            if not force:
                return Exit.DONE
            own = address or node.address
            if not own:
                raise UsageError(f"no address of {name} is recorded: give its --raft with --address")
            _check_address(own)
            _warn(node, found)
            _confirm(found[0].membership.cluster, confirm)
            alone = node.recover(own, secrets.token_hex(8))
    except (IdentityError, UnusableError) as error:
        raise CommandError(str(error)) from error
    except (NothingFoundError, StorageFailure) as error:
        raise CommandError(f"{data}: {error}") from error
    except OSError as error:
        raise CommandError(f"{data}: {error.strerror}: mend that, and run this again") from error
    complain(
        f"{name} is cluster {alone.cluster} now, alone. Start it, and add nodes with trimaran cluster add: "
        f"empty ones, under other names than {', '.join(alone.removed) or 'its own'}"
    )
    return Exit.DONE


def _check_address(text: str) -> None:
    from api.config import Address, ConfigError

    try:
        Address.parse(text)
    except ConfigError as error:
        raise UsageError(f"--address: {error}") from error


def _show(node: Survivor, found: list[Found], *, json: bool) -> None:
    facts = [
        {
            "shard": shard.number,
            "cluster": each.membership.cluster,
            "node": node.identity.node,
            "voters": sorted(each.membership.voters),
            "last_term": each.last_term,
            "last_index": each.last_index,
            "applied_index": each.applied_index,
            "last_entry_at": timestamp(each.clock_ms) if each.clock_ms else None,
            "complete": each.is_whole,
            "damage": shard.damage,
            "removed": each.is_removed,
        }
        for shard, each in zip(node.shards, found, strict=True)
    ]
    if json:
        say_json({"shards": facts})
        return
    for shard in facts:
        say_table(("what", "value"), [(what, _said(value)) for what, value in shard.items()])


def _said(value: Any) -> Any:
    return ", ".join(value) if isinstance(value, list) else value


def _warn(node: Survivor, found: list[Found]) -> None:
    name = node.identity.node
    others = sorted({other for each in found for other in each.membership.members} - {name})
    doubts = []
    for shard, each in zip(node.shards, found, strict=True):
        of = f"shard {shard.number}: " if len(found) > 1 else ""
        at = f" at {timestamp(each.clock_ms)}, cluster time" if each.clock_ms else ""
        doubts.append(
            f"{of}this node's log ends with entry {each.last_index} of term {each.last_term}{at}. What the others "
            "acknowledged after it is LOST: messages sent, and acks, so that messages that were done may be delivered "
            "again."
        )
        if each.last_index > each.applied_index:
            doubts.append(
                f"{of}{each.last_index - each.applied_index} entries here are not known to be acknowledged. They are "
                "kept: what clients were told is unknown may turn out to have happened."
            )
        if not each.is_whole:
            doubts.append(
                f"{of}this copy is NOT COMPLETE: the node had lost its disk, and may not have got everything back. "
                "Recover another node if there is one."
            )
        if shard.damage is not None:
            doubts.append(f"{of}this store is DAMAGED: {shard.damage}. Recover another node if there is one.")
        if each.is_removed:
            doubts.append(f"{of}the cluster had REMOVED this node: what it holds is old. Recover another if there is.")
    if others:
        doubts.append(
            f"{', '.join(others)} can never come back with what they have, nor under their names. See to it that they "
            "stay down: a majority of them, started again, would serve clients as the old cluster."
        )
    complain("\n".join(["", "You are about to make another cluster out of this node:", *(f"  - {d}" for d in doubts)]))


def _confirm(cluster: str, given: str | None) -> None:
    if given is None:
        if not sys.stdin.isatty():
            raise UsageError(f"nobody is there to type the cluster's name: add --confirm {cluster} if you mean it")
        complain(f"\nType the cluster's name, {cluster}, to do it:")
        given = sys.stdin.readline().strip()
    if given != cluster:
        raise UsageError(f"{given!r} is not the cluster's name, {cluster}: nothing was done")
