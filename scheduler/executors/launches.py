"""Launches that are under way: cold ones and warm ones."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

from scheduler.executors import LaunchError
from scheduler.supervisor import folder as protocol
from scheduler.supervisor.launch import DIED

SUPERVISOR = Path(protocol.__file__).resolve().parent
# -I and -S: neither the environment nor site-packages reach the supervisor. UTF-8: file names are bytes.
SUPERVISOR_COMMAND = [sys.executable, "-I", "-S", "-X", "utf8", str(SUPERVISOR)]
ANSWER_BYTES = 4096
# After so long without an answer a run is launched cold: whoever has it may be stopped, or wait for a slow disk.
PATIENCE_SECONDS = 10.0


class Launch(Protocol):
    """A launch that is under way."""

    def answer(self) -> str | None:
        """What became of it, once that is known: empty unless something is wrong with the run."""

    def wait(self) -> None:
        """Stay until the answer is there."""


class ColdLaunch:
    """A supervisor started as a new Python, which ends as soon as a process of its own has taken charge.

    Raises LaunchError when no process can be started.
    """

    def __init__(self, folder: str, environment: dict[str, str]) -> None:
        self._answer: str | None = None
        try:
            self._process = subprocess.Popen(
                [*SUPERVISOR_COMMAND, folder],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise LaunchError(f"the supervisor cannot be started: {error.strerror or error}") from error

    def answer(self) -> str | None:
        if self._answer is None and self._process.poll() is not None:
            assert self._process.stderr is not None
            with self._process.stderr as pipe:
                said = pipe.read().decode(errors="replace").strip()
            code = self._process.returncode
            # Killed, it or its supervisor: the folder says how far they came, and the run is launched again if need be.
            is_no_failure = code <= 0 or code == DIED
            self._answer = "" if is_no_failure else said or f"the supervisor ended with {code}"
        return self._answer

    def wait(self) -> None:
        self._process.wait()
        self.answer()


class WarmLaunch:
    """A run that was given to the warm process; a cold launch takes its place when nobody took it or it was killed.

    That is safe: no run is started twice, however often it is launched.
    """

    def __init__(self, answer: int, folder: str, environment: dict[str, str]) -> None:
        self._pipe = answer
        self._folder = folder
        self._environment = environment
        self._answer: str | None = None
        self._cold: ColdLaunch | None = None
        self._deadline = time.monotonic() + PATIENCE_SECONDS

    def answer(self) -> str | None:
        if self._cold is not None:
            return self._cold.answer()
        if self._answer is None and self._has_spoken(0):
            said = os.read(self._pipe, ANSWER_BYTES).decode(errors="replace")
            os.close(self._pipe)
            if said:
                self._answer = "" if said == "ok" else said
            else:
                self._launch_cold()
        elif self._answer is None and time.monotonic() > self._deadline:
            os.close(self._pipe)
            self._launch_cold()
        return self._answer

    def wait(self) -> None:
        while self.answer() is None:
            if self._cold is not None:
                self._cold.wait()
            else:
                self._has_spoken(PATIENCE_SECONDS)

    def _has_spoken(self, seconds: float) -> bool:
        poll = select.poll()  # select() knows no descriptor from 1024 on
        poll.register(self._pipe, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def _launch_cold(self) -> None:
        try:
            self._cold = ColdLaunch(self._folder, self._environment)
        except LaunchError as error:
            self._answer = str(error)
