"""The timeline: a day of runs, a lane for each task or host, so that overlaps and gaps are seen."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from django.db.models import Q
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext
from django.views.decorators.http import require_safe

from scheduler import access
from scheduler.models import Run
from scheduler.states import Status
from scheduler.templatetags.scheduler_display import run_title

from .charts import Lane, Span, lane
from .gate import person, staff_page
from .main import chosen_task
from .page import render_page, run_urls

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponseBase

    from scheduler.models import Task
    from scheduler.models.run import RunQuerySet

BARS_AT_MOST = 1000
LANES_AT_MOST = 200
# A run is found by its end, and so in the day when it ended and in the one before.
LOOKED_AHEAD = timedelta(days=1)
# Of a thousand runs and tasks, which have forty columns each.
SHOWN = ("task__name", "status", "host_name", "slot_at", "slot_until", "due_at", "started_at", "finished_at")


@dataclass(frozen=True, slots=True)
class Day:
    """A day as the clocks of the current zone show it; it has 23 or 25 hours when they are changed."""

    day: date
    start: datetime
    end: datetime

    @classmethod
    def of(cls, day: date) -> Day:
        zone = timezone.get_current_timezone()
        start, end = (datetime.combine(each, time.min, zone) for each in (day, day + timedelta(days=1)))
        return cls(day, start, end)

    @property
    def hours(self) -> list[str]:
        """What the clocks show at the start of each hour."""
        zone, begin = timezone.get_current_timezone(), self.start.timestamp()
        return [f"{datetime.fromtimestamp(begin + 3600 * hour, zone):%H}" for hour in range(round(self.minutes / 60))]

    @property
    def minutes(self) -> int:
        # By timestamps: two times of one zone are subtracted as if its clocks were never changed.
        return round((self.end.timestamp() - self.start.timestamp()) / 60)

    @property
    def grid(self) -> str:
        """A line at each hour, as the path of an SVG."""
        return "".join(f"M{minute} 0V9999" for minute in range(60, self.minutes, 60))


@staff_page
@require_safe
def timeline(request: HttpRequest) -> HttpResponseBase:
    now = timezone.now()
    task = chosen_task(request)
    day = Day.of(_given_day(request.GET.get("day", "")) or timezone.localdate(now))
    by = "host" if request.GET.get("by") == "host" else "task"
    runs = access.listed_runs(person(request)) if task is None else Run.objects.filter(task=task)
    parts = _parts(runs, day, now)
    found: list[Run] = []
    for part in parts:
        found += part.select_related("task").only(*SHOWN)[: BARS_AT_MOST + 1 - len(found)]
    more = len(found) > BARS_AT_MOST
    spans = sorted(_spans(found[:BARS_AT_MOST], day, now), key=lambda span: (span.start, span.run.pk))
    lanes = _lanes(spans, day, by)
    context = {
        "title": gettext("Timeline"),
        "day": day,
        "today": timezone.localdate(now),
        "by": by,
        "task": task,
        "lanes": lanes[:LANES_AT_MOST],
        "lanes_left_out": max(len(lanes) - LANES_AT_MOST, 0),
        "spans": spans,
        "limit": BARS_AT_MOST if more else None,
        "count": sum(part.count() for part in parts) if more else len(spans),
        "legend": [(status.value, status.label) for status in Status],
        "now_at": round((now.timestamp() - day.start.timestamp()) / 60, 1) if day.start <= now < day.end else None,
        "before_url": _url(day.day - timedelta(days=1), by, task),
        "after_url": _url(day.day + timedelta(days=1), by, task),
        "other_url": _url(day.day, "task" if by == "host" else "host", task),
        "all_url": _url(day.day, by, None),
        "zone": timezone.get_current_timezone_name(),
        "ended_later": day.end + LOOKED_AHEAD <= now,
    }
    return render_page(request, "scheduler/timeline.html", context)


def _given_day(text: str) -> date | None:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if 1970 <= day.year <= 9000 else None


def _url(day: date, by: str, task: Task | None) -> str:
    query = {"day": day.isoformat(), "by": by, **({"task": str(task.pk)} if task is not None else {})}
    return f"{reverse('scheduler:timeline')}?{urlencode(query)}"


def _parts(runs: RunQuerySet, day: Day, now: datetime) -> list[RunQuerySet]:
    """The runs of a day, each part by an index of its own: what ended, what is processed, what is to come."""
    until = Q(started_at__lt=day.end) | Q(started_at=None, due_at__lt=day.end)
    ended = runs.finished().filter(until, finished_at__gte=day.start, finished_at__lt=day.end + LOOKED_AHEAD)
    parts = [ended.order_by("finished_at", "id")]
    if day.start <= now:
        parts.append(runs.processing().filter(claimed_at__lt=day.end).order_by("claimed_at", "id"))
    parts.append(runs.queued().filter(due_at__gte=day.start, due_at__lt=day.end).order_by("due_at", "id"))
    return parts


def _spans(runs: list[Run], day: Day, now: datetime) -> list[Span]:
    found = []
    url_of = run_urls()
    for run in runs:
        ran = run.started_at is not None
        start = run.started_at or run.slot_at or run.due_at
        end = (run.finished_at or now) if ran else (run.slot_until or start)
        if end >= day.start and start < day.end:
            found.append(Span(run, start, max(start, end), ran, url_of(run.pk), run_title(run)))
    return found


@dataclass(frozen=True, slots=True)
class NamedLane:
    name: str
    task: Task | None
    lane: Lane


def _lanes(spans: list[Span], day: Day, by: str) -> list[NamedLane]:
    grouped: defaultdict[tuple[str, int], list[Span]] = defaultdict(list)
    for span in spans:
        key = (span.run.host_name, 0) if by == "host" else (span.run.task.name, span.run.task_id)
        grouped[key].append(span)
    return [
        NamedLane(
            name or gettext("on no host"),
            group[0].run.task if by == "task" else None,
            lane(group, start=day.start, end=day.end),
        )
        for (name, _pk), group in sorted(grouped.items())
    ]
