"""The admin pages, as the people use and misuse them."""

from __future__ import annotations

import html
import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib import admin as django_admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.db import connection
from django.db.models import ProtectedError
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from scheduler import access
from scheduler.models import (
    AuditEntry,
    Calendar,
    ConcurrencyGroup,
    OutputFile,
    Poller,
    Recurrence,
    Run,
    RunEvent,
    Schedule,
    Task,
    TaskGroupObjectPermission,
    TaskUserObjectPermission,
)
from scheduler.models.task import TASK_PERMISSIONS
from scheduler.states import Reason, Status

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_django import Settings

pytestmark = pytest.mark.django_db

SECRET = "Payroll of the board"


@pytest.fixture(autouse=True)
def programs(settings: Settings, tmp_path: Path) -> Path:
    """A program folder with two programs."""
    folder = tmp_path / "programs"
    folder.mkdir(mode=0o755)
    for name in ("backup.py", "report.py"):
        (folder / name).write_text("print('done')\n")
        (folder / name).chmod(0o644)
    settings.SCHEDULER = {**settings.SCHEDULER, "PROGRAM_ROOTS": {"programs": folder}, "ROOT": tmp_path / "scheduler"}
    return folder


def person(name: str, *global_permissions: str, staff: bool = True) -> User:
    user = User.objects.create_user(name, is_staff=staff)
    user.user_permissions.set(Permission.objects.filter(codename__in=global_permissions))
    assert user.user_permissions.count() == len(global_permissions)
    return user


def a_task(name: str, owner: User | None = None, **values: Any) -> Task:
    values = {"program_root": "programs", "program_path": "backup.py", **values}
    return Task.objects.create(name=name, owner=owner, **values)


def a_finished_run(task: Task, **values: Any) -> Run:
    now = timezone.now()
    return Run.objects.create(
        task=task,
        queued_at=now,
        due_at=now,
        **{"status": Status.COMPLETED, "reason": Reason.EXIT_CODE, "exit_code": 0, "finished_at": now, **values},
    )


def a_run_in_progress(task: Task) -> Run:
    now = timezone.now()
    return Run.objects.create(
        task=task, queued_at=now, due_at=now, status=Status.PROCESSING, claim_token="t" * 32, host=uuid.uuid4()
    )


def a_calendar() -> Calendar:
    return Calendar.objects.get_or_create(name="Holidays", lines="12-25", time_zone="UTC")[0]


def a_group() -> ConcurrencyGroup:
    return ConcurrencyGroup.objects.get_or_create(name="Database", max_runs=2)[0]


@dataclass
class World:
    """A task that some people have permissions on, one that nobody but its owner and the superuser may see."""

    people: dict[str, User]
    task: Task
    hidden: Task
    recurrence: Recurrence
    schedule: Schedule
    hidden_schedule: Schedule
    run: Run
    hidden_run: Run
    poller: Poller
    entry: AuditEntry
    hidden_entry: AuditEntry

    def client(self, name: str) -> Client:
        client = Client()
        if name != "anonymous":
            client.force_login(self.people[name], backend="django.contrib.auth.backends.ModelBackend")
        return client


@pytest.fixture
def world() -> World:
    people = {
        "owner": person("owner"),
        "viewer": person("viewer"),
        "runner": person("runner"),
        "editor": person("editor"),
        "reader": person("reader"),
        "stranger": person("stranger"),
        "visitor": person("visitor", staff=False),
        "adder": person("adder", "add_task"),
        "overseer": person("overseer", "view_task", "view_poller"),
        "planner": person("planner", "add_recurrence", "change_recurrence", "delete_recurrence"),
        "admin": User.objects.create_superuser("admin"),
    }
    task = a_task("Backup", people["owner"], arguments=["--to", "a folder"])
    task.grant(people["viewer"], "view_task")
    task.grant(people["runner"], "view_task", "run_task")
    task.grant(people["editor"], "view_task", "change_task")
    task.grant(people["planner"], "view_task", "change_task")
    task.grant(people["reader"], "view_output")
    task.grant(people["visitor"], *TASK_PERMISSIONS)
    hidden = a_task(SECRET, User.objects.create_user("paymaster", is_staff=True), program_path="report.py")
    recurrence = Recurrence.objects.create(name="Nightly", kind="every", every=1, unit="days")
    now = timezone.now()
    poller = Poller.objects.create(
        host=uuid.uuid4(),
        host_name="here",
        pid=1,
        boot_id="b",
        start_ticks=1,
        version="1",
        capacity=4,
        started_at=now,
        seen_at=now,
    )
    return World(
        people,
        task,
        hidden,
        recurrence,
        schedule=Schedule.objects.create(task=task, recurrence=recurrence),
        hidden_schedule=Schedule.objects.create(task=hidden, recurrence=recurrence),
        run=a_finished_run(task),
        hidden_run=a_finished_run(hidden),
        poller=poller,
        entry=AuditEntry.objects.create(at=now, action="run", user_name="someone", task=task, task_name=task.name),
        hidden_entry=AuditEntry.objects.create(at=now, action="run", user_name="x", task=hidden, task_name=hidden.name),
    )


def url(model: type, page: str, *args: Any) -> str:
    return reverse(f"admin:scheduler_{model.__name__.lower()}_{page}", args=args)


def text_of(response: Any) -> str:
    return str(response.content.decode())


def messages_of(response: Any) -> list[str]:
    return [str(message) for message in response.context["messages"]]


def inline_data(*schedules: dict[str, Any], initial: int = 0) -> dict[str, Any]:
    data: dict[str, Any] = {"schedules-TOTAL_FORMS": len(schedules), "schedules-INITIAL_FORMS": initial}
    for number, schedule in enumerate(schedules):
        data |= {f"schedules-{number}-{name}": value for name, value in schedule.items()}
    return data


def task_data(**values: Any) -> dict[str, Any]:
    return {
        "name": "New task",
        "program_path": "programs/report.py",
        "arguments": "",
        "environment": "django",
        "enabled": "on",
        "grace_seconds": "10",
        "overlap": "skip",
        "max_runs": "1",
        "priority": "2",
        "retries": "0",
        "retry_delay_seconds": "60",
        "retry_factor": "1",
        "after_failure": "keep",
        "follow_ups-TOTAL_FORMS": "0",
        "follow_ups-INITIAL_FORMS": "0",
        **inline_data(),
        **values,
    }


def schedule_data(recurrence: Recurrence, /, **values: Any) -> dict[str, Any]:
    return {
        "recurrence": recurrence.pk,
        "time_zone": "Europe/Amsterdam",
        "anchor": "2020-01-31T09:00:00",
        "catch_up": "once",
        "catch_up_limit": "10",
        "jitter_seconds": "0",
        "enabled": "on",
        **values,
    }


def assert_error(response: Any, field: str, sentence: str, form: Any = None) -> None:
    assert response.status_code == 200
    form = form or response.context["adminform"].form
    assert sentence in " ".join(form.errors.get(field, [])), form.errors


# Every address, for every role

SEES_TASKS = {"owner", "viewer", "runner", "editor", "planner", "overseer", "admin"}
SEES_BACKUP = SEES_TASKS
CHANGES_BACKUP = {"owner", "editor", "planner", "admin"}
SEES_SECRET = {"overseer", "admin"}
STAFF = SEES_TASKS | {"reader", "stranger", "adder"}
EVERYBODY = {*STAFF, "anonymous", "visitor"}


def expected(allowed: set[str], visible: set[str] | None = None) -> dict[str, int]:
    """200 for those who may, 403 for those who may only see, 404 for those who may not see, 302 to the log-in page."""
    visible = STAFF if visible is None else visible
    return {
        name: 302 if name not in STAFF else 200 if name in allowed else 403 if name in visible else 404
        for name in EVERYBODY
    }


