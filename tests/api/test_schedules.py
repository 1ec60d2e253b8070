"""Schedules over HTTP: how they are put, what they tell, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from api.rights import Need, Right, needs
from storage import codes
from storage.limits import SCHEDULE_EVERY_MS_MAX, SCHEDULE_EVERY_MS_MIN, SCHEDULE_MESSAGE_BYTES_MAX
from storage.schedule_operations import ListSchedules
from storage.topic_operations import PutSubscription, PutTopic
from tests.api.asking import MSGPACK, Answer, ask
from tests.api.fake_client import Gateway

URL = "/v1/schedules/digest"
EVERY: dict[str, Any] = {"every_ms": 60_000, "queue": "jobs", "message": {"body": "tick"}}
CRON: dict[str, Any] = {"cron": "30 2 * * *", "time_zone": "Europe/Berlin", "queue": "jobs", "message": {"body": "x"}}


async def put(node: Gateway, **wish: Any) -> Answer:
    return await ask(node, "PUT", URL, wish)


async def waiting(node: Gateway) -> list[dict[str, Any]]:
    """What is in the queue."""
    return list((await ask(node, "GET", "/v1/queues/jobs/messages"))["messages"])


async def test_a_schedule_sends_and_tells_what_it_has_sent(node: Gateway) -> None:
    made = await put(node, **EVERY | {"message": {"body": "tick", "attributes": {"a": 1}, "priority": 3}})
    assert (made.status, made["changed"]) == (201, True)
    assert made["next"][:2] == ["2023-11-14T22:14:00.000Z", "2023-11-14T22:15:00.000Z"]
    node.client.pass_time(0)
    node.client.pass_time(40_000)
    told = (await ask(node, "GET", URL)).document
    assert told["next"] == [f"2023-11-14T22:{minute}:00.000Z" for minute in range(15, 20)]
    assert told["last"] == {
        "occurrence": "2023-11-14T22:14:00.000Z",
        "sent": "2023-11-14T22:14:00.000Z",
        "message_id": 1,
    }
    assert told["message"] == {"body": "tick", "attributes": {"a": 1}, "priority": 3}
    (message,) = await waiting(node)
    assert (message["body"], message["schedule"]) == ("tick", "digest")
    assert (message["occurrence"], message["priority"]) == ("2023-11-14T22:14:00.000Z", 3)


async def test_what_is_told_can_be_put_again_and_changes_nothing(node: Gateway) -> None:
    message = {"body_base64": "AP8=", "attributes": {"a": "x"}, "group": "g", "key": "k", "delay_ms": 5, "ttl_ms": 9000}
    await put(node, **CRON | {"message": message, "overlap": "skip", "catch_up": "all", "paused": True})
    told = (await ask(node, "GET", URL)).document
    settings = ("cron", "time_zone", "queue", "message", "overlap", "catch_up", "paused")
    again = await put(node, **{name: told[name] for name in settings})
    assert (again.status, again["changed"], again["next"]) == (200, False, [])


async def test_a_paused_schedule_goes_on_where_it_was(node: Gateway) -> None:
    await put(node, **EVERY)
    node.client.pass_time(0)
    assert (await ask(node, "PATCH", URL, {"paused": True})).status == 204
    node.client.pass_time(90_000)
    assert await waiting(node) == []
    assert (await ask(node, "GET", URL))["next"] == []
    await put(node, **EVERY | {"message": {"body": "tock"}}, paused=True)
    assert (await ask(node, "PATCH", URL, {"paused": False})).status == 204
    node.client.pass_time(0)
    assert [message["body"] for message in await waiting(node)] == ["tock"]
    assert [message["occurrence"] for message in await waiting(node)] == ["2023-11-14T22:14:00.000Z"]


async def test_what_went_wrong_is_told(node: Gateway) -> None:
    await put(node, **EVERY | {"queue": "none"})
    node.client.pass_time(0)
    node.client.pass_time(60_000)
    told = (await ask(node, "GET", URL)).document
    assert told["last_error"] == {"detail": "There is no such queue", "at": "2023-11-14T22:14:20.000Z"}
    assert (told["sent"], "last" in told) == (0, False)


async def test_what_was_skipped_and_what_was_missed_is_told(node: Gateway) -> None:
    await put(node, **EVERY, overlap="skip")
    for _ in range(3):
        node.client.pass_time(60_000)
    told = (await ask(node, "GET", URL)).document
    assert (told["sent"], told["skipped"]) == (1, 2)
    assert told["last_skipped"] == "2023-11-14T22:16:00.000Z"
    node.client.pass_time(3_600_000)
    assert (await ask(node, "GET", URL))["last_missed"] == "2023-11-14T22:17:00.000Z"


async def test_schedules_are_listed_page_by_page(node: Gateway) -> None:
    for name in "cab":
        await ask(node, "PUT", f"/v1/schedules/{name}", EVERY)
    page = await ask(node, "GET", "/v1/schedules?limit=2")
    assert [(each["schedule"], len(each["next"])) for each in page["schedules"]] == [("a", 1), ("b", 1)]
    rest = await ask(node, "GET", "/v1/schedules?limit=2&after=b&consistency=local")
    assert [each["schedule"] for each in rest["schedules"]] == ["c"]
    assert list(needs(ListSchedules())) == [Need(Right.MANAGE)]


async def test_a_deleted_schedule_is_gone(node: Gateway) -> None:
    await put(node, **EVERY)
    assert (await ask(node, "DELETE", URL)).status == 204
    for method, wish in (("GET", None), ("DELETE", None), ("PATCH", {"paused": True})):
        gone = await ask(node, method, URL, wish)
        assert (gone.status, gone["type"]) == (404, "urn:trimaran:schedule-not-found")


async def test_bytes_come_and_go_in_msgpack(node: Gateway) -> None:
    assert (await ask(node, "PUT", URL, EVERY | {"message": {"body": b"\xff"}}, form=MSGPACK)).status == 201
    told = await ask(node, "GET", URL, Accept=MSGPACK)
    assert told["message"]["body"] == b"\xff"


NEWS = {"cron": "@daily", "topic": "news", "message": {"body": "x"}}
LARGE = {"message": {"body": "x" * SCHEDULE_MESSAGE_BYTES_MAX, "attributes": {"a": 1}}}
BAD: list[tuple[dict[str, Any], str, int | None]] = [
    # what is put instead of, or beside, something good; the field that is named; the limit
    (EVERY | {"every_ms": 999}, "$.every_ms", SCHEDULE_EVERY_MS_MIN),
    (EVERY | {"every_ms": 2**70}, "$.every_ms", SCHEDULE_EVERY_MS_MAX),
    (EVERY | {"every_ms": SCHEDULE_EVERY_MS_MAX + 1}, "$.every_ms", SCHEDULE_EVERY_MS_MAX),
    (EVERY | {"cron": "* * * * *"}, "$.every_ms", None),
    (EVERY | {"time_zone": "Europe/Berlin"}, "$.time_zone", None),
    ({"queue": "jobs", "message": {"body": "x"}}, "$.cron", None),
    (CRON | {"cron": ""}, "$.cron", None),
    (CRON | {"cron": "* * * *"}, "$.cron", None),
    (CRON | {"cron": "0 0 30 2 *"}, "$.cron", None),
    (CRON | {"cron": "99 * * * *"}, "$.cron", None),
    (CRON | {"cron": "*" * 257}, "$.cron", 256),
    (CRON | {"time_zone": "Europe/Berlim"}, "$.time_zone", None),
    (CRON | {"time_zone": "x" * 65}, "$.time_zone", 64),
    (CRON | {"time_zone": ""}, "$.time_zone", None),
    (CRON | {"overlap": "wait"}, "$.overlap", None),
    (CRON | {"catch_up": "some"}, "$.catch_up", None),
    (CRON | {"paused": "yes"}, "$.paused", None),
    (CRON | {"topic": "news"}, "$.topic", None),
    (CRON | {"routing_key": "a"}, "$.routing_key", None),
    (NEWS | {"topic": "no topic"}, "$.topic", None),
    (NEWS | {"overlap": "skip"}, "$.overlap", None),
    (NEWS | {"routing_key": "x" * 256}, "$.routing_key", 255),
    (CRON | {"queue": "no queue"}, "$.queue", None),
    (CRON | {"colour": "red"}, "$", None),
    ({"cron": "@daily", "message": {"body": "x"}}, "$.queue", None),
    ({"cron": "@daily", "queue": "jobs"}, "$.message", None),
    (CRON | {"message": {}}, "$.message.body", None),
    (CRON | {"message": {"body": "x", "at": "2030-01-01T00:00:00Z"}}, "$.message.at", None),
    (CRON | {"message": {"body": "x", "group": ""}}, "$.message.group", 128),
    (CRON | LARGE, "$.message", SCHEDULE_MESSAGE_BYTES_MAX),
]


@pytest.mark.parametrize(("wish", "field", "limit"), BAD)
async def test_what_cannot_be_is_refused_and_nothing_is_asked(
    node: Gateway, wish: dict[str, Any], field: str, limit: int | None
) -> None:
    before = len(node.client.asked)
    refused = await put(node, **wish)
    assert refused.status == (413 if wish == CRON | LARGE else 400)
    assert refused["field"] == field
    assert refused.document.get("limit") == limit
    assert refused["remedy"]
    assert len(node.client.asked) == before


async def test_a_name_is_narrow(node: Gateway) -> None:
    for name in ("a.fifo", "a%20b", "x" * 81):
        refused = await ask(node, "PUT", f"/v1/schedules/{name}", EVERY)
        assert (refused.status, refused["field"], refused["limit"]) == (400, "schedule", 80)


async def test_there_are_so_many_and_no_more(node: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.schedules.SCHEDULES_MAX", 1)
    await put(node, **EVERY)
    refused = await ask(node, "PUT", "/v1/schedules/other", EVERY)
    assert (refused.status, refused["limit"]) == (409, 1)
    assert refused["type"] == f"urn:trimaran:{codes.SCHEDULE_LIMIT.replace('_', '-')}"
    assert (await put(node, **EVERY, paused=True)).status == 200


async def test_a_schedule_may_publish(node: Gateway) -> None:
    await put(node, every_ms=60_000, topic="news", routing_key="sea.calm", message={"body": "tick"})
    node.client.pass_time(0)
    node.client.pass_time(60_000)
    told = (await ask(node, "GET", URL)).document
    assert told["last_error"]["detail"] == "There is no such topic"
    assert (told["topic"], told["routing_key"], "queue" in told) == ("news", "sea.calm", False)
    await node.client.submit(PutTopic("news"), timeout_ms=1000)
    await node.client.submit(PutSubscription("news", "all", "jobs", "sea.*"), timeout_ms=1000)
    node.client.pass_time(60_000)
    (message,) = await waiting(node)
    assert (message["body"], message["occurrence"]) == ("tick", "2023-11-14T22:15:00.000Z")
    again = await put(node, every_ms=60_000, topic="news", routing_key="sea.calm", message={"body": "tick"})
    assert again["changed"] is False
