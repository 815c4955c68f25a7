"""Waiting for conditions, and processes of the benchmarks' own, ended by their pids."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PATIENCE_SECONDS = 60.0


class Unusable(Exception):  # noqa: N818  (an outcome: what it is about is left out of the tables)
    """Something cannot be measured here; the text says why in one sentence."""


def wait_until(
    condition: Callable[[], Any], what: str, *, pause: float = 0.005, seconds: float = PATIENCE_SECONDS
) -> Any:
    """The condition's value once it is true. Raises Unusable after a minute, or the seconds given."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(pause)
    raise Unusable(f"Waited {seconds:.0f} s in vain until {what}.")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Processes:
    """Processes of the benchmarks' own, each the leader of its session."""

    log: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, command: list[str], **variables: str) -> subprocess.Popen[bytes]:
        """Start one; its output goes into the log."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **variables},
            )
        self.started.append(process)
        return process

    def end(self) -> None:
        """End all of them; what does not go when asked is killed with its session."""
        for process in reversed(self.started):
            if process.poll() is None:
                process.terminate()
        for process in reversed(self.started):
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.started.clear()
