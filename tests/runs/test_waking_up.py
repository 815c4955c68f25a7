"""What wakes the poller: its rounds here are an hour apart, so that whatever happens sooner is not due to them."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from django.conf import settings as django_settings
from django.db import connection, transaction

from scheduler.executors import launches
from scheduler.outputs import make_root
from scheduler.poller.ends import Ends
from scheduler.poller.notifications import Notifications
from scheduler.poller.waker import Waker, remove_abandoned_sockets
from scheduler.supervisor import processes
from scheduler.wakeup import CHANNEL, wake, wake_folder, wake_on_commit

from .conftest import PROJECT, fresh, supervisor_pid, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import World

PATIENT_POLLER = """
import django
django.setup()
from django.conf import settings
from django.core.management import call_command
from scheduler.poller import daemon
daemon.IDLE_SECONDS = daemon.BUSY_SECONDS = 3600.0
settings.SCHEDULER["CAPACITY"] = 1
call_command("poller")
"""
WAITS_FOR_A_FILE = """
import os, time
while not os.path.exists(os.environ["FOLDER"] + "/go"):
    time.sleep(0.02)
"""


def patient_poller(world: World) -> subprocess.Popen[bytes]:
    """A poller with one place that makes a round only when it is woken, or when a run is due."""
    process = subprocess.Popen([sys.executable, "-c", PATIENT_POLLER], cwd=PROJECT)
    world.pollers.append(process)
    wait_until(lambda: list((world.folder / "scheduler" / "wake").glob("*.sock")), "the poller has a socket")
    wait_until(lambda: descriptors(process.pid, "[eventpoll]"), "the poller is up")
    return process


def descriptors(pid: int, kind: str) -> int:
    """How many descriptors of a kind a process has open."""
    found = 0
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile, as the one is that reads the folder
            found += str(path.readlink()).endswith(kind)
    return found


def started(world: World, poller: subprocess.Popen[bytes]) -> Any:
    """A run that the poller has started, and whose end it will hear of."""
    run = world.start(world.task(WAITS_FOR_A_FILE, name="first"))

    def is_followed() -> bool:
        wake()
        return descriptors(poller.pid, "[pidfd]") == 1

    wait_until(is_followed, "the poller follows the supervisor")
    return run


def test_a_run_that_was_queued_on_this_machine_starts_without_a_round(world: World) -> None:
    patient_poller(world)
    (world.folder / "go").touch()
    world.finish(world.start(world.task(WAITS_FOR_A_FILE)))


def test_a_run_that_has_ended_frees_its_place_at_once(world: World) -> None:
    run = started(world, patient_poller(world))
    other = world.start(world.task("print('here')", name="second"))
    (world.folder / "go").touch()
    world.finish(other)
    assert fresh(run).reason == "exit_code"


def test_a_killed_supervisor_frees_its_place_at_once(world: World) -> None:
    run = started(world, patient_poller(world))
    other = world.start(world.task("print('here')", name="second"))
    os.kill(supervisor_pid(run), signal.SIGKILL)
    world.finish(other)
    assert fresh(run).reason == "lost"


STOPPED_BEFORE_IT_CAN_BE_POKED = """
import sys
sys.path.append({folder!r})
from supervisor import launch, supervise
supervise.LOOK_EVERY_SECONDS = 3600
opens = supervise.Supervision._open_control
def asked_just_before(self):
    self.folder.write("stop.json", {{"by": "olivia"}})
    return opens(self)
