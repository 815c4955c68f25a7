"""Running a task once more with the arguments of a run, changed by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.translation import gettext
from django.views.decorators.http import require_http_methods

from scheduler.forms import AgainForm
from scheduler.logs import printable

from .actions import start_again, start_once
from .gate import person, require, staff_page, visible_run
from .page import render_page

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponseBase


@staff_page
@require_http_methods(["GET", "HEAD", "POST"])
def run_again_changed(request: HttpRequest, pk: int) -> HttpResponseBase:
    run = visible_run(request, pk)
    require(request, "run_task", run.task)
    if not run.is_finished:
        messages.error(request, gettext("This run is not over yet; start the task itself."))
        return redirect(run)
    data = request.POST if request.method == "POST" else None
    form = AgainForm(data, run=run, user=person(request), now=timezone.now())
    if request.method == "POST" and form.is_valid():
        arguments: list[str] = form.cleaned_data["arguments"]
        started = start_once(request, run.task, lambda uuid: start_again(request, run, uuid, arguments))
        if started is not None:
            return redirect(started)
    context: dict[str, Any] = {
        "form": form,
        "run": run,
        "title": gettext("Run “%(task)s” again") % {"task": printable(run.task.name)},
    }
    return render_page(request, "scheduler/run_again.html", context)
