"""The database goes away, hangs, is cut, locked or changed while runs go on."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

import dj_database_url
import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from scheduler.models import Run, RunEvent, Task
from scheduler.states import Status
from scheduler.supervisor import processes
from tests import servers
from tests.runs.conftest import WORK, fresh, is_alive, starts, wait_until

from .conftest import running, start_poller
from .proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.runs.conftest import World

    from .conftest import PollerProcess

GONE = "the database does not answer"
BACK = "going on"


def on_postgresql() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("a case of PostgreSQL; it is tried in that half of tests/run")


def start_runs(world: World, count: int = 3) -> list[Run]:
    """Runs that go on until they are let go; call it with a poller up."""
    runs = [world.start(world.task(WORK, name=f"work{number}")) for number in range(count)]
    for run in runs:
        running(world, run)
    return runs


def have_ended(programs: list[int]) -> None:
    wait_until(lambda: not any(is_alive(pid) for pid in programs), "the programs have ended")


def said(poller: PollerProcess, text: str, *, times: int = 1) -> None:
    wait_until(lambda: poller.log.read_text().count(text) >= times, f"the poller has said “{text}”")


def connected(proxy: Proxy, *, times: int) -> None:
    wait_until(lambda: proxy.made >= times, "the poller has connected again")


def assert_told_once(world: World, runs: list[Run]) -> None:
    for run in runs:
        done = world.finish(run)
        assert (done.exit_code, starts(world, run)) == (7, 1)
        assert done.events.filter(what=RunEvent.What.FINISHED).count() == 1
        assert done.files.count() == 1


# PostgreSQL


@pytest.fixture
def own_postgresql(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str | Path]]:
    """A PostgreSQL that this test may stop, as this process's database; the beginning of a command of pg_ctl."""
    on_postgresql()
    with servers.postgresql() as url:
        monkeypatch.setenv("DATABASE_URL", url)
        kept = dict(connection.settings_dict)
        connection.close()
        connection.settings_dict.update(dj_database_url.parse(url, conn_health_checks=True))
        try:
            call_command("migrate", verbosity=0)
            world.owner = get_user_model().objects.create_user("oliver", is_staff=True)
            folder = servers.postgresql_folder()
            assert folder is not None
            top = Path(unquote(urlsplit(url).netloc.partition("@")[2]))
            yield [folder / "pg_ctl", "--pgdata", top / "data", "--log", top / "log", "--wait", "--silent"]
            world.end()
        finally:
            connection.close()
            connection.settings_dict.clear()
            connection.settings_dict.update(kept)
            for process in world.pollers:
                if process.poll() is None:
                    process.kill()
                process.wait()


def test_postgresql_is_stopped_and_then_killed_while_runs_go_on(world: World, own_postgresql: list[str | Path]) -> None:
    top = Path(str(own_postgresql[2])).parent
    options = f"-c listen_addresses='' -c unix_socket_directories={top} -c fsync=off"

    def control(*command: str) -> None:
        servers._call([*own_postgresql, *command], servers._unprivileged(), top)

    poller = start_poller(world)
    for round_number, mode in enumerate(("fast", "immediate"), start=1):
        runs = [world.start(world.task(WORK, name=f"{mode}{number}")) for number in range(3)]
        for run in runs:
            running(world, run)
        connection.close()
        programs = {run.pk: fresh(run).pid or 0 for run in runs}
        connection.close()
        control("--mode", mode, "stop")
        (world.folder / "go").touch()
        have_ended(list(programs.values()))
        said(poller, GONE, times=round_number)
        control("--options", options, "start")
        said(poller, BACK, times=round_number)
        assert_told_once(world, runs)
        (world.folder / "go").unlink()
    assert poller.process.poll() is None


def test_postgresql_hangs_while_runs_go_on(world: World, own_postgresql: list[str | Path]) -> None:
    """As a machine does that is out of memory, or behind a cable that was pulled: no answer, and no refusal."""
    poller = start_poller(world)
    runs = start_runs(world)
    programs = [fresh(run).pid or 0 for run in runs]
    server = int(Path(str(own_postgresql[2]), "postmaster.pid").read_text().split()[0])
    everything = [process for pid in [server] if (process := processes.look_at(pid))]
    everything += processes.descendants(server)
    processes.send(signal.SIGSTOP, everything)
    try:
        (world.folder / "go").touch()
        have_ended(programs)
    finally:
        processes.send(signal.SIGCONT, everything)
    assert_told_once(world, runs)
    assert poller.process.poll() is None


