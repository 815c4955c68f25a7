"""The warm process: Django is loaded once, and each run is forked from it, so that a start costs milliseconds.

The poller starts it with exactly the environment of a ``django`` task, and hands it jobs over a socket: the path of a
run folder, and with it a pipe for the answer. Whoever takes a job is a supervisor that was forked beforehand, and its
program's process too; a few of them are kept parked. A supervisor has one run at a time, a program's process no other
ever. The warm process itself touches no run.

It ends by itself as soon as the code that it has loaded has changed, and when its poller is gone.
"""

from __future__ import annotations

import codecs
import gc
import os
import resource
import select
import signal
import socket
import struct
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from scheduler.executors.main_program import hides_a_module, rehearse, run_as_main
from scheduler.supervisor import launch, processes
from scheduler.supervisor.folder import RunFolder
from scheduler.supervisor.program import Program, fork_program
from scheduler.supervisor.supervise import become_subreaper, identity

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_EVERY_MILLISECONDS = 1000
JOB_BYTES = 4096
# A supervisor that is taken may be back by then: only if not, another one is forked.
REFILL_MILLISECONDS = 50
# A supervisor that has done a run waits for another one for so long, and does so many at most.
IDLE_SECONDS = 2
RUNS_OF_A_SUPERVISOR = 100
# So many programs at most are connected to the database beforehand: others may need its connections, too.
CONNECTED_AT_MOST = 32
PID = struct.Struct("i")
STANDARD = {0, 1, 2}


class StaysCold(Exception):  # noqa: N818  (an outcome, not an error)
    """No run can be forked from this process; the text says why."""


def main(jobs: int, status: int, parked: int) -> NoReturn:
    """Load Django, say "ready" (or why not) on ``status``, and fork runs until the code changes or the poller ends."""
    # ``python -c`` puts the current folder first; a program's own folder takes this place in its process.
    if not sys.flags.safe_path:
        sys.path.pop(0)
    began = time.time()
    os.set_inheritable(jobs, False)
    try:
        _set_up()
        _refuse_what_is_left(given={jobs, status})
    except BaseException as why:
        text = str(why) if isinstance(why, StaysCold) else f"{type(why).__name__}: {why}"
        os.write(status, text.encode(errors="replace")[:JOB_BYTES])
        os._exit(1)
    code = LoadedCode(since=began)
    kept = _open_descriptors() - {jobs, status}
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # a supervisor that has ended leaves no zombie
    gc.collect()
    gc.freeze()
    with suppress(BrokenPipeError):  # the poller has ended meanwhile; the socket says so too
        os.write(status, b"ready")
    _Forks(socket.socket(fileno=jobs), status, parked, frozenset(kept)).keep(code)
    os._exit(0)


def _set_up() -> None:
    import django

    django.setup()
    import django.db.models.sql.compiler
    from django.db import connections

    import scheduler.task  # noqa: F401  (what most programs import)

    for connection in connections.all():
        connection.close()  # start-up code may have asked something


def _refuse_what_is_left(given: set[int]) -> None:
    """Raise StaysCold when start-up code left something that two processes cannot share."""
    if codecs.lookup(sys.getfilesystemencoding()).name != "utf-8":
        raise StaysCold("The file names of this locale are not UTF-8.")
    if "gevent.monkey" in sys.modules or "eventlet.patcher" in sys.modules:
        raise StaysCold("The site's start-up code has loaded gevent or eventlet.")
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        names = ", ".join(sorted(thread.name for thread in threading.enumerate()[1:])) or "of a library"
        raise StaysCold(f"The site's start-up code has left {threads - 1} thread(s) running: {names}.")
    for descriptor in _open_descriptors() - given - STANDARD:
        with suppress(OSError):
            kind = os.readlink(f"/proc/self/fd/{descriptor}")
            if kind.startswith(("socket:", "anon_inode:")):
                raise StaysCold(f"The site's start-up code has left a connection open ({kind}).")


def _open_descriptors() -> set[int]:
    found = {int(name) for name in os.listdir("/proc/self/fd")}
    return {descriptor for descriptor in found if os.path.lexists(f"/proc/self/fd/{descriptor}")}


# What is loaded


