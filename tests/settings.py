"""The project's settings, with folders of the test run's own."""

import os
import tempfile
from pathlib import Path

_folder = Path(tempfile.mkdtemp(prefix="scheduler-tests-"))
os.environ.setdefault("SCHEDULER_VAR", str(_folder))
os.environ.setdefault("DJANGO_SECRET_KEY", "only-for-tests-" + "x" * 50)

from conf.settings import *  # noqa: E402, F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
