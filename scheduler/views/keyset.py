"""Pages by position: a page starts at an instant and a row's id, so that the last one costs as much as the first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def write(at: datetime, pk: int) -> str:
    """A position for an address: microseconds since 1970 and the id."""
    return f"{(at - _EPOCH) // timedelta(microseconds=1)}-{pk}"


def read(given: str) -> tuple[datetime, int] | None:
    """The position that an address gives; None for none, or for one that makes no sense."""
    at, _, pk = given.partition("-")
    if not (at.isascii() and at.isdigit() and pk.isascii() and pk.isdigit() and len(pk) < 19):
        return None
    try:
        return _EPOCH + timedelta(microseconds=int(at[:20])), int(pk)
    except OverflowError:
        return None
