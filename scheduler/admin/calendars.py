"""Blackout calendars: shared by all tasks, so that a change needs a say in every task that uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin

from scheduler import access
from scheduler.models import Calendar, Task

from .base import SchedulerAdmin, is_anybody

if TYPE_CHECKING:
    from django.http import HttpRequest


@admin.register(Calendar)
class CalendarAdmin(SchedulerAdmin):
    list_display = ("name", "time_zone")
    search_fields = ("name",)

    # Who may

    def has_view_permission(self, request: HttpRequest, obj: Calendar | None = None) -> bool:
        """Also for those who have a schedule to put one on."""
        user = request.user
        codenames = ("view_calendar", "add_calendar", "change_calendar", "delete_calendar", "add_task")
        return any(access.can_everywhere(user, codename) for codename in codenames) or is_anybody(
            user, "view_task", "change_task"
        )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return access.can_everywhere(request.user, "add_calendar")

    def has_change_permission(self, request: HttpRequest, obj: Calendar | None = None) -> bool:
        return self._has_say(request, "change_calendar", obj)

    def has_delete_permission(self, request: HttpRequest, obj: Calendar | None = None) -> bool:
        return self._has_say(request, "delete_calendar", obj)

    def _has_say(self, request: HttpRequest, codename: str, calendar: Calendar | None) -> bool:
        if not access.can_everywhere(request.user, codename):
            return False
        if calendar is None:
            return True
        changeable = access.tasks_with(request.user, "change_task")
        return not Task.objects.filter(schedules__calendar=calendar).exclude(pk__in=changeable.values("pk")).exists()
