"""How long one round of a scheduler takes, by the number of schedules that it has."""

from __future__ import annotations

import importlib.util
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.db import connection, models, transaction

from benchmarks.waiting import Unusable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

SIZES = (10, 1_000, 10_000, 100_000, 1_000_000)
TICKS = 30
SECONDS_A_SIZE = 10.0
DUE = 100
DUE_ROUNDS = 5
TASKS = 1_000
START = datetime(2030, 1, 1, tzinfo=UTC)
NEVER = START + timedelta(days=10_000)

Figures = dict[str, dict[str, list[float]]]


def measure(options: argparse.Namespace, figures: Figures) -> None:
    """The ticks of one scheduler, up to so many schedules, into ``figures``. Raises Unusable."""
    sizes = [size for size in SIZES if size <= options.most]
    match options.name:
        case "scheduler":
            scheduler(sizes, figures)
        case "django_celery_beat":
            celery_beat(sizes, figures)
        case "django_q2":
            django_q2(sizes, figures)
        case _:
            raise Unusable(f"There is no scheduler {options.name}.")


def timed(tick: Callable[[], object], count: int = TICKS) -> list[float]:
    """Milliseconds of so many ticks, or of as many as fit into the time."""
    tick()
    values: list[float] = []
    until = time.monotonic() + SECONDS_A_SIZE
    while len(values) < count and (len(values) < 3 or time.monotonic() < until):
        begin = time.perf_counter()
        tick()
        values.append((time.perf_counter() - begin) * 1000)
    return values


# This project


def scheduler(sizes: list[int], figures: Figures) -> None:
    """None due; then a hundred due; then none due beside as many finished runs as there are schedules."""
    from scheduler.executors.local import LocalExecutor
    from scheduler.models import Recurrence, Run, Schedule, Task
    from scheduler.poller import PollerDaemon

    figures |= {"tick_ms": {}, "sql_ms_a_due_slot": {"": []}, "tick_ms_a_due_slot": {"": []}, "finished": {}}
    hourly = Recurrence.objects.create(name="hourly", kind="every", every=1, unit="hours")
    tasks = Task.objects.bulk_create(
        Task(name=f"task {number}", program_root="benchmarks", program_path="one_query.py") for number in range(TASKS)
    )
    daemon = PollerDaemon(LocalExecutor())
    daemon.capacity = 0  # what is due is decided, and nothing is started
    now = START

    def tick() -> None:
        nonlocal now
        now += timedelta(seconds=0.25)
        daemon.tick(now)

    def make(first: int, last: int, anchor: datetime) -> None:
        """Schedules with these numbers, each with its next run in the queue."""
        schedule = Schedule(pk=0, task=tasks[0], recurrence=hourly, anchor=anchor, time_zone="UTC")
        run = Run(pk=0, task=tasks[0], schedule_id=0, slot_at=anchor, due_at=anchor, queued_at=START)
        task = f"{tasks[0].pk} + number % {TASKS}"
        with building():
            multiply(schedule, first, last, {"id": "number", "task_id": task, "next_run_id": "number"})
            multiply(run, first, last, {"id": "number", "task_id": task, "schedule_id": "number", "uuid": UUIDS})

    made = 0
    for size in sizes:
        make(made + 1, size, NEVER)
        made = size
        analyse()
        figures["tick_ms"][str(size)] = timed(tick)
    due_at = now + timedelta(hours=1)
    make(made + 1, made + DUE, due_at)
    analyse()
    for _ in range(DUE_ROUNDS):
        with sql_time() as spent:
            begin = time.perf_counter()
            daemon.tick(due_at + timedelta(seconds=1))
            took = time.perf_counter() - begin
        decided = Run.objects.queued().exclude(ready_at=None)
        if decided.count() != DUE:
            raise Unusable(f"{decided.count()} of {DUE} slots that were due became ready.")
        decided.delete()  # the next slots are to find their tasks free
        figures["sql_ms_a_due_slot"][""].append(spent[0] * 1000 / DUE)
        figures["tick_ms_a_due_slot"][""].append(took * 1000 / DUE)
        due_at += timedelta(hours=1)
    now = due_at - timedelta(minutes=30)
    values = {"task": tasks[0], "slot_at": None, "due_at": START, "queued_at": START, "ready_at": START}
    ended = Run(
        pk=0, status="completed", reason="exit_code", exit_code=0, finished_at=START, trigger="manual", **values
    )
    first = 10_000_000
    task = f"{tasks[0].pk} + number % {TASKS}"
    with building():
        multiply(ended, first + 1, first + made, {"id": "number", "task_id": task, "uuid": UUIDS})
    analyse()
    figures["finished"][str(made)] = timed(tick)
    daemon.executor.close()


UUIDS = "uuid"


