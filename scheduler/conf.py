"""The one reader of ``settings.SCHEDULER``.

Every key is optional except ``ROOT`` and ``PROGRAM_ROOTS``; ``docs/settings.md`` describes them all, and a test fails
when one is missing there.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003  (read by dataclasses.fields at run time)
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

ENVIRONMENT_ALLOWED = ("PATH", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ", "HOME", "USER", "LOGNAME", "TMPDIR")


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerSettings:
    """``settings.SCHEDULER``, checked, with its defaults."""

    root: Path
    """The scheduler's own folder on a local disk: run folders, wake-up sockets and (by default) the store."""
    program_roots: Mapping[str, Path]
    """Name -> folder. Only programs below these folders can be run."""
    program_users: Mapping[str, str]
    """Name of a program root -> the Unix user that its programs run as; others run as the poller's own user."""
    interpreters: Mapping[str, Path]
    """Name -> a Python that tasks may choose instead of the site's own, such as that of another virtual environment."""
    store: Path
    """The folder of collected outputs and logs, which the web server's user may read. Default: ROOT/store."""
    store_group: str = ""
    """The Unix group that may read the store; empty: the poller's own group."""
    capacity: int = 4
    """How many runs one host processes at once."""
    warm: bool = True
    """Whether runs of ``django`` tasks are forked from a process that has Django loaded."""
    parked: int = 2
    """How many processes wait forked and ready for a run to start; 0 for none."""
    warm_starts: int = 1000
    """After so many starts the warm process is replaced."""
    warm_bytes: int = 512 * 1024**2
    """A warm process that has grown over so many bytes is replaced."""
    project_folder: Path | None = None
    """Put on PYTHONPATH of ``django`` tasks, so that the site's packages can be imported. Default: BASE_DIR."""
    django_environment: tuple[str, ...] = ()
    """Names of further environment variables that a ``django`` task gets: what the site's settings read."""
    environment: tuple[str, ...] = ENVIRONMENT_ALLOWED
    """Names of the environment variables that every task gets."""
    cgroup: Path | None = None
    """A cgroup v2 folder in which the poller may make one for a run that is to be limited as a whole."""
    log_bytes: int = 256 * 1024**2
    """A run's log is cut here; the program goes on and the log says so."""
    output_bytes: int = 10 * 1024**3
    """The files of one run are collected up to this many bytes in all."""
    output_files: int = 10_000
    """At most this many files of one run are collected."""
    free_bytes: int = 100 * 1024**2
    """With less room than this on the disk of ROOT, or of the store, no run is started."""
    client_address_header: str = ""
    """The header in which the proxy writes the client's address, such as X-Real-IP; empty: the connection's own."""
    public_url: str = ""
    """Where people reach the site, such as https://example.org, for the links in mails; empty: links without it."""
    archive_bytes: int = 4 * 1024**3
    """A ZIP of a run's files is built when they are not larger than this in all."""


def scheduler_settings() -> SchedulerSettings:
    """The checked settings. Raises ImproperlyConfigured with one sentence when they cannot be used."""
    return _read()


@cache
def _read() -> SchedulerSettings:
    given = getattr(settings, "SCHEDULER", None)
    if not isinstance(given, dict):
        raise ImproperlyConfigured(
            "settings.SCHEDULER is missing. Set it to a dict with at least ROOT and PROGRAM_ROOTS."
        )
    known = {field.name.upper() for field in fields(SchedulerSettings)}
    for key in given:
        if key not in known:
            raise ImproperlyConfigured(
                f"settings.SCHEDULER has an unknown key {key!r}. Known: {', '.join(sorted(known))}."
            )
    for key in ("ROOT", "PROGRAM_ROOTS"):
        if not given.get(key):
            raise ImproperlyConfigured(f"settings.SCHEDULER has no {key!r}.")
    values: dict[str, Any] = {key.lower(): value for key, value in given.items()}
    values["root"] = _absolute("ROOT", values["root"])
    values["store"] = _absolute("STORE", values.get("store") or values["root"] / "store")
    roots = values["program_roots"]
    if not isinstance(roots, dict) or not all(isinstance(name, str) and name and "/" not in name for name in roots):
        raise ImproperlyConfigured(
            "settings.SCHEDULER['PROGRAM_ROOTS'] must be a dict of name (without '/') to folder."
        )
    values["program_roots"] = {name: _absolute("PROGRAM_ROOTS", folder) for name, folder in roots.items()}
    users = values.setdefault("program_users", {})
    if not isinstance(users, dict) or not set(users) <= set(roots):
        raise ImproperlyConfigured(
            "settings.SCHEDULER['PROGRAM_USERS'] must be a dict of names in PROGRAM_ROOTS to Unix users."
        )
    interpreters = values.setdefault("interpreters", {})
    if not isinstance(interpreters, dict) or not all(isinstance(name, str) and name for name in interpreters):
        raise ImproperlyConfigured("settings.SCHEDULER['INTERPRETERS'] must be a dict of name to the path of a Python.")
    values["interpreters"] = {name: _absolute("INTERPRETERS", path) for name, path in interpreters.items()}
    project = values.get("project_folder") or getattr(settings, "BASE_DIR", None)
    values["project_folder"] = _absolute("PROJECT_FOLDER", project) if project else None
    values["cgroup"] = _absolute("CGROUP", values["cgroup"]) if values.get("cgroup") else None
    for key in ("django_environment", "environment"):
        if key in values:
            if isinstance(values[key], str):
                raise ImproperlyConfigured(
                    f"settings.SCHEDULER[{key.upper()!r}] must be a list of names, not a string."
                )
            values[key] = tuple(values[key])
    counted = ("capacity", "log_bytes", "output_bytes", "output_files", "archive_bytes", "free_bytes")
    for key in (*counted, "warm_starts", "warm_bytes"):
        if key in values and (not isinstance(values[key], int) or values[key] < 1):
            raise ImproperlyConfigured(f"settings.SCHEDULER[{key.upper()!r}] must be a whole number of 1 or more.")
    if not isinstance(values.get("warm", True), bool):
        raise ImproperlyConfigured("settings.SCHEDULER['WARM'] must be True or False.")
    if not isinstance(values.get("parked", 0), int) or values.get("parked", 0) < 0:
        raise ImproperlyConfigured("settings.SCHEDULER['PARKED'] must be a whole number of 0 or more.")
    if not isinstance(values.get("client_address_header", ""), str):
        raise ImproperlyConfigured("settings.SCHEDULER['CLIENT_ADDRESS_HEADER'] must be the name of a header.")
    public_url = values.get("public_url", "")
    if not isinstance(public_url, str) or (public_url and not public_url.startswith(("https://", "http://"))):
        raise ImproperlyConfigured("settings.SCHEDULER['PUBLIC_URL'] must be an address such as https://example.org.")
    values["public_url"] = public_url.rstrip("/")
    return SchedulerSettings(**values)


def _absolute(key: str, value: object) -> Path:
    path = Path(str(value))
    if not path.is_absolute():
        raise ImproperlyConfigured(
            f"settings.SCHEDULER[{key!r}] has the relative path {str(value)!r}; give an absolute one."
        )
    return path


def _forget(*, setting: str, **_kwargs: object) -> None:
    if setting in {"SCHEDULER", "BASE_DIR"}:
        _read.cache_clear()


setting_changed.connect(_forget, dispatch_uid="scheduler.conf")
