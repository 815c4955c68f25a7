"""What all pages share: the admin's context, and a fragment that is only sent when it has changed."""

from __future__ import annotations

import copy
import hashlib
import secrets
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.contrib import admin
from django.contrib.admin.exceptions import NotRegistered
from django.http import HttpRequest, HttpResponse, HttpResponseNotModified
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.cache import get_conditional_response
from django.utils.http import quote_etag

from scheduler.models import Task

if TYPE_CHECKING:
    from collections.abc import Callable

# No run has this number, and no site's address has it in it.
PLACEHOLDER = 2**63 - 1


def render_page(request: HttpRequest, template: str, context: dict[str, Any], *, status: int = 200) -> TemplateResponse:
    """A whole page in the admin's frame; the admin's sidebar would take the room that the tables need."""
    site = admin.site
    is_unfold = apps.is_installed("unfold")  # whose sidebar is the only way to its other pages
    if not is_unfold:
        # The list of apps is shown nowhere else, and what a person may see of each costs a query or more.
        site = copy.copy(admin.site)
        site.get_app_list = lambda *_args, **_options: []  # type: ignore[method-assign]
    shared = site.each_context(request)
    shared["is_nav_sidebar_enabled"] = is_unfold
    once = secrets.token_urlsafe(16)
    return TemplateResponse(request, template, {**shared, "once": once, **context}, status=status)


def render_fragment(request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
    """The part of a page that changes; 304 when the browser has it already."""
    html = render_to_string(template, context, request)
    etag = quote_etag(hashlib.sha256(html.encode()).hexdigest()[:32])
    response = get_conditional_response(request, etag=etag)
    if response is None or not isinstance(response, HttpResponseNotModified):
        response = HttpResponse(html)
    response.headers["ETag"] = etag
    return response


def run_urls() -> Callable[[int], str]:
    """``get_absolute_url()`` of runs by their keys, where there may be a thousand: the address is looked up once."""
    before, after = reverse("scheduler:run-detail", args=[PLACEHOLDER]).split(str(PLACEHOLDER))
    return lambda pk: f"{before}{pk}{after}"


def fragment_url(request: HttpRequest) -> str:
    """Where a script gets the changing part of this page."""
    query = request.GET.copy()
    query["fragment"] = "1"
    return f"{request.path}?{query.urlencode()}"


def admin_task_url(request: HttpRequest, task: Task) -> str | None:
    """The task's page in the admin, for those who can open it."""
    if admin_tasks_url(request) is None:
        return None
    return reverse("admin:scheduler_task_change", args=[task.pk])


def admin_tasks_url(request: HttpRequest) -> str | None:
    """The admin's list of tasks, for those who can open it."""
    tasks = _task_admin()
    if tasks is None or not tasks.has_view_or_change_permission(request):
        return None
    return reverse("admin:scheduler_task_changelist")


def add_task_url(request: HttpRequest) -> str | None:
    """The admin's form for a new task, for those who can open it."""
    tasks = _task_admin()
    if tasks is None or not tasks.has_add_permission(request):
        return None
    return reverse("admin:scheduler_task_add")


def _task_admin() -> admin.ModelAdmin[Task] | None:
    try:
        return admin.site.get_model_admin(Task)
    except NotRegistered:
        return None