PAGES: dict[str, tuple[Any, dict[str, int]]] = {
    "tasks": (lambda w: url(Task, "changelist"), expected(SEES_TASKS | {"adder"})),
    "add a task": (lambda w: url(Task, "add"), expected({"adder", "admin"})),
    "a task": (lambda w: url(Task, "change", w.task.pk), expected(SEES_BACKUP, SEES_BACKUP)),
    "a task's history": (lambda w: url(Task, "history", w.task.pk), expected(SEES_BACKUP, SEES_BACKUP)),
    "delete a task": (lambda w: url(Task, "delete", w.task.pk), expected({"owner", "admin"}, SEES_BACKUP)),
    "a task's access": (lambda w: url(Task, "access", w.task.pk), expected({"owner", "admin"}, SEES_BACKUP)),
    "the secret": (lambda w: url(Task, "change", w.hidden.pk), expected(SEES_SECRET, SEES_SECRET)),
    "the secret's history": (lambda w: url(Task, "history", w.hidden.pk), expected(SEES_SECRET, SEES_SECRET)),
    "delete the secret": (lambda w: url(Task, "delete", w.hidden.pk), expected({"admin"}, SEES_SECRET)),
    "the secret's access": (lambda w: url(Task, "access", w.hidden.pk), expected({"admin"}, SEES_SECRET)),
    "schedules": (lambda w: url(Schedule, "changelist"), expected(SEES_TASKS)),
    "add a schedule": (lambda w: url(Schedule, "add"), expected(CHANGES_BACKUP)),
    "a schedule": (lambda w: url(Schedule, "change", w.schedule.pk), expected(SEES_BACKUP, SEES_BACKUP)),
    "a schedule's history": (lambda w: url(Schedule, "history", w.schedule.pk), expected(SEES_BACKUP, SEES_BACKUP)),
    "delete a schedule": (lambda w: url(Schedule, "delete", w.schedule.pk), expected(CHANGES_BACKUP, SEES_BACKUP)),
    "a secret schedule": (lambda w: url(Schedule, "change", w.hidden_schedule.pk), expected(SEES_SECRET, SEES_SECRET)),
    "delete a secret schedule": (
        lambda w: url(Schedule, "delete", w.hidden_schedule.pk),
        expected({"admin"}, SEES_SECRET),
    ),
    "runs": (lambda w: url(Run, "changelist"), expected(SEES_TASKS)),
    "add a run": (lambda w: url(Run, "add"), expected(set())),
    "a run": (lambda w: url(Run, "change", w.run.pk), expected(SEES_BACKUP, SEES_BACKUP)),
    "a run's history": (lambda w: url(Run, "history", w.run.pk), expected(SEES_BACKUP, SEES_BACKUP)),
    "delete a run": (lambda w: url(Run, "delete", w.run.pk), expected(set(), SEES_BACKUP)),
    "a secret run": (lambda w: url(Run, "change", w.hidden_run.pk), expected(SEES_SECRET, SEES_SECRET)),
    "a secret run's history": (lambda w: url(Run, "history", w.hidden_run.pk), expected(SEES_SECRET, SEES_SECRET)),
    "delete a secret run": (lambda w: url(Run, "delete", w.hidden_run.pk), expected(set(), SEES_SECRET)),
    "recurrences": (lambda w: url(Recurrence, "changelist"), expected(SEES_TASKS | {"adder"})),
    "add a recurrence": (lambda w: url(Recurrence, "add"), expected({"planner", "admin"})),
    "a recurrence": (lambda w: url(Recurrence, "change", w.recurrence.pk), expected(SEES_TASKS | {"adder"})),
    # The secret task uses it, too.
    "delete a recurrence": (lambda w: url(Recurrence, "delete", w.recurrence.pk), expected({"admin"})),
    "calendars": (lambda w: url(Calendar, "changelist"), expected(SEES_TASKS | {"adder"})),
    "add a calendar": (lambda w: url(Calendar, "add"), expected({"admin"})),
    "a calendar": (lambda w: url(Calendar, "change", a_calendar().pk), expected(SEES_TASKS | {"adder"})),
    "delete a calendar": (lambda w: url(Calendar, "delete", a_calendar().pk), expected({"admin"})),
    "groups": (lambda w: url(ConcurrencyGroup, "changelist"), expected(SEES_TASKS | {"adder"})),
    "add a group": (lambda w: url(ConcurrencyGroup, "add"), expected({"admin"})),
    "a group": (lambda w: url(ConcurrencyGroup, "change", a_group().pk), expected(SEES_TASKS | {"adder"})),
    "a group's history": (lambda w: url(ConcurrencyGroup, "history", a_group().pk), expected(SEES_TASKS | {"adder"})),
    "delete a group": (lambda w: url(ConcurrencyGroup, "delete", a_group().pk), expected({"admin"})),
    "pollers": (lambda w: url(Poller, "changelist"), expected({"overseer", "admin"})),
    "a poller": (lambda w: url(Poller, "change", w.poller.pk), expected({"overseer", "admin"})),
    "add a poller": (lambda w: url(Poller, "add"), expected(set())),
    "delete a poller": (lambda w: url(Poller, "delete", w.poller.pk), expected(set())),
    "the audit": (lambda w: url(AuditEntry, "changelist"), expected({"owner", "admin"})),
    "an audit entry": (
        lambda w: url(AuditEntry, "change", w.entry.pk),
        expected({"owner", "admin"}, {"owner", "admin"}),
    ),
    "a secret audit entry": (
        lambda w: url(AuditEntry, "change", w.hidden_entry.pk),
        expected({"admin"}, {"admin"}),
    ),
    "add an audit entry": (lambda w: url(AuditEntry, "add"), expected(set())),
    "the app": (
        lambda w: reverse("admin:app_list", args=["scheduler"]),
        {**expected(SEES_TASKS | {"adder"}), "reader": 404, "stranger": 404},
    ),
}


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_page_answers_each_role_as_it_may(world: World, page: str) -> None:
    address, statuses = PAGES[page]
    answers = {name: world.client(name).get(address(world)).status_code for name in EVERYBODY}
    assert answers == statuses


def test_the_pages_above_are_all_that_the_scheduler_has_in_the_admin(world: World) -> None:
    models = {Task, Calendar, ConcurrencyGroup, Recurrence, Schedule, Run, Poller, AuditEntry}
    registered = {model for model in django_admin.site._registry if model._meta.app_label == "scheduler"}
    assert registered == models
    names = {
        pattern.name for model in models for pattern in django_admin.site._registry[model].get_urls() if pattern.name
    }
    pages = {name.rsplit("_", 1)[1] for name in names}
    assert pages == {"changelist", "add", "change", "history", "delete", "access"}


@pytest.mark.parametrize("name", sorted(EVERYBODY))
def test_nobody_who_may_not_see_a_task_meets_its_name(world: World, name: str) -> None:
    client = world.client(name)
    for address, _statuses in PAGES.values():
        seen = SECRET in text_of(client.get(address(world)))
        if name not in SEES_SECRET:
            assert not seen, address(world)


@pytest.mark.parametrize("page", sorted(PAGES))
def test_whoever_may_at_most_see_changes_nothing_by_posting(world: World, page: str) -> None:
    address = PAGES[page][0](world)
    before = list(Task.objects.values()), list(Schedule.objects.values()), list(Recurrence.objects.values())
    data = {**task_data(name="Taken over"), "post": "yes", "kind": "once", "recurrence": world.recurrence.pk}
    for name in ("anonymous", "visitor", "reader", "stranger", "viewer", "runner", "overseer"):
        world.client(name).post(address, data)
    assert before == (list(Task.objects.values()), list(Schedule.objects.values()), list(Recurrence.objects.values()))
    assert Run.objects.count() == 2


def test_an_object_permission_of_a_user_who_was_disabled_is_worth_nothing(world: World) -> None:
    client = world.client("owner")
    assert client.get(url(Task, "changelist")).status_code == 200
    User.objects.filter(username="owner").update(is_active=False)
    assert client.get(url(Task, "changelist")).status_code == 302


