"""A run's page."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from django.core.paginator import Paginator
from django.db.models import Sum
from django.utils import timezone
from django.utils.translation import gettext
from django.views.decorators.http import require_safe

from scheduler import logs
from scheduler.models import Archive, Poller, ProcessSample, Run, RunEvent
from scheduler.states import Status

from . import log
from .chain import chain
from .gate import person, require, staff_page, visible_run
from .page import fragment_url, render_fragment, render_page
from .rows import Row, rows

if TYPE_CHECKING:
    from datetime import datetime

    from django.http import HttpRequest, HttpResponseBase

MESSAGES_AT_MOST = 200
EVENTS_AT_MOST = 200
FILES_A_PAGE = 200
DEEPEST = 6  # how far processes are indented


@staff_page
@require_safe
def detail(request: HttpRequest, pk: int) -> HttpResponseBase:
    run = visible_run(request, pk)
    if request.GET.get("fragment") == "log":
        require(request, "view_output", run.task)
        return render_fragment(request, "scheduler/_run_log.html", {"log": log.section(request, run)})
    context = _state(request, run, timezone.now())
    if "fragment" in request.GET:
        return render_fragment(request, "scheduler/_run.html", context)
    row: Row = context["row"]
    context |= {
        "title": gettext("Run #%(id)s of %(task)s") % {"id": run.pk, "task": logs.printable(run.task.name)},
        "fragment_url": fragment_url(request),
        "log": log.section(request, run) if row.may_view_output else None,
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
        **_files(request, row),
        **_processes(run),
    }


def _files(request: HttpRequest, row: Row) -> dict[str, Any]:
    """The files of one page of them (``?files=``), with the number and the size of all."""
    if not row.file_count:
        return {"files": []}
    if row.files:  # few: they are known already
        size = sum(file.size for file in row.files)
        return {"files": row.files, "files_size": size, "archive": _archive(row)}
    files = row.run.files.of_program()
    pages = Paginator(files, FILES_A_PAGE)
    vars(pages)["count"] = row.file_count  # is counted already
    page = pages.get_page(request.GET.get("files"))
    return {
        "files": list(page.object_list),
        "files_size": files.aggregate(size=Sum("size"))["size"],
        "files_page": page if pages.num_pages > 1 else None,
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
