"""What a run folder says about its run, also while a supervisor starts or ends."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from scheduler.supervisor import processes
from scheduler.supervisor.folder import CLEANUP, DONE, EXIT, STARTED, TASK, RunFolder, Stage
from scheduler.supervisor.supervise import end_strays

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class MovingFolder(RunFolder):
    """A folder in which something happens in the moment that somebody looks at the lock."""

    happens: Callable[[], object] | None = None
    holder: int | None = None

    def lock_holder(self) -> int | None:
        seen = self.holder
        if self.happens is not None:
            self.happens()
        return seen


@pytest.fixture
def folder(tmp_path: Path) -> MovingFolder:
    made = MovingFolder(str(tmp_path / "run"))
    made.make()
    return made


@pytest.mark.parametrize(
    ("names", "held", "stage"),
    [
        ((), False, Stage.NOT_STARTED),
        ((), True, Stage.STARTING),
        ((STARTED,), True, Stage.STARTING),
        ((STARTED, TASK), True, Stage.RUNNING),
        ((STARTED, TASK, EXIT), True, Stage.COLLECTING),
        ((STARTED, TASK, EXIT), False, Stage.ENDED),
        ((STARTED, TASK, EXIT, DONE), True, Stage.DONE),
        ((STARTED, TASK, EXIT, DONE), False, Stage.DONE),
        ((STARTED, TASK), False, Stage.DEAD),
    ],
)
def test_the_files_and_the_lock_say_where_a_run_stands(
    folder: MovingFolder, names: tuple[str, ...], held: bool, stage: Stage
) -> None:
    for name in names:
        folder.write(name, {})
    folder.holder = os.getpid() if held else None
    assert folder.stage() is stage


def test_a_run_that_starts_while_somebody_looks_is_not_dead(folder: MovingFolder) -> None:
    def start() -> None:
        folder.happens, folder.holder = None, os.getpid()
        folder.mark_started({})
        folder.write(TASK, {})

    folder.happens = start
    assert folder.stage() is Stage.NOT_STARTED
    assert folder.stage() is Stage.RUNNING


def test_a_run_that_ends_while_somebody_looks_is_not_dead(folder: MovingFolder) -> None:
    def end() -> None:
        folder.write(EXIT, {})
        folder.write(DONE, {})
        folder.holder = None

    folder.mark_started({})
    folder.holder, folder.happens = os.getpid(), end
    assert folder.stage() is Stage.DONE


def test_a_run_that_is_retired_while_somebody_looks_is_not_dead(folder: MovingFolder, tmp_path: Path) -> None:
    def retire() -> None:
        (tmp_path / "run.json").write_text("{}")
        os.unlink(folder.file(DONE))

    folder.mark_started({})
    folder.write(DONE, {})
    folder.happens = retire
    assert folder.stage() is Stage.RETIRED


def test_a_run_of_which_only_a_part_is_removed_is_not_collected_again(folder: MovingFolder, tmp_path: Path) -> None:
    def retire() -> None:
        (tmp_path / "run.json").write_text("{}")
        os.unlink(folder.file(DONE))

    for name in (STARTED, TASK, EXIT, DONE):
        folder.write(name, {})
    folder.happens = retire
    assert folder.stage() is Stage.RETIRED


def test_what_cannot_be_marked_on_a_full_disk_leaves_the_other_marks_alone(
    folder: MovingFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder.mark_started({})
    with monkeypatch.context() as full, pytest.raises(OSError, match="No space"):
        full.setattr(os, "fsync", refuse)
        folder.mark_started({}, CLEANUP)
    assert folder.has(STARTED)
    folder.mark_started({}, CLEANUP)  # there is room again


def test_an_exit_whose_new_name_was_lost_with_the_machine_is_found(folder: MovingFolder) -> None:
    folder.mark_started({})
    room = folder.prepare_result()
    assert not folder.find_result()  # nothing has been written into the room
    folder.write_result(room, {"reason": "exit_code", "exit_code": 3})
    os.rename(folder.file(EXIT), folder.file(EXIT + ".new"))  # as it is on a disk that did not get so far
    assert folder.stage() is Stage.DEAD
    assert folder.declare_lost(0.0, "The machine restarted.")
    assert folder.stage() is Stage.ENDED
    result = folder.read(EXIT)
    assert result is not None
    assert (result["reason"], result["exit_code"]) == ("exit_code", 3)


def test_a_process_that_ends_by_itself_just_before_it_is_killed_is_none_that_cannot_be(
    folder: MovingFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = processes.look_at(child.pid)
    assert process is not None
    looks: list[list[processes.Process]] = [[], [process]]
    monkeypatch.setattr(processes, "of_run", lambda *_args, **_options: looks.pop())
    child.communicate(b"\n")
    assert end_strays(folder, {"run": "1"}) == (0, [])
    assert looks == []
