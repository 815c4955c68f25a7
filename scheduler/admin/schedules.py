"""Schedules, on their own and as a part of their task's page."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin import options
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe
from django.utils.text import capfirst
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from scheduler import access
from scheduler.argument_fields import ArgumentsField, KnownForm, known_form
from scheduler.forms import (
    PREVIEW,
    Preview,
    RecurrenceChoice,
    WallTimeField,
    instant,
    preview_of_fields,
    time_zone_choices,
)
from scheduler.models import Schedule, Task
from scheduler.recurrences import InvalidRule

from . import theme
from .base import PartOfTask, SchedulerAdmin, VisibleTasksFilter, in_current_zone, in_zone, is_anybody
from .fields import join_arguments, wall_time
from .pauses import PauseActionForm, pause_each, resume_each

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.contrib.auth.models import AnonymousUser, User
    from django.db.models import Field, QuerySet
    from django.db.models.fields.related import ForeignKey
    from django.forms.models import ModelChoiceField
    from django.http import HttpRequest, HttpResponse

    ModelForm = forms.ModelForm[Schedule]
    BaseModelAdmin = options.BaseModelAdmin[Any]
    StackedInline = theme.StackedInline[Schedule, Task]
else:
    BaseModelAdmin = options.BaseModelAdmin
    ModelForm = forms.ModelForm
    StackedInline = theme.StackedInline

PREVIEWED_SLOTS = 5
LOCAL_TIMES = ("anchor", "ends_at")
POLICIES = ("catch_up", "catch_up_limit", "max_lateness_seconds", "jitter_seconds", "calendar")


class ScheduleForm(ModelForm):
    """A schedule whose times are entered and shown on the wall clock of its own zone."""

    time_zone = forms.ChoiceField(
        label=capfirst(_("time zone")),
        help_text=_("The clock that the times below are read from, and that days and months are counted by."),
        error_messages={
            "invalid_choice": _(
                "There is no time zone “%(value)s”. Choose one from the list, such as Europe/Amsterdam."
            )
        },
    )
    anchor = WallTimeField(
        label=capfirst(_("anchor")),
        help_text=_("The first slot, in the schedule's own time zone; all later ones are counted from here."),
    )
    ends_at = WallTimeField(
        label=capfirst(_("end")),
        required=False,
        help_text=_("No slot after this time, in the schedule's own time zone."),
    )
    arguments = ArgumentsField(optional=True)
    user: User | AnonymousUser | None = None
    """Who edits; None for people who may only look, and where the form is told what is known of the program."""

    class Meta:
        model = Schedule
        fields = ("task", "recurrence", "time_zone", "anchor", "ends_at", *POLICIES, "arguments", "enabled")

    def __init__(self, *args: Any, known: KnownForm | None = None, **kwargs: Any) -> None:
        schedule: Schedule | None = kwargs.get("instance")
        saved = schedule is not None and schedule.pk is not None
        initial = _suggested() if schedule is None or not saved else _local_times(schedule)
        kwargs["initial"] = {**initial, **(kwargs.get("initial") or {})}
        super().__init__(*args, **kwargs)
        # The suggestion for a new schedule moves with the clock: the form carries the one that was shown.
        self.fields["anchor"].show_hidden_initial = not saved
        for name in LOCAL_TIMES:
            # To the second, as an anchor may have been made to the second elsewhere.
            self.fields[name].widget = forms.DateTimeInput(
                format="%Y-%m-%dT%H:%M:%S", attrs={"type": "datetime-local", "step": "1", "class": "vTextField"}
            )
        zones = self.fields["time_zone"]
        assert isinstance(zones, forms.ChoiceField)
        zones.choices = time_zone_choices(self.instance.time_zone)
        arguments = self.fields["arguments"]
        assert isinstance(arguments, ArgumentsField)
        arguments.use(known or known_form(self._task(), user=self.user, now=timezone.now()))

    def _task(self) -> Task | None:
        """Whose schedule it is, as far as that is known and this person may edit it."""
        if self.user is None:
            return None
        if not self.instance._state.adding:
            return self.instance.task
        if "task" not in self.fields:
            return None
        try:
            task: Task | None = self.fields["task"].clean(self["task"].value())
        except forms.ValidationError:
            return None
        return task

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        try:
            zone = zoneinfo.ZoneInfo(cleaned["time_zone"])
        except (KeyError, zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            zone = None
        changed = set(self.changed_data)
        for name in LOCAL_TIMES:
            local = cleaned.get(name)
            if local is None:
                continue
            if zone is None:
                del cleaned[name]
            elif self.instance.pk and not changed & {name, "time_zone"}:
                # The form shows whole seconds, and not which of two equal wall times is meant.
                cleaned[name] = getattr(self.instance, name)
            else:
                try:
                    cleaned[name] = instant(local, zone)
                except forms.ValidationError as error:
                    self.add_error(name, error)
        return cleaned


def _only_look(form: ModelForm) -> bool:
    """In the place of ``is_valid()``: look for errors, and never say that the form can be saved."""
    form.full_clean()
    return False


def _suggested() -> dict[str, Any]:
    """The next full hour, in the site's own zone."""
    hour = wall_time(timezone.now(), timezone.get_default_timezone()).replace(minute=0, second=0, microsecond=0)
    return {"anchor": hour + timedelta(hours=1), "time_zone": timezone.get_default_timezone_name()}


