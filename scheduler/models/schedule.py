from __future__ import annotations

import zoneinfo
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import Q
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

    def locked(self, pk: int) -> Schedule | None:
        """One as it is now, kept from other pollers and editors until the transaction's end; None when it is gone.

        The order of locks is task, schedule, run, everywhere. No other table is joined here, not even to sort: its row
        would be locked too, and PostgreSQL would give it as it was before the wait, so that an edit would be missed.
        """
        return self.order_by("pk").select_for_update(no_key=True).filter(pk=pk).first()

    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete; slots that are not decided yet go with their schedules, runs that are ready stay."""
        from .run import Run

        with transaction.atomic():
            keys = list(self.values_list("pk", flat=True))
            list(Schedule.objects.select_for_update().filter(pk__in=keys).order_by("pk").values_list("pk"))
            Run.objects.undecided().filter(schedule__in=keys).delete()
            return super().delete()

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]


TICK = timedelta(microseconds=1)
# What decides when a schedule has its slots
RULE_FIELDS = frozenset({"task", "recurrence", "anchor", "time_zone", "ends_at", "enabled"})


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
        """Save; a change of what decides about its slots marks it as stale until ``plan()`` or the poller sees it."""
        fields = kwargs.get("update_fields")
        if fields is None and not self._state.adding:
            # What people fill in: a form that was open for a while must not undo what pollers did meanwhile.
            fields = {field.name for field in self._meta.concrete_fields if field.editable and not field.primary_key}
        if fields is None or not RULE_FIELDS.isdisjoint(fields):
            self.stale = True
            fields = None if fields is None else {*fields, "stale"}
        kwargs["update_fields"] = fields
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """Delete; the slot that is not decided yet goes with it, runs that are ready stay."""
        from .run import Run

        with transaction.atomic():
            Schedule.objects.locked(self.pk)
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
            raise recurrences.InvalidRule(
                gettext("Unknown time zone “%(zone)s”.") % {"zone": self.time_zone}
            ) from error

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
        schedule is disabled or over. What was decided already stays. A slot that is due is not passed over in silence:
        it stays for ``decide()`` where the rule still has it, and becomes a skipped row where it has not.
        """
        with transaction.atomic():
            current = Schedule.objects.locked(self.pk)
            if current is not None:
                current._move(now)
        self._take_over(current)

    def mend(self, now: datetime) -> None:
        """Put the first slot after ``now`` that has no row into the queue, if none is there though one should be.

        Only a row deleted by hand breaks the chain. Slots before ``now`` are not made up for: their rows may be what
        was deleted, and they would run a second time.
        """
        with transaction.atomic():
            current = Schedule.objects.locked(self.pk)
            if current is not None and current.enabled and not current.ended and current.next_run_id is None:
                current._move(now)
        self._take_over(current)

    def insert_next(self, *, after: datetime, now: datetime) -> None:
        """Put the first slot later than ``after`` that has no row into the queue.

        Call it on a locked row, in the transaction that took the head out of the queue.
        """
        if not self.enabled:
            self._set(next_run=None, stale=False)
            return
        try:
            # ``after`` is a slot of the old rule when the rule has changed since.
            slot = self._free_slot(now if self.stale else after)
        except recurrences.InvalidRule as error:
            self._set(enabled=False, problem=str(error), next_run=None, stale=False)
            return
        if slot is None:
            self._set(ended=True, problem="", next_run=None, stale=False)
            return
        run = self._queue(slot, now)
        self._set(ended=False, problem="", next_run=run, stale=False)

    def decide(self, run: Run, now: datetime) -> bool:
        """Decide a slot that is due: run it, or skip it with a reason; and put the next slot into the queue.

        Slots that passed since then, while no poller was up, become one skipped row; the latest of them is run.
        Returns False when somebody else has decided it meanwhile.
        """
        from .run import Run

        with transaction.atomic():
            task = Task.objects.select_for_update(no_key=True).filter(pk=self.task_id).first()
            current = Schedule.objects.locked(self.pk)
            if task is None or current is None:
                return False
            current.task = task
            head = Run.objects.due(now).filter(pk=run.pk, schedule=current).first()
            if head is None or head.slot_at is None:
                return False
            if current.stale or not current.enabled or current.next_run_id != head.pk:
                current._move(now)
                if current.next_run_id != head.pk:
                    return True
            try:
                current._decide(head, head.slot_at, now)
            except recurrences.InvalidRule as error:
                head.delete()
                current._set(enabled=False, problem=str(error), next_run=None, stale=False)
            return True

    def step(self, head: Run, now: datetime) -> tuple[datetime | None] | None:
        """Where the chain goes on after its due head (nowhere: the schedule is over), if nothing else is to be done.

        None when there is more to do: the rule has changed, or slots were missed. Raises recurrences.InvalidRule.
        Whether rows with later slots are in the way is the caller's to know.
        """
        if self.stale or not self.enabled or self.next_run_id != head.pk or head.slot_at is None:
            return None
        latest = self._last_slot(now)
        if latest is not None and latest > head.slot_at:
            return None
        following = self.next_slot(head.slot_at)
        return None if following is not None and following <= now else (following,)

    def run_for(self, slot: datetime, now: datetime) -> Run:
        """The row of a slot that is to come, not saved yet."""
        from .run import Run

        return Run(
            task_id=self.task_id,
            schedule=self,
            trigger=Run.Trigger.SCHEDULE,
            slot_at=slot,
            due_at=slot,
            queued_at=now,
        )

    # How the verbs do it; all on a locked row

    def _move(self, now: datetime) -> None:
        """Empty the place at the head of the chain, and fill it again by the rule as it is now."""
        from .run import Run

        undecided = Run.objects.undecided().filter(schedule=self)
        due = undecided.filter(slot_at__lte=now).order_by("slot_at").first()
        if due is not None and due.slot_at is not None:
            if self._has_slot(due.slot_at):
                undecided.exclude(pk=due.pk).delete()
                self._set(ended=False, problem="", next_run=due, stale=False)
                return
            Run.objects.transition(due.pk, to=Status.SKIPPED, reason=Reason.CATCH_UP, finished_at=now)
        undecided.delete()
        self.insert_next(after=now, now=now)

    def _decide(self, head: Run, slot: datetime, now: datetime) -> None:
        latest = self._last_slot(now)
        if latest is None or latest <= slot:
            latest = slot
        # Slots in between may have rows of their own: those that were cancelled before the rule was changed.
        taken = self.runs.filter(slot_at__gt=slot, slot_at__lte=latest).order_by("slot_at").first()
        if taken is not None and taken.slot_at is not None:
            latest = max(slot, self._last_slot(taken.slot_at - TICK) or slot)
            following = self._free_slot(latest)
            if following is not None and following <= now:
                self._skip_gap(head, slot, latest + TICK, now)
                self.insert_next(after=latest, now=now)
                return
        if latest > slot:
            self._skip_gap(head, slot, latest, now)
            head = self._queue(latest, now)
        self._settle(head, now)
        self.insert_next(after=latest, now=now)

    def _skip_gap(self, run: Run, first: datetime, before: datetime, now: datetime) -> None:
        """Make ``run`` the skipped row of all slots from ``first`` to before ``before``, which stands for them."""
        from .run import Run

        count, last = recurrences.count_slots(
            self.recurrence.rule(), anchor=self.anchor, zone=self.zone, first=first, before=before
        )
        Run.objects.transition(
            run.pk, to=Status.SKIPPED, reason=Reason.CATCH_UP, finished_at=now, slot_until=last, slot_count=count
        )

    def _settle(self, run: Run, now: datetime) -> None:
        """Eligible or skipped: the decision about one due slot.

        A run that is ready and waits for its place counts as the task's previous one: it will be under way.
        """
        from .run import Run

        if not self.task.enabled:
            Run.objects.transition(run.pk, to=Status.SKIPPED, reason=Reason.PAUSED, finished_at=now)
        elif self.task.runs.processing().exists() or self.task.runs.ready(now).exists():
            Run.objects.transition(run.pk, to=Status.SKIPPED, reason=Reason.OVERLAP, finished_at=now)
        else:
            arguments = self.task.arguments if self.arguments is None else self.arguments
            Run.objects.undecided().filter(pk=run.pk).update(ready_at=now, arguments=arguments)

    def _queue(self, slot: datetime, now: datetime) -> Run:
        run = self.run_for(slot, now)
        run.save(force_insert=True)
        return run

    def _last_slot(self, at_or_before: datetime) -> datetime | None:
        return recurrences.previous_slot(
            self.recurrence.rule(), anchor=self.anchor, zone=self.zone, at_or_before=at_or_before, until=self.ends_at
        )

    def _has_slot(self, instant: datetime) -> bool:
        """True when the schedule as it is now has a slot at this instant, and would run it."""
        try:
            return self.enabled and self._last_slot(instant) == instant
        except recurrences.InvalidRule:
            return False

    def _free_slot(self, after: datetime) -> datetime | None:
        """The first slot later than ``after`` that no row covers.

        Rows after it exist where a future slot was cancelled, or where the clock was set back.
        """
        slot = self.next_slot(after)
        while slot is not None:
            # Rows never cover each other's slots, so only the nearest can cover this one.
            nearest = self.runs.filter(slot_at__lte=slot).order_by("-slot_at").values("slot_at", "slot_until").first()
            covered_until = nearest and (nearest["slot_until"] or nearest["slot_at"])
            if covered_until is None or slot > covered_until:
                break
            slot = self.next_slot(covered_until)
        return slot

    def _set(self, **values: Any) -> None:
        """Write the columns that are the scheduler's own, past ``save()``, which would mark the schedule as stale."""
        Schedule.objects.filter(pk=self.pk).update(**values)
        for name, value in values.items():
            setattr(self, name, value)

    def _take_over(self, current: Schedule | None) -> None:
        if current is not None:
            for name in ("enabled", "ended", "problem", "stale", "next_run"):
                setattr(self, name, getattr(current, name))
