"""All rules together, on both stores beside the naive model: kinds of queues, options of messages, transactions.

Pulses always come to their end here: which message a full dead-letter queue takes first is nobody's promise.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from storage.access_operations import CreateAccessKey, RevokeAccessKey
from storage.message_operations import CancelMessage, ChangeMessage
from storage.operations import Ack, Claim, Extend, Nack, Operation, Receive, Send, Transaction
from storage.options import (
    Options,
    Plan,
    Run,
)
from storage.party_operations import DeleteParty, Kind, PutParty
from storage.queue_operations import PurgeQueue, PutQueue
from storage.redrive_operations import CancelRedrive, StartRedrive
from storage.schedule_operations import DeleteSchedule, Occur, PauseSchedule, PutSchedule
from storage.settings import Backoff, QueueSettings, Rate, contradiction
from tests.storage.life import Life
from tests.storage.naive import Body
from tests.storage.naive_redrive import FILTERS, RATES

MINUTE_MS = 60_000
BODIES = st.tuples(st.sampled_from([b"", b"a", b"bb", b"content", b'{"k":1}']), st.sampled_from([b"", b"", b"\x80"]))
ORDINARY = {
    "lease_ms": st.sampled_from([1000, 5000, 1000, 5000, 0]),
    "attempts_max": st.sampled_from([0, 1, 2]),
    "backoff": st.sampled_from([None, Backoff("fixed", 500, 500, 0), Backoff("exponential", 300, 1000, 0)]),
    "retention_ms": st.sampled_from([MINUTE_MS, 10 * MINUTE_MS]),
    "delay_ms": st.sampled_from([0, 0, 0, 700]),
    "dedup_window_ms": st.sampled_from([0, 0, 1000, MINUTE_MS]),
    "dedup_max": st.sampled_from([2, 100]),
    "dedup_scope": st.sampled_from(["queue", "group"]),
    "concurrency_max": st.sampled_from([0, 0, 3]),
    "rate": st.sampled_from([None, None, Rate(4, 1000, 2)]),
    "single_active": st.sampled_from([False, False, False, True]),
    "history_ms": st.sampled_from([0, MINUTE_MS]),
}
LIMITED = {
    "messages_max": st.sampled_from([0, 3, 6]),
    "bytes_max": st.sampled_from([0, 0, 10]),
}
GROUPED = {
    "group_concurrency_max": st.sampled_from([0, 0, 1, 2]),
    "group_rate": st.sampled_from([None, None, Rate(2, 1000), Rate(5, 1000, 1)]),
}
PLAIN = st.builds(
    QueueSettings,
    dead_letter_queue=st.sampled_from([None, "dead", "dead", "none", "dead.fifo"]),
    on_expiry=st.sampled_from(["drop", "dead_letter"]),
    overflow=st.sampled_from(["reject", "drop_oldest", "dead_letter"]),
    ageing_ms=st.sampled_from([0, 0, 500]),
    dedup_by=st.sampled_from(["id", "id", "content", "content", "required_id"]),
    **ORDINARY,
    **LIMITED,
)
FAIR = st.builds(
    QueueSettings,
    dead_letter_queue=st.sampled_from([None, "dead"]),
    fair=st.booleans(),
    overflow=st.sampled_from(["reject", "drop_oldest", "dead_letter"]),
    **ORDINARY,
    **LIMITED,
    **GROUPED,
)
FIFO = st.builds(
    QueueSettings,
    fifo=st.just(True),
    dead_letter_queue=st.sampled_from([None, "dead.fifo"]),
    on_expiry=st.sampled_from(["drop", "dead_letter"]),
    fair=st.booleans(),
    **ORDINARY,
    **LIMITED,
    **GROUPED,
)


def sensible(kinds: st.SearchStrategy[QueueSettings]) -> st.SearchStrategy[QueueSettings]:
    return kinds.filter(lambda chosen: contradiction("a", chosen) is None)


SETTINGS = {"a": sensible(PLAIN | FAIR), "b": sensible(FIFO)}
QUEUES = st.sampled_from(["a", "a", "a", "b", "b", "b", "dead", "dead.fifo"])
DEAD_LETTERS = st.sampled_from(["dead", "dead.fifo", "dead", "dead.fifo", "a", "b"])
OPTIONS = st.builds(
    Options,
    priority=st.sampled_from([0, 0, 0, 0, 1, 9]),
    group=st.sampled_from(["", "g", "g", "h", "i"]),
    key=st.sampled_from(["", "", "k"]),
    delay_ms=st.sampled_from([-1, -1, -1, 0, 900]),
    at_ms=st.sampled_from([0, 0, 0, 1_002_000, 1_100_000]),
    ttl_ms=st.sampled_from([0, 0, 0, 800, 2 * MINUTE_MS]),
    dedup_id=st.sampled_from(["", "", "1", "2", "3"]),
    producer=st.sampled_from(["", "", "", "shop"]),
)
PLANS = st.builds(
    Plan,
    queue=st.sampled_from(["a", "a", "b", "dead", "none"]),
    body=st.just(b"scheduled"),
    options=OPTIONS.filter(lambda options: not options.at_ms),
    every_ms=st.sampled_from([1000, 1000, 2000]),
    overlap=st.sampled_from(["allow", "skip"]),
    catch_up=st.sampled_from(["none", "one", "all"]),
    paused=st.booleans(),
)
RUNS = st.lists(st.tuples(OPTIONS, st.lists(BODIES, min_size=1, max_size=3)), min_size=1, max_size=3)
CONSUMERS = st.sampled_from(["", "x", "x", "y"])
PAUSES = st.sampled_from([0, 1, 200, 500, 999, 1000, 5000, MINUTE_MS])
DELAYS = st.sampled_from([-1, -1, 0, 0, 400, 2000])
MORE = st.booleans()
Runs = list[tuple[Options, list[Body]]]


class AllRules(Life):
    """Queues of every kind, in one shard."""

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self.prepare(queues_max=4)
        self.add(1, PutQueue("dead", QueueSettings()), more=True)
        self.add(1, PutQueue("dead.fifo", QueueSettings(fifo=True)), more=True)
        for queue in ("a", "b"):
            self.add(1, PutQueue(queue, data.draw(SETTINGS[queue])), more=True)
        self.propose()

    @rule(queue=QUEUES, runs=RUNS, more=MORE)
    def send(self, queue: str, runs: Runs, more: bool) -> None:
        operation, bodies = sending(queue, runs)
        self.add(1, operation, bodies, more=more)

    @rule(queue=QUEUES, bodies=st.lists(BODIES, min_size=1, max_size=4), more=MORE)
    def send_plainly(self, queue: str, bodies: list[Body], more: bool) -> None:
        self.add(1, Send(queue, len(bodies)), bodies, more=more)

    @rule(queue=QUEUES, groups=st.lists(st.sampled_from("ghi"), min_size=1, max_size=12))
    def send_to_groups(self, queue: str, groups: list[str]) -> None:
        operation, bodies = sending(queue, [(Options(group=group), [(b"", b"")]) for group in groups])
        self.add(1, operation, bodies)

    @rule(queue=QUEUES, messages_max=st.integers(1, 9), consumer=CONSUMERS, more=MORE)
    def receive(self, queue: str, messages_max: int, consumer: str, more: bool) -> None:
        self.tokens += 1
        self.add(1, Receive(queue, messages_max, 0, self.tokens, 0, consumer), more=more)

    @rule(delay_ms=DELAYS, kind=st.integers(0, 4), more=MORE, data=st.data())
    def settle(self, delay_ms: int, kind: int, more: bool, data: st.DataObject) -> None:
        settling = self.settling(delay_ms, kind, data)
        if settling is not None:
            self.add(1, settling, more=more)

    def settling(self, delay_ms: int, kind: int, data: st.DataObject) -> Ack | Nack | Extend | None:
        held = self.held()
        if not held:
            return None
        queue = data.draw(st.sampled_from(sorted({name for name, _ in held})))
        claims = [self.part(claim, data) for claim in self.drawn([c for name, c in held if name == queue], data)]
        if kind == 4:
            return Extend(queue, claims, 3000)
        return Ack(queue, claims) if kind % 2 else Nack(queue, claims, delay_ms, "why" if kind else "")

    @rule(queue=st.sampled_from("ab"), groups=st.lists(st.sampled_from("gh"), min_size=1, max_size=4), more=MORE)
    def fail_in_one_entry(self, queue: str, groups: list[str], more: bool) -> None:
        """Sent, received and nacked in one entry, while others send to the dead-letter queues."""
        self.tokens += 1
        operation, bodies = sending(queue, [(Options(group=group), [(b"", b"")]) for group in groups])
        next_id = self.model.queues[queue].next_id if queue in self.model.queues else 1
        claim = Claim(self.tokens, max(0, next_id - 8), 20)
        self.add(1, operation, bodies, more=True)
        self.add(1, Receive(queue, 9, 0, self.tokens, 0, "x"), more=True)
        for _ in range(2):
            self.add(1, Send("dead", 1), [(b"a", b"")], more=True)
            self.add(1, Nack(queue, [claim], 0), more=True)
        self.add(1, Send("dead", 1), [(b"a", b"")], more=more)

    @rule(
        back=st.integers(1, 8),
        queue=QUEUES,
        change=st.tuples(DELAYS, st.sampled_from([-1, -1, 0, 600]), st.sampled_from([-1, -1, 0, 5])),
        properties=st.sampled_from([None, None, b"\x80", b"\x81\xa1x\x01"]),
        at_ms=st.sampled_from([-1, -1, -1, 1_003_000]),
        more=MORE,
    )
    def change(
        self, back: int, queue: str, change: tuple[int, int, int], properties: bytes | None, at_ms: int, more: bool
    ) -> None:
        delay_ms, ttl_ms, priority = change
        message_id = self.some_id(queue, back)
        self.add(1, ChangeMessage(queue, message_id, delay_ms, at_ms, ttl_ms, priority, properties), more=more)

    @rule(back=st.integers(1, 8), queue=QUEUES, more=MORE)
    def cancel(self, back: int, queue: str, more: bool) -> None:
        self.add(1, CancelMessage(queue, self.some_id(queue, back)), more=more)

    def some_id(self, queue: str, back: int) -> int:
        messages = self.model.queues[queue].messages if queue in self.model.queues else []
        return messages[-back].message_id if len(messages) >= back else back

    @rule(
        queues=st.lists(QUEUES, min_size=1, max_size=2),
        runs=RUNS,
        kinds=st.lists(st.integers(0, 4), max_size=2),
        delay_ms=DELAYS,
        stale=st.sampled_from([False, False, True]),
        more=MORE,
        data=st.data(),
    )
    def transact(
        self,
        queues: list[str],
        runs: Runs,
        kinds: list[int],
        delay_ms: int,
        stale: bool,
        more: bool,
        data: st.DataObject,
    ) -> None:
        """Sends to several queues and settlements, in any order; sometimes with a receipt that is stale."""
        sends = [sending(queue, runs) for queue in queues]
        settlings = [self.settling(delay_ms, kind, data) for kind in kinds]
        chosen: list[Operation | None] = [*settlings, *(operation for operation, _ in sends)]
        if stale:
            chosen.append(Ack("a", [Claim(10_000, 1, 1)]))
        order = data.draw(st.permutations([each for each in chosen if each is not None]))
        steps = [each for each in order if isinstance(each, Send | Ack | Nack | Extend)]
        bodies = [body for each in steps for operation, mine in sends if operation is each for body in mine]
        self.add(1, Transaction(steps), bodies, more=more)

    @rule(queue=st.sampled_from(["a", "b"]), data=st.data())
    def put(self, queue: str, data: st.DataObject) -> None:
        """NB: groups learn of new limits by pulses."""
        self.propose()
        self.add(1, PutQueue(queue, data.draw(SETTINGS[queue])))
        self.pulses(0, 2)

    @rule(queue=st.sampled_from(["a", "b", "c"]), only_new=st.booleans(), data=st.data())
    def put_if(self, queue: str, only_new: bool, data: st.DataObject) -> None:
        """Only if there is none; or only if it is as it is, or as it is not."""
        self.propose()
        known = self.model.queues.get(queue)
        chosen = SETTINGS.get(queue, SETTINGS["a"])
        instead_of = data.draw(chosen if known is None else st.sampled_from([known.settings, known.settings]) | chosen)
        self.add(1, PutQueue(queue, data.draw(chosen), only_new, None if only_new else instead_of))
        self.pulses(0, 2)

    @rule(
        party=st.sampled_from([("producer", "shop"), ("consumer", "x"), ("consumer", "x"), ("consumer", "y")]),
        name=st.sampled_from(["", "one", "another"]),
        delete=st.sampled_from([False] * 4 + [True]),
        more=MORE,
    )
    def register(self, party: tuple[Kind, str], name: str, delete: bool, more: bool) -> None:
        self.add(1, DeleteParty(*party) if delete else PutParty(*party, name, "worker"), more=more)

    @rule(name=st.sampled_from("xy"), plan=PLANS, delete=st.sampled_from([False] * 4 + [True]), more=MORE)
    def schedule(self, name: str, plan: Plan, delete: bool, more: bool) -> None:
        self.add(1, DeleteSchedule(name) if delete else PutSchedule(name, plan), more=more)

    @rule(name=st.sampled_from("xy"), paused=st.booleans(), more=MORE)
    def pause(self, name: str, paused: bool, more: bool) -> None:
        self.add(1, PauseSchedule(name, paused), more=more)

    @rule(
        name=st.sampled_from("xxy"),
        steps_ms=st.lists(st.sampled_from([0, 500, 1000]), min_size=1, max_size=3),
        sends=st.sampled_from(["", "due", "due", "due", "later"]),
        missed=st.booleans(),
        trouble=st.sampled_from([""] * 4 + ["store_full"]),
        stale=st.sampled_from([0, 0, 0, 0, 1]),
        more=MORE,
    )
    def occur(
        self, name: str, steps_ms: list[int], sends: str, missed: bool, trouble: str, stale: int, more: bool
    ) -> None:
        """Times of a schedule come one after another; sometimes twice, or of a state that is no more."""
        schedule = self.model.schedules.known.get(name)
        version, due_ms = (1, 0) if schedule is None else (schedule.version, schedule.next_ms)
        for step_ms in steps_ms:
            next_ms = max(due_ms, self.now_ms) + step_ms
            occurrence_ms = {"": 0, "due": max(due_ms, 0), "later": next_ms}[sends]
            operation = Occur(name, version + stale, due_ms, next_ms, occurrence_ms, missed, trouble)
            self.add(1, operation, [(b"scheduled", b"")], more=True)
            due_ms = next_ms
        if not more:
            self.propose()

    @rule(queue=DEAD_LETTERS, to=st.sampled_from(["", "", "a", "b", "dead", "none"]), data=st.data(), more=MORE)
    def redrive(self, queue: str, to: str, data: st.DataObject, more: bool) -> None:
        wanted, rate = data.draw(st.sampled_from(list(FILTERS))), data.draw(st.sampled_from(RATES))
        self.add(1, StartRedrive(queue, to, wanted, rate), more=more)

    @rule(queue=DEAD_LETTERS, undo=st.booleans(), back=st.integers(0, 3), more=MORE)
    def undo_or_cancel_a_redrive(self, queue: str, undo: bool, back: int, more: bool) -> None:
        known = sorted(self.model.redrives.of(self.model.queues[queue])) if queue in self.model.queues else []
        task = known[-back] if 0 < back <= len(known) else 1 + back
        self.add(1, StartRedrive(queue, undo=task) if undo else CancelRedrive(queue, task), more=more)

    @rule(pause_ms=st.sampled_from([0, 0, 200, 1000]), times=st.integers(1, 4), twice=MORE)
    def redrive_on(self, pause_ms: int, times: int, twice: bool) -> None:
        """What is asked and not proposed yet comes between the leader's look and its step."""
        self.now_ms += pause_ms
        for _ in range(times):
            self.look_for_redrive()
            if twice:
                self.look_for_redrive()
            self.propose()

    @rule(queue=QUEUES)
    def purge(self, queue: str) -> None:
        self.add(1, PurgeQueue(queue))

    @rule(name=st.sampled_from("abcd"), role=st.sampled_from(["producer", "admin"]), revoke=st.booleans(), more=MORE)
    def change_access(self, name: str, role: str, revoke: bool, more: bool) -> None:
        key_id = name.upper() * 16
        made = CreateAccessKey(key_id, b"sealed", [role], ["*"], note=name)
        self.add(1, RevokeAccessKey(key_id) if revoke else made, more=more)

    @rule(pause_ms=PAUSES)
    def propose_later(self, pause_ms: int) -> None:
        self.propose(pause_ms)

    @rule(pause_ms=PAUSES, steps_max=st.integers(1, 4))
    def pulse(self, pause_ms: int, steps_max: int) -> None:
        self.pulses(pause_ms, steps_max)

    @rule(keep=st.integers(0, 3))
    def compact(self, keep: int) -> None:
        self.compact_all(keep)


