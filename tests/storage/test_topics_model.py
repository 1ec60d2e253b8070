"""Topics beside the naive model: publishes to queues of all kinds, while subscriptions and queues come and go."""

from __future__ import annotations

from typing import Literal
from unittest.mock import patch

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from storage import codes, publishing, queries
from storage.block import encode_block
from storage.message_operations import CancelMessage, ChangeMessage
from storage.operations import Ack, Claim, Nack, Receive, Refused
from storage.options import (
    Options,
)
from storage.queue_operations import DeleteQueue, PutQueue
from storage.routing import find_topic, table_of
from storage.settings import QueueSettings
from storage.topic_operations import (
    DeleteSubscription,
    DeleteTopic,
    GetRoutes,
    Publish,
    Published,
    PutSubscription,
    PutTopic,
    RoutesTold,
    Target,
    TopicPut,
)
from tests.storage.life import TOPICS, Life, check_records, item
from tests.storage.naive import Body
from tests.storage.test_rules_model import MORE, PAUSES, Runs, sending

SETTINGS = {
    "a": [QueueSettings(), QueueSettings(messages_max=6), QueueSettings(attempts_max=1, dead_letter_queue="dead")],
    "b": [QueueSettings(fair=True), QueueSettings(delay_ms=500), QueueSettings(bytes_max=9, overflow="drop_oldest")],
    "b.fifo": [QueueSettings(fifo=True), QueueSettings(fifo=True, dedup_window_ms=1000, attempts_max=1)],
    "dead.fifo": [QueueSettings(fifo=True)],
    "dead": [QueueSettings(), QueueSettings(dedup_window_ms=60_000, dedup_by="content")],
}
PLAIN, FIFO = ["a", "a", "b", "b", "dead", "b.fifo"], ["b.fifo", "b.fifo", "dead.fifo", "a"]
NAMES = st.sampled_from(["s", "u", "v"])
ROUTING_KEYS = ["", "x", "x.y", "y.x.y", "x.y", ""]
OPTIONS = st.builds(
    Options,
    priority=st.sampled_from([0, 0, 5]),
    group=st.sampled_from(["g", "g", "g", "h", ""]),
    key=st.sampled_from(["", "", "k"]),
    delay_ms=st.sampled_from([-1, -1, -1, 900]),
    dedup_id=st.sampled_from(["", "", "1"]),
)
BODIES = st.tuples(st.sampled_from([b"", b"a"]), st.sampled_from([b"", b"\x81\xa1a\x81\xa4kind\xa1x", b"\x80"]))
RUNS = st.lists(st.tuples(OPTIONS, st.lists(BODIES, min_size=1, max_size=3)), min_size=1, max_size=2)
PATTERNS = st.sampled_from(["#", "#", "#", "x.*", "#.y", "x"])
FILTERS = st.sampled_from(["", "", '{"kind": ["x"]}'])
WHEN = st.sampled_from(["ever", "new", "there"])
LABELS = st.dictionaries(st.sampled_from(["k", "l"]), st.sampled_from(["", "v"]))


