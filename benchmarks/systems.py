"""The systems that are measured: how each is started, handed its tasks, and asked what it has finished."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from benchmarks.waiting import Processes, Unusable, wait_until

if TYPE_CHECKING:
    import subprocess

    from scheduler.models import Task

PROJECT = Path(__file__).resolve().parent.parent
MANAGE = [sys.executable, str(PROJECT / "manage.py")]


@dataclass
class System:
    """One system with its workers."""

    workers: int
    results: Path
    """The file to which each task appends its line."""
    processes: Processes
    needs: ClassVar[str] = ""
    """The module that has to be installed."""
    atomic: ClassVar[bool] = True
    """Whether ``put`` hands all over at once; otherwise the first are under way while the last are handed over."""

    def start(self) -> None:
        """Start the workers."""

    def put(self, count: int) -> None:
        """Hand over so many tasks."""
        raise NotImplementedError

    def finished(self) -> int:
        """How many are over since the start, by the system's own records."""
        raise NotImplementedError

    def confirm(self) -> None:
        """Raise Unusable when not all that is over went well."""


@dataclass
class Scheduler(System):
    """This project: a task of its own for each run, since a task is processed once at a time."""

    cold: ClassVar[bool] = False
    tasks: list[Task] = field(default_factory=list)

    def start(self) -> None:
        self.processes.start([*MANAGE, "poller"])
        self._make_tasks(1)
        from scheduler.models import Poller

        wait_until(lambda: Poller.objects.filter(ended_at=None).exists(), "the poller is up")

    def put(self, count: int) -> None:
        from django.db import transaction
        from django.utils import timezone

        self._make_tasks(count)
        with transaction.atomic():
            for task in self.tasks[:count]:
                task.start_now(by=None, now=timezone.now())

    def finished(self) -> int:
        from scheduler.models import Run

        return Run.objects.finished().count()

    def confirm(self) -> None:
        from scheduler.models import Run

        bad = Run.objects.finished().exclude(exit_code=0).first()
        if bad is not None:
            raise Unusable(f"A run did not complete: {bad.sentence}")

    def _make_tasks(self, count: int) -> None:
        from scheduler.models import Task

        program = {"program_root": "benchmarks", "program_path": "one_query.py", "arguments": [str(self.results)]}
        names = [f"task {number}" for number in range(len(self.tasks), count)]
        self.tasks += Task.objects.bulk_create(Task(name=name, cold_start=self.cold, **program) for name in names)


@dataclass
class ColdScheduler(Scheduler):
    cold: ClassVar[bool] = True


@dataclass
class Rq(System):
    needs: ClassVar[str] = "rq"

    def start(self) -> None:
        from benchmarks.peer_rq import queue

        self.queue = queue()
        self.queue.connection.flushall()
        for _ in range(self.workers):
            self.processes.start([sys.executable, "-m", "benchmarks.peer_rq"])

    def put(self, count: int) -> None:
        from rq import Queue

        from benchmarks.work import one_query

        data = [Queue.prepare_data(one_query, [str(self.results)]) for _ in range(count)]
        self.queue.enqueue_many(data)

    def finished(self) -> int:
        return int(self.queue.connection.zcard(self.queue.finished_job_registry.key))


@dataclass
class Celery(System):
    needs: ClassVar[str] = "celery"
    atomic: ClassVar[bool] = False
    options: ClassVar[tuple[str, ...]] = ("--max-tasks-per-child", "1")

    def start(self) -> None:
        from redis import Redis

        self.backend = Redis(port=int(os.environ["BENCHMARK_REDIS_PORT"]), db=1)
        self.backend.flushall()
        command = [sys.executable, "-m", "celery", "-A", "benchmarks.peer_celery", "worker", "--loglevel", "WARNING"]
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        self.processes.start([*command, *quiet, "--concurrency", str(self.workers), *self.options])

    def put(self, count: int) -> None:
        from benchmarks.peer_celery import one_query

        for _ in range(count):
            one_query.delay(str(self.results))

    def finished(self) -> int:
        return int(self.backend.dbsize())


