"""How instants, durations and texts of programs look on the scheduler's pages."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from django import template
from django.apps import apps
from django.template.loader import render_to_string
from django.utils import formats, timezone
from django.utils.html import format_html, format_html_join
from django.utils.translation import get_language, gettext, ngettext, pgettext

from scheduler.logs import printable
from scheduler.states import Status

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime, timedelta, tzinfo

    from django.utils.safestring import SafeString

    from scheduler.models import Run
    from scheduler.preview import Slot
    from scheduler.views.charts import Bar, Span

register = template.Library()


@register.simple_tag
def themed_by_unfold() -> bool:
    """Whether the admin around the scheduler's pages is django-unfold's: its style sheets replace Django's."""
    return apps.is_installed("unfold")


@register.filter
def instant(value: datetime | None) -> SafeString | str:
    """A date and time in the current zone, which a pointer or a screen reader finds out about."""
    if value is None:
        return ""
    return _instant(value, timezone.get_current_timezone(), get_language() or "")


# A page that is followed shows the same instants and the same words every few seconds.
@lru_cache(maxsize=5000)
def _instant(value: datetime, zone: tzinfo, _language: str) -> SafeString:
    local = timezone.localtime(value, zone)
    name = f"{zone} ({local:%Z}, UTC{local:%z})"
    full = formats.date_format(local, pgettext("date format", "l j F Y, H:i:s"))
    shown = formats.date_format(local, "Y-m-d H:i:s")
    return format_html('<time datetime="{}" title="{} {}">{}</time>', local.isoformat(), full, name, shown)


@register.simple_tag
def status_of(status: str, words: str, unconfirmed: str = "") -> SafeString:
    """A run's status as icon, word and colour."""
    return _status(status, words, bool(unconfirmed))


@lru_cache(maxsize=500)
def _status(status: str, words: str, unconfirmed: bool) -> SafeString:
    shown = {"status": status, "get_status_display": words}
    return render_to_string("scheduler/_status.html", {"run": shown, "row": {"unconfirmed": unconfirmed}})


@register.filter
def duration(value: timedelta | None) -> str:
    """The two biggest units of a duration, such as “3 min 20 s”."""
    if value is None:
        return ""
    seconds = value.total_seconds()
    if seconds < 10:
        return gettext("%(seconds)s s") % {"seconds": formats.number_format(round(seconds, 1), 1)}
    return _in_units(round(seconds))


def _in_units(whole: int) -> str:
    return _units_of(whole, get_language() or "")


