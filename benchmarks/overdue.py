"""A poller that comes up to 100,000 slots that were missed: how soon it starts the first run, and what it needs."""

from __future__ import annotations

import os
import re
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.utils import timezone

from benchmarks.systems import MANAGE
from benchmarks.ticks import UUIDS, analyse, building, multiply
from benchmarks.waiting import Processes, Unusable, wait_until

if TYPE_CHECKING:
    import argparse
    from datetime import datetime

SLOTS = 100_000
TASKS = 1_000
# name -> how many slots each schedule has missed, and what it does about them
KINDS = {
    "one_slot_each": (1, "once"),
    "ten_slots_each_once": (10, "once"),
    "hundred_slots_each_all": (100, "all"),
}


def measure(options: argparse.Namespace, figures: dict[str, Any]) -> None:
    """Seconds, MB and slots a second of one kind, into ``figures``. Raises Unusable."""
    from scheduler.models import Run

    folder = Path(os.environ["SCHEDULER_VAR"])
    results = folder / "results"
    results.touch()
    now = timezone.now().replace(microsecond=0)
    build(*KINDS[options.name], results, now)
    overdue = Run.objects.due(now).count()
    processes = Processes(folder / "poller.log")
    begin = time.clock_gettime(time.CLOCK_MONOTONIC)
    try:
        poller = processes.start([*MANAGE, "poller"])
        first = wait_until(lambda: results.read_text().split()[:1], "the first run has started")
        figures["overdue_first_start_s"] = [float(first[0]) - begin]
        until = time.monotonic() + options.seconds
        while time.monotonic() < until and Run.objects.due(now).exists():
            time.sleep(0.1)
        spent = time.clock_gettime(time.CLOCK_MONOTONIC) - begin
        figures["overdue_decided_per_s"] = [(overdue - Run.objects.due(now).count()) / spent * SLOTS / overdue]
        figures["overdue_poller_mb"] = [peak_mb(poller.pid)]
    finally:
        processes.end()


def build(missed: int, catch_up: str, results: Path, now: datetime) -> None:
    """Hourly schedules, each with a head in the queue from which on all slots until now were missed."""
    from scheduler.models import Recurrence, Run, Schedule, Task

    rule = Recurrence.objects.create(name="hourly", kind="every", every=1, unit="hours")
    program: dict[str, Any] = {"program_root": "benchmarks", "program_path": "one_query.py"}
    tasks = Task.objects.bulk_create(
        Task(name=f"task {number}", arguments=[str(results)], **program) for number in range(TASKS)
    )
    first = now - timedelta(hours=missed - 1, minutes=1)  # the next slots come due when all is measured
    schedule = Schedule(pk=0, task=tasks[0], recurrence=rule, anchor=first, time_zone="UTC")
    schedule.catch_up, schedule.catch_up_limit = catch_up, missed
    run = Run(pk=0, task=tasks[0], schedule_id=0, slot_at=first, due_at=first, queued_at=first)
    task = f"{tasks[0].pk} + number % {TASKS}"
    with building():
        multiply(schedule, 1, SLOTS // missed, {"id": "number", "task_id": task, "next_run_id": "number"})
        multiply(run, 1, SLOTS // missed, {"id": "number", "task_id": task, "schedule_id": "number", "uuid": UUIDS})
    analyse()


def peak_mb(pid: int) -> float:
    """The most memory that a process had at once, its shared pages counted in full."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    if found is None:
        raise Unusable("The poller has ended.")
    return int(found[1]) / 1024
