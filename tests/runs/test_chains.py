"""What a run brings about: the next one in its place, one that waits for it, retries, follow-ups, a pause."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from typing import TYPE_CHECKING

from django.utils import timezone

from scheduler.models import FollowUp, Recurrence, Run, RunEvent, Schedule, Task
from scheduler.states import Reason, Status

from .conftest import WORK, fresh, starts, supervisor_pid

if TYPE_CHECKING:
    from scheduler.poller import PollerDaemon

    from .conftest import World

# Fails until a file says that it should not; each start is counted.
# By what it counts itself: a retry without a delay may have started before a test gets to say anything.
FAILS_TWICE = """
    import os, sys
    with open(os.environ["FOLDER"] + "/starts", "a+") as starts:
        starts.write(os.environ["SCHEDULER_RUN"] + "\\n")
        starts.seek(0)
        sys.exit(3 if len(starts.readlines()) < 3 else 0)
    """


def due_slot(task: Task) -> Run:
    """The one slot of a new schedule, which is due now."""
    rule = Recurrence.objects.get_or_create(name="once", kind="once")[0]
    anchor = timezone.now() - timedelta(seconds=1)
    schedule = Schedule.objects.create(task=task, recurrence=rule, anchor=anchor, time_zone="UTC")
    Schedule.objects.filter(pk=schedule.pk).update(stale_at=anchor - timedelta(seconds=1))
    schedule.plan(timezone.now())
    return schedule.runs.get()


def running(world: World, run: Run, poller: PollerDaemon) -> Run:
    world.until(lambda: starts(world, run) and fresh(run).started_at, f"run {run.pk} runs", poller=poller)
    return fresh(run)


def test_the_old_run_is_stopped_and_the_new_one_takes_its_place(world: World) -> None:
    task, poller = world.task(WORK, overlap=Task.Overlap.STOP), world.poller()
    old = running(world, due_slot(task), poller)
    new = running(world, due_slot(task), poller)
    old = fresh(old)
    assert (old.status, old.reason, old.cancel_requested_by_name) == (Status.CANCELLED, Reason.REPLACED, "")
    assert old.sentence == "Stopped: the next run of its task took its place."
    assert old.finished_at is not None
    assert new.started_at is not None
    assert old.finished_at <= new.started_at
    (world.folder / "go").touch()
    assert world.finish(new, poller=poller).exit_code == 7
    assert starts(world, old) == starts(world, new) == 1


def test_one_run_waits_for_the_end_of_the_one_before_it(world: World) -> None:
    task, poller = world.task(WORK, overlap=Task.Overlap.QUEUE), world.poller()
    old = running(world, due_slot(task), poller)
    waits, too_many = due_slot(task), due_slot(task)
    world.until(lambda: fresh(too_many).is_finished, "the third one is skipped", poller=poller)
    assert (fresh(too_many).status, fresh(too_many).reason) == (Status.SKIPPED, Reason.OVERLAP)
    assert (fresh(waits).status, starts(world, waits)) == (Status.QUEUED, 0)
    (world.folder / "go").touch()
    assert world.finish(waits, poller=poller).exit_code == 7
    assert world.finish(old, poller=poller).exit_code == 7
    assert starts(world, waits) == 1


def test_a_failed_run_is_tried_again_and_the_chain_shows_it(world: World) -> None:
    task, poller = world.task(FAILS_TWICE, retries=2, retry_delay_seconds=0), world.poller()
    first = world.finish(world.start(task, "--all"), poller=poller)
    retry = world.finish(first.triggered.get(), poller=poller)
    last = world.finish(retry.triggered.get(), poller=poller)
    assert [run.status for run in (first, retry, last)] == [Status.FAILED, Status.FAILED, Status.COMPLETED]
    assert [(run.trigger, run.attempt) for run in (retry, last)] == [(Run.Trigger.RETRY, 2), (Run.Trigger.RETRY, 3)]
    assert (last.triggered_by, last.arguments, last.requested_by) == (retry, ["--all"], world.owner)
    assert first.events.get(what=RunEvent.What.RETRY_QUEUED).text == f"#{retry.pk}"
    assert not last.triggered.exists()


def test_a_lost_run_is_tried_again(world: World) -> None:
    task, poller = world.task(WORK, retries=1, retry_delay_seconds=0), world.poller()
    run = running(world, world.start(task), poller)
    os.kill(supervisor_pid(run), signal.SIGKILL)
    run = world.finish(run, poller=poller)
    assert (run.status, run.reason) == (Status.FAILED, Reason.LOST)
    retry = running(world, run.triggered.get(), poller)
    (world.folder / "go").touch()
    assert world.finish(retry, poller=poller).exit_code == 7
    assert (starts(world, run), starts(world, retry)) == (1, 1)


def test_a_follow_up_runs_with_its_own_arguments_after_the_run_that_it_follows(world: World) -> None:
    task, then = world.task("print('first')", name="first"), world.task("import sys; print(sys.argv[1:])", name="then")
    Task.objects.filter(pk=then.pk).update(arguments=["--upload"])
    FollowUp.objects.create(task=task, then=then)
    poller = world.poller()
    run = world.finish(world.start(task, "--all"), poller=poller)
    follower = world.finish(run.triggered.get(), poller=poller)
    assert (follower.task, follower.trigger, follower.triggered_by) == (then, Run.Trigger.FOLLOW_UP, run)
    assert world.log(follower).strip() == "['--upload']"
    assert run.finished_at is not None
    assert follower.started_at is not None
    assert run.finished_at <= follower.started_at


def test_the_schedule_is_paused_after_the_last_failure(world: World) -> None:
    task = world.task(FAILS_TWICE, retries=1, retry_delay_seconds=0, after_failure=Task.AfterFailure.PAUSE)
    poller = world.poller()
    first = world.finish(due_slot(task), poller=poller)
    assert first.schedule is not None
    assert not first.schedule.is_paused
    last = world.finish(first.triggered.get(), poller=poller)
    assert last.schedule is not None
    assert last.schedule == first.schedule
    assert last.schedule.pause_in_words == f"the scheduler: Run #{last.pk} failed."
    assert last.events.filter(what=RunEvent.What.SCHEDULE_PAUSED).count() == 1
