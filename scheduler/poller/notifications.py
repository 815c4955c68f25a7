"""Hearing on PostgreSQL what other machines have queued: LISTEN, on a connection of its own."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from django.db import connection

from scheduler.wakeup import CHANNEL

if TYPE_CHECKING:
    import psycopg

logger = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
CONNECT_SECONDS = 5


class Notifications:
    """A channel of the waker: readable when somebody has notified the pollers.

    There is none on other databases, and without psycopg 3; behind a pooler that gives a connection to one transaction
    at a time (pgbouncer), nothing is heard. Then the poller's rounds find what was queued.
    """

    def __init__(self) -> None:
        self._connection: psycopg.Connection[object] | None = None
        self._next_try = 0.0
        self._has_warned = False

    def listen(self) -> None:
        """Connect, unless it is connected; without success it is tried again some seconds later.

        Call it before a round: what was queued while nobody listened is found by that round.
        """
        if self._connection is not None or time.monotonic() < self._next_try or not _is_possible():
            return
        import psycopg

        self._next_try = time.monotonic() + RETRY_SECONDS
        try:
            parameters = {"connect_timeout": CONNECT_SECONDS, **connection.get_connection_params()}
            listening = psycopg.connect(**{**parameters, "autocommit": True})
            listening.execute(f"LISTEN {CHANNEL}")
        except psycopg.Error as error:
            if not self._has_warned:
                said = " ".join(str(error).split())
                logger.warning("what other machines queue is not heard at once (%s); trying again", said)
            self._has_warned = True
            return
        self._connection = listening
        self._has_warned = False

    def fileno(self) -> int | None:
        return None if self._connection is None else self._connection.fileno()

    def drain(self) -> None:
        assert self._connection is not None
        import psycopg

        try:
            self._connection.pgconn.consume_input()
            while self._connection.pgconn.notifies():
                pass
        except psycopg.Error:
            self.close()  # the server went, or it ended this session only; the next round shows which
            self._next_try = 0.0

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _is_possible() -> bool:
    if connection.vendor != "postgresql":
        return False
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    return bool(is_psycopg3)
