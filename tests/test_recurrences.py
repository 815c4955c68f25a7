"""When rules have their slots, against tables and against an oracle that looks at every minute of a clock."""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
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
    count_slots,
    in_words,
    next_slot,
    previous_slot,
)

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