def test_a_group_gives_what_it_may_do(world: World) -> None:
    group = Group.objects.create(name="Operators")
    world.people["stranger"].groups.add(group)
    TaskGroupObjectPermission.objects.create(
        group=group, content_object=world.task, permission=Permission.objects.get(codename="view_task")
    )
    answer = world.client("stranger").get(url(Task, "changelist"))
    assert "Backup" in text_of(answer)
    assert SECRET not in text_of(answer)


def test_a_pollers_room_is_shown_and_that_it_is_too_little(world: World) -> None:
    client = world.client("overseer")
    assert "too little" not in text_of(client.get(url(Poller, "changelist")))
    Poller.objects.update(free_bytes=5 * 1024**2, is_out_of_room=True)
    assert "5.0\xa0MB: too little, it starts no run" in text_of(client.get(url(Poller, "changelist")))


def test_whoever_sees_no_task_is_not_offered_the_scheduler_on_the_start_page(world: World) -> None:
    start = reverse("admin:index")
    assert url(Task, "changelist") not in text_of(world.client("stranger").get(start))
    assert url(Task, "changelist") in text_of(world.client("viewer").get(start))
    assert url(Poller, "changelist") not in text_of(world.client("viewer").get(start))


# What lists, filters, searches and look-ups might give away


def test_filters_name_only_what_belongs_to_visible_tasks(world: World) -> None:
    User.objects.filter(scheduler_tasks=world.hidden).update(username="mr-paymaster")
    page = text_of(world.client("viewer").get(url(Task, "changelist")))
    assert "mr-paymaster" not in page
    runs = text_of(world.client("viewer").get(url(Run, "changelist")))
    assert SECRET not in runs
    assert "mr-paymaster" in text_of(world.client("admin").get(url(Task, "changelist")))


@pytest.mark.parametrize(
    ("model", "query"),
    [
        (Task, "owner__password__startswith=m"),
        (Task, "owner__username=paymaster"),
        (Task, "name__startswith=P"),
        (Task, "program_path__contains=re"),
        (Task, "schedules__task__name=x"),
        (Task, "runs__task__name__contains=x"),
        (Task, "taskuserobjectpermission__user=1"),
        (Task, "enabled__regex=x"),
        (Schedule, "task__name__startswith=P"),
        (Schedule, "task__owner__password__startswith=m"),
        (Run, "requested_by__password__startswith=m"),
        (Run, "schedule__task__name__startswith=P"),
        (Run, "claim_token__startswith=a"),
        (Recurrence, "schedules__task__name__startswith=P"),
        (Poller, "boot_id__startswith=b"),
    ],
)
def test_a_list_cannot_be_asked_about_what_it_offers_no_filter_for(world: World, model: type, query: str) -> None:
    assert world.client("admin").get(f"{url(model, 'changelist')}?{query}").status_code == 400


def test_the_offered_filters_work(world: World) -> None:
    client = world.client("admin")
    owner = world.people["owner"].pk
    for model, query in [
        (Task, f"owner__id__exact={owner}&enabled__exact=1&environment__exact=django"),
        (Task, "owner__isnull=False"),
        (Run, f"status__exact=completed&trigger__exact=schedule&task__id__exact={world.task.pk}"),
        (Schedule, f"enabled__exact=1&task__id__exact={world.task.pk}&recurrence__id__exact={world.recurrence.pk}"),
        (Recurrence, "kind__exact=every"),
    ]:
        answer = client.get(f"{url(model, 'changelist')}?{query}")
        assert answer.status_code == 200, query
        assert answer.context["cl"].result_count >= 1, query


def test_filtering_by_a_hidden_task_finds_nothing(world: World) -> None:
    answer = world.client("viewer").get(f"{url(Run, 'changelist')}?task__id__exact={world.hidden.pk}")
    assert list(answer.context["cl"].queryset) == []


@pytest.mark.parametrize("term", ["Payroll", "report", "programs"])
def test_the_search_finds_visible_tasks_only(world: World, term: str) -> None:
    found = world.client("viewer").get(url(Task, "changelist"), {"q": term}).context["cl"].queryset
    assert world.hidden not in found
    assert world.hidden in world.client("admin").get(url(Task, "changelist"), {"q": term}).context["cl"].queryset


def test_runs_are_searched_by_number_and_by_the_name_of_their_task(world: World) -> None:
    client = world.client("viewer")
    for term in (str(world.run.pk), "back"):
        assert list(client.get(url(Run, "changelist"), {"q": term}).context["cl"].queryset) == [world.run]
    for term in (str(world.hidden_run.pk), "payroll", "9" * 40):
        assert list(client.get(url(Run, "changelist"), {"q": term}).context["cl"].queryset) == []


@pytest.mark.parametrize(("model", "field"), [("schedule", "task"), ("run", "task"), ("run", "schedule")])
def test_autocomplete_offers_visible_rows_only(world: World, model: str, field: str) -> None:
    query = {"app_label": "scheduler", "model_name": model, "field_name": field, "term": ""}
    answer = world.client("viewer").get(reverse("admin:autocomplete"), query)
    texts = [row["text"] for row in answer.json()["results"]]
    assert texts
    assert not any(SECRET in text for text in texts)
    assert world.client("stranger").get(reverse("admin:autocomplete"), query).status_code == 403


def test_a_schedule_is_offered_only_tasks_that_one_may_change(world: World) -> None:
    readable = a_task("Read only")
    readable.grant(world.people["editor"], "view_task")
    changeable_but_hidden = a_task("Unseen")
    changeable_but_hidden.grant(world.people["editor"], "change_task")
    client = world.client("editor")
    form = client.get(url(Schedule, "add")).context["adminform"].form
    assert [str(task) for task in form.fields["task"].queryset] == ["Backup"]
    for task in (world.hidden, readable, changeable_but_hidden):
        answer = client.post(url(Schedule, "add"), schedule_data(world.recurrence, task=task.pk))
        assert_error(answer, "task", "valid choice")
    popup = text_of(client.get(url(Schedule, "add"), {"_popup": 1, "task": world.hidden.pk}))
    assert SECRET not in popup


def test_a_schedule_does_not_move_to_another_task(world: World) -> None:
    other = a_task("Other", world.people["owner"])
    answer = world.client("owner").post(
        url(Schedule, "change", world.schedule.pk), schedule_data(world.recurrence, task=other.pk)
    )
    assert answer.status_code == 302
    world.schedule.refresh_from_db()
    assert world.schedule.task == world.task


def test_a_schedule_of_another_task_cannot_be_changed_through_ones_own(world: World) -> None:
    stolen = schedule_data(world.recurrence, id=world.hidden_schedule.pk, task=world.task.pk, time_zone="Asia/Tokyo")
    world.client("owner").post(
        url(Task, "change", world.task.pk), task_data(name="Backup", **inline_data(stolen, initial=1))
    )
    world.hidden_schedule.refresh_from_db()
    assert world.hidden_schedule.task == world.hidden
    assert world.hidden_schedule.time_zone != "Asia/Tokyo"


def test_the_number_of_schedules_of_a_recurrence_counts_visible_tasks_only(world: World) -> None:
    for name, count in (("viewer", 1), ("admin", 2)):
        (row,) = world.client(name).get(url(Recurrence, "changelist")).context["cl"].result_list
        assert row.visible_schedules == count


# A task


def test_a_task_with_a_schedule_is_made_and_stands_in_the_queue(world: World) -> None:
    data = task_data(arguments="--to 'a folder' x", **inline_data(schedule_data(world.recurrence)))
    answer = world.client("adder").post(url(Task, "add"), data, follow=True)
    assert any("was added successfully" in message for message in messages_of(answer))
    task = Task.objects.get(name="New task")
    assert (task.program, task.arguments, task.owner) == (
        "programs/report.py",
        ["--to", "a folder", "x"],
        world.people["adder"],
    )
    assert all(access.can(world.people["adder"], action, task) for action in TASK_PERMISSIONS)
    run = task.runs.undecided().get()
    assert run == task.schedules.get().next_run
    assert timezone.localtime(run.due_at, task.schedules.get().zone).hour == 9
    assert run.due_at > timezone.now()


