"""Addresses and forms with values that no page of ours sends: each is answered, and none by a failure of the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.urls import reverse

from tests.test_access import world  # noqa: F401

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.test import Client

    from scheduler.models import Task
    from tests.test_access import World

pytestmark = pytest.mark.django_db

BAD = ["a\x00b", "-1", "9" * 18, "9" * 400, "0000-00-00", "9999-12-31T23:59", "1e400%"]
# Together, and one by one where one of them would hide another.
ASKED = [
    ("index", "task"),
    ("index", "text status trigger owner since until before after"),
    ("index", "after fragment"),
    ("timeline", "task"),
    ("timeline", "day by"),
    ("calendar", "task range"),
    ("task-detail", "before"),
    ("task-slots", "before not_run"),
    ("alarms", "before all"),
    ("run-detail", "files at find"),
    ("run-detail", "files error"),
    ("run-detail", "find from"),
    ("run-detail", "before fragment"),
    ("run-detail", "after"),
    ("run-log", "offset"),
    ("run-log", "codes"),
    ("schedule", "task"),
]
SENT = [
    ("run-stop", "why from"),
    ("run-again", "once from"),
    ("run-again-changed", "arguments arguments-way arguments-key once"),
    ("run-again-changed", "arguments"),
    ("task-arguments", "name"),
    ("task-arguments", "to arguments arguments-way optional"),
    ("task-pause", "why"),
    ("schedule-pause", "why"),
    ("pause", "why"),
    ("alarms-dismiss", "up_to from"),
    ("schedule", "task when at recurrence anchor ends_at calendar time_zone arguments once"),
]


@pytest.mark.parametrize("value", BAD)
def test_no_address_fails(client: Client, world: World, admin: User, value: str) -> None:  # noqa: F811
    client.force_login(admin)
    for name, fields in ASKED:
        answer = client.get(world.url(name), dict.fromkeys(fields.split(), value))
        assert answer.status_code in {200, 400, 404}, (name, fields)


@pytest.mark.parametrize("value", BAD)
def test_no_form_fails(client: Client, world: World, admin: User, value: str) -> None:  # noqa: F811
    client.force_login(admin)
    for name, fields in SENT:
        answer = client.post(world.url(name), world.data(name) | dict.fromkeys(fields.split(), value))
        assert answer.status_code in {200, 302, 400}, (name, fields)


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("field", ["at", "recurrence", "anchor", "ends_at", "time_zone"])
def test_no_field_of_a_schedule_fails(client: Client, world: World, admin: User, field: str, value: str) -> None:  # noqa: F811
    client.force_login(admin)
    schedule = {"recurrence": world.schedule.recurrence_id, "anchor": "2099-01-01T00:00", "at": "2099-01-01T00:00"}
    for when in ("at", "recurring"):
        data = {**world.data("schedule"), "when": when, **schedule, field: value, "_preview": "1"}
        assert client.post(world.url("schedule"), data).status_code == 200


@pytest.mark.parametrize("pk", [10**18, 10**19, 10**400])
def test_no_number_is_too_large_for_an_address(client: Client, admin: User, pk: int) -> None:
    client.force_login(admin)
    for name in ("run-log-download", "run-detail", "run-log", "task-detail"):
        assert client.get(reverse(f"scheduler:{name}", args=[pk])).status_code == 404
    for name in ("run-archive", "run-again", "run-stop", "task-run", "task-arguments", "alarm-dismiss"):
        assert client.post(reverse(f"scheduler:{name}", args=[pk])).status_code == 404


@pytest.mark.parametrize("value", BAD)
def test_no_list_of_the_admin_fails(client: Client, world: World, admin: User, value: str) -> None:  # noqa: F811
    client.force_login(admin)
    filters = {"run": "status", "task": "environment", "recurrence": "kind", "auditentry": "action"}
    for model, field in filters.items():
        url = reverse(f"admin:scheduler_{model}_changelist")
        assert client.get(url, {field: value}).status_code in {200, 302, 400}, model
    actions = {"run": "stop", "task": "disable", "schedule": "resume_selected"}
    before = world.state()
    for model, action in actions.items():
        url = reverse(f"admin:scheduler_{model}_changelist")
        answer = client.post(url, {"action": action, "_selected_action": value})
        assert answer.status_code in {200, 302, 400}, model
    assert world.state() == before


def test_nobody_has_a_name_that_the_database_cannot_hold(client: Client, admin: User, task: Task) -> None:
    client.force_login(admin)
    for kind in ("user", "group"):
        data = {f"new_{kind}": "a\x00b", "give": f"new:{kind}:view_task"}
        answer = client.post(reverse("admin:scheduler_task_access", args=[task.pk]), data)
        assert f"There is no {kind}" in answer.text


def test_a_reason_is_kept_without_what_the_database_cannot_hold(client: Client, world: World, admin: User) -> None:  # noqa: F811
    client.force_login(admin)
    client.post(world.url("run-stop"), {"why": "The disk\x00\n is full"})
    world.running.refresh_from_db()
    assert world.running.cancel_why == "The disk\u2400 is full"
