"""Whose turn it is: which of the runs that are ready start next, when not all of them can.

The order is priority, then how long they have been due. A step of priority is worth a day of waiting, so that nothing
waits for ever behind what comes later: a run of low priority goes before those of normal priority that came due a day
after it.

A run waits in its task's lane: that of its group, or lane 0. Runs that are blocked may be many, and are not read: not
those of a full group (its lane is left out), nor those of a task that is busy or paused (beyond the first few).
"""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from django.db import connection
from django.db.models import (
    Case,
    Count,
    DateTimeField,
    DurationField,
    Exists,
    ExpressionWrapper,
    F,
    IntegerField,
    OuterRef,
    Q,
    Subquery,
    Value,
    When,
)
from django.db.models.expressions import Combinable, RawSQL
from django.db.models.functions import Coalesce

from scheduler.prepared import Blank, PreparedRows

from .group import ConcurrencyGroup, in_use_of
from .pause import SchedulerState
from .task import Task

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from .run import Run, RunQuerySet

# How many of the oldest runs that wait are looked at one by one, of all or of each lane and priority
WINDOW = 16
STEP = timedelta(days=1)  # what one step of priority is worth


def next_startable(now: datetime, count: int) -> list[Run]:
    """At most so many runs that may start together, in their order: no more of a task or group than it has places.

    While few runs wait it is one query, and one more if any of them is of a group.
    """
    from .run import Run

    if count <= 0:
        return []
    window = max(count, WINDOW)
    runs = _oldest(window).all(Run, now=now)
    hiding: set[int] = set()  # lanes that have more to offer than was read
    if len(runs) < window:
        free = _free_places({run.lane for run in runs}, count)
    elif _all_are_plain(runs):
        free, hiding = {0: count}, {0}
    else:
        runs, free, hiding = _first_of_each_lane(now, window, count)
    found = _pick(runs, free, count)
    if len(found) < count and hiding and _have_places(found, free, hiding):
        known = {run.pk for run in runs}
        runs += [run for run in _first_of_each_task(now, count) if run.pk not in known]
        found = _pick(runs, free, count)
    return found


def turn(run: Run) -> tuple[datetime, int]:
    """What runs that wait are sorted by."""
    return run.due_at + (run.priority - Task.Priority.NORMAL) * STEP, run.pk


def by_turn() -> tuple[Combinable, str]:
    """The same, for ``order_by``."""
    steps = [When(priority=each, then=Value((each - Task.Priority.NORMAL) * STEP)) for each in Task.Priority]
    bonus = Case(*steps, default=Value(timedelta(0)), output_field=DurationField())
    return ExpressionWrapper(F("due_at") + bonus, output_field=DateTimeField()), "id"


def may_start(to_task: str = "", **of: OuterRef) -> Q:
    """Whether a run of a task may start now; ``to_task`` leads to the task, ``of`` says which runs are its own."""
    group = f"{to_task}group"
    has_place = Q(**{group: None}) | Q(**{f"{group}__max_runs__gt": in_use_of(OuterRef(group))})
    return _task_may_start(to_task, **of) & has_place


def pause() -> Any:
    """The pause of the whole scheduler, if there is one; found by its key."""
    return SchedulerState.objects.filter(pk=1, paused_at__isnull=False)


def _task_may_start(to_task: str, **of: OuterRef) -> Q:
    """The same, but for the task's group."""
    return Q(
        ~Exists(pause()),
        **{
            f"{to_task}enabled": True,
            f"{to_task}paused_at": None,
            f"{to_task}max_runs__gt": under_way(**of),
        },
    )


def under_way(**of: OuterRef) -> Coalesce:
    """How many runs of a task are processed."""
    from .run import Run

    counted = Run.objects.processing().filter(**of).order_by().values("task").annotate(count=Count("pk"))
    return Coalesce(Subquery(counted.values("count"), output_field=IntegerField()), 0)


def _with_places(runs: RunQuerySet) -> RunQuerySet:
    """Each with ``places``: how many runs of its task may start now, as far as its group has places for them."""
    of = OuterRef("task")
    places = When(_task_may_start("task__", task=of), then=F("task__max_runs") - under_way(task=of))
    return runs.annotate(places=Case(places, default=0, output_field=IntegerField()))


def _pick(runs: list[Run], free: dict[int, int], count: int) -> list[Run]:
    """Those that may start together; ``free`` are the places of their lanes."""
    taken: dict[int, int] = {}
    left = dict(free)
    found: list[Run] = []
    for run in sorted(runs, key=turn):
        if len(found) == count:
            break
        if taken.get(run.task_id, 0) < vars(run)["places"] and left.get(run.lane, 0) > 0:
            taken[run.task_id] = taken.get(run.task_id, 0) + 1
            left[run.lane] -= 1
            found.append(run)
    return found


def _have_places(found: list[Run], free: dict[int, int], lanes: Iterable[int]) -> bool:
    """Whether one of the lanes has a place left beside those that were found."""
    return any(sum(run.lane == lane for run in found) < free[lane] for lane in lanes)


# Few wait


@cache
def _oldest(window: int) -> PreparedRows[Run]:
    """Those that have waited longest; each with what the ends of the lanes are, whoever else waits."""
    from .run import Run

    lanes = Run.objects.waiting()
    now: Any = Blank("now", DateTimeField())
    # Not Exists(), which drops the order: these are the two ends of an index.
    ends = {
        "first_priority": Subquery(lanes.order_by("lane", "priority").values("priority")[:1]),
        "last_lane": Subquery(lanes.order_by("-lane").values("lane")[:1]),
    }
    return PreparedRows(lambda: _with_places(Run.objects.ready(now)).annotate(**ends)[:window])


