"""What ends the poller's sleep: a datagram from the web process or a supervisor, a signal, another channel."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from typing import TYPE_CHECKING, Protocol

from scheduler.wakeup import wake_folder

if TYPE_CHECKING:
    import uuid
    from collections.abc import Sequence
    from types import TracebackType


class Channel(Protocol):
    """Something with a descriptor that is readable when there is news."""

    def fileno(self) -> int | None:
        """The descriptor; None while there is none."""

    def drain(self) -> None:
        """Take the news in, so that the descriptor is no longer readable."""


class Waker:
    """A socket in ROOT/wake, the wake-up pipe of Python's signal handlers, and other channels."""

    def __init__(self, poller: uuid.UUID, channels: Sequence[Channel] = ()) -> None:
        self.path = wake_folder() / f"{poller}.sock"
        self._channels = channels
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        # A path in a unix address has at most 107 bytes: bind by the folder's descriptor if it is longer.
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._socket.bind(f"/proc/self/fd/{folder}/{self.path.name}")
        finally:
            os.close(folder)
        self.path.chmod(0o660)  # the web server's user writes into it, through the folder's group
        self._signalled, self._signals = socket.socketpair()
        for end in (self._signalled, self._signals):
            end.setblocking(False)
        self._previous: int | None = None

    def __enter__(self) -> Waker:
        self._previous = signal.set_wakeup_fd(self._signals.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._previous is not None:
            signal.set_wakeup_fd(self._previous)
        for end in (self._socket, self._signalled, self._signals):
            end.close()
        self.path.unlink(missing_ok=True)

    def wait(self, seconds: float) -> None:
        """Sleep this long, or until somebody pokes."""
        waiting = select.poll()  # select() knows no descriptor above 1023
        channels: dict[int, Channel] = {}
        for end in (self._socket, self._signalled):
            waiting.register(end, select.POLLIN)
        for channel in self._channels:
            descriptor = channel.fileno()
            if descriptor is not None:
                channels[descriptor] = channel
                waiting.register(descriptor, select.POLLIN)
        ready = {descriptor for descriptor, _event in waiting.poll(max(seconds, 0) * 1000)}
        for end in (self._socket, self._signalled):
            if end.fileno() in ready:
                with contextlib.suppress(BlockingIOError):
                    while end.recv(64):
                        pass
        for descriptor in ready & channels.keys():
            channels[descriptor].drain()


def remove_abandoned_sockets() -> None:
    """Remove the sockets that killed pollers left in ROOT/wake: those that nobody listens to.

    Not those without a poller's row: one that has just been started binds its socket before it reports.
    """
    folder = os.open(wake_folder(), os.O_RDONLY | os.O_DIRECTORY)
    try:
        for path in wake_folder().glob("*.sock"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
                try:
                    probe.connect(f"/proc/self/fd/{folder}/{path.name}")
                except ConnectionRefusedError:
                    path.unlink(missing_ok=True)
    finally:
        os.close(folder)
