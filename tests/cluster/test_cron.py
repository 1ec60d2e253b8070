"""When schedules fire: stories around changes of the clocks, and beside a walk through every minute."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cluster.cron import NAMES, Cron, ScheduleError, next_runs, parse_cron, parse_every
from storage.limits import CRON_CHARACTERS_MAX, SCHEDULE_EVERY_MS_MAX, SCHEDULE_EVERY_MS_MIN


def ms(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def runs(cron: str, zone: str, after: str, count: int) -> list[str]:
    """What local clocks show when it fires, with their offset where that is not plain."""
    found = parse_cron(cron, zone)
    return [
        f"{datetime.fromtimestamp(at / 1000, found.zone):%m-%d %H:%M%z}" for at in next_runs(found, ms(after), count)
    ]


def test_the_page_is_true() -> None:
    page = (Path(__file__).parents[2] / "docs" / "schedules.md").read_text()
    rows = re.findall(r"^\| `(.+?)` \| (\S+) \| (.+?) \| (.+?) \|$", page, re.M)
    assert len(rows) == 7
    for cron, zone, after, fires in rows:
        found = parse_cron(cron, zone)
        start_ms = int(datetime.fromisoformat(after).replace(tzinfo=found.zone).timestamp() * 1000)
        expected = fires.split(", ")
        times = [datetime.fromtimestamp(at / 1000, found.zone) for at in next_runs(found, start_ms, len(expected))]
        assert [f"{time:%Y-%m-%d %H:%M%z}" for time in times] == expected
    assert f"from {SCHEDULE_EVERY_MS_MIN} (a second) to {SCHEDULE_EVERY_MS_MAX} (a year)" in page


# --- clocks put forward -----------------------------------------------------------------------------------------------


def test_a_time_that_does_not_exist_comes_at_once_when_clocks_were_put_forward() -> None:
    assert runs("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00", 2) == ["03-29 03:00+0200", "03-30 02:30+0200"]
    assert runs("5 2 * * *", "America/New_York", "2026-03-07T12:00:00", 2) == ["03-08 03:00-0400", "03-09 02:05-0400"]
    assert runs("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00", 2) == [
        "10-04 02:30+1100",
        "10-05 02:15+1100",
    ]
    assert runs("45 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00", 1) == ["10-04 02:45+1100"]
    assert runs("0 12 * * *", "Pacific/Apia", "2011-12-30T06:00:00", 2) == ["12-31 00:00+1400", "12-31 12:00+1400"]


def test_several_such_times_come_once() -> None:
    assert runs("0,20,40 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00:00", 3) == [
        "03-29 03:00+0200",
        "03-29 03:20+0200",
        "03-29 03:40+0200",
    ]


def test_an_interval_goes_on_by_what_clocks_show() -> None:
    assert runs("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:20:00", 3) == [
        "03-29 01:30+0100",
        "03-29 03:00+0200",
        "03-29 03:30+0200",
    ]
    assert runs("*/10 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00", 4) == [
        "10-04 02:30+1100",
        "10-04 02:40+1100",
        "10-04 02:50+1100",
        "10-05 02:00+1100",
    ]
    assert runs("*/20 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00", 1) == ["03-30 02:00+0200"]


# --- clocks put back --------------------------------------------------------------------------------------------------


def test_a_time_that_exists_twice_comes_the_first_time() -> None:
    assert runs("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00", 2) == ["10-25 02:30+0200", "10-26 02:30+0100"]
    assert runs("30 1 * * *", "America/New_York", "2026-10-31T12:00:00", 2) == ["11-01 01:30-0400", "11-02 01:30-0500"]
    assert runs("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00:00", 2) == [
        "04-05 01:45+1100",
        "04-06 01:45+1030",
    ]
    # Asked in the repeated hour, it has been: the next is tomorrow's.
    assert runs("45 2 * * *", "Europe/Berlin", "2026-10-25T02:10:00+01:00", 1) == ["10-26 02:45+0100"]


def test_an_interval_comes_both_times() -> None:
    assert runs("*/30 * * * *", "Europe/Berlin", "2026-10-24T23:50:00", 5) == [
        "10-25 02:00+0200",
        "10-25 02:30+0200",
        "10-25 02:00+0100",
        "10-25 02:30+0100",
        "10-25 03:00+0100",
    ]
    assert runs("*/20 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00:00", 5) == [
        "04-05 01:00+1100",
        "04-05 01:20+1100",
        "04-05 01:40+1100",
        "04-05 01:40+1030",
        "04-06 01:00+1030",
    ]


def test_with_seconds_the_hour_still_says_whether_times_are_fixed() -> None:
    day = "2026-10-24T12:00:00"
    assert runs("0 30 2 * * *", "Europe/Berlin", day, 2) == ["10-25 02:30+0200", "10-26 02:30+0100"]
    assert runs("0 30 */2 * * *", "Europe/Berlin", "2026-10-24T23:50:00", 2) == ["10-25 02:30+0200", "10-25 02:30+0100"]
    # The last second before clocks are put back: the next is the same, an hour later.
    last = parse_cron("59 59 * * * *", "Europe/Berlin")
    assert last.next_after(ms("2026-10-25T02:59:59+02:00")) == ms("2026-10-25T02:59:59+01:00")


def test_hourly_is_every_real_hour_and_the_named_ones_are_what_they_say() -> None:
    hours = next_runs(parse_cron("@hourly", "Europe/Berlin"), ms("2026-10-24T20:30:00"), 8)
    assert {later - earlier for earlier, later in pairwise(hours)} == {3_600_000}
    assert runs(" @Daily ", "America/New_York", "2026-03-07T12:00:00", 2) == ["03-08 00:00-0500", "03-09 00:00-0400"]
    assert runs("@weekly", "UTC", "2026-11-24T00:00:00", 1) == ["11-29 00:00+0000"]
    assert runs("@monthly", "UTC", "2026-11-24T00:00:00", 1) == ["12-01 00:00+0000"]
    assert runs("@yearly", "UTC", "2026-11-24T00:00:00", 1) == ["01-01 00:00+0000"]
    assert [parse_cron(name).expression for name in NAMES] == list(NAMES.values())


# --- the calendar -----------------------------------------------------------------------------------------------------


def test_days() -> None:
    assert runs("0 0 29 2 *", "UTC", "2026-01-01", 2) == ["02-29 00:00+0000"] * 2
    assert runs("0 9 L * *", "UTC", "2027-01-31T09:00:00", 2) == ["02-28 09:00+0000", "03-31 09:00+0000"]
    assert runs("0 9 * * MON#1", "UTC", "2026-11-24", 1) == ["12-07 09:00+0000"]
    assert runs("0 9 * * fri", "UTC", "2026-11-24", 1) == ["11-27 09:00+0000"]
    # A day of month and a day of week: either is enough, as in cron.
    assert runs("0 0 13 * FRI", "UTC", "2026-11-24", 3) == ["11-27 00:00+0000", "12-04 00:00+0000", "12-11 00:00+0000"]


def test_seconds() -> None:
    found = parse_cron("*/20 59 23 * * *")
    assert next_runs(found, ms("2026-11-24T23:59:20"), 3) == [
        ms("2026-11-24T23:59:40"),
        ms("2026-11-25T23:59:00"),
        ms("2026-11-25T23:59:20"),
    ]
    assert found.next_after(ms("2026-11-24T23:59:19") + 999) == ms("2026-11-24T23:59:20")
    assert found.next_after(ms("2026-11-24T23:59:20") - 1) == ms("2026-11-24T23:59:20")


def test_the_end_of_time_is_quiet() -> None:
    assert parse_cron("@yearly").next_after(2**62) is None
    assert next_runs(parse_cron("0 0 1 1 *", "Europe/Berlin"), ms("8999-06-01T00:00:00"), 3) == [
        ms("9000-01-01T00:00:00+01:00")
    ]
    assert parse_cron("@yearly").next_after(-(10**12)) == ms("1939-01-01T00:00:00")


def test_intervals() -> None:
    every = parse_every(90_000)
    assert next_runs(every, 0, 3) == [90_000, 180_000, 270_000]
    assert every.next_after(179_999) == 180_000
    assert every.next_after(180_000) == 270_000


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cron", "position", "reason"),
    [
        ("", 0, "five fields are needed, or six with seconds in front; there are 0"),
        ("* * * *", 7, "five fields are needed, or six with seconds in front; there are 4"),
        ("* * * * * * *", 13, "five fields are needed, or six with seconds in front; there are 7"),
        ("60 * * * *", 0, "60 is no minute"),
        ("0  24 * * *", 3, "24 is no hour"),
        ("0 0 32 * *", 4, "32 is no day of month"),
        ("0 0 * 13 *", 6, "13 is no month"),
        ("0 0 * * 8", 8, "8 is no day of week"),
        ("60 0 0 * * *", 0, "60 is no second"),
        ("5-1 * * * *", 0, "5-1 is no minute"),
        ("*/0 * * * *", 0, "*/0 is no minute"),
        ("1,,2 * * * *", 0, "1,,2 is no minute"),
        ("٣ * * * *", 0, "٣ is no minute"),
        ("0 0 ? * *", 4, "? is no day of month"),
        ("0 0 30 2 *", 4, "this never fires"),
        ("0 0 31 4,6,9,11 *", 4, "this never fires"),
        ("0 0 0 31 2 *", 6, "this never fires"),
        ("0 0 */20 * 1L", 4, "this never fires"),
        (" @reboot", 1, "there is no such name; there are @yearly"),
        ("0 " * 128 + "0", CRON_CHARACTERS_MAX, "at most 256 characters"),
    ],
)
def test_refused_expressions(cron: str, position: int, reason: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        parse_cron(cron)
    assert (caught.value.field, caught.value.position) == ("cron", position)
    assert caught.value.reason.startswith(reason)


@pytest.mark.parametrize(
    "zone", ["", "Mars/Olympus", "europe/berlin", "Europe", "../etc/passwd", "localtime", "right/UTC"]
)
def test_refused_time_zones(zone: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        parse_cron("@daily", zone)
    assert caught.value.field == "time_zone"


def test_a_misspelt_time_zone_is_told_its_name() -> None:
    with pytest.raises(ScheduleError, match="Europe/Berlin is one"):
        parse_cron("@daily", "Europe/Berln")


@pytest.mark.parametrize("every_ms", [0, -1, SCHEDULE_EVERY_MS_MIN - 1, SCHEDULE_EVERY_MS_MAX + 1])
def test_refused_intervals(every_ms: int) -> None:
    with pytest.raises(ScheduleError) as caught:
        parse_every(every_ms)
    assert caught.value.field == "every_ms"
    assert parse_every(SCHEDULE_EVERY_MS_MIN)
    assert parse_every(SCHEDULE_EVERY_MS_MAX)


@settings(max_examples=400, deadline=None)
@given(
    st.text(alphabet="0123456789*/,-#LW MONFRIäx?@٣²", max_size=30)
    | st.lists(st.text(alphabet="01239*/,-#LWMON", min_size=1, max_size=6), min_size=4, max_size=7).map(" ".join)
)
def test_reading_raises_nothing_but_its_error(cron: str) -> None:
    try:
        found = parse_cron(cron)
    except ScheduleError:
        return
    assert found.next_after(0)


# --- beside a walk through every minute -------------------------------------------------------------------------------

ZONES = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Antarctica/Troll",
    "Africa/Casablanca",
    "Europe/Dublin",
    "America/St_Johns",
    "America/Santiago",
    "Pacific/Apia",
    "Asia/Kathmandu",
]
MINUTE = timedelta(minutes=1)
WALK = timedelta(days=2)


@cache
def changes(zone: str) -> list[datetime]:
    """About when clocks were touched: within the day after each of these."""
    info, day = ZoneInfo(zone), timedelta(days=1)
    days = [datetime(2011, 1, 1, tzinfo=UTC) + number * day for number in range(16 * 366)]
    return [at for at in days if at.astimezone(info).utcoffset() != (at + day).astimezone(info).utcoffset()] or days[:1]


def walked(cron: Cron, wanted: tuple[set[int], set[int], set[int]], after: datetime) -> datetime | None:
    """The first time after `after`, by looking at local clocks each minute: at what they newly show, if it is fixed."""
    minutes, hours, weekdays = wanted
    fixed = not any(field.startswith("*") for field in cron.expression.split()[:2])

    def shown(moment: datetime) -> datetime:
        return moment.astimezone(cron.zone).replace(tzinfo=None)

    def fits(local: datetime) -> bool:
        return local.minute in minutes and local.hour in hours and local.isoweekday() % 7 in weekdays

    moment = after.replace(second=0, microsecond=0) - timedelta(hours=27)
    latest = shown(moment)
    while moment < after + WALK:
        moment += MINUTE
        local = shown(moment)
        if fixed:
            newly = (latest + number * MINUTE for number in range(1, (local - latest) // MINUTE + 1))
            fires = any(fits(time) for time in newly)
        else:
            fires = fits(local)
        latest = max(latest, local)
        if fires and moment > after:
            return moment
    return None


def fields(highest: int, likely: int) -> st.SearchStrategy[tuple[str, set[int]]]:
    """A field as text and as what it means. Lists and ranges are of values up to `likely`."""
    values, listed = range(highest + 1), range(likely + 1)
    return st.one_of(
        st.just(("*", set(values))),
        st.integers(2, 30).map(lambda step: (f"*/{step}", set(values[::step]))),
        st.sets(st.sampled_from(listed), min_size=1, max_size=4).map(
            lambda some: (",".join(map(str, sorted(some))), some)
        ),
        st.tuples(st.sampled_from(listed), st.sampled_from(listed)).map(
            lambda ends: (f"{min(ends)}-{max(ends)}", set(range(min(ends), max(ends) + 1)))
        ),
    )


@settings(max_examples=150, deadline=None)
@given(
    fields(59, 59),
    fields(23, 4),
    st.just(("*", set(range(7)))) | fields(6, 6),
    st.sampled_from(ZONES).flatmap(lambda zone: st.tuples(st.just(zone), st.sampled_from(changes(zone)))),
    st.integers(-3600, 30 * 3600),
)
@example(
    ("45", {45}),
    ("2", {2}),
    ("*", set(range(7))),
    ("Europe/Berlin", datetime(2026, 10, 24, tzinfo=UTC)),
    25 * 3600 + 600,
)
def test_the_next_time_is_the_one_that_a_walk_finds(
    minute: tuple[str, set[int]],
    hour: tuple[str, set[int]],
    weekday: tuple[str, set[int]],
    place: tuple[str, datetime],
    shift: int,
) -> None:
    cron = parse_cron(f"{minute[0]} {hour[0]} * * {weekday[0]}", place[0])
    after = place[1] + timedelta(seconds=shift)
    found = cron.next_after(int(after.timestamp() * 1000))
    assert found is not None
    moment = datetime.fromtimestamp(found / 1000, UTC)
    assert moment > after
    expected = walked(cron, (minute[1], hour[1], weekday[1]), after)
    assert moment == expected if expected else moment > after + WALK


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["*/7 * * * *", "30 2 * * *", "0 0 29 2 *", "*/20 30 1 * * *", "15 1,2,3 L * *", "0 3 * * 7"]),
    st.sampled_from(ZONES),
    st.integers(0, 4 * 10**12),
)
def test_times_are_strictly_later_and_what_is_asked_in_between_is_the_same(cron: str, zone: str, after: int) -> None:
    found = parse_cron(cron, zone)
    times = next_runs(found, after, 5)
    assert times == sorted(set(times))
    assert times[0] > after
    for earlier, later in pairwise(times):
        for between in (earlier, earlier + 1, (earlier + later) // 2, later - 1):
            assert found.next_after(between) == later


def test_in_utc_it_is_cronsim_itself() -> None:
    for expression in ("*/7 3 * * *", "0 0 L * *", "5 4 * 2 MON#2", "10 */5 1 1-15/3 * *"):
        times: Iterator[Any] = CronSim(expression, datetime(2026, 1, 1))
        found = next_runs(parse_cron(expression), ms("2026-01-01"), 20)
        assert [datetime.fromtimestamp(at / 1000, UTC).replace(tzinfo=None) for at in found] == [
            next(times) for _ in found
        ]
