"""A task's page: when it runs next, how it went, what it does, and who may do what with it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.exceptions import NotRegistered
from django.db.models import Q
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.translation import gettext
from django.views.decorators.http import require_safe

from scheduler import access, logs, programs, recurrences
from scheduler.models import FollowUp, Poller, Task, TaskGroupObjectPermission, TaskUserObjectPermission
from scheduler.models.task import ACTION_LABELS, TASK_PERMISSIONS
from scheduler.states import Status

from . import keyset
from .charts import duration_chart
from .gate import person, staff_page, visible_task
from .page import render_page
from .rows import rows

if TYPE_CHECKING:
    from datetime import datetime

    from django.http import HttpRequest, HttpResponseBase

    from scheduler.models import Run, Schedule
    from scheduler.models.run import RunQuerySet
    from scheduler.preview import Slot

SLOTS_SHOWN = 3
SCHEDULES_AT_MOST = 20
ACTIVE_AT_MOST = 10
HISTORY_A_PAGE = 25
LOOKED_BACK = 200  # the newest finished runs, which the success rate is about
CHARTED = 60
HOLDERS_AT_MOST = 100
FOLLOW_UPS_AT_MOST = 50
SOURCE_AT_MOST = 100_000  # characters


@staff_page
@require_safe
def detail(request: HttpRequest, pk: int) -> HttpResponseBase:
    task = visible_task(request, pk)
    now = timezone.now()
    may = access.actions_on(request.user, [task])[task.pk]
    context = {
        "task": task,
        "title": logs.printable(task.name),
        "may": may,
        "may_start": "run_task" in may and task.enabled,
        "arguments": shlex.join(task.arguments),
        "edit_url": _admin_url("change", task) if "change_task" in may else "",
        "access_url": _admin_url("access", task) if "manage_access" in may else "",
        "allowed": [label for codename, label in ACTION_LABELS.items() if codename in may],
        **_schedules(task, now),
        **_active(request, task, now),
        **_history(task, now, keyset.number(request.GET.get("before", ""))),
        **_follow_ups(request, task),
        **_program(task, may),
        "holders": _holders(task) if "manage_access" in may else None,
    }
    return render_page(request, "scheduler/task_detail.html", context)


def _admin_url(name: str, task: Task) -> str:
    """An address in the admin; empty in a site whose admin has no tasks."""
    try:
        admin.site.get_model_admin(Task)
        return reverse(f"admin:scheduler_task_{name}", args=[task.pk])
    except (NotRegistered, NoReverseMatch):
        return ""


# When it runs


@dataclass(frozen=True, slots=True)
class Plan:
    """A schedule, and when it runs next."""

    schedule: Schedule
    words: str
    slots: list[Slot] = field(default_factory=list)
    note: str = ""
    """Why it has no slot, in a sentence."""

    @property
    def arguments(self) -> str | None:
        return None if self.schedule.arguments is None else shlex.join(self.schedule.arguments)


def _schedules(task: Task, now: datetime) -> dict[str, Any]:
    found = list(task.schedules.select_related("recurrence", "calendar").order_by("pk")[: SCHEDULES_AT_MOST + 1])
    more = len(found) > SCHEDULES_AT_MOST
    return {
        "plans": [_plan(schedule, now) for schedule in found[:SCHEDULES_AT_MOST]],
        "schedules_count": task.schedules.count() if more else len(found),
        "schedules_limit": SCHEDULES_AT_MOST if more else None,
    }


def _plan(schedule: Schedule, now: datetime) -> Plan:
    words = schedule.recurrence.in_words
    if schedule.problem:
        return Plan(schedule, words, note=schedule.problem)
    if not schedule.enabled:
        return Plan(schedule, words, note=gettext("Disabled."))
    try:
        slots = schedule.preview(now, SLOTS_SHOWN)
    except recurrences.InvalidRule as error:
        return Plan(schedule, words, note=str(error))
    return Plan(schedule, words, slots, "" if slots else gettext("It is over: no time of it is still to come."))


def _active(request: HttpRequest, task: Task, now: datetime) -> dict[str, Any]:
    """What is processed and what waits, beside the slots that are still to come."""
    runs: RunQuerySet = task.runs.select_related("schedule__recurrence").explained()
    found: list[Run] = list(runs.processing().order_by("claimed_at", "id")[: ACTIVE_AT_MOST + 1])
    found += runs.queued().order_by("due_at", "id")[: ACTIVE_AT_MOST + 1 - len(found)]
    hosts = list(Poller.objects.alive(now).values_list("host", flat=True))
    return {
        "active": rows(found[:ACTIVE_AT_MOST], user=person(request), now=now, alive=hosts),
        "active_limit": ACTIVE_AT_MOST if len(found) > ACTIVE_AT_MOST else None,
    }


# How it went


def _history(task: Task, now: datetime, before: int | None) -> dict[str, Any]:
    finished = task.runs.finished().order_by("-id")
    newest = list(finished[:LOOKED_BACK])
    page = newest if before is None else list(finished.filter(pk__lt=before)[: HISTORY_A_PAGE + 1])
    more = len(page) > HISTORY_A_PAGE
    page = page[:HISTORY_A_PAGE]
    processed = [run for run in newest if run.status in {Status.COMPLETED, Status.FAILED}]
    completed = sum(run.status == Status.COMPLETED for run in processed)
    return {
        "history": [(run, run.elapsed(now)) for run in page],
        "before": before,
        "older": page[-1].pk if more else None,
        "chart": duration_chart([run for run in newest if run.started_at is not None][:CHARTED][::-1], now),
        "processed": len(processed),
        "completed": completed,
        # Rounded down: 100 % is said only where nothing failed.
        "success_percent": completed * 100 // len(processed) if processed else None,
        "not_run": sum(run.status == Status.SKIPPED for run in newest),
        "looked_back": len(newest),
        "last": newest[0] if newest else None,
    }


# What comes of it


def _follow_ups(request: HttpRequest, task: Task) -> dict[str, Any]:
    """What it starts and what starts it; tasks that this person may not see are only counted."""
    edges = FollowUp.objects.filter(Q(task=task) | Q(then=task)).select_related("task", "then").order_by("pk")
    found = list(edges[: FOLLOW_UPS_AT_MOST + 1])
    others = {edge.then_id if edge.task_id == task.pk else edge.task_id for edge in found}
    visible = set(access.visible_tasks(request.user).filter(pk__in=others).values_list("pk", flat=True))
    after = [edge for edge in found if edge.task_id == task.pk]
    before = [edge for edge in found if edge.then_id == task.pk]
    return {
        "triggers": [edge for edge in after if edge.then_id in visible],
        "triggered_by": [edge for edge in before if edge.task_id in visible],
        "hidden_follow_ups": sum(other not in visible for other in others),
    }


# What is run


def _program(task: Task, may: set[str]) -> dict[str, Any]:
    """The program's file: what it says of itself for those who may run or change the task, its text for the latter."""
    if not may & {"run_task", "change_task"}:
        return {}
    try:
        source = programs.read(programs.resolve(task.program_root, task.program_path))
    except programs.ProgramError as error:
        return {"program_problem": str(error)}
    except OSError as error:
        return {
            "program_problem": gettext("The program cannot be read: %(error)s.") % {"error": error.strerror or error}
        }
    found: dict[str, Any] = {"docstring": source.docstring}
    if "change_task" in may:
        found |= {
            "source": source.text[:SOURCE_AT_MOST],
            "source_size": source.size,
            "source_sha256": source.sha256,
            "source_cut": len(source.text) > SOURCE_AT_MOST or source.is_cut,
        }
    return found


# Who may do what


@dataclass(slots=True)
class Holder:
    """Somebody, or a group, with permissions on the task itself."""

    name: str
    is_group: bool
    codenames: set[str] = field(default_factory=set)

    @property
    def actions(self) -> list[Any]:
        return [ACTION_LABELS[codename] for codename in TASK_PERMISSIONS if codename in self.codenames]


def _holders(task: Task) -> list[Holder]:
    users = TaskUserObjectPermission.objects.filter(content_object=task).select_related("user", "permission")
    groups = TaskGroupObjectPermission.objects.filter(content_object=task).select_related("group", "permission")
    found: dict[tuple[bool, int], Holder] = {}
    most = HOLDERS_AT_MOST * len(TASK_PERMISSIONS)
    for row in users.order_by("user__username")[:most]:
        holder = found.setdefault((False, row.user_id), Holder(row.user.get_username(), False))
        holder.codenames.add(row.permission.codename)
    for row in groups.order_by("group__name")[:most]:
        holder = found.setdefault((True, row.group_id), Holder(row.group.name, True))
        holder.codenames.add(row.permission.codename)
    return list(islice(found.values(), HOLDERS_AT_MOST))
