"""What a round of the poller costs: counted in queries and read from the databases' plans, never in time.

The figures for a million rows are in docs/queries.md.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from scheduler.executors.local import LocalExecutor
from scheduler.models import Calendar, Recurrence, Run, RunEvent, Schedule, SchedulerState, Task, decide_together
from scheduler.models.turns import WINDOW
from scheduler.poller import PollerDaemon
from scheduler.states import Reason, Status

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from django.contrib.auth.models import User
    from django.db.models import QuerySet

NOW = datetime(2030, 1, 1, 8, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def poller(db: None, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PollerDaemon:
    monkeypatch.setattr("scheduler.poller.alarms.LOOK_SECONDS", 3600.0)  # it looks now and then: not in these rounds
    settings.SCHEDULER = {**settings.SCHEDULER, "ROOT": tmp_path / "scheduler"}
    daemon = PollerDaemon(LocalExecutor())
    daemon.tick(NOW)  # its first round tells who it is
    return daemon


def make_tasks(owner: User, count: int, **fields: Any) -> list[Task]:
    return Task.objects.bulk_create(
        Task(name=f"task {number}", owner=owner, program_root="sample_tasks", program_path="countdown.py", **fields)
        for number in range(count)
    )


def make_schedules(tasks: list[Task], recurrence: Recurrence) -> list[Schedule]:
    """One an hour for each task, from NOW on."""
    schedules = [
        Schedule.objects.create(task=task, recurrence=recurrence, anchor=NOW, time_zone="UTC") for task in tasks
    ]
    for schedule in schedules:
        schedule.plan(NOW - HOUR)
    return schedules


def make_waiting(task: Task, count: int, *, due_at: datetime = NOW, **values: Any) -> list[Run]:
    """Runs that wait only for a place."""
    return Run.objects.bulk_create(
        Run(task=task, trigger=Run.Trigger.MANUAL, due_at=due_at, queued_at=due_at, ready_at=due_at, **values)
        for _number in range(count)
    )


def queries_of(act: Callable[[], object]) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        act()
    return [query["sql"] for query in captured]


# A round


def test_a_round_without_anything_to_do_is_two_queries(poller: PollerDaemon, task: Task, recurrence: Recurrence):
    make_schedules([task], recurrence)
    make_waiting(task, 3, due_at=NOW + HOUR)
    poller.tick(NOW - HOUR)  # it reports every few seconds
    assert len(queries_of(lambda: poller.tick(NOW - HOUR))) == 2


def test_a_round_without_free_places_asks_for_no_run(poller: PollerDaemon, task: Task):
    make_waiting(task, 3)
    poller.capacity = poller.busy = 0
    assert len(queries_of(lambda: poller.tick(NOW))) == 1


def test_the_poller_sleeps_until_the_next_run_is_due(poller: PollerDaemon, task: Task, monkeypatch: pytest.MonkeyPatch):
    now = timezone.now()
    monkeypatch.setattr("scheduler.poller.daemon.IDLE_SECONDS", 3600.0)
    assert poller._pause(poller.tick(now)) == 3600.0
    make_waiting(task, 1, due_at=now + timedelta(seconds=600))
    assert 0 < poller._pause(poller.tick(now)) <= 600.0


def test_a_round_that_has_decided_something_is_followed_by_another_at_once(
    poller: PollerDaemon, task: Task, recurrence: Recurrence
):
    make_schedules([task], recurrence)
    poller.capacity = 0
    assert poller._pause(poller.tick(NOW)) == 0
    assert poller._pause(poller.tick(NOW)) > 0


def test_a_poller_whose_row_is_gone_does_everything(poller: PollerDaemon, task: Task, recurrence: Recurrence):
    (schedule,) = make_schedules([task], recurrence)
    type(poller.row).objects.all().delete()
    poller.capacity = 0
    poller.tick(NOW)
    assert list(Run.objects.ready(NOW).values_list("schedule", flat=True)) == [schedule.pk]


# Due slots


def test_a_hundred_due_slots_take_a_handful_of_queries(owner: User, recurrence: Recurrence):
    schedules = make_schedules(make_tasks(owner, 100, arguments=["3"]), recurrence)
    due = list(Run.objects.due(NOW))
    queries = queries_of(lambda: decide_together(due, NOW))
    assert len(queries) <= 20
    assert Run.objects.ready(NOW).filter(arguments=["3"]).count() == 100
    assert sorted(run.schedule_id or 0 for run in Run.objects.undecided().filter(due_at=NOW + HOUR)) == [
        schedule.pk for schedule in schedules
    ]
    assert all(
        schedule.next_run is not None
        and schedule.next_run.slot_at == NOW + HOUR
        and schedule.next_run.schedule == schedule
        for schedule in Schedule.objects.select_related("next_run")
    )


def ledger(schedules: list[Schedule]) -> list[list[Any]]:
    """What became of each schedule's slots, and where it stands."""
    columns = ("slot_at", "slot_until", "slot_count", "ready_at", "status", "reason", "detail", "arguments")
    history = ("slot_at", "events__what", "events__text", "events__at", "alarms__kind", "alarms__at", "alarms__task")
    state = ("enabled", "ended", "stale_at", "covered_until", "problem", "next_run__slot_at")
    first = schedules[0].task_id
    return [
        [
            *schedule.runs.order_by("slot_at").values_list(*columns),
            *((*row, task and task - first) for *row, task in schedule.runs.order_by("events").values_list(*history)),
            *Schedule.objects.filter(pk=schedule.pk).values_list(*state),
        ]
        for schedule in schedules
    ]


