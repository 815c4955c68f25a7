"""Under django-unfold; in a process of its own, as the admin is made when it is imported."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent


@pytest.mark.skipif(importlib.util.find_spec("unfold") is None, reason="django-unfold is not installed")
def test_the_pages_work_under_unfold() -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith("SCHEDULER_")}
    own.pop("DATABASE_URL", None)  # SQLite, in a folder of its own
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--nomigrations"]
    command += ["--ds", "tests.unfold_settings", "tests/unfold_pages.py"]
    done = subprocess.run(command, cwd=PROJECT, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
