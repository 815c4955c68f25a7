"""Real runs: programs that a test writes, real supervisors, and pollers in this process or in one of their own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.db import connection
from django.utils import timezone

from scheduler import outputs
from scheduler.executors.local import LocalExecutor
from scheduler.models import Run, Task
from scheduler.poller import PollerDaemon
from scheduler.supervisor import folder as protocol
from scheduler.supervisor import processes
from scheduler.supervisor.supervise import end_strays
from tests.browser.looking import FULL, Look

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.contrib.auth.models import User

PROJECT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 60.0
WALKED = [Look("wide", "light"), Look("narrow", "dark")]

# Appends its run to a file, so that starts are counted; then works until it is told to end.
WORK = """
    import os, sys, time
    with open(os.environ["FOLDER"] + "/starts", "a") as starts:
        starts.write(os.environ["SCHEDULER_RUN"] + "\\n")
    open("result", "w").write("x")
    while not os.path.exists(os.environ["FOLDER"] + "/go"):
        time.sleep(0.02)
    sys.exit(7)
    """


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.processes)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with a look has one of two, always the same one; in a full run it has both, one after the other."""
    if "look" in metafunc.fixturenames:
        turn = zlib.crc32(metafunc.function.__name__.encode()) % 2
        metafunc.parametrize("look", WALKED if FULL else [WALKED[turn]], ids=str)


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for a condition; its value once it is true. Fails after a minute: machines may be slow, never that slow."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    pytest.fail(f"waited {PATIENCE_SECONDS:.0f} s in vain until {what}")


@dataclass
class World:
    """A scheduler with folders of its own, and the words in which the tests speak of it."""

    folder: Path
    owner: User
    start_kind: str = "cold"
    """Whether programs are started "cold", or forked "warm"."""
    pollers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    daemons: list[PollerDaemon] = field(default_factory=list)

    @property
    def programs(self) -> Path:
        return self.folder / "programs"

    def task(self, source: str, *, name: str = "program", **fields: Any) -> Task:
        """A task of a program with this source; a plain one unless said otherwise, since it starts faster."""
        (self.programs / f"{name}.py").write_text(textwrap.dedent(source))
        kind = Task.Environment.DJANGO if self.start_kind == "warm" else Task.Environment.PLAIN
        defaults = {"owner": self.owner, "environment": kind, "grace_seconds": 1}
        return Task.objects.create(
            name=name, program_root="programs", program_path=f"{name}.py", **{**defaults, **fields}
        )

    def start(self, task: Task, *arguments: str) -> Run:
        return task.start_now(by=self.owner, now=timezone.now(), arguments=list(arguments) or None)

    def poller(self) -> PollerDaemon:
        """A poller in this process, to be ticked by the test; the previous one is as good as killed."""
        executor = LocalExecutor()
        self.daemons.append(PollerDaemon(executor))
        if self.start_kind == "warm":
            wait_until(lambda: _is_warm(executor), "the warm process is ready")
        return self.daemons[-1]

    def poller_process(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, str(PROJECT / "manage.py"), "poller"], cwd=self.folder)
        self.pollers.append(process)
        if self.start_kind == "warm":
            wait_until(lambda: parked_below(process.pid), "a run can be forked from the poller's warm process")
        return process

    def until(self, condition: Callable[[], Any], what: str, *, poller: PollerDaemon | None = None) -> Any:
        def tick_and_look() -> Any:
            if poller is not None:
                poller.tick(timezone.now())
            return condition()

        return wait_until(tick_and_look, what)

    def finish(self, run: Run, *, poller: PollerDaemon | None = None) -> Run:
        """Wait until the run is over (ticking the poller, if it is one of this process); the fresh row."""
        self.until(lambda: fresh(run).is_finished, f"run {run.pk} is over", poller=poller)
        return fresh(run)

    def run(self, source: str, *arguments: str, **fields: Any) -> Run:
        """One run of a program from its start to its end."""
        return self.finish(self.start(self.task(source, **fields), *arguments), poller=self.poller())

    def log(self, run: Run) -> str:
        return outputs.log_path(run).read_text(errors="replace")

    def lines(self, name: str) -> list[str]:
        """The lines of a file in the test's folder, to which programs append."""
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def end(self) -> None:
        """End every process of this world by its own pid."""
        for process in self.pollers:
            if process.poll() is None:
                process.kill()
            process.wait()
        for daemon in self.daemons:
            assert isinstance(daemon.executor, LocalExecutor)
            for launch in daemon.executor._launches.values():
                launch.wait()
            for builder in daemon.archiver._builders.values():
                builder.wait()
            daemon.executor.take_failures()
            daemon.executor.close()
        for run in Run.objects.all():
            run_folder = outputs.run_folder(run.uuid)
            for name in (protocol.STARTED, protocol.TASK):
                known = run_folder.read(name)
                if known and processes.is_alive(known["pid"], known["start_ticks"]):
                    os.kill(known["pid"], signal.SIGKILL)
            if not run.is_finished and run_folder.has(protocol.STARTED):
                end_strays(run_folder, {"run": str(run.uuid)})


