"""Seeded histories in which members come and go while replicas crash, are cut off, and lose their disks.

The world checks every step (one leader per term, committed entries never change, …). At the end the members that are
left must serve, be level, and have everything that was acknowledged; those that were removed disturb nobody.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from cluster.engine import Engine, NotLeaderError
from cluster.membership import ChangeRefusedError
from tests.simulation.chaos import TIGHT
from tests.simulation.world import Node, Violation, World

FOUNDERS, JOINERS = "abc", "defghijk"
TROUBLE_S, PEACE_S = 10.0, 60.0


class MembershipChaos:
    """One seed's history."""

    def __init__(self, seed: int, engine_class: type[Engine] = Engine) -> None:
        self.rng = random.Random(seed)

        def engine(name: str, members: Any, *args: Any, **kwargs: Any) -> Engine:
            # A node that joins is configured with the founders and itself.
            return engine_class(name, {*FOUNDERS, name}, *args, **kwargs)

        self.world = World(FOUNDERS + JOINERS, seed, TIGHT, engine_class=engine)  # type: ignore[arg-type]
        self.unused = list(JOINERS)
        self.label = 0
        self.changes = 0
        self.peaceful = False
        self.asked: list[bytes] = []
        self.ask_again_s = 0.0

    def run(self) -> MembershipChaos:
        world = self.world
        world.start(*FOUNDERS)
        world.at(0.0, self._client)
        world.at(1.0, self._change)
        world.at(1.0, self._trouble)
        world.run(TROUBLE_S)
        self.peaceful = True
        world.heal()
        for node in world.nodes.values():
            node.doomed = False
        world.start(*self._members(), *FOUNDERS)
        world.run_until(self._is_level, PEACE_S)
        world.run_until(self._is_served, PEACE_S)
        assert world.leader is not None
        term = world.engine(world.leader.name).term
        world.run(5.0)
        world.run_until(self._is_level, PEACE_S)
        self._check(term)
        return self

    def _is_served(self) -> bool:
        """A proposal made in peace was acknowledged, at last."""
        leader = self.world.leader
        if leader is not None and self.world.now_s >= self.ask_again_s:
            self.label += 1
            self.asked.append(self.world.propose(leader.name, self.label))
            self.ask_again_s = self.world.now_s + 1.0
        return any(label in self.world.acknowledged for label in self.asked)

    def _members(self) -> set[str]:
        """All who belong to it, as the one who knows most has it."""
        up = [node.engine for node in self.world.nodes.values() if node.engine is not None]
        return set(max(up, key=lambda engine: engine.commit_index).membership.members)

    def _is_level(self) -> bool:
        members = self._members()
        self.world.start(*members)
        engines = [self.world.nodes[name].engine for name in sorted(members)]
        if self.world.leader is None or None in engines:
            return False
        last = max(engine.last_index for engine in engines if engine)
        return all(
            engine and engine.born and engine.applied_index == last and not engine.membership.learners
            for engine in engines
        )

    def _check(self, term: int) -> None:
        for name in self._members():
            node = self.world.nodes[name]
            if node.engine is None or node.engine.term != term:
                raise Violation(f"{name} left term {term} in peace")
            for label, index in self.world.acknowledged.items():
                found = node.store.get(label)
                if found is None or int.from_bytes(found, "big") != index:
                    raise Violation(f"{name} has lost the acknowledged entry {index}")

    # --- what happens -------------------------------------------------------------------------------------------------

    def _client(self) -> None:
        if not self.peaceful:
            for node in self.world.nodes.values():
                if node.engine is not None and node.engine.is_leader:
                    for _ in range(self.rng.choice((0, 1, 5))):
                        self.label += 1
                        self.world.propose(node.name, self.label)
            self.world.at(self.rng.uniform(0.0, 0.1), self._client)

    def _change(self) -> None:
        if self.peaceful:
            return
        world, rng = self.world, self.rng
        leaders = [node for node in world.nodes.values() if node.engine is not None and node.engine.is_leader]
        if leaders:
            leader = rng.choice(leaders)
            assert leader.engine is not None
            members = sorted(leader.engine.membership.members)
            if self.unused and rng.random() < (0.8 if len(members) < 4 else 0.3):
                name = self.unused[0]
                leader.notices.append(lambda engine: self._attempt(engine, add=name))
                world.at(rng.uniform(0.0, 1.0), lambda: name in world.nodes and world.start(name))
            elif len(leader.engine.membership.voters) > 3:
                name = rng.choice(members)
                leader.notices.append(lambda engine: self._attempt(engine, remove=name))
            world._wake(leader, 0.0)
        world.at(rng.uniform(0.05, 0.6), self._change)

    def _attempt(self, engine: Engine, *, add: str = "", remove: str = "") -> None:
        """What a leader does when it is asked for a change."""
        try:
            if remove == engine.name:
                engine.transfer()
            elif add:
                engine.change(engine.membership.with_learner(add, add))
                self.changes += 1
                if add in self.unused:
                    self.unused.remove(add)
            else:
                engine.change(engine.membership.without(remove))
                self.changes += 1
                # Somebody switches it off, now or later; until then it asks for votes.
                self.world.at(self.rng.uniform(0.0, 10.0), lambda: self._switch_off(remove))
        except (ChangeRefusedError, NotLeaderError):
            pass

    def _switch_off(self, name: str) -> None:
        if name not in self._members() and self.world.nodes[name].is_up:
            self.world.crash(name)

    def _trouble(self) -> None:
        if self.peaceful:
            return
        rng, world = self.rng, self.world
        up = sorted(name for name, node in world.nodes.items() if node.is_up)
        if len(up) > 1:
            a, b = rng.sample(up, 2)
            rng.choice((self._crash, self._crash, self._cut, self._isolate, self._part, self._transfer, self._wipe))(
                a, b
            )
        world.at(rng.uniform(0.1, 1.0), self._trouble)

    def _crash(self, a: str, b: str) -> None:
        self.rng.choice((self.world.crash, self.world.doom))(a)
        self.world.at(self.rng.uniform(0.1, 2.0), lambda: self.world.start(a))

    def _cut(self, a: str, b: str) -> None:
        self.world.cut(a, b)

    def _isolate(self, a: str, b: str) -> None:
        self.world.isolate(a)
        self.world.at(self.rng.uniform(0.5, 3.0), self.world.heal)

    def _part(self, a: str, b: str) -> None:
        self.world.block(a, b)
        self.world.at(self.rng.uniform(0.5, 3.0), self.world.heal)

    def _transfer(self, a: str, b: str) -> None:
        if self.world.leader is not None:
            self.world.leader.notices.append(lambda engine: engine.transfer())

    def _wipe(self, a: str, b: str) -> None:
        """A disk is lost: one at a time, and only while everyone else has its own."""

        def remembers(node: Node) -> bool:
            return node.store.crashed().meta("born") is not None

        engines = [node.engine for node in self.world.nodes.values() if node.engine is not None]
        known = [membership for engine in engines for membership in engine.memberships.known if engine.born]
        members = {name for membership in known for name in membership.members}
        enough = all(len(membership.voters) >= 3 for membership in known)
        if enough and a in members and all(remembers(self.world.nodes[name]) for name in members):
            self.world.wipe(a)
            self.world.at(self.rng.uniform(0.0, 1.0), lambda: self.world.start(a))


def failure_of(seed: int, engine_class: type[Engine] = Engine) -> str | None:
    try:
        MembershipChaos(seed, engine_class).run()
    except Exception as error:
        return f"seed {seed}: {type(error).__name__}: {error}"
    return None


class Blind(Engine):
    """Takes a learner for a voter as soon as it is connected."""

    def _on_appended(self, peer: Any, message: Any) -> None:
        super()._on_appended(peer, message)
        if peer.id in self._replication.followers:
            self._replication.followers[peer.id].is_level = True


@pytest.mark.parametrize("first", range(0, 8, 4))
def test_nothing_is_lost_while_members_come_and_go(first: int) -> None:
    assert [failure for seed in range(first, first + 4) if (failure := failure_of(seed))] == []


def test_a_learner_that_votes_too_soon_is_noticed() -> None:
    assert any(failure_of(seed, Blind) for seed in range(10))
