"""Runs on this machine: the run folder, the environment, and the launch of the supervisor (a cold start)."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scheduler import outputs, programs
from scheduler.conf import scheduler_settings
from scheduler.executors import LaunchError
from scheduler.models import Task
from scheduler.supervisor import folder as protocol
from scheduler.wakeup import wake_folder

if TYPE_CHECKING:
    import uuid

    from scheduler.models import Run

SUPERVISOR = Path(protocol.__file__).resolve().parent
# -I and -S: neither the environment nor site-packages reach the supervisor. UTF-8: file names are bytes.
SUPERVISOR_COMMAND = [sys.executable, "-I", "-S", "-X", "utf8", str(SUPERVISOR)]


class LocalExecutor:
    """Launches supervisors and keeps the launches until they have answered."""

    def __init__(self) -> None:
        self._launches: dict[uuid.UUID, subprocess.Popen[bytes]] = {}

    def start(self, run: Run) -> None:
        folder = outputs.run_folder(run.uuid)
        if folder.has(protocol.STARTED) or Path(folder.tombstone).exists():
            return  # a row of a restored backup: its result is there, or its supervisor lives
        try:
            program = programs.resolve(run.task.program_root, run.task.program_path)
            environment = environment_for(run.task)
            user = user_of(run.task)
            if user is not None:
                environment |= {"HOME": user["home"], "USER": user["name"], "LOGNAME": user["name"]}
            outputs.make_run_folders(run.uuid, (user["uid"], user["gid"]) if user else None)
            folder.write(protocol.SPEC, _spec(run, program, environment, user))
        except programs.ProgramError as error:
            raise LaunchError(str(error)) from error
        except OSError as error:
            raise LaunchError(f"{error.strerror or error}: {error.filename or folder.path}") from error
        except KeyError as error:
            raise LaunchError(f"SCHEDULER['STORE_GROUP'] or SCHEDULER['PROGRAM_USERS']: {error.args[0]}") from error
        self._launch(run.uuid, folder, environment)

    def collect(self, run: Run) -> None:
        self._launch(run.uuid, outputs.run_folder(run.uuid), {})

    def is_launching(self, run_uuid: uuid.UUID) -> bool:
        launch = self._launches.get(run_uuid)
        return launch is not None and launch.poll() is None

    def take_failures(self) -> dict[uuid.UUID, str]:
        failures = {}
        for run_uuid, launch in list(self._launches.items()):
            if launch.poll() is None:
                continue
            del self._launches[run_uuid]
            assert launch.stderr is not None
            with launch.stderr as pipe:
                said = pipe.read().decode(errors="replace").strip()
            if launch.returncode != 0:
                failures[run_uuid] = said or f"the supervisor ended with {launch.returncode}"
        return failures

    def _launch(self, run_uuid: uuid.UUID, folder: protocol.RunFolder, environment: dict[str, str]) -> None:
        if run_uuid in self._launches:
            return  # under way, or its answer is still to be taken
        try:
            self._launches[run_uuid] = subprocess.Popen(
                [*SUPERVISOR_COMMAND, folder.path],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise LaunchError(f"the supervisor cannot be started: {error.strerror or error}") from error


def environment_for(task: Task) -> dict[str, str]:
    """The environment of a task's program: an allow-list, and for a ``django`` task what the site's settings read."""
    given = scheduler_settings()
    names = list(given.environment)
    if task.environment == Task.Environment.DJANGO:
        names += ["DJANGO_SETTINGS_MODULE", *given.django_environment]
    environment = {name: os.environ[name] for name in names if name in os.environ}
    environment["PYTHONUNBUFFERED"] = "1"  # what the program prints is in the log at once
    paths = [str(given.project_folder)] if given.project_folder is not None else []
    # A site that is run with a PYTHONPATH of its own finds its modules there.
    paths += os.environ.get("PYTHONPATH", "").split(os.pathsep)
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return environment


def user_of(task: Task) -> dict[str, Any] | None:
    """The Unix user that a task's program runs as; None for the poller's own. Raises KeyError for an unknown one."""
    name = scheduler_settings().program_users.get(task.program_root)
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


def _spec(run: Run, program: Path, environment: dict[str, str], user: dict[str, Any] | None) -> dict[str, Any]:
    given = scheduler_settings()
    return {
        "run": str(run.uuid),
        "id": run.pk,
        "claim_token": run.claim_token,
        "argv": [sys.executable, str(program), *run.arguments],
        "environment": sorted(environment),  # names only: values never reach the disk
        "user": user,
        "timeout_seconds": run.task.timeout_seconds,
        "grace_seconds": run.task.grace_seconds,
        "log": str(outputs.log_path(run)),
        "log_bytes": given.log_bytes,
        "store": str(outputs.store_folder(run.uuid)),
        "store_gid": outputs.store_gid(),
        "output_bytes": given.output_bytes,
        "output_files": given.output_files,
        "wake": str(wake_folder()),
    }