class LoadedCode:
    """What this process has loaded, and whether it is still the same on disk.

    A deploy may replace files in place, switch a symbolic link on the way to them, or change what is installed. What
    was changed after ``since`` (seconds of the epoch) may have been loaded before that: it counts as changed.
    """

    def __init__(self, *, since: float) -> None:
        self._files = {path: _identity(path) for path in _loaded_files()}
        self._places = {path: os.path.realpath(path) for path in [*sys.path, sys.prefix, sys.executable] if path}
        self._folders = {path: self._packages(path) for path in sys.path if path}
        self._is_mixed = any(_changed_at(path) >= since for path in self._files)

    def has_changed(self) -> bool:
        """Look at all of it once more: about two microseconds a file."""
        return (
            self._is_mixed
            or any(_identity(path) != seen for path, seen in self._files.items())
            or any(os.path.realpath(path) != seen for path, seen in self._places.items())
            or any(self._packages(path, *seen) != seen for path, seen in self._folders.items())
        )

    @staticmethod
    def _packages(path: str, changed: int = -1, names: frozenset[str] = frozenset()) -> tuple[int, frozenset[str]]:
        """When a folder was changed, and which distributions are installed in it."""
        try:
            now = os.stat(path).st_mtime_ns
            if now == changed:
                return changed, names
            found = frozenset(name for name in os.listdir(path) if name.endswith((".dist-info", ".egg-info")))
        except OSError:
            return -1, frozenset()
        # A folder in which other files come and go (a database's) is the same as long as its packages are.
        return (changed if found == names else now), found


def _loaded_files() -> set[str]:
    files = {os.path.join(sys.prefix, "pyvenv.cfg")}
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if isinstance(path, str) and os.path.isabs(path):
            files.add(path)
    return files