supervise.Supervision._open_control = asked_just_before
launch.main(sys.argv)
"""


def test_a_stop_that_is_asked_for_before_there_is_anything_to_poke_is_seen_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = STOPPED_BEFORE_IT_CAN_BE_POKED.format(folder=str(launches.SUPERVISOR.parent))
    monkeypatch.setattr(launches, "SUPERVISOR_COMMAND", [sys.executable, "-I", "-S", "-c", source])
    run = world.finish(world.start(world.task("import time; time.sleep(300)")), poller=world.poller())
    assert run.reason == "stopped_by_user"


# Ends of processes


@pytest.fixture
def ends() -> Iterator[Ends]:
    found = Ends()
    yield found
    found.close()


def test_an_end_is_heard_once(ends: Ends) -> None:
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    known = processes.look_at(process.pid)
    assert known is not None
    assert ends.follow(known.pid, known.start_ticks)
    descriptor = ends.fileno()
    assert select.select([descriptor], [], [], 0)[0] == []
    process.kill()
    assert select.select([descriptor], [], [], 60)[0] == [descriptor]
    ends.drain()
    assert select.select([descriptor], [], [], 0)[0] == []
    process.communicate()
    assert not ends.follow(known.pid, known.start_ticks)


def test_another_process_that_got_the_pid_is_not_followed(ends: Ends) -> None:
    me = processes.look_at(os.getpid())
    assert me is not None
    before = descriptors(me.pid, "[pidfd]")
    assert not ends.follow(me.pid, me.start_ticks + 1)
    assert descriptors(me.pid, "[pidfd]") == before


# Notifications


@pytest.fixture
def elsewhere(world: World, settings: Any) -> World:
    """This process is on another machine: the database is all that it has in common with the poller's."""
    if connection.vendor != "postgresql":
        pytest.skip("needs PostgreSQL, which has NOTIFY")
    settings.SCHEDULER = {**django_settings.SCHEDULER, "ROOT": world.folder / "another machine"}
    return world


def listeners() -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query = %s AND state = 'idle'",
            [f"LISTEN {CHANNEL}"],
        )
        return [pid for (pid,) in cursor.fetchall()]


def test_a_run_that_was_queued_on_another_machine_starts_without_a_round(elsewhere: World) -> None:
    start_patient_poller_there(elsewhere)
    (elsewhere.folder / "go").touch()
    elsewhere.finish(elsewhere.start(elsewhere.task(WAITS_FOR_A_FILE)))


def test_a_listener_that_lost_its_connection_listens_again(elsewhere: World) -> None:
    start_patient_poller_there(elsewhere)
    (lost,) = listeners()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [lost])
    wait_until(lambda: listeners() and listeners() != [lost], "the poller listens again")
    (elsewhere.folder / "go").touch()
    elsewhere.finish(elsewhere.start(elsewhere.task(WAITS_FOR_A_FILE)))


def start_patient_poller_there(world: World) -> None:
    process = subprocess.Popen([sys.executable, "-c", PATIENT_POLLER], cwd=PROJECT)
    world.pollers.append(process)
    wait_until(listeners, "the poller listens")


def test_a_notification_is_sent_with_the_commit_and_not_without(elsewhere: World) -> None:
    notifications = Notifications()
    notifications.listen()
    descriptor = notifications.fileno()
    assert descriptor is not None
    try:
        with transaction.atomic():
            wake_on_commit()
            transaction.set_rollback(True)
        with transaction.atomic():
            wake_on_commit()
            assert select.select([descriptor], [], [], 0)[0] == []
        assert select.select([descriptor], [], [], 60)[0] == [descriptor]
        notifications.drain()
        assert select.select([descriptor], [], [], 0)[0] == []
    finally:
        notifications.close()
    assert notifications.fileno() is None


def test_without_postgresql_nobody_listens(db: None) -> None:
    if connection.vendor == "postgresql":
        pytest.skip("about the other databases")
    notifications = Notifications()
    notifications.listen()
    assert notifications.fileno() is None


def test_the_socket_of_a_poller_that_has_not_reported_yet_is_kept_and_that_of_a_killed_one_is_not(world: World) -> None:
    killed, starting = uuid4(), uuid4()
    make_root()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left:
        left.bind(str(wake_folder() / f"{killed}.sock"))
    with Waker(starting):
        remove_abandoned_sockets()
        assert [path.stem for path in wake_folder().glob("*.sock")] == [str(starting)]
    assert list(wake_folder().glob("*.sock")) == []
