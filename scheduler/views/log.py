"""A run's log: the part of its page that shows a window of it, and what a script asks for while it follows."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.http import HttpResponseBadRequest, JsonResponse
from django.urls import reverse
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext
from django.views.decorators.http import require_safe

from scheduler import logs, outputs
from scheduler.ansi import CODES_BYTES, Pen, paint

from . import keyset
from .gate import require, staff_data, visible_run

if TYPE_CHECKING:
    from pathlib import Path

    from django.http import HttpRequest, HttpResponseBase

    from scheduler.logs import Line, Window
    from scheduler.models import Run

FIND_CHARACTERS = 200
SEARCH_BYTES = logs.SEARCH_BYTES


@staff_data
@require_safe
def follow(request: HttpRequest, pk: int) -> HttpResponseBase:
    """JSON: the lines from ``?offset=`` on as HTML, where the next ones start, and whether there are more.

    ``?codes=`` says in which colours the line before it has left off.
    """
    run = visible_run(request, pk)
    require(request, "view_output", run.task)
    offset = keyset.number(request.GET.get("offset", "0"))
    if offset is None:
        return HttpResponseBadRequest(gettext("“offset” must be a whole number of bytes."), content_type="text/plain")
    window = logs.after(outputs.log_path(run), offset, is_over=run.is_finished)
    if window is None:
        return JsonResponse({"lines": "", "unended": "", "offset": 0, "size": 0, "finished": run.is_finished})
    pen = Pen()
    pen.obey(request.GET.get("codes", "")[:CODES_BYTES] or "0")
    return JsonResponse(
        {
            **_painted(window, pen),
            "codes": pen.codes,
            "offset": window.end,
            "size": window.size,
            "more": not window.is_last,
            "finished": run.is_finished and window.is_last,
        }
    )


def section(request: HttpRequest, run: Run) -> dict[str, Any]:
    """What the log's part of the page shows, as the address asks for it.

    ``at=`` a percentage or a number of bytes, ``before=`` or ``after=`` a number of bytes, ``find=`` a text, ``error=``
    the place from where to look for one; without any of them the end of the log.
    """
    path, given = outputs.log_path(run), request.GET
    size = logs.size(path)
    text = given.get("find", "")[:FIND_CHARACTERS].strip()
    shown: dict[str, Any] = {"find": text, "run": run, "page": run.get_absolute_url(), "size": size}
    if not size:
        return shown | _window(run, None)
    if "at" in given:
        return shown | _at(run, path, size, given["at"], text)
    if "error" in given:
        return shown | _error(run, path, size, keyset.number(given["error"]) or 0)
    if text:
        return shown | _matches(path, size, text, keyset.number(given.get("from", "")) or 0)
    if (offset := keyset.number(given.get("after", ""))) is not None:
        return shown | _window(run, logs.after(path, offset, is_over=run.is_finished))
    if (offset := keyset.number(given.get("before", ""))) is not None:
        return shown | _window(run, logs.before(path, offset))
    return shown | _tail(run, path)


def _tail(run: Run, path: Path) -> dict[str, Any]:
    return _window(run, logs.tail(path)) | {"later": None, "is_tail": True, "follow": not run.is_finished}


def _at(run: Run, path: Path, size: int, given: str, text: str) -> dict[str, Any]:
    offset = _place(given, size)
    found = logs.around(path, offset, is_over=run.is_finished) if offset is not None else None
    if found is None:
        note = gettext("“%(given)s” is no place in the log. Give a percentage such as 50 %%, or a number of bytes.")
        return _tail(run, path) | {"note": note % {"given": logs.printable(given[:50])}, "at": given[:50]}
    window, target = found
    return _window(run, window, target=target, marked=text) | {"at": given[:50], "back": _query(find=text)}


def _error(run: Run, path: Path, size: int, start: int) -> dict[str, Any]:
    search = logs.find_error(path, start, limit=SEARCH_BYTES)
    found = logs.around(path, search.matches[0].offset, is_over=run.is_finished) if search and search.matches else None
    words = {"words": ", ".join(f"“{word}”" for word in logs.ERRORS)}
    if search is None or found is None:
        on = search.next_offset if search else None
        if on is None:
            note = gettext("No line has one of these words: %(words)s.") if not start else gettext("No further error.")
        else:
            note = gettext("No line up to %(percent)s %% of the log has one of these words: %(words)s.")
        values = words | {"percent": _percent(on or size, size)}
        return _tail(run, path) | {"note": note % values, "go_on": _query(error=on) if on is not None else None}
    window, target = found
    note = gettext("A line with one of these words: %(words)s.") % words
    following = _query(error=search.next_offset) if search.next_offset is not None else None
    return _window(run, window, target=target) | {"note": note, "next_error": following}


def _matches(path: Path, size: int, text: str, start: int) -> dict[str, Any]:
    search = logs.find(path, text, start, limit=SEARCH_BYTES)
    matches = [
        {
            "query": _query(at=match.offset, find=text),
            "percent": _percent(match.offset, size),
            **{part: logs.printable(getattr(match, part)).strip("\r") for part in ("before", "found", "behind")},
        }
        for match in (search.matches if search else ())
    ]
    on = search.next_offset if search else None
    return {
        "matches": matches,
        "searched_from": _percent(start, size) if start else None,
        "searched_to": _percent(on, size) if on is not None else None,
        "go_on": _query(find=text, **{"from": on}) if on is not None else None,
        "is_empty": not matches and on is None,
    }


def _window(run: Run, window: Window | None, *, target: int | None = None, marked: str = "") -> dict[str, Any]:
    shown: dict[str, Any] = {"url": reverse("scheduler:run-log", args=[run.pk]), "offset": 0, "follow": False}
    if window is None:
        return shown | {"follow": not run.is_finished}
    pen = Pen()
    shown |= _painted(window, pen, target=target, marked=marked)
    return shown | {
        "codes": pen.codes,
        "offset": window.end,
        "earlier": _query(before=window.start) if window.start else None,
        "later": None if window.is_last else _query(after=window.end),
        "from_percent": _percent(window.start, window.size),
        "to_percent": _percent(window.size if window.is_last else window.end, window.size),
        "is_whole": window.is_last and not window.start,
    }


def _painted(window: Window, pen: Pen, *, target: int | None = None, marked: str = "") -> dict[str, SafeString]:
    lines = mark_safe("".join(_line(line, pen, target=target, marked=marked) for line in window.lines))  # noqa: S308
    if window.unended is None:
        return {"lines": lines, "unended": mark_safe("")}
    # It is painted anew when it has grown: the pen stays where the line begins.
    return {"lines": lines, "unended": paint(window.unended.text, replace(pen, flags={*pen.flags}), marked=marked)}


def _line(line: Line, pen: Pen, *, target: int | None, marked: str) -> str:
    classes = "line target" if line.offset == target else "line"
    text, before, behind = line.text, "", ""
    if b"\r" in line.data and not (line.is_start and line.is_end):
        # A progress bar without end: only whole states of it are shown, each in place of the one before.
        text = text if line.is_end else text.rpartition("\r")[0]
        classes += "" if line.is_start else " over"
    else:
        before = "" if line.is_start else gettext("[the line began earlier] ")
        behind = "" if line.is_end else gettext(" [the line is longer]")
    shown = f"{escape(before)}{paint(text, pen, marked=marked)}{escape(behind)}"
    # By hand: format_html() would be most of the time that a page needs.
    return f'<span class="{classes}" id="b{line.offset}">{shown}\n</span>'


def _query(**parameters: object) -> str:
    """What leads to another place in the log, from the run's page; empty when nothing is asked for."""
    given = {name: value for name, value in parameters.items() if value != ""}
    return f"?{urlencode(given)}#log" if given else ""


def _place(given: str, size: int) -> int | None:
    """Bytes from the start: of a number of bytes, or of a percentage."""
    text = given.strip().replace(",", ".")
    if not text.endswith("%"):
        return keyset.number(text)
    try:
        share = float(text.removesuffix("%").strip())
    except ValueError:
        return None
    return int(size * share / 100) if 0 <= share <= 100 else None


def _percent(offset: int, size: int) -> str:
    return f"{100 * offset / size:.1f}" if size else "0"
