"""Asking a program which arguments it takes: it is run until it parses them, with the rights and limits of a task.

Started as ``python -I -S …/scheduler/supervisor --ask JOB_FOLDER``. The job folder has the files of a run folder:
``spec.json`` (what to ask), ``lock`` and, at the end, ``done.json``.
"""

from __future__ import annotations

import os
import select
import signal
import time
from typing import Any

from . import processes
from .folder import DONE, SPEC, RunFolder
from .launch import wake
from .program import READ_BYTES, fork_program
from .supervise import TREE_LOOK_SECONDS, become_subreaper

MOST_BYTES = 1024 * 1024


def main(path: str) -> None:
    """Ask what a job describes; nothing happens when another process is at it, or the answer is there already."""
    job = RunFolder(path)
    lock = job.take_lock()  # kept until this process ends
    spec = job.read(SPEC)
    if lock is None or spec is None or job.has(DONE):
        return
    become_subreaper()
    job.write(DONE, _ask(spec))
    wake(spec["wake"])


def _ask(spec: dict[str, Any]) -> dict[str, object]:
    program = fork_program(spec.get("user"))
    program.go("/", spec["argv"], {})
    trouble = program.wait_for_start()
    deadline = time.monotonic() + float(spec["seconds"])
    said = b""
    poll = select.poll()
    poll.register(program.output, select.POLLIN)
    while not said.endswith(b"\n") and len(said) <= MOST_BYTES and time.monotonic() < deadline:
        if not poll.poll(max(deadline - time.monotonic(), 0) * 1000):
            break
        part = os.read(program.output, READ_BYTES)
        if not part:
            break
        said += part
    timed_out = time.monotonic() >= deadline
    _end_tree()
    whole = said if said.endswith(b"\n") else b""
    return {"said": whole.decode(errors="replace"), "timed_out": timed_out, "trouble": trouble}


def _end_tree() -> None:
    """End what the program has started, too: nothing of it was asked to work."""
    while True:
        try:
            pid, _status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            processes.send(signal.SIGKILL, processes.descendants(os.getpid()))
            time.sleep(TREE_LOOK_SECONDS)
