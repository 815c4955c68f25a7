"""Downloads: the permission is checked at every request, then the web server (or our backend) sends the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.http import Http404, HttpRequest, HttpResponseBase
from django.shortcuts import render
from django.utils.text import slugify
from django.utils.translation import gettext
from django.views.decorators.http import require_safe

from scheduler import access, audit, outputs
from scheduler.models import AuditEntry, OutputFile
from scheduler.sendfile import FileGone, send

from .gate import private, require, staff_page, to_login, visible_run

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID


@require_safe
def file(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """A run's file, for any signed-in user who may view the task's output, staff or not."""
    if not request.user.is_authenticated:
        return to_login(request)
    allowed = OutputFile.objects.filter(run__task__in=access.tasks_with(request.user, "view_output"))
    found = allowed.select_related("run__task").filter(pk=pk).first()
    if found is None:
        raise Http404(gettext("There is no such file that you may see."))
    response = _send(request, outputs.file_path(found), found.name)
    if response.status_code < 300:  # not a refused Range, nor "not modified", nor a file that is gone
        audit.record_download(request, AuditEntry.Action.DOWNLOAD, found.run, found)
    return response


@staff_page
@require_safe
def log(request: HttpRequest, pk: int) -> HttpResponseBase:
    """A run's whole log as it was written."""
    run = visible_run(request, pk)
    require(request, "view_output", run.task)
    response = _send(request, outputs.log_path(run), f"{slugify(run.task.name) or 'task'}-{run.pk}.log")
    if response.status_code < 300:
        audit.record_download(request, AuditEntry.Action.VIEW_LOG, run)
    return response


def _send(request: HttpRequest, path: Path, name: str) -> HttpResponseBase:
    try:
        return send(request, path, name=name)
    except FileGone:
        return private(render(request, "scheduler/file_gone.html", {"name": name}, status=404))
