"""Deciding many due slots in one transaction: a hundred at a time cost little more than one.

Only what is plain is decided here, by the same policies. Whatever is not (a changed rule, missed slots, rows in the
way, runs that are to be stopped, an error) is left for ``Run.decide()``, which knows it all and takes one slot at a
time.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from django.db import Error, InterfaceError, OperationalError, transaction
from django.db.models import Case, Exists, F, OuterRef, Subquery, Value, When
from django.db.models.fields import BigIntegerField

from scheduler import calendars
from scheduler.states import Reason, Status

from .alarm import Alarm
from .calendar import Calendar
from .pause import SchedulerState
from .recurrence import Recurrence
from .run import Run, RunEvent
from .schedule import Schedule
from .slots import ALARMING, PASSED_OVER, Load, is_missed, loads, refusal, values_of
from .task import Task

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

logger = logging.getLogger(__name__)


class _Changed(Exception):  # noqa: N818 (no error: somebody else was faster)
    """A row is not as it was read, although its schedule is locked; nothing is kept of the batch."""


def decide_together(runs: Sequence[Run], now: datetime) -> tuple[int, list[Run]]:
    """How many of these due slots were decided, and those that are left for ``Run.decide()``.

    A task or schedule that somebody else holds is in neither: another poller decides about it, or the next round.
    Raises OperationalError and InterfaceError when the database is gone.
    """
    try:
        with transaction.atomic():
            decided, left = _decide([run for run in runs if run.schedule_id is not None], now)
    except (OperationalError, InterfaceError):
        raise
    except (Error, _Changed):
        logger.exception("%d due slots could not be decided together; one by one they are", len(runs))
        return 0, list(runs)
    return decided, [run for run in runs if run.schedule_id is None or run.pk in left]


def _decide(runs: list[Run], now: datetime) -> tuple[int, set[int]]:
    # The order of locks is task, schedule, run, and sorted in each. What is held is skipped: who never waits while
    # holding locks is part of no deadlock, whatever the order is in which others lock theirs.
    tasks = (
        Task.objects.order_by("pk")
        .select_for_update(no_key=True, skip_locked=True)
        .in_bulk({run.task_id for run in runs})
    )
    schedules = (
        Schedule.objects.order_by("pk")
        .select_for_update(no_key=True, skip_locked=True)
        .filter(task__in=tasks)
        .in_bulk({run.schedule_id for run in runs if run.schedule_id is not None})
    )
    _attach(schedules.values(), tasks)
    later = Run.objects.filter(schedule=OuterRef("schedule"), slot_at__gt=OuterRef("slot_at"))
    heads = Run.objects.due(now).filter(pk__in=[run.pk for run in runs], schedule__in=schedules)
    followed = set(heads.filter(Exists(later)).values_list("pk", flat=True))
    batch = _Batch(now, loads(tasks.values(), now), SchedulerState.paused())
    left: set[int] = set()
    waiting: set[int] = set()  # tasks of which an earlier slot is left: the later ones are decided after it
    for head in heads:
        assert head.schedule_id is not None
        schedule = schedules[head.schedule_id]
        try:
            is_plain = not (head.pk in followed or schedule.task_id in waiting) and batch.add(head, schedule)
        except Exception:
            # Of one bad row: decide() says what is wrong with it.
            is_plain = False
        if not is_plain:
            left.add(head.pk)
            waiting.add(schedule.task_id)
    batch.write()
    return batch.count, left


def _attach(schedules: Collection[Schedule], tasks: dict[int, Task]) -> None:
    """Give each schedule the rows that it is decided by, as they are now that it is locked."""
    recurrences = Recurrence.objects.in_bulk({schedule.recurrence_id for schedule in schedules})
    # Without ids, in_bulk() asks nothing.
    blackouts = Calendar.objects.in_bulk({each.calendar_id for each in schedules if each.calendar_id is not None})
    for schedule in schedules:
        schedule.task = tasks[schedule.task_id]
        schedule.recurrence = recurrences[schedule.recurrence_id]
        if schedule.calendar_id is not None:
            schedule.calendar = blackouts[schedule.calendar_id]


class _Batch:
    """What was decided, gathered so that each kind of it is one statement."""

    def __init__(self, now: datetime, loads: dict[int, Load], scheduler: SchedulerState | None) -> None:
        self.now = now
        self.count = 0
        self._loads = loads
        self._scheduler = scheduler
        self._skipped: dict[tuple[Reason, str], list[int]] = {}
        self._ready: dict[str, list[int]] = {}
        self._events: list[RunEvent] = []
        self._alarms: list[Alarm] = []
        self._next: list[Run] = []
        self._ended: list[int] = []

    def add(self, head: Run, schedule: Schedule) -> bool:
        """Decide a slot; False, and nothing is done, when that is not plain. May raise for a bad row."""
        step = schedule.step(head, self.now)
        if step is None or head.slot_at is None:
            return False
        load = self._loads[schedule.task_id]
        following = None if step[0] is None else schedule.run_for(step[0], self.now)
        skipped = self._refusal(head, schedule, head.slot_at)
        if skipped is None and load.is_in_the_way(schedule.task):
            if schedule.task.overlap == Task.Overlap.STOP:
                return False
            skipped = Reason.OVERLAP, ""
        event, alarm = RunEvent(run=head, what=RunEvent.What.DECIDED, at=self.now), None
        if skipped is None:
            self._ready.setdefault(json.dumps(values_of(schedule)), []).append(head.pk)
            load.waiting += 1
        else:
            self._skipped.setdefault(skipped, []).append(head.pk)
            event.text = skipped[0]
            if skipped[0] in ALARMING:
                self._alarms.append(Alarm.about(head, Alarm.Kind.MISSED, now=self.now))
                alarm = RunEvent(run=head, what=RunEvent.What.ALARM, text=Alarm.Kind.MISSED, at=self.now)
        self._events += [event] if alarm is None else [event, alarm]
        if following is None:
            self._ended.append(schedule.pk)
        else:
            self._next.append(following)
        self.count += 1
        return True

    def _refusal(self, head: Run, schedule: Schedule, slot: datetime) -> tuple[Reason, str] | None:
        blackout = schedule.blackout()
        if is_missed(schedule, slot, self.now):
            return Reason.MISSED, ""
        if blackout is not None and calendars.blocks(blackout, slot):
            return Reason.BLOCKED, blackout.name
        return refusal(schedule, head, self.now, scheduler=self._scheduler)

    def write(self) -> None:
        written = 0
        for (reason, detail), keys in self._skipped.items():
            values: dict[str, Any] = {"reason": reason, "detail": detail, "finished_at": self.now}
            if reason in PASSED_OVER:
                values["slot_until"] = F("slot_at")
            written += Run.objects.transition_all(keys, to=Status.SKIPPED, **values)
        for ready, keys in self._ready.items():
            written += Run.objects.undecided().filter(pk__in=keys).update(ready_at=self.now, **json.loads(ready))
        if written != self.count:
            raise _Changed
        RunEvent.objects.bulk_create(self._events)
        Alarm.objects.bulk_create(self._alarms, ignore_conflicts=True)
        # The row that is replaced is the head still: its slot has its row now.
        head_slot = Subquery(Run.objects.filter(pk=OuterRef("next_run")).values("slot_at")[:1])
        columns = {"problem": "", "stale_at": None, "covered_until": head_slot}
        if self._ended:
            Schedule.objects.filter(pk__in=self._ended).update(ended=True, next_run=None, **columns)
        if self._next:
            Run.objects.bulk_create(self._next)
            next_run = Case(
                *(When(pk=run.schedule_id, then=Value(run.pk)) for run in self._next), output_field=BigIntegerField()
            )
            keys = [run.schedule_id for run in self._next if run.schedule_id is not None]
            Schedule.objects.filter(pk__in=keys).update(ended=False, next_run=next_run, **columns)
