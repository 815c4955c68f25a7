"""One server, one browser and one set of rows for a module: what is looked at there changes nothing."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from django.test import override_settings
from pytest_django.live_server_helper import LiveServer

from .looking import Chromium
from .rows import Rows, make_rows

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def db(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """The database, as pytest-django's own fixture of this name gives it to one test, for a whole module."""
    with django_db_blocker.unblock():
        yield
        call_command("flush", verbosity=0, interactive=False)
        connections.close_all()


@pytest.fixture(scope="module")
def rows(db: None) -> Iterator[Rows]:
    """Rows in the database and files in a store, until the module is over."""
    folder = Path(tempfile.mkdtemp(prefix="scheduler-browser-"))
    programs = folder / "programs"
    programs.mkdir(mode=0o755)
    values = {**settings.SCHEDULER, "ROOT": folder / "scheduler", "PROGRAM_ROOTS": {"programs": programs}}
    store = folder / "scheduler" / "store"
    with override_settings(SCHEDULER=values, SENDFILE_ROOT=store, ALLOWED_HOSTS=["localhost"]):
        yield make_rows(programs)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def chromium(rows: Rows) -> Iterator[Chromium]:
    server = LiveServer("localhost")
    try:
        with Chromium(server.url) as chromium:
            yield chromium
    finally:
        server.stop()
