"""Building the ZIP of a run's files in the store: a process of its own, so that nobody waits for it.

Started as ``python -I -S …/scheduler/supervisor --archive JOB_FOLDER``. The job folder has the files of a run folder:
``spec.json`` (what to pack), ``lock``, ``progress.json`` and, at the end, ``done.json``.
"""

from __future__ import annotations

import os
import time
import zipfile
from typing import Any

from .collect import CHUNK, FILE_FLAGS, FOLDER_FLAGS, digest, opened
from .folder import DONE, PROGRESS, SPEC, RunFolder
from .launch import wake

PROGRESS_EVERY_SECONDS = 0.5
NICENESS = 10  # a person waits for it, but runs come first


def main(path: str) -> None:
    """Build the archive that a job describes; nothing happens when another process is at it, or it is there already."""
    job = RunFolder(path)
    lock = job.take_lock()  # kept until this process ends
    spec = job.read(SPEC)
    if lock is None or spec is None or job.has(DONE):
        return
    os.nice(NICENESS)
    try:
        result = _build(job, spec)
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        result = {"problem": getattr(error, "strerror", None) or str(error)}
    job.write(DONE, result)
    wake(spec["wake"])


def _build(job: RunFolder, spec: dict[str, Any]) -> dict[str, Any]:
    with opened(spec["store"], FOLDER_FLAGS) as store:
        part = spec["part"]
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with opened(part, flags, store, 0o640) as target:
                if spec.get("store_gid") is not None:
                    os.fchown(target, -1, int(spec["store_gid"]))
                os.fchmod(target, 0o640)
                with os.fdopen(os.dup(target), "w+b") as file:
                    _pack(file, store, job, spec)
                os.fsync(target)
                os.lseek(target, 0, os.SEEK_SET)
                result = {"size": os.fstat(target).st_size, "sha256": digest(target)}
            os.rename(part, spec["target"], src_dir_fd=store, dst_dir_fd=store)
        except BaseException:
            if os.access(part, os.F_OK, dir_fd=store):
                os.unlink(part, dir_fd=store)
            raise
    return result


def _pack(file: Any, store: int, job: RunFolder, spec: dict[str, Any]) -> None:
    done, told = 0, 0.0
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        for member in spec["members"]:
            with opened(member["id"], FILE_FLAGS, store) as source:
                entry = zipfile.ZipInfo(member["name"], time.localtime(os.fstat(source).st_mtime)[:6])
                entry.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(entry, "w", force_zip64=True) as packed:
                    while chunk := os.read(source, CHUNK):
                        packed.write(chunk)
                        done += len(chunk)
                        if time.monotonic() - told >= PROGRESS_EVERY_SECONDS:
                            job.write(PROGRESS, {"done_bytes": done})
                            told = time.monotonic()
