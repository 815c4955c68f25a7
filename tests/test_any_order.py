"""Whatever pollers, clocks and people do, in whatever order: slots increase, none has two rows, none is left out.

The pollers are real, with all that their rounds do, and are restarted; only programs are not started here. Their clocks
differ, and the machine's is set back and forth by an hour, through the night in which the clocks go forward.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from scheduler.executors.local import LocalExecutor
from scheduler.models import Recurrence, Run, Schedule, Task
from scheduler.poller import PollerDaemon
from scheduler.states import Status
from tests import servers
from tests.chain import at, end

if TYPE_CHECKING:
    from pathlib import Path

    from django.contrib.auth.models import User

BEGIN = at("2027-03-28 00:10")  # the clocks of Amsterdam go forward at 01:00 UTC
RULES: list[dict[str, Any]] = [
    {"kind": "every", "every": 20, "unit": "minutes"},
    {"kind": "every", "every": 1, "unit": "hours"},
    {"kind": "every", "every": 1, "unit": "days"},
    {"kind": "cron", "cron": "*/15 * * * *"},
    {"kind": "cron", "cron": "0,30 1-3 * * *"},
]
POLICIES = st.fixed_dictionaries(
    {
        "catch_up": st.sampled_from(["once", "all", "skip"]),
        "catch_up_limit": st.integers(1, 5),
        "max_lateness_seconds": st.sampled_from([None, 0, 900]),
        "jitter_seconds": st.sampled_from([0, 45, 3000]),
    }
)
OVERLAPS = st.sampled_from(Task.Overlap.values)
SCHEDULES = st.lists(st.tuples(st.sampled_from(RULES), POLICIES), min_size=2, max_size=3)
EXAMPLES = 200 if servers.in_full_run() else 15


class AnyOrder(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = transaction.atomic()
        self.world.__enter__()
        self.now = self.latest = BEGIN
        self.schedules: list[Schedule] = []
        self.starts: Counter[int] = Counter()
        self.pollers = [self.new_poller(), self.new_poller()]

    def new_poller(self) -> PollerDaemon:
        poller = PollerDaemon(LocalExecutor())
        poller.capacity = 0  # what is ready is started below
        return poller

    @initialize(schedules=SCHEDULES, overlap=OVERLAPS)
    def make(self, schedules: list[tuple[dict[str, Any], dict[str, Any]]], overlap: str) -> None:
        program = {"program_root": "sample_tasks", "program_path": "countdown.py"}
        task = Task.objects.create(name="Nightly report", overlap=overlap, max_runs=2, **program)
        for number, (of_rule, policies) in enumerate(schedules):
            made = Schedule.objects.create(
                task=task,
                recurrence=Recurrence.objects.create(name=f"rule {number}", **of_rule),
                anchor=BEGIN + timedelta(minutes=number),
                time_zone="Europe/Amsterdam",
                **policies,
            )
            Schedule.objects.filter(pk=made.pk).update(stale_at=BEGIN - timedelta(minutes=1))
            self.schedules.append(made)

    # What happens

    @rule(minutes=st.integers(0, 150))
    def time_goes_on(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @rule(hours=st.sampled_from([-1, 1]))
    def the_clock_is_set(self, hours: int) -> None:
        self.now += timedelta(hours=hours)

    @rule(which=st.integers(0, 1), ahead=st.integers(-90, 90))
    def a_poller_makes_a_round(self, which: int, ahead: int) -> None:
        self.tick(self.pollers[which], self.now + timedelta(seconds=ahead))

    @rule(which=st.integers(0, 1))
    def a_poller_is_restarted(self, which: int) -> None:
        self.end_poller(self.pollers[which])
        self.pollers[which] = self.new_poller()

    @rule(fails=st.booleans())
    def what_may_start_starts_and_ends(self, fails: bool) -> None:
        for run in Run.objects.startable(self.now):
            if run.claim(host=run.uuid, host_name="here", now=self.now):
                self.starts[run.pk] += 1
        for run in Run.objects.processing().select_related("task"):
            end(run, self.now, Status.FAILED if fails else Status.COMPLETED)

    @rule()
    def what_may_start_starts_and_stays(self) -> None:
        for run in Run.objects.startable(self.now)[:1]:
            assert run.claim(host=run.uuid, host_name="here", now=self.now)
            self.starts[run.pk] += 1

    # What is always true

    @invariant()
    def slots_increase_and_nothing_starts_twice(self) -> None:
        for schedule in self.schedules:
            covered_until: datetime | None = None
            for run in schedule.runs.order_by("slot_at"):
                assert run.slot_at is not None
                assert covered_until is None or run.slot_at > covered_until
                covered_until = run.slot_until or run.slot_at
                assert run.ready_at is not None or run.is_finished or run.due_at >= run.slot_at
        assert max(self.starts.values(), default=0) <= 1

    def teardown(self) -> None:
        try:
            for poller in (*self.pollers, *self.pollers):
                self.tick(poller, self.latest)
            for schedule in Schedule.objects.all():
                self.each_slot_has_exactly_one_row(schedule)
        finally:
            for poller in self.pollers:
                self.end_poller(poller)
            transaction.set_rollback(True)
            self.world.__exit__(None, None, None)

    def each_slot_has_exactly_one_row(self, schedule: Schedule) -> None:
        """From the anchor to the head, which is to come; stepped through one by one."""
        slot = schedule.next_slot(None)
        rows = list(schedule.runs.order_by("slot_at"))
        for run in rows:
            assert run.slot_at == slot
            for number in range(run.slot_count):
                assert slot is not None
                assert number < run.slot_count - 1 or slot == (run.slot_until or run.slot_at)
                slot = schedule.next_slot(slot)
        assert schedule.next_run == rows[-1]
        assert rows[-1] == schedule.runs.undecided().get()
        assert rows[-1].due_at > self.latest

    # How

    def tick(self, poller: PollerDaemon, now: datetime) -> None:
        poller.tick(now)
        self.latest = max(self.latest, now)

    def end_poller(self, poller: PollerDaemon) -> None:
        poller.executor.close()
        poller.watcher.ends.close()


@pytest.mark.django_db
def test_no_order_of_rounds_restarts_and_clocks_leaves_a_slot_out_or_repeats_one(
    owner: User, settings: Any, tmp_path: Path
):
    settings.SCHEDULER = {**settings.SCHEDULER, "ROOT": tmp_path / "scheduler"}
    run_state_machine_as_test(AnyOrder, settings=HOW_OFTEN)


HOW_OFTEN = settings(
    max_examples=EXAMPLES, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
