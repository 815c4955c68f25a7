from __future__ import annotations

import zoneinfo
from datetime import datetime  # noqa: TC003
from typing import TYPE_CHECKING, Any, Self

from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import F, Max, Q
from django.db.models.functions import Coalesce
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from scheduler import recurrences
from scheduler.states import Reason, Status

from .recurrence import Recurrence
from .task import Task, validate_arguments

if TYPE_CHECKING:
    from .run import Run


def default_time_zone() -> str:
    return timezone.get_default_timezone_name()


def validate_time_zone(value: str) -> None:
    try:
        zoneinfo.ZoneInfo(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValidationError(
            _("There is no time zone “%(zone)s”. Use a name such as Europe/Amsterdam or UTC."), params={"zone": value}
        ) from error


class ScheduleQuerySet(models.QuerySet["Schedule"]):
    def broken(self) -> Self:
        """Those that should have a next run in the queue and have none."""
        return self.filter(enabled=True, ended=False, next_run=None)

    def stale(self) -> Self:
        """Those whose rule has changed since their next run was computed."""
        return self.filter(stale=True)


class Schedule(models.Model):
    """One task on one recurrence, from an anchor on, in a time zone.

    While it is enabled and not over, exactly one of its slots stands in the queue as an undecided run: ``next_run``.
    """

    task = models.ForeignKey(Task, verbose_name=_("task"), on_delete=models.CASCADE, related_name="schedules")
    recurrence = models.ForeignKey(
        Recurrence, verbose_name=_("recurrence"), on_delete=models.PROTECT, related_name="schedules"
    )
    anchor = models.DateTimeField(
        _("anchor"), default=timezone.now, help_text=_("The first slot; all later ones are counted from here.")
    )
    time_zone = models.CharField(
        _("time zone"), max_length=64, default=default_time_zone, validators=[validate_time_zone]
    )
    ends_at = models.DateTimeField(_("end"), null=True, blank=True, help_text=_("No slot after this instant."))
    arguments = models.JSONField(
        _("arguments"),
        null=True,
        blank=True,
        default=None,
        validators=[validate_arguments],
        help_text=_("Empty: the task's own arguments."),
    )
    enabled = models.BooleanField(_("enabled"), default=True)
    ended = models.BooleanField(_("over"), default=False, editable=False)
    problem = models.TextField(_("problem"), blank=True, editable=False)
    stale = models.BooleanField(default=False, editable=False)
    next_run = models.OneToOneField(
        "Run", verbose_name=_("next run"), null=True, editable=False, on_delete=models.SET_NULL, related_name="+"
    )

    objects = ScheduleQuerySet.as_manager()

    class Meta:
        verbose_name = _("schedule")
        verbose_name_plural = _("schedules")
        default_permissions = ()
        ordering = ["task", "id"]
        indexes = [
            models.Index(
                fields=["id"], condition=Q(enabled=True, ended=False, next_run=None), name="scheduler_schedule_broken"
            ),
            models.Index(fields=["id"], condition=Q(stale=True), name="scheduler_schedule_stale"),
        ]

    def __str__(self) -> str:
        return f"{self.task}: {self.recurrence}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save; a change of the schedule's own fields marks it as stale until ``plan()`` (or the poller) has seen it."""
        if kwargs.get("update_fields") is None:
            self.stale = True
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """Delete; the slot that is not decided yet goes with it, runs that are ready stay."""
        from .run import Run

        with transaction.atomic():
            Run.objects.undecided().filter(schedule=self).delete()
            return super().delete(*args, **kwargs)

    def clean(self) -> None:
        if self.ends_at is not None and self.anchor is not None and self.ends_at < self.anchor:
            raise ValidationError({"ends_at": _("The end is before the anchor; the schedule would never run.")})

    # Its slots

    @property
    def zone(self) -> zoneinfo.ZoneInfo:
        try:
            return zoneinfo.ZoneInfo(self.time_zone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise recurrences.InvalidRule(gettext("Unknown time zone “%(zone)s”.") % {"zone": self.time_zone}) from error

    def next_slot(self, after: datetime | None) -> datetime | None:
        """The first slot later than ``after`` (None: the very first); None when there is none any more."""
        return recurrences.next_slot(
            self.recurrence.rule(), anchor=self.anchor, zone=self.zone, after=after, until=self.ends_at
        )

    def slots(self, after: datetime, count: int) -> list[datetime]:
        """At most ``count`` slots later than ``after``."""
        found: list[datetime] = []
        slot = self.next_slot(after)
        while slot is not None and len(found) < count:
            found.append(slot)
            slot = self.next_slot(slot)
        return found

    # Verbs

    def plan(self, now: datetime) -> None:
        """Bring the queue in line with the schedule as it is now: after creating, editing, enabling or disabling it.

        The undecided slot in the queue moves to the first slot after ``now`` that has no row; it is removed when the
        schedule is disabled or over. What was decided already stays.
        """
        self._plan(after=now, now=now)

    def mend(self, now: datetime) -> None:
        """Insert the missing next slot after the last one that has a row, so that no slot stays without a reason."""
        last = self.runs.aggregate(last=Max(Coalesce(F("slot_until"), F("slot_at"))))["last"]
        self._plan(after=last or now, now=now)

    def insert_next(self, *, after: datetime, now: datetime) -> None:
        """Put the slot that follows ``after`` into the queue; call it in the transaction that took the head out."""
        from .run import Run

        try:
            slot = self.next_slot(after)
            while slot is not None and self.runs.filter(slot_at=slot).exists():
                slot = self.next_slot(slot)
        except recurrences.InvalidRule as error:
            self._set(enabled=False, problem=str(error), next_run=None, stale=False)
            return
        if slot is None:
            self._set(ended=True, problem="", next_run=None, stale=False)
            return
        run = Run.objects.create(
            task_id=self.task_id,
            schedule=self,
            trigger=Run.Trigger.SCHEDULE,
            slot_at=slot,
            due_at=slot,
            queued_at=now,
        )
        self._set(ended=False, problem="", next_run=run, stale=False)

    def _plan(self, *, after: datetime, now: datetime) -> None:
        from .run import Run

        with transaction.atomic():
            current = Schedule.objects.select_for_update(of=("self",)).select_related("task", "recurrence").get(pk=self.pk)
            Run.objects.undecided().filter(schedule=current).delete()
            if current.enabled:
                current.insert_next(after=after, now=now)
            else:
                current._set(next_run=None, stale=False)
        for name in ("enabled", "ended", "problem", "stale", "next_run"):
            setattr(self, name, getattr(current, name))

    def decide(self, run: Run, now: datetime) -> bool:
        """Decide a slot that is due: run it, or skip it with a reason; and put the next slot into the queue.

        Slots that passed since then, while no poller was up, become one skipped row; the latest of them is run.
        Returns False when somebody else has decided it meanwhile.
        """
        from .run import Run

        with transaction.atomic():
            current = Schedule.objects.select_for_update(of=("self",)).select_related("task", "recurrence").get(pk=self.pk)
            run_now = Run.objects.due(now).filter(pk=run.pk).first()
            if run_now is None or run_now.slot_at is None:
                return False
            if current.stale or not current.enabled:
                current._plan(after=now, now=now)
                return True
            slot = run_now.slot_at
            try:
                latest = recurrences.previous_slot(
                    current.recurrence.rule(), anchor=current.anchor, zone=current.zone, at_or_before=now, until=current.ends_at
                )
            except recurrences.InvalidRule as error:
                run_now.delete()
                current._set(enabled=False, problem=str(error), next_run=None)
                return True
            if latest is not None and latest > slot:
                run_now = current._skip_gap(run_now, slot, latest, now)
                slot = latest
            current._settle(run_now, now)
            current.insert_next(after=slot, now=now)
            return True

    def _skip_gap(self, run: Run, first: datetime, latest: datetime, now: datetime) -> Run:
        """Make ``run`` the skipped row of all slots from ``first`` to before ``latest``; return a row for ``latest``."""
        from .run import Run

        count, last = recurrences.count_slots(
            self.recurrence.rule(), anchor=self.anchor, zone=self.zone, first=first, before=latest
        )
        Run.objects.transition(
            run.pk, to=Status.SKIPPED, reason=Reason.CATCH_UP, finished_at=now, slot_until=last, slot_count=count
        )
        return Run.objects.create(
            task=self.task,
            schedule=self,
            trigger=Run.Trigger.SCHEDULE,
            slot_at=latest,
            due_at=latest,
            queued_at=now,
        )

    def _settle(self, run: Run, now: datetime) -> None:
        """Eligible or skipped: the decision about one due slot."""
        from .run import Run

        if not self.task.enabled:
            Run.objects.transition(run.pk, to=Status.SKIPPED, reason=Reason.PAUSED, finished_at=now)
        elif self.task.runs.processing().exists() or self.runs.ready(now).exists():
            Run.objects.transition(run.pk, to=Status.SKIPPED, reason=Reason.OVERLAP, finished_at=now)
        else:
            arguments = self.task.arguments if self.arguments is None else self.arguments
            Run.objects.undecided().filter(pk=run.pk).update(ready_at=now, arguments=arguments)

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            setattr(self, name, value)
        self.save(update_fields=list(values))
