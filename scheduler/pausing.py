"""Pausing and resuming by a person: the verb on the row, and who did it in the audit, in one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.utils.translation import override

from scheduler import audit
from scheduler.models import AuditEntry, Schedule, Task

if TYPE_CHECKING:
    from datetime import datetime

    from django.http import HttpRequest

    from scheduler.models import SchedulerState

    Paused = Schedule | Task | SchedulerState


def pause(request: HttpRequest, what: Paused, *, why: str, now: datetime) -> bool:
    """Pause it in the name of the request's user; False when it is paused already."""
    user = request.user
    if not isinstance(user, AbstractBaseUser):
        raise PermissionDenied
    with transaction.atomic():
        paused = what.pause(by=user, why=why, now=now)
        if paused:
            _record(request, AuditEntry.Action.PAUSE, what, why)
    return paused


def resume(request: HttpRequest, what: Paused) -> bool:
    """End the pause; False when there was none."""
    with override(None):  # kept, in English: people of several languages read it
        words = what.pause_in_words
    with transaction.atomic():
        resumed = what.resume()
        if resumed:
            _record(request, AuditEntry.Action.RESUME, what, words)
    return resumed


def _record(request: HttpRequest, action: AuditEntry.Action, what: Paused, text: str) -> None:
    match what:
        case Schedule():
            audit.record(request, action, task=what.task, object_name=str(what.recurrence), text=text)
        case Task():
            audit.record(request, action, task=what, text=text)
        case _:
            audit.record(request, action, task=None, object_name="scheduler", text=text)
