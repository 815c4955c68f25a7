"""Making tasks and schedules of the lines of a crontab: each command becomes a task of ``run_command.py``."""

from __future__ import annotations

import pwd
import re
import shutil
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.translation import gettext

from scheduler import crontabs, programs, recurrences
from scheduler.conf import scheduler_settings
from scheduler.models import Recurrence, Schedule, Task
from scheduler.words import in_words, schedule_in_words

if TYPE_CHECKING:
    from datetime import datetime

    from django.contrib.auth.models import User

PROGRAM = "run_command.py"
NAME_LENGTH = 60  # of a task that is named by its command; the rest is in its arguments


class Kind(Enum):
    TAKEN = "taken"
    KNOWN = "known"
    SETTING = "setting"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one line."""

    number: int
    kind: Kind
    text: str


class NoProgramError(Exception):
    """There is nothing that could run commands; the text is one sentence for people."""


class _CannotBeTakenError(Exception):
    """One line cannot be taken; the text is one sentence for people."""


def import_crontab(
    data: bytes,
    *,
    now: datetime,
    default_zone: str,
    own_user: str,
    owner: User | None = None,
    user_column: bool = False,
    program: str = "",
    dry_run: bool = False,
) -> list[Outcome]:
    """Take what can be taken, in one transaction, and say of every line what became of it.

    A line that was imported before is known by its task and left alone, also when the task or its schedule has been
    changed since. ``own_user`` is the Unix user of the poller; ``program`` names one ``run_command.py`` of several.
    Raises NoProgramError.
    """
    lines = crontabs.read(data, user_column=user_column)
    available = _available(program)
    with transaction.atomic():
        importer = _Import(now, default_zone, own_user, owner, available)
        outcomes = [importer.take(line) for line in lines]
        if dry_run:
            transaction.set_rollback(True)
    return outcomes


def _available(wanted: str) -> list[programs.Program]:
    found = [each for each in programs.found() if each.path.rpartition("/")[2] == PROGRAM or str(each) == wanted]
    if wanted:
        found = [each for each in found if str(each) == wanted]
        if not found:
            text = gettext("“%(program)s” is not a program in the program folders of the settings.")
            raise NoProgramError(text % {"program": wanted})
    if not found:
        text = gettext(
            "There is no %(program)s in any program folder of the settings, so nothing can run commands. Copy it from "
            "the sample tasks into one of them."
        )
        raise NoProgramError(text % {"program": PROGRAM})
    return found


class _Import:
    def __init__(
        self, now: datetime, default_zone: str, own_user: str, owner: User | None, available: list[programs.Program]
    ) -> None:
        self.now = now
        self.default_zone = default_zone
        self.own_user = own_user
        self.owner = owner
        self.available = available
        self.tasks: dict[tuple[str, tuple[str, ...]], Task] = {}
        self.known: dict[tuple[str, str], Task] = {}
        for program in available:
            same = Task.objects.filter(program_root=program.root, program_path=program.path)
            for task in same.order_by("-pk"):
                self.tasks[str(program), tuple(task.arguments)] = task
                for line in task.description.splitlines():
                    self.known[str(program), line] = task

    def take(self, line: crontabs.Line) -> Outcome:
        match line:
            case crontabs.Setting():
                return Outcome(line.number, Kind.SETTING, f"{line.name}: {line.becomes}")
            case crontabs.Refused():
                return Outcome(line.number, Kind.REFUSED, line.reason)
            case crontabs.Entry():
                try:
                    return self._entry(line)
                except _CannotBeTakenError as error:
                    return Outcome(line.number, Kind.REFUSED, str(error))

    def _entry(self, entry: crontabs.Entry) -> Outcome:
        program = self._program(entry)
        zone = entry.zone or self.default_zone
        origin = _origin(entry, zone)
        arguments = arguments_of(entry)
        task = self.known.get((str(program), origin))
        if task is not None:
            return Outcome(entry.number, Kind.KNOWN, gettext("imported already, as “%(task)s”") % {"task": task})
        task = self.tasks.get((str(program), tuple(arguments)))
        rule = recurrences.Cron(entry.rule)
        if task is None:
            task = self._new_task(entry, program, arguments, origin)
        elif task.schedules.filter(recurrence__cron=entry.rule, time_zone=zone).exists():
            return Outcome(entry.number, Kind.KNOWN, gettext("there already, as “%(task)s”") % {"task": task})
        else:
            # The same command at other times: one more schedule of the same task.
            task.description = f"{task.description}\n{origin}".strip()
            task.save(update_fields=["description", "updated_at"])
        self.tasks[str(program), tuple(arguments)] = task
        anchor = self.now.replace(second=0, microsecond=0)
        schedule = Schedule(task=task, recurrence=_recurrence(rule), anchor=anchor, time_zone=zone)
        schedule.full_clean()
        schedule.save()
        schedule.plan(self.now)
        words = schedule_in_words(rule, anchor=anchor, zone=schedule.zone)
        text = gettext("taken as “%(task)s”: %(when)s") % {"task": task, "when": words}
        return Outcome(entry.number, Kind.TAKEN, text)

    def _program(self, entry: crontabs.Entry) -> programs.Program:
        """The ``run_command.py`` that runs as the line's user."""
        users = scheduler_settings().program_users
        if entry.user:
            for program in self.available:
                if users.get(program.root, self.own_user) == entry.user:
                    return program
            text = gettext(
                "It runs as “%(user)s”, and no %(program)s here does: set PROGRAM_USERS for a program folder that has "
                "one, or take the line over by hand."
            )
            raise _CannotBeTakenError(text % {"user": entry.user, "program": PROGRAM})
        word, *others = entry.command.split(maxsplit=1)
        if others and _is_user(word) and shutil.which(word, path=dict(entry.variables).get("PATH")) is None:
            text = gettext(
                "“%(word)s” is a user and no program: the file seems to be a system crontab, which needs --user-column."
            )
            raise _CannotBeTakenError(text % {"word": word})
        return min(self.available, key=lambda program: program.root in users)

    def _new_task(self, entry: crontabs.Entry, program: programs.Program, arguments: list[str], origin: str) -> Task:
        task = Task(
            name=_free_name(Task, _name(entry.command), 150),
            description=f"{entry.description}\n\n{origin}".strip(),
            owner=self.owner,
            program_root=program.root,
            program_path=program.path,
            environment=Task.Environment.PLAIN,
            arguments=arguments,
        )
        try:
            task.full_clean()
        except ValidationError as error:
            raise _CannotBeTakenError(" ".join(error.messages)) from error
        task.save()
        return task