class Topics(Life):
    """Two topics, and queues that take what is published."""

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self.prepare(queues_max=5)
        for queue, kinds in SETTINGS.items():
            self.add(1, PutQueue(queue, data.draw(st.sampled_from(kinds))), more=True)
        for topic, queues in zip(TOPICS, (PLAIN, FIFO), strict=True):
            self.add(1, PutTopic(topic, topic == "t.fifo"), more=True)
            for name in ("s", "u", "v"):
                subscription = PutSubscription(topic, name, data.draw(st.sampled_from(queues)), data.draw(PATTERNS))
                self.add(1, subscription, more=True)
        self.propose()

    @rule(topic=st.sampled_from(TOPICS), runs=RUNS, keyed=MORE, enveloped=MORE, more=MORE)
    def publish_runs(self, topic: str, runs: Runs, keyed: bool, enveloped: bool, more: bool) -> None:
        send, bodies = sending("", runs)
        keys = ROUTING_KEYS[: len(bodies)] if keyed else []
        second = [(b"e" + body, properties) for body, properties in bodies] if enveloped else []
        operation = Publish(topic, len(bodies), keys, send.runs, enveloped)
        self.publish(operation, bodies + second, more=more)

    @rule(topic=st.sampled_from(TOPICS), bodies=st.lists(BODIES, min_size=1, max_size=4), more=MORE)
    def publish_plainly(self, topic: str, bodies: list[Body], more: bool) -> None:
        self.publish(Publish(topic, len(bodies)), bodies, more=more)

    @rule(topic=st.sampled_from(TOPICS), name=NAMES, pattern=PATTERNS, wants=FILTERS, enveloped=MORE, data=st.data())
    def subscribe(self, topic: str, name: str, pattern: str, wants: str, enveloped: bool, data: st.DataObject) -> None:
        queue = data.draw(st.sampled_from([*(PLAIN if topic == "t" else FIFO), "none"]))
        self.add(1, PutSubscription(topic, name, queue, pattern, wants, "attributes", enveloped), more=True)

    @rule(topic=st.sampled_from(TOPICS), name=NAMES, runs=RUNS)
    def subscribe_while_a_publish_is_under_way(self, topic: str, name: str, runs: Runs) -> None:
        """What the leader found out about a subscription is of no use once that is another one, or gone."""
        self.propose()
        send, bodies = sending("", runs)
        self.add(1, DeleteSubscription(topic, name), more=True)
        self.publish_as_it_is(Publish(topic, len(bodies), [], send.runs), bodies)

    @rule(topic=st.sampled_from(TOPICS), name=NAMES, everything=st.sampled_from([False, False, True]))
    def unsubscribe(self, topic: str, name: str, everything: bool) -> None:
        self.add(1, DeleteTopic(topic) if everything else DeleteSubscription(topic, name))

    @rule(topic=st.sampled_from(TOPICS), other=st.sampled_from([False, False, False, True]), when=WHEN, labels=LABELS)
    def put_topic(self, topic: str, other: bool, when: Literal["ever", "new", "there"], labels: dict[str, str]) -> None:
        self.add(1, PutTopic(topic, (topic == "t.fifo") != other, labels, when))

    @rule(topic=st.sampled_from(TOPICS), name=NAMES, pattern=PATTERNS, other=st.sampled_from([0, 0, 0, 1]))
    def resubscribe(self, topic: str, name: str, pattern: str, other: int) -> None:
        """A subscription is replaced if it is still the one that was looked at."""
        self.propose()
        known = self.model.topics.known[topic].versions.get(name, 0) if topic in self.model.topics.known else 0
        queue = (PLAIN if topic == "t" else FIFO)[0]
        self.add(1, PutSubscription(topic, name, queue, pattern, instead_of=known + other))

    @rule(queue=st.sampled_from(sorted(SETTINGS)), away=st.sampled_from([True, False, False]), data=st.data())
    def put_queue(self, queue: str, away: bool, data: st.DataObject) -> None:
        """A queue that is gone takes nothing; one that comes back is subscribed as before."""
        self.propose()
        if away:
            self.add(1, DeleteQueue(queue))
        kinds = [*SETTINGS[queue], QueueSettings(fifo=queue in PLAIN)] if away else SETTINGS[queue]
        self.add(1, PutQueue(queue, data.draw(st.sampled_from(kinds))))
        self.pulses(0, 3)

    @rule(queue=st.sampled_from(sorted(SETTINGS)), change=st.integers(0, 3), data=st.data())
    def take(self, queue: str, change: int, data: st.DataObject) -> None:
        """Received, and then acked, nacked, cancelled or changed in part: chunks of topics are cut up and moved."""
        self.propose()
        if change == 3 and queue in self.model.queues and self.model.queues[queue].messages:
            message = data.draw(st.sampled_from(self.model.queues[queue].messages))
            self.add(1, ChangeMessage(queue, message.message_id, 400))
            return
        self.tokens += 1
        self.add(1, Receive(queue, 9, 0, self.tokens, 0, "x"))
        mine = [claim for name, claim in self.claims if name == queue and claim.token == self.tokens]
        if not mine:
            return
        claim = data.draw(st.sampled_from(mine))
        part = Claim(claim.token, claim.message_id + data.draw(st.integers(0, claim.count - 1)), 1)
        if change == 0:
            self.add(1, Ack(queue, [part]))
        elif change == 1:
            self.add(1, Nack(queue, [part], 0, "why"))
        else:
            self.add(1, CancelMessage(queue, part.message_id))

    @rule(pause_ms=PAUSES, steps_max=st.integers(1, 4))
    def pulse(self, pause_ms: int, steps_max: int) -> None:
        self.propose()
        self.pulses(pause_ms, steps_max)

    @rule(keep=st.integers(0, 3))
    def compact(self, keep: int) -> None:
        self.compact_all(keep)


TestTopics = Topics.TestCase
TestTopics.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_subscription_that_was_replaced_takes_nothing_by_what_was_found_out_of_the_old_one() -> None:
    life = Topics()
    life.prepare(queues_max=5)
    life.add(1, PutQueue("a", QueueSettings()))
    life.add(1, PutQueue("b", QueueSettings()))
    life.add(1, PutTopic("t"))
    life.add(1, PutSubscription("t", "s", "a", "x"))
    topic = find_topic(life.stores[0], "t")
    assert topic is not None
    block = memoryview(encode_block([(b"", b"")]))
    targets = table_of(life.stores[0], topic).targets(Publish("t", 1, ["x"]), block, lambda: False)
    life.add(1, PutSubscription("t", "s", "b", "y"))
    items = [item(1, 99, Publish("t", 1, ["x"], targets=targets), [(b"", b"")])]
    (outcome,), _ = life.apply(life.now_ms, items)
    assert outcome == Published(1, 1, life.now_ms, [])
    life.teardown()


