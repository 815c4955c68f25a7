"""Becoming a supervisor: nobody's child, holder of the folder's lock, and only once a run."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from .collect import collect
from .folder import DONE, EXIT, SPEC, STARTED, SUPERVISOR_LOG, TASK, RunFolder
from .program import Program, in_words
from .supervise import Supervision, end_strays

DIED = 3  # Python itself ends with 1 or 2 when something is wrong


def main(argv: list[str]) -> None:
    """Start the supervisor of the run whose folder is named, and return to the launcher.

    The launcher waits for this process only: exit code 0 when a supervisor has taken charge (or there is nothing left
    to do), 1 with a sentence on stderr when none could, DIED when it ended without a word.
    """
    folder = RunFolder(argv[1])
    answer, ready = os.pipe()
    if os.fork():
        os.close(ready)
        with os.fdopen(answer, "rb") as pipe:
            said = pipe.read().decode(errors="replace")
        if said == "ok":
            os._exit(0)
        sys.stderr.write(said)
        sys.stderr.flush()
        os._exit(1 if said else DIED)
    os.close(answer)
    os.setsid()
    become_supervisor(folder, ready)


def become_supervisor(folder: RunFolder, ready: int) -> NoReturn:
    """Do a run's work and end this process, which leads a session and is nobody's child that anybody waits for."""
    os._exit(0 if do_run(folder, ready) else 1)


def do_run(
    folder: RunFolder, ready: int, parked: Program | None = None, then: Callable[[], None] | None = None
) -> bool:
    """Do a run's work; False when something went wrong that leaves this process of no further use.

    ``ready`` is told "ok" once the run is in hand, or else what is wrong. ``parked`` is the program's process if it was
    forked beforehand; if there is nothing for it to do it ends with this one. ``then`` is called once the program is
    under way, and may not fail.
    """

    def taken() -> None:
        _answer(ready, "ok")
        if parked is not None:
            with suppress(OSError):  # somebody has removed the folder: what is under way goes on
                _detach(folder)
        if then is not None:
            then()

    try:
        if parked is None:
            _detach(folder)  # the launcher waits for the end of this stderr
        supervise(folder, ready=taken, parked=parked)
    except BaseException as error:
        with suppress(OSError):
            _note(folder, traceback.format_exc())
        _answer(ready, in_words(error))
        return False
    return True


def rehearse() -> None:
    """Do what a start does, with nothing, while nobody waits for it.

    The memory that a forked process touches is copied by the kernel, page by page: this has it done beforehand.
    """
    folder = RunFolder(os.path.join(os.devnull, "run"))
    for act in (folder.take_lock, folder.prepare_result, lambda: folder.mark_started({}), lambda: folder.read(SPEC)):
        with suppress(OSError):
            act()
    with suppress(OSError):
        folder.write(STARTED, {})
    folder.has(DONE)
    json.loads(json.dumps({"argv": [folder.path], "at": time.time(), "number": 1, "nothing": None}))


def supervise(folder: RunFolder, *, ready: Callable[[], None], parked: Program | None = None) -> None:
    """Do what is left to do for a run: all of it, the collection only, or nothing."""
    lock = folder.take_lock()  # never closed: see take_lock
    if lock is None or folder.has(DONE):
        return ready()
    spec = folder.read(SPEC)
    if spec is None:
        raise RuntimeError("spec.json is missing or damaged")
    found: dict[str, Any] = {}
    if folder.has(EXIT):
        ready()
        end_strays(folder, spec)
    elif folder.has(STARTED):
        return ready()  # its supervisor died: a second start is impossible, the poller says what became of it
    else:
        supervision = Supervision(folder, spec, parked)
        supervision.run(ready)
        found = supervision.findings()
    if "cleanup" in spec and folder.has(TASK):
        from .cleanup import clean_up

        found["cleanup"] = clean_up(folder, spec)
    if "not_limited" in spec:
        found["not_limited"] = spec["not_limited"]
    if "cgroup" in spec:
        from .limits import Cgroup

        Cgroup(spec["cgroup"]).remove()
    collect(folder, spec, found)
    wake(spec["wake"])
    return None


def _detach(folder: RunFolder) -> None:
    os.chdir(folder.path)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)


def _note(folder: RunFolder, text: str) -> None:
    """Write down what went wrong, for those who look for it; where nothing does, there is one file less to remove."""
    log = os.open(folder.file(SUPERVISOR_LOG), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with os.fdopen(log, "w", errors="replace") as file:
        file.write(text)


def _answer(ready: int, text: str) -> None:
    try:
        os.write(ready, text.encode())
        os.close(ready)
    except OSError:
        pass  # answered already, or the launcher is gone


def wake(path: str) -> None:
    """Tell the pollers of this machine that a run is over; they look by themselves a little later."""
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        for name in os.listdir(folder):
            try:
                # By the descriptor: the address of a Unix socket has at most 107 bytes (unix(7)).
                sender.sendto(b"w", f"/proc/self/fd/{folder}/{name}")
            except OSError:
                continue
    os.close(folder)
