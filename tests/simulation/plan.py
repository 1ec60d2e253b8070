"""A plan: everything that one run will meet, as data. A seed makes it; it can be cut down, and written to a file.

Events stand on their own, each with its own end, so that any of them can be left out. They name machines, or roles that
are looked up when the event happens: "leader", "follower", "other" (another follower).
"""

from __future__ import annotations

import random
from collections.abc import Collection

import msgspec

NAMES = ("n1", "n2", "n3", "n4", "n5")


class Event(msgspec.Struct, omit_defaults=True):
    """A fault of some `kind` (`tests.simulation.faults`), `at_s` after its episode began."""

    at_s: float
    kind: str
    who: list[str] = []
    for_s: float = 0.0
    value: float = 0.0


class Episode(msgspec.Struct):
    """Trouble, and then calm, in which everything must come right again."""

    trouble_s: float
    events: list[Event]


class Clients(msgspec.Struct):
    """One client: what it does (`tests.simulation.clients`), its stream of chance, and how often it acts."""

    kind: str
    number: int
    pause_s: float


class Plan(msgspec.Struct):
    """A run. Delays and commits take between two bounds; `skews_s` and `paces` are the machines' clocks.

    `ease` is how much more seldom than in earnest whatever goes on all the time is done, as pings and reports. What the
    network carries arrives at multiples of `grain_s`, what clients ask at multiples of `beat_s`: often together, so
    that it is taken together, as under load.
    `boots_s` is when each machine starts, `salt` another stream of chance for the same plan.
    """

    seed: int
    machines: int
    tuning: str
    ease: float
    heartbeat_ms: int
    election_min_ms: int
    election_max_ms: int
    delay_s: tuple[float, float]
    grain_s: float
    beat_s: float
    commit_s: tuple[float, float]
    copy_s: float
    scrub_ms: int
    boots_s: list[float]
    skews_s: list[float]
    paces: list[float]
    clients: list[Clients]
    episodes: list[Episode]
    salt: int = 0

    @property
    def chance(self) -> str:
        """What every stream of chance begins with."""
        return f"{self.seed} {self.salt}"

    @property
    def names(self) -> tuple[str, ...]:
        return NAMES[: self.machines]

    @property
    def minutes(self) -> float:
        return sum(episode.trouble_s for episode in self.episodes) / 60


# Kind → how often it is drawn, before a run chooses which kinds it has at all.
KINDS = {
    "kill": 6,
    "kill_at_step": 8,
    "kill_many": 2,
    "power_cut": 3,
    "corner": 3,
    "stop": 3,
    "transfer": 4,
    "join": 3,
    "leave": 3,
    "pause": 5,
    "pause_all": 1,
    "cut": 6,
    "block": 6,
    "block_one_way": 5,
    "isolate": 5,
    "halves": 3,
    "ring": 2,
    "slow_link": 3,
    "clock_jump": 3,
    "slow_disk": 2,
    "full_disk": 2,
    "storage_error": 3,
    "bit_flip": 1,
    "wipe": 3,
    "rot": 2,
    "forget": 2,
}
STORIES = dict.fromkeys(("ghost", "laggard", "comeback", "flood", "surplus", "belated", "heir", "needed", "encore"), 1)
"""Told only when asked for (`--faults`), one in an episode: what goes wrong afterwards may undo what they show."""
OF_FIVE = frozenset({"comeback", "surplus"})
"""Stories that three machines cannot tell."""
TUNED = {"laggard": "tight", "flood": "brief", "surplus": "tight", "belated": "brief", "heir": "tight"}
"""Stories in which entries and answers come one by one, and the tuning by which there are too many soon."""


# Heartbeats (ms), the silence after which a leader may be doubted (ms), and the ease: in earnest, and more seldom. What
# an idle cluster does is the same again and again, so most runs have little of it: time for what clients and faults do.
TIMINGS = ((50, 600, 1.0), (100, 1000, 2.0), (200, 2000, 3.0), (500, 2000, 5.0), (500, 3000, 5.0), (800, 3000, 5.0))
TIMING_WEIGHTS = (2, 2, 3, 4, 3, 3)