def test_the_owner_of_a_new_task_is_who_makes_it_whatever_was_posted(world: World) -> None:
    client = world.client("adder")
    assert "owner" not in client.get(url(Task, "add")).context["adminform"].form.fields
    client.post(url(Task, "add"), task_data(owner="admin", owner_id=world.people["admin"].pk))
    assert Task.objects.get(name="New task").owner == world.people["adder"]


def test_the_owner_of_a_task_is_not_changed_by_who_may_only_change_this_task(world: World) -> None:
    client = world.client("editor")
    data = task_data(name="Backup", owner="editor", program_root="elsewhere", created_at="2020-01-01", next_run="1")
    assert client.post(url(Task, "change", world.task.pk), data).status_code == 302
    world.task.refresh_from_db()
    assert world.task.owner == world.people["owner"]
    assert world.task.program == "programs/report.py"
    assert not access.can(world.people["editor"], "manage_access", world.task)


def test_a_superuser_chooses_the_owner_by_exact_name(world: World) -> None:
    client = world.client("admin")
    form = client.get(url(Task, "add")).context["adminform"].form
    assert form["owner"].value() == "admin"
    assert 'value="admin"' in str(form["owner"])
    assert_error(client.post(url(Task, "add"), task_data(owner="nobody")), "owner", "There is no user “nobody”.")
    client.post(url(Task, "add"), task_data(owner="viewer"))
    made = Task.objects.get(name="New task")
    assert made.owner == world.people["viewer"]
    assert access.can(made.owner, "manage_access", made)
    page = client.get(url(Task, "change", made.pk))
    assert 'value="viewer"' in str(page.context["adminform"].form["owner"])
    client.post(url(Task, "change", made.pk), task_data(name="Renamed", owner="viewer"))
    assert "owner" not in LogEntry.objects.get(object_id=made.pk, action_flag=2).change_message.lower()


def test_the_program_is_one_of_those_found(world: World) -> None:
    client = world.client("admin")
    form = client.get(url(Task, "add")).context["adminform"].form
    assert [value for value, _label in form.fields["program_path"].choices] == [
        "",
        "programs/backup.py",
        "programs/report.py",
    ]
    for typed in (
        "programs/../secret.py",
        "/etc/passwd",
        "programs/missing.py",
        "other/backup.py",
        "programs/x\0.py",
        "",
    ):
        answer = client.post(url(Task, "add"), task_data(program_path=typed))
        assert answer.status_code == 200
        assert answer.context["adminform"].form.errors["program_path"]
    assert not Task.objects.filter(name="New task").exists()


def test_a_program_that_is_gone_is_said_and_kept_but_not_saved(world: World, programs: Path) -> None:
    (programs / "backup.py").unlink()
    client = world.client("owner")
    page = client.get(url(Task, "change", world.task.pk))
    field = page.context["adminform"].form["program_path"]
    assert field.value() == "programs/backup.py"
    assert "programs/backup.py (cannot be run)" in str(field)
    assert "“programs/backup.py” cannot be read: No such file or directory." in text_of(page)
    answer = client.post(
        url(Task, "change", world.task.pk), task_data(name="Backup", program_path="programs/backup.py")
    )
    assert_error(answer, "program_path", "No such file or directory")
    answer = client.post(
        url(Task, "change", world.task.pk), task_data(name="Backup", program_path="programs/report.py")
    )
    assert answer.status_code == 302
    world.task.refresh_from_db()
    assert world.task.program == "programs/report.py"


def test_a_program_that_others_can_write_is_refused_with_its_sentence(world: World, programs: Path) -> None:
    (programs / "backup.py").chmod(0o666)
    answer = world.client("owner").post(
        url(Task, "change", world.task.pk), task_data(name="Backup", program_path="programs/backup.py")
    )
    assert_error(answer, "program_path", "can be written by other users")


def test_without_any_program_the_form_says_what_to_do(world: World, programs: Path) -> None:
    for file in programs.iterdir():
        file.unlink()
    assert "No program was found" in text_of(world.client("admin").get(url(Task, "add")))


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        ("", []),
        ("a  b", ["a", "b"]),
        ("--to 'a folder' \"it's\"", ["--to", "a folder", "it's"]),
        ("$(reboot) ; rm -rf / | `x` # no", ["$(reboot)", ";", "rm", "-rf", "/", "|", "`x`", "#", "no"]),
        ("'' x", ["", "x"]),
        ("'two\r\nlines'", ["two\nlines"]),
        (r"a\ ", ["a "]),
    ],
)
def test_arguments_are_one_line_and_a_list(world: World, line: str, arguments: list[str]) -> None:
    client = world.client("owner")
    assert client.post(url(Task, "change", world.task.pk), task_data(name="Backup", arguments=line)).status_code == 302
    world.task.refresh_from_db()
    assert world.task.arguments == arguments
    # What is shown reads back as the same.
    page = client.get(url(Task, "change", world.task.pk)).text
    shown = re.search(r'<textarea name="arguments"[^>]*>(.*?)</textarea>', page, re.DOTALL)
    assert shown is not None
    client.post(url(Task, "change", world.task.pk), task_data(name="Backup", arguments=html.unescape(shown[1])))
    world.task.refresh_from_db()
    assert world.task.arguments == arguments


@pytest.mark.parametrize("line", ["'open", 'say "so', "end\\"])
def test_an_unbalanced_quote_is_a_sentence_at_the_field(world: World, line: str) -> None:
    answer = world.client("owner").post(url(Task, "change", world.task.pk), task_data(name="Backup", arguments=line))
    assert_error(answer, "arguments", "not closed")
    # What was typed is still there to be mended.
    assert answer.context["adminform"].form["arguments"].value().line == line


def test_an_argument_with_nul_is_refused(world: World) -> None:
    answer = world.client("owner").post(url(Task, "change", world.task.pk), task_data(name="Backup", arguments="a\0b"))
    assert_error(answer, "arguments", "contains a NUL character")


def test_the_form_says_that_editing_is_running_code_and_what_holds_secrets(world: World) -> None:
    page = text_of(world.client("editor").get(url(Task, "change", world.task.pk)))
    assert "editing a task is running code" in page
    assert "holds the site&#x27;s secrets" in page


def test_whoever_may_only_see_a_task_reads_it_without_a_form(world: World) -> None:
    page = text_of(world.client("viewer").get(url(Task, "change", world.task.pk)))
    assert "programs/<wbr>backup.py" in page
    assert "--to &#x27;a folder&#x27;" in page
    assert 'name="_save"' not in page
    assert url(Task, "access", world.task.pk) not in page


def test_a_hostile_name_is_text(world: World) -> None:
    world.task.name = "<script>alert(1)</script>"
    world.task.save()
    a_run_in_progress(world.task)
    client = world.client("owner")
    pages = [
        client.get(url(Task, "changelist")),
        client.get(url(Task, "change", world.task.pk)),
        client.get(url(Task, "delete", world.task.pk)),
        client.get(url(Task, "access", world.task.pk)),
        client.get(url(Run, "changelist")),
        client.post(url(Task, "changelist"), {"action": "run_now", "_selected_action": [world.task.pk]}, follow=True),
    ]
    for page in pages:
        assert "&lt;script&gt;alert(1)" in text_of(page)
        assert "<script>alert(1)" not in text_of(page)


def test_no_page_of_ours_has_an_inline_script_or_style(world: World) -> None:
    page = text_of(world.client("owner").get(url(Task, "access", world.task.pk)))
    content = page[page.index('id="content-main"') :]
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\son\w+=|\sstyle=", content.split('id="footer"')[0])


# The list of tasks


def test_the_list_shows_the_next_and_the_last_run_with_the_same_number_of_queries_for_any_number_of_tasks(
    world: World,
) -> None:
    client = world.client("viewer")

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            client.get(url(Task, "changelist"))
        return len(captured)

    queries()  # content types are remembered
    few = queries()
    for number in range(10):
        task = a_task(f"Task {number}", world.people["owner"])
        task.grant(world.people["viewer"], "view_task")
        a_finished_run(task)
        Schedule.objects.create(task=task, recurrence=world.recurrence).plan(timezone.now())
    assert queries() == few


