"""What is to come over many schedules, minute by minute: pure, and quick where many have the same rule.

Schedules of the same minutes are one ``Plan``; how many there are of it is the caller's to count.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from scheduler import calendars, recurrences

if TYPE_CHECKING:
    from collections.abc import Sequence
    from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Window:
    """From ``begin`` to before ``end``, both on whole minutes."""

    begin: datetime
    end: datetime

    @property
    def minutes(self) -> int:
        return (self.end - self.begin) // MINUTE

    def minute(self, instant: datetime) -> int:
        """In which minute of the window an instant lies; negative before it."""
        return (instant - self.begin) // MINUTE


@dataclass(frozen=True, slots=True)
class Plan:
    """What decides the minutes of a schedule within a window, and nothing else: it is equal for many schedules."""

    rule: recurrences.Rule
    anchor: datetime | None
    """None: it is over long before the window, and the rule does not count from it."""
    zone: ZoneInfo
    until: datetime | None
    """None: not within the window."""


@dataclass(frozen=True, slots=True)
class Steps:
    """A plan of equal steps: its minutes are arithmetic, however many there are."""

    minutes: range


def plan(
    rule: recurrences.Rule, *, anchor: datetime, zone: ZoneInfo, until: datetime | None, window: Window
) -> Plan | Steps:
    """The plan of a schedule within a window."""
    if isinstance(rule, recurrences.Every) and rule.unit in {"minutes", "hours"}:
        return Steps(_steps(rule.count * recurrences.STEPS[rule.unit], anchor, until, window))
    is_over = isinstance(rule, recurrences.Cron) and anchor < window.begin
    ends = until is not None and until < window.end
    return Plan(rule, None if is_over else anchor, zone, until if ends else None)


def _steps(step: timedelta, anchor: datetime, until: datetime | None, window: Window) -> range:
    number = max(0, -((anchor - window.begin) // step))  # the first that is not before the window
    first = anchor + number * step
    last = window.end - timedelta(microseconds=1)
    if until is not None:
        last = min(last, until)
    if first > last:
        return range(0)
    count = (last - first) // step + 1
    minute, each = window.minute(first), step // MINUTE
    return range(minute, minute + count * each, each)


def minutes(plan: Plan | Steps, window: Window) -> Sequence[int]:
    """The minutes of the window in which the plan has a slot; one entry a slot."""
    if isinstance(plan, Steps):
        return plan.minutes
    tick = timedelta(microseconds=1)
    until = window.end - tick
    slots = recurrences.slots_between(
        plan.rule,
        anchor=window.begin if plan.anchor is None else plan.anchor,
        zone=plan.zone,
        after=window.begin - tick,
        until=until if plan.until is None else min(until, plan.until),
    )
    return [window.minute(slot) for slot in slots]


@dataclass
class Blackout:
    """Which minutes of a window a calendar blocks; each is looked at once."""

    calendar: calendars.Calendar
    window: Window
    _known: dict[int, bool] = field(default_factory=dict)

    def blocks(self, minute: int) -> bool:
        known = self._known.get(minute)
        if known is None:
            known = self._known[minute] = calendars.blocks(self.calendar, self.window.begin + minute * MINUTE)
        return known
