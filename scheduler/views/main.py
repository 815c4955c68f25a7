"""The main page: what runs now, what comes next, what ended lately."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.db.models import Q
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext
from django.views.decorators.http import require_safe

from scheduler import access
from scheduler.models import Poller, Run

from .gate import person, staff_page, visible_task
from .notices import notices
from .page import admin_tasks_url, fragment_url, render_fragment, render_page
from .rows import rows

if TYPE_CHECKING:
    from uuid import UUID

    from django.http import HttpRequest, HttpResponseBase

    from scheduler.models import Task
    from scheduler.models.run import RunQuerySet

SCHEDULED_AT_MOST = 200
FINISHED_A_PAGE = 50
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@staff_page
@require_safe
def index(request: HttpRequest) -> HttpResponseBase:
    task = chosen_task(request)
    context = _tables(request, task, timezone.now())
    if "fragment" in request.GET:
        return render_fragment(request, "scheduler/_runs.html", context)
    context |= {
        "title": gettext("Task scheduler"),
        "fragment_url": fragment_url(request),
        "may_pause": access.can_everywhere(request.user, "pause_all"),
        "may_schedule": access.tasks_with(request.user, "run_task").exists(),
        "admin_tasks_url": admin_tasks_url(request),
    }
    return render_page(request, "scheduler/index.html", context)


def chosen_task(request: HttpRequest) -> Task | None:
    """The task that the address is narrowed down to. Raises Http404 for one that the user may not see."""
    given = request.GET.get("task", "")
    if not given:
        return None
    return visible_task(request, int(given) if given.isascii() and given.isdigit() and len(given) < 19 else 0)


def _tables(request: HttpRequest, task: Task | None, now: datetime) -> dict[str, Any]:
    runs: RunQuerySet = access.visible_runs(request.user)  # type: ignore[assignment]
    if task is not None:
        runs = runs.filter(task=task)
    before = _position(request.GET.get("before", ""))
    related = runs.select_related("task__owner").explained()
    pollers = list(Poller.objects.alive(now))
    hosts: list[UUID] = [poller.host for poller in pollers]

    active: list[Run] = []
    if before is None:
        active = list(related.processing().order_by("claimed_at", "id")[: SCHEDULED_AT_MOST + 1])
        active += related.queued().order_by("due_at", "id")[: SCHEDULED_AT_MOST + 1 - len(active)]
    finished = list(_finished(related, before)[: FINISHED_A_PAGE + 1])
    more_active, more_finished = len(active) > SCHEDULED_AT_MOST, len(finished) > FINISHED_A_PAGE
    active, finished = active[:SCHEDULED_AT_MOST], finished[:FINISHED_A_PAGE]

    built = rows([*active, *finished], user=person(request), now=now, alive=hosts)
    return {
        "task": task,
        "newest": before is None,
        "active": built[: len(active)],
        "finished": built[len(active) :],
        "active_limit": SCHEDULED_AT_MOST if more_active else None,
        "older_url": _older_url(task, finished[-1]) if more_finished else None,
        "newest_url": _url(task),
        "full": list({poller.host: poller for poller in pollers if poller.is_out_of_room}.values()),
        "health": _health(runs, now, pollers=len(hosts)),
        **notices(person(request), task),
    }


def _health(runs: RunQuerySet, now: datetime, *, pollers: int) -> dict[str, int]:
    processing = runs.processing().count()
    return {"pollers": pollers, "processing": processing, "waiting": runs.queued().filter(due_at__lte=now).count()}


def _finished(runs: RunQuerySet, before: tuple[datetime, int] | None) -> RunQuerySet:
    runs = runs.finished().order_by("-finished_at", "-id")
    if before is not None:
        at, pk = before
        runs = runs.filter(finished_at__lte=at).filter(Q(finished_at__lt=at) | Q(pk__lt=pk))
    return runs


def _url(task: Task | None, before: str = "") -> str:
    query = {name: value for name, value in (("task", task and str(task.pk)), ("before", before)) if value}
    return reverse("scheduler:index") + (f"?{urlencode(query)}" if query else "")


def _older_url(task: Task | None, last: Run) -> str:
    assert last.finished_at is not None
    return _url(task, f"{(last.finished_at - _EPOCH) // timedelta(microseconds=1)}-{last.pk}")


def _position(given: str) -> tuple[datetime, int] | None:
    """Where a page of finished runs starts: microseconds since 1970 and a run's id. None: at the newest."""
    at, _, pk = given.partition("-")
    if not (at.isascii() and at.isdigit() and pk.isascii() and pk.isdigit() and len(pk) < 19):
        return None
    try:
        return _EPOCH + timedelta(microseconds=int(at[:20])), int(pk)
    except OverflowError:
        return None
