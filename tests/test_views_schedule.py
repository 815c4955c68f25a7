"""The page "Schedule task"."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from django.core.exceptions import ValidationError
from django.urls import reverse
from django.utils import timezone

from scheduler.forms import ScheduleForm, instant
from scheduler.models import Calendar, Poller, Recurrence, Schedule, Task
from scheduler.states import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User
    from django.test import Client

    from scheduler.models import Run

pytestmark = pytest.mark.django_db

URL = "/scheduler/schedule/"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
AMSTERDAM = ZoneInfo("Europe/Amsterdam")


@pytest.fixture
def client(client: Client, owner: User) -> Client:
    """A browser in which the owner is logged in."""
    client.force_login(owner)
    return client


def filled(task: Task, when: str, **values: object) -> dict[str, Any]:
    return {"task": task.pk, "when": when, "time_zone": "UTC", "arguments": "", **values}


def form_of(user: User, data: dict[str, Any]) -> ScheduleForm:
    return ScheduleForm({name: str(value) for name, value in data.items()}, user=user, now=NOW)


# Now, and at a time


def test_now_starts_a_run_and_shows_it(client: Client, owner: User, task: Task, poller: Poller) -> None:
    response = client.post(URL, filled(task, "now", arguments="--to 'a b' \"c\""))
    run = task.runs.get()
    assert response.headers["Location"] == run.get_absolute_url()
    assert run.arguments == ["--to", "a b", "c"]
    assert run.requested_by == owner


def test_empty_arguments_are_the_tasks_own(client: Client, task: Task) -> None:
    client.post(URL, filled(task, "now"))
    assert task.runs.get().arguments == ["3"]


def test_at_a_time_is_read_from_the_chosen_clock(client: Client, task: Task) -> None:
    client.post(URL, filled(task, "at", at="2099-07-01T09:30", time_zone="Europe/Amsterdam"))
    run = task.runs.get()
    assert run.due_at == datetime(2099, 7, 1, 7, 30, tzinfo=UTC)
    assert run.trigger == "manual"
    assert run.schedule is None


def test_a_double_click_starts_one_run(client: Client, task: Task) -> None:
    for _ in range(2):
        page = client.post(URL, filled(task, "now", once="token"), follow=True).text
    assert task.runs.count() == 1
    assert "was started by your first click" in page


def test_the_message_says_when_a_run_waits_for_another(
    client: Client, task: Task, make_run: Callable[..., Run], poller: Poller
) -> None:
    make_run(Status.PROCESSING)
    assert "waits in the queue" in client.post(URL, filled(task, "now"), follow=True).text


# On a recurrence


def test_a_recurrence_makes_a_schedule_with_its_first_run_in_the_queue(
    client: Client, task: Task, recurrence: Recurrence
) -> None:
    data = filled(task, "recurring", recurrence=recurrence.pk, anchor="2099-01-01T10:00", time_zone="Europe/Amsterdam")
    response = client.post(URL, {**data, "ends_at": "2099-02-01T00:00", "arguments": "7"}, follow=True)
    schedule = task.schedules.get()
    assert schedule.anchor == datetime(2099, 1, 1, 10, tzinfo=AMSTERDAM)
    assert schedule.ends_at == datetime(2099, 2, 1, tzinfo=AMSTERDAM)
    assert (schedule.time_zone, schedule.arguments) == ("Europe/Amsterdam", ["7"])
    assert schedule.next_run is not None
    assert schedule.next_run.due_at == schedule.anchor
    assert response.redirect_chain[-1][0] == f"/scheduler/?task={task.pk}"
    assert "First run: 2099-01-01 10:00 Europe/Amsterdam." in response.text


def test_a_schedule_without_arguments_follows_the_task(client: Client, task: Task, recurrence: Recurrence) -> None:
    client.post(URL, filled(task, "recurring", recurrence=recurrence.pk, anchor="2099-01-01T10:00"))
    assert task.schedules.get().arguments is None


def test_a_double_click_makes_one_schedule(client: Client, task: Task, recurrence: Recurrence) -> None:
    for _ in range(2):
        data = filled(task, "recurring", recurrence=recurrence.pk, anchor="2099-01-01T10:00")
        page = client.post(URL, data, follow=True).text
    assert Schedule.objects.count() == 1
    assert "has this very schedule already" in page


def test_a_recurrence_needs_the_right_to_change_the_task(
    client: Client, runner: User, task: Task, recurrence: Recurrence
) -> None:
    client.force_login(runner)
    page = client.post(URL, filled(task, "recurring", recurrence=recurrence.pk, anchor="2099-01-01T10:00")).text
    assert "but not change when it recurs" in page
    assert not Schedule.objects.exists()
    assert not task.runs.exists()


# What can be wrong, and what it says


@pytest.mark.parametrize(
    ("values", "field", "sentence"),
    [
        ({"when": "at", "at": ""}, "at", "Enter a date and a time."),
        ({"when": "at", "at": "tomorrow"}, "at", "Enter a date and a time, such as"),
        ({"when": "at", "at": "2026-02-30T10:00"}, "at", "Enter a date and a time, such as"),
        ({"when": "at", "at": "2026-03-01T11:59"}, "at", "This time is over."),
        ({"when": "at", "at": "0001-01-01T00:00", "time_zone": "Asia/Tokyo"}, "at", "not a date that can be reckoned"),
        (
            {"when": "at", "at": "2026-03-29T02:30", "time_zone": "Europe/Amsterdam"},
            "at",
            "2026-03-29 02:30 does not exist in Europe/Amsterdam: the clocks are put forward over it.",
        ),
        ({"when": "now", "arguments": "'open"}, "arguments", "A quote is not closed"),
        ({"when": "now", "arguments": "a\\"}, "arguments", "A quote is not closed"),
        ({"when": "now", "arguments": "a\0b"}, "arguments", "contains a NUL character"),
        ({"when": "now", "time_zone": "Mars/Olympus"}, "time_zone", "There is no time zone “Mars/Olympus”."),
        ({"when": "now", "task": "999999"}, "task", "Choose one of the tasks in the list."),
        ({"when": "now", "task": ""}, "task", "Choose a task."),
        ({"when": "never"}, "when", "never is not one of the available choices"),
        ({"when": "recurring", "anchor": "2026-04-01T10:00"}, "recurrence", "Choose a recurrence."),
        ({"when": "recurring", "recurrence": "RULE", "anchor": ""}, "anchor", "Enter a date and a time."),
        (
            {"when": "recurring", "recurrence": "RULE", "anchor": "2026-03-29T02:30", "time_zone": "Europe/Amsterdam"},
            "anchor",
            "does not exist in Europe/Amsterdam",
        ),
        (
            {"when": "recurring", "recurrence": "RULE", "anchor": "2026-05-01T10:00", "ends_at": "2026-04-01T10:00"},
            "ends_at",
            "The end is before the anchor",
        ),
        (
            {"when": "recurring", "recurrence": "RULE", "anchor": "2026-01-01T10:00", "ends_at": "2026-02-01T10:00"},
            "ends_at",
            "So it would never run",
        ),
        ({"when": "recurring", "recurrence": "ONCE", "anchor": "2026-01-01T10:00"}, "anchor", "So it would never run"),
    ],
)
def test_an_error_stands_at_its_field_in_a_sentence(
    owner: User, task: Task, recurrence: Recurrence, values: dict[str, str], field: str, sentence: str
) -> None:
    once = Recurrence.objects.create(name="Once", kind="once")
    given = {
        name: {"RULE": str(recurrence.pk), "ONCE": str(once.pk)}.get(value, value) for name, value in values.items()
    }
    form = form_of(owner, filled(task, "now") | given)
    assert not form.is_valid()
    assert set(form.errors) == {field}
    assert sentence in " ".join(map(str, form.errors[field]))


def test_a_page_with_errors_keeps_what_was_typed_and_starts_nothing(client: Client, task: Task) -> None:
    response = client.post(URL, filled(task, "at", at="2020-01-01T00:00", arguments="--deep 'x y'"))
    assert response.status_code == 200
    assert ">--deep &#x27;x y&#x27;</textarea>" in response.text
    assert 'value="2020-01-01T00:00"' in response.text
    assert not task.runs.exists()


def test_an_hour_that_comes_twice_is_taken_the_first_time() -> None:
    assert instant(datetime(2026, 10, 25, 2, 30), AMSTERDAM).astimezone(UTC) == datetime(
        2026, 10, 25, 0, 30, tzinfo=UTC
    )


def test_an_hour_that_never_comes_is_refused() -> None:
    with pytest.raises(ValidationError):
        instant(datetime(2026, 3, 29, 2, 0), AMSTERDAM)
    assert instant(datetime(2026, 3, 29, 3, 0), AMSTERDAM).astimezone(UTC) == datetime(2026, 3, 29, 1, tzinfo=UTC)


def test_a_time_that_is_just_now_is_not_over(owner: User, task: Task) -> None:
    form = form_of(owner, filled(task, "at", at="2026-03-01T12:00"))
    assert form.is_valid(), form.errors


# Which tasks


def test_only_enabled_tasks_that_one_may_run_and_see_are_offered(
    client: Client, runner: User, task: Task, recurrence: Recurrence
) -> None:
    program = {"program_root": "sample_tasks", "program_path": "countdown.py"}
    disabled = Task.objects.create(name="Disabled", enabled=False, **program)
    unseen = Task.objects.create(name="Unseen", **program)
    seen_only = Task.objects.create(name="Seen only", **program)
    disabled.grant(runner, "view_task", "run_task")
    unseen.grant(runner, "run_task")
    seen_only.grant(runner, "view_task")
    client.force_login(runner)
    page = client.get(URL).text
    assert task.name in page
    for other in (disabled, unseen, seen_only):
        assert other.name not in page
        assert client.post(URL, filled(other, "now")).status_code == 200
        assert not other.runs.exists()


def test_a_task_can_be_chosen_by_the_address_with_its_arguments_as_a_hint(client: Client, task: Task) -> None:
    Task.objects.filter(pk=task.pk).update(arguments=["--to", 'a "b"'])
    page = client.get(URL, {"task": task.pk}).text
    assert f'<option value="{task.pk}" selected>' in page
    assert 'placeholder="--to &#x27;a &quot;b&quot;&#x27;"' in page


@pytest.mark.parametrize("value", ["x", "999999", "-1", "9" * 40])
def test_an_address_with_an_unknown_task_chooses_none(client: Client, task: Task, value: str) -> None:
    response = client.get(URL, {"task": value})
    assert response.status_code == 200
    assert f'<option value="{task.pk}" selected' not in response.text


def test_who_may_run_nothing_is_told_so(client: Client, viewer: User) -> None:
    client.force_login(viewer)
    assert "There is no enabled task that you may run." in client.get(URL).text


def test_hostile_names_of_tasks_and_recurrences_do_nothing(client: Client, task: Task) -> None:
    Task.objects.filter(pk=task.pk).update(name="<script>alert(1)</script>", arguments=['"><script>alert(2)</script>'])
    Recurrence.objects.create(name="<script>alert(3)</script>", kind="once")
    assert "<script>alert" not in client.get(URL, {"task": task.pk}).text


def test_nobody_can_set_what_is_not_in_the_form(client: Client, owner: User, admin: User, task: Task) -> None:
    extra = {"requested_by": admin.pk, "status": "completed", "program": "x", "due_at": "2000-01-01", "enabled": ""}
    client.post(URL, filled(task, "now", **extra))
    run = task.runs.get()
    assert (run.requested_by, run.status, run.program) == (owner, "queued", "")
    assert run.due_at > timezone.now() - timedelta(minutes=5)


def test_the_page_is_linked_from_the_main_page(client: Client, task: Task) -> None:
    assert f'href="{reverse("scheduler:schedule")}"' in client.get("/scheduler/").text


# The preview


def previewed(client: Client, data: dict[str, Any]) -> str:
    """What stands in the page's preview after a click on its button."""
    response = client.post(URL, {**data, "_preview": "1"})
    assert response.status_code == 200
    return response.text.partition('id="preview"')[2].partition("</fieldset>")[0]


