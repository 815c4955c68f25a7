"""The tests' settings for the pollers of the fault suite; a test adds what it needs in environment variables."""

import json
import os

from tests.settings import *  # noqa: F403

SCHEDULER.update(json.loads(os.environ.get("SCHEDULER_TESTS_MORE", "{}")))  # noqa: F405
if seconds := os.environ.get("SCHEDULER_TESTS_SQLITE_PATIENCE"):
    DATABASES["default"]["OPTIONS"]["timeout"] = float(seconds)  # noqa: F405
