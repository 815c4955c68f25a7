"""A file of a run, looked at without a download: nothing of it runs in the browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.http import Http404
from django.utils.translation import gettext
from django.views.decorators.http import require_safe

from scheduler import access, audit, outputs
from scheduler.logs import printable
from scheduler.models import AuditEntry, OutputFile
from scheduler.previews import preview

from .gate import require, staff_page
from .page import render_page

if TYPE_CHECKING:
    from uuid import UUID

    from django.http import HttpRequest, HttpResponseBase


@staff_page
@require_safe
def file_preview(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """A picture, the first rows of a table, or the first lines of a text."""
    visible = OutputFile.objects.filter(run__in=access.visible_runs(request.user))
    file = visible.filter(pk=pk).select_related("run__task").first()
    if file is None:
        raise Http404(gettext("There is no such file that you may see."))
    require(request, "view_output", file.run.task)
    shown = preview(outputs.file_path(file), file.name)
    if shown is not None:
        audit.record_download(request, AuditEntry.Action.DOWNLOAD, file.run, file)
    context = {"file": file, "run": file.run, "preview": shown, "title": printable(file.name)}
    return render_page(request, "scheduler/file_preview.html", context)
