"""A task's clean-up command: run once when a run is over and no process of it is left, before its files are collected.

It is a program of its own, with a time limit of its own, and writes into the run's log. How it ends changes nothing
about the run's result.
"""

from __future__ import annotations

import time
from typing import Any

from .folder import CLEANUP, EXIT, RunFolder
from .program import in_words
from .supervise import Supervision, become_subreaper

# What it may write in addition to the log of the run, which may be full.
LOG_BYTES = 1024 * 1024


def clean_up(folder: RunFolder, spec: dict[str, Any]) -> dict[str, Any]:
    """Run the clean-up command; how it ended. Never a second time: then the result has no reason."""
    return _CleanUp(folder, {**spec, **spec["cleanup"], "log_bytes": LOG_BYTES}).do(folder.read(EXIT) or {})


class _CleanUp(Supervision):
    def do(self, exited: dict[str, Any]) -> dict[str, Any]:
        self.outcome: dict[str, Any] = {}
        self._open()
        try:
            self.folder.mark_started({"at": time.time()}, CLEANUP)
        except FileExistsError:
            return self.outcome  # the supervisor that began it was killed
        become_subreaper()
        self._keep(b"[scheduler] clean-up\n")
        try:
            program = self._fork()
            self._take(program)
        except OSError as error:
            self._write_result({"reason": "launch_error", "detail": in_words(error)})
            self.ended = True
        else:
            self._let_go(
                program,
                lambda: None,
                SCHEDULER_REASON=str(exited.get("reason", "")),
                SCHEDULER_EXIT_CODE=str(exited.get("exit_code", "")),
                SCHEDULER_SIGNAL=str(exited.get("signal", "")),
            )
        self._watch()
        self._end_tree()
        self._close_log()
        return self.outcome

    def _look_for_a_stop(self, deadline: float | None) -> None:
        """A run that was stopped is cleaned up too: only the time limit counts."""
        if not self.ended and deadline is not None and time.monotonic() >= deadline:
            self.stop_reason = "timed_out"

    def _write_result(self, result: dict[str, Any]) -> None:
        self.outcome = result