@pytest.fixture
def proxy(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """What stands between the pollers and the database; this process reaches it directly."""
    on_postgresql()
    given = connection.settings_dict
    host, port = str(given["HOST"]), int(given["PORT"] or 5432)

    def connect() -> socket.socket:
        if host.startswith("/"):
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{host}/.s.PGSQL.{port}")
            return server
        return socket.create_connection((host or "127.0.0.1", port))

    folder = world.folder / "proxy"
    folder.mkdir()
    here = Proxy(folder, connect)
    password = f":{quote(given['PASSWORD'], safe='')}" if given["PASSWORD"] else ""
    place = quote(str(folder), safe="")
    monkeypatch.setenv(
        "DATABASE_URL", f"postgresql://{quote(given['USER'], safe='')}{password}@{place}/{given['NAME']}"
    )
    yield here
    world.end()
    here.close()


def test_every_connection_is_cut_again_and_again(world: World, proxy: Proxy) -> None:
    poller = start_poller(world)
    runs = [world.start(world.task(WORK, name=f"work{number}")) for number in range(6)]
    (world.folder / "go").touch()
    for number in range(1, 9):
        connected(proxy, times=number)
        proxy.cut()
    assert_told_once(world, runs)
    assert poller.process.poll() is None
    assert proxy.made > 8


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_connection_drops_at_a_commit_that_was_made_or_was_not(world: World, proxy: Proxy, when: str) -> None:
    """Nobody tells the poller which: a claim that counts and one that does not look the same to it."""
    poller = start_poller(world)
    wait_until(lambda: poller.said("up, capacity"), "the poller is up")
    proxy.cuts += [when] * 8
    runs = [world.start(world.task(WORK, name=f"work{number}")) for number in range(4)]
    (world.folder / "go").touch()
    assert_told_once(world, runs)
    world.until(lambda: not proxy.cuts or not start_and_finish(world), "all cuts were made")
    for run in runs:
        assert fresh(run).events.filter(what=RunEvent.What.CLAIMED).count() == 1


def start_and_finish(world: World) -> bool:
    """One more run, since a cut is made at a commit only."""
    return world.finish(world.start(Task.objects.all()[0])).is_finished


def test_the_runs_table_is_locked_while_runs_go_on(world: World) -> None:
    """As a migration does that takes its time."""
    on_postgresql()
    import psycopg

    start_poller(world)
    runs = start_runs(world)
    with psycopg.connect(os.environ["DATABASE_URL"]) as migration:
        migration.execute("LOCK TABLE scheduler_run IN ACCESS EXCLUSIVE MODE")
        (world.folder / "go").touch()
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'scheduler_run'::regclass"
        wait_until(lambda: migration.execute(waiting).fetchone() != (0,), "the poller waits for the table")
        migration.rollback()
    assert_told_once(world, runs)


def test_a_row_that_somebody_holds_keeps_no_other_run_waiting(world: World) -> None:
    """As a session of psql does that somebody has left open in the middle of a transaction."""
    on_postgresql()
    import psycopg

    start_poller(world)
    runs = start_runs(world)
    with psycopg.connect(os.environ["DATABASE_URL"]) as forgotten:
        forgotten.execute("UPDATE scheduler_run SET message = '' WHERE id = %s", [runs[0].pk])
        (world.folder / "go").touch()
        for run in runs[1:]:
            world.finish(run)
        world.finish(world.start(world.task(WORK, name="later")))
        assert not fresh(runs[0]).is_finished
        forgotten.rollback()
    assert_told_once(world, runs)


# Both


def test_a_column_is_dropped_and_added_while_runs_go_on(world: World) -> None:
    """As by migrations under an older poller; SQLite makes the table anew to add it."""
    poller = start_poller(world)
    runs = start_runs(world)
    message = Run._meta.get_field("message")
    with connection.schema_editor() as editor:
        editor.remove_field(Run, message)
    try:
        (world.folder / "go").touch()
        said(poller, "the tables are not those of this version")
        assert poller.said("message")
    finally:
        with connection.schema_editor() as editor:
            editor.add_field(Run, message)
    assert_told_once(world, runs)
    assert poller.process.poll() is None
    assert not poller.said("Traceback")


def test_a_poller_waits_until_the_migrations_are_applied(world: World) -> None:
    """As after a deploy that restarts the poller first."""
    applied = MigrationRecorder(connection)
    last = ("scheduler", max(name for app, name in applied.applied_migrations() if app == "scheduler"))
    applied.record_unapplied(*last)
    try:
        poller = start_poller(world)
        run = world.start(world.task(WORK))
        (world.folder / "go").touch()
        said(poller, f"waiting: 1 migration(s) not applied, the first is {'.'.join(last)}")
        assert fresh(run).status == Status.QUEUED
    finally:
        applied.record_applied(*last)
    assert_told_once(world, [run])


def test_indexes_are_dropped_and_made_while_runs_go_on(world: World) -> None:
    poller = start_poller(world)
    runs = start_runs(world)
    with connection.schema_editor() as editor:
        for index in Run._meta.indexes:
            editor.remove_index(Run, index)
    later = world.start(world.task(WORK, name="without"))
    running(world, later)
    with connection.schema_editor() as editor:
        for index in Run._meta.indexes:
            editor.add_index(Run, index)
    (world.folder / "go").touch()
    assert_told_once(world, [*runs, later])
    assert not poller.said("Traceback")


# SQLite


def test_a_program_holds_sqlites_write_lock_for_longer_than_the_poller_waits(world: World) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("a case of SQLite; it is tried in that half of tests/run")
    holder = world.task(
        """
        import os, sqlite3, time
        database = sqlite3.connect(os.environ["FOLDER"] + "/database", isolation_level=None, timeout=60)
        while not os.path.exists(os.environ["FOLDER"] + "/lock"):
            time.sleep(0.02)
        database.execute("BEGIN IMMEDIATE")
        open(os.environ["FOLDER"] + "/locked", "w").close()
        while not os.path.exists(os.environ["FOLDER"] + "/unlock"):
            time.sleep(0.02)
        database.rollback()
        """,
        name="holder",
    )
    (world.folder / "database").symlink_to(str(connection.settings_dict["NAME"]))
    poller = start_poller(world, SCHEDULER_TESTS_SQLITE_PATIENCE="0.3")
    held = world.start(holder)
    runs = start_runs(world, 2)
    programs = [fresh(run).pid or 0 for run in runs]
    world.until(lambda: fresh(held).started_at, "the holder runs")
    connection.close()
    (world.folder / "lock").touch()
    wait_until(lambda: (world.folder / "locked").exists(), "the database is locked")
    (world.folder / "go").touch()
    have_ended(programs)
    wait_until(lambda: poller.said(GONE), "the poller has noticed")
    (world.folder / "unlock").touch()
    assert_told_once(world, runs)
    assert world.finish(held).exit_code == 0
    assert poller.process.poll() is None
