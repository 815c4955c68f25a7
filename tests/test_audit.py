"""Who did what: each deed leaves one entry with names as text, and it outlives what it tells about."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.core.cache import cache
from django.urls import reverse

from scheduler import outputs
from scheduler.models import AuditEntry, OutputFile, Run
from scheduler.states import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User
    from django.test import Client

    from scheduler.models import Task

pytestmark = pytest.mark.django_db


@pytest.fixture
def file(make_run: Callable[..., Run]) -> OutputFile:
    run = make_run(Status.COMPLETED)
    file = OutputFile.objects.create(run=run, name="a.csv", size=5, sha256="0" * 64, created_at=run.due_at)
    outputs.file_path(file).parent.mkdir(parents=True, exist_ok=True)
    outputs.file_path(file).write_bytes(b"12345")
    return file


def entries() -> list[tuple[str, str, str]]:
    return list(AuditEntry.objects.order_by("id").values_list("action", "user_name", "task_name"))


def test_starting_stopping_and_deleting_are_written_down(
    client: Client, owner: User, task: Task, make_run: Callable[..., Run]
) -> None:
    client.force_login(owner)
    finished = make_run(Status.COMPLETED)
    client.post(reverse("scheduler:task-run", args=[task.pk]), REMOTE_ADDR="192.0.2.7")
    started = Run.objects.latest("pk")
    client.post(reverse("scheduler:run-stop", args=[started.pk]))
    client.post(reverse("scheduler:run-stop", args=[started.pk]))  # nothing is left to stop
    client.post(reverse("scheduler:run-delete", args=[finished.pk]))
    name = owner.get_username()
    assert entries() == [(what, name, task.name) for what in ("run", "stop", "delete_run")]
    first = AuditEntry.objects.earliest("id")
    assert (first.run_number, first.address) == (started.pk, "192.0.2.7")


def test_a_download_is_one_entry_however_many_ranges_it_takes(client: Client, owner: User, file: OutputFile) -> None:
    cache.clear()
    client.force_login(owner)
    for number in range(4):
        response = client.get(file.get_absolute_url(), headers={"range": f"bytes={number}-{number}"})
        assert response.status_code == 206
        b"".join(response)
    cache.clear()  # another process has a cache of its own
    b"".join(client.get(file.get_absolute_url()))
    assert entries() == [("download", owner.get_username(), file.run.task.name)]
    assert AuditEntry.objects.get().object_name == "a.csv"


def test_a_refused_download_is_none(client: Client, stranger: User, file: OutputFile) -> None:
    client.force_login(stranger)
    assert client.get(file.get_absolute_url()).status_code == 404
    assert entries() == []


def test_an_entry_outlives_the_account_and_the_task(client: Client, admin: User, task: Task) -> None:
    client.force_login(admin)
    name, person = task.name, admin.get_username()
    response = client.post(reverse("admin:scheduler_task_delete", args=[task.pk]), {"post": "yes"})
    assert response.status_code == 302
    admin.delete()
    assert entries() == [("delete", person, name)]
    entry = AuditEntry.objects.get()
    assert (entry.task, entry.user) == (None, None)
