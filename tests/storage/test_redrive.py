"""Redrive as stories: dead letters get another chance, and it is taken back."""

from __future__ import annotations

from unittest.mock import patch

import msgspec
import pytest

from storage import codes, queries, redrive_look
from storage.block import encode_block
from storage.machine import apply
from storage.memory_store import MemoryStore
from storage.message_operations import Browse, GetHistory, Listed, Page, Told
from storage.operations import (
    Ack,
    Claim,
    Done,
    Nack,
    Operation,
    Outcome,
    Receive,
    Received,
    Refused,
    Send,
    encode_entry,
    encode_item,
)
from storage.options import (
    Options,
    Run,
)
from storage.queue_operations import DeleteQueue, PurgeQueue, PutQueue
from storage.reading import find_queue
from storage.records import Redrive, RedriveFilter
from storage.redrive_operations import (
    CancelRedrive,
    DeadGroup,
    DeadGroups,
    GetRedrive,
    GroupDead,
    ListRedrives,
    Previewed,
    PreviewRedrive,
    RedriveTask,
    RedriveTasks,
    StartRedrive,
    StepRedrive,
)
from storage.settings import QueueSettings, Rate

EMPTY = msgspec.msgpack.encode({})


class Shard:
    """A shard whose clock is stepped by hand, with the leader's part played by `lead`."""

    def __init__(self) -> None:
        self.store, self.now_ms, self._seq, self._token = MemoryStore(), 1_000_000, 0, 0

    def do(self, operation: Operation, block: bytes = b"", session: int = 7) -> Outcome:
        self._seq += 1
        index = self.store.last_index + 1
        payload = encode_entry(self.now_ms, [encode_item(session, self._seq, operation, block)])
        self.store.begin()
        self.store.append(index, 1, payload)
        (applied,) = apply(self.store, index, payload).applied
        self.store.commit()
        return applied.outcome

    def ask(self, query: queries.Query) -> Outcome:
        return queries.answer(self.store, query)[0]

    def fail(self, queue: str, *bodies: str, why: str = "why", group: str = "", attributes: str | None = None) -> None:
        """Send messages, and fail them once."""
        properties = b"" if attributes is None else msgspec.msgpack.encode({"a": {"kind": attributes}})
        runs = [Run(len(bodies), Options(group=group))] if group else []
        self.do(Send(queue, len(bodies), runs), encode_block([(body.encode(), properties) for body in bodies]))
        self.do(Nack(queue, self.receive(queue, "worker"), 0, why))

    def receive(self, queue: str, consumer: str = "") -> list[Claim]:
        self._token += 1
        received = self.do(Receive(queue, 100, 0, self._token, 0, consumer))
        assert isinstance(received, Received)
        return [Claim(self._token, each.message_id, each.count) for each in received.deliveries]

    def start(self, operation: StartRedrive) -> int:
        started = self.do(operation)
        assert isinstance(started, RedriveTask), started
        return started.redrive.task

    def step(self) -> StepRedrive | None:
        step = redrive_look.next_step(self.store, self.now_ms)
        if step is not None:
            assert self.do(step, session=0) == Done()
        return step

    def lead(self) -> int:
        """Take all steps that are due."""
        steps = 0
        while self.step() is not None:
            steps += 1
        return steps

    def task(self, task: int, queue: str = "dead") -> Redrive:
        found = self.ask(GetRedrive(queue, task))
        assert isinstance(found, RedriveTask)
        return found.redrive

    def listed(self, queue: str) -> list[Listed]:
        page = self.ask(Browse(queue, 0, 1000))
        assert isinstance(page, Page)
        return page.messages

    def standing(self, queue: str) -> list[str]:
        return [each.state for each in self.listed(queue)]


@pytest.fixture
def shard() -> Shard:
    shard = Shard()
    shard.do(PutQueue("dead", QueueSettings()))
    for name in ("q", "r"):
        shard.do(PutQueue(name, QueueSettings(attempts_max=1, dead_letter_queue="dead")))
    return shard


