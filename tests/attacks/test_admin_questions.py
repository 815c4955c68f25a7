"""Questions to the admin about what one may not see, and names that would not look like what they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.exceptions import ValidationError
from django.urls import reverse
from django.utils import timezone

from scheduler.models import AuditEntry, Recurrence, Task
from scheduler.models.task import validate_name

if TYPE_CHECKING:
    from django.test import Client

pytestmark = pytest.mark.django_db

AUDIT = "admin:scheduler_auditentry_changelist"
SECRET = "Payroll of the board"


@pytest.fixture
def hidden() -> Task:
    """A task that nobody but superusers may see, with a run and an entry of what was done to it."""
    task = Task.objects.create(name=SECRET, program_root="sample_tasks", program_path="countdown.py")
    task.start_now(by=None, now=timezone.now())
    AuditEntry.objects.create(
        at=timezone.now(),
        action="run",
        user_name="paymaster",
        task=task,
        task_name=task.name,
        object_name="salaries.csv",
        address="192.0.2.77",
    )
    return task


@pytest.mark.parametrize("term", ["Payroll", "paymaster", "salaries", "192.0.2.77"])
def test_the_search_of_the_audit_finds_entries_of_managed_tasks_only(
    client: Client, owner: User, admin: User, task: Task, hidden: Task, term: str
) -> None:
    client.force_login(owner)
    assert not client.get(reverse(AUDIT), {"q": term}).context["cl"].queryset.exists()
    client.force_login(admin)
    assert client.get(reverse(AUDIT), {"q": term}).context["cl"].queryset.count() == 1


@pytest.mark.parametrize(
    "query",
    [
        "user__password__startswith=m",
        "task__name__startswith=P",
        "task__owner__password__startswith=m",
        "task_name__contains=P",
        "address=192.0.2.77",
        "once__startswith=1",
        "user_name__regex=p",
        "task__runs__claim_token__startswith=a",
    ],
)
def test_the_audit_cannot_be_asked_about_what_it_offers_no_filter_for(
    client: Client, owner: User, task: Task, hidden: Task, query: str
) -> None:
    client.force_login(owner)
    answer = client.get(f"{reverse(AUDIT)}?{query}")
    assert answer.status_code == 400
    assert SECRET not in answer.text


def test_the_audit_of_a_hidden_task_is_empty_when_filtered_for(
    client: Client, owner: User, task: Task, hidden: Task
) -> None:
    client.force_login(owner)
    answer = client.get(reverse(AUDIT), {"task__id__exact": str(hidden.pk)})
    assert not answer.context["cl"].queryset.exists()
    assert SECRET not in answer.text


@pytest.mark.parametrize(
    ("model", "field"),
    [("task", "owner"), ("auditentry", "user"), ("auditentry", "task"), ("outputfile", "run"), ("run", "requested_by")],
)
@pytest.mark.parametrize("term", ["", "pay"])
def test_autocomplete_is_no_way_to_read_people_or_hidden_tasks(
    client: Client, owner: User, task: Task, hidden: Task, model: str, field: str, term: str
) -> None:
    User.objects.create_user("paymaster")
    client.force_login(owner)
    query = {"app_label": "scheduler", "model_name": model, "field_name": field, "term": term}
    answer = client.get(reverse("admin:autocomplete"), query)
    assert SECRET not in answer.text
    assert "paymaster" not in answer.text
    assert answer.status_code == (403 if field in {"owner", "user", "requested_by"} else 200)


@pytest.mark.parametrize("page", ["change", "history", "delete", "access"])
@pytest.mark.parametrize(
    "parameter", ["_to_field=owner__password", "_to_field=name", "_popup=1", "_changelist_filters=x"]
)
def test_no_parameter_opens_a_hidden_task(
    client: Client, owner: User, task: Task, hidden: Task, page: str, parameter: str
) -> None:
    client.force_login(owner)
    answer = client.get(f"{reverse(f'admin:scheduler_task_{page}', args=[hidden.pk])}?{parameter}")
    assert answer.status_code in {400, 404}
    assert SECRET not in answer.text


NAMES = [
    "two\nlines",
    "car\rriage",
    "tab\tbed",
    "\x1b[31mred",
    "nul\0",
    "gnp\u202eyad",
    "\u2066x",
    "a\u2028b",
    "\x9b31m",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_would_not_look_like_what_it_is_is_refused_in_one_sentence(name: str) -> None:
    for row in (
        Task(name=name, program_root="sample_tasks", program_path="countdown.py"),
        Recurrence(name=name, kind="once"),
    ):
        with pytest.raises(ValidationError) as refused:
            row.clean()
        assert "name" in refused.value.error_dict


@pytest.mark.parametrize("name", NAMES)
def test_the_form_makes_no_task_of_such_a_name(client: Client, admin: User, name: str) -> None:
    client.force_login(admin)
    posted: dict[str, Any] = {
        "name": name,
        "program_path": "sample_tasks/countdown.py",
        "environment": "plain",
        "grace_seconds": "10",
        "schedules-TOTAL_FORMS": "0",
        "schedules-INITIAL_FORMS": "0",
    }
    answer = client.post(reverse("admin:scheduler_task_add"), posted)
    assert answer.status_code == 200
    assert answer.context["adminform"].form.errors["name"]
    assert not Task.objects.exists()


@pytest.mark.parametrize(
    "name", ["Nightly report", "Übersicht №\u00a05", "報告書", "\U0001f469\u200d\U0001f4bb report", "a<b> & c"]
)
def test_a_name_in_any_language_is_a_name(name: str) -> None:
    validate_name(name)


def test_a_global_permission_to_view_tasks_does_not_open_the_audit(
    client: Client, stranger: User, hidden: Task
) -> None:
    stranger.user_permissions.add(Permission.objects.get(codename="view_task"))
    client.force_login(stranger)
    assert client.get(reverse(AUDIT)).status_code == 403
