"""A task's page: when it runs next, how it went, what it does, and who may do what with it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import Group, User
from django.urls import reverse
from django.utils import timezone
from guardian.shortcuts import assign_perm

from scheduler.models import Calendar, FollowUp, Schedule, Task
from scheduler.states import Status
from scheduler.views.charts import HEIGHT, duration_chart

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from django.test import Client
    from pytest_django import DjangoAssertNumQueries

    from scheduler.models import Recurrence, Run

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def program(settings: Any, tmp_path: Path) -> Path:
    folder = tmp_path / "sample_tasks"
    folder.mkdir(mode=0o755)
    path = folder / "countdown.py"
    path.write_text('"""Counts down."""\n\nPASSWORD = "<b>hunter2</b>"\n')
    path.chmod(0o644)
    settings.SCHEDULER = {**settings.SCHEDULER, "PROGRAM_ROOTS": {"sample_tasks": folder}}
    return path


def page(client: Client, user: User, task: Task, **query: str) -> str:
    client.force_login(user)
    response = client.get(task.get_absolute_url(), query)
    assert response.status_code == 200
    return response.text


@pytest.fixture
def schedule(task: Task, recurrence: Recurrence) -> Schedule:
    anchor = datetime(2026, 1, 1, 10, tzinfo=UTC)
    made = Schedule.objects.create(task=task, recurrence=recurrence, anchor=anchor, time_zone="Asia/Tokyo")
    made.plan(timezone.now())
    return made


# When it runs


def test_the_next_runs_are_shown_in_the_schedules_own_zone(
    client: Client, viewer: User, task: Task, schedule: Schedule
) -> None:
    text = page(client, viewer, task)
    for slot in [each.at for each in schedule.preview(timezone.now(), 3)]:
        assert f"{slot.astimezone(schedule.zone):%Y-%m-%d %H:%M}</time> Asia/Tokyo" in text


def test_a_schedule_that_will_not_run_says_why(
    client: Client, viewer: User, owner: User, task: Task, schedule: Schedule
) -> None:
    schedule.pause(by=owner, why="until Monday", now=timezone.now())
    assert "Paused by owner: until Monday" in page(client, viewer, task)
    Schedule.objects.update(enabled=False)
    assert "Disabled." in page(client, viewer, task)
    Schedule.objects.update(enabled=True, problem="There is no zone of that name.")
    assert "There is no zone of that name." in page(client, viewer, task)
    Schedule.objects.update(problem="", ends_at=schedule.anchor)
    assert "It is over: no time of it is still to come." in page(client, viewer, task)
    Schedule.objects.all().delete()
    assert "It has no schedule." in page(client, viewer, task)


def test_a_slot_in_a_blackout_calendar_is_marked(client: Client, viewer: User, task: Task, schedule: Schedule) -> None:
    every_day = Calendar.objects.create(name="Never", lines="daily 00:00-24:00")
    Schedule.objects.update(calendar=every_day)
    text = page(client, viewer, task)
    assert text.count("blocked by “Never”") == 3


def test_a_task_that_nobody_starts_says_so(client: Client, owner: User, task: Task) -> None:
    task.pause(by=owner, why="broken", now=timezone.now())
    assert "Nothing of it starts until it is resumed." in page(client, owner, task)
    Task.objects.update(enabled=False)
    text = page(client, owner, task)
    assert "nobody and no schedule starts it" in text
    assert 'id="run-now"' not in text


# How it went


def test_the_history_says_how_often_it_went_well(
    client: Client, viewer: User, task: Task, make_run: Callable[..., Run]
) -> None:
    assert "It has never run." in page(client, viewer, task)
    for status in [*[Status.COMPLETED] * 3, Status.FAILED, Status.SKIPPED, Status.CANCELLED]:
        make_run(status)
    text = page(client, viewer, task)
    assert "75 % completed" in text
    assert "3 of the last 4 runs that were processed; 1 slot was not run." in text
    assert "Usually 3.0 s, at most 3.0 s." in text
    assert text.count('<rect class="bar bar-') == 4
    assert "Failed: the program ended with exit code 1." in text


def test_a_hundred_percent_is_said_only_when_nothing_failed(
    client: Client, viewer: User, task: Task, make_run: Callable[..., Run]
) -> None:
    make_run(Status.FAILED)
    for _ in range(199):
        make_run()
    assert "99 % completed" in page(client, viewer, task)


def test_older_runs_are_on_further_pages(
    client: Client, viewer: User, task: Task, make_run: Callable[..., Run]
) -> None:
    runs = [make_run() for _ in range(60)]
    shown: list[int] = []
    query: dict[str, str] = {}
    for _ in range(3):
        client.force_login(viewer)
        context = client.get(task.get_absolute_url(), query).context
        shown += [run.pk for run, _elapsed in context["history"]]
        query = {"before": str(context["older"])}
    assert shown == [run.pk for run in reversed(runs)]
    assert context["older"] is None


@pytest.mark.parametrize("before", ["x", "-1", "9" * 40, "0"])
def test_an_address_with_a_wrong_position_is_no_error(
    client: Client, viewer: User, task: Task, make_run: Callable[..., Run], before: str
) -> None:
    make_run()
    page(client, viewer, task, before=before)


def test_a_chart_of_durations_is_in_proportion(make_run: Callable[..., Run]) -> None:
    now = timezone.now()
    runs = [make_run(started_at=now - timedelta(seconds=seconds), finished_at=now) for seconds in (10, 20, 40)]
    chart = duration_chart(runs, now)
    assert chart is not None
    assert [bar.height for bar in chart.bars] == [HEIGHT / 4, HEIGHT / 2, HEIGHT]
    assert (chart.longest, chart.usual) == (timedelta(seconds=40), timedelta(seconds=20))
    assert chart.usual_y == HEIGHT / 2
    assert duration_chart([], now) is None


def test_runs_that_took_no_time_are_drawn(make_run: Callable[..., Run]) -> None:
    now = timezone.now()
    chart = duration_chart([make_run(started_at=now, finished_at=now)], now)
    assert chart is not None
    assert chart.bars[0].height > 0


# What comes of it


def test_what_it_starts_and_what_starts_it(client: Client, viewer: User, task: Task) -> None:
    def another(name: str) -> Task:
        return Task.objects.create(name=name, program_root="sample_tasks", program_path="countdown.py")

    before, after, hidden = another("Before"), another("After"), another("Payroll of the board")
    for each in (before, after):
        each.grant(viewer, "view_task")
    FollowUp.objects.create(task=before, on=FollowUp.On.FAILS, then=task)
    FollowUp.objects.create(task=task, then=after)
    FollowUp.objects.create(task=task, then=hidden)
    text = page(client, viewer, task)
    assert f'It runs when <a href="{before.get_absolute_url()}">Before</a> fails' in text
    assert f'When it completes, <a href="{after.get_absolute_url()}">After</a> runs.' in text
    assert "And 1 task that you may not see." in text
    assert "Payroll" not in text


# Who sees what


def test_the_source_is_for_those_who_may_change_the_task(
    client: Client, viewer: User, runner: User, owner: User, task: Task
) -> None:
    for user, sees_docstring, sees_source in ((viewer, False, False), (runner, True, False), (owner, True, True)):
        text = page(client, user, task)
        assert ("Counts down." in text) == sees_docstring
        assert ("PASSWORD = &quot;&lt;b&gt;hunter2" in text) == sees_source
        assert "<b>hunter2" not in text


def test_a_long_source_is_cut_and_says_so(client: Client, owner: User, task: Task, program: Path) -> None:
    program.write_text("# ä" + "x" * 200_000 + "ZZZ9")
    text = page(client, owner, task)
    assert "Only the beginning is shown." in text
    assert "ZZZ9" not in text
    assert len(text) < 150_000


def test_a_program_that_cannot_be_read_is_said(client: Client, owner: User, task: Task, program: Path) -> None:
    program.chmod(0o666)
    assert "can be written by other users than its owner" in page(client, owner, task)
    program.unlink()
    assert "cannot be read" in page(client, owner, task)


def test_who_may_do_what_is_for_those_who_manage_access(
    client: Client, viewer: User, runner: User, owner: User, task: Task
) -> None:
    group = Group.objects.create(name="Night shift")
    assign_perm("scheduler.stop_run", group, task)
    text = page(client, owner, task)
    assert "Who may do what" in text
    for name in ("viewer", "runner", "Night shift"):
        assert name in text
    text = page(client, viewer, task)
    assert "Who may do what" not in text
    assert "Night shift" not in text


BUTTONS = {"run-now", "schedule", "pause", "edit", "access-link"}


@pytest.mark.parametrize(
    ("person", "buttons"), [("viewer", set()), ("runner", {"run-now", "schedule"}), ("owner", BUTTONS)]
)
def test_buttons_are_there_for_those_who_may(
    client: Client, task: Task, request: pytest.FixtureRequest, person: str, buttons: set[str]
) -> None:
    text = page(client, request.getfixturevalue(person), task)
    assert f'href="{reverse("scheduler:task-slots", args=[task.pk])}"' in text
    assert {name for name in BUTTONS if f'id="{name}"' in text} == buttons


def test_hostile_names_do_nothing(client: Client, owner: User, task: Task, make_run: Callable[..., Run]) -> None:
    make_run(message="<script>alert(1)</script>")
    Task.objects.update(name="<script>alert(2)</script>", description="<script>alert(3)</script>\x1b[31m")
    text = page(client, owner, task)
    assert "<script>alert" not in text
    assert "\x1b" not in text


# Links, and what it costs


def test_names_of_tasks_lead_here(client: Client, owner: User, task: Task, make_run: Callable[..., Run]) -> None:
    run = make_run()
    client.force_login(owner)
    for url in (reverse("scheduler:index"), run.get_absolute_url(), f"{reverse('scheduler:index')}?task={task.pk}"):
        assert f'href="{task.get_absolute_url()}"' in client.get(url).text


def test_the_page_asks_the_database_as_often_however_long_the_history_is(
    client: Client,
    owner: User,
    task: Task,
    schedule: Schedule,
    recurrence: Recurrence,
    make_run: Callable[..., Run],
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    client.force_login(owner)
    client.get(task.get_absolute_url())
    with django_assert_max_num_queries(40) as few:
        client.get(task.get_absolute_url())
    for _ in range(40):
        make_run()
        make_run(Status.QUEUED, due_at=timezone.now() + timedelta(days=1))
        other = Task.objects.create(name=f"T{Task.objects.count()}", program_root="x", program_path="y.py")
        other.grant(owner, "view_task")
        FollowUp.objects.create(task=task, then=other)
    for hour in range(10):
        anchor = datetime(2026, 1, 1, hour, 30, tzinfo=UTC)
        Schedule.objects.create(task=task, recurrence=recurrence, anchor=anchor, time_zone="UTC")
    with django_assert_max_num_queries(40) as many:
        client.get(task.get_absolute_url())
    assert len(many) <= len(few) + 1  # the files of the queue are asked for only when there is a run with some