def test_dead_letters_go_back_to_where_they_were_given_up_and_start_anew(shard: Shard) -> None:
    shard.fail("q", "a", "b")
    shard.fail("r", "c")
    task = shard.start(StartRedrive("dead"))
    shard.lead()
    told = shard.task(task)
    assert (told.state, told.messages, told.looked, told.moved) == ("done", 3, 3, 3)
    assert shard.standing("dead") == []
    assert shard.standing("q") == ["ready", "ready"]
    (message,) = shard.listed("r")
    assert (message.attempts, message.about) == (0, None)
    history = shard.ask(GetHistory("r", message.message_id))
    assert isinstance(history, Told)
    assert [(event.what, event.who, event.why) for event in history.events] == [("redriven", "dead", "why")]


def test_a_message_that_fails_again_comes_back_and_is_not_moved_twice_by_one_task(shard: Shard) -> None:
    shard.fail("q", "a")
    with patch.object(redrive_look, "REDRIVE_LOOK_SEGMENTS_MAX", 1):
        shard.fail("r", "b")
        task = shard.start(StartRedrive("dead"))
        shard.step()
        shard.do(Nack("q", shard.receive("q"), 0, "again"))
        shard.lead()
    assert (shard.task(task).state, shard.task(task).moved) == ("done", 2)
    (message,) = shard.listed("dead")
    assert message.about is not None
    assert message.about.dead is not None
    assert (message.about.dead.reason, message.about.dead.attempts) == ("again", 1)


def test_what_died_where_there_is_no_dead_letter_queue_is_revived_in_its_place(shard: Shard) -> None:
    shard.do(PutQueue("alone", QueueSettings(attempts_max=1)))
    shard.fail("alone", "a", "b")
    assert shard.standing("alone") == ["dead", "dead"]
    task = shard.start(StartRedrive("alone"))
    shard.lead()
    assert [(each.message_id, each.state, each.attempts) for each in shard.listed("alone")] == [
        (1, "ready", 0),
        (2, "ready", 0),
    ]
    undo = shard.start(StartRedrive("alone", undo=task))
    shard.lead()
    assert shard.task(undo, "alone").moved == 2
    assert shard.standing("alone") == ["dead", "dead"]


def test_what_was_revived_and_dies_again_is_a_dead_letter_again(shard: Shard) -> None:
    shard.do(PutQueue("alone", QueueSettings(attempts_max=1)))
    shard.fail("alone", "a")
    for _ in range(2):
        shard.start(StartRedrive("alone"))
        shard.lead()
        assert shard.ask(GroupDead("alone")) == DeadGroups([], 1, complete=True)
        shard.do(Nack("alone", shard.receive("alone"), 0, "again"))
        assert shard.ask(GroupDead("alone")) == DeadGroups(
            [DeadGroup("again", "alone", 1, 1, 1, shard.now_ms, shard.now_ms)], 1, complete=True
        )


@pytest.mark.parametrize(
    ("wanted", "bodies"),
    [
        (RedriveFilter(dead='{"reason": [{"prefix": "time"}]}'), ["b"]),
        (RedriveFilter(dead='{"queue": ["r"]}'), ['{"total": 7}']),
        (RedriveFilter(dead='{"given_up_ms": [{"numeric": [">", 1000000]}]}'), ['{"total": 7}']),
        (RedriveFilter(dead='{"attempts": [1], "consumer": ["worker"]}', attributes='{"kind": ["order"]}'), ["a"]),
        (RedriveFilter(body='{"total": [{"numeric": [">", 5]}]}'), ['{"total": 7}']),
        (RedriveFilter(body='{"total": [{"numeric": [">", 7]}]}'), []),
    ],
)
def test_a_filter_chooses_by_why_they_died_by_attributes_and_by_body(
    shard: Shard, wanted: RedriveFilter, bodies: list[str]
) -> None:
    shard.fail("q", "a", why="refused", attributes="order")
    shard.fail("q", "b", why="timeout")
    shard.now_ms += 1
    shard.fail("r", '{"total": 7}', why="refused")
    preview = shard.ask(PreviewRedrive("dead", "", wanted))
    assert isinstance(preview, Previewed)
    assert sum(preview.destinations.values()) == len(bodies)
    task = shard.start(StartRedrive("dead", "q", wanted))
    shard.lead()
    page, block = queries.answer(shard.store, Browse("q", 0, 10))
    assert isinstance(page, Page)
    assert shard.task(task).moved == len(page.messages) == len(bodies)
    assert all(body.encode() in bytes(block) for body in bodies)


