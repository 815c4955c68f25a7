"""Who did what, to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from scheduler import access
from scheduler.models import AuditEntry

from .base import SchedulerAdmin, VisibleTasksFilter, instant_column

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest


@admin.register(AuditEntry)
class AuditEntryAdmin(SchedulerAdmin):
    list_display = ("time", "user_name", "action", "task_name", "run_number", "object_name", "address")
    list_filter = ("action", ("task", VisibleTasksFilter))
    readonly_fields = ("time",)
    search_fields = ("user_name", "task_name", "object_name", "address")
    fields = ("time", "user_name", "action", "task_name", "run_number", "object_name", "address", "text")
    ordering = ("-id",)
    show_full_result_count = False
    actions = None

    time = instant_column("at", _("time"))

    def get_queryset(self, request: HttpRequest) -> QuerySet[AuditEntry]:
        return access.visible_audit(request.user).order_by(*self.get_ordering(request))

    def has_view_permission(self, request: HttpRequest, obj: AuditEntry | None = None) -> bool:
        if access.can_everywhere(request.user, "view_auditentry"):
            return True
        if obj is None:
            return access.anywhere(request.user, "manage_access")
        return access.visible_audit(request.user).filter(pk=obj.pk).exists()

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: AuditEntry | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: AuditEntry | None = None) -> bool:
        return False
