"""The poller's side of the warm process: start it, give it runs, replace it."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from scheduler.conf import scheduler_settings
from scheduler.executors.launches import Launch, WarmLaunch

if TYPE_CHECKING:
    from collections.abc import Callable

STATUS_BYTES = 4096
# After a failure it is tried again with growing pauses: what is broken may be mended by the next deploy.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 2.0, 300.0

# A warm process ends within this time once its socket is closed.
LEAVING_SECONDS = 5.0


class WarmProcess:
    """Keeps one warm process ready, and its successor while that loads; runs are started cold meanwhile."""

    def __init__(self) -> None:
        self.cold_reason = ""
        self._current: _Instance | None = None
        self._next: _Instance | None = None
        self._leaving: list[subprocess.Popen[bytes]] = []
        self._next_attempt = 0.0
        self._pause = FIRST_PAUSE_SECONDS

    @property
    def pid(self) -> int | None:
        """The pid of the process that runs are forked from; None while there is none."""
        return self._current.process.pid if self._current is not None else None

    def keep(self, environment: Callable[[], dict[str, str]]) -> None:
        """One look: start what is missing, take over what has become ready, replace what is worn out."""
        self._leaving = [process for process in self._leaving if process.poll() is None]
        if self._next is not None:
            self._look_at_next(self._next)
        if self._current is not None and self._current.said() is None:
            self._let_go(self._current)  # the code has changed, or somebody has killed it
            self._current = None
        wanted = self._current is None or self._current.is_worn_out()
        if not scheduler_settings().warm:
            self.cold_reason = "SCHEDULER['WARM'] is False."
        elif wanted and self._next is None and time.monotonic() >= self._next_attempt:
            self._next = _Instance(environment())

    def renew(self) -> None:
        """Replace it now, whatever it has loaded."""
        self._let_go(self._current)
        self._let_go(self._next)
        self._current = self._next = None
        self._next_attempt = 0.0

    def launch(self, folder: str, environment: dict[str, str]) -> Launch | None:
        """Have a run forked; None when that is not possible just now."""
        if self._current is None:
            return None
        answer, answer_end = os.pipe()
        try:
            socket.send_fds(self._current.jobs, [os.fsencode(folder)], [answer_end])
        except OSError:  # it is gone, or so many wait already that the socket is full
            os.close(answer)
            return None
        finally:
            os.close(answer_end)
        self._current.starts += 1
        return WarmLaunch(answer, folder, environment)

    def close(self) -> None:
        """Let go of it; what it has forked goes on."""
        self.renew()
        for process in self._leaving:
            try:
                process.wait(LEAVING_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()  # somebody has stopped it, or its start-up code hangs
                process.wait()
        self._leaving = []

    def _look_at_next(self, instance: _Instance) -> None:
        said = instance.said()
        if said == "":
            return  # it is still loading
        self._next = None
        if said == "ready":
            self._let_go(self._current)
            self._current, self.cold_reason, self._pause = instance, "", FIRST_PAUSE_SECONDS
            return
        self._let_go(instance)
        self.cold_reason = said or "The warm process ended before it was ready."
        self._next_attempt = time.monotonic() + self._pause
        self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)

    def _let_go(self, instance: _Instance | None) -> None:
        if instance is not None:
            instance.close()
            self._leaving.append(instance.process)


class _Instance:
    """One warm process. It ends by itself when its socket is closed."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.starts = 0
        self.jobs, jobs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.jobs.setblocking(False)
        self._status, status = os.pipe()
        self._said: str | None = ""
        try:
            arguments = f"{jobs.fileno()}, {status}, {scheduler_settings().parked}"
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"from scheduler.executors.warm import main; main({arguments})"],
                env=environment,
                pass_fds=(jobs.fileno(), status),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
        finally:
            jobs.close()
            os.close(status)

    def said(self) -> str | None:
        """Nothing yet; "ready", or why it cannot be; None when it has ended."""
        poll = select.poll()  # select() knows no descriptor from 1024 on
        poll.register(self._status, select.POLLIN)
        if poll.poll(0):
            self._said = os.read(self._status, STATUS_BYTES).decode(errors="replace") or None
        return self._said

    def is_worn_out(self) -> bool:
        given = scheduler_settings()
        if self.starts >= given.warm_starts:
            return True
        try:
            with open(f"/proc/{self.process.pid}/statm", encoding="utf-8") as file:
                resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):
            return False
        return resident > given.warm_bytes

    def close(self) -> None:
        self.jobs.close()
        with suppress(OSError):
            os.close(self._status)
