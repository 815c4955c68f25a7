"""A whole production site on loopback: nginx, gunicorn on a Unix socket, and the database of this test run."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings as site_settings
from django.core.cache import caches
from django.db import connection
from django.test import Client

from tests.runs.conftest import database_url

from .site import DEPLOY, PROJECT, Site, exec_line, fill_in, running, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.contrib.auth.models import User
    from pytest_django.plugin import DjangoDbBlocker

LOG_INS = "django_cache_logins"


@pytest.fixture(scope="session")
def production(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[Site]:
    """The site: started once, since a start takes seconds."""
    folder = Path(tempfile.mkdtemp(prefix="scheduler-site-"))
    folder.chmod(0o755)
    with running(folder) as site:
        with django_db_blocker.unblock():
            environment = environment_of(site)
            connection.close()
        for command in (["collectstatic", "--no-input"], ["createcachetable"]):
            manage = [sys.executable, str(PROJECT / "manage.py"), *command, "--verbosity", "0"]
            subprocess.run(manage, env=environment, check=True)
        unit = fill_in(DEPLOY / "systemd" / "scheduler-web.service", site.variables)
        with (site.folder / "gunicorn.log").open("wb") as log:
            site.start(exec_line(unit), cwd=PROJECT, env=environment, stderr=log)
        wait_until(site.socket.exists, "gunicorn listens")
        site.start_nginx()
        wait_until(lambda: site.request("/accounts/login/").status == 200, "the site answers")
        yield site
        site.end()
        with django_db_blocker.unblock(), connection.cursor() as cursor:
            cursor.execute(f"DROP TABLE {LOG_INS}")


def environment_of(site: Site) -> dict[str, str]:
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "DJANGO_HTTPS": "1",
        "DJANGO_ALLOWED_HOSTS": "localhost",
        "DATABASE_URL": database_url(),
        "SCHEDULER_VAR": str(site.folder),
        "SCHEDULER_ROOT": str(site.folder),
        "SENDFILE_BACKEND": "django_sendfile.backends.nginx",
    }


@pytest.fixture
def whole_site(production: Site, transactional_db: None, settings: Any) -> Iterator[Site]:
    """The running site, with this test's rows; the store of this process is the site's."""
    settings.SCHEDULER = {**site_settings.SCHEDULER, "ROOT": production.folder}
    settings.SENDFILE_ROOT = production.store
    with connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {LOG_INS}")
    yield production
    caches["logins"].clear()


def session_of(user: User) -> str:
    """The Cookie header of a signed-in user."""
    client = Client()
    client.force_login(user)
    return f"__Host-sessionid={client.cookies['sessionid'].value}"


@contextmanager
def log_of(site: Site) -> Iterator[list[str]]:
    """What gunicorn's log gets meanwhile, for a test that wants nothing in it."""
    path = site.folder / "gunicorn.log"
    before = path.stat().st_size
    lines: list[str] = []
    yield lines
    with path.open(errors="replace") as log:
        log.seek(before)
        lines += log.read().splitlines()
