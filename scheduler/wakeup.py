"""Waking the pollers of this machine: one datagram, so that what was queued starts at once and not at the next round.

A lost datagram costs at most one round; nothing depends on it.
"""

from __future__ import annotations

import contextlib
import os
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
    """Wake the pollers once the current transaction is committed."""
    transaction.on_commit(wake)
