from __future__ import annotations

import zoneinfo

from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from scheduler import calendars

from .task import validate_name


def default_time_zone() -> str:
    return timezone.get_default_timezone_name()


def validate_time_zone(value: str) -> None:
    try:
        zoneinfo.ZoneInfo(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValidationError(
            _("There is no time zone “%(zone)s”. Use a name such as Europe/Amsterdam or UTC."), params={"zone": value}
        ) from error


class Calendar(models.Model):
    """Named dates and weekly windows in which the schedules that use it start nothing.

    It is asked when a slot comes due, so that a change counts at once and moves no slot.
    """

    name = models.CharField(_("name"), max_length=100, unique=True)
    time_zone = models.CharField(
        _("time zone"), max_length=64, default=default_time_zone, validators=[validate_time_zone]
    )
    lines = models.TextField(
        _("blocked times"),
        help_text=_(
            "One a line: a date (2026-12-25), dates (2026-12-24..2027-01-01), a day of every year (12-25), days of the "
            "week (sat-sun), a time on them (daily 01:00-02:30), or a long window (fri 18:00 - mon 06:00)."
        ),
    )

    class Meta:
        verbose_name = _("calendar")
        verbose_name_plural = _("calendars")
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        validate_name(self.name)
        try:
            self.read()
        except calendars.InvalidCalendar as error:
            raise ValidationError({"lines": str(error)}) from error

    def read(self) -> calendars.Calendar:
        """The calendar as plain data. Raises calendars.InvalidCalendar, with one sentence, when it makes no sense."""
        try:
            zone = zoneinfo.ZoneInfo(self.time_zone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise calendars.InvalidCalendar(
                gettext("Unknown time zone “%(zone)s”.") % {"zone": self.time_zone}
            ) from error
        return calendars.read(self.name, zone, self.lines.splitlines())
