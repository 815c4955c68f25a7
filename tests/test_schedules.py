"""The chain of a schedule's slots: every slot is covered by one row, and the next one stands in the queue."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier, BrokenBarrierError
from typing import TYPE_CHECKING

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scheduler.models import Recurrence, Run, Schedule, Task
from scheduler.states import Reason, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User

pytestmark = pytest.mark.django_db

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


def at(text: str) -> datetime:
    """An instant of 24 November 2026, or of the date that is given too; in UTC."""
    return datetime.fromisoformat(text if "-" in text else f"2026-11-24 {text}").replace(tzinfo=UTC)


def recurrence(kind: str = "every", every: int | None = 1, unit: str = "hours", cron: str = "") -> Recurrence:
    if kind != "every":
        every, unit = None, ""
    name = f"{kind} {every} {unit} {cron}"
    return Recurrence.objects.get_or_create(name=name, kind=kind, every=every, unit=unit, cron=cron)[0]


@pytest.fixture(autouse=True)
def edits_are_seen_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Edits of these tests have the time of the round that sees them; test_edits_and_gaps.py has those in between."""
    monkeypatch.setattr(timezone, "now", lambda: at("2100-01-01"))


@pytest.fixture
def schedule(task: Task) -> Schedule:
    """Every hour from 08:00 on, planned at 07:30."""
    return planned(task, recurrence(), now=at("07:30"))


def planned(task: Task, rule: Recurrence, *, now: datetime, anchor: str = "08:00", **values: object) -> Schedule:
    schedule = Schedule.objects.create(task=task, recurrence=rule, anchor=at(anchor), time_zone="UTC", **values)
    schedule.plan(now)
    return schedule


def tick(now: datetime) -> None:
    """What a poller's round does about slots."""
    for stale in Schedule.objects.stale():
        stale.plan(now)
    for broken in Schedule.objects.broken():
        broken.mend(now)
    for run in Run.objects.due(now):
        run.decide(now)


def ends(run: Run, now: datetime) -> None:
    """The run's program starts and ends."""
    assert run.claim(host=run.uuid, host_name="here", now=now)
    finished = Run.objects.transition(
        run.pk, to=Status.COMPLETED, token=run.claim_token, reason=Reason.EXIT_CODE, exit_code=0, finished_at=now
    )
    assert finished


def head(schedule: Schedule) -> Run:
    """The run that stands in the queue for the schedule's next slot; there is exactly one."""
    schedule.refresh_from_db()
    run = schedule.runs.undecided().get()
    assert schedule.next_run == run
    return run


def ledger(schedule: Schedule) -> list[tuple[str, str, str]]:
    """Slot, status and reason of every row; a run that waits for its place is “ready”."""
    return [
        (
            f"{run.slot_at:%H:%M}",
            "ready" if run.status == Status.QUEUED and run.ready_at else str(run.status),
            str(run.reason),
        )
        for run in schedule.runs.order_by("slot_at")
    ]


# Planning


def test_a_new_schedule_has_its_first_slot_in_the_queue(schedule: Schedule):
    run = head(schedule)
    assert (run.slot_at, run.due_at, run.ready_at) == (at("08:00"), at("08:00"), None)
    assert run.trigger == Run.Trigger.SCHEDULE
    assert schedule.stale_at is None
    assert not schedule.ended


def test_planning_again_changes_nothing(schedule: Schedule):
    for _ in range(3):
        schedule.plan(at("07:40"))
        assert head(schedule).slot_at == at("08:00")


def test_a_new_schedule_with_an_old_anchor_starts_after_now(task: Task):
    schedule = planned(task, recurrence(), now=at("12:30"), anchor="2020-01-01 00:15")
    assert head(schedule).slot_at == at("13:15")
    assert schedule.runs.count() == 1


def test_a_schedule_whose_slots_are_all_past_is_over(task: Task):
    schedule = planned(task, recurrence("once"), now=at("08:00"), anchor="07:59")
    assert schedule.ended
    assert schedule.next_run is None
    assert not schedule.runs.exists()
    assert not Schedule.objects.broken().exists()


