"""Reading logs for people: a window at a time, however long the log is, and searching in them within a budget.

Nothing here reads a whole log: a window is at most ``WINDOW_BYTES``, a search stops at its budget and says where.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scheduler.sendfile import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WINDOW_BYTES = 64 * 1024
WINDOW_LINES = 2000
CONTEXT_BYTES = 1500  # before a line that is jumped to
SEARCH_BYTES = 256 * 1024**2
SEARCH_SECONDS = 1.0
SEARCH_CHUNK = 1024**2
MATCHES_AT_MOST = 100
EXCERPT_BYTES = 200  # before and behind a match
# What the first error is taken for: a line in which one of these ends a word, such as "ValueError:" or "[ERROR]".
ERRORS = ("traceback", "error", "critical", "fatal")
# An escape sequence that is not complete after this many bytes is shown as it is.
LONGEST_ESCAPE = 256

# ECMA-48: control sequences (7-bit and 8-bit), strings such as window titles and links, other escapes. The first group
# are the parameters of "select graphic rendition": colours and the like.
ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)([0-9;:]*)m"
    r"|\x1b\[[0-?]*[ -/]*[@-~]"
    r"|\x9b[0-?]*[ -/]*[@-~]"
    r"|\x1b[\]PX^_][^\x07\x1b\n]{0,2048}(?:\x07|\x1b\\)"
    r"|\x1b[ -/]*[0-~]"
)
_UNFINISHED_ESCAPE = re.compile(rb"\x1b(?:[\]PX^_][^\x07\x1b\n]*\x1b?|\[[0-?]*[ -/]*|[ -/]*)\Z")
_SHOWN: dict[int, str] = {
    **{code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\t\n\r"},
    0x7F: "\u2421",
    # C1 controls, separators of lines, and the marks that turn the direction of the text round
    **{
        code: f"<U+{code:04X}>"
        for code in (
            *range(0x80, 0xA0),
            0x061C,
            0x200E,
            0x200F,
            0x2028,
            0x2029,
            *range(0x202A, 0x202F),
            *range(0x2066, 0x206A),
        )
    },
}


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a log without its end, or a part of one that is too long for a window."""

    offset: int
    """Where it starts, in bytes."""
    data: bytes
    is_start: bool = True
    """Whether it is the line's beginning; else the line goes on here."""
    is_end: bool = True
    """Whether the line ends here; else it goes on in the next window, or is not ended yet."""

    @property
    def text(self) -> str:
        """Its text with all escape sequences; bytes that are no UTF-8 are replaced."""
        return self.data.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Window:
    """Some lines of a log that follow one another."""

    lines: list[Line]
    unended: Line | None
    """The last line of the log, which the program has not ended yet; not one of ``lines``."""
    start: int
    end: int
    """Where the next window starts: at the line that is not ended yet, or behind the lines."""
    size: int
    """How long the log is now, in bytes."""
    is_last: bool
    """Whether it reaches to the end of the log, as it is now."""


@dataclass(frozen=True, slots=True)
class Match:
    """A place where a search has found something, with what stands around it in the same line."""

    offset: int
    before: str
    found: str
    behind: str


@dataclass(frozen=True, slots=True)
class Search:
    """What was found; ``next_offset`` is where to look on, None when there is nothing left to look at."""

    matches: list[Match]
    next_offset: int | None
    size: int


def printable(text: str) -> str:
    """The text without escape sequences; other control characters and bidi marks become visible signs.

    Tabs, newlines and carriage returns stay.
    """
    if text.isprintable():
        return text  # most lines, and much faster
    return ESCAPES.sub("", text).translate(_SHOWN)


def overwritten(line: str) -> tuple[str, str]:
    """The part of a line that a terminal does not show any more, and the part that it shows.

    What follows a carriage return stands in place of the line so far.
    """
    hidden, _, seen = line.rstrip("\r").rpartition("\r")
    return hidden, seen


