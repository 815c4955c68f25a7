"""What there is to do in this round, besides starting what is ready: one query, so that an idle poller costs little."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime  # noqa: TC003
from typing import TYPE_CHECKING, Any

from django.db.models import DateTimeField, Exists, Subquery, UUIDField

from scheduler.models import Archive, Poller, ProgramForm, Run, Schedule, StoreRemoval
from scheduler.prepared import Blank, Prepared

if TYPE_CHECKING:
    import uuid

    from django.db.models import QuerySet


@dataclass(frozen=True, slots=True)
class Agenda:
    """Which of the poller's steps have something to do. Without a row of the poller's own: all, to be safe."""

    stale: bool = True
    broken: bool = True
    due: bool = True
    processing: bool = True
    removals: bool = True
    archives: bool = True
    questions: bool = True
    next_due_at: datetime | None = None
    """When the next run in the queue comes due, if it has not yet."""


def look(poller: uuid.UUID, host: uuid.UUID, now: datetime) -> Agenda:
    """Ask for all of it at once; each part is one look into an index (docs/queries.md)."""
    found = _AGENDA.first(Poller, poller=poller, host=host, now=now)
    if found is None:
        return Agenda()
    stale, broken, due, processing, removals, archives, questions, next_due_at = found
    return Agenda(stale, broken, due is not None, processing, removals, archives, questions, next_due_at)


def _query() -> QuerySet[Any, Any]:
    poller, host = Blank("poller", UUIDField()), Blank("host", UUIDField())
    now: Any = Blank("now", DateTimeField())
    return Poller.objects.filter(pk=poller).values_list(
        Exists(Schedule.objects.stale()),
        Exists(Schedule.objects.broken()),
        _first(Run.objects.due(now)),
        Exists(Run.objects.processing().filter(host=host)),
        Exists(StoreRemoval.objects.filter(host=host)),
        Exists(Archive.objects.unfinished().filter(run__host=host)),
        Exists(ProgramForm.objects.waiting()),
        _first(Run.objects.upcoming(now)),
    )[:1]


_AGENDA = Prepared(_query)


def _first(runs: QuerySet[Run]) -> Subquery:
    # Not Exists(): it drops the order, and PostgreSQL then reads the whole table, since it believes that due runs are
    # many (nearly all rows have an instant that is past) and one will soon be met.
    return Subquery(runs.values("due_at")[:1])
