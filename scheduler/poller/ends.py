"""Noticing at once that a supervisor has ended, also one that was killed: the kernel says so, by pidfd_open(2)."""

from __future__ import annotations

import contextlib
import os
import resource
import select

from scheduler.supervisor import processes


class Ends:
    """A channel of the waker: readable when a process that is followed has ended.

    An end that it misses is found by the poller's next round. It takes at most half of the descriptors that this
    process may have: a thousand runs must leave some for the database and the files.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
        self._followed: dict[int, int] = {}  # pid -> descriptor

    def fileno(self) -> int:
        return self._epoll.fileno()

    def follow(self, pid: int, start_ticks: int) -> bool:
        """Follow a process until its end; False when the very process is gone already, or cannot be followed.

        A supervisor may have one run after the other: it is followed once.
        """
        if pid in self._followed and processes.is_alive(pid, start_ticks):
            return True
        if len(self._followed) >= self._most:
            return False
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            return False
        # Looked at after the opening: the pid may have been another's until then, and cannot become so afterwards.
        if not processes.is_alive(pid, start_ticks):
            os.close(descriptor)
            return False
        self._forget(pid)
        self._followed[pid] = descriptor
        self._epoll.register(descriptor, select.EPOLLIN)
        return True

    def drain(self) -> None:
        ended = {descriptor for descriptor, _event in self._epoll.poll(0)}
        for pid in [pid for pid, descriptor in self._followed.items() if descriptor in ended]:
            self._forget(pid)

    def close(self) -> None:
        for pid in list(self._followed):
            self._forget(pid)
        self._epoll.close()

    def _forget(self, pid: int) -> None:
        descriptor = self._followed.pop(pid, None)
        if descriptor is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(descriptor)
            os.close(descriptor)
