"""Each page in unfold's templates; ``test_unfold.py`` runs this with settings of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.contrib import admin
from django.utils import timezone

from scheduler.admin import theme
from scheduler.models import Recurrence, Run, Schedule, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User
    from django.test import Client

PAGES = (
    "/scheduler/",
    "/scheduler/schedule/",
    "/scheduler/timeline/",
    "/scheduler/calendar/",
    "/scheduler/alarms/",
    "/scheduler/pause/",
    "/scheduler/tasks/{task}/",
    "/scheduler/tasks/{task}/slots/",
    "/scheduler/tasks/{task}/pause/",
    "/scheduler/runs/{run}/",
    "/scheduler/runs/{run}/again/change/",
    "/scheduler/runs/{run}/delete/",
)
ADMIN_PAGES = (
    "/admin/scheduler/task/add/",
    "/admin/scheduler/task/{task}/change/",
    "/admin/scheduler/task/{task}/access/",
    "/admin/scheduler/task/{task}/delete/",
    "/admin/scheduler/task/{task}/history/",
    "/admin/scheduler/schedule/{schedule}/change/",
    "/admin/scheduler/run/{run}/change/",
    *(f"/admin/scheduler/{name}/" for name in ("task", "run", "schedule", "recurrence", "calendar", "auditentry")),
)


@pytest.fixture
def person(client: Client, admin: User) -> Client:
    client.force_login(admin)
    return client


@pytest.fixture
def schedule(task: Task, recurrence: Recurrence) -> Schedule:
    return Schedule.objects.create(task=task, recurrence=recurrence, anchor=timezone.now())


@pytest.mark.parametrize("page", [*PAGES, *ADMIN_PAGES])
def test_a_page_is_in_unfolds_frame(
    person: Client, schedule: Schedule, make_run: Callable[..., Run], page: str
) -> None:
    address = page.format(task=schedule.task_id, schedule=schedule.pk, run=make_run().pk)
    answer = person.get(address)
    assert answer.status_code == 200
    text = answer.content.decode()
    assert "unfold/css/styles.css" in text
    assert "scheduler/unfold.css" in text or "/delete/" in page or "/history/" in page


def test_a_lists_action_is_chosen_in_unfolds_way_and_done(person: Client, task: Task) -> None:
    text = person.get("/admin/scheduler/task/").content.decode()
    assert 'x-model="action"' in text  # without it, unfold never shows the button
    assert 'name="why"' in text
    data = {"action": "pause_selected", "why": "The disk is full", "_selected_action": [task.pk]}
    person.post("/admin/scheduler/task/", data)
    task.refresh_from_db()
    assert task.pause_reason == "The disk is full"


def test_every_admin_of_ours_is_unfolds() -> None:
    ours = [each for each in admin.site._registry.values() if each.__module__.startswith("scheduler.")]
    assert len(ours) > 5
    assert all(isinstance(each, theme.ModelAdmin) for each in ours)
    assert theme.ModelAdmin.__module__ == "unfold.admin"


def test_the_scripts_are_told_what_is_dark(person: Client) -> None:
    assert "scheduler/unfold.js" in person.get("/scheduler/").content.decode()