def test_the_list_shows_how_a_task_ended_last_and_when_it_runs_next(world: World) -> None:
    failed = a_finished_run(world.task, status=Status.FAILED, exit_code=3)
    world.schedule.plan(timezone.now())
    answer = world.client("viewer").get(url(Task, "changelist"))
    (row,) = answer.context["cl"].result_list
    assert row.newest_run == failed
    assert row.next_due_at == world.task.runs.undecided().get().due_at
    assert failed.get_absolute_url() in text_of(answer)
    running = a_run_in_progress(world.task)
    (row,) = world.client("viewer").get(url(Task, "changelist")).context["cl"].result_list
    assert row.newest_run == running


def select(client: Client, action: str, *tasks: Task, **data: Any) -> Any:
    return client.post(
        url(Task, "changelist"),
        {"action": action, "_selected_action": [task.pk for task in tasks], **data},
        follow=True,
    )


def test_run_now_starts_what_one_may_run_and_says_what_was_left_out(world: World) -> None:
    seen = a_task("Only seen")
    seen.grant(world.people["runner"], "view_task")
    off = a_task("Switched off", enabled=False)
    off.grant(world.people["runner"], "view_task", "run_task")
    answer = select(world.client("runner"), "run_now", world.task, seen, off, world.hidden)
    assert sorted(messages_of(answer)) == [
        "Left out “Only seen”: you do not have the permission for that.",
        "Left out “Switched off”: “Switched off” is disabled. Enable it, then start it.",
        "Queued a run of “Backup”.",
    ]
    run = Run.objects.unfinished().get()
    assert (run.task, run.requested_by, run.trigger) == (world.task, world.people["runner"], Run.Trigger.MANUAL)


def test_enable_and_disable_change_only_what_one_may_change(world: World) -> None:
    seen = a_task("Only seen")
    seen.grant(world.people["editor"], "view_task")
    client = world.client("editor")
    answer = select(client, "disable", world.task, seen, world.hidden)
    assert "Disabled “Backup”." in messages_of(answer)
    assert "Left out “Only seen”: you do not have the permission for that." in messages_of(answer)
    assert {task.name: task.enabled for task in Task.objects.all()} == {
        "Backup": False,
        "Only seen": True,
        SECRET: True,
    }
    assert LogEntry.objects.get().object_id == str(world.task.pk)
    select(client, "enable", world.task)
    assert Task.objects.get(pk=world.task.pk).enabled


def test_an_action_that_one_may_do_to_no_task_is_not_offered_and_not_done(world: World) -> None:
    client = world.client("viewer")
    assert 'value="run_now"' not in text_of(client.get(url(Task, "changelist")))
    for action in ("run_now", "enable", "disable", "delete_selected"):
        select(client, action, world.task, post="yes")
    assert Task.objects.count() == 2
    assert Task.objects.get(pk=world.task.pk).enabled
    assert not Run.objects.unfinished().exists()


def test_the_csrf_token_is_needed(world: World) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(world.people["admin"], backend="django.contrib.auth.backends.ModelBackend")
    assert client.post(url(Task, "access", world.task.pk), {"give": []}).status_code == 403
    assert (
        client.post(url(Task, "changelist"), {"action": "run_now", "_selected_action": [world.task.pk]}).status_code
        == 403
    )


# Deleting


def test_a_task_is_deleted_with_its_runs_which_are_counted_and_not_listed(world: World) -> None:
    client = world.client("owner")
    page = client.get(url(Task, "delete", world.task.pk))
    assert dict(page.context["model_count"]) == {"tasks": 1, "schedules": 1, "runs": 1}
    assert not page.context["perms_lacking"]
    client.post(url(Task, "delete", world.task.pk), {"post": "yes"})
    assert list(Task.objects.all()) == [world.hidden]
    assert list(Run.objects.all()) == [world.hidden_run]


def test_a_task_with_a_run_in_progress_is_not_deleted(world: World) -> None:
    run = a_run_in_progress(world.task)
    client = world.client("owner")
    for answer in (
        client.get(url(Task, "delete", world.task.pk)),
        client.post(url(Task, "delete", world.task.pk), {"post": "yes"}),
        select(client, "delete_selected", world.task),
        select(client, "delete_selected", world.task, post="yes"),
    ):
        assert answer.status_code == 200
        assert "Stop" in text_of(answer)
        assert "run in progress" in text_of(answer)
        assert run.get_absolute_url() in text_of(answer)
    assert Task.objects.filter(pk=world.task.pk).exists()


