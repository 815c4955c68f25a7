"""Groups and priorities: how many runs of some tasks are processed at once, and who is next."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import ProtectedError
from django.test.utils import CaptureQueriesContext

from scheduler.models import ConcurrencyGroup, Run, Task
from scheduler.models.turns import STEP, WINDOW
from tests.chain import at, end, planned, tick
from tests.test_scale import COUNT, plans, queries_of, reads_whole_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from django.contrib.auth.models import User

pytestmark = pytest.mark.django_db

NOW = at("08:00")
LATER = at("09:00")


def make_tasks(owner: User, count: int, **fields: Any) -> list[Task]:
    fields = {"owner": owner, "program_root": "sample_tasks", "program_path": "countdown.py", **fields}
    return Task.objects.bulk_create(Task(name=f"task {uuid4()}", **fields) for _number in range(count))


@pytest.fixture
def group(db: None) -> ConcurrencyGroup:
    return ConcurrencyGroup.objects.create(name="database", max_runs=2)


@pytest.fixture
def members(owner: User, group: ConcurrencyGroup) -> list[Task]:
    return make_tasks(owner, 4, group=group)


def queue(task: Task, now: datetime = NOW) -> Run:
    return task.start_now(by=None, now=now)


def make_waiting(task: Task, count: int, *, due_at: datetime = NOW, **values: Any) -> list[Run]:
    return Run.objects.bulk_create(
        Run(task=task, due_at=due_at, queued_at=due_at, ready_at=due_at, **values) for _number in range(count)
    )


def claim(*runs: Run, now: datetime = LATER) -> list[Run]:
    return Run.objects.claim(runs, host=uuid4(), host_name="here", now=now)


def next_ones(count: int = 9) -> list[Run]:
    return Run.objects.next_startable(LATER, count)


# A group


def test_a_group_starts_no_more_runs_than_it_has_places(members: list[Task]):
    runs = [queue(task) for task in members]
    assert next_ones() == runs[:2]
    assert claim(*runs) == runs[:2]
    assert next_ones() == []
    assert not Run.objects.startable(LATER).exists()
    end(runs[0], LATER)
    assert next_ones() == [runs[2]]
    assert Run.objects.startable(LATER).count() == 2
    assert claim(runs[3], runs[2]) == [runs[3]]


def test_the_others_are_not_in_its_way_nor_it_in_theirs(owner: User, members: list[Task]):
    other_group = ConcurrencyGroup.objects.create(name="network", max_runs=1)
    alone, third = make_tasks(owner, 2)
    Task.objects.filter(pk=third.pk).update(group=other_group)
    third.refresh_from_db()
    runs = [queue(task) for task in (*members, alone, third)]
    assert claim(*next_ones()) == [*runs[:2], *runs[4:]]


def test_a_task_has_no_more_places_for_its_group_having_more(owner: User, group: ConcurrencyGroup):
    one, several = make_tasks(owner, 2, group=group)
    Task.objects.filter(pk=several.pk).update(overlap="allow", max_runs=3)
    runs = [queue(one), queue(one), queue(several), queue(several)]
    assert next_ones() == [runs[0], runs[2]]
    assert claim(*runs) == [runs[0], runs[2]]


def test_places_may_be_taken_away_while_runs_are_processed(members: list[Task], group: ConcurrencyGroup):
    runs = [queue(task) for task in members]
    claim(*runs)
    group.max_runs = 1
    group.save()
    assert Run.objects.processing().count() == 2
    end(runs[0], LATER)
    assert next_ones() == claim(runs[2]) == []
    end(runs[1], LATER)
    assert next_ones() == [runs[2]]
    group.max_runs = 5
    group.save()
    assert next_ones() == runs[2:]


def test_a_group_has_at_least_one_place():
    with pytest.raises(IntegrityError), transaction.atomic():
        ConcurrencyGroup.objects.create(name="none", max_runs=0)


def test_a_group_with_tasks_is_not_deleted(members: list[Task], group: ConcurrencyGroup):
    runs = [queue(task) for task in members]
    claim(*runs)
    with pytest.raises(ProtectedError):
        group.delete()
    for task in members:
        task.group = None
        task.save()
    group.delete()
    assert next_ones() == claim(*runs[2:]) == runs[2:]


def test_a_task_that_changes_its_group_takes_its_runs_along(owner: User, group: ConcurrencyGroup):
    group.max_runs = 1
    group.save()
    first, second = make_tasks(owner, 2, group=group)
    runs = [queue(first), queue(second), queue(first)]
    assert claim(*runs) == runs[:1]
    first.group = None
    first.save()
    # Its run that is processed needs the group's place no longer.
    assert next_ones() == [runs[1]]
    assert claim(runs[1]) == [runs[1]]
    first.group = group
    first.save(update_fields=["group"])
    end(runs[0], LATER)
    assert next_ones() == []


def test_a_run_that_was_queued_while_its_task_was_changed_is_put_right(owner: User, group: ConcurrencyGroup):
    group.max_runs = 1
    group.save()
    first, second = make_tasks(owner, 2)
    stale = [queue(first), queue(second)]  # by programs that have read the tasks before
    Task.objects.update(group=group, priority=Task.Priority.LOW)
    assert claim(*stale) == stale[:1]
    assert set(Run.objects.values_list("lane", "priority")) == {(group.pk, Task.Priority.LOW)}
    assert next_ones() == []


def test_slots_retries_and_follow_ups_wait_in_the_lane_of_their_task(task: Task, group: ConcurrencyGroup):
    task.group, task.priority, task.retries = group, Task.Priority.HIGH, 1
    task.save()
    planned(task)
    tick(NOW)
    (run,) = Run.objects.ready(NOW)
    claim(run, now=NOW)
    end(run, NOW, Run.Status.FAILED)
    assert list(Run.objects.exclude(ready_at=None).values_list("lane", "priority")) == [(group.pk, 1)] * 2


def test_a_run_that_waits_says_for_which_group(
    members: list[Task], group: ConcurrencyGroup, django_assert_num_queries: Callable[..., Any]
):
    runs = [queue(each) for each in members]
    assert runs[3].sentence == "Waits for a free place."
    claim(*runs)
    expected = "Waits for a place in the group “database” (2 of 2 in use)."
    assert Run.objects.get(pk=runs[3].pk).sentence == expected
    waiting = Run.objects.ready(LATER).select_related("task").explained()
    with django_assert_num_queries(1):
        assert [run.sentence for run in waiting] == [expected] * 2


def test_a_run_that_waits_says_that_its_task_is_busy(
    task: Task, group: ConcurrencyGroup, django_assert_num_queries: Callable[..., Any]
):
    task.group = group
    task.save()
    first, second = queue(task), queue(task)
    claim(first)
    expected = "Waits until another run of its task ends (1 of 1 at once)."
    assert Run.objects.get(pk=second.pk).sentence == expected
    waiting = Run.objects.ready(LATER).select_related("task").explained()
    with django_assert_num_queries(1):
        assert [run.sentence for run in waiting] == [expected]


# Priority


def with_priority(owner: User, *priorities: int) -> list[Run]:
    """A run each, all of tasks of their own, due one second after the other."""
    tasks = make_tasks(owner, len(priorities))
    for task, priority in zip(tasks, priorities, strict=True):
        task.priority = priority
        task.save()
    return [queue(task, NOW + timedelta(seconds=number)) for number, task in enumerate(tasks)]


@pytest.mark.parametrize("behind", [0, WINDOW], ids=["few wait", "many wait"])
def test_the_order_is_priority_then_due_then_number(owner: User, behind: int):
    low, normal, high, second, third = with_priority(owner, 3, 2, 1, 2, 1)
    make_waiting(low.task, behind, priority=3)
    expected = [high, third, normal, second, low]
    assert next_ones() == expected
    assert next_ones(2) == expected[:2]
    assert list(Run.objects.startable(LATER)[:5]) == expected


@pytest.mark.parametrize("behind", [0, WINDOW], ids=["few wait", "many wait"])
def test_low_priority_goes_before_what_comes_due_a_day_later(owner: User, behind: int):
    low, normal, high = with_priority(owner, 3, 2, 1)
    Run.objects.filter(pk__in=[normal.pk, high.pk]).update(due_at=NOW + STEP)
    make_waiting(normal.task, behind, due_at=NOW + STEP)
    later = NOW + 2 * STEP
    assert Run.objects.next_startable(later, 9) == [high, low, normal]
    Run.objects.filter(pk=high.pk).update(due_at=NOW + 2 * STEP + timedelta(seconds=1))
    assert Run.objects.next_startable(later + timedelta(seconds=1), 9) == [low, normal, high]
    Run.objects.filter(pk=normal.pk).update(due_at=NOW + STEP - timedelta(seconds=1))
    assert list(Run.objects.startable(later).filter(task__in=[low.task, normal.task])[:2]) == [normal, low]


def test_a_new_priority_counts_for_what_waits_already(owner: User):
    first, second = with_priority(owner, 2, 2)
    second.task.priority = Task.Priority.HIGH
    second.task.save()
    assert next_ones() == [second, first]


def test_what_is_queued_for_later_is_in_nobodys_way(owner: User):
    tasks = make_tasks(owner, 3)
    make_waiting(tasks[0], 2 * WINDOW, priority=Task.Priority.HIGH, due_at=LATER + timedelta(hours=1))
    (low,) = make_waiting(tasks[1], 1, priority=Task.Priority.LOW)
    normal = make_waiting(tasks[2], 2 * WINDOW)
    assert next_ones() == [normal[0], low]


# What it costs


def test_tasks_without_group_cost_no_query_more_and_those_with_one_cost_two(owner: User, members: list[Task]):
    """To look what may start is one query; to claim it: lock, pause, count, update, event."""
    (alone,) = make_tasks(owner, 1)
    queue(alone)
    assert len(queries_of(next_ones)) == 1
    (run,) = next_ones()
    plain = len(queries_of(lambda: claim(run)))
    queue(members[0])
    assert len(queries_of(next_ones)) == 2
    (run,) = next_ones()
    assert len(queries_of(lambda: claim(run))) == plain + 2


@pytest.mark.parametrize("tasks", [1, 3 * WINDOW], ids=["of one task", "each of its own task"])
def test_many_runs_that_wait_for_a_group_hide_no_other_and_are_not_read(
    owner: User, group: ConcurrencyGroup, tasks: int
):
    in_group = make_tasks(owner, tasks, group=group)
    busy = make_waiting(in_group[0], 2, lane=group.pk)
    Run.objects.filter(pk__in=[run.pk for run in busy]).update(status="processing", claim_token="x", host=uuid4())
    Run.objects.bulk_create(
        Run(task=in_group[number % tasks], lane=group.pk, due_at=NOW, queued_at=NOW, ready_at=NOW)
        for number in range(3 * WINDOW)
    )
    (other,) = make_tasks(owner, 1)
    assert next_ones() == []
    waiting = queue(other, LATER)
    with CaptureQueriesContext(connection) as captured:
        assert next_ones() == [waiting]
    assert len(captured) == 3
    # The window of the oldest, the heads of the lanes that have a place, and the one run of these.
    assert f"LIMIT {WINDOW}" in captured[0]["sql"]
    assert f"LIMIT {WINDOW}" in captured[1]["sql"]
    assert f"IN ({waiting.pk})" in captured[2]["sql"]


def test_a_busy_task_hides_no_other_in_its_group(owner: User, group: ConcurrencyGroup):
    busy, other = make_tasks(owner, 2, group=group)
    Task.objects.filter(pk=busy.pk).update(paused_at=NOW)
    make_waiting(busy, 2 * WINDOW, lane=group.pk)
    waiting = queue(other, LATER)
    assert next_ones() == [waiting]


@pytest.mark.parametrize("what", ["group", "priority"])
def test_a_crowd_reads_no_table_as_a_whole(owner: User, group: ConcurrencyGroup, what: str):
    (busy,) = make_tasks(owner, 1, group=group)
    (other,) = make_tasks(owner, 1)
    make_waiting(busy, COUNT, lane=group.pk if what == "group" else 0)
    Task.objects.filter(pk=busy.pk).update(paused_at=NOW)
    waiting = make_waiting(other, 1, priority=1)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
    queries = queries_of(lambda: next_ones(1))
    assert next_ones(1) == waiting
    plan = plans(queries)
    assert "scheduler_run_lanes" in plan
    small = ("waiting", "lanes", "priorities", "places", "(subquery", "CONSTANT ROW")
    assert [line for line in reads_whole_table(plan) if not any(name in line for name in small)] == []


# Three pollers at once


@pytest.mark.django_db(transaction=True)
def test_three_pollers_together_exceed_no_group(owner: User):
    if connection.vendor != "postgresql":
        pytest.skip("needs PostgreSQL: on SQLite one transaction follows the other")
    group = ConcurrencyGroup.objects.create(name="database", max_runs=2)
    tasks = make_tasks(owner, 12, group=group)
    most: list[int] = []
    for _round in range(25):
        runs = [queue(task) for task in tasks]
        together = Barrier(3)

        def poll(own: list[Run], together: Barrier = together) -> int:
            try:
                host = uuid4()
                together.wait(timeout=60)
                return len(Run.objects.claim(own, host=host, host_name="here", now=LATER))
            finally:
                connection.close()

        with ThreadPoolExecutor(3) as pool:
            # Each asks for tasks of its own: only the group's row keeps them apart.
            claimed = sum(pool.map(poll, [runs[:4], runs[4:8], runs[8:]]))
        most.append(Run.objects.processing().count())
        assert claimed == most[-1]
        Run.objects.all().delete()
    assert most == [2] * 25


@pytest.mark.django_db(transaction=True)
def test_a_group_that_somebody_holds_keeps_no_poller_waiting(owner: User):
    if connection.vendor != "postgresql":
        pytest.skip("needs PostgreSQL: this is about its row locks")
    group = ConcurrencyGroup.objects.create(name="database", max_runs=2)
    (member,), (other,) = make_tasks(owner, 1, group=group), make_tasks(owner, 1)
    runs = [queue(member), queue(other)]

    def elsewhere() -> list[Run]:
        try:
            return claim(*runs)
        finally:
            connection.close()

    with transaction.atomic(), ThreadPoolExecutor(1) as pool:
        assert ConcurrencyGroup.objects.locked([group.pk])
        assert pool.submit(elsewhere).result(timeout=60) == runs[1:]
    assert claim(*runs) == runs[:1]