def make(seed: int, only: Collection[str] = ()) -> Plan:
    """The plan of a seed; of one whose faults are `only` of these kinds, if any are given."""
    rng = random.Random(f"plan {seed}")
    machines = rng.choice((3, 3, 3, 3, 5))
    heartbeat_ms, election_min_ms, ease = rng.choices(TIMINGS, TIMING_WEIGHTS)[0]
    names = NAMES[:machines]
    delay_s = (0.0002, rng.choice((0.001, 0.005, 0.05)))
    tight = "far" if delay_s[1] > 0.01 else "tight"
    kinds = {kind: weight for kind, weight in KINDS.items() if rng.random() < 0.6} or {"kill": 1}
    if only:
        kinds = {kind: (KINDS | STORIES)[kind] for kind in only}
        machines = len(NAMES) if OF_FIVE.issuperset(only) else machines
        names = NAMES[:machines]
    plan = Plan(
        seed=seed,
        machines=machines,
        tuning=rng.choice((tight, tight, "plain")),
        ease=ease,
        heartbeat_ms=heartbeat_ms,
        election_min_ms=election_min_ms,
        election_max_ms=2 * election_min_ms,
        delay_s=delay_s,
        grain_s=delay_s[1] * rng.choice((0.0, 0.5, 1.0, 1.0)),
        beat_s=rng.choice((0.0, 0.1, 0.3, 0.3)),
        commit_s=(0.0002, rng.choice((0.002, 0.01, 0.03))),
        copy_s=rng.choice((0.0, 0.1, 1.0)),
        scrub_ms=rng.choice((0, 5_000, 30_000)),
        boots_s=[rng.choice((0.0, rng.uniform(0.0, 3.0))) for _ in names],
        skews_s=[rng.uniform(-0.5, 0.5) for _ in names],
        paces=[rng.uniform(0.9999, 1.0001) for _ in names],
        clients=_clients(rng),
        episodes=[_episode(rng, names, kinds) for _ in range(rng.choice((2, 3, 4)))],
    )
    if only and TUNED.keys() >= set(only):
        plan.tuning, plan.grain_s, plan.beat_s = TUNED[rng.choice(list(only))], 0.0, 0.0
    return plan


def _clients(rng: random.Random) -> list[Clients]:
    pause_s = rng.choice((0.45, 1.35, 3.5))
    kinds = ["keyed_producer"] * 2 + ["producer"] + ["consumer"] * 2 + ["sifter", "reader"]
    kinds += [kind for kind in ("admin", "leaver", "consumer", "sifter", "producer", "reader") if rng.random() < 0.5]
    return [Clients(kind, number, pause_s) for number, kind in enumerate(kinds)]


def _episode(rng: random.Random, names: tuple[str, ...], kinds: dict[str, int]) -> Episode:
    trouble_s = rng.uniform(20.0, 60.0)
    gap_s = rng.choice((0.5, 1.5, 4.0))
    events, at_s = [], rng.uniform(0.0, 2.0)
    if STORIES.keys() >= kinds.keys():
        return Episode(22.0, [_event(rng, 5.0, rng.choice(list(kinds)), names)])
    while at_s < trouble_s:
        kind = rng.choices(list(kinds), list(kinds.values()))[0]
        events.append(_event(rng, at_s, kind, names))
        at_s += rng.expovariate(1 / gap_s)
    return Episode(trouble_s, events)


def _event(rng: random.Random, at_s: float, kind: str, names: tuple[str, ...]) -> Event:
    who = rng.sample(names, len(names))
    if rng.random() < 0.5:
        who[0:2] = rng.choice((["leader", "follower"], ["follower", "leader"], ["follower", "other"]))
    for_s = rng.choice((rng.uniform(0.0, 0.5), rng.uniform(0.1, 3.0), rng.uniform(0.1, 3.0), rng.uniform(1.0, 12.0)))
    count = {"kill_many": len(names), "power_cut": len(names), "halves": len(names), "ring": len(names)}.get(kind, 2)
    if kind == "power_cut":
        count = rng.choice((1, 1, len(names)))
    if kind == "kill_many":
        count = rng.choice((2, len(names)))
    value = {
        "kill_at_step": float(rng.choice((1, 2, 3, 5, 10, rng.randrange(1, 200)))),
        "storage_error": float(rng.choice((1, 2, 3, 5, 10, rng.randrange(1, 200)))),
        "slow_disk": rng.uniform(5.0, 50.0),
        "slow_link": rng.choice((0.05, 0.3, 1.0, 3.0)),
        "clock_jump": rng.choice((-3600.0, 3600.0, rng.uniform(-60.0, 60.0))),
        "ghost": rng.uniform(1.2, 2.0),
        "laggard": rng.uniform(0.2, 0.8),
        "flood": rng.uniform(0.1, 0.4),
        "surplus": rng.uniform(0.25, 0.5),
        "belated": rng.uniform(0.2, 0.8),
        "heir": rng.uniform(0.1, 0.3),
        "encore": rng.uniform(0.5, 1.2),
        "bit_flip": rng.choice((0.02, 0.2, 1.0)),
        "halves": float(rng.randrange(1, len(names))),
    }.get(kind, 0.0)
    return Event(round(at_s, 4), kind, who[:count], round(for_s, 4), round(value, 4))
