"""System checks: what is wrong with the set-up, in one sentence each, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured

from scheduler.conf import scheduler_settings


@checks.register("scheduler")
def check_settings(**_kwargs: Any) -> list[checks.CheckMessage]:
    try:
        given = scheduler_settings()
    except ImproperlyConfigured as error:
        return [checks.Error(str(error), id="scheduler.E001")]
    found: list[checks.CheckMessage] = []
    for name, folder in given.program_roots.items():
        if not folder.is_dir():
            found.append(
                checks.Warning(
                    f"The program folder {name!r} ({folder}) does not exist; no program of it can be run.",
                    hint="Make the folder, or take it out of SCHEDULER['PROGRAM_ROOTS'].",
                    id="scheduler.W001",
                )
            )
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
