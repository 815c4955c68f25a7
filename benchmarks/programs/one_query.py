"""The task that every system runs (see benchmarks/work.py), as a program of the scheduler."""

import time

FIRST = time.clock_gettime(time.CLOCK_MONOTONIC)

from scheduler.task import run  # noqa: E402, I001  (sets Django up where it is not)
from django.contrib.auth.models import User  # noqa: E402

User.objects.filter(username="nobody").exists()
with open(run.arguments[0], "a", encoding="ascii") as file:  # noqa: PTH123  (as little as possible is imported)
    file.write(f"{FIRST} {time.clock_gettime(time.CLOCK_MONOTONIC)}\n")
