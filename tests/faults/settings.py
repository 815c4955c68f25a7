"""The tests' settings for the pollers of the fault suite; a test adds keys of SCHEDULER in an environment variable."""

import json
import os

from tests.settings import *  # noqa: F403

SCHEDULER.update(json.loads(os.environ.get("SCHEDULER_TESTS_MORE", "{}")))  # noqa: F405
