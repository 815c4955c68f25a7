"""Blackout calendars: named dates and weekly windows in which nothing is started. Pure: no database, no clock.

Dates and windows are read from the clocks of the calendar's own zone, whichever zone a schedule has. An hour that the
clocks show twice is blocked both times; one that they skip blocks nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING

from django.utils.translation import gettext

if TYPE_CHECKING:
    from collections.abc import Iterable
    from zoneinfo import ZoneInfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")  # as date.weekday() counts them
DAY = timedelta(days=1)
WEEK = timedelta(weeks=1)
LONGEST_RANGE = timedelta(days=3_660)


class InvalidCalendar(ValueError):  # noqa: N818 (it is said of a calendar, in forms and on pages)
    """A line that names neither dates nor a window; its text is one translated sentence."""


@dataclass(frozen=True, slots=True)
class Window:
    """A part of every week, from ``begin`` to before ``end``, both counted from Monday 00:00; it may go over Sunday."""

    begin: timedelta
    end: timedelta

    def holds(self, moment: timedelta) -> bool:
        """Whether a moment of the week lies in the window."""
        begin, end = self.begin % WEEK, self.end % WEEK
        return begin <= moment < end if begin < end else moment >= begin or moment < end


@dataclass(frozen=True, slots=True)
class Calendar:
    """Whole dates, days of every year as (month, day), and weekly windows, in one zone."""

    name: str
    zone: ZoneInfo
    dates: frozenset[date] = frozenset()
    yearly: frozenset[tuple[int, int]] = frozenset()
    windows: tuple[Window, ...] = ()


def blocks(calendar: Calendar, instant: datetime) -> bool:
    """Whether nothing is started at this instant, because of this calendar."""
    try:
        wall = instant.astimezone(calendar.zone).replace(tzinfo=None)
    except OverflowError:  # the first or the last hours of the calendar of Python
        return False
    day = wall.date()
    if day in calendar.dates or (day.month, day.day) in calendar.yearly:
        return True
    moment = day.weekday() * DAY + (wall - datetime.combine(day, time()))
    return any(window.holds(moment) for window in calendar.windows)


# Reading what people write

DATE = r"(\d{4}-\d{2}-\d{2})"
NAME = f"({'|'.join(DAYS)})"
CLOCK = r"(\d{1,2}:\d{2})"


def read(name: str, zone: ZoneInfo, lines: Iterable[str]) -> Calendar:
    """A calendar of lines; empty lines and what comes after a ``#`` are left out.

    A line is a date (``2026-12-25``), the dates from one to another (``2026-12-24..2027-01-01``), a day of every
    year (``12-25``), days of the week (``sat``, ``mon-fri``, ``daily``), the same with a time
    (``daily 01:00-02:30``), or one long window (``fri 18:00 - mon 06:00``). A time that ends before it begins ends on
    the next day.

    Raises InvalidCalendar for the first line that is none of these.
    """
    dates: set[date] = set()
    yearly: set[tuple[int, int]] = set()
    windows: list[Window] = []
    for line in lines:
        text = " ".join(line.partition("#")[0].lower().split())
        if not text:
            continue
        try:
            found = _dates(text) or _yearly(text) or _windows(text)
        except ValueError:  # 2026-02-30, 25:00
            found = None
        match found:
            case set():
                dates |= found
            case tuple():
                yearly.add(found)
            case list():
                windows += found
            case _:
                raise InvalidCalendar(
                    gettext(
                        "“%(line)s” is neither a date (2026-12-25), dates (2026-12-24..2027-01-01), a day of every "
                        "year (12-25), days of the week (sat-sun), nor a time on them (daily 01:00-02:30)."
                    )
                    % {"line": line.strip()[:100]}
                )
    return Calendar(name, zone, frozenset(dates), frozenset(yearly), tuple(windows))


def _dates(text: str) -> set[date] | None:
    match = re.fullmatch(rf"{DATE}(?: ?\.\. ?{DATE})?", text, re.ASCII)
    if match is None:
        return None
    first = date.fromisoformat(match[1])
    last = date.fromisoformat(match[2] or match[1])
    if not first <= last <= first + LONGEST_RANGE:
        raise ValueError
    return {first + DAY * number for number in range((last - first) // DAY + 1)}


def _yearly(text: str) -> tuple[int, int] | None:
    match = re.fullmatch(r"(\d{2})-(\d{2})", text, re.ASCII)
    if match is None:
        return None
    day = date(2000, int(match[1]), int(match[2]))  # a leap year: 29 February is a day of some years
    return day.month, day.day


def _windows(text: str) -> list[Window] | None:
    if match := re.fullmatch(rf"{NAME} {CLOCK} ?- ?{NAME} {CLOCK}", text, re.ASCII):
        begin = DAYS.index(match[1]) * DAY + _time_of_day(match[2])
        end = DAYS.index(match[3]) * DAY + _time_of_day(match[4])
        if begin == end:
            raise ValueError
        return [Window(begin, end)]
    match = re.fullmatch(rf"(?:daily|{NAME}(?: ?- ?{NAME})?)(?: {CLOCK} ?- ?{CLOCK})?", text, re.ASCII)
    if match is None:
        return None
    first = DAYS.index(match[1]) if match[1] else 0
    last = (DAYS.index(match[2]) if match[2] else first) if match[1] else 6
    begin, end = (_time_of_day(match[3]), _time_of_day(match[4])) if match[3] else (timedelta(0), DAY)
    if begin == end or begin >= DAY:
        raise ValueError
    if end < begin:
        end += DAY
    days = range(first, (last if last >= first else last + 7) + 1)
    return [Window(day * DAY + begin, day * DAY + end) for day in days]


def _time_of_day(text: str) -> timedelta:
    """The time since midnight; 24:00 is the end of the day."""
    hours, minutes = (int(part) for part in text.split(":"))
    found = timedelta(hours=hours, minutes=minutes)
    if minutes > 59 or found > DAY:
        raise ValueError
    return found