# Windows


def size(path: Path) -> int | None:
    """How long a log is, in bytes; None when there is no log."""
    with _opened(path) as log:
        return log.size if log else None


def tail(path: Path, *, limit: int = WINDOW_BYTES) -> Window | None:
    """The last lines of a log; None when there is no log."""
    with _opened(path) as log:
        return _window_to(log, log.size, limit) if log else None


def before(path: Path, offset: int, *, limit: int = WINDOW_BYTES) -> Window | None:
    """The lines that end at an offset; None when there is no log."""
    with _opened(path) as log:
        return _window_to(log, min(offset, log.size), limit) if log else None


def after(path: Path, offset: int, *, is_over: bool, limit: int = WINDOW_BYTES) -> Window | None:
    """The lines from an offset on; None when there is no log.

    ``is_over``: nothing will be written any more. Else the last line may not be ended yet, and what may be a part of a
    character or of an escape sequence is held back.
    """
    with _opened(path) as log:
        return _window_from(log, min(offset, log.size), limit, is_over=is_over) if log else None


def around(path: Path, offset: int, *, is_over: bool, limit: int = WINDOW_BYTES) -> tuple[Window, int] | None:
    """The lines around an offset, and where the line starts in which it lies; None when there is no log."""
    with _opened(path) as log:
        if log is None:
            return None
        offset = max(0, min(offset, log.size - 1))
        begin = max(0, offset - limit // 2)
        data = log.read(begin, offset - begin)
        line = data.rfind(b"\n") + 1
        if begin and not line:
            return _window_from(log, offset, limit, is_over=is_over), offset  # inside of an endless line
        start = max(0, line - CONTEXT_BYTES)
        if begin or start:
            start = data.find(b"\n", start) + 1
        return _window_from(log, begin + start, limit, is_over=is_over), begin + line


@dataclass(frozen=True, slots=True)
class _Log:
    descriptor: int
    size: int

    def read(self, offset: int, count: int) -> bytes:
        return os.pread(self.descriptor, max(0, min(count, self.size - offset)), offset)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[_Log | None]:
    try:
        file = open_regular(path)
    except OSError:
        yield None
        return
    with file:
        yield _Log(file.fileno(), os.fstat(file.fileno()).st_size)


def _window_to(log: _Log, end: int, limit: int) -> Window:
    start = max(0, end - limit)
    data = log.read(start, end - start)
    if start and (first := data.find(b"\n") + 1):
        data, start = data[first:], start + first
    lines = _lines(log, start, data)[-WINDOW_LINES:]
    is_last = end == log.size
    unended = None
    # The end of an endless line is no line that could be read anew when it has grown.
    if is_last and lines and not lines[-1].is_end and lines[-1].is_start:
        unended = lines.pop()
        end = unended.offset
    return Window(lines, unended, lines[0].offset if lines else start, end, log.size, is_last)


def _window_from(log: _Log, start: int, limit: int, *, is_over: bool) -> Window:
    data = log.read(start, limit)
    is_last = start + len(data) >= log.size
    if not is_last:
        data = _complete(data) or data
    elif not is_over:
        data = _complete(data)
    lines, end = _lines(log, start, data), start + len(data)
    if len(lines) > WINDOW_LINES:
        return Window(lines[:WINDOW_LINES], None, start, lines[WINDOW_LINES].offset, log.size, False)
    is_part = len(lines) == 1 and not is_last
    if not lines or lines[-1].is_end or is_part or (is_last and is_over):
        return Window(lines, None, start, end, log.size, is_last)
    last = lines.pop()
    return Window(lines, last if is_last else None, start, last.offset, log.size, is_last)


def _lines(log: _Log, start: int, data: bytes) -> list[Line]:
    is_start = not start or log.read(start - 1, 1) == b"\n"
    found = []
    *whole, last = data.split(b"\n")
    for text in whole:
        found.append(Line(start, text, is_start, True))
        start, is_start = start + len(text) + 1, True
    if last:
        found.append(Line(start, last, is_start, False))
    return found


def _complete(data: bytes) -> bytes:
    """Without the start of a character or of an escape sequence that is not complete yet."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte & 0b1100_0000 == 0b1000_0000:
            continue  # inside a character: its first byte says how long it is
        length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        if length > back:
            data = data[:-back]
        break
    escape = _UNFINISHED_ESCAPE.search(data, max(0, len(data) - LONGEST_ESCAPE))
    return data[: escape.start()] if escape else data


# Searching


def find(path: Path, text: str, start: int = 0, *, limit: int = SEARCH_BYTES) -> Search | None:
    """The first places from an offset on where a text stands, at most one a line; None when there is no log.

    Capital and small letters are the same (of ASCII: bytes are compared). Colours inside the text keep it from being
    found.
    """
    wanted = text.encode().lower()
    with _opened(path) as log:
        if log is None:
            return None
        places, next_offset = _scan(log, [wanted], start, at_most=MATCHES_AT_MOST, limit=limit)
        return Search([_match(log, place, len(wanted)) for place in places], next_offset, log.size)


def find_error(path: Path, start: int = 0, *, limit: int = SEARCH_BYTES) -> Search | None:
    """The first line from an offset on that tells of an error (see ``ERRORS``); None when there is no log."""
    words = [word.encode() for word in ERRORS]
    with _opened(path) as log:
        if log is None:
            return None
        places, next_offset = _scan(log, words, start, at_most=1, limit=limit, is_word=True)
        return Search([_match(log, place, 0) for place in places], next_offset, log.size)


def _scan(
    log: _Log, wanted: list[bytes], start: int, *, at_most: int, limit: int, is_word: bool = False
) -> tuple[list[int], int | None]:
    """Where one of the texts stands, and where to look on, if there is more to look at."""
    deadline = time.monotonic() + SEARCH_SECONDS
    found: list[int] = []
    position, stop = start, start + limit
    overlap = max(map(len, wanted))  # what begins here may end in the next chunk
    while position < log.size:
        if position >= stop or (position > start and time.monotonic() >= deadline):
            return found, position
        data = log.read(position, min(SEARCH_CHUNK, stop - position + overlap)).lower()
        is_last = position + len(data) >= log.size
        room = len(data) if is_last else len(data) - overlap
        here = 0
        while (place := _first(data, wanted, here, room, is_word=is_word)) is not None:
            found.append(position + place)
            line_end = data.find(b"\n", place, place + EXCERPT_BYTES)
            here = line_end + 1 if line_end >= 0 else place + EXCERPT_BYTES
            if len(found) == at_most:
                return found, position + here
        position += max(room, here)
    return found, None


def _first(data: bytes, wanted: list[bytes], here: int, room: int, *, is_word: bool) -> int | None:
    """The first place before ``room`` where one of the texts begins; with ``is_word`` it has to end a word."""
    best = room
    for text in wanted:
        place = data.find(text, here, best + len(text) - 1)
        while is_word and place >= 0 and _goes_on(data, place + len(text)):
            place = data.find(text, place + 1, best + len(text) - 1)
        if place >= 0:
            best = place
    return best if best < room else None


def _goes_on(data: bytes, place: int) -> bool:
    return data[place : place + 1].isalnum() or data[place : place + 1] == b"_"


def _match(log: _Log, place: int, length: int) -> Match:
    begin = max(0, place - EXCERPT_BYTES)
    data = log.read(begin, place - begin + length + EXCERPT_BYTES)
    place_in = place - begin
    parts = (
        data[:place_in].rpartition(b"\n")[2],
        data[place_in : place_in + length],
        data[place_in + length :].partition(b"\n")[0],
    )
    return Match(place, *(part.decode("utf-8", "ignore") for part in parts))