@dataclass
class CeleryPrefork(Celery):
    options: ClassVar[tuple[str, ...]] = ()


@dataclass
class DjangoQ2(System):
    needs: ClassVar[str] = "django_q"

    def start(self) -> None:
        self.processes.start([*MANAGE, "qcluster"])

    def put(self, count: int) -> None:
        from django.db import transaction
        from django_q.tasks import async_task

        with transaction.atomic():
            for _ in range(count):
                async_task("benchmarks.work.one_query", str(self.results))

    def finished(self) -> int:
        from django_q.models import Success

        return int(Success.objects.count())


@dataclass
class Huey(System):
    needs: ClassVar[str] = "huey"
    atomic: ClassVar[bool] = False

    def start(self) -> None:
        kind = ["--workers", str(self.workers), "--worker-type", "process", "--quiet"]
        self.processes.start([sys.executable, "-m", "huey.bin.huey_consumer", "benchmarks.peer_huey.huey", *kind])

    def put(self, count: int) -> None:
        from benchmarks.peer_huey import one_query

        for _ in range(count):
            one_query(str(self.results))

    def finished(self) -> int:
        from benchmarks.peer_huey import huey

        return int(huey.result_count())


@dataclass
class Procrastinate(System):
    needs: ClassVar[str] = "procrastinate"

    def start(self) -> None:
        for _ in range(self.workers):
            self.processes.start([*MANAGE, "procrastinate", "worker", "--concurrency", "1"])

    def put(self, count: int) -> None:
        from benchmarks.tasks import one_query

        one_query.batch_defer(*({"path": str(self.results)} for _ in range(count)))

    def finished(self) -> int:
        from procrastinate.contrib.django.models import ProcrastinateJob

        return int(ProcrastinateJob.objects.filter(status="succeeded").count())


@dataclass
class Cron(System):
    """No queue at all: what a line of cron does, so many at a time."""

    running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    over: int = 0

    def put(self, count: int) -> None:
        for _ in range(count):
            while len(self.running) >= self.workers:
                self.finished()
                time.sleep(0.001)
            self.running.append(self.processes.start([*MANAGE, "one_query", str(self.results)]))

    def finished(self) -> int:
        for process in [each for each in self.running if each.poll() is not None]:
            self.running.remove(process)
            self.processes.started.remove(process)
            self.over += 1
        return self.over

    atomic: ClassVar[bool] = False


@dataclass(frozen=True)
class Entry:
    """A system as the tables name it."""

    kind: type[System]
    what: str
    isolated: bool = True
    apps: str = ""
    only: str = ""
    """The one database that it works with, if there is one."""
    slow: bool = False
    """Whether a task takes so long that fewer of them are enough."""


SYSTEMS: dict[str, Entry] = {
    "scheduler_warm": Entry(Scheduler, "this project, as it is set up by default"),
    "scheduler_cold": Entry(ColdScheduler, "this project, a task with a cold start", slow=True),
    "rq_fork": Entry(Rq, "RQ, a fork a job"),
    "celery_process_per_task": Entry(Celery, "Celery, Redis, a process a task", slow=True),
    "celery_prefork": Entry(CeleryPrefork, "Celery, Redis, prefork", isolated=False),
    "django_q2": Entry(DjangoQ2, "django-q2, ORM, recycle=1", apps="django_q", slow=True),
    "huey": Entry(Huey, "huey, SQLite queue, processes", isolated=False),
    "procrastinate": Entry(
        Procrastinate,
        "procrastinate, LISTEN/NOTIFY",
        isolated=False,
        apps="procrastinate.contrib.django",
        only="postgresql",
    ),
    "cron_manage_py": Entry(Cron, "manage.py command, as from cron", slow=True),
}


def demand(entry: Entry) -> None:
    """Raise Unusable when what the system needs is not installed."""
    if entry.kind.needs and importlib.util.find_spec(entry.kind.needs) is None:
        raise Unusable(f"{entry.kind.needs} is not installed.")
