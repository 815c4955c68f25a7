from __future__ import annotations

import zoneinfo
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models, transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext, override
from django.utils.translation import gettext_lazy as _

from scheduler import calendars, delays, preview, recurrences, words
from scheduler.states import Reason, Status

from . import slots
from .calendar import Calendar, default_time_zone, validate_time_zone
from .pause import Pausable
from .recurrence import Recurrence
from .task import Task, validate_arguments

if TYPE_CHECKING:
    from .run import Run


class ScheduleQuerySet(models.QuerySet["Schedule"]):
    def broken(self) -> Self:
        """Those that should have a next run in the queue and have none."""
        return self.filter(enabled=True, ended=False, next_run=None)

    def stale(self) -> Self:
        """Those whose rule has changed since their next run was computed."""
        return self.filter(stale_at__isnull=False)

    def paused(self) -> Self:
        return self.filter(paused_at__isnull=False)

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


# What decides when a schedule has its slots
RULE_FIELDS = frozenset({"task", "recurrence", "anchor", "time_zone", "ends_at", "enabled", "jitter_seconds"})


class Schedule(Pausable):
    """One task on one recurrence, from an anchor on, in a time zone.

    While it is enabled and not over, exactly one of its slots stands in the queue as an undecided run: ``next_run``.
    """

    class CatchUp(models.TextChoices):
        ONCE = "once", _("run once for all of them")
        ALL = "all", _("run each of them")
        SKIP = "skip", _("run none of them")

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
    catch_up = models.CharField(
        _("missed slots"),
        max_length=10,
        choices=CatchUp,
        default=CatchUp.ONCE,
        help_text=_("What to do about slots that passed while no poller was up."),
    )
    catch_up_limit = models.PositiveSmallIntegerField(
        _("of them at most"),
        default=10,
        validators=[MinValueValidator(1), MaxValueValidator(500)],
        help_text=_("For “run each of them”: so many of the latest."),
    )
    max_lateness_seconds = models.PositiveIntegerField(
        _("too late after (seconds)"),
        null=True,
        blank=True,
        help_text=_("A slot that cannot be decided within this time is not run; empty: better late than never."),
    )
    jitter_seconds = models.PositiveIntegerField(
        _("spread (seconds)"),
        default=0,
        validators=[MaxValueValidator(24 * 3600)],
        help_text=_("Each run starts up to so many seconds after its slot, so that not all start at once."),
    )
    calendar = models.ForeignKey(
        Calendar,
        verbose_name=_("blackout calendar"),
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="schedules",
        help_text=_("A slot within its dates and times is skipped."),
    )
    enabled = models.BooleanField(_("enabled"), default=True)
    ended = models.BooleanField(_("over"), default=False, editable=False)
    problem = models.TextField(_("problem"), blank=True, editable=False)
    # When the rule was changed, until the queue is in line with it again; the first time, if it was changed twice
    stale_at = models.DateTimeField(null=True, editable=False)
    # Up to here each slot has its row, or is none of the rule as it is now: where a broken chain goes on
    covered_until = models.DateTimeField(null=True, editable=False)
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
            models.Index(fields=["id"], condition=Q(stale_at__isnull=False), name="scheduler_schedule_edited"),
            models.Index(fields=["paused_at"], condition=Q(paused_at__isnull=False), name="scheduler_schedule_paused"),
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
            unseen = Schedule.objects.filter(pk=self.pk).values_list("stale_at", flat=True).first() if self.pk else None
            self.stale_at = unseen or timezone.now()
            fields = None if fields is None else {*fields, "stale_at"}
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

    def preview(self, after: datetime, count: int) -> list[preview.Slot]:
        """At most ``count`` slots later than ``after``, with what is special about each.

        Raises recurrences.InvalidRule, with one sentence, when rule, zone or calendar cannot be read.
        """
        return preview.preview(
            self.recurrence.rule(),
            anchor=self.anchor,
            zone=self.zone,
            after=after,
            count=count,
            until=self.ends_at,
            calendar=self.blackout(),
        )

    def waiting_slots(self, now: datetime) -> int:
        """How many slots have come and are not decided yet: one that is in the queue, and all since then."""
        head = None if self.next_run is None else self.next_run.slot_at
        if head is None or head > now:
            return 0
        try:
            return recurrences.count_slots(
                self.recurrence.rule(), anchor=self.anchor, zone=self.zone, first=head, before=now
            )[0]
        except recurrences.InvalidRule:
            return 1

    @property
    def in_words(self) -> str:
        """Such as “every weekday at 07:30, Europe/Amsterdam”; the error's sentence when it makes no sense."""
        try:
            return words.schedule_in_words(self.recurrence.rule(), anchor=self.anchor, zone=self.zone)
        except recurrences.InvalidRule as error:
            return str(error)

    # Verbs

    def plan(self, now: datetime) -> bool:
        """Bring the queue in line with the schedule as it is now: after creating, editing, enabling or disabling it.

        False when the schedule is gone.

        The undecided slot in the queue moves to the first slot after ``now`` that has no row; it is removed when the
        schedule is disabled or over. What was decided already stays. A slot that is due is not passed over in silence:
        it stays for ``decide()`` where the rule still has it, and becomes a skipped row where it has not.
        """
        with transaction.atomic():
            current = Schedule.objects.locked(self.pk)
            if current is not None:
                current._move(now)
        self._take_over(current)
        return current is not None

    def mend(self, now: datetime) -> bool:
        """Put the first slot after those that are decided into the queue, if none is there though one should be.

        False when the schedule is gone.
        Only a row deleted by hand breaks the chain. Slots that were decided are not run again, whichever rows are left.
        """
        with transaction.atomic():
            current = Schedule.objects.locked(self.pk)
            if current is not None and current.enabled and not current.ended and current.next_run_id is None:
                current._move(now)
        self._take_over(current)
        return current is not None

    def insert_next(self, *, after: datetime, now: datetime, head: Run | None = None) -> None:
        """Put the first slot later than ``after`` that has no row into the queue; an undecided ``head`` moves to it.

        Call it on a locked row, in the transaction that took the head out of the queue, if there is none to be moved.
        """
        if not self.enabled:
            self._set(next_run=None, stale_at=None, covered_until=now)
            return
        if self.stale_at is not None:
            # ``after`` is a slot of the old rule.
            after = min(self.stale_at, now)
        try:
            with override(None):  # its problem is kept, in English: people of several languages read it
                slot = self._free_slot(after)
        except recurrences.InvalidRule as error:
            self._disable(str(error), now)
            return
        run = None if slot is None else self.queue(slot, now) if head is None else self._moved(head, slot, now)
        self._set(ended=run is None, problem="", next_run=run, stale_at=None, covered_until=after)

    def decide(self, run: Run, now: datetime) -> bool:
        """Decide a slot that is due: run it, or skip it with a reason; and put the next slot into the queue.

        Slots that passed since then, while no poller was up, are decided with it, by the schedule's policies.
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
            if head is None:
                return False
            if current.stale_at is not None or not current.enabled or current.next_run_id != head.pk:
                current._move(now)
                head = Run.objects.due(now).filter(pk=run.pk, schedule=current).first()
            if head is None or head.slot_at is None:
                return True
            try:
                with override(None):
                    slots.decide(current, head, head.slot_at, now)
            except recurrences.InvalidRule as error:
                current._disable(str(error), now, head)
            return True

    def step(self, head: Run, now: datetime) -> tuple[datetime | None] | None:
        """Where the chain goes on after its due head (nowhere: the schedule is over), if nothing else is to be done.

        None when there is more to do: the rule has changed, or slots were missed. Raises recurrences.InvalidRule.
        Whether rows with later slots are in the way is the caller's to know.
        """
        if self.stale_at is not None or not self.enabled or self.next_run_id != head.pk or head.slot_at is None:
            return None
        if slots.last_due(self, head.slot_at, now) > head.slot_at:
            return None
        following = self.next_slot(head.slot_at)
        return None if following is not None and self.start_of(following) <= now else (following,)

    def run_for(self, slot: datetime, now: datetime) -> Run:
        """The row of a slot that is to come, not saved yet."""
        from .run import Run

        return Run(
            task_id=self.task_id,
            schedule=self,
            trigger=Run.Trigger.SCHEDULE,
            slot_at=slot,
            due_at=self.start_of(slot),
            queued_at=now,
        )

    # How the verbs do it; all on a locked row

    def _write(self, values: dict[str, Any], *, was_paused: bool) -> bool:
        """Pause or resume; claims of its task that are under way are waited for."""
        with transaction.atomic():
            list(Task.objects.select_for_update(no_key=True).filter(pk=self.task_id).order_by("pk").values_list("pk"))
            return super()._write(values, was_paused=was_paused)

    def _move(self, now: datetime) -> None:
        """Move the head of the chain to where the rule as it is now has it.

        The rule counts from the edit on, not from when it is seen: slots in between get their rows, too.
        """
        from .run import Run, RunEvent

        since = now if self.stale_at is None else min(self.stale_at, now)
        undecided = list(Run.objects.undecided().filter(schedule=self).order_by("slot_at"))
        head: Run | None = undecided[0] if undecided else None
        for other in undecided[1:]:
            other.delete()
        if head is not None and head.slot_at is not None and head.slot_at <= since:
            try:
                with override(None):
                    kept = self.enabled and self.last_slot(head.slot_at) == head.slot_at
            except recurrences.InvalidRule as error:
                self._disable(str(error), now, head)
                return
            if kept:
                self._set(ended=False, problem="", next_run=head, stale_at=None)
                return
            if Run.objects.transition(head.pk, to=Status.SKIPPED, reason=Reason.CATCH_UP, finished_at=now):
                head.record(RunEvent.What.DECIDED, Reason.CATCH_UP, now=now)
            head = None
        self.insert_next(after=self.covered_until or now, now=now, head=head)
        if head is not None and self.next_run_id != head.pk:
            head.delete()

    def _moved(self, head: Run, slot: datetime, now: datetime) -> Run:
        from .run import Run

        Run.objects.filter(pk=head.pk).update(slot_at=slot, due_at=self.start_of(slot), queued_at=now)
        return head

    def _disable(self, problem: str, now: datetime, head: Run | None = None) -> None:
        """Take a schedule whose rule cannot be computed out of the queue; the slot that was due says so."""
        from .alarm import Alarm
        from .run import Run, RunEvent

        values: dict[str, Any] = {"reason": Reason.BAD_RULE, "detail": problem, "finished_at": now}
        if head is not None and Run.objects.transition(head.pk, to=Status.SKIPPED, **values):
            head.record(RunEvent.What.DECIDED, problem, now=now)
        self._set(enabled=False, problem=problem, next_run=None, stale_at=None)
        Alarm.objects.create(
            task_id=self.task_id, schedule=self, run=head, kind=Alarm.Kind.BAD_RULE, at=now, text=problem
        )
        if head is not None:
            head.record(RunEvent.What.ALARM, Alarm.Kind.BAD_RULE, now=now)

    def queue(self, slot: datetime, now: datetime) -> Run:
        """Write the row of a slot that is still to be decided; for the verbs, on a locked row."""
        run = self.run_for(slot, now)
        run.save(force_insert=True)
        return run

    def start_of(self, slot: datetime) -> datetime:
        """When a slot's run may start: the slot, and a part of the schedule's spread that is always the same for it."""
        return slot + delays.jitter(self.pk, slot, most_seconds=self.jitter_seconds)

    def blackout(self) -> calendars.Calendar | None:
        """The calendar that blocks slots. Raises recurrences.InvalidRule, with one sentence, when it makes no sense."""
        if self.calendar is None:
            return None
        try:
            return self.calendar.read()
        except calendars.InvalidCalendar as error:
            raise recurrences.InvalidRule(str(error)) from error

    @property
    def max_lateness(self) -> timedelta | None:
        return None if self.max_lateness_seconds is None else timedelta(seconds=self.max_lateness_seconds)

    def last_slot(self, at_or_before: datetime) -> datetime | None:
        """The last slot that is not later than an instant; None when there is none."""
        return recurrences.previous_slot(
            self.recurrence.rule(), anchor=self.anchor, zone=self.zone, at_or_before=at_or_before, until=self.ends_at
        )

    def _free_slot(self, after: datetime) -> datetime | None:
        """The first slot later than ``after`` that no row covers.

        Rows after it exist where a future slot was cancelled, or where the clock was set back.
        """
        slot = self.next_slot(after)
        while slot is not None:
            # Rows never cover each other's slots, so only the nearest can cover this one. An undecided one is to move.
            rows = self.runs.filter(slot_at__lte=slot).exclude(status=Status.QUEUED, ready_at=None)
            nearest = rows.order_by("-slot_at").values("slot_at", "slot_until").first()
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
            for name in ("enabled", "ended", "problem", "stale_at", "covered_until", "next_run"):
                setattr(self, name, getattr(current, name))
