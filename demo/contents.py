"""What the demo shows: its people, its tasks, when they run, and who may do what with them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import transaction

from demo.models import SetUp
from scheduler.models import Recurrence, Schedule, Task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.contrib.auth.models import User

PROGRAM_ROOT = "sample_tasks"


@dataclass(frozen=True, slots=True)
class Person:
    name: str
    about: str
    staff: bool = True
    superuser: bool = False
    permissions: tuple[str, ...] = ()
    """Global ones, as ``app.codename``."""


PEOPLE = (
    Person("admin", "may do everything", superuser=True),
    Person(
        "olivia",
        "owns most tasks, may add tasks and recurrences",
        permissions=(
            "scheduler.add_task",
            "scheduler.add_recurrence",
            "scheduler.change_recurrence",
            "scheduler.view_recurrence",
            "scheduler.view_poller",
        ),
    ),
    Person("victor", "may see some tasks, their runs and files"),
    Person("rachel", "may see and run the countdown, nothing else"),
    Person("felix", "is not staff; may only download the files of the machine report", staff=False),
    Person("sam", "is staff without any right"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One task of the demo."""

    name: str
    program: str
    description: str
    arguments: tuple[str, ...] = ()
    check_arguments: tuple[str, ...] | None = None
    """What ``check_demo`` gives it instead, where the task's own take long."""
    django: bool = False
    """It uses the site's models: only such a program gets the site's secrets."""
    fails: bool = False
    files: int = 0
    """At least so many output files belong to a run of it."""
    owner: str = "olivia"
    timeout_seconds: int | None = None
    schedules: tuple[str, ...] = ()
    granted: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Person -> permissions on this task, beside those of the owner."""


VIEWER = ("view_task", "view_output")

SAMPLES = (
    Sample(
        name="Countdown",
        program="countdown.py",
        description="Counts down, with a message and the progress at every step.",
        arguments=("30",),
        check_arguments=("3",),
        schedules=("Every 5 minutes",),
        granted={"victor": VIEWER, "rachel": ("view_task", "run_task")},
    ),
    Sample(
        name="Machine report",
        program="machine_report.py",
        description="This machine's disks, memory and biggest processes, as CSV and as a web page.",
        files=2,
        schedules=("Every hour", "Monthly"),
        granted={"victor": VIEWER, "felix": ("view_output",)},
    ),
    Sample(
        name="Export users",
        program="export_users.py",
        django=True,
        description="The site's users as CSV and JSON.",
        files=2,
        schedules=("Weekdays at 07:30 (cron)",),
    ),
    Sample(
        name="Back up the database",
        program="backup_database.py",
        django=True,
        description="A verified, compressed copy of the site's database.",
        files=1,
        owner="admin",
        timeout_seconds=3600,
        schedules=("Daily at 02:00 (cron)",),
    ),
    Sample(
        name="Web log report",
        program="log_report.py",
        description="Sums up a web server's access log as CSV; here a generated one.",
        arguments=("--generate", "20000"),
        files=1,
        schedules=("Every week", "Once"),
        granted={"victor": VIEWER},
    ),
    Sample(
        name="Clear expired sessions",
        program="clear_sessions.py",
        django=True,
        description="Django's own command clearsessions, as a task.",
        owner="admin",
        schedules=("Every day",),
    ),
    Sample(
        name="Count words (shell script)",
        program="run_command.py",
        description="A shell script behind the Python wrapper for other programs.",
        arguments=("word_count.sh",),
        files=1,
        granted={"victor": VIEWER},
    ),
    Sample(
        name="Purge old runs",
        program="purge_runs.py",
        django=True,
        description="Deletes runs that ended more than 90 days ago, with their files.",
        arguments=("--days", "90"),
        owner="admin",
        schedules=("Every week",),
    ),
    Sample(
        name="Fails on purpose",
        program="fails.py",
        description="Ends with an error, to show what that looks like.",
        fails=True,
        granted={"victor": VIEWER},
    ),
)


def recurrences() -> list[Recurrence]:
    every, cron, unit = Recurrence.Kind.EVERY, Recurrence.Kind.CRON, Recurrence.Unit
    return [
        Recurrence(name="Once", kind=Recurrence.Kind.ONCE),
        Recurrence(name="Every 5 minutes", kind=every, every=5, unit=unit.MINUTES),
        Recurrence(name="Every hour", kind=every, every=1, unit=unit.HOURS),
        Recurrence(name="Every day", kind=every, every=1, unit=unit.DAYS),
        Recurrence(name="Every week", kind=every, every=1, unit=unit.WEEKS),
        Recurrence(name="Monthly", kind=every, every=1, unit=unit.MONTHS),
        Recurrence(name="Daily at 02:00 (cron)", kind=cron, cron="0 2 * * *"),
        Recurrence(name="Weekdays at 07:30 (cron)", kind=cron, cron="30 7 * * 1-5"),
    ]


def set_up(now: datetime, logins: Path) -> bool:
    """Fill an empty site, once a database; False when it was done before, and then nothing is touched.

    The passwords are in the file ``logins`` (0600), which is made, or used when an earlier database left it.
    """
    with transaction.atomic():
        if SetUp.objects.exists():
            return False
        SetUp.objects.create()
        people = _make_people(passwords(logins))
        rules = {
            rule.name: Recurrence.objects.get_or_create(name=rule.name, defaults=_fields(rule))[0]
            for rule in recurrences()
        }
        for sample in SAMPLES:
            if not Task.objects.filter(name=sample.name).exists():
                _make_task(sample, people, rules, now)
    return True


def _make_people(known: Mapping[str, str]) -> dict[str, User]:
    model = get_user_model()
    people: dict[str, User] = {}
    for person in PEOPLE:
        user = model.objects.filter(username=person.name).first()
        if user is None:
            user = model.objects.create_user(
                person.name, password=known[person.name], is_staff=person.staff, is_superuser=person.superuser
            )
            for permission in person.permissions:
                app, codename = permission.split(".")
                user.user_permissions.add(Permission.objects.get(content_type__app_label=app, codename=codename))
        people[person.name] = user
    return people


def _fields(rule: Recurrence) -> dict[str, object]:
    return {"kind": rule.kind, "every": rule.every, "unit": rule.unit, "cron": rule.cron}


def _make_task(sample: Sample, people: Mapping[str, User], rules: Mapping[str, Recurrence], now: datetime) -> None:
    task = Task(
        name=sample.name,
        description=sample.description,
        owner=people[sample.owner],
        program_root=PROGRAM_ROOT,
        program_path=sample.program,
        environment=Task.Environment.DJANGO if sample.django else Task.Environment.PLAIN,
        arguments=list(sample.arguments),
        timeout_seconds=sample.timeout_seconds,
    )
    task.full_clean()
    task.save()
    for name, codenames in sample.granted.items():
        task.grant(people[name], *codenames)
    for name in sample.schedules:
        schedule = Schedule(task=task, recurrence=rules[name], anchor=_anchor(name, now))
        schedule.full_clean()
        schedule.save()
        schedule.plan(now)


def _anchor(recurrence: str, now: datetime) -> datetime:
    """Round times, so that the list of what comes next reads well."""
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    match recurrence:
        case "Once":
            return day + timedelta(days=1, hours=12)
        case "Every day" | "Every week":
            return day + timedelta(hours=3)
        case "Monthly":
            return day.replace(day=1, hour=6)
    return day


# Their passwords


LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # without those that look alike


def passwords(file: Path) -> dict[str, str]:
    """Name -> password, made at random the first time and kept in a file that only its owner can read."""
    if not file.exists():
        made = {person.name: "-".join(_word() for _ in range(3)) for person in PEOPLE}
        width = max(len(name) for name in made)
        lines = [f"{each.name:<{width}}  {made[each.name]}  {each.about}\n" for each in PEOPLE]
        file.touch(mode=0o600, exist_ok=False)
        file.write_text("".join(lines))
    known = dict(line.split()[:2] for line in file.read_text().splitlines() if len(line.split()) >= 2)
    missing = [person.name for person in PEOPLE if person.name not in known]
    if missing:
        raise ValueError(f"{file} has no password for {', '.join(missing)}. Delete it, and a new one is made.")
    return known


def _word() -> str:
    return "".join(secrets.choice(LETTERS) for _ in range(4))


def logins_file() -> Path:
    return Path(settings.VAR) / "demo_logins"
