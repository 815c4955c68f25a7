"""System checks: what is wrong with the set-up, in one sentence each, before anything runs."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections, router

from scheduler.conf import scheduler_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

NGINX_BACKEND = "django_sendfile.backends.nginx"


@checks.register("scheduler")
def check_settings(**_kwargs: Any) -> list[checks.CheckMessage]:
    try:
        given = scheduler_settings()
    except ImproperlyConfigured as error:
        return [checks.Error(str(error), id="scheduler.E001")]
    found: list[checks.CheckMessage] = [
        checks.Warning(
            f"The program folder {name!r} ({folder}) does not exist; no program of it can be run.",
            hint="Make the folder, or take it out of SCHEDULER['PROGRAM_ROOTS'].",
            id="scheduler.W001",
        )
        for name, folder in given.program_roots.items()
        if not folder.is_dir()
    ]
    found += [
        checks.Warning(
            f"The program folder {name!r} ({folder}) can be written by other users than its owner; "
            "no program of it can be run.",
            hint=f"Whoever can write there can run code as the tasks' user: chmod go-w {folder}",
            id="scheduler.W004",
        )
        for name, folder in given.program_roots.items()
        if _mode(folder) & (stat.S_IWGRP | stat.S_IWOTH)
    ]
    # Both are folders that are compared as paths: a symbolic link in one of them must not matter.
    sendfile_root = getattr(settings, "SENDFILE_ROOT", None)
    if sendfile_root is None or os.path.realpath(sendfile_root) != os.path.realpath(given.store):
        found.append(
            checks.Error(
                f"SENDFILE_ROOT is not the scheduler's store ({given.store}); no file could be downloaded.",
                hint="Set SENDFILE_ROOT to that folder, by default SCHEDULER['ROOT'] / 'store'.",
                id="scheduler.E004",
            )
        )
    if not getattr(settings, "SENDFILE_BACKEND", None):
        found.append(
            checks.Error(
                "SENDFILE_BACKEND is not set; no file could be downloaded.",
                hint="Set it to 'scheduler.sendfile', or to 'django_sendfile.backends.nginx' behind nginx.",
                id="scheduler.E005",
            )
        )
    return found + _check_store(given.store) + _check_sendfile_url()


def _check_store(store: Path) -> list[checks.CheckMessage]:
    """Files of the store go out through one view only, and nobody but the poller puts anything in."""
    found: list[checks.CheckMessage] = []
    for name in ("MEDIA_ROOT", "STATIC_ROOT"):
        public = getattr(settings, name, None)
        if public and _overlap(store, Path(public)):
            found.append(
                checks.Error(
                    f"The scheduler's store ({store}) and {name} ({public}) lie inside each other; "
                    "everybody could read the files of all tasks.",
                    hint="Give the store a folder that no web server serves.",
                    id="scheduler.E008",
                )
            )
    if _mode(store) & stat.S_IWOTH:
        found.append(
            checks.Error(
                f"Every user of this machine can write into the scheduler's store ({store}).",
                hint=f"chmod 2750 {store}",
                id="scheduler.E009",
            )
        )
    return found


def _check_sendfile_url() -> list[checks.CheckMessage]:
    url = getattr(settings, "SENDFILE_URL", None)
    if _sendfile_backend() != NGINX_BACKEND or (isinstance(url, str) and len(url) > 2 and url[0] == url[-1] == "/"):
        return []
    return [
        checks.Error(
            f"SENDFILE_URL is {url!r}, which cannot be the address of nginx's internal location.",
            hint="Set it to that address, such as '/protected/', with a slash at both ends; and so in nginx.",
            id="scheduler.E010",
        )
    ]


def _overlap(one: Path, other: Path) -> bool:
    one, other = one.resolve(), other.resolve()
    return one.is_relative_to(other) or other.is_relative_to(one)


def _mode(folder: Path) -> int:
    """0 for a folder that is not there (yet), or that this user may not look at."""
    try:
        return folder.stat().st_mode
    except OSError:
        return 0


def _sendfile_backend() -> str:
    return str(getattr(settings, "SENDFILE_BACKEND", None) or "")


@checks.register("scheduler")
def check_site(**_kwargs: Any) -> list[checks.CheckMessage]:
    """What the scheduler needs of the site's other settings."""
    found: list[checks.CheckMessage] = []
    if "guardian" not in settings.INSTALLED_APPS:
        found.append(checks.Error("'guardian' is not in INSTALLED_APPS; add it.", id="scheduler.E002"))
    if "guardian.backends.ObjectPermissionBackend" not in settings.AUTHENTICATION_BACKENDS:
        found.append(
            checks.Error(
                "guardian's backend is not in AUTHENTICATION_BACKENDS; permissions on a task would count for little.",
                hint="Add 'guardian.backends.ObjectPermissionBackend'.",
                id="scheduler.E007",
            )
        )
    if getattr(settings, "ANONYMOUS_USER_NAME", "AnonymousUser") is not None:
        found.append(
            checks.Warning(
                "guardian makes a user row for anonymous visitors.",
                hint="Set ANONYMOUS_USER_NAME = None.",
                id="scheduler.W002",
            )
        )
    if not settings.USE_TZ:
        found.append(
            checks.Error(
                "USE_TZ is False: without time zones the scheduler cannot tell when something is due.",
                hint="Set USE_TZ = True.",
                id="scheduler.E006",
            )
        )
    run = apps.get_model("scheduler", "Run")
    if {router.db_for_read(run), router.db_for_write(run)} != {DEFAULT_DB_ALIAS}:
        found.append(
            checks.Error(
                "DATABASE_ROUTERS send reads or writes of the scheduler's tables to another database than 'default': "
                "its locks would not hold there.",
                hint="Let the routers answer 'default' (or None) for the app 'scheduler'.",
                id="scheduler.E011",
            )
        )
    return found


