"""One seed, one history: twenty seconds of trouble, then peace, in which everything must come right again."""

from __future__ import annotations

import random
from collections.abc import Callable

from cluster.engine import Engine
from cluster.tuning import Tuning
from tests.simulation.world import Node, Violation, World

TROUBLE_S = 20.0
PEACE_S = 60.0

# Small numbers, so that limits are met all the time.
TIGHT = Tuning(
    batch_bytes=64,
    batch_entries=4,
    window_messages=3,
    window_bytes=200,
    apply_entries=5,
    apply_bytes=200,
    cache_bytes=100,
    journal_keep_entries=12,
    journal_keep_bytes=400,
    compact_steps=4,
    piece_bytes=300,
    window_pieces=2,
    snapshot_stall_s=2.0,
    snapshot_linger_s=1.0,
)


class Chaos:
    """Faults of every kind at random moments, clients all the while."""

    def __init__(self, seed: int, *, engine_class: type[Engine] = Engine, release_early: bool = False) -> None:
        self.rng = random.Random(seed)
        rng = self.rng
        names = rng.choice(("abc", "abc", "abcde"))
        slow = rng.choice((0.002, 0.01, 0.1))
        self.world = World(
            names,
            seed,
            rng.choice((TIGHT, TIGHT, Tuning())),
            engine_class=engine_class,
            release_early=release_early,
            delay_s=(0.0002, slow),
            disk_s=(0.0002, rng.choice((0.002, 0.02))),
        )
        self.names = list(names)
        self.troubled = True
        self.label = 0
        self.asked: list[bytes] = []
        self.ask_again_s = 0.0

    def run(self) -> World:
        """Live through it. Raises `Violation`, or whatever an engine raises."""
        world, rng = self.world, self.rng
        for name in self.names:
            world.at(rng.choice((0.0, 0.0, rng.uniform(0.0, 5.0))), self._starter(name))
        world.at(0.0, self._client)
        world.at(1.0, self._trouble)
        world.run(TROUBLE_S)
        self.troubled = False
        for name in self.names:
            world.nodes[name].doomed = False
        world.heal()
        world.start()
        world.run_until(self._is_served, PEACE_S)
        world.run_until(self._is_level, PEACE_S)
        world.check_all_caught_up()
        return world

    def _starter(self, name: str) -> Callable[[], None]:
        return lambda: self.world.start(name)

    def _client(self) -> None:
        world, rng = self.world, self.rng
        if self.troubled:
            for node in world.nodes.values():
                if node.engine is not None and node.engine.is_leader:
                    for _ in range(rng.choice((0, 1, 1, 2, 10))):
                        self.label += 1
                        world.propose(node.name, self.label, rng.choice((0, 0, 20, 100)))
                    if rng.random() < 0.3:
                        world.read(node.name)
            world.at(rng.uniform(0.0, 0.1), self._client)

    def _trouble(self) -> None:
        if not self.troubled:
            return
        rng = self.rng
        a, b = rng.sample(self.names, 2)
        if rng.random() < 0.3 and self.world.leader is not None:
            a = self.world.leader.name
            b = rng.choice([name for name in self.names if name != a])
        rng.choice(
            (
                self._crash,
                self._crash,
                self._crash_most,
                self._corner,
                self._cut,
                self._cut,
                self._part,
                self._part_one_way,
            )
            + (self._isolate, self._pause, self._transfer, self._transfer, self._wipe, self._heal)
        )(a, b)
        self.world.at(rng.uniform(0.0, 1.0), self._trouble)

    def _crash(self, a: str, b: str) -> None:
        world, rng = self.world, self.rng
        if world.nodes[a].is_up:
            rng.choice((world.crash, world.doom, world.doom))(a)
            world.at(rng.uniform(0.1, 2.0), self._starter(a))

    def _crash_most(self, a: str, b: str) -> None:
        for name in self.names:
            if self.rng.random() < 0.8:
                self._crash(name, b)

    def _corner(self, a: str, b: str) -> None:
        """Only `b` hears leader `a`, dies in the middle of a tick, and comes back when `a` is gone."""
        world = self.world
        leader = world.leader
        if leader is None or not all(node.is_up for node in world.nodes.values()):
            return
        a = leader.name
        b = next(name for name in self.names if name != a)
        for other in self.names:
            if other not in (a, b):
                self._part(a, other)
        world.at(0.1, lambda: world.doom(b))
        world.at(0.1, lambda: self._follow_up(a, b))

    def _follow_up(self, a: str, b: str) -> None:
        world = self.world
        if not self.troubled:
            return
        if world.nodes[b].is_up:
            world.at(0.005, lambda: self._follow_up(a, b))
        elif world.nodes[a].is_up:
            world.at(self.rng.uniform(0.0, 0.02), lambda: self.troubled and world.crash(a))
            world.at(0.1, self._starter(b))
            world.at(3.5, self._starter(a))

    def _cut(self, a: str, b: str) -> None:
        self.world.cut(a, b)

    def _part(self, a: str, b: str) -> None:
        self._part_one_way(a, b)
        self._part_one_way(b, a)

    def _part_one_way(self, a: str, b: str) -> None:
        self.world.block(a, b)
        self._later_mended(a, b)

    def _isolate(self, a: str, b: str) -> None:
        self.world.isolate(a)
        for other in self.names:
            if other != a:
                self._later_mended(a, other)
                self._later_mended(other, a)

    def _later_mended(self, a: str, b: str) -> None:
        def mend() -> None:
            if self.rng.random() < 0.5:
                self.world.cut(a, b)
            self.world.unblock(a, b)

        self.world.at(self.rng.uniform(0.1, 3.0), mend)

    def _pause(self, a: str, b: str) -> None:
        self.world.pause(a, self.rng.uniform(0.05, 2.0))

    def _transfer(self, a: str, b: str) -> None:
        leader = self.world.leader
        if leader is not None:
            target = self.rng.choice((None, b))
            leader.notices.append(lambda engine: engine.transfer(target))

    def _wipe(self, a: str, b: str) -> None:
        """A disk is lost; one at a time, and only while every other member has its own."""

        def remembers(node: Node) -> bool:
            return node.store.crashed().meta("born") is not None

        if all(remembers(node) for node in self.world.nodes.values()):
            self.world.wipe(a)
            self.world.at(self.rng.uniform(0.0, 2.0), self._starter(a))

    def _heal(self, a: str, b: str) -> None:
        self.world.heal()

    def _is_served(self) -> bool:
        """A proposal made in peace was acknowledged, at last."""
        leader = self.world.leader
        if leader is not None and self.world.now_s >= self.ask_again_s:
            self.label += 1
            self.asked.append(self.world.propose(leader.name, self.label))
            self.ask_again_s = self.world.now_s + 1.0
        return any(label in self.world.acknowledged for label in self.asked)

    def _is_level(self) -> bool:
        engines = [node.engine for node in self.world.nodes.values()]
        if None in engines:
            self.world.start()  # a crash that was under way when peace began
            return False
        last_index = max(engine.last_index for engine in engines if engine)
        return all(engine and engine.born and engine.applied_index == last_index for engine in engines)


def failure_of(seed: int, *, engine_class: type[Engine] = Engine, release_early: bool = False) -> str | None:
    """How `seed` fails, or None."""
    try:
        Chaos(seed, engine_class=engine_class, release_early=release_early).run()
    except Violation as violation:
        return f"seed {seed}: {violation}"
    except Exception as error:
        return f"seed {seed}: {type(error).__name__}: {error}"
    return None
