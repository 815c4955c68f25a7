"""Processes, as the kernel knows them: identity, descent, and what proves that one belongs to a run.

A pid alone may have been reused: a process is named by boot id, pid and start ticks (proc(5), ``stat`` field 22).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    session: int
    start_ticks: int
    is_zombie: bool


def boot_id() -> str:
    """The id of the machine's current boot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
        return file.read().strip()


def boot_time() -> int:
    """When the machine booted, in seconds since 1970 (proc(5), ``btime``)."""
    with open("/proc/stat", encoding="utf-8") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("btime "))


def look_at(pid: int) -> Process | None:
    """What the kernel knows of a process; None when there is none of that pid."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may itself hold spaces and parentheses.
    fields = text[text.rindex(b")") + 2 :].split()
    return Process(pid, int(fields[1]), int(fields[3]), int(fields[19]), fields[0] in {b"Z", b"X"})


def is_alive(pid: int, start_ticks: int) -> bool:
    """Whether the very process lives that had this pid and start; a zombie counts as ended."""
    process = look_at(pid)
    return process is not None and process.start_ticks == start_ticks and not process.is_zombie


def everything() -> dict[int, Process]:
    """All processes of the machine by pid, zombies left out."""
    found = (look_at(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {process.pid: process for process in found if process is not None and not process.is_zombie}


def descendants(pid: int, processes: dict[int, Process] | None = None) -> list[Process]:
    """Everything that descends from a process, parents before children; the process itself is left out."""
    children: dict[int, list[Process]] = {}
    for process in (processes if processes is not None else everything()).values():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    waiting = [pid]
    while waiting:
        for process in children.get(waiting.pop(), ()):
            found.append(process)
            waiting.append(process.pid)
    return found


def of_run(run: str, folder: str, *, leader: int | None, leader_ticks: int | None) -> list[Process]:
    """The processes that belong to a run although its supervisor is gone: found without it, by what they carry.

    Evidence: the program's session (``leader`` is its pid; a leader with other start ticks is a stranger that got the
    number later), SCHEDULER_RUN in the environment, the current folder or an open file below the run's output folder
    or its reports. This process itself never counts.
    """
    found = []
    for process in everything().values():
        if process.pid == os.getpid():
            continue
        if _in_session(process, leader, leader_ticks) or _carries(process.pid, run) or _touches(process.pid, folder):
            found.append(process)
    return found


def _in_session(process: Process, leader: int | None, leader_ticks: int | None) -> bool:
    if leader is None or leader_ticks is None or process.session != leader or process.start_ticks < leader_ticks:
        return False
    # While a session has members, the kernel gives its number to no new process: a living process with that number
    # and another start means that the run's session was over before.
    first = look_at(leader)
    return first is None or first.start_ticks == leader_ticks


def _carries(pid: int, run: str) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return f"SCHEDULER_RUN={run}".encode() in file.read().split(b"\0")
    except OSError:
        return False


def _touches(pid: int, folder: str) -> bool:
    inside = (os.path.join(folder, "output"), os.path.join(folder, "reports.jsonl"))
    return any(path == place or path.startswith(place + "/") for path in _open_paths(pid) for place in inside)


def _open_paths(pid: int) -> Iterator[str]:
    links = [f"/proc/{pid}/cwd"]
    try:
        links += [f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        pass
    for link in links:
        try:
            yield os.readlink(link)
        except OSError:
            continue


def send(number: signal.Signals, processes: Iterable[Process]) -> int:
    """Send a signal to those that still are who they were; how many got it."""
    sent = 0
    for process in processes:
        if not is_alive(process.pid, process.start_ticks):
            continue
        try:
            os.kill(process.pid, number)
        except (ProcessLookupError, PermissionError):
            continue
        sent += 1
    return sent


def call_this_process(name: str) -> None:
    """Give this process the name that ps and top show."""
    try:
        with open("/proc/self/comm", "wb") as file:
            file.write(os.fsencode(name)[:15])
    except OSError:
        pass  # a sandbox
