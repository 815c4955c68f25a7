"""When rules have their slots, against tables and against an oracle that looks at every minute of a clock."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections import defaultdict
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from django.utils import translation
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scheduler.recurrences import (
    Cron,
    Every,
    InvalidRule,
    Once,
    Rule,
    clock_change,
    count_slots,
    named_zone,
    next_slot,
    previous_slot,
    shown_instant,
    skipped_wall,
    which_pass,
)
from scheduler.words import in_words, schedule_in_words

if TYPE_CHECKING:
    from collections.abc import Callable

AMSTERDAM = ZoneInfo("Europe/Amsterdam")
MINUTE = timedelta(minutes=1)
TICK = timedelta(microseconds=1)


def at(text: str, zone: str = "UTC", fold: int = 0) -> datetime:
    """An instant, written as the clocks of a zone show it."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC)


def first_slots(rule: Rule, anchor: datetime, zone: str, count: int) -> list[str]:
    """The first slots, with the offset from UTC that applies then."""
    found: list[datetime] = []
    slot = next_slot(rule, anchor=anchor, zone=ZoneInfo(zone), after=None)
    while slot is not None and len(found) < count:
        found.append(slot)
        slot = next_slot(rule, anchor=anchor, zone=ZoneInfo(zone), after=slot)
    return [slot.astimezone(ZoneInfo(zone)).isoformat(sep=" ", timespec="minutes") for slot in found]


# Once


def test_once_is_the_anchor_and_nothing_else():
    anchor = at("2026-03-01 12:00:30")
    rule = Once()
    assert next_slot(rule, anchor=anchor, zone=AMSTERDAM, after=None) == anchor
    assert next_slot(rule, anchor=anchor, zone=AMSTERDAM, after=anchor - TICK) == anchor
    assert next_slot(rule, anchor=anchor, zone=AMSTERDAM, after=anchor) is None
    assert next_slot(rule, anchor=anchor, zone=AMSTERDAM, after=None, until=anchor - TICK) is None
    assert previous_slot(rule, anchor=anchor, zone=AMSTERDAM, at_or_before=anchor) == anchor
    assert previous_slot(rule, anchor=anchor, zone=AMSTERDAM, at_or_before=anchor - TICK) is None
    assert count_slots(rule, anchor=anchor, zone=AMSTERDAM, first=anchor, before=anchor + MINUTE) == (1, anchor)


# Tables


