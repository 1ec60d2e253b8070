"""Commands for the cluster: who its members are, and how they come and go."""

from __future__ import annotations

import time
from typing import Annotated, Any
from urllib.parse import quote

from cyclopts import App, Parameter

from api.console import DEFAULT_URL, CommandError, Exit, Json, Url, complain, say, say_json, say_table
from api.console_client import Client, Unavailable

POLL_S = 0.2
PROGRESS_S = 2.0
"""How often it is told how far something is."""

Name = Annotated[str, Parameter(help="The node's name, its --node.")]
Address = Annotated[str, Parameter(help="HOST:PORT where the other nodes reach it, its --raft.")]
Timeout = Annotated[int, Parameter(help="Seconds to wait. What was begun goes on without being waited for.")]

cluster = App(
    name="cluster",
    help="""Show the members and who leads; add, move, remove and replace members. Alone, it shows.

    ```
    trimaran cluster
    trimaran cluster add n4 10.0.0.4:7800
    trimaran cluster replace n2 n5 10.0.0.5:7800
    ```
    """,
    default_parameter=Parameter(negative=""),
    help_format="markdown",
)


@cluster.default
@cluster.command
def status(*, url: Url = DEFAULT_URL, json: Json = False) -> int:
    """Show the members and who leads, as the node that answers sees it.

    ```
    trimaran cluster status
    trimaran cluster --json | jq -r '.shards[0].leader'
    ```

    Exit code 1: some member cannot be reached, or some shard has no leader.
    """
    answer = Client(url).request("GET", "/v1/cluster")
    nodes, shards = answer["nodes"], answer["shards"]
    if json:
        say_json(answer)
    else:
        say(f"cluster {answer['cluster']}, as {answer['node']} sees it")
        rows = ([n["name"], n["address"], n["role"], n["reachable"], _progress(answer, n)] for n in nodes)
        say_table(("node", "address", "role", "reachable", "log"), rows)
        columns = ("shard", "leader", "term", "commit_index", "applied_index")
        rows = ([shard.get(column) for column in columns] for shard in shards)
        say_table(columns, rows, numbers=("shard", *columns[2:]))
    for warning in answer.get("warnings", ()):
        complain(f"trimaran: {warning}")
    healthy = all(node["reachable"] for node in nodes) and all(shard["leader"] for shard in shards)
    return Exit.DONE if healthy else Exit.FAILED


@cluster.command
def add(
    name: Name, address: Address, /, *, timeout_s: Timeout = 3600, url: Url = DEFAULT_URL, json: Json = False
) -> int:
    """Add a node, and wait until it holds everything and votes.

    Start the node before or after, with --node and --peers that name it and the members there are. It learns first:
    it is sent everything and counts for nothing until it has it.

    ```
    trimaran serve --node n4 --raft 10.0.0.4:7800 --peers n1=10.0.0.1:7800,n2=…,n3=…,n4=10.0.0.4:7800 …
    trimaran cluster add n4 10.0.0.4:7800
    ```
    """
    client = Client(url)
    _add(client, name, address, time.monotonic() + timeout_s)
    _done(client, json, f"{name} is a member and votes")
    return Exit.DONE


@cluster.command
def move(name: Name, address: Address, /, *, url: Url = DEFAULT_URL, json: Json = False) -> int:
    """Tell the cluster that a member is at another address.

    ```
    trimaran cluster move n2 10.0.1.2:7800
    ```
    """
    client = Client(url)
    client.request("PATCH", _path(name), {"address": address})
    _done(client, json, f"{name} is at {address}")
    return Exit.DONE


@cluster.command
def remove(name: Name, /, *, url: Url = DEFAULT_URL, json: Json = False) -> int:
    """Remove a member for good, the leader too. Its name is never used again.

    Refused when those who are left could not go on without it: of three nodes, none is removed while another is down
    that counts. To have one node take the place of another, use replace.

    ```
    trimaran cluster remove n3
    ```
    """
    client = Client(url)
    client.request("DELETE", _path(name))
    _done(client, json, _removed(name))
    return Exit.DONE


@cluster.command
def replace(
    old: Annotated[str, Parameter(help="The member that goes.")],
    new: Annotated[str, Parameter(help="The node that comes, under a name of its own.")],
    address: Address,
    /,
    *,
    timeout_s: Timeout = 3600,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> int:
    """Add one node, wait until it votes, and remove another. Run again, it goes on where it was.

    ```
    trimaran cluster replace n2 n5 10.0.0.5:7800
    ```
    """
    client = Client(url)
    names = {node["name"] for node in client.request("GET", "/v1/cluster")["nodes"]}
    if old not in names and new not in names:
        raise CommandError(f"{old} is not a member: there are {', '.join(sorted(names))}")
    _add(client, new, address, time.monotonic() + timeout_s)
    complain(f"{new} votes: removing {old}")
    client.request("DELETE", _path(old))
    _done(client, json, f"{new} has taken the place of {old}. {_removed(old)}")
    return Exit.DONE


def _add(client: Client, name: str, address: str, until_s: float) -> None:
    client.request("PUT", _path(name), {"address": address})
    told_s = time.monotonic()
    while True:
        try:
            answer = client.request("GET", "/v1/cluster")
            node = next((node for node in answer["nodes"] if node["name"] == name), None)
            if node is not None and node["role"] == "voter":
                return
            state = "is not seen by every node yet" if node is None else _state(answer, node)
        except Unavailable:
            state = "is a learner, but no node answers now"
        now_s = time.monotonic()
        if now_s > until_s:
            raise Unavailable(f"{name} {state}. It becomes a voter by itself when it holds everything")
        if now_s - told_s > PROGRESS_S:
            told_s = now_s
            complain(f"{name} {state}")
        time.sleep(POLL_S)


def _state(answer: dict[str, Any], node: dict[str, Any]) -> str:
    if not node["reachable"]:
        return (
            f"is not there: start it, reachable at {node['address']}, with --peers that name it and the members; "
            "the log of either side says why if it is not let in"
        )
    return f"is learning: {_progress(answer, node)}"


def _progress(answer: dict[str, Any], node: dict[str, Any]) -> str:
    """How far a member is, as far as the leader says."""
    if node["copy_percent"] is not None:
        return f"has {node['copy_percent']} % of a copy"
    commit_index, held_index = answer["shards"][0]["commit_index"], node["held_index"]
    if held_index is None:
        return "-"
    return "whole" if held_index >= commit_index else f"up to {held_index:,} of {commit_index:,}"


def _removed(name: str) -> str:
    return (
        f"{name} is removed. Stop it, and take it out of the other nodes' --peers: an empty data directory must not "
        "be started with a configuration of nodes that are gone"
    )


def _done(client: Client, json: bool, text: str) -> None:
    say_json(client.request("GET", "/v1/cluster")) if json else say(text)


def _path(name: str) -> str:
    return f"/v1/cluster/members/{quote(name, safe='')}"