def test_one_queue_that_refuses_keeps_a_message_from_all() -> None:
    life = Topics()
    life.prepare(queues_max=5)
    life.add(1, PutQueue("a", QueueSettings()))
    life.add(1, PutQueue("b", QueueSettings(messages_max=1)))
    life.add(1, PutTopic("t"))
    life.add(1, PutSubscription("t", "s", "a"))
    life.add(1, PutSubscription("t", "u", "b"))
    life.publish(Publish("t", 1), [(b"first", b"")])
    life.publish(Publish("t", 1), [(b"second", b"")])
    assert [message.content[0] for message in life.model.queues["a"].messages] == [b"first"]
    assert life.model.topics.known["t"].next_id == 2, "an id that nothing has is given to the next"
    life.teardown()


def test_the_oldest_routes_make_room_and_a_bound_is_on_copies() -> None:
    life = Topics()
    life.prepare(queues_max=5)
    life.add(1, PutQueue("a", QueueSettings()))
    life.add(1, PutTopic("t"))
    life.add(1, PutSubscription("t", "s", "a"))
    with patch.object(publishing, "ROUTES_MAX", 2), patch.object(publishing, "PUBLISH_COPIES_MAX", 3):
        version = life.model.topics.known["t"].versions["s"]
        targets = [Target("s", version, [(0, 1)])]
        for seq in range(1, 5):
            life.apply(life.now_ms, [item(2, seq, Publish("t", 1, targets=targets), [(b"", b"")])])
        known = [queries.answer(life.stores[0], GetRoutes("t", number))[0] for number in range(1, 5)]
        assert [isinstance(told, RoutesTold) for told in known] == [False, False, True, True]
        four = [item(2, 5, Publish("t", 4, targets=[Target("s", version, [(0, 4)])]), [(b"", b"")] * 4)]
        assert life.apply(life.now_ms, four)[0] == [Refused(codes.COPIES_LIMIT, 3)]
    check_records(life.stores[0])
    life.teardown()


def test_what_was_found_out_of_a_subscription_is_of_no_use_for_its_namesake_of_a_new_topic() -> None:
    life = Topics()
    life.prepare(queues_max=5)
    life.add(1, PutQueue("a", QueueSettings()))
    life.add(1, PutTopic("t"))
    life.add(1, PutSubscription("t", "s", "a"))
    targets = [Target("s", life.model.topics.known["t"].versions["s"], [(0, 1)])]
    life.add(1, DeleteTopic("t"))
    life.add(1, PutTopic("t"))
    life.add(1, PutSubscription("t", "s", "a", "only.these"))
    asked = [item(2, 1, Publish("t", 1, targets=targets), [(b"", b"")])]
    assert life.apply(life.now_ms, asked)[0] == [Published(1, 1, life.now_ms, [])]
    life.teardown()


def test_labels_are_few() -> None:
    life = Topics()
    life.prepare(queues_max=5)
    life.add(1, PutTopic("t", labels={"a": "ü" * 3}))
    with patch.object(publishing, "LABELS_BYTES_MAX", 13):
        for label, told in (("cc", TopicPut(False, True)), ("ccc", Refused(codes.LABELS_LIMIT, 13))):
            (outcome,), _ = life.apply(life.now_ms, [item(2, len(label), PutTopic("t", labels={"b": label * 2}), [])])
            assert outcome == told
    life.teardown()


IMPOSSIBLE = {
    "beyond": [(0, 3)],
    "before": [(-1, 1)],
    "none": [(0, 0)],
    "back": [(1, 1), (0, 1)],
    "twice": [(0, 2), (1, 1)],
}


@pytest.mark.parametrize("wanted", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_targets_that_cannot_be_are_refused(wanted: list[tuple[int, int]]) -> None:
    life = Topics()
    life.prepare(queues_max=5)
    life.add(1, PutQueue("a", QueueSettings()))
    life.add(1, PutTopic("t"))
    life.add(1, PutSubscription("t", "s", "a"))
    for targets in (None, [Target("s", 1, wanted)]):
        asked = [item(2, 1, Publish("t", 2, targets=targets), [(b"", b"")] * 2)]
        assert life.apply(life.now_ms, asked)[0] == [Refused(codes.MALFORMED)]
    life.teardown()
