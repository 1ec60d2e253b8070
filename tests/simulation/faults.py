"""What can go wrong: each kind of event, what it does, and how it ends.

An event that would go beyond what is promised does nothing: a disk is only lost or corrupted while every other machine
remembers all it has promised.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

from storage.state import StorageFailure
from tests.simulation.clockwork import Killed
from tests.simulation.disk import Trouble
from tests.simulation.machines import RESTART_S, Machine, World
from tests.simulation.plan import Event

MACHINES_MAX = 5
VOTERS_MIN = 3
"""Fewer never vote: of fewer, none could be spared."""
Fault = Callable[[World, list[Machine], Event], None]
FAULTS: dict[str, Fault] = {}


def fault(function: Fault) -> Fault:
    FAULTS[function.__name__] = function
    return function


def happen(world: World, event: Event) -> None:
    """Let an event happen now."""
    machines = resolve(world, event.who)
    if not machines:
        return
    names = " ".join(machine.name for machine in machines)
    extra = (f" for {event.for_s:g} s" if event.for_s else "") + (f" ({event.value:g})" if event.value else "")
    world.say("", f"--- {event.kind} {names}{extra}")
    world.oracle.count(f"fault {event.kind}")
    FAULTS[event.kind](world, machines, event)


def resolve(world: World, who: list[str]) -> list[Machine]:
    """The machines an event means; roles nobody has now are taken by whoever is left."""
    leader = world.leader()
    left = [machine for machine in world.machines.values() if machine.name not in who and machine is not leader]
    found: list[Machine] = []
    for name in who:
        machine: Machine | None = world.machines.get(name)
        if name == "leader":
            machine = leader
        if machine is None:
            machine = next((other for other in left if other not in found), None)
        if machine is not None and machine not in found:
            found.append(machine)
    return found


def until(world: World, event: Event, undo: Callable[[], object]) -> None:
    """Undo the event when its time is over, unless the world was healed before."""
    healed = world.healed

    def end() -> None:
        if world.healed == healed:
            undo()

    world.clockwork.later(event.for_s, end)


# --- processes --------------------------------------------------------------------------------------------------------


def kill_now(world: World, machine: Machine, event: Event) -> None:
    if machine.is_up:
        world.crash(machine)
        world.boot_soon(machine, event.for_s)


@fault
def kill(world: World, machines: list[Machine], event: Event) -> None:
    """SIGKILL."""
    kill_now(world, machines[0], event)


@fault
def kill_many(world: World, machines: list[Machine], event: Event) -> None:
    for machine in machines:
        kill_now(world, machine, event)


@fault
def kill_at_step(world: World, machines: list[Machine], event: Event) -> None:
    """SIGKILL at some step of the store from now."""
    disk = machines[0].disk
    disk.trouble = Trouble(int(event.value), lambda: Killed("killed at a step of its store"))


@fault
def power_cut(world: World, machines: list[Machine], event: Event) -> None:
    for machine in machines:
        if not machine.is_dark:
            world.crash(machine, power=True)

            def restore(machine: Machine = machine) -> None:
                world.restore_power(machine)
                world.boot_soon(machine)

            until(world, event, restore)


@fault
def stop(world: World, machines: list[Machine], event: Event) -> None:
    """SIGTERM, and a start later."""
    world.stop(machines[0], event.for_s)


@fault
def transfer(world: World, machines: list[Machine], event: Event) -> None:
    """The leader is asked to hand over."""
    leader = world.leader()
    if leader is not None and leader.replica is not None and leader.shard is not None:
        target = None if machines[0] is leader else machines[0].name
        leader.shard.dispatch(leader.replica.engine.transfer, target)


@fault
def pause(world: World, machines: list[Machine], event: Event) -> None:
    """SIGSTOP, and SIGCONT later; the shard, the gateway, or both."""
    machine = machines[0]
    which = int(event.at_s * 1000) % 3
    processes = [machine.shard] if which == 0 else [machine.gateway] if which == 1 else [machine.shard, machine.gateway]
    for process in processes:
        if process is not None:
            process.pause()
            until(world, event, process.resume)


@fault
def pause_all(world: World, machines: list[Machine], event: Event) -> None:
    for machine in world.machines.values():
        for process in (machine.shard, machine.gateway):
            if process is not None:
                process.pause()
                until(world, event, process.resume)


@fault
def join(world: World, machines: list[Machine], event: Event) -> None:
    """A new machine is added to the cluster."""
    if len(world.machines) < MACHINES_MAX and not world.changes:
        world.spawn(world.join())


@fault
def leave(world: World, machines: list[Machine], event: Event) -> None:
    """A machine is removed from the cluster for good, as long as enough are left that vote."""
    leader, leaver = world.leader(), next((machine for machine in machines if machine.is_member), None)
    if leader is None or leader.replica is None or leaver is None or world.changes:
        return
    if len(leader.replica.engine.membership.voters.keys() - {leaver.name}) >= VOTERS_MIN:
        world.spawn(world.leave(leaver.name))


# --- network ----------------------------------------------------------------------------------------------------------


def _block(world: World, ways: list[tuple[str, str]], event: Event) -> None:
    world.network.block(ways)

    def undo() -> None:
        if int(event.at_s * 1000) % 2:  # the kernel has given up some of the connections meanwhile
            for one, other in ways:
                world.network.cut(one, other)
        world.network.unblock(ways)

    until(world, event, undo)


def between(some: list[str], others: list[str]) -> list[tuple[str, str]]:
    return [way for one in some for other in others for way in ((one, other), (other, one))]


@fault
def cut(world: World, machines: list[Machine], event: Event) -> None:
    """Connections break."""
    if len(machines) > 1:
        world.network.cut(machines[0].name, machines[1].name)


@fault
def block(world: World, machines: list[Machine], event: Event) -> None:
    if len(machines) > 1:
        _block(world, between([machines[0].name], [machines[1].name]), event)


@fault
def block_one_way(world: World, machines: list[Machine], event: Event) -> None:
    if len(machines) > 1:
        _block(world, [(machines[0].name, machines[1].name)], event)


@fault
def isolate(world: World, machines: list[Machine], event: Event) -> None:
    name = machines[0].name
    _block(world, between([name], [other for other in world.machines if other != name]), event)


@fault
def halves(world: World, machines: list[Machine], event: Event) -> None:
    names = [machine.name for machine in machines]
    _block(world, between(names[: int(event.value)], names[int(event.value) :]), event)


@fault
def ring(world: World, machines: list[Machine], event: Event) -> None:
    """Everybody reaches two others, or one way round only when there are but three."""
    names = [machine.name for machine in machines]
    neighbours = set(zip(names, names[1:] + names[:1], strict=True))
    if len(names) > 3:
        neighbours |= {(other, one) for one, other in neighbours}
    _block(world, [way for way in permutations(names, 2) if way not in neighbours], event)


@fault
def slow_link(world: World, machines: list[Machine], event: Event) -> None:
    if len(machines) > 1:
        way = (machines[0].name, machines[1].name)
        world.network.slow_s[way] = event.value
        until(world, event, lambda: world.network.slow_s.pop(way, None))


@fault
def corner(world: World, machines: list[Machine], event: Event) -> None:
    """Only one follower hears the leader; it dies as it commits entries, and the leader is gone before it is back.

    Had it acknowledged them already, the leader would have taken them for committed.
    """
    leader = world.leader()
    followers = [machine for machine in machines if machine is not leader]
    if leader is None or not followers:
        return
    only, lead = followers[0], leader
    others = [name for name in world.machines if name not in (leader.name, only.name)]
    ways = between([leader.name], others)
    world.network.block(ways)
    healed, starts = world.healed, only.starts
    only.disk.trouble = Trouble(3, lambda: Killed("killed as it commits entries"), of_entries=True)

    def depose() -> None:
        if world.healed == healed:
            replace_leader(world, lead, ways)

    def follow_up(patience: int) -> None:
        if world.healed != healed:
            return
        if only.is_up and only.starts == starts and patience:
            world.clockwork.later(0.005, follow_up, patience - 1)
            return
        world.clockwork.later(0.2, depose)

    world.clockwork.later(0.005, follow_up, 400)


def replace_leader(world: World, leader: Machine, ways: list[tuple[str, str]]) -> None:
    """The leader is killed, and down until the others have had time to elect one of them."""
    if leader.is_up:
        world.crash(leader)
        world.boot_soon(leader, 3.0)
    world.clockwork.later(0.5, world.network.unblock, ways)


@fault
def forget(world: World, machines: list[Machine], event: Event) -> None:
    """Only one follower hears the leader; it loses its disk, and the leader dies as soon as its word counts again.

    What only these two had is what the leader must have given it back by then.
    """
    leader = world.leader()
    followers = [machine for machine in machines if machine is not leader]
    if leader is None or not followers or not may_lose(world, followers[0]):
        return
    only, lead = followers[0], leader
    others = [name for name in world.machines if name not in (leader.name, only.name)]
    ways = between([leader.name], others)
    world.network.block(ways)
    healed = world.healed

    def lose() -> None:
        if world.healed == healed and may_lose(world, only):
            lose_disk(world, only, 0.0)
            world.clockwork.later(0.005, follow_up, 600)

    def follow_up(patience: int) -> None:
        if world.healed != healed:
            return
        if patience and not (only.replica is not None and only.replica.engine.counts):
            world.clockwork.later(0.005, follow_up, patience - 1)
        else:
            replace_leader(world, lead, ways)

    world.clockwork.later(1.0, lose)


# --- clocks and disks -------------------------------------------------------------------------------------------------


@fault
def clock_jump(world: World, machines: list[Machine], event: Event) -> None:
    """The wall clock of one machine is wrong for a while. Only one at a time, for the median would believe two."""
    machine = machines[0]
    if any(other.jumped_s for other in world.machines.values()):
        return
    machine.skew_s += event.value
    machine.jumped_s = event.value

    def undo() -> None:
        machine.skew_s -= machine.jumped_s
        machine.jumped_s = 0.0

    world.clockwork.later(10 * event.for_s, undo)


@fault
def slow_disk(world: World, machines: list[Machine], event: Event) -> None:
    disk = machines[0].disk
    disk.slowness = event.value
    until(world, event, lambda: setattr(disk, "slowness", 1.0))


@fault
def full_disk(world: World, machines: list[Machine], event: Event) -> None:
    """There is no room for more messages on one machine, or on two."""
    for machine in machines[: 1 + int(event.at_s * 1000) % 2]:
        machine.disk.room_bytes = 1000
        until(world, event, lambda machine=machine: setattr(machine.disk, "room_bytes", None))


@fault
def storage_error(world: World, machines: list[Machine], event: Event) -> None:
    """EIO at some step of the store from now."""
    disk = machines[0].disk
    disk.trouble = Trouble(int(event.value), lambda: StorageFailure("input/output error"))


@fault
def bit_flip(world: World, machines: list[Machine], event: Event) -> None:
    """Bits change on one disk."""
    disk = machines[0].disk
    if world.remember() and all(machine.disk.is_sound for machine in world.machines.values()):
        disk.flip(event.value)


@fault
def wipe(world: World, machines: list[Machine], event: Event) -> None:
    """A disk is lost and replaced."""
    machine = machines[0]
    if may_lose(world, machine):
        lose_disk(world, machine, event.for_s)


def may_lose(world: World, machine: Machine) -> bool:
    return world.remember() and all(other.disk.is_sound for other in world.machines.values() if other is not machine)


def lose_disk(world: World, machine: Machine, rest_s: float) -> None:
    world.crash(machine)
    machine.disk.wipe()
    world.boot_soon(machine, rest_s)


@fault
def rot(world: World, machines: list[Machine], event: Event) -> None:
    """Bits change in what the leader is going to read again, for a follower that was away."""
    leader = world.leader()
    followers = [machine for machine in machines if machine is not leader]
    if leader is None or not followers:
        return
    lead, away = leader, followers[0]
    kill_now(world, away, event)
    healed = world.healed

    def flip() -> None:
        sound = all(machine.disk.is_sound for machine in world.machines.values())
        if world.healed == healed and sound and world.remember():
            lead.disk.flip(1.0)

    world.clockwork.later(RESTART_S[0] + event.for_s, flip)
