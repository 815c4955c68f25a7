"""Pausing and resuming the whole scheduler, a task or a schedule: one page each, with who, when and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext
from django.views.decorators.http import require_http_methods

from scheduler import access, pausing
from scheduler.forms import PauseForm
from scheduler.logs import printable
from scheduler.models import SchedulerState

from .gate import require, staff_page, visible_schedule, visible_task
from .page import render_page

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponseBase

    from scheduler.models import Schedule, Task


@staff_page
@require_http_methods(["GET", "HEAD", "POST"])
def pause_all(request: HttpRequest) -> HttpResponseBase:
    if not access.can_everywhere(request.user, "pause_all"):
        raise PermissionDenied(gettext("You may not pause the whole scheduler."))
    return _page(request, SchedulerState.get(), name=gettext("The scheduler"), back=reverse("scheduler:index"))


@staff_page
@require_http_methods(["GET", "HEAD", "POST"])
def task_pause(request: HttpRequest, pk: int) -> HttpResponseBase:
    task = visible_task(request, pk)
    require(request, "change_task", task)
    name = gettext("The task “%(task)s”") % {"task": printable(task.name)}
    return _page(request, task, name=name, back=reverse("scheduler:task-slots", args=[task.pk]))


@staff_page
@require_http_methods(["GET", "HEAD", "POST"])
def schedule_pause(request: HttpRequest, pk: int) -> HttpResponseBase:
    schedule = visible_schedule(request, pk)
    require(request, "change_task", schedule.task)
    names = {"schedule": printable(schedule.recurrence.name), "task": printable(schedule.task.name)}
    name = gettext("The schedule “%(schedule)s” of “%(task)s”") % names
    return _page(request, schedule, name=name, back=reverse("scheduler:task-slots", args=[schedule.task_id]))


def _page(request: HttpRequest, what: Schedule | Task | SchedulerState, *, name: str, back: str) -> HttpResponseBase:
    form = PauseForm()
    if request.method == "POST" and "resume" in request.POST:
        if pausing.resume(request, what):
            messages.success(request, gettext("%(name)s goes on.") % {"name": name})
        else:
            messages.info(request, gettext("%(name)s was not paused any more.") % {"name": name})
        return redirect(back)
    if request.method == "POST":
        form = PauseForm(request.POST)
        if form.is_valid():
            if pausing.pause(request, what, why=form.cleaned_data["why"], now=timezone.now()):
                messages.success(request, gettext("%(name)s is paused.") % {"name": name})
            else:
                what.refresh_from_db()
                names = {"name": name, "who": printable(what.pause_in_words)}
                messages.info(request, gettext("%(name)s was paused already, by %(who)s") % names)
            return redirect(back)
    title = gettext("Resume?") if what.is_paused else gettext("Pause?")
    context = {"what": what, "name": name, "form": form, "back": back, "title": title}
    return render_page(request, "scheduler/pause.html", context)
