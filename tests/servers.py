"""Servers of the tests' own, found on this machine and started in scratch folders.

Standard library only: ``tests/run`` imports it before anything is installed.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterator


def in_ci() -> bool:
    """There, a missing server is a failure; elsewhere its tests are skipped."""
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def in_full_run() -> bool:
    """``tests/run --full``: there, the long versions of tests are run."""
    return bool(os.environ.get("SCHEDULER_TESTS_FULL"))


def program(name: str) -> Path | None:
    """A server's program; Debian keeps some where a user's PATH does not look."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]))
    return Path(found) if found else None


def postgresql_folder() -> Path | None:
    """The folder of the newest PostgreSQL server's programs; Debian does not put it on PATH."""
    versions = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").exists()]
    if versions:
        return max(versions, key=lambda path: [int(part) for part in path.parent.name.split(".") if part.isdigit()])
    initdb = program("initdb")
    return initdb.resolve().parent if initdb else None


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """A PostgreSQL of the tests' own, reached by a socket in a private folder only; gives its DATABASE_URL.

    Raises RuntimeError with what PostgreSQL said when it cannot be started.
    """
    folder = postgresql_folder()
    if folder is None:
        raise RuntimeError("PostgreSQL is not installed.")
    account = _unprivileged()
    top = Path(tempfile.mkdtemp(prefix="scheduler-pg-"))
    try:
        if account is not None:
            os.chown(top, account.pw_uid, account.pw_gid)
        data = top / "data"
        initdb: list[str | Path] = [
            folder / "initdb",
            "--auth=trust",
            "--username=scheduler",
            "--encoding=UTF8",
            "--no-sync",
            "--pgdata",
            data,
        ]
        _call(initdb, account, top)
        # A scratch database: nothing of it has to survive a power cut.
        options = f"-c listen_addresses='' -c unix_socket_directories={top} -c fsync=off -c full_page_writes=off"
        control: list[str | Path] = [folder / "pg_ctl", "--pgdata", data, "--wait", "--silent"]
        _call([*control, "--log", top / "log", "--options", options, "start"], account, top)
        try:
            yield f"postgres://scheduler@{quote(str(top), safe='')}/postgres"
        finally:
            _call([*control, "--mode", "immediate", "stop"], account, top)
    finally:
        shutil.rmtree(top, ignore_errors=True)


def _unprivileged() -> pwd.struct_passwd | None:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError("PostgreSQL does not run as root, and there is no user postgres or nobody to run it as.")


def _call(command: list[str | Path], account: pwd.struct_passwd | None, folder: Path) -> None:
    user, group = (account.pw_uid, account.pw_gid) if account else (None, None)
    # Into a file and not a pipe: the server keeps what it inherits, and the pipe would never end.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            env=_plain(),
            user=user,
            group=group,
            extra_groups=[] if account else None,
            check=False,
        )
        if done.returncode != 0:
            output.seek(0)
            log = folder / "log"
            said = output.read().decode(errors="replace") + (log.read_text(errors="replace") if log.exists() else "")
            raise RuntimeError(f"{Path(command[0]).name} failed: {said.strip()}")


def _plain() -> dict[str, str]:
    """Without this user's own PostgreSQL settings (PGDATA, PGHOST …)."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C.UTF-8"}


def with_default_signals() -> None:
    """Before exec, in a child: what a terminal would have it start with.

    A shell starts what runs in its background with SIGINT ignored, nohup ignores SIGHUP, and it goes on to children.
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
