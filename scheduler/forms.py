"""The form behind "Schedule task": which task, when, with which arguments."""

from __future__ import annotations

import zoneinfo
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError
from django.db import models
from django.urls import reverse
from django.utils import formats, timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from scheduler import access, recurrences
from scheduler.argument_fields import ArgumentsField, known_form
from scheduler.models import Calendar, Recurrence, Schedule, Task
from scheduler.models.pause import LONGEST_REASON

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from django.contrib.auth.models import User

    from scheduler.models import Run
    from scheduler.preview import Slot


@cache
def time_zone_names() -> tuple[str, ...]:
    """The names that are offered, UTC first; without the aliases that name no place."""
    known = zoneinfo.available_timezones()
    return ("UTC", *sorted(name for name in known if "/" in name and not name.startswith(("Etc/", "posix/", "right/"))))


def time_zone_choices(current: str) -> list[tuple[str, str]]:
    names = time_zone_names()
    return [(name, name) for name in (names if current in names else (current, *names))]


class WallTimeField(forms.Field):
    """A date and a time as a clock on the wall shows them (a naive datetime), whichever clock that is."""

    widget = forms.DateTimeInput(format="%Y-%m-%dT%H:%M", attrs={"type": "datetime-local"})
    default_error_messages = {"invalid": _("Enter a date and a time, such as 2026-03-29 04:30.")}
    formats = ("%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S")

    def to_python(self, value: Any) -> datetime | None:
        if value in self.empty_values:
            return None
        for each in self.formats:
            try:
                return datetime.strptime(str(value).strip(), each)
            except ValueError:
                continue
        raise ValidationError(self.error_messages["invalid"], code="invalid")


def instant(wall: datetime, zone: zoneinfo.ZoneInfo) -> datetime:
    """The instant at which a clock in the zone shows this; the first one when it does so twice.

    Raises ValidationError when it never does, because the clocks are put forward over it.
    """
    found = wall.replace(tzinfo=zone, fold=0)
    try:
        exists = found.astimezone(zoneinfo.ZoneInfo("UTC")).astimezone(zone).replace(tzinfo=None) == wall
    except OverflowError:
        raise ValidationError(_("This is not a date that can be reckoned with."), code="invalid") from None
    if not exists:
        raise ValidationError(
            _("%(time)s does not exist in %(zone)s: the clocks are put forward over it. Choose another time."),
            code="gap",
            params={"time": formats.date_format(wall, "Y-m-d H:i"), "zone": zone.key},
        )
    return found


class TaskSelect(forms.Select):
    """A choice that tells a script where the arguments of each task are fetched: 0 stands for its id."""

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        url = reverse("scheduler:task-arguments", args=[0])
        return super().get_context(name, value, {**(attrs or {}), "data-arguments-of": url})


class RecurrenceChoice(forms.ModelChoiceField):  # type: ignore[type-arg]  # not subscriptable at run time
    def label_from_instance(self, obj: models.Model) -> str:
        assert isinstance(obj, Recurrence)
        return obj.name if obj.name == obj.in_words else f"{obj.name} ({obj.in_words})"


# A list of more tasks than this is no help; others are found by name.
TASKS_LISTED = 200

# The name of the button that shows what a form would mean, and saves nothing
PREVIEW = "_preview"
PREVIEWED_SLOTS = 20


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What a schedule means: in words, and its next runs; or why it means nothing."""

    zone: str = ""
    words: str = ""
    slots: list[Slot] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    errors: list[tuple[str, str]] = field(default_factory=list)
    """Label and sentence of the fields that do not make sense."""
    problem: str = ""

    @classmethod
    def of(cls, schedule: Schedule, now: datetime) -> Preview:
        """The preview of a schedule, which need not be saved."""
        try:
            slots = schedule.preview(now, PREVIEWED_SLOTS)
        except recurrences.InvalidRule as error:
            return cls(problem=str(error))
        notes = []
        if not schedule.enabled:
            notes.append(gettext("The schedule is disabled: none of these is run."))
        elif schedule.is_paused:
            notes.append(gettext("The schedule is paused: until it is resumed, none of these is run."))
        if schedule.jitter_seconds:
            text = gettext("Each starts up to %(seconds)d seconds later, because of the spread.")
            notes.append(text % {"seconds": schedule.jitter_seconds})
        return cls(zone=schedule.time_zone, words=schedule.in_words, slots=slots, notes=notes)


def preview_of_fields(form: forms.BaseForm, chosen: Mapping[str, Any], now: datetime) -> Preview:
    """The preview of a schedule's fields in a bound form, whatever the other fields are."""
    relevant = [name for name in ("recurrence", "time_zone", "anchor", "ends_at", "calendar") if name in form.fields]
    if errors := _errors_at(form, relevant):
        return Preview(errors=errors)
    values: dict[str, Any] = {name: chosen.get(name) for name in relevant}
    values |= {name: chosen[name] for name in ("jitter_seconds", "enabled") if chosen.get(name) is not None}
    schedule = Schedule(**values)
    try:
        schedule.clean()
    except ValidationError as error:
        return Preview(errors=[(str(form[name].label), " ".join(found)) for name, found in error.message_dict.items()])
    return Preview.of(schedule, now)


