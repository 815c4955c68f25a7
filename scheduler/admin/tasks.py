"""Tasks: what may be run, by whom it was made, when it runs next and how it ended last."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected as delete_after_confirmation
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import OuterRef, ProtectedError, Subquery
from django.http import HttpResponseRedirect
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.text import capfirst, get_text_list
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from scheduler import access, audit, programs
from scheduler.argument_fields import ArgumentsField, KnownForm, known_form
from scheduler.conf import scheduler_settings
from scheduler.models import AuditEntry, OutputFile, Poller, Run, Schedule, Task
from scheduler.templatetags.scheduler_display import status_word

from .access_page import access_page
from .base import SchedulerAdmin, in_current_zone, is_anybody
from .fields import UserNameField, join_arguments
from .follow_ups import FollowUpInline, runnable
from .pauses import PauseActionForm, pause_each, resume_each
from .schedules import ScheduleInline, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from django.contrib.auth.models import AnonymousUser, User
    from django.db.models import Field, QuerySet
    from django.http import HttpRequest, HttpResponse
    from django.urls import URLPattern

    ModelForm = forms.ModelForm[Task]
else:
    ModelForm = forms.ModelForm

# Django's own message about a protected row names model and field.
IN_PROGRESS = _("The task has a run in progress. Stop it, then delete the task.")

# In this order; the kernel counts the first two for all processes of a run together, where it can.
LIMITS_AS_A_WHOLE = ("memory_mb", "max_processes")
LIMITS = (
    *LIMITS_AS_A_WHOLE,
    "process_memory_mb",
    "process_cpu_seconds",
    "open_files",
    "nice",
    "log_mb",
    "output_mb",
    "output_files",
)

# In one sentence; the rest is counted.
NAMED_AT_MOST = 10


class TaskForm(ModelForm):
    """A task whose program is chosen from what is found in the program folders."""

    # ``root/path``: its two columns are one choice.
    program_path = forms.ChoiceField(
        label=capfirst(_("program")),
        help_text=_("A Python file in one of the program folders of the settings appears here by itself."),
    )
    # A choice of the settings: a path that is typed here would run anything.
    interpreter = forms.ChoiceField(
        label=capfirst(_("interpreter")),
        required=False,
        help_text=_("Another Python than the site's own (another virtual environment) is always started cold."),
    )
    arguments = ArgumentsField()
    cleanup_path = forms.ChoiceField(
        label=capfirst(_("clean-up program")),
        required=False,
        help_text=_(
            "Runs once after each run whose program was started, however it ended: completed, failed, stopped or lost. "
            "It writes into the run's log, has the same user, environment and limits, and changes nothing about the "
            "result, which it finds in SCHEDULER_REASON, SCHEDULER_EXIT_CODE and SCHEDULER_SIGNAL."
        ),
    )
    cleanup_arguments = ArgumentsField(label=capfirst(_("clean-up arguments")))
    user: User | AnonymousUser | None = None
    """Who edits; None for people who may only look."""

    class Meta:
        model = Task
        fields = (
            "name",
            "description",
            "program_path",
            "arguments",
            "environment",
            "interpreter",
            "cold_start",
            "enabled",
            "timeout_seconds",
            "grace_seconds",
            *LIMITS,
            "cleanup_path",
            "cleanup_arguments",
            "cleanup_timeout_seconds",
            "overlap",
            "max_runs",
            "group",
            "priority",
            "retries",
            "retry_delay_seconds",
            "retry_factor",
            "after_failure",
            "late_after_seconds",
            "alarm_addressees",
        )
        widgets = {
            "description": forms.Textarea(attrs={"rows": 3, "class": "vLargeTextField"}),
            "alarm_addressees": forms.Textarea(attrs={"rows": 3, "class": "vLargeTextField"}),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["program_path"]
        assert isinstance(field, forms.ChoiceField)
        names = [str(program) for program in programs.found()]
        self._offer("program_path", names, self.instance.program if self.instance.program_path else "")
        self._offer("cleanup_path", names, self.instance.cleanup_program)
        if not names:
            field.help_text = gettext(
                "No program was found: put a Python file into a program folder of the settings first."
            )
        as_a_whole = [self.fields[name] for name in LIMITS_AS_A_WHOLE if name in self.fields]  # none to look at only
        if as_a_whole and (problem := _not_enforced(timezone.now())):
            for limit in as_a_whole:
                limit.help_text = f"{limit.help_text} {problem}"
        interpreter = self.fields["interpreter"]
        assert isinstance(interpreter, forms.ChoiceField)
        known = {*scheduler_settings().interpreters, self.instance.interpreter} - {""}
        interpreter.choices = [("", gettext("the site's own")), *((name, name) for name in sorted(known))]
        arguments = self.fields["arguments"]
        assert isinstance(arguments, ArgumentsField)
        arguments.use(self._known_form())

    def _known_form(self) -> KnownForm:
        """The arguments of the program that is chosen, which may be another than the saved one."""
        if self.user is None:
            return KnownForm()
        task = copy.copy(self.instance)
        if self.is_bound:
            program = str(self.data.get(self.add_prefix("program_path"), ""))
            if program not in dict(self.fields["program_path"].choices):  # type: ignore[attr-defined]
                return KnownForm()
            task.program_root, _, task.program_path = program.partition("/")
            task.environment = str(self.data.get(self.add_prefix("environment"), ""))
            task.interpreter = str(self.data.get(self.add_prefix("interpreter"), ""))
            if task.environment not in Task.Environment.values or task.interpreter not in {
                "",
                *scheduler_settings().interpreters,
            }:
                return KnownForm()
        return known_form(task, user=self.user, now=timezone.now())

    def _offer(self, name: str, found: list[str], current: str) -> None:
        """Let a program be chosen from those that are found; the current one stays a choice whatever became of it."""
        field = self.fields[name]
        assert isinstance(field, forms.ChoiceField)
        choices = [("", "---------"), *((each, each) for each in found)]
        if current:
            self.initial[name] = current
            if current not in found:
                problem = _problem(current)
                label = gettext("%(program)s (cannot be run)") % {"program": current} if problem else current
                choices.append((current, label))
                field.help_text = problem or field.help_text
        field.choices = choices

    def clean_cleanup_path(self) -> str:
        """The path, as ``clean_program_path`` does it; no program is no clean-up."""
        if not self.cleaned_data["cleanup_path"]:
            self.instance.cleanup_root = ""
            return ""
        try:
            program = programs.split(self.cleaned_data["cleanup_path"])
        except programs.ProgramError as error:
            raise ValidationError(str(error)) from error
        self.instance.cleanup_root = program.root
        return program.path

    def clean_program_path(self) -> str:
        """The path; the root goes straight to the row. Whether it can be run is for ``Task.clean`` to say."""
        try:
            program = programs.split(self.cleaned_data["program_path"])
        except programs.ProgramError as error:
            raise ValidationError(str(error)) from error
        self.instance.program_root = program.root
        return program.path


def _folded_unless_set(task: Task | None, *names: str) -> tuple[str, ...]:
    return () if task is not None and any(getattr(task, name) for name in names) else ("collapse",)


def _not_enforced(now: datetime) -> str:
    """A sentence where memory and processes of a whole run are not limited; empty when all pollers do it."""
    pollers = list(Poller.objects.alive(now))
    if not pollers:
        return gettext("No poller is up: whether this is enforced is not known.")
    # Not the system's words: the poller's page and the doctor have them.
    hosts = sorted({poller.host_name for poller in pollers if poller.limits_problem})
    if not hosts:
        return ""
    return gettext("Not enforced here (%(hosts)s): the poller has no cgroup for it.") % {"hosts": ", ".join(hosts)}


def _problem(name: str) -> str:
    try:
        program = programs.split(name)
        programs.resolve(program.root, program.path)
    except programs.ProgramError as error:
        return str(error)
    return ""


@admin.register(Task)
class TaskAdmin(SchedulerAdmin):
    form = TaskForm
    inlines = (ScheduleInline, FollowUpInline)
    list_display = ("name", "program", "owner", "enabled", "next_run", "last_run")
    list_filter = ("enabled", "environment", "group", "priority", ("owner", admin.RelatedOnlyFieldListFilter))
    list_select_related = ("owner",)
    search_fields = ("name", "description", "program_root", "program_path")
    show_full_result_count = False  # beside that of what was found, which is counted anyway
    ordering = ("name",)
    actions = ("run_now", "enable", "disable", "pause_selected", "resume_selected", "delete_selected")
    action_form = PauseActionForm

    # Who may

    def get_queryset(self, request: HttpRequest) -> QuerySet[Task]:
        return access.visible_tasks(request.user).order_by(*self.get_ordering(request))

    def has_view_permission(self, request: HttpRequest, obj: Task | None = None) -> bool:
        if obj is None:
            return self._may(request, "view_task") or self.has_add_permission(request)
        return self._may(request, "view_task", obj)

    def has_change_permission(self, request: HttpRequest, obj: Task | None = None) -> bool:
        return self._may(request, "change_task", obj)

    def has_delete_permission(self, request: HttpRequest, obj: Task | None = None) -> bool:
        return self._may(request, "delete_task", obj)

    def has_run_permission(self, request: HttpRequest) -> bool:
        return self._may(request, "run_task")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return access.can_everywhere(request.user, "add_task")

    def _may(self, request: HttpRequest, action: str, task: Task | None = None) -> bool:
        return is_anybody(request.user, action) if task is None else access.can(request.user, action, task)

    def _may_choose_owner(self, request: HttpRequest) -> bool:
        return access.can_everywhere(request.user, "change_task")

    # The list

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Task], search_term: str
    ) -> tuple[QuerySet[Task], bool]:
        """Where a follow-up is entered, only what this person may let follow is offered."""
        found, may_repeat = super().get_search_results(request, queryset, search_term)
        if request.GET.get("model_name") == FollowUpInline.model._meta.model_name:
            found = found.filter(pk__in=runnable(request.user).values("pk"))
        return found, may_repeat

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        changelist = super().get_changelist_instance(request)
        _add_last_and_next(changelist.result_list)
        return changelist

    @admin.display(description=_("program"), ordering="program_path")
    def program(self, task: Task) -> str:
        # A long name may be broken after the folder.
        return format_html("{}/<wbr>{}", task.program_root, task.program_path)

    @admin.display(description=_("next run"))
    def next_run(self, task: Task) -> str:
        return in_current_zone(getattr(task, "next_due_at", None))

    @admin.display(description=_("last run"))
    def last_run(self, task: Task) -> str:
        run: Run | None = getattr(task, "newest_run", None)
        if run is None:
            return "-"
        at = run.finished_at or run.started_at or run.due_at
        return format_html(
            '<a href="{}">{}</a> {}', run.get_absolute_url(), status_word(run.status), in_current_zone(at)
        )

    # The form

    def get_fieldsets(self, request: HttpRequest, obj: Task | None = None) -> Any:
        changeable = obj is None or self.has_change_permission(request, obj)
        owner = ("owner",) if obj is not None or self._may_choose_owner(request) else ()
        program = ("program_path", "arguments") if changeable else ("program", "argument_line")
        cleanup = ("cleanup_path", "cleanup_arguments") if changeable else ("cleanup_program", "cleanup_line")
        warning = _(
            "Whoever may edit a task decides what is run as the scheduler's user on this machine: editing a task is "
            "running code. A task with the Django environment also holds the site's secrets, such as its secret key "
            "and its database."
        )
        return (
            (None, {"fields": ("name", "description", *owner, "enabled")}),
            (
                _("What is run"),
                {
                    "fields": (*program, "environment", "interpreter", "cold_start"),
                    "description": warning if changeable else None,
                },
            ),
            (
                _("Time and overlap"),
                {"fields": ("timeout_seconds", "grace_seconds", "overlap", "max_runs", "group", "priority")},
            ),
            (
                _("Limits"),
                {
                    "fields": LIMITS,
                    "classes": _folded_unless_set(obj, *LIMITS),
                    "description": _("What a run may use. What it has reached of it, its page says."),
                },
            ),
            (
                _("Clean-up"),
                {
                    "fields": (*cleanup, "cleanup_timeout_seconds"),
                    "classes": _folded_unless_set(obj, "cleanup_path"),
                },
            ),
            (
                _("After a failure"),
                {"fields": ("retries", "retry_delay_seconds", "retry_factor", "after_failure")},
            ),
            (_("Alarms"), {"fields": ("late_after_seconds", "alarm_addressees")}),
        )

    def get_form(self, request: HttpRequest, obj: Task | None = None, change: bool = False, **kwargs: Any) -> Any:
        form: Any = super().get_form(request, obj, change, **kwargs)
        form.user = request.user if obj is None or self.has_change_permission(request, obj) else None
        return form

    def get_readonly_fields(self, request: HttpRequest, obj: Task | None = None) -> tuple[str, ...]:
        shown = ("program", "argument_line", "cleanup_program", "cleanup_line")
        return shown if self._may_choose_owner(request) else ("owner", *shown)

    @admin.display(description=_("arguments"))
    def argument_line(self, task: Task) -> str:
        return join_arguments(task.arguments) or "-"

    @admin.display(description=_("clean-up program"))
    def cleanup_program(self, task: Task) -> str:
        return task.cleanup_program or "-"

    @admin.display(description=_("clean-up arguments"))
    def cleanup_line(self, task: Task) -> str:
        return join_arguments(task.cleanup_arguments) or "-"

    def formfield_for_dbfield(self, db_field: Field[Any, Any], request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name != "owner":
            return super().formfield_for_dbfield(db_field, request, **kwargs)
        users = db_field.related_model._default_manager.all()  # type: ignore[union-attr]
        return UserNameField(
            queryset=users,
            to_field_name=db_field.related_model.USERNAME_FIELD,  # type: ignore[union-attr]
            label=capfirst(db_field.verbose_name),
            required=False,
            initial=request.user.pk,
            help_text=_(
                "The exact user name. The owner gets every permission when the task is created; a later change of the "
                "owner changes nobody's permissions (see Access)."
            ),
        )

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        task: Task | None = context.get("original")
        context["may_manage_access"] = task is not None and self._may(request, "manage_access", task)
        context["may_pause"] = task is not None and self._may(request, "change_task", task)
        return super().render_change_form(request, context, *args, **kwargs)

    # Saving

    def save_model(self, request: HttpRequest, obj: Task, form: Any, change: bool) -> None:
        if not change and obj.owner_id is None:
            obj.owner = request.user  # type: ignore[assignment]
        super().save_model(request, obj, form, change)

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        super().save_formset(request, form, formset, change)
        if formset.model is Schedule:
            plan(request, [*formset.new_objects, *(schedule for schedule, _changes in formset.changed_objects)])

    # Deleting

    def get_deleted_objects(
        self, objs: QuerySet[Task] | Sequence[Task], request: HttpRequest
    ) -> tuple[list[Any], dict[str, int], set[str], list[Any]]:
        """What goes with tasks, counted: a task may have a million runs, and they have no permissions of their own."""
        tasks = list(objs)
        allowed = access.actions_on(request.user, tasks)
        refused = {
            f"{capfirst(self.opts.verbose_name)}: {task}" for task in tasks if "delete_task" not in allowed[task.pk]
        }
        runs = Run.objects.filter(task__in=tasks)
        counts: dict[Any, int] = {
            Task: len(tasks),
            Schedule: Schedule.objects.filter(task__in=tasks).count(),
            Run: runs.count(),
            OutputFile: OutputFile.objects.filter(run__task__in=tasks).count(),
        }
        in_progress = [
            format_html('{}: <a href="{}">{}</a>', capfirst(Run._meta.verbose_name), run.get_absolute_url(), run)
            for run in runs.processing().select_related("task")
        ]
        return (
            [f"{capfirst(self.opts.verbose_name)}: {task}" for task in tasks],
            {str(model._meta.verbose_name_plural): count for model, count in counts.items() if count},
            refused,
            in_progress,
        )

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        try:
            return super().delete_view(request, object_id, extra_context)
        except ProtectedError:
            # A run was started after the question.
            self.message_user(request, str(IN_PROGRESS), messages.ERROR)
            return HttpResponseRedirect(reverse(f"{self.admin_site.name}:scheduler_task_change", args=[object_id]))

    @admin.action(permissions=["delete"], description=_("Delete selected %(verbose_name_plural)s"))
    def delete_selected(self, request: HttpRequest, queryset: QuerySet[Task]) -> HttpResponse | None:
        try:
            with transaction.atomic():
                return delete_after_confirmation(self, request, queryset)
        except ProtectedError:
            self.message_user(request, str(IN_PROGRESS), messages.ERROR)
            return None

    # Actions

    @admin.action(permissions=["run"], description=_("Run selected tasks now"))
    def run_now(self, request: HttpRequest, queryset: QuerySet[Task]) -> None:
        def start(task: Task) -> None:
            run = task.start_now(by=request.user, now=timezone.now())  # type: ignore[arg-type]
            audit.record(request, AuditEntry.Action.RUN, task=task, run=run)

        started = self._each(request, queryset, "run_task", start)
        if started:
            text = ngettext("Queued a run of %(tasks)s.", "Queued runs of %(tasks)s.", len(started))
            self.message_user(request, text % {"tasks": _named(started)}, messages.SUCCESS)

    @admin.action(permissions=["change"], description=_("Enable selected tasks"))
    def enable(self, request: HttpRequest, queryset: QuerySet[Task]) -> None:
        self._set_enabled(request, queryset, True)

    @admin.action(permissions=["change"], description=_("Disable selected tasks"))
    def disable(self, request: HttpRequest, queryset: QuerySet[Task]) -> None:
        self._set_enabled(request, queryset, False)

    @admin.action(permissions=["change"], description=_("Pause selected tasks"))
    def pause_selected(self, request: HttpRequest, queryset: QuerySet[Task]) -> None:
        pause_each(self, request, queryset)

    @admin.action(permissions=["change"], description=_("Resume selected tasks"))
    def resume_selected(self, request: HttpRequest, queryset: QuerySet[Task]) -> None:
        resume_each(self, request, queryset)

    def _set_enabled(self, request: HttpRequest, queryset: QuerySet[Task], enabled: bool) -> None:
        def switch(task: Task) -> None:
            if task.enabled == enabled:
                raise ValidationError(gettext("enabled already.") if enabled else gettext("disabled already."))
            task.enabled = enabled
            task.save(update_fields=["enabled", "updated_at"])
            self.log_change(request, task, [{"changed": {"fields": ["enabled"]}}])

        switched = self._each(request, queryset, "change_task", switch)
        if switched:
            text = gettext("Enabled %(tasks)s.") if enabled else gettext("Disabled %(tasks)s.")
            self.message_user(request, text % {"tasks": _named(switched)}, messages.SUCCESS)

    def _each(
        self, request: HttpRequest, queryset: QuerySet[Task], action: str, do: Callable[[Task], None]
    ) -> list[str]:
        """Do something to each task that this person may do it to; say which were left out, and return the others."""
        tasks = list(queryset)
        allowed = access.actions_on(request.user, tasks)
        done: list[str] = []
        refused: dict[str, list[str]] = {}
        for task in tasks:
            if action not in allowed[task.pk]:
                refused.setdefault(gettext("you do not have the permission for that."), []).append(task.name)
                continue
            try:
                do(task)
            except ValidationError as error:
                refused.setdefault(" ".join(error.messages), []).append(task.name)
            else:
                done.append(task.name)
        for reason, names in refused.items():
            text = gettext("Left out %(tasks)s: %(reason)s")
            self.message_user(request, text % {"tasks": _named(names), "reason": reason}, messages.WARNING)
        return done

    # Access

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.access_view)
        return [path("<path:object_id>/access/", view, name="scheduler_task_access"), *super().get_urls()]

    def access_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return access_page(self, request, object_id)


def _named(names: list[str]) -> str:
    quoted = [gettext("“%(name)s”") % {"name": name} for name in names[:NAMED_AT_MOST]]
    rest = len(names) - NAMED_AT_MOST
    if rest > 0:
        quoted.append(ngettext("%(count)d more", "%(count)d more", rest) % {"count": rest})
    return get_text_list(quoted, gettext("and"))


def _add_last_and_next(tasks: Iterable[Task]) -> None:
    """Give each task of one page its ``newest_run`` and ``next_due_at``, with two queries for all of them."""
    of_task = Run.objects.filter(task=OuterRef("pk"))
    started = (of_task.finished() | of_task.processing()).order_by("-pk")
    waiting = of_task.queued().order_by("due_at")
    rows = {
        pk: (newest, due)
        for pk, newest, due in Task.objects.filter(pk__in=[task.pk for task in tasks])
        .annotate(newest=Subquery(started.values("pk")[:1]), due=Subquery(waiting.values("due_at")[:1]))
        .values_list("pk", "newest", "due")
    }
    shown = Run.objects.only("status", "due_at", "started_at", "finished_at")
    runs = shown.in_bulk([newest for newest, _due in rows.values() if newest is not None])
    for task in tasks:
        newest, due = rows.get(task.pk, (None, None))
        task.newest_run = runs.get(newest)  # type: ignore[attr-defined]
        task.next_due_at = due  # type: ignore[attr-defined]
