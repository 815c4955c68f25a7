"""Prepared queries: they answer what the queryset answers, and are built once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.db.models import F

from scheduler.models import Run, Task
from scheduler.prepared import Blank, Prepared, PreparedSubquery

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.models import QuerySet

pytestmark = pytest.mark.django_db


def by_number_and_name() -> QuerySet[Run, Any]:
    wanted = Run.objects.filter(pk=Blank("run", Run._meta.pk), task__name=Blank("name", Task._meta.get_field("name")))
    return wanted.values_list("pk", "uuid", "arguments", "due_at", "finished_at", "task__enabled")


def test_it_answers_what_the_queryset_answers(make_run: Callable[..., Run]) -> None:
    prepared = Prepared(by_number_and_name)
    for run in (make_run(), make_run(arguments=["%s", "é"])):
        row = (run.pk, run.uuid, run.arguments, run.due_at, run.finished_at, True)
        assert prepared.first(Run, run=run.pk, name=run.task.name) == row
        assert prepared.first(Run, run=run.pk, name="another") is None
    assert prepared.first(Run, run=0, name="Nightly report") is None


def test_it_is_built_once(make_run: Callable[..., Run]) -> None:
    built = []

    def build() -> QuerySet[Run, Any]:
        built.append(1)
        return by_number_and_name()

    prepared = Prepared(build)
    assert not built  # not when the module is imported, before there is a database
    for run in (make_run(), make_run()):
        assert prepared.first(Run, run=run.pk, name=run.task.name)
    assert len(built) == 1


def test_a_value_is_only_a_value(make_run: Callable[..., Run]) -> None:
    run = make_run()
    for name in ("' OR 1=1 --", "%s", "%(run)s", run.task.name + "\\"):
        assert Prepared(by_number_and_name).first(Run, run=run.pk, name=name) is None


def test_what_is_no_blank_is_only_a_value(make_run: Callable[..., Run]) -> None:
    run = make_run()
    for name in ("' OR 1=1 --", "100% of it's %s \\", run.task.name):
        Task.objects.filter(pk=run.task_id).update(name=name)
        named = Prepared(lambda: Run.objects.filter(pk=Blank("run", Run._meta.pk), task__name=name).values_list("pk"))  # noqa: B023
        assert named.first(Run, run=run.pk) == (run.pk,)
        Task.objects.filter(pk=run.task_id).update(name="another")
        assert named.first(Run, run=run.pk) is None


@pytest.mark.parametrize("is_pooled", [False, True], ids=["", "behind a pooler"])
def test_postgresql_keeps_the_plan_unless_sessions_are_pooled(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, is_pooled: bool
) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite keeps statements by itself.")
    monkeypatch.setitem(connection.settings_dict, "DISABLE_SERVER_SIDE_CURSORS", is_pooled)
    prepared = Prepared(by_number_and_name)
    for run in [make_run() for _ in range(8)]:
        assert prepared.first(Run, run=run.pk, name=run.task.name)
    with connection.cursor() as cursor:
        cursor.execute("SELECT SUM(generic_plans) FROM pg_prepared_statements WHERE statement LIKE '%%task%%enabled%%'")
        assert bool(cursor.fetchone()[0]) is not is_pooled
    assert connection.connection.prepare_threshold is None  # nothing else is prepared


def test_only_the_first_row_is_asked_for(make_run: Callable[..., Run]) -> None:
    runs = [make_run(), make_run()]
    later = Prepared(lambda: Run.objects.filter(task=Blank("task", Task._meta.pk)).order_by("-pk").values_list("pk"))
    assert later.first(Run, task=runs[0].task_id) == (runs[1].pk,)


def test_a_blank_may_stand_in_two_places(make_run: Callable[..., Run]) -> None:
    run = make_run()
    pk = Blank("run", Run._meta.pk)
    twice = Prepared(lambda: Run.objects.filter(pk=pk).annotate(again=pk, own=F("pk")).values_list("again", "own"))
    assert twice.first(Run, run=run.pk) == (run.pk, run.pk)


def test_a_number_that_no_row_can_have_finds_none() -> None:
    prepared = Prepared(lambda: Run.objects.filter(pk=Blank("run", Run._meta.pk)).values_list("pk"))
    for number in (-(10**30), -1, 2**63, 10**30):
        assert prepared.first(Run, run=number) is None


def test_a_blank_without_a_value_is_a_mistake_of_the_programmer() -> None:
    with pytest.raises(KeyError, match="name"):
        Prepared(by_number_and_name).first(Run, run=1)


def test_a_subquery_is_built_once_and_only_its_values_change(make_run: Callable[..., Run]) -> None:
    built = []

    def build() -> QuerySet[Run, Any]:
        built.append(1)
        return Run.objects.filter(arguments=["100%"], task__name=Blank("name", Task._meta.get_field("name"))).values(
            "pk"
        )

    named = PreparedSubquery(build, Run._meta.pk)
    run = make_run(arguments=["100%"])
    make_run()
    for name, found in ((run.task.name, [run]), ("another", []), ("' OR 1=1 --", []), ("%s", [])):
        assert list(Run.objects.filter(pk__in=named.filled(name=name))) == found
        assert list(Task.objects.filter(runs__in=named.filled(name=name))) == [each.task for each in found]
    assert Run.objects.exclude(pk__in=named.filled(name=run.task.name)).count() == 1
    assert len(built) == 1


def test_two_subqueries_with_other_values_are_two_conditions(make_run: Callable[..., Run]) -> None:
    run = make_run()
    of = PreparedSubquery(lambda: Run.objects.filter(pk=Blank("run", Run._meta.pk)).values("pk"), Run._meta.pk)
    mine, others = (Run.objects.filter(pk__in=of.filled(run=pk)) for pk in (run.pk, run.pk + 1))
    assert list(mine | others) == [run]
    assert not (mine & others).exists()
    assert of.filled(run=1) == of.filled(run=1)
    assert of.filled(run=1) != of.filled(run=2)
    with pytest.raises(KeyError, match="run"):
        Run.objects.filter(pk__in=of.filled()).exists()
