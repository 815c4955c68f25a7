"""Waking the pollers of this machine: one datagram, so that what was queued starts at once and not at the next round.

A lost datagram costs at most one round; nothing depends on it.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from django.db import transaction

from scheduler.conf import scheduler_settings

if TYPE_CHECKING:
    from pathlib import Path


def wake_folder() -> Path:
    """Where each poller of this machine has its socket."""
    return scheduler_settings().root / "wake"


def wake() -> None:
    """Poke every poller of this machine, without waiting and without failing."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        for path in wake_folder().glob("*.sock"):
            with contextlib.suppress(OSError):
                sender.sendto(b"w", str(path))


def wake_on_commit() -> None:
    """Wake the pollers once the current transaction is committed."""
    transaction.on_commit(wake)
