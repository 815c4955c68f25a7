"""No hole in the ledger: slots between an edit and the round that sees it, and after rows that were deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.db import transaction
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scheduler.models import Recurrence, Run, RunEvent, Schedule, Task
from tests.chain import MINUTE, at, end, ledger, planned, start, tick

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from django.contrib.auth.models import User

pytestmark = pytest.mark.django_db


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[datetime], None]:
    """Sets what a save takes for now."""

    def set_to(now: datetime) -> None:
        monkeypatch.setattr(timezone, "now", lambda: now)

    return set_to


def change_rule(minutes: int) -> None:
    rule = Recurrence.objects.get()
    rule.every = minutes
    rule.save()


def test_slots_between_an_edit_and_the_look_get_their_rows(task: Task, clock: Callable[[datetime], None]):
    schedule = planned(task, minutes=60)
    clock(at("08:30"))
    tick(at("08:00"))
    end(start(Run.objects.ready(at("08:00")).get(), at("08:00")), at("08:01"))
    change_rule(10)
    tick(at("08:55"))
    tick(at("08:55"))
    assert ledger(schedule) == [
        ("08:00", "completed", "exit_code"),
        ("08:40", "skipped", "catch_up"),
        ("08:50", "ready", ""),
        ("09:00", "queued", ""),
    ]


def test_a_slot_of_the_old_rule_after_the_edit_is_none(task: Task, clock: Callable[[datetime], None]):
    schedule = planned(task, minutes=60)
    clock(at("07:45"))
    change_rule(7 * 60)
    Schedule.objects.update(anchor=at("01:30"))
    tick(at("08:00"))
    assert ledger(schedule) == [("08:30", "queued", "")]


def test_a_slot_that_was_due_before_the_edit_keeps_its_row(task: Task, clock: Callable[[datetime], None]):
    schedule = planned(task, minutes=60)
    clock(at("08:05"))
    Schedule.objects.update(anchor=at("07:50"))
    change_rule(30)
    tick(at("08:06"))
    assert ledger(schedule) == [("08:00", "skipped", "catch_up"), ("08:20", "queued", "")]
    skipped = schedule.runs.finished().get()
    assert skipped.events.get().what == RunEvent.What.DECIDED


def test_two_edits_count_from_the_first(task: Task, clock: Callable[[datetime], None]):
    schedule = planned(task, minutes=60)
    for now, minutes in (("07:35", 30), ("07:55", 10)):
        clock(at(now))
        change_rule(minutes)
    Schedule.objects.update(anchor=at("07:00"))
    schedule.refresh_from_db()
    assert schedule.stale_at == at("07:35")
    schedule.save()
    schedule.refresh_from_db()
    assert schedule.stale_at == at("07:35")
    schedule.plan(at("07:56"))
    tick(at("07:56"))
    assert ledger(schedule)[:2] == [("07:40", "skipped", "catch_up"), ("07:50", "ready", "")]


def test_an_edit_by_a_clock_that_is_ahead_counts_from_now(task: Task, clock: Callable[[datetime], None]):
    schedule = planned(task, minutes=60)
    clock(at("12:00"))
    change_rule(10)
    tick(at("07:40"))
    assert ledger(schedule) == [("08:00", "queued", "")]


# Chains that were broken by hand


def test_a_broken_chain_goes_on_after_its_last_row(task: Task):
    schedule = planned(task, minutes=60)
    tick(at("08:00"))
    end(start(Run.objects.ready(at("08:00")).get(), at("08:00")), at("08:01"))
    schedule.runs.undecided().delete()
    tick(at("11:30"))
    tick(at("11:30"))
    assert ledger(schedule) == [
        ("08:00", "completed", "exit_code"),
        ("09:00", "skipped", "catch_up"),
        ("11:00", "ready", ""),
        ("12:00", "queued", ""),
    ]


def test_a_broken_chain_makes_up_nothing_from_before_the_last_edit(task: Task, clock: Callable[[datetime], None]):
    schedule = planned(task, minutes=60)
    tick(at("08:00"))
    clock(at("08:35"))
    change_rule(10)
    tick(at("08:36"))
    schedule.runs.undecided().delete()
    tick(at("08:37"))
    assert ledger(schedule) == [("08:00", "ready", ""), ("08:40", "queued", "")]


def test_what_was_decided_is_not_decided_again_when_its_rows_are_deleted(task: Task):
    schedule = planned(task, minutes=60)
    tick(at("12:30"))
    schedule.runs.undecided().delete()
    Run.objects.ready(at("12:30")).delete()
    tick(at("12:31"))
    tick(at("12:31"))
    assert ledger(schedule) == [("08:00", "skipped", "catch_up"), ("13:00", "queued", "")]


# Whatever happens, in whatever order

STEPS = st.one_of(
    st.tuples(st.just("tick"), st.integers(-60, 300)),  # minutes that the clock moves by before it
    st.tuples(st.just("tick"), st.integers(0, 20)),
    st.tuples(st.just("finish"), st.just(0)),
    st.tuples(st.just("cancel"), st.just(0)),
    st.tuples(st.just("pause"), st.just(0)),
    st.tuples(st.just("delete head"), st.just(0)),
    st.tuples(st.just("plan"), st.just(0)),
)
POLICIES = st.fixed_dictionaries(
    {
        "catch_up": st.sampled_from(["once", "all", "skip"]),
        "catch_up_limit": st.integers(1, 5),
        "max_lateness_seconds": st.sampled_from([None, 0, 900]),
        "jitter_seconds": st.sampled_from([0, 45, 3000]),
    }
)


@given(POLICIES, st.sampled_from(["skip", "queue", "stop", "allow"]), st.lists(STEPS, min_size=3, max_size=12))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_every_slot_has_exactly_one_row_whatever_happens(
    owner: User, policies: dict[str, object], overlap: str, steps: list[tuple[str, int]]
):
    with transaction.atomic():
        replay(owner, policies, overlap, steps)
        transaction.set_rollback(True)


def replay(owner: User, policies: dict[str, object], overlap: str, steps: list[tuple[str, int]]) -> None:
    task = Task.objects.create(
        name="Replayed", program_root="sample_tasks", program_path="countdown.py", overlap=overlap, max_runs=1
    )
    now = latest = at("07:30")
    schedule = planned(task, minutes=15, now="07:30", **policies)  # type: ignore[arg-type]
    for step, value in steps:
        schedule = Schedule.objects.get(pk=schedule.pk)
        match step:
            case "tick":
                now += value * MINUTE
                latest = max(latest, now)
                tick(now)
            case "finish":
                for run in Run.objects.startable(now):
                    end(start(run, now), now)
            case "cancel":
                for run in schedule.runs.queued():
                    run.cancel(by=owner, now=now)
            case "pause":
                schedule.pause(by=owner, now=now) or schedule.resume()
            case "delete head":
                # Only one that is not due yet: the row of a slot that was deleted later is a hole that a person made.
                schedule.runs.undecided().filter(slot_at__gt=latest).delete()
            case "plan":
                schedule.plan(now)
    tick(latest)
    tick(latest)
    assert_exactly_one_row_a_slot(Schedule.objects.get(pk=schedule.pk), latest)


def assert_exactly_one_row_a_slot(schedule: Schedule, now: datetime) -> None:
    expected = at("08:00")
    for run in schedule.runs.filter(slot_at__isnull=False).order_by("slot_at"):
        assert run.slot_at == expected
        last = run.slot_until or run.slot_at
        assert (last - run.slot_at) // (15 * MINUTE) + 1 == run.slot_count
        expected = last + 15 * MINUTE
    head = schedule.runs.undecided().get()
    assert schedule.next_run == head
    assert head.slot_at == expected - 15 * MINUTE
    assert head.due_at > now
