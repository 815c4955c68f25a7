"""When a rule has its slots: pure date arithmetic, without the database and without a clock.

All instants are aware, results are in UTC. Every slot is computed from the anchor, never from the last run.

- Minutes and hours step in elapsed time. Days, weeks, months and years keep the anchor's wall time in the zone.
- A wall time that the clocks skip stands for the first instant after the gap; one that they show twice, for the first.
  Only the anchor itself is taken as it is: it is an instant, also when the clocks show its wall time again.
- A day that a month does not have is the last day of that month: monthly on the 31st is 30 April, and 31 May again;
  yearly on 29 February is 28 February in other years.
- cron lines mean what they mean in Debian's cron (crontab(5) and cron(8)): a line whose minute and hour are both given
  follows the rules above; one whose minute or hour starts with ``*`` follows the clocks, so that it has no slot in a
  gap and one in each pass of an overlap. ``cronsim`` reads the lines and steps through wall times. The zone is added
  here, because cronsim's own stepping in a zone finds other slots forwards than backwards where clocks change.
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from django.utils.translation import gettext

if TYPE_CHECKING:
    from collections.abc import Iterator

# One hundred years of each unit: what is longer is a slip of the keyboard, and its slots would be out of the calendar.
MOST = {"minutes": 52_560_000, "hours": 876_000, "days": 36_500, "weeks": 5_200, "months": 1_200, "years": 100}
STEPS = {
    "minutes": timedelta(minutes=1),
    "hours": timedelta(hours=1),
    "days": timedelta(days=1),
    "weeks": timedelta(weeks=1),
}
MONTHS = {"months": 1, "years": 12}

# As crontab(5) defines them. @reboot is none of them: it is no instant.
ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
LONGEST_LINE = 200

# Offsets from UTC go from -12 to +14 hours, so clocks are never moved by more, and a change is within a day and a bit.
WIDEST_CHANGE = timedelta(hours=26)
TICK = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)


class InvalidRule(ValueError):  # noqa: N818 (it is said of a rule, in forms and on pages)
    """A rule that makes no sense; its text is one translated sentence."""


@dataclass(frozen=True, slots=True)
class Once:
    """One slot: the anchor."""


@dataclass(frozen=True, slots=True)
class Every:
    """A slot every ``count`` minutes, hours, days, weeks, months or years. Raises InvalidRule."""

    count: int
    unit: str

    def __post_init__(self) -> None:
        if self.unit not in MOST:
            raise InvalidRule(
                gettext("Unknown unit “%(unit)s”; use minutes, hours, days, weeks, months or years.")
                % {"unit": self.unit}
            )
        if not 1 <= self.count <= MOST[self.unit]:
            raise InvalidRule(
                gettext("“Every …” needs a number from 1 to %(most)d; with this unit that is a hundred years.")
                % {"most": MOST[self.unit]}
            )


@dataclass(frozen=True, slots=True)
class Cron:
    """A slot at every minute that a cron line matches: five fields, or an alias such as @daily. Raises InvalidRule."""

    line: str

    def __post_init__(self) -> None:
        _parsed(self.line)


Rule = Once | Every | Cron


def next_slot(
    rule: Rule, *, anchor: datetime, zone: ZoneInfo, after: datetime | None, until: datetime | None = None
) -> datetime | None:
    """The first slot later than ``after`` (None: the very first), and not later than ``until``; None: there is none."""
    anchor = _utc(anchor)
    earlier = after is None or _utc(after) < anchor
    slot: datetime | None
    match rule:
        case Once():
            slot = anchor if earlier else None
        case Every():
            series = _Series(rule, anchor, zone)
            slot = anchor if after is None or earlier else series.slot(series.last_index(_utc(after)) + 1)
        case Cron():
            slot = _cron_after(rule.line, zone, _plus(anchor, -TICK) if after is None or earlier else _utc(after))
    return slot if slot is not None and (until is None or slot <= until) else None


def previous_slot(
    rule: Rule, *, anchor: datetime, zone: ZoneInfo, at_or_before: datetime, until: datetime | None = None
) -> datetime | None:
    """The last slot that is later neither than ``at_or_before`` nor than ``until``; None: there is none."""
    anchor = _utc(anchor)
    latest = _utc(at_or_before if until is None else min(at_or_before, until))
    if latest < anchor:
        return None
    match rule:
        case Once():
            return anchor
        case Every():
            series = _Series(rule, anchor, zone)
            return series.slot(series.last_index(latest))
        case Cron():
            slot = _cron_at_or_before(rule.line, zone, latest)
            return slot if slot is not None and slot >= anchor else None


def slots_between(
    rule: Rule, *, anchor: datetime, zone: ZoneInfo, after: datetime, until: datetime
) -> Iterator[datetime]:
    """All slots later than ``after`` and not later than ``until``, in order; quicker than asking for each."""
    anchor, after, until = _utc(anchor), _utc(after), _utc(until)
    match rule:
        case Once():
            if after < anchor <= until:
                yield anchor
        case Every():
            series = _Series(rule, anchor, zone)
            number, last = series.last_index(after) + 1, after
            while (slot := series.slot(number)) is not None and slot <= until:
                if slot > last:  # a day that is skipped has the same slot as the next one
                    yield slot
                number, last = number + 1, slot
        case Cron():
            yield from _cron_between(rule.line, zone, max(_plus(after, TICK), anchor), _plus(until, TICK))


def count_slots(
    rule: Rule, *, anchor: datetime, zone: ZoneInfo, first: datetime, before: datetime
) -> tuple[int, datetime]:
    """How many slots there are from ``first`` to before ``before``, and the last of them.

    ``first`` counts as one, also when the rule no longer has a slot there.
    """
    first, before = _utc(first), _utc(before)
    last = previous_slot(rule, anchor=anchor, zone=zone, at_or_before=_plus(before, -TICK))
    if last is None or last <= first:
        return 1, first
    match rule:
        case Once():
            return 2, last
        case Every():
            return 1 + _Series(rule, _utc(anchor), zone).count(first, last), last
        case Cron():
            start = max(first, _plus(_utc(anchor), -TICK))
            return 1 + _count_cron(rule.line, zone, start, last), last


# What is special about an instant


def skipped_wall(rule: Rule, *, anchor: datetime, zone: ZoneInfo, slot: datetime) -> datetime | None:
    """The wall time that the clocks skip and that this slot stands for (the first of them); None: there is none."""
    slot = _utc(slot)
    gap, shown = _plus(_wall(_plus(slot, -TICK), zone), TICK), _wall(slot, zone)
    if gap >= shown:
        return None
    match rule:
        case Every() if rule.unit not in ("minutes", "hours"):
            series = _Series(rule, _utc(anchor), zone)
            number = series.last_index(slot)
            walls: list[datetime] = []
            while number > 0 and series.slot(number) == slot:
                wall = series.wall_at(number)
                assert wall is not None  # it has a slot
                walls.append(wall)
                number -= 1
            return min((wall for wall in walls if gap <= wall < shown), default=None)
        case Cron() if not _follows_the_clocks(rule.line):
            wall = next(_walls(rule.line, _plus(gap, -TICK)), None)
            return wall if wall is not None and wall < shown else None
    return None


def which_pass(instant: datetime, zone: ZoneInfo) -> int:
    """1 or 2 where the clocks show the same wall time twice: the first or the second time; 0 everywhere else."""
    wall = _wall(instant, zone)
    try:
        first, second = (_shown_at(wall, zone, fold) for fold in (0, 1))
    except OverflowError:
        return 0
    if first == second or _wall(first, zone) != wall or _wall(second, zone) != wall:
        return 0
    return 1 if _utc(instant) == first else 2


def clock_change(instant: datetime, zone: ZoneInfo) -> timedelta:
    """By how much the clocks are set forward (or back: negative) within the instant's local day; mostly zero."""
    day = _wall(instant, zone).date()
    if not date.min + 2 * DAY < day < date.max - 2 * DAY:
        return timedelta(0)
    begin, end = (_instant(datetime.combine(each, time()), zone) for each in (day, day + DAY))
    assert begin is not None  # two days from the edges of the calendar
    assert end is not None
    # From a second before to a second before: a change at midnight belongs to the day that it begins.
    begin, end = begin - SECOND, end - SECOND
    return (_wall(end, zone) - _wall(begin, zone)) - (end - begin)