def test_decided_together_or_one_by_one_is_the_same(owner: User, recurrence: Recurrence):
    """Plain ones, of a disabled task, of a busy task, two of one task, the last one, missed ones, stale ones."""

    def world(prefix: str) -> list[Schedule]:
        tasks = [
            Task.objects.create(
                name=f"{prefix}{number}", owner=owner, program_root="a", program_path="b", arguments=["x"]
            )
            for number in range(6)
        ]
        Task.objects.filter(pk=tasks[1].pk).update(enabled=False)
        make_waiting(tasks[2], 1, due_at=NOW - HOUR)
        schedules = make_schedules([*tasks, tasks[0]], recurrence)
        Schedule.objects.filter(pk=schedules[3].pk).update(ends_at=NOW)
        Schedule.objects.filter(pk=schedules[4].pk).update(anchor=NOW - 3 * HOUR)
        Run.objects.filter(schedule=schedules[4]).update(slot_at=NOW - 2 * HOUR, due_at=NOW - 2 * HOUR)
        Schedule.objects.filter(pk=schedules[5].pk).update(stale_at=NOW, arguments=["y"])
        return schedules

    one_by_one, together = world("a"), world("b")
    for run in Run.objects.due(NOW).filter(schedule__in=one_by_one):
        run.decide(NOW)
    decided, left = decide_together(list(Run.objects.due(NOW)), NOW)
    assert (decided, len(left)) == (5, 2)
    for run in left:
        assert run.decide(NOW)
    assert ledger(together) == ledger(one_by_one)


POLICIES: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[int, int]]] = {
    # What is special about the task, about its schedule, and how many of the task's runs are processed and wait.
    "overlap-skip-busy": ({}, {}, (1, 0)),
    "overlap-queue-busy": ({"overlap": "queue"}, {}, (1, 0)),
    "overlap-queue-full": ({"overlap": "queue"}, {}, (1, 1)),
    "overlap-stop-free": ({"overlap": "stop"}, {}, (0, 0)),
    "overlap-stop-busy": ({"overlap": "stop"}, {}, (1, 0)),
    "overlap-allow-place": ({"overlap": "allow", "max_runs": 3}, {}, (1, 1)),
    "overlap-allow-full": ({"overlap": "allow", "max_runs": 3}, {}, (2, 1)),
    "overlap-allow-one": ({"overlap": "allow"}, {}, (1, 0)),
    "disabled": ({"enabled": False}, {}, (0, 0)),
    "task-paused": ({"paused_at": NOW, "paused_by_name": "ann", "pause_reason": "moving"}, {}, (0, 0)),
    "schedule-paused": ({}, {"paused_at": NOW}, (1, 0)),
    "too-late": ({}, {"max_lateness_seconds": 60}, (0, 0)),
    "late": ({}, {"max_lateness_seconds": 600}, (0, 0)),
    "missed": ({}, {"catch_up": "skip"}, (0, 0)),
    "missed-and-paused": ({}, {"catch_up": "skip", "paused_at": NOW}, (0, 0)),
    "spread": ({}, {"jitter_seconds": 60}, (0, 0)),
    "caught-up": ({}, {"catch_up": "all", "anchor": NOW - 3 * HOUR, "now": NOW - 4 * HOUR}, (0, 0)),
    "blocked": ({}, {"calendar": "tue 07:00-09:00"}, (0, 0)),
    "blocked-and-over": ({}, {"calendar": "2030-01-01", "ends_at": NOW}, (0, 0)),
    "not-blocked": ({}, {"calendar": "tue 09:00-10:00"}, (0, 0)),
    "bad-calendar": ({}, {"calendar": "some day"}, (0, 0)),
}