def test_a_disabled_schedule_has_nothing_in_the_queue(schedule: Schedule):
    schedule.enabled = False
    schedule.save()
    schedule.plan(at("07:40"))
    assert schedule.next_run is None
    assert not schedule.runs.exists()
    assert not Schedule.objects.broken().exists()

    schedule.enabled = True
    schedule.save()
    schedule.plan(at("09:40"))
    assert head(schedule).slot_at == at("10:00")


def test_an_edit_moves_the_head(schedule: Schedule):
    schedule.anchor = at("08:20")
    schedule.save()
    schedule.plan(at("07:40"))
    assert head(schedule).slot_at == at("08:20")


def test_an_end_before_the_next_slot_ends_the_schedule_and_a_later_end_goes_on(schedule: Schedule):
    schedule.ends_at = at("07:59")
    schedule.save()
    schedule.plan(at("07:40"))
    assert schedule.ended
    assert not schedule.runs.exists()

    schedule.ends_at = at("09:00")
    schedule.save()
    schedule.plan(at("07:45"))
    assert head(schedule).slot_at == at("08:00")
    assert not Schedule.objects.filter(ended=True).exists()


def test_a_schedule_that_is_gone_is_not_planned(schedule: Schedule):
    Schedule.objects.filter(pk=schedule.pk).delete()
    schedule.plan(at("07:40"))
    schedule.mend(at("07:40"))
    assert not Run.objects.exists()


# Deciding


def test_a_due_slot_becomes_ready_and_the_next_one_is_queued(schedule: Schedule):
    run = head(schedule)
    assert run.decide(at("08:00:01"))
    run.refresh_from_db()
    assert run.ready_at == at("08:00:01")
    assert head(schedule).slot_at == at("09:00")


def test_a_slot_is_not_decided_before_it_is_due(schedule: Schedule):
    run = head(schedule)
    assert not run.decide(at("07:59:59.999999"))
    assert head(schedule) == run


def test_a_slot_is_decided_once(schedule: Schedule):
    run = head(schedule)
    assert run.decide(at("08:00"))
    assert not run.decide(at("08:00"))
    assert ledger(schedule) == [("08:00", "ready", ""), ("09:00", "queued", "")]


def test_a_run_of_another_schedule_is_not_decided(schedule: Schedule, task: Task):
    other = planned(task, recurrence(every=2), now=at("07:30"))
    assert not schedule.decide(head(other), at("08:00"))
    assert head(other).ready_at is None


def test_the_arguments_are_those_of_the_schedule_or_else_of_the_task(schedule: Schedule, task: Task):
    own = planned(task, recurrence(), now=at("07:30"), anchor="08:30", arguments=["--full"])
    none = planned(task, recurrence(), now=at("07:30"), anchor="08:45", arguments=[])
    for each, now, expected in ((schedule, "08:00", ["3"]), (own, "08:30", ["--full"]), (none, "08:45", [])):
        run = head(each)
        run.decide(at(now))
        run.refresh_from_db()
        assert run.arguments == expected
        ends(run, at(now))


def test_a_slot_can_have_only_one_row(schedule: Schedule, task: Task):
    with pytest.raises(IntegrityError), transaction.atomic():
        Run.objects.create(task=task, schedule=schedule, slot_at=at("08:00"), due_at=at("08:00"), queued_at=at("07:30"))


def test_once_is_over_after_its_slot(task: Task):
    schedule = planned(task, recurrence("once"), now=at("07:30"))
    head(schedule).decide(at("08:00"))
    schedule.refresh_from_db()
    assert schedule.ended
    assert schedule.next_run is None
    assert ledger(schedule) == [("08:00", "ready", "")]
    tick(at("10:00"))
    assert ledger(schedule) == [("08:00", "ready", "")]


def test_the_last_slot_before_the_end_is_run(task: Task):
    schedule = planned(task, recurrence(), now=at("07:30"), ends_at=at("09:00"))
    for now in ("08:00", "09:00", "10:00"):
        tick(at(now))
        for run in Run.objects.ready(at(now)):
            ends(run, at(now))
    schedule.refresh_from_db()
    assert schedule.ended
    assert ledger(schedule) == [("08:00", "completed", "exit_code"), ("09:00", "completed", "exit_code")]


