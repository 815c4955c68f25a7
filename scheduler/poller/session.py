"""The poller's own connections: it waits for nobody without end, and nobody waits for it without end.

A process that is stopped (a debugger, a frozen container, a machine that hangs) in the middle of a transaction keeps
what it has locked. PostgreSQL can be told to end such a transaction, and to give up waiting for a row. SQLite cannot:
it has one lock for all, and the most that can be done is to say who holds it (``sqlite_lock``).
"""

from __future__ import annotations

from typing import Any

from django.db import connection
from django.db.backends.signals import connection_created

# The poller's transactions take milliseconds. One that has stood still for so long is ended by the server.
IDLE_IN_TRANSACTION_SECONDS = 10
# A row that is locked for longer than this is passed over in this round.
LOCK_SECONDS = 2
LOCK_NOT_AVAILABLE = "55P03"  # PostgreSQL, appendix A

# libpq's own: what the site has set goes before. Without them a cable that was pulled is noticed after a quarter of an
# hour, and the return of the server up to a minute late.
CONNECTING = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,  # milliseconds
}


def keep_short() -> None:
    """Let every connection of this process that is made from now on keep to the limits above."""
    if connection.vendor == "postgresql":
        connection.close()
        connection.settings_dict["OPTIONS"] = {**CONNECTING, **connection.settings_dict["OPTIONS"]}
    connection_created.connect(_limit, dispatch_uid="scheduler.poller.session")


def is_locked_row(error: BaseException) -> bool:
    """Whether a statement failed only because somebody else held a row for too long: the next row may be free."""
    cause = error.__cause__
    return LOCK_NOT_AVAILABLE in {getattr(cause, "sqlstate", None), getattr(cause, "pgcode", None)}


def _limit(*, connection: Any, **_kwargs: object) -> None:
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT set_config('lock_timeout', %s, false),"
                " set_config('idle_in_transaction_session_timeout', %s, false)",
                [f"{LOCK_SECONDS}s", f"{IDLE_IN_TRANSACTION_SECONDS}s"],
            )