def policed(prefix: str, name: str, owner: User, recurrence: Recurrence) -> list[Schedule]:
    """Two schedules of a task with this policy, due at once."""
    of_task, of_schedule, (processing, waiting) = POLICIES[name]
    of_schedule = dict(of_schedule)
    planned_at = of_schedule.pop("now", NOW - HOUR)
    if "calendar" in of_schedule:
        lines = of_schedule["calendar"]
        of_schedule["calendar"] = Calendar.objects.get_or_create(name=lines, lines=lines, time_zone="UTC")[0]
    values = {"program_root": "a", "program_path": "b", "arguments": ["x"], **of_task}
    task = Task.objects.create(name=f"{prefix} {name}", owner=owner, **values)
    taken = {"status": Status.PROCESSING, "claim_token": "x", "host": uuid4()}
    make_waiting(task, processing, due_at=NOW - HOUR, **taken)
    make_waiting(task, waiting, due_at=NOW - HOUR)
    schedules = []
    for _number in range(2):
        fields = {"task": task, "recurrence": recurrence, "anchor": NOW, "time_zone": "UTC", **of_schedule}
        schedule = Schedule.objects.create(**fields)
        Schedule.objects.filter(pk=schedule.pk).update(stale_at=planned_at)
        schedule.plan(planned_at)
        schedules.append(schedule)
    # By a spread they would not be due at once.
    Run.objects.filter(schedule__in=schedules, due_at__gt=NOW).update(due_at=NOW)
    return schedules


@pytest.mark.parametrize("drained", [False, True], ids=["", "drained"])
def test_every_policy_decides_the_same_together_and_one_by_one(owner: User, recurrence: Recurrence, drained: bool):
    if drained:
        SchedulerState.get().pause(by=owner, why="moving", now=NOW)
    now = NOW + timedelta(seconds=90)
    one_by_one = {name: policed("a", name, owner, recurrence) for name in POLICIES}
    for run in Run.objects.due(now):
        run.decide(now)
    together = {name: policed("b", name, owner, recurrence) for name in POLICIES}
    decided, left = decide_together(list(Run.objects.due(now)), now)
    one_at_a_time = {run.task.name.removeprefix("b ") for run in left}
    for run in left:
        assert run.decide(now)

    def becomes(schedules: list[Schedule]) -> list[Any]:
        for run in Run.objects.undecided().filter(schedule__in=schedules):
            assert run.schedule is not None and run.slot_at is not None
            assert run.due_at == run.schedule.start_of(run.slot_at)
        others = schedules[0].task.runs.filter(schedule=None).order_by("pk")
        return [ledger(schedules), *others.values_list("status", "reason", "cancel_requested_at", "events__what")]

    for name in POLICIES:
        assert becomes(together[name]) == becomes(one_by_one[name]), name
    stopping = set() if drained else {"overlap-stop-free", "overlap-stop-busy"}
    assert one_at_a_time == {"caught-up", "bad-calendar", *stopping}
    assert decided + len(left) == 2 * len(POLICIES)


