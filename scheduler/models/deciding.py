"""Deciding many due slots in one transaction: a hundred at a time cost little more than one.

Only what is plain is decided here. Whatever is not (a changed rule, missed slots, rows in the way, an error) is left
for ``Run.decide()``, which knows it all and takes one slot at a time.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from django.db import Error, InterfaceError, OperationalError, transaction
from django.db.models import Case, Exists, OuterRef, Q, Value, When
from django.db.models.fields import BigIntegerField

from scheduler.states import Reason, Status

from .recurrence import Recurrence
from .run import Run
from .schedule import Schedule
from .task import Task

if TYPE_CHECKING:
    from collections.abc import Sequence
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
    recurrences = Recurrence.objects.in_bulk({schedule.recurrence_id for schedule in schedules.values()})
    later = Run.objects.filter(schedule=OuterRef("schedule"), slot_at__gt=OuterRef("slot_at"))
    heads = Run.objects.due(now).filter(pk__in=[run.pk for run in runs], schedule__in=schedules)
    is_occupied = Q(Exists(Run.objects.processing().filter(task=OuterRef("pk")))) | Q(
        Exists(Run.objects.ready(now).filter(task=OuterRef("pk")))
    )
    occupied = set(Task.objects.filter(is_occupied, pk__in=tasks).order_by().values_list("pk", flat=True))
    left: set[int] = set()
    batch = _Batch(now)
    followed = set(heads.filter(Exists(later)).values_list("pk", flat=True))
    for head in heads:
        assert head.schedule_id is not None
        schedule = schedules[head.schedule_id]
        schedule.recurrence = recurrences[schedule.recurrence_id]
        try:
            following = None if head.pk in followed else schedule.step(head, now)
        except Exception:
            # Of one bad row: decide() says what is wrong with it.
            following = None
        if following is None:
            left.add(head.pk)
            continue
        batch.add(head, schedule, tasks[schedule.task_id], following[0], is_occupied=schedule.task_id in occupied)
        occupied.add(schedule.task_id)
    batch.write()
    return batch.count, left


class _Batch:
    """What was decided, gathered so that each kind of it is one statement."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.count = 0
        self._skipped: dict[Reason, list[int]] = {}
        self._ready: dict[str, list[int]] = {}
        self._next: list[Run] = []
        self._ended: list[int] = []

    def add(self, head: Run, schedule: Schedule, task: Task, following: datetime | None, *, is_occupied: bool) -> None:
        self.count += 1
        if not task.enabled:
            self._skipped.setdefault(Reason.PAUSED, []).append(head.pk)
        elif is_occupied:
            self._skipped.setdefault(Reason.OVERLAP, []).append(head.pk)
        else:
            arguments = task.arguments if schedule.arguments is None else schedule.arguments
            self._ready.setdefault(json.dumps(arguments), []).append(head.pk)
        if following is None:
            self._ended.append(schedule.pk)
        else:
            self._next.append(schedule.run_for(following, self.now))

    def write(self) -> None:
        written = 0
        for reason, keys in self._skipped.items():
            written += Run.objects.transition_all(keys, to=Status.SKIPPED, reason=reason, finished_at=self.now)
        for arguments, keys in self._ready.items():
            written += (
                Run.objects.undecided().filter(pk__in=keys).update(ready_at=self.now, arguments=json.loads(arguments))
            )
        if written != self.count:
            raise _Changed
        columns = {"problem": "", "stale": False}
        if self._ended:
            Schedule.objects.filter(pk__in=self._ended).update(ended=True, next_run=None, **columns)
        if self._next:
            Run.objects.bulk_create(self._next)
            next_run = Case(
                *(When(pk=run.schedule_id, then=Value(run.pk)) for run in self._next), output_field=BigIntegerField()
            )
            keys = [run.schedule_id for run in self._next if run.schedule_id is not None]
            Schedule.objects.filter(pk__in=keys).update(ended=False, next_run=next_run, **columns)
