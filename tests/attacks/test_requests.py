"""Requests that no page of ours makes: other hosts, other methods, other fields, and many of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db.models import Q
from django.urls import reverse

from scheduler.models import AuditEntry, Run, Schedule, Task
from scheduler.models.task import TASK_PERMISSIONS
from scheduler.states import Status

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from django.test import Client

    from scheduler.models import Recurrence

pytestmark = pytest.mark.django_db

EVIL = "evil.example"


# The run button


def test_a_flood_of_one_button_is_one_run_and_one_entry(client: Client, owner: User, task: Task) -> None:
    client.force_login(owner)
    for _ in range(50):
        answer = client.post(reverse("scheduler:task-run", args=[task.pk]), {"once": "the page's token"})
        assert answer.status_code == 302
    assert task.runs.count() == 1
    assert AuditEntry.objects.filter(action="run").count() == 1


def test_a_flood_of_different_buttons_only_queues(client: Client, owner: User, task: Task) -> None:
    client.force_login(owner)
    for number in range(50):
        client.post(reverse("scheduler:task-run", args=[task.pk]), {"once": f"token {number}"})
    assert task.runs.queued().count() == 50
    assert AuditEntry.objects.filter(action="run", user=owner).count() == 50
    assert client.get(reverse("scheduler:index")).status_code == 200


def test_a_flood_by_somebody_who_may_not_run_leaves_nothing(client: Client, viewer: User, task: Task) -> None:
    client.force_login(viewer)
    for number in range(20):
        assert client.post(reverse("scheduler:task-run", args=[task.pk]), {"once": str(number)}).status_code == 403
    assert not task.runs.exists()
    assert not AuditEntry.objects.exists()


# Where an answer leads


@pytest.mark.parametrize(
    "page",
    [f"https://{EVIL}/", f"//{EVIL}/", f"/\\{EVIL}", f"https:{EVIL}", f"\t//{EVIL}", "javascript:alert(1)", "data:,x"],
)
@pytest.mark.parametrize("name", ["login", "admin:login"])
def test_no_log_in_page_leads_to_another_site(client: Client, owner: User, name: str, page: str) -> None:
    owner.set_password("correct horse")
    owner.save()
    data = {"username": owner.get_username(), "password": "correct horse", "next": page}
    answer = client.post(reverse(name), data)
    assert answer.status_code == 302
    assert answer.headers["Location"] in {"/", "/admin/", "/accounts/profile/"}
    # Who is logged in already is led on at once.
    again = client.get(reverse(name), {"next": page})
    assert again.headers.get("Location", "/") in {"/", "/admin/", reverse("admin:index")}


@pytest.mark.parametrize("name", ["task-run", "run-again", "run-stop", "run-delete", "run-archive"])
@pytest.mark.parametrize("field", ["from", "next", "back"])
def test_no_button_leads_to_another_site(
    client: Client, owner: User, task: Task, make_run: Callable[..., Run], name: str, field: str
) -> None:
    client.force_login(owner)
    pk = task.pk if name == "task-run" else make_run().pk
    url = reverse(f"scheduler:{name}", args=[pk])
    answer = client.post(
        f"{url}?{field}=//{EVIL}/", {field: f"https://{EVIL}/"}, headers={"Referer": f"https://{EVIL}/"}
    )
    assert answer.status_code == 302
    assert answer.headers["Location"].startswith("/scheduler/")


@pytest.mark.parametrize("path", ["/scheduler/", "/accounts/login/", "/admin/login/", "/scheduler/nowhere/"])
@pytest.mark.parametrize("host", [EVIL, f"localhost.{EVIL}", "localhost:80@" + EVIL, "a b", "", "localhost\t"])
def test_another_host_is_refused_and_not_repeated(client: Client, settings: Any, path: str, host: str) -> None:
    settings.ALLOWED_HOSTS = ["localhost"]
    settings.DEBUG = False
    answer = client.get(path, HTTP_HOST=host)
    assert answer.status_code == 400
    assert EVIL not in answer.text


@pytest.mark.parametrize("header", ["HTTP_X_FORWARDED_HOST", "HTTP_X_HOST", "HTTP_FORWARDED", "HTTP_X_ORIGINAL_URL"])
def test_a_host_in_another_header_is_not_believed(client: Client, owner: User, header: str) -> None:
    client.force_login(owner)
    answer = client.get("/scheduler/", **{header: EVIL})  # type: ignore[arg-type]
    assert answer.status_code == 200
    assert EVIL not in answer.text
    client.logout()
    assert client.get("/scheduler/", **{header: EVIL}).headers["Location"].startswith("/")  # type: ignore[arg-type]


# Methods


@pytest.mark.parametrize("method", ["get", "head", "put", "patch", "delete", "options", "trace"])
@pytest.mark.parametrize("name", ["task-run", "run-again", "run-stop", "run-archive"])
def test_an_action_is_done_by_post_only(
    client: Client, owner: User, task: Task, make_run: Callable[..., Run], name: str, method: str
) -> None:
    client.force_login(owner)
    run = make_run(Status.PROCESSING if name == "run-stop" else Status.COMPLETED)
    pk = task.pk if name == "task-run" else run.pk
    answer = getattr(client, method)(
        reverse(f"scheduler:{name}", args=[pk]), headers={"X-HTTP-Method-Override": "POST"}
    )
    assert answer.status_code == 405
    assert list(Run.objects.values_list("pk", "cancel_requested_at")) == [(run.pk, None)]


@pytest.mark.parametrize("action", ["run_now", "enable", "disable", "delete_selected"])
def test_a_bulk_action_is_not_done_by_get(client: Client, admin: User, task: Task, action: str) -> None:
    client.force_login(admin)
    client.get(
        reverse("admin:scheduler_task_changelist"),
        {"action": action, "_selected_action": str(task.pk), "post": "yes", "index": "0"},
    )
    task.refresh_from_db()
    assert task.enabled
    assert not task.runs.exists()


@pytest.mark.parametrize("action", ["run_now", "enable", "disable", "delete_selected", "no_such_action", "__class__"])
@pytest.mark.parametrize("across", ["0", "1"])
def test_a_bulk_action_on_invisible_tasks_does_nothing(
    client: Client, owner: User, task: Task, action: str, across: str
) -> None:
    hidden = Task.objects.create(
        name="Payroll of the board",
        program_root="sample_tasks",
        program_path="countdown.py",
        enabled=action != "enable",
    )
    before = Task.objects.filter(pk=hidden.pk).values().get()
    client.force_login(owner)
    url = reverse("admin:scheduler_task_changelist")
    data = {"action": action, "_selected_action": [str(hidden.pk)], "post": "yes", "select_across": across}
    answer = client.post(url, data, follow=True)
    # "All of the list" are one's own tasks; the list is closed to whoever has just deleted the last one.
    assert answer.status_code == (403 if (action, across) == ("delete_selected", "1") else 200)
    assert hidden.name not in answer.text + client.get(url).text
    assert Task.objects.filter(pk=hidden.pk).values().get() == before
    assert not hidden.runs.exists()


# Fields that no form has


@pytest.fixture
def adder() -> User:
    """Staff; may add tasks."""
    user = User.objects.create_user("adder", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="add_task"))
    return user


def _task_form(**values: Any) -> dict[str, Any]:
    return {
        "name": "New task",
        "program_path": "sample_tasks/countdown.py",
        "arguments": "",
        "environment": "plain",
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
        "schedules-TOTAL_FORMS": "0",
        "schedules-INITIAL_FORMS": "0",
        **values,
    }


@pytest.fixture(autouse=True)
def programs(settings: Any, tmp_path: Path) -> None:
    """A folder with the one program of these tests, whatever the modes of the checkout are."""
    folder = tmp_path / "sample_tasks"
    folder.mkdir(mode=0o755)
    (folder / "countdown.py").write_text("print('done')\n")
    (folder / "countdown.py").chmod(0o644)
    settings.SCHEDULER = {**settings.SCHEDULER, "PROGRAM_ROOTS": {"sample_tasks": folder}}


def test_a_posted_owner_id_root_or_path_is_not_taken(client: Client, adder: User, admin: User) -> None:
    client.force_login(adder)
    posted = _task_form(
        owner=admin.get_username(),
        owner_id=admin.pk,
        id="4711",
        pk="4711",
        program_root="/",
        program="/etc/passwd",
        created_at="2000-01-01",
        is_superuser="on",
    )
    answer = client.post(reverse("admin:scheduler_task_add"), posted)
    assert answer.status_code == 302
    task = Task.objects.get()
    assert task.pk != 4711
    assert (task.owner, task.program) == (adder, "sample_tasks/countdown.py")
    assert task.created_at.year > 2000
    adder.refresh_from_db()
    assert not adder.is_superuser


def test_an_editor_cannot_take_the_task_over(client: Client, task: Task, stranger: User) -> None:
    task.grant(stranger, "view_task", "change_task")
    owner = task.owner
    client.force_login(stranger)
    posted = _task_form(name=task.name, owner=stranger.get_username(), owner_id=stranger.pk, give="user:1:run_task")
    assert client.post(reverse("admin:scheduler_task_change", args=[task.pk]), posted).status_code == 302
    task.refresh_from_db()
    assert task.owner == owner
    held = set(stranger.taskuserobjectpermission_set.values_list("permission__codename", flat=True))
    assert held == {"view_task", "change_task"}


@pytest.mark.parametrize("when", ["now", "recurring"])
def test_the_schedule_form_sets_nothing_but_its_fields(
    client: Client, owner: User, admin: User, task: Task, recurrence: Recurrence, when: str
) -> None:
    client.force_login(owner)
    stolen = "00000000-0000-4000-8000-000000000001"
    posted: dict[str, Any] = {
        "task": task.pk,
        "when": when,
        "time_zone": "UTC",
        "recurrence": recurrence.pk,
        "anchor": "2026-01-01T00:00",
        "uuid": stolen,
        "id": "4711",
        "status": "completed",
        "exit_code": "0",
        "host": stolen,
        "claim_token": "token",
        "program": "/bin/sh",
        "program_path": "/bin/sh",
        "environment": "django",
        "requested_by": admin.pk,
        "requested_by_name": "admin",
        "owner": admin.pk,
        "log_path": "../../etc/passwd",
    }
    assert client.post(reverse("scheduler:schedule"), posted).status_code == 302
    run = task.runs.get()
    assert run.pk != 4711
    assert str(run.uuid) != stolen
    assert (run.status, run.exit_code, run.claim_token, run.host) == (Status.QUEUED, None, "", None)
    assert run.requested_by != admin
    assert "admin" not in run.requested_by_name
    before = (task.owner, task.program_path, task.environment)
    task.refresh_from_db()
    assert (task.owner, task.program_path, task.environment) == before
    assert Schedule.objects.count() == (when == "recurring")


def test_no_token_makes_a_run_of_a_chosen_uuid(client: Client, owner: User, task: Task) -> None:
    client.force_login(owner)
    stolen = "00000000-0000-4000-8000-000000000001"
    client.post(reverse("scheduler:task-run", args=[task.pk]), {"once": stolen, "uuid": stolen})
    assert str(task.runs.get().uuid) != stolen


# Names that reach the web server's own log


def test_a_name_with_a_line_end_forges_no_line_of_the_servers_log(
    client: Client, owner: User, make_run: Callable[..., Run], caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run()
    Task.objects.filter(pk=run.task_id).update(name="x\n2026-01-01 INFO forged\r\x1b[31m")
    client.force_login(owner)
    with caplog.at_level("INFO"):
        client.post(reverse("scheduler:run-delete", args=[run.pk]))
    assert not Run.objects.exists()
    said = [record.getMessage() for record in caplog.records if record.name.startswith("scheduler")]
    assert said
    assert not {"\n", "\r", "\x1b"} & set("".join(said))


def test_the_rule_knows_every_permission_that_exists() -> None:
    # A permission that the rule does not know would be granted by nobody and checked by nobody.
    of_tasks = Permission.objects.filter(content_type__app_label="scheduler", content_type__model="task")
    assert set(of_tasks.values_list("codename", flat=True)) == {*TASK_PERMISSIONS, "add_task"}
    parts = Q(content_type__model__in=["run", "schedule", "outputfile", "runevent", "archive"])
    assert not Permission.objects.filter(parts, content_type__app_label="scheduler").exists()