def test_policies_cost_a_batch_few_queries(owner: User, recurrence: Recurrence):
    """One for a pause of all, and one for each of: events, calendars, tasks with several places, alarms."""
    calendar = Calendar.objects.create(name="never", lines="2000-01-01", time_zone="UTC")
    schedules = make_schedules(make_tasks(owner, 50), recurrence)
    plain = len(queries_of(lambda: decide_together(list(Run.objects.due(NOW)), NOW)))
    Run.objects.ready(NOW).delete()
    Schedule.objects.update(calendar=calendar, jitter_seconds=0, max_lateness_seconds=3600)
    tasks = [schedule.task_id for schedule in schedules]
    Task.objects.filter(pk__in=tasks[::2]).update(overlap="allow", max_runs=3)
    due = list(Run.objects.due(NOW + HOUR))
    assert len(queries_of(lambda: decide_together(due, NOW + HOUR))) <= plain + 2
    assert Run.objects.ready(NOW + HOUR).count() == 50


def test_one_bad_row_does_not_stop_the_others(poller: PollerDaemon, owner: User, recurrence: Recurrence):
    good, bad = make_schedules(make_tasks(owner, 2), recurrence)
    Schedule.objects.filter(pk=bad.pk).update(time_zone="Mars/Olympus")
    poller.capacity = 0
    poller.tick(NOW)
    assert list(Run.objects.ready(NOW).values_list("schedule", flat=True)) == [good.pk]
    bad.refresh_from_db()
    assert not bad.enabled
    assert "Mars/Olympus" in bad.problem


@pytest.mark.django_db(transaction=True)
def test_a_batch_that_cannot_be_written_is_decided_one_by_one(
    owner: User, recurrence: Recurrence, monkeypatch: pytest.MonkeyPatch, settings: Any, tmp_path: Path
):
    settings.SCHEDULER = {**settings.SCHEDULER, "ROOT": tmp_path / "scheduler"}
    poller = PollerDaemon(LocalExecutor())
    poller.capacity = 0
    first, second = make_schedules(make_tasks(owner, 2), recurrence)
    twin = Run.objects.undecided().get(schedule=first)
    ordinary = Schedule.run_for

    def colliding(schedule: Schedule, slot: datetime, now: datetime) -> Run:
        run = ordinary(schedule, slot, now)
        if schedule.pk == first.pk:
            run.uuid = twin.uuid  # is there already
        return run

    monkeypatch.setattr(Schedule, "run_for", colliding)
    poller.tick(NOW)
    assert list(Run.objects.ready(NOW).values_list("schedule", flat=True)) == [second.pk]
    assert Run.objects.due(NOW).get() == twin
    monkeypatch.undo()
    settings.SCHEDULER = {**settings.SCHEDULER, "ROOT": tmp_path / "scheduler"}
    poller.tick(NOW)
    assert Run.objects.ready(NOW).count() == 2


@pytest.mark.parametrize("what", ["task", "schedule"])
@pytest.mark.django_db(transaction=True)
def test_what_somebody_else_holds_is_passed_over_and_decided_in_the_next_round(
    owner: User, recurrence: Recurrence, what: str
):
    if connection.vendor != "postgresql":
        pytest.skip("needs PostgreSQL: this is about its row locks")
    from concurrent.futures import ThreadPoolExecutor

    from django.db import transaction

    free, held = make_schedules(make_tasks(owner, 2), recurrence)
    due = list(Run.objects.due(NOW))

    def elsewhere() -> tuple[int, list[Run]]:
        try:
            return decide_together(due, NOW)
        finally:
            connection.close()

    with transaction.atomic(), ThreadPoolExecutor(1) as pool:
        row: QuerySet[Any] = (
            Task.objects.filter(pk=held.task_id) if what == "task" else Schedule.objects.filter(pk=held.pk)
        )
        assert row.select_for_update(no_key=True).get()
        assert pool.submit(elsewhere).result(timeout=60) == (1, [])
        assert list(Run.objects.ready(NOW).values_list("schedule", flat=True)) == [free.pk]
    assert decide_together(due, NOW) == (1, [])
    assert Run.objects.ready(NOW).count() == 2


# Claims


