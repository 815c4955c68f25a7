"""Disks that are full or read-only, folders that are gone, and files that are damaged."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from scheduler import outputs
from scheduler.poller.host import this_host
from scheduler.states import Reason, Status
from scheduler.supervisor import folder as protocol
from scheduler.supervisor.folder import Stage
from tests.runs.conftest import WORK, fresh, is_alive, starts, supervisor_pid, wait_until

from .conftest import running, start_poller

if TYPE_CHECKING:
    from pathlib import Path

    from tests.runs.conftest import World


def test_an_exit_code_outlives_a_full_disk(world: World, small_disk: Path) -> None:
    task = world.task(
        """
        import os, sys
        open("result", "w").write("x")
        os.write(1, b"before\\n")
        filler = os.open(os.environ["FOLDER"] + "/scheduler/filler", os.O_WRONLY | os.O_CREAT)
        try:
            while os.write(filler, bytes(4096)):
                pass
        except OSError as error:
            os.write(1, b"y" * 100_000)  # the log has no room either
            sys.exit(7)
        """
    )
    run, poller = world.start(task), world.poller()
    folder = outputs.run_folder(run.uuid)
    world.until(lambda: folder.has(protocol.EXIT), "the program has ended on the full disk", poller=poller)
    assert (folder.read(protocol.EXIT) or {})["exit_code"] == 7
    assert shutil.disk_usage(small_disk).free == 0
    (small_disk / "filler").unlink()
    done = world.finish(run, poller=poller)
    assert (done.status, done.reason, done.exit_code) == (Status.FAILED, Reason.EXIT_CODE, 7)
    assert [file.name for file in done.files.all()] == ["result"]
    assert world.log(run).startswith("before\n")


def test_a_poller_on_a_full_disk_stays_up_and_works_when_there_is_room_again(world: World, small_disk: Path) -> None:
    poller = world.poller()
    filler = os.open(small_disk / "filler", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OSError, match="No space left"):
        while os.write(filler, bytes(4096)):
            pass
    os.close(filler)
    run = world.start(world.task("print(1)"))
    world.until(lambda: fresh(run), "a round was made", poller=poller)
    assert starts(world, run) == 0
    (small_disk / "filler").unlink()
    later = world.finish(world.start(world.task("print(1)", name="later")), poller=poller)
    assert later.status == Status.COMPLETED


def test_a_poller_does_not_come_up_on_a_read_only_disk_and_the_run_waits_for_one_that_does(
    world: World, small_disk: Path
) -> None:
    poller = world.poller()

    def remount(mode: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{mode}", str(small_disk)], check=True, capture_output=True)

    run = world.start(world.task("print(1)"))
    remount("ro")
    try:
        log = start_poller(world)
        assert log.process.wait(60) == 1
        assert log.said("Read-only file system")
        assert fresh(run).status == Status.QUEUED
    finally:
        remount("rw")
    assert world.finish(run, poller=poller).status == Status.COMPLETED


def test_a_run_whose_folder_was_deleted_while_it_ran_is_never_started_again(world: World) -> None:
    run, poller = world.start(world.task(WORK)), world.poller()
    running(world, run, poller=poller)
    supervisor, program = supervisor_pid(run), fresh(run).pid or 0
    shutil.rmtree(outputs.run_folder(run.uuid).path)
    try:
        done = world.finish(run, poller=poller)
        assert (done.reason, starts(world, run)) == (Reason.LOST, 1)
        assert not is_alive(program)
    finally:
        for pid in (supervisor, program):
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("name", [protocol.EXIT, protocol.OUTPUTS, protocol.DONE])
@pytest.mark.parametrize("content", ["", "{", "[]", '{"reason": "exit_c'])
def test_a_damaged_file_of_a_dead_supervisor_is_no_lie_and_stops_nobody(world: World, name: str, content: str) -> None:
    run, poller = world.start(world.task(WORK)), world.poller()
    running(world, run, poller=poller)
    folder = outputs.run_folder(run.uuid)
    os.kill(supervisor_pid(run), signal.SIGKILL)
    wait_until(lambda: folder.stage() is Stage.DEAD, "the supervisor is gone")
    wait_until(lambda: not is_alive(fresh(run).pid or 0), "and the program with it")
    with open(folder.file(name), "w") as file:
        file.write(content)
    other = world.start(world.task("print(1)", name="other"))
    assert world.finish(other, poller=poller).status == Status.COMPLETED
    done = world.finish(run, poller=poller)
    assert (done.status, done.reason, done.exit_code) == (Status.FAILED, Reason.LOST, None)
    assert starts(world, run) == 1


def test_a_damaged_host_file_is_said_in_one_sentence_and_not_replaced(world: World) -> None:
    world.poller()
    path = world.folder / "scheduler" / "host.json"
    path.write_text('{"id": ')
    with pytest.raises(OSError, match="is damaged"):
        this_host()
    assert path.read_text() == '{"id": '
