"""The calendar: what will run in the next day or week, over all tasks that one may see, and where it piles up."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.urls import reverse
from django.utils import formats, timezone
from django.utils.translation import gettext, ngettext
from django.views.decorators.http import require_safe

from scheduler import access, forecast
from scheduler.calendars import InvalidCalendar
from scheduler.models import Run, Schedule, SchedulerState
from scheduler.recurrences import InvalidRule

from .gate import person, staff_page
from .main import chosen_task
from .page import render_page

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponseBase

    from scheduler.models import Task

# More than this is not counted, and the page says so: it answers in a second or two, whatever there is.
SCHEDULES_AT_MOST = 20_000
SLOTS_AT_MOST = 2_000_000
SINGLE_RUNS_AT_MOST = 10_000
NAMES_AT_MOST = 3
MINUTE = timedelta(minutes=1)
BAR = 10  # a bar's width in the drawing's own unit; the page stretches it
HEIGHT = 100


@dataclass(frozen=True, slots=True)
class Range:
    """What can be chosen: how far one looks, and how much time a bar stands for."""

    name: str
    bars: int
    bar_minutes: int
    label_hours: int
    """A label stands at each hour of the clock that this divides."""
    label_format: str


DAY = Range("day", 96, 15, 4, "H:i")
WEEK = Range("week", 168, 60, 24, "D j")


@dataclass
class Bar:
    """A part of the time, and what falls into it."""

    begin: datetime
    end: datetime
    runs: int = 0
    blocked: int = 0
    paused: int = 0
    names: list[str] = field(default_factory=list)
    others: int = 0
    """How many more schedules there are than names."""

    @property
    def total(self) -> int:
        return self.runs + self.blocked + self.paused

    def add_names(self, names: list[str], count: int) -> None:
        """Note of whom its runs are: some names, for so many schedules."""
        for name in names:
            if len(self.names) < NAMES_AT_MOST and name not in self.names:
                self.names.append(name)
                count -= 1
        self.others += count

    def when(self) -> str:
        begin, end = timezone.localtime(self.begin), timezone.localtime(self.end)
        values = {"begin": formats.date_format(begin, "D Y-m-d H:i"), "end": formats.date_format(end, "H:i")}
        return gettext("%(begin)s to %(end)s") % values


@dataclass
class Member:
    """How many schedules of a plan go on, and how many are paused, with some names of their tasks."""

    going: int = 0
    paused: int = 0
    names: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        return self.going + self.paused

    def add(self, name: str, *, paused: bool) -> None:
        self.paused += paused
        self.going += not paused
        if len(self.names) < NAMES_AT_MOST and name not in self.names:
            self.names.append(name)


@dataclass
class Outlook:
    """What is to come, minute by minute and bar by bar."""

    window: forecast.Window
    bars: list[Bar]
    bar_minutes: int
    offset: int
    """How many minutes of the first bar are over already."""
    per_minute: list[int]
    counted: int = 0
    left_out: int = 0
    """So many schedules are not counted, because it would take too long."""

    def add(self, minutes: Any, member: Member, blackout: forecast.Blackout | None) -> None:
        touched: set[int] = set()
        going, paused, per_bar = member.going, member.paused, self.bar_minutes
        for minute in minutes:
            number = (minute + self.offset) // per_bar
            bar = self.bars[number]
            touched.add(number)
            if blackout is not None and blackout.blocks(minute):
                bar.blocked += member.count
                continue
            bar.runs += going
            bar.paused += paused
            self.per_minute[minute] += going
        for number in touched:
            self.bars[number].add_names(member.names, member.count)

    @property
    def busiest(self) -> tuple[datetime, int] | None:
        """The minute in which most runs start, and how many; None when nothing runs."""
        most = max(self.per_minute, default=0)
        if not most:
            return None
        return self.window.begin + self.per_minute.index(most) * MINUTE, most


@staff_page
@require_safe
def calendar(request: HttpRequest) -> HttpResponseBase:
    user, now = person(request), timezone.now()
    task = chosen_task(request)
    chosen = WEEK if request.GET.get("range") == WEEK.name else DAY
    outlook = look(user, now, chosen, task=task)
    bars = [bar for bar in outlook.bars if bar.total]
    context = {
        "title": gettext("Calendar"),
        "task": task,
        "range": chosen.name,
        "outlook": outlook,
        "bars": bars,
        "chart": _chart(outlook.bars, chosen),
        "total": sum(bar.runs for bar in bars),
        "blocked": sum(bar.blocked for bar in bars),
        "paused_count": sum(bar.paused for bar in bars),
        "paused": SchedulerState.paused(),
        "base_url": reverse("scheduler:calendar"),
    }
    return render_page(request, "scheduler/calendar.html", context)


def look(user: User, now: datetime, chosen: Range, *, task: Task | None = None) -> Outlook:
    """What will run after ``now``, of the tasks that the user may see; or of one of them."""
    outlook = _empty(now, chosen)
    window = outlook.window
    tasks: QuerySet[Task] = access.visible_tasks(user)
    if task is not None:
        tasks = tasks.filter(pk=task.pk)
    members, calendars = _members(outlook, tasks, is_paused=SchedulerState.paused() is not None)
    slots = 0
    for (plan, calendar_id), member in members.items():
        minutes = forecast.minutes(plan, window)
        slots += len(minutes)
        if slots > SLOTS_AT_MOST:
            slots -= len(minutes)
            outlook.left_out += member.count
            continue
        outlook.counted += member.count
        outlook.add(minutes, member, calendars.get(calendar_id))
    _add_single_runs(outlook, tasks)
    return outlook


def _empty(now: datetime, chosen: Range) -> Outlook:
    """Nothing yet, from the next minute on; bars begin where the clock shows a round time."""
    begin = (now + MINUTE).replace(second=0, microsecond=0)
    local = timezone.localtime(begin)
    offset = (local.hour * 60 + local.minute) % chosen.bar_minutes
    first, step = begin - offset * MINUTE, chosen.bar_minutes * MINUTE
    bars = [Bar(first + number * step, first + (number + 1) * step) for number in range(chosen.bars)]
    window = forecast.Window(begin, bars[-1].end)
    return Outlook(window, bars, chosen.bar_minutes, offset, [0] * window.minutes)


Key = tuple[forecast.Plan | forecast.Steps, int | None]


def _members(
    outlook: Outlook, tasks: QuerySet[Task], *, is_paused: bool
) -> tuple[dict[Key, Member], dict[int | None, forecast.Blackout]]:
    """The schedules by what they do within the window, and the calendars that block some of them."""
    found: dict[Key, Member] = defaultdict(Member)
    blackouts: dict[int | None, forecast.Blackout] = {}
    rules: dict[int, Any] = {}
    schedules = Schedule.objects.filter(enabled=True, ended=False, task__in=tasks).order_by("pk")
    schedules = schedules.select_related("task", "recurrence", "calendar")
    names = ("task__name", "task__enabled", "task__paused_at", "paused_at", "anchor", "time_zone", "ends_at")
    related = ("recurrence__kind", "recurrence__every", "recurrence__unit", "recurrence__cron")
    only = schedules.only(*names, *related, "calendar__name", "calendar__time_zone", "calendar__lines")
    for number, schedule in enumerate(only[: SCHEDULES_AT_MOST + 1].iterator()):
        if number == SCHEDULES_AT_MOST:
            outlook.left_out = schedules.count() - number
            break
        try:
            rule = rules.get(schedule.recurrence_id)
            if rule is None:
                rule = rules[schedule.recurrence_id] = schedule.recurrence.rule()
            plan = forecast.plan(
                rule, anchor=schedule.anchor, zone=schedule.zone, until=schedule.ends_at, window=outlook.window
            )
            if schedule.calendar is not None and schedule.calendar_id not in blackouts:
                blackouts[schedule.calendar_id] = forecast.Blackout(schedule.calendar.read(), outlook.window)
        except (InvalidRule, InvalidCalendar):
            continue  # it will be disabled, with an alarm, when its next slot comes due
        task = schedule.task
        paused = is_paused or schedule.is_paused or task.is_paused or not task.enabled
        found[plan, schedule.calendar_id].add(task.name, paused=paused)
    return found, blackouts


def _add_single_runs(outlook: Outlook, tasks: QuerySet[Task]) -> None:
    """Runs that wait for their time and are of no slot: started by hand for later, and retries."""
    window = outlook.window
    waiting = Run.objects.queued().filter(ready_at__isnull=False, slot_at=None, task__in=tasks)
    within = waiting.filter(due_at__gte=window.begin, due_at__lt=window.end).order_by("due_at")
    for due_at, name in within.values_list("due_at", "task__name")[:SINGLE_RUNS_AT_MOST]:
        outlook.add([window.minute(due_at)], Member(going=1, names=[name]), None)


# The drawing


def _chart(bars: list[Bar], chosen: Range) -> dict[str, Any]:
    """Rectangles in a drawing that the page stretches to its width; labels stand below it, and stay legible."""
    most = max((bar.total for bar in bars), default=0)
    parts = []
    for number, bar in enumerate(bars):
        bottom = float(HEIGHT)
        for kind, count in (("runs", bar.runs), ("blocked", bar.blocked), ("paused", bar.paused)):
            if count:
                height = max(count * HEIGHT / most, 1.0)
                bottom -= height
                parts.append(
                    {
                        "kind": kind,
                        "x": number * BAR + 1,
                        "y": f"{bottom:.2f}",
                        "height": f"{height:.2f}",
                        "title": _title(bar),
                    }
                )
    return {
        "parts": parts,
        "width": len(bars) * BAR,
        "bar": BAR - 2,
        "height": HEIGHT,
        "most": most,
        "labels": _labels(bars, chosen),
    }


def _labels(bars: list[Bar], chosen: Range) -> list[tuple[str, int]]:
    """What stands below the bars, and under how many of them; nothing where the first ones leave it no room."""
    labels: list[tuple[str, int]] = []
    for bar in bars:
        local = timezone.localtime(bar.begin)
        if not labels or (local.minute == 0 and local.hour % chosen.label_hours == 0):
            labels.append((formats.date_format(local, chosen.label_format), 0))
        text, count = labels[-1]
        labels[-1] = text, count + 1
    full = chosen.label_hours * 60 // chosen.bar_minutes
    return [(text if count * 2 >= full else "", count) for text, count in labels]


def _title(bar: Bar) -> str:
    texts = [ngettext("%(n)d run", "%(n)d runs", bar.runs) % {"n": bar.runs}]
    if bar.blocked:
        texts.append(gettext("%(n)d blocked") % {"n": bar.blocked})
    if bar.paused:
        texts.append(gettext("%(n)d paused") % {"n": bar.paused})
    return f"{bar.when()}: {', '.join(texts)}"
