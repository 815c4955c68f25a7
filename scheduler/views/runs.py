"""A run's page, and its log."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from django.db.models import Sum
from django.http import HttpResponseBadRequest, JsonResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext
from django.views.decorators.http import require_safe

from scheduler import logs, outputs
from scheduler.models import Archive, Poller, ProcessSample, Run, RunEvent
from scheduler.states import Status

from .chain import chain
from .gate import person, require, staff_data, staff_page, visible_run
from .page import fragment_url, render_fragment, render_page
from .rows import Row, rows

if TYPE_CHECKING:
    from datetime import datetime

    from django.http import HttpRequest, HttpResponseBase

MESSAGES_AT_MOST = 200
EVENTS_AT_MOST = 200
FILES_AT_MOST = 1000
DEEPEST = 6  # how far processes are indented


@staff_page
@require_safe
def detail(request: HttpRequest, pk: int) -> HttpResponseBase:
    run = visible_run(request, pk)
    context = _state(request, run, timezone.now())
    if "fragment" in request.GET:
        return render_fragment(request, "scheduler/_run.html", context)
    row: Row = context["row"]
    context |= {
        "title": gettext("Run #%(id)s of %(task)s") % {"id": run.pk, "task": logs.printable(run.task.name)},
        "fragment_url": fragment_url(request),
        "log_url": reverse("scheduler:run-log", args=[run.pk]),
        "log": logs.read_tail(outputs.log_path(run)) if row.may_view_output else None,
    }
    return render_page(request, "scheduler/run_detail.html", context)


def _state(request: HttpRequest, run: Run, now: datetime) -> dict[str, Any]:
    """Everything of a run that changes while it is processed, except its log."""
    alive = Poller.objects.alive(now).values_list("host", flat=True)
    row = rows([run], user=person(request), now=now, alive=alive)[0]
    messages = list(run.events.filter(what=RunEvent.What.MESSAGE).order_by("-id")[: MESSAGES_AT_MOST + 1])
    events = list(run.events.exclude(what=RunEvent.What.MESSAGE).order_by("-id")[: EVENTS_AT_MOST + 1])
    return {
        "run": run,
        "row": row,
        "arguments": [shlex.quote(argument) for argument in run.arguments],
        "program": run.program or run.task.program,
        "messages_of_run": messages[:MESSAGES_AT_MOST],
        "messages_limit": MESSAGES_AT_MOST if len(messages) > MESSAGES_AT_MOST else None,
        "events": events[:EVENTS_AT_MOST][::-1],
        "events_limit": EVENTS_AT_MOST if len(events) > EVENTS_AT_MOST else None,
        **chain(person(request), run),
        **_files(row),
        **_processes(run),
    }


def _files(row: Row) -> dict[str, Any]:
    if not row.file_count:
        return {"files": []}
    if row.files:
        return {"files": row.files, "files_size": sum(file.size for file in row.files), "archive": _archive(row)}
    size = row.run.files.of_program().aggregate(size=Sum("size"))["size"]
    limit = FILES_AT_MOST if row.file_count > FILES_AT_MOST else None
    return {
        "files": list(row.run.files.of_program()[:FILES_AT_MOST]),
        "files_size": size,
        "files_limit": limit,
        "archive": _archive(row),
    }


def _archive(row: Row) -> Archive | None:
    """The ZIP of the run's files, if somebody has asked for it."""
    return Archive.objects.filter(run=row.run).select_related("file").first()


def _processes(run: Run) -> dict[str, Any]:
    if run.status != Status.PROCESSING:
        return {}
    sample = ProcessSample.objects.filter(run=run).first()
    if sample is None:
        return {}
    depths: dict[object, int] = {}
    processes = []
    for process in sample.processes:
        depth = depths.get(process.get("parent"), -1) + 1
        depths[process.get("pid")] = depth
        processes.append({**process, "depth": min(depth, DEEPEST)})
    return {"sample": sample, "processes": processes}


@staff_data
@require_safe
def log(request: HttpRequest, pk: int) -> HttpResponseBase:
    """JSON: the log from ``?offset=`` on, where the next part starts, and whether this was the last."""
    run = visible_run(request, pk)
    require(request, "view_output", run.task)
    given = request.GET.get("offset", "0")
    if not (given.isascii() and given.isdigit() and len(given) < 19):
        return HttpResponseBadRequest(gettext("“offset” must be a whole number of bytes."), content_type="text/plain")
    part = logs.read_part(outputs.log_path(run), int(given), ended=run.is_finished)
    if part is None:
        return JsonResponse({"text": "", "offset": 0, "size": 0, "finished": run.is_finished})
    finished = run.is_finished and part.offset >= part.size
    return JsonResponse({"text": part.text, "offset": part.offset, "size": part.size, "finished": finished})
