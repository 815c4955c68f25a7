"""Many slots that were missed: a round's cost does not grow with them, and the first run starts at once."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.db.models.signals import post_init
from django.test.utils import CaptureQueriesContext

from scheduler.executors.local import LocalExecutor
from scheduler.models import Recurrence, Run, Schedule, Task
from scheduler.poller import PollerDaemon, daemon

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.django_db

NOW = datetime(2030, 1, 1, 8, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def rule(db: None) -> Recurrence:
    return Recurrence.objects.create(name="each minute", kind="every", every=1, unit="minutes")


@pytest.fixture
def poller(db: None, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PollerDaemon:
    """A poller in small batches that has made its first round; what it would launch is noted in ``launched``."""
    monkeypatch.setattr("scheduler.poller.alarms.LOOK_SECONDS", 3600.0)
    monkeypatch.setattr(daemon, "BATCH", 20)
    settings.SCHEDULER = {**settings.SCHEDULER, "ROOT": tmp_path / "scheduler"}
    made = PollerDaemon(LocalExecutor())
    made.tick(NOW)
    return made


@pytest.fixture
def launched(poller: PollerDaemon, monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    runs: list[Run] = []
    monkeypatch.setattr(type(poller.watcher), "launch", lambda _watcher, run, _now: runs.append(run))
    return runs


def overdue(rule: Recurrence, schedules: int, missed: int, catch_up: str = "once") -> None:
    """Schedules of a task of their own that have missed so many slots until NOW, the first of which is the head."""
    first = NOW - (missed - 1) * MINUTE
    for number in range(Task.objects.count(), Task.objects.count() + schedules):
        task = Task.objects.create(name=f"task {number}", program_root="sample_tasks", program_path="countdown.py")
        schedule = Schedule.objects.create(
            task=task, recurrence=rule, anchor=first, time_zone="UTC", catch_up=catch_up, catch_up_limit=500
        )
        Schedule.objects.filter(pk=schedule.pk).update(stale_at=first - MINUTE)
        schedule.plan(first - MINUTE)
        assert Run.objects.filter(schedule=schedule, slot_at=first).exists()


def cost(act: Callable[[], object]) -> tuple[int, int]:
    """How many statements were sent, and how many rows of runs were in memory."""
    made: Counter[type] = Counter()

    def count(sender: type, **_kwargs: object) -> None:
        made[sender] += 1

    post_init.connect(count, sender=Run)
    try:
        with CaptureQueriesContext(connection) as captured:
            act()
    finally:
        post_init.disconnect(count, sender=Run)
    return len(captured), made[Run]


@pytest.mark.parametrize("missed", [1, 5])
def test_a_round_costs_the_same_however_many_slots_are_due(
    poller: PollerDaemon, rule: Recurrence, missed: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(daemon, "STEP_SECONDS", 0.0)  # those with a gap: one a round
    poller.capacity = 0
    overdue(rule, 30, missed)
    few = cost(lambda: poller.tick(NOW))
    overdue(rule, 30, missed)
    many = cost(lambda: poller.tick(NOW))
    assert many == few
    assert many[1] <= 2 * 20 * 2 + 10  # the batch, read again when it is locked, and their next slots


@pytest.mark.parametrize("catch_up", ["once", "all", "skip"])
def test_deciding_costs_the_same_however_many_slots_a_schedule_has_missed(rule: Recurrence, catch_up: str):
    overdue(rule, 1, 600, catch_up)
    overdue(rule, 1, 100_000, catch_up)
    few, many = (cost(lambda run=run: run.decide(NOW)) for run in Run.objects.due(NOW).order_by("-slot_at"))  # type: ignore[misc]
    assert many == few
    assert few[0] <= 60  # SQLite inserts 500 rows in twenty parts
    for schedule in Schedule.objects.all():
        rows = list(schedule.runs.order_by("slot_at"))
        assert sum(run.slot_count for run in rows) == (NOW - schedule.anchor) // MINUTE + 2
        assert len(rows) == {"once": 3, "all": 502, "skip": 3}[catch_up]


def test_the_first_run_starts_in_the_round_that_comes_upon_what_was_missed(
    poller: PollerDaemon, launched: list[Run], rule: Recurrence, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(daemon, "STEP_SECONDS", 0.0)
    overdue(rule, 30, 500, "all")
    poller.tick(NOW)
    assert len(launched) == 1
    assert Run.objects.due(NOW).count() == 29  # each in a round of its own
    assert poller._pause(poller.busy) == 0.0


def test_a_changed_rule_of_many_schedules_holds_no_start_up(
    poller: PollerDaemon, launched: list[Run], rule: Recurrence, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(daemon, "STEP_SECONDS", 0.0)
    overdue(rule, 30, 1)
    Schedule.objects.update(stale_at=NOW)
    poller.tick(NOW)
    assert Schedule.objects.stale().count() < 30
    assert launched


def test_what_cannot_be_decided_holds_nothing_up_behind_it(
    poller: PollerDaemon, launched: list[Run], rule: Recurrence, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(daemon, "STEP_SECONDS", 0.0)
    overdue(rule, 3, 5)
    bad = Run.objects.due(NOW).earliest("pk")
    decide = Run.decide

    def sometimes(run: Run, now: datetime) -> bool:
        if run == bad:
            raise ValueError("a bad row")
        return decide(run, now)

    monkeypatch.setattr(Run, "decide", sometimes)
    for _round in range(3):
        poller.tick(NOW)
    assert list(Run.objects.due(NOW)) == [bad]
    assert len(launched) == 2