def test_many_runs_of_a_busy_task_hide_no_other_and_are_not_read(owner: User):
    busy, other, off = make_tasks(owner, 3)
    Task.objects.filter(pk=off.pk).update(enabled=False)
    (processed, *_others) = make_waiting(busy, 3 * WINDOW)
    make_waiting(off, WINDOW)
    (waiting,) = make_waiting(other, 1, due_at=NOW + HOUR)
    assert processed.claim(host=uuid4(), host_name="here", now=NOW)
    assert Run.objects.next_startable(NOW, 4) == []
    queries = queries_of(lambda: Run.objects.next_startable(NOW + HOUR, 4))
    assert Run.objects.next_startable(NOW + HOUR, 4) == [waiting]
    assert len(queries) == 2
    assert f"LIMIT {WINDOW}" in queries[0]


def test_the_next_runs_are_the_oldest_of_each_task(owner: User):
    first, second, third = make_tasks(owner, 3)
    late = make_waiting(first, 2 * WINDOW, due_at=NOW)
    (early,) = make_waiting(second, 1, due_at=NOW - HOUR)
    (latest,) = make_waiting(third, 1, due_at=NOW + HOUR)
    later = NOW + 2 * HOUR
    assert Run.objects.next_startable(later, 1) == [early]
    assert Run.objects.next_startable(later, 2) == [early, late[0]]
    assert Run.objects.next_startable(later, 5) == [early, late[0], latest]
    assert Run.objects.next_startable(later, 0) == []


@pytest.mark.parametrize("ahead", [0, 2 * WINDOW], ids=["", "behind many that wait"])
def test_a_task_with_several_places_gets_them_at_once(owner: User, ahead: int):
    busy, several, other = make_tasks(owner, 3)
    Task.objects.filter(pk=several.pk).update(overlap="allow", max_runs=3)
    Task.objects.filter(pk=busy.pk).update(paused_at=NOW)
    make_waiting(busy, ahead, due_at=NOW - HOUR)
    runs = make_waiting(several, 5)
    (late,) = make_waiting(other, 1, due_at=NOW + HOUR)
    later = NOW + HOUR
    host = uuid4()
    assert Run.objects.next_startable(later, 9) == [*runs[:3], late]
    assert Run.objects.next_startable(later, 2) == runs[:2]
    assert Run.objects.claim(runs[:2], host=host, host_name="here", now=later) == runs[:2]
    assert Run.objects.next_startable(later, 9) == [runs[2], late]
    assert Run.objects.claim([*runs[2:], late], host=host, host_name="here", now=later) == [runs[2], late]
    assert Run.objects.next_startable(later, 9) == []


@pytest.mark.parametrize("what", ["task", "all"])
def test_nothing_of_what_is_paused_is_claimed(owner: User, what: str):
    first, second = make_tasks(owner, 2)
    runs = [*make_waiting(first, 1), *make_waiting(second, 1)]
    paused: Task | SchedulerState = first if what == "task" else SchedulerState.get()
    paused.pause(by=owner, now=NOW)
    left = [runs[1]] if what == "task" else []
    assert Run.objects.next_startable(NOW, 5) == left
    assert Run.objects.claim(runs, host=uuid4(), host_name="here", now=NOW) == left


def test_several_runs_are_claimed_in_one_transaction(owner: User):
    one, two, off = make_tasks(owner, 3)
    Task.objects.filter(pk=off.pk).update(enabled=False)
    runs = [*make_waiting(one, 2), *make_waiting(two, 1), *make_waiting(off, 1)]
    host = uuid4()
    claimed = Run.objects.claim(runs, host=host, host_name="here", now=NOW)
    assert claimed == [runs[0], runs[2]]
    assert {run.pk for run in Run.objects.processing_on(host)} == {run.pk for run in claimed}
    for run in claimed:
        row = Run.objects.get(pk=run.pk)
        assert (row.status, row.claim_token, row.host) == (Status.PROCESSING, run.claim_token, run.host)
        assert row.events.get().what == RunEvent.What.CLAIMED
    assert len({run.claim_token for run in claimed}) == 2
    assert Run.objects.claim(runs, host=host, host_name="here", now=NOW) == []