@checks.register(checks.Tags.database, "scheduler")
def check_sqlite(*, databases: Sequence[str] | None = None, **_kwargs: Any) -> list[checks.CheckMessage]:
    """SQLite's default transactions fail beside a second writer, and the poller is one."""
    found: list[checks.CheckMessage] = []
    for alias in databases or []:
        options = connections[alias].settings_dict["OPTIONS"]
        if connections[alias].vendor == "sqlite" and options.get("transaction_mode") != "IMMEDIATE":
            found.append(
                checks.Warning(
                    f"The SQLite database {alias!r} does not begin its transactions as IMMEDIATE; "
                    "beside the poller, requests fail now and then with “database is locked”.",
                    hint="Set DATABASES[…]['OPTIONS']['transaction_mode'] to 'IMMEDIATE', as the README shows.",
                    id="scheduler.W003",
                )
            )
    return found


@checks.register("scheduler", deploy=True)
def check_production(**_kwargs: Any) -> list[checks.CheckMessage]:
    """What works, and is not meant for a site that others use."""
    found: list[checks.CheckMessage] = []
    if _sendfile_backend() == "scheduler.sendfile":
        found.append(
            checks.Warning(
                "Files are sent by the web processes themselves: each download keeps one of them busy.",
                hint="Let the web server send them: SENDFILE_BACKEND = 'django_sendfile.backends.nginx'.",
                id="scheduler.W006",
            )
        )
    if settings.DATABASES.get("default", {}).get("ENGINE") == "django.db.backends.sqlite3":
        found.append(
            checks.Warning(
                "The database is SQLite: all users of the site and the poller wait for one writer at a time.",
                hint="Use PostgreSQL.",
                id="scheduler.W007",
            )
        )
    if getattr(settings, "SECURE_PROXY_SSL_HEADER", None) and not settings.SCHEDULER.get("CLIENT_ADDRESS_HEADER"):
        found.append(
            checks.Warning(
                "The site is behind a proxy, and the audit would note the proxy's address for everybody.",
                hint="Set SCHEDULER['CLIENT_ADDRESS_HEADER'] to the header that the proxy sets, such as 'X-Real-IP'.",
                id="scheduler.W008",
            )
        )
    return found


@checks.register("scheduler")
def check_right_package(**_kwargs: Any) -> list[checks.CheckMessage]:
    """PyPI has other packages that install a module ``scheduler``."""
    import scheduler

    here = Path(__file__).resolve().parent
    imported = Path(scheduler.__file__ or "").resolve().parent
    if imported != here:
        return [
            checks.Error(
                f"The module 'scheduler' is imported from {imported}, not from {here}.",
                hint="Another package installs a module of that name; uninstall it.",
                id="scheduler.E003",
            )
        ]
    return []
