"""Faults that are short stories: each is a precise history for which some rule exists, with details left to the seed.

Three more stand among the faults (`corner`, `forget`, `rot`).
"""

from __future__ import annotations

from collections.abc import Callable

from cluster.trouble import ClusterTrouble
from cluster.tuning import Tuning
from storage.operations import PutQueue
from storage.settings import QueueSettings
from tests.simulation.faults import between, fault, kill_now, lose_disk, may_lose, replace_leader, until
from tests.simulation.machines import BrokenError, Machine, World
from tests.simulation.plan import Event

LOOK_S = 0.005


def when(
    world: World,
    condition: Callable[[], bool],
    act: Callable[[], object],
    within_s: float,
    otherwise: Callable[[], object] = lambda: None,
) -> None:
    """`act` as soon as `condition` holds, or `otherwise` if it does not in time; neither once all is healed."""
    healed, end_s = world.healed, world.clockwork.now_s + within_s

    def look() -> None:
        if world.healed != healed:
            return
        if condition():
            act()
        elif world.clockwork.now_s > end_s:
            otherwise()
        else:
            world.clockwork.later(LOOK_S, look)

    look()


def after(world: World, seconds: float, act: Callable[[], object]) -> None:
    """`act` in so many seconds, unless all is healed by then."""
    healed = world.healed
    world.clockwork.later(seconds, lambda: world.healed == healed and act())


def press(world: World, machine: Machine, count: int, gap_s: float) -> None:
    """Have so many operations asked for at one machine, one after the other, without waiting for answers."""

    async def ask(number: int) -> None:
        try:
            settings = QueueSettings(lease_ms=1000 + number)
            await world.ask(machine.name, PutQueue("pressed", settings), timeout_ms=1000)
        except (ClusterTrouble, BrokenError):
            pass

    def begin(number: int) -> None:
        world.spawn(ask(number))

    for number in range(count):
        world.clockwork.later(number * gap_s, begin, number)


def cast(world: World, machines: list[Machine], lasts_s: float) -> tuple[Machine, Machine, list[str]] | None:
    """The leader, a follower, and the names of the others; None if there is no leader, or a story is told already."""
    now_s = world.clockwork.now_s
    if now_s < world.story_over_s:
        return None
    leader = world.leader()
    follower = next((machine for machine in machines if machine is not leader), None)
    if leader is None or follower is None:
        return None
    world.story_over_s = now_s + lasts_s
    return leader, follower, [name for name in world.machines if name not in (leader.name, follower.name)]


@fault
def ghost(world: World, machines: list[Machine], event: Event) -> None:
    """A follower loses its disk, and what it had said before arrives when somebody else answers under its name."""
    found = cast(world, machines, 6.0)
    if found is None:
        return
    leader, follower, _ = found
    way = (follower.name, leader.name)
    world.network.slow_s[way] = event.value

    def lose() -> None:
        world.network.slow_s.pop(way, None)  # what is on its way by now takes as long as before
        if may_lose(world, follower):
            lose_disk(world, follower, 0.0)
            follower.disk.slowness = 10.0
            after(world, 3.0, lambda: setattr(follower.disk, "slowness", 1.0))

    after(world, 1.0, lose)


@fault
def laggard(world: World, machines: list[Machine], event: Event) -> None:
    """Only one follower hears the leader, whose patience is over before it hears that follower; then the leader dies.

    By then what the follower had said has come, of entries that were sent again meanwhile.
    """
    found = cast(world, machines, 15.0)
    if found is None:
        return
    leader, follower, others = found
    way, late_s = (follower.name, leader.name), Tuning().resend_s + event.value
    ways = between([leader.name], others)

    def slow(seconds: float) -> None:
        world.network.slow_s[way] = seconds

    def part() -> None:
        world.network.block(ways)
        press(world, leader, 30, 0.02)

    def end() -> None:
        world.network.slow_s.pop(way, None)
        replace_leader(world, leader, ways)

    slow(0.6 * late_s)
    after(world, 0.7 * late_s, lambda: slow(late_s))  # in steps, so that it does not seem to be gone
    after(world, 1.8 * late_s, part)
    after(world, 2.9 * late_s, end)


@fault
def comeback(world: World, machines: list[Machine], event: Event) -> None:
    """A leader loses its office, gets it back, and then hears what a follower had said to it before."""
    found = cast(world, machines, 10.0)
    if found is None or len(found[2]) < 3 or found[0].replica is None:
        return
    leader, follower, others = found
    with_others, back = between([leader.name], others), (follower.name, leader.name)
    without = between([follower.name], others)
    term = found[0].replica.engine.term
    world.network.block([*with_others, *without, back])
    press(world, leader, 30, 0.01)

    def has_successor() -> bool:
        now = world.leader()
        return now is not None and now is not leader and now.replica is not None and now.replica.engine.term > term

    def leads_again() -> bool:
        now = world.leader()
        if now is None or now.replica is None or now.shard is None:
            return False
        if now is not leader:
            now.shard.dispatch(now.replica.engine.transfer, leader.name)
        return now is leader

    def end() -> None:
        world.network.unblock([*with_others, *without, back])

    def rejoin() -> None:
        world.network.unblock(with_others)
        when(world, leads_again, end, 8.0, end)

    when(world, has_successor, rejoin, 8.0, end)


@fault
def flood(world: World, machines: list[Machine], event: Event) -> None:
    """A follower comes back while its leader has much that is not committed yet, and commits some in each tick."""
    found = cast(world, machines, 5.0)
    if found is None:
        return
    leader, follower, _ = found
    ways = [(name, leader.name) for name in world.machines if name != leader.name]
    world.network.slow_s.update(dict.fromkeys(ways, event.value))
    until(world, event, lambda: [world.network.slow_s.pop(way, None) for way in ways])
    kill_now(world, follower, Event(0.0, "kill"))
    press(world, leader, 20, 0.005)
    when(world, lambda: follower.is_up, lambda: press(world, leader, 80, 0.005), 3.0)
