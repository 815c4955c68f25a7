"""Jitter and the wait before a retry."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.delays import LONGEST, jitter, retry_delay

SLOT = datetime(2026, 11, 24, 2, 30, tzinfo=UTC)
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)


def test_the_jitter_of_a_slot_never_changes():
    # A value that a release must not change: the queue holds instants that another release has computed.
    assert jitter(7, SLOT, most_seconds=600) == jitter(7, SLOT, most_seconds=600) == timedelta(seconds=329)
    elsewhere = SLOT.astimezone(timezone(timedelta(hours=5, minutes=45)))
    assert jitter(7, elsewhere, most_seconds=600) == jitter(7, SLOT, most_seconds=600)


def test_jitter_spreads_schedules_and_slots_over_all_seconds():
    by_schedule = Counter(jitter(number, SLOT, most_seconds=9) // SECOND for number in range(2_000))
    by_slot = Counter(jitter(7, SLOT + HOUR * number, most_seconds=9) // SECOND for number in range(2_000))
    for found in (by_schedule, by_slot):
        assert set(found) == set(range(10))
        assert min(found.values()) > 120  # of 200; by chance less often than once in a billion


@given(st.integers(1, 2**62), st.integers(0, 100_000))
def test_jitter_is_never_more_than_allowed(schedule: int, most: int):
    assert timedelta(0) <= jitter(schedule, SLOT, most_seconds=most) <= SECOND * most


def test_no_jitter_is_none():
    assert jitter(7, SLOT, most_seconds=0) == jitter(7, SLOT, most_seconds=-5) == timedelta(0)


@pytest.mark.parametrize(
    ("attempt", "factor", "minutes"),
    [(1, 1.0, 5), (9, 1.0, 5), (1, 2.0, 5), (2, 2.0, 10), (3, 2.0, 20), (4, 2.0, 40), (5, 2.0, 60), (10**9, 2.0, 60)],
)
def test_the_wait_grows_by_the_factor_up_to_the_most(attempt: int, factor: float, minutes: int):
    found = retry_delay(attempt, base=timedelta(minutes=5), factor=factor, most=HOUR)
    assert found == timedelta(minutes=minutes)


def test_no_wait_stays_none_and_a_wait_over_the_most_is_the_most():
    assert retry_delay(10**9, base=timedelta(0), factor=10.0) == timedelta(0)
    assert retry_delay(1, base=HOUR * 2, most=HOUR) == HOUR
    assert retry_delay(10**9, base=HOUR, factor=1e300) == LONGEST
    assert retry_delay(3, base=timedelta.max, most=timedelta.max) == LONGEST


@given(
    st.integers(1, 10_000),
    st.timedeltas(timedelta(0), timedelta(days=400)),
    st.floats(1, 1e308, allow_nan=False),
    st.timedeltas(timedelta(0), timedelta.max),
)
def test_waits_never_shrink_and_never_pass_the_most(attempt: int, base: timedelta, factor: float, most: timedelta):
    found = retry_delay(attempt, base=base, factor=factor, most=most)
    assert timedelta(0) <= found <= most
    assert found <= retry_delay(attempt + 1, base=base, factor=factor, most=most)


@pytest.mark.parametrize(
    ("attempt", "base", "factor"),
    [(0, HOUR, 1.0), (1, -HOUR, 1.0), (1, HOUR, 0.5), (1, HOUR, float("inf")), (1, HOUR, float("nan"))],
)
def test_numbers_that_make_no_sense_are_refused(attempt: int, base: timedelta, factor: float):
    with pytest.raises(ValueError, match="no retry"):
        retry_delay(attempt, base=base, factor=factor)
