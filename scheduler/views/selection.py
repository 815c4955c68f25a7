"""Which runs the main page shows: the filters of its address, and pages of what has finished."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from django import forms
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db.models import OuterRef, Q, Subquery
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from scheduler import access
from scheduler.models import Run, Task
from scheduler.states import Status

from . import keyset

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.db.models import QuerySet

    from scheduler.models.run import RunQuerySet

    from .keyset import Position

ANY = ("", _("any"))
NEWEST_FIRST = ("-finished_at", "-id")
OLDEST_FIRST = ("finished_at", "id")
# How many of the newest finished runs are looked at, of whatever task, before it is asked task by task.
WALKED_AT_MOST = 2000


# Time zones move a day, and there is none after the last one.
DAYS = [MinValueValidator(date(1970, 1, 1)), MaxValueValidator(date(9998, 12, 31))]
DATE = forms.DateInput(format="%Y-%m-%d", attrs={"type": "date"})


class RunFilter(forms.Form):
    """What the page may be narrowed down by; a GET form, so that an address says all of it."""

    text = forms.CharField(
        label=_("Search"),
        max_length=150,
        required=False,
        widget=forms.TextInput(attrs={"type": "search", "placeholder": _("Task, program or #run")}),
    )
    status = forms.ChoiceField(label=_("Status"), choices=[ANY, *Status.choices], required=False)
    trigger = forms.ChoiceField(label=_("Started by"), choices=[ANY, *Run.Trigger.choices], required=False)
    owner = forms.CharField(
        label=_("Owner"), max_length=150, required=False, widget=forms.TextInput(attrs={"autocomplete": "off"})
    )
    since = forms.DateField(label=_("From"), required=False, widget=DATE, validators=DAYS)
    until = forms.DateField(label=_("To"), required=False, widget=DATE, validators=DAYS)

    def clean_text(self) -> str:
        return str(self.cleaned_data["text"]).strip()

    @property
    def chosen(self) -> dict[str, Any]:
        """Name -> value of what is narrowed down by; what makes no sense is left out, and its field says so."""
        self.is_valid()
        return {name: value for name, value in self.cleaned_data.items() if value}

    @property
    def more_chosen(self) -> bool:
        """Whether anything is chosen, or wrong, in the fields that are shown on demand."""
        return bool({*self.chosen, *self.errors} & {"trigger", "owner", "since", "until"})


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The runs that a person may see and has chosen."""

    runs: RunQuerySet
    """All of them."""
    of_any_task: RunQuerySet
    """The runs that match, also of tasks that were not chosen or may not be seen: never shown."""
    tasks: QuerySet[Task] | None
    """Whose runs they are; None: of all tasks."""

    @classmethod
    def of(cls, user: User, chosen: dict[str, Any], task: Task | None) -> Selection:
        tasks, narrowed = access.visible_tasks(user), "owner" in chosen
        if "owner" in chosen:
            tasks = tasks.filter(owner__username=chosen["owner"])
        if "text" in chosen and _number(chosen["text"]) is None:
            tasks, narrowed = tasks.filter(_says(chosen["text"])), True
        if task is not None:
            tasks = tasks.filter(pk=task.pk)
        visible: RunQuerySet = access.visible_runs(user)  # type: ignore[assignment]
        runs = _matching(visible, chosen, task)
        return cls(
            runs=runs.filter(task__in=tasks) if narrowed else runs,
            of_any_task=_matching(Run.objects.all(), chosen, task),
            # One task has an index of its own.
            tasks=None if not narrowed and (task or access.can_everywhere(user, "view_task")) else tasks,
        )

    def finished(self, count: int, *, before: Position | None = None, after: Position | None = None) -> list[int]:
        """At most so many finished runs: the newest ones before a position, or the oldest ones after it."""
        order = NEWEST_FIRST if after is None else OLDEST_FIRST
        if self.tasks is None:
            return _ids(_beyond(self.runs, before, after).order_by(*order)[:count])
        # Walking through all runs until enough of them belong to one of these tasks may take for ever, and so does
        # sorting all runs of many tasks. So one walks a little; where that is not enough, the next run of each task is
        # found in an index, and a page of runs cannot belong to other tasks than the first so many of these.
        runs = _beyond(self.of_any_task, before, after)
        near = runs.order_by(*order).values("pk")[:WALKED_AT_MOST]
        found = _ids(self.runs.filter(pk__in=near).order_by(*order)[:count])
        if len(found) == count:
            return found
        next_of_task = runs.filter(task=OuterRef("pk")).order_by(*order).values("pk")[:1]
        heads = Run.objects.filter(pk__in=self.tasks.order_by().annotate(head=Subquery(next_of_task)).values("head"))
        first = list(heads.order_by(*order).values_list("task_id", "finished_at")[:count])
        runs = runs.filter(task__in=[task for task, _at in first])
        if len(first) == count:
            last = first[-1][1]
            runs = runs.filter(finished_at__gte=last) if after is None else runs.filter(finished_at__lte=last)
        return _ids(runs.order_by(*order)[:count])


def _ids(runs: RunQuerySet) -> list[int]:
    return list(runs.values_list("pk", flat=True))


def _matching(runs: RunQuerySet, chosen: dict[str, Any], task: Task | None) -> RunQuerySet:
    if task is not None:
        runs = runs.filter(task=task)
    number = _number(chosen.get("text", ""))
    if number is not None:
        runs = runs.filter(pk=number)
    if "status" in chosen:
        runs = runs.in_status(chosen["status"])
    if "trigger" in chosen:
        runs = runs.filter(trigger=chosen["trigger"])
    return runs.between(_midnight(chosen.get("since")), _midnight(chosen.get("until"), days=1))


def _number(text: str) -> int | None:
    """The number of a run in “#123”."""
    number = text.removeprefix("#")
    return keyset.number(number) if number != text else None


def _says(text: str) -> Q:
    return Q(name__icontains=text) | Q(program_path__icontains=text)


def _midnight(day: date | None, *, days: int = 0) -> datetime | None:
    """When a day, or one so many days later, begins in the current zone."""
    return None if day is None else timezone.make_aware(datetime.combine(day + timedelta(days=days), time.min))


def _beyond(runs: RunQuerySet, before: Position | None, after: Position | None) -> RunQuerySet:
    runs = runs.finished().filter(finished_at__isnull=False)
    if after is not None:
        return keyset.above(runs, "finished_at", after)
    return runs if before is None else keyset.below(runs, "finished_at", before)