# Downtime


def test_slots_that_were_missed_become_one_row_and_the_latest_is_run(schedule: Schedule):
    tick(at("13:30"))
    assert ledger(schedule) == [("08:00", "skipped", "catch_up"), ("13:00", "ready", ""), ("14:00", "queued", "")]
    gap = schedule.runs.finished().get()
    assert (gap.slot_at, gap.slot_until, gap.slot_count) == (at("08:00"), at("12:00"), 5)
    assert gap.finished_at == at("13:30")


def test_a_late_slot_without_a_later_one_is_run(schedule: Schedule):
    tick(at("08:59:59"))
    assert ledger(schedule) == [("08:00", "ready", ""), ("09:00", "queued", "")]


def test_a_year_of_missed_minutes_is_one_row(task: Task):
    schedule = planned(task, recurrence("cron", cron="* * * * *"), now=at("07:30"))
    tick(at("2027-11-24 08:00"))
    gap = schedule.runs.finished().get()
    assert gap.slot_count == 365 * 24 * 60
    assert head(schedule).slot_at == at("2027-11-24 08:01")


def test_a_missed_end_is_caught_up_with_the_last_slot_before_it(task: Task):
    schedule = planned(task, recurrence(), now=at("07:30"), ends_at=at("10:30"))
    tick(at("15:00"))
    assert ledger(schedule) == [("08:00", "skipped", "catch_up"), ("10:00", "ready", "")]
    schedule.refresh_from_db()
    assert schedule.ended


def test_missed_slots_of_a_busy_task_are_a_gap_and_an_overlap(schedule: Schedule, make_run: Callable[..., Run]):
    make_run(Status.PROCESSING)
    tick(at("13:30"))
    assert ledger(schedule) == [
        ("08:00", "skipped", "catch_up"),
        ("13:00", "skipped", "overlap"),
        ("14:00", "queued", ""),
    ]


def test_a_missed_slot_that_was_cancelled_before_is_not_counted_twice(schedule: Schedule, owner: User):
    """A head is cancelled, the rule is changed so that slots before it come up, and then no poller is up."""
    schedule.anchor = at("11:00")
    schedule.save()
    schedule.plan(at("07:30"))
    head(schedule).cancel(by=owner, now=at("07:31"))
    schedule.anchor = at("08:00")
    schedule.save()
    schedule.plan(at("07:32"))
    assert head(schedule).slot_at == at("08:00")

    tick(at("13:30"))
    tick(at("13:30"))
    assert ledger(schedule) == [
        ("08:00", "skipped", "catch_up"),
        ("11:00", "cancelled", "stopped_by_user"),
        ("12:00", "skipped", "catch_up"),
        ("13:00", "ready", ""),
        ("14:00", "queued", ""),
    ]
    assert [run.slot_count for run in schedule.runs.order_by("slot_at")] == [3, 1, 1, 1, 1]


def test_the_latest_slot_may_be_one_that_was_cancelled(schedule: Schedule, owner: User):
    schedule.anchor = at("11:00")
    schedule.save()
    schedule.plan(at("07:30"))
    head(schedule).cancel(by=owner, now=at("07:31"))
    schedule.anchor = at("08:00")
    schedule.save()
    schedule.plan(at("07:32"))

    tick(at("11:30"))
    assert ledger(schedule) == [
        ("08:00", "skipped", "catch_up"),
        ("10:00", "ready", ""),
        ("11:00", "cancelled", "stopped_by_user"),
        ("12:00", "queued", ""),
    ]


# Not now


def test_a_slot_during_a_run_of_its_task_is_skipped_and_the_chain_goes_on(
    schedule: Schedule, make_run: Callable[..., Run]
):
    make_run(Status.PROCESSING)
    tick(at("08:00"))
    tick(at("09:00"))
    assert ledger(schedule) == [
        ("08:00", "skipped", "overlap"),
        ("09:00", "skipped", "overlap"),
        ("10:00", "queued", ""),
    ]


