"""The warm process: no run sees another, the code is never older than a second, and whatever ends it costs no run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import sys
import textwrap
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.utils import timezone

from scheduler import outputs
from scheduler.executors import launches, warm_process
from scheduler.executors.local import LocalExecutor
from scheduler.models import Poller, Run, Task
from scheduler.states import Reason, Status
from scheduler.supervisor import processes

from .conftest import fresh, is_alive, parked_below, supervisor_pid, wait_until

if TYPE_CHECKING:
    from scheduler.poller import PollerDaemon

    from .conftest import World

WAIT = """
    import os, time
    with open(os.environ["FOLDER"] + "/starts", "a") as starts:
        starts.write(os.environ["SCHEDULER_RUN"] + "\\n")
    while not os.path.exists(os.environ["FOLDER"] + "/go"):
        time.sleep(0.02)
    """
TELL_HOW = "print('warm' if 'scheduler.executors.warm' in open('/proc/self/cmdline').read() else 'cold')"


@pytest.fixture
def start_kind() -> str:
    return "warm"


@pytest.fixture
def site(world: World, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a site whose settings load ``app_of_the_site`` from it; every program gets it."""
    folder = world.folder / "site"
    folder.mkdir()
    (folder / "site_settings.py").write_text("from tests.settings import *\nimport app_of_the_site\n")
    (folder / "app_of_the_site.py").write_text("version = 1\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "site_settings")
    return folder


def executor(poller: PollerDaemon) -> LocalExecutor:
    assert isinstance(poller.executor, LocalExecutor)
    return poller.executor


def warm_pid(poller: PollerDaemon) -> int:
    pid = executor(poller).warm.pid
    assert pid is not None
    return pid


def parked(poller: PollerDaemon, number: int = 2) -> list[int]:
    """The supervisors that wait below the poller's warm process, once there are so many."""
    return wait_until(lambda: len(found := _parked(poller)) == number and found, f"{number} are parked")  # type: ignore[no-any-return]


def _parked(poller: PollerDaemon) -> list[int]:
    """Supervisors only: each has a process of its program below it, of the same name."""
    pid = executor(poller).warm.pid
    waiting = parked_below(pid) if pid is not None else []
    return [pid for pid in waiting if any(child in waiting for child in _below(pid))]


def _below(pid: int) -> list[int]:
    return [child.pid for child in processes.descendants(pid)]


def renewed(poller: PollerDaemon, old: int) -> int:
    """The pid of the warm process that has taken the place of another."""

    def is_ready() -> bool:
        poller.executor.prepare()
        return executor(poller).warm.pid not in (None, old)

    wait_until(is_ready, "another warm process is ready")
    return warm_pid(poller)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid), f"{pid} is gone")


def ran(world: World, task: Task, poller: PollerDaemon, *arguments: str) -> str:
    run = world.finish(world.start(task, *arguments), poller=poller)
    assert run.status == Status.COMPLETED, (run.sentence, world.log(run))
    return world.log(run)


# Nothing of one run is visible in another