def _local_times(schedule: Schedule) -> dict[str, Any]:
    try:
        zone: zoneinfo.ZoneInfo | None = schedule.zone
    except InvalidRule:
        zone = None
    values = {name: getattr(schedule, name) for name in LOCAL_TIMES}
    return {name: value and wall_time(value, zone or UTC) for name, value in values.items()}


class ScheduleParts(BaseModelAdmin):
    """How a schedule is entered, and what is shown of it."""

    def formfield_for_dbfield(self, db_field: Field[Any, Any], request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "calendar":
            field = super().formfield_for_dbfield(db_field, request, **kwargs)
            if field is not None:
                field.widget.can_delete_related = False
            return field
        if db_field.name != "recurrence":
            return super().formfield_for_dbfield(db_field, request, **kwargs)
        field = super().formfield_for_dbfield(db_field, request, **kwargs, form_class=RecurrenceChoice)
        # Others use it, too: it is not to be deleted in passing.
        if field is not None:
            field.widget.can_delete_related = False
        return field

    @admin.display(description=_("next slots"))
    def next_slots(self, schedule: Schedule) -> str:
        if schedule._state.adding:
            return gettext("After saving, the next slots are shown here.")
        if not schedule.enabled:
            return gettext("None: the schedule is disabled.")
        try:
            slots = schedule.preview(timezone.now(), PREVIEWED_SLOTS)
        except InvalidRule as error:
            return str(error)
        if not slots:
            return gettext("None: the schedule is over.")
        lines = [[in_zone(slot.at, slot.zone), *slot.notes] for slot in slots]
        local = [format_html_join(mark_safe("<br>"), "{}", ((text,) for text in texts)) for texts in lines]
        return format_html(
            "<table><thead><tr><th>{}</th><th>UTC</th></tr></thead><tbody>{}</tbody></table>",
            schedule.time_zone,
            format_html_join(
                "",
                "<tr><td>{}</td><td>{}</td></tr>",
                zip(local, (in_zone(slot.at, UTC) for slot in slots), strict=True),
            ),
        )

    @admin.display(description=_("state"))
    def state(self, schedule: Schedule) -> str:
        if schedule.problem:
            return schedule.problem
        if not schedule.enabled:
            return gettext("Disabled.")
        if schedule.is_paused:
            return gettext("Paused by %(who)s") % {"who": schedule.pause_in_words}
        if schedule.ended:
            return gettext("Over: it has no slot any more.")
        return "-" if schedule._state.adding else gettext("Its next slot is in the queue.")

    @admin.display(description=_("anchor"))
    def local_anchor(self, schedule: Schedule) -> str:
        return _in_its_zone(schedule, schedule.anchor)

    @admin.display(description=_("end"))
    def local_end(self, schedule: Schedule) -> str:
        return _in_its_zone(schedule, schedule.ends_at)

    @admin.display(description=_("arguments"))
    def argument_line(self, schedule: Schedule) -> str:
        if schedule.arguments is None:
            return gettext("The task's own arguments.")
        return join_arguments(schedule.arguments)


def _in_its_zone(schedule: Schedule, instant: datetime | None) -> str:
    if instant is None:
        return "-"
    try:
        return in_zone(instant, schedule.zone)
    except InvalidRule:
        return in_zone(instant, UTC)


ENTERED = ("recurrence", "time_zone", "anchor", "ends_at", *POLICIES, "arguments", "enabled")
# For those who may only look.
ENTERED_AS_SHOWN = ("recurrence", "time_zone", "local_anchor", "local_end", *POLICIES, "argument_line", "enabled")
SHOWN = ("next_slots", "state")
READ_ONLY = (*SHOWN, "local_anchor", "local_end", "argument_line")


def plan(request: HttpRequest, schedules: Iterable[Schedule]) -> None:
    """Bring the queue in line with schedules that were saved, and say which of them will never run."""
    for schedule in schedules:
        schedule.plan(timezone.now())
        if schedule.problem:
            messages.error(request, f"{schedule}: {schedule.problem}")
        elif schedule.enabled and schedule.ended:
            messages.warning(
                request,
                gettext("“%(schedule)s” has no slot after now: it will not run. Choose a later anchor or end.")
                % {"schedule": schedule},
            )


class ScheduleInline(ScheduleParts, PartOfTask, StackedInline):
    model = Schedule
    form = ScheduleForm
    extra = 0
    show_change_link = True
    view_on_site = False
    readonly_fields = READ_ONLY

    def get_fields(self, request: HttpRequest, obj: Task | None = None) -> tuple[str, ...]:
        changeable = obj is None or self.has_change_permission(request, obj)
        return (*(ENTERED if changeable else ENTERED_AS_SHOWN), *SHOWN)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Schedule]:
        return super().get_queryset(request).select_related("task", "recurrence")

    def get_formset(self, request: HttpRequest, obj: Task | None = None, **kwargs: Any) -> Any:
        formset: Any = super().get_formset(request, obj, **kwargs)
        may = obj is not None and self.has_change_permission(request, obj)
        # Once for all of them
        known = known_form(obj, user=request.user, now=timezone.now()) if may else KnownForm()

        class WithArguments(formset):  # type: ignore[misc]
            def get_form_kwargs(self, index: int | None) -> dict[str, Any]:
                return {**super().get_form_kwargs(index), "known": known}

        return WithArguments


