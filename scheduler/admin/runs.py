"""Runs, to look at: what starts, stops and deletes them is on the scheduler's own pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.options import ShowFacets
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from scheduler import access
from scheduler.models import OutputFile, Run, RunEvent

from .base import SchedulerAdmin, VisibleTasksFilter, in_current_zone, is_anybody
from .fields import join_arguments

if TYPE_CHECKING:
    from collections.abc import Callable

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
    fields = ("time", "what", "text", "by")
    readonly_fields = ("time", "by")
    verbose_name_plural = _("newest events")

    @admin.display(description=_("time"))
    def time(self, event: RunEvent) -> str:
        return in_current_zone(event.at)

    @admin.display(description=_("user"))
    def by(self, event: RunEvent) -> str:
        return event.user_name or "-"


class OutputFileInline(ReadOnlyInline):
    model = OutputFile
    fields = ("link", "size", "sha256", "collected")
    readonly_fields = ("link", "collected")
    newest_first = ("-created_at", "name")
    action = "view_output"

    def get_queryset(self, request: HttpRequest) -> QuerySet[OutputFile]:
        # Archives of them are the business of the run's own page.
        return super().get_queryset(request).filter(kind=OutputFile.Kind.OUTPUT)

    verbose_name_plural = _("newest files")

    @admin.display(description=_("name"))
    def link(self, file: OutputFile) -> str:
        return format_html('<a href="{}">{}</a>', file.get_absolute_url(), file.name)

    @admin.display(description=_("collected"))
    def collected(self, file: OutputFile) -> str:
        return in_current_zone(file.created_at)


def _instant(name: str, label: Any) -> Callable[[Any, Run], str]:
    """A column with one of a run's times."""

    @admin.display(description=label)
    def shown(_admin: Any, run: Run) -> str:
        return in_current_zone(getattr(run, name))

    return shown


@admin.register(Run)
class RunAdmin(SchedulerAdmin):
    list_display = ("id", "task", "status", "due", "started", "finished")
    list_filter = ("status", "trigger", ("task", VisibleTasksFilter))
    list_select_related = ("task",)
    # A table of millions is not counted more often than it must be, nor sorted by what has no index.
    show_full_result_count = False
    show_facets = ShowFacets.NEVER
    ordering = ("-id",)
    sortable_by = ("id",)
    search_fields = ("=id", "task__name")
    search_help_text = _("A number, or a part of the task's name.")
    actions = None
    inlines = (OutputFileInline, RunEventInline)

    # Above each row the tabular inline would say the row once more.
    class Media:
        css = {"all": ["scheduler/admin.css"]}

    readonly_fields = (
        "page",
        "sentence",
        "argument_line",
        "started_by",
        "stop_requested_by",
        "slot",
        "slot_end",
        "queued",
        "due",
        "ready",
        "started",
        "finished",
        "stop_requested",
    )

    slot = _instant("slot_at", _("slot"))
    slot_end = _instant("slot_until", _("last slot of a gap"))
    queued = _instant("queued_at", _("queued"))
    due = _instant("due_at", _("due"))
    ready = _instant("ready_at", _("decided"))
    started = _instant("started_at", _("started"))
    finished = _instant("finished_at", _("finished"))
    stop_requested = _instant("cancel_requested_at", _("stop requested"))

    def get_fieldsets(self, request: HttpRequest, obj: Run | None = None) -> Any:
        """What this run has: most runs have no gap, no signal, nobody who stopped them."""
        if obj is None:
            return ()
        stopped = ("stop_requested", "stop_requested_by") if obj.cancel_requested_at else ()
        gap = ("slot_end", "slot_count") if obj.slot_until else ()
        origin = ["schedule"] if obj.schedule_id is not None else []
        # The other run's name is its task's.
        if obj.triggered_by_id and access.visible_runs(request.user).filter(pk=obj.triggered_by_id).exists():
            origin.append("triggered_by")
        by = ("started_by",) if obj.requested_by_name else ()
        end = [name for name in ("reason", "exit_code", "signal", "detail") if getattr(obj, name) not in {None, ""}]
        where = ("host_name", "pid") if obj.host_name else ()
        version = ("version",) if obj.version_id is not None else ()
        return (
            (None, {"fields": ("page", "task", "status", "sentence", *end, *stopped, "message")}),
            (_("What was run"), {"fields": ("program", *version, "argument_line", *where)}),
            (_("Origin"), {"fields": ("trigger", *by, *origin)}),
            (_("Times"), {"fields": ("slot", *gap, "queued", "due", "ready", "started", "finished")}),
        )

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