def test_a_slot_is_skipped_while_the_one_before_it_waits_for_its_place(schedule: Schedule):
    tick(at("08:00"))
    tick(at("09:00"))
    assert ledger(schedule) == [("08:00", "ready", ""), ("09:00", "skipped", "overlap"), ("10:00", "queued", "")]


def test_two_schedules_of_a_task_do_not_overlap_each_other(schedule: Schedule, task: Task):
    other = planned(task, recurrence(), now=at("07:30"))
    tick(at("08:00"))
    assert sorted([ledger(schedule)[0], ledger(other)[0]]) == [("08:00", "ready", ""), ("08:00", "skipped", "overlap")]


def test_a_manual_run_for_later_is_no_overlap(schedule: Schedule, task: Task, owner: User):
    task.start_at(at("08:30"), by=owner, now=at("07:30"))
    tick(at("08:00"))
    assert ledger(schedule)[0] == ("08:00", "ready", "")


def test_a_slot_of_a_disabled_task_is_skipped_and_the_chain_goes_on(schedule: Schedule, task: Task):
    task.enabled = False
    task.save()
    tick(at("08:00"))
    task.enabled = True
    task.save()
    tick(at("09:00"))
    assert ledger(schedule) == [("08:00", "skipped", "paused"), ("09:00", "ready", ""), ("10:00", "queued", "")]


# Rules that change


def test_a_changed_rule_marks_its_schedules_and_nothing_runs_by_the_old_one(schedule: Schedule):
    rule = schedule.recurrence
    rule.every, rule.unit = 1, "days"
    rule.save()
    Schedule.objects.filter(pk=schedule.pk).update(anchor=at("08:20"))
    assert list(Schedule.objects.stale()) == [schedule]

    # The round before the change was seen: the slot of 08:00 is due, and the rule no longer has it.
    for run in Run.objects.due(at("08:00:01")):
        run.decide(at("08:00:01"))
    assert ledger(schedule) == [("08:00", "skipped", "catch_up"), ("08:20", "queued", "")]
    assert not Schedule.objects.stale().exists()


def test_a_slot_that_the_changed_rule_has_too_is_run(schedule: Schedule):
    rule = schedule.recurrence
    rule.every, rule.unit = 30, "minutes"
    rule.save()
    for run in Run.objects.due(at("08:00:01")):
        run.decide(at("08:00:01"))
    assert ledger(schedule) == [("08:00", "ready", ""), ("08:30", "queued", "")]
    assert not Schedule.objects.stale().exists()


def test_slots_missed_before_an_edit_stay_in_the_ledger(schedule: Schedule):
    schedule.arguments = ["--full"]
    schedule.save()
    schedule.plan(at("10:30"))
    tick(at("10:31"))
    assert ledger(schedule) == [("08:00", "skipped", "catch_up"), ("10:00", "ready", ""), ("11:00", "queued", "")]


def test_a_name_is_no_rule(schedule: Schedule):
    schedule.recurrence.name = "Hourly"
    schedule.recurrence.save()
    assert not Schedule.objects.stale().exists()


def test_saving_single_columns_marks_a_schedule_when_they_decide_about_slots(schedule: Schedule):
    schedule.save(update_fields=["arguments"])
    assert not Schedule.objects.stale().exists()
    schedule.enabled = False
    schedule.save(update_fields=["enabled"])
    assert Schedule.objects.stale().exists()
    tick(at("08:00"))
    assert ledger(schedule) == [("08:00", "skipped", "catch_up")]
    schedule.refresh_from_db()
    assert schedule.next_run is None


def test_saving_an_old_copy_does_not_undo_what_pollers_did(schedule: Schedule):
    tick(at("08:00"))
    old = Schedule.objects.get(pk=schedule.pk)
    tick(at("09:00"))
    Schedule.objects.update(ended=True, problem="Something.")
    old.arguments = ["--full"]
    old.save()
    schedule.refresh_from_db()
    assert (schedule.ended, schedule.problem, schedule.arguments) == (True, "Something.", ["--full"])
    assert schedule.next_run is not None
    assert schedule.next_run.slot_at == at("10:00")


