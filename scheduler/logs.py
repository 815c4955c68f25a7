"""Reading logs for people: a part at a time, and with nothing in them that acts on a terminal or a page."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scheduler.sendfile import open_regular

if TYPE_CHECKING:
    from pathlib import Path

TAIL_BYTES = 64 * 1024
PART_BYTES = 256 * 1024
# An escape sequence that is not complete after this many bytes is shown as it is.
LONGEST_ESCAPE = 256

# ECMA-48: control sequences (7-bit and 8-bit), strings such as window titles and links, other escapes.
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"
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
class Part:
    """A part of a log: its text, where the next part starts, and how long the log is now (both in bytes)."""

    text: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a log: whole lines, the line that is not ended yet, and where that line starts (in bytes)."""

    lines: str
    unended: str
    offset: int
    size: int
    cut: bool


def printable(text: str) -> str:
    """The text without escape sequences; other control characters and bidi marks become visible signs.

    Tabs, newlines and carriage returns stay.
    """
    return _ESCAPES.sub("", text).translate(_SHOWN)


def overwrite(text: str) -> str:
    """Carriage returns as a terminal shows them: what follows one stands in place of the line so far."""
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)


def read_tail(path: Path, limit: int = TAIL_BYTES) -> Tail | None:
    """The last lines of a log, in at most ``limit`` bytes; None when there is no log."""
    found = _read_end(path, limit)
    if found is None:
        return None
    data, size = found
    start = size - len(data)
    cut = start > 0
    if cut and (first := data.find(b"\n") + 1):
        data, start = data[first:], start + first
    whole = data.rfind(b"\n") + 1
    if not whole and len(data) >= limit:
        # One endless line: show what there is and go on behind it.
        return Tail(overwrite(printable(_decode(data))), "", size, size, cut)
    lines, unended = data[:whole], data[whole:]
    return Tail(overwrite(printable(_decode(lines))), overwrite(printable(_decode(unended))), start + whole, size, cut)


def read_part(path: Path, offset: int, *, ended: bool, limit: int = PART_BYTES) -> Part | None:
    """At most ``limit`` bytes from ``offset`` on, without the start of a character or escape that is not complete yet.

    ``ended``: nothing will be written any more, so that nothing is held back at the end. None when there is no log.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(offset)
            data = file.read(max(0, min(limit, size - offset)))
    except OSError:
        return None
    if not (ended and offset + len(data) >= size):
        data = _complete(data)
    return Part(printable(_decode(data)), offset + len(data), size)


def _read_end(path: Path, limit: int) -> tuple[bytes, int] | None:
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - limit))
            return file.read(min(limit, size)), size
    except OSError:
        return None


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _complete(data: bytes) -> bytes:
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