@pytest.mark.parametrize(
    ("rule", "zone", "anchor", "expected"),
    [
        pytest.param(
            Every(1, "days"),
            "Europe/Amsterdam",
            at("2026-03-28 02:30", "Europe/Amsterdam"),
            ["2026-03-28 02:30+01:00", "2026-03-29 03:00+02:00", "2026-03-30 02:30+02:00"],
            id="daily over a gap: the first valid instant, and back to the wall time",
        ),
        pytest.param(
            Every(1, "days"),
            "Europe/Amsterdam",
            at("2026-10-24 02:30", "Europe/Amsterdam"),
            ["2026-10-24 02:30+02:00", "2026-10-25 02:30+02:00", "2026-10-26 02:30+01:00"],
            id="daily over an overlap: once, the first time",
        ),
        pytest.param(
            Every(1, "days"),
            "Europe/Amsterdam",
            at("2026-10-25 02:30", "Europe/Amsterdam", fold=1),
            ["2026-10-25 02:30+01:00", "2026-10-26 02:30+01:00"],
            id="an anchor in the second pass of an overlap is its own first slot",
        ),
        pytest.param(
            Every(1, "years"),
            "Europe/Amsterdam",
            at("2026-10-25 02:30", "Europe/Amsterdam", fold=1),
            ["2026-10-25 02:30+01:00", "2027-10-25 02:30+02:00"],
            id="an anchor in an overlap a year later",
        ),
        pytest.param(
            Every(1, "days"),
            "Europe/Amsterdam",
            at("2026-03-29 02:30", "Europe/Amsterdam"),
            ["2026-03-29 03:30+02:00", "2026-03-30 03:30+02:00"],
            id="a skipped wall time is no instant: the anchor is what the clocks show then",
        ),
        pytest.param(
            Every(1, "hours"),
            "Europe/Amsterdam",
            at("2026-03-29 01:15", "Europe/Amsterdam"),
            ["2026-03-29 01:15+01:00", "2026-03-29 03:15+02:00", "2026-03-29 04:15+02:00"],
            id="hours are elapsed time in a gap",
        ),
        pytest.param(
            Every(12, "hours"),
            "America/New_York",
            at("2026-10-31 18:00", "America/New_York"),
            ["2026-10-31 18:00-04:00", "2026-11-01 05:00-05:00", "2026-11-01 17:00-05:00"],
            id="hours are elapsed time in an overlap",
        ),
        pytest.param(
            Every(45, "minutes"),
            "Asia/Kathmandu",
            at("2026-01-01 00:00", "Asia/Kathmandu"),
            ["2026-01-01 00:00+05:45", "2026-01-01 00:45+05:45", "2026-01-01 01:30+05:45"],
            id="minutes",
        ),
        pytest.param(
            Every(2, "weeks"),
            "America/New_York",
            at("2026-02-22 02:30", "America/New_York"),
            ["2026-02-22 02:30-05:00", "2026-03-08 03:00-04:00", "2026-03-22 02:30-04:00"],
            id="weeks",
        ),
        pytest.param(
            Every(1, "months"),
            "UTC",
            at("2026-01-31 09:00"),
            [
                "2026-01-31 09:00+00:00",
                "2026-02-28 09:00+00:00",
                "2026-03-31 09:00+00:00",
                "2026-04-30 09:00+00:00",
                "2026-05-31 09:00+00:00",
            ],
            id="monthly on the 31st: the last day of short months, and back",
        ),
        pytest.param(
            Every(6, "months"),
            "UTC",
            at("2027-08-30 09:00"),
            ["2027-08-30 09:00+00:00", "2028-02-29 09:00+00:00", "2028-08-30 09:00+00:00"],
            id="every half-year",
        ),
        pytest.param(
            Every(1, "years"),
            "UTC",
            at("2028-02-29 09:00"),
            [
                "2028-02-29 09:00+00:00",
                "2029-02-28 09:00+00:00",
                "2030-02-28 09:00+00:00",
                "2031-02-28 09:00+00:00",
                "2032-02-29 09:00+00:00",
            ],
            id="yearly on 29 February: the last day of February",
        ),
        pytest.param(
            Every(1, "days"),
            "America/Santiago",
            at("2026-09-05 00:00", "America/Santiago"),
            ["2026-09-05 00:00-04:00", "2026-09-06 01:00-03:00", "2026-09-07 00:00-03:00"],
            id="a day without a midnight",
        ),
        pytest.param(
            Every(1, "days"),
            "America/Sao_Paulo",
            at("2018-11-03 00:30", "America/Sao_Paulo"),
            ["2018-11-03 00:30-03:00", "2018-11-04 01:00-02:00", "2018-11-05 00:30-02:00"],
            id="a day without a midnight, years ago",
        ),
        pytest.param(
            Every(1, "days"),
            "Australia/Lord_Howe",
            at("2026-10-03 02:15", "Australia/Lord_Howe"),
            ["2026-10-03 02:15+10:30", "2026-10-04 02:30+11:00", "2026-10-05 02:15+11:00"],
            id="a gap of half an hour",
        ),
        pytest.param(
            Every(1, "days"),
            "Pacific/Apia",
            at("2011-12-29 10:00", "Pacific/Apia"),
            ["2011-12-29 10:00-10:00", "2011-12-31 00:00+14:00", "2011-12-31 10:00+14:00"],
            id="a skipped day",
        ),
        pytest.param(
            Every(1, "days"),
            "Pacific/Apia",
            at("2011-12-29 00:00", "Pacific/Apia"),
            ["2011-12-29 00:00-10:00", "2011-12-31 00:00+14:00", "2012-01-01 00:00+14:00"],
            id="a skipped midnight falls on the next one, once",
        ),
        pytest.param(
            Cron("30 2 * * *"),
            "Europe/Amsterdam",
            at("2026-03-28 12:00", "Europe/Amsterdam"),
            ["2026-03-29 03:00+02:00", "2026-03-30 02:30+02:00"],
            id="cron at a fixed time in a gap",
        ),
        pytest.param(
            Cron("0,30 2,3 * * *"),
            "Europe/Amsterdam",
            at("2026-03-28 12:00", "Europe/Amsterdam"),
            ["2026-03-29 03:00+02:00", "2026-03-29 03:30+02:00", "2026-03-30 02:00+02:00"],
            id="cron at fixed times in a gap: one slot for those that fall together",
        ),
        pytest.param(
            Cron("30 2 * * *"),
            "Europe/Amsterdam",
            at("2026-10-24 12:00", "Europe/Amsterdam"),
            ["2026-10-25 02:30+02:00", "2026-10-26 02:30+01:00"],
            id="cron at a fixed time in an overlap",
        ),
        pytest.param(
            Cron("30 2 * * *"),
            "Europe/Amsterdam",
            at("2026-10-25 02:10", "Europe/Amsterdam", fold=1),
            ["2026-10-26 02:30+01:00"],
            id="cron from the second pass of an overlap",
        ),
        pytest.param(
            Cron("*/30 2 * * *"),
            "Europe/Amsterdam",
            at("2026-03-28 12:00", "Europe/Amsterdam"),
            ["2026-03-30 02:00+02:00", "2026-03-30 02:30+02:00"],
            id="a wildcard line has no slot in a gap",
        ),
        pytest.param(
            Cron("*/30 2 * * *"),
            "Europe/Amsterdam",
            at("2026-10-24 12:00", "Europe/Amsterdam"),
            [
                "2026-10-25 02:00+02:00",
                "2026-10-25 02:30+02:00",
                "2026-10-25 02:00+01:00",
                "2026-10-25 02:30+01:00",
                "2026-10-26 02:00+01:00",
            ],
            id="a wildcard line follows the clocks through both passes",
        ),
        pytest.param(
            Cron("*/15 0 * * SUN"),
            "America/Santiago",
            at("2026-09-05 12:00", "America/Santiago"),
            ["2026-09-13 00:00-03:00", "2026-09-13 00:15-03:00"],
            id="a wildcard line in a gap at midnight",
        ),
        pytest.param(
            Cron("*/15 2 * * *"),
            "Australia/Lord_Howe",
            at("2026-04-05 00:00", "Australia/Lord_Howe"),
            ["2026-04-05 02:00+10:30", "2026-04-05 02:15+10:30", "2026-04-05 02:30+10:30"],
            id="a wildcard line after an overlap of half an hour",
        ),
        pytest.param(
            Cron("0 12 13 * 5"),
            "UTC",
            at("2026-11-01 00:00"),
            ["2026-11-06 12:00+00:00", "2026-11-13 12:00+00:00", "2026-11-20 12:00+00:00"],
            id="day of month or day of week, when both are given",
        ),
        pytest.param(
            Cron("0 12 29 2 *"),
            "UTC",
            at("2026-01-01 00:00"),
            ["2028-02-29 12:00+00:00", "2032-02-29 12:00+00:00"],
            id="29 February by cron: leap years only",
        ),
        pytest.param(
            Cron("@weekly"), "Asia/Kathmandu", at("2026-11-24 00:00"), ["2026-11-29 00:00+05:45"], id="an alias"
        ),
    ],
)
def test_slots_by_the_table(rule: Rule, zone: str, anchor: datetime, expected: list[str]):
    assert first_slots(rule, anchor, zone, len(expected)) == expected


def test_the_first_slot_of_a_cron_line_may_be_the_anchor_but_never_before_it():
    rule, whole = Cron("* * * * *"), at("2026-11-24 10:05")
    assert next_slot(rule, anchor=whole, zone=AMSTERDAM, after=None) == whole
    assert next_slot(rule, anchor=whole + TICK, zone=AMSTERDAM, after=None) == whole + MINUTE
    assert next_slot(rule, anchor=whole + TICK, zone=AMSTERDAM, after=whole - MINUTE) == whole + MINUTE
    assert previous_slot(rule, anchor=whole + TICK, zone=AMSTERDAM, at_or_before=whole + MINUTE - TICK) is None
    assert previous_slot(rule, anchor=whole, zone=AMSTERDAM, at_or_before=whole) == whole


