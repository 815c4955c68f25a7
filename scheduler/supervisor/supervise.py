"""Watching one program: start it, keep its output, stop it when asked, write down how it ended, leave no process."""

from __future__ import annotations

import functools
import math
import os
import resource
import select
import signal
import time
from collections.abc import Callable
from typing import Any

from . import processes
from .folder import CONTROL, OUTPUT, REPORTS, STOP, TASK, RunFolder
from .program import READ_BYTES, Program, fork_program, in_words

PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
LOOK_EVERY_SECONDS = 1.0
SHORT_SECONDS = 0.05  # a program that ends within this time needs no FIFO to be stopped by
TREE_LOOK_SECONDS = 0.05
NAMED_AT_MOST = 10  # processes that are named to people
READS_AT_ONCE = 64  # a program that never stops writing must not keep the supervisor from looking at the rest


class Supervision:
    """One program, from its start until no process of it is left.

    ``parked`` is the program's process if it was forked beforehand.
    """

    def __init__(self, folder: RunFolder, spec: dict[str, Any], parked: Program | None = None) -> None:
        self.folder = folder
        self.spec = spec
        self.parked = parked
        self.pid = 0
        self.pipe = -1
        self.control = -1
        self.ended = False  # the program itself; others of its tree may live on
        self.stop_reason = ""
        self.trouble = ""
        self.child = -1
        self.started_at = time.monotonic()
        self.log_room = int(spec["log_bytes"])
        self.log_dropped = 0
        self.log_is_full = False  # it has reached its limit, whatever room the disk has
        self.left: list[str] = []
        self.killed: list[str] = []

    def run(self, ready: Callable[[], None]) -> None:
        """Start the program and stay until its tree is empty; ``ready`` is called when the start is on disk."""
        if self.parked is None:
            become_subreaper()  # it is one already, else
        self.result = self.folder.prepare_result()
        self._open()
        self.folder.mark_started({**identity(), "claim_token": self.spec["claim_token"], "at": time.time()})
        if self.folder.has(STOP):
            self._write_result({"reason": "stopped_by_user"})
            ready()
            return
        try:
            program = self._findable_program()
        except OSError as error:
            # The program has not run: it still waits for the word to go on, and ends without it.
            self._write_result({"reason": "launch_error", "detail": in_words(error)})
            self.ended = True
        else:
            self._let_go(program, ready)
        self._watch()
        self._end_tree()
        self._close_log()

    # Start

    def _open(self) -> None:
        self.log = os.open(
            self.spec["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640
        )
        if self.spec.get("store_gid") is not None:
            os.fchown(self.log, -1, int(self.spec["store_gid"]))
        os.fchmod(self.log, 0o640)

    def _findable_program(self) -> Program:
        """The program's process, once everybody can find it."""
        program = self.parked or self._fork()
        # Not flushed: when the machine itself ends, no process is left that would have to be found.
        task = {"pid": program.pid, "start_ticks": program.start_ticks, "session": program.pid}
        self.folder.write(TASK, task, durable=False)
        self._take(program)
        return program

    def _fork(self) -> Program:
        if "limits" in self.spec:
            from . import limits

            limits.make_room(self.spec["limits"])
        return fork_program(self.spec.get("user"))

    def _take(self, program: Program) -> None:
        """Take charge of it: from now on its end is the run's. Raises OSError when it cannot be limited."""
        if "cgroup" in self.spec:
            from .limits import Cgroup

            Cgroup(self.spec["cgroup"]).take(program.pid)
        self.pid, self.pipe = program.pid, program.output

    def _let_go(self, program: Program, ready: Callable[[], None], **further: str) -> None:
        """Start the program; all that it need not wait for comes after that, and may not fail."""
        output = self.folder.file(OUTPUT)
        variables = {
            "SCHEDULER_RUN": self.spec["run"],
            "SCHEDULER_RUN_ID": str(self.spec["id"]),
            "SCHEDULER_OUTPUT": output,
            "SCHEDULER_REPORTS": self.folder.file(REPORTS),
            "PWD": output,
            **further,
        }
        program.go(output, self.spec["argv"], variables, self.spec.get("limits"))
        ready()
        self.trouble = program.wait_for_start()
        try:
            self.child = os.pidfd_open(self.pid)
        except OSError:
            self.child = -1  # an old kernel or a sandbox: its end is noticed at the next look

    def _open_control(self) -> int:
        """The FIFO for pokes; -1 when it cannot be had: the folder is looked at every second anyway."""
        try:
            if not self.folder.has(CONTROL):
                os.mkfifo(self.folder.file(CONTROL), 0o600)
            # Opened for writing as well, so that it never reports end-of-file.
            return os.open(self.folder.file(CONTROL), os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return -1

    # Watch

    def _watch(self) -> None:
        """Stay until the program has ended or must be stopped."""
        timeout = self.spec.get("timeout_seconds")
        deadline = None if timeout is None else self.started_at + float(timeout)
        self._step(SHORT_SECONDS)
        if not self.ended:
            self.control = self._open_control()
        self._look_for_a_stop(deadline)  # it may have been asked for before there was anything to poke
        while not self.ended and not self.stop_reason:
            left = LOOK_EVERY_SECONDS if deadline is None else deadline - time.monotonic()
            self._step(min(max(left, 0), LOOK_EVERY_SECONDS))
            self._look_for_a_stop(deadline)

    def _look_for_a_stop(self, deadline: float | None) -> None:
        if self.ended:
            return
        if self.folder.has(STOP):
            self.stop_reason = "stopped_by_user"
        elif deadline is not None and time.monotonic() >= deadline:
            self.stop_reason = "timed_out"

    def _step(self, seconds: float) -> None:
        """Wait for output, for a poke or for the program's end, at most this long; then take in what there is."""
        poll = select.poll()
        for descriptor in (self.pipe, self.control, -1 if self.ended else self.child):
            if descriptor >= 0:
                poll.register(descriptor, select.POLLIN)
        poll.poll(seconds * 1000)
        if self.control >= 0:
            try:
                os.read(self.control, READ_BYTES)
            except BlockingIOError:
                pass
        self._reap()
        self._pump()

    def _reap(self) -> bool:
        """Take in every child that has ended; False when there is no child at all, and so no process of the run.

        This process is the subreaper: whatever loses its parent becomes its child.
        """
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.pid:
                self._program_ended(status, usage)

    def _program_ended(self, status: int, usage: resource.struct_rusage) -> None:
        self.ended = True
        result: dict[str, Any] = {
            "seconds": round(time.monotonic() - self.started_at, 3),
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3),
            "memory_peak_bytes": usage.ru_maxrss * 1024,
        }
        if self.trouble:
            result |= {"reason": "launch_error", "detail": self.trouble}
        elif os.WIFSIGNALED(status):
            result |= {"reason": "signal", "signal": os.WTERMSIG(status)}
        else:
            result |= {"reason": "exit_code", "exit_code": os.waitstatus_to_exitcode(status)}
        if "limits" in self.spec or "cgroup" in self.spec:
            from . import limits

            result |= limits.reason_of(result, self.spec)
        if self.stop_reason:
            result["reason"] = self.stop_reason
        self._write_result(result)

    def _write_result(self, result: dict[str, Any]) -> None:
        self.folder.write_result(self.result, {**result, "at": time.time()})

    # End

    def _end_tree(self) -> None:
        """Ask everything that is left to end, and end it after the grace time; keep its output meanwhile."""
        deadline = time.monotonic() + float(self.spec["grace_seconds"])
        asked = False
        # After an end of its own, what is just ending with it is given a moment.
        at_once = bool(self.stop_reason)
        while self._reap():
            if at_once and (not asked or time.monotonic() >= deadline):
                left = processes.descendants(os.getpid())
                self._remember(left, asked)
                if asked and "cgroup" in self.spec:
                    from .limits import Cgroup

                    Cgroup(self.spec["cgroup"]).kill()
                processes.send(signal.SIGKILL if asked else signal.SIGTERM, left)
                asked = True
            at_once = True
            self._step(TREE_LOOK_SECONDS)
        self._pump()

    def _remember(self, left: list[processes.Process], asked: bool) -> None:
        """Keep the names of what outlived the program that ended by itself, and of what had to be killed."""
        names = self.killed if asked else self.left
        if (asked or not self.stop_reason) and self.pid and not names:
            names += [processes.name(process.pid) for process in left[:NAMED_AT_MOST]]

    def findings(self) -> dict[str, Any]:
        """What people are told of the run beside its result; to be asked for when its tree is empty."""
        found: dict[str, Any] = {}
        reached: dict[str, int] = {}
        if "cgroup" in self.spec:
            from .limits import Cgroup

            reached = Cgroup(self.spec["cgroup"]).reached()
        if self.log_is_full:
            reached["log_bytes"] = self.spec["log_bytes"]
        if reached:
            found["limits"] = reached
        if self.left:
            found["left"] = self.left
        if self.killed:
            found["killed"] = self.killed
        return found

    # The log

    def _pump(self) -> None:
        """Move the output that is there into the log; what is over the limit (or the disk) is dropped."""
        for _ in range(READS_AT_ONCE):
            if self.pipe < 0:
                return
            try:
                data = os.read(self.pipe, READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                os.close(self.pipe)
                self.pipe = -1
                return
            self._keep(data)

    def _keep(self, data: bytes) -> None:
        kept = data[: self.log_room]
        self.log_is_full |= len(kept) < len(data)
        if self.log_dropped and kept and not self._note_dropped():
            kept = b""  # the disk is still full
        try:
            written = os.write(self.log, kept) if kept else 0
        except OSError:
            written = 0
        self.log_room -= written
        self.log_dropped += len(data) - written

    def _note_dropped(self) -> bool:
        """Say in the log that something is missing here; False when there is no room for that either."""
        note = _dropped(self.log_dropped)
        try:
            if os.write(self.log, note) < len(note):
                return False
        except OSError:
            return False
        self.log_dropped = 0
        return True

    def _close_log(self) -> None:
        if self.log_dropped and not self._note_dropped():
            self._note_over_the_end()
        os.close(self.log)

    def _note_over_the_end(self) -> None:
        """On a full disk the note takes the place of the last bytes, which are there already."""
        end = os.fstat(self.log).st_size
        note = _dropped(self.log_dropped + min(end, len(_dropped(self.log_dropped))))
        try:
            # Opened anew: a descriptor with O_APPEND writes at the end only.
            log = os.open(self.spec["log"], os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            os.pwrite(log, note, max(end - len(note), 0))
            os.close(log)
        except OSError:
            pass


def _dropped(count: int) -> bytes:
    return f"\n[scheduler] {count} bytes of output were dropped here.\n".encode()


@functools.cache
def identity() -> dict[str, Any]:
    """This process, as others can recognise it; to be asked for after the last fork."""
    me = processes.look_at(os.getpid())
    assert me is not None
    return {"pid": me.pid, "start_ticks": me.start_ticks, "boot_id": processes.boot_id()}


def become_subreaper() -> None:
    """Make this process the parent of every process below it that loses its own (prctl(2))."""
    processes.libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_strays(
    folder: RunFolder, spec: dict[str, Any], *, seconds: float = math.inf
) -> tuple[int, list[processes.Process]]:
    """End what is left of a run whose supervisor died, in passes until nothing is found, or so much time is spent.

    How many there were, and which are left: another user's, or what the kernel does not let end yet.
    """
    task = folder.read(TASK) or {}
    deadline = time.monotonic() + seconds
    ended: set[int] = set()
    if "cgroup" in spec:
        from .limits import Cgroup

        Cgroup(spec["cgroup"]).kill()
    while strays := processes.of_run(
        spec["run"], folder.path, leader=task.get("pid"), leader_ticks=task.get("start_ticks")
    ):
        if processes.send(signal.SIGKILL, strays):
            ended |= {stray.pid for stray in strays}
        elif left := [stray for stray in strays if processes.is_alive(stray.pid, stray.start_ticks)]:
            return len(ended), left
        if time.monotonic() >= deadline:
            return len(ended), strays
        time.sleep(TREE_LOOK_SECONDS)
    return len(ended), []
