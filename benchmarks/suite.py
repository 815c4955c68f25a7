"""All measurements side by side, in one run: install the peers, start what they need, measure, print tables.

Standard library only: it runs before anything is installed. ``benchmarks/run`` starts it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from benchmarks import tables
from benchmarks.environment import PYTHON, prepare
from benchmarks.systems import SYSTEMS, Entry
from benchmarks.waiting import Processes, Unusable, free_port, listens, wait_until
from conf.environment import PROJECT, SetUpError, environment, say
from tests import servers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

GROUPS = ("start", "drained", "tick", "memory", "downloads", "overdue")
OVERDUE = ("one_slot_each", "ten_slots_each_once", "hundred_slots_each_all")
PEERS = "django_q,django_celery_beat"
LEAST_SECONDS = 10.0  # less time than this is not worth a start
PAGE = PROJECT / "docs" / "performance.md"


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    starts: int
    slow_starts: int
    drain: int
    slow_drain: int
    rounds: int
    four_workers: tuple[str, ...]
    most_schedules: dict[str, int]
    """Name of a scheduler -> the largest number of schedules that it is tried with."""
    idle_seconds: float
    download_seconds: float
    download_rounds: int
    overdue_seconds: float
    measure_seconds: float
    """A single measurement that takes longer is given up."""
    all_seconds: float
    """What has not begun by then is left out."""


QUICK = Extent(
    starts=20,
    slow_starts=7,
    drain=120,
    slow_drain=12,
    rounds=2,
    four_workers=("scheduler_warm", "rq_fork"),
    most_schedules={
        "scheduler": 1_000_000,
        "scheduler_pg": 100_000,
        "django_celery_beat": 10_000,
        "django_q2": 10_000,
    },
    idle_seconds=8,
    download_seconds=1,
    download_rounds=3,
    overdue_seconds=5,
    measure_seconds=180,
    all_seconds=450,
)
THOROUGH = Extent(
    starts=100,
    slow_starts=30,
    drain=500,
    slow_drain=40,
    rounds=5,
    four_workers=tuple(SYSTEMS),
    most_schedules={
        "scheduler": 1_000_000,
        "scheduler_pg": 1_000_000,
        "django_celery_beat": 100_000,
        "django_q2": 100_000,
    },
    idle_seconds=60,
    download_seconds=5,
    download_rounds=5,
    overdue_seconds=60,
    measure_seconds=1800,
    all_seconds=24 * 3600,
)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write; the exit code is 0 when everything that was asked for could be set up."""
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    groups = tuple(options.only.split(",")) if options.only else GROUPS
    unknown = sorted(set(groups) - set(GROUPS))
    if unknown:
        say(f"benchmarks/run: there is no measure {', '.join(unknown)}. There are {', '.join(GROUPS)}.")
        return 2
    chosen = options.systems.split(",") if options.systems else list(SYSTEMS)
    if strange := sorted(set(chosen) - set(SYSTEMS)):
        say(f"benchmarks/run: there is no system {', '.join(strange)}. There are {', '.join(SYSTEMS)}.")
        return 2
    began = time.monotonic()
    results = tables.Results(quick=options.quick)
    try:
        results.problems += prepare()
        if options.install_only:
            return 0
        with _bench(results, QUICK if options.quick else THOROUGH) as bench:
            bench.measure(groups, chosen)
    except (SetUpError, Unusable) as error:
        say(f"benchmarks/run: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    results.seconds = time.monotonic() - began
    say("\n" + tables.as_markdown(results))
    if options.json:
        options.json.write_text(json.dumps(tables.as_json(results), indent=2) + "\n")
    if options.svg:
        options.svg.write_text(tables.as_svg(results))
    if options.write_docs:
        PAGE.write_text(tables.renewed(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")
        PAGE.with_suffix(".svg").write_text(tables.as_svg(results), encoding="utf-8")
    return 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="benchmarks/run",
        description="Measure the scheduler and its peers side by side on this machine; prints tables.",
        allow_abbrev=False,
    )
    made.add_argument("--quick", action="store_true", help="fewer repetitions, smaller numbers: some minutes")
    made.add_argument("--only", metavar="MEASURES", help=f"only these, with commas: {', '.join(GROUPS)}")
    made.add_argument("--systems", metavar="NAMES", help="start and drained only of these, with commas")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the medians as JSON")
    made.add_argument("--svg", type=Path, metavar="FILE", help="write the start latencies as a picture")
    made.add_argument("--write-docs", action="store_true", help="renew the tables of docs/performance.md")
    made.add_argument("--install-only", action="store_true", help="install the peers, and measure nothing")
    return made


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _bench(results: tables.Results, extent: Extent) -> Iterator[Bench]:
    folder = Path(tempfile.mkdtemp(prefix="scheduler-benchmarks-"))
    folder.chmod(0o711)
    processes = Processes(folder / "servers.log")
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(processes.end)
        bench = Bench(folder, results, extent)
        try:
            bench.postgresql = stack.enter_context(servers.postgresql())
        except RuntimeError as error:
            results.problems.append(f"Nothing was measured on PostgreSQL. {error}")
        bench.redis_port = _redis(processes, folder, results)
        bench.migrate()
        yield bench


def _redis(processes: Processes, folder: Path, results: tables.Results) -> int | None:
    """A Redis of our own, on loopback, that writes nothing to disk; None (and a sentence) where there is none."""
    program = servers.program("redis-server")
    if program is None:
        results.problems.append("RQ and Celery were not measured: redis-server is not installed.")
        return None
    port = free_port()
    quiet = ["--save", "", "--appendonly", "no", "--dir", str(folder)]
    processes.start([str(program), "--port", str(port), "--bind", "127.0.0.1", *quiet])
    wait_until(lambda: listens(port), "Redis listens")
    return port


@dataclass
class Bench:
    """The servers of one run, and the measurements, each in a process and on a database of its own."""

    folder: Path
    results: tables.Results
    extent: Extent
    postgresql: str | None = None
    redis_port: int | None = None
    number: int = 0
    began: float = field(default_factory=time.monotonic)

    @property
    def kinds(self) -> tuple[str, ...]:
        return ("sqlite", "postgresql") if self.postgresql else ("sqlite",)

    def measure(self, groups: tuple[str, ...], systems: list[str]) -> None:
        """Everything on SQLite, then what is left on PostgreSQL: should the time run out, each kind has begun."""
        queues = {"starts": "start" in groups, "drained": "drained" in groups}
        if any(queues.values()):
            self._queues(systems, "sqlite", **queues)
        if "tick" in groups:
            self._ticks()
        if "memory" in groups:
            self._memory()
        if "downloads" in groups:
            self._downloads()
        if any(queues.values()) and self.postgresql:
            self._queues(systems, "postgresql", **queues)
        if "overdue" in groups:
            self._overdue()

    # Each kind of measure

    def _queues(self, systems: list[str], database: str, *, starts: bool, drained: bool) -> None:
        for name in systems:
            entry = SYSTEMS[name]
            if entry.only and database != entry.only:
                continue
            shown = name if database == "sqlite" else f"{name}_pg"
            for workers in (2, 4) if drained and name in self.extent.four_workers else (2,):
                figures = self._queue(name, entry, database, shown, workers, starts=starts, drained=drained)
                if figures:
                    self.results.add("start_ms", shown, figures["start_ms"])
                    self.results.add("query_ms", shown, figures["query_ms"])
                    row = shown if workers == 2 else f"{shown}_{workers}_workers"
                    self.results.add("drained_per_s", row, figures["drained_per_s"])

    def _queue(
        self, name: str, entry: Entry, database: str, shown: str, workers: int, *, starts: bool, drained: bool
    ) -> dict[str, list[float]] | None:
        extent = self.extent
        count = (extent.slow_starts if entry.slow else extent.starts) if starts and workers == 2 else 0
        numbers = {
            "--workers": workers,
            "--starts": count,
            "--drain": extent.slow_drain if entry.slow else extent.drain,
            "--rounds": extent.rounds if drained else 0,
        }
        given = [text for pair in numbers.items() for text in (pair[0], str(pair[1]))]
        if entry.kind.needs in {"rq", "celery"} and self.redis_port is None:
            return None
        return self._run(
            shown, ["queues", name, *given], database, BENCHMARK_PEERS=entry.apps, BENCHMARK_WORKERS=str(workers)
        )

    def _ticks(self) -> None:
        for name, most in self.extent.most_schedules.items():
            database = "postgresql" if name.endswith("_pg") else "sqlite"
            if database not in self.kinds:
                continue
            peers = "" if name.startswith("scheduler") else PEERS
            command = ["ticks", name.removesuffix("_pg"), "--most", str(most)]
            figures = self._run(f"ticks of {name}", command, database, BENCHMARK_PEERS=peers)
            for measure, rows in (figures or {}).items():
                for row, values in rows.items():
                    column = {"tick_ms": name, "after_save": f"{name}_after_a_save", "finished": f"{name}_and_runs"}
                    if measure in column:
                        self.results.add("tick_ms_by_name", column[measure], values, column=row)
                    else:
                        self.results.add(measure, name, values)

    def _memory(self) -> None:
        for database in self.kinds:
            suffix = "" if database == "sqlite" else "_pg"
            command = ["memory", "--seconds", str(self.extent.idle_seconds)]
            figures = self._run(f"memory{suffix}", command, database, BENCHMARK_WORKERS="8")
            for measure, rows in (figures or {}).items():
                for row, values in rows.items():
                    self.results.add(measure, row + suffix, values)

    def _downloads(self) -> None:
        if servers.program("nginx") is None:
            self.results.problems.append("Downloads were not measured: nginx is not installed.")
            return
        numbers = ["--seconds", str(self.extent.download_seconds), "--rounds", str(self.extent.download_rounds)]
        for database in self.kinds:
            suffix = "" if database == "sqlite" else "_pg"
            figures = self._run(
                f"downloads{suffix}",
                ["downloads", *numbers],
                database,
                SENDFILE_BACKEND="django_sendfile.backends.nginx",
                DJANGO_SECRET_KEY="only-for-benchmarks-" + "abcdefghijklmnopqrstuvwxyz0123456789" * 2,
            )
            for measure, rows in (figures or {}).items():
                for row, values in rows.items():
                    self.results.add(measure, row + suffix, values)

    def _overdue(self) -> None:
        for database in self.kinds:
            suffix = "" if database == "sqlite" else "_pg"
            for name in OVERDUE:
                command = ["overdue", name, "--seconds", str(self.extent.overdue_seconds)]
                figures = self._run(f"overdue {name}{suffix}", command, database)
                for measure, values in (figures or {}).items():
                    self.results.add(measure, name + suffix, values)

    # How they are started

    def _run(self, what: str, command: list[str], database: str, **variables: str) -> dict[str, Any] | None:
        """One measurement's figures; None, and a sentence in the results, when there are none."""
        self.number += 1
        folder = self.folder / f"measurement-{self.number}"
        folder.mkdir()
        folder.chmod(0o711)
        out = folder / "out.json"
        left = self.began + self.extent.all_seconds - time.monotonic()
        if left < LEAST_SECONDS:
            self.results.problems.append(f"{what} ({database}) was not measured: the time for a quick run is over.")
            return None
        say(f"{what} ({database}) …")
        try:
            with self._database(database, folder) as url:
                process = subprocess.Popen(
                    [PYTHON, "-m", "benchmarks.measure", "--out", out, *command],
                    env=self._environment(folder, url, **variables),
                    cwd=PROJECT,
                    stdin=subprocess.DEVNULL,
                )
                try:
                    process.wait(min(self.extent.measure_seconds, left))
                except subprocess.TimeoutExpired:
                    _let_end(process)
                except BaseException:
                    _let_end(process)
                    raise
            found = json.loads(out.read_text())
        except (OSError, ValueError, RuntimeError) as error:
            found = {"figures": {}, "problem": f"{type(error).__name__}: {error}"}
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if "problem" in found:
            self.results.problems.append(f"{what} ({database}) was not measured wholly: {found['problem']}")
            say(f"  {found['problem']}")
        figures: dict[str, Any] = found["figures"]
        return figures

    def migrate(self) -> None:
        """Make the databases that all measurements are copies of."""
        say("Making the databases …")
        template = self.folder / "template"
        template.mkdir()
        peers = {"sqlite": PEERS, "postgresql": f"{PEERS},procrastinate.contrib.django"}
        for kind in self.kinds:
            url = f"sqlite:///{template}/db.sqlite3" if kind == "sqlite" else self._named(self._create("template_db"))
            command = [str(PYTHON), str(PROJECT / "manage.py"), "migrate", "--verbosity", "0"]
            names = ",".join(name for name in peers[kind].split(",") if self._is_there(name))
            done = subprocess.run(
                command,
                env=self._environment(template, url, BENCHMARK_PEERS=names),
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                raise Unusable(f"The database cannot be made: {(done.stdout + done.stderr).strip().splitlines()[-1]}")

    def _is_there(self, module: str) -> bool:
        command = [str(PYTHON), "-c", f"import {module.split('.')[0]}"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    @contextlib.contextmanager
    def _database(self, kind: str, folder: Path) -> Iterator[str]:
        if kind == "sqlite":
            shutil.copyfile(self.folder / "template" / "db.sqlite3", folder / "db.sqlite3")
            yield f"sqlite:///{folder}/db.sqlite3"
            return
        name = self._create(f"measurement_{self.number}", "--template", "template_db")
        try:
            yield self._named(name)
        finally:
            self._postgresql_program("dropdb", "--force", name)

    def _create(self, name: str, *options: str) -> str:
        self._postgresql_program("createdb", *options, name)
        return name

    def _postgresql_program(self, program: str, *arguments: str) -> None:
        folder = servers.postgresql_folder()
        assert folder is not None
        assert self.postgresql is not None
        url = urlsplit(self.postgresql)
        command = [str(folder / program), "--host", unquote(url.netloc.partition("@")[2])]
        done = subprocess.run(
            [*command, "--username", "scheduler", *arguments], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program} failed: {done.stderr.strip()}")

    def _named(self, database: str) -> str:
        assert self.postgresql is not None
        return self.postgresql.rpartition("/")[0] + f"/{database}"

    def _environment(self, folder: Path, url: str, **variables: str) -> dict[str, str]:
        made = environment(
            DJANGO_SETTINGS_MODULE="benchmarks.settings",
            PYTHONPATH=str(PROJECT),
            DATABASE_URL=url,
            SCHEDULER_VAR=str(folder),
            BENCHMARK_REDIS_PORT=str(self.redis_port or 0),
        )
        for other in ("SCHEDULER_ROOT", "SCHEDULER_PROGRAM_ROOTS", "SCHEDULER_PROGRAM_USERS", "DJANGO_HTTPS"):
            made.pop(other, None)
        return {**made, **variables}


def _let_end(process: subprocess.Popen[bytes]) -> None:
    """Ask a measurement to end its workers and itself; only then is it killed."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
