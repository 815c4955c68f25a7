"""The admin's list of runs: what it finds among many, and what is done to those that are selected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from scheduler.admin import base, runs
from scheduler.models import AuditEntry, Run, RunEvent, Task
from scheduler.states import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User
    from django.test import Client

    MakeRun = Callable[..., Run]

pytestmark = pytest.mark.django_db

LIST = "/admin/scheduler/run/"


@pytest.fixture
def hidden() -> Task:
    return Task.objects.create(name="Hidden payroll", program_root="sample_tasks", program_path="countdown.py")


def found(client: Client, **query: Any) -> set[int]:
    return {run.pk for run in client.get(LIST, query).context["cl"].result_list}


def do(client: Client, action: str, *selected: Run, **data: Any) -> str:
    """What the page says after an action on the selected runs."""
    data |= {"action": action, "_selected_action": [run.pk for run in selected]}
    answer = client.post(LIST, data, follow=True)
    return "\n".join(str(message) for message in answer.context["messages"])


# Searching and filtering


def test_runs_are_found_by_words_of_their_tasks_name_and_by_number(
    client: Client, viewer: User, make_run: MakeRun, hidden: Task
) -> None:
    mine, other = make_run(), make_run(task=hidden)
    client.force_login(viewer)
    assert found(client, q="report night") == {mine.pk}
    assert found(client, q="report payroll") == set()
    assert found(client, q="payroll") == set()
    for form in ("{}", "#{}"):
        assert found(client, q=form.format(mine.pk)) == {mine.pk}
        assert found(client, q=form.format(other.pk)) == set()
    assert found(client, q="9" * 30) == set()


def test_the_same_is_found_when_very_many_tasks_have_the_name(
    client: Client, admin: User, make_run: MakeRun, hidden: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "TASKS_LISTED", 1)
    expected = {make_run().pk, make_run(task=hidden).pk}
    client.force_login(admin)
    assert found(client, q="y") == expected


def test_many_tasks_are_not_offered_one_by_one_and_can_still_be_chosen(
    client: Client, viewer: User, task: Task, make_run: MakeRun, hidden: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = Task.objects.create(name="Second", program_root="sample_tasks", program_path="countdown.py")
    second.grant(viewer, "view_task")
    mine = make_run()
    make_run(task=second)
    client.force_login(viewer)
    assert "task__id__exact=" in client.get(LIST).text
    monkeypatch.setattr(base, "TASKS_OFFERED", 1)
    assert "task__id__exact=" not in client.get(LIST).text
    assert found(client, task__id__exact=task.pk) == {mine.pk}
    # It is named, so that one sees what is filtered by, and can undo it.
    assert f"task__id__exact={task.pk}" in client.get(f"{LIST}?task__id__exact={task.pk}&status__exact=failed").text
    assert "Hidden payroll" not in client.get(LIST, {"task__id__exact": hidden.pk}).text
    assert found(client, task__id__exact=hidden.pk) == set()


def test_what_is_beyond_the_limit_is_not_counted_and_can_be_found(
    client: Client, admin: User, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base.CappedPaginator, "COUNTED_AT_MOST", 4)
    for _ in range(6):
        make_run()
    client.force_login(admin)
    assert "more than 4 runs" in client.get(LIST).text
    first = Run.objects.order_by("pk")[0]
    assert found(client, q=first.pk) == {first.pk}
    assert "1 run" in client.get(LIST, {"q": first.pk}).text


def test_the_list_costs_the_same_number_of_queries_for_any_number_of_tasks(
    client: Client, viewer: User, make_run: MakeRun
) -> None:
    client.force_login(viewer)

    def count() -> int:
        with CaptureQueriesContext(connection) as queries:
            client.get(LIST)
        return len(queries)

    make_run()
    few = count()
    for number in range(8):
        task = Task.objects.create(name=f"T{number}", program_root="sample_tasks", program_path="countdown.py")
        task.grant(viewer, "view_task", "run_task")
        make_run(task=task)
    assert count() == few
    assert few <= 14


# Actions


def test_selected_runs_are_stopped_or_cancelled_where_one_may(
    client: Client, stopper: User, make_run: MakeRun, hidden: Task
) -> None:
    running, queued, over = make_run(Status.PROCESSING), make_run(Status.QUEUED), make_run(Status.COMPLETED)
    not_mine = make_run(Status.PROCESSING, task=hidden)
    only_seen = make_run(Status.PROCESSING, task=_seen_by(stopper))
    client.force_login(stopper)
    said = do(client, "stop", running, queued, over, not_mine, only_seen)
    assert "2 runs are asked to stop." in said
    assert f"Left out #{over.pk}: over already" in said
    assert f"Left out #{only_seen.pk}: you do not have the permission" in said
    assert f"#{not_mine.pk}" not in said
    asked = set(Run.objects.exclude(cancel_requested_at=None).values_list("pk", flat=True))
    assert asked == {running.pk, queued.pk}
    assert AuditEntry.objects.filter(action=AuditEntry.Action.STOP).count() == 2
    assert RunEvent.objects.filter(run=running, what=RunEvent.What.STOP_REQUESTED, user=stopper).exists()


def test_selected_runs_are_run_again_with_their_arguments(client: Client, runner: User, make_run: MakeRun) -> None:
    over, running = make_run(Status.FAILED, arguments=["7"]), make_run(Status.PROCESSING)
    client.force_login(runner)
    said = do(client, "run_again", over, running)
    assert "Queued 1 run." in said
    assert f"Left out #{running.pk}: not over yet." in said
    new = Run.objects.queued().get()
    assert (new.arguments, new.triggered_by, new.trigger) == (["7"], over, Run.Trigger.AGAIN)
    assert new.requested_by == runner


def test_a_disabled_task_is_left_out_with_its_reason(
    client: Client, runner: User, task: Task, make_run: MakeRun
) -> None:
    Task.objects.filter(pk=task.pk).update(enabled=False)
    client.force_login(runner)
    assert "is disabled. Enable it" in do(client, "run_again", make_run())
    assert not Run.objects.queued().exists()


def test_too_many_at_once_are_refused_as_a_whole(
    client: Client, stopper: User, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "ACTED_ON_AT_MOST", 1)
    client.force_login(stopper)
    said = do(client, "stop", make_run(Status.PROCESSING), make_run(Status.PROCESSING))
    assert "Select at most 1 runs at once; nothing was done." in said
    assert Run.objects.processing().filter(cancel_requested_at=None).count() == 2


def test_of_very_many_those_that_wait_are_cancelled_by_a_few_statements_where_one_may(
    client: Client, stopper: User, make_run: MakeRun, hidden: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "ACTED_ON_AT_MOST", 3)
    only_seen = make_run(Status.QUEUED, task=_seen_by(stopper))
    not_mine, running = make_run(Status.QUEUED, task=hidden), make_run(Status.PROCESSING)
    client.force_login(stopper)
    counts = []
    for count in (4, 40):
        waiting = [make_run(Status.QUEUED) for _ in range(count)]
        with CaptureQueriesContext(connection) as queries:
            said = do(client, "stop", *waiting, only_seen, not_mine, running)
        counts.append(len(queries))
        assert f"Cancelled {count} runs that waited." in said
        assert "Others are left" in said
    assert counts[0] == counts[1]
    assert set(Run.objects.unfinished()) == {only_seen, not_mine, running}
    assert not Run.objects.unfinished().exclude(cancel_requested_at=None).exists()
    cancelled = Run.objects.in_status(Status.CANCELLED).filter(cancel_requested_by=stopper)
    assert cancelled.count() == 44
    assert RunEvent.objects.filter(run__in=cancelled, what=RunEvent.What.FINISHED, user=stopper).count() == 44
    assert AuditEntry.objects.filter(action=AuditEntry.Action.STOP, user_name="stopper").count() == 44


def test_so_many_that_one_request_would_take_too_long_are_cancelled_in_parts(
    client: Client, stopper: User, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"ACTED_ON_AT_MOST": 1, "CANCELLED_AT_ONCE": 2, "CANCELLED_AT_MOST": 4}.items():
        monkeypatch.setattr(runs, name, value)
    waiting = [make_run(Status.QUEUED) for _ in range(6)]
    client.force_login(stopper)
    assert "Cancelled 4 runs that waited." in do(client, "stop", *waiting)
    assert Run.objects.queued().count() == 2
    assert "Others are left" not in do(client, "stop", *waiting)
    assert not Run.objects.queued().exists()


@pytest.mark.parametrize(("role", "offered"), [("viewer", []), ("runner", ["run_again"]), ("stopper", ["stop"])])
def test_only_what_one_may_do_is_offered(
    client: Client, request: pytest.FixtureRequest, make_run: MakeRun, role: str, offered: list[str]
) -> None:
    run = make_run(Status.PROCESSING)
    client.force_login(request.getfixturevalue(role))
    page = client.get(LIST).text
    assert [name for name in ("stop", "run_again", "delete_selected") if f'value="{name}"' in page] == offered
    if "stop" not in offered:
        do(client, "stop", run)
        assert not Run.objects.exclude(cancel_requested_at=None).exists()


def _seen_by(user: User) -> Task:
    task = Task.objects.create(name=f"Seen at {timezone.now()}", program_root="sample_tasks", program_path="fails.py")
    task.grant(user, "view_task")
    return task
