"""Downloads: the permission is checked at every request, then the web server (or our backend) sends the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib.auth import get_user_model
from django.db.models import OuterRef
from django.http import Http404, HttpRequest, HttpResponseBase
from django.shortcuts import render
from django.utils.text import slugify
from django.utils.translation import gettext
from django.views.decorators.http import require_safe

from scheduler import access, audit, outputs
from scheduler.models import AuditEntry, OutputFile, Run, Task
from scheduler.prepared import Blank, Prepared
from scheduler.previews import preview
from scheduler.sendfile import FileGone, send

from .gate import no_such_run, private, refused, staff_page, to_login, unauthorized

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID


# One query a download: the row, where its file is, and what the user was granted on the task.
_USER = Blank("user", get_user_model()._meta.pk)
_FILE = Prepared(
    lambda: (
        OutputFile.objects.filter(pk=Blank("file", OutputFile._meta.pk))
        .annotate(granted=access.granted(_USER, "view_output", OuterRef("run__task")))
        .order_by()
        .values_list("name", "run", "run__uuid", "run__task", "run__task__name", "granted")
    )
)
_RUN = Prepared(
    lambda: (
        Run.objects.filter(pk=Blank("run", Run._meta.pk))
        .annotate(seen=access.granted(_USER, "view_task", OuterRef("task")))
        .annotate(granted=access.granted(_USER, "view_output", OuterRef("task")))
        .values_list("uuid", "task", "task__name", "seen", "granted")
    )
)


@require_safe
def file(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """A run's file, for any signed-in user who may view the task's output, staff or not."""
    if not request.user.is_authenticated:
        return to_login(request)
    return _send_file(request, _allowed_file(request, pk))


@require_safe
def picture(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """The same file, to be shown inside a page; 404 unless its own first bytes say that it is a picture."""
    if not request.user.is_authenticated:
        return unauthorized()
    row = _allowed_file(request, pk)
    shown = preview(outputs.file_path(row), row.name)
    if shown is None or shown.picture is None:
        raise Http404(gettext("This file is no picture that can be shown."))
    return _send_file(request, row, shown_as=shown.picture.content_type)


def _allowed_file(request: HttpRequest, pk: UUID) -> OutputFile:
    found = _FILE.first(OutputFile, file=pk, user=request.user.pk)
    if found is None or not access.may(request.user, "view_output", granted=found[-1]):
        raise Http404(gettext("There is no such file that you may see."))
    name, run_id, uuid, task_id, task_name, _granted = found
    row = OutputFile.from_db(None, ["id", "run_id", "name"], [pk, run_id, name])  # in the order of the fields
    row.run = _run(run_id, uuid, task_id, task_name)
    return row


def _send_file(request: HttpRequest, row: OutputFile, *, shown_as: str = "") -> HttpResponseBase:
    response = _send(request, row.run, outputs.file_path(row), row.name, shown_as=shown_as)
    if response.status_code < 300:  # not a refused Range, nor "not modified", nor a file that is gone
        audit.record_download(request, AuditEntry.Action.DOWNLOAD, row.run, row)
    return response


@staff_page
@require_safe
def log(request: HttpRequest, pk: int) -> HttpResponseBase:
    """A run's whole log as it was written."""
    found = _RUN.first(Run, run=pk, user=request.user.pk)
    if found is None or not access.may(request.user, "view_task", granted=found[-2]):
        raise no_such_run(pk)
    uuid, task_id, task_name, _seen, granted = found
    run = _run(pk, uuid, task_id, task_name)
    if not access.may(request.user, "view_output", granted=granted):
        raise refused(run.task)
    response = _send(request, run, outputs.log_path(run), f"{slugify(task_name) or 'task'}-{pk}.log")
    if response.status_code < 300:
        audit.record_download(request, AuditEntry.Action.VIEW_LOG, run)
    return response


def _run(pk: int, uuid: UUID, task_id: int, task_name: str) -> Run:
    """The run of a row, with what a download needs of it; anything else would be asked from the database."""
    run = Run.from_db(None, ["id", "uuid", "task_id"], [pk, uuid, task_id])
    run.task = Task.from_db(None, ["id", "name"], [task_id, task_name])
    return run


def _send(request: HttpRequest, run: Run, path: Path, name: str, *, shown_as: str = "") -> HttpResponseBase:
    try:
        return send(request, path, name=name, shown_as=shown_as)
    except FileGone:
        return private(render(request, "scheduler/file_gone.html", {"name": name, "run": run}, status=404))
