"""The poller's unit at work: started by its own command line, and restarted as systemd would do it.

A systemd of its own needs to be process 1, which a test run is not; what systemd does with this unit at a restart is
KillMode=process: TERM to the main process and nothing else, then the command line again.
"""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from scheduler import outputs
from scheduler.states import Status
from tests.runs.conftest import fresh, is_alive, supervisor_pid, wait_until, world  # noqa: F401  (a fixture)

from .site import DEPLOY, PROJECT, exec_line, fill_in, terminate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.runs.conftest import World

pytestmark = pytest.mark.processes

# Waits for a file, so that the test decides when it goes on.
PATIENT = """
    import os, time
    print("started", flush=True)
    while not os.path.exists(os.environ["FOLDER"] + "/go"):
        time.sleep(0.02)
    open("result", "w").write("survived")
"""


class Notified:
    """The socket on which a service tells systemd how it is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(60)

    def wait_for(self, state: str) -> None:
        while self._socket.recv(4096).decode() != state:
            pass

    def close(self) -> None:
        self._socket.close()


@contextmanager
def unit(world: World) -> Iterator[tuple[subprocess.Popen[bytes], Notified]]:  # noqa: F811
    """The unit's process, once it has said that it is ready."""
    variables = {"PROJECT": str(PROJECT), "STATE": str(world.folder), "ENVIRONMENT": "/nowhere"}
    names = {"POLLER_USER": "daemon", "STORE_GROUP": "daemon"}
    command = exec_line(fill_in(DEPLOY / "systemd" / "scheduler-poller.service", variables | names))
    notified = Notified(world.folder / f"notify.{len(world.pollers)}")
    process = subprocess.Popen(command, cwd=PROJECT, env={**os.environ, "NOTIFY_SOCKET": str(notified.path)})
    world.pollers.append(process)
    notified.wait_for("READY=1")
    yield process, notified
    notified.close()


def test_a_running_task_survives_a_restart_and_is_finished_by_the_new_poller(world: World) -> None:  # noqa: F811
    run = world.start(world.task(PATIENT))
    with unit(world) as (process, notified):
        world.until(lambda: outputs.log_path(run).exists() and "started" in world.log(run), "the task runs")
        notified.wait_for("WATCHDOG=1")
        supervisor = supervisor_pid(run)
        assert terminate(process) == 0
        notified.wait_for("STOPPING=1")
    assert is_alive(supervisor)
    assert fresh(run).status == Status.PROCESSING
    with unit(world):
        (world.folder / "go").touch()
        run = world.finish(run)
    assert (run.status, run.exit_code, run.files.count()) == (Status.COMPLETED, 0, 1)
    wait_until(lambda: not is_alive(supervisor), "the supervisor has gone")


def test_a_task_that_ends_while_no_poller_is_up_keeps_its_exit_code(world: World) -> None:  # noqa: F811
    run = world.start(world.task(PATIENT + "    raise SystemExit(7)\n"))
    with unit(world) as (process, _notified):
        world.until(lambda: outputs.log_path(run).exists() and "started" in world.log(run), "the task runs")
        supervisor = supervisor_pid(run)
        terminate(process)
    (world.folder / "go").touch()
    wait_until(lambda: not is_alive(supervisor), "the task and its supervisor have ended")
    assert fresh(run).status == Status.PROCESSING
    with unit(world):
        run = world.finish(run)
    assert (run.status, run.exit_code) == (Status.FAILED, 7)


def test_under_the_units_umask_other_users_pass_through_to_their_outputs_and_no_further(world: World) -> None:  # noqa: F811
    run = world.start(world.task("pass"))
    before = os.umask(0o027)
    try:
        world.poller()
        outputs.make_run_folders(run.uuid, None)
    finally:
        os.umask(before)
    root = world.folder / "scheduler"
    for folder in (root, root / "runs", root / "runs" / str(run.uuid)):
        assert folder.stat().st_mode & 0o777 == 0o711
    assert (root / "runs" / str(run.uuid) / "output").stat().st_mode & 0o777 == 0o700
