"""The next slots of a rule with what is special about each: what the form and ``manage.py preview_slots`` show."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.utils.translation import gettext

from scheduler import calendars, recurrences

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot, and what an administrator should know about it beforehand."""

    at: datetime
    """The instant, in UTC."""
    zone: ZoneInfo
    skipped: datetime | None = None
    """The wall time that the clocks skip, for which this instant, the first after the gap, stands."""
    which_pass: int = 0
    """1 or 2 when the clocks show this wall time twice: the first or the second time."""
    clock_change: timedelta = field(default_factory=timedelta)
    """By how much the clocks are set forward (back: negative) some time on this local day."""
    blocked_by: str = ""
    """The name of the calendar in which this slot will be skipped."""

    @property
    def local(self) -> datetime:
        """The instant as the zone's clocks show it."""
        return self.at.astimezone(self.zone)

    @property
    def marks(self) -> list[str]:
        """What is special about this slot, a short text each, in the current language."""
        found = []
        if self.skipped is not None:
            text = gettext("DST: the clocks skip %(time)s, so it runs at the first instant after the gap")
            found.append(text % {"time": f"{self.skipped:%H:%M}"})
        if self.which_pass:
            text = (
                gettext("DST: the clocks show %(time)s twice, this is the first time")
                if self.which_pass == 1
                else gettext("DST: the clocks show %(time)s twice, this is the second time")
            )
            found.append(text % {"time": f"{self.local:%H:%M}"})
        if self.blocked_by:
            found.append(gettext("blocked by “%(calendar)s”: it will be skipped") % {"calendar": self.blocked_by})
        return found

    @property
    def notes(self) -> list[str]:
        """``marks``, and what the clocks do on this day."""
        return [*self.marks, *filter(None, [self.day_in_words])]

    @property
    def day_in_words(self) -> str:
        """What the clocks do on this day; empty on nearly all days."""
        if not self.clock_change:
            return ""
        text = (
            gettext("The clocks are put forward by %(time)s on this day.")
            if self.clock_change > timedelta(0)
            else gettext("The clocks are put back by %(time)s on this day.")
        )
        minutes = abs(self.clock_change) // timedelta(minutes=1)
        return text % {"time": f"{minutes // 60}:{minutes % 60:02}"}


def preview(
    rule: recurrences.Rule,
    *,
    anchor: datetime,
    zone: ZoneInfo,
    after: datetime,
    count: int,
    until: datetime | None = None,
    calendar: calendars.Calendar | None = None,
) -> list[Slot]:
    """At most ``count`` slots later than ``after`` and not later than ``until``.

    Blocked slots are among them and counted: they are slots, whose runs will be skipped.
    """
    found: list[Slot] = []
    at = recurrences.next_slot(rule, anchor=anchor, zone=zone, after=after, until=until)
    while at is not None and len(found) < count:
        found.append(
            Slot(
                at,
                zone,
                skipped=recurrences.skipped_wall(rule, anchor=anchor, zone=zone, slot=at),
                which_pass=recurrences.which_pass(at, zone),
                clock_change=recurrences.clock_change(at, zone),
                blocked_by=calendar.name if calendar is not None and calendars.blocks(calendar, at) else "",
            )
        )
        at = recurrences.next_slot(rule, anchor=anchor, zone=zone, after=at, until=until)
    return found