# Instants and wall times


def named_zone(name: str) -> ZoneInfo:
    """The time zone of this name. Raises InvalidRule with one sentence when there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        text = gettext("There is no time zone “%(zone)s”. Use a name such as Europe/Amsterdam or UTC.")
        raise InvalidRule(text % {"zone": name}) from error


def shown_instant(wall: datetime, zone: ZoneInfo) -> datetime:
    """The instant, in UTC, at which the clocks first show this wall time.

    Raises InvalidRule with one sentence when they never do, or when it is out of the calendar.
    """
    instant = _instant(wall, zone)
    values = {"time": wall.isoformat(sep=" ", timespec="minutes"), "zone": zone.key}
    if instant is None:
        raise InvalidRule(gettext("%(time)s in %(zone)s is not a date that can be reckoned with.") % values)
    if (later := _wall(instant, zone)) != wall:
        text = gettext(
            "%(time)s does not exist in %(zone)s: the clocks are put forward over it, to %(later)s. "
            "Choose another time."
        )
        raise InvalidRule(text % {**values, "later": later.isoformat(sep=" ", timespec="minutes")})
    return instant


def _utc(instant: datetime) -> datetime:
    """The same instant in UTC; one that is out of the calendar there becomes its first or its last instant."""
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        return _edge(instant).replace(tzinfo=UTC)


def _wall(instant: datetime, zone: ZoneInfo) -> datetime:
    """What the clocks of the zone show, as a naive datetime; kept within the calendar likewise."""
    try:
        return instant.astimezone(zone).replace(tzinfo=None, fold=0)
    except OverflowError:
        return _edge(instant)


def _plus(moment: datetime, delta: timedelta) -> datetime:
    """The sum, kept within the calendar."""
    try:
        return moment + delta
    except OverflowError:
        return _edge(moment).replace(tzinfo=moment.tzinfo)


def _edge(moment: datetime) -> datetime:
    return datetime.min if moment.year < 5000 else datetime.max


def _shown_at(wall: datetime, zone: ZoneInfo, fold: int) -> datetime:
    """The instant that Python takes for a wall time; raises OverflowError when it is out of the calendar."""
    offset = wall.replace(tzinfo=zone, fold=fold).utcoffset()
    assert offset is not None  # a ZoneInfo always knows
    return (wall - offset).replace(tzinfo=UTC)


def _instant(wall: datetime, zone: ZoneInfo) -> datetime | None:
    """The instant at which clocks first show this wall time, or the end of the gap that skips it.

    None when it is out of the calendar.
    """
    try:
        instant = _shown_at(wall, zone, 0)
        if _wall(instant, zone) == wall:
            return instant
        # In a gap, fold=1 reads the wall time by the offset after it: an instant before the change; fold=0 the other
        # way round. Changes are on whole seconds.
        low, high = _shown_at(wall, zone, 1).replace(microsecond=0), instant.replace(microsecond=0) + SECOND
    except OverflowError:
        return None
    while high - low > SECOND:
        middle = (low + (high - low) / 2).replace(microsecond=0)
        if _wall(middle, zone) > wall:
            high = middle
        else:
            low = middle
    return high


def _change_around(instant: datetime, zone: ZoneInfo) -> timedelta:
    """By how much clocks are set forward (or back: negative) around this instant; almost always zero."""
    try:
        earlier, later = instant - WIDEST_CHANGE, instant + WIDEST_CHANGE
    except OverflowError:
        return timedelta(0)
    return (_wall(later, zone) - _wall(earlier, zone)) - (later - earlier)


# Every N units


class _Series:
    """The slots of an ``Every``, numbered from 0 (the anchor); each costs the same, however far away it is.

    Two numbers can have the same slot: where a whole day is skipped (Pacific/Apia, 30 December 2011), its midnight is
    also that of the next day. As the slots never decrease, the last number of a slot stands for it.
    """

    def __init__(self, rule: Every, anchor: datetime, zone: ZoneInfo) -> None:
        self.rule = rule
        self.anchor = anchor
        self.zone = zone
        self.wall = _wall(anchor, zone)

    def slot(self, number: int) -> datetime | None:
        """None when it is out of the calendar, or for a negative number."""
        if number <= 0:
            return self.anchor if number == 0 else None
        if self.rule.unit in ("minutes", "hours"):
            try:
                return self.anchor + self.rule.count * number * STEPS[self.rule.unit]
            except OverflowError:
                return None
        wall = self.wall_at(number)
        return None if wall is None else _instant(wall, self.zone)

    def wall_at(self, number: int) -> datetime | None:
        """What the clocks show, or would show, at a slot of days, weeks, months or years; None: out of the calendar."""
        amount = self.rule.count * number
        if self.rule.unit in MONTHS:
            return _plus_months(self.wall, amount * MONTHS[self.rule.unit])
        try:
            return self.wall + amount * STEPS[self.rule.unit]
        except OverflowError:
            return None

    def last_index(self, instant: datetime) -> int:
        """The number of the last slot that is not later than the instant; -1 when it is before the anchor."""
        if instant < self.anchor:
            return -1
        if self.rule.unit in MONTHS:
            months = (instant.year - self.anchor.year) * 12 + instant.month - self.anchor.month
            number = months // (self.rule.count * MONTHS[self.rule.unit])
        else:
            number = (instant - self.anchor) // (self.rule.count * STEPS[self.rule.unit])
        # That was an estimate: wall times are off by some hours, and a month by some days.
        while (slot := self.slot(number)) is None or slot > instant:
            number -= 1
        while (slot := self.slot(number + 1)) is not None and slot <= instant:
            number += 1
        return number

    def count(self, first: datetime, last: datetime) -> int:
        """How many different slots are later than ``first`` and not later than ``last``."""
        low, high = self.last_index(first), self.last_index(last)
        return high - low - self._repeated(low, high)

    def _repeated(self, low: int, high: int) -> int:
        """How many numbers after ``low``, up to ``high``, have the same slot as the number before them."""
        if self.rule != Every(1, "days"):
            return 0
        found, month = 0, 28  # no zone has skipped a day and repeated another within a month
        for start in range(low, high, month):
            end = min(start + month, high)
            slots = self.slot(start), self.slot(end)
            if None not in slots and slots[1] - slots[0] < (end - start) * DAY - DAY / 2:  # type: ignore[operator]
                found += sum(self.slot(number) == self.slot(number + 1) for number in range(start, end))
        return found


def _plus_months(wall: datetime, months: int) -> datetime | None:
    """The same day and time so many months later, or the last day of a shorter month; None: out of the calendar."""
    year, month = divmod(wall.year * 12 + wall.month - 1 + months, 12)
    if not date.min.year <= year <= date.max.year:
        return None
    return wall.replace(year=year, month=month + 1, day=min(wall.day, monthrange(year, month + 1)[1]))


# cron lines


@lru_cache(maxsize=1000)
def _parsed(line: str) -> CronSim:
    """The line, read; never step this object, it is shared. Raises InvalidRule."""
    fields = fields_of(line)
    try:
        parsed = CronSim(" ".join(fields), datetime(2000, 1, 1))
        next(CronSim(" ".join(fields), datetime(2000, 1, 1)))
    except StopIteration:
        raise InvalidRule(gettext("The cron line “%(line)s” never matches any date.") % {"line": line}) from None
    except (CronSimError, ValueError, AssertionError) as error:
        raise InvalidRule(_explanation(line, fields, str(error))) from error
    return parsed


def fields_of(line: str) -> list[str]:
    """The five fields of a line or of its alias, in capitals. Raises InvalidRule."""
    fields = line.split()
    if len(fields) == 1 and fields[0].lower() in ALIASES:
        fields = ALIASES[fields[0].lower()].split()
    if len(fields) == 1 and fields[0].startswith("@"):
        raise InvalidRule(
            gettext("There is no “%(alias)s” here; use one of %(known)s, or five fields.")
            % {"alias": fields[0][:50], "known": ", ".join(ALIASES)}
        )
    if len(fields) != 5:
        raise InvalidRule(
            gettext(
                "A cron line has five fields (minute, hour, day of month, month, day of week); this one has %(count)d."
            )
            % {"count": len(fields)}
        )
    if len(line) > LONGEST_LINE:
        raise InvalidRule(gettext("A cron line has at most %(most)d characters.") % {"most": LONGEST_LINE})
    # cronsim takes a range of one number for that number alone, and its step up to the end: 0-0/2 for 0/2.
    return [re.sub(r"\b(\w+)-\1/\d+", r"\1", field.upper(), flags=re.ASCII) for field in fields]


def _explanation(line: str, fields: list[str], error: str) -> str:
    """One sentence that names the field; cronsim says which it is in English only."""
    values: dict[str, object] = {"line": line}
    names = {
        "minute": (0, gettext("minute")),
        "hour": (1, gettext("hour")),
        "day-of-month": (2, gettext("day of month")),
        "month": (3, gettext("month")),
        "day-of-week": (4, gettext("day of week")),
    }
    number, values["field"] = names.get(error.removeprefix("Bad "), (None, ""))
    if number is None:
        return gettext("The cron line “%(line)s” cannot be read.") % values
    values["value"] = fields[number]
    if error == "Bad day-of-month" and _day_can_be_read(fields):
        return gettext("The cron line “%(line)s” never matches: no such month has day %(value)s.") % values
    return gettext("The cron line “%(line)s” cannot be read: “%(value)s” is no %(field)s.") % values


def _day_can_be_read(fields: list[str]) -> bool:
    """True when the day of month is fine by itself, so that the months do not have it."""
    try:
        CronSim(f"0 0 {fields[2]} * *", datetime(2000, 1, 1))
    except (CronSimError, ValueError, AssertionError):
        return False
    return True


def _follows_the_clocks(line: str) -> bool:
    """What cron(8) calls a wildcard job: changes of the clocks are not made good for it."""
    _second, minute, hour, *_rest = _parsed(line).parts
    return minute.startswith("*") or hour.startswith("*")


def _walls(line: str, start: datetime, *, backwards: bool = False) -> Iterator[datetime]:
    """The wall times that match, later (or earlier) than ``start``, as far as the calendar goes."""
    steps = CronSim(" ".join(fields_of(line)), start, reverse=backwards)
    while True:
        try:
            yield next(steps)
        except (StopIteration, OverflowError):
            return


def _instants(wall: datetime, zone: ZoneInfo, follows_the_clocks: bool) -> list[datetime]:
    """The slots that a matching wall time stands for: in a gap or an overlap not always one."""
    if not follows_the_clocks:
        instant = _instant(wall, zone)
        return [] if instant is None else [instant]
    try:
        shown = [_shown_at(wall, zone, fold) for fold in (0, 1)]
    except OverflowError:
        return []
    return sorted({instant for instant in shown if _wall(instant, zone) == wall})


def _cron_after(line: str, zone: ZoneInfo, after: datetime) -> datetime | None:
    """The first slot later than ``after``."""
    wildcard, wall = _follows_the_clocks(line), _wall(after, zone)
    set_back = max(-_change_around(after, zone), timedelta(0))
    first: datetime | None = None
    # Where clocks are set back, the second pass of an earlier wall time can come after the first pass of a later one.
    for match in _walls(line, _plus(wall, -set_back)):
        if first is not None and match > _plus(wall, set_back):
            break
        later = [instant for instant in _instants(match, zone, wildcard) if instant > after]
        first = min(later if first is None else [first, *later], default=None)
        if first is not None and not set_back:
            break
    return first


def _cron_at_or_before(line: str, zone: ZoneInfo, latest: datetime) -> datetime | None:
    """The last slot that is not later than ``latest``."""
    wildcard, wall = _follows_the_clocks(line), _wall(latest, zone)
    set_back = max(-_change_around(latest, zone), timedelta(0))
    last: datetime | None = None
    start = _plus(_plus(wall, set_back).replace(microsecond=0), SECOND)
    for match in _walls(line, start, backwards=True):
        if last is not None and match < _plus(wall, -set_back):
            break
        earlier = [instant for instant in _instants(match, zone, wildcard) if instant <= latest]
        last = max(earlier if last is None else [last, *earlier], default=None)
        if last is not None and not set_back:
            break
    return last


def _count_cron(line: str, zone: ZoneInfo, first: datetime, last: datetime) -> int:
    """How many slots are later than ``first`` and not later than ``last``.

    Whole days on which no clock is changed all have the same number of them; the rest is counted one by one.
    """
    parsed = _parsed(line)
    found, low, high = 0, first + TICK, _plus(last, TICK)
    while low < high:
        end = _day_end(low, zone)
        if end is None or end > high or not _is_plain_day(low, end, zone):
            end = high if end is None else min(end, high)
            found += len(_cron_one_by_one(line, zone, low, end))
        elif (day := _wall(low, zone)).month in parsed.months and parsed.match_day(day.date()):
            found += len(parsed.minutes) * len(parsed.hours)
        low = end
    return found


def _cron_between(line: str, zone: ZoneInfo, low: datetime, high: datetime) -> Iterator[datetime]:
    """The slots from ``low`` to before ``high``; on days on which no clock is changed they are the line's times."""
    parsed = _parsed(line)
    times = [
        timedelta(hours=hour, minutes=minute) for hour in sorted(parsed.hours) for minute in sorted(parsed.minutes)
    ]
    while low < high:
        end = _day_end(low, zone)
        start = None if end is None else end - DAY
        if start is None or end is None or not _is_plain_day(start, end, zone):
            end = high if end is None else min(end, high)
            yield from _cron_one_by_one(line, zone, low, end)
        elif (day := _wall(start, zone)).month in parsed.months and parsed.match_day(day.date()):
            yield from (slot for slot in (start + each for each in times) if low <= slot < high)
        low = end


