"""What becomes of slots that are due: which are run, which are skipped, and why.

Everything here works on a schedule whose row, and whose task's row, the caller has locked.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any

from django.db.models import Count, Exists, IntegerField, OuterRef, Subquery
from django.db.models.functions import Coalesce
from django.utils.translation import override

from scheduler import calendars, recurrences
from scheduler.states import Reason, Status

from .pause import SchedulerState
from .task import Task

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db.models import QuerySet

    from .run import Run
    from .schedule import Schedule

    # The first and the last slot of a row that exists already
    Covered = tuple[datetime, datetime]

TICK = timedelta(microseconds=1)
# A slot that is decided within this time of its start was not missed, whatever the schedule does about missed slots.
ON_TIME = timedelta(minutes=1)
# So many slots of a calendar's blackout are passed over, at most, to find one that stands for those that were missed.
LOOK_BACK = 1000
# A row that is skipped for one of these may stand for several slots, and says up to which.
PASSED_OVER = frozenset({Reason.CATCH_UP, Reason.MISSED, Reason.BLOCKED})
# Of slots that were not run for these reasons, people are told.
ALARMING = frozenset({Reason.CATCH_UP, Reason.MISSED, Reason.TOO_LATE})


def decide(schedule: Schedule, head: Run, slot: datetime, now: datetime) -> None:
    """Decide all slots from the head's to the last that is due, and put the next one into the queue.

    Each is run or skipped by the schedule's policies; slots in a row that are skipped together are one row.
    Raises recurrences.InvalidRule, before anything is written, when rule or calendar cannot be read.
    """
    latest = last_due(schedule, slot, now)
    # Slots in between may have rows of their own: those that were cancelled before the rule was changed.
    covered = _covered(schedule, slot, latest) if latest > slot else []
    chosen = _chosen(schedule, slot, latest, covered, now)
    first = chosen[0][0] if chosen else latest + TICK
    missed = Reason.MISSED if schedule.catch_up == schedule.CatchUp.SKIP else Reason.CATCH_UP
    _skip(schedule, head, slot, first, missed, now, covered)
    for blocked, group in groupby(chosen, key=lambda each: each[1]):
        if blocked:
            slots = [each for each, _blocked in group]
            _skip(schedule, head, slots[0], slots[-1] + TICK, Reason.BLOCKED, now, covered)
    _settle(schedule, head, [each for each, blocked in chosen if not blocked], now)
    schedule.insert_next(after=latest, now=now)


def _settle(schedule: Schedule, head: Run, slots: list[datetime], now: datetime) -> None:
    """Eligible or skipped: the decision about due slots that no calendar blocks, in a few statements for all of them.

    Several that are caught up wait for each other, so that they never overlap.
    """
    from .run import Run, RunEvent

    runs = [head if slot == head.slot_at else schedule.run_for(slot, now) for slot in slots]
    Run.objects.bulk_create(run for run in runs if run is not head)
    paused = SchedulerState.paused()
    ready: list[Run] = []
    for run in runs:
        refused = refusal(schedule, run, now, scheduler=paused)
        if refused is not None:
            _finish(run, refused[0], now, detail=refused[1])
        elif len(runs) == 1 and _overlaps(schedule.task, now):
            _finish(run, Reason.OVERLAP, now)
        else:
            ready.append(run)
    keys = [run.pk for run in ready]
    Run.objects.undecided().filter(pk__in=keys).update(ready_at=now, **values_of(schedule))
    RunEvent.objects.bulk_create(RunEvent(run=run, what=RunEvent.What.DECIDED, at=now) for run in ready)


def refusal(
    schedule: Schedule, run: Run, now: datetime, *, scheduler: SchedulerState | None
) -> tuple[Reason, str] | None:
    """Why a due slot is not run, whatever else its task does, with details; ``scheduler`` is None while it goes on."""
    if not schedule.task.enabled:
        return Reason.PAUSED, ""
    for each in (scheduler, schedule.task, schedule):
        if each is not None and each.is_paused:
            with override(None):  # kept, in English
                return Reason.PAUSED, each.pause_in_words
    if schedule.max_lateness is not None and now - run.due_at > schedule.max_lateness:
        return Reason.TOO_LATE, ""
    return None


def values_of(schedule: Schedule) -> dict[str, Any]:
    """What a slot of this schedule gets when it becomes ready: its arguments or its task's, and where it waits."""
    task = schedule.task
    arguments = task.arguments if schedule.arguments is None else schedule.arguments
    return {"arguments": arguments, "lane": task.lane, "priority": task.priority}


def is_missed(schedule: Schedule, slot: datetime, now: datetime) -> bool:
    """Whether a slot was missed by a schedule that does not catch up."""
    return schedule.catch_up == schedule.CatchUp.SKIP and now - schedule.start_of(slot) > ON_TIME


@dataclass
class Load:
    """What a task has to do: how many of its runs are processed, and how many are ready and wait for their place.

    Counted no further than the task's policy asks for: where any run counts, it is 1 for all of them.
    """

    processing: int = 0
    waiting: int = 0

    def is_in_the_way(self, task: Task) -> bool:
        """Whether one more run of the task overlaps with these; where the old ones are to be stopped, that they are.

        A run that is ready and waits for its place counts, too: it will be under way.
        """
        match task.overlap:
            case Task.Overlap.QUEUE:
                return self.waiting > 0
            case Task.Overlap.ALLOW:
                return self.processing + self.waiting >= task.max_runs
        return self.processing > 0 or self.waiting > 0


