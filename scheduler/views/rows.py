"""Runs as the pages show them: each with what this person may do with it and which files it left."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db.models import Count, Max
from django.utils import formats, timezone
from django.utils.text import capfirst
from django.utils.translation import gettext

from scheduler import access
from scheduler.models import OutputFile, Poller, ProcessSample, Run
from scheduler.states import Status
from scheduler.templatetags.scheduler_display import status_word

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from django.contrib.auth.models import User

    from .past import Past

# A run with more files than this is shown with their number only.
FILES_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One run on a page."""

    run: Run
    allowed: frozenset[str]
    now: datetime
    unconfirmed: str = ""
    file_count: int = 0
    files: list[OutputFile] = field(default_factory=list)
    past: Past | None = None
    """How the last runs of its task went, where the page shows it."""
    sample: ProcessSample | None = None
    """What its processes used when they were last looked at."""

    @property
    def status(self) -> str:
        """Its status in the current language."""
        return status_word(self.run.status)

    @property
    def may_stop(self) -> bool:
        return not self.run.is_finished and "stop_run" in self.allowed and self.run.cancel_requested_at is None

    @property
    def may_run(self) -> bool:
        return "run_task" in self.allowed and self.run.task.enabled

    @property
    def may_repeat(self) -> bool:
        return self.run.is_finished and self.may_run

    @property
    def may_delete(self) -> bool:
        return self.run.is_finished and "delete_task" in self.allowed

    @property
    def may_view_output(self) -> bool:
        return "view_output" in self.allowed

    @property
    def waits(self) -> bool:
        """It is due and not started."""
        return self.run.status == Status.QUEUED and self.run.due_at <= self.now

    @property
    def elapsed(self) -> timedelta | None:
        return self.run.elapsed(self.now)

    @property
    def remaining(self) -> timedelta | None:
        """How long its program will still run if it takes as long as usual; None when nobody knows."""
        if self.run.status != Status.PROCESSING or self.elapsed is None or self.past is None or self.past.usual is None:
            return None
        return max(self.past.usual - self.elapsed, timedelta(0)) or None

    @property
    def usual(self) -> timedelta | None:
        """The usual duration, for a run that took or takes notably longer or shorter."""
        if self.past is None or self.elapsed is None or not self.past.is_notable(self.elapsed):
            return None
        in_time = self.past.usual is not None and self.elapsed < self.past.usual
        return None if in_time and self.run.status != Status.COMPLETED else self.past.usual

    @property
    def origin(self) -> str:
        """What put it into the queue."""
        run = self.run
        if run.schedule is not None:
            return run.schedule.in_words
        if run.requested_by_name:
            return gettext("%(trigger)s: %(user)s") % {
                "trigger": capfirst(run.get_trigger_display()),
                "user": run.requested_by_name,
            }
        return capfirst(run.get_trigger_display())

    @property
    def note(self) -> str:
        """What the status alone does not say, in a sentence."""
        match self.run.status:
            case Status.COMPLETED:
                return ""
            case Status.QUEUED if not self.waits:
                return ""
            case Status.QUEUED if self.run.ready_at is None:
                return gettext("Is due; waits for a poller.")
            case Status.PROCESSING if self.unconfirmed:
                return self.unconfirmed
            case Status.PROCESSING if self.run.cancel_requested_at is None and self.run.started_at is not None:
                return ""
        return self.run.sentence


def rows(
    runs: Sequence[Run], *, user: User, now: datetime, alive: Iterable[UUID], past: Mapping[int, Past] | None = None
) -> list[Row]:
    """The runs with what the user may do, in a number of queries that does not depend on how many there are.

    ``alive``: the hosts of which a poller has reported lately. ``past``: task id -> how its last runs went.
    """
    samples = _samples(runs) if past is not None else {}
    allowed = access.actions_on(user, [run.task for run in runs])
    counts, files = _files([run for run in runs if "view_output" in allowed[run.task_id]])
    silent = _silent(runs, set(alive))
    return [
        Row(
            run=run,
            allowed=frozenset(allowed[run.task_id]),
            now=now,
            unconfirmed=silent.get(run.pk, ""),
            file_count=counts.get(run.pk, 0),
            files=files.get(run.pk, []),
            past=(past or {}).get(run.task_id),
            sample=samples.get(run.pk),
        )
        for run in runs
    ]


def _samples(runs: Sequence[Run]) -> dict[int, ProcessSample]:
    running = [run.pk for run in runs if run.status == Status.PROCESSING]
    # Not the processes one by one, of which there may be a hundred.
    return ProcessSample.objects.defer("processes").in_bulk(running) if running else {}


def _files(runs: list[Run]) -> tuple[dict[int, int], dict[int, list[OutputFile]]]:
    # Files are collected once a program has run: a waiting run has none, and need not be asked about.
    started = [run.pk for run in runs if run.status != Status.QUEUED]
    if not started:
        return {}, {}
    counted = (
        OutputFile.objects.of_program().filter(run__in=started).order_by().values_list("run").annotate(n=Count("pk"))
    )
    counts: dict[int, int] = dict(counted)
    few = [pk for pk, count in counts.items() if count <= FILES_NAMED]
    files: defaultdict[int, list[OutputFile]] = defaultdict(list)
    if few:
        for file in OutputFile.objects.of_program().filter(run__in=few):
            files[file.run_id].append(file)
    return counts, files


def _silent(runs: Sequence[Run], alive: set[UUID]) -> dict[int, str]:
    """Run id -> a sentence, for those in progress on a host whose pollers are silent: nobody can say how they are."""
    doubtful = [run for run in runs if run.status == Status.PROCESSING and run.host not in alive]
    if not doubtful:
        return {}
    reported = Poller.objects.filter(host__in={run.host for run in doubtful}).order_by().values_list("host")
    seen: dict[UUID | None, datetime] = dict(reported.annotate(last=Max("seen_at")))
    return {run.pk: _unconfirmed(seen.get(run.host) or run.claimed_at or run.queued_at) for run in doubtful}


def _unconfirmed(since: datetime) -> str:
    local = timezone.localtime(since)
    if local.date() == timezone.localdate():
        when = formats.date_format(local, "H:i")
    else:
        when = formats.date_format(local, "Y-m-d H:i")
    return gettext("Unconfirmed since %(time)s: no poller of this host has reported.") % {"time": when}
