"""Three pollers over many slots that are due, each killed again and again: one row a slot, and none started twice.

60 slots, or 1,000 with ``tests/run --full``.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from django.db import transaction
from django.utils import timezone

from scheduler.models import Recurrence, Run, Schedule, Task
from scheduler.states import Reason, Status
from tests import servers

from .conftest import start_poller

if TYPE_CHECKING:
    import subprocess

    from tests.runs.conftest import World

SLOTS = 1000 if servers.in_full_run() else 60
SLOTS_OF_A_SCHEDULE = 10
OPEN = 40  # new schedules come up as long as fewer slots than this are open, so that pollers die while they decide, too
POLLERS = 3
PATIENCE_SECONDS = 90.0

NOTES_ITS_START = """
    import os
    starts = os.open(os.environ["FOLDER"] + "/starts", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(starts, (os.environ["SCHEDULER_RUN"] + "\\n").encode())
    """


def missed(task: Task, rule: Recurrence) -> Schedule:
    """A schedule whose slots are all due, and all to be run."""
    last = timezone.now().replace(microsecond=0) - timedelta(seconds=1)
    anchor = last - timedelta(minutes=SLOTS_OF_A_SCHEDULE - 1)
    with transaction.atomic():
        schedule = Schedule.objects.create(
            task=task,
            recurrence=rule,
            anchor=anchor,
            ends_at=last,
            time_zone="UTC",
            catch_up=Schedule.CatchUp.ALL,
            catch_up_limit=SLOTS_OF_A_SCHEDULE,
        )
        # As if it had been there when its first slot came due.
        Schedule.objects.filter(pk=schedule.pk).update(stale_at=anchor - timedelta(seconds=1))
    return schedule


def run_all_and_kill(world: World, rule: Recurrence, chance: random.Random) -> list[Schedule]:
    """Make schedules while their slots are run, and kill pollers meanwhile, until the last run is over."""
    tasks = [
        world.task(
            NOTES_ITS_START,
            name=f"work{number}",
            environment=Task.Environment.PLAIN if number % 2 else Task.Environment.DJANGO,  # forked or started cold
        )
        for number in range(8)
    ]
    schedules: list[Schedule] = []
    pollers: list[subprocess.Popen[bytes]] = []
    kills, finished, next_kill = 0, 0, 1
    begin = time.monotonic()
    deadline = begin + PATIENCE_SECONDS
    while finished < SLOTS:
        while len(pollers) < POLLERS:
            pollers.append(start_poller(world, more={"CAPACITY": 8}).process)
        while SLOTS_OF_A_SCHEDULE * len(schedules) < min(SLOTS, finished + OPEN):
            schedules.append(missed(tasks[len(schedules) % len(tasks)], rule))
        ended = Run.objects.finished().count()
        if ended > finished:
            finished, deadline = ended, time.monotonic() + PATIENCE_SECONDS
        # By what was done and not by the clock: on a slow machine pollers would be killed before they are up.
        if finished >= next_kill:
            victim = pollers.pop(chance.randrange(len(pollers)))
            victim.kill()
            victim.wait()
            kills, next_kill = kills + 1, finished + chance.randint(1, 12)
        if time.monotonic() > deadline:
            pytest.fail(f"only {finished} of {SLOTS} slots were run")
        time.sleep(0.02)
    print(f"{SLOTS} slots, {kills} pollers killed, {time.monotonic() - begin:.0f} s")  # noqa: T201
    return schedules


def test_three_pollers_that_are_killed_again_and_again_give_each_slot_one_row_and_one_start(world: World) -> None:
    rule = Recurrence.objects.create(name="each minute", kind="every", every=1, unit="minutes")
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # noqa: T201
    for schedule in run_all_and_kill(world, rule, random.Random(seed)):
        expected = [schedule.anchor + timedelta(minutes=number) for number in range(SLOTS_OF_A_SCHEDULE)]
        assert [run.slot_at for run in schedule.runs.order_by("slot_at")] == expected
    rows = Run.objects.values_list("status", "reason", "exit_code", "slot_until", "trigger")
    assert Counter(rows) == {(Status.COMPLETED, Reason.EXIT_CODE, 0, None, Run.Trigger.SCHEDULE): SLOTS}
    assert Counter(world.lines("starts")) == {str(run.uuid): 1 for run in Run.objects.all()}
