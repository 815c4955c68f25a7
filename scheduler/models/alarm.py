from __future__ import annotations

from datetime import datetime  # noqa: TC003
from typing import TYPE_CHECKING, Self

from django.conf import settings
from django.db import models, transaction
from django.db.models import Q
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from .run import Run, RunEvent
from .schedule import Schedule
from .task import Task

if TYPE_CHECKING:
    from django.contrib.auth.models import User


class AlarmQuerySet(models.QuerySet["Alarm"]):
    def untold(self) -> Self:
        """Those of which nobody has been told yet, oldest first."""
        return self.filter(told_at=None).order_by("id")

    def open(self) -> Self:
        """Those that nobody has dismissed yet, newest first."""
        return self.filter(dismissed_at=None).order_by("-id")

    def dismiss(self, *, by: User, now: datetime) -> int:
        """Dismiss those of them that are open; how many were. The first who did it stands."""
        values = {"dismissed_at": now, "dismissed_by": by, "dismissed_by_name": by.get_username()}
        return self.filter(dismissed_at=None).update(**values)

    dismiss.alters_data = True  # type: ignore[attr-defined]


class Alarm(models.Model):
    """Something about a task's runs that a person should look at; told once."""

    class Kind(models.TextChoices):
        LATE = "late", _("late")
        # It should have started some time ago, and still waits.
        MISSED = "missed", _("missed")
        # Slots were not run, because no poller was up or it was too late for them.
        LONG = "long", _("far longer than usual")
        # Its program runs for several times as long as those before it did; ``text`` is how long they took.
        BAD_RULE = "bad_rule", _("bad rule")
        # A schedule was disabled, because its rule cannot be computed.

    task = models.ForeignKey(Task, verbose_name=_("task"), on_delete=models.CASCADE, related_name="alarms")
    schedule = models.ForeignKey(
        Schedule, verbose_name=_("schedule"), null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    run = models.ForeignKey(
        Run, verbose_name=_("run"), null=True, blank=True, on_delete=models.CASCADE, related_name="alarms"
    )
    kind = models.CharField(_("kind"), max_length=10, choices=Kind)
    at = models.DateTimeField(_("time"))
    text = models.TextField(_("details"), blank=True)
    told_at = models.DateTimeField(_("told"), null=True, blank=True)
    dismissed_at = models.DateTimeField(_("dismissed"), null=True, blank=True)
    dismissed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("dismissed by"),
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    dismissed_by_name = models.CharField(max_length=150, blank=True)  # kept when the account goes

    objects = AlarmQuerySet.as_manager()

    class Meta:
        verbose_name = _("alarm")
        verbose_name_plural = _("alarms")
        default_permissions = ()
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["run", "kind"], name="scheduler_alarm_once")]
        indexes = [
            models.Index(fields=["id"], condition=Q(told_at=None), name="scheduler_alarm_untold"),
            models.Index(fields=["id"], condition=Q(dismissed_at=None), name="scheduler_alarm_open"),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: {self.run or self.task}"

    @classmethod
    def raise_for(cls, run: Run, kind: Kind, *, now: datetime, text: str = "") -> Alarm:
        """The alarm of this kind for a run; however often it is raised, there is one, and one line in the history."""
        values = {"task_id": run.task_id, "schedule_id": run.schedule_id, "at": now, "text": text}
        with transaction.atomic():
            alarm, is_new = cls.objects.get_or_create(run=run, kind=kind, defaults=values)
            if is_new:
                run.record(RunEvent.What.ALARM, kind, now=now)
        return alarm

    @classmethod
    def about(cls, run: Run, kind: Kind, *, now: datetime) -> Alarm:
        """An alarm for a run, not saved yet."""
        return cls(run=run, kind=kind, task_id=run.task_id, schedule_id=run.schedule_id, at=now)

    @property
    def sentence(self) -> str:
        """What is the matter, in one sentence."""
        match self.kind:
            case self.Kind.LATE:
                return gettext("It should have started, and still waits for its start.")
            case self.Kind.LONG:
                return gettext("It runs for far longer than usual: the last ones took about %(usual)s.") % {
                    "usual": self.text
                }
            case self.Kind.BAD_RULE:
                return gettext("A schedule was disabled: %(problem)s") % {"problem": self.text}
        return self.run.sentence if self.run is not None else gettext("Slots were missed.")
