"""By how much a start is put off: jitter, and the wait before a retry. Pure arithmetic."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

SECOND = timedelta(seconds=1)
# The longest wait that makes sense; also what keeps the arithmetic within what a timedelta can hold.
LONGEST = timedelta(days=366)


def jitter(schedule_id: int, slot: datetime, *, most_seconds: int) -> timedelta:
    """From 0 to ``most_seconds`` whole seconds: always the same for one slot, and spread evenly over many.

    Every poller computes the same, and an edit or a restart changes nothing.
    """
    if most_seconds <= 0:
        return timedelta(0)
    text = f"{schedule_id} {slot.astimezone(UTC).isoformat()}"
    digest = hashlib.sha256(text.encode("ascii")).digest()
    return SECOND * (int.from_bytes(digest[:8], "big") % (most_seconds + 1))


def retry_delay(attempt: int, *, base: timedelta, factor: float = 1.0, most: timedelta = LONGEST) -> timedelta:
    """The wait before a retry: ``base`` before the first (attempt 1), ``factor`` times as long before each later one.

    Never longer than ``most``. Raises ValueError for numbers that make no sense.
    """
    if attempt < 1 or base < timedelta(0) or most < timedelta(0) or not 1 <= factor < float("inf"):
        raise ValueError(f"no retry has attempt {attempt}, base {base}, factor {factor}, most {most}")
    most = min(most, LONGEST)
    if base >= most or not base:
        return min(base, most)
    try:
        times = factor ** (attempt - 1)
    except OverflowError:
        return most
    # Compared before it is multiplied: the product may be more than a timedelta can hold.
    return most if times >= most / base else base * times