def test_a_schedule_disabled_behind_our_back_does_not_run(schedule: Schedule):
    Schedule.objects.update(enabled=False)
    tick(at("08:00"))
    assert ledger(schedule) == [("08:00", "skipped", "catch_up")]
    schedule.refresh_from_db()
    assert schedule.next_run is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda: Recurrence.objects.update(kind="cron", every=None, unit="", cron="99 * * * *"),
        lambda: Recurrence.objects.update(kind="cron", every=None, unit="", cron="0 0 31 2 *"),
        lambda: Recurrence.objects.update(every=2_000_000_000),
        lambda: Recurrence.objects.update(unit="fortnights"),
        lambda: Schedule.objects.update(time_zone="Mars/Olympus"),
        lambda: Schedule.objects.update(time_zone=""),
    ],
    ids=["cron", "31 February", "every", "unit", "zone", "no zone"],
)
def test_a_bad_row_is_disabled_with_the_problem_while_the_others_go_on(
    schedule: Schedule, owner: User, spoil: Callable[[], int]
):
    spoil()
    other_task = Task.objects.create(name="Other", program_root="sample_tasks", program_path="countdown.py")
    other = planned(other_task, recurrence(every=2), now=at("07:30"))
    tick(at("08:00"))
    schedule.refresh_from_db()
    assert not schedule.enabled
    assert schedule.problem.endswith(".")
    assert schedule.next_run is None
    assert ledger(schedule) == [("08:00", "skipped", "bad_rule")]
    assert ledger(other) == [("08:00", "ready", ""), ("10:00", "queued", "")]
    tick(at("09:00"))
    assert ledger(schedule) == [("08:00", "skipped", "bad_rule")]


def test_a_problem_goes_when_the_rule_is_right_again(schedule: Schedule):
    Recurrence.objects.update(unit="fortnights")
    schedule.plan(at("07:40"))
    assert schedule.problem
    Recurrence.objects.update(unit="hours")
    schedule.refresh_from_db()
    schedule.enabled = True
    schedule.save()
    schedule.plan(at("07:50"))
    assert schedule.problem == ""
    assert head(schedule).slot_at == at("08:00")


# Rows that leave the queue otherwise


def test_cancelling_the_head_queues_the_next_slot(schedule: Schedule, owner: User):
    assert head(schedule).cancel(by=owner, now=at("07:40"))
    assert ledger(schedule) == [("08:00", "cancelled", "stopped_by_user"), ("09:00", "queued", "")]
    assert head(schedule).cancel(by=owner, now=at("07:41"))
    assert head(schedule).slot_at == at("10:00")


def test_a_cancelled_slot_does_not_come_back_with_an_edit(schedule: Schedule, owner: User):
    head(schedule).cancel(by=owner, now=at("07:40"))
    schedule.refresh_from_db()
    schedule.save()
    schedule.plan(at("07:45"))
    assert head(schedule).slot_at == at("09:00")


def test_cancelling_the_head_of_a_changed_rule_queues_by_the_new_one(schedule: Schedule, owner: User):
    rule = schedule.recurrence
    rule.every, rule.unit = 10, "minutes"
    rule.save()
    Schedule.objects.update(anchor=at("07:00"))
    head(schedule).cancel(by=owner, now=at("07:41"))
    assert head(schedule).slot_at == at("07:50")
    assert not Schedule.objects.stale().exists()


def test_cancelling_the_head_of_a_disabled_schedule_queues_nothing(schedule: Schedule, owner: User):
    run = head(schedule)
    Schedule.objects.update(enabled=False)
    run.cancel(by=owner, now=at("07:41"))
    assert ledger(schedule) == [("08:00", "cancelled", "stopped_by_user")]


def test_cancelling_a_run_that_was_decided_meanwhile_leaves_the_chain_alone(schedule: Schedule, owner: User):
    seen_on_a_page = head(schedule)
    tick(at("08:00"))
    assert seen_on_a_page.cancel(by=owner, now=at("08:00:01"))
    assert ledger(schedule) == [("08:00", "cancelled", "stopped_by_user"), ("09:00", "queued", "")]


def test_deleting_the_head_is_mended(schedule: Schedule):
    head(schedule).delete()
    assert list(Schedule.objects.broken()) == [schedule]
    tick(at("07:40"))
    assert head(schedule).slot_at == at("08:00")
    assert not Schedule.objects.broken().exists()


