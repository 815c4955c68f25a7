"""What a run's spec says of its limits, and whether this machine can limit a whole run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from scheduler.conf import scheduler_settings
from scheduler.supervisor.limits import Cgroup

if TYPE_CHECKING:
    from pathlib import Path

    from scheduler.models import Run

MB = 1024**2
# A cgroup that a killed supervisor left is removed after this time; a younger one may be about to be used.
ABANDONED_AFTER_SECONDS = 600.0


def of_run(run: Run, problem: str) -> dict[str, Any]:
    """What the spec of a run has to say; of the limits that may be missing only those that are set.

    ``problem`` is what ``why_not_as_a_whole`` has found. The site's settings are the largest log and output.
    """
    given, task = scheduler_settings(), run.task
    spec: dict[str, Any] = {
        "log_bytes": _smaller(given.log_bytes, task.log_mb, MB),
        "output_bytes": _smaller(given.output_bytes, task.output_mb, MB),
        "output_files": _smaller(given.output_files, task.output_files),
    }
    of_processes = {
        "address_space_bytes": (task.process_memory_mb or 0) * MB,
        "cpu_seconds": task.process_cpu_seconds,
        "open_files": task.open_files,
        "nice": task.nice,
    }
    if limits := {name: value for name, value in of_processes.items() if value}:
        spec["limits"] = limits
    if task.memory_mb or task.max_processes:
        if problem:
            spec["not_limited"] = problem
        else:
            spec["cgroup"] = {"path": f"{given.cgroup}/run-{run.uuid}"}
            if task.memory_mb:
                spec["cgroup"]["memory_bytes"] = task.memory_mb * MB
            if task.max_processes:
                spec["cgroup"]["processes"] = task.max_processes
    return spec


def _smaller(most: int, wanted: int | None, unit: int = 1) -> int:
    return most if wanted is None else min(most, wanted * unit)


def why_not_as_a_whole() -> str:
    """Why memory and processes of a whole run cannot be limited here; empty when they can be, which is tried."""
    place = scheduler_settings().cgroup
    if place is None:
        return "SCHEDULER['CGROUP'] is not set."
    probe = Cgroup({"path": str(place / f"probe-{os.getpid()}"), "memory_bytes": 2**30, "processes": 100})
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE)
    try:
        probe.take(child.pid)
    except OSError as error:
        return str(error)
    finally:
        child.kill()
        child.communicate()
        probe.remove()
    _remove_abandoned(place)
    return ""


def _remove_abandoned(place: Path) -> None:
    for entry in place.glob("run-*"):
        with suppress(OSError):  # a process is in it still
            if time.time() - entry.stat().st_mtime > ABANDONED_AFTER_SECONDS:
                entry.rmdir()
