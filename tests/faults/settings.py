"""The tests' settings for the pollers of the fault suite; a test adds what it needs in environment variables."""

import json
import os
import signal
from pathlib import Path
from typing import Any

from django.db.backends.signals import connection_created

from tests.settings import *  # noqa: F403

SCHEDULER.update(json.loads(os.environ.get("SCHEDULER_TESTS_MORE", "{}")))  # noqa: F405
seconds = os.environ.get("SCHEDULER_TESTS_SQLITE_PATIENCE")
if seconds and DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":  # noqa: F405
    DATABASES["default"]["OPTIONS"]["timeout"] = float(seconds)  # noqa: F405


# A fault point: while there is a file "stop", the process stops itself once before it inserts into this table.
if table := os.environ.get("SCHEDULER_TESTS_STOP_BEFORE_INSERT"):

    def stop_before_insert(execute: Any, sql: str, *rest: Any) -> Any:
        if f'INTO "{table}"' in sql and (asked := Path(os.environ["FOLDER"], "stop")).exists():
            asked.unlink()
            os.kill(os.getpid(), signal.SIGSTOP)
        return execute(sql, *rest)

    def add_fault_point(*, connection: Any, **_kwargs: object) -> None:
        connection.execute_wrappers.append(stop_before_insert)

    connection_created.connect(add_fault_point, weak=False)
