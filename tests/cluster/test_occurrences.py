"""Schedules through leader changes, outages and pauses: each of their times is sent for once, or as they want it."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from cluster import occurrences
from cluster.cron import parse_cron, parse_every
from cluster.occurrences import last_until
from storage import codes, queries
from storage.limits import SCHEDULE_LATE_MS
from storage.message_operations import Browse, Page
from storage.operations import Done, Receive
from storage.options import Plan
from storage.queue_operations import DeleteQueue, PutQueue
from storage.records import NEVER, Schedule
from storage.schedule_operations import DeleteSchedule, GetSchedule, PutSchedule, ScheduleInfo, SchedulePut
from storage.settings import QueueSettings
from storage.topic_operations import PutSubscription, PutTopic
from tests.cluster.trio import START_MS, Trio

SECOND_MS = 1000


def started() -> Trio:
    trio = Trio()
    trio.start()
    trio.run(1.0)
    trio.do(PutQueue("q", QueueSettings()))
    return trio


def put(trio: Trio, name: str = "s", **plan: Any) -> None:
    plan = {"queue": "q", "body": b"x", "every_ms": SECOND_MS} | plan
    assert isinstance(trio.do(PutSchedule(name, Plan(**plan))), SchedulePut)


def sent(trio: Trio, queue: str = "q") -> list[int]:
    """The times for which messages are in the queue, in order of the messages, as every replica has them."""
    pages = []
    for replica in trio.replicas.values():
        page, _ = queries.answer(replica._store, Browse(queue, 0, 1000))
        assert isinstance(page, Page)
        pages.append([each.about.occurrence_ms for each in page.messages if each.about is not None])
    assert pages[0] == pages[-1]
    return pages[0]


def standing(trio: Trio, name: str = "s") -> Schedule:
    told = trio.do(GetSchedule(name))
    assert isinstance(told, ScheduleInfo)
    return told.schedule


def wait_for(trio: Trio, seconds: float) -> None:
    """Let time pass on the wall clocks while nobody is up."""
    for name in list(trio.replicas):
        trio.crash(name)
    trio.now_s += seconds
    trio.start(*trio.names)
    trio.run(1.5)


def test_each_time_is_sent_for_once_whoever_leads() -> None:
    trio = started()
    put(trio)
    for _ in range(6):
        trio.run(2.3)
        lost = trio.leader
        trio.crash(lost)
        trio.run(1.0)
        trio.start(lost)
        trio.run(1.0)
    times = sent(trio)
    assert len(times) >= 24
    assert times == list(range(times[0], times[0] + SECOND_MS * len(times), SECOND_MS))
    assert times[0] % SECOND_MS == 0
    assert standing(trio).sent == len(times)


def test_a_cron_expression_is_read_in_its_time_zone() -> None:
    trio = started()
    start = parse_cron("14 3 * * *", "Asia/Kathmandu").next_after(START_MS)
    assert start is not None
    put(trio, every_ms=0, cron="14 3 * * *", time_zone="Asia/Kathmandu")
    trio.run(0.2)
    assert standing(trio).next_ms == start
    wait_for(trio, (start - START_MS) / 1000 - 3)
    assert sent(trio) == []
    trio.run(3.0)
    assert sent(trio) == [start]


def test_schedules_that_are_not_due_write_nothing_to_the_log() -> None:
    trio = started()
    put(trio, every_ms=3600 * SECOND_MS)
    put(trio, "paused", paused=True)
    trio.run(0.5)
    engine = trio.replicas[trio.leader].engine
    before = engine.last_index
    trio.run(5.0)
    assert engine.last_index == before


@pytest.mark.parametrize(("catch_up", "count"), [("none", 0), ("one", 1), ("all", 60)])
def test_what_an_outage_has_held_up_is_left_out_or_sent(catch_up: str, count: int) -> None:
    trio = started()
    put(trio, catch_up=catch_up)
    trio.run(2.0)
    before = sent(trio)
    wait_for(trio, 60 + SCHEDULE_LATE_MS / 1000)
    trio.run(5.0)
    times = sent(trio)[len(before) :]
    late = (SCHEDULE_LATE_MS // SECOND_MS, SCHEDULE_LATE_MS // SECOND_MS + 10)  # what is late by less is no less due
    assert late[0] <= len(times) - count <= late[1]
    assert times[count:] == list(range(times[count], times[-1] + 1, SECOND_MS)), "none of these is left out"
    if catch_up == "all":
        assert times[0] == before[-1] + SECOND_MS
        assert standing(trio).missed_ms == 0
    else:
        assert standing(trio).missed_ms == before[-1] + SECOND_MS
    if catch_up == "one":
        assert times[1] == times[0] + SECOND_MS


def test_beyond_what_may_be_caught_up_only_the_last_time_is_sent_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(occurrences, "SCHEDULE_CATCH_UP_MAX", 5)
    trio = started()
    put(trio, catch_up="all", every_ms=60 * SECOND_MS)
    trio.run(1.0)
    wait_for(trio, 3600)
    times = sent(trio)
    assert [one - other for one, other in zip(times[1:], times, strict=False)][:4] == [60 * SECOND_MS] * 4
    assert len(times) in (7, 8)
    assert times[5] > times[4] + 50 * 60 * SECOND_MS
    assert standing(trio).caught_up in (0, 6)


@pytest.mark.parametrize(("catch_up", "count"), [("none", 0), ("one", 1), ("all", 5)])
def test_what_a_pause_has_held_up_was_missed(catch_up: str, count: int) -> None:
    trio = started()
    put(trio, catch_up=catch_up)
    trio.run(2.0)
    put(trio, catch_up=catch_up, paused=True)
    before = sent(trio)
    trio.run(5.0)
    assert sent(trio) == before
    put(trio, catch_up=catch_up)
    trio.run(0.3)
    assert len(sent(trio)) - len(before) in (count, count + 1)
    trio.run(3.0)
    times = sent(trio)[len(before) + count :]
    assert times == list(range(times[0], times[-1] + 1, SECOND_MS))


def test_a_queue_that_is_not_there_is_told_and_the_next_time_is_tried() -> None:
    trio = started()
    put(trio)
    trio.run(2.0)
    assert isinstance(trio.do(DeleteQueue("q")), Done)
    trio.run(2.0)
    schedule = standing(trio)
    assert schedule.trouble == codes.QUEUE_NOT_FOUND
    assert schedule.trouble_ms > START_MS
    trio.do(PutQueue("q", QueueSettings()))
    trio.run(2.0)
    assert len(sent(trio)) in (1, 2)
    assert standing(trio).trouble == ""


def test_where_there_is_no_room_nothing_is_sent_and_that_is_told() -> None:
    trio = started()
    put(trio)
    trio.run(2.0)
    before = sent(trio)
    trio.fill(*trio.names)
    trio.run(2.0)
    assert standing(trio).trouble == "store_full"
    trio.make_room(*trio.names)
    trio.run(3.0)
    assert len(sent(trio)) > len(before)
    assert standing(trio).trouble == ""


def test_a_schedule_may_wait_until_its_last_message_is_gone() -> None:
    trio = started()
    put(trio, overlap="skip")
    trio.run(5.0)
    (first,) = sent(trio)
    schedule = standing(trio)
    assert schedule.skipped in (3, 4)
    assert schedule.skipped_ms == first + schedule.skipped * SECOND_MS
    trio.do(Receive("q", 1, 0, 1))
    trio.run(2.0)
    assert sent(trio) == [first], "it is being handled"
    trio.do(DeleteQueue("q"))
    trio.do(PutQueue("q", QueueSettings()))
    trio.run(2.0)
    assert len(sent(trio)) == 1
    assert sent(trio)[0] > first


def test_a_deleted_schedule_sends_no_more() -> None:
    trio = started()
    put(trio)
    trio.run(2.0)
    assert isinstance(trio.do(DeleteSchedule("s")), Done)
    before = sent(trio)
    assert before
    trio.run(3.0)
    assert sent(trio) == before


def test_a_leader_that_cannot_read_a_schedule_says_so() -> None:
    trio = started()
    put(trio, every_ms=0, cron="* * * * * *", time_zone="Mars/Olympus_Mons")
    put(trio, "other")
    trio.run(2.0)
    schedule = standing(trio)
    assert (schedule.next_ms, schedule.sent) == (NEVER, 0)
    assert schedule.trouble.startswith("time_zone, character 0: this is no IANA time zone")
    assert sent(trio)
    put(trio, every_ms=0, cron="* * * * * *")
    trio.run(2.0)
    assert standing(trio).sent


def test_hundreds_at_once_are_shared_out_over_entries() -> None:
    trio = started()
    for number in range(150):
        put(trio, f"s{number}", every_ms=20 * SECOND_MS)
    engine = trio.replicas[trio.leader].engine
    due_ms = parse_every(20 * SECOND_MS).next_after(START_MS + round(1000 * (trio.now_s - 1000)))
    trio.run((due_ms - START_MS) / 1000 - (trio.now_s - 1000) - 0.5)
    before = engine.last_index
    trio.run(1.0)
    assert sent(trio) == [due_ms] * 150
    assert engine.last_index - before == 3


def test_the_last_time_is_found_without_going_through_all() -> None:
    timing = parse_cron("*/7 9-10 * * MON-FRI", "Europe/Berlin")
    first = timing.next_after(START_MS)
    assert first is not None
    for until in range(first, first + 30 * 86_400_000, 77_777_777):
        last, steps = last_until(timing, first, until)
        following = timing.next_after(last)
        assert last <= until
        assert following is not None
        assert following > until
        assert steps <= 40
    assert last_until(parse_every(SECOND_MS), 5000, 5999)[0] == 5000


def test_a_leader_wakes_for_a_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    trio = started()
    put(trio)
    trio.run(0.1)
    due_ms, replica = standing(trio).next_ms, trio.replicas[trio.leader]
    monkeypatch.setattr(replica.engine, "next_wakeup", lambda: inf)  # heartbeats would wake it, too
    assert round(replica.next_wakeup() * 1000) == round((trio.now_s - replica.clock.now_ms() / 1000) * 1000) + due_ms


def test_each_time_is_published_for_once_to_all_who_want_it() -> None:
    trio = started()
    trio.do(PutQueue("other", QueueSettings()))
    trio.do(PutTopic("news"))
    for queue, pattern in (("q", "sea.#"), ("other", "#"), ("other", "sea.*")):
        trio.do(PutSubscription("news", f"{queue}-{len(pattern)}", queue, pattern))
    put(trio, queue="", topic="news", routing_key="sea.calm")
    trio.run(2.3)
    lost = trio.leader
    trio.crash(lost)
    trio.run(2.0)
    times = sent(trio)
    assert len(times) >= 3
    assert times == list(range(times[0], times[0] + SECOND_MS * len(times), SECOND_MS))
    assert sent(trio, "other") == times