def test_a_run_that_cannot_be_claimed_does_not_stop_the_others(
    poller: PollerDaemon, owner: User, monkeypatch: pytest.MonkeyPatch
):
    bad, good = [run for task in make_tasks(owner, 2) for run in make_waiting(task, 1)]
    ordinary = Run.objects.all().transition.__func__  # type: ignore[attr-defined]

    def sometimes(self: QuerySet[Run], run_id: int, **values: Any) -> bool:
        if run_id == bad.pk:
            raise ValueError("a bad row")
        return bool(ordinary(self, run_id, **values))

    monkeypatch.setattr(type(Run.objects.all()), "transition", sometimes)
    launched: list[int] = []
    monkeypatch.setattr(type(poller.watcher), "launch", lambda _watcher, run, _now: launched.append(run.pk))
    poller.tick(NOW)
    assert launched == [good.pk]


# What the databases do with it

COUNT = 2000


@pytest.fixture
def crowd(owner: User, recurrence: Recurrence) -> None:
    """A thousand schedules with their slots in the queue, and twice as many finished runs."""
    tasks = make_tasks(owner, 10)
    schedules = Schedule.objects.bulk_create(
        Schedule(task=tasks[number % 10], recurrence=recurrence, anchor=NOW) for number in range(COUNT // 2)
    )
    common: dict[str, Any] = {"queued_at": NOW - HOUR, "program": "x"}
    heads = Run.objects.bulk_create(
        Run(task=schedule.task, schedule=schedule, slot_at=NOW + HOUR, due_at=NOW + HOUR, **common)
        for schedule in schedules
    )
    for schedule, head in zip(schedules, heads, strict=True):
        schedule.next_run = head
    Schedule.objects.bulk_update(schedules, ["next_run"])
    end = {"status": Status.COMPLETED, "reason": Reason.EXIT_CODE, "claim_token": "x", "host": uuid4()}
    Run.objects.bulk_create(
        Run(
            task=tasks[number % 10],
            due_at=NOW - HOUR,
            ready_at=NOW - HOUR,
            finished_at=NOW - HOUR + timedelta(milliseconds=number),
            **common,
            **end,
        )
        for number in range(COUNT)
    )
    if connection.vendor == "postgresql":  # SQLite knows no more than the schema, as long as nobody says ANALYZE
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")


def plans(queries: list[str]) -> str:
    """How the database reads; PostgreSQL is kept from reading a small table as a whole where an index would do."""
    found = []
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off")
    for sql in queries:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN {'QUERY PLAN ' if connection.vendor == 'sqlite' else ''}{sql}".replace("%", "%%"))
            found += [str(row[-1]) for row in cursor.fetchall()]
    return "\n".join(found)


def reads_whole_table(plan: str) -> list[str]:
    whole = r"^.*Seq Scan on scheduler_(?:run|schedule)\b.*$|^SCAN (?!.*USING (?:COVERING )?INDEX).*$"
    return re.findall(whole, plan, re.MULTILINE)


@pytest.mark.usefixtures("crowd")
def test_an_idle_round_reads_no_table_as_a_whole(poller: PollerDaemon):
    plan = plans(queries_of(lambda: poller.tick(NOW)))
    assert reads_whole_table(plan) == []
    assert {name for name in ("undecided", "queue", "host") if f"scheduler_run_{name}" in plan} == {
        "undecided",
        "queue",
        "host",
    }


@pytest.mark.usefixtures("crowd")
def test_looking_for_what_may_start_reads_no_run_twice(owner: User):
    busy = Task.objects.earliest("pk")
    (processed, *_others) = make_waiting(busy, COUNT)
    assert processed.claim(host=uuid4(), host_name="here", now=NOW)
    make_waiting(Task.objects.latest("pk"), 1)
    queries = queries_of(lambda: Run.objects.next_startable(NOW, 4))
    assert len(queries) == 2
    plan = plans(queries)
    assert reads_whole_table(plan.replace("SCAN waiting", "")) == []
    assert "scheduler_run_waiting" in plan
    assert "scheduler_run_task_status" in plan or connection.vendor == "postgresql"


@pytest.mark.usefixtures("crowd")
def test_deciding_reads_no_table_as_a_whole(owner: User):
    due = list(Run.objects.undecided().order_by("pk")[:50])
    Run.objects.filter(pk__in=[run.pk for run in due]).update(due_at=NOW)
    queries = [sql for sql in queries_of(lambda: decide_together(due, NOW)) if sql.startswith("SELECT")]
    assert len(queries) >= 6
    assert reads_whole_table(plans(queries)) == []
