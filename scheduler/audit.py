"""Writing down who did what: one call where a view or an admin page has acted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.cache import cache
from django.utils import timezone

from scheduler.client_address import client_address
from scheduler.models import AuditEntry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.http import HttpRequest

    from scheduler.models import OutputFile, Run, Task

# Many Range requests of one download are one fact.
DOWNLOAD_WINDOW_SECONDS = 600


def record(
    request: HttpRequest,
    action: AuditEntry.Action,
    *,
    task: Task | None,
    run: Run | None = None,
    object_name: str = "",
    text: str = "",
) -> None:
    """Write one entry about what the request's user has just done; call it in the transaction of the deed.

    Without a task it is about the whole scheduler, and shown to those only who may see all entries.
    """
    _entry(request, action, task=task, run=run, object_name=object_name, text=text).save()


def record_each(request: HttpRequest, action: AuditEntry.Action, runs: Iterable[Run]) -> None:
    """The same about each of many runs, by a few statements."""
    AuditEntry.objects.bulk_create(
        _entry(request, action, task=run.task, run=run, object_name="", text="") for run in runs
    )


def record_download(request: HttpRequest, action: AuditEntry.Action, run: Run, file: OutputFile | None = None) -> None:
    """Write that a file (or, without one, the log) was downloaded: one entry per user, file and ten minutes."""
    window = int(timezone.now().timestamp()) // DOWNLOAD_WINDOW_SECONDS
    once = f"{request.user.pk}:{file.pk if file else run.uuid}:{window}"
    # The cache only saves the query; the unique column is what makes it one entry.
    if not cache.add(f"scheduler-download:{once}", 1, DOWNLOAD_WINDOW_SECONDS):
        return
    entry = _entry(request, action, task=run.task, run=run, object_name=file.name if file else "", text="")
    entry.once = once
    AuditEntry.objects.bulk_create([entry], ignore_conflicts=True)


def _entry(
    request: HttpRequest, action: AuditEntry.Action, *, task: Task | None, run: Run | None, object_name: str, text: str
) -> AuditEntry:
    user = request.user
    return AuditEntry(
        at=timezone.now(),
        action=action,
        user_id=user.pk,
        user_name=user.get_username(),
        task_id=task.pk if task else None,  # None, too, once it is deleted
        task_name=task.name if task else "",
        run_number=run.pk if run else None,
        object_name=object_name[:200],
        address=client_address(request),
        text=text,
    )