@lru_cache(maxsize=5000)
def _units_of(whole: int, _language: str) -> str:
    days, rest = divmod(whole, 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, seconds = divmod(rest, 60)
    parts = [
        (days, ngettext("%(n)d day", "%(n)d days", days)),
        (hours, gettext("%(n)d h")),
        (minutes, gettext("%(n)d min")),
        (seconds, gettext("%(n)d s")),
    ]
    first = next((index for index, (count, _text) in enumerate(parts) if count), 3)
    return " ".join(text % {"n": count} for count, text in parts[first : first + 2] if count or whole == 0)


@register.filter
def countdown(instant: datetime, now: datetime) -> SafeString:
    """The time until an instant; clock.js counts it down."""
    return _ticking("until", instant, instant - now)


@register.filter
def stopwatch(instant: datetime, now: datetime) -> SafeString:
    """The time since an instant; clock.js counts it up."""
    return _ticking("since", instant, now - instant)


def _ticking(kind: str, instant: datetime, time: timedelta) -> SafeString:
    return format_html(
        '<span data-{}="{}">{}</span>', kind, instant.isoformat(), _in_units(max(int(time.total_seconds()), 0))
    )


@register.simple_tag
def units() -> str:
    """Hours, minutes and seconds as ``duration`` writes them, for clock.js."""
    texts = (gettext("%(n)d h"), gettext("%(n)d min"), gettext("%(n)d s"))
    return "|".join(text.replace("%(n)d", "{n}") for text in texts)


@register.filter
def as_sentence(value: object) -> str:
    """``one_line``, with a full stop where the text does not end in a mark of its own."""
    text = one_line(value).rstrip()
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


@register.filter(name="printable")
def printable_filter(value: object) -> str:
    """A text that a program or a person gave, without anything that acts on the page around it."""
    return printable(str(value)).replace("\r", "\u240d")


@register.filter
def one_line(value: object) -> str:
    """``printable``, with line breaks as signs, too."""
    return printable_filter(value).replace("\n", "\u240a").replace("\t", "\u2409")


@register.filter
def unlocalized(value: float) -> str:
    """A number as SVG reads it, whatever the language."""
    return f"{value:g}"


@register.filter
def in_its_zone(slot: Slot) -> SafeString:
    """When a slot is, as the clocks of its own schedule show it, with their zone."""
    local = slot.local
    shown = formats.date_format(local, "D Y-m-d H:i:s" if local.second else "D Y-m-d H:i")
    return format_html('<time datetime="{}">{}</time> {}', local.isoformat(), shown, slot.zone.key)


@register.filter
def drawn(bars: Iterable[Bar]) -> SafeString:
    """The bars of a chart as SVG: links with titles. Not by a template, as there may be a thousand of them."""
    return format_html_join(
        "",
        '<a href="{}" aria-label="{}"><title>{}</title>'
        '<rect class="bar bar-{}" x="{}" y="{}" width="{}" height="{}"></rect></a>',
        (
            (
                bar.url,
                bar.title,
                bar.title,
                bar.run.status,
                *map(unlocalized, (bar.x, bar.y, bar.width, bar.height)),
            )
            for bar in bars
        ),
    )


@register.filter
def listed(spans: Iterable[Span]) -> SafeString:
    """The runs of a timeline as the rows of a table, with times in the current zone; not by a template, either."""
    return format_html_join(
        "",
        '<tr><th scope="row"><a href="{}">#{}</a></th><td><bdi>{}</bdi></td><td>{}</td><td>{}</td>'
        '<td>{}</td><td>{}</td><td class="number">{}</td></tr>',
        (
            (
                span.url,
                span.run.pk,
                one_line(span.run.task.name),
                one_line(span.run.host_name),
                status_word(span.run.status),
                _clock(span.start),
                _clock(span.end) if span.ran and span.run.finished_at else "",
                duration(span.end - span.start) if span.ran else "",
            )
            for span in spans
        ),
    )


def _clock(value: datetime) -> str:
    return f"{timezone.localtime(value):%Y-%m-%d %H:%M:%S}"


def status_word(status: str) -> str:
    """A status in the current language. Of a hundred runs, get_status_display() takes longer than all the rest."""
    return _status_word(status, get_language() or "")


@lru_cache(maxsize=500)
def _status_word(status: str, _language: str) -> str:
    return str(Status(status).label)


def run_title(run: Run) -> str:
    """What a run's bar in a chart says: which run, how it ended, from when to when."""
    name = one_line(run.task.name)
    start, end = run.started_at, run.finished_at
    status = status_word(run.status)
    if start is None:
        at = timezone.localtime(run.slot_at or run.due_at)
        text = gettext("#%(id)s %(task)s: %(status)s, %(time)s")
        return text % {"id": run.pk, "task": name, "status": status, "time": f"{at:%H:%M:%S}"}
    values = {
        "id": run.pk,
        "task": name,
        "status": status,
        "start": f"{timezone.localtime(start):%H:%M:%S}",
    }
    if end is None:
        return gettext("#%(id)s %(task)s: %(status)s since %(start)s") % values
    values |= {"end": f"{timezone.localtime(end):%H:%M:%S}", "time": duration(end - start)}
    return gettext("#%(id)s %(task)s: %(status)s, %(start)s to %(end)s (%(time)s)") % values
