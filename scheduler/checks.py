"""System checks: what is wrong with the set-up, in one sentence each, before anything runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from scheduler.conf import scheduler_settings

if TYPE_CHECKING:
    from collections.abc import Sequence


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
    return found


@checks.register("scheduler")
def check_site(**_kwargs: Any) -> list[checks.CheckMessage]:
    """What the scheduler needs of the site's other settings."""
    found: list[checks.CheckMessage] = []
    if "guardian" not in settings.INSTALLED_APPS:
        found.append(checks.Error("'guardian' is not in INSTALLED_APPS; add it.", id="scheduler.E002"))
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
