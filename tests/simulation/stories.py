"""Faults that are short stories: each is a precise history for which some rule exists, with details left to the seed.

Three more stand among the faults (`corner`, `forget`, `rot`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import wraps

from cluster.trouble import ClusterTrouble
from cluster.tuning import Tuning
from storage.block import encode_block
from storage.operations import Ack, Claim, Keyed, PutQueue, Receive, Received, Send, Sent, Settled
from storage.queue_operations import GetQueue
from storage.record_keys import entry_key
from storage.settings import QueueSettings
from storage.state import APPLIED, APPLIED_META
from tests.simulation.clients import QUEUES, counts
from tests.simulation.faults import between, fault, kill_now, lose_disk, may_lose, replace_leader, until
from tests.simulation.machines import BrokenError, Machine, World
from tests.simulation.plan import Event

LOOK_S = 0.005
FAR_S = 0.03
"""Of a link on which what takes two rounds comes visibly later than what takes one, and on which one can be elected."""


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
        with suppress(ClusterTrouble, BrokenError):
            settings = QueueSettings(lease_ms=1000 + number)
            await world.ask(machine.name, PutQueue("pressed", settings), timeout_ms=1000)

    def begin(number: int) -> None:
        world.spawn(ask(number))

    for number in range(count):
        world.clockwork.later(number * gap_s, begin, number)


Story = Callable[[World, Machine, Machine, list[str], Event], None]
"""What happens to the leader, a follower, and the others, of whom only the names are told."""


def story(lasts_s: float) -> Callable[[Story], Story]:
    """A fault that is told if there is a leader and no other story goes on, and goes on for so long."""

    def register(tell: Story) -> Story:
        @wraps(tell)
        def begin(world: World, machines: list[Machine], event: Event) -> None:
            now_s, leader = world.clockwork.now_s, world.leader()
            follower = next((machine for machine in machines if machine is not leader), None)
            if now_s < world.story_over_s or leader is None or follower is None:
                return
            world.story_over_s = now_s + lasts_s
            others = [name for name in world.machines if name not in (leader.name, follower.name)]
            tell(world, leader, follower, others, event)

        fault(begin)
        return tell

    return register


@story(6.0)
def ghost(world: World, leader: Machine, follower: Machine, others: list[str], event: Event) -> None:
    """A follower loses its disk, and what it had said before arrives when somebody else answers under its name."""
    way = (follower.name, leader.name)
    world.network.slow_s[way] = event.value

    def lose() -> None:
        world.network.slow_s.pop(way, None)  # what is on its way by now takes as long as before
        if may_lose(world, follower):
            lose_disk(world, follower, 0.0)
            follower.disk.slowness = 10.0
            after(world, 3.0, lambda: setattr(follower.disk, "slowness", 1.0))

    after(world, 1.0, lose)


@story(15.0)
def laggard(world: World, leader: Machine, follower: Machine, others: list[str], event: Event) -> None:
    """Only one follower hears the leader, whose patience is over before it hears that follower; then the leader dies.

    By then what the follower had said has come, of entries that were sent again meanwhile.
    """
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


@story(10.0)
def comeback(world: World, leader: Machine, follower: Machine, others: list[str], event: Event) -> None:
    """A leader loses its office, gets it back, and then hears what a follower had said to it before."""
    if len(others) < 3 or leader.replica is None:
        return
    with_others, back = between([leader.name], others), (follower.name, leader.name)
    without = between([follower.name], others)
    term = leader.replica.engine.term
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


@story(5.0)
def flood(world: World, leader: Machine, follower: Machine, others: list[str], event: Event) -> None:
    """A follower comes back while its leader has much that is not committed yet, and commits some in each tick."""
    ways = [(name, leader.name) for name in world.machines if name != leader.name]
    world.network.slow_s.update(dict.fromkeys(ways, event.value))
    until(world, event, lambda: [world.network.slow_s.pop(way, None) for way in ways])
    kill_now(world, follower, Event(0.0, "kill"))
    press(world, leader, 20, 0.005)
    when(world, lambda: follower.is_up, lambda: press(world, leader, 200, 0.005), 3.0)


@story(10.0)
def surplus(world: World, leader: Machine, follower: Machine, others: list[str], event: Event) -> None:
    """A follower gets a copy that ends before its journal does.

    It dies when it has much that is not committed yet, and comes back when its leader has compacted some of that.
    """
    if len(others) < 3:
        return
    ways = [(name, leader.name) for name in others]
    world.network.slow_s.update(dict.fromkeys(ways, event.value))
    after(world, 4.0, lambda: [world.network.slow_s.pop(way, None) for way in ways])
    press(world, leader, 120, 0.01)

    def is_ahead() -> bool:
        ahead, behind = follower.replica, leader.replica
        return ahead is not None and behind is not None and ahead.engine.durable_index > behind.engine.commit_index + 40

    def has_compacted() -> bool:
        applied_index, _ = APPLIED.unpack(follower.disk.meta(APPLIED_META) or b"")
        return leader.replica is not None and leader.replica.engine.first_index > applied_index

    def leave() -> None:
        world.crash(follower)
        when(world, has_compacted, lambda: world.boot(follower), 3.0, lambda: world.boot(follower))

    when(world, is_ahead, leave, 3.0)


@story(15.0)
def belated(world: World, leader: Machine, follower: Machine, others: list[str], event: Event) -> None:
    """A follower is sent a copy, since it answers later than the leader waits, and goes on without it.

    For what it says then comes before it has read the copy.
    """
    way, late_s, copy_s = (follower.name, leader.name), Tuning().resend_s + event.value, follower.disk.copy_s
    follower.disk.copy_s = 3.0
    world.clockwork.later(15.0, setattr, follower.disk, "copy_s", copy_s)

    def slow(seconds: float) -> None:
        world.network.slow_s[way] = seconds

    slow(0.6 * late_s)
    after(world, 0.7 * late_s, lambda: slow(late_s))  # in steps, so that it does not seem to be gone
    press(world, leader, 40, 0.3)


@story(10.0)
def heir(world: World, leader: Machine, follower: Machine, others: list[str], event: Event) -> None:
    """A leader's last answers are of what its heir does not know to be committed; the heir is asked at once."""
    lacking = others[: len(world.machines) // 2]  # so that the heir must first give them what it has
    ways = between([leader.name], lacking)
    slow_s = {(leader.name, name): event.value for name in (follower.name, *others) if name not in lacking}
    world.network.slow_s.update(slow_s)
    oracle = world.oracle

    async def read(name: str, queue: str) -> None:
        asked_index = oracle.seen_index
        try:
            reply = await world.ask(name, GetQueue(queue), timeout_ms=10_000)
        except (ClusterTrouble, BrokenError):
            return
        oracle.read_counts(queue, asked_index, counts(reply.outcome))

    def knows_less() -> bool:
        if follower.replica is None:
            return False
        known = range(follower.replica.engine.commit_index + 1, oracle.seen_index + 1)
        return any(index in known for history in oracle.counts.values() for index, _ in history[-3:])

    def end() -> None:
        for way in slow_s:
            world.network.slow_s.pop(way, None)
        if knows_less():
            far = between([follower.name], lacking)
            world.network.slow_s.update(dict.fromkeys(far, FAR_S))
            after(world, 8.0, lambda: [world.network.slow_s.pop(way, None) for way in far])
            world.crash(leader, power=True)
            after(world, 5.0, lambda: world.restore_power(leader))
            after(world, 5.0, lambda: world.boot_soon(leader))
            for queue in QUEUES:
                for name in world.machines:
                    world.spawn(read(name, queue))
        after(world, 1.0, lambda: world.network.unblock(ways))

    after(world, 0.5, lambda: world.network.block(ways))
    after(world, 0.5 + 2 * event.value, lambda: when(world, knows_less, end, 2.0, end))


@story(12.0)
def needed(world: World, leader: Machine, follower: Machine, others: list[str], event: Event) -> None:
    """A follower without which there is no majority finds that an entry of its journal is damaged, and must stay."""
    is_sound = all(machine.disk.is_sound for machine in world.machines.values())
    if not is_sound or not world.remember():
        return
    away = others[: len(world.machines) // 2]
    ways = between(away, [name for name in world.machines if name not in away])
    world.network.block(ways)
    press(world, leader, 10, 0.1)

    def spoil() -> None:
        if follower.replica is None or follower.shard is None or follower.disk.store is None or not world.remember():
            return
        replica, store = follower.replica, follower.disk.store
        old = range(store.first_index, replica.engine.applied_index)
        unused = [index for index in old if store.get(entry_key(index)) is None]  # what nobody will read
        follower.disk.spoil(unused[:1])
        follower.shard.dispatch(replica.scrub.check)
        if unused:
            after(world, 3.0, lambda: world.spawn(ask()))

    async def ask() -> None:
        healed = world.healed
        try:
            await world.ask(leader.name, PutQueue("needed", QueueSettings()), timeout_ms=4000)
        except (ClusterTrouble, BrokenError) as trouble:
            if world.healed == healed:
                world.oracle.violate(
                    "who is needed stays", f"{leader.name} does not serve with {follower.name}: {trouble}"
                )

    after(world, 2.0, spoil)
    after(world, 10.0, lambda: world.network.unblock(ways))


@story(10.0)
def encore(world: World, leader: Machine, follower: Machine, others: list[str], event: Event) -> None:
    """A lease is asked for again elsewhere under its key, before its first answer comes to a gateway that gave up."""
    way, queue = (leader.name, follower.name), "encore"
    world.network.slow_s[way] = event.value
    after(world, 8.0, lambda: world.network.slow_s.pop(way, None))

    async def consume() -> None:
        await world.ask(leader.name, PutQueue(queue, QueueSettings()))
        sent = await world.ask(leader.name, Send(queue, 1), encode_block([(b"%d" % world.clockwork.now_s, b"")]))
        receive = Receive(queue, 1, 10_000, world.rng.getrandbits(62) | 1)
        keyed = Keyed(world.rng.randbytes(16), bytes(16), receive)
        with suppress(ClusterTrouble):
            await world.ask(follower.name, keyed, timeout_ms=200)
        received = (await world.ask(leader.name, keyed)).outcome
        await world.outside.rest(4.0)
        if isinstance(sent.outcome, Sent) and isinstance(received, Received) and received.deliveries:
            claims = [Claim(received.token, each.message_id, each.count) for each in received.deliveries]
            settled = (await world.ask(leader.name, Ack(queue, claims))).outcome
            if not isinstance(settled, Settled) or settled.stale:
                world.oracle.violate("a lease lasts", f"{received} is gone after 4 s: {settled}")

    async def try_to_consume() -> None:
        with suppress(ClusterTrouble, BrokenError):
            await consume()

    world.spawn(try_to_consume())
