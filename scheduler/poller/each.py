"""One thing with one row: what goes wrong with it stays its own."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, TypeVar

from django.db import InterfaceError, OperationalError

from scheduler.poller.schema import is_about_tables
from scheduler.poller.session import is_locked_row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from django.db.models import Model

    Row = TypeVar("Row", bound=Model)

logger = logging.getLogger(__name__)


def in_turn(rows: Iterable[Row], act: Callable[[Row], object], seconds: float) -> int:
    """The same with one row after the other, until so much time is spent and one at least is done; how many are."""
    until = time.monotonic() + seconds
    done = 0
    for row in rows:
        done += each(row, act)
        # Rows that somebody holds, or that are bad, take their time in each round: those behind them must get on.
        if done and time.monotonic() >= until:
            break
    return done


def each(row: Row, act: Callable[[Row], object]) -> bool:
    """Do one thing with one row; a bad row is logged and stops no round, a database or a table that is gone does."""
    try:
        return bool(act(row))
    except (OperationalError, InterfaceError) as error:
        if not is_locked_row(error):
            raise
        logger.warning("%s %s: somebody holds its row; passed over in this round", type(row).__name__, row.pk)
        return False
    except Exception as error:
        if is_about_tables(error):
            raise
        logger.exception("%s %s: passed over in this round", type(row).__name__, row.pk)
        return False
