"""The run folder: what is in it, how it is written so that a crash loses nothing, and what it says about a run.

=================  ==========================================================================================
``spec.json``      what to run, written by the poller before the launch
``lock``           held (POSIX lock) by the supervisor for as long as it lives
``started.json``   the supervisor: from now on a second start is impossible
``task.json``      the program's process: pid, start ticks, session
``exit.json``      how the program ended
``cleanup.json``   the task's clean-up command was begun: a second start is impossible
``outputs.json``   which files are collected, under which ids
``done.json``      the files that were collected: nothing is left to do
``stop.json``      written by the poller: stop the program
``control``        a FIFO; a byte in it makes the supervisor look at once
``output/``        where the program puts its files (the task's user's)
``reports.jsonl``  the program's messages and progress (the task's user's)
=================  ==========================================================================================

Beside the folder, ``<name>.json`` is its tombstone: the result of a run whose folder has been removed.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import fcntl
import json
import os
import struct
from typing import Any

from . import processes

VERSION = 1

SPEC = "spec.json"
LOCK = "lock"
STARTED = "started.json"
TASK = "task.json"
EXIT = "exit.json"
CLEANUP = "cleanup.json"
OUTPUTS = "outputs.json"
DONE = "done.json"
STOP = "stop.json"
CONTROL = "control"
OUTPUT = "output"
REPORTS = "reports.jsonl"
PROGRESS = "progress.json"  # of an archive that is being built
SUPERVISOR_LOG = "supervisor.log"

# The result is written into a file of this size that exists beforehand: a full disk must not lose an exit code.
RESULT_BYTES = 4096


class Stage(enum.Enum):
    """What a run folder and the kernel say about a run."""

    NOT_STARTED = enum.auto()  # no supervisor has started the program, and none is about to
    STARTING = enum.auto()  # a supervisor lives, the program does not yet
    RUNNING = enum.auto()  # a supervisor lives and watches the program
    COLLECTING = enum.auto()  # the program has ended, a supervisor is tidying up
    ENDED = enum.auto()  # the program has ended, the supervisor died before it had collected the files
    DEAD = enum.auto()  # the supervisor died and nobody saw the program's end
    DONE = enum.auto()  # ended and collected
    RETIRED = enum.auto()  # ended, ingested and removed: only the tombstone is left


class RunFolder:
    """One run's folder, by its path."""

    def __init__(self, path: str) -> None:
        self.path = path

    def file(self, name: str) -> str:
        return os.path.join(self.path, name)

    @property
    def tombstone(self) -> str:
        return f"{self.path}.json"

    def exists(self) -> bool:
        return os.path.lexists(self.path)

    def has_tombstone(self) -> bool:
        """Whether there is one that counts.

        Tombstones are on the disk before anything of their folders goes. One without its content was left by a machine
        that crashed before that: what is in the folder counts, as long as there is one.
        """
        return os.path.lexists(self.tombstone) and (read_json(self.tombstone) is not None or not self.exists())

    def has(self, name: str) -> bool:
        return os.path.lexists(self.file(name))

    def read(self, name: str) -> dict[str, Any] | None:
        """The content of one of the JSON files; None when it is not there, or is no JSON."""
        return read_json(self.file(name))

    def result(self) -> dict[str, dict[str, Any] | None]:
        """What is known of the run's start and end: the content of each of these files."""
        return {name: self.read(name) for name in (STARTED, TASK, EXIT, DONE)}

    def write(self, name: str, content: dict[str, Any], *, durable: bool = True) -> None:
        """Write a JSON file so that it is there wholly or not at all; a durable one also after the machine crashed."""
        write_json(self.file(name), content, durable=durable)

    def make(self, owner: tuple[int, int] | None = None) -> None:
        """Make the folder with its output folder and reports file; what is there already is kept.

        ``owner`` (uid, gid) is the task's user, when that is another than this process's.
        """
        os.makedirs(self.path, exist_ok=True)
        os.chmod(self.path, 0o711)  # by hand: the umask of a service would let no other user pass
        os.makedirs(self.file(OUTPUT), mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        reports = os.open(self.file(REPORTS), flags, 0o644)
        if owner is not None:
            os.fchown(reports, *owner)
            os.chown(self.file(OUTPUT), *owner, follow_symlinks=False)
        os.close(reports)

    def mark_started(self, content: dict[str, Any], name: str = STARTED) -> None:
        """Write started.json so that it is on the disk before the program runs. Raises FileExistsError the second time.

        One flush, of the file: it takes the name of a new file along on the journaling file systems of Linux, and what
        counts is that the file is there, even if a crash has left it without its content.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.file(name), flags, 0o600)
        try:
            os.write(descriptor, json.dumps({"version": VERSION, **content}).encode())
            os.fsync(descriptor)
        except OSError:
            os.unlink(self.file(name))  # nothing was started: when the disk has room again, it may be
            raise
        finally:
            os.close(descriptor)

    def prepare_result(self) -> int:
        """Reserve the room of exit.json on the disk; the descriptor goes to ``write_result``."""
        descriptor = os.open(self.file(EXIT + ".new"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.posix_fallocate(descriptor, 0, RESULT_BYTES)
        return descriptor

    def write_result(self, descriptor: int, content: dict[str, Any]) -> None:
        """Write exit.json into the room that was reserved.

        One flush, of the content: if the machine ends before its new name is on the disk, ``find_result`` takes it.
        """
        text = json.dumps({"version": VERSION, **content}).encode()
        if len(text) > RESULT_BYTES:
            text = json.dumps({"version": VERSION, **content, "detail": content.get("detail", "")[:200]}).encode()
        os.pwrite(descriptor, text.ljust(RESULT_BYTES), 0)
        os.fsync(descriptor)
        os.rename(self.file(EXIT + ".new"), self.file(EXIT))

    def find_result(self) -> bool:
        """Whether there is an exit that nobody gave its name; it has it afterwards. Only for a folder in stage DEAD."""
        if "reason" not in (self.read(EXIT + ".new") or {}):
            return False
        os.rename(self.file(EXIT + ".new"), self.file(EXIT))
        return True

    def take_lock(self) -> int | None:
        """Lock the folder for this process; None when another process holds the lock.

        The descriptor must stay open, and no other descriptor of the file may be closed, for as long as the lock
        matters: closing any of them frees it.
        """
        descriptor = os.open(self.file(LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in {errno.EACCES, errno.EAGAIN}:
                raise
            os.close(descriptor)
            return None
        return descriptor

    def lock_holder(self) -> int | None:
        """The pid of the process that holds the lock; None when nobody does. Not for the holder itself."""
        try:
            descriptor = os.open(self.file(LOCK), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            # struct flock on 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid (fcntl(2))
            question = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, question)
            kind, _whence, _start, _length, pid = struct.unpack("hhqqi4x", answer)
        finally:
            os.close(descriptor)
        return None if kind == fcntl.F_UNLCK else int(pid)

    def stage(self) -> Stage:
        """Where the run stands.

        The order counts, since a supervisor may start or end meanwhile. It takes the lock and then writes started.json:
        that is looked for first, so that a free lock means that its writer is dead. It writes exit.json and done.json
        and then lets go of the lock: they are looked for after it, so that what a free lock's owner wrote is final. The
        tombstone is there before anything of the folder is removed: without it, what was not found never was there.
        """
        started = self.has(STARTED)
        held = self.lock_holder() is not None
        done, ended = self.has(DONE), self.has(EXIT)
        if self.has_tombstone():
            return Stage.RETIRED  # also while the rest of the folder is being removed
        if done:
            return Stage.DONE
        if ended:
            return Stage.COLLECTING if held else Stage.ENDED
        if held:
            return Stage.RUNNING if self.has(TASK) else Stage.STARTING
        return Stage.DEAD if started else Stage.NOT_STARTED

    def declare_lost(self, at: float, detail: str) -> bool:
        """Write the exit of a run whose end nobody saw; False when a supervisor has taken it up meanwhile.

        Only for a folder in stage DEAD, and only when no process of the run is left.
        """
        lock = self.take_lock()
        if lock is None:
            return False
        try:
            if not self.has(EXIT) and not self.find_result():
                self.write(EXIT, {"reason": "lost", "at": at, "detail": detail})
        finally:
            os.close(lock)
        return True

    def forbid_start(self, at: float, detail: str) -> bool:
        """Write the exit of a run that could not be launched, so that no late supervisor starts it after all.

        False when a supervisor has started it, or is just doing so.
        """
        lock = self.take_lock()
        if lock is None:
            return False
        try:
            if self.has(STARTED):
                return False
            if not self.has(EXIT):
                self.write(EXIT, {"reason": "launch_error", "at": at, "detail": detail})
                self.write(DONE, {"files": [], "problems": []})
        finally:
            os.close(lock)
        return True

    def poke(self) -> None:
        """Make the supervisor look at its folder at once; it does so every second anyway."""
        try:
            descriptor = os.open(self.file(CONTROL), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return
        try:
            os.write(descriptor, b"!")
        except OSError:
            pass
        finally:
            os.close(descriptor)


def read_json(path: str) -> dict[str, Any] | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        try:
            content = json.loads(file.read())
        except ValueError:
            return None
    return content if isinstance(content, dict) else None


def write_json(path: str, content: dict[str, Any], *, durable: bool = True) -> None:
    new = f"{path}.{os.getpid()}.new"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(json.dumps({"version": VERSION, **content}).encode())
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.rename(new, path)
    except OSError:
        os.unlink(new)
        raise
    if durable:
        _sync_folder(os.path.dirname(path))


def flush_file_system(path: str) -> None:
    """Wait until all is on the disk that was written into the file system of this folder. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if processes.libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
    finally:
        os.close(descriptor)


def _sync_folder(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