def sending(queue: str, runs: Runs) -> tuple[Send, list[Body]]:
    bodies = [body for _, mine in runs for body in mine]
    return Send(queue, len(bodies), [Run(len(mine), options) for options, mine in runs]), bodies


TestAllRules = AllRules.TestCase
TestAllRules.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_a_message_given_up_when_its_time_is_over_is_not_kept_for_ever() -> None:
    """A path that chance seldom finds: leased while it is swept, and that was its last attempt."""
    life = AllRules()
    life.prepare()
    life.add(1, PutQueue("a", QueueSettings(lease_ms=2 * MINUTE_MS, attempts_max=1, retention_ms=MINUTE_MS)))
    life.add(1, Send("a", 1), [(b"body", b"")])
    life.add(1, Receive("a", 1, 0, token=1))
    life.pulses(MINUTE_MS, 4)
    life.pulses(MINUTE_MS, 4)
    assert life.model.queues["a"].messages == []
    life.teardown()


def test_a_message_that_comes_between_two_sends_of_one_entry_is_none_of_theirs() -> None:
    """Sends of one entry share a chunk only while their ids follow on one another."""
    life = AllRules()
    life.prepare()
    life.add(1, PutQueue("dead", QueueSettings()))
    life.add(1, PutQueue("a", QueueSettings(attempts_max=1, dead_letter_queue="dead")))
    life.add(1, Send("a", 1), [(b"given up", b"")])
    life.add(1, Receive("a", 1, 0, token=1))
    life.add(1, Send("dead", 1), [(b"before", b"")], more=True)
    life.add(1, Nack("a", [Claim(1, 1, 1)]), more=True)
    life.add(1, Send("dead", 2), [(b"after", b""), (b"last", b"")])
    assert [message.content[0] for message in life.model.queues["dead"].messages] == [
        b"before",
        b"given up",
        b"after",
        b"last",
    ]
    life.teardown()


