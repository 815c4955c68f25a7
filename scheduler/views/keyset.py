"""Pages by position: a page starts at an instant and a row's id, so that the last one costs as much as the first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from django.db.models import Q

if TYPE_CHECKING:
    from scheduler.models.run import RunQuerySet

Position = tuple[datetime, int]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def write(at: datetime, pk: int) -> str:
    """A position for an address: microseconds since 1970 and the id."""
    return f"{(at - _EPOCH) // timedelta(microseconds=1)}-{pk}"


def read(given: str) -> Position | None:
    """The position that an address gives; None for none, or for one that makes no sense."""
    at, _, pk = given.partition("-")
    microseconds, key = number(at), number(pk)
    if microseconds is None or key is None:
        return None
    try:
        return _EPOCH + timedelta(microseconds=microseconds), key
    except OverflowError:
        return None


def number(given: str) -> int | None:
    """The whole number that an address gives, if it is one that a column or a file can hold."""
    return int(given) if given.isascii() and given.isdigit() and len(given) < 19 else None


def below(runs: RunQuerySet, column: str, position: Position) -> RunQuerySet:
    """Those that come before a position in the order of an instant and the id."""
    at, pk = position
    return runs.filter(**{f"{column}__lte": at}).filter(Q(**{f"{column}__lt": at}) | Q(pk__lt=pk))


def above(runs: RunQuerySet, column: str, position: Position) -> RunQuerySet:
    """Those that come after a position in the order of an instant and the id."""
    at, pk = position
    return runs.filter(**{f"{column}__gte": at}).filter(Q(**{f"{column}__gt": at}) | Q(pk__gt=pk))
