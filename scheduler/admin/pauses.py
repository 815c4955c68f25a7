"""Pausing and resuming from the lists of the admin: what is selected, each as its task's permissions allow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import messages
from django.utils import timezone
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from scheduler import access, pausing
from scheduler.models import Schedule, Task
from scheduler.models.pause import LONGEST_REASON

from . import theme

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib import admin
    from django.db.models import QuerySet
    from django.http import HttpRequest

    Rows = QuerySet[Task] | QuerySet[Schedule]


class PauseActionForm(theme.ActionForm):
    """The list's actions, with room for the reason of a pause."""

    why = forms.CharField(label=_("Why (for a pause):"), max_length=LONGEST_REASON, required=False)


def pause_each(model_admin: admin.ModelAdmin[Any], request: HttpRequest, rows: Rows) -> None:
    why = request.POST.get("why", "").strip()[:LONGEST_REASON]
    if not why:
        text = gettext("Nothing was paused. Say why, in the field beside the action: whoever finds it paused reads it.")
        model_admin.message_user(request, text, messages.ERROR)
        return
    now = timezone.now()
    done = _each(model_admin, request, rows, lambda row: pausing.pause(request, row, why=why, now=now))
    text = ngettext("Paused %(count)d; nothing of it starts.", "Paused %(count)d; nothing of them starts.", done)
    model_admin.message_user(request, text % {"count": done}, messages.SUCCESS)


def resume_each(model_admin: admin.ModelAdmin[Any], request: HttpRequest, rows: Rows) -> None:
    done = _each(model_admin, request, rows, lambda row: pausing.resume(request, row))
    model_admin.message_user(request, gettext("Resumed %(count)d.") % {"count": done}, messages.SUCCESS)


def _each(
    model_admin: admin.ModelAdmin[Any], request: HttpRequest, rows: Rows, do: Callable[[Task | Schedule], bool]
) -> int:
    """Do it to each of those whose task this person may change; how many were changed by it."""
    found: list[Task | Schedule] = list(rows)
    allowed = access.actions_on(request.user, [_task(row) for row in found])
    permitted = [row for row in found if "change_task" in allowed[_task(row).pk]]
    refused = len(found) - len(permitted)
    if refused:
        text = ngettext(
            "Left out %(count)d that you may not change.", "Left out %(count)d that you may not change.", refused
        )
        model_admin.message_user(request, text % {"count": refused}, messages.WARNING)
    return sum(do(row) for row in permitted)


def _task(row: Task | Schedule) -> Task:
    return row.task if isinstance(row, Schedule) else row
