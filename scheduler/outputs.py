"""Run folders, the store's paths, display names, and the rows of collected files."""

from __future__ import annotations

import grp
import logging
import os
import shutil
import unicodedata
import uuid
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scheduler.conf import scheduler_settings
from scheduler.models import OutputFile
from scheduler.supervisor import folder as protocol

if TYPE_CHECKING:
    from datetime import datetime

    from scheduler.models import Run

logger = logging.getLogger(__name__)

NAME_BYTES = 150
NUMBER_BYTES = 12  # room for what makes a name unique
REMOVED_AT_ONCE = 1000  # files of a deleted run, so that nobody's run waits for that
SHARED_FOLDER_MODE = 0o2750


def log_path(run: Run) -> Path:
    """Where the run's log is in the store; it may not exist (not started yet, or purged)."""
    return scheduler_settings().store / run.log_path


def file_path(file: OutputFile) -> Path:
    """Where a collected file is in the store."""
    return scheduler_settings().store / str(file.run.uuid) / str(file.pk)


def run_folder(run_uuid: uuid.UUID) -> protocol.RunFolder:
    """The run's folder; it is named by the uuid, so that a restored database can never take one run for another."""
    return protocol.RunFolder(str(scheduler_settings().root / "runs" / str(run_uuid)))


def run_uuids_with_folders() -> list[uuid.UUID]:
    """The runs of which this machine has a run folder that is not retired yet."""
    found = []
    for entry in os.scandir(scheduler_settings().root / "runs"):
        if entry.is_dir(follow_symlinks=False):
            try:
                found.append(uuid.UUID(entry.name))
            except ValueError:
                continue
    return found


def store_folder(run_uuid: uuid.UUID) -> Path:
    """The run's folder in the store: its log and its collected files."""
    return scheduler_settings().store / str(run_uuid)


def store_gid() -> int | None:
    """The group that may read the store; None for the poller's own. Raises KeyError when there is no such group."""
    name = scheduler_settings().store_group
    return grp.getgrnam(name).gr_gid if name else None


def make_root() -> None:
    """Make the scheduler's folders; those that exist keep their modes."""
    given = scheduler_settings()
    for passage in (given.root, given.root / "runs"):
        if not passage.is_dir():
            passage.mkdir(parents=True, exist_ok=True)
            passage.chmod(0o711)  # by hand: the umask of a service lets no other user pass
    # The web server's user looks into them: through the store's group.
    _make_shared_folder(given.root / "wake")
    _make_shared_folder(given.store)


def free_bytes() -> int:
    """How much room is left where runs write: on the disk of ROOT or that of the store, whichever has less.

    Raises OSError when one of them is gone.
    """
    given = scheduler_settings()
    # The folder inside ROOT: ROOT itself is there also when the disk is not that belongs in this place.
    found = [os.statvfs(folder) for folder in (given.root / "runs", given.store)]
    # A disk may have room and no inode left; file systems that make them as they go count none.
    return min(0 if disk.f_files and not disk.f_favail else disk.f_bavail * disk.f_frsize for disk in found)


def is_out_of_room() -> bool:
    """Whether there is so little room that no run is to be started."""
    return free_bytes() < scheduler_settings().free_bytes


def make_run_folders(run_uuid: uuid.UUID, owner: tuple[int, int] | None) -> protocol.RunFolder:
    """Make the run's folder and its folder in the store; ``owner`` is the (uid, gid) of the task's own user, if any."""
    make_store_folder(run_uuid)
    folder = run_folder(run_uuid)
    folder.make(owner)
    return folder


def make_store_folder(run_uuid: uuid.UUID) -> None:
    """Make the run's folder in the store, if it is not there."""
    _make_shared_folder(store_folder(run_uuid))


def retire(ended: dict[uuid.UUID, dict[str, Any] | None]) -> None:
    """Remove the folders of ingested runs, and keep their results (read here where None) as tombstones.

    A tombstone lets a row be ingested again and never started again, when a backup is restored, and when a power cut
    takes the database's last transactions along (SQLite by the settings of ``conf``, PostgreSQL if it is told so). All
    of them are on the disk before the first folder goes, by one flush: one for each run would cost too much.
    """
    kept = [folder for run_uuid, result in ended.items() if _keep_result(folder := run_folder(run_uuid), result)]
    if not kept:
        return
    protocol.flush_file_system(str(scheduler_settings().root / "runs"))
    for folder in kept:
        _remove_folder(folder)


