"""What a crash of the machine, a person or a program has spoiled of a run: it still ends, and its files are kept."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.db import OperationalError
from django.utils import timezone

from scheduler import outputs
from scheduler.executors.launches import ColdLaunch
from scheduler.models import Run, RunEvent
from scheduler.poller import daemon, watch
from scheduler.states import Reason, Status
from scheduler.supervisor import folder as protocol
from scheduler.supervisor import processes
from scheduler.supervisor.folder import RunFolder, Stage

from .conftest import WORK, fresh, is_alive, starts, supervisor_pid, wait_until

if TYPE_CHECKING:
    from scheduler.poller import PollerDaemon

    from .conftest import World


def started(world: World, poller: PollerDaemon, source: str = WORK, **fields: Any) -> tuple[Run, RunFolder]:
    run = world.start(world.task(source, **fields))
    assert run.claim(host=poller.host.id, host_name="here", now=timezone.now())
    poller.watcher.launch(run, timezone.now())
    folder = outputs.run_folder(run.uuid)
    wait_until(lambda: folder.has(protocol.TASK), "it is started")
    return run, folder


def over(world: World, poller: PollerDaemon, **fields: Any) -> tuple[Run, RunFolder]:
    """A run that is over and collected, and of which the poller has seen nothing yet."""
    (world.folder / "go").touch()
    run, folder = started(world, poller, **fields)
    wait_until(lambda: folder.has(protocol.DONE) and not folder.lock_holder(), "its supervisor has ended")
    return run, folder


def empty(folder: RunFolder, name: str) -> None:
    """As a crash of the machine leaves a file that was not flushed."""
    Path(folder.file(name)).write_bytes(b"")


def names(run: Run) -> list[str]:
    return [file.name for file in run.files.all()]


def test_what_a_run_left_is_collected_although_its_spec_was_lost_with_the_machine(world: World) -> None:
    poller = world.poller()
    run, folder = started(world, poller)
    world.until(lambda: starts(world, run), "it works")
    wait_until(lambda: os.path.exists(folder.file("output/result")), "it has written a file")
    os.kill(supervisor_pid(run), signal.SIGKILL)
    wait_until(lambda: folder.stage() is Stage.DEAD, "its supervisor is gone")
    empty(folder, protocol.SPEC)
    lost = world.finish(run, poller=poller)
    assert (lost.reason, names(lost), starts(world, run)) == (Reason.LOST, ["result"], 1)


def test_what_a_run_left_is_collected_again_when_the_list_of_it_was_lost_with_the_machine(world: World) -> None:
    poller = world.poller()
    run, folder = over(world, poller)
    empty(folder, protocol.DONE)
    done = world.finish(run, poller=poller)
    assert (done.reason, done.exit_code, names(done)) == (Reason.EXIT_CODE, 7, ["result"])


def test_the_pollers_log_says_where_it_stands_why_files_are_not_collected_yet(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    poller = world.poller()
    run, folder = over(world, poller)
    os.unlink(folder.file(protocol.DONE))
    plan = Path(folder.file(protocol.OUTPUTS))
    text = plan.read_text()
    plan.unlink()
    plan.mkdir()
    log = folder.file(protocol.SUPERVISOR_LOG)
    world.until(lambda: f"cannot be collected yet: see {log}" in caplog.text, "it is said", poller=poller)
    assert "Is a directory" in Path(log).read_text()
    assert fresh(run).status == Status.PROCESSING
    plan.rmdir()
    plan.write_text(text)
    assert names(world.finish(run, poller=poller)) == ["result"]


@pytest.mark.parametrize("text", ["", "[not json", '{"reason": 5}', '{"reason": "no such reason"}'])
def test_a_damaged_result_is_named_as_that_and_the_files_are_kept(world: World, text: str) -> None:
    poller = world.poller()
    run, folder = over(world, poller)
    Path(folder.file(protocol.EXIT)).write_text(text)
    lost = world.finish(run, poller=poller)
    assert (lost.reason, names(lost)) == (Reason.LOST, ["result"])
    assert lost.sentence.endswith("it may have run. The file that says how it ended is damaged.")


@pytest.mark.parametrize(
    "entry",
    [
        {"id": "nonsense", "path": ["x"], "size": 1, "sha256": ""},
        {"id": "7c3e7b0e-0000-4000-8000-000000000001", "path": ["x"], "size": 10**30, "sha256": "0" * 64},
        {"id": "7c3e7b0e-0000-4000-8000-000000000001", "path": ["x"], "size": 1, "sha256": "0" * 1000},
    ],
)
def test_a_program_that_forges_what_no_database_takes_is_still_finished(world: World, entry: dict[str, Any]) -> None:
    poller = world.poller()
    run, folder = over(world, poller)
    forged = "\0 and \ud800"
    folder.write(protocol.EXIT, {"reason": "launch_error", "detail": forged})
    folder.write(protocol.DONE, {"files": [entry], "problems": [], "left": [forged]})
    done = world.finish(run, poller=poller)
    assert (done.reason, done.detail, names(done)) == (Reason.LAUNCH_ERROR, " and ?", [])
    texts = done.events.values_list("text", flat=True)
    assert {" and ?", "the list of collected files is damaged"} <= set(texts)


def test_a_run_ends_although_somebody_has_removed_its_folder_in_the_store(world: World) -> None:
    poller = world.poller()
    run, _folder = started(world, poller)
    world.until(lambda: starts(world, run), "it works")
    shutil.rmtree(outputs.store_folder(run.uuid))
    (world.folder / "go").touch()
    done = world.finish(run, poller=poller)
    assert (done.exit_code, names(done)) == (7, ["result"])


def test_a_process_that_does_not_end_keeps_its_run_unfinished_and_holds_up_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    poller = world.poller()
    source = """
        import os, subprocess, time
        stray = subprocess.Popen(["sleep", "300"], start_new_session=True)
        with open(os.environ["FOLDER"] + "/pids", "w") as out:
            out.write(f"{stray.pid}\\n")
        time.sleep(300)
        """
    run, _folder = started(world, poller, source)
    wait_until(lambda: world.lines("pids"), "it has started a process")
    tries = 0

    def send_in_vain(*_arguments: object) -> int:
        nonlocal tries
        tries += 1
        assert tries < 1000
        return 1

    with monkeypatch.context() as stuck:  # as a process that waits for a network disk
        stuck.setattr(processes, "send", send_in_vain)
        stuck.setattr(watch, "STRAYS_SECONDS", 0)  # one pass, as when listing the processes takes long
        os.kill(supervisor_pid(run), signal.SIGKILL)
        world.until(lambda: "cannot be ended yet" in caplog.text, "it is said", poller=poller)
        other = world.finish(world.start(world.task("print('x')", name="other")), poller=poller)
        assert (other.status, fresh(run).status) == (Status.COMPLETED, Status.PROCESSING)
    monkeypatch.setattr(watch, "STRAYS_SECONDS", 0)
    lost = world.finish(run, poller=poller)
    assert lost.reason == Reason.LOST
    assert list(lost.events.filter(what=RunEvent.What.PROCESSES_ENDED).values_list("text", flat=True)) == ["1"]
    assert [pid for pid in world.lines("pids") if is_alive(int(pid))] == []


def test_a_folder_that_is_just_being_removed_keeps_the_result_and_lets_nothing_start(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    poller = world.poller()
    run, folder = over(world, poller)

    def remove_a_part(*_arguments: object, **_options: object) -> None:
        for name in (protocol.DONE, protocol.EXIT, protocol.STARTED):
            os.unlink(folder.file(name))

    with monkeypatch.context() as killed:
        killed.setattr(shutil, "rmtree", remove_a_part)
        outputs.retire({run.uuid: None})
    late = ColdLaunch(folder.path, dict(os.environ))
    late.wait()
    assert (late.answer(), starts(world, run)) == ("spec.json is missing or damaged", 1)
    outputs.retire({run.uuid: None})  # as the next poller does
    assert not folder.exists()
    assert json.loads(Path(folder.tombstone).read_text())[protocol.EXIT]["exit_code"] == 7


def test_runs_that_were_started_in_a_round_that_failed_take_their_places(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise OperationalError("the server went away")

    poller = world.poller()
    poller.tick(timezone.now())
    poller.capacity = 1
    for number in range(3):
        world.start(world.task(WORK, name=f"work{number}"))
    with monkeypatch.context() as gone:
        gone.setattr(daemon, "look", fail)
        for _ in range(3):
            with pytest.raises(OperationalError):
                poller.tick(timezone.now())
    assert Run.objects.processing().count() == 1


def test_a_program_that_the_kernel_does_not_take_is_a_launch_error_that_names_it(world: World) -> None:
    task = world.task("print('x')")
    Run.objects.filter(pk=(run := world.start(task)).pk).update(arguments=["x" * 1024**2])
    done = world.finish(run, poller=world.poller())
    assert done.reason == Reason.LAUNCH_ERROR
    assert done.sentence.endswith(f"could not be started: Argument list too long: {sys.executable}")


# A power cut. SQLite (synchronous=NORMAL) and PostgreSQL (synchronous_commit=off) may forget their last transactions in
# one: a run whose end was stored and whose folder was removed is in progress again, or was never claimed.


def forgotten(run: Run) -> Run:
    """The row as it was before the end was stored."""
    Run.objects.filter(pk=run.pk).update(status=Status.PROCESSING, reason="", finished_at=None, exit_code=None)
    run.files.all().delete()
    return run


def test_a_run_whose_end_the_database_forgot_gets_it_from_its_tombstone(world: World) -> None:
    poller = world.poller()
    run, folder = over(world, poller)
    world.finish(run, poller=poller)
    assert not folder.exists()
    done = world.finish(forgotten(run), poller=world.poller())
    assert (done.exit_code, names(done), starts(world, run)) == (7, ["result"], 1)


def test_a_run_whose_claim_the_database_forgot_too_is_not_started_again(world: World) -> None:
    poller = world.poller()
    run, _folder = over(world, poller)
    world.finish(run, poller=poller)
    forgotten(run)
    Run.objects.filter(pk=run.pk).update(
        status=Status.QUEUED, claim_token="", host=None, claimed_at=None, started_at=None
    )
    done = world.finish(run, poller=world.poller())
    assert (done.exit_code, names(done), starts(world, run)) == (7, ["result"], 1)


def test_a_tombstone_that_a_power_cut_left_empty_hides_nothing_of_the_folder(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(_path: str) -> None:
        raise OSError(errno.EIO, "the power is gone")

    poller = world.poller()
    run, folder = over(world, poller)
    with monkeypatch.context() as cut:
        cut.setattr(protocol, "flush_file_system", crash)
        world.finish(run, poller=poller)
    Path(folder.tombstone).write_bytes(b"")
    done = world.finish(forgotten(run), poller=world.poller())
    assert (done.reason, done.exit_code, names(done), starts(world, run)) == (Reason.EXIT_CODE, 7, ["result"], 1)
    assert json.loads(Path(folder.tombstone).read_text())[protocol.EXIT]["exit_code"] == 7
    assert not folder.exists()


def test_folders_are_removed_after_one_flush_of_all_that_is_kept_of_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    poller = world.poller()
    runs, folders = zip(*(over(world, poller, name=name) for name in ("one", "two", "three")), strict=True)
    seen = []

    def look(path: str) -> None:
        assert path == os.path.dirname(folders[0].path)
        for folder in folders:
            kept = json.loads(Path(folder.tombstone).read_text())
            seen.append((kept[protocol.EXIT]["exit_code"], folder.exists()))

    monkeypatch.setattr(protocol, "flush_file_system", look)
    poller.tick(timezone.now())
    assert seen == [(7, True)] * 3
    assert [fresh(run).exit_code for run in runs] == [7] * 3
    assert [folder.exists() for folder in folders] == [False] * 3


def test_a_folder_stays_while_the_disk_takes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: str) -> None:
        raise OSError(errno.EIO, "Input/output error")

    poller = world.poller()
    run, folder = over(world, poller)
    with monkeypatch.context() as broken:
        broken.setattr(protocol, "flush_file_system", refuse)
        assert world.finish(run, poller=poller).exit_code == 7
    assert folder.has(protocol.EXIT)
    world.until(lambda: not folder.exists(), "the next poller removes it", poller=world.poller())
