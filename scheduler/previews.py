"""What a page shows of a file without a download: a picture, the first rows of a table, or the start of a text."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scheduler import pictures
from scheduler.logs import printable
from scheduler.sendfile import open_regular

if TYPE_CHECKING:
    from pathlib import Path

TEXT_BYTES = 64 * 1024
ROWS_AT_MOST = 100
COLUMNS_AT_MOST = 30
CELL_CHARACTERS = 200
PICTURE_BYTES = 20 * 1024**2
SEPARATORS = ",;\t|"
# With more of its characters unreadable a file is no text.
UNREADABLE_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Preview:
    """One of ``picture``, ``rows`` (the first of them are the headings) and ``text`` is there, or none."""

    size: int
    picture: pictures.Picture | None = None
    rows: list[list[str]] = field(default_factory=list)
    text: str = ""
    is_cut: bool = False
    """Whether there is more of it in the file."""
    is_too_large: bool = False
    """Whether it is a picture that is too large to be shown."""


def preview(path: Path, name: str) -> Preview | None:
    """Look into a file of the store; None when it is not there (any more). ``name`` says whether it is a table."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(pictures.HEAD_BYTES)
    except OSError:
        return None
    picture = pictures.recognise(head)
    if picture is not None:
        if picture.is_too_large or size > PICTURE_BYTES:
            return Preview(size, is_too_large=True)
        return Preview(size, picture=picture)
    text = _text(head[:TEXT_BYTES])
    if text is None:
        return Preview(size)
    is_cut = size > TEXT_BYTES
    if is_cut:
        text = text[: text.rfind("\n") + 1] or text
    if name.lower().endswith((".csv", ".tsv")):
        rows = _rows(text)
        return Preview(size, rows=rows[: ROWS_AT_MOST + 1], is_cut=is_cut or len(rows) > ROWS_AT_MOST + 1)
    return Preview(size, text=printable(text.replace("\r\n", "\n")), is_cut=is_cut)


def _text(head: bytes) -> str | None:
    if b"\0" in head:
        return None
    text = head.decode("utf-8-sig", "replace")
    return text if text.count("\ufffd") <= UNREADABLE_SHARE * len(text) + 1 else None


def _rows(text: str) -> list[list[str]]:
    first = text.partition("\n")[0]
    separator = max(SEPARATORS, key=first.count)
    rows: list[list[str]] = []
    for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator):
        if len(rows) > ROWS_AT_MOST + 1:
            break  # one more than are shown says that there are more
        rows.append([printable(cell[:CELL_CHARACTERS]) for cell in row[:COLUMNS_AT_MOST]])
    return rows