SPOIL = """
    import builtins, json, logging, os, random, signal, socket, sys, threading, warnings
    import django.conf, django.core.cache, django.utils.timezone, django.utils.translation
    from django.contrib.auth.models import User
    from django.db import connection
    seen = {
        "global": getattr(django, "spoiled", None), "builtin": hasattr(builtins, "spoiled"),
        "environment": os.environ.get("SPOILED"), "path": "/spoiled" in sys.path, "module": "spoiled" in sys.modules,
        "patched": User.get_username is not type(User).__call__ and User.__dict__.get("spoiled"),
        "settings": django.conf.settings.TIME_ZONE, "cache": django.core.cache.cache.get("spoiled"),
        "language": django.utils.translation.get_language(),
        "handlers": len(logging.getLogger().handlers), "level": logging.getLogger().level,
        "handler": str(signal.getsignal(signal.SIGTERM)), "alarm": signal.getitimer(signal.ITIMER_REAL),
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])), "timeout": socket.getdefaulttimeout(),
        "threads": threading.active_count(), "recursion": sys.getrecursionlimit(), "umask": os.umask(0o077),
        "filters": len(warnings.filters), "folder": os.getcwd() == os.environ["SCHEDULER_OUTPUT"], "nice": os.nice(0),
    }
    print(json.dumps(seen), flush=True)
    django.spoiled = builtins.spoiled = User.spoiled = True
    os.environ["SPOILED"] = "1"
    sys.path.append("/spoiled")
    sys.modules["spoiled"] = sys
    django.conf.settings.TIME_ZONE = "Asia/Tokyo"
    django.core.cache.cache.set("spoiled", 1)
    django.utils.translation.activate("de")
    logging.getLogger().addHandler(logging.NullHandler())
    logging.getLogger().setLevel(1)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    signal.setitimer(signal.ITIMER_REAL, 1000)
    socket.setdefaulttimeout(5)
    sys.setrecursionlimit(5000)
    warnings.simplefilter("ignore")
    os.chdir("/")
    os.nice(1)
    open(os.environ["FOLDER"] + f"/spoiled-{os.getpid()}", "w").close()
    import time
    while len([name for name in os.listdir(os.environ["FOLDER"]) if name.startswith("spoiled-")]) < int(sys.argv[1]):
        time.sleep(0.02)
    """


def test_no_run_sees_anything_of_another_before_it_or_beside_it(world: World, settings: Any) -> None:
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    poller = world.poller()
    first, second, third = (world.task(SPOIL, name=f"p{number}") for number in range(3))
    seen = [ran(world, first, poller, "1")]
    beside = [world.start(task, "3") for task in (second, third)]  # each goes on until both have spoiled everything
    seen += [world.log(world.finish(run, poller=poller)) for run in beside]
    assert "Asia" not in seen[0]
    assert seen == [seen[0]] * 3
    assert executor(poller).warm.pid


def test_what_is_random_differs(world: World) -> None:
    source = """
        import os, random, secrets, tempfile, uuid
        from django.utils.crypto import get_random_string
        from multiprocessing import current_process
        print(random.random(), secrets.token_hex(), uuid.uuid4(), uuid.uuid1(), get_random_string(20), os.urandom(8),
              next(tempfile._get_candidate_names()), current_process().authkey.hex(), sep="\\n")
        """
    poller = world.poller()
    tasks = [world.task(source, name=f"p{number}") for number in range(3)]
    runs = [world.start(task) for task in tasks]
    logs = [world.log(world.finish(run, poller=poller)).splitlines() for run in runs]
    assert [len(set(column)) for column in zip(*logs, strict=True)] == [3] * 8


def test_each_has_a_connection_of_its_own(world: World) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has no connections that a server knows")
    source = """
        from django.db import connection
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid(), current_setting('application_name')")
            pid, name = cursor.fetchone()
            cursor.execute("SET application_name = 'spoiled'")
        print(pid, name)
        """
    poller = world.poller()
    task = world.task(source)
    seen = [ran(world, task, poller).split(" ", 1) for _ in range(4)]
    assert len({pid for pid, _name in seen}) == 4
    assert len({name for _pid, name in seen}) == 1


def test_a_connection_that_the_server_has_closed_costs_no_run(world: World) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has no server")
    poller = world.poller()
    task = world.task("from django.contrib.auth.models import User; print(User.objects.count())")
    parked(poller)

    def end_them() -> bool:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid() AND state = 'idle'"
            )
            return bool(cursor.fetchone()[0] >= 2)

    wait_until(end_them, "the server has closed what the parked programs had opened")
    assert [ran(world, task, poller) for _ in range(3)] == ["1\n"] * 3