@pytest.mark.parametrize("rule", [Once(), Every(7, "minutes"), Every(1, "days"), Every(1, "months"), Cron("5 * * * *")])
def test_there_is_no_slot_after_the_end(rule: Rule):
    anchor = at("2026-11-24 10:05")
    after, last = None, anchor
    until = anchor + timedelta(days=40)
    while (slot := next_slot(rule, anchor=anchor, zone=AMSTERDAM, after=after, until=until)) is not None:
        assert slot <= until
        after = last = slot
    assert previous_slot(rule, anchor=anchor, zone=AMSTERDAM, at_or_before=at("2100-01-01"), until=until) == last
    assert next_slot(rule, anchor=anchor, zone=AMSTERDAM, after=None, until=anchor - TICK) is None
    assert previous_slot(rule, anchor=anchor, zone=AMSTERDAM, at_or_before=until, until=anchor - TICK) is None


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Every(1, "minutes"), 525_600),
        (Every(1, "hours"), 8_760),
        (Every(1, "days"), 365),
        (Every(1, "weeks"), 53),
        (Every(1, "months"), 12),
        (Every(1, "years"), 1),
        (Cron("* * * * *"), 525_600),
        (Cron("*/5 9-16 * * *"), 365 * 8 * 12),
        (Cron("30 2 * * *"), 365),
        (Cron("0 0 1 * *"), 12),
    ],
)
def test_a_year_of_slots_is_counted(rule: Rule, expected: int):
    anchor = at("2026-01-01 00:00", "Europe/Amsterdam")
    first = next_slot(rule, anchor=anchor, zone=AMSTERDAM, after=None)
    before = at("2027-01-01 00:00", "Europe/Amsterdam")
    assert first is not None
    count, last = count_slots(rule, anchor=anchor, zone=AMSTERDAM, first=first, before=before)
    assert count == expected
    assert last == previous_slot(rule, anchor=anchor, zone=AMSTERDAM, at_or_before=before - TICK)


def test_a_first_slot_that_the_rule_no_longer_has_is_counted_as_one():
    anchor = at("2026-01-01 00:00")
    odd = at("2026-01-05 07:13")
    assert count_slots(Every(1, "days"), anchor=anchor, zone=AMSTERDAM, first=odd, before=odd + MINUTE) == (1, odd)
    assert count_slots(Every(1, "days"), anchor=anchor, zone=AMSTERDAM, first=odd, before=at("2026-01-07 12:00")) == (
        3,
        at("2026-01-07 00:00"),
    )
    assert count_slots(Cron("@daily"), anchor=odd, zone=ZoneInfo("UTC"), first=odd, before=at("2026-01-07 12:00")) == (
        3,
        at("2026-01-07 00:00"),
    )


# The edges of the calendar

EDGE_RULES = [
    Once(),
    Every(59, "minutes"),
    Every(1, "days"),
    Every(36_500, "days"),
    Every(1, "months"),
    Every(100, "years"),
    Cron("* * * * *"),
    Cron("30 23 * * *"),
    Cron("0 0 29 2 *"),
]


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Pacific/Kiritimati"])
@pytest.mark.parametrize("rule", EDGE_RULES, ids=in_words)
def test_the_end_of_the_calendar_is_the_end_of_the_slots(rule: Rule, zone: str):
    last_instant = datetime.max.replace(tzinfo=UTC)
    for anchor in (at("9999-12-31 22:45"), at("2026-01-31 10:00"), last_instant):
        last = previous_slot(rule, anchor=anchor, zone=ZoneInfo(zone), at_or_before=last_instant)
        assert next_slot(rule, anchor=anchor, zone=ZoneInfo(zone), after=last_instant) is None
        if last is not None:
            assert last >= anchor
            assert next_slot(rule, anchor=anchor, zone=ZoneInfo(zone), after=last) is None
            assert count_slots(rule, anchor=last, zone=ZoneInfo(zone), first=last, before=last_instant) == (1, last)


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Pacific/Kiritimati"])
@pytest.mark.parametrize("rule", EDGE_RULES, ids=in_words)
def test_the_begin_of_the_calendar_is_no_error(rule: Rule, zone: str):
    anchor = datetime.min.replace(tzinfo=UTC)
    slot = next_slot(rule, anchor=anchor, zone=ZoneInfo(zone), after=None)
    assert slot is not None
    assert slot >= anchor
    assert previous_slot(rule, anchor=anchor, zone=ZoneInfo(zone), at_or_before=slot) == slot
    assert previous_slot(rule, anchor=at("2026-01-01"), zone=ZoneInfo(zone), at_or_before=anchor) is None


# Rules that make no sense


@pytest.mark.parametrize(
    ("count", "unit"),
    [
        (0, "minutes"),
        (-1, "days"),
        (101, "years"),
        (2**31 - 1, "minutes"),
        (10**30, "hours"),
        (1, "fortnights"),
        (1, ""),
    ],
)
def test_every_refuses_what_makes_no_sense(count: int, unit: str):
    with pytest.raises(InvalidRule, match=r"\.$"):
        Every(count, unit)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "five fields"),
        ("* * * *", "this one has 4"),
        ("0 * * * * *", "this one has 6"),
        ("@reboot", "@reboot"),
        ("@fortnightly", "@hourly"),
        ("60 * * * *", "“60” is no minute"),
        ("* 24 * * *", "“24” is no hour"),
        ("* * 0 * *", "“0” is no day of month"),
        ("* * * 13 *", "“13” is no month"),
        ("* * * * 8", "“8” is no day of week"),
        ("5-1 * * * *", "“5-1” is no minute"),
        ("*/0 * * * *", r"“\*/0” is no minute"),
        ("* * * * MON#6", "“MON#6” is no day of week"),
        ("two * * * *", "“TWO” is no minute"),
        ("٣ * * * *", "is no minute"),
        ("0 0 31 2 *", "never matches: no such month has day 31"),
        ("0 0 30,31 2 *", "never matches"),
        ("0 0 31 4,6,9,11 *", "never matches"),
        ("0 0 */31 2 MON#5", "never matches"),  # 1 February is no fifth Monday
        ("* * * * " + "1," * 200 + "1", "at most 200 characters"),
    ],
)
def test_a_cron_line_that_makes_no_sense_is_explained(line: str, says: str):
    with pytest.raises(InvalidRule, match=says) as raised:
        Cron(line)
    assert str(raised.value).endswith(".")


@pytest.mark.parametrize("alias", ["@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"])
def test_aliases_are_known(alias: str):
    slot = next_slot(Cron(alias), anchor=at("2026-11-24 10:05"), zone=AMSTERDAM, after=None)
    assert slot is not None
    assert slot.minute == 0


