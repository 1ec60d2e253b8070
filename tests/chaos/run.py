"""One run: a cluster under load, faults one after the other and together, and the judgement of what was seen."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tests.chaos.fault import Fault
from tests.chaos.faults import FAULTS, spread
from tests.chaos.fleet import Fleet
from tests.chaos.history import Findings, History, check
from tests.chaos.load import Habits, Load
from tests.processes.nodes import POLL_S, eventually

VERDICT = "verdict.json"
HISTORY = "history.json"
"""What everybody saw, kept of a run that failed."""
PAIR_CHANCE = 0.3
"""How often a second fault of another layer goes on at the same time."""
CALM_S = (0.5, 3.0)
"""How long nothing goes wrong between two faults."""
HABITS = Habits(
    queues=("q", "r", "f", "s", "d"),
    fifo_queues=("f",),
    filtered_queues=("s",),
    delayed_queues=("d",),
    batch_max=20,
    body_bytes_max=8000,
    receive_max=50,
    wait_ms=500,
    lease_ms=4000,
    pause_s=0.15,
    nack_chance=0.04,
    death_chance=0.02,
    dawdle_chance=0.03,
    extend_chance=0.05,
    work_s=0.1,
)


@dataclass(slots=True)
class Episode:
    """A fault that went on for a while, on its own or with another. Times in seconds since the run's begin."""

    kinds: list[str]
    told: str
    begun_s: float
    healed_s: float = 0.0
    recovered_s: float = 0.0
    """From healed until every node served and all damage was repaired."""
    first_write_s: float | None = None
    """From begun until a send asked since was answered, if a majority was left."""
    operations: int = 0


@dataclass(slots=True)
class Verdict:
    """What a run came to."""

    seed: str
    nodes: int
    seconds: float
    operations: int
    messages: int
    lost: int
    unexpected: int
    unexplained: int
    duplicates: dict[str, int]
    answers: dict[str, int]
    episodes: list[Episode] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """Faults for which there was no time."""


def say(text: str) -> None:
    """Progress, for whoever watches."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to be. With `once`, each kind of fault comes once and briefly, as far as `seconds` allow."""

    nodes: int
    seconds: float
    kinds: tuple[str, ...]
    seed: str
    once: bool = False
    broken: str = ""


