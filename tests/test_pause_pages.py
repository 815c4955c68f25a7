"""Pausing and resuming on the pages: who, when and why, for all who look."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.contrib.auth.models import Permission, User
from django.urls import reverse

from scheduler.models import AuditEntry, Schedule, SchedulerState, Task
from tests.chain import at, planned

if TYPE_CHECKING:
    from django.test import Client

pytestmark = pytest.mark.django_db

WHY = {"why": "The disk is full"}


@pytest.fixture
def drainer() -> User:
    """Staff; may pause the whole scheduler, and see no task."""
    user = User.objects.create_user("drainer", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="pause_all"))
    return user


def test_the_whole_scheduler_is_paused_and_everybody_reads_who_when_and_why(
    client: Client, drainer: User, stranger: User
) -> None:
    client.force_login(drainer)
    assert "Pause all" in client.get("/scheduler/").text
    client.post(reverse("scheduler:pause"), WHY)
    state = SchedulerState.paused()
    assert state is not None
    assert (state.paused_by, state.pause_reason) == (drainer, "The disk is full")
    client.force_login(stranger)
    page = client.get("/scheduler/").text
    assert "Paused by drainer since <time" in page
    assert "<bdi>The disk is full.</bdi>" in page
    assert "What runs may end, nothing starts." in page
    assert "Resume" not in page

    client.force_login(drainer)
    assert 'name="resume"' in client.get("/scheduler/").text
    client.post(reverse("scheduler:pause"), {"resume": "1"})
    assert SchedulerState.paused() is None
    assert not AuditEntry.objects.exclude(task=None).exists()
    entries = AuditEntry.objects.order_by("id").values_list("action", "user_name", "object_name", "text")
    assert list(entries) == [
        ("pause", "drainer", "scheduler", "The disk is full"),
        ("resume", "drainer", "scheduler", "drainer: The disk is full"),
    ]


@pytest.mark.parametrize("what", ["task", "schedule"])
def test_a_task_or_a_schedule_is_paused_and_the_main_page_says_so(
    client: Client, owner: User, viewer: User, stranger: User, task: Task, what: str
) -> None:
    schedule = planned(task)
    row: Task | Schedule = task if what == "task" else schedule
    url = reverse(f"scheduler:{what}-pause", args=[row.pk])
    client.force_login(owner)
    answer = client.post(url, WHY)
    assert answer.headers["Location"] == reverse("scheduler:task-slots", args=[task.pk])
    row.refresh_from_db()
    assert (row.paused_by, row.pause_reason) == (owner, "The disk is full")
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.task, entry.text) == ("pause", task, "The disk is full")
    assert entry.object_name == ("" if what == "task" else "60 minutes")
    for person, is_shown in ((viewer, True), (stranger, False)):
        client.force_login(person)
        assert ("Paused by owner since" in client.get("/scheduler/").text) is is_shown
    client.force_login(viewer)
    assert "Paused by owner since" in client.get(reverse("scheduler:task-slots", args=[task.pk])).text

    client.force_login(owner)
    client.post(url, {"resume": "1"})
    row.refresh_from_db()
    assert not row.is_paused


def test_a_pause_needs_its_reason_and_says_so_at_the_field(client: Client, owner: User, task: Task) -> None:
    client.force_login(owner)
    page = client.post(reverse("scheduler:task-pause", args=[task.pk]), {"why": "  "}).text
    assert "Say why: whoever finds it paused reads this." in page
    task.refresh_from_db()
    assert not task.is_paused
    assert not AuditEntry.objects.exists()


def test_the_second_pause_and_the_second_resume_say_that_they_were_too_late(
    client: Client, owner: User, admin: User, task: Task
) -> None:
    task.pause(by=admin, why="Upgrade.", now=at("08:00"))
    client.force_login(owner)
    url = reverse("scheduler:task-pause", args=[task.pk])
    assert "was paused already, by admin: Upgrade." in client.post(url, WHY, follow=True).text
    task.refresh_from_db()
    assert task.paused_by == admin
    client.post(url, {"resume": "1"})
    assert "was not paused any more" in client.post(url, {"resume": "1"}, follow=True).text
    assert AuditEntry.objects.get().action == "resume"


def test_what_the_scheduler_paused_itself_is_said_to_be_its_doing(client: Client, owner: User, task: Task) -> None:
    schedule = planned(task)
    schedule.pause(by=None, why="Run #12 failed.", now=at("08:00"))
    client.force_login(owner)
    page = client.get("/scheduler/").text
    assert "Paused by the scheduler since" in page
    assert "<bdi>Run #12 failed.</bdi>" in page


def test_many_pauses_are_counted_and_not_all_listed(client: Client, owner: User) -> None:
    for number in range(12):
        task = Task.objects.create(
            name=f"T{number}", owner=owner, program_root="sample_tasks", program_path="countdown.py"
        )
        task.pause(by=owner, why="x", now=at("08:00"))
    client.force_login(owner)
    page = client.get("/scheduler/").text
    assert page.count("Paused by owner") == 10
    assert "More are paused" in page


def test_a_hostile_reason_is_text(client: Client, owner: User, task: Task) -> None:
    client.force_login(owner)
    client.post(reverse("scheduler:task-pause", args=[task.pk]), {"why": "<script>alert(1)</script>\x1b[31m"})
    page = client.get("/scheduler/").text
    assert "<script>alert(1)" not in page
    assert "\x1b" not in page
