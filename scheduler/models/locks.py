"""Locks that belong to no row, for what concerns rows that another transaction is about to write.

They are PostgreSQL's. SQLite has one writer at a time: there, the transaction itself is the lock.
"""

from __future__ import annotations

from enum import IntEnum

from django.db import connection

# The first of the two numbers of an advisory lock, so that a site's own locks are others: "sche" as a number
OURS = 0x73636865


class Lock(IntEnum):
    PAUSE = 1
    # Of a pause of the whole scheduler; shared by the claims.
    FOLLOW_UPS = 2
    # Of whoever adds an arrow to the tasks that follow each other: together, two may make a circle.


def take(lock: Lock, *, shared: bool = False) -> None:
    """Take a lock until the end of this transaction; shared, others may share it meanwhile."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT pg_advisory_xact_lock{'_shared' if shared else ''}(%s, %s)", [OURS, lock])
