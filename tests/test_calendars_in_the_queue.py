"""Slots in a blackout calendar are skipped, and say so."""

from __future__ import annotations

import pytest
from django.core.exceptions import ValidationError
from django.db.models import ProtectedError

from scheduler.models import Alarm, Calendar, Run, Schedule, Task
from tests.chain import at, ledger, planned, start_and_end, tick

pytestmark = pytest.mark.django_db


def calendar(lines: str, time_zone: str = "UTC") -> Calendar:
    return Calendar.objects.create(name="Maintenance", lines=lines, time_zone=time_zone)


def test_a_slot_in_a_calendar_is_skipped_with_its_name(task: Task):
    schedule = planned(task, calendar=calendar("daily 08:30-09:30"))
    tick(at("08:00"))
    start_and_end(Run.objects.ready(at("08:00")).get(), at("08:01"))
    tick(at("09:00"))
    assert ledger(schedule)[1:] == [("09:00", "skipped", "blocked"), ("10:00", "queued", "")]
    run = schedule.runs.get(slot_at=at("09:00"))
    assert run.sentence == "Not run: blocked by the calendar “Maintenance”."
    assert not Alarm.objects.exists()
    tick(at("10:00"))
    assert ledger(schedule)[2] == ("10:00", "ready", "")


def test_a_calendar_has_its_own_zone(task: Task):
    schedule = planned(task, calendar=calendar("daily 09:00-09:30", "Europe/Amsterdam"))
    tick(at("08:00"))
    assert ledger(schedule)[0] == ("08:00", "skipped", "blocked")


def test_a_change_of_a_calendar_counts_at_once(task: Task):
    blackout = calendar("2026-12-25")
    schedule = planned(task, calendar=blackout)
    blackout.lines = "2026-11-24"
    blackout.save()
    tick(at("08:00"))
    assert ledger(schedule)[0] == ("08:00", "skipped", "blocked")


def test_the_last_slot_that_is_not_blocked_stands_for_those_that_were_missed(task: Task):
    schedule = planned(task, calendar=calendar("daily 10:30-13:15"))
    tick(at("13:30"))
    assert ledger(schedule) == [
        ("08:00", "skipped", "catch_up"),
        ("10:00", "ready", ""),
        ("11:00", "skipped", "blocked"),
        ("14:00", "queued", ""),
    ]
    blocked = schedule.runs.get(reason="blocked")
    assert (blocked.slot_until, blocked.slot_count) == (at("13:00"), 3)


def test_blocked_slots_do_not_count_among_those_that_are_caught_up(task: Task):
    schedule = planned(task, catch_up="all", catch_up_limit=3, calendar=calendar("daily 10:30-12:30"))
    tick(at("13:30"))
    assert ledger(schedule) == [
        ("08:00", "skipped", "catch_up"),
        ("09:00", "ready", ""),
        ("10:00", "ready", ""),
        ("11:00", "skipped", "blocked"),
        ("13:00", "ready", ""),
        ("14:00", "queued", ""),
    ]


def test_a_calendar_that_blocks_everything_stops_no_chain(task: Task):
    schedule = planned(task, minutes=1, calendar=calendar("daily"))
    tick(at("2026-11-26 08:00"))
    assert {run.reason for run in schedule.runs.finished()} <= {"blocked", "catch_up"}
    assert sum(run.slot_count for run in schedule.runs.finished()) == 2 * 24 * 60 + 1
    assert schedule.runs.undecided().get().slot_at == at("2026-11-26 08:01")


@pytest.mark.parametrize("values", [{"lines": "someday"}, {"time_zone": "Mars/Olympus"}])
def test_a_calendar_that_cannot_be_read_disables_its_schedules_with_the_reason(task: Task, values: dict[str, str]):
    schedule = planned(task, calendar=calendar("2026-12-25"))
    Calendar.objects.update(**values)
    tick(at("08:00"))
    schedule.refresh_from_db()
    assert not schedule.enabled
    assert next(iter(values.values())) in schedule.problem
    assert ledger(schedule) == [("08:00", "skipped", "bad_rule")]
    alarm = Alarm.objects.get()
    assert (alarm.kind, alarm.schedule) == (Alarm.Kind.BAD_RULE, schedule)
    assert schedule.problem in alarm.sentence


def test_a_calendar_that_makes_no_sense_is_refused_in_the_form():
    with pytest.raises(ValidationError) as raised:
        Calendar(name="Bad", lines="2026-02-30", time_zone="UTC").full_clean()
    assert list(raised.value.message_dict) == ["lines"]


def test_a_calendar_that_is_used_cannot_be_deleted(task: Task):
    blackout = calendar("2026-12-25")
    planned(task, calendar=blackout)
    with pytest.raises(ProtectedError):
        blackout.delete()
    assert Schedule.objects.get().calendar == blackout
