"""A network of the test's own: each node in a network namespace, all joined by a bridge in this one.

Must run in a world (`tests.chaos.tools`). Clients live on the bridge: what is cut between nodes does not cut clients.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.tools import run

HUB = "10.77.0.1"
HTTP_PORT, RAFT_PORT = 7700, 7800
Link = tuple[str, str]
"""From one node to another."""


@dataclass
class Network:
    """Namespaces, the bridge, and what the bridge does not let through."""

    names: list[str] = field(default_factory=list)
    cuts: set[Link] = field(default_factory=set)
    loss_percent: int = 0

    def build(self) -> None:
        """Make the bridge."""
        Path("/run/netns").mkdir(parents=True)
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "bridge0", "type", "bridge")
        run("ip", "address", "add", f"{HUB}/24", "dev", "bridge0")
        run("ip", "link", "set", "bridge0", "up")

    def add(self, name: str) -> None:
        """Make a node's namespace."""
        self.names.append(name)
        run("ip", "netns", "add", name)
        run("ip", "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "link", "set", f"to-{name}", "master", "bridge0", "up")
        run("ip", "-n", name, "address", "add", f"{self.address(name)}/24", "dev", "eth0")
        run("ip", "-n", name, "link", "set", "eth0", "up")
        run("ip", "-n", name, "link", "set", "lo", "up")

    def address(self, name: str) -> str:
        """The address of a node: the tenth after its number."""
        return f"10.77.0.{10 + int(name.removeprefix('n'))}"

    def inside(self, name: str) -> tuple[str, ...]:
        """What a command line begins with to run in a node's namespace."""
        return ("nsenter", f"--net=/run/netns/{name}")

    def apply(self) -> None:
        """Make the bridge drop what `cuts` and `loss_percent` say, all in one transaction."""
        rules = [f"ip saddr {self.address(a)} ip daddr {self.address(b)} drop" for a, b in sorted(self.cuts)]
        if self.loss_percent:
            rules.append(f"ip protocol tcp numgen random mod 100 < {self.loss_percent} drop")
        run("nft", "-f", "-", given=_table("bridge chaos", "type filter hook forward priority 0", rules))

    def detour(self, name: str, ports: dict[str, int]) -> None:
        """Send new connections of `name` to each peer's raft port to a port of the hub instead; {} ends that.

        Connections that stand are reset until `let`, so that the nodes dial anew.
        """
        rules = [
            f"ip daddr {self.address(peer)} tcp dport {RAFT_PORT} dnat to {HUB}:{port}" for peer, port in ports.items()
        ]
        self._load(name, _table("ip detour", "type nat hook output priority -100", rules))
        refused = [f"tcp dport {RAFT_PORT} reject with tcp reset"]
        self._load(name, _table("ip refused", "type filter hook output priority 0", refused))

    def let(self, name: str) -> None:
        """Let it dial again."""
        self._load(name, "delete table ip refused\n")

    def _load(self, name: str, rules: str) -> None:
        run(*self.inside(name), "nft", "-f", "-", given=rules)


def _table(name: str, hook: str, rules: Iterable[str]) -> str:
    """nft's words for a table with one chain, which takes the place of the table of that name."""
    lines = "\n".join([hook, *rules])
    return f"table {name}\ndelete table {name}\ntable {name} {{\nchain rules {{\n{lines}\n}}\n}}\n"


def between(some: Iterable[str], others: Iterable[str]) -> set[Link]:
    """All links from `some` to `others` and back."""
    return {link for a in some for b in others if a != b for link in ((a, b), (b, a))}