def loads(tasks: Iterable[Task], now: datetime) -> dict[int, Load]:
    """The load of each task; one query, and one more where a task may have several runs at once."""
    from .run import Run

    several: dict[bool, list[int]] = {False: [], True: []}
    for task in tasks:
        several[task.overlap == Task.Overlap.ALLOW and task.max_runs > 1].append(task.pk)
    processing = Run.objects.processing().filter(task=OuterRef("pk"))
    waiting = Run.objects.ready(now).filter(task=OuterRef("pk"))
    found: dict[int, Load] = {}
    for is_counted, keys in several.items():
        if keys:
            look = _count if is_counted else Exists
            rows = Task.objects.filter(pk__in=keys).order_by().values_list("pk", look(processing), look(waiting))
            found |= {pk: Load(int(processing), int(waiting)) for pk, processing, waiting in rows}
    return found


def _count(runs: QuerySet[Run]) -> Coalesce:
    counted = runs.order_by().values("task").annotate(count=Count("pk")).values("count")
    return Coalesce(Subquery(counted, output_field=IntegerField()), 0)


def _covered(schedule: Schedule, slot: datetime, latest: datetime) -> list[Covered]:
    """The rows that there are already between a slot and the last one, which keep their slots."""
    rows = schedule.runs.filter(slot_at__gt=slot, slot_at__lte=latest).order_by("slot_at")
    return [(begin, until or begin) for begin, until in rows.values_list("slot_at", "slot_until") if begin is not None]


def last_due(schedule: Schedule, slot: datetime, now: datetime) -> datetime:
    """The last slot whose start, jitter and all, has come; at least ``slot``."""
    latest = schedule.last_slot(now)
    while latest is not None and latest > slot and schedule.start_of(latest) > now:
        latest = schedule.last_slot(latest - TICK)
    return slot if latest is None else max(latest, slot)


def _chosen(
    schedule: Schedule, slot: datetime, latest: datetime, covered: list[Covered], now: datetime
) -> list[tuple[datetime, bool]]:
    """The slots that are not simply passed over, oldest first; each with whether the calendar blocks it.

    They are the last few slots that the schedule catches up, and the blocked ones between and after them.
    """
    calendar = schedule.blackout()
    left = schedule.catch_up_limit if schedule.catch_up == schedule.CatchUp.ALL else 1
    chosen: list[tuple[datetime, bool]] = []
    at: datetime | None = latest
    while at is not None and at >= slot and left > 0 and len(chosen) < LOOK_BACK:
        cover = next((begin for begin, until in covered if begin <= at <= until), None)
        if cover is not None:
            at = schedule.last_slot(cover - TICK)
            continue
        if is_missed(schedule, at, now):
            break
        blocked = calendar is not None and calendars.blocks(calendar, at)
        chosen.append((at, blocked))
        left -= not blocked
        # The head itself may be a slot that the rule no longer has.
        at = schedule.last_slot(at - TICK) if at > slot else None
    return chosen[::-1]


def _skip(
    schedule: Schedule,
    head: Run,
    first: datetime,
    before: datetime,
    reason: Reason,
    now: datetime,
    covered: list[Covered],
) -> None:
    """Write one skipped row for the slots from ``first`` to before ``before``; several where rows stand in between."""
    start: datetime | None = first
    for begin, until in [*covered, (before, before)]:
        if start is None or start >= before:
            return
        if until < start:
            continue
        stop = min(begin, before)
        if start < stop:
            count, last = recurrences.count_slots(
                schedule.recurrence.rule(), anchor=schedule.anchor, zone=schedule.zone, first=start, before=stop
            )
            detail = schedule.calendar.name if reason == Reason.BLOCKED and schedule.calendar else ""
            row = _row(schedule, head, start, now)
            _finish(row, reason, now, detail=detail, slot_until=last, slot_count=count)
        start = schedule.next_slot(until)


def _row(schedule: Schedule, head: Run, slot: datetime, now: datetime) -> Run:
    return head if slot == head.slot_at else schedule.queue(slot, now)


def _finish(run: Run, reason: Reason, now: datetime, **values: Any) -> None:
    from .alarm import Alarm
    from .run import Run, RunEvent

    if Run.objects.transition(run.pk, to=Status.SKIPPED, reason=reason, finished_at=now, **values):
        run.record(RunEvent.What.DECIDED, reason, now=now)
        if reason in ALARMING:
            Alarm.raise_for(run, Alarm.Kind.MISSED, now=now)


def _overlaps(task: Task, now: datetime) -> bool:
    """Whether the task's other runs are in the way of one more; by its policy the old ones are stopped first."""
    from .run import Run

    if task.overlap != Task.Overlap.STOP:
        return loads([task], now)[task.pk].is_in_the_way(task)
    for old in task.runs.processing().filter(cancel_requested_at=None):
        old.replace(now)
    for old in task.runs.ready(now).filter(trigger=Run.Trigger.SCHEDULE):
        _finish(old, Reason.OVERLAP, now)
    return False