def test_leased_messages_stay_and_are_told_of(shard: Shard) -> None:
    shard.fail("q", "a", "b")
    (held,) = shard.receive("dead")
    assert held.count == 2
    shard.do(Ack("dead", [Claim(held.token, held.message_id, 1)]))
    task = shard.start(StartRedrive("dead"))
    shard.lead()
    assert (shard.task(task).moved, shard.task(task).held, shard.standing("dead")) == (0, 1, ["leased"])


def test_what_is_leased_or_gone_when_the_step_comes_stays_as_it_is(shard: Shard) -> None:
    shard.fail("q", "a", "b", "c")
    task = shard.start(StartRedrive("dead"))
    step = redrive_look.next_step(shard.store, shard.now_ms)
    assert step is not None
    received = shard.do(Receive("dead", 2, 0, token=9))
    assert isinstance(received, Received)
    shard.do(Ack("dead", [Claim(9, 1, 1)]))
    assert shard.do(step, session=0) == Done()
    assert (shard.task(task).moved, shard.standing("dead"), shard.standing("q")) == (1, ["leased"], ["ready"])


def test_a_rate_spreads_a_task_over_time(shard: Shard) -> None:
    for number in range(25):
        shard.fail("q", str(number))
    task = shard.start(StartRedrive("dead", rate=Rate(10, 1000, 5)))
    moved = []
    for _ in range(5):
        shard.lead()
        moved.append(shard.task(task).moved)
        shard.now_ms += 500
    assert moved == [5, 10, 15, 20, 25]
    shard.lead()
    assert shard.task(task).state == "done"


def test_a_full_destination_stops_the_task_and_nothing_is_lost(shard: Shard) -> None:
    shard.fail("q", "a", "bb", "ccc")
    shard.do(PutQueue("q", QueueSettings(messages_max=2, overflow="drop_oldest")))
    task = shard.start(StartRedrive("dead"))
    shard.lead()
    told = shard.task(task)
    assert (told.state, told.cause, told.detail, told.moved) == ("stopped", codes.REDRIVE_TO_FULL, "q", 2)
    assert [len(shard.listed(queue)) for queue in ("dead", "q")] == [1, 2]
    shard.do(PutQueue("q", QueueSettings(bytes_max=5)))
    shard.lead()
    assert len(shard.listed("dead")) == 1
    shard.do(Ack("q", shard.receive("q")))
    shard.start(StartRedrive("dead"))
    shard.lead()
    assert [len(shard.listed(queue)) for queue in ("dead", "q")] == [0, 1]


def test_a_destination_that_is_missing_or_of_the_other_kind_stops_the_task(shard: Shard) -> None:
    shard.fail("q", "a")
    shard.do(DeleteQueue("q"))
    task = shard.start(StartRedrive("dead"))
    shard.lead()
    told = shard.task(task)
    assert (told.state, told.cause, told.detail, told.moved) == ("stopped", codes.REDRIVE_TO_NOT_FOUND, "q", 0)
    shard.do(PutQueue("q", QueueSettings(fifo=True)))
    task = shard.start(StartRedrive("dead"))
    shard.lead()
    told = shard.task(task)
    assert (told.state, told.cause, told.detail, told.moved) == ("stopped", codes.REDRIVE_TO_KIND, "q", 0)
    assert shard.standing("dead") == ["ready"]
    assert shard.do(StartRedrive("dead", "q")) == Refused(codes.REDRIVE_TO_KIND, detail="q")
    assert shard.do(StartRedrive("dead", "none")) == Refused(codes.REDRIVE_TO_NOT_FOUND, detail="none")
    assert shard.do(StartRedrive("none")) == Refused(codes.QUEUE_NOT_FOUND)


def test_an_undo_takes_back_what_waits_as_it_came(shard: Shard) -> None:
    shard.fail("q", "a", "b", "c")
    shard.fail("r", "d")
    before = [each.about for each in shard.listed("dead")]
    task = shard.start(StartRedrive("dead"))
    shard.lead()
    shard.do(Send("q", 1), encode_block([(b"of others", b"")]))
    shard.do(PutQueue("q", QueueSettings(attempts_max=3, dead_letter_queue="dead")))
    nacked, leased = shard.do(Receive("q", 1, 0, token=98)), shard.do(Receive("q", 1, 0, token=99))
    assert isinstance(nacked, Received)
    assert isinstance(leased, Received)
    shard.do(Nack("q", [Claim(98, nacked.deliveries[0].message_id, 1)], 0))
    undo = shard.start(StartRedrive("dead", undo=task))
    assert shard.task(undo).messages == 4
    shard.lead()
    told = shard.task(undo)
    assert (told.state, told.undoes, told.moved) == ("done", task, 2)
    assert shard.standing("q") == ["ready", "leased", "ready"], "what was received since, and the other's, stay"
    assert shard.standing("r") == []
    assert [each.about for each in shard.listed("dead")] == before[2:]
    assert shard.do(StartRedrive("dead", undo=undo)) == Refused(codes.REDRIVE_IS_UNDO)
    assert shard.do(StartRedrive("dead", undo=99)) == Refused(codes.REDRIVE_NOT_FOUND)


