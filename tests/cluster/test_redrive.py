"""Redrive with leaders that come and go: each dead letter is moved once, at its rate, and idling costs nothing."""

from __future__ import annotations

from storage.block import encode_block
from storage.message_operations import Browse, Page
from storage.operations import Claim, Nack, Receive, Received, Send
from storage.queue_operations import PutQueue
from storage.redrive_operations import GetRedrive, RedriveTask, StartRedrive
from storage.settings import QueueSettings, Rate
from tests.cluster.test_waiting import written
from tests.cluster.trio import Trio

BATCH, BATCHES = 5, 40


def with_dead_letters() -> Trio:
    trio = Trio()
    trio.start()
    trio.run(1.0)
    trio.do(PutQueue("dead", QueueSettings()))
    trio.do(PutQueue("q", QueueSettings(attempts_max=1, dead_letter_queue="dead")))
    for number in range(BATCHES):
        trio.do(Send("q", BATCH), encode_block([(b"%d" % number, b"")] * BATCH))
        received = trio.do(Receive("q", BATCH, 0, token=number + 1))
        assert isinstance(received, Received)
        trio.do(Nack("q", [Claim(number + 1, each.message_id, each.count) for each in received.deliveries], 0, "why"))
    return trio


def told(trio: Trio, task: int) -> RedriveTask:
    found = trio.do(GetRedrive("dead", task))
    assert isinstance(found, RedriveTask)
    return found


def ids(trio: Trio, queue: str) -> list[int]:
    page = trio.do(Browse(queue, 0, 1000))
    assert isinstance(page, Page)
    return [message.message_id for message in page.messages]


def test_every_dead_letter_is_moved_once_whoever_leads() -> None:
    trio = with_dead_letters()
    started = trio.do(StartRedrive("dead", rate=Rate(50, 1000, 5)))
    assert isinstance(started, RedriveTask)
    task, moved = started.redrive.task, 0
    for _ in range(2):
        trio.run(0.5)
        old = trio.leader
        before = told(trio, task).redrive
        assert moved < before.moved < BATCH * BATCHES, "it is under way"
        trio.crash(old)
        trio.run(2.0)
        trio.start(old)
        trio.run(0.5)
        moved = told(trio, task).redrive.moved
        assert moved >= before.moved, "what was moved stays moved"
    trio.run(5.0)
    done = told(trio, task).redrive
    assert (done.state, done.moved, done.looked) == ("done", BATCH * BATCHES, BATCH * BATCHES)
    assert ids(trio, "dead") == []
    assert len(ids(trio, "q")) == BATCH * BATCHES
    assert written(trio, 5.0) == 0


def test_a_leader_whose_step_came_to_nothing_goes_on_when_it_leads_again() -> None:
    trio = with_dead_letters()
    started = trio.do(StartRedrive("dead", rate=Rate(10, 1000, 1)))
    assert isinstance(started, RedriveTask)
    first = trio.leader
    trio.block(first)  # what it proposes from now on is lost
    trio.run(3.0)
    trio.heal()
    trio.run(1.0)
    trio.lead_again(first)
    before = told(trio, started.redrive.task).redrive.moved
    trio.run(2.0)
    assert told(trio, started.redrive.task).redrive.moved > before


def test_a_rate_is_kept_with_few_entries_of_the_log() -> None:
    trio = with_dead_letters()
    started = trio.do(StartRedrive("dead", rate=Rate(50, 1000, 10)))
    assert isinstance(started, RedriveTask)
    entries = written(trio, 2.0)
    moved = told(trio, started.redrive.task).redrive.moved
    assert 90 <= moved <= 112
    assert entries <= 25


def test_without_a_rate_it_is_done_at_once() -> None:
    trio = with_dead_letters()
    started = trio.do(StartRedrive("dead"))
    assert isinstance(started, RedriveTask)
    trio.run(0.2)
    assert told(trio, started.redrive.task).redrive.state == "done"
    assert len(ids(trio, "q")) == BATCH * BATCHES
