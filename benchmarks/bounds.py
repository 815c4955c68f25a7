"""How much of everything: ``python -m benchmarks.bounds``, the most memory and the time of each case.

Each case has its own scratch folder and database, a real ``manage.py poller``, real supervisors, and gunicorn as in
production, with one worker so that its memory is that of one process. ``--share 0.01`` tries them with little.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import psutil

from benchmarks.systems import MANAGE
from benchmarks.waiting import Processes, free_port, listens, wait_until
from tests import servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from scheduler.models import Run, Task

MB = 1024**2
HOUR = 3600.0
MB_OF_A_PROGRAM = 16  # a sleeping one with its supervisor
OPEN_FILES = 1024  # what a service gets, and a shell
CSRF = "a" * 32
# name -> capacity of the poller
CASES = {"log": 2, "line": 2, "outputs": 2, "queue": 4, "queues": 4, "processes": 1000}


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the memory that much of everything needs.")
    parser.add_argument("--only", choices=CASES, help="one case; else all of them")
    parser.add_argument("--postgresql", action="store_true", help="on a scratch PostgreSQL, else on SQLite")
    parser.add_argument("--share", type=float, default=1.0, help="of what is tried: 0.01 is a hundredth")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # in the environment of a case
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    if options.here:
        return _measure(options.only, options.share)
    failed = [name for name in CASES if options.only in {None, name} and not _in_a_scratch_folder(name, options)]
    return 1 if failed else 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _in_a_scratch_folder(name: str, options: argparse.Namespace) -> bool:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="scheduler-bounds-"))
        variables = {
            "SCHEDULER_VAR": folder,
            "DJANGO_SETTINGS_MODULE": "benchmarks.settings",
            "DJANGO_DEBUG": "0",
            "BENCHMARK_WORKERS": str(max(int(CASES[name] * min(options.share * 10, 1)), 2)),
            "BENCHMARK_LOG_MB": "2048",
        }
        if options.postgresql:
            variables["DATABASE_URL"] = stack.enter_context(servers.postgresql())
        command = [sys.executable, "-m", "benchmarks.bounds", "--here", "--only", name, "--share", str(options.share)]
        # Its own working folder may be anything: the benchmarks are found as they were for this process.
        path = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
        # Not on the site's own database.
        kept = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
        with subprocess.Popen(command, env={**kept, **variables, "PYTHONPATH": path}) as case:
            try:
                return case.wait() == 0
            except KeyboardInterrupt:
                case.terminate()  # it ends what it has started
                raise


def _measure(name: str, share: float) -> int:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(OPEN_FILES, hard), hard))

    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    bench = Bench(Path(os.environ["SCHEDULER_VAR"]), share)
    print(f"\n{name}:", flush=True)
    try:
        bench.start()
        globals()[f"_{name}"](bench)
        bench.say_memory()
    finally:
        bench.end()
    return 0


# What is measured with


@dataclass
class Most:
    """The most memory that some processes had, looked at again and again; for those that end by themselves."""

    pids: Callable[[], list[int]]
    rss: float = 0.0
    pss: float = 0.0
    _is_over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Most:
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._is_over.wait(0.05):
            for pid in self.pids():
                self.rss = max(self.rss, _kilobytes(pid, "status", "VmHWM") / 1024)
                self.pss = max(self.pss, _kilobytes(pid, "smaps_rollup", "Pss") / 1024)


def _kilobytes(pid: int, file: str, name: str) -> int:
    """A line of a file of /proc; 0 when the process has ended."""
    with contextlib.suppress(OSError):
        found = re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{pid}/{file}").read_text(), re.MULTILINE)
        return int(found[1]) if found else 0
    return 0


def _processor_seconds(pid: int) -> float:
    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system)


class Bench:
    """A poller, a web process, and somebody who is signed in."""

    def __init__(self, folder: Path, share: float) -> None:
        self.folder = folder
        self.share = share
        self.processes = Processes(folder / "processes.log")
        self.supervisor = Most(list)

    def start(self) -> None:
        from importlib import import_module

        from django.conf import settings
        from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model

        from scheduler.models import Poller

        self.user = get_user_model().objects.create_superuser("admin")
        session = import_module(settings.SESSION_ENGINE).SessionStore()
        session[SESSION_KEY] = str(self.user.pk)
        session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
        session[HASH_SESSION_KEY] = self.user.get_session_auth_hash()
        session.create()
        self.cookie = f"{settings.SESSION_COOKIE_NAME}={session.session_key}; csrftoken={CSRF}"
        self.poller = self.processes.start([*MANAGE, "poller"]).pid
        self.port = free_port()
        kind = ["--worker-class", "gthread", "--workers", "1", "--threads", "8", "--no-control-socket"]
        web = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{self.port}", "--timeout", "600", *kind]
        gunicorn = self.processes.start([*web, "--log-level", "warning", "conf.wsgi"])
        wait_until(lambda: listens(self.port), "gunicorn listens")
        self.web = int(wait_until(lambda: psutil.Process(gunicorn.pid).children(), "its worker is up")[0].pid)
        wait_until(lambda: Poller.objects.filter(ended_at=None).exists(), "the poller is up")
        time.sleep(2)  # the warm process comes up
        self.ask("/scheduler/")  # what is loaded once

    def end(self) -> None:
        from scheduler.models import Run

        try:
            Run.objects.queued().delete()
            for run in Run.objects.processing():
                run.cancel(by=self.user, now=_now())
            wait_until(lambda: not Run.objects.processing().exists(), "all runs are over", seconds=120)
        finally:
            self.processes.end()

    # Tasks and runs

    def task(self, *arguments: object, **values: Any) -> Task:
        from scheduler.models import Task

        program = {"program_root": "benchmarks", "program_path": "much.py", "grace_seconds": 1}
        given = [str(argument) for argument in arguments]
        name = f"{' '.join(given)} #{Task.objects.count() + 1}"
        return Task.objects.create(name=name, owner=self.user, arguments=given, **program, **values)

    def run(self, task: Task) -> Run:
        """Run it until it is finished, and look at its supervisor meanwhile."""
        run = task.start_now(by=self.user, now=_now())
        with Most(lambda: supervisors([run])) as most, self.timed(f"{task.name}: from Run now until it is finished"):
            wait_until(lambda: _fresh(run).is_finished, "it is finished", pause=0.05, seconds=HOUR)
        self.supervisor.rss = max(self.supervisor.rss, most.rss)
        self.supervisor.pss = max(self.supervisor.pss, most.pss)
        return _fresh(run)

    # The web process

    def ask(self, path: str, name: str = "", form: list[tuple[str, object]] | None = None) -> str:
        """A page, or how many MB it had if it was a download; a form is sent by POST."""
        connection = http.client.HTTPConnection("localhost", self.port, timeout=HOUR)
        headers = {"Cookie": self.cookie}
        body = None
        if form is not None:
            body = urlencode([*form, ("csrfmiddlewaretoken", CSRF)])
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        begin, before = time.perf_counter(), _processor_seconds(self.web)
        connection.request("GET" if form is None else "POST", path, body, headers)
        answer = connection.getresponse()
        text, size = b"", 0
        while chunk := answer.read(MB):
            size += len(chunk)
            text = text + chunk if size < 8 * MB else b""
        took = time.perf_counter() - begin
        connection.close()
        if answer.status not in {200, 302}:
            raise SystemExit(f"{path} was answered with {answer.status}.")
        if name:
            used = _in_words(_processor_seconds(self.web) - before)
            self.say(f"{name}: {_in_words(took)} ({used} of processor), {size / 1024:,.0f} KB")
        return text.decode(errors="replace")

    # What is said

    def say(self, text: str) -> None:
        print(f"  {text}", flush=True)

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        begin = time.monotonic()
        yield
        self.say(f"{what}: {_in_words(time.monotonic() - begin)}")

    def busy(self, seconds: float) -> None:
        """How much of a core the poller takes."""
        before = _processor_seconds(self.poller)
        time.sleep(seconds)
        self.say(f"the poller takes {(_processor_seconds(self.poller) - before) / seconds * 100:.0f} % of a core")

    def say_memory(self) -> None:
        poller, web = (_kilobytes(pid, "status", "VmHWM") / 1024 for pid in (self.poller, self.web))
        self.say(f"most memory of the poller {poller:.0f} MB, of the web process {web:.0f} MB")
        if self.supervisor.rss:
            self.say(f"most memory of a supervisor {self.supervisor.rss:.0f} MB, PSS {self.supervisor.pss:.0f} MB")
        log = self.processes.log.read_text(errors="replace")
        for line in [line for line in log.splitlines() if "Traceback" in line or "Error" in line][:5]:
            self.say(f"in the log: {line}")


def supervisors(runs: list[Run]) -> list[int]:
    from scheduler import outputs
    from scheduler.supervisor import folder as protocol

    found = [outputs.run_folder(run.uuid).read(protocol.STARTED) for run in runs]
    return [int(started["pid"]) for started in found if started]


def _fresh(run: Run) -> Run:
    from scheduler.models import Run

    return Run.objects.select_related("task").get(pk=run.pk)


def _now() -> Any:
    from django.utils import timezone

    return timezone.now()


def _in_words(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


# The cases


def _log(bench: Bench) -> None:
    """A program that writes 1 GB of log, with and without a limit that it reaches."""
    size = int(1024 * MB * bench.share)
    limited = bench.run(bench.task("log", size, log_mb=max(int(256 * bench.share), 1)))
    bench.say(f"with the default limit: {_log_size(limited):,} bytes are kept. {limited.sentence}")
    run = bench.run(bench.task("log", size))
    bench.say(f"with a higher limit: {_log_size(run):,} bytes are kept. {run.sentence}")
    page = run.get_absolute_url()
    bench.ask(page, "page, the end")
    bench.ask(f"{page}?at=50%25", "page, the middle")
    bench.ask(f"{page}?error=0", "the first error, first step")
    _search(bench, f"{page}?find=there+is+no+such+text")
    bench.ask(f"{page}log/?offset={size // 2}", "JSON")
    bench.ask(f"{page}log/download/", "download")


def _log_size(run: Run) -> int:
    from scheduler import outputs

    return outputs.log_path(run).stat().st_size


def _search(bench: Bench, address: str | None) -> None:
    begin, steps = time.monotonic(), 0
    while address:
        on = re.search(r'href="([^"#]*)#log" id="log-go-on"', bench.ask(address))
        address, steps = unescape(on[1]) if on else None, steps + 1
    bench.say(f"a search for what is not there: {_in_words(time.monotonic() - begin)} in {steps} steps")


def _line(bench: Bench) -> None:
    """A line of 100 MB in the log, full of colours, and a message of 100 MB."""
    size = int(100 * MB * bench.share)
    run = bench.run(bench.task("line", size))
    bench.say(f"{_log_size(run):,} bytes are kept. {run.sentence}")
    page = run.get_absolute_url()
    bench.ask(page, "page, the end")
    bench.ask(f"{page}?at=50%25", "page, the middle")
    bench.ask(f"{page}log/?offset={size // 2}", "JSON")
    _search(bench, f"{page}?find=there+is+no+such+text")
    bench.ask(f"/admin/scheduler/run/{run.pk}/change/", "admin")


def _outputs(bench: Bench) -> None:
    """10,000 files of one run, whose names are cut to the same."""
    from scheduler import outputs
    from scheduler.models import Archive

    run = bench.run(bench.task("files", max(int(10_000 * bench.share), 5)))
    bench.say(f"{run.files.count():,} files are kept. {run.sentence}")
    page = run.get_absolute_url()
    bench.ask("/scheduler/", "main page")
    bench.ask(page, "page")
    bench.ask(f"{page}?files=100", "page, its files from 5,000 on")
    bench.ask(f"/admin/scheduler/run/{run.pk}/change/", "admin")
    bench.ask(f"{page}archive/", form=[])
    with bench.timed("a ZIP of all"):
        wait_until(lambda: Archive.objects.filter(run=run, file__isnull=False).exists(), "it is built", seconds=HOUR)
    bench.ask(f"{page}delete/", "deleted", form=[])
    with bench.timed("its files are gone"):
        wait_until(lambda: not outputs.store_folder(run.uuid).exists(), "they are removed", seconds=HOUR)


def _queue(bench: Bench) -> None:
    """100,000 runs that wait for one task, which runs one at a time."""
    _wait_and_cancel(bench, 1)


def _queues(bench: Bench) -> None:
    """100,000 runs that wait for 1,000 tasks."""
    _wait_and_cancel(bench, max(int(1_000 * bench.share), 2))


def _wait_and_cancel(bench: Bench, tasks: int) -> None:
    from scheduler.models import Run

    count = max(int(100_000 * bench.share), 20)
    first = [bench.task("nothing", 0, number) for number in range(tasks)]
    by_hand = min(1_000, count // 2)
    with bench.timed(f"{by_hand:,} runs are queued by hand"):
        for number in range(by_hand):
            first[number % tasks].start_now(by=bench.user, now=_now())
    _fill(bench, first, count - by_hand)
    bench.say(f"{Run.objects.queued().count():,} wait")
    before, begin = Run.objects.finished().count(), time.monotonic()
    bench.busy(max(20 * bench.share, 2))
    done = Run.objects.finished().count() - before
    bench.say(f"{done / (time.monotonic() - begin):.0f} of them run a second")
    bench.ask("/scheduler/", "main page")
    bench.ask("/scheduler/?status=queued", "main page, what waits")
    bench.ask("/admin/scheduler/run/?status__exact=queued", "admin")
    bench.ask(f"/scheduler/tasks/{first[0].pk}/", "task page")
    rounds = 0
    with bench.timed("all are cancelled in the admin"):
        while (pk := Run.objects.queued().values_list("pk", flat=True).first()) is not None:
            everything = [("action", "stop"), ("index", "0"), ("select_across", "1"), ("_selected_action", pk)]
            bench.ask("/admin/scheduler/run/?status__exact=queued", form=everything)
            rounds += 1
    bench.say(f"that took {rounds} times")
    wait_until(lambda: not Run.objects.unfinished().exists(), "nothing is left", seconds=HOUR)


def _fill(bench: Bench, tasks: list[Task], count: int) -> None:
    """Further runs like those that were queued by hand, by SQL: that is not what is measured."""
    from benchmarks.ticks import UUIDS, analyse, building, multiply
    from scheduler.models import Run, RunEvent

    now = _now()
    run = Run(pk=0, task=tasks[0], arguments=tasks[0].arguments, due_at=now, ready_at=now, queued_at=now)
    run.trigger, run.requested_by, run.requested_by_name = Run.Trigger.MANUAL, bench.user, bench.user.get_username()
    first = 1_000_000
    task = f"{tasks[0].pk} + number % {len(tasks)}"
    with building():
        multiply(run, first, first + count - 1, {"id": "number", "task_id": task, "uuid": UUIDS})
        event = RunEvent(pk=0, run_id=0, what=RunEvent.What.QUEUED, at=now)
        multiply(event, first, first + count - 1, {"id": "number", "run_id": "number"})
    analyse()


def _processes(bench: Bench) -> None:
    """1,000 programs at once, that sleep."""
    from scheduler.models import Run
    from scheduler.supervisor.processes import descendants, everything

    count = max(int(1_000 * bench.share), 2)
    if (room := psutil.virtual_memory().available // MB // MB_OF_A_PROGRAM) < count:
        bench.say(f"this machine has memory for {room}")
        count = room
    task = bench.task("sleep", 3600, max_runs=count)
    runs = []
    with bench.timed(f"{count:,} are started"):
        for _ in range(count):
            runs.append(task.start_now(by=bench.user, now=_now()))
        wait_until(
            lambda: Run.objects.processing().exclude(started_at=None).count() == count,
            "all run",
            pause=0.2,
            seconds=HOUR,
        )
    pids = supervisors(runs)
    all_processes = everything()
    below = [process.pid for pid in pids for process in descendants(pid, all_processes)]
    bench.supervisor.rss = max(_kilobytes(pid, "status", "VmHWM") for pid in pids) / 1024
    bench.supervisor.pss = sum(_kilobytes(pid, "smaps_rollup", "Pss") for pid in pids) / 1024 / count
    programs = sum(_kilobytes(pid, "smaps_rollup", "Pss") for pid in below) / 1024
    bench.say(f"all supervisors {bench.supervisor.pss * count:,.0f} MB, all programs {programs:,.0f} MB (PSS)")
    bench.say(f"the poller has {len(list(Path(f'/proc/{bench.poller}/fd').iterdir()))} open files, of {OPEN_FILES}")
    bench.busy(max(20 * bench.share, 2))
    bench.ask("/scheduler/", "main page")
    bench.ask("/admin/scheduler/run/?status__exact=processing", "admin")
    ids = [run.pk for run in runs]
    with bench.timed("all are stopped and finished"):
        for begin in range(0, count, 200):
            chosen = [("_selected_action", pk) for pk in ids[begin : begin + 200]]
            bench.ask("/admin/scheduler/run/", form=[("action", "stop"), ("index", "0"), *chosen])
        wait_until(lambda: not Run.objects.unfinished().exists(), "all are over", pause=0.2, seconds=HOUR)
    statuses = {run.status for run in Run.objects.all()}
    bench.say(f"they are {', '.join(sorted(statuses))}")


if __name__ == "__main__":
    sys.exit(main())