def _errors_at(form: forms.BaseForm, names: Iterable[str]) -> list[tuple[str, str]]:
    """Label and sentence of those of these fields that have errors."""
    return [(str(form[name].label), " ".join(map(str, form.errors[name]))) for name in names if name in form.errors]


class PauseForm(forms.Form):
    """Why something is paused; whoever finds it paused later on reads this."""

    why = forms.CharField(
        label=_("Why"),
        max_length=LONGEST_REASON,
        error_messages={"required": _("Say why: whoever finds it paused reads this.")},
        help_text=_("It stands on the main page, beside your name and the time."),
    )


class ScheduleForm(forms.Form):
    """Once now, once at a time, or on a recurrence.

    Only tasks that the user may run can be chosen; a recurrence needs ``change_task`` on the task as well.
    """

    class When(models.TextChoices):
        NOW = "now", _("Now")
        AT = "at", _("At a date and time")
        RECURRING = "recurring", _("On a recurrence")

    task = forms.ModelChoiceField(
        Task.objects.none(),
        label=_("Task"),
        widget=TaskSelect,
        empty_label=_("Choose a task"),
        error_messages={
            "required": _("Choose a task."),
            "invalid_choice": _("Choose one of the tasks in the list."),
        },
    )
    arguments = ArgumentsField(label=_("Arguments"), optional=True)
    when = forms.ChoiceField(
        label=_("When"),
        choices=When.choices,
        widget=forms.RadioSelect,
        initial=When.NOW,
        error_messages={"required": _("Choose when.")},
    )
    at = WallTimeField(label=_("Date and time"), required=False)
    recurrence = RecurrenceChoice(
        Recurrence.objects.all(), label=_("Recurrence"), required=False, empty_label=_("Choose a recurrence")
    )
    anchor = WallTimeField(
        label=_("First time"),
        required=False,
        help_text=_("All later times are counted from here. It may lie in the past."),
    )
    ends_at = WallTimeField(label=_("End"), required=False, help_text=_("No run after this. Empty: no end."))
    calendar = forms.ModelChoiceField(
        Calendar.objects.all(),
        label=_("Blackout calendar"),
        required=False,
        empty_label=_("None"),
        help_text=_("A run within its dates and times is skipped."),
    )
    time_zone = forms.ChoiceField(
        label=_("Time zone"), help_text=_("The clock that the dates and times above are read from.")
    )

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        *,
        user: User,
        now: datetime,
        initial: dict[str, Any] | None = None,
        find: str = "",
    ) -> None:
        self.user, self.now, self.find = user, now, find.strip()
        zone = timezone.get_current_timezone_name()
        start = timezone.localtime(now).replace(minute=0, second=0, microsecond=0, tzinfo=None) + timedelta(hours=1)
        super().__init__(data, initial={"time_zone": zone, "at": start, "anchor": start, **(initial or {})})
        runnable = access.tasks_with(user, "run_task") & access.visible_tasks(user)
        tasks = self._choice("task")
        tasks.queryset = runnable.filter(enabled=True).order_by("name")
        self._list_some(tasks)
        if not Calendar.objects.exists():
            del self.fields["calendar"]
        zones = self.fields["time_zone"]
        assert isinstance(zones, forms.ChoiceField)
        zones.choices = time_zone_choices(zone)
        zones.error_messages["invalid_choice"] = _(
            "There is no time zone “%(value)s”. Choose one from the list, such as Europe/Amsterdam."
        )

        arguments = self.fields["arguments"]
        assert isinstance(arguments, ArgumentsField)
        arguments.use(known_form(self._task(), user=user, now=now))

    def _choice(self, name: str) -> forms.ModelChoiceField[Any]:
        field = self.fields[name]
        assert isinstance(field, forms.ModelChoiceField)
        return field

    def _list_some(self, tasks: forms.ModelChoiceField[Any]) -> None:
        """Put only so many into the list: those whose names have all words of ``find``, and the chosen one."""
        self.tasks_listed, self.is_cut, self.found = TASKS_LISTED, False, 0
        assert tasks.queryset is not None
        self.has_more_tasks = tasks.queryset.count() > TASKS_LISTED
        if not self.has_more_tasks:
            return
        found = tasks.queryset
        for word in self.find.split():
            found = found.filter(name__icontains=word)
        listed = {task.pk: task for task in found[: TASKS_LISTED + 1]}
        self.is_cut = len(listed) > TASKS_LISTED
        shown = list(listed.values())[:TASKS_LISTED]
        self.found = len(shown)
        chosen = self._task()
        if chosen is not None and chosen.pk not in {task.pk for task in shown}:
            shown.insert(0, chosen)
        label = tasks.label_from_instance
        tasks.widget.choices = [("", str(tasks.empty_label)), *((task.pk, label(task)) for task in shown)]

    @property
    def chosen_arguments(self) -> list[str] | None:
        """What replaces the task's own arguments; None to keep them."""
        arguments: list[str] | None = self.cleaned_data["arguments"]
        return arguments

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        match cleaned.get("when"):
            case self.When.AT:
                self._clean_at()
            case self.When.RECURRING:
                self._clean_recurring()
        return cleaned

    def _instant(self, name: str, *, required: bool) -> datetime | None:
        """The field's wall time in the chosen zone; None, with an error at the field, when there is none."""
        wall = self.cleaned_data.get(name)
        if wall is None:
            if required and name not in self.errors:
                self.add_error(name, ValidationError(_("Enter a date and a time."), code="required"))
            return None
        zone = self.cleaned_data.get("time_zone")
        if zone is None:
            return None
        try:
            return instant(wall, zoneinfo.ZoneInfo(zone))
        except ValidationError as error:
            self.add_error(name, error)
        return None

    def _clean_at(self) -> None:
        at = self._instant("at", required=True)
        if at is not None and at < self.now:
            self.add_error("at", ValidationError(_("This time is over. Choose a later one, or “Now”."), code="past"))
        elif at is not None:
            self.cleaned_data["at"] = at

    def _clean_recurring(self) -> None:
        task = self.cleaned_data.get("task")
        if task is not None and not access.can(self.user, "change_task", task):
            text = _("You may run “%(task)s”, but not change when it recurs. Choose “Now” or a date and time.")
            self.add_error("when", ValidationError(text, code="change_task", params={"task": task.name}))
        if self.cleaned_data.get("recurrence") is None and "recurrence" not in self.errors:
            self.add_error("recurrence", ValidationError(_("Choose a recurrence."), code="required"))
        self.cleaned_data["anchor"] = self._instant("anchor", required=True)
        self.cleaned_data["ends_at"] = self._instant("ends_at", required=False)
        if not self.errors:
            self._clean_schedule()

    def _clean_schedule(self) -> None:
        schedule = self.schedule()
        try:
            schedule.full_clean()
            first = schedule.next_slot(self.now)
        except ValidationError as error:
            known = {name if name in self.fields else None: found for name, found in error.error_dict.items()}
            for name, found in known.items():
                self.add_error(name, found)
            return
        except recurrences.InvalidRule as error:
            self.add_error("recurrence", str(error))
            return
        if first is None:
            name = "ends_at" if schedule.ends_at else "anchor"
            text = _("So it would never run: no time of this recurrence is still to come. Choose a later one.")
            self.add_error(name, ValidationError(text, code="never"))

    def schedule(self) -> Schedule:
        """The schedule that the form describes, not saved."""
        chosen = self.cleaned_data
        return Schedule(
            task=chosen["task"],
            recurrence=chosen["recurrence"],
            anchor=chosen["anchor"],
            ends_at=chosen["ends_at"],
            time_zone=chosen["time_zone"],
            arguments=self.chosen_arguments,
            calendar=chosen.get("calendar"),
        )

    def preview(self) -> Preview | None:
        """What the form says about when, whatever its other fields are; None for “Now”."""
        match self.cleaned_data.get("when"):
            case self.When.RECURRING:
                return preview_of_fields(self, self.cleaned_data, self.now)
            case self.When.AT if errors := _errors_at(self, ["time_zone", "at"]):
                return Preview(errors=errors)
            case self.When.AT:
                zone = self.cleaned_data["time_zone"]
                once = Recurrence(kind=Recurrence.Kind.ONCE)
                return Preview.of(Schedule(recurrence=once, anchor=self.cleaned_data["at"], time_zone=zone), self.now)
        return None

    def same_schedule(self) -> Schedule | None:
        """An enabled schedule that says the same already, such as the one that the first of two clicks has made."""
        new = self.schedule()
        alike = Schedule.objects.filter(
            task=new.task, recurrence=new.recurrence, anchor=new.anchor, ends_at=new.ends_at
        )
        same = alike.filter(time_zone=new.time_zone, calendar=new.calendar, enabled=True)
        return next((each for each in same if each.arguments == new.arguments), None)

    @property
    def nothing_to_run(self) -> bool:
        """Whether there is no task to choose."""
        tasks = self._choice("task").queryset
        return tasks is None or not tasks.exists()

    def _task(self) -> Task | None:
        """The chosen task; None when none is, or none that may be."""
        try:
            task: Task | None = self._choice("task").clean(self["task"].value())
        except ValidationError:
            return None
        return task


class AgainForm(forms.Form):
    """The arguments of a run, to be changed before the task is run again."""

    arguments = ArgumentsField(label=_("Arguments"))

    def __init__(self, data: Mapping[str, Any] | None = None, *, run: Run, user: User, now: datetime) -> None:
        super().__init__(data, initial={"arguments": run.arguments})
        arguments = self.fields["arguments"]
        assert isinstance(arguments, ArgumentsField)
        arguments.use(known_form(run.task, user=user, now=now))
