"""When this task completes, fails or ends, run that one; never in a circle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.core.exceptions import ValidationError

from scheduler.models import FollowUp, Run, RunEvent, Task
from scheduler.states import Reason, Status
from tests.chain import at, end, start

if TYPE_CHECKING:
    from django.contrib.auth.models import User

pytestmark = pytest.mark.django_db


def a_task(name: str, *arguments: str) -> Task:
    return Task.objects.create(
        name=name, program_root="sample_tasks", program_path="countdown.py", arguments=list(arguments)
    )


def after(task: Task, then: Task, on: str = "completes") -> FollowUp:
    return FollowUp.objects.create(task=task, then=then, on=on)


def ended(task: Task, owner: User, status: Status, reason: Reason = Reason.EXIT_CODE) -> Run:
    run = start(task.start_now(by=owner, now=at("08:00")), at("08:00"))
    end(run, at("08:10"), status, reason)
    return run


@pytest.mark.parametrize(
    ("on", "statuses"),
    [
        ("completes", {Status.COMPLETED}),
        ("fails", {Status.FAILED}),
        ("ends", {Status.COMPLETED, Status.FAILED, Status.CANCELLED}),
    ],
)
@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
def test_the_next_task_runs_on_its_occasion_only(
    task: Task, owner: User, on: str, statuses: set[Status], status: Status
):
    then = a_task("Upload", "--all")
    after(task, then, on)
    run = ended(task, owner, status, Reason.STOPPED_BY_USER if status == Status.CANCELLED else Reason.EXIT_CODE)
    assert [each.task for each in run.triggered.all()] == ([then] if status in statuses else [])
    for follower in run.triggered.all():
        assert (follower.trigger, follower.arguments, follower.due_at) == ("follow_up", ["--all"], at("08:10"))
        assert follower.requested_by is None


def test_a_chain_shows_what_started_each(task: Task, owner: User):
    second, third = a_task("Upload"), a_task("Notify")
    after(task, second)
    after(second, third)
    run = ended(task, owner, Status.COMPLETED)
    follower = second.runs.get()
    end(start(follower, at("08:10")), at("08:20"))
    assert third.runs.get().triggered_by == follower
    assert follower.triggered_by == run


def test_two_occasions_start_it_once(task: Task, owner: User):
    then = a_task("Upload")
    after(task, then, "completes")
    after(task, then, "ends")
    assert ended(task, owner, Status.COMPLETED).triggered.count() == 1


def test_a_run_that_is_cancelled_before_it_started_starts_nothing(task: Task, owner: User):
    after(task, a_task("Upload"), "ends")
    task.start_now(by=owner, now=at("08:00")).cancel(by=owner, now=at("08:01"))
    assert Run.objects.count() == 1


def test_a_disabled_task_is_left_out_and_the_run_says_so(task: Task, owner: User):
    then = a_task("Upload")
    after(task, then)
    Task.objects.filter(pk=then.pk).update(enabled=False)
    run = ended(task, owner, Status.COMPLETED)
    assert not run.triggered.exists()
    assert run.events.get(what=RunEvent.What.FOLLOW_UP_LEFT_OUT).text == f"#{then.pk}"


def test_a_circle_is_refused_with_its_way(task: Task):
    second, third = a_task("Upload"), a_task("Notify")
    after(task, second)
    after(second, third)
    with pytest.raises(ValidationError) as raised:
        FollowUp(task=third, then=task).full_clean()
    assert "Notify → Nightly report → Upload → Notify" in raised.value.message_dict["then"][0]
    with pytest.raises(ValidationError):
        after(third, task)


def test_a_task_does_not_follow_itself(task: Task):
    with pytest.raises(ValidationError):
        FollowUp(task=task, then=task).full_clean()


def test_two_ways_to_one_task_are_no_circle(task: Task):
    second, third = a_task("Upload"), a_task("Notify")
    after(task, second)
    after(task, third)
    FollowUp(task=second, then=third).full_clean()


def test_saving_a_follow_up_again_is_no_circle(task: Task):
    row = after(task, a_task("Upload"))
    row.on = FollowUp.On.FAILS
    row.full_clean()
    row.save()
