"""What a schedule does about slots that were missed, come too late, or find their task busy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from scheduler.models import Alarm, Run, RunEvent, Task
from scheduler.states import Reason, Status
from tests.chain import at, end, ledger, planned, start, start_and_end, tick

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User

pytestmark = pytest.mark.django_db


def ready(now: str) -> list[Run]:
    return list(Run.objects.ready(at(now)))


# Slots that were missed


def test_each_missed_slot_is_run_up_to_the_limit(task: Task):
    schedule = planned(task, catch_up="all", catch_up_limit=3)
    tick(at("13:30"))
    assert ledger(schedule) == [
        ("08:00", "skipped", "catch_up"),
        ("11:00", "ready", ""),
        ("12:00", "ready", ""),
        ("13:00", "ready", ""),
        ("14:00", "queued", ""),
    ]
    gap = schedule.runs.finished().get()
    assert (gap.slot_until, gap.slot_count) == (at("10:00"), 3)


def test_slots_that_are_caught_up_run_one_after_the_other(task: Task):
    schedule = planned(task, catch_up="all", catch_up_limit=10)
    tick(at("10:30"))
    order = []
    while startable := list(Run.objects.startable(at("10:31"))):
        run = start(startable[0], at("10:31"))
        assert not Run.objects.startable(at("10:31")).exists()
        order.append(run.slot_at)
        end(run, at("10:32"))
    assert order == [at("08:00"), at("09:00"), at("10:00")]
    assert [reason for _slot, _status, reason in ledger(schedule)] == ["exit_code"] * 3 + [""]


def test_no_missed_slot_is_run_where_the_schedule_says_so(task: Task):
    schedule = planned(task, catch_up="skip")
    tick(at("10:30"))
    assert ledger(schedule) == [("08:00", "skipped", "missed"), ("11:00", "queued", "")]
    run = schedule.runs.finished().get()
    assert (run.slot_until, run.slot_count) == (at("10:00"), 3)
    assert run.sentence == "Not run: no poller was up at the time, and its schedule does not catch up."


def test_a_slot_on_time_is_run_although_those_before_it_were_missed(task: Task):
    schedule = planned(task, catch_up="skip")
    tick(at("10:00:30"))
    assert ledger(schedule) == [("08:00", "skipped", "missed"), ("10:00", "ready", ""), ("11:00", "queued", "")]


def test_a_slot_that_is_decided_a_little_late_is_not_missed(task: Task):
    schedule = planned(task, catch_up="skip")
    tick(at("08:01"))
    assert ledger(schedule)[0] == ("08:00", "ready", "")


def test_a_slot_later_than_its_schedule_allows_is_not_run(task: Task):
    schedule = planned(task, max_lateness_seconds=600)
    tick(at("08:10:01"))
    assert ledger(schedule) == [("08:00", "skipped", "too_late"), ("09:00", "queued", "")]
    tick(at("09:10"))
    assert ledger(schedule)[1] == ("09:00", "ready", "")


def test_a_missed_slot_raises_one_alarm(task: Task):
    planned(task)
    tick(at("08:00"))
    assert not Alarm.objects.exists()
    start_and_end(ready("08:00")[0], at("08:01"))
    tick(at("12:30"))
    tick(at("12:31"))
    alarm = Alarm.objects.get()
    assert (alarm.kind, alarm.run and alarm.run.slot_at) == (Alarm.Kind.MISSED, at("09:00"))
    assert RunEvent.objects.get(what=RunEvent.What.ALARM).run == alarm.run


def test_the_decision_about_a_slot_is_in_its_history(task: Task, make_run: Callable[..., Run]):
    schedule = planned(task)
    tick(at("08:00"))
    make_run(Status.PROCESSING)
    tick(at("09:00"))
    texts = [list(run.events.values_list("what", "text")) for run in schedule.runs.order_by("slot_at")]
    decided = RunEvent.What.DECIDED
    assert texts == [[(decided, "")], [(decided, "overlap")], []]


# A slot that finds its task busy


@pytest.fixture
def busy(task: Task) -> Callable[..., Run]:
    """Gives the task a policy, a schedule of every hour, and a run of 08:00 that is in progress."""

    def make(overlap: str, **values: Any) -> Run:
        for name, value in {"overlap": overlap, **values}.items():
            setattr(task, name, value)
        task.save()
        planned(task)
        tick(at("08:00"))
        return start(ready("08:00")[0], at("08:00"))

    return make


def test_one_waits_and_no_more_than_one(busy: Callable[..., Run]):
    old = busy("queue")
    assert old.schedule
    tick(at("09:00"))
    tick(at("10:00"))
    expected = [("08:00", "processing", ""), ("09:00", "ready", ""), ("10:00", "skipped", "overlap")]
    assert ledger(old.schedule)[:3] == expected
    assert not Run.objects.startable(at("10:00")).exists()
    end(old, at("10:10"))
    assert [run.slot_at for run in Run.objects.startable(at("10:10"))] == [at("09:00")]


def test_the_old_run_is_stopped_and_the_new_one_waits_for_its_end(busy: Callable[..., Run]):
    old = busy("stop")
    assert old.schedule
    tick(at("09:00"))
    old.refresh_from_db()
    assert old.cancel_requested_at == at("09:00")
    assert old.is_replaced
    assert old.sentence == "Is being stopped: the next run of its task takes its place."
    assert ledger(old.schedule)[1] == ("09:00", "ready", "")
    # One that still waits is replaced as well.
    tick(at("10:00"))
    assert ledger(old.schedule)[1:3] == [("09:00", "skipped", "overlap"), ("10:00", "ready", "")]
    end(old, at("10:01"), Status.CANCELLED, Reason.REPLACED)
    assert [run.slot_at for run in Run.objects.startable(at("10:01"))] == [at("10:00")]


def test_some_run_at_once(busy: Callable[..., Run]):
    old = busy("allow", max_runs=2)
    assert old.schedule
    tick(at("09:00"))
    second = start(ready("09:00")[0], at("09:00"))
    tick(at("10:00"))
    expected = [("08:00", "processing", ""), ("09:00", "processing", ""), ("10:00", "skipped", "overlap")]
    assert ledger(old.schedule)[:3] == expected
    end(second, at("10:10"))
    tick(at("11:00"))
    start(ready("11:00")[0], at("11:00"))


def test_no_more_than_allowed_are_claimed(task: Task, owner: User):
    task.overlap, task.max_runs = Task.Overlap.ALLOW, 2
    task.save()
    runs = [task.start_now(by=owner, now=at("08:00")) for _number in range(3)]
    start(runs[0], at("08:00"))
    assert Run.objects.startable(at("08:00")).count() == 2
    start(runs[1], at("08:00"))
    assert not Run.objects.startable(at("08:00")).exists()
    assert not runs[2].claim(host=runs[2].uuid, host_name="here", now=at("08:00"))


def test_a_number_without_its_policy_is_dropped(task: Task):
    task.overlap, task.max_runs = Task.Overlap.QUEUE, 5
    task.clean()
    assert task.max_runs == 1


# Spread


def test_a_start_is_put_off_by_a_part_of_the_spread_that_stays_the_same(task: Task):
    schedule = planned(task, jitter_seconds=1800)
    run = schedule.runs.get()
    assert run.slot_at == at("08:00")
    assert run.due_at == schedule.start_of(at("08:00"))
    assert at("08:00") <= run.due_at <= at("08:30")
    if run.due_at > at("08:00"):
        tick(at("08:00"))
        assert ledger(schedule) == [("08:00", "queued", "")]
    tick(run.due_at)
    assert ledger(schedule) == [("08:00", "ready", ""), ("09:00", "queued", "")]


def test_a_slot_whose_start_has_not_come_is_no_missed_one(task: Task):
    schedule = planned(task, minutes=1, jitter_seconds=600)
    first = schedule.runs.get()
    tick(first.due_at)
    for run in schedule.runs.exclude(pk=first.pk).finished():
        assert run.slot_at is not None
        assert schedule.start_of(run.slot_at) <= first.due_at
