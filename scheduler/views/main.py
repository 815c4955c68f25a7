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
from scheduler.models import Poller
from scheduler.states import FINISHED, Status

from . import keyset
from .gate import person, staff_page, visible_task
from .page import add_task_url, admin_tasks_url, fragment_url, render_fragment, render_page
from .past import past_of
from .rows import rows
from .selection import RunFilter, Selection

if TYPE_CHECKING:
    from datetime import datetime

    from django.http import HttpRequest, HttpResponseBase

    from scheduler.models import Run, Task
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
        "may_schedule": access.anywhere(request.user, "run_task"),
        "admin_tasks_url": admin_tasks_url(request),
    }
    return render_page(request, "scheduler/index.html", context)


def chosen_task(request: HttpRequest) -> Task | None:
    """The task of ``?task=``, if there is one. Raises Http404 for one that the user may not see."""
    given = request.GET.get("task", "")
    if not given:
        return None
    return visible_task(request, int(given) if given.isascii() and given.isdigit() and len(given) < 19 else 0)


def _tables(request: HttpRequest, task: Task | None, now: datetime) -> dict[str, Any]:
    user = person(request)
    form = RunFilter(request.GET)
    chosen = form.chosen
    selection = Selection.of(user, chosen, task)
    query = {name: str(value) for name, value in chosen.items()}
    if task is not None:
        query["task"] = str(task.pk)
    pollers = list(Poller.objects.alive(now))
    page = _finished(request, selection, query) if chosen.get("status", Status.COMPLETED) in FINISHED else _Finished()

    running = running_more = upcoming = upcoming_more = None
    if page.is_newest and chosen.get("status") in {None, Status.PROCESSING}:
        processing = selection.shown().processing().order_by("claimed_at", "id")
        running, running_more = _at_most(processing, RUNNING_AT_MOST)
    if page.is_newest and chosen.get("status") in {None, Status.QUEUED}:
        limit = QUEUED_AT_MOST if "status" in chosen else NEXT_AT_MOST
        upcoming, upcoming_more = _at_most(selection.shown().queued().order_by("due_at", "id"), limit)

    upcoming_due = None if upcoming is None else [run for run in upcoming if run.due_at <= now]

    shown = [*(running or []), *(upcoming or []), *page.runs]
    built = {
        row.run.pk: row
        for row in rows(
            shown,
            user=user,
            now=now,
            alive=[poller.host for poller in pollers],
            past=past_of(run.task_id for run in shown),
        )
    }

    def section(runs: list[Run] | None) -> list[Row] | None:
        return None if runs is None else [built[run.pk] for run in runs]

    return {
        "task": task,
        "filter": form,
        "filtered": bool(chosen or form.errors),
        "page": page,
        "running": section(running),
        "running_more": running_more,
        "upcoming": section(upcoming),
        "upcoming_more": upcoming_more,
        "queue_url": _url({**query, "status": Status.QUEUED.value}) if "status" not in chosen else None,
        "finished": section(page.runs) if page.is_shown else None,
        "no_task": not shown and not access.anywhere(user, "view_task"),
        "may_add_task": access.can_everywhere(user, "add_task"),
        "add_task_url": add_task_url(request),
        "full": [poller for poller in pollers if poller.is_out_of_room],
        "health": {
            "pollers": len(pollers),
            "processing": _count(running, running_more, selection.all().processing()),
            "waiting": _count(upcoming_due, upcoming_more, selection.all().queued().filter(due_at__lte=now)),
            "limit": COUNTED_AT_MOST,
        },
    }


def _at_most(runs: RunQuerySet, count: int) -> tuple[list[Run], int | None]:
    """So many of the runs; and the limit, where there are more."""
    found = list(runs[: count + 1])
    return found[:count], count if len(found) > count else None


def _count(shown: list[Run] | None, more: int | None, runs: RunQuerySet) -> int:
    """How many there are, for which nobody is asked when all are shown; what is beyond a limit is not counted."""
    if shown is not None and more is None:
        return len(shown)
    return runs.order_by()[: COUNTED_AT_MOST + 1].count()


@dataclass(frozen=True)
class _Finished:
    """A page of finished runs."""

    runs: list[Run] = field(default_factory=list)
    is_shown: bool = False
    is_newest: bool = True
    newest_url: str = ""
    newer_url: str = ""
    older_url: str = ""


def _finished(request: HttpRequest, selection: Selection, query: dict[str, str]) -> _Finished:
    before = keyset.read(request.GET.get("before", ""))
    after = None if before else keyset.read(request.GET.get("after", ""))
    found = selection.finished(FINISHED_A_PAGE + 1, before=before, after=after)
    if after is not None and len(found) <= FINISHED_A_PAGE:
        # Nothing is newer than this page: it is the newest one, which is full.
        after, found = None, selection.finished(FINISHED_A_PAGE + 1)
    is_newest = before is None and after is None
    has_older = after is not None or len(found) > FINISHED_A_PAGE
    runs = found[:FINISHED_A_PAGE]
    if after is not None:
        runs.reverse()
    return _Finished(
        runs,
        is_shown=True,
        is_newest=is_newest,
        newest_url=_url(query),
        newer_url=_url({**query, "after": _position(runs[0])}) if runs and not is_newest else "",
        older_url=_url({**query, "before": _position(runs[-1])}) if runs and has_older else "",
    )


def _position(run: Run) -> str:
    assert run.finished_at is not None
    return keyset.write(run.finished_at, run.pk)


def _url(query: dict[str, str]) -> str:
    return reverse("scheduler:index") + (f"?{urlencode(query)}" if query else "")
