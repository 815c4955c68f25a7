"""“Why didn't it run?”: what became of each slot of a task, the latest first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext
from django.views.decorators.http import require_safe

from scheduler import access
from scheduler.logs import printable
from scheduler.models import Poller
from scheduler.recurrences import InvalidRule
from scheduler.states import Status

from . import keyset
from .gate import person, staff_page, visible_task
from .page import admin_task_url, render_page
from .rows import Row, rows

if TYPE_CHECKING:
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from django.http import HttpRequest, HttpResponseBase

    from scheduler.models import Run, Schedule, Task

PAGE = 50
SCHEDULES_AT_MOST = 20
# A start is never in the very instant of its slot; less than this is on time.
LATE = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class SlotRow:
    """A slot, or a gap of them, and what became of it."""

    row: Row
    zone: ZoneInfo | None
    """The schedule's zone, where it is another one than the page's."""

    @property
    def run(self) -> Run:
        return self.row.run

    @property
    def late(self) -> timedelta | None:
        """By how much it started, or still waits, after it was due; None: on time, or it did not run."""
        if self.run.started_at is not None:
            late = self.run.started_at - self.run.due_at
        elif self.row.waits:
            late = self.row.now - self.run.due_at
        else:
            return None
        return late if late >= LATE else None

    @property
    def text(self) -> str:
        if self.run.status == Status.COMPLETED:
            return ""
        return self.row.note or self.run.sentence


@dataclass(frozen=True, slots=True)
class ScheduleState:
    """One of the task's schedules, and what is to be said about it."""

    schedule: Schedule
    waiting: int
    """So many slots have come and are not decided yet."""


@staff_page
@require_safe
def task_slots(request: HttpRequest, pk: int) -> HttpResponseBase:
    task = visible_task(request, pk)
    now, user = timezone.now(), person(request)
    not_run = request.GET.get("not_run") == "1"
    before = keyset.read(request.GET.get("before", ""))
    runs = task.runs.of_slots().select_related("schedule__recurrence").explained()
    if not_run:
        runs = runs.not_run()
    if before is not None:
        runs = keyset.below(runs, "slot_at", before)
    page = list(runs[: PAGE + 1])
    shown = page[:PAGE]
    last = shown[-1] if len(page) > PAGE else None
    query = {"not_run": "1"} if not_run else {}
    alive = list(Poller.objects.alive(now).values_list("host", flat=True))
    schedules = list(task.schedules.select_related("recurrence", "next_run").order_by("pk")[: SCHEDULES_AT_MOST + 1])
    context = {
        "title": gettext("Slots of “%(task)s”") % {"task": printable(task.name)},
        "task": task,
        "rows": [SlotRow(row, _other_zone(row.run)) for row in rows(shown, user=user, now=now, alive=alive)],
        "schedules": [ScheduleState(each, each.waiting_slots(now)) for each in schedules[:SCHEDULES_AT_MOST]],
        "more_schedules": len(schedules) > SCHEDULES_AT_MOST,
        "pollers": len(alive),
        "may_change": access.can(user, "change_task", task),
        "not_run": not_run,
        "newest": before is None,
        "newest_url": _url(task, query),
        "other_url": _url(task, {} if not_run else {"not_run": "1"}),
        "older_url": _url(task, {**query, "before": _position(last)}) if last is not None else None,
        "admin_url": admin_task_url(request, task),
    }
    return render_page(request, "scheduler/task_slots.html", context)


def _url(task: Task, query: dict[str, str]) -> str:
    return reverse("scheduler:task-slots", args=[task.pk]) + (f"?{urlencode(query)}" if query else "")


def _position(run: Run) -> str:
    at: datetime | None = run.slot_at
    assert at is not None  # it is one of the slots
    return keyset.write(at, run.pk)


def _other_zone(run: Run) -> ZoneInfo | None:
    if run.schedule is None or run.schedule.time_zone == timezone.get_current_timezone_name():
        return None
    try:
        return run.schedule.zone
    except InvalidRule:
        return None
