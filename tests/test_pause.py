"""Pause and resume: one schedule, one task, the whole scheduler."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.db import IntegrityError, transaction

from scheduler.models import Run, SchedulerState, Task
from tests.chain import at, end, ledger, planned, start, tick

if TYPE_CHECKING:
    from django.contrib.auth.models import User

pytestmark = pytest.mark.django_db


def test_a_paused_schedule_runs_nothing_and_says_who_paused_it(task: Task, owner: User):
    schedule, other = planned(task), planned(task, anchor="08:30")
    assert schedule.pause(by=owner, why="Disk is full.", now=at("07:40"))
    tick(at("08:00"))
    tick(at("08:30"))
    assert ledger(schedule) == [("08:00", "skipped", "paused"), ("09:00", "queued", "")]
    assert ledger(other)[0] == ("08:30", "ready", "")
    run = schedule.runs.finished().get()
    assert run.sentence == "Not run: paused by owner: Disk is full."

    assert schedule.resume()
    end(start(other.runs.ready(at("08:30")).get(), at("08:30")), at("08:40"))
    tick(at("09:00"))
    assert ledger(schedule)[1] == ("09:00", "ready", "")


def test_the_first_pause_stands(task: Task, owner: User, stranger: User):
    assert task.pause(by=owner, why="First.", now=at("07:40"))
    assert not task.pause(by=stranger, why="Second.", now=at("07:50"))
    task.refresh_from_db()
    assert (task.paused_at, task.paused_by, task.pause_reason) == (at("07:40"), owner, "First.")
    assert task.resume()
    assert not task.resume()
    task.refresh_from_db()
    assert not task.is_paused
    assert task.pause_in_words == ""


def test_the_name_of_who_paused_it_outlives_the_account(task: Task, stranger: User):
    task.pause(by=stranger, now=at("07:40"))
    stranger.delete()
    task.refresh_from_db()
    assert (task.paused_by, task.pause_in_words) == (None, "stranger")


def test_a_paused_task_starts_nothing_until_it_is_resumed(task: Task, owner: User):
    schedule = planned(task)
    task.pause(by=owner, now=at("07:40"))
    tick(at("08:00"))
    assert ledger(schedule)[0] == ("08:00", "skipped", "paused")
    run = task.start_now(by=owner, now=at("08:00"))
    assert not Run.objects.startable(at("08:00")).exists()
    assert not run.claim(host=run.uuid, host_name="here", now=at("08:00"))
    run.refresh_from_db()
    assert run.sentence == "Waits until the task is resumed."
    task.resume()
    start(run, at("08:10"))


def test_a_pause_of_all_lets_end_what_runs_and_starts_nothing(task: Task, owner: User):
    schedule = planned(task)
    running = start(task.start_now(by=owner, now=at("07:30")), at("07:30"))
    waiting = task.start_now(by=owner, now=at("07:31"))
    state = SchedulerState.get()
    assert state.pause(by=owner, why="Upgrade.", now=at("07:40"))
    tick(at("08:00"))
    assert ledger(schedule)[0] == ("08:00", "skipped", "paused")
    end(running, at("08:05"))
    assert not Run.objects.startable(at("08:05")).exists()
    assert not waiting.claim(host=waiting.uuid, host_name="here", now=at("08:05"))
    waiting.refresh_from_db()
    assert waiting.sentence == "Waits until the scheduler is resumed."
    paused = SchedulerState.paused()
    assert paused is not None
    assert paused.pause_in_words == "owner: Upgrade."

    assert SchedulerState.get().resume()
    assert list(Run.objects.startable(at("08:10"))) == [waiting]
    tick(at("09:00"))
    assert ledger(schedule)[1][:2] == ("09:00", "skipped")  # the waiting run goes first


def test_the_scheduler_has_one_row():
    assert SchedulerState.get() == SchedulerState.get()
    with pytest.raises(IntegrityError), transaction.atomic():
        SchedulerState.objects.create(pk=2)


def test_saving_an_old_copy_does_not_undo_a_pause(task: Task, owner: User):
    schedule = planned(task)
    old_task, old_schedule = Task.objects.get(), type(schedule).objects.get()
    task.pause(by=owner, now=at("07:40"))
    schedule.pause(by=owner, now=at("07:40"))
    old_task.description = "Changed."
    old_task.save()
    old_schedule.save()
    task.refresh_from_db()
    schedule.refresh_from_db()
    assert task.is_paused
    assert task.description == "Changed."
    assert schedule.is_paused