@admin.register(Schedule)
class ScheduleAdmin(ScheduleParts, SchedulerAdmin):
    form = ScheduleForm
    list_display = ("task", "recurrence", "next_due", "short_state", "time_zone")
    list_display_links = ("task", "recurrence")
    list_select_related = ("task", "recurrence", "next_run")
    list_filter = ("enabled", "ended", ("task", VisibleTasksFilter), ("recurrence", admin.RelatedOnlyFieldListFilter))
    search_fields = ("task__name", "recurrence__name")
    actions = ("pause_selected", "resume_selected")
    action_form = PauseActionForm

    class Media:
        js = ["scheduler/preview.js"]

    @admin.action(permissions=["change"], description=_("Pause selected schedules"))
    def pause_selected(self, request: HttpRequest, queryset: QuerySet[Schedule]) -> None:
        pause_each(self, request, queryset.select_related("task", "recurrence"))

    @admin.action(permissions=["change"], description=_("Resume selected schedules"))
    def resume_selected(self, request: HttpRequest, queryset: QuerySet[Schedule]) -> None:
        resume_each(self, request, queryset.select_related("task", "recurrence"))

    @admin.display(description=_("state"))
    def short_state(self, schedule: Schedule) -> str:
        if schedule.problem:
            return schedule.problem
        if not schedule.enabled:
            return gettext("disabled")
        if schedule.is_paused:
            return gettext("paused by %(who)s") % {"who": schedule.pause_in_words}
        return gettext("over") if schedule.ended else gettext("enabled")

    @admin.display(description=_("next run"), ordering="next_run__due_at")
    def next_due(self, schedule: Schedule) -> str:
        return in_current_zone(schedule.next_run.due_at if schedule.next_run is not None else None)

    # Who may

    def get_queryset(self, request: HttpRequest) -> QuerySet[Schedule]:
        return super().get_queryset(request).filter(task__in=access.visible_tasks(request.user))

    def has_view_permission(self, request: HttpRequest, obj: Schedule | None = None) -> bool:
        return is_anybody(request.user, "view_task") if obj is None else access.can(request.user, "view_task", obj.task)

    def has_change_permission(self, request: HttpRequest, obj: Schedule | None = None) -> bool:
        if obj is None:
            return is_anybody(request.user, "change_task")
        return access.can(request.user, "change_task", obj.task)

    def has_delete_permission(self, request: HttpRequest, obj: Schedule | None = None) -> bool:
        return self.has_change_permission(request, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return is_anybody(request.user, "change_task")

    # The form

    def get_fields(self, request: HttpRequest, obj: Schedule | None = None) -> tuple[str, ...]:
        changeable = obj is None or self.has_change_permission(request, obj)
        return ("task", *(ENTERED if changeable else ENTERED_AS_SHOWN), "state")

    def get_readonly_fields(self, request: HttpRequest, obj: Schedule | None = None) -> tuple[str, ...]:
        # Its runs belong to the task: a schedule does not move to another one.
        return READ_ONLY if obj is None else ("task", *READ_ONLY)

    def formfield_for_foreignkey(
        self, db_field: ForeignKey[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> ModelChoiceField[Any] | None:
        if db_field.name == "task":
            visible = access.visible_tasks(request.user).values("pk")
            kwargs["queryset"] = access.tasks_with(request.user, "change_task").filter(pk__in=visible).order_by("name")
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def get_form(self, request: HttpRequest, obj: Schedule | None = None, change: bool = False, **kwargs: Any) -> Any:
        """The form; one that only shows what it would mean is never valid, so that nothing is saved."""
        form: Any = super().get_form(request, obj, change, **kwargs)
        form.user = request.user if obj is None or self.has_change_permission(request, obj) else None
        if PREVIEW not in request.POST:
            return form
        return type("PreviewForm", (form,), {"is_valid": _only_look})

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        form = context["adminform"].form
        now = timezone.now()
        original: Schedule | None = context.get("original")
        if form.is_bound:
            context["preview"] = preview_of_fields(form, form.cleaned_data, now)
        elif original is not None:
            context["preview"] = Preview.of(original, now)
        context["may_preview"] = original is None or self.has_change_permission(request, original)
        return super().render_change_form(request, context, *args, **kwargs)

    # Saving

    def save_model(self, request: HttpRequest, obj: Schedule, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        plan(request, [obj])
