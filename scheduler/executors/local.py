"""Runs on this machine: the run folder, the environment, and the launch of the supervisor."""

from __future__ import annotations

import os
import pwd
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.utils.translation import override

from scheduler import outputs, programs
from scheduler.conf import scheduler_settings
from scheduler.executors import LaunchError, limits
from scheduler.executors.launches import ColdLaunch, Launch
from scheduler.executors.warm_process import WarmProcess
from scheduler.models import Task
from scheduler.supervisor import folder as protocol
from scheduler.wakeup import wake_folder

if TYPE_CHECKING:
    import uuid
    from collections.abc import Iterator

    from scheduler.models import Run

# Where this process was started from, before and after symbolic links.
START = Path(sys.argv[0]).absolute().parent
RESOLVED_START = START.resolve()
CLEANUP_SECONDS = 60


class LocalExecutor:
    """Launches supervisors and keeps the launches until they have answered."""

    def __init__(self) -> None:
        self._launches: dict[uuid.UUID, Launch] = {}
        self.warm = WarmProcess()
        self.limits_problem = limits.why_not_as_a_whole()

    def prepare(self) -> None:
        """Keep a warm process ready; to be called in each round. Starts are cold until it is, and where none can be."""
        self.warm.keep(lambda: environment_for(Task.Environment.DJANGO))

    @property
    def cold_reason(self) -> str:
        """Why starts that could be warm are cold; empty when they are warm, or are going to be."""
        return self.warm.cold_reason

    def renew(self) -> None:
        """Load the code anew, whether it seems to have changed or not."""
        self.warm.renew()

    def close(self) -> None:
        """Let go of the warm process. Runs that were started go on."""
        self.warm.close()

    def start(self, run: Run) -> None:
        folder = outputs.run_folder(run.uuid)
        if folder.has(protocol.STARTED) or Path(folder.tombstone).exists():
            return  # a row of a restored backup: its result is there, or its supervisor lives
        if run.uuid in self._launches:
            return  # under way, or its answer is still to be taken
        with _in_one_sentence(folder.path):
            program = programs.resolve(run.task.program_root, run.task.program_path)
            interpreter = programs.interpreter(run.task.interpreter)
            user = user_of(run.task.program_root)
            environment = environment_for(run.task.environment, user)
            outputs.make_run_folders(run.uuid, (user["uid"], user["gid"]) if user else None)
            argv = [str(interpreter or sys.executable), str(program), *run.arguments]
            self._write_spec(run, argv, environment, user)
        may_be_warm = (
            run.task.environment == Task.Environment.DJANGO
            and not run.task.cold_start
            and interpreter is None
            and user is None
        )
        launch = self.warm.launch(folder.path, environment) if may_be_warm else None
        self._launches[run.uuid] = launch or ColdLaunch(folder.path, environment)

    def collect(self, run: Run) -> None:
        if run.uuid in self._launches:
            return
        folder, task = outputs.run_folder(run.uuid), run.task
        environment: dict[str, str] = {}
        with _in_one_sentence(folder.path):
            outputs.make_store_folder(run.uuid)  # somebody may have removed it
            is_damaged = folder.read(protocol.SPEC) is None
            if is_damaged or task.cleanup_path:
                # A clean-up command that is still to be run gets what it would have got from the first supervisor.
                user = user_of(task.program_root)
                environment = environment_for(task.environment, user)
            if is_damaged:
                interpreter = programs.interpreter(task.interpreter)
                self._write_spec(run, [str(interpreter or sys.executable)], environment, user)
        self._launches[run.uuid] = ColdLaunch(folder.path, environment)

    def _write_spec(self, run: Run, argv: list[str], environment: dict[str, str], user: dict[str, Any] | None) -> None:
        spec = _spec(run, argv, environment, user) | limits.of_run(run, self.limits_problem)
        if run.task.cleanup_path:
            spec["cleanup"] = _cleanup(run.task, argv[0])
        # Not flushed: a crash of the machine may leave it without its content. The run is launched again then, or what
        # it left is collected, and this is written anew.
        outputs.run_folder(run.uuid).write(protocol.SPEC, spec, durable=False)

    def is_launching(self, run_uuid: uuid.UUID) -> bool:
        launch = self._launches.get(run_uuid)
        return launch is not None and launch.answer() is None

    def launches(self) -> int:
        return sum(launch.answer() is None for launch in self._launches.values())

    def take_failures(self) -> dict[uuid.UUID, str]:
        failures = {}
        for run_uuid, launch in list(self._launches.items()):
            said = launch.answer()
            if said is not None:
                del self._launches[run_uuid]
            if said:
                failures[run_uuid] = said
        return failures