class Run:
    """A run as planned. Its logs go to `directory`."""

    def __init__(self, directory: Path, plan: Plan) -> None:
        self.directory, self.plan = directory, plan
        self.rng = random.Random(plan.seed)
        self.episodes: list[Episode] = []
        self.left_out: list[str] = []

    async def go(self) -> Verdict:
        """Run it, and judge."""
        violations, began_s, is_drained = list[str](), time.monotonic(), False
        async with Fleet(self.directory, self.plan.nodes, self.plan.seed, self.plan.broken) as fleet:
            for queue in HABITS.queues:
                await fleet.ok("n1", "PUT", f"/v1/queues/{queue}", {"fifo": queue in HABITS.fifo_queues})
            load = Load(fleet, fleet.serving, HABITS, self.plan.seed)
            self.began_s = time.monotonic()
            load.start()
            try:
                await self._storm(fleet, load)
                await load.quiet()
                await load.drain()
                is_drained = True
                digests = await self._digests(fleet)
                if len(set(digests.values())) != 1:
                    violations.append(f"state: replicas differ: {digests}")
            except AssertionError as error:
                violations.append(f"liveness: {error}")
            violations += [f"node: {trouble}" for trouble in fleet.trouble + fleet.defects()]
        found = check(load.history, drained=is_drained)
        if violations or found.violations:
            (self.directory / HISTORY).write_bytes(msgspec.json.encode(load.history))
        self._first_writes(load.history)
        return self._verdict(found, violations, load.history, time.monotonic() - began_s)

    def _verdict(self, found: Findings, violations: list[str], history: History, seconds: float) -> Verdict:
        return Verdict(
            self.plan.seed,
            self.plan.nodes,
            seconds,
            found.operations,
            found.messages,
            found.lost,
            found.unexpected,
            found.unexplained,
            dict(+found.duplicates),
            dict(sorted(history.answers.items())),
            self.episodes,
            violations + found.violations,
            self.left_out,
        )

    # --- faults -------------------------------------------------------------------------------------------------------

    async def _storm(self, fleet: Fleet, load: Load) -> None:
        ends_s = self.began_s + self.plan.seconds
        left = spread(self.plan.kinds, self.rng)
        await self._calm(load)
        while time.monotonic() < ends_s and (left or not self.plan.once):
            kinds = take(left) if self.plan.once else self._choose()
            await self._episode(fleet, load, [kind(fleet, self.rng) for kind in kinds])
            await self._calm(load)
        self.left_out = left if self.plan.once else []

    def _choose(self) -> list[type[Fault]]:
        """A fault, or two of different layers."""
        kinds = [FAULTS[name] for name in self.plan.kinds]
        chosen = self.rng.choice(kinds)
        others = [kind for kind in kinds if kind.layer != chosen.layer and not kind.goes_alone]
        if chosen.goes_alone or not others or self.rng.random() > PAIR_CHANCE:
            return [chosen]
        return [chosen, self.rng.choice(others)]

    async def _episode(self, fleet: Fleet, load: Load, faults: list[Fault]) -> None:
        begun_s, operations = time.monotonic(), sum(load.history.answers.values())
        told = [await fault.inject() for fault in faults]
        episode = Episode([fault.name for fault in faults], "; ".join(told), begun_s)
        self.episodes.append(episode)
        least_s, most_s = max(fault.hold_s for fault in faults)
        await self._wait(load, least_s / 2 if self.plan.once else self.rng.uniform(least_s, most_s))
        for fault in reversed(faults):
            await fault.heal()
        healed_s = time.monotonic()
        mended = [await fault.mend() for fault in faults]
        await fleet.recovered()
        episode.recovered_s = time.monotonic() - healed_s
        episode.told = "; ".join(filter(None, [*told, *mended]))
        for fault in faults:
            for name in fault.hit:
                fleet.may_end(name, may=False)
        episode.healed_s = healed_s
        episode.operations = sum(load.history.answers.values()) - operations
        say(
            f"  [{time.monotonic() - self.began_s:5.0f} s] {' + '.join(episode.kinds)}: {episode.told}; "
            f"{healed_s - begun_s:.1f} s; all serve after {episode.recovered_s:.2f} s"
        )

    async def _calm(self, load: Load) -> None:
        await self._wait(load, CALM_S[0] if self.plan.once else self.rng.uniform(*CALM_S))

    async def _wait(self, load: Load, seconds: float) -> None:
        """Let time pass, but not if the load has failed meanwhile."""
        ends_s = time.monotonic() + seconds
        while time.monotonic() < ends_s:
            for task in [*load.producers, *load.consumers]:
                if task.done():
                    task.result()
            await asyncio.sleep(POLL_S)

    def _first_writes(self, history: History) -> None:
        known = sorted((s.answered_s, s.asked_s) for s in history.sendings if s.message_ids is not None)
        for episode in self.episodes:
            keeps = all(FAULTS[kind].keeps_majority for kind in episode.kinds)
            later = [answered_s for answered_s, asked_s in known if asked_s >= episode.begun_s]
            if keeps and later:
                episode.first_write_s = later[0] - episode.begun_s
            episode.begun_s -= self.began_s
            episode.healed_s -= self.began_s

    # --- state --------------------------------------------------------------------------------------------------------

    async def _digests(self, fleet: Fleet) -> dict[str, str]:
        """Wait until all replicas have applied the same, and ask what they hold."""

        async def told() -> dict[str, str] | None:
            answers = {name: await fleet.call(name, "GET", "/v1/cluster/digest") for name in fleet.nodes}
            shards = {name: answer["shards"][0] for name, (status, answer) in answers.items() if status == 200}
            if len(shards) < len(fleet.nodes) or len({shard["applied_index"] for shard in shards.values()}) > 1:
                return None
            return {name: shard["digest"] for name, shard in shards.items()}

        found: dict[str, str] = await eventually(told, "all replicas have applied the same")
        return found


def take(left: list[str]) -> list[type[Fault]]:
    """Take the next fault, and with it the next one that may go on at the same time."""
    chosen = FAULTS[left.pop(0)]
    for name in left:
        other = FAULTS[name]
        if other.layer != chosen.layer and not (chosen.goes_alone or other.goes_alone):
            left.remove(name)
            return [chosen, other]
    return [chosen]


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{what} {count}" for what, count in sorted(counts.items()))


def summary(verdict: Verdict) -> str:
    """A run in a few lines."""
    kinds = Counter(kind for episode in verdict.episodes for kind in episode.kinds)
    worst = max(verdict.episodes, key=lambda episode: episode.recovered_s, default=None)
    lines = [
        f"seed {verdict.seed}: {verdict.nodes} nodes, {verdict.seconds:.0f} s, {verdict.operations} operations, "
        f"{verdict.messages} messages",
        f"  faults: {_listed(kinds)}",
        f"  lost {verdict.lost}, unexpected {verdict.unexpected}, unexplained duplicates {verdict.unexplained}; "
        f"explained: {_listed(verdict.duplicates) or 'none'}",
        f"  answers: {_listed(verdict.answers)}",
    ]
    if worst is not None:
        lines.append(f"  worst recovery: {worst.recovered_s:.2f} s after {' + '.join(worst.kinds)}")
    if verdict.left_out:
        lines.append(f"  no time was left for {', '.join(verdict.left_out)}")
    lines += [f"  VIOLATION {violation}" for violation in verdict.violations]
    return "\n".join([*lines, "  " + ("FAILED" if verdict.violations else "good")])


def main() -> None:
    """Run the plan in the first argument, in the directory in the second. The verdict is written there."""
    plan, directory = msgspec.json.decode(sys.argv[1], type=Plan), Path(sys.argv[2])
    verdict = asyncio.run(Run(directory, plan).go())
    (directory / VERDICT).write_bytes(msgspec.json.encode(verdict))


if __name__ == "__main__":
    main()
