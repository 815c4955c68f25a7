"""What a run may use: limits of each of its processes (setrlimit), and of all of them together (cgroup v2).

Imported only for a run that has limits: a start without any does not pay for them.
"""

from __future__ import annotations

import os
import resource
import signal
from contextlib import suppress
from typing import Any

RESOURCES = {
    "address_space_bytes": (resource.RLIMIT_AS, "memory of a process"),
    "cpu_seconds": (resource.RLIMIT_CPU, "processor time of a process"),
    "open_files": (resource.RLIMIT_NOFILE, "open files of a process"),
}
# A program that handles SIGXCPU has so many seconds of processor time to tidy up, until it is killed.
CPU_GRACE_SECONDS = 5


# Each process


def make_room(limits: dict[str, int]) -> None:
    """Raise this process's own hard limits to what its child is to have, as long as it has the right to do so.

    The child may run as another user. What cannot be raised is refused by ``apply``, with a sentence.
    """
    for name, (number, _title) in RESOURCES.items():
        soft, hard = resource.getrlimit(number)
        if hard != resource.RLIM_INFINITY and limits.get(name, 0) > hard:
            with suppress(ValueError):
                resource.setrlimit(number, (soft, limits[name]))


def apply(limits: dict[str, int]) -> None:
    """Limit this process and what it will start. Raises OSError with one sentence when the kernel refuses."""
    if "nice" in limits:
        os.nice(limits["nice"])
    for name, (number, title) in RESOURCES.items():
        if name not in limits:
            continue
        wanted = limits[name]
        last = wanted + CPU_GRACE_SECONDS if number == resource.RLIMIT_CPU else wanted
        hard = resource.getrlimit(number)[1]
        if hard != resource.RLIM_INFINITY and wanted <= hard:
            last = min(last, hard)
        try:
            resource.setrlimit(number, (wanted, last))
        except ValueError as error:
            raise OSError(
                f"the limit of {title} is {wanted}, and the poller itself may have only {hard}; lower it, or raise the "
                "poller's own limit"
            ) from error


# All of them together


class Cgroup:
    """A run's own cgroup, by what its spec says of it: ``path``, and ``memory_bytes`` or ``processes`` or both."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.path: str = given["path"]
        self.given = given

    def take(self, pid: int) -> None:
        """Make it with its limits if it is not there, and move a process into it. Raises OSError with one sentence."""
        try:
            os.makedirs(self.path, exist_ok=True)
            if "memory_bytes" in self.given:
                self._write("memory.max", self.given["memory_bytes"])
                self._write("memory.oom.group", 1)  # half of a run would be of no use
                with suppress(OSError):
                    self._write("memory.swap.max", 0)  # not there without swap; with it, the limit would only slow down
            if "processes" in self.given:
                self._write("pids.max", self.given["processes"])
            self._write("cgroup.procs", pid)
        except OSError as error:
            raise OSError(f"its cgroup cannot be made: {error.strerror}: {error.filename or self.path}") from error

    def kill(self) -> None:
        """Kill all that is in it at once, also what forks faster than it can be listed (Linux 5.14 and later)."""
        with suppress(OSError):
            self._write("cgroup.kill", 1)

    def remove(self) -> None:
        """Remove it; it stays as long as a process is in it."""
        with suppress(OSError):
            os.rmdir(self.path)

    def out_of_memory(self) -> dict[str, int] | None:
        """The limit that was reached when the kernel killed for want of memory; None when it has killed nothing.

        It counts in ``oom_kill`` what it has killed here for whatever reason; ``oom`` says that it was for this limit,
        and not because the machine had no memory left.
        """
        events = self._count("memory.events")
        if not events.get("oom_kill"):
            return None
        limit = self.given.get("memory_bytes")
        return {"memory_bytes": limit} if limit and events.get("oom") else {}

    def reached(self) -> dict[str, int]:
        """The limits that were reached without ending the run."""
        limit = self.given.get("processes")
        return {"processes": limit} if limit and self._count("pids.events").get("max") else {}

    def _write(self, name: str, value: int) -> None:
        descriptor = os.open(os.path.join(self.path, name), os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, str(value).encode())
        except OSError as error:
            error.filename = os.path.join(self.path, name)
            raise
        finally:
            os.close(descriptor)

    def _count(self, name: str) -> dict[str, int]:
        try:
            with open(os.path.join(self.path, name), encoding="ascii") as file:
                return {key: int(value) for key, value in (line.split() for line in file)}
        except (OSError, ValueError):
            return {}


# What became of it


def reason_of(result: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    """What to say of a program's end instead, when a limit was the reason; else nothing."""
    limits = spec.get("limits", {})
    if result.get("signal") == signal.SIGXCPU and "cpu_seconds" in limits:
        return {"reason": "cpu_limit", "limits": {"cpu_seconds": limits["cpu_seconds"]}}
    if result.get("signal") == signal.SIGKILL and "cgroup" in spec:
        reached = Cgroup(spec["cgroup"]).out_of_memory()
        if reached is not None:
            return {"reason": "out_of_memory", "limits": reached}
    return {}
