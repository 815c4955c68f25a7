"""Which version of its program a run was started with, noted once it runs: a start never waits for it."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scheduler.models import ProgramVersion
from scheduler.supervisor import folder as protocol

if TYPE_CHECKING:
    from scheduler.models import Run
    from scheduler.supervisor.folder import RunFolder

PROGRAM_BYTES = 16 * 1024**2  # a larger program is not read
REMEMBERED = 1000


@dataclass(slots=True)
class Versions:
    """Versions of programs; a file is read again only when its inode, size or times have changed."""

    _known: dict[tuple[Any, ...], int | None] = field(default_factory=dict)

    def of(self, run: Run, folder: RunFolder) -> int | None:
        """The key of the run's ``ProgramVersion``; None when its program cannot be told any more.

        That is so when the file has been changed since the run was claimed: the run may have been started with either.
        """
        spec = folder.read(protocol.SPEC) or {}
        argv, names = _texts(spec.get("argv")), _texts(spec.get("environment"))
        if argv is None or len(argv) < 2 or names is None:
            return None  # a program that runs as the scheduler's own user can write into its run folder
        try:
            found = Path(argv[1]).lstat()
        except (OSError, ValueError):
            return None
        if run.claimed_at is None or max(found.st_mtime, found.st_ctime) >= run.claimed_at.timestamp():
            return None
        key = (run.program, *argv[:2], *names, *_identity(found))
        if key not in self._known:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[key] = _stored(run, argv, names, found)
        return self._known[key]


def _stored(run: Run, argv: list[str], names: list[str], found: os.stat_result) -> int | None:
    sha256 = _hash(argv[1], found)
    if sha256 is None:
        return None
    version = ProgramVersion.of(
        program=run.program,
        sha256=sha256,
        size=found.st_size,
        modified_at=datetime.fromtimestamp(found.st_mtime, UTC),
        interpreter=argv[0][:500],
        environment=names,
    )
    return version.pk


def _hash(path: str, found: os.stat_result) -> str | None:
    """The SHA-256 of the very file that was found; None when it is another by now, or none to be read."""
    if not stat.S_ISREG(found.st_mode) or found.st_size > PROGRAM_BYTES:
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return digest if _identity(os.fstat(file.fileno())) == _identity(found) else None
    except OSError:
        return None


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _texts(value: Any) -> list[str] | None:
    return value if isinstance(value, list) and all(isinstance(each, str) for each in value) else None
