"""What a person does with a run or a task: verbs on rows, by POST, and back to a page with a sentence."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext
from django.views.decorators.http import require_http_methods

from scheduler import audit
from scheduler.logs import printable
from scheduler.models import Archive, AuditEntry, Poller, Run, Task

from .gate import person, require, staff_action, staff_page, visible_run, visible_task
from .page import render_page

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse, HttpResponseBase

logger = logging.getLogger(__name__)


@staff_action
def run_stop(request: HttpRequest, pk: int) -> HttpResponseBase:
    run = visible_run(request, pk)
    require(request, "stop_run", run.task)
    with transaction.atomic():
        asked = run.cancel(by=person(request), now=timezone.now(), why=_one_line(request.POST.get("why", "")))
        if asked:
            audit.record(request, AuditEntry.Action.STOP, task=run.task, run=run)
    run.refresh_from_db(fields=["status", "finished_at"])
    names = {"run": _name(run)}
    if not asked:
        messages.info(request, gettext("%(run)s was over, or its stop was already asked for.") % names)
    elif run.is_finished:
        messages.success(request, gettext("%(run)s is cancelled.") % names)
    else:
        messages.success(request, gettext("%(run)s is asked to stop.") % names)
    return _back(request, run)


@staff_action
def run_again(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Start the task once more, with the arguments of a finished run."""
    run = visible_run(request, pk)
    require(request, "run_task", run.task)
    if not run.is_finished:
        messages.error(request, gettext("%(run)s is not over yet; start the task itself.") % {"run": _name(run)})
        return _back(request, run)
    return _start(request, run.task, lambda uuid: start_again(request, run, uuid), else_to=run)


@staff_action
def task_run(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Start a task now, with its own arguments."""
    task = visible_task(request, pk)
    require(request, "run_task", task)
    return _start(
        request, task, lambda uuid: task.start_now(by=person(request), now=timezone.now(), uuid=uuid), else_to=None
    )


def start_again(request: HttpRequest, run: Run, uuid: UUID | None, arguments: list[str] | None = None) -> Run:
    """Start a run's task once more; with the run's own arguments unless others are given."""
    chosen = run.arguments if arguments is None else arguments
    return run.task.start_now(by=person(request), now=timezone.now(), arguments=chosen, again=run, uuid=uuid)


@staff_action
def run_archive(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Ask for a ZIP of all files of a run; its page shows when it is there."""
    run = visible_run(request, pk)
    require(request, "view_output", run.task)
    try:
        Archive.request(run, by=person(request), now=timezone.now())
    except ValidationError as error:
        for sentence in error.messages:
            messages.error(request, sentence)
    return redirect(run)


@staff_page
@require_http_methods(["GET", "HEAD", "POST"])
def run_delete(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Ask, then delete a finished run with its log and files."""
    run = visible_run(request, pk)
    require(request, "delete_task", run.task)
    if not run.is_finished:
        messages.error(request, gettext("%(run)s is not over yet. Stop it, then delete it.") % {"run": _name(run)})
        return redirect(run)
    if request.method == "POST":
        name = _name(run)
        with transaction.atomic():
            Run.objects.finished().filter(pk=run.pk).delete()
            audit.record(request, AuditEntry.Action.DELETE_RUN, task=run.task, run=run)
        # Quoted: a name with a line end must not look like a line of the log.
        logger.info("%r was deleted by %r", name, person(request).get_username())
        messages.success(request, gettext("%(run)s is deleted, with its log and files.") % {"run": name})
        return redirect("scheduler:index")
    context = {"run": run, "title": gettext("Delete this run?"), "file_count": run.files.count()}
    return render_page(request, "scheduler/run_delete.html", context)


# Starting once


def request_uuid(request: HttpRequest) -> UUID | None:
    """The uuid of the run that this form starts: the same one however often the same form is sent.

    The form carries a random token, made when its page was rendered. As the uuid is unique in the database, the second
    of two clicks finds the first one's run, whichever processes answer them. None for a form without a token.
    """
    token = request.POST.get("once", "")
    if not token:
        return None
    value = f"{person(request).pk} {request.path} {token}"
    return UUID(bytes=salted_hmac("scheduler.once", value, algorithm="sha256").digest()[:16], version=4)


def start_once(request: HttpRequest, task: Task, start: Callable[[UUID | None], Run]) -> Run | None:
    """Start a run and tell so; None, with the reason told, when it cannot be started."""
    uuid = request_uuid(request)
    try:
        with transaction.atomic():
            run = start(uuid)
            audit.record(request, AuditEntry.Action.RUN, task=task, run=run)
    except ValidationError as error:
        for sentence in error.messages:
            messages.error(request, sentence)
        return None
    except IntegrityError:
        first = task.runs.filter(uuid=uuid).first() if uuid else None
        if first is None:
            raise
        messages.info(
            request, gettext("%(run)s was started by your first click; no second run.") % {"run": _name(first)}
        )
        return first
    _tell_when(request, run)
    return run


def _tell_when(request: HttpRequest, run: Run) -> None:
    names = {"run": _name(run)}
    now = timezone.now()
    if not Poller.objects.alive(now).exists():
        messages.warning(request, gettext("%(run)s is in the queue. No poller is up: it starts when one is.") % names)
    elif run.due_at > now:
        messages.success(request, gettext("%(run)s is in the queue and starts when it is due.") % names)
    elif run.task.runs.processing().exists():
        text = gettext("%(run)s waits in the queue: the task is being processed, and starts again when that is over.")
        messages.warning(request, text % names)
    else:
        messages.success(request, gettext("%(run)s is in the queue and starts as soon as there is a place.") % names)


def _start(
    request: HttpRequest, task: Task, start: Callable[[UUID | None], Run], *, else_to: Run | None
) -> HttpResponseBase:
    run = start_once(request, task, start)
    if run is None and else_to is None:
        return redirect("scheduler:index")
    return _back(request, run or else_to)


def _back(request: HttpRequest, run: Run | None) -> HttpResponse:
    """To the main page if that is where the button was, else to the run's page."""
    if run is None or request.POST.get("from") == "index":
        return redirect("scheduler:index")
    return redirect(run)


def _one_line(text: str) -> str:
    # Also printable, as PostgreSQL takes no NUL.
    return printable(" ".join(text.split()))


def _name(run: Run) -> str:
    return gettext("Run #%(id)s of “%(task)s”") % {"id": run.pk, "task": printable(run.task.name)}