def test_a_run_that_starts_after_the_question_still_keeps_its_task(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_run_in_progress(world.task)
    task_admin = django_admin.site._registry[Task]
    monkeypatch.setattr(task_admin, "get_deleted_objects", lambda objs, request: ([], {}, set(), []))
    client = world.client("owner")
    sentence = "The task has a run in progress. Stop it, then delete the task."
    for answer in (
        client.post(url(Task, "delete", world.task.pk), {"post": "yes"}, follow=True),
        select(client, "delete_selected", world.task, post="yes"),
    ):
        assert messages_of(answer) == [sentence]
    assert Task.objects.filter(pk=world.task.pk).exists()
    # Nor does the history claim that it was deleted.
    assert not LogEntry.objects.filter(action_flag=3).exists()
    with pytest.raises(ProtectedError):
        world.task.delete()


def test_a_bulk_delete_asks_for_each_task(world: World) -> None:
    seen = a_task("Only seen")
    seen.grant(world.people["owner"], "view_task")
    client = world.client("owner")
    page = select(client, "delete_selected", world.task, seen, world.hidden)
    assert page.context["perms_lacking"] == {"Task: Only seen"}
    assert (
        client.post(
            url(Task, "changelist"),
            {"action": "delete_selected", "_selected_action": [world.task.pk, seen.pk], "post": "yes"},
        ).status_code
        == 403
    )
    assert Task.objects.count() == 3
    answer = select(client, "delete_selected", world.task, world.hidden, post="yes")
    assert messages_of(answer) == ["Successfully deleted 1 task."]
    assert {task.name for task in Task.objects.all()} == {"Only seen", SECRET}


def test_a_schedule_that_is_deleted_takes_its_slot_out_of_the_queue(world: World) -> None:
    client = world.client("owner")
    deletions: list[Callable[[Schedule], Any]] = [
        lambda schedule: client.post(url(Schedule, "delete", schedule.pk), {"post": "yes"}),
        lambda schedule: client.post(
            url(Schedule, "changelist"), {"action": "delete_selected", "_selected_action": [schedule.pk], "post": "yes"}
        ),
        lambda schedule: client.post(
            url(Task, "change", world.task.pk),
            task_data(
                name="Backup",
                **inline_data(
                    schedule_data(world.recurrence, id=schedule.pk, task=world.task.pk, DELETE="on"), initial=1
                ),
            ),
        ),
    ]
    world.schedule.delete()
    for delete in deletions:
        schedule = Schedule.objects.create(task=world.task, recurrence=world.recurrence)
        schedule.plan(timezone.now())
        assert Run.objects.undecided().count() == 1
        assert delete(schedule).status_code == 302
        assert not Schedule.objects.filter(pk=schedule.pk).exists()
        assert not Run.objects.undecided().exists()


def test_schedules_of_others_are_not_deleted_in_bulk(world: World) -> None:
    world.hidden.grant(world.people["owner"], "view_task")
    data = {
        "action": "delete_selected",
        "_selected_action": [world.schedule.pk, world.hidden_schedule.pk],
        "post": "yes",
    }
    assert world.client("owner").post(url(Schedule, "changelist"), data).status_code == 403
    assert Schedule.objects.count() == 2


# A schedule


def add_schedule(world: World, **values: Any) -> Any:
    return world.client("owner").post(
        url(Schedule, "add"), schedule_data(world.recurrence, task=world.task.pk, **values), follow=True
    )


def newest_schedule() -> Schedule:
    return Schedule.objects.latest("pk")


def test_a_schedules_times_are_those_of_its_own_zone(world: World) -> None:
    add_schedule(world, anchor="2026-07-01T09:00", ends_at="2036-12-31 23:30", time_zone="America/New_York")
    schedule = newest_schedule()
    assert schedule.anchor == datetime(2026, 7, 1, 13, 0, tzinfo=UTC)
    assert schedule.ends_at == datetime(2037, 1, 1, 4, 30, tzinfo=UTC)
    page = world.client("owner").get(url(Schedule, "change", schedule.pk))
    assert 'value="2026-07-01T09:00:00"' in text_of(page)
    assert 'value="2036-12-31T23:30:00"' in text_of(page)
    shown = text_of(world.client("viewer").get(url(Schedule, "change", schedule.pk)))
    assert "Wed 2026-07-01 09:00:00 EDT" in shown


def test_another_zone_keeps_the_time_on_the_wall(world: World) -> None:
    add_schedule(world, anchor="2026-07-01T09:00", time_zone="America/New_York")
    schedule = newest_schedule()
    client = world.client("owner")
    client.post(
        url(Schedule, "change", schedule.pk),
        schedule_data(world.recurrence, anchor="2026-07-01T09:00:00", time_zone="Europe/Amsterdam"),
    )
    schedule.refresh_from_db()
    assert schedule.anchor == datetime(2026, 7, 1, 7, 0, tzinfo=UTC)


def test_a_time_that_clocks_leave_out_is_a_sentence_at_the_field(world: World) -> None:
    answer = add_schedule(world, anchor="2026-03-29T02:30", ends_at="2027-03-28T02:30")
    assert_error(answer, "anchor", "2026-03-29 02:30 does not exist in Europe/Amsterdam")
    assert_error(answer, "ends_at", "2027-03-28 02:30 does not exist in Europe/Amsterdam")


def test_of_a_time_that_comes_twice_the_first_is_meant(world: World) -> None:
    add_schedule(world, anchor="2026-10-25T02:30")
    assert newest_schedule().anchor == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


def test_an_anchor_that_is_not_touched_stays_as_it_was(world: World) -> None:
    second_of_two = datetime(2026, 10, 25, 1, 30, 12, 345678, tzinfo=UTC)
    Schedule.objects.filter(pk=world.schedule.pk).update(anchor=second_of_two, time_zone="Europe/Amsterdam")
    world.client("owner").post(
        url(Schedule, "change", world.schedule.pk),
        schedule_data(world.recurrence, anchor="2026-10-25T02:30:12", ends_at=""),
    )
    world.schedule.refresh_from_db()
    assert world.schedule.anchor == second_of_two


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../../etc/passwd", "", "/etc/localtime"])
def test_an_unknown_zone_is_a_sentence_at_the_field(world: World, zone: str) -> None:
    answer = add_schedule(world, time_zone=zone, ends_at="2030-01-01T00:00")
    assert_error(answer, "time_zone", f"There is no time zone “{zone}”" if zone else "required")
    assert list(answer.context["adminform"].form.errors) == ["time_zone"]


@pytest.mark.parametrize("typed", ["tomorrow", "2026-13-01T00:00", "2026-07-01T09:00+02:00", "9999-12-31T23:59"])
def test_what_is_no_time_is_a_sentence_at_the_field(world: World, typed: str) -> None:
    answer = add_schedule(world, anchor=typed, time_zone="America/New_York")
    assert_error(answer, "anchor", "")
    assert answer.context["adminform"].form.errors["anchor"]


def test_an_end_before_the_anchor_is_a_sentence_at_the_field(world: World) -> None:
    assert_error(add_schedule(world, ends_at="2019-01-01T00:00"), "ends_at", "The end is before the anchor")


def test_a_row_with_a_zone_that_is_gone_can_be_looked_at_and_mended(world: World) -> None:
    Schedule.objects.filter(pk=world.schedule.pk).update(
        time_zone="Gone/Zone", enabled=False, problem="Unknown time zone."
    )
    client = world.client("owner")
    page = client.get(url(Schedule, "change", world.schedule.pk))
    assert page.context["adminform"].form["time_zone"].value() == "Gone/Zone"
    assert "Unknown time zone." in text_of(page)
    assert client.get(url(Task, "change", world.task.pk)).status_code == 200
    assert world.client("viewer").get(url(Schedule, "change", world.schedule.pk)).status_code == 200
    answer = client.post(
        url(Schedule, "change", world.schedule.pk), schedule_data(world.recurrence, time_zone="Gone/Zone")
    )
    assert_error(answer, "time_zone", "There is no time zone “Gone/Zone”")
    client.post(url(Schedule, "change", world.schedule.pk), schedule_data(world.recurrence))
    world.schedule.refresh_from_db()
    assert (world.schedule.problem, world.schedule.time_zone) == ("", "Europe/Amsterdam")
    assert world.schedule.next_run is not None


def test_saving_a_schedule_plans_it_and_disabling_takes_it_out_of_the_queue(world: World) -> None:
    add_schedule(world)
    schedule = newest_schedule()
    assert schedule.next_run is not None
    assert schedule.stale_at is None
    client = world.client("owner")
    off = schedule_data(world.recurrence)
    del off["enabled"]
    client.post(url(Schedule, "change", schedule.pk), off)
    assert Schedule.objects.get(pk=schedule.pk).next_run is None
    assert not Run.objects.undecided().exists()


def test_a_schedule_is_disabled_and_enabled_on_its_tasks_page(world: World) -> None:
    client = world.client("owner")
    world.schedule.plan(timezone.now())
    row = schedule_data(world.recurrence, id=world.schedule.pk, task=world.task.pk)
    off = {name: value for name, value in row.items() if name != "enabled"}
    client.post(url(Task, "change", world.task.pk), task_data(name="Backup", **inline_data(off, initial=1)))
    assert not Run.objects.undecided().exists()
    client.post(url(Task, "change", world.task.pk), task_data(name="Backup", **inline_data(row, initial=1)))
    assert Run.objects.undecided().count() == 1


def test_a_schedules_arguments_replace_the_tasks_own_and_empty_means_those(world: World) -> None:
    add_schedule(world, arguments="--full 'x y'")
    assert newest_schedule().arguments == ["--full", "x y"]
    add_schedule(world, arguments="")
    assert newest_schedule().arguments is None
    assert_error(add_schedule(world, arguments="'"), "arguments", "not closed")


def test_a_schedule_that_will_never_run_is_said(world: World) -> None:
    once = Recurrence.objects.create(name="Once", kind="once")
    answer = add_schedule(world, recurrence=once.pk)
    assert any("it will not run" in message for message in messages_of(answer))
    assert newest_schedule().ended


def test_the_next_five_slots_are_shown_on_the_tasks_page_in_the_zone_and_in_utc(world: World) -> None:
    Schedule.objects.filter(pk=world.schedule.pk).update(
        anchor=datetime(2090, 7, 1, 13, 0, tzinfo=UTC), time_zone="America/New_York"
    )
    page = text_of(world.client("viewer").get(url(Task, "change", world.task.pk)))
    assert "2090-07-01 09:00:00 EDT</td><td>Sat 2090-07-01 13:00:00 UTC" in page
    assert "2090-07-05" in page
    assert "2090-07-06" not in page


def test_an_untouched_new_row_is_no_schedule_even_when_the_suggested_time_has_moved_on(world: World) -> None:
    untouched = {
        "recurrence": "",
        "time_zone": "UTC",
        "anchor": "2020-01-01T00:00:00",
        "ends_at": "",
        "catch_up": "once",
        "catch_up_limit": "10",
        "jitter_seconds": "0",
        "arguments": "",
        "enabled": "on",
    }
    data = task_data(**inline_data(untouched), **{"initial-schedules-0-anchor": "2020-01-01 00:00:00"})
    assert world.client("adder").post(url(Task, "add"), data).status_code == 302
    assert not Task.objects.get(name="New task").schedules.exists()


# Recurrences


@pytest.mark.parametrize(
    ("values", "field", "sentence"),
    [
        ({"kind": "every"}, "every", "Give a number"),
        ({"kind": "every", "every": "0", "unit": "days"}, "every", "1"),
        ({"kind": "every", "every": "5"}, "unit", "Choose a unit"),
        ({"kind": "cron", "cron": "61 * * * *"}, "cron", ""),
        ({"kind": "cron", "cron": ""}, "cron", ""),
    ],
)
def test_a_recurrence_that_makes_no_sense_is_a_sentence_at_the_field(
    world: World, values: dict[str, str], field: str, sentence: str
) -> None:
    answer = world.client("planner").post(url(Recurrence, "add"), {"name": "New", **values})
    assert_error(answer, field, sentence)
    assert answer.context["adminform"].form.errors[field]


def test_a_recurrence_is_made_and_listed_in_words(world: World) -> None:
    client = world.client("planner")
    client.post(url(Recurrence, "add"), {"name": "Quarterly hours", "kind": "every", "every": "15", "unit": "minutes"})
    made = Recurrence.objects.get(name="Quarterly hours")
    page = text_of(client.get(url(Recurrence, "changelist")))
    assert made.in_words in page
    assert "15" in made.in_words


def test_a_recurrence_that_others_use_is_looked_at_and_not_changed(world: World) -> None:
    client = world.client("planner")
    page = client.get(url(Recurrence, "change", world.recurrence.pk))
    assert "A task that you may not change uses this recurrence" in text_of(page)
    data = {"name": "Mine now", "kind": "once"}
    assert client.post(url(Recurrence, "change", world.recurrence.pk), data).status_code == 403
    bulk = {"action": "delete_selected", "_selected_action": [world.recurrence.pk], "post": "yes"}
    assert client.post(url(Recurrence, "changelist"), bulk).status_code in {200, 403}
    world.recurrence.refresh_from_db()
    assert world.recurrence.name == "Nightly"


def test_a_recurrence_that_only_ones_own_tasks_use_is_changed(world: World) -> None:
    world.hidden.delete()
    client = world.client("planner")
    data = {"name": "Nightly", "kind": "every", "every": "2", "unit": "days"}
    assert client.post(url(Recurrence, "change", world.recurrence.pk), data).status_code == 302
    world.recurrence.refresh_from_db()
    assert world.recurrence.every == 2
    world.schedule.refresh_from_db()
    assert world.schedule.stale_at is not None
    # In use: it can only be deleted when no schedule is left.
    answer = client.post(url(Recurrence, "delete", world.recurrence.pk), {"post": "yes"})
    assert "Backup: Nightly" in text_of(answer)
    assert Recurrence.objects.exists()
    world.schedule.delete()
    client.post(url(Recurrence, "delete", world.recurrence.pk), {"post": "yes"})
    assert not Recurrence.objects.exists()


# Groups


@pytest.fixture
def group(world: World) -> ConcurrencyGroup:
    """Of the task, with a run in progress, and of the hidden one, with one that waits."""
    group = ConcurrencyGroup.objects.create(name="Database")
    for task in (world.task, world.hidden):
        task.group = group
        task.save()
        task.start_now(by=None, now=timezone.now())
    (run,) = Run.objects.next_startable(timezone.now(), 4)
    assert run.claim(host=uuid.uuid4(), host_name="here", now=timezone.now())
    return group


def test_a_group_says_what_is_in_it_and_what_runs(world: World, group: ConcurrencyGroup) -> None:
    run = Run.objects.processing().get()
    pages = {
        name: [
            text_of(world.client(name).get(url(ConcurrencyGroup, *page)))
            for page in (["changelist"], ["change", group.pk])
        ]
        for name in ("admin", "planner")
    }
    for pages_of_one in pages.values():
        assert all("1 of 1" in page for page in pages_of_one)
        assert f'<a href="{run.get_absolute_url()}">{run}</a>' in pages_of_one[1]
        assert f'<a href="{url(Task, "change", world.task.pk)}">Backup</a>' in pages_of_one[1]
    assert f'?group__id__exact={group.pk}">2</a>' in pages["admin"][0]
    assert f'?group__id__exact={group.pk}">1</a>' in pages["planner"][0]
    assert f'<a href="{url(Task, "change", world.hidden.pk)}">{SECRET}</a>' in pages["admin"][1]
    assert SECRET not in "".join(pages["planner"])
    assert "1 more" in pages["planner"][1]


def test_the_tasks_of_a_group_are_listed(world: World, group: ConcurrencyGroup) -> None:
    answer = world.client("planner").get(url(Task, "changelist"), {"group__id__exact": group.pk})
    assert [task.name for task in answer.context["cl"].result_list] == ["Backup"]


def test_a_task_is_put_into_a_group_and_its_waiting_runs_with_it(world: World) -> None:
    group = a_group()
    run = world.task.start_now(by=None, now=timezone.now())
    data = task_data(name="Backup", program_path="programs/backup.py", group=group.pk, priority="1")
    assert world.client("editor").post(url(Task, "change", world.task.pk), data).status_code == 302
    run.refresh_from_db()
    assert (run.lane, run.priority) == (group.pk, Task.Priority.HIGH)


def test_a_group_with_tasks_of_others_is_looked_at_and_not_changed(world: World, group: ConcurrencyGroup) -> None:
    codenames = ["change_concurrencygroup", "delete_concurrencygroup"]
    world.people["planner"].user_permissions.add(*Permission.objects.filter(codename__in=codenames))
    client = world.client("planner")
    page = client.get(url(ConcurrencyGroup, "change", group.pk))
    assert "A task that you may not change is in this group" in text_of(page)
    data = {"name": "Mine now", "max_runs": "9"}
    assert client.post(url(ConcurrencyGroup, "change", group.pk), data).status_code == 403
    assert client.post(url(ConcurrencyGroup, "delete", group.pk), {"post": "yes"}).status_code == 403
    bulk = {"action": "delete_selected", "_selected_action": [group.pk], "post": "yes"}
    assert SECRET not in text_of(client.post(url(ConcurrencyGroup, "changelist"), bulk, follow=True))
    group.refresh_from_db()
    assert (group.name, group.max_runs) == ("Database", 1)

    world.hidden.group = None
    world.hidden.save()
    assert client.post(url(ConcurrencyGroup, "change", group.pk), data).status_code == 302
    group.refresh_from_db()
    assert (group.name, group.max_runs) == ("Mine now", 9)
    # In use: it can only be deleted when no task is left in it.
    assert "Backup" in text_of(client.post(url(ConcurrencyGroup, "delete", group.pk), {"post": "yes"}))
    assert ConcurrencyGroup.objects.exists()
    world.task.group = None
    world.task.save()
    client.post(url(ConcurrencyGroup, "delete", group.pk), {"post": "yes"})
    assert not ConcurrencyGroup.objects.exists()


@pytest.mark.parametrize(("value", "sentence"), [("0", "greater than or equal to 1"), ("x", "whole number")])
def test_a_group_without_places_is_a_sentence_at_the_field(world: World, value: str, sentence: str) -> None:
    answer = world.client("admin").post(url(ConcurrencyGroup, "add"), {"name": "New", "max_runs": value})
    assert_error(answer, "max_runs", sentence)


# Runs


def test_a_run_shows_its_events_and_for_those_who_may_its_files(world: World) -> None:
    world.run.record(RunEvent.What.MESSAGE, "Halfway there", now=timezone.now())
    file = OutputFile.objects.create(run=world.run, name="<b>.csv", size=3, sha256="0" * 64, created_at=timezone.now())
    page = url(Run, "change", world.run.pk)
    viewed = text_of(world.client("viewer").get(page))
    assert "Halfway there" in viewed
    assert file.get_absolute_url() not in viewed
    assert ".csv" not in viewed
    owned = text_of(world.client("owner").get(page))
    assert f'<a href="{file.get_absolute_url()}">&lt;b&gt;.csv</a>' in owned
    assert world.run.get_absolute_url() in owned
    assert 'name="_save"' not in owned


def test_a_run_shows_only_its_newest_events(world: World) -> None:
    now = timezone.now()
    RunEvent.objects.bulk_create(
        [RunEvent(run=world.run, at=now, what=RunEvent.What.MESSAGE, text=f"line-{number}.") for number in range(250)]
    )
    page = text_of(world.client("owner").get(url(Run, "change", world.run.pk)))
    assert "line-249." in page
    assert "line-50." in page
    assert "line-49." not in page


def test_no_run_is_changed_by_anybody_in_the_admin(world: World) -> None:
    client = world.client("admin")
    data = {"status": "failed", "events-TOTAL_FORMS": 0, "events-INITIAL_FORMS": 0}
    assert client.post(url(Run, "change", world.run.pk), data).status_code == 403
    assert client.post(url(Run, "delete", world.run.pk), {"post": "yes"}).status_code == 403
    client.post(
        url(Run, "changelist"), {"action": "delete_selected", "_selected_action": [world.run.pk], "post": "yes"}
    )
    world.run.refresh_from_db()
    assert world.run.status == Status.COMPLETED


# Access


def tokens(user: User | Group, *codenames: str) -> list[str]:
    kind = "user" if isinstance(user, User) else "group"
    return [f"{kind}:{user.pk}:{codename}" for codename in codenames]


def save_access(world: World, *, by: str = "owner", task: Task | None = None, **data: Any) -> Any:
    return world.client(by).post(url(Task, "access", (task or world.task).pk), data, follow=True)


def test_the_access_page_says_where_each_permission_comes_from(world: World) -> None:
    group = Group.objects.create(name="Operators")
    group.permissions.add(Permission.objects.get(codename="run_task"))
    world.people["stranger"].groups.add(group)
    page = text_of(world.client("owner").get(url(Task, "access", world.task.pk)))
    rows = dict(re.findall(r'<th scope="row">([\w-]+)(.*?)</tr>', page, re.DOTALL))
    assert "superuser" in rows["admin"]
    assert "on every task" in rows["overseer"]
    assert "on every task, by group Operators" in rows["stranger"]
    assert "owner" in rows["owner"]
    assert rows["owner"].count(" checked") == len(TASK_PERMISSIONS)
    assert rows["viewer"].count(" checked") == 1
    assert "not staff: downloads only" in rows["visitor"]
    assert "on every task" in rows["Operators"]
    assert "paymaster" not in rows


def test_permissions_are_given_and_taken_and_the_history_says_so(world: World) -> None:
    viewer, runner = world.people["viewer"], world.people["runner"]
    shown = [*tokens(viewer, "view_task"), *tokens(runner, "view_task", "run_task")]
    answer = save_access(
        world, shown=shown, give=[*tokens(viewer, "view_task", "stop_run"), *tokens(runner, "view_task")]
    )
    assert messages_of(answer) == ["The access to “Backup” was changed."]
    assert access.can(viewer, "stop_run", world.task)
    assert not access.can(runner, "run_task", world.task)
    assert access.can(world.people["editor"], "change_task", world.task)
    history = text_of(world.client("owner").get(url(Task, "history", world.task.pk)))
    assert "user viewer: gave stop_run" in history
    assert "user runner: took run_task" in history


def test_a_user_and_a_group_are_added_by_exact_name(world: World) -> None:
    group = Group.objects.create(name="Operators")
    save_access(
        world,
        new_user="stranger",
        new_group=" Operators ",
        give=["new:user:view_task", "new:user:run_task", "new:group:view_task"],
    )
    assert access.can(world.people["stranger"], "run_task", world.task)
    world.people["adder"].groups.add(group)
    assert access.can(world.people["adder"], "view_task", world.task)
    assert not access.can(world.people["stranger"], "view_task", world.hidden)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"new_user": "strange", "give": ["new:user:view_task"]}, "There is no user “strange”."),
        ({"new_user": "STRANGER", "give": ["new:user:view_task"]}, "There is no user “STRANGER”."),
        ({"new_group": "nobody", "give": ["new:group:view_task"]}, "There is no group “nobody”."),
        ({"new_user": "stranger"}, "Choose at least one permission for “stranger”."),
        ({"give": ["user:1:add_task"]}, "is not a permission of a task"),
        ({"give": ["nonsense"]}, "is not a permission of a task"),
        ({"give": ["user:999999:view_task"]}, "This page has changed meanwhile."),
        ({"give": ["planet:1:view_task"]}, "This page has changed meanwhile."),
    ],
)
def test_what_cannot_be_given_is_a_sentence_and_nothing_is_saved(
    world: World, data: dict[str, Any], sentence: str
) -> None:
    before = list(TaskUserObjectPermission.objects.values_list("pk", flat=True))
    answer = save_access(world, **data)
    assert sentence in " ".join(answer.context["access_errors"])
    assert list(TaskUserObjectPermission.objects.values_list("pk", flat=True)) == before
    assert not LogEntry.objects.exists()


