"""What follows a failed run: retries with a delay, and then the schedule kept or paused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scheduler.models import FollowUp, Run, RunEvent, Schedule, Task
from scheduler.states import Reason, Status
from tests.chain import at, end, ledger, planned, start, start_and_end, tick

if TYPE_CHECKING:
    from django.contrib.auth.models import User

pytestmark = pytest.mark.django_db

FAILED = Status.FAILED


@pytest.fixture
def task(task: Task) -> Task:
    task.retries, task.retry_delay_seconds, task.retry_factor = 2, 300, 2.0
    task.save()
    return task


def first_of(task: Task, **values: object) -> Run:
    planned(task, **values)  # type: ignore[arg-type]
    tick(at("08:00"))
    return Run.objects.ready(at("08:00")).get()


def test_a_failed_run_is_tried_again_after_a_delay_that_grows(task: Task):
    run = first_of(task, arguments=["--full"])
    start_and_end(run, at("08:10"), FAILED)
    retry = run.triggered.get()
    assert (retry.trigger, retry.attempt, retry.due_at) == (Run.Trigger.RETRY, 2, at("08:15"))
    assert (retry.slot_at, retry.schedule, retry.arguments) == (None, run.schedule, ["--full"])
    assert not Run.objects.startable(at("08:14:59")).exists()

    start_and_end(retry, at("08:20"), FAILED)
    second = retry.triggered.get()
    assert (second.attempt, second.due_at) == (3, at("08:30"))
    start_and_end(second, at("08:31"), FAILED)
    assert not second.triggered.exists()


def test_a_retry_that_completes_is_the_last(task: Task):
    run = first_of(task)
    start_and_end(run, at("08:10"), FAILED)
    retry = run.triggered.get()
    start_and_end(retry, at("08:15"))
    assert not retry.triggered.exists()


@pytest.mark.parametrize(
    ("status", "reason"),
    [(Status.COMPLETED, Reason.EXIT_CODE), (Status.CANCELLED, Reason.STOPPED_BY_USER)],
)
def test_only_failures_are_tried_again(task: Task, status: Status, reason: Reason):
    run = first_of(task)
    end(start(run, at("08:00")), at("08:10"), status, reason)
    assert not run.triggered.exists()


@pytest.mark.parametrize("reason", [Reason.SIGNAL, Reason.TIMED_OUT, Reason.LAUNCH_ERROR, Reason.LOST])
def test_every_kind_of_failure_is_tried_again(task: Task, reason: Reason):
    run = first_of(task)
    end(start(run, at("08:00")), at("08:10"), FAILED, reason)
    assert run.triggered.get().trigger == Run.Trigger.RETRY


def test_a_run_of_a_disabled_task_is_not_tried_again(task: Task):
    run = start(first_of(task), at("08:00"))
    Task.objects.update(enabled=False)
    end(run, at("08:10"), FAILED)
    assert not run.triggered.exists()


def test_the_run_of_a_person_is_tried_again_in_their_name(task: Task, owner: User):
    run = task.start_now(by=owner, now=at("08:00"))
    start_and_end(run, at("08:01"), FAILED)
    retry = run.triggered.get()
    assert (retry.requested_by, retry.requested_by_name, retry.schedule) == (owner, "owner", None)


def test_a_waiting_retry_holds_no_slot_up(task: Task):
    task.retry_delay_seconds = 7200
    task.save()
    run = first_of(task)
    assert run.schedule
    start_and_end(run, at("08:10"), FAILED)
    tick(at("09:00"))
    assert ledger(run.schedule)[1] == ("09:00", "ready", "")


# After the last failure


def pausing(task: Task) -> Run:
    task.retries, task.after_failure = 1, Task.AfterFailure.PAUSE
    task.save()
    return first_of(task)


def test_the_schedule_is_paused_after_the_last_failure_and_not_before(task: Task):
    run = pausing(task)
    start_and_end(run, at("08:10"), FAILED)
    assert Schedule.objects.get().paused_at is None
    retry = run.triggered.get()
    start_and_end(retry, at("08:20"), FAILED)
    schedule = Schedule.objects.get()
    assert (schedule.paused_at, schedule.paused_by, schedule.paused_by_name) == (at("08:20"), None, "")
    assert schedule.pause_in_words == f"the scheduler: Run #{retry.pk} failed."
    assert retry.events.filter(what=RunEvent.What.SCHEDULE_PAUSED).count() == 1
    tick(at("09:00"))
    assert ledger(schedule)[1] == ("09:00", "skipped", "paused")


def test_a_schedule_is_kept_by_default(task: Task):
    Task.objects.update(retries=0)
    start_and_end(first_of(Task.objects.get()), at("08:10"), FAILED)
    assert Schedule.objects.get().paused_at is None


def test_a_failed_run_of_a_person_pauses_no_schedule(task: Task, owner: User):
    pausing(task)
    Task.objects.update(retries=0)
    run = Task.objects.get().start_now(by=owner, now=at("08:00"))
    start_and_end(run, at("08:10"), FAILED)
    assert Schedule.objects.get().paused_at is None


def test_follow_ups_of_a_failure_wait_for_the_last_one(task: Task):
    other = Task.objects.create(name="Clean up", program_root="sample_tasks", program_path="countdown.py")
    FollowUp.objects.create(task=task, on=FollowUp.On.FAILS, then=other)
    Task.objects.filter(pk=task.pk).update(retries=1)
    run = first_of(task)
    start_and_end(run, at("08:10"), FAILED)
    assert not other.runs.exists()
    start_and_end(run.triggered.get(), at("08:20"), FAILED)
    assert other.runs.get().triggered_by == run.triggered.get()
