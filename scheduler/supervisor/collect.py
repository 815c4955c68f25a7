"""Collecting a run's output files into the store: what may be opened, how, and under which name.

The task is not trusted: it may leave symlinks, hard links to other people's files, FIFOs, devices and names of any
bytes. Each file is reached from a descriptor of the output folder without following a link, checked by that
descriptor, and moved (or copied, from another file system) under an id that is fixed beforehand, so that an
interrupted collection is taken up where it stopped.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from .folder import DONE, OUTPUT, OUTPUTS, RunFolder
from .processes import libc

CHUNK = 1024 * 1024
MAX_DEPTH = 20
NAMED_AT_MOST = 1000  # files that stay behind; a program may leave a million links
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
PATH_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class NotCollected(Exception):  # noqa: N818  (an outcome, not an error)
    """A file stays behind; the text says why."""


class TooLarge(NotCollected):
    """The run's files are larger than its limit."""


def collect(folder: RunFolder, spec: dict[str, Any], found: dict[str, Any] | None = None) -> None:
    """Collect the files of a run in which no process is left any more, and write done.json.

    ``found`` is what else was found out about the run; it goes into the same file.
    """
    owners = {int(spec["user"]["uid"]) if spec.get("user") else os.geteuid()}
    plan = folder.read(OUTPUTS)
    if plan is None:
        plan = _plan(folder.file(OUTPUT), int(spec["output_files"]), owners)
        if plan["files"]:  # their ids stay the same, if this is interrupted
            folder.write(OUTPUTS, plan)
    else:
        owners.add(os.geteuid())  # taken already, before the collection was interrupted
    files: list[dict[str, Any]] = []
    problems = list(plan["problems"])
    found = found or {}
    reached = {**found.get("limits", {}), **plan.get("limits", {})}
    room = int(spec["output_bytes"])
    with opened(spec["store"], FOLDER_FLAGS) as store:
        for entry in plan["files"]:
            try:
                with opened(folder.file(OUTPUT), FOLDER_FLAGS) as output:
                    size, digest = _collect_file(output, entry["path"], store, entry["id"], spec, owners, room)
            except NotCollected as why:
                problems.append({"path": entry["path"], "why": str(why)})
                if isinstance(why, TooLarge):
                    reached["output_bytes"] = int(spec["output_bytes"])
            except OSError as error:
                if _may_fit_later(error, folder, entry["path"], store):
                    raise  # its supervisor ends, and another one takes this up when there is room
                problems.append({"path": entry["path"], "why": error.strerror or str(error)})
            else:
                room -= size
                files.append({"id": entry["id"], "path": entry["path"], "size": size, "sha256": digest})
        if files:
            # One flush for all of them, before done.json says that they are there.
            libc.syncfs(store)
    # Each that is named becomes a line of the run's history.
    if unnamed := plan.get("unnamed", 0) + len(problems[NAMED_AT_MOST:]):
        problems[NAMED_AT_MOST:] = [{"path": [], "why": f"{unnamed} more stayed behind"}]
    done = {"files": files, "problems": problems, **found}
    if reached:
        done["limits"] = reached
    # Not flushed: after a crash of the machine the collection is done again, with the same ids.
    folder.write(DONE, done, durable=False)


def _may_fit_later(error: OSError, folder: RunFolder, path: list[str], store: int) -> bool:
    """Whether a file has no place only because the store's disk is full now, and not because it is larger than that."""
    if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
        return False
    disk = os.fstatvfs(store)
    try:
        size = os.lstat(os.path.join(folder.file(OUTPUT), *path)).st_size
    except OSError:
        return False
    return size < disk.f_blocks * disk.f_frsize


def _plan(output: str, most: int, owners: set[int]) -> dict[str, Any]:
    """What there is to collect, each with its id in the store."""
    files: list[dict[str, Any]] = []
    problems: list[dict[str, Any]] = []
    too_many = unnamed = 0
    try:
        _take(output, None, owners)
        with opened(output, FOLDER_FLAGS) as top:
            for path, why in _walk(top, [], owners):
                if why and len(problems) < NAMED_AT_MOST:
                    problems.append({"path": path, "why": why})
                elif why:
                    unnamed += 1
                elif len(files) < most:
                    files.append({"id": str(uuid.UUID(bytes=os.urandom(16), version=4)), "path": path})
                else:
                    too_many += 1
    except NotCollected as why:
        problems.append({"path": [], "why": f"the output folder is not collected: {why}"})
    except OSError as error:
        problems.append({"path": [], "why": f"the output folder cannot be read: {error.strerror}"})
    if too_many:
        problems.insert(0, {"path": [], "why": f"{too_many} more files than the {most} that are collected"})
    limits = {"output_files": most} if too_many else {}
    return {"files": files, "problems": problems, "unnamed": unnamed, "limits": limits}


