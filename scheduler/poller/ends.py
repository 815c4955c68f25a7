"""Noticing at once that a supervisor has ended, also one that was killed: the kernel says so, by pidfd_open(2)."""

from __future__ import annotations

import contextlib
import os
import select

from scheduler.supervisor import processes


class Ends:
    """A channel of the waker: readable when a process that is followed has ended.

    An end that it misses (no descriptor was left) is found by the poller's next round.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._followed: dict[int, int] = {}  # descriptor -> pid

    def fileno(self) -> int:
        return self._epoll.fileno()

    def follow(self, pid: int, start_ticks: int) -> bool:
        """Follow a process until its end; False when the very process is gone already, or cannot be followed."""
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            return False
        # Looked at after the opening: the pid may have been another's until then, and cannot become so afterwards.
        if not processes.is_alive(pid, start_ticks):
            os.close(descriptor)
            return False
        self._followed[descriptor] = pid
        self._epoll.register(descriptor, select.EPOLLIN)
        return True

    def drain(self) -> None:
        for descriptor, _event in self._epoll.poll(0):
            self._forget(descriptor)

    def close(self) -> None:
        for descriptor in list(self._followed):
            self._forget(descriptor)
        self._epoll.close()

    def _forget(self, descriptor: int) -> None:
        if self._followed.pop(descriptor, None) is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(descriptor)
            os.close(descriptor)
