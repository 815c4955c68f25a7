"""Who comes in: every view of the scheduler goes through one of these decorators."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, ParamSpec

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import resolve_url
from django.urls import Resolver404, resolve, reverse
from django.utils.translation import gettext
from django.views.decorators.http import require_POST

from scheduler import access
from scheduler.logs import printable
from scheduler.models import Schedule

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User

    from scheduler.models import Run, Task

P = ParamSpec("P")


def staff_page(view: Callable[P, HttpResponseBase]) -> Callable[P, HttpResponseBase]:
    """Staff only; anonymous visitors go to the log-in page, or get 401 when a script asks for a page's fragment."""
    return _gate(view, lambda request: unauthorized() if "fragment" in request.GET else to_login(request))


def staff_data(view: Callable[P, HttpResponseBase]) -> Callable[P, HttpResponseBase]:
    """Staff only; anonymous visitors get 401."""
    return _gate(view, lambda _request: unauthorized())


def staff_action(view: Callable[P, HttpResponseBase]) -> Callable[P, HttpResponseBase]:
    """POST only (405 otherwise) and staff only; anonymous visitors go to the log-in page, then to the main page."""
    return require_POST(_gate(view, lambda request: to_login(request, reverse("scheduler:index"))))


def _gate(
    view: Callable[P, HttpResponseBase], anonymous: Callable[[HttpRequest], HttpResponseBase]
) -> Callable[P, HttpResponseBase]:
    @wraps(view)
    def gated(*args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        request = args[0]
        assert isinstance(request, HttpRequest)
        if not request.user.is_authenticated:
            return anonymous(request)
        if not (request.user.is_active and getattr(request.user, "is_staff", False)):
            raise PermissionDenied(gettext("These pages are for staff only."))
        return private(view(*args, **kwargs))

    return gated


def private(response: HttpResponseBase) -> HttpResponseBase:
    """Nobody keeps a copy; and the Back button asks again, so that a form's one-time token is fresh."""
    response.headers["Cache-Control"] = "private, no-store"
    return response


def unauthorized() -> HttpResponse:
    return HttpResponse(gettext("Log in first."), status=401, content_type="text/plain; charset=utf-8")


def to_login(request: HttpRequest, back: str | None = None) -> HttpResponseBase:
    """To the log-in page, and after it to ``back`` (by default: here)."""
    return redirect_to_login(back or request.get_full_path(), login_url())


def login_url() -> str:
    """``settings.LOGIN_URL``, or the admin's log-in page in a site that has no page at that address."""
    url = resolve_url(settings.LOGIN_URL)
    if url.startswith("/"):
        try:
            resolve(url.partition("?")[0])
        except Resolver404:
            return reverse("admin:login")
    return url


def person(request: HttpRequest) -> User:
    """The signed-in user of a request that came through the gate."""
    user = request.user
    if not isinstance(user, AbstractBaseUser):
        raise PermissionDenied
    return user


def visible_run(request: HttpRequest, pk: int) -> Run:
    """A run, with what its page shows of other rows. Raises Http404 for one that the user may not see."""
    runs = access.visible_runs(request.user).select_related(
        "task__owner", "schedule__recurrence", "triggered_by", "version"
    )
    run = runs.filter(pk=pk).first()
    if run is None:
        raise no_such_run(pk)
    return run


def visible_task(request: HttpRequest, pk: int) -> Task:
    """A task. Raises Http404 for one that the user may not see."""
    task = access.visible_tasks(request.user).filter(pk=pk).first()
    if task is None:
        raise Http404(gettext("There is no task #%(id)s that you may see.") % {"id": pk})
    return task


def visible_schedule(request: HttpRequest, pk: int) -> Schedule:
    """A schedule. Raises Http404 for one of a task that the user may not see."""
    schedules = Schedule.objects.filter(task__in=access.visible_tasks(request.user))
    schedule = schedules.select_related("task", "recurrence").filter(pk=pk).first()
    if schedule is None:
        raise Http404(gettext("There is no schedule #%(id)s that you may see.") % {"id": pk})
    return schedule


def require(request: HttpRequest, action: str, task: Task) -> None:
    """Raises PermissionDenied when the user may see the task but not do this with it."""
    if not access.can(request.user, action, task):
        raise refused(task)


def no_such_run(pk: int) -> Http404:
    """What is answered about a run that is not there, or that the user may not see."""
    return Http404(gettext("There is no run #%(id)s that you may see.") % {"id": pk})


def refused(task: Task) -> PermissionDenied:
    """What is answered to a user who may see the task but not do this with it."""
    return PermissionDenied(gettext("You may not do that with “%(task)s”.") % {"task": printable(task.name)})