@given(st.text(alphabet="*/,-LW#0123456789SUNMOJA ٣²\x00@", max_size=30) | st.text(max_size=30))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_text_is_a_cron_line_or_an_invalid_rule(line: str):
    try:
        rule = Cron(line)
    except InvalidRule as error:
        assert str(error).endswith(".")
    else:
        slot = next_slot(rule, anchor=at("2026-11-24 10:05"), zone=AMSTERDAM, after=None)
        assert slot is not None
        assert in_words(rule)


# Words


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Once(), "once"),
        (Every(1, "minutes"), "every minute"),
        (Every(15, "minutes"), "every 15 minutes"),
        (Every(1, "hours"), "every hour"),
        (Every(6, "hours"), "every 6 hours"),
        (Every(1, "days"), "every day"),
        (Every(2, "weeks"), "every 2 weeks"),
        (Every(1, "months"), "every month"),
        (Every(3, "years"), "every 3 years"),
        (Cron("* * * * *"), "every minute"),
        (Cron("*/5 * * * *"), "every 5 minutes"),
        (Cron("*/7 * * * *"), "cron: */7 * * * *"),  # begins anew in each hour
        (Cron("0 */6 * * *"), "every 6 hours"),
        (Cron("15 * * * *"), "every hour at minute 15"),
        (Cron("@hourly"), "every hour"),
        (Cron("0 2 * * *"), "every day at 02:00"),
        (Cron("30 7 * * 1-5"), "every weekday at 07:30"),
        (Cron("30 7 * * mon-fri"), "every weekday at 07:30"),
        (Cron("0 9 * * 1"), "every Monday at 09:00"),
        (Cron("0 9 * * sun"), "every Sunday at 09:00"),
        (Cron("0 9 * * 7"), "every Sunday at 09:00"),
        (Cron("0 9 * * 4,1"), "every Monday and Thursday at 09:00"),
        (Cron("30 6 * * sat,0,7"), "every Saturday and Sunday at 06:30"),
        (Cron("0 20,8,8 * * *"), "every day at 08:00 and 20:00"),
        (Cron("15 6,12,18 * * 1-5"), "every weekday at 06:15, 12:15 and 18:15"),
        (Cron("0 1,2,3,4,5 * * *"), "cron: 0 1,2,3,4,5 * * *"),
        (Cron("0 9 * * 1-3"), "cron: 0 9 * * 1-3"),
        (Cron("@monthly"), "on day 1 of every month at 00:00"),
        (Cron("5 3 L * *"), "on the last day of every month at 03:05"),
        (Cron("@yearly"), "every year on January 1 at 00:00"),
        (Cron("0 12 29 2 *"), "every year on February 29 at 12:00"),
        (Cron("0 12 13 * 5"), "cron: 0 12 13 * 5"),
        (Cron("0 12 * * MON#1"), "cron: 0 12 * * MON#1"),
        (Cron("0,30 9-17 * * 1-5"), "cron: 0,30 9-17 * * 1-5"),
        (Cron("0 0 13-15 * *"), "cron: 0 0 13-15 * *"),
    ],
)
def test_rules_in_words(rule: Rule, words: str):
    with translation.override("en"):
        assert in_words(rule) == words


# The oracle: a table of what the clocks of a zone show in each minute of some days. It knows nothing of folds.

WINDOWS = {
    "Europe/Amsterdam": ["2026-03-29", "2026-10-25", "2026-06-15"],
    "America/New_York": ["2026-03-08", "2026-11-01"],
    "America/Santiago": ["2026-09-06", "2026-04-05"],  # no midnight; 23:00 to 24:00 twice
    "America/Sao_Paulo": ["2018-11-04", "2018-02-18"],
    "America/Havana": ["2026-03-08", "2026-11-01"],
    "America/St_Johns": ["2006-04-02", "2006-10-29"],  # at one minute past midnight
    "America/Scoresbysund": ["2025-03-30", "2025-10-26"],  # the day's last hour is skipped
    "Australia/Lord_Howe": ["2026-04-05", "2026-10-04"],  # by half an hour
    "Asia/Kathmandu": ["1986-01-01", "2026-06-15"],  # by a quarter of an hour
    "Pacific/Apia": ["2011-12-30"],  # a whole day
    "Pacific/Kwajalein": ["1993-08-21"],
    "UTC": ["2026-06-15"],
}


