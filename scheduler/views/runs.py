"""A run's page."""

from __future__ import annotations

import shlex
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from django.core.paginator import Paginator
from django.db.models import Sum
from django.utils import timezone
from django.utils.translation import gettext
from django.views.decorators.http import require_safe

from scheduler import logs
from scheduler.models import Archive, Poller, ProcessSample, Run, RunEvent

from . import log
from .advice import advice, sentence
from .chain import chain
from .gate import person, require, staff_page, visible_run
from .page import fragment_url, render_fragment, render_page
from .past import past_of
from .rows import Row, rows

if TYPE_CHECKING:
    from datetime import datetime

    from django.http import HttpRequest, HttpResponseBase

MESSAGES_AT_MOST = 200
EVENTS_AT_MOST = 200
FILES_A_PAGE = 50
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
    alive = list(Poller.objects.alive(now).values_list("host", flat=True))
    past = past_of([run.task_id]) if run.started_at else None
    row = rows([run], user=person(request), now=now, alive=alive, past=past)[0]
    messages = list(run.events.filter(what=RunEvent.What.MESSAGE).order_by("-id")[: MESSAGES_AT_MOST + 1])
    events = list(run.events.exclude(what=RunEvent.What.MESSAGE).order_by("-id")[: EVENTS_AT_MOST + 1])[::-1]
    return {
        "run": run,
        "row": row,
        "arguments": [shlex.quote(argument) for argument in run.arguments],
        "sentence": sentence(row),
        "advice": advice(row, pollers=bool(alive)),
        "program": _program(run),
        "messages_of_run": messages[:MESSAGES_AT_MOST],
        "messages_limit": MESSAGES_AT_MOST if len(messages) > MESSAGES_AT_MOST else None,
        "events": list(zip(events, _pauses(events), strict=True))[-EVENTS_AT_MOST:],
        "events_limit": EVENTS_AT_MOST if len(events) > EVENTS_AT_MOST else None,
        **chain(person(request), run),
        **_files(request, row),
        **_processes(run),
    }


def _pauses(events: list[RunEvent]) -> list[timedelta | None]:
    """How long after the one before it each event was; None where that is no second."""
    pauses = [event.at - before.at for before, event in pairwise(events)]
    return [None, *(pause if pause >= timedelta(seconds=1) else None for pause in pauses)][: len(events)]


def _program(run: Run) -> dict[str, Any]:
    """What was run, and what of it has changed since the last success."""
    found: dict[str, Any] = {"name": run.program or run.task.program, "version": run.version}
    if run.version is None:
        return found
    found["success"] = success = Run.objects.last_success_before(run)
    if success is not None and success.version is not None:
        now, then = set(run.version.environment_names), set(success.version.environment_names)
        found |= {"added": sorted(now - then), "removed": sorted(then - now)}
    return found


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
    sample = ProcessSample.objects.filter(run=run).first() if run.started_at else None
    if sample is None:
        return {}
    if run.is_finished:
        return {"memory_peak": sample.memory_peak_bytes}
    return {"sample": sample, "processes": _tree(sample.processes)}


def _tree(processes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The processes, each below its parent, with how deep it stands; those whose parent is not among them first."""
    known = {process["pid"] for process in processes}
    below: dict[object, list[dict[str, Any]]] = {}
    for process in processes:
        below.setdefault(process["parent"] if process["parent"] in known else None, []).append(process)
    found = []
    waiting = [(process, 0) for process in reversed(below.get(None, []))]
    while waiting:
        process, depth = waiting.pop()
        found.append({**process, "depth": min(depth, DEEPEST)})
        waiting += [(child, depth + 1) for child in reversed(below.pop(process["pid"], []))]
    return found
