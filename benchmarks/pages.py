"""What the pages cost with many runs: ``python -m benchmarks.pages`` (needs PostgreSQL).

Fills a scratch PostgreSQL with a million runs of ten thousand tasks, asks for each page as each viewer, and prints the
milliseconds of server time and the number of queries. No test looks at a time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tests import servers

if TYPE_CHECKING:
    from django.contrib.auth.models import User

BUSY = 100  # tasks that have half of all runs
IN_PROGRESS = 16
SECONDS_BETWEEN_ENDS = 30
VIEWERS = (1, 200, 5_000)
FIRST = 1_000_000  # ids of tasks and schedules


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the pages with many runs, on a scratch PostgreSQL.")
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=15, help="how often each page is asked for; the median counts")
    parser.add_argument("--only", default="", help="only pages with this in their name")
    parser.add_argument("--database", help="the URL of an empty database, or of one that was filled like this before")
    parser.add_argument("--sql", action="store_true", help="also print each page's slowest queries")
    options = parser.parse_args()
    with ExitStack() as stack:
        os.environ["DATABASE_URL"] = options.database or stack.enter_context(servers.postgresql())
        os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"

        import django
        from django.core.management import call_command
        from django.db import connection, transaction

        django.setup()
        call_command("migrate", verbosity=0)
        begin = time.perf_counter()
        with transaction.atomic():
            filled = _fill(options.runs, options.tasks, datetime.now(UTC))
        if filled:
            print(f"{options.runs:,} runs of {options.tasks:,} tasks made in {time.perf_counter() - begin:.0f} s.\n")
        _report(options)
        connection.close()
    return 0


# The rows


def _fill(runs: int, tasks: int, now: datetime) -> bool:
    """False when the database is filled already; then the clock of the rows is brought up to now."""
    from django.contrib.auth.models import Group, User

    from benchmarks.ticks import UUIDS, analyse, multiply
    from scheduler.models import OutputFile, Poller, ProcessSample, Recurrence, Run, RunEvent, Schedule, Task

    if User.objects.exists():
        Poller.objects.update(seen_at=now + timedelta(hours=1))
        return False
    User.objects.create_superuser("admin")
    owners = [User.objects.create_user(f"owner {number}") for number in range(50)]
    daily = Recurrence.objects.create(name="daily", kind="every", every=1, unit="days")
    host = uuid4()
    Poller.objects.create(
        host=host, host_name="here", pid=1, boot_id="", start_ticks=1, version="0", capacity=IN_PROGRESS,
        started_at=now, seen_at=now + timedelta(hours=1),
    )  # fmt: skip
    task = Task(name="", owner=owners[0], program_root="benchmarks", program_path="one_query.py")
    task.created_at = task.updated_at = now
    owner = f"{owners[0].pk} + mod(number, {len(owners)})"
    multiply(task, FIRST, FIRST + tasks - 1, {"id": "number", "name": "'task ' || number", "owner_id": owner})
    schedule = Schedule(recurrence=daily, anchor=now, time_zone="UTC")
    multiply(schedule, FIRST, FIRST + tasks - 1, {"id": "number", "task_id": "number"})
    of_busy = f"{FIRST} + mod(number / 2, {BUSY})"
    of_others = f"{FIRST + BUSY} + mod(number / 2, {tasks - BUSY})"
    ended = f"timestamptz '{now.isoformat()}' - ({runs} - number) * interval '{SECONDS_BETWEEN_ENDS} s'"
    status = "CASE WHEN mod(number, 21) = 0 THEN 'failed' WHEN mod(number, 33) = 0 THEN 'skipped' ELSE 'completed' END"
    finished = Run(reason="exit_code", exit_code=0, queued_at=now, due_at=now, ready_at=now, host=host, message="Done.")
    multiply(
        finished,
        1,
        runs,
        {
            "id": "number",
            "uuid": UUIDS,
            "task_id": f"CASE WHEN mod(number, 2) = 0 THEN {of_busy} ELSE {of_others} END",
            "status": status,
            "trigger": "CASE WHEN mod(number, 51) = 0 THEN 'manual' ELSE 'schedule' END",
            "started_at": f"{ended} - mod(number, 100) * interval '1 s'",
            "finished_at": ended,
        },
    )
    due = f"timestamptz '{now.isoformat()}' + mod((number - {runs}) * 7919, 86400) * interval '1 s'"
    queued = Run(queued_at=now, due_at=now)
    task_id = f"number - {runs + 1} + {FIRST}"
    changes = {"id": "number", "uuid": UUIDS, "task_id": task_id, "schedule_id": task_id, "due_at": due, "slot_at": due}
    multiply(queued, runs + 1, runs + tasks, changes)
    multiply(
        Run(
            status="processing", claim_token="t", host=host, queued_at=now, due_at=now, claimed_at=now, started_at=now,
            message="Reading", progress_done=3, progress_total=10,
        ),
        runs + tasks + 1,
        runs + tasks + IN_PROGRESS,
        {"id": "number", "uuid": UUIDS, "task_id": f"{FIRST} + mod(number * 131, {tasks})"},
    )  # fmt: skip
    sample = {"at": now, "cpu_percent": 12.5, "memory_bytes": 48_000_000, "memory_peak_bytes": 50_000_000}
    ProcessSample.objects.bulk_create(ProcessSample(run=run, **sample) for run in Run.objects.processing())
    for nth, what in enumerate(("started", "message", "finished")):
        changes = {"id": f"number * 3 + {nth}", "run_id": "number"}
        multiply(RunEvent(what=what, at=now, text=what), 1, runs, changes)
    file = OutputFile(name="report.csv", size=1000, sha256="0" * 64, created_at=now)
    multiply(file, 1, runs // 5, {"id": UUIDS, "run_id": "number * 5"})
    for count in VIEWERS:
        user = User.objects.create_user(f"viewer of {count}", is_staff=True)
        # The last ones are not busy: the hardest case for a list of the newest.
        _grant(user, Group.objects.create(name=f"viewers of {count}"), FIRST + tasks - min(count, tasks), FIRST + tasks)
    analyse()
    return True


def _grant(user: User, group: Any, first: int, last: int) -> None:
    """Permissions on tasks, half of them directly and half through a group."""
    from django.contrib.auth.models import Permission

    from scheduler.models import TaskGroupObjectPermission, TaskUserObjectPermission

    user.groups.add(group)
    for codename in ("view_task", "run_task", "view_output"):
        permission = Permission.objects.get(codename=codename, content_type__app_label="scheduler")
        middle = (first + last) // 2
        TaskUserObjectPermission.objects.bulk_create(
            TaskUserObjectPermission(user=user, permission=permission, content_object_id=pk)
            for pk in range(middle, last)
        )
        TaskGroupObjectPermission.objects.bulk_create(
            TaskGroupObjectPermission(group=group, permission=permission, content_object_id=pk)
            for pk in range(first, middle)
        )


# The pages


@dataclass
class Measured:
    milliseconds: list[float] = field(default_factory=list)
    processor: float = 0
    """Milliseconds of processor time a page, here and in the database: what does not depend on the machine's load."""
    queries: int = 0
    slowest: list[tuple[float, str]] = field(default_factory=list)


