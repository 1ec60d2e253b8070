"""What clients say of messages, and of schedules that send them: what operations carry and records keep."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

SCHEDULE_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}", re.ASCII)
"""What a schedule may be called: as queues are, for the same reasons."""


class Options(msgspec.Struct, array_like=True, frozen=True):
    """What messages of a send have beyond body and properties.

    delay_ms: how long they are held back; -1: as long as the queue says. at_ms: when they are delivered, by cluster
    time, instead of a delay; 0: none. ttl_ms: how long they are kept; 0: as long as the queue says. schedule,
    occurrence_ms: the schedule that sends them, and for which of its times. producer: who sends them.
    """

    priority: int = 0
    group: str = ""
    key: str = ""
    delay_ms: int = -1
    at_ms: int = 0
    ttl_ms: int = 0
    dedup_id: str = ""
    schedule: str = ""
    occurrence_ms: int = 0
    producer: str = ""


class Plan(msgspec.Struct, array_like=True, frozen=True):
    """When a schedule sends, what, and where to.

    cron, time_zone or every_ms: when, see `cluster.cron`; every_ms is 0 where there is a cron. queue: where to; empty:
    it is published to the topic, with the routing key. body, properties, options: the message. overlap: whether to send
    while the message of the time before is still in the queue. catch_up: what becomes of times that were missed: none
    are sent, or the last one, or all. paused: nothing is sent.
    """

    queue: str
    body: bytes
    properties: bytes = b""
    options: Options = Options()
    cron: str = ""
    every_ms: int = 0
    time_zone: str = "UTC"
    overlap: Literal["allow", "skip"] = "allow"
    catch_up: Literal["none", "one", "all"] = "one"
    paused: bool = False
    topic: str = ""
    routing_key: str = ""

    @property
    def timing(self) -> tuple[str, int, str]:
        """What its times follow from."""
        return self.cron, self.every_ms, self.time_zone


class Run(msgspec.Struct, array_like=True, frozen=True):
    """So many messages of a send, one after another, have the same options."""

    count: int
    options: Options
