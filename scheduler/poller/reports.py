"""Reading what a task reports: JSON lines with messages and progress, appended by a program that is not trusted."""

from __future__ import annotations

import json
import math
import os
import stat
from dataclasses import dataclass, field
from typing import Any

ROUND_BYTES = 1024 * 1024
LINE_BYTES = 64 * 1024
ALL_BYTES = 64 * 1024 * 1024
MESSAGE_CHARACTERS = 10_000
LABEL_CHARACTERS = 200


@dataclass(slots=True)
class Reports:
    """What was read in one round."""

    offset: int
    messages: list[str] = field(default_factory=list)
    progress: dict[str, Any] | None = None
    is_dropping: bool = False
    """The program has reported more than is read; nothing is read any more."""
    is_partial: bool = False
    """There is more to read in another round."""


def read_reports(path: str, offset: int) -> Reports:
    """Read at most 1 MB of complete lines from an offset (in bytes) on. Raises OSError when the file cannot be read."""
    if offset >= ALL_BYTES:
        return Reports(offset)
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size <= offset:
            return Reports(offset)
        data = os.pread(descriptor, ROUND_BYTES, offset)
    finally:
        os.close(descriptor)
    end = data.rfind(b"\n") + 1
    if not end:
        # A line that is not complete yet; one that is too long is passed over.
        end = len(data) if len(data) > LINE_BYTES else 0
    reports = Reports(offset + end, is_partial=found.st_size > offset + end > offset)
    for line in data[:end].splitlines():
        if 0 < len(line) <= LINE_BYTES:
            _take(line, reports)
    reports.is_dropping = reports.offset >= ALL_BYTES
    return reports


def _take(line: bytes, reports: Reports) -> None:
    try:
        report = json.loads(line)
    except (ValueError, RecursionError):
        return
    if not isinstance(report, dict):
        return
    message = report.get("message")
    if isinstance(message, str) and message.strip():
        reports.messages.append(storable(message)[:MESSAGE_CHARACTERS])
    if (done := _number(report.get("progress"))) is not None:
        label = report.get("label")
        clean = storable(label) if isinstance(label, str) else ""
        reports.progress = {
            "progress_done": done,
            "progress_total": _number(report.get("total")),
            "progress_label": clean[:LABEL_CHARACTERS],
        }


def storable(text: str) -> str:
    """A text as databases take it: NUL cannot be stored in PostgreSQL, a lone surrogate cannot be encoded."""
    return text.replace("\0", "").encode(errors="replace").decode()


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
