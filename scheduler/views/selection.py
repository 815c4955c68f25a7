"""Which runs the main page shows: the filters of its address, and pages of what has finished."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from django import forms
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db.models import F, OuterRef, Q, Subquery, Value
from django.db.models.functions import Coalesce
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from scheduler import access
from scheduler.models import Run, Task
from scheduler.states import Status

from . import keyset

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.db.models import Expression, QuerySet

    from scheduler.models.run import RunQuerySet

    from .keyset import Position

ANY = ("", _("any"))
NEWEST_FIRST = ("-finished_at", "-id")
OLDEST_FIRST = ("finished_at", "id")
# How many of the newest finished runs are looked at, of whatever task, before it is asked task by task.
WALKED_AT_MOST = 10_000


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
    """Whose runs they are; None: of all tasks, or of one."""
    few: bool = False
    """These tasks are few."""

    @classmethod
    def of(cls, user: User, chosen: dict[str, Any], task: Task | None) -> Selection:
        """``task``: the only one that is wanted; that it may be seen is the caller's business."""
        tasks, narrowed = access.visible_tasks(user), "owner" in chosen
        if "owner" in chosen:
            tasks = tasks.filter(owner__username=chosen["owner"])
        if "text" in chosen and _number(chosen["text"]) is None:
            tasks, narrowed = tasks.filter(_says(chosen["text"])), True
        if task is not None:
            tasks = tasks.filter(pk=task.pk)
        runs = _matching(Run.objects.all(), chosen, task)
        if not narrowed and (task is not None or access.can_everywhere(user, "view_task")):
            return cls(runs=runs, of_any_task=runs, tasks=None)
        ids: QuerySet[Any] | Expression = access.granted_ids(user, "view_task")
        if narrowed:
            ids = tasks.order_by().values_list("pk")
            few = access.few_of(ids)
        else:
            few = access.few_granted(user, "view_task")
        if few is not None:
            found = Task.objects.filter(pk__in=few)
            return cls(runs=runs.filter(task__in=few), of_any_task=runs, tasks=found, few=True)
        return cls(runs=runs.filter(access.OneOfMany(ids)), of_any_task=runs, tasks=tasks)

    def finished(self, count: int, *, before: Position | None = None, after: Position | None = None) -> list[int]:
        """At most so many finished runs: the newest ones before a position, or the oldest ones after it."""
        order = NEWEST_FIRST if after is None else OLDEST_FIRST
        if self.tasks is None:
            return _ids(_beyond(self.runs, before, after).order_by(*order)[:count])
        # Walking through all runs until enough of them belong to one of these tasks may take for ever, and so does
        # sorting all runs of many tasks. So one walks a little, unless the tasks are few; where that is not enough, the
        # next run of each task is found in an index, and a page of runs cannot belong to other tasks than the first so
        # many of these, and those whose next run ended in the same instant as the last one's of these.
        runs = _beyond(self.of_any_task, before, after)
        if not self.few:
            found = _ids(_near(_beyond(self.runs, before, after), runs, newest_first=after is None)[:count])
            if len(found) == count:
                return found
        heads = self._heads(runs.order_by(*order), newest_first=after is None)
        first = list(heads[: 2 * count])
        if len(first) == 2 * count and first[-1][1] == first[count - 1][1]:
            first = list(heads)
        first = [(task, at) for task, at in first if at is not None]
        runs = runs.filter(task__in=[task for task, _at in first])
        if len(first) >= count:
            last = first[count - 1][1]
            runs = runs.filter(finished_at__gte=last) if after is None else runs.filter(finished_at__lte=last)
        return _ids(runs.order_by(*order)[:count])

    def _heads(self, runs: RunQuerySet, *, newest_first: bool) -> QuerySet[Task, tuple[int, datetime | None]]:
        """Each task's key and when its first of these runs ended, in the same order."""
        assert self.tasks is not None
        at = F("at").desc(nulls_last=True) if newest_first else F("at").asc(nulls_last=True)
        first = runs.filter(task=OuterRef("pk")).values("finished_at")[:1]
        return self.tasks.annotate(at=Subquery(first)).order_by(at).values_list("pk", "at")


def _near(runs: RunQuerySet, of_any_task: RunQuerySet, *, newest_first: bool) -> RunQuerySet:
    """Those of the runs that are among so many of any task, in their order."""
    order = NEWEST_FIRST if newest_first else OLDEST_FIRST
    last = Subquery(of_any_task.order_by(*order).values("finished_at")[WALKED_AT_MOST : WALKED_AT_MOST + 1])
    if newest_first:
        return runs.filter(finished_at__gte=Coalesce(last, Value(datetime.min.replace(tzinfo=UTC)))).order_by(*order)
    return runs.filter(finished_at__lte=Coalesce(last, Value(datetime.max.replace(tzinfo=UTC)))).order_by(*order)


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
