"""Running every task of the demo to its end, and comparing what happened with what should."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
from django.contrib.auth import get_user_model
from django.utils import timezone

from demo.contents import SAMPLES, Sample
from scheduler.models import Run, Task

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime, timedelta

LOOK_EVERY_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one task's run."""

    sample: Sample
    run: Run
    files: int

    @property
    def problem(self) -> str:
        """What differs from what should be, in a few words; empty when all is well."""
        wanted = Run.Status.FAILED if self.sample.fails else Run.Status.COMPLETED
        if self.run.status != wanted:
            return f"expected {wanted.label}"
        if self.sample.fails and self.run.reason != Run.Reason.EXIT_CODE:
            return "expected a failure of its own"
        if self.files < self.sample.files:
            return f"expected {self.sample.files} files or more"
        return ""

    @property
    def seconds(self) -> float | None:
        elapsed = self.run.elapsed(timezone.now())
        return elapsed.total_seconds() if elapsed is not None else None


def queue_all(now: datetime) -> dict[int, Sample]:
    """Queue one run of every sample task; run id -> its sample."""
    admin = get_user_model().objects.get(username="admin")
    queued: dict[int, Sample] = {}
    for sample in SAMPLES:
        arguments = sample.arguments if sample.check_arguments is None else sample.check_arguments
        run = Task.objects.get(name=sample.name).start_now(by=admin, now=now, arguments=list(arguments))
        queued[run.pk] = sample
    return queued


def wait(runs: Iterable[int], *, limit: timedelta, poller: int | None) -> str:
    """Wait until all are finished; what went wrong meanwhile in one sentence, or nothing."""
    until = time.monotonic() + limit.total_seconds()
    while open_runs := Run.objects.unfinished().filter(pk__in=list(runs)).count():
        if poller is not None and not _is_alive(poller):
            return f"The poller (process {poller}) ended before {open_runs} runs were finished."
        if time.monotonic() > until:
            return f"{open_runs} runs were not finished within {limit.total_seconds():.0f} seconds."
        time.sleep(LOOK_EVERY_SECONDS)
    return ""


def outcomes(queued: dict[int, Sample]) -> list[Outcome]:
    runs = Run.objects.filter(pk__in=list(queued)).select_related("task").prefetch_related("files").order_by("pk")
    return [Outcome(queued[run.pk], run, len(run.files.all())) for run in runs]


def _is_alive(pid: int) -> bool:
    """Neither gone nor a zombie that its parent has not looked at yet."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