class Clock:
    """What the clocks of a zone show, minute by minute, some days around a date."""

    def __init__(self, zone: str, around: str) -> None:
        self.zone = ZoneInfo(zone)
        middle = datetime.fromisoformat(around).replace(tzinfo=UTC)
        self.begin, self.end = middle - timedelta(days=3), middle + timedelta(days=4)
        self.minutes = [self.begin + MINUTE * number for number in range((self.end - self.begin) // MINUTE)]
        self.shown = [minute.astimezone(self.zone).replace(tzinfo=None) for minute in self.minutes]
        highest = datetime.min
        self.highest_so_far = [highest := max(highest, shown) for shown in self.shown]

    def instant(self, wall: datetime) -> datetime | None:
        """The first minute that shows this wall time or, when it is skipped, a later one."""
        whole = wall.replace(second=0, microsecond=0)
        number = bisect_left(self.highest_so_far, whole)
        if number in (0, len(self.minutes)):
            return None  # not within the table
        return self.minutes[number] + (wall - whole if self.shown[number] == whole else timedelta(0))


@lru_cache
def clock(zone: str, around: str) -> Clock:
    return Clock(zone, around)


@st.composite
def clocks(draw: st.DrawFn) -> Clock:
    zone = draw(st.sampled_from(sorted(WINDOWS)))
    return clock(zone, draw(st.sampled_from(WINDOWS[zone])))


def instants_around(clock: Clock) -> st.SearchStrategy[datetime]:
    """Within the table, mostly in the hours around the change, on and off the whole minute."""
    minutes = st.integers(0, len(clock.minutes) - 1) | st.integers(2 * 1440, 4 * 1440)
    return st.builds(
        lambda minute, extra: clock.minutes[minute] + extra,
        minutes,
        st.sampled_from([timedelta(0), timedelta(0), timedelta(seconds=30), TICK, MINUTE - TICK]),
    )


def walls_of_every(rule: Every, anchor: datetime, end: datetime) -> list[datetime]:
    """The anchor's wall time on every date of the rule, found by walking through the dates one by one."""
    found, day, units = [], anchor.date(), 0
    while day <= end.date():
        if begins_a_unit(day, rule.unit, anchor.date()):
            if units % rule.count == 0:
                found.append(datetime.combine(day, anchor.time()))
            units += 1
        day += timedelta(days=1)
    return found


def begins_a_unit(day: date, unit: str, anchor: date) -> bool:
    if unit == "days":
        return True
    if unit == "weeks":
        return day.weekday() == anchor.weekday()
    if unit == "years" and day.month != anchor.month:
        return False
    is_last_of_its_month = (day + timedelta(days=1)).day == 1
    return day.day == anchor.day or (day.day < anchor.day and is_last_of_its_month)


def slots_of_every(rule: Every, anchor: datetime, clock: Clock) -> list[datetime]:
    if rule.unit in ("minutes", "hours"):
        step = timedelta(**{rule.unit: rule.count})
        found, slot = [], anchor
        while slot < clock.end:
            found.append(slot)
            slot += step
        return [slot for slot in found if slot >= clock.begin]
    wall = anchor.astimezone(clock.zone).replace(tzinfo=None)
    later = [clock.instant(each) for each in walls_of_every(rule, wall, clock.shown[-1])[1:]]
    return sorted({anchor, *(slot for slot in later if slot is not None)})


def values(field: str, low: int, high: int) -> set[int]:
    """The numbers that a field of a cron line names: crontab(5), without names."""
    found: set[int] = set()
    for part in field.split(","):
        numbers, _, step = part.partition("/")
        if numbers == "*":
            begin, end = low, high
        elif "-" in numbers:
            begin, end = (int(number) for number in numbers.split("-"))
        else:
            begin, end = int(numbers), high if step else int(numbers)
        found.update(range(begin, end + 1, int(step or 1)))
    return found


def slots_of_cron(line: str, clock: Clock) -> list[datetime]:
    minute, hour, day, month, weekday = line.split()
    minutes, hours = values(minute, 0, 59), values(hour, 0, 23)
    days, months = values(day, 1, 31), values(month, 1, 12)
    weekdays = {number % 7 for number in values(weekday, 0, 7)}

    def matches_date(date: date) -> bool:
        by_day, by_weekday = date.day in days, date.isoweekday() % 7 in weekdays
        both = day.startswith("*") or weekday.startswith("*")
        return date.month in months and (by_day and by_weekday if both else by_day or by_weekday)

    def matches(wall: datetime) -> bool:
        return wall.minute in minutes and wall.hour in hours and matches_date(wall.date())

    if minute.startswith("*") or hour.startswith("*"):
        return [minute for minute, shown in zip(clock.minutes, clock.shown, strict=True) if matches(shown)]
    first = clock.shown[0].replace(second=0)
    walls = (first + MINUTE * number for number in range((clock.shown[-1] - first) // MINUTE))
    return sorted({slot for wall in walls if matches(wall) and (slot := clock.instant(wall)) is not None})


def assert_same_slots(rule: Rule, anchor: datetime, clock: Clock, expected: list[datetime], probe: datetime) -> None:
    """Forwards, backwards, from an instant in between, and counted. The table's ends are not compared."""
    begin, end = max(clock.begin + timedelta(days=1, hours=2), anchor), clock.end - timedelta(days=1, hours=2)
    expected = [slot for slot in expected if begin <= slot < end]

    found, slot = [], next_slot(rule, anchor=anchor, zone=clock.zone, after=begin - TICK)
    while slot is not None and slot < end:
        found.append(slot)
        slot = next_slot(rule, anchor=anchor, zone=clock.zone, after=slot)
    assert found == expected

    found, slot = [], previous_slot(rule, anchor=anchor, zone=clock.zone, at_or_before=end - TICK)
    while slot is not None and slot >= begin:
        found.append(slot)
        slot = previous_slot(rule, anchor=anchor, zone=clock.zone, at_or_before=slot - TICK)
    assert found[::-1] == expected

    if begin <= probe < end:
        later = next((slot for slot in expected if slot > probe), None)
        slot = next_slot(rule, anchor=anchor, zone=clock.zone, after=probe, until=end - TICK)
        assert slot == later
        earlier = [slot for slot in expected if slot <= probe]
        slot = previous_slot(rule, anchor=anchor, zone=clock.zone, at_or_before=probe)
        assert earlier[-1:] == [slot] if slot is not None and slot >= begin else earlier == []
        if len(earlier) > 1:
            counted = count_slots(rule, anchor=anchor, zone=clock.zone, first=earlier[0], before=earlier[-1])
            assert counted == (len(earlier) - 1, earlier[-2])


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_has_the_slots_that_the_oracle_finds(data: st.DataObject):
    clock = data.draw(clocks())
    rule = data.draw(
        st.builds(Every, st.integers(1, 90), st.just("minutes"))
        | st.builds(Every, st.integers(1, 40), st.just("hours"))
        | st.builds(Every, st.integers(1, 3), st.sampled_from(["days", "weeks", "months", "years"]))
        | st.just(Every(1, "days"))
    )
    anchor = data.draw(instants_around(clock))
    back = data.draw(st.sampled_from([0, 0, 1, 28, 31, 365, 1461]))
    if rule.unit not in ("minutes", "hours") or back < 2:
        anchor -= timedelta(days=back)
    assert_same_slots(rule, anchor, clock, slots_of_every(rule, anchor, clock), data.draw(instants_around(clock)))


def fields(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    return st.one_of(
        number.map(str),
        st.lists(number, min_size=2, max_size=4).map(lambda numbers: ",".join(map(str, numbers))),
        st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}"),
        st.tuples(number, number, st.integers(2, 20)).map(
            lambda three: f"{min(three[:2])}-{max(three[:2])}/{three[2]}"
        ),
        st.integers(2, 40).map("*/{}".format),
    )


CRON_LINES = st.builds(
    " ".join,
    st.tuples(
        fields(0, 59) | st.just("*") | st.just("0"),
        fields(0, 23) | st.just("*") | st.sampled_from(["0", "1", "2", "3", "23", "0,1,2,3,23"]),
        st.just("*") | st.just("*") | fields(1, 28),
        st.just("*"),
        st.just("*") | st.just("*") | fields(0, 7),
    ),
)


@given(st.data(), CRON_LINES)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_cron_has_the_slots_that_the_oracle_finds(data: st.DataObject, line: str):
    clock = data.draw(clocks())
    anchor = data.draw(instants_around(clock) | st.just(clock.begin))
    assert_same_slots(Cron(line), anchor, clock, slots_of_cron(line, clock), data.draw(instants_around(clock)))


@pytest.mark.parametrize(
    "rule",
    [
        Every(1, "days"),
        Every(7, "hours"),
        Cron("*/20 0,1,2,23 * * *"),
        Cron("0 0 * * *"),
        Cron("30 23 * * *"),
        Cron("15,45 0,2,23 * * *"),
    ],
    ids=in_words,
)
@pytest.mark.parametrize("zone", sorted(WINDOWS))
def test_counting_finds_each_slot_that_stepping_finds(rule: Rule, zone: str):
    for around in WINDOWS[zone]:
        shown = clock(zone, around)
        # A midnight in the zone: where a day is skipped, two of its slots fall on one instant.
        first = shown.instant(datetime.fromisoformat(around) - timedelta(days=2))
        assert first is not None
        slots: list[datetime] = []
        slot = next_slot(rule, anchor=first, zone=shown.zone, after=None)
        while slot is not None and slot < shown.end:
            slots.append(slot)
            slot = next_slot(rule, anchor=first, zone=shown.zone, after=slot)
        for number, each in enumerate(slots[:-1]):
            counted = count_slots(rule, anchor=first, zone=shown.zone, first=each, before=slots[-1])
            assert counted == (len(slots) - 1 - number, slots[-2])


# What holds for all rules

RULES = st.one_of(
    st.just(Once()),
    st.builds(Every, st.integers(1, 100), st.sampled_from(["minutes", "hours", "days", "weeks", "months", "years"])),
    st.builds(Cron, CRON_LINES),
)
INSTANTS = st.datetimes(datetime(1800, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
ZONES = st.sampled_from([*sorted(WINDOWS), "America/Juneau", "Asia/Manila", "Africa/Casablanca", "Africa/Monrovia"])


@given(RULES, INSTANTS, ZONES.map(ZoneInfo), INSTANTS)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_forwards_and_backwards_agree_and_slots_increase(rule: Rule, anchor: datetime, zone: ZoneInfo, after: datetime):
    slot = next_slot(rule, anchor=anchor, zone=zone, after=after)
    if slot is None:
        return
    assert slot > after
    assert slot >= anchor
    assert slot.tzinfo is UTC
    assert previous_slot(rule, anchor=anchor, zone=zone, at_or_before=slot) == slot
    before = previous_slot(rule, anchor=anchor, zone=zone, at_or_before=slot - TICK)
    assert before is None or before <= after
    following = next_slot(rule, anchor=anchor, zone=zone, after=slot)
    if following is not None:
        assert following > slot
        assert previous_slot(rule, anchor=anchor, zone=zone, at_or_before=following - TICK) == slot
        assert count_slots(rule, anchor=anchor, zone=zone, first=slot, before=following) == (1, slot)


def test_far_away_slots_are_computed_and_not_walked_to():
    """A walk through 8,000 years of minutes would never end; the clock's time is not looked at."""
    anchor = at("1000-01-01 00:00")
    for unit in ("minutes", "hours", "days", "weeks", "months", "years"):
        slot = next_slot(Every(1, unit), anchor=anchor, zone=AMSTERDAM, after=at("9000-06-15 12:34:56"))
        assert slot is not None
        count, last = count_slots(Every(1, unit), anchor=anchor, zone=AMSTERDAM, first=anchor, before=slot)
        assert count > 7_999
        assert last <= at("9000-06-15 12:34:56")


# Ten years: an oracle that lets a clock run, quarter of an hour by quarter of an hour, and notes when each wall time
# is first reached or passed. It computes no date from another one, and asks no rule for its next slot.

TEN_YEARS = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC))
SIX_ZONES = [
    "America/New_York",
    "America/Santiago",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Europe/Amsterdam",
    "UTC",
]
# Every change of a clock in these zones and years is on a quarter of an hour; the oracle above looks at each minute.
QUARTER = timedelta(minutes=15)


class RunningClock:
    """By the time of the day: on which date, and at which instant, a zone's clocks show it."""

    def __init__(self, zone: str) -> None:
        self.zone = ZoneInfo(zone)
        self.reached: defaultdict[time, list[tuple[date, datetime]]] = defaultdict(list)
        """Each wall time once: the first instant that shows it or, when it is skipped, a later one."""
        self.shown: defaultdict[time, list[tuple[date, datetime]]] = defaultdict(list)
        """Each wall time as often as the clocks show it."""
        instant, end = TEN_YEARS
        latest = instant.astimezone(self.zone).replace(tzinfo=None) - QUARTER
        while instant < end:
            wall = instant.astimezone(self.zone).replace(tzinfo=None)
            self.shown[wall.time()].append((wall.date(), instant))
            while latest < wall:
                latest += QUARTER
                self.reached[latest.time()].append((latest.date(), instant))
            instant += QUARTER

    def slots(self, times: list[str], on: Callable[[date], bool], *, each_showing: bool = False) -> list[datetime]:
        table = self.shown if each_showing else self.reached
        return sorted(
            {instant for text in times for day, instant in table[time.fromisoformat(text)] if on(day)},
        )


@lru_cache(maxsize=1)
def running_clock(zone: str) -> RunningClock:
    return RunningClock(zone)


def last_of_month(day: date) -> bool:
    return (day + timedelta(days=1)).month != day.month


# The rule, the anchor's wall time, the times of the day that it has, the dates that it has, and whether a line follows
# the clocks.
WHOLE_HOURS = [f"{hour:02}:00" for hour in range(24)]
CALENDAR_RULES: list[tuple[Rule, str, list[str], Callable[[date], bool], bool]] = [
    (Every(1, "days"), "2020-01-05 02:30", ["02:30"], lambda day: True, False),
    (Every(1, "days"), "2020-01-05 00:00", ["00:00"], lambda day: True, False),
    (Every(10, "days"), "2020-01-05 23:45", ["23:45"], lambda day: (day.toordinal() - 737429) % 10 == 0, False),
    (Every(1, "weeks"), "2020-01-05 02:15", ["02:15"], lambda day: day.isoweekday() == 7, False),
    (
        Every(2, "weeks"),
        "2020-01-05 01:30",
        ["01:30"],
        lambda day: (day.toordinal() - 737429) % 14 == 0,
        False,
    ),
    (Every(1, "months"), "2020-01-31 02:30", ["02:30"], last_of_month, False),
    (
        Every(1, "months"),
        "2020-01-29 23:30",
        ["23:30"],
        lambda day: day.day == 29 or (day.month == 2 and day.day == 28 and last_of_month(day)),
        False,
    ),
    (
        Every(3, "months"),
        "2020-01-30 02:00",
        ["02:00"],
        lambda day: day.month in {1, 4, 7, 10} and day.day == 30,
        False,
    ),
    (Every(1, "years"), "2020-02-29 09:00", ["09:00"], lambda day: day.month == 2 and last_of_month(day), False),
    (Every(1, "years"), "2020-03-28 02:30", ["02:30"], lambda day: (day.month, day.day) == (3, 28), False),
    (
        Every(3, "years"),
        "2020-10-25 01:30",
        ["01:30"],
        lambda day: (day.month, day.day) == (10, 25) and day.year % 3 == 1,
        False,
    ),
    (Cron("30 2 * * *"), "2020-01-05 00:00", ["02:30"], lambda day: True, False),
    (
        Cron("0,30 0,2,23 * * SUN"),
        "2020-01-05 00:00",
        [
            "00:00",
            "00:30",
            "02:00",
            "02:30",
            "23:00",
            "23:30",
        ],
        lambda day: day.isoweekday() == 7,
        False,
    ),
    (Cron("30 7 * * mon-fri"), "2020-01-05 00:00", ["07:30"], lambda day: day.isoweekday() < 6, False),
    (Cron("0 0 1 * *"), "2020-01-05 00:00", ["00:00"], lambda day: day.day == 1, False),
    (Cron("15 1 29 2 *"), "2020-01-05 00:00", ["01:15"], lambda day: (day.month, day.day) == (2, 29), False),
    (Cron("45 12 31 * *"), "2020-01-05 00:00", ["12:45"], lambda day: day.day == 31, False),
    (
        Cron("0 12 13 * FRI"),
        "2020-01-05 00:00",
        ["12:00"],
        lambda day: day.day == 13 or day.isoweekday() == 5,
        False,
    ),
    (Cron("*/30 2 * * *"), "2020-01-05 00:00", ["02:00", "02:30"], lambda day: True, True),
    (Cron("0 * * * sun"), "2020-01-05 00:00", WHOLE_HOURS, lambda day: day.isoweekday() == 7, True),
]


@pytest.mark.parametrize("zone", SIX_ZONES)
def test_ten_years_of_dates_and_cron_lines_are_those_of_a_running_clock(zone: str):
    clock = running_clock(zone)
    for rule, anchor_wall, times, on, each_showing in CALENDAR_RULES:
        anchor = at(anchor_wall, zone)
        until = TEN_YEARS[1] - timedelta(days=2)
        expected = [slot for slot in clock.slots(times, on, each_showing=each_showing) if anchor <= slot <= until]
        assert len(expected) > 2
        assert walk(rule, anchor, clock.zone, until) == expected, rule
        first, middle = expected[0], expected[len(expected) // 2]
        for slot, number in ((first, 0), (middle, len(expected) // 2)):
            counted = count_slots(rule, anchor=anchor, zone=clock.zone, first=slot, before=expected[-1])
            assert counted == (len(expected) - number - 1, expected[-2]), rule
        assert (
            previous_slot(rule, anchor=anchor, zone=clock.zone, at_or_before=middle - TICK)
            == (expected[len(expected) // 2 - 1])
        ), rule


@pytest.mark.parametrize("zone", SIX_ZONES)
@pytest.mark.parametrize(("rule", "seconds"), [(Every(7, "hours"), 25_200), (Every(455, "minutes"), 27_300)])
def test_ten_years_of_elapsed_time_are_steps_of_the_unix_clock(zone: str, rule: Every, seconds: int):
    anchor = at("2020-01-05 02:30", zone)
    begin, end = int(anchor.timestamp()), int(TEN_YEARS[1].timestamp())
    expected = [datetime.fromtimestamp(second, UTC) for second in range(begin, end, seconds)]
    assert walk(rule, anchor, ZoneInfo(zone), TEN_YEARS[1] - TICK) == expected


def walk(rule: Rule, anchor: datetime, zone: ZoneInfo, until: datetime) -> list[datetime]:
    found: list[datetime] = []
    slot = next_slot(rule, anchor=anchor, zone=zone, after=None, until=until)
    while slot is not None:
        assert not found or slot > found[-1]
        found.append(slot)
        slot = next_slot(rule, anchor=anchor, zone=zone, after=slot, until=until)
    return found


@given(RULES, INSTANTS, ZONES.map(ZoneInfo), st.lists(INSTANTS, min_size=1, max_size=6))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_order_of_questions_finds_a_slot_twice_or_another_one(
    rule: Rule, anchor: datetime, zone: ZoneInfo, questions: list[datetime]
):
    """Pollers ask at any time, also with a clock that was set back: the answers are always of one rising series."""
    answers = {after: next_slot(rule, anchor=anchor, zone=zone, after=after) for after in questions}
    for earlier, later in itertools.pairwise(sorted(questions)):
        first, second = answers[earlier], answers[later]
        if first is None:
            assert second is None
        elif first > later:
            assert second == first
        else:
            assert second is None or second > first


# What is special about an instant


@pytest.mark.parametrize(
    ("rule", "zone", "slot", "skipped"),
    [
        (Every(1, "days"), "Europe/Amsterdam", at("2026-03-29 03:00", "Europe/Amsterdam"), "2026-03-29 02:30"),
        (Every(1, "days"), "Europe/Amsterdam", at("2026-03-30 02:30", "Europe/Amsterdam"), None),
        (Cron("30 2 * * *"), "Europe/Amsterdam", at("2026-03-29 03:00", "Europe/Amsterdam"), "2026-03-29 02:30"),
        (Cron("0,30 2,3 * * *"), "Europe/Amsterdam", at("2026-03-29 03:00", "Europe/Amsterdam"), "2026-03-29 02:00"),
        (Cron("0 3 * * *"), "Europe/Amsterdam", at("2026-03-29 03:00", "Europe/Amsterdam"), None),
        (Cron("0 * * * *"), "Europe/Amsterdam", at("2026-03-29 03:00", "Europe/Amsterdam"), None),
        (Every(30, "minutes"), "Europe/Amsterdam", at("2026-03-29 03:00", "Europe/Amsterdam"), None),
        (Cron("0 0 * * *"), "America/Santiago", at("2026-09-06 01:00", "America/Santiago"), "2026-09-06 00:00"),
        (Cron("15 2 * * *"), "Australia/Lord_Howe", at("2026-10-04 02:30", "Australia/Lord_Howe"), "2026-10-04 02:15"),
        (Cron("30 2 * * *"), "Europe/Amsterdam", at("2026-10-25 02:30", "Europe/Amsterdam"), None),
        (Once(), "Europe/Amsterdam", at("2026-03-29 03:00", "Europe/Amsterdam"), None),
        (Cron("0 10 * * *"), "Pacific/Apia", at("2011-12-31 00:00", "Pacific/Apia"), "2011-12-30 10:00"),
    ],
)
def test_a_slot_at_the_end_of_a_gap_names_the_wall_time_that_it_stands_for(
    rule: Rule, zone: str, slot: datetime, skipped: str | None
):
    anchor = slot - timedelta(days=2)
    if isinstance(rule, Every) and rule.unit == "days":
        anchor = at("2026-03-20 02:30", zone)
    assert previous_slot(rule, anchor=anchor, zone=ZoneInfo(zone), at_or_before=slot) == slot or rule == Once()
    found = skipped_wall(rule, anchor=anchor, zone=ZoneInfo(zone), slot=slot)
    assert found == (None if skipped is None else datetime.fromisoformat(skipped))


@pytest.mark.parametrize("zone", sorted(WINDOWS))
def test_the_passes_of_an_overlap_are_told_apart_as_the_table_shows_them(zone: str):
    for around in WINDOWS[zone]:
        shown = clock(zone, around)
        often: defaultdict[datetime, list[datetime]] = defaultdict(list)
        for minute, wall in zip(shown.minutes, shown.shown, strict=True):
            often[wall].append(minute)
        for minute, wall in list(zip(shown.minutes, shown.shown, strict=True))[::5]:
            expected = 0 if len(often[wall]) == 1 else often[wall].index(minute) + 1
            assert which_pass(minute, shown.zone) == expected, wall


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Amsterdam", "2026-03-29", 1),
        ("Europe/Amsterdam", "2026-10-25", -1),
        ("Europe/Amsterdam", "2026-10-24", 0),
        ("Europe/Amsterdam", "2026-10-26", 0),
        ("America/Santiago", "2026-09-05", 0),
        ("America/Santiago", "2026-09-06", 1),  # at its midnight
        ("America/Santiago", "2026-04-04", -1),  # at 24:00
        ("America/Santiago", "2026-04-05", 0),
        ("Australia/Lord_Howe", "2026-04-05", -0.5),
        ("UTC", "2026-03-29", 0),
    ],
)
def test_a_day_says_by_how_much_its_clocks_are_changed(zone: str, day: str, hours: float):
    for hour in ("03:00", "12:00", "23:30"):
        assert clock_change(at(f"{day} {hour}", zone), ZoneInfo(zone)) == timedelta(hours=hours)


def test_the_edges_of_the_calendar_have_no_special_marks():
    for instant in (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)):
        for zone in ("UTC", "America/New_York", "Pacific/Kiritimati"):
            assert which_pass(instant, ZoneInfo(zone)) == 0
            assert clock_change(instant, ZoneInfo(zone)) == timedelta(0)
            assert skipped_wall(Cron("* * * * *"), anchor=instant, zone=ZoneInfo(zone), slot=instant) is None


def test_a_wall_time_is_the_instant_at_which_it_is_first_shown():
    assert shown_instant(datetime(2026, 10, 25, 2, 30), AMSTERDAM) == at("2026-10-25 00:30")
    with pytest.raises(InvalidRule, match=r"2026-03-29 02:30 does not exist .* to 2026-03-29 03:00"):
        shown_instant(datetime(2026, 3, 29, 2, 30), AMSTERDAM)
    with pytest.raises(InvalidRule, match="reckoned"):
        shown_instant(datetime(9999, 12, 31, 23, 30), ZoneInfo("America/New_York"))


@pytest.mark.parametrize("name", ["", "Europe", "Europe/Nowhere", "../UTC", "/etc/passwd", "a\0b", "x" * 5000])
def test_an_unknown_zone_is_a_sentence(name: str):
    with pytest.raises(InvalidRule, match=r"There is no time zone “.*”\."):
        named_zone(name)


# A whole schedule in words


@pytest.mark.parametrize(
    ("rule", "anchor", "words"),
    [
        (Cron("30 7 * * 1-5"), "2026-01-01 00:00", "every weekday at 07:30, Europe/Amsterdam"),
        (Cron("0 12 13 * 5"), "2026-01-01 00:00", "cron: 0 12 13 * 5, Europe/Amsterdam"),
        (Once(), "2026-11-24 10:05", "once, on Nov. 24, 2026 at 10:05, Europe/Amsterdam"),
        (
            Every(15, "minutes"),
            "2026-11-24 10:05",
            "every 15 minutes, counted from Nov. 24, 2026 at 10:05, Europe/Amsterdam",
        ),
        (Every(1, "days"), "2026-11-24 10:05:30", "every day at 10:05:30, Europe/Amsterdam"),
        (Every(2, "weeks"), "2026-11-24 10:05", "every 2 weeks on Tuesday at 10:05, Europe/Amsterdam"),
        (Every(1, "months"), "2026-11-24 10:05", "every month on day 24 at 10:05, Europe/Amsterdam"),
        (
            Every(1, "months"),
            "2026-01-31 10:05",
            "every month on day 31 (or the month's last) at 10:05, Europe/Amsterdam",
        ),
        (Every(1, "years"), "2026-11-24 10:05", "every year on November 24 at 10:05, Europe/Amsterdam"),
        (
            Every(1, "years"),
            "2028-02-29 10:05",
            "every year on the last day of February at 10:05, Europe/Amsterdam",
        ),
    ],
)
def test_a_schedule_in_words_names_its_time_and_its_zone(rule: Rule, anchor: str, words: str):
    with translation.override("en"):
        assert schedule_in_words(rule, anchor=at(anchor, "Europe/Amsterdam"), zone=AMSTERDAM) == words
