"""Recurrences: shared by all tasks, so that a change needs a say in every task that uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.db.models import Count, Q
from django.urls import reverse
from django.utils.html import format_html
from django.utils.text import capfirst
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from scheduler import access
from scheduler.models import Recurrence, Task

from .base import SchedulerAdmin, is_anybody

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse


@admin.register(Recurrence)
class RecurrenceAdmin(SchedulerAdmin):
    list_display = ("name", "in_words", "schedule_count")
    list_filter = ("kind",)
    search_fields = ("name",)
    readonly_fields = ("in_words",)
    fieldsets = (
        (None, {"fields": ("name", "kind", "in_words")}),
        (capfirst(_("every …")), {"fields": (("every", "unit"),)}),
        (capfirst(_("cron line")), {"fields": ("cron",)}),
    )

    @admin.display(description=_("in words"))
    def in_words(self, recurrence: Recurrence) -> str:
        return recurrence.in_words if recurrence.pk else gettext("After saving, the rule is shown here in words.")

    @admin.display(description=_("schedules"), ordering="visible_schedules")
    def schedule_count(self, recurrence: Recurrence) -> str:
        count: int = recurrence.visible_schedules  # type: ignore[attr-defined]
        url = reverse(f"{self.admin_site.name}:scheduler_schedule_changelist")
        return format_html('<a href="{}?recurrence__id__exact={}">{}</a>', url, recurrence.pk, count) if count else "0"

    # Who may

    def get_queryset(self, request: HttpRequest) -> QuerySet[Recurrence]:
        seen = Q(schedules__task__in=access.visible_tasks(request.user))
        rows: QuerySet[Recurrence] = super().get_queryset(request)
        return rows.annotate(visible_schedules=Count("schedules", filter=seen))

    def has_view_permission(self, request: HttpRequest, obj: Recurrence | None = None) -> bool:
        """Also for those who have a task to put on one."""
        user = request.user
        codenames = ("view_recurrence", "add_recurrence", "change_recurrence", "delete_recurrence", "add_task")
        return any(access.can_everywhere(user, codename) for codename in codenames) or is_anybody(
            user, "view_task", "change_task"
        )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return access.can_everywhere(request.user, "add_recurrence")

    def has_change_permission(self, request: HttpRequest, obj: Recurrence | None = None) -> bool:
        return self._has_say(request, "change_recurrence", obj)

    def has_delete_permission(self, request: HttpRequest, obj: Recurrence | None = None) -> bool:
        return self._has_say(request, "delete_recurrence", obj)

    def _has_say(self, request: HttpRequest, codename: str, recurrence: Recurrence | None) -> bool:
        if not access.can_everywhere(request.user, codename):
            return False
        if recurrence is None:
            return True
        changeable = access.tasks_with(request.user, "change_task")
        return (
            not Task.objects.filter(schedules__recurrence=recurrence).exclude(pk__in=changeable.values("pk")).exists()
        )

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        response = super().change_view(request, object_id, form_url, extra_context)
        if request.method == "GET" and access.can_everywhere(request.user, "change_recurrence"):
            recurrence = self.get_object(request, object_id)
            if not self.has_change_permission(request, recurrence):  # type: ignore[arg-type]
                messages.info(
                    request,
                    gettext(
                        "A task that you may not change uses this recurrence, so you can look at it but not change it."
                    ),
                )
        return response
