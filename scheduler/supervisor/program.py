"""The program's process: forked by the supervisor, it waits for its orders and then becomes the program."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import processes

PR_SET_PDEATHSIG = 1  # prctl(2)
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
# The kernel's out-of-memory killer takes the program before its supervisor (proc(5)).
TASK_OOM_SCORE = 500
READ_BYTES = 65_536

# Runs the program with these arguments (the interpreter first) and these further variables; never returns.
Execute = Callable[[list[str], dict[str, str]], object]


@dataclass(slots=True)
class Program:
    """A process that becomes the program as soon as it is told to; until then its end leaves no trace."""

    pid: int
    orders: int
    """Where its orders are written."""
    trouble: int
    """Says what kept it from becoming the program; ends without a word when it has become it."""
    output: int
    """What it writes to stdout and stderr."""
    start_ticks: int
    """Its start, which tells it from a later process of the same pid."""

    def go(self, folder: str, argv: list[str], variables: dict[str, str], limits: dict[str, int] | None = None) -> None:
        """Let it become the program. It must be findable by everybody beforehand."""
        text = json.dumps({"folder": folder, "argv": argv, "variables": variables, "limits": limits}) + "\n"
        try:
            with os.fdopen(self.orders, "wb") as pipe:
                pipe.write(text.encode())
        except BrokenPipeError:
            pass  # it was killed: its parent sees that

    def wait_for_start(self) -> str:
        """Stay until it has become the program; what went wrong, or nothing."""
        with os.fdopen(self.trouble, "rb") as pipe:
            return pipe.read().decode(errors="replace")


def fork_program(
    user: dict[str, Any] | None = None, *, execute: Execute | None = None, prepare: Callable[[], None] | None = None
) -> Program:
    """Fork the program's process: in a session of its own, with its user's rights, tied to the life of this one.

    ``execute`` takes the place of exec(), and has to close the descriptors that exec would close: one of them is the
    other end of ``trouble``. ``prepare`` is called before the orders are waited for.
    """
    orders, orders_end = os.pipe()
    trouble, trouble_end = os.pipe()
    output, output_end = os.pipe()
    me = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            _become_program(me, user, orders, orders_end, output_end, execute or _exec, prepare)
        except BaseException as error:
            os.write(trouble_end, in_words(error).encode(errors="replace"))
        finally:
            os._exit(127)  # nothing that goes wrong here may go on as the supervisor
    for descriptor in (orders, trouble_end, output_end):
        os.close(descriptor)
    os.set_blocking(output, False)
    task = processes.look_at(pid)
    assert task is not None  # it is not reaped yet
    return Program(pid, orders_end, trouble, output, task.start_ticks)


def _become_program(
    supervisor: int,
    user: dict[str, Any] | None,
    orders: int,
    orders_end: int,
    output: int,
    execute: Execute,
    prepare: Callable[[], None] | None,
) -> None:
    os.close(orders_end)
    os.setsid()
    processes.write_to_kernel("/proc/self/oom_score_adj", b"%d" % TASK_OOM_SCORE)
    # In any case no capability of the poller is handed on.
    processes.libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    if user:
        os.setgroups(user["groups"])
        os.setgid(user["gid"])
        os.setuid(user["uid"])
    # After the credentials: a change of them clears it (prctl(2)).
    processes.libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != supervisor:
        return  # it died before the line above
    for number in _not_default():
        try:
            signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):
            continue  # the C library's own
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.umask(0o027)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    os.dup2(output, 1)
    os.dup2(output, 2)
    if prepare is not None:
        prepare()
    text = b""
    while not text.endswith(b"\n"):
        part = os.read(orders, READ_BYTES)
        if not part:
            return  # the supervisor ended before everybody could find this process, or has no run for it
        text += part
    order = json.loads(text)
    os.chdir(order["folder"])
    if order["limits"]:
        from . import limits  # loaded already where this process has another user, who may not read it

        limits.apply(order["limits"])
    execute(order["argv"], order["variables"])


def in_words(error: BaseException) -> str:
    """What went wrong, and with which file."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def _not_default() -> list[int]:
    """The signals that this process ignores or catches (proc(5)); to ask for all 64 takes longer than the rest."""
    masks = 0
    with open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith((b"SigIgn:", b"SigCgt:")):
                masks |= int(line.split()[1], 16)
    return [number for number in range(1, signal.NSIG) if masks >> (number - 1) & 1]


def _exec(argv: list[str], variables: dict[str, str]) -> None:
    os.execve(argv[0], argv, {**os.environ, **variables})
