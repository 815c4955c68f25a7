"""Pollers and supervisors that are killed at a chosen point, stopped for a while, or not alone.

More of it, with the kernel's own kill -9 at random instants, is in test_soak.py and tests/runs/test_faults.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection, connections
from django.utils import timezone

from scheduler import outputs
from scheduler.executors.local import LocalExecutor
from scheduler.models import Run, RunEvent
from scheduler.models.outputfile import OutputFile
from scheduler.poller import watch
from scheduler.poller.watch import Watcher
from scheduler.sqlite_lock import writer
from scheduler.states import Status
from scheduler.supervisor import folder as protocol
from scheduler.supervisor import processes
from scheduler.supervisor.folder import Stage
from tests.runs.conftest import WORK, fresh, is_alive, starts, supervisor_pid, wait_until

from .conftest import running, start_poller

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.runs.conftest import World


class Killed(BaseException):
    """What a kill is to the code that it hits: nothing after it is done, and its transaction is rolled back."""


def kill_before(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    def killed(*_args: Any, **_kwargs: Any) -> None:
        raise Killed

    monkeypatch.setattr(owner, name, killed)


def kill_after(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    whole = getattr(owner, name)

    def killed(*args: Any, **kwargs: Any) -> None:
        whole(*args, **kwargs)
        raise Killed

    monkeypatch.setattr(owner, name, killed)


def kill_after_insert(monkeypatch: pytest.MonkeyPatch, table: str) -> None:
    """Inside the transaction, whichever function writes the row."""

    def insert(execute: Any, sql: str, *rest: Any) -> Any:
        result = execute(sql, *rest)
        if sql.startswith(f'INSERT INTO "{table}"'):
            raise Killed
        return result

    monkeypatch.setattr(connections["default"], "execute_wrappers", [insert])


POINTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "before the claim commits": lambda patch: kill_after_insert(patch, "scheduler_runevent"),
    "after the claim": lambda patch: kill_before(patch, Watcher, "launch"),
    "while the run folder is made": lambda patch: kill_after(patch, outputs, "make_run_folders"),
    "after the launch": lambda patch: kill_after(patch, LocalExecutor, "start"),
    "before the start is noted": lambda patch: kill_before(patch, watch, "_start"),
    "before the end is written": lambda patch: kill_before(patch, Watcher, "_ingest"),
    "in the middle of the end": lambda patch: kill_before(patch, OutputFile.objects, "bulk_create"),
    "after the end is written": lambda patch: kill_before(patch, outputs, "retire"),
}


@pytest.mark.parametrize("point", POINTS)
def test_a_poller_that_is_killed_at_any_point_is_continued_by_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    run, first = world.start(world.task(WORK)), world.poller()
    (world.folder / "go").touch()
    with monkeypatch.context() as patch:
        POINTS[point](patch)
        with pytest.raises(Killed):
            world.until(lambda: False, f"the poller is killed {point}", poller=first)
    done = world.finish(run, poller=world.poller())
    assert (done.status, done.exit_code, starts(world, run)) == (Status.FAILED, 7, 1)
    assert [file.name for file in done.files.all()] == ["result"]
    assert done.events.filter(what=RunEvent.What.CLAIMED).count() == 1
    assert done.events.filter(what=RunEvent.What.FINISHED).count() == 1
    # The folder goes with the next poller that tidies, at the latest.
    world.until(lambda: run.uuid not in outputs.run_uuids_with_folders(), "it is retired", poller=world.poller())


def stop_outside_a_transaction(poller: subprocess.Popen[bytes]) -> None:
    """On SQLite a process that is stopped inside one keeps everybody else from writing: a case of its own, below."""

    def stops() -> bool:
        os.kill(poller.pid, signal.SIGSTOP)
        wait_until(lambda: is_stopped(poller.pid), "it is stopped")
        if connection.vendor != "sqlite" or writer(str(connection.settings_dict["NAME"])) is None:
            return True
        os.kill(poller.pid, signal.SIGCONT)
        return False

    wait_until(stops, "it is stopped between two transactions")


def is_stopped(pid: int) -> bool:
    return "State:\tT" in Path(f"/proc/{pid}/status").read_text()


def test_a_poller_that_was_stopped_for_a_while_finds_its_runs_in_other_hands_and_does_no_harm(world: World) -> None:
    runs = [world.start(world.task(WORK, name=f"work{number}")) for number in range(3)]
    stopped = world.poller_process()
    for run in runs:
        running(world, run)
    stop_outside_a_transaction(stopped)
    (world.folder / "go").touch()
    try:
        world.poller_process()
        for run in runs:
            world.finish(run)
    finally:
        os.kill(stopped.pid, signal.SIGCONT)
    runs += [world.start(world.task(WORK, name=f"later{number}")) for number in range(3)]
    for run in runs:
        done = world.finish(run)
        assert (done.exit_code, starts(world, run)) == (7, 1)
        assert done.events.filter(what=RunEvent.What.FINISHED).count() == 1
    assert stopped.poll() is None


@pytest.mark.parametrize("table", ["scheduler_runevent", "scheduler_outputfile"], ids=["claim", "end"])
def test_a_poller_that_is_stopped_inside_a_transaction_keeps_no_run_for_itself(world: World, table: str) -> None:
    """PostgreSQL ends its transaction. SQLite cannot: it is said who has to go on, and nothing is lost when it does."""
    (world.folder / "go").touch()
    (world.folder / "stop").touch()
    run = world.start(world.task(WORK))
    stopped = start_poller(world, SCHEDULER_TESTS_STOP_BEFORE_INSERT=table)
    wait_until(lambda: is_stopped(stopped.process.pid), "the poller has stopped itself")
    try:
        other = start_poller(world, SCHEDULER_TESTS_SQLITE_PATIENCE="0.3")
        if connection.vendor == "sqlite":
            said = (f"process {stopped.process.pid} (", "holds its write lock and is stopped")
            wait_until(lambda: all(map(other.said, said)), "the other poller says who it waits for")
        else:
            world.finish(run)
            world.finish(world.start(world.task(WORK, name="later")))
    finally:
        os.kill(stopped.process.pid, signal.SIGCONT)
    done = world.finish(run)
    assert (done.exit_code, starts(world, run)) == (7, 1)
    assert [file.name for file in done.files.all()] == ["result"]
    assert done.events.filter(what=RunEvent.What.CLAIMED).count() == 1
    assert done.events.filter(what=RunEvent.What.FINISHED).count() == 1
    other.process.kill()
    other.process.wait()
    last = world.finish(world.start(world.task(WORK, name="last")))  # by the one that was stopped
    assert last.exit_code == 7
    assert stopped.process.poll() is None


def test_a_supervisor_that_is_stopped_for_a_while_is_not_taken_for_dead(world: World) -> None:
    run, poller = world.start(world.task(WORK)), world.poller()
    running(world, run, poller=poller)
    supervisor, program = supervisor_pid(run), fresh(run).pid
    assert program is not None
    os.kill(supervisor, signal.SIGSTOP)
    try:
        (world.folder / "go").touch()
        world.until(lambda: not is_alive(program), "the program has ended unseen", poller=poller)
        poller.tick(timezone.now())
        assert outputs.run_folder(run.uuid).stage() is Stage.RUNNING
        assert fresh(run).status == Status.PROCESSING
    finally:
        os.kill(supervisor, signal.SIGCONT)
    assert world.finish(run, poller=poller).exit_code == 7


def test_a_poller_of_another_host_never_says_what_became_of_a_run(world: World) -> None:
    run, poller = world.start(world.task(WORK)), world.poller()
    running(world, run, poller=poller)
    os.kill(supervisor_pid(run), signal.SIGKILL)
    folder = outputs.run_folder(run.uuid)
    wait_until(lambda: folder.stage() is Stage.DEAD, "the supervisor is gone")
    other = start_poller(world, SCHEDULER_ROOT=f"{world.folder}/other")
    marker = world.start(world.task("print(1)", name="marker"))
    world.finish(marker)  # so it has looked at everything at least once
    assert other.process.poll() is None
    assert fresh(run).status == Status.PROCESSING
    assert world.finish(run, poller=poller).reason == Run.Reason.LOST


def test_a_poller_on_standby_takes_over_when_the_other_host_is_gone(world: World) -> None:
    first = start_poller(world)
    done = world.finish(world.start(world.task("print(1)")))
    start_poller(world, SCHEDULER_ROOT=f"{world.folder}/other")
    first.process.kill()
    first.process.wait()
    later = world.finish(world.start(world.task("print(1)", name="later")))
    assert later.status == Status.COMPLETED
    assert later.host != done.host


def test_a_poller_that_drains_waits_for_its_runs_and_starts_no_other(world: World) -> None:
    run = world.start(world.task(WORK))
    poller = start_poller(world, "--drain")
    running(world, run)
    poller.process.terminate()
    wait_until(lambda: poller.said("waits for what runs here"), "it has heard")
    waiting = world.start(world.task(WORK, name="waiting"))
    (world.folder / "go").touch()
    assert poller.process.wait(60) == 0
    assert fresh(run).exit_code == 7
    assert fresh(waiting).status == Status.QUEUED


def test_a_poller_that_drains_ends_at_once_when_it_is_asked_twice(world: World) -> None:
    run = world.start(world.task(WORK))
    poller = start_poller(world, "--drain")
    running(world, run)
    poller.process.terminate()
    wait_until(lambda: poller.said("waits for what runs here"), "it has heard")
    poller.process.terminate()
    assert poller.process.wait(60) == 0
    assert fresh(run).status == Status.PROCESSING


def test_twenty_runs_outlive_the_poller_that_is_killed_with_them_all_going(world: World) -> None:
    runs = [world.start(world.task(WORK, name=f"work{number}")) for number in range(20)]
    first = start_poller(world, more={"CAPACITY": 20})
    world.until(lambda: len(world.lines("starts")) == len(runs), "all run")
    first.process.kill()
    first.process.wait()
    (world.folder / "go").touch()
    start_poller(world, more={"CAPACITY": 20})
    for run in runs:
        assert world.finish(run).exit_code == 7
        assert starts(world, run) == 1


def test_a_stray_that_was_given_the_number_of_a_dead_program_is_left_alone(world: World) -> None:
    """Its pid is in task.json, its start is not: a pid alone proves nothing."""
    run, poller = world.start(world.task(WORK)), world.poller()
    running(world, run, poller=poller)
    folder = outputs.run_folder(run.uuid)
    with subprocess.Popen(["sleep", "300"], start_new_session=True) as stranger:
        try:
            os.kill(supervisor_pid(run), signal.SIGKILL)
            wait_until(lambda: folder.stage() is Stage.DEAD, "the supervisor is gone")
            wait_until(lambda: not is_alive(fresh(run).pid or 0), "and the program with it")
            known = folder.read(protocol.TASK) or {}
            folder.write(protocol.TASK, {**known, "pid": stranger.pid, "session": stranger.pid})
            assert not processes.is_alive(stranger.pid, known["start_ticks"])
            assert world.finish(run, poller=poller).reason == Run.Reason.LOST
            assert stranger.poll() is None
        finally:
            stranger.kill()
