"""The doctor's probe: a download like any other, but for a file that holds nothing of anybody."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.http import Http404, HttpRequest, HttpResponseBase
from django.utils.translation import gettext
from django.views.decorators.http import require_safe

from scheduler.probe import path_of
from scheduler.sendfile import send

if TYPE_CHECKING:
    from pathlib import Path


@require_safe
def probe(request: HttpRequest, token: str) -> HttpResponseBase:
    """Sends the probe to whoever holds its signed name, and only while ``manage.py doctor`` waits for it."""
    path: Path | None = path_of(token)
    if path is None:
        raise Http404(gettext("There is no such probe."))
    return send(request, path, name="probe")