def test_the_next_twenty_runs_are_shown_on_two_clocks_and_nothing_is_saved(
    client: Client, task: Task, recurrence: Recurrence
) -> None:
    Recurrence.objects.filter(pk=recurrence.pk).update(kind="cron", every=None, unit="", cron="30 2 * * *")
    data = filled(
        task, "recurring", recurrence=recurrence.pk, anchor="2090-03-20T00:00", time_zone="Europe/Amsterdam", once="t"
    )
    shown = previewed(client, data)
    assert "every day at 02:30, Europe/Amsterdam" in shown
    assert shown.count("<tr") == 21
    assert "Mon 2090-03-20 02:30 CET" in shown
    assert "2090-03-20 01:30" in shown
    assert "Sun 2090-03-26 03:00 CEST" in shown
    assert "DST: the clocks skip 02:30, so it runs at the first instant after the gap" in shown
    assert not Schedule.objects.exists()
    assert not task.runs.exists()


def test_blocked_runs_are_marked_and_the_calendar_is_saved_with_the_schedule(
    client: Client, task: Task, recurrence: Recurrence
) -> None:
    assert "Blackout calendar" not in client.get(URL).text
    blackout = Calendar.objects.create(name="New year", time_zone="UTC", lines="01-01")
    data = filled(task, "recurring", recurrence=recurrence.pk, anchor="2090-01-01T23:00", calendar=blackout.pk)
    shown = previewed(client, data)
    assert shown.count("blocked by “New year”: it will be skipped") == 1
    client.post(URL, data)
    assert task.schedules.get().calendar == blackout