def _cron_one_by_one(line: str, zone: ZoneInfo, low: datetime, high: datetime) -> list[datetime]:
    """The slots from ``low`` to before ``high``, which are a day apart at most, in order."""
    wildcard = _follows_the_clocks(line)
    margin = max(abs(_change_around(low, zone)), abs(_change_around(high, zone)))
    found: set[datetime] = set()
    for match in _walls(line, _plus(_wall(low, zone), -margin - SECOND)):
        if match > _plus(_wall(high, zone), margin):
            break
        found.update(instant for instant in _instants(match, zone, wildcard) if low <= instant < high)
    return sorted(found)


def _day_end(instant: datetime, zone: ZoneInfo) -> datetime | None:
    """The next midnight in the zone; None when it is out of the calendar."""
    day = _wall(instant, zone).date()
    while day < date.max:
        day += DAY
        midnight = _instant(datetime.combine(day, time()), zone)
        if midnight is None or midnight > instant:  # an overlap may show the end of a day twice
            return midnight
    return None


def _is_plain_day(start: datetime, end: datetime, zone: ZoneInfo) -> bool:
    """True for the 24 hours from a midnight to the next, when clocks were not changed at that midnight either."""
    wall = _wall(start, zone)
    return wall.time() == time() and end - start == DAY and _wall(start - TICK, zone) == wall - TICK