def test_a_task_moves_only_to_queues_that_whoever_began_it_may_send_to(shard: Shard) -> None:
    shard.fail("q", "a", "b")
    shard.fail("r", "c")
    preview = shard.ask(PreviewRedrive("dead", patterns=["s", "q*"]))
    assert isinstance(preview, Previewed)
    assert preview.destinations == {"q": 2}
    task = shard.start(StartRedrive("dead", patterns=["s", "q*"]))
    shard.lead()
    assert (shard.task(task).moved, shard.standing("r"), len(shard.standing("dead"))) == (2, [], 1)
    forged = shard.start(StartRedrive("dead", patterns=["s"]))
    left, dead = shard.listed("dead")[0].message_id, find_queue(shard.store, "dead")
    assert dead is not None
    shard.do(StepRedrive(dead.number, forged, 0, [(left, 1)], left), session=0)
    assert shard.task(forged).moved == 0, "whatever a leader has found"


def test_an_undo_takes_only_from_queues_that_whoever_began_it_may_send_to(shard: Shard) -> None:
    shard.fail("q", "a", "b")
    shard.fail("r", "c")
    task = shard.start(StartRedrive("dead"))
    shard.lead()
    undo = shard.start(StartRedrive("dead", undo=task, patterns=["r"]))
    shard.lead()
    assert (shard.task(undo).state, shard.task(undo).moved) == ("done", 1)
    assert [len(shard.listed(queue)) for queue in ("dead", "q", "r")] == [1, 2, 0]


def test_an_undo_stops_when_the_dead_letter_queue_is_full(shard: Shard) -> None:
    shard.fail("q", "a", "b")
    task = shard.start(StartRedrive("dead"))
    shard.lead()
    shard.do(PutQueue("dead", QueueSettings(messages_max=1)))
    undo = shard.start(StartRedrive("dead", undo=task))
    shard.lead()
    told = shard.task(undo)
    assert (told.state, told.cause, told.detail, told.moved) == ("stopped", codes.REDRIVE_TO_FULL, "dead", 1)
    assert [len(shard.listed(queue)) for queue in ("dead", "q")] == [1, 1]


def test_one_task_at_a_time_and_cancelled_is_cancelled(shard: Shard) -> None:
    shard.fail("q", "a")
    task = shard.start(StartRedrive("dead", rate=Rate(1, 1000)))
    assert shard.do(StartRedrive("dead")) == Refused(codes.REDRIVE_RUNNING, detail=str(task))
    step = redrive_look.next_step(shard.store, shard.now_ms)
    assert step is not None
    for _ in range(2):
        told = shard.do(CancelRedrive("dead", task))
        assert isinstance(told, RedriveTask)
        assert (told.redrive.state, told.redrive.ended_ms) == ("cancelled", shard.now_ms)
    assert shard.do(step, session=0) == Done()
    assert shard.standing("dead") == ["ready"], "a step of a cancelled task does nothing"
    assert shard.lead() == 0
    assert shard.do(CancelRedrive("dead", 99)) == Refused(codes.REDRIVE_NOT_FOUND)


def test_a_step_is_taken_once_whoever_proposes_it(shard: Shard) -> None:
    shard.fail("q", "a")
    shard.fail("q", "b")
    with patch.object(redrive_look, "REDRIVE_LOOK_SEGMENTS_MAX", 1):
        task = shard.start(StartRedrive("dead"))
        step = shard.step()
    assert step is not None
    assert (step.runs, shard.task(task).looked) == ([(1, 1)], 1)
    shard.do(msgspec.structs.replace(step, runs=[(2, 1)], upto=2), session=0)
    assert (shard.task(task).moved, shard.task(task).looked, shard.task(task).state) == (1, 1, "running")