def multiply(example: models.Model, first: int, last: int, changes: dict[str, str]) -> None:
    """Insert rows like the example, which is not saved, with SQL for what is different in each ("number" counts)."""
    fields = example._meta.concrete_fields
    columns, expressions, values = [], [], []
    for each in fields:
        assert each.column is not None
        columns.append(connection.ops.quote_name(each.column))
        change = changes.get(each.column)
        if change == UUIDS:
            expressions.append(
                "printf('%032x', number)" if connection.vendor == "sqlite" else "lpad(to_hex(number), 32, '0')::uuid"
            )
        elif change is not None:
            expressions.append(change)
        else:
            value = each.get_db_prep_save(getattr(example, each.attname), connection)
            # A parameter in a SELECT has no type of its own on PostgreSQL.
            expressions.append("%s" if connection.vendor == "sqlite" else f"%s::{each.db_type(connection)}")
            values.append(value)
    numbers = (
        f"WITH RECURSIVE numbers(number) AS "
        f"(SELECT {first} UNION ALL SELECT number + 1 FROM numbers WHERE number < {last})"
        if connection.vendor == "sqlite"
        else f"WITH numbers AS (SELECT generate_series({first}, {last}) AS number)"
    )
    table = connection.ops.quote_name(example._meta.db_table)
    expression = ", ".join(expressions).replace("%032x", "%%032x").replace("number % ", "number %% ")
    select = f"{numbers} SELECT {expression} FROM numbers"
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {table} ({', '.join(columns)}) {select}", values)
        if connection.vendor == "postgresql" and last < 10_000_000:
            cursor.execute(f"SELECT setval(pg_get_serial_sequence('{example._meta.db_table}', 'id'), 20000000)")


@contextmanager
def building() -> Iterator[None]:
    """One transaction, since a schedule and its next run name each other; on SQLite with room for large indexes."""
    is_sqlite = connection.vendor == "sqlite"
    with connection.cursor() as cursor:
        if is_sqlite:
            cursor.execute("PRAGMA foreign_keys = OFF")
            cursor.execute("PRAGMA cache_size = -400000")
        with transaction.atomic():
            yield
        if is_sqlite:
            cursor.execute("PRAGMA cache_size = -2000")
            cursor.execute("PRAGMA foreign_keys = ON")


def analyse() -> None:
    """What a database does by itself after a while."""
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


@contextmanager
def sql_time() -> Iterator[list[float]]:
    """The seconds that statements and commits took meanwhile."""
    spent = [0.0]

    def time_it(execute: Any, *arguments: Any) -> Any:
        begin = time.perf_counter()
        try:
            return execute(*arguments)
        finally:
            spent[0] += time.perf_counter() - begin

    database: Any = connection  # what commits has no public name
    commit = database._commit
    database._commit = lambda: time_it(commit)
    try:
        with connection.execute_wrapper(time_it):
            yield spent
    finally:
        del database._commit


# Peers


def demand(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise Unusable(f"{module} is not installed.")


def celery_beat(sizes: list[int], figures: Figures) -> None:
    """django-celery-beat's scheduler: while nothing changes, and in the round after a save."""
    demand("django_celery_beat")
    from django.utils import timezone
    from django_celery_beat.models import IntervalSchedule, PeriodicTask, PeriodicTasks
    from django_celery_beat.schedulers import DatabaseScheduler

    from benchmarks.peer_celery import app

    figures |= {"tick_ms": {}, "after_save": {}}
    daily = IntervalSchedule.objects.create(every=10_000, period="days")
    made = 0
    for size in sizes:
        PeriodicTask.objects.bulk_create(
            (
                PeriodicTask(name=f"task {n}", task="benchmarks.one_query", interval=daily, last_run_at=timezone.now())
                for n in range(made, size)
            ),
            batch_size=5_000,
        )
        made = size
        PeriodicTasks.update_changed()
        beat = DatabaseScheduler(app=app)
        figures["tick_ms"][str(size)] = timed(beat.tick)

        def tick_after_save(beat: Any = beat) -> None:
            PeriodicTasks.update_changed()
            beat.tick()

        figures["after_save"][str(size)] = timed(tick_after_save, 5)


def django_q2(sizes: list[int], figures: Figures) -> None:
    """django-q2's scheduler, which runs twice a minute."""
    demand("django_q")
    from django.utils import timezone
    from django_q.brokers import get_broker
    from django_q.models import Schedule
    from django_q.scheduler import scheduler as tick

    figures |= {"tick_ms": {}}
    broker = get_broker()
    far = timezone.now() + timedelta(days=10_000)
    made = 0
    for size in sizes:
        rows = (
            Schedule(name=str(n), func="benchmarks.work.one_query", schedule_type=Schedule.DAILY, next_run=far)
            for n in range(made, size)
        )
        Schedule.objects.bulk_create(rows, batch_size=5_000)
        made = size
        figures["tick_ms"][str(size)] = timed(lambda: tick(broker))
