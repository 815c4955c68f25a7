"""The soak: runs started at random and killed at random, then the invariants checked from what the programs wrote.

The truth is in one file, to which every program appends a line when it starts and just before it ends, and in the
soak's own list of whom it has killed or asked to stop. What the rows say is compared with that:

lost
    a run of which the scheduler has no true answer: its row is gone or never finished, or says "lost" although its
    supervisor was not killed by the soak; and a slot that came due and is covered by no row. ("lost" of a run whose
    supervisor was killed is the truth: nobody saw its end.)
twice
    a program that was started twice; a slot that is covered by two rows.
wrong status
    a row that says anything else than what happened: an exit code that the program did not end with, or not the one
    that it did end with; a signal, a stop or a time limit that was not; a finished status while a process of the run
    lives; a collected file that is missing.
processes left
    processes of this soak that live when all is over, whatever started them.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING

from django.utils import timezone

from scheduler import outputs
from scheduler.models import Recurrence, Run, Schedule, Task
from scheduler.states import Reason, Status
from scheduler.supervisor import folder as protocol
from scheduler.supervisor import processes

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from django.contrib.auth.models import User

    from scheduler.supervisor.folder import RunFolder
    from scheduler.supervisor.processes import Process

PROJECT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 90.0
AT_ONCE = 16
CAPACITY = 8
POLLERS = 2
FILES = 3
TASKS_OF_A_KIND = 3
LOOK_EVERY_SECONDS = 0.03

PROGRAM = f"""
import os, signal, sys, time

