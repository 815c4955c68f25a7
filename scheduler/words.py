"""A whole schedule in words: what ``recurrences.in_words`` says of its rule, with the anchor's time and the zone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.utils.formats import date_format
from django.utils.translation import gettext

from scheduler.recurrences import Cron, Every, Once, Rule, in_words

if TYPE_CHECKING:
    from datetime import datetime
    from zoneinfo import ZoneInfo

SHORTEST_MONTH = 28


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