def test_deleting_finished_rows_does_not_touch_the_chain(schedule: Schedule):
    tick(at("08:00"))
    ends(schedule.runs.ready(at("08:00")).get(), at("08:10"))
    Run.objects.finished().delete()
    assert not Schedule.objects.broken().exists()
    assert head(schedule).slot_at == at("09:00")


def test_a_slot_whose_rows_were_deleted_is_not_run_again(schedule: Schedule):
    tick(at("08:00"))
    ends(schedule.runs.ready(at("08:00")).get(), at("08:10"))
    Run.objects.all().delete()
    tick(at("08:30"))
    assert ledger(schedule) == [("09:00", "queued", "")]


def test_mending_what_is_not_broken_changes_nothing(schedule: Schedule):
    run = head(schedule)
    schedule.mend(at("07:50"))
    assert head(schedule) == run


def test_a_second_undecided_row_is_tidied_away(schedule: Schedule, task: Task):
    Run.objects.create(task=task, schedule=schedule, slot_at=at("09:00"), due_at=at("09:00"), queued_at=at("07:30"))
    Schedule.objects.update(next_run=None)
    tick(at("07:40"))
    assert head(schedule).slot_at == at("08:00")


def test_deleting_a_schedule_takes_its_undecided_slot_and_leaves_what_was_decided(schedule: Schedule):
    tick(at("08:00"))
    schedule.delete()
    run = Run.objects.get()
    assert (run.slot_at, run.schedule) == (at("08:00"), None)


def test_deleting_schedules_in_bulk_does_the_same(schedule: Schedule):
    tick(at("08:00"))
    deleted, _by_model = Schedule.objects.filter(enabled=True).delete()
    assert deleted >= 1
    run = Run.objects.get()
    assert (run.slot_at, run.schedule) == (at("08:00"), None)


def test_deleting_a_task_takes_its_schedules_and_their_slots(schedule: Schedule, task: Task):
    tick(at("08:00"))
    task.delete()
    assert not Run.objects.exists()
    assert not Schedule.objects.exists()


# Clocks


def test_a_clock_that_is_set_back_repeats_nothing(schedule: Schedule):
    for now in ("08:00", "09:00", "07:45", "08:00", "09:30"):
        tick(at(now))
        for run in Run.objects.ready(at(now)):
            ends(run, at(now))
    assert ledger(schedule) == [
        ("08:00", "completed", "exit_code"),
        ("09:00", "completed", "exit_code"),
        ("10:00", "queued", ""),
    ]


def test_an_edit_after_the_clock_was_set_back_goes_on_after_the_rows_that_exist(schedule: Schedule):
    tick(at("13:30"))  # 08:00 to 12:00 in one row, and 13:00
    schedule.refresh_from_db()
    schedule.save()
    schedule.plan(at("10:30"))
    assert head(schedule).slot_at == at("14:00")


# Several pollers and people at once


@pytest.mark.django_db(transaction=True)
def test_pollers_and_people_at_the_same_time_decide_each_slot_once(task: Task, owner: User):
    """With real transactions, on PostgreSQL: SQLite has one writer at a time anyway."""
    if connection.vendor != "postgresql":
        pytest.skip("needs PostgreSQL: this is about its row locks")
    schedule = planned(task, recurrence(unit="minutes", every=1), now=at("07:30"))
    other = planned(task, recurrence(unit="minutes", every=1), now=at("07:30"))
    rounds = [at("08:00") + number * MINUTE for number in range(15)]
    meeting = Barrier(5, timeout=60)

    def poller(now: datetime) -> None:
        tick(now)

    def canceller(now: datetime) -> None:
        for run in Run.objects.queued():
            run.cancel(by=owner, now=now)

    def editor(now: datetime) -> None:
        mine = Schedule.objects.get(pk=schedule.pk)
        mine.save()
        mine.plan(now)

    def starter(now: datetime) -> None:
        for run in Run.objects.startable(now):
            run.claim(host=run.uuid, host_name="here", now=now)

    def all_rounds(act: Callable[[datetime], None]) -> None:
        try:
            for now in rounds:
                meeting.wait()
                act(now)
        except BaseException:
            meeting.abort()
            raise
        finally:
            connection.close()

    with ThreadPoolExecutor(5) as pool:
        futures = [pool.submit(all_rounds, act) for act in (poller, poller, canceller, editor, starter)]
    errors = [future.exception() for future in futures]
    assert [error for error in errors if error is not None and not isinstance(error, BrokenBarrierError)] == []

    tick(rounds[-1])
    for each in (schedule, other):
        assert_nothing_is_covered_twice(each)
        assert head(each).due_at > rounds[-1]
    assert Run.objects.processing().count() <= 1


