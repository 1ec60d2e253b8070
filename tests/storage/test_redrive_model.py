"""Redrive beside the naive model, where many messages are given up and many tasks move them, in both stores."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from storage.message_operations import CancelMessage, ChangeMessage
from storage.operations import Ack, Claim, Nack, Receive
from storage.options import (
    Options,
)
from storage.queue_operations import DeleteQueue, PurgeQueue, PutQueue
from storage.redrive_operations import CancelRedrive, StartRedrive
from storage.settings import QueueSettings, Rate
from tests.storage.life import Life
from tests.storage.naive_redrive import FILTERS
from tests.storage.test_rules_model import BODIES, sending

FAILING = {
    "a": {"dead_letter_queue": "dead"},
    "b": {"dead_letter_queue": "dead.fifo", "fifo": True},
    "c": {},  # what it gives up stays there, dead
}
SOURCES = st.sampled_from(sorted(FAILING))
LETTERS = {"a": "dead", "b": "dead.fifo", "c": "c"}
QUEUES = st.sampled_from(["a", "b", "c", "dead", "dead.fifo"])
ROOM = st.sampled_from([0, 0, 0, 3])
MORE = st.booleans()
Bodies = list[tuple[bytes, bytes]]


class Redriving(Life):
    """Queues that give up at once, and tasks that move what they gave up."""

    @initialize(fair=st.booleans())
    def begin(self, fair: bool) -> None:
        self.prepare(queues_max=5)
        for name in ("dead", "dead.fifo", *FAILING):
            self.put(name, 0, fair, None)

    @rule(queue=QUEUES, room=ROOM, fair=st.booleans(), sources=st.sampled_from([None, None, None, [], ["a", "c"]]))
    def put(self, queue: str, room: int, fair: bool, sources: list[str] | None) -> None:
        """NB: groups learn of new limits by pulses."""
        self.propose()
        chosen = FAILING.get(queue, {"fifo": queue.endswith(".fifo")})
        attempts, room = (1, room) if queue in FAILING else (0, 0)
        limits = {"attempts_max": attempts, "messages_max": room, "dead_letters_from": sources}
        self.add(1, PutQueue(queue, QueueSettings(fair=fair, **limits, **chosen)))
        self.pulses(0, 3)

    @rule(
        queue=SOURCES,
        group=st.sampled_from(["", "g"]),
        bodies=st.lists(BODIES, min_size=1, max_size=5),
        reason=st.sampled_from(["why", "", "else"]),
    )
    def fail(self, queue: str, group: str, bodies: Bodies, reason: str) -> None:
        """Some messages are sent, received and given up, and who waits in the queue before them too."""
        operation, bodies = sending(queue, [(Options(group=group or ("g" if queue == "b" else "")), bodies)])
        self.add(1, operation, bodies)
        self.tokens += 1
        self.add(1, Receive(queue, 9, 0, self.tokens, 0, "x"))
        held = [claim for name, claim in self.held() if name == queue]
        if held:
            self.add(1, Nack(queue, held, 0, reason))

    @rule(
        queue=SOURCES,
        to=st.sampled_from(["", "", "", "a", "b", "c", "dead", "none"]),
        failing=st.lists(st.lists(BODIES, min_size=1, max_size=4), max_size=3),
        steps=st.sampled_from([0, 1, 4, 4]),
        undo=MORE,
        data=st.data(),
    )
    def redrive(self, queue: str, to: str, failing: list[Bodies], steps: int, undo: bool, data: st.DataObject) -> None:
        for number, bodies in enumerate(failing):
            self.fail(queue, "g" if number % 2 else "", bodies, "why" if number else "else")
        wanted = data.draw(st.sampled_from([next(iter(FILTERS))] * 3 + list(FILTERS)))
        rate = data.draw(st.sampled_from([None, None, Rate(2, 1000), Rate(30, 1000, 3)]))
        patterns = data.draw(st.sampled_from([[], [], ["a"], ["b", "c*"]]))
        self.add(1, StartRedrive(LETTERS[queue], to, wanted, rate, patterns=patterns))
        self.go_on(0, steps, twice=False)
        if undo:
            self.undo(queue, 0, steps, [])

    @rule(
        queue=SOURCES,
        back=st.integers(0, 2),
        steps=st.sampled_from([0, 1, 4]),
        patterns=st.sampled_from([[], [], ["a"], ["b", "c*"]]),
    )
    def undo(self, queue: str, back: int, steps: int, patterns: list[str]) -> None:
        self.add(1, StartRedrive(LETTERS[queue], undo=self.task(queue, back), patterns=patterns))
        self.go_on(0, steps, twice=False)

    @rule(queue=SOURCES, back=st.integers(1, 2), more=MORE)
    def cancel_task(self, queue: str, back: int, more: bool) -> None:
        self.add(1, CancelRedrive(LETTERS[queue], self.task(queue, back)), more=more)

    def task(self, queue: str, back: int) -> int:
        letters = self.model.queues.get(LETTERS[queue])
        known = [] if letters is None else sorted(self.model.redrives.of(letters))
        if not back:  # one that has moved something
            known = [number for number in known if self.model.redrives.of(letters)[number].moved]
        return known[-max(back, 1)] if max(back, 1) <= len(known) else 99

    @rule(
        pause_ms=st.sampled_from([0, 0, 200, 1000]),
        times=st.integers(1, 6),
        twice=st.sampled_from([False, False, True]),
    )
    def go_on(self, pause_ms: int, times: int, twice: bool) -> None:
        """What is asked and not proposed yet comes between the leader's look and its step."""
        self.now_ms += pause_ms
        for _ in range(times):
            self.look_for_redrive()
            if twice:
                self.look_for_redrive()
            self.propose()

    @rule(queue=QUEUES, messages_max=st.integers(1, 4), end=st.sampled_from(["hold", "hold", "ack", "nack"]), more=MORE)
    def receive(self, queue: str, messages_max: int, end: str, more: bool) -> None:
        self.tokens += 1
        self.add(1, Receive(queue, messages_max, 0, self.tokens, 0, "y"), more=more)
        held = [Claim(claim.token, claim.message_id, claim.count) for name, claim in self.held() if name == queue]
        if held and end != "hold":
            self.add(1, Ack(queue, held) if end == "ack" else Nack(queue, held, 300, "late"), more=more)

    @rule(queue=QUEUES, back=st.integers(1, 4), change=st.booleans(), more=MORE)
    def touch_one(self, queue: str, back: int, change: bool, more: bool) -> None:
        messages = self.model.queues[queue].messages if queue in self.model.queues else []
        message_id = messages[-back].message_id if len(messages) >= back else 1
        self.add(1, ChangeMessage(queue, message_id, 500) if change else CancelMessage(queue, message_id), more=more)

    @rule(queue=QUEUES, delete=st.sampled_from([False, False, True]), sure=st.integers(0, 3))
    def purge_or_delete(self, queue: str, delete: bool, sure: int) -> None:
        if not sure:
            self.add(1, DeleteQueue(queue) if delete else PurgeQueue(queue))

    @rule(pause_ms=st.sampled_from([1, 500, 5000, 31_000]), steps_max=st.integers(1, 4))
    def pulse(self, pause_ms: int, steps_max: int) -> None:
        self.pulses(pause_ms, steps_max)


TestRedriving = Redriving.TestCase
TestRedriving.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