def _walk(folder: int, path: list[str], owners: set[int]) -> Iterator[tuple[list[str], str]]:
    """(path as a list of names, why it cannot be collected or "") of everything below an open folder."""
    for name in sorted(os.listdir(folder)):
        here = [*path, name]
        try:
            mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            if not stat.S_ISDIR(mode):
                yield here, _kind_problem(mode)
            elif len(here) > MAX_DEPTH:
                yield here, "too many folders inside each other"
            else:
                _take(name, folder, owners)
                with opened(name, FOLDER_FLAGS, folder) as inner:
                    yield from _walk(inner, here, owners)
        except NotCollected as why:
            yield here, str(why)
        except OSError as error:
            yield here, error.strerror or str(error)


def _kind_problem(mode: int) -> str:
    if stat.S_ISREG(mode):
        return ""
    kinds = {stat.S_IFLNK: "a symbolic link", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
    return f"{kinds.get(stat.S_IFMT(mode), 'a device')}, not a regular file"


def _collect_file(
    output: int, path: list[str], store: int, name: str, spec: dict[str, Any], owners: set[int], room: int
) -> tuple[int, str]:
    """Bring one file into the store; its size and SHA-256. Raises NotCollected or OSError when it stays behind."""
    try:
        with _parent(output, path[:-1]) as parent:
            _take(path[-1], parent, owners)
            with opened(path[-1], FILE_FLAGS, parent) as source:
                found = _check(source, {os.geteuid()})
                if found.st_size > room:
                    raise TooLarge("the run's files are larger than the limit")
                _move(parent, path[-1], source, found, store, name)
    except FileNotFoundError:
        pass  # moved already, before the collection was interrupted; if not, the next line says so
    with opened(name, FILE_FLAGS, store) as target:
        if spec.get("store_gid") is not None:
            os.fchown(target, -1, int(spec["store_gid"]))
        os.fchmod(target, 0o640)
        try:
            return _check(target, {os.geteuid()}).st_size, digest(target)
        except NotCollected:
            os.unlink(name, dir_fd=store)  # it got another name meanwhile
            raise


def _take(name: str, folder: int | None, owners: set[int]) -> None:
    """Make a file or folder of the task's user this process's own, and readable, by a descriptor that opens nothing."""
    with opened(name, PATH_FLAGS, folder) as place:
        found = _check(place, owners)
        itself = f"/proc/self/fd/{place}"
        if found.st_uid != os.geteuid():
            os.chown(itself, os.geteuid(), -1)
        if not found.st_mode & stat.S_IRUSR or stat.S_ISDIR(found.st_mode):
            os.chmod(itself, stat.S_IMODE(found.st_mode) | stat.S_IRWXU)


def _check(file: int, owners: set[int]) -> os.stat_result:
    """The state of an open file or folder. Raises NotCollected when it is not to be touched."""
    found = os.fstat(file)
    if not stat.S_ISDIR(found.st_mode):
        if why := _kind_problem(found.st_mode):
            raise NotCollected(why)
        if found.st_nlink != 1:
            raise NotCollected("it has another name (hard link), so it may be somebody else's file")
    if found.st_uid not in owners:
        raise NotCollected("it belongs to another user")
    return found


def _move(parent: int, old: str, source: int, found: os.stat_result, store: int, name: str) -> None:
    try:
        os.rename(old, name, src_dir_fd=parent, dst_dir_fd=store)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        try:
            _copy(source, store, name)
        except OSError:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=store)  # a part of it helps nobody, and takes room
            raise
        os.unlink(old, dir_fd=parent)
        return
    moved = os.stat(name, dir_fd=store, follow_symlinks=False)
    if (moved.st_dev, moved.st_ino) != (found.st_dev, found.st_ino):
        os.unlink(name, dir_fd=store)
        raise NotCollected("it was exchanged while it was collected")


def _copy(source: int, store: int, name: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with opened(name, flags, store, 0o640) as target:
        while chunk := os.read(source, CHUNK):
            view = memoryview(chunk)
            while view:
                view = view[os.write(target, view) :]


def digest(file: int) -> str:
    digest = hashlib.sha256()
    while chunk := os.read(file, CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def opened(path: str, flags: int, folder: int | None = None, mode: int = 0o600) -> Iterator[int]:
    descriptor = os.open(path, flags, mode, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _parent(output: int, folders: list[str]) -> Iterator[int]:
    """The folder of a file, reached step by step so that no step follows a link."""
    current = os.dup(output)
    try:
        for name in folders:
            inner = os.open(name, FOLDER_FLAGS, dir_fd=current)
            os.close(current)
            current = inner
        yield current
    finally:
        os.close(current)
