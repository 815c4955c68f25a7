"""What a group gives and what is left when the person leaves it: pages, log, file, and the rest of a download."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.urls import reverse

from scheduler import outputs
from scheduler.models import OutputFile, Run, Task, TaskGroupObjectPermission

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpResponseBase
    from django.test import Client

pytestmark = pytest.mark.django_db

CONTENT = bytes(range(256)) * 10


def body(response: HttpResponseBase) -> bytes:
    return b"".join(response) if response.streaming else response.content  # type: ignore[attr-defined]


@dataclass
class Membership:
    """Somebody who may see a task and its output only because of a group, in which the person's client is logged in."""

    person: User
    group: Group
    task: Task
    run: Run
    file: OutputFile

    def addresses(self) -> dict[str, str]:
        return {
            "page": self.run.get_absolute_url(),
            "fragment": f"{self.run.get_absolute_url()}?fragment=1",
            "log": reverse("scheduler:run-log", args=[self.run.pk]),
            "whole log": reverse("scheduler:run-log-download", args=[self.run.pk]),
            "file": self.file.get_absolute_url(),
            "admin's task": reverse("admin:scheduler_task_change", args=[self.task.pk]),
            "admin's history": reverse("admin:scheduler_task_history", args=[self.task.pk]),
            "admin's run": reverse("admin:scheduler_run_change", args=[self.run.pk]),
        }


@pytest.fixture
def member(client: Client, task: Task, make_run: Callable[..., Run]) -> Membership:
    run = make_run()
    file = OutputFile.objects.create(run=run, name="a.csv", size=len(CONTENT), sha256="0" * 64, created_at=run.due_at)
    for path in (outputs.file_path(file), outputs.log_path(run)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CONTENT)
    group = Group.objects.create(name="Operators")
    for codename in ("view_task", "view_output"):
        permission = Permission.objects.get(content_type__app_label="scheduler", codename=codename)
        TaskGroupObjectPermission.objects.create(group=group, permission=permission, content_object=task)
    person = User.objects.create_user("member", is_staff=True)
    person.groups.add(group)
    client.force_login(person)
    return Membership(person, group, task, run, file)


def _leave(member: Membership) -> None:
    member.person.groups.remove(member.group)


def _take_from_group(member: Membership) -> None:
    TaskGroupObjectPermission.objects.filter(group=member.group).delete()


def _delete_group(member: Membership) -> None:
    member.group.delete()


@pytest.mark.parametrize("revoke", [_leave, _take_from_group, _delete_group])
def test_what_a_group_gave_is_gone_with_the_next_request(
    client: Client, member: Membership, revoke: Callable[[Membership], None]
) -> None:
    answers = {name: client.get(address) for name, address in member.addresses().items()}
    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(answers, 200)
    assert [body(answers[name]) for name in ("file", "whole log")] == [CONTENT] * 2
    assert member.task.name in client.get(reverse("scheduler:index")).text

    revoke(member)

    answers = {name: client.get(address) for name, address in member.addresses().items()}
    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(answers, 404)
    assert not any(CONTENT[:64] in body(answer) for answer in answers.values())
    assert member.task.name not in client.get(reverse("scheduler:index")).text


@pytest.mark.parametrize("revoke", [_leave, _take_from_group, _delete_group])
@pytest.mark.parametrize("name", ["file", "whole log"])
def test_a_download_that_has_begun_gets_no_second_part(
    client: Client, member: Membership, revoke: Callable[[Membership], None], name: str
) -> None:
    address = member.addresses()[name]
    first = client.get(address, headers={"Range": "bytes=0-99"})
    assert (first.status_code, body(first)) == (206, CONTENT[:100])
    revoke(member)
    for headers in ({"Range": "bytes=100-199"}, {"If-None-Match": first.headers["ETag"]}, {}):
        for method in (client.get, client.head):
            answer = method(address, headers=headers)
            assert answer.status_code == 404
            assert CONTENT[100:164] not in body(answer)
            assert "ETag" not in answer.headers
