"""Who holds SQLite's write lock: a process that is stopped inside a transaction keeps all others waiting."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# In WAL mode a writer locks this byte of the file "-shm" (sqlite.org/walformat.html, "WAL-Index locks"); without it,
# that byte of the database itself ("The RESERVED byte", os_unix.c).
WAL_WRITE_BYTE = 120
RESERVED_BYTE = 0x40000000 + 1


@dataclass(frozen=True, slots=True)
class Writer:
    """The process that holds the write lock."""

    pid: int
    name: str
    is_stopped: bool

    def __str__(self) -> str:
        who = f"process {self.pid} ({self.name}) holds its write lock"
        if self.is_stopped:
            return f"{who} and is stopped; let it go on with kill -CONT {self.pid}, or end it"
        return who


def writer(database: str) -> Writer | None:
    """Who holds the write lock of this database file; None when nobody is known to.

    The kernel's own list is read (proc_locks(5)): to open the file would be harmful, since to close it would free this
    process's own locks.
    """
    wanted = {(inode, byte) for path, byte in _places(database) for inode in _inode(path)}
    try:
        locks = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for lock in locks:
        # 1: POSIX  ADVISORY  WRITE 3568 fe:00:23803 120 120
        fields = lock.split()
        if len(fields) != 8 or fields[1] != "POSIX" or fields[3] != "WRITE" or fields[7] == "EOF":
            continue
        inode, first, last = int(fields[5].rpartition(":")[2]), int(fields[6]), int(fields[7])
        if any(inode == file and first <= byte <= last for file, byte in wanted):
            return _process(int(fields[4]))
    return None


def _places(database: str) -> list[tuple[str, int]]:
    return [(f"{database}-shm", WAL_WRITE_BYTE), (database, RESERVED_BYTE)]


def _inode(path: str) -> list[int]:
    try:
        return [Path(path).stat().st_ino]
    except OSError:
        return []


def _process(pid: int) -> Writer | None:
    """Its name, never its command line: arguments of strangers may hold secrets."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return None  # of another container, or it has just ended
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    return Writer(pid, fields.get("Name", "?"), is_stopped=fields.get("State", "").startswith(("T", "t")))
