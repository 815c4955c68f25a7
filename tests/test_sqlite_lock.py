"""Who holds SQLite's write lock, asked of the kernel while a process of its own holds it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from scheduler.sqlite_lock import Writer, writer

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute(f"PRAGMA journal_mode={sys.argv[2]}")
database.execute("CREATE TABLE something (column)")
database.execute("BEGIN IMMEDIATE")
print("holds it", flush=True)
sys.stdin.read(1)
database.rollback()
print("let go", flush=True)
sys.stdin.read(1)
"""


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_the_process_that_writes_is_named_and_whether_it_is_stopped(tmp_path: Path, journal: str) -> None:
    database = str(tmp_path / "database")
    assert writer(database) is None
    command = [sys.executable, "-c", HOLDER, database, journal]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"holds it\n"
        found = writer(database)
        assert found is not None
        assert found == Writer(holder.pid, found.name, is_stopped=False)
        assert str(found) == f"process {holder.pid} ({found.name}) holds its write lock"
        holder.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, holder.pid, os.WSTOPPED)
        stopped = writer(database)
        assert stopped is not None
        assert str(stopped).endswith(f"and is stopped; let it go on with kill -CONT {holder.pid}, or end it")
        holder.send_signal(signal.SIGCONT)
        holder.stdin.write(b"1")
        holder.stdin.flush()
        assert holder.stdout.readline() == b"let go\n"
        assert writer(database) is None