def _all_are_plain(runs: list[Run]) -> bool:
    """Whether nobody who waits is of a group, or of a higher priority than these, which are all normal."""
    normal = Task.Priority.NORMAL
    ends = vars(runs[0])
    return ends["last_lane"] == 0 and ends["first_priority"] >= normal and all(run.priority == normal for run in runs)


def _free_places(lanes: set[int], count: int) -> dict[int, int]:
    """Lane -> how many of ``count`` runs it has places for."""
    free = dict.fromkeys(lanes, count)
    if lanes - {0}:
        for group in ConcurrencyGroup.objects.order_by().filter(pk__in=lanes - {0}).with_in_use():
            free[group.pk] = group.max_runs - vars(group)["in_use"]
    return free


# Many wait


def _first_of_each_lane(now: datetime, window: int, count: int) -> tuple[list[Run], dict[int, int], set[int]]:
    """The oldest few of each priority in each lane that has places; the places; which lanes have more than these.

    The lanes are found by jumps in an index from one to the next.
    """
    from .run import Run

    run, group = (connection.ops.quote_name(model._meta.db_table) for model in (Run, ConcurrencyGroup))
    waiting = f"SELECT MIN(lane) FROM {run} WHERE status = 'queued' AND ready_at IS NOT NULL"  # noqa: S608
    priorities = " UNION ALL ".join(f"SELECT {each:d} AS priority" for each in Task.Priority)
    first = (
        f"SELECT id FROM {run} WHERE status = 'queued' AND ready_at IS NOT NULL AND lane = lanes.lane "  # noqa: S608
        "AND priority = priorities.priority AND due_at <= %s ORDER BY due_at, id LIMIT %s"
    )
    if connection.vendor == "sqlite":  # no LATERAL; a CROSS JOIN is done in this order
        heads = f"CROSS JOIN {run} AS head WHERE head.id IN ({first})"
    else:
        heads = f"CROSS JOIN LATERAL ({first}) AS head WHERE TRUE"
    sql = (
        f"WITH RECURSIVE waiting(lane) AS ({waiting} UNION ALL "  # noqa: S608
        f"SELECT ({waiting} AND lane > waiting.lane) FROM waiting WHERE waiting.lane IS NOT NULL), "
        "lanes(lane, free) AS (SELECT waiting.lane, places.max_runs - (SELECT COUNT(*) "
        f"FROM {run} AS busy WHERE busy.status = 'processing' AND busy.lane > 0 AND busy.lane = places.id) "
        f"FROM waiting LEFT JOIN {group} AS places ON places.id = waiting.lane WHERE waiting.lane IS NOT NULL) "
        "SELECT head.id, lanes.lane, lanes.free, priorities.priority "
        f"FROM lanes CROSS JOIN ({priorities}) AS priorities {heads} AND (lanes.free IS NULL OR lanes.free > 0)"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, [DateTimeField().get_db_prep_value(now, connection), window])
        rows = cursor.fetchall()
    free = {lane: count if places is None else places for _id, lane, places, _priority in rows}
    sizes: dict[tuple[int, int], int] = {}
    for _id, lane, _places, priority in rows:
        sizes[lane, priority] = sizes.get((lane, priority), 0) + 1
    hiding = {lane for (lane, _priority), size in sizes.items() if size == window}
    runs = _with_places(Run.objects.order_by().filter(pk__in=[row[0] for row in rows], schedule__paused_at=None))
    return list(runs), free, hiding


def _first_of_each_task(now: datetime, count: int) -> list[Run]:
    """Of each task that may start, and that has runs that wait, as many of the first as it has places."""
    from .run import Run

    first = Run.objects.ready(now).filter(task=OuterRef("pk")).values("pk")[:1]
    tasks = Task.objects.filter(may_start(task=OuterRef("pk")), pk__in=_tasks_that_wait())
    firsts = tasks.order_by().values_list(Subquery(first), flat=True)
    found = list(_with_places(Run.objects.filter(pk__in=firsts)).order_by(*by_turn())[:count])
    for run in found[:]:
        places = vars(run)["places"]
        if places > 1:
            others = Run.objects.ready(now).filter(task=run.task_id).exclude(pk=run.pk)
            found += others.annotate(places=Value(places, output_field=IntegerField()))[: min(places, count) - 1]
    return found


def _tasks_that_wait() -> RawSQL:
    """The ids of the tasks that have decided runs in the queue, found by jumps in an index from one to the next.

    SELECT DISTINCT reads every row of the index on SQLite and PostgreSQL alike.
    """
    from .run import Run

    run = connection.ops.quote_name(Run._meta.db_table)
    waiting = f"SELECT MIN(task_id) FROM {run} WHERE status = 'queued' AND ready_at IS NOT NULL"  # noqa: S608
    return RawSQL(  # noqa: S611 (nothing in it comes from anybody)
        f"WITH RECURSIVE waiting(task_id) AS ({waiting} UNION ALL "  # noqa: S608
        f"SELECT ({waiting} AND task_id > waiting.task_id) FROM waiting WHERE waiting.task_id IS NOT NULL) "
        "SELECT task_id FROM waiting WHERE task_id IS NOT NULL",
        (),
    )
