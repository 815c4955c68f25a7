"""Pauses, follow-ups and previews in the admin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import Permission, User
from django.urls import reverse

from scheduler.models import AuditEntry, Calendar, FollowUp, Recurrence, Schedule, Task
from tests.chain import at, planned

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from django.test import Client

    from scheduler.models import Run

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def programs(settings: Any, tmp_path: Path) -> None:
    """A folder with the one program of these tests, whatever the modes of the checkout are."""
    folder = tmp_path / "sample_tasks"
    folder.mkdir(mode=0o755)
    (folder / "countdown.py").write_text("print('done')\n")
    (folder / "countdown.py").chmod(0o644)
    settings.SCHEDULER = {**settings.SCHEDULER, "PROGRAM_ROOTS": {"sample_tasks": folder}}


def a_task(name: str) -> Task:
    return Task.objects.create(name=name, program_root="sample_tasks", program_path="countdown.py")


# Pauses


@pytest.mark.parametrize("what", ["task", "schedule"])
def test_a_list_pauses_and_resumes_what_one_may_change_and_says_what_it_left_out(
    client: Client, owner: User, task: Task, what: str
) -> None:
    schedule, other = planned(task), a_task("Other")
    other.grant(owner, "view_task")
    foreign = planned(other)
    mine, theirs = (task, other) if what == "task" else (schedule, foreign)
    client.force_login(owner)
    url = reverse(f"admin:scheduler_{what}_changelist")
    data = {"action": "pause_selected", "_selected_action": [str(mine.pk), str(theirs.pk)]}
    page = client.post(url, {**data, "why": " "}, follow=True).text
    assert "Nothing was paused. Say why" in page
    page = client.post(url, {**data, "why": "Broken data"}, follow=True).text
    assert "Paused 1; nothing of it starts." in page
    assert "Left out 1 that you may not change." in page
    mine.refresh_from_db()
    theirs.refresh_from_db()
    assert (mine.paused_by, mine.pause_reason) == (owner, "Broken data")
    assert not theirs.is_paused
    assert AuditEntry.objects.get().action == "pause"
    form = client.get(reverse(f"admin:scheduler_{what}_change", args=[mine.pk])).text
    assert "<bdi>Broken data.</bdi>" in form
    assert f'href="{reverse(f"scheduler:{what}-pause", args=[mine.pk])}">Resume</a>' in form

    client.post(url, {**data, "action": "resume_selected"})
    mine.refresh_from_db()
    assert not mine.is_paused


def test_who_may_only_see_is_offered_no_pause(client: Client, viewer: User, task: Task) -> None:
    planned(task)
    client.force_login(viewer)
    for what, pk in (("task", task.pk), ("schedule", task.schedules.get().pk)):
        assert "pause_selected" not in client.get(reverse(f"admin:scheduler_{what}_changelist")).text
        form = client.get(reverse(f"admin:scheduler_{what}_change", args=[pk])).text
        assert f"/scheduler/tasks/{task.pk}/slots/" in form
        assert "/pause/" not in form


# Follow-ups


def task_form(task: Task, *follow_ups: dict[str, Any], saved: int = 0) -> dict[str, Any]:
    data: dict[str, Any] = {
        "name": task.name,
        "program_path": "sample_tasks/countdown.py",
        "environment": "plain",
        "enabled": "on",
        "grace_seconds": "10",
        "overlap": "skip",
        "max_runs": "1",
        "retries": "0",
        "retry_delay_seconds": "60",
        "retry_factor": "1",
        "after_failure": "keep",
        "priority": "2",
        "schedules-TOTAL_FORMS": "0",
        "schedules-INITIAL_FORMS": "0",
        "follow_ups-TOTAL_FORMS": str(len(follow_ups)),
        "follow_ups-INITIAL_FORMS": str(saved),
    }
    for number, values in enumerate(follow_ups):
        data |= {f"follow_ups-{number}-{name}": value for name, value in {"task": task.pk, **values}.items()}
    return data


def change(task: Task) -> str:
    return reverse("admin:scheduler_task_change", args=[task.pk])


def test_a_follow_up_is_entered_on_the_tasks_page(client: Client, owner: User, task: Task) -> None:
    then = a_task("Upload")
    then.grant(owner, "view_task", "run_task")
    client.force_login(owner)
    data = task_form(task, {"id": "", "on": "fails", "then": then.pk}, {"id": "", "on": "completes", "then": ""})
    assert client.post(change(task), data).status_code == 302
    row = task.follow_ups.get()
    assert (row.on, row.then) == ("fails", then)


@pytest.mark.parametrize("granted", [(), ("view_task",), ("run_task",)])
def test_only_tasks_that_one_may_see_and_run_can_follow(
    client: Client, owner: User, task: Task, granted: tuple[str, ...]
) -> None:
    then = a_task("Payroll of the board")
    then.grant(owner, *granted)
    client.force_login(owner)
    assert then.name not in client.get(change(task)).text
    page = client.post(change(task), task_form(task, {"id": "", "on": "completes", "then": then.pk}))
    assert page.status_code == 200
    assert "Choose a task that you may see and run." in page.text
    assert not FollowUp.objects.exists()


def test_what_may_follow_is_searched_for_and_not_listed(client: Client, owner: User, task: Task) -> None:
    for name, granted in {
        "Upload to the board": ("view_task", "run_task"),
        "Upload the payroll": ("view_task",),
        "Upload in secret": (),
    }.items():
        a_task(name).grant(owner, *granted)
    client.force_login(owner)
    page = client.get(change(task)).text
    assert "admin-autocomplete" in page
    assert "Upload to the board" not in page
    query = {"app_label": "scheduler", "model_name": "followup", "field_name": "then", "term": "upload"}
    found = client.get(reverse("admin:autocomplete"), query).json()["results"]
    assert [each["text"] for each in found] == ["Upload to the board"]


@pytest.mark.parametrize("granted", [(), ("view_task",)])
def test_one_of_a_task_that_one_may_not_run_is_only_shown(
    client: Client, owner: User, task: Task, granted: tuple[str, ...]
) -> None:
    then, other = a_task("Payroll of the board"), a_task("Mine")
    then.grant(owner, *granted)
    other.grant(owner, "view_task", "run_task")
    row = FollowUp.objects.create(task=task, then=then, on="completes")
    client.force_login(owner)
    page = client.get(change(task)).text
    assert (then.name in page) == bool(granted)
    assert ("a task that you may not see" in page) != bool(granted)
    data = task_form(task, {"id": row.pk, "on": "ends", "then": other.pk}, saved=1)
    assert client.post(change(task), data).status_code == 302
    row.refresh_from_db()
    assert (row.on, row.then) == ("completes", then)
    # Taking it away runs nothing.
    data = task_form(task, {"id": row.pk, "on": "ends", "then": other.pk, "DELETE": "on"}, saved=1)
    client.post(change(task), data)
    assert not FollowUp.objects.exists()
    history = client.get(reverse("admin:scheduler_task_history", args=[task.pk])).text
    assert then.name not in history


def test_a_circle_is_refused_at_its_field_and_names_only_what_one_may_see(
    client: Client, owner: User, task: Task
) -> None:
    second, hidden = a_task("Upload"), a_task("Payroll of the board")
    second.grant(owner, "view_task", "run_task")
    FollowUp.objects.create(task=second, then=hidden)
    FollowUp.objects.create(task=hidden, then=task)
    client.force_login(owner)
    page = client.post(change(task), task_form(task, {"id": "", "on": "completes", "then": second.pk}))
    assert page.status_code == 200
    way = "Nightly report → Upload → a task that you may not see → Nightly report"
    assert f"This would be a circle that runs for ever: {way}." in page.text
    assert hidden.name not in page.text
    assert not task.follow_ups.exists()


def test_a_task_cannot_follow_itself_and_says_so(client: Client, owner: User, task: Task) -> None:
    client.force_login(owner)
    page = client.post(change(task), task_form(task, {"id": "", "on": "completes", "then": task.pk}))
    assert page.status_code == 200
    assert "This would be a circle that runs for ever" in page.text


def test_who_may_only_see_a_task_sees_its_follow_ups_and_no_hidden_name(
    client: Client, viewer: User, task: Task
) -> None:
    seen, hidden = a_task("Upload"), a_task("Payroll of the board")
    seen.grant(viewer, "view_task")
    for then in (seen, hidden):
        FollowUp.objects.create(task=task, then=then)
    client.force_login(viewer)
    page = client.get(change(task)).text
    assert "Upload" in page
    assert hidden.name not in page
    assert "a task that you may not see" in page


def test_a_runs_admin_page_does_not_name_a_hidden_task_that_triggered_it(
    client: Client, viewer: User, make_run: Callable[..., Run]
) -> None:
    hidden = a_task("Payroll of the board")
    run = make_run(triggered_by=make_run(task=hidden), trigger="follow_up")
    client.force_login(viewer)
    assert hidden.name not in client.get(reverse("admin:scheduler_run_change", args=[run.pk])).text


# Previews


def schedule_form(rule: Recurrence, **values: Any) -> dict[str, Any]:
    return {
        "recurrence": rule.pk,
        "time_zone": "Europe/Amsterdam",
        "anchor": "2090-03-20T02:30:00",
        "catch_up": "once",
        "catch_up_limit": "10",
        "jitter_seconds": "0",
        "enabled": "on",
        "_preview": "1",
        **values,
    }


@pytest.fixture
def daily() -> Recurrence:
    return Recurrence.objects.create(name="Daily", kind="every", every=1, unit="days")


def test_a_new_schedule_is_previewed_and_not_saved(client: Client, owner: User, task: Task, daily: Recurrence) -> None:
    blackout = Calendar.objects.create(name="Spring", time_zone="UTC", lines="03-30")
    client.force_login(owner)
    data = schedule_form(daily, task=task.pk, calendar=blackout.pk, jitter_seconds="90")
    page = client.post(reverse("admin:scheduler_schedule_add"), data).text
    assert "every day at 02:30, Europe/Amsterdam" in page
    assert page.count('<span class="when">') == 40  # twenty, on two clocks
    assert "2090-03-20 01:30" in page
    assert "DST: the clocks skip 02:30" in page
    assert "The clocks are put forward by 1:00 on this day." in page
    assert "blocked by “Spring”: it will be skipped" in page
    assert "Each starts up to 90 seconds later" in page
    assert "errornote" not in page
    assert not Schedule.objects.exists()


def test_a_change_is_previewed_and_not_saved_and_a_page_shows_what_is_saved(
    client: Client, owner: User, task: Task, daily: Recurrence
) -> None:
    schedule = Schedule.objects.create(task=task, recurrence=daily, anchor=at("2090-01-01 12:00"), time_zone="UTC")
    client.force_login(owner)
    url = reverse("admin:scheduler_schedule_change", args=[schedule.pk])
    page = client.get(url).text
    assert "every day at 12:00, UTC" in page
    assert "2090-01-20 12:00" in page
    assert "2090-01-21 12:00" not in page
    page = client.post(url, schedule_form(daily, time_zone="Asia/Kathmandu", enabled="")).text
    assert "every day at 02:30, Asia/Kathmandu" in page
    assert "The schedule is disabled: none of these is run." in page
    schedule.refresh_from_db()
    assert (schedule.time_zone, schedule.enabled) == ("UTC", True)
    # Without the button the same form is saved.
    data = schedule_form(daily, time_zone="Asia/Kathmandu")
    del data["_preview"]
    assert client.post(url, data).status_code == 302
    schedule.refresh_from_db()
    assert schedule.time_zone == "Asia/Kathmandu"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"time_zone": "Mars/Olympus"}, "Time zone: There is no time zone “Mars/Olympus”."),
        ({"anchor": "2090-03-26T02:30:00"}, "Anchor: 2090-03-26 02:30 does not exist in Europe/Amsterdam"),
        ({"anchor": "soon"}, "Anchor: Enter a date and a time"),
        ({"anchor": ""}, "Anchor: This field is required."),
        ({"ends_at": "2090-01-01T00:00:00"}, "End: The end is before the anchor"),
        ({"recurrence": ""}, "Recurrence: This field is required."),
        ({"recurrence": "999999"}, "Recurrence: Select a valid choice."),
        ({"calendar": "999999"}, "Blackout calendar: Select a valid choice."),
    ],
)
def test_what_makes_no_sense_is_a_sentence_in_the_preview(
    client: Client, owner: User, task: Task, daily: Recurrence, values: dict[str, str], sentence: str
) -> None:
    client.force_login(owner)
    answer = client.post(reverse("admin:scheduler_schedule_add"), schedule_form(daily, task=task.pk, **values))
    assert answer.status_code == 200
    assert sentence in answer.text.partition('id="preview"')[2]
    assert not Schedule.objects.exists()


def test_who_may_only_see_a_schedule_sees_its_preview_and_no_button(
    client: Client, viewer: User, task: Task, daily: Recurrence
) -> None:
    schedule = Schedule.objects.create(task=task, recurrence=daily, anchor=at("2090-01-01 12:00"), time_zone="UTC")
    client.force_login(viewer)
    url = reverse("admin:scheduler_schedule_change", args=[schedule.pk])
    page = client.get(url).text
    assert "2090-01-20 12:00" in page
    assert 'name="_preview"' not in page
    assert client.post(url, schedule_form(daily)).status_code == 403


def test_a_schedule_whose_row_makes_no_sense_says_so_and_is_no_error(
    client: Client, owner: User, task: Task, daily: Recurrence
) -> None:
    schedule = Schedule.objects.create(task=task, recurrence=daily, anchor=at("2090-01-01 12:00"), time_zone="UTC")
    client.force_login(owner)
    url = reverse("admin:scheduler_schedule_change", args=[schedule.pk])
    Schedule.objects.filter(pk=schedule.pk).update(time_zone="Mars/Olympus")
    assert "Unknown time zone “Mars/Olympus”." in client.get(url).text
    Schedule.objects.filter(pk=schedule.pk).update(time_zone="UTC")
    Recurrence.objects.filter(pk=daily.pk).update(kind="cron", every=None, unit="", cron="0 0 31 2 *")
    assert "never matches" in client.get(url).text


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"kind": "cron", "cron": "0 0 31 2 *"}, "never matches"),
        ({"kind": "cron", "cron": "0 0 0 31 2 *"}, "five fields"),
        ({"kind": "cron", "cron": "61 * * * *"}, "is no minute"),
        ({"kind": "cron", "cron": ""}, "five fields"),
        ({"kind": "every", "every": "0", "unit": "minutes"}, "Ensure this value is greater than or equal to 1."),
        ({"kind": "every", "every": "", "unit": "minutes"}, "Give a number of 1 or more."),
        ({"kind": "every", "every": "99999999999999999999", "unit": "minutes"}, "less than or equal to"),
        ({"kind": "every", "every": "5", "unit": ""}, "Choose a unit."),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_at_its_field(
    client: Client, values: dict[str, str], sentence: str
) -> None:
    user = User.objects.create_user("ruler", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="add_recurrence"))
    client.force_login(user)
    answer = client.post(reverse("admin:scheduler_recurrence_add"), {"name": "Bad", **values})
    assert answer.status_code == 200
    assert sentence in answer.text
    assert not Recurrence.objects.exists()
