"""Publishing through leader changes: what is published goes once to every queue that wants it, or to none."""

from __future__ import annotations

import pytest

from storage import codes, queries
from storage.block import encode_block, parts
from storage.message_operations import Browse, Page
from storage.operations import Outcome, Refused, encode_item
from storage.queue_operations import PutQueue
from storage.settings import QueueSettings
from storage.topic_operations import Publish, Published, PutSubscription, PutTopic
from tests.cluster.trio import STEP_S, Trio

ALL, RED = b"\x80", b"\x81\xa1a\x81\xa6colour\xa3red"
"""Properties of messages: none, and a colour."""


def started() -> Trio:
    """Queues `all` and `red` that take what is published on `t`: all of it, and what is red."""
    trio = Trio()
    trio.start()
    trio.run(1.0)
    for queue in ("all", "red"):
        trio.do(PutQueue(queue, QueueSettings(messages_max=20)))
    trio.do(PutTopic("t"))
    trio.do(PutSubscription("t", "s", "all"))
    trio.do(PutSubscription("t", "u", "red", filter='{"colour": ["red"]}'))
    return trio


def bodies(trio: Trio, queue: str) -> list[bytes]:
    """What is in a queue, as every replica has it."""
    found = []
    trio.run(0.2)  # until followers have applied it as well
    for replica in trio.replicas.values():
        page, block = queries.answer(replica._store, Browse(queue, 0, 1000))
        assert isinstance(page, Page)
        found.append([bytes(part.body) for part in parts(block, len(page.messages))])
    assert found[0] == found[-1]
    return found[0]


def again(trio: Trio, seq: int, operation: Publish, block: bytes) -> Outcome:
    """Ask under the number of an earlier request, as a gateway does that has had no answer."""
    assert trio.replicas[trio.leader].request("gateway", memoryview(encode_item(7, seq, operation, block)))
    trio.run(0.2)
    outcome = trio.answer(seq)
    assert outcome is not None
    return outcome


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_a_publish_that_a_leaders_death_left_unanswered_happens_once(steps: int) -> None:
    """`steps` after it was asked for its leader dies: before it is logged, before others have it, before it is told."""
    trio, messages = started(), [b"1", b"2", b"3"]
    for number, body in enumerate(messages):
        operation, block = Publish("t", 1), encode_block([(body, RED if number else ALL)])
        seq, lost = trio.ask(operation, block), trio.leader
        trio.run(STEP_S * steps)
        trio.crash(lost)
        trio.run(1.5)
        outcome = again(trio, seq, operation, block)
        assert isinstance(outcome, Published)
        assert (outcome.message_id, len(outcome.routed)) == (number + 1, 2 if number else 1)
        trio.start(lost)
        trio.run(0.5)
    assert (bodies(trio, "all"), bodies(trio, "red")) == (messages, messages[1:])


def test_a_publish_that_is_repeated_went_where_it_went() -> None:
    trio = started()
    operation, block = Publish("t", 1), encode_block([(b"1", RED)])
    seq = trio.ask(operation, block)
    trio.run(0.2)
    first = trio.answer(seq)
    trio.do(PutSubscription("t", "u", "red", "nothing.fits"))
    assert again(trio, seq, operation, block) == first
    assert (bodies(trio, "all"), bodies(trio, "red")) == ([b"1"], [b"1"])


def test_a_queue_that_is_full_keeps_a_publish_from_all_on_every_replica() -> None:
    trio = started()
    trio.do(PutQueue("red", QueueSettings(messages_max=1)))
    assert isinstance(trio.do(Publish("t", 1), encode_block([(b"1", RED)])), Published)
    outcome = trio.do(Publish("t", 2), encode_block([(b"2", ALL), (b"3", RED)]))
    assert isinstance(outcome, Refused)
    assert (outcome.code, outcome.queue) == (codes.QUEUE_FULL, "red")
    assert isinstance(trio.do(Publish("t", 1), encode_block([(b"4", ALL)])), Published)
    assert (bodies(trio, "all"), bodies(trio, "red")) == ([b"1", b"4"], [b"1"])
