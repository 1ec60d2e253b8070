"""The command that has everything stored read again, and tells what was found."""

from __future__ import annotations

import time
from typing import Annotated, Any

from cyclopts import Parameter

from api.console import DEFAULT_URL, CommandError, Exit, Json, Url, complain, say_json, say_table
from api.console_client import Client

POLL_S = 0.2
PROGRESS_S = 2.0
"""How often it is told that it goes on."""


def scrub(
    *,
    timeout_s: Annotated[
        int, Parameter(help="Seconds to wait. What was begun goes on without being waited for.")
    ] = 3600,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> int:
    """Read everything stored again on every node, compare the nodes, and wait for the result.

    Nodes do this by themselves every --scrub-interval-ms. A node that finds its store damaged sets it aside and gets
    everything from the others, if they can spare it.

    ```
    trimaran scrub
    trimaran scrub --json | jq '.nodes[].scrub'
    ```

    Exit code 1: something was found that is not repaired yet, or a node could not be reached.
    """
    client = Client(url)
    damages = _damages(client.request("GET", "/v1/cluster"))
    asked_ms = client.request("POST", "/v1/cluster/scrub")["asked_ms"]
    answer = _wait(client, asked_ms, damages, timeout_s)
    nodes = {node["name"]: node["scrub"] or {} for node in answer["nodes"]}
    if json:
        say_json(answer)
    else:
        columns = ("passes", "bytes", "damages", "repairs")
        rows = ([name, *(scrub.get(column) for column in columns)] for name, scrub in nodes.items())
        say_table(("node", *columns), rows, numbers=columns)
    found = {cause for scrub in nodes.values() for cause in _trouble(scrub)}
    found |= {f"{node['name']} was not reached, and not read" for node in answer["nodes"] if not node["reachable"]}
    for cause in sorted(found):
        complain(f"trimaran: {cause}")
    return Exit.FAILED if found else Exit.DONE


def _trouble(scrub: dict[str, Any]) -> list[str]:
    found = [f"{name} is damaged: {cause}" for name, cause in scrub.get("ailing", {}).items()]
    return found if scrub.get("disagreement") is None else [*found, scrub["disagreement"]]


def _damages(answer: dict[str, Any]) -> dict[str, int]:
    """How often each node has found itself damaged."""
    return {node["name"]: node["scrub"]["damages"] for node in answer["nodes"] if node["scrub"]}


def _is_through(node: dict[str, Any], asked_ms: int, damages: dict[str, int]) -> bool:
    """Whether a node has read everything since, or has found itself damaged: it is then read while it is repaired."""
    scrub = node["scrub"]
    if scrub is None:
        return False
    return bool(scrub["began_ms"] >= asked_ms or scrub["damages"] > damages.get(node["name"], 0))


def _wait(client: Client, asked_ms: int, damages: dict[str, int], timeout_s: int) -> dict[str, Any]:
    """Ask until every node that can be reached is through."""
    begun_s = told_s = time.monotonic()
    while True:
        answer: dict[str, Any] = client.request("GET", "/v1/cluster")
        nodes = [node for node in answer["nodes"] if node["reachable"]]
        waiting = [node["name"] for node in nodes if not _is_through(node, asked_ms, damages)]
        if not waiting:
            return answer
        now_s = time.monotonic()
        if now_s - begun_s > timeout_s:
            raise CommandError(f"{', '.join(waiting)} did not get through everything within {timeout_s} s")
        if now_s - told_s > PROGRESS_S:
            told_s = now_s
            complain(f"reading: {', '.join(waiting)}, for {now_s - begun_s:.0f} s")
        time.sleep(POLL_S)
