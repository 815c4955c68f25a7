"""Alarms: the page of them all, and dismissing them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from django.contrib import messages
from django.http import Http404
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext, ngettext
from django.views.decorators.http import require_safe

from scheduler import access
from scheduler.models import Alarm

from . import keyset
from .gate import person, refused, staff_action, staff_page
from .notices import alarm_rows, with_related
from .page import render_page

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponseBase

PAGE = 50


@staff_page
@require_safe
def alarms(request: HttpRequest) -> HttpResponseBase:
    """The open alarms, or with ``?all=1`` also those that were dismissed, newest first."""
    user = person(request)
    everything = request.GET.get("all") == "1"
    visible = access.visible_alarms(user)
    found = with_related(visible.order_by("-id") if everything else visible.open())
    before = keyset.number(request.GET.get("before", ""))
    if before is not None:
        found = found.filter(pk__lt=before)
    page = list(found[: PAGE + 1])
    shown = page[:PAGE]
    rows = alarm_rows(user, shown)
    query = {"all": "1"} if everything else {}
    context = {
        "title": gettext("Alarms"),
        "rows": rows,
        "everything": everything,
        "newest": before is None,
        "newest_url": _url(query),
        "older_url": _url({**query, "before": str(shown[-1].pk)}) if len(page) > PAGE else None,
        # What comes later than this page was rendered is not dismissed with what stands on it.
        "up_to": shown[0].pk if any(row.may_dismiss for row in rows) else None,
    }
    return render_page(request, "scheduler/alarms.html", context)


@staff_action
def alarm_dismiss(request: HttpRequest, pk: int) -> HttpResponseBase:
    user = person(request)
    alarm = access.visible_alarms(user).select_related("task").filter(pk=pk).first()
    if alarm is None:
        raise Http404(gettext("There is no alarm #%(id)s that you may see.") % {"id": pk})
    if not access.may_dismiss(user).filter(pk=alarm.task_id).exists():
        raise refused(alarm.task)
    if Alarm.objects.filter(pk=pk).dismiss(by=user, now=timezone.now()):
        messages.success(request, gettext("The alarm is dismissed."))
    else:
        messages.info(request, gettext("The alarm was dismissed already."))
    return _back(request)


@staff_action
def alarms_dismiss(request: HttpRequest) -> HttpResponseBase:
    """Dismiss all open alarms that the user may, up to the newest one that the page showed."""
    user = person(request)
    tasks = access.may_dismiss(user) & access.visible_tasks(user)
    up_to = keyset.number(request.POST.get("up_to", ""))
    count = 0
    if up_to is not None:
        count = Alarm.objects.filter(task__in=tasks, pk__lte=up_to).dismiss(by=user, now=timezone.now())
    text = ngettext("%(count)d alarm is dismissed.", "%(count)d alarms are dismissed.", count)
    messages.success(request, text % {"count": count})
    return _back(request)


def _back(request: HttpRequest) -> HttpResponseBase:
    return redirect("scheduler:index" if request.POST.get("from") == "index" else "scheduler:alarms")


def _url(query: dict[str, str]) -> str:
    return reverse("scheduler:alarms") + (f"?{urlencode(query)}" if query else "")
