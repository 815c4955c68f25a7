"""Rules in words: a rule alone, and a whole schedule with the time of its anchor and its zone."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from django.utils.dates import WEEKDAYS
from django.utils.formats import date_format
from django.utils.text import get_text_list
from django.utils.translation import gettext, ngettext

from scheduler.recurrences import Cron, Every, Once, Rule, fields_of

if TYPE_CHECKING:
    from datetime import datetime
    from zoneinfo import ZoneInfo

SHORTEST_MONTH = 28
MOST_NAMED = 4  # times; more would be harder to read than the line
CRON_DAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")  # as date.weekday() counts them


def in_words(rule: Rule) -> str:
    """The rule for people, in the current language: “every 15 minutes”, “every Monday at 09:00”."""
    match rule:
        case Once():
            return gettext("once")
        case Every():
            return _every_in_words(rule.count, rule.unit)
        case Cron():
            return _cron_in_words(rule.line) or gettext("cron: %(line)s") % {"line": rule.line}


def _every_in_words(count: int, unit: str) -> str:
    if count == 1:
        return {
            "minutes": gettext("every minute"),
            "hours": gettext("every hour"),
            "days": gettext("every day"),
            "weeks": gettext("every week"),
            "months": gettext("every month"),
            "years": gettext("every year"),
        }[unit]
    return {
        "minutes": ngettext("every %(count)d minute", "every %(count)d minutes", count),
        "hours": ngettext("every %(count)d hour", "every %(count)d hours", count),
        "days": ngettext("every %(count)d day", "every %(count)d days", count),
        "weeks": ngettext("every %(count)d week", "every %(count)d weeks", count),
        "months": ngettext("every %(count)d month", "every %(count)d months", count),
        "years": ngettext("every %(count)d year", "every %(count)d years", count),
    }[unit] % {"count": count}


def _cron_in_words(line: str) -> str | None:
    """Words for the shapes that most lines have; None for the others, which would only become harder to read."""
    minute, hour, day, month, weekday = fields_of(line)
    if (day, month, weekday) == ("*", "*", "*"):
        within_a_day = _within_a_day_in_words(minute, hour)
        if within_a_day is not None:
            return within_a_day
    hours = hour.split(",")
    if not minute.isdigit() or len(hours) > MOST_NAMED or not all(each.isdigit() for each in hours):
        return None
    # In the order of the day, each once, as they will come.
    times = [f"{each:02}:{int(minute):02}" for each in sorted({int(each) for each in hours})]
    values: dict[str, object] = {"time": get_text_list(times, gettext("and")), "day": day}
    match day, month, weekday:
        case "*", "*", "*":
            return gettext("every day at %(time)s") % values
        case "*", "*", "1-5" | "MON-FRI":
            return gettext("every weekday at %(time)s") % values
        case "*", "*", _:
            values["weekdays"] = _weekdays_in_words(weekday)
            return gettext("every %(weekdays)s at %(time)s") % values if values["weekdays"] else None
        case "L", "*", "*":
            return gettext("on the last day of every month at %(time)s") % values
        case _, "*", "*" if day.isdigit():
            return gettext("on day %(day)s of every month at %(time)s") % {**values, "day": int(day)}
        case _, _, "*" if day.isdigit() and month.isdigit():
            date_in_words = date_format(date(2000, int(month), int(day)), "MONTH_DAY_FORMAT")
            return gettext("every year on %(date)s at %(time)s") % {**values, "date": date_in_words}
    return None


def _within_a_day_in_words(minute: str, hour: str) -> str | None:
    if hour == "*" and (step := _step(minute, 60)):
        return _every_in_words(step, "minutes")
    if minute == "0" and (step := _step(hour, 24)):
        return _every_in_words(step, "hours")
    if hour == "*" and minute.isdigit():
        return gettext("every hour at minute %(minute)d") % {"minute": int(minute)}
    return None


def _step(field: str, length: int) -> int | None:
    """N for ``*/N`` that divides the hour or the day (others start anew in each, so “every N” would be wrong)."""
    if field == "*":
        return 1
    step = field.removeprefix("*/")
    return int(step) if step != field and step.isdigit() and length % int(step) == 0 and int(step) < length else None


def _weekdays_in_words(field: str) -> str:
    """Names of the days that a list names, from Monday on; empty for ranges and steps."""
    days = set()
    for each in field.split(","):
        if each in CRON_DAYS:
            days.add(CRON_DAYS.index(each))
        elif each.isdigit():
            days.add((int(each) - 1) % 7)  # 0 and 7 are Sunday
        else:
            return ""
    return get_text_list([str(WEEKDAYS[day]) for day in sorted(days)], gettext("and"))


# A whole schedule


def schedule_in_words(rule: Rule, *, anchor: datetime, zone: ZoneInfo) -> str:
    """Such as “every weekday at 07:30, Europe/Amsterdam”, in the current language."""
    local = anchor.astimezone(zone)
    words = in_words(rule)
    match rule:
        case Once():
            words = gettext("once, on %(date)s at %(time)s") % _values(words, local)
        case Every():
            words = _every(rule, words, local)
        case Cron():
            pass  # the line says the time
    return gettext("%(words)s, %(zone)s") % {"words": words, "zone": zone.key}


def _every(rule: Every, words: str, local: datetime) -> str:
    # “rule” is what in_words() says, such as “every 2 weeks”.
    values = _values(words, local)
    match rule.unit:
        case "days":
            text = gettext("%(rule)s at %(time)s")
        case "weeks":
            text = gettext("%(rule)s on %(weekday)s at %(time)s")
        case "months" if local.day > SHORTEST_MONTH:
            text = gettext("%(rule)s on day %(day)s (or the month's last) at %(time)s")
        case "months":
            text = gettext("%(rule)s on day %(day)s at %(time)s")
        case "years" if (local.month, local.day) == (2, 29):
            text = gettext("%(rule)s on the last day of February at %(time)s")
        case "years":
            text = gettext("%(rule)s on %(month_and_day)s at %(time)s")
        case _:  # elapsed time: no time of the day is kept
            text = gettext("%(rule)s, counted from %(date)s at %(time)s")
    return text % values


def _values(words: str, local: datetime) -> dict[str, object]:
    return {
        "rule": words,
        "time": f"{local:%H:%M:%S}" if local.second else f"{local:%H:%M}",
        "date": date_format(local, "DATE_FORMAT"),
        "month_and_day": date_format(local, "MONTH_DAY_FORMAT"),
        "weekday": date_format(local, "l"),
        "day": local.day,
    }