def _is_warm(executor: LocalExecutor) -> bool:
    executor.prepare()
    return executor.warm.pid is not None


def starts(world: World, run: Run) -> int:
    return world.lines("starts").count(str(run.uuid))


def fresh(run: Run) -> Run:
    return Run.objects.select_related("task", "schedule").get(pk=run.pk)


def is_alive(pid: int) -> bool:
    """Whether a process lives; a zombie (an init that does not reap) counts as ended."""
    process = processes.look_at(pid)
    return process is not None and not process.is_zombie


def parked_below(pid: int) -> list[int]:
    """The processes below a poller that wait, forked from its warm process, for a run to start."""
    names = {child.pid: Path(f"/proc/{child.pid}/comm") for child in processes.descendants(pid)}
    return [pid for pid, path in names.items() if path.exists() and path.read_text() == "parked\n"]


def supervisor_pid(run: Run) -> int:
    started = outputs.run_folder(run.uuid).read(protocol.STARTED)
    assert started is not None
    return int(started["pid"])


@pytest.fixture
def world(transactional_db: None, settings: Any, monkeypatch: pytest.MonkeyPatch, start_kind: str) -> Iterator[World]:
    folder = Path(tempfile.mkdtemp(prefix="scheduler-world-"))
    folder.chmod(0o711)  # other Unix users pass through it, as they do through a server's folders
    root, programs = folder / "scheduler", folder / "programs"
    programs.mkdir(mode=0o755)
    settings.SCHEDULER = {
        **django_settings.SCHEDULER,
        "ROOT": root,
        "PROGRAM_ROOTS": {"programs": programs},
        "ENVIRONMENT": ["PATH", "FOLDER"],
    }
    settings.SENDFILE_ROOT = root / "store"
    for name, value in {
        "SCHEDULER_ROOT": str(root),
        "SCHEDULER_VAR": str(folder),
        "SCHEDULER_TESTS_PROGRAMS": str(programs),
        "DATABASE_URL": database_url(),
        "FOLDER": str(folder),
    }.items():
        monkeypatch.setenv(name, value)
    owner = get_user_model().objects.create_user("olivia", is_staff=True)
    here = World(folder, owner, start_kind)
    yield here
    here.end()
    shutil.rmtree(folder)


@pytest.fixture
def cgroup(world: World, settings: Any) -> Iterator[Path]:
    """A cgroup of this test, in which the kernel enforces what its runs are given; ``cgroups`` in the test's folder."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    top = next((Path(place) for _device, place, kind, *_rest in mounts if kind == "cgroup2"), None)
    if (
        top is None
        or not {"memory", "pids"} <= set((top / "cgroup.subtree_control").read_text().split())
        or not os.access(top / "cgroup.procs", os.W_OK)
    ):
        pytest.skip("no cgroup v2 with memory and pids that may be written: NOT TESTED HERE")
    place = top / world.folder.name
    place.mkdir()
    (place / "cgroup.subtree_control").write_text("+memory +pids")
    (world.folder / "cgroups").symlink_to(place)
    settings.SCHEDULER = {**settings.SCHEDULER, "CGROUP": place}
    yield place
    world.end()
    for left in place.glob("*/"):
        left.rmdir()
    place.rmdir()


def database_url() -> str:
    """The test database, as the processes that a test starts reach it."""
    given = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{given['NAME']}"
    place = (
        f"{quote(str(given['HOST']), safe='')}:{given['PORT']}" if given["PORT"] else quote(str(given["HOST"]), safe="")
    )
    password = f":{quote(given['PASSWORD'], safe='')}" if given["PASSWORD"] else ""
    return f"postgresql://{quote(given['USER'], safe='')}{password}@{place}/{given['NAME']}"
