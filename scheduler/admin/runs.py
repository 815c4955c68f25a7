"""Runs, to look at: what starts, stops and deletes them is on the scheduler's own pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.options import ShowFacets
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from scheduler import access
from scheduler.models import OutputFile, Run, RunEvent

from .base import SchedulerAdmin, VisibleTasksFilter, is_anybody
from .fields import join_arguments

if TYPE_CHECKING:
    from django.db.models import Model, QuerySet
    from django.http import HttpRequest

    TabularInline = admin.TabularInline[Any, Run]
else:
    TabularInline = admin.TabularInline

# A run may have left ten thousand files and any number of messages; the run's own page has them all.
SHOWN_AT_MOST = 200


class ReadOnlyInline(TabularInline):
    """The newest rows of a run, to look at."""

    extra = 0
    can_delete = False
    view_on_site = False
    newest_first: tuple[str, ...] = ("-pk",)
    action = "view_task"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = super().get_queryset(request)
        run_id = request.resolver_match.kwargs.get("object_id") if request.resolver_match else None
        if run_id is None or not str(run_id).isdecimal():
            return rows.none()
        newest = self.model._default_manager.filter(run=run_id).order_by(*self.newest_first)
        return rows.filter(pk__in=newest.values("pk")[:SHOWN_AT_MOST])

    def has_view_permission(self, request: HttpRequest, obj: Run | None = None) -> bool:
        if obj is None:
            return is_anybody(request.user, self.action)
        return access.can(request.user, self.action, obj.task)

    def has_add_permission(self, request: HttpRequest, obj: Run | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Run | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Run | None = None) -> bool:
        return False


class RunEventInline(ReadOnlyInline):
    model = RunEvent
    fields = ("at", "what", "text", "user_name")
    verbose_name_plural = _("newest events")


class OutputFileInline(ReadOnlyInline):
    model = OutputFile
    fields = ("link", "size", "sha256", "created_at")
    readonly_fields = ("link",)
    newest_first = ("-created_at", "name")
    action = "view_output"
    verbose_name_plural = _("newest files")

    @admin.display(description=_("name"))
    def link(self, file: OutputFile) -> str:
        return format_html('<a href="{}">{}</a>', file.get_absolute_url(), file.name)


@admin.register(Run)
class RunAdmin(SchedulerAdmin):
    list_display = ("id", "task", "status", "due_at", "started_at", "finished_at")
    list_filter = ("status", "trigger", ("task", VisibleTasksFilter))
    list_select_related = ("task",)
    # A table of millions is neither counted nor sorted by what has no index.
    show_full_result_count = False
    show_facets = ShowFacets.NEVER
    ordering = ("-id",)
    sortable_by = ("id",)
    search_fields = ("=id", "task__name")
    search_help_text = _("A number, or a part of the task's name.")
    actions = None
    inlines = (OutputFileInline, RunEventInline)
    fieldsets = (
        (None, {"fields": ("page", "sentence", "task", "program", "argument_line", "message")}),
        (_("Origin"), {"fields": ("trigger", "schedule", "triggered_by", "started_by")}),
        (
            _("Times"),
            {
                "fields": (
                    "slot_at",
                    "slot_until",
                    "slot_count",
                    "queued_at",
                    "due_at",
                    "ready_at",
                    "started_at",
                    "finished_at",
                )
            },
        ),
        (
            _("End"),
            {
                "fields": (
                    "status",
                    "reason",
                    "detail",
                    "exit_code",
                    "signal",
                    "cancel_requested_at",
                    "stop_requested_by",
                    "host_name",
                    "pid",
                )
            },
        ),
    )
    readonly_fields = ("page", "sentence", "argument_line", "started_by", "stop_requested_by")

    @admin.display(description=_("run"))
    def page(self, run: Run) -> str:
        return format_html('<a href="{}">{}</a>', run.get_absolute_url(), run)

    @admin.display(description=_("state"))
    def sentence(self, run: Run) -> str:
        return run.sentence

    @admin.display(description=_("arguments"))
    def argument_line(self, run: Run) -> str:
        return join_arguments(run.arguments) or "-"

    # The names, as they are kept when the accounts go.

    @admin.display(description=_("started by"))
    def started_by(self, run: Run) -> str:
        return run.requested_by_name or "-"

    @admin.display(description=_("stop requested by"))
    def stop_requested_by(self, run: Run) -> str:
        return run.cancel_requested_by_name or "-"

    # Who may

    def get_queryset(self, request: HttpRequest) -> QuerySet[Run]:
        return access.visible_runs(request.user).order_by(*self.get_ordering(request))

    def has_view_permission(self, request: HttpRequest, obj: Run | None = None) -> bool:
        return is_anybody(request.user, "view_task") if obj is None else access.can(request.user, "view_task", obj.task)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False
