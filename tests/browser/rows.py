"""Rows and files for each state of each page, made without any process."""

from __future__ import annotations

import base64
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import Group, User
from django.utils import timezone
from guardian.shortcuts import assign_perm

from scheduler import outputs
from scheduler.argument_fields import known_form
from scheduler.models import (
    Alarm,
    Archive,
    AuditEntry,
    Calendar,
    ConcurrencyGroup,
    FollowUp,
    OutputFile,
    Poller,
    ProcessSample,
    ProgramForm,
    ProgramVersion,
    Recurrence,
    Run,
    RunEvent,
    Schedule,
    Task,
)
from scheduler.states import FINISHED, Reason, Status
from tests.test_arguments import PROGRAM, said

PASSWORD = "a long pass phrase"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGP4z8DwHwAFAAH/q842iQAAAABJRU5ErkJggg=="
)
LONG = "A task with a name that is as long as people write them when nobody stops them, and_with_one_word_without_a_gap"

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Rows:
    """The people, and what the addresses of the pages need."""

    admin: User
    viewer: User
    """Staff; sees the tasks, and may do nothing else."""
    stranger: User
    """Staff, without any permission."""
    visitor: User
    """Not staff."""
    ids: dict[str, Any]


def make_poller(**values: Any) -> Poller:
    now = timezone.now()
    columns: dict[str, Any] = {"host": uuid.uuid4(), "host_name": "db-1.example.org", "pid": 1, "boot_id": "boot"}
    columns |= {"start_ticks": 1, "version": "0.1.0", "capacity": 4, "started_at": now}
    return Poller.objects.create(**{**columns, "seen_at": now + timedelta(days=1), **values})


def make_run(task: Task, status: Status = Status.COMPLETED, *, minutes_ago: float = 5, **values: Any) -> Run:
    then = timezone.now() - timedelta(minutes=minutes_ago)
    columns: dict[str, Any] = {"trigger": Run.Trigger.MANUAL, "arguments": ["--days", "7"]}
    columns |= {"queued_at": then, "due_at": then, "ready_at": then}
    if status == Status.PROCESSING:
        columns |= {"claim_token": "token", "host": Poller.objects.values_list("host", flat=True)[0], "pid": 4242}
        columns |= {"host_name": "db-1.example.org", "claimed_at": then, "started_at": then}
    elif status in FINISHED:
        reasons = {Status.CANCELLED: Reason.STOPPED_BY_USER, Status.SKIPPED: Reason.OVERLAP}
        columns |= {"finished_at": then, "reason": reasons.get(status, Reason.EXIT_CODE)}
        if status in {Status.COMPLETED, Status.FAILED}:
            columns |= {"exit_code": int(status == Status.FAILED), "started_at": then - timedelta(seconds=83)}
    return Run.objects.create(task=task, status=status, **{**columns, **values})