def arguments_of(entry: crontabs.Entry) -> list[str]:
    """The arguments with which ``run_command.py`` does what cron did: the same shell, variables, folder and input."""
    secrets = [argument for name in entry.secrets for argument in ("--env", name)]
    variables = [f"{name}={value}" for name, value in entry.variables]
    environment = ["/usr/bin/env", *variables] if variables else []
    # cron starts a command in the home folder, the scheduler in the run's own.
    if entry.stdin is None:
        shell = [entry.shell, "-c", f"cd || exit; {entry.command}"]
    else:
        feed = 'cd || exit; printf %s "$1" | "$0" -c "$2"'
        shell = [crontabs.DEFAULT_SHELL, "-c", feed, entry.shell, entry.stdin, entry.command]
    return [*secrets, "--", *environment, *shell]


def _origin(entry: crontabs.Entry, zone: str) -> str:
    """The line of a task's description by which its crontab line is known again; never translated."""
    return f"crontab [{zone}]: {entry.rule} {entry.text}"


def _name(command: str) -> str:
    text = "".join(character if character.isprintable() else " " for character in command)
    text = " ".join(text.split())
    return text if len(text) <= NAME_LENGTH else f"{text[: NAME_LENGTH - 1]}…"


def _recurrence(rule: recurrences.Cron) -> Recurrence:
    """The shared row of this line; a new one is named by what it says."""
    found = Recurrence.objects.filter(kind=Recurrence.Kind.CRON, cron=rule.line).order_by("pk").first()
    if found is not None:
        return found
    name = _free_name(Recurrence, in_words(rule), 100)
    return Recurrence.objects.create(name=name, kind=Recurrence.Kind.CRON, cron=rule.line)


def _free_name(model: type[Task] | type[Recurrence], wanted: str, length: int) -> str:
    """The name, or with a number after it the first that no row has."""
    name, number = wanted[:length], 1
    while model._default_manager.filter(name=name).exists():
        number += 1
        suffix = f" ({number})"
        name = wanted[: length - len(suffix)] + suffix
    return name


def _is_user(word: str) -> bool:
    if not re.fullmatch(r"[a-z_][a-z0-9_-]*", word):
        return False
    try:
        pwd.getpwnam(word)
    except KeyError:
        return False
    return True