def _keep_result(folder: protocol.RunFolder, result: dict[str, Any] | None) -> bool:
    """Write the tombstone, not flushed; False when that fails, and the folder stays."""
    was_used = folder.has(protocol.SPEC) or folder.has(protocol.STARTED)
    try:
        # One that is there is the whole result: the poller may have been killed while it removed the folder.
        if was_used and not folder.has_tombstone():
            protocol.write_json(folder.tombstone, result or folder.result(), durable=False)
    except OSError:
        logger.exception("run folder %s: not removed; the next start of a poller tries it again", folder.path)
        return False
    return True


def remove(run_uuid: uuid.UUID) -> bool:
    """Remove what a deleted run left on disk; an empty tombstone stays, so that it can never start again.

    Of very many files it removes a part, and returns False: the rest is for the next time.
    """
    folder, store = run_folder(run_uuid), store_folder(run_uuid)
    protocol.write_json(folder.tombstone, {})
    _remove_folder(folder)
    removed = 0
    with suppress(OSError), os.scandir(store) as entries:
        for entry in islice(entries, REMOVED_AT_ONCE):
            Path(entry).unlink()
            removed += 1
    if removed == REMOVED_AT_ONCE:
        return False
    shutil.rmtree(store, ignore_errors=True)
    return True


def _remove_folder(folder: protocol.RunFolder) -> None:
    """Its spec goes first: without it a supervisor that comes late starts nothing, whatever else is gone already."""
    with suppress(OSError):
        Path(folder.file(protocol.SPEC)).unlink()
    shutil.rmtree(folder.path, ignore_errors=True)


def rows_of_files(run: Run, done: dict[str, Any], now: datetime) -> list[OutputFile]:
    """The rows of the files that done.json names, with display names that are unique in the run.

    Raises KeyError, TypeError, ValueError or ValidationError when it is damaged.
    """
    taken: set[str] = set()
    numbers: dict[str, int] = {}
    rows = []
    for entry in done.get("files", ()):
        name = _unique(display_name("/".join(entry["path"])), taken, numbers)
        row = OutputFile(id=entry["id"], run=run, name=name, size=entry["size"], sha256=entry["sha256"], created_at=now)
        row.clean_fields(exclude=["run"])
        rows.append(row)
    return rows


def problems_of(done: dict[str, Any]) -> list[str]:
    """What done.json says of the files that stayed behind: a line each."""
    lines = []
    for problem in done.get("problems", ()):
        name = display_name("/".join(problem["path"])) if problem["path"] else ""
        lines.append(f"{name}: {problem['why']}".lstrip(": "))
    return lines


def display_name(raw: str) -> str:
    """A name that is safe to show and to offer for a download, from a path that a task chose.

    Separators become ``_``; control characters, line ends, bidi marks and undecodable bytes become ``_`` as well; at
    most 150 bytes of UTF-8, the extension kept.
    """
    name = "".join("_" if character in "/\\" or _is_unsafe(character) else character for character in raw)
    name = name.strip(" .") or "_"
    stem, dot, extension = name.rpartition(".")
    if not dot or len(extension) > 20 or not stem:
        return _cut(name, NAME_BYTES)
    return _cut(stem, NAME_BYTES - len(f".{extension}".encode())) + f".{extension}"


def _is_unsafe(character: str) -> bool:
    # Cc control, Cf format (bidi marks, zero width), Cs undecodable byte, Zl/Zp line ends, Co/Cn unassigned
    return unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn"}


def _cut(text: str, size: int) -> str:
    return text.encode()[:size].decode(errors="ignore")


def _unique(name: str, taken: set[str], numbers: dict[str, int]) -> str:
    """The name, with a number if it is taken; ``numbers`` are the last ones, which are not tried again.

    A program may leave ten thousand files of one name: all that are cut to the same share their numbers.
    """
    if name not in taken:
        taken.add(name)
        return name
    stem, dot, extension = name.rpartition(".")
    stem, ending = (stem, dot + extension) if dot and stem and len(extension) <= 20 else (name, "")
    same = _cut(stem, NAME_BYTES - NUMBER_BYTES - len(ending.encode())) + ending
    candidate = name
    while candidate in taken:
        numbers[same] = numbers.get(same, 1) + 1
        suffix = f" ({numbers[same]}){ending}"
        candidate = _cut(stem, NAME_BYTES - len(suffix.encode())) + suffix
    taken.add(candidate)
    return candidate


def _make_shared_folder(path: Path) -> None:
    try:
        path.mkdir(parents=path == scheduler_settings().store)
    except FileExistsError:
        return
    # By hand: mkdir's mode is cut by the umask, and chown clears the setgid bit.
    gid = store_gid()
    if gid is not None:
        os.chown(path, -1, gid)
    path.chmod(SHARED_FOLDER_MODE)