def test_one_time_is_previewed_on_both_clocks(client: Client, task: Task) -> None:
    shown = previewed(client, filled(task, "at", at="2090-07-01T09:30", time_zone="Europe/Amsterdam"))
    assert "Sat 2090-07-01 09:30 CEST" in shown
    assert "2090-07-01 07:30" in shown
    assert not task.runs.exists()


@pytest.mark.parametrize("task_is_chosen", [True, False])
def test_a_preview_needs_no_task(client: Client, task: Task, recurrence: Recurrence, task_is_chosen: bool) -> None:
    data = filled(task, "recurring", recurrence=recurrence.pk, anchor="2090-01-01T10:00")
    shown = previewed(client, data if task_is_chosen else {**data, "task": ""})
    assert "2090-01-01 10:00" in shown
    ended = previewed(client, {**data, "task": data["task"] if task_is_chosen else "", "ends_at": "2089-01-01T00:00"})
    assert "End: The end is before the anchor" in ended


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"recurrence": ""}, "Recurrence: Choose a recurrence."),
        (
            {"anchor": "2026-03-29T02:30", "time_zone": "Europe/Amsterdam"},
            "First time: 2026-03-29 02:30 does not exist",
        ),
        ({"anchor": "2090-05-01T10:00", "ends_at": "2090-04-01T10:00"}, "End: The end is before the anchor"),
        ({"time_zone": "Mars/Olympus"}, "Time zone: There is no time zone “Mars/Olympus”."),
        ({"when": "at", "at": "2020-01-01T00:00"}, "Date and time: This time is over."),
        ({"when": "at", "at": "2099-01-01T00:00", "time_zone": "Mars/Olympus"}, "There is no time zone"),
    ],
)
def test_a_preview_of_what_makes_no_sense_is_a_sentence(
    client: Client, task: Task, recurrence: Recurrence, values: dict[str, str], sentence: str
) -> None:
    data = filled(task, "recurring", recurrence=recurrence.pk, anchor="2090-01-01T10:00") | values
    assert sentence in previewed(client, data)