# What forms refuse


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../UTC", "Europe", "UTC\0"])
def test_an_unknown_time_zone_is_a_form_error(schedule: Schedule, zone: str):
    schedule.time_zone = zone
    with pytest.raises(ValidationError) as raised:
        schedule.full_clean()
    assert list(raised.value.message_dict) == ["time_zone"]


def test_an_end_before_the_anchor_is_a_form_error(schedule: Schedule):
    schedule.ends_at = at("07:59")
    with pytest.raises(ValidationError) as raised:
        schedule.full_clean()
    assert list(raised.value.message_dict) == ["ends_at"]


# Whatever happens, in whatever order

STEPS = st.one_of(
    st.tuples(st.just("tick"), st.integers(-90, 400)),  # minutes that the clock moves by before it
    st.tuples(st.just("tick"), st.integers(0, 70)),
    st.tuples(st.just("finish"), st.just(0)),
    st.tuples(st.just("cancel"), st.just(0)),
    st.tuples(st.just("rule"), st.sampled_from([5, 30, 60, 90])),
    st.tuples(st.just("anchor"), st.sampled_from([0, 15, 300])),
    st.tuples(st.just("save"), st.just(0)),
    st.tuples(st.just("switch"), st.just(0)),
    st.tuples(st.just("delete head"), st.just(0)),
    st.tuples(st.just("pause task"), st.just(0)),
)


@given(st.lists(STEPS, min_size=3, max_size=15))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_no_order_of_events_gives_a_slot_two_rows_or_loses_the_chain(owner: User, steps: list[tuple[str, int]]):
    with transaction.atomic():
        replay(owner, steps)
        transaction.set_rollback(True)


def replay(owner: User, steps: list[tuple[str, int]]) -> None:
    task = Task.objects.create(name="Replayed", program_root="sample_tasks", program_path="countdown.py")
    now = at("07:30")
    schedule = planned(task, recurrence(unit="minutes", every=30), now=now)
    for step, value in steps:
        schedule = Schedule.objects.select_related("recurrence").get(pk=schedule.pk)
        match step:
            case "tick":
                now += value * MINUTE
                tick(now)
            case "finish":
                for run in Run.objects.startable(now):
                    ends(run, now)
            case "cancel":
                for run in schedule.runs.queued():
                    run.cancel(by=owner, now=now)
            case "rule":
                schedule.recurrence.every = value
                schedule.recurrence.save()
            case "anchor":
                schedule.anchor = at("08:00") + value * MINUTE
                schedule.save()
                schedule.plan(now)
            case "save":
                schedule.save()
            case "switch":
                schedule.enabled = not schedule.enabled
                schedule.save()
                schedule.plan(now)
            case "delete head":
                schedule.runs.undecided().delete()
            case "pause task":
                task.enabled = not task.enabled
                task.save()
        assert_nothing_is_covered_twice(schedule)
    tick(now)
    schedule.refresh_from_db()
    assert_nothing_is_covered_twice(schedule)
    assert schedule.stale_at is None
    if schedule.enabled:
        assert head(schedule).due_at > now
    else:
        assert not schedule.runs.undecided().exists()


def assert_nothing_is_covered_twice(schedule: Schedule) -> None:
    covered_until: datetime | None = None
    for run in schedule.runs.order_by("slot_at"):
        assert run.slot_at is not None
        assert covered_until is None or run.slot_at > covered_until
        covered_until = run.slot_until or run.slot_at
    assert schedule.runs.undecided().count() <= 1
