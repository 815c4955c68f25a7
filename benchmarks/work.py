"""The task that every system runs: note when its first line was reached, ask one query, note when that was done."""

from __future__ import annotations

import time


def one_query(path: str) -> None:
    """Append a line to the file: when the task's code began, and when its query was answered (CLOCK_MONOTONIC)."""
    first = time.clock_gettime(time.CLOCK_MONOTONIC)
    from django.contrib.auth.models import User

    User.objects.filter(username="nobody").exists()
    with open(path, "a", encoding="ascii") as file:  # noqa: PTH123  (as little as possible is imported)
        file.write(f"{first} {time.clock_gettime(time.CLOCK_MONOTONIC)}\n")