def _pages(runs: int, tasks: int) -> dict[str, str]:
    from django.urls import NoReverseMatch, reverse

    last_task = FIRST + tasks - 1
    seen_run = _newest_run_of(last_task)
    pages = {
        "main page": "/scheduler/",
        "main page, its fragment": "/scheduler/?fragment=1",
        "main page, what failed": "/scheduler/?status=failed",
        "main page, started by users": "/scheduler/?trigger=manual",
        "main page, a text": f"/scheduler/?text=task+{last_task - 1}",
        "main page, one task": f"/scheduler/?task={last_task}",
        "main page, half a year back": f"/scheduler/?before={_position(runs // 2)}",
        "run page": f"/scheduler/runs/{seen_run}/",
        "timeline, 1,000 runs": f"/scheduler/timeline/?day={datetime.now(UTC).date() - timedelta(days=1)}",
        "admin: runs": "/admin/scheduler/run/",
        "admin: runs that failed": "/admin/scheduler/run/?status__exact=failed",
        "admin: runs of a task": f"/admin/scheduler/run/?task__id__exact={last_task}",
        "admin: runs, searched": f"/admin/scheduler/run/?q=task+{last_task - 1}",
        "admin: tasks": "/admin/scheduler/task/",
        "admin: tasks, searched": f"/admin/scheduler/task/?q={last_task - 1}",
    }
    try:
        pages["task page"] = reverse("scheduler:task-detail", args=[last_task])
    except NoReverseMatch:
        pass  # not in this version
    return pages


def _newest_run_of(task: int) -> int:
    from scheduler.models import Run

    return Run.objects.finished().filter(task=task).order_by("-pk").values_list("pk", flat=True)[0]


def _position(pk: int) -> str:
    from scheduler.models import Run

    at = Run.objects.values_list("finished_at", flat=True).get(pk=pk)
    assert at is not None
    return f"{(at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)}-{pk}"


def _measure(user: User, url: str, times: int) -> Measured:
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    client = Client()
    client.force_login(user)
    measured = Measured()
    with CaptureQueriesContext(connection) as captured:
        status = client.get(url).status_code
    if status != 200:
        raise SystemExit(f"{url} as {user} answers {status}.")
    measured.queries = len(captured)
    measured.slowest = sorted(((float(each["time"]) * 1000, each["sql"]) for each in captured), reverse=True)[:3]
    before = time.process_time() + _database_seconds()
    for _ in range(times):
        begin = time.perf_counter()
        client.get(url)
        measured.milliseconds.append((time.perf_counter() - begin) * 1000)
    measured.processor = (time.process_time() + _database_seconds() - before) * 1000 / times
    return measured


def _database_seconds() -> float:
    """Processor time of the process that serves this connection."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        stat = Path(f"/proc/{cursor.fetchone()[0]}/stat").read_text()
    user, system = stat.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _report(options: argparse.Namespace) -> None:
    from django.contrib.auth.models import User
    from django.test.utils import override_settings

    people = {"superuser": "admin"} | {f"viewer of {count:,}": f"viewer of {count}" for count in VIEWERS}
    print(f"| ms / of processor (queries) | {' | '.join(people)} |")
    print(f"|---|{'--:|' * len(people)}")
    with override_settings(ALLOWED_HOSTS=["testserver"]):
        _measure(User.objects.get(username="admin"), "/scheduler/", options.times)  # what a new process does once
        for page, url in _pages(options.runs, options.tasks).items():
            if options.only not in page:
                continue
            cells, notes = [], []
            for who, name in people.items():
                measured = _measure(User.objects.get(username=name), url, options.times)
                cells.append(
                    f"{statistics.median(measured.milliseconds):.0f} / {measured.processor:.0f} ({measured.queries})"
                )
                notes += [f"    {who}: {spent:.0f} ms {sql}" for spent, sql in measured.slowest if spent >= 5]
            print(f"| {page} | {' | '.join(cells)} |", flush=True)
            if options.sql:
                print("\n".join(notes))


if __name__ == "__main__":
    sys.exit(main())
