"""Back up the site's database, and prove that the copy can be read.

SQLite: a consistent copy by SQLite's backup API while the site goes on, checked by `PRAGMA integrity_check`, compressed
and read back. To restore: stop the site, unpack it (gunzip) in the place of the database's file.

PostgreSQL: pg_dump in its compressed custom format, checked by `pg_restore --list`. To restore: pg_restore.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import shutil
import sqlite3
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scheduler.task import run

PAGES_AT_ONCE = 500
BLOCK = 1024 * 1024


class BackupError(Exception):
    """There is no good backup; the text is one sentence for people."""


def back_up_sqlite(connection: Any, scratch: Path) -> tuple[Path, str]:
    """The checked backup, still in ``scratch``, and what there is to say about it."""
    if connection.is_in_memory_db():
        raise BackupError("This database lives in the memory of another process and cannot be backed up.")
    copy, packed = scratch / "copy.sqlite3", scratch / "backup.sqlite3.gz"
    copy_sqlite(connection, copy)
    tables = check_sqlite(copy)
    compress(copy, packed)
    return packed, f"{tables} tables, {size(copy.stat().st_size)} unpacked, integrity check passed"


def copy_sqlite(connection: Any, copy: Path) -> None:
    connection.ensure_connection()
    source: sqlite3.Connection = connection.connection
    with contextlib.closing(sqlite3.connect(copy)) as target:
        # Reading in one transaction: otherwise each write of somebody else starts the copy from the beginning.
        source.execute("BEGIN DEFERRED")
        try:
            source.execute("SELECT count(*) FROM sqlite_master").fetchone()
            source.backup(
                target,
                pages=PAGES_AT_ONCE,
                progress=lambda _status, left, total: run.progress(total - left, total, "pages copied"),
            )
        finally:
            source.execute("ROLLBACK")
        # A copy of a database in WAL mode is in WAL mode too, which takes more than one file.
        target.execute("PRAGMA journal_mode = DELETE")


def check_sqlite(copy: Path) -> int:
    """The number of tables of a copy that is sound."""
    run.message("Checking the copy")
    with contextlib.closing(sqlite3.connect(copy)) as database:
        try:
            found = [row[0] for row in database.execute("PRAGMA integrity_check")]
        except sqlite3.DatabaseError as error:
            found = [str(error)]
        if found != ["ok"]:
            raise BackupError(f"The copy is damaged, as the database itself may be: {found[0]}.")
        return int(database.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()[0])


def compress(source: Path, packed: Path) -> None:
    total, done, written = source.stat().st_size, 0, hashlib.sha256()
    with source.open("rb") as plain, gzip.open(packed, "wb", compresslevel=6) as out:
        while block := plain.read(BLOCK):
            written.update(block)
            out.write(block)
            done += len(block)
            run.progress(done, total, "bytes compressed")
    with gzip.open(packed, "rb") as back:
        if hashlib.file_digest(back, "sha256").digest() != written.digest():
            raise BackupError("What was compressed reads differently afterwards; is the disk in order?")


def back_up_postgresql(connection: Any, scratch: Path) -> tuple[Path, str]:
    """The checked backup, still in ``scratch``, and what there is to say about it."""
    for program in ("pg_dump", "pg_restore"):
        if shutil.which(program) is None:
            raise BackupError(f"There is no {program} on the PATH; install the PostgreSQL client programs.")
    dump, contents = scratch / "backup.dump", scratch / "contents"
    run.progress(0, 2, "dump")
    code = run.call(
        ["pg_dump", "--format=custom", "--no-password", "--verbose", "--file", dump],
        env=postgresql_environment(connection),
    )
    if code:
        raise BackupError(f"pg_dump failed with exit code {code}; the log has its words.")
    run.progress(1, 2, "check")
    code = run.call(["pg_restore", "--list", "--file", contents, dump])
    entries = contents.read_text(encoding="utf-8", errors="replace").splitlines() if code == 0 else []
    tables = sum(" TABLE DATA " in entry for entry in entries)
    if not tables:
        raise BackupError(f"pg_restore cannot list the dump, or finds no table in it (exit code {code}).")
    run.progress(2, 2, "check")
    return dump, f"{tables} tables, readable by pg_restore"


def postgresql_environment(connection: Any) -> dict[str, str]:
    """How to reach the database, as variables: everybody can read the arguments of a process."""
    settings = connection.settings_dict
    _argv, variables = connection.client.settings_to_cmd_args_env(settings, [])
    place = {"PGHOST": "HOST", "PGPORT": "PORT", "PGUSER": "USER", "PGDATABASE": "NAME"}
    return {
        **{variable: str(settings[key]) for variable, key in place.items() if settings.get(key)},
        **(variables or {}),
    }


def size(value: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def main() -> int:
    parser = argparse.ArgumentParser(description="Back up the site's database, and check the backup.")
    parser.add_argument(
        "--database", default="default", metavar="ALIAS", help="its alias in the settings (default: %(default)s)"
    )
    alias = parser.parse_args(run.arguments).database

    from django.db import DatabaseError, connections

    if alias not in connections:
        parser.error(f"the settings have no database “{alias}”, only: {', '.join(connections)}")
    connection = connections[alias]
    ways = {"sqlite": back_up_sqlite, "postgresql": back_up_postgresql}
    run.message(f"Backing up the database “{alias}”")
    try:
        if connection.vendor not in ways:
            raise BackupError(f"A {connection.display_name} database cannot be backed up by this task.")
        # Beside the outputs, so that it can be moved there in one step: what is not checked is never a result.
        folder = run.output_path("backup").parent
        with tempfile.TemporaryDirectory(prefix="unfinished-", dir=folder) as scratch:
            made, facts = ways[connection.vendor](connection, Path(scratch))
            backup = run.output_path(f"{alias}-{datetime.now(UTC):%Y%m%d-%H%M%SZ}{made.name.removeprefix('backup')}")
            made.rename(backup)
    except (BackupError, DatabaseError, OSError, sqlite3.Error) as error:
        print(f"No backup of “{alias}”: {error}", file=sys.stderr)
        return 1
    run.message(f"{backup.name}: {size(backup.stat().st_size)}, {facts}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