def test_a_rule_that_got_into_the_database_some_other_way_is_a_sentence(
    client: Client, task: Task, recurrence: Recurrence
) -> None:
    Recurrence.objects.filter(pk=recurrence.pk).update(kind="cron", every=None, unit="", cron="0 0 31 2 *")
    data = filled(task, "recurring", recurrence=recurrence.pk, anchor="2090-01-01T10:00")
    assert "never matches" in previewed(client, data)
    assert client.post(URL, data).status_code == 200
    assert not Schedule.objects.exists()


# Many tasks


def test_of_many_tasks_some_are_listed_and_the_others_are_found(
    client: Client, owner: User, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.forms.TASKS_LISTED", 2)
    others = [
        Task.objects.create(name=f"Backup {place}", owner=owner, program_root="sample_tasks", program_path="fails.py")
        for place in ("Amsterdam", "Berlin", "Cairo")
    ]
    for each in others:
        each.grant(owner, "view_task", "run_task")

    def listed(**query: str) -> list[str]:
        choices = client.get(URL, query).context["form"]["task"].field.widget.choices
        return [label for key, label in choices if key]

    assert listed() == ["Backup Amsterdam", "Backup Berlin"]
    assert "the search finds the others" in client.get(URL).text
    assert listed(find="cairo back") == ["Backup Cairo"]
    assert "1 task was found" in client.get(URL, {"find": "cairo back"}).text
    assert listed(task=str(task.pk)) == [task.name, "Backup Amsterdam", "Backup Berlin"]  # what was chosen is there
    response = client.post(URL, filled(others[2], "now"))  # whether it is listed or not
    assert response.headers["Location"] == others[2].runs.get().get_absolute_url()


def test_few_tasks_are_a_list_without_a_search(client: Client, task: Task) -> None:
    assert 'name="find"' not in client.get(URL).text
