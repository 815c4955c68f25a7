"""The page "Schedule task"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.db import transaction
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import formats, timezone
from django.utils.translation import gettext
from django.views.decorators.http import require_http_methods

from scheduler import audit
from scheduler.forms import PREVIEW, ScheduleForm
from scheduler.logs import printable
from scheduler.models import AuditEntry, Task

from .actions import start_once
from .gate import person, staff_page
from .page import render_page

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from django.http import HttpRequest, HttpResponseBase

    from scheduler.models import Run


@staff_page
@require_http_methods(["GET", "HEAD", "POST"])
def schedule_task(request: HttpRequest) -> HttpResponseBase:
    now = timezone.now()
    context: dict[str, Any] = {"title": gettext("Schedule task")}
    if request.method == "POST":
        form = ScheduleForm(request.POST, user=person(request), now=now)
        is_valid = form.is_valid()
        if PREVIEW in request.POST:
            context["preview"] = form.preview()
        elif is_valid and (response := _save(request, form, now)) is not None:
            return response
    else:
        chosen, find = request.GET.get("task", ""), request.GET.get("find", "")
        form = ScheduleForm(user=person(request), now=now, initial={"task": chosen}, find=find)
    context["form"] = form
    if request.method == "POST" and not form.errors:
        # The token of this form is used up only by a run that was started.
        context["once"] = request.POST.get("once", "")
    return render_page(request, "scheduler/schedule.html", context)


def _save(request: HttpRequest, form: ScheduleForm, now: datetime) -> HttpResponseBase | None:
    chosen = form.cleaned_data
    task: Task = chosen["task"]
    if chosen["when"] == ScheduleForm.When.RECURRING:
        return _save_schedule(request, form, now)
    at: datetime = chosen["at"] if chosen["when"] == ScheduleForm.When.AT else now

    def start(uuid: UUID | None) -> Run:
        return task.start_at(at, by=person(request), now=now, arguments=form.chosen_arguments, uuid=uuid)

    run = start_once(request, task, start)
    return None if run is None else redirect(run)


def _save_schedule(request: HttpRequest, form: ScheduleForm, now: datetime) -> HttpResponseBase:
    with transaction.atomic():
        # Two clicks at the same time: the second waits here, and finds the first one's schedule.
        Task.objects.select_for_update().get(pk=form.cleaned_data["task"].pk)
        if form.same_schedule() is not None:
            text = gettext("“%(task)s” has this very schedule already; nothing was added.")
            messages.info(request, text % {"task": printable(form.cleaned_data["task"].name)})
            return _to_runs_of(form.cleaned_data["task"])
        new = form.schedule()
        new.save()
        new.plan(now)
        audit.record(request, AuditEntry.Action.SCHEDULE, task=new.task, object_name=str(new.recurrence))
    first = new.next_run.due_at if new.next_run else None
    names = {"task": printable(new.task.name), "rule": new.recurrence.in_words}
    if first is None:
        messages.warning(request, gettext("“%(task)s” is scheduled (%(rule)s), but no run of it is to come.") % names)
    else:
        names["time"] = formats.date_format(first.astimezone(new.zone), "Y-m-d H:i") + f" {new.time_zone}"
        messages.success(request, gettext("“%(task)s” is scheduled: %(rule)s. First run: %(time)s.") % names)
    return _to_runs_of(new.task)


def _to_runs_of(task: Task) -> HttpResponseBase:
    return redirect(f"{reverse('scheduler:index')}?task={task.pk}")
