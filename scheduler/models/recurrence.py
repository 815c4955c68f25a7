from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models, transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from scheduler import recurrences, words

from .task import validate_name


class Recurrence(models.Model):
    """A named, reusable rule: once, every N units, or a cron line."""

    class Kind(models.TextChoices):
        ONCE = "once", _("once")
        EVERY = "every", _("every …")
        CRON = "cron", _("cron line")

    class Unit(models.TextChoices):
        MINUTES = "minutes", _("minutes")
        HOURS = "hours", _("hours")
        DAYS = "days", _("days")
        WEEKS = "weeks", _("weeks")
        MONTHS = "months", _("months")
        YEARS = "years", _("years")

    name = models.CharField(_("name"), max_length=100, unique=True)
    kind = models.CharField(_("kind"), max_length=10, choices=Kind, default=Kind.EVERY)
    every = models.PositiveIntegerField(
        _("every"),
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text=_("For “every …”: how many units."),
    )
    unit = models.CharField(_("unit"), max_length=10, choices=Unit, blank=True, help_text=_("For “every …”."))
    cron = models.CharField(
        _("cron line"),
        max_length=200,
        blank=True,
        help_text=_(
            "Five fields: minute, hour, day of month, month, day of week; or @hourly, @daily, @weekly, @monthly, "
            "@yearly."
        ),
    )

    class Meta:
        verbose_name = _("recurrence")
        verbose_name_plural = _("recurrences")
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                name="scheduler_recurrence_fields_fit_kind",
                condition=Q(kind="once", every=None, unit="", cron="")
                | (Q(kind="every", every__gte=1, cron="") & ~Q(unit=""))
                | (Q(kind="cron", every=None, unit="") & ~Q(cron="")),
                violation_error_message=_(
                    "“Every …” needs a number and a unit; a cron line needs its line; once needs neither."
                ),
            )
        ]

    def __str__(self) -> str:
        return self.name

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save, and mark the schedules of a changed rule as stale at once: none starts by the old rule."""
        with transaction.atomic():
            before = Recurrence.objects.filter(pk=self.pk).first() if self.pk else None
            super().save(*args, **kwargs)
            if before is not None and before.rule_fields() != self.rule_fields():
                # An edit that no poller has seen yet counts from the first on: no slot since then is left out.
                self.schedules.filter(stale_at=None).update(stale_at=timezone.now())

    def rule_fields(self) -> tuple[str, int | None, str, str]:
        return (self.kind, self.every, self.unit, self.cron)

    def rule(self) -> recurrences.Rule:
        """The rule as plain data. Raises recurrences.InvalidRule, with one sentence, for a row that makes no sense."""
        match self.kind:
            case self.Kind.ONCE:
                return recurrences.Once()
            case self.Kind.EVERY:
                return recurrences.Every(self.every or 0, self.unit)
            case self.Kind.CRON:
                return recurrences.Cron(self.cron)
        raise recurrences.InvalidRule(_("Unknown kind of recurrence “%(kind)s”.") % {"kind": self.kind})

    @property
    def in_words(self) -> str:
        """The rule for people, such as “every 15 minutes”; the error's sentence for a row that makes no sense."""
        try:
            return words.in_words(self.rule())
        except recurrences.InvalidRule as error:
            return str(error)

    def clean(self) -> None:
        validate_name(self.name)
        # Fields of another kind are dropped, not refused: the form shows them all.
        if self.kind != self.Kind.EVERY:
            self.every, self.unit = None, ""
        if self.kind != self.Kind.CRON:
            self.cron = ""
        self.cron = " ".join(self.cron.split())
        if self.kind == self.Kind.EVERY:
            missing = {}
            if not self.every:
                missing["every"] = _("Give a number of 1 or more.")
            if not self.unit:
                missing["unit"] = _("Choose a unit.")
            if missing:
                raise ValidationError(missing)
        try:
            self.rule()
        except recurrences.InvalidRule as error:
            raise ValidationError({"cron" if self.kind == self.Kind.CRON else "every": str(error)}) from error