kind, run = sys.argv[1], os.environ["SCHEDULER_RUN"]
events = os.open(os.environ["FOLDER"] + "/events", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

def say(what, detail):
    os.write(events, f"{{run}} {{what}} {{detail}}\\n".encode())

def me():
    with open("/proc/self/stat", "rb") as stat:
        return f"{{os.getpid()}}:{{stat.read().rpartition(b') ')[2].split()[19].decode()}}"

def end(code):
    say("exit", code)
    sys.exit(code)

say("start", me())
if kind == "failing":
    end(3)
elif kind == "raising":
    say("exit", 1)
    raise ValueError("as it should")
elif kind == "writing":
    for number in range({FILES}):
        with open(os.path.join(os.environ["SCHEDULER_OUTPUT"], f"{{number}}.txt"), "w") as file:
            file.write(run * 100)
    for _ in range(2000):
        print(run)
elif kind in ("forking", "daemon"):
    if os.fork() == 0:
        os.setsid()
        if kind == "daemon" and os.fork():
            os._exit(0)
        say("child", me())
        time.sleep(300)
        os._exit(0)
elif kind == "sleeping":
    time.sleep(int(run[:4], 16) / 65536 * 2)
elif kind in ("waiting", "stubborn", "overdue"):
    if kind == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(300)
end(0)
"""
# kind -> how often; those of the last three would never end by themselves
KINDS = {
    "quick": 6,
    "failing": 3,
    "raising": 1,
    "writing": 4,
    "forking": 2,
    "daemon": 2,
    "sleeping": 6,
    "overdue": 1,
    "waiting": 2,
    "stubborn": 1,
}
TO_BE_STOPPED = {"waiting", "stubborn"}
# what is killed -> how often
VICTIMS = {
    "supervisor": 4,
    "task": 4,
    "poller": 2,
    "warm process": 2,
    "poller and supervisor": 1,
    "both pollers": 1,
    "poller asked to end": 1,
    "poller stopped for a while": 1,
}


@dataclass(slots=True)
class Told:
    """What the programs of one run wrote."""

    starts: int = 0
    exit_code: int | None = None
    processes: list[tuple[int, int]] = field(default_factory=list)


@dataclass(slots=True)
class Result:
    runs: int = 0
    lost: int = 0
    twice: int = 0
    wrong: int = 0
    left: int = 0
    remarks: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.twice or self.wrong or self.left)

    def __str__(self) -> str:
        return (
            f"soak: {self.runs} runs, {self.lost} lost, {self.twice} twice, {self.wrong} wrong status, "
            f"{self.left} processes left"
        )


class Soak:
    """One soak in a folder of its own, whose root and program folder the environment names (see tests/soak.py)."""

    def __init__(self, folder: Path, owner: User, *, runs: int, seed: int, say: Callable[[str], object]) -> None:
        self.folder = folder
        self.owner = owner
        self.goal = runs
        self.chance = random.Random(seed)
        self.say = say
        self.result = Result()
        self.told: dict[str, Told] = {}
        self.done_to: dict[str, set[str]] = {}
        self.open: dict[int, str] = {}  # manual runs that are not finished: row -> uuid
        self.stop_at: dict[int, float] = {}
        self.kills: Counter[str] = Counter()
        self.longest_seconds = 0.0
        self._events_offset = 0
        self._pollers: list[subprocess.Popen[bytes]] = []
        self._resume: list[Timer] = []
        self._log = (folder / "pollers.log").open("ab")

    def run(self) -> Result:
        """All of it; pollers are ended whatever happens."""
        tasks, schedules = self._make_tasks(), self._make_schedules()
        begin = timezone.now()
        try:
            self._start_and_kill(tasks)
            self._wait_for_the_rest()
            end = self._stop_schedules(schedules)
            self._wait_for_the_rest()
        finally:
            self._end_pollers()
        self._judge(schedules, begin, end)
        self._count_what_is_left()
        killed = ", ".join(f"{what} {count}" for what, count in sorted(self.kills.items()))
        self.result.remarks.append(f"killed: {killed or 'nothing'}")
        self.result.remarks.append(f"longest from a run's end to its row: {self.longest_seconds:.1f} s")
        return self.result

    # Before

    def _make_tasks(self) -> dict[str, list[Task]]:
        """Tasks of each kind, plain and Django ones: a task does not overlap itself, so there are several."""
        (self.folder / "programs" / "soak.py").write_text(PROGRAM)
        return {kind: [self._make_task(kind, number) for number in range(TASKS_OF_A_KIND)] for kind in KINDS}

    def _make_task(self, kind: str, number: int) -> Task:
        return Task.objects.create(
            name=f"{kind} {number}",
            owner=self.owner,
            program_root="programs",
            program_path="soak.py",
            arguments=[kind.partition(" ")[0]],
            environment=Task.Environment.PLAIN if number % 2 else Task.Environment.DJANGO,
            timeout_seconds=1 if kind == "overdue" else None,
            grace_seconds=1,
        )

    def _make_schedules(self) -> list[Schedule]:
        """One for every ten seconds of a minute, so that slots come due in a short soak too."""
        rule = Recurrence.objects.create(name="each minute", kind="every", every=1, unit="minutes")
        schedules = []
        for number in range(6):
            task = self._make_task("quick by schedule", number)
            anchor = timezone.now() - timedelta(seconds=60 - 10 * number - 2)
            schedules.append(Schedule.objects.create(task=task, recurrence=rule, anchor=anchor, time_zone="UTC"))
            schedules[-1].plan(timezone.now())
        return schedules

    # While

    def _start_and_kill(self, tasks: dict[str, list[Task]]) -> None:
        started, next_kill, next_word = 0, 1, 500
        progress, deadline = (0, 0), time.monotonic() + PATIENCE_SECONDS
        while started < self.goal and time.monotonic() < deadline:
            if progress != (started, len(self.open)):
                progress, deadline = (started, len(self.open)), time.monotonic() + PATIENCE_SECONDS
            self._keep_pollers()
            for _ in range(min(self.goal - started, AT_ONCE - len(self.open))):
                if self.chance.random() < 0.3:
                    break
                self._start(tasks)
                started += 1
            # By what was done and not by the clock: on a slow machine pollers would be killed before they are up.
            if started - len(self.open) >= next_kill:
                self._kill_somebody()
                next_kill += self.chance.randint(1, 4)
            self._look()
            if started >= next_word:
                self.say(f"soak: {started} runs started")
                next_word += 500
            time.sleep(LOOK_EVERY_SECONDS)

    def _start(self, tasks: dict[str, list[Task]]) -> None:
        kind = self.chance.choices(list(KINDS), list(KINDS.values()))[0]
        run = self.chance.choice(tasks[kind]).start_now(by=self.owner, now=timezone.now())
        self.open[run.pk] = str(run.uuid)
        if kind in TO_BE_STOPPED or self.chance.random() < 0.05:
            self.stop_at[run.pk] = time.monotonic() + self.chance.uniform(0, 2)

    def _look(self) -> None:
        """What has ended since the last look; and stop what is to be stopped."""
        for run in Run.objects.finished().filter(pk__in=list(self.open)):
            self._read_events()
            told = self.told.get(str(run.uuid), Told())
            if any(processes.is_alive(*process) for process in told.processes):
                self._wrong(run, "is finished, and a process of it lives")
            if run.finished_at is not None:
                self.longest_seconds = max(self.longest_seconds, (timezone.now() - run.finished_at).total_seconds())
            del self.open[run.pk]
            self.stop_at.pop(run.pk, None)
        for pk, instant in list(self.stop_at.items()):
            if time.monotonic() >= instant:
                del self.stop_at[pk]
                self._note(self.open[pk], "stop")
                Run.objects.get(pk=pk).cancel(by=self.owner, now=timezone.now())

    def _wait_for_the_rest(self) -> None:
        """Nobody is killed any more: everything comes to its end, or is lost."""
        deadline, unfinished = time.monotonic() + PATIENCE_SECONDS, -1
        while self.open or Run.objects.processing().exists() or Run.objects.ready(timezone.now()).exists():
            self._keep_pollers()
            self._look()
            left = Run.objects.unfinished().count()
            if left != unfinished:
                deadline, unfinished = time.monotonic() + PATIENCE_SECONDS, left
            if time.monotonic() >= deadline:
                return
            time.sleep(LOOK_EVERY_SECONDS)

    def _stop_schedules(self, schedules: list[Schedule]) -> datetime:
        """The instant up to which their slots must be covered."""
        now = timezone.now()
        for schedule in schedules:
            schedule.refresh_from_db()
            schedule.ends_at = now
            schedule.save()
            schedule.plan(now)
        return now

    # Whom it kills

    def _keep_pollers(self) -> None:
        self._pollers = [poller for poller in self._pollers if poller.poll() is None]
        while len(self._pollers) < POLLERS:
            self._pollers.append(
                subprocess.Popen(
                    [sys.executable, str(PROJECT / "manage.py"), "poller"],
                    cwd=self.folder,
                    env={
                        **os.environ,
                        "DJANGO_SETTINGS_MODULE": "tests.faults.settings",
                        "SCHEDULER_TESTS_MORE": json.dumps({"CAPACITY": CAPACITY}),
                    },
                    stdin=subprocess.DEVNULL,
                    stdout=self._log,
                    stderr=self._log,
                )
            )

    def _kill_somebody(self) -> None:
        victim = self.chance.choices(list(VICTIMS), list(VICTIMS.values()))[0]
        poller = _process(self.chance.choice(self._pollers).pid)
        match victim:
            case "supervisor" | "task":
                killed = self._kill_of_a_run(victim)
            case "poller and supervisor":
                killed = self._kill_of_a_run("supervisor") + processes.send(signal.SIGKILL, poller)
            case "poller":
                killed = processes.send(signal.SIGKILL, poller)
            case "both pollers":
                everybody = [process for each in self._pollers for process in _process(each.pid)]
                killed = processes.send(signal.SIGKILL, everybody)
            case "poller asked to end":
                killed = processes.send(signal.SIGTERM, poller)
            case "poller stopped for a while":
                killed = processes.send(signal.SIGSTOP, poller)
                # By a thread: it may hold the lock of the database that this one waits for.
                self._resume.append(Timer(self.chance.uniform(1, 4), processes.send, [signal.SIGCONT, poller]))
                self._resume[-1].start()
            case _:
                killed = processes.send(signal.SIGKILL, [each for one in poller for each in _warm_processes(one.pid)])
        self.kills[victim] += bool(killed)

    def _kill_of_a_run(self, what: str) -> int:
        """Kill the supervisor or the program of a run that has one; what was done is noted beforehand.

        A supervisor may go on to another run between the choice and the kill: it is stopped while that is looked at.
        """
        name = protocol.STARTED if what == "supervisor" else protocol.TASK
        folders = outputs.run_uuids_with_folders()
        self.chance.shuffle(folders)
        for run_uuid in folders:
            folder = outputs.run_folder(run_uuid)
            known = folder.read(name)
            living = _process(known["pid"], known["start_ticks"]) if known else []
            if living and (what == "task" or _is_stopped_with(folder, living)):
                self._note(str(run_uuid), what)
                return processes.send(signal.SIGKILL, living)
        return 0

    def _note(self, run: str, what: str) -> None:
        self.done_to.setdefault(run, set()).add(what)

    def _end_pollers(self) -> None:
        for timer in self._resume:
            timer.join()
        for poller in self._pollers:
            poller.terminate()
        for poller in self._pollers:
            try:
                poller.wait(30)
            except subprocess.TimeoutExpired:
                self._remark(f"poller {poller.pid} did not end when it was asked to")
                self.result.left += 1
                poller.kill()
                poller.wait()
        self._log.close()

    # After

    def _read_events(self) -> None:
        path = self.folder / "events"
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._events_offset)
            data = file.read()
        data = data[: data.rfind(b"\n") + 1]
        self._events_offset += len(data)
        for line in data.decode().splitlines():
            words = line.split()
            if len(words) != 3:
                self._remark(f"a program wrote {line!r} where it should not")
                self.result.wrong += 1
                continue
            run, what, detail = words
            told = self.told.setdefault(run, Told())
            if what == "exit":
                told.exit_code = int(detail)
                continue
            told.starts += what == "start"
            pid, ticks = detail.split(":")
            told.processes.append((int(pid), int(ticks)))

    def _judge(self, schedules: list[Schedule], begin: datetime, end: datetime) -> None:
        self._read_events()
        runs = {str(run.uuid): run for run in Run.objects.select_related("task")}
        self.result.runs = len(runs)
        for gone in self.told.keys() - runs.keys():
            self._remark(f"run {gone}: there is no row of it")
            self.result.lost += 1
        manual = sum(run.trigger == Run.Trigger.MANUAL for run in runs.values())
        if manual != self.goal:
            self._remark(f"{manual} rows of {self.goal} runs")
            self.result.lost += abs(self.goal - manual)
        for name, run in runs.items():
            told = self.told.get(name, Told())
            if told.starts > 1:
                self._remark(f"run {run.pk} ({run.task}): started {told.starts} times")
                self.result.twice += 1
            self._judge_status(run, told, self.done_to.get(name, set()))
        for schedule in schedules:
            self._judge_slots(schedule, begin, end)

    def _judge_status(self, run: Run, told: Told, done: set[str]) -> None:
        kind = run.task.name.partition(" ")[0]
        match run.reason:
            case "":
                is_true = False
            case Reason.EXIT_CODE:
                status = Status.FAILED if run.exit_code else Status.COMPLETED
                is_true = run.exit_code == told.exit_code and run.status == status and told.starts == 1
            case Reason.SIGNAL:
                is_true = "task" in done and run.signal == signal.SIGKILL and run.status == Status.FAILED
            case Reason.LOST:
                is_true = "supervisor" in done and run.status == Status.FAILED
            case Reason.STOPPED_BY_USER:
                is_true = "stop" in done and run.status == Status.CANCELLED
            case Reason.TIMED_OUT:
                is_true = kind == "overdue" and run.status == Status.FAILED
            case Reason.OVERLAP | Reason.CATCH_UP:
                is_true = run.schedule is not None and run.status == Status.SKIPPED and not told.starts
            case _:
                is_true = False  # a launch error, for instance: nothing stands in the way of these programs
        if not is_true and run.reason in {"", Reason.LOST}:
            self._remark(f"run {run.pk} ({run.task}): {run.status} {run.reason}, {run.detail}; {told}, {done}")
            self.result.lost += 1
        elif not is_true:
            self._wrong(run, f"{run.status} {run.reason}, {run.exit_code}, {run.detail}; in truth {told}, {done}")
        elif kind == "writing" and run.reason == Reason.EXIT_CODE:
            sizes = [outputs.file_path(file).stat().st_size for file in run.files.select_related("run")]
            if sizes != [3600] * FILES:
                self._wrong(run, f"its files have the sizes {sizes}")

    def _judge_slots(self, schedule: Schedule, begin: datetime, end: datetime) -> None:
        """Every slot that came due is covered by exactly one row."""
        spans = [(run.slot_at, run.slot_until or run.slot_at) for run in schedule.runs.all()]
        slot = schedule.next_slot(begin)
        while slot is not None and slot <= end:
            covered = sum(first <= slot <= last for first, last in spans if first is not None and last is not None)
            if covered != 1:
                self._remark(f"slot {slot} of schedule {schedule.pk} is covered by {covered} rows")
                self.result.lost += covered == 0
                self.result.twice += covered > 1
            slot = schedule.next_slot(slot)

    def _count_what_is_left(self) -> None:
        """Processes that carry this soak's folder in their environment, or that a program named; and end them."""
        deadline = time.monotonic() + 10
        while left := self._what_is_left():
            if time.monotonic() >= deadline:
                break
            time.sleep(LOOK_EVERY_SECONDS)
        for process in left:
            self._remark(f"process {process.pid} is left: {_command(process.pid).decode(errors='replace')}")
        self.result.left += len(left)
        processes.send(signal.SIGKILL, left)

    def _what_is_left(self) -> list[Process]:
        named = {process for told in self.told.values() for process in told.processes}
        mark = os.fsencode(f"{self.folder}/")
        return [
            process
            for process in processes.everything().values()
            if process.pid != os.getpid()
            and ((process.pid, process.start_ticks) in named or mark in _environment(process.pid))
            and process.pid not in _ancestors()
        ]

    def _wrong(self, run: Run, what: str) -> None:
        self._remark(f"run {run.pk} ({run.task}): {what}")
        self.result.wrong += 1

    def _remark(self, text: str) -> None:
        self.result.remarks.append(text)


def _process(pid: int, start_ticks: int | None = None) -> list[Process]:
    """The living process of this pid (and start), or nothing."""
    process = processes.look_at(pid)
    if process is None or process.is_zombie or start_ticks not in {None, process.start_ticks}:
        return []
    return [process]


def _is_stopped_with(folder: RunFolder, supervisor: list[Process]) -> bool:
    """Stop a supervisor; whether it has this run then. If not, it goes on."""
    processes.send(signal.SIGSTOP, supervisor)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not all(_is_stopped(each.pid) for each in supervisor) and time.monotonic() < deadline:
        time.sleep(0.001)
    if folder.lock_holder() in {each.pid for each in supervisor}:
        return True
    processes.send(signal.SIGCONT, supervisor)
    return False


def _is_stopped(pid: int) -> bool:
    """Whether it is stopped, or has ended."""
    return _read(f"/proc/{pid}/stat").rpartition(b") ")[2][:1] in {b"T", b"Z", b"X", b""}


def _warm_processes(poller: int) -> list[Process]:
    return [
        process
        for process in processes.everything().values()
        if process.parent == poller and b"scheduler.executors.warm" in _command(process.pid)
    ]


def _ancestors() -> set[int]:
    """This process and those above it, which may name the folder in their environment too."""
    found, pid = set(), os.getpid()
    while pid and (process := processes.look_at(pid)) is not None:
        found.add(pid)
        pid = process.parent
    return found


def _command(pid: int) -> bytes:
    return _read(f"/proc/{pid}/cmdline").replace(b"\0", b" ")


def _environment(pid: int) -> bytes:
    return _read(f"/proc/{pid}/environ").replace(b"\0", b"/\0") + b"/"


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""