def test_tasks_go_with_their_queue(shard: Shard) -> None:
    shard.fail("q", "a")
    done = shard.start(StartRedrive("dead"))
    shard.lead()
    shard.fail("q", "b")
    task = shard.start(StartRedrive("dead"))
    shard.do(PurgeQueue("dead"))
    told = shard.task(task)
    assert (told.state, told.cause, told.moved) == ("stopped", codes.REDRIVE_PURGED, 0)
    assert shard.task(done).state == "done"
    task = shard.start(StartRedrive("dead"))
    shard.do(DeleteQueue("dead"))
    assert shard.lead() == 0
    shard.do(PutQueue("dead", QueueSettings()))
    assert shard.ask(GetRedrive("dead", task)) == Refused(codes.REDRIVE_NOT_FOUND)
    assert shard.ask(ListRedrives("dead")) == RedriveTasks([])


def test_the_oldest_tasks_are_forgotten(shard: Shard) -> None:
    tasks = []
    for _ in range(25):
        tasks.append(shard.start(StartRedrive("dead")))
        shard.lead()
    told = shard.ask(ListRedrives("dead"))
    assert isinstance(told, RedriveTasks)
    assert [each.redrive.task for each in told.tasks] == tasks[:4:-1]


def test_a_filter_that_this_version_cannot_read_stops_the_task(shard: Shard) -> None:
    shard.fail("q", "a")
    task = shard.start(StartRedrive("dead", "", RedriveFilter(dead='{"reason": "no list"}')))
    shard.lead()
    assert (shard.task(task).state, shard.task(task).cause) == ("stopped", codes.REDRIVE_FILTER)
    assert shard.ask(PreviewRedrive("dead", "", RedriveFilter(body="{}"))) == Refused(codes.REDRIVE_FILTER)


@pytest.mark.parametrize(
    "operation",
    [
        StartRedrive("dead", "no name"),
        StartRedrive("dead", rate=Rate(0)),
        StartRedrive("dead", undo=-1),
        StartRedrive("dead", "", RedriveFilter(body="x" * 70_000)),
        CancelRedrive("dead", -1),
    ],
)
def test_what_the_rules_cannot_work_with_is_malformed(shard: Shard, operation: Operation) -> None:
    assert shard.do(operation) == Refused(codes.MALFORMED)


def test_dead_letters_are_grouped_by_reason_and_origin(shard: Shard) -> None:
    shard.fail("q", "a", "b", why="timeout")
    shard.now_ms += 5
    shard.fail("r", "c", why="timeout")
    shard.fail("q", "d", why="refused")
    shard.now_ms += 5
    shard.fail("q", "e", why="timeout")
    shard.do(Send("dead", 1), encode_block([(b"sent here by hand", b"")]))
    told = shard.ask(GroupDead("dead"))
    expected = [
        DeadGroup("timeout", "q", 3, 1, 5, 1_000_000, 1_000_010),
        DeadGroup("timeout", "r", 1, 3, 3, 1_000_005, 1_000_005),
        DeadGroup("refused", "q", 1, 4, 4, 1_000_005, 1_000_005),
    ]
    assert told == DeadGroups(expected, 6, complete=True)
    groups: dict[tuple[str, str], DeadGroup] = {}
    after, pages = 0, 0
    with patch.object(redrive_look, "REDRIVE_LOOK_SEGMENTS_MAX", 2):
        while True:
            page = shard.ask(GroupDead("dead", after))
            assert isinstance(page, DeadGroups)
            for each in page.groups:
                known = groups.get((each.reason, each.queue))
                groups[each.reason, each.queue] = each if known is None else redrive_look.joined(known, each)
            after, pages = page.upto, pages + 1
            if page.complete:
                break
    assert (list(groups.values()), pages) == (expected, 3)


def test_one_look_reads_so_many_bytes_and_gets_on_with_a_large_message(shard: Shard) -> None:
    for body in ("x" * 600, "y" * 600, "z" * 5000):
        shard.fail("q", body)
    wanted = RedriveFilter(attributes='{"kind": [{"exists": false}]}')
    with patch.object(redrive_look, "REDRIVE_LOOK_BYTES_MAX", 1000):
        task = shard.start(StartRedrive("dead", "", wanted))
        steps = [step.runs for step in iter(shard.step, None)]
    assert steps == [[(1, 1)], [(2, 1)], [(3, 1)]]
    assert shard.task(task).state == "done"