def test_one_does_not_lock_oneself_out(world: World) -> None:
    owner = world.people["owner"]
    answer = save_access(world, shown=tokens(owner, *TASK_PERMISSIONS), give=tokens(owner, "view_task"))
    assert "You would lose your own permission" in " ".join(answer.context["access_errors"])
    assert access.can(owner, "manage_access", world.task)
    # A superuser keeps it in any case.
    save_access(world, by="admin", shown=tokens(owner, *TASK_PERMISSIONS), give=tokens(owner, "view_task"))
    assert not access.can(owner, "manage_access", world.task)


def test_two_people_who_change_access_at_once_do_not_undo_each_other(world: World) -> None:
    shown = tokens(world.people["viewer"], "view_task")
    save_access(world, shown=shown, give=[*shown, *tokens(world.people["viewer"], "run_task")])
    # The second page was opened before the first was saved.
    save_access(world, by="admin", shown=shown, give=[*shown, *tokens(world.people["viewer"], "stop_run")])
    assert access.can(world.people["viewer"], "run_task", world.task)
    assert access.can(world.people["viewer"], "stop_run", world.task)


def test_whoever_may_not_manage_access_cannot_give_themselves_anything(world: World) -> None:
    for name, status in (("editor", 403), ("viewer", 403), ("overseer", 403), ("stranger", 404), ("reader", 404)):
        answer = save_access(world, by=name, new_user=name, give=["new:user:manage_access", "new:user:run_task"])
        assert answer.status_code == status
        assert not access.can(world.people[name], "run_task", world.task)


