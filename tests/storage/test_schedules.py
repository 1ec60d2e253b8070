"""Schedules as stories on a stepped clock: what the leader proposes twice, late or of another state does nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from storage import schedule_look
from storage.block import encode_block
from storage.operations import Ack, Claim, Extend, Nack, Outcome, Receive
from storage.options import Options, Plan
from storage.queue_operations import DeleteQueue, PurgeQueue, PutQueue
from storage.records import Schedule
from storage.schedule_operations import Occur, Occurred, PauseSchedule, PutSchedule, SchedulePut
from storage.settings import QueueSettings
from tests.storage.test_machine import START_MS, Shard

BLOCK = encode_block([(b"x", b"")])
DUE_MS = START_MS + 1000


@pytest.fixture
def shard() -> Shard:
    shard = Shard()
    shard.do(PutQueue("q", QueueSettings(attempts_max=1)))
    return shard


def put(shard: Shard, **plan: Any) -> None:
    shard.do(PutSchedule("s", Plan(**{"queue": "q", "body": b"x", "every_ms": 1000} | plan)))


def occur(shard: Shard, due_ms: int, next_ms: int, *, version: int = 1, occurrence_ms: int | None = None) -> Outcome:
    sends_ms = due_ms if occurrence_ms is None else occurrence_ms
    return shard.do(Occur("s", version, due_ms, next_ms, sends_ms), BLOCK)


def standing(shard: Shard) -> Schedule:
    found = schedule_look.find_schedule(shard.store, "s")
    assert found is not None
    return found


def test_a_time_that_is_proposed_twice_is_sent_for_once(shard: Shard) -> None:
    put(shard)
    assert occur(shard, 0, DUE_MS) == Occurred("passed")
    assert occur(shard, 0, DUE_MS) == Occurred("stale"), "another leader has found out the same"
    assert occur(shard, DUE_MS, DUE_MS + 1000) == Occurred("sent")
    assert occur(shard, DUE_MS, DUE_MS + 1000) == Occurred("stale")
    assert len(shard.browse()) == 1
    assert (standing(shard).sent, standing(shard).next_ms) == (1, DUE_MS + 1000)


def test_what_was_proposed_of_an_older_plan_is_not_sent(shard: Shard) -> None:
    put(shard)
    occur(shard, 0, DUE_MS)
    put(shard, body=b"another")
    assert occur(shard, DUE_MS, DUE_MS + 1000) == Occurred("stale")
    assert occur(shard, DUE_MS, DUE_MS + 1000, version=2) == Occurred("sent")


def test_a_pause_changes_nothing_else(shard: Shard) -> None:
    put(shard, cron="", overlap="skip", catch_up="all")
    occur(shard, 0, DUE_MS)
    before = standing(shard)
    assert shard.do(PauseSchedule("s", True)) == SchedulePut(False, True, DUE_MS, before.after_ms)
    assert shard.do(PauseSchedule("s", True)) == SchedulePut(False, False, DUE_MS, before.after_ms)
    assert standing(shard).plan == msgspec.structs.replace(before.plan, paused=True)
    assert occur(shard, DUE_MS, DUE_MS + 1000) == Occurred("stale"), "it was proposed before the pause"
    put(shard, cron="", overlap="skip", catch_up="all", body=b"another", paused=True)
    shard.do(PauseSchedule("s", False))
    assert standing(shard).plan.body == b"another", "what was put during the pause stays"
    assert (standing(shard).next_ms, standing(shard).resumed_ms) == (DUE_MS, shard.now_ms)


def test_other_times_begin_anew_and_the_same_go_on(shard: Shard) -> None:
    put(shard)
    occur(shard, 0, DUE_MS)
    put(shard, overlap="skip")
    assert standing(shard).next_ms == DUE_MS
    shard.now_ms += 500
    put(shard, every_ms=2000)
    assert (standing(shard).next_ms, standing(shard).after_ms) == (0, START_MS + 500)


def test_overlap_looks_for_the_very_message_that_was_sent(shard: Shard) -> None:
    """Not for another with its id in a queue that was made anew, and not for one that nobody will handle."""
    put(shard, overlap="skip")
    occur(shard, 0, DUE_MS)
    assert occur(shard, DUE_MS, DUE_MS + 1) == Occurred("sent")
    assert occur(shard, DUE_MS + 1, DUE_MS + 2) == Occurred("skipped")
    shard.do(DeleteQueue("q"))
    shard.do(PutQueue("q", QueueSettings(attempts_max=1)))
    shard.send("not the schedule's")
    assert occur(shard, DUE_MS + 2, DUE_MS + 3) == Occurred("sent")
    shard.do(PurgeQueue("q"))
    assert occur(shard, DUE_MS + 3, DUE_MS + 4) == Occurred("sent")
    shard.do(Receive("q", 1, 0, 7))
    assert occur(shard, DUE_MS + 4, DUE_MS + 5) == Occurred("skipped"), "it is leased"
    held = Claim(7, standing(shard).last_id, 1)
    shard.do(Extend("q", [held], 5000))
    shard.do(Nack("q", [held]))
    assert occur(shard, DUE_MS + 5, DUE_MS + 6) == Occurred("sent"), "its only attempt has failed: it is dead"
    shard.do(Receive("q", 1, 0, 8))
    shard.do(Ack("q", [Claim(8, standing(shard).last_id, 1)]))
    assert occur(shard, DUE_MS + 6, DUE_MS + 7) == Occurred("sent")


def test_a_delayed_message_is_still_there(shard: Shard) -> None:
    put(shard, overlap="skip", options=Options(delay_ms=60_000))
    occur(shard, 0, DUE_MS)
    occur(shard, DUE_MS, DUE_MS + 1)
    assert occur(shard, DUE_MS + 1, DUE_MS + 2) == Occurred("skipped")
