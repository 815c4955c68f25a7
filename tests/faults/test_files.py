"""Disks that are full or read-only, folders that are gone, and files that are damaged."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from django.utils import timezone

from scheduler import outputs
from scheduler.models import Poller, RunEvent
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
        import os, sys, time
        open("result", "w").write("x")
        os.write(1, b"before\\n")
        log = "{0}/scheduler/store/{1}/{1}".format(os.environ["FOLDER"], os.environ["SCHEDULER_RUN"])
        while not os.path.getsize(log):
            time.sleep(0.01)
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
    log = world.log(run)
    assert log.startswith("before\n")
    assert log.endswith(" bytes of output were dropped here.\n")


def fill(disk: Path) -> None:
    filler = os.open(disk / "filler", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OSError, match="No space left"):
        while os.write(filler, bytes(4096)):
            pass
    os.close(filler)


def test_the_log_says_where_output_was_dropped_while_the_disk_was_full(world: World, small_disk: Path) -> None:
    task = world.task(
        """
        import os, time
        os.write(1, b"before\\n")
        path = os.environ["FOLDER"] + "/scheduler/filler"
        log = "{0}/scheduler/store/{1}/{1}".format(os.environ["FOLDER"], os.environ["SCHEDULER_RUN"])
        while not os.path.getsize(log):
            time.sleep(0.01)
        filler = os.open(path, os.O_WRONLY | os.O_CREAT)
        try:
            while os.write(filler, bytes(4096)):
                pass
        except OSError:
            os.write(1, b"y" * 200_000)  # more than a pipe holds: most of it is read while the disk is full
        os.unlink(path)
        os.close(filler)
        os.write(1, b"after\\n")
        """
    )
    done = world.finish(world.start(task), poller=world.poller())
    log = world.log(done)
    assert log.startswith("before\n")
    assert log.endswith("after\n")
    assert log.count("bytes of output were dropped here.") == 1


def test_no_run_is_started_on_a_disk_that_is_nearly_full_until_there_is_room(world: World, small_disk: Path) -> None:
    poller = start_poller(world, more={"FREE_BYTES": 1024**2})
    wait_until(lambda: poller.said("up, capacity"), "the poller is up")
    fill(small_disk)
    run = world.start(world.task("print(1)"))
    wait_until(lambda: Poller.objects.filter(is_out_of_room=True).exists(), "the poller's row says so")
    assert poller.said("the disk is nearly full (0 MB are free): no run is started until there is room")
    assert fresh(run).status == Status.QUEUED
    (small_disk / "filler").unlink()
    assert world.finish(run).status == Status.COMPLETED
    assert Poller.objects.get().is_out_of_room is False


def test_a_run_that_was_claimed_before_the_disk_was_full_waits_for_room(world: World, small_disk: Path) -> None:
    run, poller = world.start(world.task(WORK)), world.poller()
    (world.folder / "go").touch()
    assert run.claim(host=poller.host.id, host_name="here", now=timezone.now())
    fill(small_disk)
    poller.watcher.launch(run, timezone.now())
    poller.tick(timezone.now())
    assert fresh(run).status == Status.PROCESSING
    (small_disk / "filler").unlink()
    done = world.finish(run, poller=poller)
    assert (done.reason, done.exit_code, starts(world, run)) == (Reason.EXIT_CODE, 7, 1)


def test_a_file_waits_in_the_run_folder_while_the_disk_of_the_store_is_full(
    world: World, small_disk: Path, settings: Any
) -> None:
    settings.SCHEDULER = {**settings.SCHEDULER, "ROOT": world.folder / "root", "STORE": small_disk / "store"}
    task = world.task(
        """
        import os
        open("result", "wb").write(bytes(1_000_000))
        open("larger than the disk", "wb").truncate(5_000_000)
        filler = os.open(os.environ["FOLDER"] + "/scheduler/filler", os.O_WRONLY | os.O_CREAT)
        try:
            while os.write(filler, bytes(4096)):
                pass
        except OSError:
            pass
        """
    )
    run, poller = world.start(task), world.poller()
    folder = outputs.run_folder(run.uuid)
    world.until(lambda: folder.stage() is Stage.ENDED, "the collection was given up", poller=poller)
    assert not fresh(run).is_finished
    (small_disk / "filler").unlink()
    done = world.finish(run, poller=poller)
    assert [(file.name, file.size) for file in done.files.all()] == [("result", 1_000_000)]
    assert "larger than the disk" in done.events.get(what=RunEvent.What.NOT_COLLECTED).text


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


def test_while_the_schedulers_folder_is_gone_no_run_is_said_to_be_lost(world: World) -> None:
    """As when a disk is not mounted: its place is there, and empty."""
    poller = start_poller(world)
    run = world.start(world.task(WORK))
    running(world, run)
    root, away = world.folder / "scheduler", world.folder / "away"
    root.rename(away)
    root.mkdir()
    try:
        wait_until(lambda: poller.said("this machine refuses what a round needs"), "the poller has met it")
        assert fresh(run).status == Status.PROCESSING
    finally:
        root.rmdir()
        away.rename(root)
    wait_until(lambda: poller.said("going on"), "rounds are made again")
    (world.folder / "go").touch()
    assert world.finish(run).exit_code == 7
    assert not poller.said("Traceback")


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


def test_a_run_whose_folder_was_deleted_before_its_start_was_noted_is_never_started_again(world: World) -> None:
    run, first = world.start(world.task(WORK)), world.poller()
    assert run.claim(host=first.host.id, host_name="here", now=timezone.now())
    first.watcher.launch(run, timezone.now())
    wait_until(lambda: starts(world, run), "the program runs")
    supervisor = supervisor_pid(run)
    shutil.rmtree(outputs.run_folder(run.uuid).path)
    assert fresh(run).started_at is None
    try:
        done = world.finish(run, poller=world.poller())
        assert (done.reason, starts(world, run)) == (Reason.LOST, 1)
    finally:
        if is_alive(supervisor):
            os.kill(supervisor, signal.SIGKILL)


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
