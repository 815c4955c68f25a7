"""What is killed, lost or restored, and what the rows say afterwards: nothing lost, nothing twice, no false status."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from django.utils import timezone

from scheduler import outputs
from scheduler.models import Poller, Run, RunEvent
from scheduler.states import Reason, Status
from scheduler.supervisor import folder as protocol
from scheduler.supervisor import processes
from scheduler.supervisor.folder import Stage

from .conftest import WORK, fresh, is_alive, starts, supervisor_pid, wait_until

if TYPE_CHECKING:
    from .conftest import World


@pytest.fixture(params=["cold", "warm"])
def start_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def running(world: World, run: Run, *, poller=None) -> Run:
    world.until(
        lambda: fresh(run).is_finished or (starts(world, run) and fresh(run).started_at),
        f"run {run.pk} runs",
        poller=poller,
    )
    assert not fresh(run).is_finished, world.log(run)
    return fresh(run)


def test_runs_outlive_a_killed_poller_and_the_next_one_stores_their_exit_codes(world: World) -> None:
    tasks = [world.task(WORK, name=f"work{number}") for number in range(4)]
    runs = [world.start(task) for task in tasks]
    first = world.poller_process()
    for run in runs:
        running(world, run)
    first.kill()
    first.wait()
    (world.folder / "go").touch()
    pids = [supervisor_pid(run) for run in runs]
    wait_until(lambda: not any(is_alive(pid) for pid in pids), "the supervisors have ended without a poller")
    world.poller_process()
    for run in runs:
        done = world.finish(run)
        assert (done.status, done.exit_code, starts(world, run)) == (Status.FAILED, 7, 1)
        assert done.files.count() == 1


def test_a_poller_that_is_asked_to_end_leaves_its_runs_to_the_next(world: World) -> None:
    run = world.start(world.task(WORK))
    first = world.poller_process()
    running(world, run)
    first.terminate()
    assert first.wait(30) == 0
    assert fresh(run).status == Status.PROCESSING
    (world.folder / "go").touch()
    world.poller_process()
    assert world.finish(run).exit_code == 7
    assert starts(world, run) == 1


def test_a_run_that_was_claimed_and_never_launched_is_launched_by_the_next_poller(world: World) -> None:
    run = world.start(world.task(WORK))
    killed = world.poller()
    assert run.claim(host=killed.host.id, host_name="here", now=timezone.now())  # and then kill -9
    (world.folder / "go").touch()
    done = world.finish(run, poller=world.poller())
    assert (done.exit_code, starts(world, run)) == (7, 1)
    assert done.events.filter(what=RunEvent.What.LAUNCHED_AGAIN).count() == 1


def test_launching_a_run_again_never_starts_its_program_twice(world: World) -> None:
    run, poller = world.start(world.task(WORK)), world.poller()
    running(world, run, poller=poller)
    for _ in range(5):
        poller.executor.collect(run)  # launches the supervisor, whatever there is to do for it
        wait_until(lambda: not poller.executor.is_launching(run.uuid), "the launch has answered")
        assert poller.executor.take_failures() == {}
    (world.folder / "go").touch()
    assert world.finish(run, poller=poller).exit_code == 7
    assert starts(world, run) == 1


def test_a_killed_supervisor_takes_its_program_along_and_the_run_is_lost(world: World) -> None:
    task = world.task(
        """
        import os, subprocess, sys, time
        stray = subprocess.Popen(["sleep", "300"], start_new_session=True)
        open("kept", "w").write("x")
        with open(os.environ["FOLDER"] + "/pids", "w") as out:
            out.write(f"{os.getpid()}\\n{stray.pid}\\n")
        time.sleep(300)
        """
    )
    run, poller = world.start(task), world.poller()
    world.until(lambda: len(world.lines("pids")) == 2 and fresh(run).started_at, "it runs", poller=poller)
    os.kill(supervisor_pid(run), signal.SIGKILL)
    lost = world.finish(run, poller=poller)
    assert (lost.status, lost.reason) == (Status.FAILED, Reason.LOST)
    assert "may have run" in lost.sentence
    assert [pid for pid in world.lines("pids") if is_alive(int(pid))] == []
    assert [file.name for file in lost.files.all()] == ["kept"]


def test_a_supervisor_and_its_poller_are_killed_together(world: World) -> None:
    run = world.start(world.task(WORK))
    first = world.poller_process()
    running(world, run)
    os.kill(supervisor_pid(run), signal.SIGKILL)
    first.kill()
    first.wait()
    world.poller_process()
    lost = world.finish(run)
    assert (lost.reason, starts(world, run)) == (Reason.LOST, 1)


def test_a_program_that_kills_its_own_supervisor_is_lost_and_not_left_over(world: World) -> None:
    task = world.task(
        """
        import os, signal, time
        open(os.environ["FOLDER"] + "/pids", "w").write(f"{os.getpid()}\\n")
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(300)
        """
    )
    run = world.finish(world.start(task), poller=world.poller())
    assert run.reason == Reason.LOST
    assert [pid for pid in world.lines("pids") if is_alive(int(pid))] == []


def test_an_exit_code_is_kept_when_the_supervisor_dies_before_it_has_collected(world: World) -> None:
    run, poller = world.start(world.task(WORK)), world.poller()
    running(world, run, poller=poller)
    folder = outputs.run_folder(run.uuid)
    pid = supervisor_pid(run)
    # As if it had died just after the exit code was on disk: the rest is left for somebody else.
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: folder.stage() is Stage.DEAD, "the supervisor is gone")
    wait_until(lambda: not is_alive(fresh(run).pid or 0), "and the program with it")
    folder.write(protocol.EXIT, {"reason": "exit_code", "exit_code": 7, "at": timezone.now().timestamp()})
    assert folder.stage() is Stage.ENDED
    done = world.finish(run, poller=poller)
    assert (done.reason, done.exit_code) == (Reason.EXIT_CODE, 7)
    assert [file.name for file in done.files.all()] == ["result"]


def test_a_machine_that_restarted_is_named_as_the_reason(world: World) -> None:
    run, poller = world.start(world.task(WORK)), world.poller()
    running(world, run, poller=poller)
    folder = outputs.run_folder(run.uuid)
    os.kill(supervisor_pid(run), signal.SIGKILL)
    wait_until(lambda: folder.stage() is Stage.DEAD, "the supervisor is gone")
    folder.write(protocol.STARTED, {**(folder.read(protocol.STARTED) or {}), "boot_id": "of an earlier boot"})
    lost = world.finish(run, poller=poller)
    assert lost.reason == Reason.LOST
    booted = datetime.fromtimestamp(processes.boot_time(), UTC)
    assert f"The machine restarted at {booted:%Y-%m-%d %H:%M:%S} UTC." in lost.sentence


def test_a_row_of_a_restored_backup_gets_its_old_result_and_is_not_started_again(world: World) -> None:
    (world.folder / "go").touch()
    task = world.task(WORK)
    run = world.finish(world.start(task), poller=world.poller())
    files = list(run.files.values_list("id", "sha256"))
    run.events.all().delete()
    run.files.all().delete()
    Run.objects.filter(pk=run.pk).update(
        status=Status.QUEUED, reason="", claim_token="", host=None, started_at=None, finished_at=None, exit_code=None
    )
    again = world.finish(run, poller=world.poller())
    assert (again.status, again.exit_code, starts(world, run)) == (Status.FAILED, 7, 1)
    assert list(again.files.values_list("id", "sha256")) == files


def test_a_run_whose_folder_was_purged_is_never_started_again(world: World) -> None:
    (world.folder / "go").touch()
    run = world.finish(world.start(world.task(WORK)), poller=world.poller())
    outputs.remove(run.uuid)
    Run.objects.filter(pk=run.pk).update(
        status=Status.QUEUED, reason="", claim_token="", host=None, started_at=None, finished_at=None
    )
    again = world.finish(run, poller=world.poller())
    assert (again.reason, starts(world, run)) == (Reason.LOST, 1)


def test_several_pollers_on_one_host_start_each_run_once(world: World) -> None:
    (world.folder / "go").touch()
    runs = [world.start(world.task(WORK, name=f"work{number}")) for number in range(12)]
    for _ in range(3):
        world.poller_process()
    for run in runs:
        assert world.finish(run).exit_code == 7
        assert starts(world, run) == 1
        assert run.events.filter(what=RunEvent.What.FINISHED).count() == 1
        assert run.files.count() == 1


def test_a_stop_that_comes_before_the_start_keeps_the_program_from_starting(world: World) -> None:
    run, poller = world.start(world.task(WORK)), world.poller()
    assert run.claim(host=poller.host.id, host_name="here", now=timezone.now())
    fresh(run).cancel(by=world.owner, now=timezone.now())
    done = world.finish(run, poller=poller)
    assert (done.status, done.reason, starts(world, run)) == (Status.CANCELLED, Reason.STOPPED_BY_USER, 0)


def test_a_supervisor_that_cannot_write_its_folder_is_a_launch_error(world: World) -> None:
    run, poller = world.start(world.task(WORK)), world.poller()
    folder = outputs.run_folder(run.uuid)
    os.makedirs(folder.file(protocol.STARTED + ".blocked"))
    os.makedirs(outputs.log_path(run))  # a folder where the log should be
    done = world.finish(run, poller=poller)
    assert (done.reason, starts(world, run)) == (Reason.LAUNCH_ERROR, 0)
    assert "directory" in done.sentence


def test_a_removed_reports_file_does_no_harm(world: World) -> None:
    run = world.run(
        """
        import os
        os.unlink(os.environ["SCHEDULER_REPORTS"])
        os.symlink("/etc/passwd", os.environ["SCHEDULER_REPORTS"])
        """
    )
    assert (run.status, run.message) == (Status.COMPLETED, "")


@pytest.mark.parametrize("name", ["spec.json", "started.json", "task.json"])
def test_a_program_that_spoils_its_run_folder_is_still_finished(world: World, name: str) -> None:
    run = world.run(
        f"""
        import os
        path = os.path.join(os.path.dirname(os.environ["SCHEDULER_REPORTS"]), {name!r})
        open(path, "w").write("[not json")
        """
    )
    assert run.is_finished
    assert run.exit_code == 0


def test_a_program_that_forges_its_result_harms_only_its_own_run(world: World) -> None:
    forger = world.task(
        """
        import json, os, time
        folder = os.path.dirname(os.environ["SCHEDULER_REPORTS"])
        forged = {"reason": 5, "exit_code": 10**30, "signal": "x", "at": "y", "files": [1], "problems": 7}
        for name in ("started.json", "task.json", "exit.json", "done.json"):
            with open(f"{folder}/{name}", "w") as file:
                json.dump(forged if name in ("exit.json", "done.json") else {"pid": "x"}, file)
        """,
        name="forger",
    )
    honest, poller = world.task("print('done')", name="honest"), world.poller()
    runs = [world.start(forger), world.start(honest)]
    for run in runs:
        assert run.claim(host=poller.host.id, host_name="here", now=timezone.now())
        poller.watcher.launch(run, timezone.now())
    # The poller sees nothing of the run before everything is forged.
    wait_until(lambda: outputs.run_folder(runs[0].uuid).has(protocol.DONE), "the files are forged")
    assert world.finish(runs[1], poller=poller).status == Status.COMPLETED
    assert world.finish(runs[0], poller=poller).is_finished


def test_a_killed_pollers_row_is_closed_by_the_next_one(world: World) -> None:
    first = world.poller_process()
    wait_until(lambda: Poller.objects.filter(pid=first.pid, ended_at=None).exists(), "it reports")
    first.kill()
    first.wait()
    second = world.poller()
    second.tick(timezone.now())
    assert Poller.objects.get(pid=first.pid).ended_at is not None
    wait_until(
        lambda: [path.stem for path in (world.folder / "scheduler" / "wake").glob("*.sock")] == [], "its socket is gone"
    )
