"""Blackout calendars: what people write, and which instants it blocks."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.calendars import DAYS, InvalidCalendar, Window, blocks, read

AMSTERDAM = ZoneInfo("Europe/Amsterdam")
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
MONDAY = datetime(2026, 11, 23)


def at(text: str, zone: ZoneInfo = AMSTERDAM, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).astimezone(UTC)


@pytest.mark.parametrize(
    ("line", "blocked", "free"),
    [
        ("2026-12-25", ["2026-12-25 00:00", "2026-12-25 23:59:59"], ["2026-12-24 23:59:59", "2026-12-26 00:00"]),
        ("2026-12-24..2027-01-01", ["2026-12-24 00:00", "2027-01-01 12:00"], ["2026-12-23 12:00", "2027-01-02 00:00"]),
        ("12-25", ["2026-12-25 12:00", "2031-12-25 12:00"], ["2026-12-24 12:00"]),
        ("02-29", ["2028-02-29 12:00"], ["2027-02-28 12:00", "2027-03-01 12:00"]),
        ("sat", ["2026-11-28 00:00", "2026-11-28 23:59"], ["2026-11-27 23:59", "2026-11-29 00:00"]),
        ("Sat-Sun", ["2026-11-28 12:00", "2026-11-29 12:00"], ["2026-11-27 12:00", "2026-11-30 00:00"]),
        ("sat-mon", ["2026-11-28 12:00", "2026-11-30 12:00"], ["2026-11-27 12:00", "2026-12-01 00:00"]),
        ("daily 01:00-02:30", ["2026-11-24 01:00", "2026-11-24 02:29"], ["2026-11-24 00:59", "2026-11-24 02:30"]),
        ("daily 23:00-01:00", ["2026-11-24 23:30", "2026-11-25 00:30"], ["2026-11-24 22:59", "2026-11-25 01:00"]),
        ("sun 22:00-06:00", ["2026-11-29 22:00", "2026-11-30 05:59"], ["2026-11-30 06:00", "2026-11-29 05:00"]),
        ("mon-fri 18:00-24:00", ["2026-11-27 23:59"], ["2026-11-28 00:00", "2026-11-28 19:00"]),
        ("fri 18:00 - mon 06:00", ["2026-11-27 18:00", "2026-11-30 05:59"], ["2026-11-27 17:59", "2026-11-30 06:00"]),
        ("daily  # the whole of every day", ["2026-11-24 00:00", "2026-11-29 23:59"], []),
        ("sun", ["2026-11-29 23:59"], ["2026-11-30 00:00"]),
        ("", [], ["2026-11-24 00:00"]),
        ("# 12-25", [], ["2026-12-25 12:00"]),
    ],
)
def test_a_line_blocks_what_it_says(line: str, blocked: list[str], free: list[str]):
    calendar = read("Holidays", AMSTERDAM, [line])
    assert [text for text in blocked if not blocks(calendar, at(text))] == []
    assert [text for text in free if blocks(calendar, at(text))] == []


def test_any_line_of_a_calendar_blocks():
    calendar = read("Freeze", AMSTERDAM, ["12-25", "2026-11-27", "", "daily 01:00-02:00"])
    assert calendar.dates == {date(2026, 11, 27)}
    assert [blocks(calendar, at(text)) for text in ("2030-12-25 10:00", "2026-11-27 10:00", "2026-11-24 01:30")] == [
        True,
        True,
        True,
    ]
    assert not blocks(calendar, at("2026-11-24 10:00"))


def test_the_clocks_of_the_calendars_own_zone_count():
    calendar = read("New Year in Kathmandu", ZoneInfo("Asia/Kathmandu"), ["2027-01-01"])
    assert blocks(calendar, at("2026-12-31 18:15", ZoneInfo("UTC")))
    assert not blocks(calendar, at("2026-12-31 18:14", ZoneInfo("UTC")))
    assert not blocks(calendar, at("2027-01-01 18:15", ZoneInfo("UTC")))


def test_an_hour_that_is_shown_twice_is_blocked_both_times():
    calendar = read("Night", AMSTERDAM, ["daily 02:00-03:00"])
    assert blocks(calendar, at("2026-10-25 02:30", fold=0))
    assert blocks(calendar, at("2026-10-25 02:30", fold=1))
    assert not blocks(calendar, at("2026-10-25 03:00"))


def test_an_hour_that_is_skipped_blocks_nothing():
    calendar = read("Night", AMSTERDAM, ["daily 02:00-03:00"])
    before = at("2026-03-29 01:59")
    assert not blocks(calendar, before)
    assert not blocks(calendar, before + MINUTE)
    assert before + MINUTE == at("2026-03-29 03:00")


@pytest.mark.parametrize(
    "line",
    [
        "2026-02-30",
        "2026-13-01",
        "02-30",
        "2026-12-25..2026-12-24",
        "2026-01-01..2046-01-01",
        "holiday",
        "satsun",
        "sat-foo",
        "daily 25:00-26:00",
        "daily 10:60-11:00",
        "daily 10:00-10:00",
        "daily 24:00-01:00",
        "daily 10:00",
        "fri 18:00 - fri 18:00",
        "2026-12-25 10:00-11:00",
        "٢٠٢٦-١٢-٢٥",
    ],
)
def test_a_line_that_makes_no_sense_is_named_in_a_sentence(line: str):
    with pytest.raises(InvalidCalendar) as raised:
        read("Holidays", AMSTERDAM, ["12-25", line])
    assert line in str(raised.value)
    assert str(raised.value).endswith(".")


def test_the_edges_of_the_calendar_are_not_blocked_and_no_error():
    calendar = read("Always", ZoneInfo("America/New_York"), ["daily"])
    assert not blocks(calendar, datetime.min.replace(tzinfo=UTC))
    assert blocks(calendar, datetime.max.replace(tzinfo=UTC))


@given(st.integers(0, 7 * 1440 - 1), st.integers(1, 7 * 1440 - 1))
@settings(max_examples=100, deadline=None)
def test_a_window_holds_as_many_minutes_as_it_is_long(begin: int, length: int):
    window = Window(MINUTE * begin, MINUTE * (begin + length))
    held = [minute for minute in range(7 * 1440) if window.holds(MINUTE * minute)]
    assert len(held) == length
    assert begin in held
    assert (begin + length) % (7 * 1440) not in held


@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 7 * 24 - 1))
def test_days_of_the_week_are_those_between_two_of_them(first: int, last: int, hour: int):
    days = {first}
    while last not in days:
        days.add((max(days, key=lambda day: (day - first) % 7) + 1) % 7)
    calendar = read("Days", ZoneInfo("UTC"), [f"{DAYS[first]}-{DAYS[last]}"])
    moment = MONDAY + timedelta(hours=hour)
    assert blocks(calendar, moment.replace(tzinfo=UTC)) == (moment.weekday() in days)
