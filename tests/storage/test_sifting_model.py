"""Filters of consumers on both stores beside the naive model: what each selector has seen, wants and gets, in order."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from storage.message_operations import CancelMessage, ChangeMessage
from storage.operations import Ack, Extend, Nack, Receive, Send, Transaction
from storage.options import Options
from storage.queue_operations import PurgeQueue, PutQueue
from storage.redrive_operations import StartRedrive
from storage.settings import QueueSettings, Rate
from tests.storage.life import Life
from tests.storage.naive import Body
from tests.storage.naive_sifting import SIEVES, WINDOW_MS
from tests.storage.test_rules_model import Runs, sending

X, PLAIN = b"\x81\xa1a\x81\xa1x\x01", b""
BODIES = st.tuples(st.sampled_from([b'{"k":1}', b'{"k":2}', b"no JSON"]), st.sampled_from([PLAIN, X]))
OPTIONS = st.builds(
    Options,
    priority=st.sampled_from([0, 0, 0, 0, 1, 9]),
    group=st.sampled_from(["", "", "g"]),
    delay_ms=st.sampled_from([-1, -1, -1, 900]),
    ttl_ms=st.sampled_from([0, 0, 0, 800]),
)
RUNS = st.lists(st.tuples(OPTIONS, st.lists(BODIES, min_size=1, max_size=6)), min_size=1, max_size=3)
SETTINGS = st.builds(
    QueueSettings,
    lease_ms=st.sampled_from([1000, 5000, 0]),
    attempts_max=st.sampled_from([0, 1, 2]),
    dead_letter_queue=st.sampled_from([None, "dead", "dead"]),
    ageing_ms=st.sampled_from([0, 0, 500]),
    concurrency_max=st.sampled_from([0, 0, 0, 3]),
    rate=st.sampled_from([None, None, Rate(4, 1000, 2)]),
    single_active=st.sampled_from([False, False, False, True]),
    history_ms=st.sampled_from([0, 60_000]),
)
FAIR = st.builds(QueueSettings, fair=st.just(True), dead_letter_queue=st.sampled_from([None, "dead"]))
QUEUES = st.sampled_from(["a", "a", "a", "dead"])
PAUSES = st.sampled_from([0, 1, 500, 1000, 5000, WINDOW_MS // 2, WINDOW_MS])
DELAYS = st.sampled_from([-1, 0, 0, 400])
MORE = st.booleans()


class Sifted(Life):
    """Two queues, one the other's dead-letter queue, whose consumers ask with filters."""

    @initialize(chosen=SETTINGS, sieves=st.lists(st.sampled_from([*SIEVES]), max_size=2), runs=RUNS)
    def begin(self, chosen: QueueSettings, sieves: list[str], runs: Runs) -> None:
        self.prepare()
        self.add(1, PutQueue("dead", QueueSettings()), more=True)
        self.add(1, PutQueue("a", chosen))
        for sieve in sieves:
            self.receive("a", 1, sieve, "x", more=False)
        self.send("a", runs, more=False)

    @rule(queue=QUEUES, runs=RUNS, more=MORE)
    def send(self, queue: str, runs: Runs, more: bool) -> None:
        operation, bodies = sending(queue, runs)
        self.add(1, operation, bodies, more=more)

    @rule(queue=QUEUES, bodies=st.lists(BODIES, min_size=1, max_size=6), more=MORE)
    def send_plainly(self, queue: str, bodies: list[Body], more: bool) -> None:
        self.add(1, Send(queue, len(bodies)), bodies, more=more)

    @rule(queue=QUEUES, bodies=st.lists(BODIES, min_size=1, max_size=2), stale=MORE, data=st.data())
    def send_in_a_transaction(self, queue: str, bodies: list[Body], stale: bool, data: st.DataObject) -> None:
        held = self.held() if stale else []
        claims = [Ack(name, self.drawn([claim], data)) for name, claim in held[:1]]
        self.add(1, Transaction([*claims, Send(queue, len(bodies))]), bodies)

    @rule(
        queue=QUEUES,
        messages_max=st.integers(1, 9),
        sieve=st.sampled_from([*SIEVES, *list(SIEVES)[:2] * 2, ""]),
        consumer=st.sampled_from(["x", "x", "y"]),
        more=MORE,
    )
    def receive(self, queue: str, messages_max: int, sieve: str, consumer: str, more: bool) -> None:
        self.tokens += 1
        on, _, text = sieve.partition(" ")
        filter_on = "body" if on == "body" else "attributes"
        self.add(1, Receive(queue, messages_max, 0, self.tokens, 0, consumer, text, filter_on), more=more)

    @rule(
        queue=QUEUES,
        messages_max=st.integers(1, 5),
        which=st.integers(0, 1),
        consumer=st.sampled_from(["x", "x", "x", "y"]),
        first=st.booleans(),
        more=MORE,
    )
    def receive_again(self, queue: str, messages_max: int, which: int, consumer: str, first: bool, more: bool) -> None:
        """With a filter that is known, perhaps when all is sifted."""
        if first:
            self.sift_all()
        selectors = self.model.queues[queue].selectors
        if selectors:
            self.receive(queue, messages_max, selectors[which % len(selectors)].sieve, consumer, more=more)

    @rule(times=st.integers(1, 3), twice=MORE, more=MORE)
    def sift(self, times: int, twice: bool, more: bool) -> None:
        """What is asked and not proposed yet comes between the leader's look and its step; some steps come twice."""
        for _ in range(times):
            self.look_for_sift()
            if twice and self.pending:
                self.pending.append(self.pending[-1])
            if not more:
                self.propose()

    @rule()
    def sift_all(self) -> None:
        """All are seen in the end, if nothing comes between."""
        self.propose()
        for _ in range(200):
            if not self.look_for_sift() and not any(sifter.is_due for sifter in self.sifters):
                break
            self.propose()
        else:
            raise AssertionError("sifting does not end")
        for queue in self.model.queues.values():
            assert not any(message.unsifted for message in queue.messages)
            assert not any(selector.is_behind for selector in queue.selectors)

    @rule(delay_ms=DELAYS, kind=st.integers(0, 3), more=MORE, data=st.data())
    def settle(self, delay_ms: int, kind: int, more: bool, data: st.DataObject) -> None:
        held = self.held()
        if held:
            queue = data.draw(st.sampled_from(sorted({name for name, _ in held})))
            claims = [self.part(claim, data) for claim in self.drawn([c for name, c in held if name == queue], data)]
            operations = (Ack(queue, claims), Nack(queue, claims, delay_ms), Nack(queue, claims, 0, "why"))
            self.add(1, [*operations, Extend(queue, claims, 3000)][kind], more=more)

    @rule(
        back=st.integers(1, 8),
        queue=QUEUES,
        delay_ms=DELAYS,
        priority=st.sampled_from([-1, -1, 0, 5]),
        properties=st.sampled_from([None, PLAIN, X]),
        more=MORE,
    )
    def change(self, back: int, queue: str, delay_ms: int, priority: int, properties: bytes | None, more: bool) -> None:
        operation = ChangeMessage(queue, self.some_id(queue, back), delay_ms, priority=priority, properties=properties)
        self.add(1, operation, more=more)

    @rule(back=st.integers(1, 8), queue=QUEUES, more=MORE)
    def cancel(self, back: int, queue: str, more: bool) -> None:
        self.add(1, CancelMessage(queue, self.some_id(queue, back)), more=more)

    def some_id(self, queue: str, back: int) -> int:
        messages = self.model.queues[queue].messages
        return messages[-back % len(messages)].message_id if messages else back

    @rule(what=st.sampled_from(["redrive", "redrive", "put", "put", "fair", "purge", "compact"]), data=st.data())
    def manage(self, what: str, data: st.DataObject) -> None:
        """What happens less often."""
        self.propose()
        match what:
            case "redrive":
                self.add(1, StartRedrive("dead"))
                for _ in range(3):
                    self.look_for_redrive()
                    self.propose()
            case "put" | "fair":
                self.add(1, PutQueue("a", data.draw(SETTINGS if what == "put" else FAIR)))
                self.pulses(0, 2)
            case "purge":
                self.add(1, PurgeQueue(data.draw(QUEUES)))
            case "compact":
                self.compact_all(1)

    @rule(pause_ms=PAUSES, steps_max=st.integers(1, 4))
    def pulse(self, pause_ms: int, steps_max: int) -> None:
        self.propose(pause_ms // 2)
        self.pulses(pause_ms - pause_ms // 2, steps_max)


TestSifted = Sifted.TestCase
TestSifted.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