def write_log(run: Run, content: bytes, *, more: bool = False) -> None:
    path = outputs.log_path(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab" if more else "wb") as file:
        file.write(content)


def add_file(run: Run, name: str, content: bytes | None, **values: Any) -> OutputFile:
    size = len(content) if content is not None else 1234
    file = OutputFile.objects.create(
        run=run, name=name, size=size, sha256="0123456789abcdef" * 4, created_at=run.due_at, **values
    )
    if content is not None:
        outputs.file_path(file).parent.mkdir(parents=True, exist_ok=True)
        outputs.file_path(file).write_bytes(content)
    return file


def make_rows(programs: Path) -> Rows:
    """Everything that the pages can show, in programs of this folder."""
    admin = User.objects.create_superuser("admin", "admin@example.org", PASSWORD)
    olivia, viewer, stranger = (
        User.objects.create_user(name, password=PASSWORD, is_staff=True) for name in ("olivia", "vera", "sam")
    )
    visitor = User.objects.create_user("walter", password=PASSWORD)
    people = Group.objects.create(name="Night shift")
    now = timezone.now()
    make_poller()
    (programs / "everything.py").write_bytes(PROGRAM.read_bytes())
    (programs / "countdown.py").write_text('"""Counts down, and reports how far it is."""\nprint("3 2 1")\n')
    task, mails, long, every = (
        Task.objects.create(
            name=name,
            owner=olivia,
            program_root="programs",
            program_path=program,
            description="Collects what the shops have sold, and mails it to everybody who asked for it.",
            arguments=arguments,
        )
        for name, program, arguments in (
            ("Nightly report", "countdown.py", ["--days", "7"]),
            ("Weekly mail", "countdown.py", []),
            (LONG, "countdown.py", ["--directory=/srv/a/very/long/path/without/any/gap/in/it/at/all/2026/11/24"]),
            ("Takes everything", "everything.py", ["src", "--number", "3"]),
        )
    )
    for each in (task, mails, long, every):
        each.grant(viewer, "view_task")
    assign_perm("scheduler.view_task", people, task)
    FollowUp.objects.create(task=task, then=mails)
    known_form(every, user=admin, now=now)
    ProgramForm.objects.get().take_answer(now, answer=said(PROGRAM))
    calendar = Calendar.objects.create(name="Christmas", time_zone="Europe/Amsterdam", lines="12-25\nsat-sun\n")
    group = ConcurrencyGroup.objects.create(name="One at a time", max_runs=1, description="They share a licence.")
    Task.objects.filter(pk=mails.pk).update(group=group)
    hourly = Recurrence.objects.create(name="Every hour", kind="every", every=1, unit="hours")
    early = Recurrence.objects.create(name="Early", kind="cron", cron="30 2 * * *")
    schedule = Schedule.objects.create(
        task=task, recurrence=early, anchor=now, time_zone="Europe/Amsterdam", calendar=calendar
    )
    paused = Schedule.objects.create(task=long, recurrence=hourly, anchor=now, time_zone="UTC")
    paused.pause(by=olivia, why="The disk is nearly full, and the mail about it was not answered", now=now)
    mails.pause(by=olivia, why="Its server moves", now=now)

    version = ProgramVersion.of(
        program="programs/countdown.py",
        sha256="a" * 64,
        size=1,
        modified_at=now,
        interpreter="/usr/bin/python3",
        environment=["PATH", "HOME"],
    )
    slot = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=3)
    for number, status in enumerate((Status.COMPLETED, Status.FAILED, Status.SKIPPED, Status.CANCELLED) * 3):
        make_run(
            task,
            status,
            minutes_ago=90 + number,
            trigger=Run.Trigger.SCHEDULE,
            schedule=schedule,
            slot_at=slot - timedelta(days=number),
            message="12 shops reported" if status == Status.COMPLETED else "",
        )
    running = make_run(
        task,
        Status.PROCESSING,
        minutes_ago=2,
        message="Shop 4 of 10: Amsterdam",
        progress_done=4,
        progress_total=10,
        version=version,
        requested_by=olivia,
        requested_by_name="olivia",
    )
    write_log(running, b"\x1b[32mready\x1b[0m\n" + b"".join(b"line %d\n" % number for number in range(40)))
    processes = [
        {"pid": 4242, "parent": 1, "name": "python3", "cpu_percent": 12.5, "memory_bytes": 45_000_000},
        {"pid": 4243, "parent": 4242, "name": "sort", "cpu_percent": 80.0, "memory_bytes": 5_000_000},
    ]
    ProcessSample.objects.create(
        run=running,
        at=now,
        cpu_percent=92.5,
        memory_bytes=50_000_000,
        memory_peak_bytes=61_000_000,
        processes=processes,
    )
    for what, text in (
        (RunEvent.What.QUEUED, ""),
        (RunEvent.What.STARTED, ""),
        (RunEvent.What.MESSAGE, "Shop 4 of 10"),
    ):
        RunEvent.objects.create(run=running, at=now, what=what, text=text, user_name="olivia")
    make_run(long, Status.PROCESSING, minutes_ago=1, message="A long message. " * 12)
    queued = make_run(every, Status.QUEUED, minutes_ago=-30)
    failed = make_run(
        task, Status.FAILED, minutes_ago=4, message="ValueError: the disk is full", version=version, limits_reached={}
    )
    # Few lines and long ones: of each line the contrast is computed, and that costs.
    log = [f"line {number:05d} copied {'.' * 600}\n" for number in range(800)]
    log[400] = "\x1b[31mValueError:\x1b[0m the disk is full\n"
    log[790] = (
        "".join(
            f"\x1b[{30 + n}mink {n}\x1b[0m \x1b[{90 + n}mbright\x1b[0m \x1b[{40 + n}mon {n}\x1b[0m " for n in range(8)
        )
        + "\n"
    )
    log[791] = "\x1b[1mbold\x1b[0m \x1b[2mdim\x1b[0m \x1b[7minverse\x1b[0m \x1b[4mline\x1b[0m\n"
    write_log(failed, "".join(log).encode())
    lost = make_run(long, Status.FAILED, minutes_ago=3, reason=Reason.LOST, exit_code=None)
    purged = make_run(task, Status.COMPLETED, minutes_ago=6)
    done = make_run(
        task,
        Status.COMPLETED,
        minutes_ago=3,
        trigger=Run.Trigger.AGAIN,
        triggered_by=failed,
        message="12 shops reported",
        program="programs/countdown.py",
    )
    write_log(done, b"3 2 1\n")
    picture = add_file(done, "chart.png", PNG)
    table = add_file(
        done,
        "sales of all the shops.csv",
        (
            "shop;sold;" + ";".join(f"column {n}" for n in range(12)) + "\n" + "Amsterdam;1;" + "2;" * 11 + "3\n"
        ).encode(),
    )
    page = add_file(done, "page.html", b"<script>document.title = 'it ran'</script>\n" + b"x" * 300)
    binary = add_file(done, "backup.bin", bytes(range(256)))
    gone = add_file(done, "a_file_name_that_nobody_has_ever_thought_could_be_so_long_" + "x" * 60 + ".txt", None)
    archive = add_file(done, "archive.zip", b"PK", kind=OutputFile.Kind.ARCHIVE)
    Archive.objects.create(run=done, requested_at=now, total_bytes=2, file=archive)
    many = make_run(every, Status.COMPLETED, minutes_ago=8)
    write_log(many, b"")
    OutputFile.objects.bulk_create(
        OutputFile(run=many, name=f"part-{number:05d}.csv", size=number, sha256="0" * 64, created_at=now)
        for number in range(10_000)
    )
    packing = make_run(mails, Status.COMPLETED, minutes_ago=9)
    write_log(packing, b"done\n")
    add_file(packing, "one.txt", b"1"), add_file(packing, "two.txt", b"2")
    Archive.objects.create(run=packing, requested_at=now, total_bytes=100, done_bytes=40)
    for kind, about in ((Alarm.Kind.LATE, task), (Alarm.Kind.MISSED, long)):
        Alarm.objects.create(task=about, schedule=schedule, kind=kind, at=now, run=failed, text="")
    dismissed = {"dismissed_at": now, "dismissed_by": olivia, "dismissed_by_name": "olivia"}
    Alarm.objects.create(task=task, kind=Alarm.Kind.LATE, at=now, **dismissed)
    for action in AuditEntry.Action:
        AuditEntry.objects.create(
            at=now, action=action, user=olivia, user_name="olivia", task=task, task_name=task.name
        )
    ids = {
        name: row.pk
        for name, row in {
            "task": task, "mails": mails, "long": long, "every": every, "calendar": calendar, "group": group,
            "hourly": hourly, "early": early, "schedule": schedule, "paused": paused, "running": running,
            "queued": queued, "failed": failed, "lost": lost, "purged": purged, "done": done, "picture": picture,
            "table": table, "page": page, "binary": binary, "gone": gone, "many": many, "packing": packing,
            "skipped": Run.objects.filter(status=Status.SKIPPED).latest("pk"),
            "cancelled": Run.objects.filter(status=Status.CANCELLED).latest("pk"),
            "poller": Poller.objects.get(),
            "audit": AuditEntry.objects.latest("pk"),
        }.items()
    }  # fmt: skip
    return Rows(admin, viewer, stranger, visitor, ids)