def test_in_a_fair_queue_a_quiet_group_waits_for_eight_messages_of_a_noisy_one() -> None:
    life = AllRules()
    life.prepare()
    life.add(1, PutQueue("a", QueueSettings(fair=True)))
    for _ in range(10):
        life.add(1, *sending("a", [(Options(group="noisy"), [(b"", b"")] * 10)]))
    life.add(1, Receive("a", 1, 0, token=1))
    life.add(1, *sending("a", [(Options(group="quiet"), [(b"quiet", b"")])]))
    waited = 0
    for token in range(2, 20):
        life.add(1, Receive("a", 1, 0, token=token))
        held = [message for message in life.model.queues["a"].messages if message.token == token]
        if held[0].content[0] == b"quiet":
            break
        waited += 1
    assert waited <= 8
    life.teardown()


def test_a_receive_that_is_repeated_brings_all_that_is_held_though_its_chunk_was_cut() -> None:
    """A message in the middle came back and was changed: it has a chunk of its own, and those behind it another."""
    life = AllRules()
    life.prepare()
    life.add(1, PutQueue("a", QueueSettings()))
    life.add(1, Send("a", 5), [(b"%d" % number, b"") for number in range(5)])
    life.add(1, Receive("a", 5, 0, token=1))
    life.add(1, Nack("a", [Claim(1, 3, 1)], 0))
    life.add(1, ChangeMessage("a", 3, priority=1))
    life.add(1, Ack("a", [Claim(1, 4, 1)]))
    life.teardown()
