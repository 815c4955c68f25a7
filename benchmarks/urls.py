"""The project's addresses, and beside them a download as it is put together from guardian and sendfile2."""

from __future__ import annotations

from typing import TYPE_CHECKING

import django_sendfile
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.shortcuts import get_object_or_404
from django.urls import path

from conf.urls import urlpatterns as of_the_project
from scheduler import outputs
from scheduler.models import OutputFile

if TYPE_CHECKING:
    from uuid import UUID

    from django.http import HttpRequest, HttpResponse


@login_required
def peer_download(request: HttpRequest, pk: UUID) -> HttpResponse:
    """What many sites have: the session, guardian's own ``has_perm``, and sendfile2."""
    file = get_object_or_404(OutputFile.objects.select_related("run__task"), pk=pk)
    if not request.user.has_perm("scheduler.view_output", file.run.task):
        raise PermissionDenied
    response: HttpResponse = django_sendfile.sendfile(
        request, str(outputs.file_path(file)), attachment=True, attachment_filename=file.name
    )
    return response


urlpatterns = [*of_the_project, path("peer/<uuid:pk>/", peer_download)]
