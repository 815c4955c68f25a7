"""Runs, to look at, to stop and to repeat; what deletes them is on the scheduler's own pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.options import ShowFacets
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from scheduler import access, audit
from scheduler.models import AuditEntry, OutputFile, Run, RunEvent
from scheduler.templatetags.scheduler_display import duration

from . import theme
from .base import CappedPaginator, SchedulerAdmin, VisibleTasksFilter, in_current_zone, instant_column, is_anybody
from .fields import join_arguments

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.models import Model, QuerySet
    from django.http import HttpRequest

    from scheduler.models.run import RunQuerySet

    TabularInline = theme.TabularInline[Any, Run]
else:
    TabularInline = theme.TabularInline

# A run may have left ten thousand files and any number of messages; the run's own page has them all.
SHOWN_AT_MOST = 200

# Of so many tasks PostgreSQL is told one by one, and then knows how many runs they have.
TASKS_LISTED = 100
ACTED_ON_AT_MOST = 200
# Those that wait are cancelled by a few statements for many of them, and so many of them a time.
CANCELLED_AT_ONCE = 1000
CANCELLED_AT_MOST = 10_000


class ReadOnlyInline(TabularInline):
    """The newest rows of a run, to look at."""

    hide_title = True  # in unfold; in Django's admin a style sheet does it
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
    fields = ("time", "what", "words", "by")
    readonly_fields = ("time", "words", "by")
    verbose_name_plural = _("newest events")

    @admin.display(description=_("time"))
    def time(self, event: RunEvent) -> str:
        return in_current_zone(event.at)

    @admin.display(description=_("user"))
    def by(self, event: RunEvent) -> str:
        return event.user_name or "-"

    @admin.display(description=_("text"))
    def words(self, event: RunEvent) -> str:
        return event.text_in_words or "-"


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


@admin.register(Run)
class RunAdmin(SchedulerAdmin):
    list_display = ("id", "task", "status", "due", "started", "took")
    list_filter = ("status", "trigger", ("task", VisibleTasksFilter))
    list_select_related = ("task",)
    # A table of millions is not counted more often than it must be, nor sorted by what has no index.
    show_full_result_count = False
    show_facets = ShowFacets.NEVER
    ordering = ("-id",)
    sortable_by = ("id",)
    search_fields = ("=id", "task__name")
    search_help_text = _("A number, or a part of the task's name.")
    actions = ("stop", "run_again")
    paginator = CappedPaginator
    inlines = (OutputFileInline, RunEventInline)

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

    slot = instant_column("slot_at", _("slot"))
    slot_end = instant_column("slot_until", _("last slot of a gap"))
    queued = instant_column("queued_at", _("queued"))
    due = instant_column("due_at", _("due"))
    ready = instant_column("ready_at", _("decided"))
    started = instant_column("started_at", _("started"))
    finished = instant_column("finished_at", _("finished"))
    stop_requested = instant_column("cancel_requested_at", _("stop requested"))

    @admin.display(description=_("took"))
    def took(self, run: Run) -> str:
        elapsed = run.elapsed(timezone.now())
        return duration(elapsed) if elapsed is not None else "-"

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

    # The search

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Run], search_term: str
    ) -> tuple[QuerySet[Run], bool]:
        """By number, or by the names of tasks, which are looked up first: in a join each run would be looked at."""
        words = search_term.split()
        if not words:
            return queryset, False
        number = search_term.strip().removeprefix("#")
        tasks = access.visible_tasks(request.user)
        for word in words:
            tasks = tasks.filter(name__icontains=word)
        found = list(tasks.order_by().values_list("pk", flat=True)[: TASKS_LISTED + 1])
        by_name = Q(task__in=found if len(found) <= TASKS_LISTED else tasks.order_by())
        by_number = Q(pk=int(number)) if number.isascii() and number.isdigit() and len(number) < 19 else Q()
        return queryset.filter(by_number | by_name if by_number else by_name), False

    # Actions

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        # Django's own, whose permission nobody has, would be left.
        return {name: each for name, each in super().get_actions(request).items() if name in {"stop", "run_again"}}

    def has_stop_permission(self, request: HttpRequest) -> bool:
        return is_anybody(request.user, "stop_run")

    def has_run_permission(self, request: HttpRequest) -> bool:
        return is_anybody(request.user, "run_task")

    @admin.action(permissions=["stop"], description=_("Stop or cancel selected runs"))
    def stop(self, request: HttpRequest, queryset: RunQuerySet) -> None:
        if len(queryset.values_list("pk")[: ACTED_ON_AT_MOST + 1]) > ACTED_ON_AT_MOST:
            mine = queryset.filter(task__in=access.tasks_with(request.user, "stop_run"))
            if self._cancel_waiting(request, mine):
                return

        def ask(run: Run) -> None:
            if not run.cancel(by=request.user, now=timezone.now()):  # type: ignore[arg-type]
                raise ValidationError(gettext("over already, or its stop was asked for."))
            audit.record(request, AuditEntry.Action.STOP, task=run.task, run=run)

        stopped = self._each(request, queryset, "stop_run", ask)
        if stopped:
            text = ngettext("%(count)d run is asked to stop.", "%(count)d runs are asked to stop.", stopped)
            self.message_user(request, text % {"count": stopped}, messages.SUCCESS)

    def _cancel_waiting(self, request: HttpRequest, runs: RunQuerySet) -> bool:
        """Of very many runs, cancel those that wait and that no schedule asked for; False when there are none."""
        cancelled = 0
        while cancelled < CANCELLED_AT_MOST:
            with transaction.atomic():
                some = runs.cancel_waiting(by=request.user, now=timezone.now(), at_most=CANCELLED_AT_ONCE)  # type: ignore[arg-type]
                audit.record_each(request, AuditEntry.Action.STOP, some)
            cancelled += len(some)
            if len(some) < CANCELLED_AT_ONCE:
                break
        if not cancelled:
            return False
        text = ngettext("Cancelled %(count)d run that waited.", "Cancelled %(count)d runs that waited.", cancelled) % {
            "count": cancelled
        }
        self.message_user(request, text, messages.SUCCESS)
        if runs.unfinished().exists():
            text = gettext(
                "Of more than %(limit)d selected runs only those are cancelled that wait and that no schedule asked "
                "for, at most %(most)d at once. Others are left: do it again, or select fewer."
            )
            limits = {"limit": ACTED_ON_AT_MOST, "most": CANCELLED_AT_MOST}
            self.message_user(request, text % limits, messages.WARNING)
        return True

    @admin.action(permissions=["run"], description=_("Run selected runs again, with their arguments"))
    def run_again(self, request: HttpRequest, queryset: QuerySet[Run]) -> None:
        def start(run: Run) -> None:
            if not run.is_finished:
                raise ValidationError(gettext("not over yet."))
            new = run.task.start_now(by=request.user, now=timezone.now(), arguments=run.arguments, again=run)  # type: ignore[arg-type]
            audit.record(request, AuditEntry.Action.RUN, task=run.task, run=new)

        started = self._each(request, queryset, "run_task", start)
        if started:
            text = ngettext("Queued %(count)d run.", "Queued %(count)d runs.", started)
            self.message_user(request, text % {"count": started}, messages.SUCCESS)

    def _each(self, request: HttpRequest, queryset: QuerySet[Run], action: str, do: Callable[[Run], None]) -> int:
        """Do something to each run that this person may do it to; say which were left out, and return how many not."""
        runs = list(queryset.select_related("task")[: ACTED_ON_AT_MOST + 1])
        if len(runs) > ACTED_ON_AT_MOST:
            text = gettext("Select at most %(count)d runs at once; nothing was done.") % {"count": ACTED_ON_AT_MOST}
            self.message_user(request, text, messages.ERROR)
            return 0
        allowed = access.actions_on(request.user, [run.task for run in runs])
        done = 0
        refused: dict[str, list[str]] = {}
        for run in runs:
            try:
                if action not in allowed[run.task_id]:
                    raise ValidationError(gettext("you do not have the permission for that."))
                with transaction.atomic():
                    do(run)
                done += 1
            except ValidationError as error:
                refused.setdefault(" ".join(error.messages), []).append(f"#{run.pk}")
        for reason, names in refused.items():
            text = gettext("Left out %(runs)s: %(reason)s") % {"runs": ", ".join(names), "reason": reason}
            self.message_user(request, text, messages.WARNING)
        return done

    # Who may

    def get_queryset(self, request: HttpRequest) -> QuerySet[Run]:
        return access.listed_runs(request.user).order_by(*self.get_ordering(request))

    def has_view_permission(self, request: HttpRequest, obj: Run | None = None) -> bool:
        return is_anybody(request.user, "view_task") if obj is None else access.can(request.user, "view_task", obj.task)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False
