"""The arguments of a task as a part of a page: fetched when another task is chosen, or another way to write them."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.http import HttpResponse, HttpResponseBadRequest
from django.utils import timezone
from django.utils.translation import gettext
from django.views.decorators.http import require_POST

from scheduler import access
from scheduler.argument_fields import FORM, LINE, ArgumentsField, Entered, known_form

from .gate import person, refused, staff_data, visible_task

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponseBase

NAME = re.compile(r"[A-Za-z][\w-]{0,100}", re.ASCII)


@staff_data
@require_POST
def task_arguments(request: HttpRequest, pk: int) -> HttpResponseBase:
    """HTML: what was entered under ``name``, as ``to`` (form or line); nothing entered: the task's own arguments.

    By POST, because arguments do not belong into the web server's log.
    """
    task = visible_task(request, pk)
    if not access.actions_on(request.user, [task])[task.pk] & {"run_task", "change_task"}:
        raise refused(task)
    name, to = request.POST.get("name", ""), request.POST.get("to", "")
    if not NAME.fullmatch(name):
        return HttpResponseBadRequest(gettext("“name” must be the name of a field."), content_type="text/plain")
    field = ArgumentsField(optional="optional" in request.POST)
    field.use(known_form(task, user=person(request), now=timezone.now()))
    widget: Any = field.widget
    entered = widget.value_from_datadict(request.POST, {}, name)
    value: Entered | list[str] | None = None if field.optional else task.arguments
    if isinstance(entered, Entered):
        value = entered
        try:
            arguments = field.clean(entered)
        except ValidationError:
            arguments = None  # it stays as it is, with what is wrong beside it
        else:
            if to == LINE:
                value = Entered(name, shlex.join(task.arguments if arguments is None else arguments), LINE)
            elif to == FORM and entered.way == LINE:
                value = arguments
    return HttpResponse(widget.render(name, value, {"id": f"id_{name}"}))
