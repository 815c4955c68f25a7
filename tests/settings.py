"""The project's settings, with folders of the test run's own."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

# The processes that a test starts inherit the folder of the test run.
if "SCHEDULER_TESTS_FOLDER" not in os.environ:
    os.environ["SCHEDULER_TESTS_FOLDER"] = tempfile.mkdtemp(prefix="scheduler-tests-")
    os.environ["SCHEDULER_VAR"] = os.environ["SCHEDULER_TESTS_FOLDER"]  # never a person's own

    @atexit.register
    def _remove_folder(*, made_by: int = os.getpid()) -> None:
        if os.getpid() == made_by:  # not in a fork of the test run
            shutil.rmtree(_folder, ignore_errors=True)


_folder = Path(os.environ["SCHEDULER_TESTS_FOLDER"])
os.environ.setdefault("DJANGO_SECRET_KEY", "only-for-tests-" + "abcdefghijklmnopqrstuvwxyz0123456789" * 2)

from conf.settings import *  # noqa: E402, F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

# Real pollers and tasks of the tests connect to the test database: it must be a file.
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":  # noqa: F405
    DATABASES["default"]["TEST"] = {"NAME": str(_folder / "test.sqlite3")}  # noqa: F405

SCHEDULER["DJANGO_ENVIRONMENT"] += ["SCHEDULER_TESTS_FOLDER", "SCHEDULER_TESTS_PROGRAMS"]  # noqa: F405

# A test's own programs (see tests/runs/conftest.py), also in the processes that it starts.
if programs := os.environ.get("SCHEDULER_TESTS_PROGRAMS"):
    SCHEDULER["PROGRAM_ROOTS"] = {"programs": Path(programs)}  # noqa: F405
    SCHEDULER["ENVIRONMENT"] = ["PATH", "FOLDER"]  # noqa: F405
