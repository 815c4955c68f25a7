"""The forecast's minutes are those of the slots, one by one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from scheduler import calendars, forecast
from scheduler.recurrences import Cron, Every, Once, Rule, next_slot, slots_between

ZONES = ("Europe/Amsterdam", "America/New_York", "America/Santiago", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC")
RULES: tuple[Rule, ...] = (
    Once(),
    Every(45, "minutes"),
    Every(7, "hours"),
    Every(1, "days"),
    Every(2, "weeks"),
    Every(1, "months"),
    Cron("*/30 * * * *"),
    Cron("30 2 * * *"),
    Cron("0,30 2,3 * * *"),
    Cron("0 */6 L * *"),
    Cron("15 0 * * 0"),
)
# Nine days each, with clocks that are changed in some of the zones, in the middle of a day and at midnight
BEGINS = [
    datetime(2026, 3, 27, 5, 7, tzinfo=UTC),
    datetime(2026, 4, 2, tzinfo=UTC),
    datetime(2026, 9, 4, 2, tzinfo=UTC),
    datetime(2026, 10, 23, 12, 59, tzinfo=UTC),
    datetime(2026, 10, 31, 12, tzinfo=UTC),
]


def one_by_one(rule: Rule, anchor: datetime, zone: ZoneInfo, after: datetime, until: datetime) -> list[datetime]:
    found = []
    slot = next_slot(rule, anchor=anchor, zone=zone, after=after, until=until)
    while slot is not None:
        found.append(slot)
        slot = next_slot(rule, anchor=anchor, zone=zone, after=slot, until=until)
    return found


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_all_slots_at_once_are_the_slots_one_by_one(rule: Rule, zone: str) -> None:
    info = ZoneInfo(zone)
    for begin in BEGINS:
        for anchor in (datetime(2010, 1, 31, 2, 30, tzinfo=UTC), begin + timedelta(hours=20, seconds=7)):
            end = begin + timedelta(days=9)
            expected = one_by_one(rule, anchor, info, begin, end)
            assert list(slots_between(rule, anchor=anchor, zone=info, after=begin, until=end)) == expected
            window = forecast.Window(begin, end)
            plan = forecast.plan(rule, anchor=anchor, zone=info, until=None, window=window)
            before = one_by_one(rule, anchor, info, begin - timedelta(microseconds=1), end)
            minutes = [window.minute(slot) for slot in before if slot < end]
            assert list(forecast.minutes(plan, window)) == minutes


def test_a_day_that_is_skipped_has_its_slot_once() -> None:
    apia, anchor = ZoneInfo("Pacific/Apia"), datetime(2011, 12, 27, 10, tzinfo=UTC)  # midnight there
    found = list(
        slots_between(Every(1, "days"), anchor=anchor, zone=apia, after=anchor, until=datetime(2012, 1, 3, tzinfo=UTC))
    )
    assert found == one_by_one(Every(1, "days"), anchor, apia, anchor, datetime(2012, 1, 3, tzinfo=UTC))
    assert len(found) == len(set(found))


def test_schedules_that_differ_in_nothing_that_counts_have_one_plan() -> None:
    window = forecast.Window(datetime(2026, 11, 24, 8, tzinfo=UTC), datetime(2026, 11, 25, 8, tzinfo=UTC))
    zone = ZoneInfo("UTC")
    for rule in (Cron("0 3 * * *"), Every(5, "minutes")):
        plans = {
            forecast.plan(rule, anchor=anchor, zone=zone, until=until, window=window)
            for anchor in (datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 0, 30, tzinfo=UTC))
            for until in (None, datetime(2027, 1, 1, tzinfo=UTC))
        }
        assert len(plans) == 1


@pytest.mark.parametrize("until", [8 * 60 + 20, 8 * 60 + 19, 0])
def test_an_end_within_the_window_counts(until: int) -> None:
    midnight = datetime(2026, 11, 24, tzinfo=UTC)
    window = forecast.Window(midnight + timedelta(hours=8), midnight + timedelta(hours=9))
    for rule in (Every(10, "minutes"), Cron("*/10 * * * *")):
        end = midnight + timedelta(minutes=until)
        plan = forecast.plan(rule, anchor=midnight, zone=ZoneInfo("UTC"), until=end, window=window)
        expected = [minute for minute in (0, 10, 20, 30, 40, 50) if 8 * 60 + minute <= until]
        assert list(forecast.minutes(plan, window)) == expected


def test_a_blackout_is_looked_at_by_the_minute() -> None:
    window = forecast.Window(datetime(2026, 11, 24, 8, tzinfo=UTC), datetime(2026, 11, 25, 8, tzinfo=UTC))
    blackout = forecast.Blackout(calendars.read("Noon", ZoneInfo("UTC"), ["daily 12:00-13:00"]), window)
    assert [minute for minute in range(24 * 60) if blackout.blocks(minute)] == list(range(240, 300))
    assert blackout.blocks(240)
