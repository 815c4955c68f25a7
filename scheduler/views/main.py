"""The main page: what runs now, what comes next, what ended lately."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext
from django.views.decorators.http import require_safe

from scheduler import access
from scheduler.models import Poller, Run
from scheduler.states import FINISHED, Status

from . import keyset
from .gate import person, staff_page, visible_task
from .notices import notices
from .page import add_task_url, admin_tasks_url, fragment_url, render_fragment, render_page
from .past import past_of
from .rows import rows
from .selection import RunFilter, Selection

if TYPE_CHECKING:
    from datetime import datetime

    from django.http import HttpRequest, HttpResponseBase

    from scheduler.models import Task
    from scheduler.models.run import RunQuerySet

    from .rows import Row

RUNNING_AT_MOST = 100
NEXT_AT_MOST = 15
# For those who ask for nothing but the queue.
QUEUED_AT_MOST = 200
FINISHED_A_PAGE = 30
COUNTED_AT_MOST = 1000


@staff_page
@require_safe
def index(request: HttpRequest) -> HttpResponseBase:
    task = chosen_task(request)
    now = timezone.now()
    context = _tables(request, task, now)
    if "fragment" in request.GET:
        return render_fragment(request, "scheduler/_runs.html", context)
    context |= {
        "title": gettext("Task scheduler"),
        "now": now,
        "fragment_url": fragment_url(request),
        "may_pause": access.can_everywhere(request.user, "pause_all"),
        "may_schedule": access.anywhere(request.user, "run_task"),
        "admin_tasks_url": admin_tasks_url(request),
    }
    return render_page(request, "scheduler/index.html", context)


def chosen_task(request: HttpRequest) -> Task | None:
    """The task of ``?task=``, if there is one. Raises Http404 for one that the user may not see."""
    given = request.GET.get("task", "")
    if not given:
        return None
    return visible_task(request, keyset.number(given) or 0)


def _tables(request: HttpRequest, task: Task | None, now: datetime) -> dict[str, Any]:
    user = person(request)
    form = RunFilter(request.GET)
    chosen = form.chosen
    selection = Selection.of(user, chosen, task)
    query = {name: str(value) for name, value in chosen.items()}
    if task is not None:
        query["task"] = str(task.pk)
    pollers = list(Poller.objects.alive(now))
    page = _finished(request, selection) if chosen.get("status", Status.COMPLETED) in FINISHED else _Finished()
    in_progress = selection.runs.processing().order_by("claimed_at", "id")
    queued = selection.runs.queued().order_by("due_at", "id")
    running = upcoming = None
    if page.is_newest and chosen.get("status") in {None, Status.PROCESSING}:
        running = _Part.of(in_progress, RUNNING_AT_MOST)
    if page.is_newest and chosen.get("status") in {None, Status.QUEUED}:
        limit = QUEUED_AT_MOST if "status" in chosen else NEXT_AT_MOST
        upcoming = _Part.of(queued, limit)

    # Which runs it is has been asked; what they look like is joined once, for these only.
    ids = [*page.ids, *(running.ids if running else ()), *(upcoming.ids if upcoming else ())]
    found = Run.objects.select_related("task__owner", "schedule__recurrence").explained().in_bulk(ids)
    built = {
        row.run.pk: row
        for row in rows(
            list(found.values()),
            user=user,
            now=now,
            alive=[poller.host for poller in pollers],
            past=past_of(run.task_id for run in found.values()),
        )
    }

    def section(part: _Part | None) -> list[Row] | None:
        return None if part is None else [built[pk] for pk in part.ids if pk in built]

    finished = section(page) if page.is_shown else None
    return {
        "task": task,
        "filter": form,
        "filtered": bool(chosen or form.errors),
        "page": page,
        "running": section(running),
        "running_more": running and running.limit,
        "upcoming": section(upcoming),
        "upcoming_more": upcoming and upcoming.limit,
        "queue_url": _url({**query, "status": Status.QUEUED.value}) if "status" not in chosen else None,
        "finished": finished,
        "older_url": page.older_url(query, finished),
        "newer_url": page.newer_url(query, finished),
        "newest_url": _url(query),
        "no_task": not found and not access.anywhere(user, "view_task"),
        "may_add_task": access.can_everywhere(user, "add_task"),
        "add_task_url": add_task_url(request),
        "full": list({poller.host: poller for poller in pollers if poller.is_out_of_room}.values()),
        **notices(user, task),
        "health": {
            "pollers": len(pollers),
            "processing": _count(running, section(running), in_progress),
            "waiting": _waiting(upcoming, section(upcoming), queued.filter(due_at__lte=now)),
            "limit": COUNTED_AT_MOST,
        },
    }


@dataclass(frozen=True)
class _Part:
    """The runs of one of the page's tables."""

    ids: list[int] = field(default_factory=list)
    limit: int | None = None
    """There are more than these: only so many are shown."""

    @classmethod
    def of(cls, runs: RunQuerySet, count: int) -> _Part:
        ids = list(runs.values_list("pk", flat=True)[: count + 1])
        return cls(ids[:count], count if len(ids) > count else None)


def _count(part: _Part | None, shown: list[Row] | None, runs: RunQuerySet) -> int:
    """How many there are, for which nobody is asked when all are shown; what is beyond a limit is not counted.

    In their order: by its index they are few, whoever's they are, while the tasks of somebody may be thousands.
    """
    if part is not None and part.limit is None:
        return len(shown or ())
    return runs[: COUNTED_AT_MOST + 1].count()


def _waiting(part: _Part | None, shown: list[Row] | None, due: RunQuerySet) -> int:
    """``_count`` of those that are due, which come first: when not all that are shown are due, no other one is."""
    waiting = [row for row in shown or () if row.waits]
    if part is not None and shown and len(waiting) < len(shown):
        return len(waiting)
    return _count(part, waiting, due)


@dataclass(frozen=True)
class _Finished(_Part):
    """A page of finished runs."""

    is_shown: bool = False
    is_newest: bool = True
    has_older: bool = False

    def older_url(self, query: dict[str, str], shown: list[Row] | None) -> str:
        return _url({**query, "before": _position(shown[-1].run)}) if shown and self.has_older else ""

    def newer_url(self, query: dict[str, str], shown: list[Row] | None) -> str:
        return _url({**query, "after": _position(shown[0].run)}) if shown and not self.is_newest else ""


def _finished(request: HttpRequest, selection: Selection) -> _Finished:
    before = keyset.read(request.GET.get("before", ""))
    after = None if before else keyset.read(request.GET.get("after", ""))
    ids = selection.finished(FINISHED_A_PAGE + 1, before=before, after=after)
    if after is not None and len(ids) <= FINISHED_A_PAGE:
        # Nothing is newer than this page: it is the newest one, which is full.
        after, ids = None, selection.finished(FINISHED_A_PAGE + 1)
    has_older = after is not None or len(ids) > FINISHED_A_PAGE
    ids = ids[:FINISHED_A_PAGE]
    if after is not None:
        ids.reverse()
    return _Finished(ids, is_shown=True, is_newest=before is None and after is None, has_older=has_older)


def _position(run: Run) -> str:
    assert run.finished_at is not None
    return keyset.write(run.finished_at, run.pk)


def _url(query: dict[str, str]) -> str:
    return reverse("scheduler:index") + (f"?{urlencode(query)}" if query else "")
