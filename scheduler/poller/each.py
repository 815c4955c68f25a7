"""One thing with one row: what goes wrong with it stays its own."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, TypeVar

from django.db import InterfaceError, OperationalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from django.db.models import Model

    Row = TypeVar("Row", bound=Model)

logger = logging.getLogger(__name__)


def in_turn(rows: Iterable[Row], act: Callable[[Row], object], seconds: float) -> int:
    """The same with one row after the other, until so much time is spent; how many did it."""
    until = time.monotonic() + seconds
    done = 0
    for row in rows:
        done += each(row, act)
        if time.monotonic() >= until:
            break
    return done


def each(row: Row, act: Callable[[Row], object]) -> bool:
    """Do one thing with one row; a bad row is logged and never stops the round, a database that is gone does."""
    try:
        return bool(act(row))
    except (OperationalError, InterfaceError):
        raise
    except Exception:
        logger.exception("%s %s: passed over in this round", type(row).__name__, row.pk)
        return False