def _identity(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _changed_at(path: str) -> float:
    try:
        return os.stat(path).st_ctime
    except OSError:
        return 0.0


# Forking


@dataclass(slots=True)
class _Forks:
    """Keeps so many supervisors parked; with none, one is forked when a job waits.

    A supervisor that has done its job waits for the next one for a while, with a new process for the program: where
    many runs follow each other, that saves one of two forks.
    """

    jobs: socket.socket
    status: int
    parked: int
    kept: frozenset[int]
    """The descriptors that start-up code has opened: a program has them too."""
    _told: int = -1
    _tell: int = -1
    """By this pipe a supervisor says that it has taken a job (its pid), or waits for another one (minus its pid)."""
    _waiting: set[int] = field(default_factory=set)
    _busy: set[int] = field(default_factory=set)

    def keep(self, code: LoadedCode) -> None:
        """Fork until the code changes or the poller closes the socket."""
        self._told, self._tell = os.pipe()
        self.jobs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", IDLE_SECONDS, 0))
        poll = select.poll()
        poll.register(self._told, select.POLLIN)
        # A parked supervisor takes its job from the socket itself; that it was closed is reported in any case.
        poll.register(self.jobs, 0 if self.parked else select.POLLIN)
        looked_at = time.monotonic()
        while True:
            if self.parked and not self._waiting:
                self._fork()
            is_short = len(self._waiting) < self.parked
            happened = dict(poll.poll(REFILL_MILLISECONDS if is_short else LOOK_EVERY_MILLISECONDS))
            if happened.get(self.jobs.fileno(), 0) & (select.POLLHUP | select.POLLERR):
                return
            if self._told in happened:
                self._note()
            elif happened:
                if not self._waiting:
                    self._fork()
                # Until it has taken the job, the socket goes on saying that one waits.
                select.select([self._told], [], [], LOOK_EVERY_MILLISECONDS / 1000)
                self._forget_ended()
            elif is_short:
                self._fork()
            if time.monotonic() - looked_at >= LOOK_EVERY_MILLISECONDS / 1000:
                looked_at = time.monotonic()
                self._forget_ended()
                if code.has_changed():
                    return

    def _note(self) -> None:
        for (number,) in PID.iter_unpack(os.read(self._told, PID.size * 100)):
            if number < 0:
                self._busy.discard(-number)
                self._waiting.add(-number)
            else:
                self._waiting.discard(number)
                self._busy.add(number)

    def _forget_ended(self) -> None:
        """SIGCHLD being ignored, nothing is left of a supervisor that has ended or was killed."""
        for pids in (self._waiting, self._busy):
            for pid in list(pids):
                try:
                    os.kill(pid, 0)
                except OSError:
                    pids.discard(pid)

    def _fork(self) -> None:
        connects = len(self._waiting) + len(self._busy) < CONNECTED_AT_MOST
        pid = os.fork()
        if pid:
            self._waiting.add(pid)
            return
        try:
            self._be_supervisor(_connect_and_rehearse if connects else rehearse)
        finally:
            os._exit(1)

    def _be_supervisor(self, prepare: Callable[[], None]) -> None:
        """Fork the program's process, wait for a job, and do it; then the next one, if there soon is one."""
        os.setsid()
        os.close(self.status)
        os.close(self._told)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        become_subreaper()
        identity()  # looked up while nobody waits for it
        errors = os.dup(2)
        own = STANDARD | self.kept | {self.jobs.fileno(), self._tell, errors}
        for number in range(RUNS_OF_A_SUPERVISOR if self.parked else 1):
            processes.call_this_process("parked")
            program = fork_program(execute=self._execute, prepare=prepare)
            if number == 0:
                launch.rehearse()
            else:
                self._say(-os.getpid())
            job = self._take_job(patient=number == 0)
            if job is None:
                return
            folder, answer = job
            if _has_ended(program):
                program = fork_program(execute=self._execute)  # killed while it was parked: no fault of the run
            if not launch.do_run(folder, answer, program, self._make_room):
                return
            # No process of the run is left, and so nothing of it may stay open here, above all not its folder.
            os.chdir("/")
            os.dup2(errors, 2)
            _close_all_but(own)

    def _take_job(self, *, patient: bool) -> tuple[RunFolder, int] | None:
        """A run's folder, and where to answer; None when there is nothing more to do for this process."""
        while True:
            try:
                job, descriptors, _flags, _address = socket.recv_fds(self.jobs, JOB_BYTES, 1)
            except BlockingIOError:  # none for so long
                if patient:
                    continue
                self._say(os.getpid())
                return None
            if not job:
                return None  # the poller has let go of it: the code has changed, or the poller has ended
            os.set_inheritable(descriptors[0], False)
            return RunFolder(os.fsdecode(job)), descriptors[0]

    def _make_room(self) -> None:
        """Have another one parked. Not before the program is under way: the fork would take the processor from it."""
        self._say(os.getpid())
        processes.call_this_process("supervisor")

    def _say(self, number: int) -> None:
        with suppress(BrokenPipeError):  # the warm process was killed
            os.write(self._tell, PID.pack(number))

    def _execute(self, argv: list[str], variables: dict[str, str]) -> None:
        os.environ.update(variables)
        if hides_a_module(argv[1]):
            os.execv(argv[0], argv)  # noqa: S606  (it would get the site's module: a new interpreter finds its own)
        connection = _connection()
        _close_all_but(STANDARD | self.kept | ({connection} if connection is not None else set()))
        # By this one a process of the run is found that was forked and has closed nothing; exec closes it.
        os.open(".", os.O_PATH | os.O_CLOEXEC)
        processes.call_this_process(os.path.basename(argv[1]))
        run_as_main(argv)


def _has_ended(program: Program) -> bool:
    return os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _close_all_but(kept: set[int] | frozenset[int]) -> None:
    first = 0
    for descriptor in sorted(kept):
        if first < descriptor:  # an empty range at 0 would mean all of them
            os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _connect_and_rehearse() -> None:
    _connect()
    _connection()
    rehearse()


def _connect() -> None:
    """Connect to the database beforehand where that takes long; a program finds it as if it had done so itself."""
    from django.db import connection

    if connection.vendor == "postgresql" and not connection.settings_dict["OPTIONS"].get("pool"):
        with suppress(Exception):  # the program will meet it too, and its log will say so
            connection.ensure_connection()


def _connection() -> int | None:
    """The descriptor of the connection that was made beforehand, unless the server has closed it meanwhile."""
    from django.db import connection

    if connection.connection is None:
        return None
    descriptor: int = connection.connection.fileno()
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if not poll.poll(0):
        return descriptor
    with suppress(Exception):
        connection.close()
    return None
