"""Waking the pollers, so that what was queued starts at once and not at the next round.

Those of this machine by a datagram; on PostgreSQL also those of other machines, by a notification. A lost one costs at
most one round; nothing depends on it.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

from django.db import connection, transaction

from scheduler.conf import scheduler_settings

if TYPE_CHECKING:
    from pathlib import Path

# What pollers listen to on PostgreSQL; a channel belongs to one database, so that sites do not wake each other.
CHANNEL = "scheduler_wake"


def wake_folder() -> Path:
    """Where each poller of this machine has its socket."""
    return scheduler_settings().root / "wake"


def wake() -> None:
    """Poke every poller of this machine, without waiting and without failing."""
    try:
        folder = os.open(wake_folder(), os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return  # no poller was ever up here
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            for name in os.listdir(folder):  # noqa: PTH208  (a descriptor, not a path)
                with contextlib.suppress(OSError):
                    # By the descriptor: the address of a Unix socket has at most 107 bytes (unix(7)).
                    sender.sendto(b"w", f"/proc/self/fd/{folder}/{name}")
    finally:
        os.close(folder)


def wake_on_commit() -> None:
    """Wake the pollers once the current transaction is committed.

    The notification is part of the transaction: PostgreSQL sends it when that is committed, whatever stands between.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, '')", [CHANNEL])
    transaction.on_commit(wake)