@contextmanager
def _in_one_sentence(folder: str) -> Iterator[None]:
    """What is wrong with a run becomes a LaunchError, in English: it is kept, for people of several languages."""
    try:
        with override(None):
            yield
    except programs.ProgramError as error:
        raise LaunchError(str(error)) from error
    except OSError as error:
        raise LaunchError(f"{error.strerror or error}: {error.filename or folder}") from error
    except KeyError as error:
        raise LaunchError(f"SCHEDULER['STORE_GROUP'] or SCHEDULER['PROGRAM_USERS']: {error.args[0]}") from error


def environment_for(kind: str, user: dict[str, Any] | None = None) -> dict[str, str]:
    """The environment of a program: an allow-list, and with ``Task.Environment.DJANGO`` what the settings read.

    ``user`` is whom it runs as, as ``user_of`` says.
    """
    given = scheduler_settings()
    names = list(given.environment)
    if kind == Task.Environment.DJANGO:
        names += ["DJANGO_SETTINGS_MODULE", *given.django_environment]
    environment = {name: os.environ[name] for name in names if name in os.environ}
    environment["PYTHONUNBUFFERED"] = "1"  # what the program prints is in the log at once
    paths = [_as_started(given.project_folder)] if given.project_folder is not None else []
    # A site that is run with a PYTHONPATH of its own finds its modules there.
    paths += os.environ.get("PYTHONPATH", "").split(os.pathsep)
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    if user is not None:
        environment |= {"HOME": user["home"], "USER": user["name"], "LOGNAME": user["name"]}
    return environment


def _as_started(folder: Path) -> str:
    """The project's folder by the path that the poller was started by, if it is the same.

    A deploy may switch a symbolic link on that path: the next run finds the new code.
    """
    return str(START) if folder.resolve() == RESOLVED_START else str(folder)


def user_of(program_root: str) -> dict[str, Any] | None:
    """The Unix user that programs of a folder run as; None for the poller's own. Raises KeyError for an unknown one."""
    name = scheduler_settings().program_users.get(program_root)
    if name is None:
        return None
    account = pwd.getpwnam(name)
    if account.pw_uid == os.geteuid():
        return None
    return {
        "name": name,
        "uid": account.pw_uid,
        "gid": account.pw_gid,
        "groups": os.getgrouplist(name, account.pw_gid),
        "home": account.pw_dir,
    }


def _spec(run: Run, argv: list[str], environment: dict[str, str], user: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "run": str(run.uuid),
        "id": run.pk,
        "claim_token": run.claim_token,
        "argv": argv,
        "environment": sorted(environment),  # names only: values never reach the disk
        "user": user,
        "timeout_seconds": run.task.timeout_seconds,
        "grace_seconds": run.task.grace_seconds,
        "log": str(outputs.log_path(run)),
        "store": str(outputs.store_folder(run.uuid)),
        "store_gid": outputs.store_gid(),
        "wake": str(wake_folder()),
    }


def _cleanup(task: Task, interpreter: str) -> dict[str, Any]:
    """The clean-up command, by the program's own interpreter. Raises ProgramError when it cannot be run."""
    users = scheduler_settings().program_users
    if users.get(task.cleanup_root) != users.get(task.program_root):
        raise programs.ProgramError(f"The folder of “{task.cleanup_program}” belongs to another Unix user.")
    program = programs.resolve(task.cleanup_root, task.cleanup_path)
    return {
        "argv": [interpreter, str(program), *task.cleanup_arguments],
        "timeout_seconds": task.cleanup_timeout_seconds or CLEANUP_SECONDS,
    }