def test_a_saved_page_that_changed_nothing_leaves_no_trace(world: World) -> None:
    shown = tokens(world.people["viewer"], "view_task")
    assert messages_of(save_access(world, shown=shown, give=shown)) == ["Nothing was changed."]
    assert not LogEntry.objects.exists()


def test_only_get_and_post_are_answered(world: World) -> None:
    client = world.client("owner")
    assert client.put(url(Task, "access", world.task.pk)).status_code == 405
    assert client.head(url(Task, "access", world.task.pk)).status_code == 200


def test_the_access_page_asks_for_each_thing_once(world: World) -> None:
    client = world.client("owner")

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            client.get(url(Task, "access", world.task.pk))
        return len(captured)

    queries()
    few = queries()
    for number in range(10):
        user = person(f"person{number}")
        user.groups.add(Group.objects.create(name=f"group{number}"))
        world.task.grant(user, "view_task")
    assert queries() == few


def test_timestamps_of_new_rows_lie_ahead(world: World) -> None:
    form = world.client("owner").get(url(Schedule, "add")).context["adminform"].form
    suggested = form.initial["anchor"].replace(tzinfo=UTC)
    assert timezone.now() < suggested <= timezone.now() + timedelta(hours=1)


def test_a_row_is_selected_by_the_same_box_as_in_djangos_own_lists(world: World) -> None:
    world.task.name = "<b>5 % of {0}</b>"
    ours = django_admin.site.get_model_admin(Task)
    djangos = django_admin.ModelAdmin(Task, django_admin.site)
    assert ours.action_checkbox(world.task) == djangos.action_checkbox(world.task)
