"""Asking programs which arguments they take: one at a time, each in processes of its own."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.db import DataError

from scheduler import programs
from scheduler.conf import scheduler_settings
from scheduler.executors.launches import SUPERVISOR, SUPERVISOR_COMMAND
from scheduler.executors.local import environment_for, user_of
from scheduler.models import ProgramForm
from scheduler.poller.each import each
from scheduler.supervisor.folder import DONE, SPEC, RunFolder
from scheduler.wakeup import wake_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

logger = logging.getLogger(__name__)

DESCRIBE = SUPERVISOR / "describe.py"
MOST_SECONDS = 10.0
# So long another poller, whose machine has the program as it was asked about, may come to it.
PATIENCE = timedelta(seconds=30)
LOOKED_AT = 20
ABANDONED_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A program that is being asked."""

    form: ProgramForm
    job: RunFolder
    process: subprocess.Popen[bytes]


@dataclass(slots=True)
class Asker:
    """Starts the process that asks, and takes in its answer."""

    _asked: Asked | None = None

    def rest(self) -> int:
        """Let go of an asking process that has ended; 0."""
        if self._asked is not None and self._asked.process.poll() is not None:
            shutil.rmtree(self._asked.job.path, ignore_errors=True)
            self._asked = None
        return 0

    def look(self, now: datetime) -> int:
        """One round; 1 while a program is asked, else 0."""
        if self._asked is not None and self._asked.process.poll() is not None:
            asked, done = self._asked, self._asked.job.read(DONE)
            self.rest()
            each(asked.form, lambda form: _ingest(form, done, now))
        for form in ProgramForm.objects.waiting().order_by("asked_at")[:LOOKED_AT]:
            if self._asked is not None:
                break
            each(form, lambda form: self._ask(form, now))
        return int(self._asked is not None)

    def _ask(self, form: ProgramForm, now: datetime) -> None:
        try:
            program = programs.resolve(form.program_root, form.program_path)
            if programs.read(program).sha256 != form.sha256:
                if form.asked_at is not None and now - form.asked_at > PATIENCE:
                    form.take_answer(now, problem="changed")
                return
            interpreter = programs.interpreter(form.interpreter)
            user = user_of(form.program_root)
            environment = environment_for(form.environment, user)
            self._start(form, [str(interpreter or sys.executable), str(DESCRIBE), str(program)], environment, user)
        except (programs.ProgramError, OSError, KeyError) as error:
            logger.warning("%s cannot be asked which arguments it takes: %s", form, error)
            form.take_answer(now, problem="unreadable")

    def _start(
        self, form: ProgramForm, argv: list[str], environment: Mapping[str, str], user: dict[str, Any] | None
    ) -> None:
        questions = scheduler_settings().root / "questions"
        _remove_abandoned(questions)
        job = RunFolder(str(questions / str(uuid.uuid4())))
        Path(job.path).mkdir(mode=0o700, parents=True)
        spec = {"argv": argv, "user": user, "seconds": MOST_SECONDS, "wake": str(wake_folder())}
        job.write(SPEC, spec, durable=False)
        process = subprocess.Popen(
            [*SUPERVISOR_COMMAND, "--ask", job.path],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        self._asked = Asked(form, job, process)


def _remove_abandoned(questions: Path) -> None:
    """Remove what pollers left that were killed while they asked."""
    for folder in questions.glob("*"):
        if time.time() - folder.stat().st_mtime > ABANDONED_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def _ingest(form: ProgramForm, done: dict[str, Any] | None, now: datetime) -> None:
    """Take in what the process says: a description, or in one word why there is none."""
    if done is None or done["trouble"]:
        form.take_answer(now, problem="unreadable")
    elif done["timed_out"]:
        form.take_answer(now, problem="slow")
    elif not done["said"]:
        form.take_answer(now, problem="silent")
    else:
        try:
            form.take_answer(now, answer=json.loads(done["said"]))
        except (ValueError, DataError):  # PostgreSQL takes no NUL, such as one in the words of a program
            form.take_answer(now, problem="unreadable")