def test_with_many_at_once_those_that_ask_nothing_hold_no_connection(world: World, site: Path, settings: Any) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has no connections that a server counts")
    settings.SCHEDULER = {**settings.SCHEDULER, "PARKED": 1}
    (site / "app_of_the_site.py").write_text("from scheduler.executors import warm\nwarm.CONNECTED_AT_MOST = 1\n")
    source = (
        "from django.contrib.auth.models import User\n"
        "from django.db import connection\n"
        "was_connected = connection.connection is not None\n"
        f"{textwrap.dedent(WAIT)}"
        "print(was_connected, User.objects.count())"
    )
    poller = world.poller()
    runs = []
    for number in range(3):
        runs.append(world.start(world.task(source, name=f"p{number}")))
        world.until(lambda: len(world.lines("starts")) == len(runs), f"{len(runs)} have started", poller=poller)
    (world.folder / "go").touch()
    assert [world.log(world.finish(run, poller=poller)) for run in runs] == ["True 1\n", "False 1\n", "False 1\n"]


def test_a_database_file_that_was_replaced_is_not_written_through_an_old_descriptor(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("PostgreSQL has no file of ours")
    old, new = world.folder / "site.sqlite3", world.folder / "restored.sqlite3"
    with closing(sqlite3.connect(old)) as made:
        made.executescript("CREATE TABLE found (name); PRAGMA journal_mode=WAL;")
    shutil.copy(old, new)
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{old}")
    poller = world.poller()
    parked(poller)
    monkeypatch.undo()
    kept = old.with_suffix(".kept")
    old.rename(kept)
    new.rename(old)
    ran(
        world,
        world.task("from django.db import connection\nconnection.cursor().execute('INSERT INTO found VALUES (1)')"),
        poller,
    )
    for path, rows in ((old, [(1,)]), (kept, [])):
        with closing(sqlite3.connect(path)) as there:
            assert there.execute("SELECT name FROM found").fetchall() == rows


def test_a_warm_program_has_the_environment_of_a_cold_one(world: World) -> None:
    source = "import django, os; django.setup(); print(dict(os.environ))"  # the settings set TZ
    poller = world.poller()
    warm, cold = (
        ran(world, world.task(source, name=name, cold_start=name == "cold"), poller) for name in ("warm", "cold")
    )
    seen = [
        {name: value for name, value in eval(log).items() if value and not name.startswith("SCHEDULER_")}
        for log in (warm, cold)
    ]
    for variables in seen:
        assert variables.pop("PWD").startswith(str(world.folder / "scheduler" / "runs"))
    assert seen[0] == seen[1]
    assert {name for name in eval(warm) if name.startswith("SCHEDULER_")} == {
        name for name in eval(cold) if name.startswith("SCHEDULER_")
    }


# Which starts are warm


def test_a_task_may_choose_a_cold_start_or_another_interpreter(world: World, settings: Any) -> None:
    other = world.folder / "other-python"
    other.symlink_to(sys.executable)
    settings.SCHEDULER = {**settings.SCHEDULER, "INTERPRETERS": {"other": other}}
    poller = world.poller()
    tasks = {
        "warm": world.task(TELL_HOW, name="usual"),
        "cold": world.task(TELL_HOW, name="chosen", cold_start=True),
        "other": world.task(f"{TELL_HOW}\nimport sys; print(sys.orig_argv[0])", name="other", interpreter="other"),
        "plain": world.task(TELL_HOW, name="plain", environment=Task.Environment.PLAIN),
    }
    assert {name: ran(world, task, poller) for name, task in tasks.items()} == {
        "warm": "warm\n",
        "cold": "cold\n",
        "other": f"cold\n{other}\n",
        "plain": "cold\n",
    }


@pytest.mark.parametrize("number", [0, 3])
def test_so_many_are_parked_as_the_settings_say(world: World, settings: Any, number: int) -> None:
    settings.SCHEDULER = {**settings.SCHEDULER, "PARKED": number}
    poller = world.poller()
    parked(poller, number) if number else None
    runs = [world.start(world.task(TELL_HOW, name=f"p{each}")) for each in range(4)]
    assert [world.log(world.finish(run, poller=poller)) for run in runs] == ["warm\n"] * 4
    wait_until(lambda: len(_parked(poller)) == number, "as many wait as before")


# One supervisor has one run after the other

OF_ITS_SUPERVISOR = """
    import json, os
    place = f"/proc/{os.getppid()}"
    links = [f"{place}/cwd", *(f"{place}/fd/{name}" for name in os.listdir(f"{place}/fd"))]
    print(json.dumps([os.getppid(), [os.readlink(link) for link in links if os.path.lexists(link)]]))
    """


def test_a_supervisor_has_one_run_after_the_other_and_nothing_of_the_one_before_is_left_open(
    world: World, settings: Any
) -> None:
    settings.SCHEDULER = {**settings.SCHEDULER, "PARKED": 1}
    poller, task = world.poller(), world.task(OF_ITS_SUPERVISOR)
    runs_of: dict[int, list[str]] = {}

    def one_more() -> bool:
        run = world.finish(world.start(task), poller=poller)
        pid, paths = json.loads(world.log(run))
        runs_of.setdefault(pid, []).append(str(run.uuid))
        others = [uuid for uuids in runs_of.values() for uuid in uuids if uuid != str(run.uuid)]
        assert any(str(run.uuid) in path for path in paths)
        assert [path for path in paths if any(uuid in path for uuid in others)] == []
        return len(runs_of[pid]) == 3

    wait_until(one_more, "a supervisor has its third run")


def test_a_supervisor_that_is_killed_in_its_second_run_loses_only_that(world: World, settings: Any) -> None:
    settings.SCHEDULER = {**settings.SCHEDULER, "PARKED": 1}
    poller, short, long = world.poller(), world.task("pass", name="short"), world.task(WAIT, name="long")
    known: set[int] = set()
    done: list[Run] = []

    def has_one_again() -> Run | None:
        done.append(world.start(short))
        world.finish(done[-1], poller=poller)
        run, count = world.start(long), len(world.lines("starts"))
        world.until(lambda: len(world.lines("starts")) > count, "it runs", poller=poller)
        pid = supervisor_pid(run)
        if pid in known:
            return run
        known.add(pid)
        (world.folder / "go").touch()
        world.finish(run, poller=poller)
        (world.folder / "go").unlink()
        return None

    run = wait_until(has_one_again, "a supervisor has another run")
    kill(supervisor_pid(run))
    assert world.finish(run, poller=poller).reason == Reason.LOST
    assert {fresh(each).status for each in done} == {Status.COMPLETED}


def test_without_warm_starts_there_is_no_warm_process(world: World, settings: Any) -> None:
    settings.SCHEDULER = {**settings.SCHEDULER, "WARM": False}
    world.start_kind = "cold"  # so that nobody waits for what is never there
    poller = world.poller()
    poller.executor.prepare()
    task = world.task(TELL_HOW, environment=Task.Environment.DJANGO)
    assert ran(world, task, poller) == "cold\n"
    assert executor(poller).warm.pid is None
    assert "WARM" in poller.executor.cold_reason


@pytest.mark.parametrize(
    ("start_up", "said"),
    [
        (
            "import threading\nthreading.Thread(target=threading.Event().wait, name='watcher', daemon=True).start()",
            "watcher",
        ),
        ("import socket\nkept = socket.socket()", "connection open"),
        ("import select\nkept = select.epoll()", "connection open"),
        ("raise LookupError('no such luck')", "LookupError: no such luck"),
        ("import os\nos._exit(3)", "ended before it was ready"),
    ],
    ids=["a thread", "a socket", "an epoll", "an error", "an exit"],
)
def test_a_site_that_cannot_be_forked_is_started_cold_and_the_poller_says_why(
    world: World, site: Path, start_up: str, said: str
) -> None:
    (site / "app_of_the_site.py").write_text(start_up)
    world.start_kind = "cold"
    poller = world.poller()
    poller.tick(timezone.now())

    def refused() -> str:
        poller._keep_warm()
        return Poller.objects.get(pk=poller.row.pk).cold_reason

    assert said in wait_until(refused, "the poller's row says why starts are cold")
    assert ran(world, world.task(TELL_HOW, environment=Task.Environment.DJANGO), poller) == "cold\n"


# The code


def test_a_file_that_has_changed_is_loaded_anew(world: World, site: Path) -> None:
    poller = world.poller()
    task = world.task("import app_of_the_site; print(app_of_the_site.version)")
    assert ran(world, task, poller) == "1\n"
    old = warm_pid(poller)
    (site / "app_of_the_site.py").write_text("version = 22\n")
    renewed(poller, old)
    assert ran(world, task, poller) == "22\n"
    assert not is_alive(old)


def test_a_symbolic_link_that_was_switched_is_followed(world: World, site: Path) -> None:
    releases = [site.rename(world.folder / "release-1"), world.folder / "release-2"]
    shutil.copytree(releases[0], releases[1])
    (releases[1] / "app_of_the_site.py").write_text("version = 2\n")
    site.symlink_to(releases[0])
    poller = world.poller()
    task = world.task("import app_of_the_site; print(app_of_the_site.version)")
    assert ran(world, task, poller) == "1\n"
    old = warm_pid(poller)
    (world.folder / "next").symlink_to(releases[1])
    (world.folder / "next").rename(site)
    renewed(poller, old)
    assert ran(world, task, poller) == "2\n"


def test_an_installed_package_is_a_change_and_another_file_is_none(world: World, site: Path) -> None:
    poller = world.poller()
    old = warm_pid(poller)
    (site / "another.txt").touch()
    (site / "not_loaded.py").write_text("x = 1\n")
    task = world.task(f"{TELL_HOW}\nimport not_loaded")
    assert ran(world, task, poller) == "warm\n"
    (site / "package-1.dist-info").mkdir()
    assert renewed(poller, old) != old


def test_code_that_changes_while_it_is_loaded_is_loaded_anew(world: World, site: Path) -> None:
    """A deploy in the moment between reading a file and remembering what it was like is not missed."""
    (site / "app_of_the_site.py").write_text(
        textwrap.dedent(
            """
            import os
            version = "old"
            with open(__file__ + ".new", "w") as file:
                file.write("version = 'new'\\n")
            os.replace(__file__ + ".new", __file__)
            """
        )
    )
    poller = world.poller()
    task = world.task("import app_of_the_site; print(app_of_the_site.version)")

    def is_new() -> bool:
        poller.executor.prepare()
        return ran(world, task, poller) == "new\n"

    wait_until(is_new, "the new code is loaded, although one run follows the other")


def test_sighup_renews_the_warm_process_of_a_poller(world: World) -> None:
    process = world.poller_process()
    [old] = warm_below(process.pid)
    process.send_signal(signal.SIGHUP)
    wait_until(
        lambda: (now := warm_below(process.pid)) and old not in now and parked_below(process.pid), "it is another"
    )
    run = world.finish(world.start(world.task(TELL_HOW)))
    assert world.log(run) == "warm\n"


def warm_below(pid: int) -> list[int]:
    """The warm processes of a poller: its children, not what was forked from them."""
    found = []
    for child in processes.descendants(pid):
        try:
            status = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
            command = Path(f"/proc/{child.pid}/cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(status[1]) == pid and "scheduler.executors.warm" in command:
            found.append(child.pid)
    return found


def test_it_is_replaced_after_so_many_starts(world: World, settings: Any) -> None:
    settings.SCHEDULER = {**settings.SCHEDULER, "WARM_STARTS": 2}
    poller = world.poller()
    old, task = warm_pid(poller), world.task(TELL_HOW)
    assert [ran(world, task, poller) for _ in range(2)] == ["warm\n"] * 2
    renewed(poller, old)
    assert ran(world, task, poller) == "warm\n"


def test_it_is_replaced_when_it_has_grown(world: World, settings: Any) -> None:
    poller = world.poller()
    old = warm_pid(poller)
    poller.executor.prepare()
    assert executor(poller).warm.pid == old
    settings.SCHEDULER = {**settings.SCHEDULER, "WARM_BYTES": 1}
    renewed(poller, old)


# What is killed


def test_it_comes_back_when_it_is_killed_and_no_run_is_lost(world: World) -> None:
    poller, task = world.poller(), world.task(TELL_HOW)
    old = warm_pid(poller)
    kill(old)
    assert ran(world, task, poller) in ("warm\n", "cold\n")
    renewed(poller, old)
    assert ran(world, task, poller) == "warm\n"


def test_a_parked_supervisor_that_is_killed_costs_no_run(world: World) -> None:
    poller = world.poller()
    task, below = world.task(TELL_HOW), list[int]()
    for pid in parked(poller):
        below += _below(pid)
        kill(pid)
    wait_until(lambda: not any(map(is_alive, below)), "their programs' processes have ended too")
    assert ran(world, task, poller) == "warm\n"


def test_a_parked_program_that_is_killed_costs_no_run(world: World) -> None:
    poller = world.poller()
    tasks = [world.task(TELL_HOW, name=f"p{number}") for number in range(2)]
    for pid in parked(poller):
        for child in _below(pid):
            kill(child)
    assert [ran(world, task, poller) for task in tasks] == ["warm\n"] * 2


def test_runs_go_on_when_it_is_killed(world: World) -> None:
    poller, task = world.poller(), world.task(WAIT)
    run = world.start(task)
    world.until(lambda: world.lines("starts"), "it runs", poller=poller)
    kill(warm_pid(poller))
    (world.folder / "go").touch()
    assert world.finish(run, poller=poller).status == Status.COMPLETED


def test_a_run_that_nobody_took_is_started_once_by_other_means(world: World, settings: Any) -> None:
    settings.SCHEDULER = {**settings.SCHEDULER, "PARKED": 0}
    poller, task = world.poller(), world.task(WAIT)
    (world.folder / "go").touch()
    pid = warm_pid(poller)
    os.kill(pid, signal.SIGSTOP)
    run = world.start(task)
    poller.tick(timezone.now())
    assert poller.executor.is_launching(run.uuid)
    assert not outputs.run_folder(run.uuid).has("started.json")
    kill(pid)
    assert world.finish(run, poller=poller).status == Status.COMPLETED
    assert world.lines("starts") == [str(run.uuid)]


def test_a_launch_that_nobody_answers_is_made_cold(
    world: World, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launches, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(warm_process, "LEAVING_SECONDS", 0.0)
    settings.SCHEDULER = {**settings.SCHEDULER, "PARKED": 0}
    poller = world.poller()
    pid = warm_pid(poller)
    os.kill(pid, signal.SIGSTOP)
    run = world.finish(world.start(world.task(TELL_HOW)), poller=poller)
    assert (run.status, world.log(run)) == (Status.COMPLETED, "cold\n")
    executor(poller).close()
    assert not is_alive(pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_poller_takes_its_warm_process_along_and_leaves_its_runs(world: World, number: signal.Signals) -> None:
    process = world.poller_process()
    run = world.start(world.task(WAIT))
    wait_until(lambda: world.lines("starts"), "it runs")
    wait_until(lambda: fresh(run).started_at, "the poller has seen that it runs")
    children = [*warm_below(process.pid), *parked_below(process.pid)]
    assert len(children) >= 3
    process.send_signal(number)
    process.wait()
    wait_until(lambda: not any(map(is_alive, children)), "they have ended with their poller")
    assert is_alive(supervisor_pid(run))
    (world.folder / "go").touch()
    assert world.finish(run, poller=world.poller()).status == Status.COMPLETED
    assert Run.objects.count() == 1
